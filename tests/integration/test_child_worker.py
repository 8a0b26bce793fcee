"""A worker is started where messages wait and nobody is alive to answer them: once, in time, and not over and over."""

import asyncio
import os
import platform
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog

from core.errors import StorageUnavailable
from core.frames import WORKER_SILENT
from core.ids import new_id
from core.models import Posted, WorkerInfo
from core.ports import UnitOfWork
from onethread.child_worker import ChildRules, ChildWorker
from tests.integration.conftest import World

RULES = ChildRules(look_seconds=0.01, start_seconds=0.0, max_failures=3, rest_seconds=60.0)


@dataclass(slots=True)
class Process:
    pid: int
    code: int | None = None
    """What it ended with."""

    def poll(self) -> int | None:
        return self.code


@dataclass(slots=True)
class Nursery:
    """Starts what pretends to be workers."""

    children: list[Process] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    """What the next ones end with at once."""
    times: list[float] = field(default_factory=list)

    def __call__(self) -> Process:
        self.times.append(asyncio.get_running_loop().time())
        self.children.append(Process(1_000 + len(self.children), self.codes.pop(0) if self.codes else None))
        return self.children[-1]

    async def has(self, number: int) -> None:
        async with asyncio.timeout(30):
            while True:
                if len(self.children) >= number:
                    return
                await asyncio.sleep(0.005)


class Looks:
    """The database, and how often it was read; which it is only while it may be."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self._number = 0
        self.may = asyncio.Event()
        self.may.set()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[UnitOfWork]:
        self._number += 1
        await self.may.wait()
        async with self._storage.read() as uow:
            yield uow

    async def are(self, number: int) -> None:
        async with asyncio.timeout(30):
            while True:
                if self._number >= number:
                    return
                await asyncio.sleep(0.005)


@asynccontextmanager
async def looking(world: World, nursery: Nursery, rules: ChildRules = RULES, storage: Any = None) -> AsyncIterator[ChildWorker]:
    worker = ChildWorker(storage or world.app.storage, nursery, rules)
    running = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        running.cancel()
        await asyncio.wait({running})


async def ask(world: World, worker: ChildWorker) -> Posted:
    posted = await world.post((await world.chat()).id, "Hello")
    worker.needed()
    return posted


async def beat(world: World, *, pid: int, host: str | None = None, silent: bool = False) -> None:
    """A worker tells that it lives, or did."""

    async def work(uow: UnitOfWork) -> None:
        at = uow.now - WORKER_SILENT * 2 if silent else uow.now
        where = host or platform.node()
        worker = WorkerInfo(id=new_id(), host=where, pid=pid, concurrency=1, unserved=frozenset(), started_at=at, heartbeat_at=at)
        await uow.workers.beat(worker)

    await world.write(work)


async def test_worker_is_started_once_for_what_is_queued(world: World) -> None:
    nursery = Nursery()
    async with looking(world, nursery) as worker:
        for _ in range(3):
            await ask(world, worker)
            await nursery.has(1)
        nursery.children[0].code = 0
        await nursery.has(2)
        assert [child.code for child in nursery.children] == [0, None]

    assert len(nursery.children) == 2


async def test_nothing_is_started_where_nothing_is_open(world: World) -> None:
    nursery = Nursery()
    worker = ChildWorker(world.app.storage, nursery, RULES)
    worker.needed()

    await worker.last_look()

    assert nursery.children == []


@pytest.mark.parametrize("host", [None, "another-machine"])
async def test_nothing_is_started_while_a_worker_is_alive(world: World, host: str | None) -> None:
    await beat(world, pid=os.getpid() if host is None else 2**22 + 1, host=host)
    nursery, looks = Nursery(), Looks(world.app.storage)
    async with looking(world, nursery, storage=looks) as worker:
        await ask(world, worker)
        await looks.are(3)

    assert nursery.children == []


async def test_worker_that_was_killed_here_or_is_silent_counts_as_none(world: World) -> None:
    await beat(world, pid=2**22 + 1)  # above what Linux gives
    await beat(world, pid=os.getpid(), silent=True)
    nursery = Nursery()
    async with looking(world, nursery) as worker:
        await ask(world, worker)
        await nursery.has(1)


async def test_message_that_came_as_the_child_went_idle_gets_another(world: World) -> None:
    nursery = Nursery()
    async with looking(world, nursery) as worker:
        posted = await ask(world, worker)
        await nursery.has(1)
        await world.cancel(posted)  # now the child finds nothing open, and is about to end
        await ask(world, worker)
        nursery.children[0].code = 0

        await nursery.has(2)


async def test_queue_is_looked_after_until_it_is_empty(world: World) -> None:
    """Another process's worker may end without having seen the last message, which nobody tells again."""
    await beat(world, pid=os.getpid())
    nursery, looks = Nursery(), Looks(world.app.storage)
    async with looking(world, nursery, storage=looks) as worker:
        await ask(world, worker)
        await looks.are(3)
        assert nursery.children == []
        await world.write(_forget_workers)

        await nursery.has(1)


