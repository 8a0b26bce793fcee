"""A process is killed between any two steps of a delivery, and another one goes on: nothing is lost, nothing is there twice."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

import pytest

from bots.account import HoldRules, hold
from bots.surface import Limits, Part
from core import tasks
from core.ids import new_id
from core.models import NEW_THREAD, Account, AgentStatus, Binding, BindingCheck, Place
from core.ports import ModelRequest, Storage, UnitOfWork
from tests.fake_surface import ACCOUNT, FakeSurface, Platform
from tests.fakes import Gate, Item, ScriptedModel, said
from tests.integration.bots.conftest import EVERYWHERE, QUICK, NoIntake, Stage
from tests.integration.conftest import Start

_TRANSACTION = ("a transaction begins", "a transaction is not committed", "a transaction is committed")
_CALLS = [f"{call} is {how}" for call in ("post", "edit", "open", "status") for how in ("sent", "done")]
_THREAD_CALLS = [f"{call} is {how}" for call in ("post", "open", "arrange") for how in ("sent", "done")]
_AT_ONCE = 16
_TEXT = [f"Sentence {number} of a long answer.\n" for number in range(24)]
_RULES: HoldRules = replace(QUICK, lease_seconds=20.0, delivery=replace(QUICK.delivery, settle_seconds=0.1))


Death = tuple[str, int, bool]
"""At which step, when it is taken for which time, and whether the call that was broken off arrives late."""


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


class Audience:
    """Those who read what the killed processes deliver. A model that waits for them is read while it still speaks."""

    def __init__(self) -> None:
        self.platform: Platform | None = None
        self.fuses: dict[str, Fuse] = {}

    def script(self, request: ModelRequest) -> list[Item]:
        channel = said(request)[-1].removeprefix("Go ")
        return [*_TEXT[:2], Read(self, channel, _TEXT[1]), *_TEXT[2:14], Read(self, channel, _TEXT[13]), *_TEXT[14:]]

    async def reads(self, channel: str, text: str) -> None:
        """Waits until it is shown there, or will not be."""
        assert self.platform
        platform = self.platform
        shown = asyncio.create_task(platform.until(lambda: text.strip() in " ".join(platform.texts(channel)), seconds=20))
        dead = asyncio.create_task(self.fuses[channel].dead.wait())
        await asyncio.wait({shown, dead}, return_when=asyncio.FIRST_COMPLETED)
        for task in (shown, dead):
            task.cancel()
        await asyncio.wait({shown, dead})


class Read(Gate):
    """Where the model waits until what it said is read."""

    def __init__(self, audience: Audience, channel: str, text: str) -> None:
        super().__init__()
        self._reading = partial(audience.reads, channel, text)

    async def passing(self) -> None:
        await self._reading()


@dataclass(frozen=True, slots=True)
class Case:
    account: Account
    binding: Binding
    conversation_id: UUID
    ref: str = ""
    """Of the task whose thread must be made."""

    @property
    def channel(self) -> str:
        return self.binding.channel


def _surface(stage: Stage, case: Case) -> FakeSurface:
    surface = FakeSurface(stage.platform, account=case.account, call_seconds=0.3, makes_threads=bool(case.ref))
    surface.limits_of = Limits(length=300, edit_seconds=0.01)
    return surface


async def _case(stage: Stage, number: int) -> Case:
    """What somebody wants to be followed in a channel of which nothing is known yet, and of three one that has its home there."""
    account = Account(surface="fake", id=f"T{number}")
    task = await stage.world.task("A task")
    if number % 3 == 0:
        place = Place(account=account, channel=f"C{number}", thread=f"{NEW_THREAD}1")
        return Case(account, await stage.bound(task.conversation_id, place, opened=False), task.conversation_id)
    somebody, place = await stage.world.user(f"user-{number}"), Place(account=account, channel=f"C{number}")
    followed = await stage.followed(task.conversation_id, place, who=somebody, kind=None, check=BindingCheck.PLACE)
    return Case(account, followed, task.conversation_id)


async def _thread_case(stage: Stage, number: int) -> Case:
    """What a person said at a channel's top was made a task of, whose thread is to be made on it."""
    account = Account(surface="fake", id=f"T{number}")
    task = await stage.world.task("A task")
    top = Place(account=account, channel=f"C{number}", thread="")
    place = replace(top, thread=stage.platform.post(top, Part(text=f"Go C{number}"), new_id()))
    return Case(account, await stage.bound(task.conversation_id, place, opened=False), task.conversation_id, task.ref)


