"""The database as the core sees it: transactions that carry the repositories and the events they report."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncTransaction

from core.errors import StorageUnavailable
from core.events import Lagged, StateEvent, to_json
from core.live import LiveEvents
from core.ports import Clock
from storage import repositories, schema
from storage.engine import AnyConnection, Engine
from storage.failures import told_in_our_words
from storage.migrate import head
from storage.payloads import NOTIFY, pack
from storage.sqlite import LONG, SqliteTransaction
from storage.turn_queue import TurnQueue

INBOX_KEPT = timedelta(days=7)
CHANGES_KEPT = timedelta(hours=1)
MODEL_REQUESTS_KEPT = timedelta(hours=1)
MODEL_PAUSES_KEPT = timedelta(days=1)
WORKERS_KEPT = timedelta(days=1)
SIGN_IN_ATTEMPTS_KEPT = timedelta(hours=1)
_KEPT = {
    schema.inbox.c.received_at: INBOX_KEPT,
    schema.changes.c.at: CHANGES_KEPT,
    schema.model_requests.c.at: MODEL_REQUESTS_KEPT,
    schema.model_pauses.c.paused_until: MODEL_PAUSES_KEPT,
    schema.workers.c.heartbeat_at: WORKERS_KEPT,
    schema.sessions.c.expires_at: timedelta(),
    schema.links.c.expires_at: timedelta(),
    schema.sign_in_attempts.c.at: SIGN_IN_ATTEMPTS_KEPT,
}


class UnitOfWork:
    """One open transaction."""

    def __init__(self, connection: AnyConnection, now: datetime) -> None:
        self._connection = connection
        self.now = now
        self.events: list[StateEvent] = []
        self.users = repositories.Users(connection, now)
        self.sessions = repositories.Sessions(connection, now)
        self.links = repositories.Links(connection, now)
        self.sign_in_attempts = repositories.SignInAttempts(connection, now)
        self.tokens = repositories.Tokens(connection, now)
        self.projects = repositories.Projects(connection, now)
        self.tasks = repositories.Tasks(connection, now)
        self.conversations = repositories.Conversations(connection, now)
        self.messages = repositories.Messages(connection, now)
        self.summaries = repositories.Summaries(connection, now)
        self.attachments = repositories.Attachments(connection, now)
        self.turns = TurnQueue(connection, now)
        self.steps = repositories.Steps(connection, now)
        self.tool_calls = repositories.ToolCalls(connection, now)
        self.approvals = repositories.Approvals(connection, now)
        self.inbox = repositories.Inbox(connection, now)
        self.usage = repositories.Usage(connection, now)
        self.pauses = repositories.ModelPauses(connection, now)
        self.model_requests = repositories.ModelRequests(connection, now)
        self.workers = repositories.Workers(connection, now)

    def emit(self, *events: StateEvent) -> None:
        self.events.extend(events)

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        emitted = len(self.events)
        try:
            with told_in_our_words():
                async with self._connection.begin_nested():
                    yield
        except BaseException:
            del self.events[emitted:]
            raise


class Database:
    """The core's Storage port on SQLAlchemy. `process_id` marks this process's own rows in the feed of changes."""

    def __init__(self, *, writer: Engine, reader: Engine, live: LiveEvents, clock: Clock, process_id: UUID) -> None:
        self._writer = writer
        self._reader = reader
        self._live = live
        self._clock = clock
        self._process_id = process_id

    @asynccontextmanager
    async def read(self) -> AsyncIterator[UnitOfWork]:
        with told_in_our_words():
            async with self._reader.begin() as connection:
                yield UnitOfWork(connection, self._clock.now())

    @asynccontextmanager
    async def write(self) -> AsyncIterator[UnitOfWork]:
        with told_in_our_words():
            async with self._writer.connect() as connection:
                transaction = await connection.begin()
                unit = UnitOfWork(connection, self._clock.now())
                try:
                    yield unit
                    await self._announce(connection, unit)
                except BaseException:
                    await transaction.rollback()
                    raise
                await self._commit(transaction, unit)

    async def version(self) -> str:
        with told_in_our_words():
            async with self._reader.connect() as connection:
                if connection.dialect.name == "postgresql":
                    return f"PostgreSQL {(await connection.exec_driver_sql('SHOW server_version')).scalar_one()}"
                return f"SQLite {(await connection.exec_driver_sql('SELECT sqlite_version()')).scalar_one()}"

    async def check(self) -> None:
        try:
            with told_in_our_words():
                async with self._reader.connect() as connection:
                    revision = (await connection.exec_driver_sql("SELECT version_num FROM alembic_version")).scalar_one_or_none()
        except DBAPIError:
            raise StorageUnavailable("The database does not have Onethread's tables any more.") from None
        if revision != head():
            raise StorageUnavailable("The database has the tables of another version of Onethread. Run the same version everywhere.")

    async def prune(self, now: datetime) -> Mapping[str, int]:
        removed = {}
        for column, age in _KEPT.items():
            with told_in_our_words():
                async with self._writer.begin() as connection:
                    gone = await connection.execute(delete(column.table).where(column < now - age), execution_options=LONG)
                    removed[str(column.table)] = gone.rowcount
        return removed

    async def prunable(self, now: datetime) -> Mapping[str, int]:
        with told_in_our_words():
            async with self._reader.begin() as connection:
                counted = {str(column.table): select(func.count()).where(column < now - age) for column, age in _KEPT.items()}
                return {table: int((await connection.execute(query)).scalar_one()) for table, query in counted.items()}

    async def close(self) -> None:
        await self._reader.dispose()
        await self._writer.dispose()

    async def _commit(self, transaction: AsyncTransaction | SqliteTransaction, unit: UnitOfWork) -> None:
        """Commits and publishes. Cancellations in between wait: what is stored must also be told."""
        commit = asyncio.ensure_future(transaction.commit())
        try:
            await asyncio.shield(commit)
        finally:
            while not commit.done():
                with suppress(asyncio.CancelledError):  # the second one; the first is on its way
                    await asyncio.wait({commit})
            if not commit.cancelled() and commit.exception() is None:
                self._live.publish(*unit.events)
            else:
                self._live.publish(Lagged())  # whether it was committed is unknown

    async def _announce(self, connection: AnyConnection, unit: UnitOfWork) -> None:
        """Lets the other processes know, when it is committed."""
        if not unit.events:
            return
        if connection.dialect.name == "postgresql":
            await connection.exec_driver_sql(NOTIFY, (pack(self._process_id, unit.events),))
        else:
            change = {"origin": self._process_id, "events": [to_json(event) for event in unit.events], "at": unit.now}
            await repositories.insert_into(schema.changes, *change).run(connection, change)
