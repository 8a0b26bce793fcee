"""What one person alone is told, and how often."""

from contextlib import suppress
from datetime import timedelta

from bots.reminders import Reminders
from bots.surface import ChatSurface, SurfaceError
from core.models import Place
from core.ports import Clock


class Telling:
    """Of one account."""

    def __init__(self, surface: ChatSurface, clock: Clock) -> None:
        self._surface = surface
        self._reminders = Reminders(clock)

    async def tell(self, place: Place, person: str, sentence: str, *, otherwise: str = "") -> None:
        """`otherwise` is what everybody there may read where the person can be told nothing alone; empty: the sentence is."""
        with suppress(SurfaceError):  # what was done is done; whoever cannot be told cannot be told that either
            await self._surface.tell(place, person, sentence, otherwise=otherwise)

    async def remind(self, place: Place, person: str, sentence: str) -> None:
        """Not again there within a minute."""
        without_numbers = "".join(letter for letter in sentence if not letter.isdigit())  # as in `Try again in 7 s`
        if self._reminders.may_tell(f"{place.channel}:{place.thread}:{person}:{without_numbers}", timedelta(minutes=1)):
            await self.tell(place, person, sentence)

    async def turn_away(self, place: Place, person: str, sentence: str) -> None:
        """Not again within an hour, wherever."""
        if self._reminders.may_tell(f"{person}:{sentence}", timedelta(hours=1)):
            await self.tell(place, person, sentence)