async def _asked(stage: Stage, case: Case) -> None:
    text = f"Go {case.channel}"
    if case.ref:
        await stage.take_in(case.binding, text, case.binding.thread)
    else:
        await stage.world.post(case.conversation_id, text, rules=replace(stage.world.app.rules, messages_per_minute=1_000))


async def _done(stage: Stage, case: Case) -> None:
    """The task is done once its thread is there, or later."""
    if case.ref:
        with suppress(AssertionError):
            await stage.platform.until(lambda: stage.platform.within(case.binding.thread), seconds=1)
        await stage.world.write(lambda uow: tasks.update(uow, stage.world.admin, case.ref, {"status": "done"}))


async def _killed(stage: Stage, case: Case, fuse: Fuse, *, late: bool) -> bool:
    """A process that delivers until its fuse burns through, or until everything is delivered. Whether it was killed."""
    surface, owner = _surface(stage, case), new_id()
    surface.before = fuse.step
    surface.arrives_after = (lambda: asyncio.sleep(0.1)) if late else None
    services = stage.services(MortalStorage(stage.world.app.storage, fuse), process_id=owner)
    process = asyncio.create_task(hold(services, surface, NoIntake(), EVERYWHERE, _RULES), name="killed process")
    await _asked(stage, case)
    await _done(stage, case)
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


async def test_what_a_killed_process_sent_late_does_not_stay_in_place_of_the_end(stage: Stage) -> None:
    chat = await stage.world.chat()
    case = Case(ACCOUNT, await stage.bound(chat), chat.id)
    first, second, fuse, killed, owner = Gate(), Gate(), Fuse("edit is sent", 1), _surface(stage, case), new_id()
    arrives = asyncio.Event()
    killed.before, killed.arrives_after = fuse.step, arrives.wait
    stage.world.model.will("One ", first, "two ", second, "three")
    services = stage.services(MortalStorage(stage.world.app.storage, fuse), process_id=owner)
    patient = replace(_RULES, delivery=replace(_RULES.delivery, first_seconds=5.0))  # the first edit is to be the one behind "One "
    process = asyncio.create_task(hold(services, killed, NoIntake(), EVERYWHERE, patient), name="killed process")
    async with stage.world.working():
        posted = await stage.world.post(chat.id, "Go")
        await stage.platform.until(lambda: stage.platform.newest().text == "One ")
        first.open()
        async with asyncio.timeout(30):
            await fuse.dead.wait()
        second.open()
        await stage.world.ended(posted)
    process.cancel()
    await asyncio.wait({process})
    await _end_lease(stage, ACCOUNT, owner)
    async with stage.delivering(settle_seconds=0.5):
        await stage.platform.until(lambda: stage.platform.newest().text == "One two three")
        arrives.set()
        await stage.settled(case.binding)
    shown = [part.text for part in stage.platform.shown()[-1].parts]
    whole = "One two three"
    assert (shown[-3], shown[-1]) == (whole, whole)
    assert whole.startswith(shown[-2])
    assert shown[-2] != whole


async def _end_lease(stage: Stage, account: Account, owner: UUID) -> None:
    """As if its time had come."""
    async with stage.world.app.storage.write() as uow:
        held = await uow.account_leases.take(account, owner, until=uow.now + timedelta(seconds=1), now=uow.now)
        assert held
        await uow.account_leases.release(held)


async def _goes_on(stage: Stage, case: Case) -> None:
    """Another process takes over and delivers the rest."""
    process = asyncio.create_task(hold(stage.services(), _surface(stage, case), NoIntake(), EVERYWHERE, _RULES), name="successor")
    try:
        await stage.settled(case.binding, seconds=30)
        place = (await stage.binding(case.binding)).place
        statuses = stage.platform.statuses[place]
        await stage.platform.until(lambda: not statuses or statuses[-1][0] is AgentStatus.IDLE)
    finally:
        process.cancel()
        await asyncio.wait({process})