async def _forget_workers(uow: UnitOfWork) -> None:
    for worker in await uow.workers.alive(uow.now - WORKER_SILENT):
        await uow.workers.remove(worker.id)


async def test_children_are_started_with_time_between_them(world: World) -> None:
    nursery = Nursery(codes=[0, 0])
    async with looking(world, nursery, ChildRules(look_seconds=0.01, start_seconds=0.2)) as worker:
        await ask(world, worker)
        await nursery.has(3)

    assert [second - first >= 0.2 for first, second in zip(nursery.times, nursery.times[1:], strict=False)] == [True, True]


async def test_children_that_fail_three_times_are_given_up_and_tried_again_after_a_rest(world: World) -> None:
    nursery = Nursery(codes=[1, -9, 1])
    with structlog.testing.capture_logs() as log:
        async with looking(world, nursery, ChildRules(look_seconds=0.01, start_seconds=0.0, rest_seconds=0.3)) as worker:
            await ask(world, worker)
            await nursery.has(3)
            worker.needed()
            await nursery.has(4)

    assert nursery.times[3] - nursery.times[2] >= 0.3
    assert [entry["failures"] for entry in log if entry["event"] == "child_worker.given_up"] == [3]
    assert [entry["code"] for entry in log if entry["event"] == "child_worker.ended"] == [1, -9, 1]


async def test_child_that_ends_well_between_failures_is_no_failure(world: World) -> None:
    nursery = Nursery(codes=[1, 1, 0, 1, 1, 0, 1])
    with structlog.testing.capture_logs() as log:
        async with looking(world, nursery) as worker:
            await ask(world, worker)
            await nursery.has(8)

    assert [entry for entry in log if entry["event"] == "child_worker.given_up"] == []


async def test_database_that_is_away_and_a_start_that_fails_are_tried_again(world: World) -> None:
    nursery = Nursery()
    troubles: list[Exception] = [StorageUnavailable("Away."), RuntimeError("a defect"), OSError("no more processes")]

    def troubled() -> Process:
        if troubles:
            raise troubles.pop(0)
        return nursery()

    worker = ChildWorker(world.app.storage, troubled, RULES)
    running = asyncio.create_task(worker.run())
    await ask(world, worker)

    await nursery.has(1)

    running.cancel()
    await asyncio.wait({running})
    assert troubles == []


async def test_what_was_queued_a_moment_ago_gets_its_worker_before_the_process_ends(world: World) -> None:
    nursery = Nursery()
    worker = ChildWorker(world.app.storage, nursery, RULES)
    await ask(world, worker)

    await worker.last_look()

    assert len(nursery.children) == 1


async def test_look_that_is_under_way_as_the_process_ends_comes_to_its_end(world: World) -> None:
    nursery, looks = Nursery(), Looks(world.app.storage)
    async with looking(world, nursery, storage=looks) as worker:
        looks.may.clear()
        await ask(world, worker)
        await looks.are(1)
        last = asyncio.create_task(worker.last_look())
        await asyncio.sleep(0)
        assert not last.done()
        looks.may.set()
        await last

        assert len(nursery.children) == 1
