"""Who serves an account: one process at a time, and another one soon after it is gone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import structlog.testing

from bots.account import HoldRules, Intake, hold
from bots.delivery.deliveries import Deliveries
from bots.lease import Held
from core import bindings
from core.errors import LeaseLost
from core.models import AccountLease
from tests.databases import on_both
from tests.fake_surface import FakeSurface, Fault
from tests.fakes import Gate
from tests.integration.bots.conftest import EVERYWHERE, PLACE, QUICK, THERE, Database, NoIntake, Stage

new_database = on_both


@asynccontextmanager
async def _holding(
    stage: Stage,
    *,
    surface: FakeSurface | None = None,
    intake: Intake | None = None,
    storage: Any = None,
    rules: HoldRules = QUICK,
) -> AsyncIterator["asyncio.Task[None]"]:
    services = stage.services(storage)
    task = asyncio.create_task(hold(services, surface or stage.client(), intake or NoIntake(), EVERYWHERE, rules), name="holder")
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


class Listening:
    """An intake that tells when it runs, and breaks as often as it is told to."""

    def __init__(self, breaks: int = 0) -> None:
        self.leases: list[AccountLease] = []
        self.runs = asyncio.Event()
        self.ended = asyncio.Event()
        """Until it runs again: on a busy machine a short lease may be lost, and taken anew, at any time."""
        self._breaks = breaks

    async def run(self, lease: AccountLease) -> None:
        self.leases.append(lease)
        if len(self.leases) <= self._breaks:
            raise ValueError("a secret")
        self.ended.clear()
        self.runs.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()


async def test_only_one_of_two_processes_serves_the_account_and_the_other_takes_over_at_once_when_it_ends(stage: Stage) -> None:
    first, second = Listening(), Listening()
    async with _holding(stage, intake=first) as holder:
        async with asyncio.timeout(30):
            await first.runs.wait()
        waiting = Database(stage.world.app.storage)
        async with _holding(stage, intake=second, storage=waiting):
            await stage.until(lambda: waiting.writes >= 3)
            assert not second.runs.is_set()
            holder.cancel()
            async with asyncio.timeout(QUICK.lease_seconds / 2):
                await second.runs.wait()
    assert second.leases[0].token > first.leases[0].token


async def test_a_process_that_lost_its_lease_sends_nothing_more_and_another_one_completes_its_message(stage: Stage) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    gate, intake = Gate(), Listening()
    storage, zombie = Database(stage.world.app.storage), stage.client()
    stage.world.model.will("Half ", gate, "and half")
    rules = replace(QUICK, lease_seconds=0.6)
    async with stage.world.working(), _holding(stage, storage=storage, surface=zombie, intake=intake, rules=rules):
        await stage.world.post(chat.id, "Go")
        await stage.platform.until(lambda: stage.platform.newest().text == "Half ")
        storage.is_away = True
        async with asyncio.timeout(30):
            await intake.ended.wait()
        sent: list[str] = []
        zombie.before = sent.append
        async with _holding(stage):
            gate.open()
            await stage.settled(binding)
    assert sent == []
    assert stage.platform.texts() == ["Go", "Half and half"]


async def test_a_process_that_is_stopped_while_it_loses_its_lease_ends(stage: Stage) -> None:
    chat = await stage.world.chat()
    await stage.bound(chat)
    await stage.world.note(chat.id, "Hello")
    storage, intake, surface = Database(stage.world.app.storage), Listening(), stage.client()
    surface.will("post", *[Fault(until=asyncio.Event())] * 10)
    rules = replace(QUICK, lease_seconds=0.6)
    async with _holding(stage, storage=storage, surface=surface, intake=intake, rules=rules) as holder:
        async with asyncio.timeout(30):
            await intake.runs.wait()
            storage.is_away = True
            await intake.ended.wait()
            holder.cancel()
            await asyncio.wait({holder})
    assert holder.cancelled()


async def test_a_process_that_does_not_know_that_its_lease_is_lost_finds_out_before_it_sends_anything(stage: Stage) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    await stage.world.note(chat.id, "Hello")
    held = await stage.held()
    await stage.world.write(lambda uow: uow.account_leases.release(held.lease))
    await stage.held()
    with pytest.raises(LeaseLost):
        await Deliveries(stage.services(), stage.client(), held, EVERYWHERE, QUICK.delivery).run()
    assert stage.platform.calls == []
    assert await stage.world.read(lambda uow: uow.deliveries.unsettled(binding.id)) == []


async def test_no_call_begins_that_could_outlast_the_lease(stage: Stage) -> None:
    chat = await stage.world.chat()
    await stage.bound(chat)
    await stage.world.note(chat.id, "Hello")
    slow, quick, sent = FakeSurface(stage.platform, call_seconds=5.0), FakeSurface(stage.platform), list[str]()
    slow.before = sent.append
    held = await stage.held(seconds=4.0)
    longer = Held(held.lease, asyncio.get_running_loop().time() + 60)
    async with _delivering(stage, slow, held):
        async with _delivering(stage, quick, longer):
            await stage.platform.until(lambda: stage.platform.texts() == ["Hello"])
        await stage.world.note(chat.id, "Still there?")
        async with _delivering(stage, quick, longer):
            await stage.platform.until(lambda: stage.platform.texts() == ["Hello", "Still there?"])
        assert sent == []
        await stage.world.note(chat.id, "Now")
        held.extend(longer)
        await stage.platform.until(lambda: "post is done" in sent)


async def test_no_post_begins_that_could_outlast_the_lease_as_noting_it_took_long(stage: Stage) -> None:
    chat = await stage.world.chat()
    await stage.bound(chat)
    await stage.world.note(chat.id, "Hello")
    database, surface, sent = Database(stage.world.app.storage), stage.client(), list[str]()
    database.writes_wait, surface.before = asyncio.Event(), sent.append
    held = await stage.held(seconds=2 * surface.call_seconds)
    async with _delivering(stage, surface, held, database):
        await stage.until(lambda: database.writes)
        await stage.until(lambda: held.lasts < surface.call_seconds)
        database.writes_wait.set()
        await stage.until(lambda: held.lasts < 0)
        assert sent == []
        held.extend(Held(held.lease, asyncio.get_running_loop().time() + 60))
        await stage.platform.until(lambda: stage.platform.texts() == ["Hello"])
    assert [each for each in sent if each.startswith("post")] == ["post is sent", "post is done"]


@asynccontextmanager
async def _delivering(stage: Stage, surface: FakeSurface, held: Held, storage: Any = None, **changes: Any) -> AsyncIterator[Deliveries]:
    """A process that delivers under this lease, whoever else may hold it. Keywords replace its rules."""
    deliveries = Deliveries(stage.services(storage), surface, held, EVERYWHERE, replace(QUICK.delivery, **changes))
    running = asyncio.create_task(deliveries.run(), name="delivering")
    try:
        yield deliveries
    finally:
        running.cancel()
        await asyncio.wait({running})


async def test_a_call_that_has_begun_is_ended_and_noted_before_the_lease_is_given_back(stage: Stage) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    posted = await stage.world.note(chat.id, "Hello")
    surface, answers = stage.client(), asyncio.Event()
    surface.will("post", Fault(until=answers))
    sent = asyncio.Event()
    surface.before = lambda what: sent.set() if what == "post is sent" else None
    async with _holding(stage, surface=surface) as holder:
        async with asyncio.timeout(30):
            await sent.wait()
        holder.cancel()
        waiting = Database(stage.world.app.storage)
        async with _holding(stage, storage=waiting):
            await stage.until(lambda: waiting.writes >= 2)
            assert not holder.done()
        answers.set()
        await asyncio.wait({holder})
    rows = await stage.world.read(lambda uow: uow.deliveries.of_binding(binding.id, [str(posted.message_id)]))
    assert [row.remote_id for row in rows] == [stage.platform.shown()[0].id]


async def test_a_part_that_breaks_is_started_again_and_its_words_are_not_logged(stage: Stage) -> None:
    intake = Listening(breaks=2)
    with structlog.testing.capture_logs() as logs:
        async with _holding(stage, intake=intake), asyncio.timeout(30):
            await intake.runs.wait()
    broke = [each for each in logs if each["event"] == "account.restarted"]
    assert [(each["part"], each["error"]) for each in broke] == [("intake", "ValueError")] * 2
    assert "a secret" not in str(logs)


async def test_an_outage_of_the_database_costs_nothing_but_time(stage: Stage) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    storage = Database(stage.world.app.storage)
    gate = Gate()
    stage.world.model.will("Half ", gate, "and half")
    async with stage.world.working(), _holding(stage, storage=storage):
        await stage.world.post(chat.id, "Go")
        await stage.platform.until(lambda: stage.platform.newest().text == "Half ")
        storage.is_away = True
        gate.open()
        refused = storage.refused
        await stage.until(lambda: storage.refused >= refused + 5)
        storage.is_away = False
        await stage.settled(binding)
    assert stage.platform.texts() == ["Go", "Half and half"]


async def test_an_outage_longer_than_the_lease_gives_the_account_to_whoever_reaches_the_database(stage: Stage) -> None:
    storage, first, second = Database(stage.world.app.storage), Listening(), Listening()
    rules = replace(QUICK, lease_seconds=0.5)
    async with _holding(stage, storage=storage, intake=first, rules=rules):
        async with asyncio.timeout(30):
            await first.runs.wait()
        storage.is_away = True
        async with _holding(stage, intake=second, rules=rules), asyncio.timeout(30):
            await second.runs.wait()
            assert first.ended.is_set()


async def test_a_process_that_lost_the_account_takes_it_again_once_nobody_has_it(stage: Stage) -> None:
    storage, intake = Database(stage.world.app.storage), Listening()
    async with _holding(stage, storage=storage, intake=intake, rules=replace(QUICK, lease_seconds=0.5)), asyncio.timeout(30):
        await intake.runs.wait()
        storage.is_away = True
        await intake.ended.wait()
        intake.runs.clear()
        storage.is_away = False
        await intake.runs.wait()
    assert [each.token for each in intake.leases] == [1, 2]


async def test_bindings_without_anything_to_do_have_no_writer(stage: Stage) -> None:
    for each in range(200):
        chat = await stage.world.chat()
        await stage.bound(chat, replace(PLACE, thread=f"{each}.0"))
    async with _delivering(stage, stage.client(), await stage.held()) as deliveries:
        await stage.world.note(chat.id, "Hello")
        await stage.platform.until(lambda: stage.platform.texts() == ["Hello"])
        assert deliveries.writers == 1
        await stage.until(lambda: not deliveries.writers)


async def test_a_place_that_was_left_has_no_writer_whatever_is_said_behind_it(stage: Stage) -> None:
    chat, database = await stage.world.chat(), Database(stage.world.app.storage)
    home, there = await stage.bound(chat), await stage.followed(chat)
    note = await stage.world.note(chat.id, "Hello")
    # Told at once, what was left is heard of before its last notice is there.
    async with _delivering(stage, stage.client(), await stage.held(), database, gather_seconds=0.0) as deliveries:
        await stage.settled(there)
        await stage.world.write(lambda uow: bindings.unfollow_at(uow, stage.world.admin, THERE, source="test"))
        for each in (home, there):
            await stage.settled(each)
        await stage.until(lambda: not deliveries.writers)
        database.reads_wait = asyncio.Event()
        await stage.world.edit(note.message_id, "Hello again")
        await stage.until(lambda: deliveries.writers)
        assert deliveries.writers == 1
        database.reads_wait.set()
        await stage.platform.until(lambda: "Hello again" in stage.platform.texts())


async def test_places_that_are_behind_begin_some_at_a_time(stage: Stage) -> None:
    for each in range(12):
        chat = await stage.world.chat()
        await stage.bound(chat, replace(PLACE, channel=f"C{each}"))
        await stage.world.note(chat.id, "Hello")
    database = Database(stage.world.app.storage)
    database.reads_wait, database.free_reads = asyncio.Event(), 1
    async with _delivering(stage, stage.client(), await stage.held(), database, at_once=5) as deliveries:
        await stage.until(lambda: deliveries.writers)
        assert deliveries.writers == 5
        database.reads_wait.set()
        await stage.platform.until(lambda: len(stage.platform.messages) == 12)
