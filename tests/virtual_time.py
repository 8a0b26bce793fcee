"""An event loop whose time passes only while nothing can be done: hours go by in an instant, and always alike.

What threads do for the loop, SQLite's among them, takes none of its time.
"""

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from datetime import UTC, datetime, timedelta
from queue import SimpleQueue
from typing import Any, TypeVar, TypeVarTuple
from unittest.mock import patch

import aiosqlite.core

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_LOOK_SECONDS = 0.05


class Clock:
    """The loop's time as a date."""

    def now(self) -> datetime:
        return _BEGIN + timedelta(seconds=asyncio.get_running_loop().time())


class _Jumping(selectors.SelectSelector):
    """Instead of waiting it moves the time on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.at_work = 0
        """Of threads, how much is not done yet."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        while not ready and self.at_work and timeout != 0:
            ready = super().select(_LOOK_SECONDS)
        if not ready and timeout is None:
            raise AssertionError("Everybody waits for something that will never happen.")
        if not ready:
            self.now += timeout or 0.0
        return ready

    def waits_for(self, future: "asyncio.Future[Any]") -> None:
        self.at_work += 1
        future.add_done_callback(self._done)

    def _done(self, _future: "asyncio.Future[Any]") -> None:
        self.at_work -= 1


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.clock = _Jumping()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now

    def run_in_executor(self, executor: Executor | None, func: Callable[[*_Ts], _T], *args: *_Ts) -> "asyncio.Future[_T]":
        future = super().run_in_executor(executor, func, *args)
        self.clock.waits_for(future)
        return future


class _Watched(SimpleQueue[Any]):
    """What SQLite's thread is to do."""

    def put_nowait(self, item: Any) -> None:
        loop = asyncio.get_running_loop()
        if item[0] is not None and isinstance(loop, VirtualLoop):
            loop.clock.waits_for(item[0])
        super().put_nowait(item)


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Like `asyncio.run`, in virtual time that begins at 0."""
    with (
        asyncio.Runner(loop_factory=VirtualLoop) as runner,
        patch.object(aiosqlite.core, "SimpleQueue", _Watched),
        patch.object(time, "monotonic", runner.get_loop().time),
    ):
        return runner.run(main)
