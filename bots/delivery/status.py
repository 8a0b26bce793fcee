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
        self._fades = False
        """Whether the platform may have taken it back."""

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
            wanted = self._doing()
            if wanted is None or self._is_right(wanted):
                await self._rest()
            elif not self._can_show(wanted):  # what was shown goes by itself
                await self._now_shown(wanted)
            else:
                await self._outlet.granted(Call.STATUS, self._place(), Rank.LIVE if wanted == self._shown else Rank.CONTROL)
                await self._outlet.ready()
                await self._show_now()

    def _is_right(self, wanted: Status) -> bool:
        return wanted == self._shown and not self._fades

    def _can_show(self, status: Status) -> bool:
        return status[0] in self._outlet.surface.statuses

    async def _rest(self) -> None:
        """Until it changes, or until the platform may have taken it back."""
        is_shown = self._shown is not None and self._shown != IDLE and self._can_show(self._shown)
        try:
            async with asyncio.timeout(self._outlet.surface.limits(self._place()).status_seconds if is_shown else None):
                await self._changed.wait()
        except TimeoutError:
            self._fades = True

    async def _show_now(self) -> None:
        """What it is by now."""
        wanted = self._doing()
        if wanted and self._can_show(wanted) and not self._is_right(wanted):
            await self._show(wanted)
        else:
            self._outlet.give_back(Call.STATUS, self._place())

    async def _show(self, wanted: Status) -> None:
        if wanted != IDLE and AgentStatus.IDLE in self._outlet.surface.statuses:
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
        await self._now_shown(wanted)

    async def _now_shown(self, status: Status) -> None:
        self._shown, self._fades = status, False
        if status == IDLE:
            await self._note(is_shown=False)

    async def take_back(self) -> None:
        """Where nothing can be noted any more."""
        if not self.is_idle and self._can_show(IDLE):
            with suppress(SurfaceError):
                await self._outlet.ready()
                await self._outlet.finish(self._outlet.surface.show_status(self._place(), *IDLE))
