"""The database as the core sees it: transactions that carry the repositories and the events they report."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncTransaction

from core.errors import StorageUnavailable
from core.events import Lagged, StateEvent, packed
from core.live import LiveEvents
from core.ports import Clock
from storage import platforms, repositories, schema
from storage.engine import AnyConnection, Engine
from storage.failures import told_in_our_words
from storage.group_commit import GroupCommit, known
from storage.migrate import head
from storage.payloads import NOTIFY, pack
from storage.prepared import on_driver
from storage.sqlite import LONG, SqliteConnection, SqliteEngine
from storage.turn_queue import TurnQueue

INBOX_KEPT = timedelta(days=7)
CHANGES_KEPT = timedelta(hours=1)
MODEL_REQUESTS_KEPT = timedelta(hours=1)
MODEL_PAUSES_KEPT = timedelta(days=1)
WORKERS_KEPT = timedelta(days=1)
SIGN_IN_ATTEMPTS_KEPT = timedelta(hours=1)
INBOUND_KEPT = timedelta(days=7)
"""After it was taken in."""
CURSORS_KEPT = timedelta(days=30)
"""After a channel was last heard."""
_KEPT = {
    schema.inbox.c.received_at: INBOX_KEPT,
    schema.changes.c.at: CHANGES_KEPT,
    schema.model_requests.c.at: MODEL_REQUESTS_KEPT,
    schema.model_pauses.c.paused_until: MODEL_PAUSES_KEPT,
    schema.workers.c.heartbeat_at: WORKERS_KEPT,
    schema.sessions.c.expires_at: timedelta(),
    schema.links.c.expires_at: timedelta(),
    schema.sign_in_attempts.c.at: SIGN_IN_ATTEMPTS_KEPT,
    schema.inbound.c.done_at: INBOUND_KEPT,
    schema.cursors.c.updated_at: CURSORS_KEPT,
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
        self.task_changes = repositories.TaskChanges(connection, now)
        self.conversations = repositories.Conversations(connection, now)
        self.read_marks = repositories.ReadMarks(connection, now)
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
        self.identities = platforms.Identities(connection, now)
        self.bindings = platforms.Bindings(connection, now)
        self.deliveries = platforms.Deliveries(connection, now)
        self.inbound = platforms.Inbound(connection, now)
        self.cursors = platforms.Cursors(connection, now)
        self.account_leases = platforms.AccountLeases(connection, now)

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
        if isinstance(writer, SqliteEngine):
            self._together = GroupCommit(writer, last=self._store_events, told=self._publish)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[UnitOfWork]:
        with told_in_our_words():
            async with self._reader.begin() as connection:
                yield self._unit(connection)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[UnitOfWork]:
        with told_in_our_words():
            if isinstance(self._writer, AsyncEngine):
                async with self._alone(self._writer) as unit:
                    yield unit
            else:
                async with self._together.unit(self._unit) as unit:
                    yield unit

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

    def _unit(self, connection: AnyConnection) -> UnitOfWork:
        return UnitOfWork(connection, self._clock.now())

    # --- SQLite ---

    async def _store_events(self, connection: SqliteConnection, units: Sequence[UnitOfWork]) -> None:
        """For other processes to read."""
        events = [packed(event) for unit in units for event in unit.events]
        if events:
            change = {"origin": self._process_id, "events": events, "at": units[-1].now}
            await repositories.insert_into(schema.changes, *change).run(connection, change)

    def _publish(self, committed: Sequence[UnitOfWork] | None) -> None:
        """None: whether it was committed is unknown."""
        if committed is None:
            self._live.publish(Lagged())
        else:
            self._live.publish(*(event for unit in committed for event in unit.events))

    # --- PostgreSQL ---

    @asynccontextmanager
    async def _alone(self, engine: AsyncEngine) -> AsyncIterator[UnitOfWork]:
        """Committed by itself: together with others it would hold their rows longer, and wait for rows that others hold."""
        async with engine.connect() as connection:
            transaction = await connection.begin()
            unit = self._unit(connection)
            try:
                yield unit
                if unit.events:
                    await on_driver(connection, NOTIFY, (pack(self._process_id, unit.events),))
            except BaseException:
                await transaction.rollback()
                raise
            await self._commit(transaction, unit)

    async def _commit(self, transaction: AsyncTransaction, unit: UnitOfWork) -> None:
        """Commits and publishes. Cancellations in between wait: what is stored must also be told."""
        commit = asyncio.ensure_future(transaction.commit())
        try:
            await known(commit)
        finally:
            self._publish([unit] if not commit.cancelled() and commit.exception() is None else None)
