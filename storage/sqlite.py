"""SQLite: one process writes in order, many processes share a file, and a statement costs microseconds.

Statements run right in the event loop's thread: a small one takes 20 µs there, and 170 µs by way of a thread of its own and a greenlet, as
docs/decisions/0006 tells. What may really wait goes to a thread: opening, committing (the disk), and statements marked LONG.
"""

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic_core import from_json
from sqlalchemy import Connection, CursorResult, Dialect, Executable, RootTransaction, create_engine, event
from sqlalchemy import Engine as SyncEngine
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from core.errors import StorageUnavailable
from storage.texts import clean_parameters_of, json_text

READERS = 5
BUSY_SECONDS = 10.0
POOL_SECONDS = 60.0
_CANCEL_AGAIN_SECONDS = 0.02
LONG: Any = {"long": True}
"""Execution options of a statement that may go through much of the database: it does not hold up the event loop."""
_T = TypeVar("_T")


def sqlite_writer(url: URL) -> "SqliteEngine":
    """One connection for each process: its queue is the order of writing. Every transaction takes the file's write lock when it begins."""
    folder = Path(url.database or "").parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageUnavailable(
            f"The database's folder {str(folder)!r} cannot be made ({error.strerror}). Set ONETHREAD_DATA_DIR to another."
        ) from None
    return SqliteEngine(url, connections=1, reads_only=False)


def sqlite_reader(url: URL) -> "SqliteEngine":
    """A pool for consistent views that cannot write."""
    return SqliteEngine(url, connections=READERS, reads_only=True)


class SqliteEngine:
    """What storage uses of SQLAlchemy's AsyncEngine, for a file."""

    def __init__(self, url: URL, *, connections: int, reads_only: bool) -> None:
        self._engine = create_engine(
            url.set(drivername="sqlite+pysqlite"),
            hide_parameters=True,
            json_serializer=json_text,
            json_deserializer=from_json,  # three times as fast as the standard library, and more for what is empty
            pool_size=connections,
            max_overflow=0,
            pool_reset_on_return=None,  # a connection comes back committed or rolled back
            connect_args={"check_same_thread": False, "isolation_level": None, "timeout": BUSY_SECONDS},
        )
        self._reads_only = reads_only
        self._free = asyncio.Semaphore(connections)
        self._threads = ThreadPoolExecutor(connections, thread_name_prefix="sqlite")
        clean_parameters_of(self._engine)
        event.listen(self._engine, "connect", partial(_prepare, reads_only=reads_only))

    @property
    def sync_engine(self) -> SyncEngine:
        return self._engine

    @property
    def dialect(self) -> Dialect:
        return self._engine.dialect

    @asynccontextmanager
    async def connect(self) -> AsyncIterator["SqliteConnection"]:
        await acquired(self._free)
        try:
            if not self._engine.pool.checkedin():  # type: ignore[attr-defined]  # of a QueuePool, which this is
                await _in_thread(self._threads, self._open)
            with self._engine.connect() as connection:
                yield SqliteConnection(connection, self._threads, reads_only=self._reads_only)
        finally:
            self._free.release()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator["SqliteConnection"]:
        """A transaction, committed at the end, rolled back by an exception."""
        async with self.connect() as connection:
            transaction = await connection.begin()
            try:
                yield connection
                await transaction.commit()
            except BaseException:
                await transaction.rollback()
                raise

    async def dispose(self) -> None:
        await _in_thread(self._threads, self._engine.dispose)
        self._threads.shutdown(wait=False)

    def _open(self) -> None:
        """Leaves an open connection in the pool."""
        with self._engine.connect():
            pass


