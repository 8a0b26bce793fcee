"""The databases under measurement, each empty, on a real disk, and gone afterwards."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from storage.engine import Engine, database_url, engines
from tests.benchmarks.figures import NotMeasured, Result
from tests.postgres import Server, programs


class Missing(Exception):
    """This database cannot be had here; says why."""


@asynccontextmanager
async def sqlite() -> AsyncIterator[str]:
    with tempfile.TemporaryDirectory() as directory:
        yield f"sqlite+aiosqlite:///{Path(directory) / 'onethread.db'}"


@asynccontextmanager
async def postgresql() -> AsyncIterator[str]:
    """On a server of its own, which waits for the disk as those that people use."""
    if programs() is None:
        raise Missing("no PostgreSQL server is installed")
    server = Server(durable=True)
    try:
        await asyncio.to_thread(server.make)
        async with server.database() as url:
            yield url.render_as_string()
    finally:
        await asyncio.to_thread(server.remove)


DATABASES: dict[str, Callable[[], AbstractAsyncContextManager[str]]] = {"SQLite": sqlite, "PostgreSQL": postgresql}


async def on_each(name: str, measure: Callable[[str, str], Awaitable[Sequence[Result]]]) -> list[Result]:
    """What `measure(database's name, its address)` gives on every database."""
    results: list[Result] = []
    for database, opened in DATABASES.items():
        try:
            async with opened() as url:
                results += await measure(database, url)
        except Missing as missing:
            results.append(NotMeasured(name=f"{name}, {database}", reason=str(missing)))
    return results


@asynccontextmanager
async def writer(url: str) -> AsyncIterator[Engine]:
    """An engine for writing past the repositories."""
    opened = engines(database_url(url))
    try:
        yield opened.writer
    finally:
        await opened.writer.dispose()
        await opened.reader.dispose()
