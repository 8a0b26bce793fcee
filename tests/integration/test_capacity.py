"""How much the models are asked by all workers together: limits, what each worker can serve, and the end of an outage."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from uuid import UUID

from core import frames, messages, turns
from core.errors import ModelBusy, ModelRefused
from core.ids import new_id
from core.limits import ModelLimit, ModelLimits
from core.models import JSON, AgentStatus, ModelPause, Posted, TurnStatus
from core.ports import Lease, ModelRequest, RoundEnd, TextChunk, UnitOfWork
from core.retries import RetryPolicy
from core.turns import ClaimRules
from core.worker import EXPECTED_BACK, WorkerRules
from tests.databases import on_both
from tests.fakes import USAGE, Call, Gate, ManualClock, ScriptedModel, claim_one
from tests.integration.conftest import MODEL, RULES, Start, World

new_database = on_both
BUSY = ModelBusy("The model is busy.", reason="RATE_LIMITED")
HOUR = 3_600
NOTHING, OPENAI = frozenset[str](), frozenset({"openai"})
"""What a worker cannot serve: nothing, and one provider's models."""


def limited(**limit: int) -> WorkerRules:
    return replace(RULES, limits=ModelLimits({MODEL: ModelLimit(**limit)}))


class Counting(ScriptedModel):
    """A model that takes a moment and knows how many asked it at once. It answers nobody before `together` have asked at once."""

    def __init__(self, together: int = 1) -> None:
        super().__init__()
        self._together = together
        self._met = asyncio.Event()
        self.busy = False
        self.answers = 0
        self.began_with: list[tuple[int, int]] = []
        """For each answer: how many there were before it, and how many were being made, this one included."""

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextChunk | RoundEnd, None]:
        self.requests.append(request)
        if self.busy:
            raise BUSY
        self.open_streams += 1
        self.began_with.append((self.answers, self.open_streams))
        try:
            yield TextChunk("OK.")
            if self.open_streams >= self._together:
                self._met.set()
            await self._met.wait()
            await asyncio.sleep(0.02)
            self.answers += 1
            yield RoundEnd(text="OK.", tool_requests=(), finish_reason="stop", usage=USAGE)
        finally:
            self.open_streams -= 1

    @property
    def most_at_once(self) -> int:
        return max(present for _, present in self.began_with)


async def _post_many(world: World, number: int) -> list[Posted]:
    people = [await world.user(f"kim{each}") for each in range(number)]
    return [await world.post((await world.chat(person)).id, "Hello", person) for person in people]


async def _all_succeeded(world: World, posts: list[Posted]) -> None:
    async def nothing_is_open() -> bool:
        return not await world.read(lambda uow: uow.turns.open_count())

    await world.until(nothing_is_open, seconds=30)
    assert {(await world.turn(each)).status for each in posts} == {TurnStatus.SUCCEEDED}


# --- limits ---


async def test_all_workers_together_ask_a_model_no_more_often_at_once_than_its_limit(start: Start) -> None:
    model = Counting(together=2)
    rules = limited(requests_at_once=2)
    async with start(model, worker_rules=rules) as one, start(model, worker_rules=rules) as other:
        posts = await _post_many(one, 12)
        async with one.working(), other.working():
            await _all_succeeded(one, posts)
    assert (model.most_at_once, model.answers) == (2, 12)


async def test_a_turn_of_several_rounds_gets_through_a_limit_of_one(start: Start) -> None:
    model = ScriptedModel().will(Call("create_task", {"title": "Buy milk"})).will("Done.")
    async with start(model, worker_rules=limited(requests_at_once=1)) as world, world.working():
        assert (await world.ask((await world.chat()).id, "Create a task")).content == "Done."


async def test_a_model_is_asked_no_more_often_in_a_minute_than_its_limit(start: Start) -> None:
    clock, model = ManualClock(), Counting()
    async with start(model, clock=clock, worker_rules=limited(requests_per_minute=3)) as world, world.working():
        posts = await _post_many(world, 5)

        async def three_are_answered() -> bool:
            return [(await world.turn(each)).status for each in posts].count(TurnStatus.SUCCEEDED) == 3

        await world.until(three_are_answered)
        await world.until(_two_say_why_they_wait(world, posts))
        clock.advance(59)
        await world.read(lambda uow: uow.turns.open_count())
        assert model.calls == 3
        clock.advance(1)
        await _all_succeeded(world, posts)
    assert model.calls == 5


def _two_say_why_they_wait(world: World, posts: list[Posted]) -> Callable[[], Awaitable[bool]]:
    """In the queue by the turn, in a worker's slot by the agent's status."""

    async def told() -> bool:
        said = [str((await world.read(partial(_told, posted=each))).get("error")) for each in posts]
        said += [(await world.agent_status(each.conversation_id))[1] for each in posts]
        return sum("until one/model may be asked again" in each for each in said) >= 2

    return told