class SqliteConnection:
    """What storage uses of SQLAlchemy's AsyncConnection."""

    def __init__(self, connection: Connection, threads: ThreadPoolExecutor, *, reads_only: bool) -> None:
        self._connection = connection
        self._driver = _driver_of(connection)
        self._threads = threads
        self._reads_only = reads_only
        self.dialect = connection.dialect

    async def begin(self) -> "SqliteTransaction":
        transaction = self._connection.begin()
        try:
            await self._lock("BEGIN" if self._reads_only else "BEGIN IMMEDIATE")
        except BaseException:
            transaction.rollback()
            raise
        return SqliteTransaction(transaction, self._driver, self._threads)

    @property
    def in_transaction(self) -> bool:
        """False also where SQLite rolled back by itself, as it does on a full disk."""
        return self._driver.in_transaction

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Like SQLAlchemy's, at the cost of the commands alone. Where SQLite rolled everything back, its own error is told."""
        self.on_driver("SAVEPOINT unit", ())
        try:
            yield
            self.on_driver("RELEASE unit", ())
        except BaseException:
            if self.in_transaction:
                self.on_driver("ROLLBACK TO unit", ())
                self.on_driver("RELEASE unit", ())
            raise

    @asynccontextmanager
    async def begin_nested(self) -> AsyncIterator[None]:
        with self.savepoint():
            yield

    async def execute(self, statement: Executable, parameters: Any = None, *, execution_options: Any = None) -> CursorResult[Any]:
        if execution_options is LONG:
            # What changes rows is not interrupted: SQLite would roll back the whole transaction, and its owner would not know.
            on_cancel = None if statement.is_dml else self._driver.interrupt
            work = partial(_fetched, self._connection, statement, parameters)
            return await _in_thread(self._threads, work, on_cancel=on_cancel)
        return self._connection.execute(statement, parameters)

    def on_driver(self, sql: str, arguments: Sequence[Any]) -> list[Any]:
        """All rows of a statement that is neither long nor in need of SQLAlchemy."""
        try:
            return self._driver.execute(sql, arguments).fetchall()
        except sqlite3.Error as error:
            self._connection._handle_dbapi_exception(error, sql, None, None, None)

    async def exec_driver_sql(self, statement: str, parameters: Any = None) -> CursorResult[Any]:
        return self._connection.exec_driver_sql(statement, parameters)

    async def run_sync(self, work: Callable[[Connection], _T]) -> _T:
        """Lets `work` use the connection in a thread."""
        return await _in_thread(self._threads, partial(work, self._connection))

    async def _lock(self, begin: str) -> None:
        """Waits for other processes without holding up the event loop, which SQLite's own waiting would."""
        deadline, pause = asyncio.get_running_loop().time() + BUSY_SECONDS, 0.001
        while True:
            try:
                self.on_driver(begin, ())
                return
            except OperationalError as error:
                if not _is_busy(error) or asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(random.uniform(pause / 2, pause))
            pause = min(pause * 2, 0.05)


class SqliteTransaction:
    def __init__(self, transaction: RootTransaction, driver: sqlite3.Connection, threads: ThreadPoolExecutor) -> None:
        self._transaction = transaction
        self._driver = driver
        self._threads = threads
        self._changes = driver.total_changes

    async def commit(self) -> None:
        """Waits for the disk in a thread, where there is something to store."""
        if self._driver.total_changes == self._changes:
            self._transaction.commit()
        else:
            await _in_thread(self._threads, self._transaction.commit)

    async def rollback(self) -> None:
        self._transaction.rollback()
        self._driver.rollback()  # SQLAlchemy holds a transaction for ended whose commit failed; SQLite does not


async def acquired(free: asyncio.Semaphore) -> None:
    """Waits for a place; raises PoolTimeout where it takes too long."""
    try:
        async with asyncio.timeout(POOL_SECONDS):
            await free.acquire()
    except TimeoutError:
        raise PoolTimeout from None


def _driver_of(connection: Connection) -> sqlite3.Connection:
    driver: Any = connection.connection.driver_connection
    return cast(sqlite3.Connection, driver)


def _prepare(connection: sqlite3.Connection, _record: object, *, reads_only: bool) -> None:
    # FULL: what was acknowledged is on the disk, also when the power fails. NORMAL would only survive a killed process.
    pragmas = ["journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"]
    # The writer waits in SqliteConnection._lock. A reader never waits for a writer, only, rarely, for a file that is being recovered.
    pragmas += ["query_only=ON", "busy_timeout=1000"] if reads_only else ["busy_timeout=0"]
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}")
    connection.create_function("casefold", 1, _casefold, deterministic=True)


def _casefold(text: str | None) -> str | None:
    """For searching: SQLite's own functions know the two cases of ASCII's letters only."""
    return text and text.casefold()


def _fetched(connection: Connection, statement: Executable, parameters: Any) -> CursorResult[Any]:
    """The result with all its rows, which SQLite otherwise looks for when they are asked for."""
    result = connection.execute(statement, parameters)
    return cast(CursorResult[Any], result.freeze()()) if result.returns_rows else result


def _is_busy(error: OperationalError) -> bool:
    return getattr(error.orig, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


async def _in_thread(threads: ThreadPoolExecutor, work: Callable[[], _T], *, on_cancel: Callable[[], None] | None = None) -> _T:
    """Cancelled, it ends only when the thread has let go of the connection."""
    running = asyncio.get_running_loop().run_in_executor(threads, work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            if on_cancel:
                on_cancel()  # again and again: the thread may not yet have come to what is to be stopped
            with suppress(asyncio.CancelledError):
                await asyncio.wait({running}, timeout=_CANCEL_AGAIN_SECONDS if on_cancel else None)
        _ = running.exception()  # taken, or asyncio would print its text
        raise
