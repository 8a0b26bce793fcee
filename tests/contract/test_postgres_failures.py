"""A PostgreSQL server that cannot be used: said as one error, in a sentence that tells what to do and quotes nothing."""

import asyncio
import socket
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import URL

from core import projects
from core.errors import InvalidInput, OnethreadError, StorageUnavailable
from core.events import Lagged
from core.ids import new_id
from core.live import LiveEvents
from storage import postgres as adapter
from storage import postgres_notifier
from storage.engine import database_url, engines
from storage.failures import told_in_our_words
from storage.migrate import upgrade
from storage.postgres import WRITERS, connect, postgres_writer
from storage.postgres_notifier import PostgresNotifier
from storage.unit_of_work import Database
from tests.fakes import ManualClock
from tests.postgres import Server

pytestmark = pytest.mark.requires("postgresql")
SECRET = "what somebody wrote"


@asynccontextmanager
async def opened(url: URL, live: LiveEvents | None = None) -> AsyncIterator[Database]:
    writer, reader = engines(url)
    storage = Database(writer=writer, reader=reader, live=live or LiveEvents(), clock=ManualClock(), process_id=new_id())
    try:
        yield storage
    finally:
        await storage.close()


@pytest.fixture
async def url(postgres: Server) -> AsyncIterator[URL]:
    async with postgres.database() as url:
        yield url


async def works(storage: Database) -> bool:
    async with storage.write() as uow:
        await projects.default(uow)
    async with storage.read() as uow:
        return bool(await uow.projects.all())


async def end_all(postgres: Server, url: URL, who: str = "onethread%") -> int:
    """The server says goodbye to all the connections of an application."""
    query = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE datname = $1 AND application_name LIKE $2"
    ended: int = (await postgres.execute(query, url.database, who))[0][0]
    return ended


