"""Databases for tests, with all tables made: SQLite's are copied from a file, PostgreSQL's from a template."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from storage.engine import database_url
from storage.migrate import upgrade
from storage.sqlite import sqlite_writer
from tests.postgres import Server

NewDatabase = Callable[[], AbstractAsyncContextManager[URL]]
BOTH = ("sqlite", pytest.param("postgresql", marks=pytest.mark.requires("postgresql")))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A server, started when the first test needs it."""
    server = Server()
    try:
        server.make()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def empty_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with all tables, made once: copying it is faster than migrating anew for each test."""
    path = tmp_path_factory.mktemp("empty") / "onethread.db"

    async def make() -> None:
        writer = sqlite_writer(database_url(f"sqlite+aiosqlite:///{path}"))
        await upgrade(writer)
        await writer.dispose()

    asyncio.run(make())
    return path


@pytest.fixture
def new_database(empty_sqlite: Path, tmp_path: Path) -> NewDatabase:
    """Where a test gets its database: SQLite, unless its module says `new_database = on_both`."""
    return lambda: _copied(empty_sqlite, tmp_path)


@pytest.fixture(params=BOTH)
def on_both(request: pytest.FixtureRequest, tmp_path: Path) -> NewDatabase:
    """SQLite, then PostgreSQL."""
    return databases_of(request, tmp_path)


def databases_of(request: pytest.FixtureRequest, directory: Path) -> NewDatabase:
    """Databases of the kind that a fixture with `params=BOTH` is asked for; a file's place is the directory."""
    if request.param == "postgresql":
        server: Server = request.getfixturevalue("postgres")
        return server.database
    empty: Path = request.getfixturevalue("empty_sqlite")
    return lambda: _copied(empty, directory)


@asynccontextmanager
async def _copied(empty: Path, directory: Path) -> AsyncIterator[URL]:
    path = directory / "onethread.db"
    shutil.copy(empty, path)
    yield database_url(f"sqlite+aiosqlite:///{path}")
