"""What those who watch over Onethread read of the database, the same on each: the queue's state, and whether it can be used."""

import re
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import Select, insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL

from core import conversations, identity, messages, projects
from core.access import Principal
from core.errors import StorageUnavailable
from core.ids import new_id
from core.live import LiveEvents
from core.messages import PostingRules
from core.models import ModelPause, Turn, TurnStatus, Visibility
from storage import repositories, schema, turn_queue
from storage.engine import Engine, engines, is_postgres
from storage.prepared import on_driver
from storage.rows import dump
from storage.unit_of_work import Database
from tests.databases import NewDatabase, on_both
from tests.fakes import ManualClock, claim_one

RULES = PostingRules(default_model="one/model")
new_database = on_both


@dataclass(slots=True)
class Subject:
    url: URL
    storage: Database
    engine: Engine
    clock: ManualClock
    admin: Principal

    async def post(self) -> Turn:
        async with self.storage.write() as uow:
            chat = await conversations.create(uow, self.admin)
            posted = await messages.post(uow, self.admin, chat.id, "Hello", rules=RULES, source="test")
            assert posted.turn_id
            turn = await uow.turns.get(posted.turn_id)
            assert turn
            return turn

    async def set(self, turn: Turn, **changes: Any) -> UUID:
        async with self.storage.write() as uow:
            await uow.turns.update(turn.id, **changes)
        return turn.id

    async def listed(self, status: TurnStatus, *, after: UUID | None = None, limit: int = 10) -> list[UUID]:
        async with self.storage.read() as uow:
            return [turn.id for turn in await uow.turns.page(status, after=after, limit=limit)]

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
        yield Subject(url, storage, writer, clock, admin)
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


async def test_turns_of_a_status_are_listed_the_newest_first_and_go_on_behind_one(subject: Subject) -> None:
    statuses = (TurnStatus.FAILED, TurnStatus.QUEUED, TurnStatus.RUNNING, TurnStatus.WAITING, TurnStatus.SUCCEEDED)
    ids = {status: [await subject.set(await subject.post(), status=status) for _ in range(3)][::-1] for status in statuses}

    for status in statuses[:-1]:
        newest, middle, oldest = ids[status]
        assert await subject.listed(status) == [newest, middle, oldest]
        assert await subject.listed(status, limit=2) == [newest, middle]
        assert await subject.listed(status, after=newest, limit=1) == [middle]
        assert await subject.listed(status, after=middle) == [oldest]
        assert await subject.listed(status, after=oldest) == []
    await subject.set(await subject.post(), status=TurnStatus.CANCELLED)
    assert await subject.listed(TurnStatus.FAILED) == ids[TurnStatus.FAILED]


async def test_failures_are_counted_from_a_moment_on(subject: Subject) -> None:
    now = subject.clock.now()
    for seconds in (-1, 0, 1):
        await subject.set(await subject.post(), status=TurnStatus.FAILED, finished_at=now + timedelta(seconds=seconds))
    await subject.set(await subject.post(), status=TurnStatus.SUCCEEDED, finished_at=now)

    async with subject.storage.read() as uow:
        assert [await uow.turns.failed_since(now + timedelta(seconds=seconds)) for seconds in (-2, 0, 1, 2)] == [3, 2, 1, 0]


async def test_running_turns_are_counted_by_their_workers(subject: Subject) -> None:
    one, other = new_id(), new_id()
    for _ in range(4):
        await subject.post()
    async with subject.storage.write() as uow:
        for worker in (one, one, other):
            await claim_one(uow, worker)
    async with subject.storage.read() as uow:
        assert await uow.turns.running_by_worker() == {one: 2, other: 1}


async def test_pauses_are_read_without_holding_them(subject: Subject) -> None:
    """As an admin does who looks, in a transaction that may write nothing."""
    now = subject.clock.now()
    pauses = [ModelPause(model=model, paused_since=now, paused_until=now, pauses=1) for model in ("one/model", "two/model")]
    async with subject.storage.write() as uow:
        for pause in reversed(pauses):
            await uow.pauses.put(pause)
    async with subject.storage.read() as uow:
        assert await uow.pauses.all() == pauses


async def test_conversations_are_sieved_by_who_may_read_them(subject: Subject) -> None:
    async with subject.storage.write() as uow:
        kim = identity.principal_of(await identity.add_user(uow, "kim"))
        private, joined, shared = [await conversations.create(uow, subject.admin) for _ in range(3)]
        own = await conversations.create(uow, kim)
        await uow.conversations.add_member(joined.id, kim.user_id)
        await uow.conversations.update(shared.id, visibility=Visibility.SHARED)
        asked = [private.id, joined.id, shared.id, own.id, new_id()]
        assert {each.id for each in await uow.conversations.readable(asked, kim)} == {joined.id, shared.id, own.id}
        assert {each.id for each in await uow.conversations.readable(asked, subject.admin)} == {private.id, joined.id, shared.id}
        assert await uow.conversations.readable([], kim) == []


_EXPLAIN = {"sqlite": "EXPLAIN QUERY PLAN ", "postgresql": "EXPLAIN "}