def _is_whole(stage: Stage, case: Case, where: str) -> None:
    """Everything is there once: the thread, the card, and the answer in one place."""
    root, *shown = stage.platform.shown(case.channel)
    thread = stage.platform.threads[root.id]
    assert thread.archived, where
    assert thread.names in ([f"{case.ref} A task"] * 2, [f"{case.ref} A task"] * 3), where  # once more where nobody knew that it was done
    [card] = [each for each in shown if each.part.is_card]
    assert card.place.thread == root.id, where
    answer = [each for each in shown if not each.part.is_card]
    assert len({each.place for each in answer}) == 1, where
    assert "\n".join(each.text for each in answer).split() == "".join(_TEXT).split(), where
    assert not any(each.part.live for each in shown), where


async def _survives(stage: Stage, audience: Audience, case: Case, what: str, times: int, *, late: bool) -> bool:
    fuse = audience.fuses[case.channel] = Fuse(what, times)
    was_killed = await _killed(stage, case, fuse, late=late)
    await _goes_on(stage, case)
    if case.ref:
        _is_whole(stage, case, f"{what}, the {times}. time")
        return was_killed
    card, *rest = stage.platform.shown(case.channel)
    intro = rest.pop(0) if case.binding.followed else None
    texts = [each.text for each in rest]
    where = f"{what}, the {times}. time"
    assert card.part.is_card, where
    assert intro is None or intro.text.startswith("Follows "), where
    assert texts[0] == f"Go {case.channel}", where
    assert "\n".join(texts[1:]).split() == "".join(_TEXT).split(), where
    assert not any(each.part.live for each in rest), where
    assert [bool(each.part.notes) for each in rest[1:]] == [False] * (len(rest) - 2) + [True], where
    assert not (await stage.binding(case.binding)).status_shown, where
    return was_killed


@pytest.mark.timeout(300)
async def test_whatever_step_a_process_dies_at_its_successor_completes_what_is_there(start: Start) -> None:
    deaths = [(what, times, False) for what in _CALLS for times in range(1, 5)]
    deaths += [(what, times, True) for what in _CALLS if what.endswith("sent") for times in range(1, 5)]
    deaths += [(what, times, False) for what in _TRANSACTION for times in range(1, 13)]
    happened = await _all_survived(start, deaths, _case)
    assert {what for what in _CALLS if not what.startswith("status")} <= {what for what, _, late in happened if not late}
    assert {"post is sent", "edit is sent", "open is sent"} <= {what for what, _, late in happened if late}
    assert {death for death in deaths if death[0] in _TRANSACTION and death[1] <= 8} <= happened


@pytest.mark.timeout(300)
async def test_whatever_step_of_making_a_thread_a_process_dies_at_there_is_one_thread_with_everything_in_it_once(start: Start) -> None:
    deaths = [(what, 1, False) for what in _THREAD_CALLS]
    deaths += [(what, 1, True) for what in _THREAD_CALLS if what.endswith("sent")]
    deaths += [("a transaction is committed", times, False) for times in range(1, 13)]
    assert await _all_survived(start, deaths, _thread_case) == set(deaths)


async def _all_survived(start: Start, deaths: list[Death], make: Callable[[Stage, int], Awaitable[Case]]) -> set[Death]:
    """Those that happened."""
    happened: set[Death] = set()
    audience = Audience()
    async with start(ScriptedModel(audience.script)) as world:
        stage = Stage(world)
        audience.platform = stage.platform
        async with world.working():
            for begin in range(0, len(deaths), _AT_ONCE):
                async with asyncio.TaskGroup() as group:
                    cases = {
                        death: group.create_task(_survives(stage, audience, await make(stage, begin + place), *death[:2], late=death[2]))
                        for place, death in enumerate(deaths[begin : begin + _AT_ONCE])
                    }
                happened |= {death for death, case in cases.items() if case.result()}
        await stage.platform.close()
    return happened
