"""Shows what the agent does beside the messages of one place, and takes it back in the end, whatever happens meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

import structlog

from bots.delivery.outlet import Outlet
from bots.pacing import Rank
from bots.surface import AccountClosed, Busy, Call, SurfaceError, Unclear, Unreachable
from core.models import AgentStatus, Place

Status = tuple[AgentStatus, str]
"""With a sentence."""
Doing = Callable[[], Status | None]
IDLE: Status = (AgentStatus.IDLE, "")
_log = structlog.get_logger()


class Note(Protocol):
    """Notes whether the platform may be showing that the agent works."""

    def __call__(self, *, is_shown: bool) -> Awaitable[None]: ...


class StatusLine:
    """Brings what the platform shows to what `doing` tells; None from it changes nothing."""

    def __init__(self, outlet: Outlet, place: Callable[[], Place], doing: Doing, note: Note) -> None:
        self._outlet = outlet
        self._rules = outlet.rules
        self._place = place
        self._doing = doing
        self._note = note
        self._changed = asyncio.Event()
        self._shown: Status | None = IDLE
        """None where it is not known."""

    @property
    def is_idle(self) -> bool:
        return self._shown == IDLE

    def may_be_shown(self) -> None:
        """Somebody before may have left it: it is taken back where the agent is idle."""
        self._shown = None

    def look(self) -> None:
        """What the agent does may have changed."""
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._changed.clear()
            if self._is_right():
                await self._rest()
                continue
            await self._outlet.granted(Call.STATUS, self._place(), Rank.CONTROL)
            await self._outlet.ready()
            if (wanted := self._doing()) and wanted != self._shown:
                await self._show(wanted)
            else:
                self._outlet.give_back(Call.STATUS, self._place())

    def _is_right(self) -> bool:
        wanted = self._doing()
        return wanted is None or wanted == self._shown

    async def _rest(self) -> None:
        """Until it changes, or until the platform may have taken it back."""
        try:
            async with asyncio.timeout(None if self.is_idle else self._outlet.surface.limits(self._place()).status_seconds):
                await self._changed.wait()
        except TimeoutError:
            self.may_be_shown()

    async def _show(self, wanted: Status) -> None:
        if wanted != IDLE:
            await self._note(is_shown=True)
        self.may_be_shown()
        try:
            await self._outlet.finish(self._outlet.surface.show_status(self._place(), *wanted))
        except Busy as error:
            self._outlet.busy(Call.STATUS, self._place(), error)
            await asyncio.sleep(error.retry_after)
            return
        except AccountClosed as error:
            self._outlet.close(error)
            return
        except (Unclear, Unreachable):
            await asyncio.sleep(self._rules.settle_seconds)
            return
        except SurfaceError as error:
            _log.info("delivery.status_not_shown", error=type(error).__name__)
        self._shown = wanted
        if wanted == IDLE:
            await self._note(is_shown=False)

    async def take_back(self) -> None:
        """Where nothing can be noted any more."""
        if not self.is_idle:
            with suppress(SurfaceError):
                await self._outlet.ready()
                await self._outlet.finish(self._outlet.surface.show_status(self._place(), *IDLE))
