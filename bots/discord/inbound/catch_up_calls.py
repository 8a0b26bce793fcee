"""Calls that catch up: few at a time, since Discord's limits are for those that answer people, and each made again until it is answered.
Who has to wait long for that steps aside, so that others are read meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import structlog

from bots.discord.failures import translated
from bots.surface import Busy, Unclear, Unreachable
from core.errors import StorageUnavailable

_T = TypeVar("_T")
_LEAST_PAUSE_SECONDS = 0.05
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    lists: int = 4
    """Guilds, or direct messages, that are looked through side by side."""
    channels: int = 4
    """Histories that are read side by side."""
    calls_per_second: float = 20.0
    """Of the 50 that Discord allows a bot."""
    burst: int = 20
    """Calls that may be made at once after a rest."""
    patience_seconds: float = 60.0
    """So long what comes live waits for what was said before it."""
    homes: int = 50
    """Of the places that show a conversation, so many in which edits and deletions are looked for: those used last."""
    directs: int = 1_000
    """Direct messages that are looked at: those used last."""
    removed: int = 20
    """Of one place. Where more seem to be gone, its history is not believed, and each is asked for."""
    again_seconds: float = 1.0
    """After a call failed; doubled each time."""
    longest_seconds: float = 60.0
    aside_seconds: float = 5.0
    """Who waits longer gives up its place to others for that time."""


class Seat:
    """One of a few places, while it is not given up."""

    def __init__(self, places: asyncio.Semaphore, aside_seconds: float) -> None:
        self._places = places
        self._aside_seconds = aside_seconds
        self._taken = False

    async def take(self) -> None:
        await self._places.acquire()
        self._taken = True

    def leave(self) -> None:
        if self._taken:
            self._taken = False
            self._places.release()

    async def wait(self, seconds: float) -> None:
        if seconds <= self._aside_seconds:
            await asyncio.sleep(seconds)
            return
        self.leave()
        await asyncio.sleep(seconds)
        await self.take()


class CatchUpCalls:
    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._free_at = 0.0
        self._lists = asyncio.Semaphore(pace.lists)
        self._histories = asyncio.Semaphore(pace.channels)
        self._far_back = asyncio.Semaphore(1)

    @asynccontextmanager
    async def listing(self) -> AsyncIterator[Seat]:
        async with self._seated(self._lists) as seat:
            yield seat

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Seat]:
        async with self._seated(self._histories) as seat:
            yield seat

    @asynccontextmanager
    async def reading_far_back(self) -> AsyncIterator[Seat]:
        """Of which nobody waits for the end."""
        async with self._seated(self._far_back) as seat:
            yield seat

    async def patiently(self, call: Callable[[], Awaitable[_T]], seat: Seat) -> _T:
        """Until it passes what keeps Discord from answering; raises the SurfaceErrors that do not pass by themselves."""
        pause = self._pace.again_seconds
        while True:
            await self._turn()
            try:
                with translated():
                    return await call()
            except Busy as error:
                seconds = max(error.retry_after, _LEAST_PAUSE_SECONDS)
            except (Unreachable, Unclear) as error:
                _log.warning("discord.not_answered", error=type(error).__name__)
                seconds, pause = pause, min(pause * 2, self._pace.longest_seconds)
            await seat.wait(seconds)

    async def stored(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Likewise of the database."""
        while True:
            try:
                return await work()
            except StorageUnavailable:
                await asyncio.sleep(self._pace.again_seconds)

    @asynccontextmanager
    async def _seated(self, places: asyncio.Semaphore) -> AsyncIterator[Seat]:
        seat = Seat(places, self._pace.aside_seconds)
        await seat.take()
        try:
            yield seat
        finally:
            seat.leave()

    async def _turn(self) -> None:
        """Until another call may be made."""
        now, gap = asyncio.get_running_loop().time(), 1 / self._pace.calls_per_second
        self._free_at = max(self._free_at, now - gap * self._pace.burst) + gap
        await asyncio.sleep(max(0.0, self._free_at - now))