@pytest.mark.parametrize("status", [TurnStatus.QUEUED, TurnStatus.RUNNING, TurnStatus.WAITING, TurnStatus.FAILED])
async def test_turns_of_a_status_are_found_by_an_index_however_many_have_ended(subject: Subject, status: TurnStatus) -> None:
    await _fill(subject, 3_000)
    await subject.set(await subject.post(), status=status)
    index = "ix_turns_failed" if status is TurnStatus.FAILED else "ix_turns_unfinished"

    for after in (None, new_id()):
        plan = await _plan(subject, turn_queue._newest(status, after, 11))
        assert re.search(rf"\b{index}\b", plan), plan
        assert "Seq Scan on turns" not in plan, plan
        assert "SCAN turns USING INDEX sqlite_autoindex" not in plan, plan


async def test_failures_of_a_day_are_counted_in_an_index(subject: Subject) -> None:
    await _fill(subject, 3_000)
    plan = await _plan(subject, turn_queue._failed_since(subject.clock.now()))
    assert "ix_turns_failed_at" in plan, plan


async def test_how_much_was_said_is_counted_in_indexes_however_long_a_conversation_is(subject: Subject) -> None:
    for _ in range(10):
        await _fill(subject, 300)
    last = await subject.post()
    await subject.execute("UPDATE messages SET status = 'completed'")
    statement = repositories._extents()
    async with subject.engine.begin() as connection:
        if is_postgres(subject.url):
            await connection.exec_driver_sql("ANALYZE")
        compiled = statement._compiled(connection.dialect)
        arguments = compiled.arguments({"keys": [last.conversation_id]})
        rows = await on_driver(connection, _EXPLAIN[connection.dialect.name] + compiled.sql, arguments)
    plan = "\n".join(str(tuple(row)) for row in rows)

    counted, newest = (
        ("Index Only Scan using uq_messages_conversation_id_seq", "Index Scan Backward using uq_messages_conversation_id_seq")
        if is_postgres(subject.url)
        else ("COVERING INDEX sqlite_autoindex_messages_2 (conversation_id=?)", "(conversation_id=? AND seq<?)")
    )
    for each in (counted, newest, "ix_messages_changed", "ix_turns_unfinished"):
        assert each in plan, plan


async def test_a_plan_that_was_made_while_a_table_was_small_serves_when_it_is_big(subject: Subject) -> None:
    """A connection keeps its plans: on PostgreSQL those of the first minutes would go through all of a table ever after."""
    await subject.post()
    statement = repositories._steps(plain=False)
    async with subject.engine.begin() as connection:
        sql = statement._compiled(connection.dialect).sql
        if is_postgres(subject.url):
            await connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
            await connection.exec_driver_sql(f"PREPARE kept AS {sql}")
            rows = await connection.exec_driver_sql("EXPLAIN EXECUTE kept(ARRAY[]::uuid[], 0)")
        else:
            rows = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", ("[]", 0))
        plan = "\n".join(str(tuple(row)) for row in rows.all())

    assert ("pk_steps" if is_postgres(subject.url) else "USING INDEX sqlite_autoindex_steps_1") in plan, plan


async def test_what_somebody_wrote_in_the_last_minute_is_looked_for_in_an_index_alone(subject: Subject) -> None:
    earlier = subject.clock.now() - timedelta(hours=1)
    team = [subject.admin.user_id, *(new_id() for _ in range(20))]
    entry = {"source": "s", "scope": "c", "body_sha256": "x", "result": {}}
    entries = [
        {**entry, "event_id": str(number), "user_id": team[number % len(team)], "received_at": earlier + timedelta(seconds=number)}
        for number in range(3_500)
    ]
    async with subject.engine.begin() as connection:
        await connection.execute(insert(schema.inbox), entries)
        if is_postgres(subject.url):  # as its autovacuum does
            await connection.exec_driver_sql("ANALYZE")
    statement = repositories._nth_last_received()
    async with subject.engine.begin() as connection:
        compiled = statement._compiled(connection.dialect)
        values = {"user": subject.admin.user_id, "since": earlier, "skipped": 59}
        rows = await on_driver(connection, _EXPLAIN[connection.dialect.name] + compiled.sql, compiled.arguments(values))
        plan = "\n".join(str(tuple(row)) for row in rows)

    assert re.search(r"(Index Only Scan|COVERING INDEX).* ix_inbox_user_id_received_at_source", plan), plan


async def _plan(subject: Subject, statement: Select[Any]) -> str:
    async with subject.engine.begin() as connection:
        dialect = postgresql.dialect() if is_postgres(subject.url) else sqlite.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's
        written = str(statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
        rows = await connection.exec_driver_sql(_EXPLAIN[dialect.name] + written)
        return "\n".join(str(tuple(row)) for row in rows.all())


async def _fill(subject: Subject, number: int) -> None:
    """So many turns, a hundredth of them failed, all others succeeded."""
    last = await subject.post()
    async with subject.storage.read() as uow:
        message = await uow.messages.get(last.user_message_id)
    assert message
    of_messages, of_turns = [], []
    for count in range(1, number):
        ids, seq = (new_id(), new_id(), new_id()), last.seq + 2 * count
        status = TurnStatus.FAILED if count % 100 == 0 else TurnStatus.SUCCEEDED
        turn = replace(last, id=ids[0], user_message_id=ids[1], reply_id=ids[2], seq=seq, status=status, finished_at=last.created_at)
        of_turns.append(dump(turn))
        of_messages += [dump(replace(message, id=ids[1], seq=seq)), dump(replace(message, id=ids[2], seq=seq + 1))]
    async with subject.engine.begin() as connection:
        await connection.execute(insert(schema.messages), of_messages)
        await connection.execute(insert(schema.turns), of_turns)
        if is_postgres(subject.url):  # as its autovacuum does
            await connection.exec_driver_sql("ANALYZE")


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