@pytest.mark.parametrize(
    ("sqlstate", "sentence"),
    [
        ("08006", "connection was lost"),
        ("25006", "takes no changes at the moment"),
        ("40001", "got into each other's way"),
        ("40P01", "got into each other's way"),
        ("42501", "must own the database"),
        ("53100", "disk is full, so nothing was stored"),
        ("53200", "overloaded"),
        ("53300", "no connection left"),
        ("55P03", "took too long"),
        ("57014", "took too long"),
        ("57P01", "starting or stopping"),
        ("57P03", "starting or stopping"),
        ("58030", "disk is full or reports an error"),
        ("XX001", "damaged"),
    ],
)
async def test_what_the_server_reports_is_told_by_its_code_and_never_quoted(url: URL, sqlstate: str, sentence: str) -> None:
    writer = postgres_writer(url)
    with pytest.raises(StorageUnavailable) as told, told_in_our_words():
        async with writer.begin() as connection:
            await connection.execute(text(f"DO $$ BEGIN RAISE EXCEPTION '{SECRET}' USING ERRCODE = '{sqlstate}'; END $$"))
    assert sentence in str(told.value)
    assert SECRET not in str(told.value)
    async with writer.begin() as connection:
        assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1
    await writer.dispose()


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("postgresql://onethread@127.0.0.1:{port}/nowhere", "names a database that does not exist"),
        ("postgres://stranger:{secret}@127.0.0.1:{port}/empty", "refuses the user or password"),
        ("postgresql+asyncpg://onethread:{secret}@127.0.0.1:{closed}/empty", "cannot be reached"),
        ("postgresql://onethread:{secret}@127.0.0.1:{port}/empty?sslmode=perhaps", "parameters that PostgreSQL does not know"),
        ("postgresql://onethread:{secret}@127.0.0.1:{port}/empty?sslmode=require", "cannot be reached|refuses"),
    ],
)
async def test_an_address_that_leads_nowhere_is_told_without_its_password(postgres: Server, address: str, sentence: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        where = address.format(port=postgres.port, closed=closed.getsockname()[1], secret="pass%40word")
        writer = postgres_writer(database_url(where))
        with pytest.raises(OnethreadError, match=sentence) as told:
            await upgrade(writer)
        await writer.dispose()
    assert "word" not in str(told.value).replace("or password", "")


@pytest.mark.parametrize("address", ["postgresql://u:pa@ss:word@host/name", "postgresql+psycopg2://u:word@host/name", "mysql://u:word@h/x"])
def test_an_address_of_another_kind_is_refused_without_its_password(address: str) -> None:
    with pytest.raises(InvalidInput) as told:
        database_url(address)
    assert "word@host/name" not in str(told.value).replace("user:password@host/name", "")
    assert told.value.__cause__ is None


async def test_of_several_hosts_the_one_that_answers_is_used(postgres: Server, url: URL) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        ports = f"{closed.getsockname()[1]},{postgres.port}"
        hosts = f"?host=127.0.0.1,127.0.0.1&port={ports}&target_session_attrs=read-write"
        async with opened(database_url(f"postgresql://onethread@/{url.database}{hosts}")) as storage:
            assert await works(storage)


async def test_a_server_that_takes_no_writes_where_they_are_wanted_is_told(postgres: Server, url: URL) -> None:
    await postgres.execute(f"ALTER DATABASE {url.database} SET default_transaction_read_only = on")
    async with opened(url.update_query_dict({"target_session_attrs": "read-write"})) as storage:
        with pytest.raises(StorageUnavailable, match="takes no changes at the moment"):
            await works(storage)
        await postgres.execute(f"ALTER DATABASE {url.database} SET default_transaction_read_only = off")
        assert await works(storage)


async def test_connections_that_the_server_ended_are_replaced_unseen(postgres: Server, url: URL) -> None:
    async with opened(url) as storage:
        assert await works(storage)
        assert await end_all(postgres, url) == 2
        assert await works(storage)


async def test_a_connection_lost_within_a_transaction_is_told_and_nothing_is_stored(postgres: Server, url: URL) -> None:
    async def write() -> None:
        async with storage.write() as uow:
            await projects.default(uow)
            await end_all(postgres, url)
            await uow.projects.all()

    async with opened(url) as storage:
        with pytest.raises(StorageUnavailable, match=r"connection was lost|starting or stopping"):
            await write()
        async with storage.read() as uow:
            assert await uow.projects.all() == []
        assert await works(storage)


async def test_a_connection_lost_at_the_commit_makes_everybody_look_again(postgres: Server, url: URL) -> None:
    async def write() -> None:
        async with storage.write() as uow:
            await projects.default(uow)
            await end_all(postgres, url)

    live = LiveEvents()
    async with opened(url, live) as storage:
        with live.subscribe() as events, pytest.raises(StorageUnavailable):
            await write()
        assert events.waiting() == [Lagged()]


async def test_two_who_wait_for_each_other_are_parted_with_a_sentence(url: URL) -> None:
    async with opened(url) as storage:
        async with storage.write() as uow:
            one, other = await projects.default(uow), new_id()
            await uow.projects.add(replace(one, id=other, key="XX"))

        async def both(first: UUID, then: UUID, meet: asyncio.Barrier) -> None:
            async with storage.write() as uow:
                await uow.projects.update(first, model="m")
                await meet.wait()
                await uow.projects.update(then, model="m")

        meet = asyncio.Barrier(2)
        async with asyncio.timeout(20):
            ends = await asyncio.gather(both(one.id, other, meet), both(other, one.id, meet), return_exceptions=True)
        assert sorted(map(str, ends)) == ["None", "Two changes got into each other's way. Try again."]


async def test_a_full_pool_is_told_and_passes(url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "_POOL_SECONDS", 0.2)
    async with opened(url) as storage:
        async with AsyncExitStack() as busy:
            for _ in range(WRITERS):
                uow = await busy.enter_async_context(storage.write())
                await uow.projects.all()
            with pytest.raises(StorageUnavailable, match="no connection became free"):
                await works(storage)
        assert await works(storage)


async def test_a_server_without_a_free_connection_is_told_and_passes(postgres: Server, url: URL) -> None:
    async with opened(url) as storage:
        await postgres.execute(f"ALTER DATABASE {url.database} CONNECTION LIMIT 0")
        with pytest.raises(StorageUnavailable, match="no connection left"):
            await works(storage)
        await postgres.execute(f"ALTER DATABASE {url.database} CONNECTION LIMIT -1")
        assert await works(storage)


async def test_changed_tables_cost_one_repetition_for_writers_and_one_for_readers(postgres: Server, url: URL) -> None:
    """The driver's prepared statements do not fit any more."""
    assert url.database
    async with opened(url) as storage:
        assert await works(storage)
        await postgres.execute("ALTER TABLE projects ALTER COLUMN name TYPE text", database=url.database)
        for _ in range(2):
            with suppress(StorageUnavailable):
                await works(storage)
        assert await works(storage)


async def _end_half_heard(postgres: Server, url: URL, who: str) -> None:
    """The server's goodbye has arrived, and the end of the connection not yet."""
    with ThreadPoolExecutor(1) as thread:  # meanwhile the event loop stands still
        thread.submit(asyncio.run, end_all(postgres, url, who)).result()
    for _ in range(2):
        await asyncio.sleep(0)


async def test_a_statement_that_meets_the_servers_goodbye_is_told_as_a_lost_connection(postgres: Server, url: URL) -> None:
    async with opened(url) as storage:
        assert await works(storage)
        await _end_half_heard(postgres, url, "onethread")
        with pytest.raises(StorageUnavailable, match="connection was lost"):
            await works(storage)
        assert await works(storage)


async def test_a_notifier_that_meets_the_servers_goodbye_listens_anew(postgres: Server, url: URL, monkeypatch: pytest.MonkeyPatch) -> None:

    async def connect_and_be_ended(url: URL, name: str) -> asyncpg.Connection:
        monkeypatch.setattr(postgres_notifier, "connect", connect)
        connection = await connect(url, name)
        await _end_half_heard(postgres, url, name)
        return connection

    monkeypatch.setattr(postgres_notifier, "connect", connect_and_be_ended)
    started = asyncio.Event()
    notifier = asyncio.create_task(PostgresNotifier(url=url, live=LiveEvents(), process_id=new_id()).run(started))
    waiting = asyncio.create_task(started.wait())
    try:
        await asyncio.wait({notifier, waiting}, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        assert started.is_set()
    finally:
        notifier.cancel()
        waiting.cancel()
        await asyncio.wait({notifier, waiting})
