"""Migrations lead to exactly the tables of `storage.schema`, whoever runs them when."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, insert, text
from sqlalchemy.engine import URL

from core import conversations, identity
from core.errors import StorageUnavailable
from core.ids import new_id
from storage.engine import Engine, database_url, engines, is_postgres
from storage.migrate import config, upgrade
from storage.schema import bindings, metadata
from storage.unit_of_work import UnitOfWork
from tests.databases import BOTH
from tests.postgres import Server

ROOT = Path(__file__).parents[2]
PROGRAM = """
import asyncio, sys
from pathlib import Path
from onethread.bootstrap import running
from onethread.settings import Settings

async def main():
    sys.stdin.readline()
    async with running(Settings(data_dir=Path(sys.argv[1]), database_url=sys.argv[2])) as app:
        async with app.storage.read() as uow:
            print(len(await uow.projects.all()), len(await uow.users.all()), "asyncpg" in sys.modules)

asyncio.run(main())
"""


Blank = Callable[[], AbstractAsyncContextManager[URL]]
INDEXES = {
    "sqlite": "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL",
    "postgresql": "SELECT indexname AS name, indexdef AS sql FROM pg_indexes WHERE schemaname = 'public' AND indexname !~ 'alembic'",
}


@pytest.fixture(params=BOTH)
def blank(request: pytest.FixtureRequest, tmp_path: Path) -> Blank:
    """New databases without tables."""
    if request.param == "postgresql":
        server: Server = request.getfixturevalue("postgres")
        return lambda: server.database("template0")
    return lambda: _blank_file(tmp_path)


@asynccontextmanager
async def _blank_file(directory: Path) -> AsyncIterator[URL]:
    yield database_url(f"sqlite+aiosqlite:///{directory / new_id().hex}/onethread.db")


@asynccontextmanager
async def _writer(blank: Blank) -> AsyncIterator[Engine]:
    async with blank() as url:
        writer, reader = engines(url)
        try:
            yield writer
        finally:
            await writer.dispose()
            await reader.dispose()


async def test_migrations_and_tables_agree(blank: Blank) -> None:
    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, metadata))

    async with _writer(blank) as writer:
        assert await upgrade(writer) is None
        async with writer.begin() as connection:
            assert await connection.run_sync(differences) == []


async def test_partial_indexes_are_the_same_as_in_the_schema(blank: Blank) -> None:
    """`compare_metadata` does not look at their conditions, and one of them is what allows one running turn only."""

    def indexes(connection: Connection) -> dict[str, str]:
        return {row.name: row.sql for row in connection.execute(text(INDEXES[connection.dialect.name]))}

    async with _writer(blank) as migrated, _writer(blank) as created:
        await upgrade(migrated)
        async with created.begin() as connection:
            await connection.run_sync(metadata.create_all)
        async with migrated.begin() as one, created.begin() as other:
            found = await one.run_sync(indexes)
            assert found == await other.run_sync(indexes)
        assert "WHERE" in found["uq_turns_one_active"]


async def test_places_of_older_databases_are_their_conversations_homes(blank: Blank) -> None:
    now = datetime(2026, 11, 1, tzinfo=UTC)
    async with _writer(blank) as writer:
        async with writer.begin() as connection:
            await connection.run_sync(lambda sync: command.upgrade(config(sync), "0010"))
            uow = UnitOfWork(connection, now)
            chat = await conversations.create(uow, identity.principal_of(await identity.local_admin(uow)))
            old = {"surface": "slack", "account": "T1", "channel": "C1", "thread": "1.0", "opened": True, "mode": "two_way"}
            old |= {"cursor": 7, "ended": None, "status_shown": False, "created_at": now, "updated_at": now}
            await connection.execute(insert(bindings).values(id=chat.id, conversation_id=chat.id, **old))
        await upgrade(writer)
        async with writer.begin() as connection:
            [binding] = await UnitOfWork(connection, now).bindings.of_conversation(chat.id)
    assert (binding.kind, binding.label, binding.followed, binding.bound_by, binding.until) == (None, "", False, None, None)
    assert binding.takes_in


async def test_a_database_that_is_up_to_date_is_left_alone(blank: Blank) -> None:
    async with _writer(blank) as writer:
        await upgrade(writer)
        assert await upgrade(writer) is not None


async def test_a_database_of_a_newer_program_is_refused_and_not_touched(blank: Blank) -> None:
    async with _writer(blank) as writer:
        await upgrade(writer)
        async with writer.begin() as connection:
            await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

        with pytest.raises(StorageUnavailable, match="newer version of Onethread"):
            await upgrade(writer)

        async with writer.begin() as connection:
            assert (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar_one() == "9999"


@pytest.mark.requires("postgresql")
async def test_a_database_that_cannot_hold_every_text_is_refused(postgres: Server) -> None:
    await postgres.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING LATIN1 LOCALE 'C' OWNER onethread")
    writer, _ = engines(postgres.url("latin"))
    with pytest.raises(StorageUnavailable, match="encoded in LATIN1"):
        await upgrade(writer)
    await writer.dispose()


async def test_two_processes_may_start_at_once_on_one_new_database(blank: Blank, tmp_path: Path) -> None:
    pipe = asyncio.subprocess.PIPE
    async with blank() as url:
        command = (sys.executable, "-c", PROGRAM, str(tmp_path), url.render_as_string(hide_password=False))
        starting = [await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe) for _ in range(2)]
        async with asyncio.timeout(60):
            ended = await asyncio.gather(*(process.communicate(b"go\n") for process in starting))

    driver = str(is_postgres(url))  # loaded only where it is used
    told = [(process.returncode, out.decode().split()) for process, (out, _) in zip(starting, ended, strict=True)]
    assert told == [(0, ["1", "1", driver])] * 2
