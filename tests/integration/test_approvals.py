"""A tool that needs a person's word: the turn waits, and goes on in the same message when somebody decided."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from core import turns
from core.access import Principal
from core.errors import Conflict, NotFound
from core.models import AgentStatus, ApprovalStatus, Decision, MessageStatus, Posted, ToolCallState, TurnStatus
from core.retries import RetryPolicy
from tests.databases import on_both
from tests.fakes import Call, ManualClock, ScriptedModel, results, said
from tests.integration.conftest import Start, World

new_database = on_both

DELETE = Call("delete_task", {"ref": "OT-1"})


@asynccontextmanager
async def asked(start: Start, *, who: str = "", **overrides: object) -> AsyncIterator[tuple[World, Posted]]:
    """Somebody asked for OT-1 to be deleted from another task's conversation, and the agent waits for a word."""
    model = ScriptedModel().will("May I?", DELETE).will("I see.")
    async with start(model, **overrides) as world, world.working():
        await world.task("Buy milk")
        await world.user("kim")
        here = await world.task("Tidy up", assignee="kim")
        author = await world.user(who) if who else world.admin
        posted = await world.post(here.conversation_id, "Delete OT-1", author)
        await world.comes_to(posted, TurnStatus.WAITING)
        yield world, posted


async def _kim(world: World) -> Principal:
    user = await world.read(lambda uow: uow.users.by_name("kim"))
    assert user
    return Principal(user_id=user.id)


async def test_a_turn_that_needs_a_word_waits_without_a_lease(start: Start) -> None:
    async with asked(start) as (world, posted):
        turn, reply = await world.turn(posted), await world.reply(posted)
        assert (turn.lease_owner, turn.lease_until) == (None, None)
        assert (reply.content, reply.status) == ("May I?", MessageStatus.PROCESSING)
        assert await world.agent_status(posted.conversation_id) == (AgentStatus.WAITING_FOR_USER, "May I run delete_task?")
        assert [call.state for call in await world.tool_calls(posted)] == [ToolCallState.AWAITING_APPROVAL]

        async def no_slot_is_taken() -> bool:
            return world.app.worker.running == 0

        await world.until(no_slot_is_taken)
        assert await world.titles() == ["Buy milk", "Tidy up"]


async def test_an_approved_tool_runs_and_the_reply_goes_on_in_the_same_message(start: Start) -> None:
    async with asked(start) as (world, posted):
        decided = await world.decide(await world.approval(posted), Decision.APPROVE)
        assert (decided.status, decided.decided_by) == (ApprovalStatus.APPROVED, world.admin.user_id)
        reply = await world.ended(posted)

        assert reply.content == "May I?\n\nI see."
        assert await world.titles() == ["Tidy up"]
        assert results(world.model.requests[1]) == [{"deleted": "OT-1"}]
        assert await world.agent_status(posted.conversation_id) == (AgentStatus.IDLE, "")


async def test_a_denied_tool_does_not_run_and_the_model_is_told(start: Start) -> None:
    async with asked(start) as (world, posted):
        await world.decide(await world.approval(posted), Decision.DENY)
        assert (await world.ended(posted)).content == "May I?\n\nI see."

        assert await world.titles() == ["Buy milk", "Tidy up"]
        (result,) = results(world.model.requests[1])
        assert result["error"].startswith("The user denied this.")
        assert [call.state for call in await world.tool_calls(posted)] == [ToolCallState.FAILED]


async def test_the_agent_no_longer_waits_once_it_was_decided(start: Start) -> None:
    async with start(ScriptedModel().will(DELETE)) as world:
        await world.task("Buy milk")
        posted = await world.post((await world.chat()).id, "Delete OT-1")
        async with world.working():
            await world.comes_to(posted, TurnStatus.WAITING)
        await world.decide(await world.approval(posted), Decision.APPROVE)
        assert (await world.agent_status(posted.conversation_id))[0] is AgentStatus.THINKING


async def test_the_first_decision_counts(start: Start) -> None:
    async with asked(start) as (world, posted):
        approval, kim = await world.approval(posted), await _kim(world)
        await world.decide(approval, Decision.DENY, kim)
        with pytest.raises(Conflict, match="denied by kim already"):
            await world.decide(approval, Decision.APPROVE)
        await world.ended(posted)
        assert await world.titles() == ["Buy milk", "Tidy up"]


@pytest.mark.parametrize(("who", "may"), [("author", True), ("assignee", True), ("admin", True), ("somebody", False)])
async def test_author_assignee_and_admins_may_decide(start: Start, who: str, may: bool) -> None:
    async with asked(start, who="lee") as (world, posted):
        lee = await world.read(lambda uow: uow.users.by_name("lee"))
        assert lee
        people = {
            "author": Principal(user_id=lee.id),
            "assignee": await _kim(world),
            "admin": world.admin,
            "somebody": await world.user("max"),
        }
        approval = await world.approval(posted)
        if may:
            await world.decide(approval, Decision.DENY, people[who])
        else:
            with pytest.raises(Conflict, match="Only the person who asked"):
                await world.decide(approval, Decision.DENY, people[who])
        assert (await world.turn(posted)).status is not TurnStatus.WAITING or not may


