"""How something is awaited that fails by a TaskGroup, so that whoever is cancelled meanwhile really is."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def apart(work: Coroutine[Any, Any, T]) -> T:
    """Runs `work` in a task of its own.

    In Python 3.11 and 3.12 a TaskGroup that fails raises what failed, also where its task was cancelled meanwhile, and leaves its task
    counted as cancelled where it was not. The caller's own count tells which it is.
    """
    task = asyncio.create_task(work)
    try:
        return await task
    except Exception:
        caller = asyncio.current_task()
        if caller and caller.cancelling():
            raise asyncio.CancelledError from None
        raise
