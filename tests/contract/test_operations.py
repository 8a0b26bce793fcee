"""What those who watch over Onethread read of the database, the same on each: the queue's state, and whether it can be used."""

import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg
import pytest
from sqlalchemy.engine import URL

from core import conversations, identity, messages, projects
from core.access import Principal
from core.errors import StorageUnavailable
from core.ids import new_id
from core.live import LiveEvents
from core.messages import PostingRules
from core.models import TurnStatus
from storage.engine import engines, is_postgres
from storage.unit_of_work import Database
from tests.databases import NewDatabase, on_both
from tests.fakes import ManualClock, claim_one

RULES = PostingRules(default_model="one/model")
new_database = on_both


@dataclass(slots=True)
class Subject:
    url: URL
    storage: Database
    clock: ManualClock
    admin: Principal

    async def post(self) -> None:
        async with self.storage.write() as uow:
            chat = await conversations.create(uow, self.admin)
            await messages.post(uow, self.admin, chat.id, "Hello", rules=RULES, source="test")

    async def execute(self, statement: str) -> None:
        """As another program does."""
        if is_postgres(self.url):
            connection = await asyncpg.connect(self.url.set(drivername="postgresql").render_as_string(hide_password=False))
            await connection.execute(statement)
            await connection.close()
            return
        database = sqlite3.connect(self.url.database or "")
        database.execute(statement)
        database.commit()
        database.close()


@pytest.fixture
async def subject(new_database: NewDatabase) -> AsyncIterator[Subject]:
    clock = ManualClock()
    async with new_database() as url:
        writer, reader = engines(url)
        storage = Database(writer=writer, reader=reader, live=LiveEvents(), clock=clock, process_id=new_id())
        async with storage.write() as uow:
            await projects.default(uow)
            admin = identity.principal_of(await identity.local_admin(uow))
        yield Subject(url, storage, clock, admin)
        await storage.close()


async def test_state_of_the_queue_counts_what_has_not_ended_and_tells_since_when_the_oldest_waits(subject: Subject) -> None:
    async with subject.storage.read() as uow:
        empty = await uow.turns.state()
    began = subject.clock.now()
    for _ in range(3):
        await subject.post()
        subject.clock.advance(10)
    async with subject.storage.write() as uow:
        claimed = await claim_one(uow)
    async with subject.storage.read() as uow:
        busy = await uow.turns.state()

    assert (dict(empty.numbers), empty.oldest_queued_at) == ({}, None)
    assert claimed
    assert claimed.created_at == began
    assert busy.numbers == {TurnStatus.QUEUED: 2, TurnStatus.RUNNING: 1}
    assert busy.oldest_queued_at
    assert (busy.oldest_queued_at - began).total_seconds() == 10


async def test_database_of_this_version_can_be_used(subject: Subject) -> None:
    await subject.storage.check()


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("UPDATE alembic_version SET version_num = '9999'", "tables of another version"),
        ("DELETE FROM alembic_version", "tables of another version"),
        ("DROP TABLE alembic_version", "does not have Onethread's tables"),
    ],
)
async def test_database_of_another_version_or_without_tables_cannot(subject: Subject, statement: str, reason: str) -> None:
    await subject.execute(statement)

    with pytest.raises(StorageUnavailable, match=reason):
        await subject.storage.check()
