"""How a platform is kept served: signed in to until it lets the bot in, and begun anew whatever ends it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import structlog

from bots.apart import apart
from bots.surface import AccountClosed, SurfaceError
from core.logs import place_of

_RESTART_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
_log = structlog.get_logger()
T = TypeVar("T")


@asynccontextmanager
async def supervised(platform: str, serve: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Serves while the block runs."""
    serving = asyncio.create_task(_supervised(platform, serve), name=platform)
    try:
        yield
    finally:
        serving.cancel()
        await asyncio.wait({serving})


async def signed_in(platform: str, sign_in: Callable[[], Awaitable[T]]) -> T:
    """What signing in gives; asks until it does, less and less often."""
    pause = _RESTART_SECONDS
    while True:
        try:
            return await sign_in()
        except AccountClosed as error:
            _log.error(f"{platform}.refused", reason=error.reason, sentence=str(error))
            pause = _LONGEST_PAUSE_SECONDS
        except SurfaceError as error:
            _log.warning(f"{platform}.unreachable", error=type(error).__name__)
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


async def _supervised(platform: str, serve: Callable[[], Coroutine[Any, Any, None]]) -> None:
    while True:
        try:
            await apart(serve())
        except Exception as error:  # noqa: BLE001  # the outermost loop: a defect must not end the surface
            _log.error(f"{platform}.restarted", **place_of(error))
        await asyncio.sleep(_RESTART_SECONDS)
