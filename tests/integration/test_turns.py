"""A turn's way through worker, agent and model: streamed, checkpointed, with tools, and what happens when something fails on the way."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from core import turns
from core.agent import Agent, AgentRules
from core.drafts import Drafts
from core.errors import Conflict, ModelBusy, ModelFaltered, ModelRefused, StorageUnavailable
from core.events import AgentStatusChanged, TextDelta, TurnChanged
from core.ids import new_id
from core.models import AgentStatus, MessageStatus, Posted, ToolCallState, Turn, TurnStatus
from core.ports import TaskFilter, UnitOfWork
from core.retries import RetryPolicy
from core.tools import agent as agent_tools
from core.tools import tasks as task_tools
from core.tools.registry import Arguments, Hints, Result, ToolContext, Toolset, tool
from onethread import bootstrap, service
from onethread.bootstrap import App
from storage.unit_of_work import Database
from tests.databases import on_both
from tests.fakes import CUT, Call, Gate, ManualClock, ScriptedModel, claim_one, results, said
from tests.integration.conftest import RULES, Start, World

new_database = on_both

BUSY = ModelBusy("Too many requests.", reason="RATE_LIMITED")
FALTERED = ModelFaltered("It broke.", reason="SERVER_ERROR")
PATIENT = replace(RULES, retries=RetryPolicy())
"""With the delays of the real policy, for a ManualClock."""


# --- streaming ---


async def test_text_is_streamed_with_offsets_in_utf16_units(world: World) -> None:
    gate = Gate()
    world.model.will("Milk 🥛", gate, " and", " bread")
    chat = await world.chat()
    with world.app.live.subscribe(chat.id) as events:
        async with world.working():
            posted = await world.post(chat.id, "Hello")
            await gate.reached()
            gate.open()
            await world.ended(posted)
        deltas = [each for each in events.waiting() if isinstance(each, TextDelta)]

    assert [(each.stream_no, each.offset, each.text) for each in deltas] == [(1, 0, "Milk 🥛"), (1, 7, " and bread")]
    assert {each.message_id for each in deltas} == {posted.reply_id}
    assert (await world.reply(posted)).content == "Milk 🥛 and bread"


async def test_what_was_said_so_far_is_stored_within_about_a_second(world: World) -> None:
    gate = Gate()
    world.model.will("So far", gate, ", so good.")
    chat = await world.chat()
    async with world.working():
        posted = await world.post(chat.id, "Hello")
        await gate.reached()

        async def stored() -> bool:
            return (await world.reply(posted)).content == "So far"

        await world.until(stored, seconds=3)  # about one, on a busy machine
        assert (await world.reply(posted)).status is MessageStatus.PROCESSING
        gate.open()
        assert (await world.ended(posted)).content == "So far, so good."


async def test_a_reply_says_what_it_cost(world: World) -> None:
    world.model.will("Making it.", Call("create_task", {"title": "Buy milk"})).will("Done.")
    chat = await world.chat()
    async with world.working():
        reply = await world.ask(chat.id, "Hello")

    wanted = {"model": "one/model", "tokens_in": 20, "tokens_out": 10, "cost": "0.0020", "finish_reason": "stop", "rounds": 2}
    assert reply.metadata.items() >= wanted.items()
    usage = await world.read(lambda uow: uow.usage.of_conversation(chat.id))
    assert (usage.tokens_in, usage.tokens_cached, str(usage.cost)) == (20, 4, "0.0020")


async def test_the_agents_status_follows_the_turn(world: World) -> None:
    asking, answering = Gate(), Gate()
    world.model.will(asking, Call("create_task", {"title": "Buy milk"})).will(answering, "Done.")
    chat = await world.chat()
    with world.app.live.subscribe(chat.id) as events:
        async with world.working():
            posted = await world.post(chat.id, "Hello")
            await asking.reached()
            assert await world.agent_status(chat.id) == (AgentStatus.THINKING, "Asking one/model …")
            asking.open()
            await answering.reached()
            answering.open()
            await world.ended(posted)
        assert sum(isinstance(each, AgentStatusChanged) for each in events.waiting()) >= 4
    assert await world.agent_status(chat.id) == (AgentStatus.IDLE, "")


# --- tools ---


async def test_a_tool_runs_as_the_author_and_the_model_reads_its_result(world: World) -> None:
    kim = await world.user("kim")
    chat = await world.chat(kim)
    world.model.will("I make it.", Call("create_task", {"title": "Buy milk", "due_at": "2026-12-24"})).will("OT-1 is there.")
    async with world.working():
        reply = await world.ask(chat.id, "Create a task to buy milk", kim)

    assert reply.content == "I make it.\n\nOT-1 is there."
    task = await world.read(lambda uow: uow.tasks.by_ref("OT-1", kim))
    assert task
    assert (task.title, task.creator_id) == ("Buy milk", kim.user_id)
    (result,) = results(world.model.requests[1])
    assert (result["ref"], result["due_at"]) == ("OT-1", "2026-12-24T00:00:00Z")


async def test_several_calls_of_one_round_run_in_their_order(world: World) -> None:
    world.model.will(*(Call("create_task", {"title": title}) for title in ("One", "Two", "Three"))).will("Done.")
    chat = await world.chat()
    async with world.working():
        await world.ask(chat.id, "Create three tasks")

    assert await world.titles() == ["One", "Two", "Three"]
    assert [each["ref"] for each in results(world.model.requests[1])] == ["OT-1", "OT-2", "OT-3"]


async def test_a_tools_effect_happens_once_when_the_worker_dies_after_it(start: Start) -> None:
    gate, clock = Gate(), ManualClock()
    model = ScriptedModel().will(Call("create_task", {"title": "Buy milk"})).will(gate, "lost").will("Done.")
    async with start(model, clock=clock) as world:
        posted = await world.post((await world.chat()).id, "Create a task")
        await _die(world, gate)
        assert await world.titles() == ["Buy milk"]

        clock.advance(61)
        await world.app.ticks.rescue()
        async with world.working():
            assert (await world.ended(posted)).content == "Done."
        assert await world.titles() == ["Buy milk"]
        assert [len(results(request)) for request in model.requests] == [0, 1, 1]


async def test_a_tools_effect_happens_once_when_the_worker_dies_before_it(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    model = ScriptedModel().will("I do.", Call("create_task", {"title": "Buy milk"})).will("Done.")
    async with start(model, clock=clock) as world:
        posted = await world.post((await world.chat()).id, "Create a task")
        gate = Gate()

        async def pausing(uow: UnitOfWork, *_: object) -> ToolContext:
            await gate.passing()
            raise AssertionError

        with monkeypatch.context() as patch:
            patch.setattr("core.agent._tool_context", pausing)
            await _die(world, gate)
        assert await world.titles() == []

        clock.advance(61)
        await world.app.ticks.rescue()
        async with world.working():
            assert (await world.ended(posted)).content == "I do.\n\nDone."
        assert await world.titles() == ["Buy milk"]
        assert model.calls == 2


async def test_a_tools_effect_happens_once_when_the_word_of_its_commit_is_lost(world: World) -> None:
    storage = world.app.storage
    assert isinstance(storage, Database)
    write, lost = storage.write, []

    @asynccontextmanager
    async def forgetful() -> AsyncIterator[UnitOfWork]:
        async with write() as uow:
            before = await uow.tasks.count(world.admin, TaskFilter())
            yield uow
            made = await uow.tasks.count(world.admin, TaskFilter()) > before
        task = asyncio.current_task()
        if made and task and task.get_name().startswith("turn"):
            lost.append(made)
            raise StorageUnavailable("The connection was lost.")

    world.model.will(Call("create_task", {"title": "Buy milk"})).will("Done.")
    chat = await world.chat()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "write", forgetful)
        async with world.working():
            assert (await world.ask(chat.id, "Create a task")).content == "Done."
    assert lost == [True]
    assert await world.titles() == ["Buy milk"]


async def test_a_commit_whose_confirmation_is_lost_is_done_once(world: World) -> None:
    """Each transaction of the turn, and the claim before it: committed, and reported as lost the first time."""
    storage = world.app.storage
    assert isinstance(storage, Database)
    write, done = storage.write, {"worker._claim_turns": 0, "turn": 0}

    @asynccontextmanager
    async def unconfirmed() -> AsyncIterator[UnitOfWork]:
        async with write() as uow:
            yield uow
        task = asyncio.current_task()
        name = task.get_name().split()[0] if task else ""
        if name in done:
            done[name] += 1
            if done[name] % 2 and (name == "turn" or done[name] == 1):
                raise StorageUnavailable("The connection was lost.")

    world.model.will("Making it.", Call("create_task", {"title": "Buy milk"})).will("Done.")
    chat = await world.chat()
    posted = await world.post(chat.id, "Create a task")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "write", unconfirmed)
        async with world.working():
            reply = await world.ended(posted)
    assert (reply.content, reply.status) == ("Making it.\n\nDone.", MessageStatus.COMPLETED)
    assert world.model.calls == 2
    assert await world.titles() == ["Buy milk"]
    assert [(each.number, each.content) for each in await world.steps(posted)] == [(0, "Making it."), (1, "Done.")]
    assert (await world.read(lambda uow: uow.usage.of_conversation(chat.id))).tokens_in == 20
    assert (await world.turn(posted)).failures == 0
    assert done["turn"] >= 7


class Number(Arguments):
    number: int


@tool(toolset="test", title="Break", hints=Hints())
async def break_down(context: ToolContext, arguments: Number) -> Result:
    """Changes something and fails."""
    await context.uow.users.add(replace((await context.uow.users.all())[0], id=new_id(), name="left over"))
    raise RuntimeError("a secret that stood in the database")


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (Call("create_task", '{"title": "cut o'), "no JSON object"),
        (Call("create_task", "[1]"), "no JSON object"),
        (Call("create_task", {}), "title: Field required"),
        (Call("create_task", {"title": "x", "colour": "red"}), "colour: Extra inputs are not permitted"),
        (Call("get_task", {"ref": "OT-77"}), "No task 'OT-77'"),
        (Call("make_coffee", {}), "There is no tool 'make_coffee'. Tools: "),
        (Call("break_down", {"number": 1}), "The tool failed unexpectedly (reference "),
    ],
)
async def test_what_goes_wrong_in_a_tool_is_told_to_the_model(start: Start, call: Call, told: str) -> None:
    model = ScriptedModel().will(call).will("Sorry.")
    async with start(model, tools=(*task_tools.TOOLS, break_down)) as world:
        chat = await world.chat()
        async with world.working():
            posted = await world.post(chat.id, "Do it")
            assert (await world.ended(posted)).content == "Sorry."

        (result,) = results(model.requests[1])
        assert told in result["error"]
        assert "secret" not in result["error"]
        assert [each.state for each in await world.tool_calls(posted)] == [ToolCallState.FAILED]
        assert await world.read(lambda uow: uow.users.by_name("left over")) is None
        assert await world.titles() == []


async def test_after_twelve_rounds_the_model_is_asked_for_text_only(start: Start) -> None:
    model = ScriptedModel(lambda request: (Call("list_tasks"),) if request.tools_allowed else ("I stop here.",))
    async with start(model) as world:
        chat = await world.chat()
        async with world.working():
            reply = await world.ask(chat.id, "Go on for ever")

    assert (reply.content, reply.status) == ("I stop here.", MessageStatus.COMPLETED)
    assert [request.tools_allowed for request in model.requests] == [True] * 11 + [False]
    assert model.requests[11].tools == model.requests[0].tools


async def test_a_model_that_calls_tools_although_it_may_not_fails_the_turn(start: Start) -> None:
    async with start(ScriptedModel(lambda _: (Call("list_tasks"),)), agent_rules=AgentRules(max_rounds=2)) as world:
        chat = await world.chat()
        async with world.working():
            reply = await world.ask(chat.id, "Go on for ever")

    assert (reply.status, reply.metadata["error"]["code"]) == (MessageStatus.FAILED, "TOO_MANY_ROUNDS")


async def test_a_question_ends_the_turn(world: World) -> None:
    asks = Call("ask_user", {"question": "Which one?", "options": ["A", "B"]})
    world.model.will("Hm.", asks, Call("create_task", {"title": "too early"})).will("Done.")
    chat = await world.chat()
    async with world.working():
        reply = await world.ask(chat.id, "Do it")
        assert (reply.content, reply.status) == ("Hm.\n\nWhich one?", MessageStatus.COMPLETED)
        assert reply.metadata["question"] == {"text": "Which one?", "options": ["A", "B"]}
        assert await world.agent_status(chat.id) == (AgentStatus.WAITING_FOR_USER, "Which one?")
        await world.ask(chat.id, "A")

    assert await world.titles() == []
    assert [result.get("code") for result in results(world.model.requests[1])] == [None, "NOT_RUN"]
    assert said(world.model.requests[1]) == ["Do it", "A"]


# --- failures ---


@pytest.mark.parametrize("failure", [FALTERED, CUT, ModelBusy("No.", reason="BUSY", retry_after=0.05)], ids=["error", "cut", "busy"])
async def test_a_passing_failure_is_tried_again_and_its_text_is_replaced(world: World, failure: Exception | str) -> None:
    world.model.will("Half of", failure).will("All of it.")
    chat = await world.chat()
    async with world.working():
        reply = await world.ask(chat.id, "Hello")

    assert (reply.content, reply.status) == ("All of it.", MessageStatus.COMPLETED)
    assert "error" not in reply.metadata


async def test_three_failures_are_the_end_and_partial_text_is_kept(world: World) -> None:
    for number in range(3):
        world.model.will(f"Attempt {number}", FALTERED)
    chat = await world.chat()
    async with world.working():
        posted = await world.post(chat.id, "Hello")
        reply = await world.ended(posted)

    assert (world.model.calls, reply.content, reply.status) == (3, "Attempt 2", MessageStatus.FAILED)
    assert reply.metadata["error"] == {"code": "SERVER_ERROR", "message": "It broke."}
    assert (await world.message(posted.message_id)).status is MessageStatus.FAILED
    assert await world.agent_status(chat.id) == (AgentStatus.ERROR, "It broke.")


async def test_a_finished_round_forgives_earlier_failures(world: World) -> None:
    for title in ("One", "Two"):
        world.model.will(FALTERED).will(FALTERED).will(Call("create_task", {"title": title}))
    world.model.will(FALTERED).will(FALTERED).will("Done.")
    chat = await world.chat()
    async with world.working():
        assert (await world.ask(chat.id, "Create two tasks")).content == "Done."
    assert await world.titles() == ["One", "Two"]


async def test_what_will_fail_again_fails_at_once(world: World) -> None:
    world.model.will("No", ModelRefused("Set OPENAI_API_KEY.", reason="NO_KEY"))
    chat = await world.chat()
    async with world.working():
        reply = await world.ask(chat.id, "Hello")

    assert (world.model.calls, reply.content) == (1, "No")
    assert reply.metadata["error"] == {"code": "NO_KEY", "message": "Set OPENAI_API_KEY."}


async def test_a_failed_turn_lets_the_next_one_go_and_a_retry_counts_anew(world: World) -> None:
    refused = ModelRefused("No.", reason="NO_KEY")
    world.model.will(refused).will("Second.")
    chat = await world.chat()
    async with world.working():
        first, second = await world.post(chat.id, "First"), await world.post(chat.id, "Second")
        assert (await world.ended(second)).content == "Second."
        assert (await world.reply(first)).status is MessageStatus.FAILED

        world.model.will(FALTERED).will(FALTERED).will(FALTERED)
        third = await world.post(chat.id, "Third")
        assert (await world.ended(third)).status is MessageStatus.FAILED
        world.model.will(FALTERED).will(FALTERED).will("At last.")
        await world.retry(third)
        reply = await world.ended(third)

    assert (reply.content, reply.status) == ("At last.", MessageStatus.COMPLETED)
    assert "error" not in reply.metadata


async def test_a_retry_goes_on_after_the_last_finished_round(world: World) -> None:
    world.model.will("I make it.", Call("create_task", {"title": "Buy milk"})).will("then", ModelRefused("No.", reason="NO_KEY"))
    chat = await world.chat()
    async with world.working():
        posted = await world.post(chat.id, "Create a task")
        assert (await world.ended(posted)).content == "I make it.\n\nthen"
        world.model.will("Done.")
        await world.retry(posted)
        assert (await world.ended(posted)).content == "I make it.\n\nDone."

    assert await world.titles() == ["Buy milk"]
    assert len(results(world.model.requests[-1])) == 1


async def test_a_defect_in_onethread_does_not_stop_the_worker(world: World) -> None:
    world.model.will("Well", RuntimeError("a secret")).will("Fine.")
    chat = await world.chat()
    async with world.working():
        posted = await world.post(chat.id, "Hello")
        await world.comes_to(posted, TurnStatus.SUCCEEDED)

    assert (await world.reply(posted)).content == "Fine."


async def test_a_turn_has_a_deadline(start: Start) -> None:
    model = ScriptedModel().will("So far", Gate())
    async with start(model, worker_rules=replace(RULES, turn_seconds=0.8)) as world:
        chat = await world.chat()
        async with world.working():
            reply = await world.ask(chat.id, "Hello")

    assert (reply.content, reply.status) == ("So far", MessageStatus.FAILED)
    assert reply.metadata["error"]["code"] == "TURN_TOO_LONG"
    assert model.open_streams == 0


async def test_the_models_answer_survives_a_database_that_is_away_for_a_while(world: World) -> None:
    gate = Gate()
    world.model.will("Precious.", gate)
    chat = await world.chat()
    async with world.working():
        posted = await world.post(chat.id, "Hello")
        await gate.reached()
        async with _outage(world) as refused:
            gate.open()
            async with asyncio.timeout(30):
                for _ in range(3):
                    await refused.get()
        assert (await world.ended(posted)).content == "Precious."
    assert world.model.calls == 1


async def test_turns_are_still_claimed_after_a_database_was_away(world: World) -> None:
    chat = await world.chat()
    async with world.working():
        async with _outage(world) as refused, asyncio.timeout(30):
            await refused.get()
            await refused.get()
        assert (await world.ask(chat.id, "Hello")).content == "OK."


async def test_a_worker_that_begins_while_the_database_is_away_works_as_soon_as_it_is_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "_RESTART_SECONDS", 3600)  # as after a defect, which this is not
    chat = await world.chat()
    async with AsyncExitStack() as stack:
        async with _outage(world) as refused, asyncio.timeout(30):
            await stack.enter_async_context(world.working())
            await refused.get()
        assert (await world.ask(chat.id, "Hello")).content == "OK."


# --- a busy model ---


async def test_a_retry_after_is_honoured(start: Start) -> None:
    clock = ManualClock()
    model = ScriptedModel().will(ModelBusy("Later.", reason="RATE_LIMITED", retry_after=100))
    async with start(model, clock=clock, worker_rules=PATIENT) as world, world.working():
        posted = await world.post((await world.chat()).id, "Hello")
        turn = await world.comes_to(posted, TurnStatus.QUEUED)
        await _settled(world, posted, calls=1)
        turn = await world.turn(posted)
        assert turn.run_after == clock.now() + timedelta(seconds=100)
        assert (turn.failures, turn.error_code) == (0, "RATE_LIMITED")

        clock.advance(99)
        await _passed_over(world)
        assert (await world.turn(posted)).status is TurnStatus.QUEUED
        clock.advance(1)
        assert (await world.ended(posted)).content == "OK."


async def test_a_busy_model_is_paused_for_everybody_and_longer_each_time_without_costing_attempts(start: Start) -> None:
    clock = ManualClock()
    busy = True
    model = ScriptedModel(lambda request: (BUSY if busy and request.model == "one/model" else "OK.",))
    async with start(model, clock=clock, worker_rules=PATIENT) as world, world.working():
        posted = await world.post((await world.chat()).id, "Hello")
        waits = []
        for calls in range(1, 6):
            await _settled(world, posted, calls=calls)
            waits.append(((await world.turn(posted)).run_after - clock.now()).total_seconds())
            other = await world.post((await world.chat()).id, "Me too")
            await _passed_over(world)
            model.requests.pop()
            assert (await world.turn(other)).started_at is None
            await world.cancel(other)
            clock.advance(waits[-1])
        await _settled(world, posted, calls=6)
        assert waits == [5, 10, 20, 40, 80]
        assert (await world.turn(posted)).failures == 0

        busy = False
        clock.advance(160)
        assert (await world.ended(posted)).content == "OK."
        pause = await world.read(lambda uow: uow.pauses.get("one/model"))
        assert pause
        assert (pause.paused_until, pause.at_once) == (clock.now(), 2)


async def test_one_turn_alone_probes_a_paused_model(start: Start) -> None:
    clock, probe = ManualClock(), Gate()
    model = ScriptedModel().will(BUSY).will(probe, "It answers again.")
    async with start(model, clock=clock, worker_rules=PATIENT) as world, world.working():
        first = await world.post((await world.chat()).id, "First")
        await _settled(world, first, calls=1)
        others = [await world.post((await world.chat()).id, "Me too") for _ in range(3)]
        clock.advance(5)
        await probe.reached()
        await _passed_over(world)
        statuses = [(await world.turn(each)).status for each in (first, *others)]
        assert sorted(statuses) == [TurnStatus.QUEUED] * 3 + [TurnStatus.RUNNING]

        probe.open()
        for each in (first, *others):
            await world.ended(each)
        assert model.calls == 6  # the busy one, the probe, the one passed over, three others


async def test_a_sibling_does_not_make_a_pause_longer(start: Start) -> None:
    clock, gates = ManualClock(), [Gate(), Gate()]
    model = ScriptedModel().will(gates[0], BUSY).will(gates[1], BUSY)
    async with start(model, clock=clock, worker_rules=PATIENT) as world, world.working():
        posts = [await world.post((await world.chat()).id, "Hello") for _ in gates]
        for gate in gates:
            await gate.reached()
        for gate in gates:
            gate.open()
        for each in posts:
            await world.comes_to(each, TurnStatus.QUEUED)

        pause = await world.read(lambda uow: uow.pauses.get("one/model"))
        assert pause
        assert (pause.pauses, pause.paused_until) == (1, clock.now() + timedelta(seconds=5))
        assert {(await world.turn(each)).run_after for each in posts} == {clock.now(), pause.paused_until}


async def test_a_model_that_stays_busy_for_hours_costs_attempts(start: Start) -> None:
    clock = ManualClock()
    model = ScriptedModel(lambda _: (BUSY,))
    async with start(model, clock=clock, worker_rules=PATIENT) as world, world.working():
        posted = await world.post((await world.chat()).id, "Hello")
        calls = 0
        while not (await world.turn(posted)).status.finished:
            assert calls < 60
            calls += 1
            await _settled(world, posted, calls=calls)
            clock.advance(301)
        assert (await world.reply(posted)).metadata["error"]["code"] == "RATE_LIMITED"
        assert clock.now() - (await world.turn(posted)).created_at > timedelta(hours=2)


# --- stopping ---


async def test_cancelling_stops_the_model_within_a_second_and_keeps_the_text(start: Start) -> None:
    gate = Gate()
    model = ScriptedModel().will("So far", gate, "never said")
    by_word_alone = replace(RULES, heartbeat_seconds=30)
    async with start(model, worker_rules=by_word_alone) as world, world.working():
        chat = await world.chat()
        posted = await world.post(chat.id, "Hello")
        await gate.reached()

        async def stored() -> bool:
            return (await world.reply(posted)).content == "So far"

        await world.until(stored)
        await world.cancel(posted)
        assert (await world.turn(posted)).status is TurnStatus.CANCELLED

        async def stopped() -> bool:
            return world.model.open_streams == 0

        await world.until(stopped, seconds=1)
        await world.ask(chat.id, "Go on")
        reply = await world.reply(posted)
    assert (reply.content, reply.status) == ("So far", MessageStatus.CANCELLED)
    assert "So far [interrupted]" in str(model.requests[-1].messages)


@pytest.mark.parametrize("when", ["queued", "again", "handed back"])
async def test_the_agent_is_idle_after_a_turn_that_waited_was_cancelled(start: Start, when: str) -> None:
    clock, gate = ManualClock(), Gate()
    model = ScriptedModel().will(ModelBusy("Later.", reason="BUSY", retry_after=100)) if when == "again" else ScriptedModel().will(gate)
    async with start(model, clock=clock, worker_rules=PATIENT) as world:
        chat = await world.chat()
        posted = await world.post(chat.id, "Hello")
        if when != "queued":
            async with world.working():
                await (gate.reached() if when == "handed back" else _settled(world, posted, calls=1))

        await world.cancel(posted)

        assert (await world.agent_status(chat.id))[0] is AgentStatus.IDLE


async def test_a_late_word_of_a_cancellation_does_not_stop_the_retry(world: World) -> None:
    first, second = Gate(), Gate()
    world.model.will(first).will(second, "Done.")
    chat = await world.chat()
    async with world.working():
        posted = await world.post(chat.id, "Hello")
        await first.reached()
        await world.cancel(posted)
        await world.retry(posted)
        await second.reached()

        turn = await world.turn(posted)
        late = TurnChanged(conversation_id=chat.id, turn_id=turn.id, status=TurnStatus.CANCELLED, lease_token=turn.lease_token - 1)
        world.app.live.publish(late)
        second.open()
        assert (await world.ended(posted)).content == "Done."


async def test_a_worker_that_stops_hands_its_turns_back_at_once(world: World) -> None:
    gate = Gate()
    world.model.will("So far", gate)
    chat = await world.chat()
    posted = await world.post(chat.id, "Hello")
    async with world.working():
        await gate.reached()
    turn = await world.turn(posted)
    assert (turn.status, turn.failures, turn.rescues, turn.lease_owner) == (TurnStatus.QUEUED, 0, 0, None)
    assert (await world.reply(posted)).content == "So far"
    assert (await world.reply(posted)).status is MessageStatus.PENDING
    assert await world.read(lambda uow: uow.workers.alive(turn.created_at)) == []

    async with world.working():
        assert (await world.ended(posted)).content == "OK."


# --- workers that vanish ---


async def test_a_turn_of_a_vanished_worker_is_answered_by_another_after_its_lease(start: Start) -> None:
    clock = ManualClock()
    async with start(clock=clock) as world:
        posted = await world.post((await world.chat()).id, "Hello")
        await _claimed(world, posted)
        async with world.working():
            clock.advance(60)
            await _passed_over(world)
            assert (await world.turn(posted)).status is TurnStatus.RUNNING
            clock.advance(1)
            await world.app.ticks.rescue()
            assert (await world.ended(posted)).content == "OK."


async def test_a_turn_whose_workers_vanished_twice_is_answered_apart(start: Start) -> None:
    clock, asked_for = ManualClock(), asyncio.Event()

    async def isolated_run() -> None:
        asked_for.set()

    async with start(clock=clock, isolated_run=isolated_run) as world:
        posted = await world.post((await world.chat()).id, "Hello")
        await _vanish(world, posted, clock)
        async with world.working():
            assert (await world.ended(posted)).content == "OK."
        assert not asked_for.is_set()

    async with start(clock=clock, isolated_run=isolated_run) as world:
        posted = await world.post((await world.chat()).id, "Hello")
        await _vanish(world, posted, clock)
        await _vanish(world, posted, clock)
        async with world.working(), asyncio.timeout(30):
            await asked_for.wait()
            await _passed_over(world)
            assert (await world.turn(posted)).status is TurnStatus.QUEUED

    async with start(clock=clock, worker_rules=replace(RULES, suspects_only=True)) as world, world.working():
        innocent = await world.post((await world.chat()).id, "Hello")
        assert (await world.ended(posted)).content == "OK."
        assert (await world.turn(innocent)).started_at is None


async def test_a_turn_whose_workers_vanished_three_times_fails(start: Start) -> None:
    clock = ManualClock()
    async with start(clock=clock) as world:
        posted = await world.post((await world.chat()).id, "Hello")
        for suspects in (False, False, True):
            await _vanish(world, posted, clock, suspects=suspects)

        reply = await world.reply(posted)
        assert (reply.status, reply.metadata["error"]["code"]) == (MessageStatus.FAILED, "INTERRUPTED")


async def test_a_finished_round_forgives_vanished_workers(start: Start) -> None:
    clock, gate = ManualClock(), Gate()
    model = ScriptedModel().will(Call("list_tasks")).will(gate)
    async with start(model, clock=clock) as world:
        posted = await world.post((await world.chat()).id, "Hello")
        await _vanish(world, posted, clock)
        assert (await world.turn(posted)).rescues == 1
        await _die(world, gate)
        assert (await world.turn(posted)).rescues == 0


async def test_a_worker_keeps_its_lease_while_it_works(start: Start) -> None:
    clock, gate = ManualClock(), Gate()
    async with start(ScriptedModel().will(gate, "Done."), clock=clock) as world, world.working():
        posted = await world.post((await world.chat()).id, "Hello")
        await gate.reached()
        clock.advance(50)

        async def extended() -> bool:
            until = (await world.turn(posted)).lease_until
            return until == clock.now() + timedelta(seconds=60)

        await world.until(extended)
        gate.open()
        assert (await world.ended(posted)).content == "Done."


async def test_a_worker_stops_working_on_a_turn_that_another_took(start: Start) -> None:
    clock, gate = ManualClock(), Gate()
    async with start(ScriptedModel().will("Mine", gate, "never said"), clock=clock) as world, world.working():
        posted = await world.post((await world.chat()).id, "Hello")
        await gate.reached()
        async with world.app.storage.write() as uow:
            await uow.turns.update((await world.turn(posted)).id, lease_token=7, lease_owner=new_id())

        async def stopped() -> bool:
            return world.model.open_streams == 0

        await world.until(stopped)
        assert (await world.turn(posted)).lease_token == 7


async def test_turns_of_many_conversations_run_at_once_up_to_the_limit(start: Start) -> None:
    gates = [Gate() for _ in range(3)]
    model = ScriptedModel()
    for gate in gates:
        model.will(gate, "Done.")
    async with start(model, worker_rules=replace(RULES, concurrency=2)) as world:
        posts = [await world.post((await world.chat()).id, "Hello") for _ in gates]
        async with world.working():
            await gates[0].reached()
            await gates[1].reached()
            assert world.app.worker.running == 2
            assert not gates[2].was_reached
            gates[0].open()
            await gates[2].reached()
            gates[1].open()
            gates[2].open()
            for each in posts:
                assert (await world.ended(each)).content == "Done."


async def test_who_has_fewer_running_turns_comes_first(start: Start) -> None:
    gates = [Gate(), Gate()]
    model = ScriptedModel().will(gates[0], "one").will(gates[1], "two")
    async with start(model, worker_rules=replace(RULES, concurrency=2)) as world:
        kim = await world.user("kim")
        mine = [await world.post((await world.chat()).id, "Hello") for _ in range(2)]
        hers = await world.post((await world.chat(kim)).id, "Hello", kim)
        async with world.working():
            for gate in gates:
                await gate.reached()
            running = [each for each in (*mine, hers) if (await world.turn(each)).status is TurnStatus.RUNNING]
            for gate in gates:
                gate.open()
            await world.ended(mine[1])
    assert running == [mine[0], hers]


# --- what these tests have in common ---


async def _claimed(world: World, posted: Posted, *, suspects: bool = False) -> Turn:
    """The turn, claimed by a worker that will never be heard of again."""
    turn = await world.write(lambda uow: claim_one(uow, suspects=suspects))
    assert turn
    assert turn.id == posted.turn_id
    return turn


async def _vanish(world: World, posted: Posted, clock: ManualClock, *, suspects: bool = False) -> None:
    await _claimed(world, posted, suspects=suspects)
    clock.advance(61)
    await world.app.ticks.rescue()


async def _die(world: World, gate: Gate) -> None:
    """A worker that answers the only turn there is and is killed at the gate."""
    turn = await world.write(claim_one)
    assert turn
    tools = Toolset((*task_tools.TOOLS, *agent_tools.TOOLS))
    drafts = Drafts(world.app.storage, world.app.live)
    agent = Agent(storage=world.app.storage, model=world.model, tools=tools, drafts=drafts, rules=AgentRules())
    answering = asyncio.create_task(agent.answer(turn))
    await gate.reached()
    answering.cancel()
    with suppress(asyncio.CancelledError):
        await answering


async def _settled(world: World, posted: Posted, *, calls: int) -> None:
    """Waits until the turn is queued again, or ended, after this many calls of the model."""

    async def settled() -> bool:
        return world.model.calls == calls and (await world.turn(posted)).status is not TurnStatus.RUNNING

    await world.until(settled)


async def _passed_over(world: World) -> None:
    """Waits until the worker has looked for turns and taken what it may: it answers one that is posted now, on another model."""
    posted = await world.post((await world.chat()).id, "Marker", model="other/model")
    await world.ended(posted)


async def test_an_outage_of_the_database_costs_no_living_worker_its_turns(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    async with start(clock=clock) as world:
        posted = await world.post((await world.chat()).id, "Hello")
        await _claimed(world, posted)
        clock.advance(61)
        with monkeypatch.context() as patch:
            patch.setattr(world.app.storage, "read", _away)
            with pytest.raises(StorageUnavailable):
                await world.app.ticks.rescue()
        await world.app.ticks.rescue()
        assert (await world.turn(posted)).status is TurnStatus.RUNNING
        clock.advance(21)
        await world.app.ticks.rescue()
        assert (await world.turn(posted)).rescues == 1


@asynccontextmanager
async def _away() -> AsyncIterator[UnitOfWork]:
    raise StorageUnavailable("The connection was lost.")
    yield


@pytest.mark.parametrize("until_done", [service.work_until_idle, service.answer_suspects])
async def test_a_worker_that_ends_when_all_is_done_does_not_end_because_the_database_is_away(
    world: World, monkeypatch: pytest.MonkeyPatch, until_done: Callable[[App], Coroutine[None, None, None]]
) -> None:
    refused = asyncio.Event()

    @asynccontextmanager
    async def away() -> AsyncIterator[UnitOfWork]:
        refused.set()
        raise StorageUnavailable("The database is away.")
        yield

    monkeypatch.setattr(service, "_IDLE_SECONDS", 0.3)
    with monkeypatch.context() as patch:
        patch.setattr(world.app.storage, "read", away)
        working = asyncio.create_task(until_done(world.app))
        async with asyncio.timeout(30):
            await refused.wait()
    async with asyncio.timeout(30):
        await working


async def test_a_worker_that_another_one_outran_looks_at_once_for_what_is_left(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    claim, conflicts = turns.claim, iter([Conflict("Another worker was faster."), None])

    async def outrun(*arguments: Any, **named: Any) -> Any:
        claimed = await claim(*arguments, **named)
        if claimed.turns and (conflict := next(conflicts, None)):
            raise conflict
        return claimed

    async with start(worker_rules=replace(RULES, poll_seconds=60)) as world, world.working():
        monkeypatch.setattr(turns, "claim", outrun)
        chat = await world.chat()
        assert (await world.ask(chat.id, "Hello")).status is MessageStatus.COMPLETED


@asynccontextmanager
async def _outage(world: World) -> AsyncIterator[asyncio.Queue[UUID]]:
    """Nothing can be written meanwhile; each refused transaction is counted."""
    storage, refused, over = world.app.storage, asyncio.Queue[UUID](), asyncio.Event()
    assert isinstance(storage, Database)
    there = storage.write

    @asynccontextmanager
    async def away() -> AsyncIterator[UnitOfWork]:
        if not over.is_set():
            refused.put_nowait(new_id())
            raise StorageUnavailable("The database is away.")
        async with there() as uow:
            yield uow

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "write", away)
        yield refused
        over.set()
