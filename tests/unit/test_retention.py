"""Conversations that nobody uses any more are removed, no others, as if a person had deleted them."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from core import conversations, messages, retention, tasks, turns
from core.attachments import Upload
from core.events import ConversationDeleted, TaskDeleted
from core.ids import new_id
from core.models import Conversation, UsageEntry
from core.ports import TaskFilter, UnitOfWork
from core.retries import RetryPolicy
from core.ticks import Ticks
from tests.fakes import USAGE
from tests.unit.conftest import Desk

DAY = 86_400
KEPT = timedelta(days=30)


async def _chat(desk: Desk) -> Conversation:
    return await desk.do(lambda uow: conversations.create(uow, desk.admin))


async def _task(desk: Desk, status: str) -> UUID:
    return (await desk.do(lambda uow: tasks.create(uow, desk.admin, status, {"status": status}))).conversation_id


async def _note(uow: UnitOfWork, desk: Desk, conversation_id: UUID) -> UUID:
    return (await messages.note(uow, desk.admin, conversation_id, "Hello", rules=desk.rules, source="test")).message_id


async def _there(desk: Desk, conversation_id: UUID) -> bool:
    return await desk.do(lambda uow: uow.conversations.find(conversation_id)) is not None


async def _prune(desk: Desk) -> int:
    would = await retention.prunable(desk.storage, desk.clock, KEPT)
    removed = await retention.prune(desk.storage, desk.clock, KEPT)
    assert removed == would
    return removed["conversations"]


async def test_a_chat_is_kept_for_so_many_days_after_its_last_use(desk: Desk) -> None:
    chat = await _chat(desk)
    desk.clock.advance(20 * DAY)
    await desk.do(lambda uow: _note(uow, desk, chat.id))
    desk.clock.advance(30 * DAY)
    assert await _prune(desk) == 0

    desk.clock.advance(1)
    assert await _prune(desk) == 1
    assert not await _there(desk, chat.id)


async def test_without_a_number_of_days_everything_is_kept(desk: Desk) -> None:
    chat = await _chat(desk)
    desk.clock.advance(10_000 * DAY)

    assert (await retention.prunable(desk.storage, desk.clock, None))["conversations"] == 0
    assert (await retention.prune(desk.storage, desk.clock, None))["conversations"] == 0
    assert await _there(desk, chat.id)


@pytest.mark.parametrize(
    ("status", "stays"), [("todo", True), ("in_progress", True), ("in_review", True), ("done", False), ("cancelled", False)]
)
async def test_of_tasks_only_finished_ones_go(desk: Desk, status: str, stays: bool) -> None:
    conversation_id = await _task(desk, status)
    desk.clock.advance(31 * DAY)

    assert await _prune(desk) == (0 if stays else 1)
    assert await _there(desk, conversation_id) is stays
    assert len((await desk.do(lambda uow: tasks.page(uow, desk.admin, TaskFilter()))).tasks) == stays


Use = Callable[[UnitOfWork, Desk, UUID, UUID], Awaitable[object]]
USES: dict[str, Use] = {
    "the task was finished": lambda uow, desk, _, __: tasks.update(uow, desk.admin, "OT-1", {"status": "cancelled"}),
    "a message was edited": lambda uow, desk, _, message: messages.edit(uow, desk.admin, message, "Bye", rules=desk.rules),
    "it was archived": lambda uow, desk, conversation, _: conversations.archive(uow, desk.admin, conversation),
}


@pytest.mark.parametrize("use", USES)
async def test_each_change_is_a_use(desk: Desk, use: str) -> None:
    conversation_id = await _task(desk, "done")
    message_id = await desk.do(lambda uow: _note(uow, desk, conversation_id))
    desk.clock.advance(29 * DAY)
    await desk.do(lambda uow: USES[use](uow, desk, conversation_id, message_id))
    desk.clock.advance(29 * DAY)

    assert await _prune(desk) == 0
    desk.clock.advance(2 * DAY)
    assert await _prune(desk) == 1


async def test_a_conversation_whose_message_waits_for_its_answer_stays(desk: Desk) -> None:
    chat = await _chat(desk)
    posted = await desk.do(lambda uow: messages.post(uow, desk.admin, chat.id, "Hi", rules=desk.rules, source="test"))
    turn_id = posted.turn_id
    assert turn_id
    desk.clock.advance(31 * DAY)
    assert await _prune(desk) == 0

    await desk.do(lambda uow: turns.cancel(uow, desk.admin, turn_id))
    desk.clock.advance(31 * DAY)
    assert await _prune(desk) == 1


async def test_files_go_and_the_ledger_stays(desk: Desk) -> None:
    chat = await _chat(desk)
    async with desk.storage.write() as uow:
        uploads = [Upload(name="a", data=b"x")]
        posted = await messages.post(uow, desk.admin, chat.id, "See", rules=desk.rules, source="test", uploads=uploads)
        assert posted.turn_id
        await turns.cancel(uow, desk.admin, posted.turn_id)
        paid = {"user_id": desk.owner.id, "conversation_id": chat.id, "task_id": None, "project_id": chat.project_id, "model": "m"}
        await uow.usage.add(UsageEntry(id=new_id(), usage=USAGE, at=uow.now, **paid))  # type: ignore[arg-type]
    desk.clock.advance(31 * DAY)

    assert await _prune(desk) == 1

    async with desk.storage.read() as uow:
        assert await uow.attachments.of_messages([posted.message_id]) == []
        assert (await uow.usage.of_conversation(chat.id)).cost == Decimal("0.0010")


async def test_many_go_in_one_tick_and_each_is_told_as_a_persons_delete_is(desk: Desk) -> None:
    chats = [(await _chat(desk)).id for _ in range(45)]
    desk.clock.advance(DAY)
    finished = await _task(desk, "done")
    ref = await desk.do(lambda uow: tasks.get(uow, desk.admin, "OT-1"))
    desk.clock.advance(31 * DAY)
    kept = await _chat(desk)

    with desk.storage._live.subscribe() as events:
        await Ticks(desk.storage, desk.clock, RetryPolicy(), kept=KEPT).prune()
        told = events.waiting()

    assert [each for each in told if isinstance(each, TaskDeleted)] == [
        TaskDeleted(conversation_id=finished, task_id=ref.id, ref="OT-1", readers=None),
    ]
    deleted = [each.conversation_id for each in told if isinstance(each, ConversationDeleted)]
    assert sorted(deleted) == sorted([*chats, finished])
    assert await _there(desk, kept.id)
