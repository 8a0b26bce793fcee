"""The database as the core sees it: transactions that carry the repositories and the events they report."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncTransaction

from core.events import StateEvent, to_json
from core.live import LiveEvents
from core.ports import Clock
from storage import repositories, schema
from storage.failures import told_as_unavailable
from storage.turn_queue import TurnQueue

INBOX_KEPT = timedelta(days=7)
CHANGES_KEPT = timedelta(hours=1)
MODEL_REQUESTS_KEPT = timedelta(hours=1)
WORKERS_KEPT = timedelta(days=1)
_KEPT = {
    schema.inbox.c.received_at: INBOX_KEPT,
    schema.changes.c.at: CHANGES_KEPT,
    schema.model_requests.c.at: MODEL_REQUESTS_KEPT,
    schema.workers.c.heartbeat_at: WORKERS_KEPT,
}


class UnitOfWork:
    """One open transaction."""

    def __init__(self, connection: AsyncConnection, now: datetime) -> None:
        self._connection = connection
        self.now = now
        self.events: list[StateEvent] = []
        self.users = repositories.Users(connection, now)
        self.tokens = repositories.Tokens(connection, now)
        self.projects = repositories.Projects(connection, now)
        self.tasks = repositories.Tasks(connection, now)
        self.conversations = repositories.Conversations(connection, now)
        self.messages = repositories.Messages(connection, now)
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
            with told_as_unavailable():
                async with self._connection.begin_nested():
                    yield
        except BaseException:
            del self.events[emitted:]
            raise


class Database:
    """The core's Storage port on SQLAlchemy. `process_id` marks this process's own rows in the feed of changes."""

    def __init__(self, *, writer: AsyncEngine, reader: AsyncEngine, live: LiveEvents, clock: Clock, process_id: UUID) -> None:
        self._writer = writer
        self._reader = reader
        self._live = live
        self._clock = clock
        self._process_id = process_id

    @asynccontextmanager
    async def read(self) -> AsyncIterator[UnitOfWork]:
        with told_as_unavailable():
            async with self._reader.begin() as connection:
                yield UnitOfWork(connection, self._clock.now())

    @asynccontextmanager
    async def write(self) -> AsyncIterator[UnitOfWork]:
        with told_as_unavailable():
            async with self._writer.connect() as connection:
                transaction = await connection.begin()
                unit = UnitOfWork(connection, self._clock.now())
                try:
                    yield unit
                    await self._store_changes(connection, unit)
                except BaseException:
                    await transaction.rollback()
                    raise
                await self._commit(transaction, unit)

    async def prune(self, now: datetime) -> Mapping[str, int]:
        removed = {}
        for column, age in _KEPT.items():
            with told_as_unavailable():
                async with self._writer.begin() as connection:
                    gone = await connection.execute(delete(column.table).where(column < now - age))
                    removed[str(column.table)] = gone.rowcount
        return removed

    async def prunable(self, now: datetime) -> Mapping[str, int]:
        with told_as_unavailable():
            async with self._reader.begin() as connection:
                counted = {str(column.table): select(func.count()).where(column < now - age) for column, age in _KEPT.items()}
                return {table: int((await connection.execute(query)).scalar_one()) for table, query in counted.items()}

    async def close(self) -> None:
        await self._reader.dispose()
        await self._writer.dispose()

    async def _commit(self, transaction: AsyncTransaction, unit: UnitOfWork) -> None:
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

    async def _store_changes(self, connection: AsyncConnection, unit: UnitOfWork) -> None:
        if unit.events:
            rows = [{"origin": self._process_id, "event": to_json(event), "at": unit.now} for event in unit.events]
            await connection.execute(repositories.insert_into(schema.changes), rows)
