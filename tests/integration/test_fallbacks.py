"""Another model answers where the one that was asked for cannot, and every surface is told."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest

from core.errors import ModelBusy, ModelError, ModelFaltered, ModelRefused
from core.models import MessageStatus, Posted, TurnStatus
from core.ports import ModelRequest
from core.retries import RetryPolicy
from onethread.terminal.transcript import spent
from tests.databases import on_both
from tests.fakes import Call, Gate, Item, ManualClock, ScriptedModel
from tests.integration.conftest import QUICK, RULES, Start, World

new_database = on_both
FALLBACKS = ("two/model", "three/model")
POLICY = replace(QUICK, fallback_models=FALLBACKS)
PATIENT = RetryPolicy(fallback_models=FALLBACKS)
FAULT = ModelFaltered("No.", reason="SERVER_ERROR")
NO_KEY = ModelRefused("one/model needs a key.", reason="KEY_MISSING")
BUSY = ModelBusy("No.", reason="RATE_LIMITED", retry_after=60)


class Choir(ScriptedModel):
    """Models of which each says its own; those that are not named answer with their name."""

    def __init__(self, **says: Sequence[Item]) -> None:
        super().__init__(lambda request: says.get(request.model.partition("/")[0], (f"I am {request.model}.",)))

    @property
    def asked(self) -> list[str]:
        return [request.model.partition("/")[0] for request in self.requests]


def _team(start: Start, model: ScriptedModel, policy: RetryPolicy = POLICY, **parts: object) -> AbstractAsyncContextManager[World]:
    return start(model, worker_rules=replace(RULES, retries=policy), **parts)


@pytest.mark.parametrize(
    ("failure", "attempts", "reason"),
    [(NO_KEY, 1, "KEY_MISSING"), (FAULT, 3, "SERVER_ERROR"), (BUSY, 1, "RATE_LIMITED")],
    ids=lambda value: value.reason if isinstance(value, ModelError) else None,
)
async def test_a_fallback_answers_and_the_reply_says_so(start: Start, failure: ModelError, attempts: int, reason: str) -> None:
    model = Choir(one=("Half of", failure))
    async with _team(start, model) as world, world.working():
        posted = await world.post((await world.chat()).id, "Hello")
        reply = await world.ended(posted)

        assert model.asked == ["one"] * attempts + ["two"]
        assert (reply.status, reply.content) == (MessageStatus.COMPLETED, "I am two/model.")
        metadata = reply.metadata
        assert (metadata["model"], metadata["fallback_from"], metadata["fallback_reason"]) == ("two/model", "one/model", reason)
        assert "error" not in metadata
        turn = await world.turn(posted)
        assert (turn.failures, turn.error_code) == (0, None)
        assert [step.model for step in await world.steps(posted)] == ["two/model"]


async def test_the_status_and_the_footer_name_both_models(start: Start) -> None:
    gate = Gate()
    async with _team(start, Choir(one=(BUSY,), two=(gate, "Hello."))) as world, world.working():
        posted = await world.post((await world.chat()).id, "Hello")
        await gate.reached()
        assert (await world.agent_status(posted.conversation_id))[1] == "one/model is busy: two/model answers …"
        assert (await world.reply(posted)).metadata["model"] == "two/model"
        gate.open()
        assert spent((await world.ended(posted)).metadata).startswith("two/model · instead of one/model, which is busy · 10 in")


async def test_each_fallback_is_asked_once(start: Start) -> None:
    model = Choir(one=(NO_KEY,), two=(FAULT,), three=(NO_KEY,))
    async with _team(start, model) as world, world.working():
        reply = await world.ask((await world.chat()).id, "Hello")

        assert model.asked == ["one", "two", "two", "two", "three"]
        assert reply.status is MessageStatus.FAILED
        assert reply.metadata["error"]["message"] == "one/model needs a key. (one/model, which was asked first, has no key.)"
        assert reply.metadata["model"] == "three/model"


@pytest.mark.parametrize("reason", ["CONTENT_POLICY", "BAD_REQUEST"])
async def test_what_is_wrong_with_the_message_is_not_tried_elsewhere(start: Start, reason: str) -> None:
    model = Choir(one=(ModelRefused("No.", reason=reason),))
    async with _team(start, model) as world, world.working():
        reply = await world.ask((await world.chat()).id, "Hello")
        assert (model.asked, reply.metadata["error"]["code"]) == (["one"], reason)


async def test_a_retry_begins_with_the_model_that_was_asked_for(start: Start) -> None:
    model = Choir(two=(NO_KEY,), three=(NO_KEY,))
    model.will(NO_KEY)
    async with _team(start, model) as world, world.working():
        posted = await world.post((await world.chat()).id, "Hello")
        await world.ended(posted)
        await world.retry(posted)
        reply = await world.ended(posted)

        assert model.asked == ["one", "two", "three", "one"]
        assert (reply.content, reply.metadata["model"]) == ("I am one/model.", "one/model")
        assert not {"fallback_from", "fallback_reason", "error"} & reply.metadata.keys()


async def test_a_busy_model_is_waited_for_where_no_fallback_can_answer(start: Start) -> None:
    clock = ManualClock()
    model = Choir(two=(NO_KEY,), three=(NO_KEY,))
    model.will(BUSY)
    async with _team(start, model, PATIENT, clock=clock) as world, world.working():
        posted = await world.post((await world.chat()).id, "Hello")
        await world.until(lambda: _has_come_back(world, posted))
        clock.advance(61)
        reply = await world.ended(posted)

        assert model.asked == ["one", "two", "three", "one"]
        assert (reply.content, reply.metadata["model"], reply.metadata.get("fallback_from")) == ("I am one/model.", "one/model", None)


async def test_a_model_that_is_busy_for_seconds_is_waited_for(start: Start) -> None:
    clock = ManualClock()
    model = Choir().will(ModelBusy("No.", reason="RATE_LIMITED", retry_after=10))
    async with _team(start, model, PATIENT, clock=clock) as world, world.working():
        posted = await world.post((await world.chat()).id, "Hello")
        await world.until(lambda: _is_queued_again(world, posted))
        clock.advance(11)
        assert (await world.ended(posted)).content == "I am one/model."


async def test_who_comes_while_the_model_is_paused_for_long_does_not_wait(start: Start) -> None:
    model = Choir(one=(BUSY,))
    async with _team(start, model, PATIENT, clock=ManualClock()) as world, world.working():
        await world.ask((await world.chat()).id, "Hello")
        reply = await world.ask((await world.chat()).id, "Me too")

        assert model.asked == ["one", "two", "two"]
        assert (reply.metadata["fallback_from"], reply.metadata["fallback_reason"]) == ("one/model", "UNAVAILABLE")


async def test_the_rounds_that_were_finished_stay_done_and_are_charged_to_their_own_model(start: Start) -> None:
    model = Choir().will("I begin.", Call("create_task", {"title": "Buy milk"})).will(NO_KEY)
    async with _team(start, model) as world, world.working():
        posted = await world.post((await world.chat()).id, "Buy milk")
        reply = await world.ended(posted)

        assert reply.content == "I begin.\n\nI am two/model."
        assert await world.titles() == ["Buy milk"]
        assert [step.model for step in await world.steps(posted)] == ["one/model", "two/model"]
        assert reply.metadata["tokens_in"] == 20
        called, answered = _ids(model.requests[-1])
        assert called == answered != "call_0"


async def test_the_next_message_is_for_the_model_that_was_asked_for(start: Start) -> None:
    model = Choir().will(NO_KEY)
    async with _team(start, model) as world, world.working():
        chat = await world.chat()
        await world.ask(chat.id, "Hello")
        reply = await world.ask(chat.id, "And now?")
        assert (reply.metadata["model"], reply.metadata.get("fallback_from")) == ("one/model", None)


async def _has_come_back(world: World, posted: Posted) -> bool:
    """Whether all fallbacks were tried in vain."""
    turn = await world.turn(posted)
    return turn.asked_model == turn.model and turn.status is TurnStatus.QUEUED


async def _is_queued_again(world: World, posted: Posted) -> bool:
    turn = await world.turn(posted)
    return turn.status is TurnStatus.QUEUED and turn.error_code is not None


def _ids(request: ModelRequest) -> list[str]:
    """The ids of all tool calls and of their results."""
    called = [call["id"] for message in request.messages for call in message.get("tool_calls", ())]
    return called + [message["tool_call_id"] for message in request.messages if message["role"] == "tool"]
