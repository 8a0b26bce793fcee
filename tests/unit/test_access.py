"""Who may see and do what. What one may not see is not there."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from uuid import UUID

import pytest

from core import approvals, conversations, messages, tasks, turns
from core.access import Principal
from core.errors import NotAuthenticated, NotFound, OnethreadError
from core.follow import Follower
from core.ids import new_id
from core.live import LiveEvents
from core.models import Conversation, Decision, Posted, ToolCall, ToolCallState
from core.ports import Lease, TaskFilter, UnitOfWork
from core.tools.agent import search
from core.tools.registry import ToolContext
from core.tools.tasks import create_task, delete_task, get_task, list_tasks, update_task
from tests.fakes import claim_one
from tests.unit.conftest import Desk

Work = Callable[[UnitOfWork], Awaitable[object]]


async def _private(desk: Desk, who: Principal, text: str = "Secret") -> tuple[Conversation, Posted]:
    async with desk.storage.write() as uow:
        conversation = await conversations.create(uow, who)
        posted = await messages.post(uow, who, conversation.id, text, rules=desk.rules, source="test")
    return conversation, posted


async def test_a_private_conversation_of_another_is_not_there_in_any_service(desk: Desk) -> None:
    conversation, posted = await _private(desk, desk.kim)
    assert posted.turn_id
    assert posted.reply_id
    turn_id, reply_id, who, rules = posted.turn_id, posted.reply_id, desk.admin, desk.rules
    waiting = await _parked(desk, posted)
    attempts: dict[str, Work] = {
        "conversations.get": lambda uow: conversations.get(uow, who, conversation.id),
        "conversations.rename": lambda uow: conversations.rename(uow, who, conversation.id, "Mine"),
        "conversations.set_model": lambda uow: conversations.set_model(uow, who, conversation.id, "m"),
        "conversations.archive": lambda uow: conversations.archive(uow, who, conversation.id),
        "conversations.unarchive": lambda uow: conversations.unarchive(uow, who, conversation.id),
        "conversations.delete": lambda uow: conversations.delete(uow, who, conversation.id),
        "messages.post": lambda uow: messages.post(uow, who, conversation.id, "Hi", rules=rules, source="test"),
        "messages.note": lambda uow: messages.note(uow, who, conversation.id, "Hi", rules=rules, source="test"),
        "messages.answer": lambda uow: messages.answer(uow, who, reply_id, "Hi", rules=rules, source="test"),
        "messages.get": lambda uow: messages.get(uow, who, posted.message_id),
        "messages.edit": lambda uow: messages.edit(uow, who, posted.message_id, "Hi", rules=rules),
        "messages.delete": lambda uow: messages.delete(uow, who, posted.message_id),
        "messages.retry": lambda uow: messages.retry(uow, who, turn_id, rules=rules, source="test"),
        "turns.cancel": lambda uow: turns.cancel(uow, who, turn_id),
        "approvals.decide": lambda uow: approvals.decide(uow, who, waiting, Decision.APPROVE),
    }
    seen = {}
    for name, attempt in attempts.items():
        try:
            await desk.do(attempt)
        except OnethreadError as error:
            seen[name] = type(error)
    assert seen == dict.fromkeys(attempts, NotFound)
    with pytest.raises(NotFound):
        await anext(Follower(desk.storage, LiveEvents(), who, conversation.id).frames())


async def _parked(desk: Desk, posted: Posted) -> UUID:
    """Lets the turn wait for an approval; gives its id."""
    async with desk.storage.write() as uow:
        turn = await claim_one(uow)
        assert turn
        assert turn.id == posted.turn_id
        call = ToolCall(
            turn_id=turn.id, step=0, index=0, name="x", arguments={}, state=ToolCallState.RUNNING, result="", created_at=uow.now
        )
        turn = await uow.turns.fence(Lease(turn_id=turn.id, token=turn.lease_token))
        return (await turns.park(uow, turn, call, expires_at=uow.now)).id


async def test_lists_and_searches_show_only_what_one_may_read(desk: Desk) -> None:
    theirs, _ = await _private(desk, desk.kim, "the kims word")
    mine, _ = await _private(desk, desk.admin, "my word")
    async with desk.storage.write() as uow:
        task = await tasks.create(uow, desk.kim, "Ours")
        await messages.post(uow, desk.kim, task.conversation_id, "everybodys word", rules=desk.rules, source="test")
        page = await conversations.page(uow, desk.admin)
        found = await uow.messages.search(desk.admin, "word", limit=10)

    assert {each.id for each in page.conversations} == {mine.id, task.conversation_id}
    assert page.total == 2
    assert theirs.id not in page.message_counts
    assert {each.content for each in found} == {"my word", "everybodys word"}


async def test_a_member_reads_and_writes_in_a_private_conversation(desk: Desk) -> None:
    conversation, _ = await _private(desk, desk.kim)
    async with desk.storage.write() as uow:
        await uow.conversations.add_member(conversation.id, desk.admin.user_id)
        await uow.conversations.add_member(conversation.id, desk.admin.user_id)
        assert (await conversations.get(uow, desk.admin, conversation.id)).id == conversation.id
        await messages.post(uow, desk.admin, conversation.id, "Hi", rules=desk.rules, source="test")


async def test_a_tasks_conversation_is_everybodys(desk: Desk) -> None:
    async with desk.storage.write() as uow:
        task = await tasks.create(uow, desk.admin, "Ours")
        assert (await conversations.get(uow, desk.kim, task.conversation_id)).task_ref == "OT-1"
        await tasks.update(uow, desk.kim, "OT-1", {"status": "done"})


@pytest.mark.parametrize("missing", ["chat", "tasks:read", "tasks:write"])
async def test_a_scope_that_a_token_lacks_is_asked_for(desk: Desk, missing: str) -> None:
    conversation, posted = await _private(desk, desk.admin)
    async with desk.storage.write() as uow:
        await tasks.create(uow, desk.admin, "Ours")
    assert posted.turn_id
    turn_id, who = posted.turn_id, replace(desk.admin, scopes=desk.admin.scopes - {missing})
    needs: dict[str, dict[str, Work]] = {
        "chat": {
            "page": lambda uow: conversations.page(uow, who),
            "create": lambda uow: conversations.create(uow, who),
            "get": lambda uow: conversations.get(uow, who, conversation.id),
            "post": lambda uow: messages.post(uow, who, conversation.id, "Hi", rules=desk.rules, source="test"),
            "message": lambda uow: messages.get(uow, who, posted.message_id),
            "edit": lambda uow: messages.edit(uow, who, posted.message_id, "Hi", rules=desk.rules),
            "delete": lambda uow: messages.delete(uow, who, posted.message_id),
            "retry": lambda uow: messages.retry(uow, who, turn_id, rules=desk.rules, source="test"),
            "cancel": lambda uow: turns.cancel(uow, who, turn_id),
            "decide": lambda uow: approvals.decide(uow, who, new_id(), Decision.DENY),
        },
        "tasks:read": {
            "get": lambda uow: tasks.get(uow, who, "OT-1"),
            "page": lambda uow: tasks.page(uow, who, TaskFilter()),
        },
        "tasks:write": {
            "create": lambda uow: tasks.create(uow, who, "x"),
            "update": lambda uow: tasks.update(uow, who, "OT-1", {"title": "x"}),
            "delete": lambda uow: tasks.delete(uow, who, "OT-1"),
        },
    }
    for attempt in needs[missing].values():
        with pytest.raises(NotAuthenticated, match=repr(missing)):
            await desk.do(attempt)


# --- the agent's tools see what all who read along may see ---


async def _context(uow: UnitOfWork, author: Principal, conversation: Conversation) -> ToolContext:
    reading_along = await conversations.audience(uow, conversation)
    return ToolContext(uow=uow, principal=replace(author, reading_along=reading_along), conversation=conversation)


async def test_in_a_shared_conversation_the_agent_finds_nothing_private_of_its_author(desk: Desk) -> None:
    await _private(desk, desk.kim, "my salary is a secret word")
    async with desk.storage.write() as uow:
        task = await tasks.create(uow, desk.kim, "Ours")
        other = await tasks.create(uow, desk.admin, "Other")
        await messages.post(uow, desk.admin, other.conversation_id, "an open word", rules=desk.rules, source="test")
        here = await conversations.get(uow, desk.kim, task.conversation_id)
        found = await search.run(await _context(uow, desk.kim, here), {"query": "word"})

    assert [each["excerpt"] for each in found["results"]] == ["an open word"]


async def test_alone_the_agent_finds_what_its_author_may_read(desk: Desk) -> None:
    await _private(desk, desk.kim, "my salary is a secret word")
    await _private(desk, desk.admin, "the admins word")
    here, _ = await _private(desk, desk.kim, "this conversations word")
    async with desk.storage.write() as uow:
        found = await search.run(await _context(uow, desk.kim, here), {"query": "word"})

    assert [each["excerpt"] for each in found["results"]] == ["my salary is a secret word"]


async def test_with_a_member_the_agent_finds_what_both_may_read(desk: Desk) -> None:
    await _private(desk, desk.kim, "kims word")
    both, _ = await _private(desk, desk.kim, "our word")
    here, _ = await _private(desk, desk.kim, "here")
    async with desk.storage.write() as uow:
        for conversation in (both, here):
            await uow.conversations.add_member(conversation.id, desk.admin.user_id)
        found = await search.run(await _context(uow, desk.kim, here), {"query": "word"})

    assert [each["excerpt"] for each in found["results"]] == ["our word"]


async def test_every_task_tool_keeps_to_who_reads_along(desk: Desk) -> None:
    async with desk.storage.write() as uow:
        task = await tasks.create(uow, desk.kim, "Hidden")
        await uow.conversations.update(task.conversation_id, visibility="private")
        shared = await tasks.create(uow, desk.admin, "Open")
        here = await conversations.get(uow, desk.kim, shared.conversation_id)
        context = await _context(uow, desk.kim, here)
        assert [each["ref"] for each in (await list_tasks.run(context, {}))["tasks"]] == ["OT-2"]
        for tool, arguments in ((get_task, {}), (update_task, {"status": "done"}), (delete_task, {})):
            with pytest.raises(NotFound) as refused:
                await tool.run(context, {"ref": "OT-1", **arguments})
            assert "Hidden" not in str(refused.value)
        assert (await create_task.run(context, {"title": "New"}))["ref"] == "OT-3"
        assert (await get_task.run(replace(context, principal=desk.kim), {"ref": "OT-1"}))["title"] == "Hidden"
