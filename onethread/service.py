"""`onethread worker`: answers until it is told to stop, or until there is nothing left to answer."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from core.errors import StorageUnavailable
from core.frames import WORKER_SILENT
from core.worker import vanished
from onethread.bootstrap import App, working

_POLL_SECONDS = 0.25
_IDLE_SECONDS = 2.0
_log = structlog.get_logger()


async def work(app: App) -> None:
    """Until SIGTERM or SIGINT."""
    async with _answering(app) as stopped:
        await stopped.wait()


async def work_until_idle(app: App, *, linger: float = 0.0) -> None:
    """Until nothing was queued or running for two seconds, or a signal comes.

    Then it waits for more as many seconds as `linger` says, unless an older worker is alive: of several that were started at once, one
    stays.
    """
    clock = asyncio.get_running_loop().time
    until = clock() + linger

    async def idle() -> bool:
        nonlocal until
        async with app.storage.read() as uow:
            is_busy = bool(await uow.turns.open_count())
            workers = await uow.workers.alive(uow.now - WORKER_SILENT)
        if is_busy:
            until = clock() + linger
        others = any(worker.id < app.process_id and not vanished(worker) for worker in workers)
        return not is_busy and (others or clock() >= until)

    await _work_until(app, idle, seconds=_IDLE_SECONDS)


async def answer_suspects(app: App) -> None:
    """Answers the turns whose workers vanished twice, in a process that nothing else is lost with."""

    async def none_left() -> bool:
        async with app.storage.read() as uow:
            return not app.worker.running and not await uow.turns.has_suspect(uow.now)

    await _work_until(app, none_left, seconds=_IDLE_SECONDS)


async def _work_until(app: App, done: Callable[[], Awaitable[bool]], *, seconds: float) -> None:
    async with _answering(app) as stopped:
        quiet = 0.0
        while quiet < seconds and not stopped.is_set():
            quiet = quiet + _POLL_SECONDS if await _is_so(done) else 0.0
            try:
                async with asyncio.timeout(_POLL_SECONDS):
                    await stopped.wait()
            except TimeoutError:
                continue


async def _is_so(done: Callable[[], Awaitable[bool]]) -> bool:
    """Nothing is done while the database is away: a worker that ended now could not hand back what it answers."""
    try:
        return await done()
    except StorageUnavailable:
        return False


@asynccontextmanager
async def _answering(app: App) -> AsyncIterator[asyncio.Event]:
    """Works while the block runs; the event is set by SIGTERM and SIGINT."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with working(app):
        _log.info("worker.started", worker_id=str(app.process_id))
        yield stopped
        _log.info("worker.stopping", running=app.worker.running)
