"""The calls about a place itself: its thread is made, named and put away, and what it is called is learned. Whatever becomes of them, what
is said there goes on meanwhile.
"""

import asyncio
import random
from dataclasses import replace

import structlog

from bots.delivery.due import Act, Step
from bots.delivery.notes import Notes
from bots.delivery.outlet import Outlet
from bots.delivery.picture import Picture
from bots.delivery.threads import Attempts
from bots.surface import (
    AccountClosed,
    Busy,
    Call,
    MessageGone,
    NoThread,
    PermissionMissing,
    PlaceClosed,
    Refused,
    SurfaceError,
    TooLong,
    Unclear,
    Unreachable,
)

_log = structlog.get_logger()


class PlaceCalls:
    """Raises PlaceClosed where nothing can be sent to the place any more, and what `Notes` raises."""

    def __init__(self, outlet: Outlet, picture: Picture, notes: Notes) -> None:
        self._outlet = outlet
        self._surface = outlet.surface
        self._rules = outlet.rules
        self._picture = picture
        self._notes = notes

    async def take(self, step: Step) -> None:
        """Does it; what it needs was granted."""
        match step.act:
            case Act.MARK:
                await self._notes.arranged(self._picture.mark or self._picture.binding.arranged)
            case Act.OPEN:
                await self._open()
            case Act.ARRANGE:
                await self._arrange()
            case Act.LEARN:
                await self._learn()

    async def _open(self) -> None:
        picture, wanted = self._picture, self._picture.arrangement
        try:
            thread = await self._outlet.finish(self._made(picture.root, wanted.ref if picture.opening.by_ref else wanted.title))
        except SurfaceError as error:
            self._not_opened(error)
            return
        await self._notes.opened(thread, replace(wanted, archived=False).noted if self._surface.makes_threads else "")

    async def _made(self, root: str, title: str) -> str:
        """What was broken off here may happen all the same; to ask again gives the same thread."""
        try:
            async with asyncio.timeout(self._rules.open_call_seconds):
                return await self._surface.open(self._picture.place, root, title)
        except TimeoutError:
            raise Unclear("No answer.") from None

    def _not_opened(self, error: SurfaceError) -> None:
        opening = self._picture.opening
        match error:
            case PlaceClosed():
                raise error
            case NoThread(because_of="channel"):
                self._outlet.refuse_threads(self._picture.place.channel)
            case NoThread(because_of="title") if not opening.by_ref:
                opening.by_ref = True
            case NoThread() | MessageGone() | TooLong():
                opening.is_impossible = True
            case Refused() if opening.failures >= self._rules.refusals:
                opening.is_impossible = True
            case _:
                self._later(error, Call.OPEN, opening)
        _log.info("delivery.thread_not_made", binding_id=str(self._picture.binding.id), error=type(error).__name__)

    async def _arrange(self) -> None:
        picture, wanted = self._picture, self._picture.arrangement
        try:
            await self._outlet.finish(self._surface.arrange(picture.place, wanted.title, archived=wanted.archived))
        except (Busy, Unclear, Unreachable, AccountClosed) as error:
            self._later(error, Call.ARRANGE, picture.arranging)
            return
        except SurfaceError as error:  # people may not want it, and can do it themselves
            _log.info("delivery.thread_not_arranged", binding_id=str(picture.binding.id), error=type(error).__name__)
        picture.arranging = Attempts()
        await self._notes.arranged(wanted.noted)

    async def _learn(self) -> None:
        picture = self._picture
        try:
            spot = await self._outlet.finish(self._surface.look_up(picture.place))
        except (PermissionMissing, PlaceClosed, Refused) as error:  # whether it can be written to is found out by writing
            _log.info("delivery.place_not_learned", binding_id=str(picture.binding.id), error=type(error).__name__)
        except SurfaceError as error:
            if picture.learning.failures < self._rules.refusals:
                self._later(error, Call.LOOK, picture.learning)
                return
        else:
            await self._notes.learned(spot)
        picture.learning = Attempts()
        self._outlet.learned(picture.place)

    def _later(self, error: SurfaceError, call: Call, attempts: Attempts) -> None:
        """It is tried again, later each time. Nothing else waits for that."""
        attempts.failures += 1
        seconds = min(self._rules.backoff_seconds * 2 ** min(attempts.failures - 1, 16), self._rules.backoff_limit_seconds)
        seconds *= random.uniform(0.75, 1.25)
        match error:
            case Busy():
                self._outlet.busy(call, self._picture.place, error)
                seconds = error.retry_after
            case AccountClosed():
                self._outlet.close(error)
        attempts.not_before = asyncio.get_running_loop().time() + seconds
