"""What `storage.group_commit` promises: transactions share a commit, and nothing else of them is shared."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from core import projects
from core.errors import StorageUnavailable
from core.events import ConversationDeleted, Lagged
from core.ids import new_id
from core.live import LiveEvents
from core.models import Project
from storage.engine import database_url
from storage.migrate import upgrade
from storage.sqlite import sqlite_reader, sqlite_writer
from storage.unit_of_work import Database
from tests.fakes import ManualClock


@dataclass(slots=True)
class Subject:
    storage: Database
    engine: Engine
    """Its writer's."""
    live: LiveEvents
    path: Path
    project: Project
    stored: list[str] = field(default_factory=list)
    """Whose callers were told so."""
    at_commit: list[list[str]] = field(default_factory=list)
    """What `stored` was when each commit began."""

    async def store(self, name: str, *, size: int = 1, error: Exception | None = None) -> None:
        async with self.storage.write() as uow:
            await uow.projects.update(self.project.id, instructions=name * size)
            uow.emit(ConversationDeleted(conversation_id=self.project.id, readers=None))
            await uow.projects.update(self.project.id, name=name)
            if error:
                raise error
        self.stored.append(name)

    async def name(self) -> str:
        async with self.storage.read() as uow:
            found = await uow.projects.get(self.project.id)
        assert found
        return found.name

    def changes(self) -> list[int]:
        """How many events each row of the feed tells."""
        connection = sqlite3.connect(self.path)
        counts = [count for (count,) in connection.execute("SELECT json_array_length(events) FROM changes ORDER BY id")]
        connection.close()
        return counts


@pytest.fixture
async def subject(tmp_path: Path) -> AsyncIterator[Subject]:
    path = tmp_path / "onethread.db"
    url = database_url(f"sqlite+aiosqlite:///{path}")
    writer, live = sqlite_writer(url), LiveEvents()
    await upgrade(writer)
    storage = Database(writer=writer, reader=sqlite_reader(url), live=live, clock=ManualClock(), process_id=new_id())
    async with storage.write() as uow:
        project = await projects.default(uow)
    found = Subject(storage, writer.sync_engine, live, path, project)
    event.listen(writer.sync_engine, "commit", lambda _: found.at_commit.append(list(found.stored)))
    yield found
    await storage.close()


async def test_those_that_are_ready_together_are_committed_together_and_told_only_then(subject: Subject) -> None:
    with subject.live.subscribe() as events:
        await asyncio.gather(*(subject.store(name) for name in "abcde"))
        assert len(events.waiting()) == 5
    assert subject.at_commit == [[]]
    assert subject.stored == list("abcde")
    assert subject.changes() == [5]
    assert await subject.name() == "e"


async def test_an_exception_undoes_its_own_transaction_only(subject: Subject) -> None:
    with subject.live.subscribe() as events:
        ends = await asyncio.gather(
            subject.store("a"), subject.store("b", error=ZeroDivisionError()), subject.store("c", error=KeyError()), return_exceptions=True
        )
        assert len(events.waiting()) == 1
    assert [type(end) for end in ends] == [type(None), ZeroDivisionError, KeyError]
    assert len(subject.at_commit) == 1
    assert await subject.name() == "a"


async def test_a_transaction_that_fails_alone_leaves_no_lock(subject: Subject) -> None:
    with pytest.raises(ZeroDivisionError):
        await subject.store("a", error=ZeroDivisionError())
    other = sqlite3.connect(subject.path, isolation_level=None, timeout=0)
    other.execute("BEGIN IMMEDIATE")
    other.close()
    assert subject.at_commit == []


async def test_where_sqlite_itself_undoes_everything_nobody_is_told_that_anything_is_stored(subject: Subject) -> None:
    async with subject.storage.write() as uow:
        await uow.projects.update(subject.project.id, name="before")
    with subject.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=200")
    with subject.live.subscribe() as events:
        ends = await asyncio.gather(subject.store("a"), subject.store("b", size=10_000_000), subject.store("c"), return_exceptions=True)
        assert len(events.waiting()) == 1
    assert [str(end).partition(",")[0] for end in ends] == ["The disk is full", "The disk is full", "None"]
    assert subject.stored == ["c"]
    assert await subject.name() == "c"


async def test_who_is_cancelled_while_it_is_committed_has_stored_it(subject: Subject) -> None:
    loop = asyncio.get_running_loop()
    event.listen(subject.engine, "commit", lambda _: loop.call_soon_threadsafe(storing.cancel))
    with subject.live.subscribe() as events:
        storing = asyncio.create_task(subject.store("a"))
        async with asyncio.timeout(30):
            with pytest.raises(asyncio.CancelledError):
                await storing
        assert events.waiting() == [ConversationDeleted(conversation_id=subject.project.id, readers=None)]
    assert await subject.name() == "a"


async def test_a_full_disk_in_a_savepoint_is_told_as_such_and_neighbours_may_try_again(subject: Subject) -> None:
    with subject.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=200")

    async def tool() -> None:
        async with subject.storage.write() as uow, uow.savepoint():
            await uow.projects.update(subject.project.id, instructions="x" * 10_000_000)

    ends = await asyncio.gather(subject.store("a"), tool(), return_exceptions=True)
    assert [type(end) for end in ends] == [StorageUnavailable, StorageUnavailable]
    assert all("disk is full" in str(end) for end in ends)
    await subject.store("b")
    assert await subject.name() == "b"


async def test_what_was_refused_for_what_another_wrote_is_told_only_when_that_is_stored(subject: Subject) -> None:
    def fail(_: object) -> None:
        raise OperationalError("COMMIT", None, sqlite3.OperationalError("disk I/O error"))

    async def refuse_second() -> None:
        async with subject.storage.write() as uow:
            found = await uow.projects.get(subject.project.id)
            if found and found.name == "a":
                raise KeyError("a was first")

    event.listen(subject.engine, "commit", fail)
    ends = await asyncio.gather(subject.store("a"), refuse_second(), return_exceptions=True)
    event.remove(subject.engine, "commit", fail)
    assert [type(end) for end in ends] == [StorageUnavailable, StorageUnavailable]
    with pytest.raises(KeyError):
        await asyncio.gather(subject.store("a"), refuse_second())
    assert subject.stored == ["a"]


async def test_a_commit_that_fails_is_told_to_all(subject: Subject) -> None:
    def fail(_: object) -> None:
        raise OperationalError("COMMIT", None, sqlite3.OperationalError("disk I/O error"))

    event.listen(subject.engine, "commit", fail)
    with subject.live.subscribe() as events:
        ends = await asyncio.gather(subject.store("a"), subject.store("b"), return_exceptions=True)
        assert events.waiting() == [Lagged()]
    event.remove(subject.engine, "commit", fail)
    assert all(isinstance(end, StorageUnavailable) for end in ends)
    await subject.store("c")
    assert await subject.name() == "c"
