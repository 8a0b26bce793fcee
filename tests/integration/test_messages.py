"""What people do with messages: post, answer, retry, edit, delete; and what they are refused."""

import pytest

from core import conversations, projects, tasks
from core.attachments import Upload
from core.errors import Conflict, InvalidInput, NotFound, RateLimited
from core.messages import PostingRules
from core.models import AgentStatus, InboxKey, MessageStatus, Role, TurnStatus
from tests.databases import on_both
from tests.fakes import Call, Gate, ManualClock, ScriptedModel, said
from tests.integration.conftest import MODEL, Start, World

new_database = on_both


async def test_a_post_stores_the_message_and_a_pending_reply_without_asking_the_model(world: World) -> None:
    chat = await world.chat()

    posted = await world.post(chat.id, "Hello")

    message, reply, turn = await world.message(posted.message_id), await world.reply(posted), await world.turn(posted)
    assert (message.content, message.role, message.status, message.seq) == ("Hello", Role.USER, MessageStatus.PENDING, 1)
    assert (reply.content, reply.role, reply.status, reply.seq) == ("", Role.ASSISTANT, MessageStatus.PENDING, 2)
    assert (turn.status, turn.user_message_id, turn.reply_id) == (TurnStatus.QUEUED, message.id, reply.id)
    assert world.model.calls == 0


async def test_the_message_is_stored_before_the_model_is_called(world: World) -> None:
    gate = Gate()
    world.model.will(gate, "Hi.")
    chat = await world.chat()
    async with world.working():
        posted = await world.post(chat.id, "Hello")
        await gate.reached()

        assert (await world.message(posted.message_id)).content == "Hello"
        assert (await world.message(posted.message_id)).status is MessageStatus.PROCESSING
        gate.open()
        assert (await world.ended(posted)).content == "Hi."


async def test_two_quick_messages_are_answered_one_after_the_other_in_order(world: World) -> None:
    first_gate = Gate()
    world.model.will(first_gate, "one").will("two")
    chat = await world.chat()
    async with world.working():
        first, second = await world.post(chat.id, "First"), await world.post(chat.id, "Second")
        await first_gate.reached()
        assert (await world.turn(second)).status is TurnStatus.QUEUED
        assert world.model.calls == 1
        first_gate.open()

        assert (await world.ended(second)).content == "two"
        assert (await world.reply(first)).content == "one"
    assert said(world.model.requests[0]) == ["First"]
    assert said(world.model.requests[1]) == ["First", "Second"]


async def test_the_same_key_posts_once(world: World) -> None:
    chat = await world.chat()
    key = InboxKey(source="api", scope=str(world.admin.user_id), event_id="k1")

    first = await world.post(chat.id, "Hello", key=key)
    again = await world.post(chat.id, "Hello", key=key)

    assert again == first
    assert len(await world.read(lambda uow: uow.messages.since(chat.id, 0))) == 2


@pytest.mark.parametrize("other", ["text", "file", "conversation"])
async def test_the_same_key_for_something_else_is_a_conflict(world: World, other: str) -> None:
    chat, elsewhere = await world.chat(), await world.chat()
    key = InboxKey(source="api", scope=str(world.admin.user_id), event_id="k1")
    await world.post(chat.id, "Hello", key=key)

    with pytest.raises(Conflict, match="used before"):
        await world.post(
            elsewhere.id if other == "conversation" else chat.id,
            "Hello!" if other == "text" else "Hello",
            key=key,
            uploads=[Upload(name="a", data=b"a")] if other == "file" else [],
        )
    assert len(await world.read(lambda uow: uow.messages.since(chat.id, 0))) == 2
    assert await world.read(lambda uow: uow.messages.since(elsewhere.id, 0)) == []


async def test_equal_keys_of_two_users_never_meet(world: World) -> None:
    kim = await world.user("kim")
    task = await world.task("Ours")

    posts = [
        await world.post(task.conversation_id, "Hello", who, key=InboxKey(source="api", scope=str(who.user_id), event_id="k1"))
        for who in (world.admin, kim)
    ]

    assert posts[0].message_id != posts[1].message_id


@pytest.mark.parametrize("blank", ["", " ", "\n\t ", "\u3000"])
async def test_a_blank_message_is_refused(world: World, blank: str) -> None:
    chat = await world.chat()

    with pytest.raises(InvalidInput, match="empty"):
        await world.post(chat.id, blank)


