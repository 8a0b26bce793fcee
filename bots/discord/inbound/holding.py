"""What comes live, and what of it is kept back: which guilds are heard, and which channels wait for their own past.

A guild is **closed** until it is known to be served, and what is new in it was listed; what it tells meanwhile waits here, and is dropped
where it turns out not to be served. Then it is **open**, but for channels whose history is to be read first: such a channel is **held**,
and with it the threads in it, since a thread's message concerns the bot because of what stands in the channel.

A held channel, and one that was let go on before its history could be read, is **owed**: what is heard of it does not move its cursor
(`cursors.py`), so that its history is still to be read after any restart. Everything here is done at once, in the event loop.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

from bots.discord.events import Spot
from bots.discord.inbound.spots import Spots
from core.models import JSON

Key = tuple[str, str]
"""A guild, which is empty for direct messages, and a channel or thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Something that Discord told just now."""

    kind: Literal["said", "edited", "deleted"]
    guild: str
    """Empty for a direct message."""
    channel: str
    """Or the thread."""
    message: JSON
    """Of what was deleted only its id."""


class Holding:
    def __init__(self, spots: Spots, *, each: int, together: int, hear: Callable[[Told], None]) -> None:
        self._spots = spots
        self._most = each, together
        self._hear = hear
        self._open: set[str] = set()
        self._late: set[str] = set()
        """Open, though it is not known what is new in them."""
        self._ignored: set[str] = set()
        self._held: dict[Key, list[Told]] = {}
        self._owed: set[Key] = set()
        self._lost: set[Key] = set()
        """More came than could be held, or stored."""
        self.missed: Callable[[str, str], None] = _nobody
        """Is told of which channel the history is to be read."""

    def keeps(self, told: Told) -> bool:
        """Whether this waits here now, or concerns nobody."""
        if told.guild in self._ignored:
            return True
        key = (told.guild, told.channel)
        if told.guild in self._open and key not in self._held and not self._follows(key):
            return False
        self._keep(key, told)
        return True

    def is_owed(self, spot: Spot) -> bool:
        return spot.guild in self._late or (spot.guild, spot.id) in self._owed or (spot.guild, spot.channel) in self._owed

    # --- guilds ---

    def close(self, guilds: Collection[str]) -> None:
        self._open -= set(guilds)
        self._late -= set(guilds)
        self._ignored -= set(guilds)

    def ignore(self, guild: str) -> None:
        self.close([guild])
        self._ignored.add(guild)
        self._held = {key: told for key, told in self._held.items() if key[0] != guild}
        self._owed = {key for key in self._owed if key[0] != guild}
        self._lost = {key for key in self._lost if key[0] != guild}

    def open(self, guild: str) -> None:
        """All of it but the channels that are held."""
        self._open.add(guild)
        self._late.discard(guild)
        for key in [key for key in self._held if key[0] == guild and key not in self._owed]:
            if not self._follows(key):
                self._let_go(key)

    def open_late(self, guild: str) -> None:
        """What is new in it is still to be listed: until then all of it is owed."""
        self.open(guild)
        self._late.add(guild)

    def owed(self, guild: str) -> list[str]:
        """The channels whose history is to be read."""
        return [channel for in_guild, channel in self._owed if in_guild == guild]

    # --- channels ---

    def hold(self, key: Key) -> None:
        self._owed.add(key)
        self._held.setdefault(key, [])

    def hold_back(self, told: Told, *, lost: bool) -> None:
        """The same because of this, which cannot be heard now, or could not be stored."""
        key = (told.guild, told.channel)
        self.hold(key)
        if lost:
            self._lost.add(key)
        else:
            self._keep(key, told)
        self.missed(*key)

    def has_lost(self, key: Key) -> bool:
        """Whether some of what came was lost: then its history is to be read, from now on."""
        return key in self._lost

    def forgive(self, key: Key) -> None:
        """Its history is read from now on."""
        self._lost.discard(key)

    def go_on(self, key: Key) -> None:
        """Lets it be heard, though its history was not read. What stands nobody knows where is dropped."""
        for told in self._held.pop(key, ()):
            if self._spots.at(told.channel, told.guild):
                self._hear(told)
        self._let_threads_go(key)

    def release(self, key: Key) -> None:
        """Its history was read."""
        self._owed.discard(key)
        self._let_go(key)

    def _let_go(self, key: Key) -> None:
        waiting = self._held.pop(key, ())
        if key in self._lost:
            self.hold(key)
            self.missed(*key)
            return
        for told in waiting:
            self._hear(told)
        self._let_threads_go(key)

    def _let_threads_go(self, parent: Key) -> None:
        guild, channel = parent
        for key in [key for key in self._held if key[0] == guild and key not in self._owed]:
            spot = self._spots.at(key[1], guild)
            if spot and spot.thread and spot.channel == channel and guild in self._open:
                self._let_go(key)

    def _follows(self, key: Key) -> bool:
        """Whether it is a thread in a channel that is held."""
        guild, channel = key
        spot = self._spots.at(channel, guild)
        return spot is not None and spot.thread != "" and (guild, spot.channel) in self._held

    def _keep(self, key: Key, told: Told) -> None:
        each, together = self._most
        waiting = self._held.setdefault(key, [])
        waiting.append(told)
        if len(waiting) > each or sum(map(len, self._held.values())) > together:
            waiting.clear()
            self._lost.add(key)


def _nobody(_guild: str, _channel: str) -> None:
    """Nobody is told."""
