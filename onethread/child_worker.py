"""A worker for messages that were queued where none is alive: a process of its own, which goes on when this one ends.

It brings the models' library along, which an IDE's MCP process must not wait for, and closing the IDE kills no reply.
"""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Protocol

import structlog

from core.errors import StorageUnavailable
from core.frames import WORKER_SILENT
from core.logs import place_of
from core.ports import Storage
from core.worker import vanished
from onethread.settings import Settings, without_dotenv

ONETHREAD = (sys.executable, "-P", "-m", "onethread")
LOG_FILE = "worker.log"
"""In the data directory: what the child prints."""
MAX_LOG_BYTES = 5_000_000
LINGER_SECONDS = 120
"""How long the child waits for the next message: another one would first import the models' library, for seconds."""
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildRules:
    look_seconds: float = 1.0
    """How often the child and the queue are looked at, as long as a turn is open."""
    start_seconds: float = 5.0
    """At most one child is started in so long."""
    max_failures: int = 3
    """Children that ended with an error, one after the other."""
    rest_seconds: float = 60.0
    """So long nothing is tried after that."""


class Child(Protocol):
    """A started process, as subprocess.Popen is one."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None:
        """What it ended with, if it has."""
        ...


class _Queue(Enum):
    EMPTY = auto()
    SERVED = auto()
    UNSERVED = auto()


class ChildWorker:
    def __init__(self, storage: Storage, start: Callable[[], Child], rules: ChildRules = ChildRules()) -> None:
        self._storage = storage
        self._start = start
        self._rules = rules
        self._wanted = asyncio.Event()
        self._open = False
        """Whether there is something to be answered that this process told of."""
        self._looking = asyncio.Lock()
        self._child: Child | None = None
        self._failures = 0
        self._start_at = 0.0

    def needed(self) -> None:
        """A turn was queued, or is waiting. Sees to it that somebody answers it; returns at once."""
        self._open = True
        self._wanted.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wanted.wait()
            # Until nothing is open, not until somebody works: a worker that ends because it was idle may not have seen the last message.
            while self._open:
                self._wanted.clear()
                await self._look()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._rules.look_seconds):
                        await self._wanted.wait()

    async def last_look(self) -> None:
        """Before this process ends: what was queued a moment ago gets its worker, too."""
        async with self._looking:
            is_open = self._open  # after the look that may be under way
        if is_open:
            await self._look()

    async def _look(self) -> None:
        async with self._looking:
            self._open = False
            self._open = await self._looked() is not _Queue.EMPTY or self._open

    async def _looked(self) -> _Queue:
        """How the queue is; where it is unserved a child was started, as far as the rules allow it."""
        try:
            if self._runs():
                return _Queue.SERVED
            queue = await self._queue()
            if queue is _Queue.UNSERVED and _now() >= self._start_at:
                self._start_child()
            return queue
        except StorageUnavailable:
            return _Queue.UNSERVED
        except Exception as error:  # noqa: BLE001  # the outermost loop: what is wrong now may be right at the next look
            _log.error("child_worker.not_started", **place_of(error))
            self._start_at = _now() + self._rules.start_seconds
            return _Queue.UNSERVED

    def _start_child(self) -> None:
        self._start_at = _now() + self._rules.start_seconds
        self._child = self._start()
        _log.info("child_worker.started", pid=self._child.pid)

    def _runs(self) -> bool:
        if self._child is None:
            return False
        code = self._child.poll()
        if code is None:
            return True
        _log.info("child_worker.ended", pid=self._child.pid, code=code)
        self._child = None
        self._failures = self._failures + 1 if code else 0
        if self._failures >= self._rules.max_failures:
            _log.error("child_worker.given_up", failures=self._failures, log=LOG_FILE, seconds=self._rules.rest_seconds)
            self._failures = 0
            self._start_at = _now() + self._rules.rest_seconds
        return False

    async def _queue(self) -> _Queue:
        async with self._storage.read() as uow:
            if not await uow.turns.open_count():
                return _Queue.EMPTY
            workers = await uow.workers.alive(uow.now - WORKER_SILENT)
        return _Queue.UNSERVED if all(map(vanished, workers)) else _Queue.SERVED


def starter(settings: Settings) -> Callable[[], Child]:
    """Starts `onethread worker --until-idle` with these settings, in a session of its own: signals for this process do not reach it.

    After the last message it lingers.
    """

    def start() -> Child:
        command = (*ONETHREAD, "worker", "--until-idle", "--linger", str(LINGER_SECONDS))
        with _log_of(settings.data_dir).open("ab") as log:
            return subprocess.Popen(  # noqa: S603  # not asyncio's, which kills the child when its loop is closed
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=without_dotenv(settings.environ),
                start_new_session=True,
            )

    return start


def _log_of(directory: Path) -> Path:
    """The file, begun anew when it has grown too large."""
    path = directory / LOG_FILE
    with suppress(FileNotFoundError):
        if path.stat().st_size > MAX_LOG_BYTES:
            path.replace(path.with_name(f"{LOG_FILE}.1"))
    return path


def _now() -> float:
    return asyncio.get_running_loop().time()