async def test_a_round_that_must_wait_for_its_minute_says_so_and_goes_on(start: Start) -> None:
    clock = ManualClock()
    model = ScriptedModel().will("I do.", Call("create_task", {"title": "Buy milk"})).will("Done.")
    async with start(model, clock=clock, worker_rules=limited(requests_per_minute=1)) as world, world.working():
        posted = await world.post((await world.chat()).id, "Create a task")

        async def waits() -> bool:
            return "may be asked again" in (await world.agent_status(posted.conversation_id))[1]

        await world.until(waits)
        assert model.calls == 1
        clock.advance(60)
        assert (await world.ended(posted)).content == "I do.\n\nDone."


async def test_a_request_of_a_killed_worker_counts_until_its_lease_ends(start: Start) -> None:
    clock = ManualClock()
    rules = limited(requests_at_once=1)
    async with start(clock=clock, worker_rules=rules) as world:
        first = await world.post((await world.chat()).id, "Hello")
        turn = await world.write(claim_one)
        assert turn
        lease = Lease(turn_id=turn.id, token=turn.lease_token)
        await world.write(lambda uow: turns.begin_stream(uow, lease, text="", limits=rules.limits))
        second = await world.post((await world.chat()).id, "Me too")
        async with world.working():
            await world.ask((await world.chat()).id, "And I", model="another/model")
            assert (await world.turn(second)).status is TurnStatus.QUEUED
            clock.advance(61)
            await world.app.ticks.rescue()
            assert [(await world.ended(each)).content for each in (first, second)] == ["OK.", "OK."]


# --- what each worker can serve ---


async def test_a_turn_is_left_to_the_worker_that_has_the_key_of_its_model(start: Start) -> None:
    clock = ManualClock()
    without, with_key = ScriptedModel(), ScriptedModel()
    async with (
        start(with_key, clock=clock, unserved=NOTHING) as able,
        start(without, clock=clock, unserved=OPENAI) as unable,
        able.working(),
    ):
        await able.ask((await able.chat()).id, "Hello")
        async with unable.working():
            for _ in range(5):
                assert (await able.ask((await able.chat()).id, "Hello", model="openai/gpt-x")).content == "OK."
            assert (await unable.ask((await unable.chat()).id, "Hello")).content == "OK."
    assert {request.model for request in without.requests} <= {MODEL}
    assert [request.model for request in with_key.requests].count("openai/gpt-x") == 5


async def test_a_turn_waits_for_a_worker_that_vanished_and_then_goes_to_whoever_is_there(start: Start) -> None:
    clock = ManualClock()
    lost = replace(RULES, heartbeat_seconds=HOUR)
    async with start(clock=clock, unserved=NOTHING) as able, start(clock=clock, worker_rules=lost, unserved=OPENAI) as unable:
        await able.write(lambda uow: uow.workers.beat(able.app.worker._info(uow.now)))
        posted = await unable.post((await unable.chat()).id, "Hello", model="openai/gpt-x")
        async with unable.working():
            await unable.ask((await unable.chat()).id, "Hello")
            assert (await unable.turn(posted)).status is TurnStatus.QUEUED
        clock.advance(46)
        async with unable.working():
            await unable.ask((await unable.chat()).id, "Hello")
            told = await unable.read(lambda uow: _told(uow, posted))
            assert (told["status"], told["no_worker"]) == ("queued", True)
        clock.advance(EXPECTED_BACK.total_seconds())
        async with unable.working():
            await unable.ended(posted)


async def _told(uow: UnitOfWork, posted: Posted) -> JSON:
    assert posted.turn_id
    turn = await uow.turns.get(posted.turn_id)
    assert turn
    return await frames.turn_json(uow, turn)


async def test_a_worker_takes_over_from_one_of_its_machine_that_was_killed_while_both_ran(start: Start) -> None:
    gone = await asyncio.create_subprocess_exec("true")
    await gone.wait()
    async with start() as world, world.working():
        await world.ask((await world.chat()).id, "Hello")
        chat = await world.chat()
        posted = await world.write(lambda uow: _post_and_claim(uow, world, chat.id, pid=gone.pid))
        assert (await world.ended(posted)).content == "OK."


async def _post_and_claim(uow: UnitOfWork, world: World, conversation_id: UUID, *, pid: int) -> Posted:
    """A message that a process with this pid was answering, and was heard of a moment ago."""
    posted = await messages.post(uow, world.admin, conversation_id, "Hello", rules=world.app.rules, source="test")
    dead = replace(world.app.worker._info(uow.now), id=new_id(), pid=pid)
    await uow.workers.beat(dead)
    claimed = await claim_one(uow, dead.id)
    assert claimed
    assert claimed.id == posted.turn_id
    return posted


