"""Conversations that outgrow the model's window: what falls out is summarised once, and nothing that was deleted lives on in a summary."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from uuid import UUID

import pytest

from core import turns
from core.agent import Agent, AgentRules
from core.drafts import Drafts
from core.errors import LeaseLost, ModelBusy, ModelError, ModelFaltered, ModelRefused, StorageUnavailable
from core.ids import new_id
from core.models import AgentStatus, Message, MessageStatus, Role, Summary
from core.ports import ModelRequest, UnitOfWork
from core.retries import RetryPolicy
from core.tools import agent as agent_tools
from core.tools import tasks as task_tools
from core.tools.registry import Toolset
from tests.databases import on_both
from tests.fakes import USAGE, Gate, Item, ScriptedModel, asks_for_summary, claim_one, said, summarised
from tests.integration.conftest import Start, World

new_database = on_both
SECRET = "tangerine"
TOO_LONG = ModelRefused("Too long.", reason="CONTEXT_TOO_LONG")


class Narrow(ScriptedModel):
    """Its window holds three messages; a fourth moves it to the last one. Its summaries repeat the first words of all that they tell of."""

    def __init__(self, *summaries: Sequence[Item]) -> None:
        super().__init__(self._say)
        self.window_tokens = 4_000
        self.count = lambda request: 1_000 * len(said(request))
        self._summaries = list(summaries)

    def _say(self, request: ModelRequest) -> Sequence[Item]:
        if not asks_for_summary(request):
            return (f"I heard {_words(said(request)[-1])}.",)
        return self._summaries.pop(0) if self._summaries else (f"They said: {_retold(request)}.",)

    @property
    def summary_requests(self) -> list[ModelRequest]:
        return [request for request in self.requests if asks_for_summary(request)]

    @property
    def asked(self) -> list[list[str]]:
        """Which messages each of the other requests showed."""
        return [[text.split()[0] for text in said(request)] for request in self.requests if not asks_for_summary(request)]


def _words(text: str) -> str:
    return " ".join(text.split()[:2])


def _retold(request: ModelRequest) -> str:
    given = str(request.messages[1]["content"])
    earlier = given.partition("They said: ")[2].partition(".\n")[0]
    new = [_words(line.removeprefix("User: ")) for line in given.splitlines() if line.startswith("User: ")]
    return ", ".join([*([earlier] if earlier else []), *new])


@asynccontextmanager
async def grown(start: Start, model: Narrow, messages: int = 3) -> AsyncIterator[tuple[World, UUID]]:
    """A conversation whose window is full: the next message moves it."""
    async with start(model) as world:
        chat = await world.chat()
        async with world.working():
            for number in range(messages):
                await world.ask(chat.id, _message(number))
        yield world, chat.id


def _message(number: int) -> str:
    return f"{number} {SECRET if number == 0 else 'plum'} " + "x" * 3_000


async def _latest(world: World, conversation_id: UUID) -> Summary | None:
    return await world.read(lambda uow: uow.summaries.latest(conversation_id))


async def _window(world: World, conversation_id: UUID) -> int:
    found = await world.read(lambda uow: uow.conversations.find(conversation_id))
    assert found
    return found.window_from_seq


# --- a summary is made, stored and shown ---


async def test_what_falls_out_of_the_window_is_summarised_once_and_told_from_then_on(start: Start) -> None:
    model = Narrow()
    async with grown(start, model) as (world, chat), world.working():
        for number in (3, 4, 5):
            await world.ask(chat, _message(number))

        assert model.asked == [["0"], ["0", "1"], ["0", "1", "2"], ["3"], ["3", "4"], ["3", "4", "5"]]
        told = "They said: 0 tangerine, 1 plum, 2 plum."
        assert [summarised(request) for request in model.requests[-3:]] == [told] * 3
        assert len(model.summary_requests) == 1
        assert not model.summary_requests[0].tools
        stored = await _latest(world, chat)
        assert stored
        assert (stored.covers_to, stored.text, stored.model, stored.tokens) == (6, told, "one/model", USAGE.tokens_out)
        assert len(await world.read(lambda uow: uow.messages.since(chat, 1))) == 12


async def test_the_beginning_of_the_requests_is_stable_between_two_moves(start: Start) -> None:
    model = Narrow()
    async with grown(start, model) as (world, chat), world.working():
        for number in (3, 4, 5):
            await world.ask(chat, _message(number))
    first, second, third = model.requests[-3:]
    assert first.messages[:2] == second.messages[:2] == third.messages[:2]
    assert second.messages[2:-1] == third.messages[2 : len(second.messages) - 1]


async def test_a_summary_begins_with_the_one_before(start: Start) -> None:
    model = Narrow()
    async with grown(start, model, messages=6) as (world, chat), world.working():
        await world.ask(chat, _message(6))

        assert summarised(model.requests[-1]) == "They said: 0 tangerine, 1 plum, 2 plum, 3 plum, 4 plum, 5 plum."
        assert model.asked[-1] == ["6"]
        assert "0 tangerine x" not in str(model.summary_requests[1].messages)


async def test_a_summary_is_in_the_ledger_and_the_status_says_that_it_is_made(start: Start) -> None:
    gate, answering = Gate(), Gate()
    model = Narrow((gate, "They spoke."))
    async with grown(start, model) as (world, chat), world.working():
        before = await world.read(lambda uow: uow.usage.of_conversation(chat))
        posted = await world.post(chat, _message(3))
        await gate.reached()
        assert await world.agent_status(chat) == (AgentStatus.THINKING, "Summarising what was said before …")
        model.will(answering, "Well.")
        gate.open()
        await answering.reached()
        assert await world.agent_status(chat) == (AgentStatus.THINKING, "Asking one/model …")
        answering.open()
        reply = await world.ended(posted)

        after = await world.read(lambda uow: uow.usage.of_conversation(chat))
        assert after.tokens_in - before.tokens_in == 2 * USAGE.tokens_in
        assert reply.metadata["tokens_in"] == USAGE.tokens_in


async def test_a_very_long_summary_is_cut(start: Start) -> None:
    model = Narrow(("z" * 50_000,))
    async with grown(start, model) as (world, chat), world.working():
        await world.ask(chat, _message(3))
        assert len(summarised(model.requests[-1])) == 4_000


async def test_a_thousand_messages_are_answered_with_one_summary_and_a_small_request(start: Start) -> None:
    model = ScriptedModel()
    model.window_tokens = 20_000
    async with start(model) as world, world.working():
        chat = await world.chat()
        await world.write(lambda uow: uow.messages.add(*(_noted(chat.id, seq) for seq in range(1, 1_001))))
        await world.write(lambda uow: uow.conversations.take_seqs(chat.id, 1_000))

        await world.ask(chat.id, "Go on")
        await world.ask(chat.id, "And on")

        assert [asks_for_summary(request) for request in model.requests] == [True, False, False]
        assert model.count(model.requests[0]) <= 10_000
        assert max(model.count(request) for request in model.requests[1:]) <= 8_500
        assert await _window(world, chat.id) > 800


def _noted(conversation_id: UUID, seq: int) -> Message:
    now = datetime.now(UTC)
    return Message(
        id=new_id(),
        conversation_id=conversation_id,
        turn_id=None,
        seq=seq,
        role=Role.USER,
        author_id=None,
        content=f"{seq} " + "word " * 40,
        status=MessageStatus.COMPLETED,
        revision=1,
        metadata={},
        source="test",
        created_at=now,
        updated_at=now,
    )


# --- deaths, and leases that were lost ---


async def test_a_worker_that_dies_between_storing_and_using_a_summary_leaves_it_to_the_next_one(start: Start) -> None:
    model, gate = Narrow(), Gate()
    async with grown(start, model) as (world, chat):
        posted = await world.post(chat, _message(3))
        model.will("They spoke.").will(gate)
        await _die_at(world, gate)
        async with world.working():
            assert (await world.ended(posted)).status is MessageStatus.COMPLETED

        assert len(model.summary_requests) == 1
        assert summarised(model.requests[-1]) == "They spoke."


async def test_a_worker_that_dies_while_a_summary_is_made_has_stored_nothing(start: Start) -> None:
    gate = Gate()
    model = Narrow((gate,), ("They spoke.",))
    async with grown(start, model) as (world, chat):
        posted = await world.post(chat, _message(3))
        await _die_at(world, gate)
        assert (await _latest(world, chat), await _window(world, chat)) == (None, 1)
        async with world.working():
            await world.ended(posted)
        assert len(model.summary_requests) == 2
        assert summarised(model.requests[-1]) == "They spoke."


@pytest.mark.parametrize("end", ["They spoke.", TOO_LONG], ids=["with a summary", "without one"])
async def test_who_lost_the_lease_meanwhile_moves_no_window(start: Start, end: Item) -> None:
    gate = Gate()
    async with grown(start, Narrow((gate, end))) as (world, chat):
        posted = await world.post(chat, _message(3))
        spent = await world.read(lambda uow: uow.usage.of_conversation(chat))
        answering = await _answering(world, new_id())
        await gate.reached()
        turn = await world.turn(posted)
        await world.write(lambda uow: uow.turns.update(turn.id, lease_token=turn.lease_token + 1))
        gate.open()
        with pytest.raises(LeaseLost):
            await answering

        assert (await _latest(world, chat), await _window(world, chat)) == (None, 1)
        assert await world.read(lambda uow: uow.usage.of_conversation(chat)) == spent


async def test_a_summary_whose_commit_nobody_heard_of_is_stored_and_charged_once(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Narrow()
    async with grown(start, model) as (world, chat), world.working():
        there = world.app.storage.write
        lost: list[Summary] = []

        @asynccontextmanager
        async def write() -> AsyncIterator[UnitOfWork]:
            async with there() as uow:
                yield uow
                stored = await uow.summaries.latest(chat)
            if stored and not lost:
                lost.append(stored)
                raise StorageUnavailable("The connection broke after the commit.")

        monkeypatch.setattr(world.app.storage, "write", write)
        assert (await world.ask(chat, _message(3))).status is MessageStatus.COMPLETED
        assert lost == [await _latest(world, chat)]
        assert (await world.read(lambda uow: uow.usage.of_conversation(chat))).tokens_in == 5 * USAGE.tokens_in


# --- what was edited or deleted ---


@pytest.mark.parametrize("change", ["edit", "delete", "delete the reply"])
async def test_what_was_changed_or_deleted_is_never_told_again(start: Start, change: str) -> None:
    model = Narrow()
    async with grown(start, model) as (world, chat), world.working():
        await world.ask(chat, _message(3))
        assert SECRET in summarised(model.requests[-1])
        first, reply, *_ = await world.read(lambda uow: uow.messages.since(chat, 1))
        match change:
            case "edit":
                await world.edit(first.id, "0 something else")
            case "delete":
                await world.delete(first.id)
            case _:
                await world.edit(first.id, "0 something else")
                await world.delete(reply.id)
        assert (await _latest(world, chat), await _window(world, chat)) == (None, 1)
        seen = model.calls

        await world.ask(chat, _message(4))

        told = str([request.messages for request in model.requests[seen:]])
        shown = told if change == "delete the reply" else told.replace(f"I heard 0 {SECRET}", "")
        assert SECRET not in shown
        assert summarised(model.requests[-1])


async def test_what_is_deleted_while_it_is_summarised_does_not_get_into_the_summary(start: Start) -> None:
    gate = Gate()
    model = Narrow((gate, f"They spoke of a {SECRET}."))
    async with grown(start, model) as (world, chat), world.working():
        first, reply, *_ = await world.read(lambda uow: uow.messages.since(chat, 1))
        posted = await world.post(chat, _message(3))
        await gate.reached()
        await world.delete(first.id)
        await world.delete(reply.id)
        gate.open()
        await world.ended(posted)

        stored = await _latest(world, chat)
        assert stored
        assert SECRET not in stored.text
        assert SECRET not in str(model.requests[-1].messages)
        assert len(model.summary_requests) == 2


async def test_a_change_behind_a_summary_leaves_it_alone(start: Start) -> None:
    model = Narrow()
    async with grown(start, model) as (world, chat), world.working():
        reply = await world.ask(chat, _message(3))
        before = await _latest(world, chat)
        await world.delete(reply.id)
        assert before
        assert await _latest(world, chat) == before
        assert await _window(world, chat) == 7


async def test_the_summary_before_the_discarded_one_is_used_again(start: Start) -> None:
    model = Narrow()
    async with grown(start, model, messages=6) as (world, chat), world.working():
        await world.ask(chat, _message(6))
        fifth = (await world.read(lambda uow: uow.messages.since(chat, 9)))[0]
        await world.delete(fifth.id)

        stored = await _latest(world, chat)
        assert stored
        assert (stored.covers_to, await _window(world, chat)) == (6, 7)
        await world.ask(chat, _message(7))
        assert summarised(model.requests[-1]).startswith("They said: 0 tangerine, 1 plum, 2 plum, 3 plum, (deleted message)")


async def test_summaries_go_with_their_conversation(start: Start) -> None:
    async with grown(start, Narrow()) as (world, chat), world.working():
        await world.ask(chat, _message(3))
        await world.write(lambda uow: uow.conversations.delete(chat))
        assert await _latest(world, chat) is None


# --- a model that makes no summary ---


@pytest.mark.parametrize("reason", ["CONTENT_POLICY", "CONTEXT_TOO_LONG", "BAD_REQUEST"])
async def test_where_no_summary_can_be_had_the_window_moves_without(start: Start, reason: str) -> None:
    model = Narrow((ModelRefused("No.", reason=reason),))
    async with grown(start, model) as (world, chat), world.working():
        reply = await world.ask(chat, _message(3))
        await world.ask(chat, _message(4))

        assert reply.status is MessageStatus.COMPLETED
        assert model.asked[-2:] == [["3"], ["3", "4"]]
        assert summarised(model.requests[-1]) == ""
        assert len(model.summary_requests) == 1


@pytest.mark.parametrize(
    "failure",
    [
        ModelBusy("No.", reason="RATE_LIMITED", retry_after=0.02),
        ModelFaltered("No.", reason="SERVER_ERROR"),
    ],
    ids=["busy", "faltering"],
)
async def test_a_summary_that_fails_in_passing_is_made_in_the_next_attempt(start: Start, failure: ModelError) -> None:
    model = Narrow((failure,), ("They spoke.",))
    async with grown(start, model) as (world, chat), world.working():
        await world.ask(chat, _message(3))
        assert summarised(model.requests[-1]) == "They spoke."


async def test_a_summary_that_fails_twice_is_done_without(start: Start) -> None:
    failure = ModelFaltered("No.", reason="SERVER_ERROR")
    model = Narrow((failure,), (failure,), ("Not asked for.",))
    async with grown(start, model) as (world, chat), world.working():
        assert (await world.ask(chat, _message(3))).status is MessageStatus.COMPLETED
        assert summarised(model.requests[-1]) == ""


async def test_without_a_key_nothing_is_left_out(start: Start) -> None:
    async with grown(start, Narrow((ModelRefused("No key.", reason="KEY_MISSING"),))) as (world, chat), world.working():
        reply = await world.ask(chat, _message(3))
        assert reply.metadata["error"]["code"] == "KEY_MISSING"
        assert await _window(world, chat) == 1


# --- the provider finds it too long ---


class Mistaken(Narrow):
    """Takes fewer messages than its library says: two, or none at all."""

    def __init__(self, takes: int) -> None:
        super().__init__()
        self.window_tokens = 100_000
        self._takes = takes

    def _say(self, request: ModelRequest) -> Sequence[Item]:
        if not asks_for_summary(request) and len(said(request)) > self._takes:
            return (TOO_LONG,)
        return super()._say(request)


async def test_a_conversation_that_the_provider_finds_too_long_is_shortened_and_asked_again(start: Start) -> None:
    model = Mistaken(takes=2)
    async with grown(start, model, messages=2) as (world, chat), world.working():
        posted = await world.post(chat, _message(2))
        reply = await world.ended(posted)

        assert (reply.status, reply.content) == (MessageStatus.COMPLETED, "I heard 2 plum.")
        assert model.asked == [["0"], ["0", "1"], ["0", "1", "2"], ["2"]]
        assert summarised(model.requests[-1]) == "They said: 0 tangerine, 1 plum."
        turn = await world.turn(posted)
        assert (turn.failures, turn.lease_token, turn.error_code) == (0, 1, None)


async def test_a_conversation_that_is_still_too_long_fails_and_says_so(start: Start) -> None:
    model = Mistaken(takes=0)
    async with start(model) as world, world.working():
        chat = await world.chat()
        model.will("1").will("2")
        for number in range(3):
            reply = await world.ask(chat.id, _message(number))

        assert model.asked[2:] == [["0", "1", "2"], ["2"]]
        assert (reply.status, reply.metadata["error"]) == (MessageStatus.FAILED, {"code": "CONTEXT_TOO_LONG", "message": "Too long."})


async def test_a_message_that_is_too_long_alone_is_named_as_that(start: Start) -> None:
    model = Mistaken(takes=0)
    async with start(model) as world, world.working():
        reply = await world.ask((await world.chat()).id, _message(0))

        assert model.calls == 1
        assert reply.metadata["error"]["code"] == "CONTEXT_TOO_LONG"
        assert "This message is too long for one/model even without what was said before" in reply.metadata["error"]["message"]


# --- what these tests have in common ---


async def _answering(world: World, worker_id: UUID) -> "asyncio.Task[None]":
    """A worker's attempt at the only turn that waits, without the worker."""
    turn = await world.write(lambda uow: claim_one(uow, worker_id))
    assert turn
    tools = Toolset((*task_tools.TOOLS, *agent_tools.TOOLS))
    drafts = Drafts(world.app.storage, world.app.live)
    agent = Agent(storage=world.app.storage, model=world.model, tools=tools, drafts=drafts, rules=AgentRules())
    return asyncio.create_task(agent.answer(turn))


async def _die_at(world: World, gate: Gate) -> None:
    """A worker is killed at the gate, and its turn is free again."""
    worker_id = new_id()
    answering = await _answering(world, worker_id)
    await gate.reached()
    answering.cancel()
    with suppress(asyncio.CancelledError):
        await answering
    await world.write(lambda uow: turns.rescue_from(uow, worker_id, RetryPolicy()))
