"""A process is killed between any two steps of a delivery, and another one goes on: nothing is lost, nothing is there twice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from bots.account import HoldRules, hold
from bots.surface import Limits
from core.ids import new_id
from core.models import Account, AgentStatus, Binding, Place
from core.ports import Storage, UnitOfWork
from tests.databases import on_both
from tests.fake_surface import FakeSurface
from tests.fakes import Gate
from tests.integration.bots.conftest import QUICK, NoIntake, Stage

_TRANSACTION = ("a transaction begins", "a transaction is not committed", "a transaction is committed")
_CALLS = [f"{call} is {how}" for call in ("post", "edit", "open", "status") for how in ("sent", "done")]
_AT_ONCE = 16
new_database = on_both
_TEXT = [f"Sentence {number} of a long answer.\n" for number in range(24)]
_RULES: HoldRules = replace(QUICK, lease_seconds=20.0, delivery=replace(QUICK.delivery, settle_seconds=0.1))


class Killed(BaseException):
    """Nothing that the process does from now on has any effect."""


class Fuse:
    """Kills a process when it comes to a step for the nth time, and has it do nothing after that."""

    def __init__(self, what: str, times: int) -> None:
        self._what = what
        self._left = times
        self.dead = asyncio.Event()

    def step(self, what: str) -> None:
        if what == self._what and not self.dead.is_set():
            self._left -= 1
        if self._left <= 0:
            self.die()
            raise Killed

    def die(self) -> None:
        self._left = 0
        self.dead.set()


class MortalStorage:
    """The database as the killed process used it: dead before a transaction, before its commit, or behind it."""

    def __init__(self, storage: Storage, fuse: Fuse) -> None:
        self._storage = storage
        self._fuse = fuse

    @asynccontextmanager
    async def read(self) -> AsyncIterator[UnitOfWork]:
        async with self._storage.read() as uow:
            yield uow

    @asynccontextmanager
    async def write(self) -> AsyncIterator[UnitOfWork]:
        self._fuse.step("a transaction begins")
        async with self._storage.write() as uow:
            yield uow
            self._fuse.step("a transaction is not committed")
        self._fuse.step("a transaction is committed")

    async def version(self) -> str:
        return await self._storage.version()

    async def check(self) -> None:
        await self._storage.check()

    async def prune(self, now: datetime) -> dict[str, int]:
        return dict(await self._storage.prune(now))

    async def prunable(self, now: datetime) -> dict[str, int]:
        return dict(await self._storage.prunable(now))


class Rest(Gate):
    """A moment in which the model says nothing, so that what it said is shown."""

    async def passing(self) -> None:
        await asyncio.sleep(0.5)


@dataclass(frozen=True, slots=True)
class Case:
    account: Account
    binding: Binding
    conversation_id: UUID

    @property
    def channel(self) -> str:
        return self.binding.channel


def _surface(stage: Stage, case: Case) -> FakeSurface:
    surface = FakeSurface(stage.platform, account=case.account, call_seconds=0.3)
    surface.limits_of = Limits(length=300, edit_seconds=0.01)
    return surface


async def _case(stage: Stage, number: int) -> Case:
    account = Account(surface="fake", id=f"T{number}")
    task = await stage.world.task("A task")
    place = Place(account=account, channel=f"C{number}", thread="new-1")
    return Case(account, await stage.bound(task.conversation_id, place, opened=False), task.conversation_id)


async def _killed(stage: Stage, case: Case, fuse: Fuse, *, late: bool) -> bool:
    """A process that delivers until its fuse burns through, or until everything is delivered. Whether it was killed."""
    surface, owner = _surface(stage, case), new_id()
    surface.before = fuse.step
    surface.arrives_after_death = 0.1 if late else None
    services = stage.services(MortalStorage(stage.world.app.storage, fuse), process_id=owner)
    process = asyncio.create_task(hold(services, surface, NoIntake(), _RULES), name="killed process")
    await stage.world.post(case.conversation_id, "Go", rules=replace(stage.world.app.rules, messages_per_minute=1_000))
    dead, done = asyncio.create_task(fuse.dead.wait()), asyncio.create_task(stage.settled(case.binding, seconds=30))
    await asyncio.wait({dead, done}, return_when=asyncio.FIRST_COMPLETED)
    was_killed = fuse.dead.is_set()
    fuse.die()
    for task in (process, dead, done):
        task.cancel()
    await asyncio.wait({process, dead, done})
    for task in (process, done):
        if not task.cancelled():
            task.exception()
    await _end_lease(stage, case.account, owner)
    return was_killed


async def _end_lease(stage: Stage, account: Account, owner: UUID) -> None:
    """As if its time had come."""
    async with stage.world.app.storage.write() as uow:
        held = await uow.account_leases.take(account, owner, until=uow.now + timedelta(seconds=1), now=uow.now)
        assert held
        await uow.account_leases.release(held)


async def _goes_on(stage: Stage, case: Case) -> None:
    """Another process takes over and delivers the rest."""
    process = asyncio.create_task(hold(stage.services(), _surface(stage, case), NoIntake(), _RULES), name="successor")
    try:
        await stage.settled(case.binding, seconds=30)
        place = (await stage.binding(case.binding)).place
        statuses = stage.platform.statuses[place]
        await stage.platform.until(lambda: not statuses or statuses[-1][0] is AgentStatus.IDLE)
    finally:
        process.cancel()
        await asyncio.wait({process})


async def _survives(stage: Stage, number: int, what: str, times: int, *, late: bool) -> bool:
    case = await _case(stage, number)
    was_killed = await _killed(stage, case, Fuse(what, times), late=late)
    await _goes_on(stage, case)
    card, *rest = stage.platform.shown(case.channel)
    texts = [each.text for each in rest]
    where = f"{what}, the {times}. time"
    assert card.part.is_card, where
    assert texts[0] == "Go", where
    assert "\n".join(texts[1:]).split() == "".join(_TEXT).split(), where
    assert not any(each.part.live for each in rest), where
    assert [bool(each.part.notes) for each in rest[1:]] == [False] * (len(rest) - 2) + [True], where
    assert not (await stage.binding(case.binding)).status_shown, where
    return was_killed


@pytest.mark.timeout(300)
async def test_whatever_step_a_process_dies_at_its_successor_completes_what_is_there(stage: Stage) -> None:
    deaths = [(what, times, False) for what in _CALLS for times in range(1, 5)]
    deaths += [(what, times, True) for what in _CALLS if what.endswith("sent") for times in range(1, 5)]
    deaths += [(what, times, False) for what in _TRANSACTION for times in range(1, 13)]
    for _ in deaths:
        stage.world.model.will(*_TEXT[:2], Rest(), *_TEXT[2:14], Rest(), *_TEXT[14:])
    happened: set[tuple[str, int, bool]] = set()
    async with stage.world.working():
        for begin in range(0, len(deaths), _AT_ONCE):
            async with asyncio.TaskGroup() as group:
                cases = {
                    (what, times, late): group.create_task(_survives(stage, begin + place, what, times, late=late))
                    for place, (what, times, late) in enumerate(deaths[begin : begin + _AT_ONCE])
                }
            happened |= {death for death, case in cases.items() if case.result()}
    assert {death for death in deaths if death[1] == 1 and not death[0].startswith("status")} <= happened
    assert {death for death in deaths if death[0] in _TRANSACTION and death[1] <= 8} <= happened
