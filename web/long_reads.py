"""Requests that go through much of the database: few at once, one of each kind and person, and none for who has gone.

Searches that nobody waits for any more, one for each letter that somebody typed, would otherwise keep all connections for reading.
"""

import asyncio
from collections.abc import Coroutine, Hashable
from typing import Any, Final, Literal, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from core.access import Principal
from core.errors import RateLimited

AT_ONCE: Final = 2
"""In a process, which has five connections for reading: others find one free."""
WAIT_SECONDS: Final = 30.0
"""For those of others."""
_T = TypeVar("_T")


class LongReads:
    def __init__(self, at_once: int = AT_ONCE, wait_seconds: float = WAIT_SECONDS) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._wait_seconds = wait_seconds
        self._running: dict[Hashable, asyncio.Task[Any]] = {}

    async def run(self, whose: Hashable, work: Coroutine[Any, Any, _T]) -> _T:
        """What `work` gives. It ends the one before it of the same `whose`, whose caller gets RateLimited.

        Raises RateLimited also where its turn does not come.
        """
        if older := self._running.get(whose):
            older.cancel()
        task = asyncio.create_task(self._in_turn(work), name="long read")
        self._running[whose] = task
        try:
            return await task
        except asyncio.CancelledError:
            me = asyncio.current_task()
            if me and me.cancelling():
                raise
            raise RateLimited("You asked for something else meanwhile, which is looked for instead.", retry_after=1) from None
        finally:
            work.close()  # it may never have begun
            if self._running.get(whose) is task:
                del self._running[whose]

    async def _in_turn(self, work: Coroutine[Any, Any, _T]) -> _T:
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._free.acquire()
        except TimeoutError:
            raise RateLimited("Too much is looked for at the moment. Try again soon.", retry_after=5) from None
        try:
            return await work
        finally:
            self._free.release()


async def once_for(request: Request, caller: Principal, what: Literal["search", "usage"], work: Coroutine[Any, Any, _T]) -> _T:
    """What `work` gives: one of this kind for this caller, as long as the client waits for it.

    Raises RateLimited, and ClientDisconnect where nobody waits any more.
    """
    reads: LongReads = request.app.state.long_reads
    working = asyncio.create_task(reads.run((what, caller.user_id), work), name=f"{what} of a request")
    gone = asyncio.create_task(_disconnected(request), name="disconnect of a request")
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return await working
    finally:
        for each in (working, gone):
            each.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