async def test_an_approval_in_a_private_chat_is_not_there_for_others(start: Start) -> None:
    async with start(ScriptedModel().will(DELETE)) as world, world.working():
        kim = await world.user("kim")
        await world.task("Buy milk")
        posted = await world.post((await world.chat(kim)).id, "Delete OT-1", kim)
        await world.comes_to(posted, TurnStatus.WAITING)
        with pytest.raises(NotFound):
            await world.decide(await world.approval(posted), Decision.APPROVE)


async def test_a_new_message_denies_what_waits_and_is_answered_after_it(start: Start) -> None:
    async with asked(start) as (world, posted):
        approval = await world.approval(posted)
        new = await world.post(posted.conversation_id, "No, wait")
        assert (await world.ended(new)).content == "OK."

        assert (await world.reply(posted)).content == "May I?\n\nI see."
        closed = await world.read(lambda uow: uow.approvals.get(approval.id))
        assert closed
        assert closed.status is ApprovalStatus.DENIED
        assert await world.titles() == ["Buy milk", "Tidy up"]
        assert said(world.model.requests[2]) == ["Delete OT-1", "No, wait"]


async def test_later_turns_stay_behind_one_that_waits(start: Start) -> None:
    async with start(ScriptedModel().will(DELETE).will("Deleted.")) as world:
        await world.task("Buy milk")
        chat = await world.chat()
        first, second = await world.post(chat.id, "Delete OT-1"), await world.post(chat.id, "And then?")
        async with world.working():
            await world.comes_to(first, TurnStatus.WAITING)
            await world.ask((await world.chat()).id, "Elsewhere")
            assert (await world.turn(second)).status is TurnStatus.QUEUED
            await world.decide(await world.approval(first), Decision.APPROVE)
            assert (await world.ended(second)).content == "OK."


async def test_what_nobody_decides_in_time_is_denied(start: Start) -> None:
    clock = ManualClock()
    async with asked(start, clock=clock) as (world, posted):
        clock.advance(24 * 3600 - 1)
        await world.app.ticks.expire()
        assert (await world.turn(posted)).status is TurnStatus.WAITING
        clock.advance(1)
        await world.app.ticks.expire()
        assert (await world.ended(posted)).content == "May I?\n\nI see."
        (result,) = results(world.model.requests[1])
        assert result["error"].startswith("Nobody allowed this in time")
        assert await world.titles() == ["Buy milk", "Tidy up"]


async def test_a_cancelled_turn_takes_its_approval_with_it_and_a_retry_asks_again(start: Start) -> None:
    async with asked(start) as (world, posted):
        approval = await world.approval(posted)
        await world.cancel(posted)
        with pytest.raises(Conflict, match="expired already"):
            await world.decide(approval, Decision.APPROVE)
        assert await world.agent_status(posted.conversation_id) == (AgentStatus.IDLE, "")

        await world.retry(posted)
        await world.comes_to(posted, TurnStatus.WAITING)
        again = await world.approval(posted)
        assert again.id != approval.id
        await world.decide(again, Decision.APPROVE)
        assert (await world.ended(posted)).content == "May I?\n\nI see."
        assert await world.titles() == ["Tidy up"]
        assert world.model.calls == 2


async def test_nobody_is_asked_about_a_call_that_cannot_work(start: Start) -> None:
    async with start(ScriptedModel().will(Call("delete_task", {})).will("Sorry.")) as world, world.working():
        posted = await world.post((await world.chat()).id, "Delete it")
        assert (await world.ended(posted)).content == "Sorry."
        assert "ref: Field required" in results(world.model.requests[1])[0]["error"]


async def test_a_task_is_not_deleted_from_its_own_conversation(start: Start) -> None:
    async with start(ScriptedModel().will(DELETE).will("I may not.")) as world, world.working():
        task = await world.task("Buy milk")
        posted = await world.post(task.conversation_id, "Delete this task")
        await world.comes_to(posted, TurnStatus.WAITING)
        await world.decide(await world.approval(posted), Decision.APPROVE)
        assert (await world.ended(posted)).content == "I may not."
        assert await world.titles() == ["Buy milk"]


async def test_a_waiting_turn_outlives_its_worker(start: Start) -> None:
    clock = ManualClock()
    async with start(ScriptedModel().will(DELETE), clock=clock) as world:
        await world.task("Buy milk")
        posted = await world.post((await world.chat()).id, "Delete OT-1")
        async with world.working():
            await world.comes_to(posted, TurnStatus.WAITING)
    clock.advance(3_600)
    async with start(ScriptedModel().will("Gone."), clock=clock) as world:
        assert await world.write(lambda uow: turns.rescue(uow, RetryPolicy())) == 0
        await world.decide(await world.approval(posted), Decision.APPROVE)
        async with world.working():
            assert (await world.ended(posted)).content == "Gone."
        assert await world.titles() == []