async def test_a_worker_that_starts_anew_keeps_the_turns_that_only_it_can_serve(start: Start) -> None:
    refused = ScriptedModel(lambda _: (ModelRefused("It needs a key.", reason="KEY_MISSING"),))
    async with start(unserved=NOTHING) as able, start(refused, unserved=OPENAI) as unable:
        async with able.working():
            await able.ask((await able.chat()).id, "Hello")
        posted = await able.post((await able.chat()).id, "Hello", model="openai/gpt-x")
        async with unable.working():
            await unable.ended(await unable.post((await unable.chat()).id, "Hello"))
            assert (await unable.turn(posted)).status is TurnStatus.QUEUED
        async with able.working():
            assert (await able.ended(posted)).content == "OK."


# --- outages ---


async def test_an_hour_of_outage_costs_no_turn_its_attempts_and_ends_without_a_herd(start: Start) -> None:
    clock, model = ManualClock(), Counting()
    rules = replace(RULES, retries=RetryPolicy(), turn_seconds=HOUR)
    async with start(model, clock=clock, worker_rules=rules) as world, world.working():
        model.busy = True
        posts = await _post_many(world, 40)
        ends = clock.now() + timedelta(hours=1)
        while clock.now() < ends:
            asked = model.calls
            await world.until(_is_paused(world))
            clock.advance(30)
            assert model.calls - asked <= 41
        requests_in_the_hour = model.calls
        assert {(await world.turn(each)).failures for each in posts} == {0}

        model.busy = False
        clock.advance(300)
        await _all_succeeded(world, posts)
    assert requests_in_the_hour <= 40 + 25, "after the first wave only probes"
    assert [present <= 2**before for before, present in model.began_with[:20]] == [True] * 20


def _is_paused(world: World) -> Callable[[], Awaitable[bool]]:
    async def paused() -> bool:
        pause = await world.read(lambda uow: uow.pauses.get(MODEL))
        return bool(pause and pause.paused_until > pause.paused_since and pause.probe_turn_id is None)

    return paused


async def test_an_old_pause_does_not_make_a_new_outage_longer(start: Start) -> None:
    clock, model = ManualClock(), ScriptedModel()
    async with start(model.will(BUSY), clock=clock, worker_rules=replace(RULES, retries=RetryPolicy())) as world, world.working():
        evening = await world.post((await world.chat()).id, "Hello")
        await world.until(_is_paused(world))
        clock.advance(6)
        assert (await world.ended(evening)).content == "OK."

        clock.advance(3 * HOUR)
        model.will(BUSY).will(BUSY).will(BUSY)
        morning = await world.post((await world.chat()).id, "Hello again")
        for seconds in (5, 10, 20):
            await world.until(_is_paused(world))
            assert (await world.turn(morning)).failures == 0
            clock.advance(seconds)
            await _asked_again(world)
        assert (await world.ended(morning)).content == "OK."


async def _asked_again(world: World) -> None:
    calls = world.model.calls

    async def asked() -> bool:
        return world.model.calls > calls

    await world.until(asked)


async def test_an_answer_that_began_before_a_pause_does_not_end_it(start: Start) -> None:
    clock, gate = ManualClock(), Gate()
    model = ScriptedModel().will("Slow", gate).will(BUSY)
    async with start(model, clock=clock, worker_rules=replace(RULES, retries=RetryPolicy())) as world, world.working():
        slow = await world.post((await world.chat()).id, "Hello")
        await gate.reached()
        await world.post((await world.chat()).id, "Me too")
        await world.until(_is_paused(world))
        gate.open()
        assert (await world.ended(slow)).content == "Slow"
        pause = await world.read(lambda uow: uow.pauses.get(MODEL))
        assert pause
        assert pause.paused_until == clock.now() + timedelta(seconds=5)


async def test_a_turn_that_is_stopped_after_it_was_passed_on_leaves_no_status(start: Start) -> None:
    policy = RetryPolicy(fallback_models=("two/model",))
    async with start(clock=ManualClock()) as world:
        await world.write(lambda uow: uow.pauses.put(_long_pause(uow)))
        posts = [await world.post((await world.chat()).id, "Hello") for _ in range(3)]
        rules = ClaimRules(lease_seconds=60, policy=policy)
        claimed = await world.write(lambda uow: turns.claim(uow, new_id(), rules, limit=1))
        waiting = next(each for each in posts if each.turn_id not in {turn.id for turn in claimed.turns})
        await world.cancel(waiting)
        assert (await world.agent_status(waiting.conversation_id))[0] is AgentStatus.IDLE


def _long_pause(uow: UnitOfWork) -> ModelPause:
    return ModelPause(model=MODEL, paused_since=uow.now, paused_until=uow.now + timedelta(seconds=200), pauses=3)
