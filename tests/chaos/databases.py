"""The database under test as its owner sees it: read with plain SQL, where nothing of the code under test takes part, and taken away."""

import asyncio
import itertools
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path
from typing import Any, Protocol

import asyncpg

from storage.sqlite import BUSY_SECONDS
from tests.postgres import ADMIN, Server

Outage = Callable[[], AbstractAsyncContextManager[None]]
"""The database is away while the block runs."""
LOCK_SECONDS = 0.5
"""Longer than any transaction should last."""


class Away(Exception):
    """The database cannot be read just now."""


class Database(Protocol):
    shortest_outages: Mapping[str, float]
    """The ways in which it can be away, and for how many seconds each of them lasts at least."""

    exact_times: bool
    """Whether times in one conversation grow with every transaction: where they run side by side, one that waited for another has the
    earlier time."""
    gapless_feed: bool
    """Whether processes hear of every change, whatever happens to the database."""

    @property
    def outages(self) -> Mapping[str, Outage]: ...

    def rows(self, query: str, *values: Any) -> list[Any]:
        """Values by name or position; `?` stands for each of `values`. Raises Away."""

    def write_locked(self) -> bool:
        """Whether somebody holds locks for longer than any transaction should."""

    def damage(self) -> Iterator[str]: ...


class SqliteFile:
    shortest_outages: Mapping[str, float] = {"locked": 0.5, "locked for longer than anybody waits": BUSY_SECONDS + 1}
    exact_times = True
    gapless_feed = True

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def outages(self) -> Mapping[str, Outage]:
        return dict.fromkeys(self.shortest_outages, self._locked)

    def rows(self, query: str, *values: Any) -> list[Any]:
        with closing(sqlite3.connect(self._path, timeout=10)) as connection:
            connection.row_factory = sqlite3.Row
            return connection.execute(query, values).fetchall()

    def write_locked(self) -> bool:
        with closing(sqlite3.connect(self._path, timeout=LOCK_SECONDS, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
            except sqlite3.OperationalError:
                return True
        return False

    def damage(self) -> Iterator[str]:
        if (found := self.rows("PRAGMA integrity_check")[0][0]) != "ok":
            yield f"integrity_check: {found}"
        if broken := self.rows("PRAGMA foreign_key_check"):
            yield f"{len(broken)} rows point to nothing"

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        """Somebody else's program holds the write lock."""
        with closing(sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)) as holder:
            await asyncio.to_thread(holder.execute, "BEGIN IMMEDIATE")
            yield  # the lock ends with the connection at the latest
            holder.execute("ROLLBACK")


class PostgresDatabase:
    shortest_outages: Mapping[str, float] = {"connections ended": 0.0, "crashed": 0.5, "read-only": 1.0}
    exact_times = False
    gapless_feed = False

    def __init__(self, server: Server, name: str) -> None:
        self._server = server
        self._name = name
        # The administrator gets in where all other connections are taken.
        self._dsn = server.url(name, ADMIN).set(drivername="postgresql").render_as_string()

    @property
    def outages(self) -> Mapping[str, Outage]:
        return {"connections ended": self._ended, "crashed": self._crashed, "read-only": self._read_only}

    def rows(self, query: str, *values: Any) -> list[Any]:
        numbers = itertools.count(1)
        numbered = re.sub(r"\?", lambda _: f"${next(numbers)}", query)
        with ThreadPoolExecutor(1) as thread:  # the caller's thread has an event loop already
            return thread.submit(asyncio.run, self._fetch(numbered, values)).result()

    def write_locked(self) -> bool:
        time.sleep(LOCK_SECONDS)
        of_clients = "xact_start IS NOT NULL AND pid <> pg_backend_pid() AND wait_event = 'ClientRead'"
        silent = "extract(epoch FROM clock_timestamp() - state_change) >= ?"
        query = f"SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND {of_clients} AND {silent}"
        return bool(self.rows(query, LOCK_SECONDS))

    def damage(self) -> Iterator[str]:
        yield from ()

    async def _fetch(self, query: str, values: tuple[Any, ...]) -> list[Any]:
        try:
            connection = await asyncpg.connect(self._dsn, timeout=10)
            try:
                return list(await connection.fetch(query, *values))
            finally:
                await connection.close()
        except (OSError, asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError):
            raise Away from None

    @asynccontextmanager
    async def _ended(self) -> AsyncIterator[None]:
        await self._end_connections()
        yield

    @asynccontextmanager
    async def _crashed(self) -> AsyncIterator[None]:
        await asyncio.to_thread(self._server.stop, "immediate")
        try:
            yield
        finally:
            await asyncio.to_thread(self._server.start)

    @asynccontextmanager
    async def _read_only(self) -> AsyncIterator[None]:
        """As where another server took over: those who come now can only read, until they come anew."""
        await self._server.execute(f"ALTER DATABASE {self._name} SET default_transaction_read_only = on")
        await self._end_connections()
        try:
            yield
        finally:
            await self._server.execute(f"ALTER DATABASE {self._name} RESET default_transaction_read_only")

    async def _end_connections(self) -> None:
        await self._server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", self._name)
