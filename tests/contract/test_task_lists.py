"""Lists of tasks and of active conversations, on each database: in order, without gaps, and by an index however many there are."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert, literal_column, select

from core import conversations, identity, projects, tasks, turns
from core.access import Principal
from core.errors import InvalidInput
from core.ids import new_id
from core.live import LiveEvents
from core.models import AgentStatus, Task, TaskStatus
from core.ports import ChangedTask, TaskFilter, UnitOfWork
from core.tasks import TaskListing
from storage import repositories, schema
from storage.engine import Engine, engines, is_postgres
from storage.prepared import Prepared, on_driver
from storage.rows import dump
from storage.unit_of_work import Database
from tests.databases import NewDatabase, on_both
from tests.fakes import ManualClock

new_database = on_both


@dataclass(slots=True)
class Board:
    storage: Database
    engine: Engine
    clock: ManualClock
    admin: Principal
    kim: Principal
    is_postgres: bool

    async def task(self, title: str, **fields: object) -> Task:
        """A second later than what was done before."""
        self.clock.advance(1)
        async with self.storage.write() as uow:
            return await tasks.create(uow, self.admin, title, fields)

    async def change(self, ref: str, **changes: object) -> Task:
        self.clock.advance(1)
        async with self.storage.write() as uow:
            return await tasks.update(uow, self.admin, ref, changes)

    async def listing(self, where: TaskFilter, *, after: UUID | ChangedTask | None = None, limit: int = 100) -> TaskListing:
        async with self.storage.read() as uow:
            return await tasks.listing(uow, self.kim, where, after=after, limit=limit)

    async def refs(self, where: TaskFilter) -> list[str]:
        return [task.ref for task in (await self.listing(where)).tasks]


@pytest.fixture
async def board(new_database: NewDatabase) -> AsyncIterator[Board]:
    clock = ManualClock()
    async with new_database() as url:
        writer, reader = engines(url)
        storage = Database(writer=writer, reader=reader, live=LiveEvents(), clock=clock, process_id=new_id())
        async with storage.write() as uow:
            await projects.default(uow)
            admin = identity.principal_of(await identity.local_admin(uow))
            kim = identity.principal_of(await identity.add_user(uow, "kim"))
        yield Board(storage, writer, clock, admin, kim, is_postgres(url))
        await storage.close()


async def test_those_that_changed_since_are_listed_the_last_changed_first(board: Board) -> None:
    for title in ("One", "Two", "Three"):
        await board.task(title)
    since = (await board.change("OT-2", status="done")).updated_at
    await board.change("OT-1", status="done")
    assert await board.refs(TaskFilter()) == ["OT-3", "OT-2", "OT-1"]
    assert await board.refs(TaskFilter(updated_since=since)) == ["OT-1", "OT-2"]
    assert await board.refs(TaskFilter(updated_since=since + timedelta(microseconds=1))) == ["OT-1"]
    assert await board.refs(TaskFilter(updated_since=since + timedelta(hours=1))) == []


async def test_conditions_hold_together(board: Board) -> None:
    await board.task("Milk", assignee="kim")
    await board.task("Bread", assignee="kim", status="done")
    since = (await board.task("Milk again", assignee="kim", status="done")).created_at
    await board.task("Milk for all", status="done")
    done, kims = frozenset({TaskStatus.DONE}), board.kim.user_id
    assert await board.refs(TaskFilter(statuses=done, assignee_id=kims)) == ["OT-3", "OT-2"]
    assert await board.refs(TaskFilter(statuses=done, updated_since=since)) == ["OT-4", "OT-3"]
    assert await board.refs(TaskFilter(assignee_id=kims, updated_since=since)) == ["OT-3"]
    assert await board.refs(TaskFilter(statuses=done, assignee_id=kims, updated_since=since, query="again milk")) == ["OT-3"]
    assert await board.refs(TaskFilter(statuses=frozenset({TaskStatus.TODO, TaskStatus.DONE}), query="milk")) == ["OT-4", "OT-3", "OT-1"]


@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_pages_of_what_changed_have_no_gap_and_no_repetition(board: Board, limit: int) -> None:
    """Several change in one moment: then their ids decide."""
    since = board.clock.now()
    async with board.storage.write() as uow:
        together = [await tasks.create(uow, board.admin, f"Task {number}") for number in range(4)]
    await board.task("Later")
    in_order = [task.ref for task in sorted(together, key=lambda task: task.id, reverse=True)]
    seen: list[str] = []
    after: ChangedTask | None = None
    for _ in range(5):
        page = await board.listing(TaskFilter(updated_since=since), after=after, limit=limit)
        seen += [task.ref for task in page.tasks]
        after = ChangedTask(page.tasks[-1].updated_at, page.tasks[-1].id)
        if not page.has_more:
            break
    assert seen == ["OT-5", *in_order]


async def test_a_place_in_one_order_is_none_in_the_other(board: Board) -> None:
    task = await board.task("One")
    with pytest.raises(InvalidInput, match="another order"):
        await board.listing(TaskFilter(updated_since=task.updated_at), after=task.id)
    with pytest.raises(InvalidInput, match="another order"):
        await board.listing(TaskFilter(), after=ChangedTask(task.updated_at, task.id))


@pytest.mark.parametrize(("number", "total", "exact"), [(99, 99, True), (100, 100, True), (101, 100, False), (250, 100, False)])
async def test_a_hundred_are_counted_at_most(board: Board, number: int, total: int, exact: bool) -> None:
    await _fill(board, number)
    listing = await board.listing(TaskFilter(), limit=10)
    assert (len(listing.tasks), listing.has_more, listing.total, listing.is_exact) == (10, True, total, exact)
    async with board.storage.read() as uow:
        assert await uow.tasks.count(board.kim, TaskFilter()) == number
        assert await uow.tasks.count(board.kim, TaskFilter(query="filled"), at_most=5) == 5
        assert await uow.tasks.count(board.kim, TaskFilter(query="no such words"), at_most=5) == 0


async def test_what_one_may_not_see_is_neither_listed_nor_counted(board: Board) -> None:
    await board.task("Ours")
    hidden = await board.task("Hidden")
    async with board.storage.write() as uow:
        await uow.conversations.update(hidden.conversation_id, visibility="private")
    assert await board.refs(TaskFilter()) == ["OT-1"]
    assert (await board.listing(TaskFilter(updated_since=board.clock.now() - timedelta(hours=1)))).total == 1
    async with board.storage.read() as uow:
        assert [task.ref for task in (await tasks.listing(uow, board.admin, TaskFilter())).tasks] == ["OT-2", "OT-1"]


async def test_conversations_in_which_the_agent_is_not_idle_are_listed_the_last_changed_first(board: Board) -> None:
    first, second, idle, archived = [(await board.task(title)).conversation_id for title in ("One", "Two", "Idle", "Archived")]
    private = await _chat(board, board.admin)
    for conversation_id in (first, private, second, archived):
        await _set_status(board, conversation_id, AgentStatus.THINKING)
    await _set_status(board, first, AgentStatus.ERROR)
    async with board.storage.write() as uow:
        await conversations.archive(uow, board.admin, archived)
        assert await _active(uow, board.kim, 10) == [first, second]
        assert await _active(uow, board.kim, 1) == [first]
        assert await _active(uow, board.admin, 10) == [first, second, private]
        known = [first, second, idle, private]
        assert await uow.conversations.agent_statuses(known) == {
            first: AgentStatus.ERROR,
            second: AgentStatus.THINKING,
            private: AgentStatus.THINKING,
        }
        assert await uow.conversations.agent_statuses([]) == {}


async def _active(uow: UnitOfWork, who: Principal, limit: int) -> list[UUID]:
    return [each.id for each in await conversations.active(uow, who, limit=limit)]


async def _chat(board: Board, who: Principal) -> UUID:
    async with board.storage.write() as uow:
        return (await conversations.create(uow, who)).id


async def _set_status(board: Board, conversation_id: UUID, status: AgentStatus) -> None:
    board.clock.advance(1)
    async with board.storage.write() as uow:
        await turns.set_agent_status(uow, conversation_id, status)


# --- by an index ---


async def test_lists_are_read_from_an_index(board: Board) -> None:
    """On SQLite in its order: whoever sorts there, or goes through all, takes longer the more tasks there are."""
    await _fill(board, 3_000)
    done, changed = frozenset({TaskStatus.DONE}), board.clock.now() - timedelta(days=1)
    kim = board.kim.user_id
    lists = {
        TaskFilter(): "autoindex",
        TaskFilter(statuses=done): "ix_tasks_status_id",
        TaskFilter(assignee_id=kim): "ix_tasks_assignee_id_id",
        TaskFilter(updated_since=changed): "ix_tasks_updated_at_id",
        TaskFilter(updated_since=changed, statuses=done): "ix_tasks_updated_at_id",
        TaskFilter(updated_since=changed, assignee_id=kim): "ix_tasks_updated_at_id",
    }
    for where, index in lists.items():
        for after in (None, ChangedTask(board.clock.now(), new_id())):
            plan = await _plan_of_page(board, where, after)
            assert index in plan or board.is_postgres, (where, plan)  # which knows how many there are, and may know a better one
            assert "Seq Scan on tasks" not in plan, (where, plan)
            assert "TEMP B-TREE" not in plan, (where, plan)


async def test_the_few_that_changed_lately_are_counted_from_their_index(board: Board) -> None:
    """And not by looking through the half of all that has this status."""
    await _fill(board, 3_000)
    where = TaskFilter(updated_since=board.clock.now(), statuses=frozenset({TaskStatus.DONE}))
    plan = await _plan(board, repositories._task_list(repositories._asked("counted", where, 101)), where)
    assert "ix_tasks_updated_at_id" in plan, plan


async def test_active_conversations_are_read_from_an_index_of_their_own(board: Board) -> None:
    await _fill(board, 3_000)
    async with board.engine.begin() as connection:
        is_active = select(schema.conversations.c.id).where(repositories._is_active())
        last = str(is_active.order_by(schema.conversations.c.updated_at.desc()).limit(literal_column("21")))
        rows = await connection.exec_driver_sql(_EXPLAIN[connection.dialect.name] + last)
        assert "ix_conversations_active" in _told(rows.all())


_EXPLAIN = {"sqlite": "EXPLAIN QUERY PLAN ", "postgresql": "EXPLAIN "}


async def _plan_of_page(board: Board, where: TaskFilter, after: ChangedTask | None) -> str:
    how: Any = "last changed" if where.updated_since else "newest"
    place = {"at": after.updated_at, "behind": after.task_id} if after else {}
    return await _plan(board, repositories._task_list(repositories._asked(how, where, 21, after)), where, **place)


async def _plan(board: Board, statement: Prepared, where: TaskFilter, **place: Any) -> str:
    async with board.engine.begin() as connection:
        compiled = statement._compiled(connection.dialect)
        values = {**repositories._task_values(board.kim, where), **place}
        return _told(await on_driver(connection, _EXPLAIN[connection.dialect.name] + compiled.sql, compiled.arguments(values)))


def _told(rows: Iterable[Any]) -> str:
    return "\n".join(str(tuple(row)) for row in rows)


async def _fill(board: Board, number: int) -> None:
    """So many tasks, half of them done, a tenth kim's, all changed before yesterday but the last."""
    last = await board.task("Filled")
    async with board.storage.read() as uow:
        conversation = await uow.conversations.find(last.conversation_id)
    assert conversation
    of_conversations, of_tasks = [], []
    for count in range(1, number):
        at, ids = board.clock.now() - timedelta(days=2, seconds=count), (new_id(), new_id())
        assignee = board.kim.user_id if count % 10 == 0 else None
        status = TaskStatus.DONE if count % 2 else TaskStatus.TODO
        task = replace(last, id=ids[0], conversation_id=ids[1], ref=f"F-{count}", status=status, assignee_id=assignee, updated_at=at)
        of_tasks.append(dump(task))
        of_conversations.append(dump(replace(conversation, id=ids[1]), "task_id", "task_ref", "project_model"))
    async with board.engine.begin() as connection:
        await connection.execute(insert(schema.conversations), of_conversations)
        await connection.execute(insert(schema.tasks), of_tasks)
        if board.is_postgres:  # as its autovacuum does; SQLite knows nothing of how many there are
            await connection.exec_driver_sql("ANALYZE")
