"""Archived conversations: put away from the lists, and back as soon as somebody writes in them."""

from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest

from core import conversations, messages, tasks
from core.events import ConversationChanged
from core.frames import conversation_json, time_json
from core.models import Conversation
from core.ports import UnitOfWork
from tests.unit.conftest import Desk

Writing = Callable[..., Awaitable[object]]


async def _chat(desk: Desk, title: str) -> Conversation:
    return await desk.do(lambda uow: conversations.create(uow, desk.admin, title=title))


async def _archive(desk: Desk, conversation_id: UUID) -> None:
    await desk.do(lambda uow: conversations.archive(uow, desk.admin, conversation_id))


async def _titles(desk: Desk, *, archived: bool) -> list[str]:
    page = await desk.do(lambda uow: conversations.page(uow, desk.admin, archived=archived))
    assert page.total == len(page.conversations)
    return [each.title for each in page.conversations]


async def test_an_archived_conversation_is_listed_among_the_archived_only(desk: Desk) -> None:
    await _chat(desk, "Kept")
    away = await _chat(desk, "Away")

    await _archive(desk, away.id)
    assert (await _titles(desk, archived=False), await _titles(desk, archived=True)) == (["Kept"], ["Away"])

    await desk.do(lambda uow: conversations.unarchive(uow, desk.admin, away.id))
    assert (await _titles(desk, archived=False), await _titles(desk, archived=True)) == (["Away", "Kept"], [])


async def test_a_tasks_conversation_may_be_archived_and_its_task_stays_listed(desk: Desk) -> None:
    task = await desk.do(lambda uow: tasks.create(uow, desk.admin, "Buy milk"))
    await _archive(desk, task.conversation_id)

    assert await _titles(desk, archived=True) == ["Buy milk"]
    assert await desk.do(lambda uow: tasks.get(uow, desk.kim, "OT-1")) == task


@pytest.mark.parametrize("write", [messages.post, messages.note])
async def test_writing_in_an_archived_conversation_brings_it_back(desk: Desk, write: Writing) -> None:
    chat = await _chat(desk, "Away")
    await _archive(desk, chat.id)

    await desk.do(lambda uow: write(uow, desk.admin, chat.id, "Hello", rules=desk.rules, source="test"))

    assert await _titles(desk, archived=False) == ["Away"]


async def test_a_change_is_told_once_and_when_it_was_archived_is_public(desk: Desk) -> None:
    chat = await _chat(desk, "Away")

    async def told(work: Callable[[UnitOfWork], Awaitable[None]]) -> list[object]:
        async with desk.storage.write() as uow:
            await work(uow)
            await work(uow)
            return list(uow.events)

    changed = [ConversationChanged(conversation_id=chat.id)]
    assert await told(lambda uow: conversations.archive(uow, desk.admin, chat.id)) == changed
    archived = await desk.do(lambda uow: conversations.get(uow, desk.admin, chat.id))
    assert conversation_json(archived)["archived_at"] == time_json(desk.clock.now())
    assert await told(lambda uow: conversations.unarchive(uow, desk.admin, chat.id)) == changed
    back = await desk.do(lambda uow: conversations.get(uow, desk.admin, chat.id))
    assert conversation_json(back)["archived_at"] is None
