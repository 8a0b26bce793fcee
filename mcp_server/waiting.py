"""Several things awaited at once, where the first that ends decides."""

import asyncio
from collections.abc import Coroutine
from typing import Any


async def first(*parts: Coroutine[Any, Any, Any], seconds: float) -> None:
    """Runs them side by side until one has ended or the time is over, and stops the others. Raises what one of them raised."""
    try:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(part, name="mcp: waiting") for part in parts]
            await asyncio.wait(running, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            for each in running:
                each.cancel()
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
