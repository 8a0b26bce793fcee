"""Migrations lead to exactly the tables of `storage.schema`, whoever runs them when."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from core.errors import StorageUnavailable
from storage.engine import database_url, sqlite_writer
from storage.migrate import upgrade
from storage.schema import metadata

ROOT = Path(__file__).parents[2]
PROGRAM = """
import asyncio, sys
from pathlib import Path
from onethread.bootstrap import running
from onethread.settings import Settings

async def main():
    sys.stdin.readline()
    async with running(Settings(data_dir=Path(sys.argv[1]))) as app:
        async with app.storage.read() as uow:
            print(len(await uow.projects.all()), len(await uow.users.all()))

asyncio.run(main())
"""


def _engine(directory: Path) -> AsyncEngine:
    return sqlite_writer(database_url(f"sqlite+aiosqlite:///{directory / 'onethread.db'}"))


async def test_migrations_and_tables_agree(tmp_path: Path) -> None:
    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, metadata))

    engine = _engine(tmp_path)
    assert await upgrade(engine) is None
    async with engine.begin() as connection:
        found = await connection.run_sync(differences)
    await engine.dispose()
    assert found == []


async def test_partial_indexes_are_the_same_as_in_the_schema(tmp_path: Path) -> None:
    """`compare_metadata` does not look at their conditions, and one of them is what allows one running turn only."""

    def indexes(connection: Connection) -> dict[str, str]:
        rows = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"))
        return {row.name: row.sql for row in rows}

    migrated, created = _engine(tmp_path / "migrated"), _engine(tmp_path / "created")
    await upgrade(migrated)
    async with created.begin() as connection:
        await connection.run_sync(metadata.create_all)
    async with migrated.begin() as one, created.begin() as other:
        assert await one.run_sync(indexes) == await other.run_sync(indexes)
    await migrated.dispose()
    await created.dispose()


async def test_a_database_that_is_up_to_date_is_left_alone(tmp_path: Path) -> None:
    engine = _engine(tmp_path)
    await upgrade(engine)
    revision = await upgrade(engine)
    await engine.dispose()
    assert revision is not None


async def test_a_database_of_a_newer_program_is_refused_and_not_touched(tmp_path: Path) -> None:
    engine = _engine(tmp_path)
    await upgrade(engine)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(StorageUnavailable, match="newer version of Onethread"):
        await upgrade(engine)

    async with engine.begin() as connection:
        assert (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar_one() == "9999"
    await engine.dispose()


async def test_two_processes_may_start_at_once_on_one_new_file(tmp_path: Path) -> None:
    pipe = asyncio.subprocess.PIPE
    starting = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, str(tmp_path), cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe)
        for _ in range(2)
    ]
    async with asyncio.timeout(60):
        ended = await asyncio.gather(*(process.communicate(b"go\n") for process in starting))

    assert [(process.returncode, out.decode().split()) for process, (out, _) in zip(starting, ended, strict=True)] == [(0, ["1", "1"])] * 2