async def test_a_message_has_at_most_10000_characters(world: World) -> None:
    chat = await world.chat()

    posted = await world.post(chat.id, "🥛" * 10_000)
    assert (await world.message(posted.message_id)).content == "🥛" * 10_000
    with pytest.raises(InvalidInput, match="10,000 characters; this one has 10,001"):
        await world.post(chat.id, "x" * 10_001)


async def test_what_no_database_can_hold_is_replaced(world: World) -> None:
    chat = await world.chat()

    posted = await world.post(chat.id, "a\x00b\ud83ec\ud83e\udd5b")

    assert (await world.message(posted.message_id)).content == "a\ufffdb\ufffdc🥛"


async def test_sixty_messages_a_minute_then_the_user_waits(start: Start) -> None:
    clock = ManualClock()
    async with start(clock=clock) as world:
        kim = await world.user("kim")
        chats = [await world.chat() for _ in range(4)]
        for number in range(60):
            await world.post(chats[number // 20].id, "Hello")
            clock.advance(0.5)
        # the first was 30 s ago
        with pytest.raises(RateLimited) as refused:
            await world.post(chats[3].id, "One more")
        assert refused.value.retry_after == 30.0
        assert await world.read(lambda uow: uow.messages.since(chats[3].id, 0)) == []
        await world.post((await world.chat(kim)).id, "I have not said anything yet", kim)

        clock.advance(29.9)
        with pytest.raises(RateLimited):
            await world.post(chats[3].id, "One more")
        clock.advance(0.1)
        await world.post(chats[3].id, "One more")


async def test_a_repeated_key_does_not_count_as_a_message(start: Start) -> None:
    async with start(clock=ManualClock()) as world:
        chat = await world.chat()
        rules = PostingRules(default_model=MODEL, messages_per_minute=2)
        key = InboxKey(source="api", scope=str(world.admin.user_id), event_id="k1")
        for _ in range(5):
            await world.post(chat.id, "Hello", key=key, rules=rules)

        await world.post(chat.id, "Second", rules=rules)
        with pytest.raises(RateLimited):
            await world.post(chat.id, "Third", rules=rules)


async def test_twenty_messages_of_a_conversation_may_wait_for_an_answer(world: World) -> None:
    chat = await world.chat()
    for _ in range(20):
        await world.post(chat.id, "Hello")

    with pytest.raises(RateLimited, match="20 messages here wait"):
        await world.post(chat.id, "Hello")
    await world.post((await world.chat()).id, "Elsewhere it is accepted")


async def test_the_model_comes_from_the_post_the_conversation_the_project_or_the_settings(world: World) -> None:
    async def used(model: str | None = None) -> str:
        posted = await world.post(chat.id, "Hello", model=model)
        return (await world.turn(posted)).model

    chat = await world.chat()
    assert await used() == MODEL
    await world.write(lambda uow: projects.edit(uow, world.admin, "OT", {"model": "of/project"}))
    assert await used() == "of/project"
    await world.write(lambda uow: conversations.set_model(uow, world.admin, chat.id, "of/conversation"))
    assert await used() == "of/conversation"
    assert await used(model="of/message") == "of/message"
    await world.write(lambda uow: conversations.set_model(uow, world.admin, chat.id, None))
    assert await used() == "of/project"


async def test_a_conversation_is_named_after_its_first_message(world: World) -> None:
    chat, named = await world.chat(), await world.chat(title="Mine")
    for each in (chat, named):
        await world.post(each.id, "  Buy milk\nand " + "bread " * 40)
        await world.post(each.id, "Something else")

    page = await world.read(lambda uow: conversations.page(uow, world.admin))
    titles = [next(each.title for each in page.conversations if each.id == wanted.id) for wanted in (chat, named)]
    assert titles[0].startswith("Buy milk and bread bread")
    assert titles[0].endswith("…")
    assert len(titles[0]) <= 80
    assert titles[1] == "Mine"


async def test_a_note_is_stored_for_the_next_answer_but_not_answered_itself(world: World) -> None:
    chat = await world.chat()
    note = await world.note(chat.id, "By the way")
    assert (note.turn_id, note.reply_id) == (None, None)
    async with world.working():
        await world.ask(chat.id, "Hello")

    assert (await world.message(note.message_id)).status is MessageStatus.COMPLETED
    assert [said(request) for request in world.model.requests] == [["By the way", "Hello"]]


# --- retry ---


async def test_a_failed_last_message_is_retried_in_place(world: World) -> None:
    chat = await world.chat()
    posted = await world.post(chat.id, "Hello")
    await world.cancel(posted)

    again = await world.retry(posted)

    assert again == posted
    async with world.working():
        assert (await world.ended(posted)).content == "OK."
    assert len(await world.read(lambda uow: uow.messages.since(chat.id, 0))) == 2


async def test_an_earlier_message_is_retried_by_posting_it_anew_with_its_files(world: World) -> None:
    chat = await world.chat()
    first = await world.post(chat.id, "First", uploads=[Upload(name="a.txt", data=b"inside")])
    await world.cancel(first)
    await world.post(chat.id, "Second")

    again = await world.retry(first)

    assert again.message_id != first.message_id
    copy = await world.message(again.message_id)
    assert (copy.content, copy.seq) == ("First", 5)
    files = await world.read(lambda uow: uow.attachments.of_messages([copy.id]))
    assert [each.name for each in files] == ["a.txt"]
    assert (await world.turn(first)).status is TurnStatus.CANCELLED


async def test_an_earlier_message_is_posted_anew_once_however_often_it_is_retried(world: World) -> None:
    chat = await world.chat()
    first = await world.post(chat.id, "First")
    await world.cancel(first)
    await world.post(chat.id, "Second")

    again = [await world.retry(first) for _ in range(3)]

    assert again == again[:1] * 3
    assert [each.content for each in await world.read(lambda uow: uow.messages.since(chat.id, 0)) if each.author_id] == [
        "First",
        "Second",
        "First",
    ]


async def test_an_earlier_message_that_was_edited_can_be_retried_again(world: World) -> None:
    chat = await world.chat()
    first = await world.post(chat.id, "Frist")
    await world.cancel(first)
    await world.post(chat.id, "Second")
    await world.retry(first)
    await world.edit(first.message_id, "First")

    again = await world.retry(first)

    assert (await world.message(again.message_id)).content == "First"


async def test_only_what_failed_or_was_stopped_can_be_retried(world: World) -> None:
    chat = await world.chat()
    posted = await world.post(chat.id, "Hello")

    with pytest.raises(Conflict, match="queued"):
        await world.retry(posted)


async def test_retrying_a_message_that_never_began_leaves_the_status_of_the_running_one_alone(world: World) -> None:
    gate = Gate()
    world.model.will(gate)
    chat = await world.chat()
    async with world.working():
        await world.post(chat.id, "First")
        await gate.reached()
        second = await world.post(chat.id, "Second")
        await world.cancel(second)
        assert (await world.agent_status(chat.id))[0] is AgentStatus.THINKING

        await world.retry(second)

        assert (await world.agent_status(chat.id))[0] is AgentStatus.THINKING
        gate.open()


async def test_a_retry_brings_a_deleted_reply_back(world: World) -> None:
    chat = await world.chat()
    posted = await world.post(chat.id, "Hello")
    await world.delete(posted.reply_id)
    await world.retry(posted)
    async with world.working():
        reply = await world.ended(posted)

    assert (reply.content, reply.deleted_at) == ("OK.", None)


# --- edit and delete ---


async def test_a_message_edited_before_its_turn_begins_is_answered_as_edited(world: World) -> None:
    chat = await world.chat()
    posted = await world.post(chat.id, "Helo")
    edited = await world.edit(posted.message_id, "Hello")
    async with world.working():
        await world.ended(posted)

    assert edited.edited_at is None
    assert said(world.model.requests[0]) == ["Hello"]


async def test_a_message_edited_after_its_turn_began_is_only_marked(world: World) -> None:
    gate = Gate()
    world.model.will(gate, "Hi.")
    chat = await world.chat()
    async with world.working():
        posted = await world.post(chat.id, "Helo")
        await gate.reached()
        edited = await world.edit(posted.message_id, "Hello")
        gate.open()
        await world.ended(posted)

    assert edited.edited_at is not None
    assert (world.model.calls, said(world.model.requests[0])) == (1, ["Helo"])


async def test_only_its_author_may_change_a_message(world: World) -> None:
    kim = await world.user("kim")
    task = await world.task("Ours")
    posted = await world.post(task.conversation_id, "Mine")

    with pytest.raises(Conflict, match="Only the person"):
        await world.edit(posted.message_id, "Yours", kim)
    with pytest.raises(Conflict, match="Only the person"):
        await world.delete(posted.message_id, kim)
    assert (await world.message(posted.message_id)).content == "Mine"


async def test_deleting_a_message_stops_its_answer_and_hides_it_from_the_model(world: World) -> None:
    gate = Gate()
    world.model.will("So far", gate, "never said")
    chat = await world.chat()
    async with world.working():
        posted = await world.post(chat.id, "Secret", uploads=[Upload(name="a.txt", data=b"secret file")])
        await gate.reached()
        await world.delete(posted.message_id)
        assert (await world.turn(posted)).status is TurnStatus.CANCELLED
        await world.ask(chat.id, "Hello")

    assert (await world.message(posted.message_id)).content == ""
    assert "ecret" not in str(world.model.requests[-1].messages)
    assert said(world.model.requests[-1]) == ["(deleted message)", "Hello"]


async def test_a_deleted_message_can_be_neither_edited_nor_retried(world: World) -> None:
    chat = await world.chat()
    posted = await world.post(chat.id, "Hello")
    await world.delete(posted.message_id)

    with pytest.raises(Conflict):
        await world.edit(posted.message_id, "Back")
    with pytest.raises(Conflict, match="deleted"):
        await world.retry(posted)


async def test_deleting_a_conversation_stops_what_runs_in_it(world: World) -> None:
    gate = Gate()
    world.model.will("So far", gate, "never said")
    chat = await world.chat()
    async with world.working():
        await world.post(chat.id, "Hello")
        await gate.reached()
        await world.write(lambda uow: conversations.delete(uow, world.admin, chat.id))

        async def stopped() -> bool:
            return world.model.open_streams == 0 and world.app.worker.running == 0

        await world.until(stopped, seconds=1)
        assert (await world.ask((await world.chat()).id, "Still there?")).content == "OK."
    with pytest.raises(NotFound):
        await world.read(lambda uow: conversations.get(uow, world.admin, chat.id))


async def test_a_tasks_conversation_goes_with_the_task_only(world: World) -> None:
    task = await world.task("Buy milk")
    posted = await world.post(task.conversation_id, "Hello")

    with pytest.raises(Conflict, match="OT-1"):
        await world.write(lambda uow: conversations.delete(uow, world.admin, task.conversation_id))
    with pytest.raises(Conflict, match="OT-1"):
        await world.write(lambda uow: conversations.rename(uow, world.admin, task.conversation_id, "New"))
    await world.write(lambda uow: tasks.delete(uow, world.admin, "ot-1"))

    assert await world.read(lambda uow: uow.messages.get(posted.message_id)) is None
    assert await world.titles() == []


# --- questions ---


async def test_the_first_answer_to_a_question_wins(world: World) -> None:
    kim = await world.user("kim")
    task = await world.task("Ours")
    world.model.will(Call("ask_user", {"question": "Red or blue?", "options": ["Red", "Blue"]}))
    async with world.working():
        reply = await world.ask(task.conversation_id, "Paint it")
        assert reply.metadata["question"] == {"text": "Red or blue?", "options": ["Red", "Blue"]}

        answered = await world.answer(reply, "Blue", kim)
        with pytest.raises(Conflict, match="kim answered this question already"):
            await world.answer(reply, "Red")
        await world.ended(answered)
    assert said(world.model.requests[-1])[-1] == "[kim] Blue"


async def test_only_a_question_can_be_answered(world: World) -> None:
    chat = await world.chat()
    async with world.working():
        reply = await world.ask(chat.id, "Hello")

    with pytest.raises(Conflict, match="asks nothing"):
        await world.answer(reply, "Red")


async def test_the_agent_goes_on_with_the_answer(start: Start) -> None:
    model = ScriptedModel().will(Call("ask_user", {"question": "Red?"})).will("Painted red.")
    async with start(model) as world:
        chat = await world.chat()
        async with world.working():
            reply = await world.ask(chat.id, "Paint it")
            answer = await world.answer(reply, "Red")
            assert (await world.ended(answer)).content == "Painted red."
        assert (await world.agent_status(chat.id)) == (AgentStatus.IDLE, "")
