"""A database that cannot be used: said as one error, in a sentence that tells what to do."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import event

from core import projects
from core.errors import StorageUnavailable
from core.ids import new_id
from core.live import LiveEvents
from storage import sqlite
from storage.engine import database_url
from storage.migrate import upgrade
from storage.sqlite import sqlite_reader, sqlite_writer
from storage.unit_of_work import Database
from tests.fakes import ManualClock


@asynccontextmanager
async def opened(path: Path, *pragmas: str) -> AsyncIterator[Database]:
    url = database_url(f"sqlite+aiosqlite:///{path}")
    writer, reader = sqlite_writer(url), sqlite_reader(url)

    @event.listens_for(writer.sync_engine, "connect")
    def _on_connect(connection: sqlite3.Connection, _record: object) -> None:
        for pragma in pragmas:
            connection.cursor().execute(f"PRAGMA {pragma}")

    storage = Database(writer=writer, reader=reader, live=LiveEvents(), clock=ManualClock(), process_id=new_id())
    try:
        yield storage
    finally:
        await storage.close()


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    path = tmp_path / "onethread.db"
    writer = sqlite_writer(database_url(f"sqlite+aiosqlite:///{path}"))
    await upgrade(writer)
    await writer.dispose()
    return path


async def _write_much(storage: Database) -> None:
    async with storage.write() as uow:
        project = await projects.default(uow)
        for _ in range(200):
            await uow.projects.add(replace(project, id=new_id(), key=new_id().hex[-10:], instructions="x" * 100_000))


async def test_a_full_disk_is_told_and_undone_and_passes(path: Path) -> None:
    async with opened(path, "max_page_count=120") as storage:
        with pytest.raises(StorageUnavailable, match=r"The disk is full, so nothing was stored\. Free some space"):
            await _write_much(storage)
        async with storage.read() as uow:
            assert await uow.projects.all() == []
        async with storage.write() as uow:
            await projects.default(uow)


async def test_a_locked_database_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.2)
    async with opened(path) as storage:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageUnavailable, match="locked by another program"):
            async with storage.write() as uow:
                await projects.default(uow)
        other.execute("ROLLBACK")
        other.close()
        async with storage.write() as uow:
            await projects.default(uow)


async def test_pruning_a_locked_database_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.2)
    async with opened(path) as storage:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageUnavailable, match="locked by another program"):
            await storage.prune(ManualClock().now())
        other.close()


async def test_a_database_that_may_only_be_read_is_told(path: Path) -> None:
    async with opened(path, "query_only=ON") as storage:
        with pytest.raises(StorageUnavailable, match="cannot be written to"):
            async with storage.write() as uow:
                await projects.default(uow)


async def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    path = tmp_path / "onethread.db"
    path.write_bytes(b"Dear diary, " * 1_000)
    writer = sqlite_writer(database_url(f"sqlite+aiosqlite:///{path}"))
    try:
        with pytest.raises(StorageUnavailable, match="no SQLite database"):
            await upgrade(writer)
    finally:
        await writer.dispose()
    assert path.read_bytes().startswith(b"Dear diary")


async def test_a_path_that_is_a_folder_is_told(tmp_path: Path) -> None:
    writer = sqlite_writer(database_url(f"sqlite+aiosqlite:///{tmp_path}"))
    try:
        with pytest.raises(StorageUnavailable, match="cannot be opened"):
            await upgrade(writer)
    finally:
        await writer.dispose()
