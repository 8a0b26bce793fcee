"""What `storage.sqlite` promises: statements run in the event loop's thread, and still nothing holds it up."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import CursorResult, column, insert, table, text
from sqlalchemy.exc import OperationalError

from storage import sqlite, turn_queue
from storage.engine import database_url
from storage.sqlite import LONG, SqliteEngine, sqlite_writer

COUNTS_FOR_LONG = text("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000000) SELECT max(i) FROM n")
NUMBERS = table("t", column("i"))
COUNTS = text("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) SELECT i FROM n").columns(column("i"))
COUNTS_FOR_EVER = text("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n")


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[SqliteEngine]:
    engine = sqlite_writer(database_url(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}"))
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE t (i INTEGER)"))
        await connection.execute(text("INSERT INTO t VALUES (1)"))
    yield engine
    await engine.dispose()


class Ticker:
    """Notices how long the event loop was held up."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def run(self) -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.005)
            self.longest = max(self.longest, time.perf_counter() - began)


async def test_a_long_statement_does_not_hold_up_the_event_loop(engine: SqliteEngine) -> None:
    ticker = Ticker()
    ticking = asyncio.create_task(ticker.run())
    async with engine.begin() as connection:
        began = time.perf_counter()
        assert (await connection.execute(COUNTS_FOR_LONG, execution_options=LONG)).scalar_one() == 3_000_000
        took = time.perf_counter() - began
    ticking.cancel()
    assert ticker.longest < took / 2


async def test_a_cancelled_long_statement_is_interrupted_and_leaves_no_lock(engine: SqliteEngine) -> None:
    async def for_ever() -> None:
        async with engine.begin() as connection:
            await connection.execute(text("UPDATE t SET i = 2"))
            begun.set()
            await connection.execute(COUNTS_FOR_EVER, execution_options=LONG)

    begun = asyncio.Event()
    task = asyncio.create_task(for_ever())
    async with asyncio.timeout(30):
        await begun.wait()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        async with engine.begin() as connection:
            assert (await connection.execute(text("SELECT i FROM t"))).scalar_one() == 1


async def test_a_long_statement_that_is_cancelled_before_its_thread_begins_it_is_interrupted_too(
    engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, may_begin = threading.Event(), threading.Event()

    def late(*arguments: Any) -> CursorResult[Any]:
        asked.set()
        assert may_begin.wait(30)
        return fetched(*arguments)

    async def for_ever() -> None:
        async with engine.begin() as connection:
            await connection.execute(COUNTS_FOR_EVER, execution_options=LONG)

    fetched = sqlite._fetched
    monkeypatch.setattr(sqlite, "_fetched", late)
    task = asyncio.create_task(for_ever())
    async with asyncio.timeout(30):
        await asyncio.to_thread(asked.wait, 30)
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        may_begin.set()
        with suppress(asyncio.CancelledError):
            await task


async def test_waiting_for_another_writer_does_not_hold_up_the_event_loop(engine: SqliteEngine, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    async def write() -> None:
        async with engine.begin() as connection:
            await connection.execute(text("UPDATE t SET i = 2"))

    ticker = Ticker()
    ticking, writing = asyncio.create_task(ticker.run()), asyncio.create_task(write())
    done, _ = await asyncio.wait({writing}, timeout=0.5)
    assert not done
    other.execute("COMMIT")
    async with asyncio.timeout(30):
        await writing
    ticking.cancel()
    other.close()
    assert ticker.longest < 0.4


async def test_who_is_cancelled_while_waiting_for_another_writer_takes_no_lock(engine: SqliteEngine, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    async def write() -> None:
        async with engine.begin():
            raise AssertionError

    writing = asyncio.create_task(write())
    await asyncio.wait({writing}, timeout=0.1)
    writing.cancel()
    with suppress(asyncio.CancelledError):
        await writing
    other.execute("COMMIT")
    other.execute("BEGIN IMMEDIATE")
    other.close()


async def test_waiting_for_another_writer_ends(engine: SqliteEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.1)
    other = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(OperationalError, match="locked"):
        async with engine.begin():
            raise AssertionError
    other.close()
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE t SET i = 2"))


async def test_a_cancelled_change_is_undone_as_a_whole(engine: SqliteEngine) -> None:
    """SQLite rolls a whole transaction back when a change in it is interrupted, savepoints and all, and says nothing."""

    async def change() -> None:
        async with engine.begin() as connection:
            await connection.execute(text("UPDATE t SET i = 2"))
            async with connection.begin_nested():
                begun.set()
                await connection.execute(insert(NUMBERS).from_select(["i"], COUNTS), execution_options=LONG)

    begun = asyncio.Event()
    task = asyncio.create_task(change())
    async with asyncio.timeout(30):
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with engine.begin() as connection:
            assert (await connection.execute(text("SELECT max(i), count(*) FROM t"))).one() == (1, 1)


async def test_what_a_claim_looks_for_first_stands_in_an_index(engine: SqliteEngine, empty_sqlite: Path) -> None:
    """A worker asks it whenever something happens: it must not cost more with each turn that was ever answered."""
    for statement in (turn_queue._any_due(), turn_queue._unfinished()):
        sql = statement._compiled(engine.dialect).sql
        connection = sqlite3.connect(empty_sqlite)
        plan = " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", ["1"] * sql.count("?")))
        connection.close()
        assert "USING INDEX ix_turns_" in plan, plan
