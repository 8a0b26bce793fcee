"""Transactions of a turn that wait: for a database that is away, since what the model said must not be thrown away, and for a model
that is asked as often as it may be."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

import structlog

from core import turns
from core.errors import StorageUnavailable
from core.limits import ModelFull
from core.ports import Lease, UnitOfWork

_T = TypeVar("_T")
Begin = Callable[[], AbstractAsyncContextManager[UnitOfWork]]
Work = Callable[[UnitOfWork], Awaitable[_T]]
_log = structlog.get_logger()
_LOOK_AGAIN_SECONDS = 0.5
_RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


async def when_admitted(begin: Begin, lease: Lease, work: Work[_T]) -> _T:
    """Runs `work`, which raises ModelFull while the model may not be asked, as soon as it may."""
    told = False
    while True:
        try:
            return await patiently(begin, work)
        except ModelFull:
            if not told:
                await patiently(begin, lambda uow: turns.wait_for_model(uow, lease))
                told = True
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)


async def patiently(begin: Begin, work: Work[_T]) -> _T:
    """Runs `work` in a transaction of its own, again and again while the database is away."""
    for seconds in _RETRY_SECONDS:
        try:
            async with begin() as uow:
                return await work(uow)
        except StorageUnavailable as error:
            _log.warning("turn.storage_retry", reason=str(error), seconds=seconds)
            await asyncio.sleep(seconds)
    async with begin() as uow:
        return await work(uow)
