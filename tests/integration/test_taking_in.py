"""What is said on chat platforms is never refused: it is answered, or kept with the reason why it is not."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from core import conversations, messages
from core.access import Principal
from core.attachments import MAX_BYTES, Upload
from core.errors import Conflict, InvalidInput, NotFound
from core.messages import MAX_IMPORTED, MAX_KEPT, TakenIn
from core.models import ApprovalStatus, InboxKey, Message, MessageStatus, Posted, Role, TurnStatus
from tests.databases import on_both
from tests.fakes import Call, ManualClock, ScriptedModel, said
from tests.integration.conftest import Start, World

new_database = on_both
KEPT = "This message was kept; it is read together with the next one."


async def take_in(world: World, conversation: UUID, text: str, key: str, who: Principal | None = None, **fields: Any) -> TakenIn:
    fields = {"rules": world.app.rules, **fields}
    return await world.write(
        lambda uow: messages.take_in(uow, who or world.admin, conversation, text, source="slack", key=_key(key), **fields)
    )


async def import_note(world: World, conversation: UUID, text: str, key: str) -> Posted:
    return await world.write(lambda uow: messages.import_note(uow, world.admin, conversation, text, source="slack", key=_key(key)))


async def all_of(world: World, conversation: UUID) -> list[Message]:
    return await world.read(lambda uow: uow.messages.since(conversation, 0))


def _key(event: str) -> InboxKey:
    return InboxKey(source="slack", scope="T1", event_id=event)


def _unanswered(code: str, sentence: str) -> dict[str, Any]:
    return {"unanswered": {"code": code, "message": f"{sentence} {KEPT}"}}


async def test_what_wants_an_answer_gets_one(world: World) -> None:
    chat = await world.chat()
    async with world.working():
        taken = await take_in(world, chat.id, "Hello", "m1", uploads=[Upload(name="a.txt", data=b"milk")])
        assert (await world.ended(taken.posted)).content == "OK."
    message = await world.message(taken.posted.message_id)
    assert taken.unanswered == ""
    assert (message.content, message.source, message.metadata) == ("Hello", "slack", {})
    assert "milk" in said(world.model.requests[0])[0]


async def test_what_wants_no_answer_is_read_with_the_next_message(world: World) -> None:
    kim, task = await world.user("kim"), await world.task("Ours")
    read_along = await take_in(world, task.conversation_id, "The shop is closed", "m1", kim, wants_answer=False)
    async with world.working():
        await world.ended((await take_in(world, task.conversation_id, "Buy milk", "m2")).posted)
    message = await world.message(read_along.posted.message_id)
    assert (read_along.posted.reply_id, read_along.posted.turn_id, read_along.unanswered) == (None, None, "")
    assert (message.status, message.metadata) == (MessageStatus.COMPLETED, {})
    assert said(world.model.requests[0]) == ["[kim] The shop is closed", "[admin] Buy milk"]


@pytest.mark.parametrize("wants_answer", [True, False])
async def test_the_same_event_told_again_gives_what_the_first_made(world: World, wants_answer: bool) -> None:
    chat = await world.chat()
    first = await take_in(world, chat.id, "Hello", "m1", wants_answer=wants_answer)
    again = await take_in(world, chat.id, "Hello, told otherwise", "m1", wants_answer=not wants_answer)
    assert again == first
    assert [each.content for each in await all_of(world, chat.id)] == ["Hello", ""][: 1 + wants_answer]


async def test_the_sixty_first_message_of_a_minute_is_kept_and_says_why(start: Start) -> None:
    clock = ManualClock()
    async with start(clock=clock) as world:
        chats = [await world.chat() for _ in range(4)]
        for number in range(60):
            assert not (await take_in(world, chats[number // 20].id, "Hello", f"m{number}")).unanswered
            clock.advance(0.5)
        here = chats[3].id

        late = await take_in(world, here, "One more", "late")

        sentence = "More than 60 messages in a minute. Try again in 30 s."
        message = await world.message(late.posted.message_id)
        assert late.unanswered == f"{sentence} {KEPT}"
        assert (late.posted.turn_id, message.content, message.status) == (None, "One more", MessageStatus.COMPLETED)
        assert message.metadata == _unanswered("RATE_LIMITED", sentence)
        assert await take_in(world, here, "One more", "late") == late
        clock.advance(60)
        assert (await take_in(world, here, "And now", "now")).posted.turn_id
        assert await take_in(world, here, "One more", "late") == late


async def test_what_only_reads_along_is_under_no_limit(start: Start) -> None:
    async with start(clock=ManualClock()) as world:
        chat = await world.chat()
        rules = replace(world.app.rules, messages_per_minute=1, max_characters=5)
        for number in range(5):
            taken = await take_in(world, chat.id, "Among ourselves", f"m{number}", rules=rules, wants_answer=False)
            assert taken.unanswered == ""


async def test_the_twenty_first_message_that_would_wait_is_kept_and_says_why(world: World) -> None:
    chat = await world.chat()
    for number in range(20):
        await take_in(world, chat.id, "Hello", f"m{number}")
    late = await take_in(world, chat.id, "Hello?", "late")
    sentence = "20 messages here wait for an answer. Wait for one or stop some."
    assert late.unanswered == f"{sentence} {KEPT}"
    assert (await world.message(late.posted.message_id)).metadata == _unanswered("RATE_LIMITED", sentence)


async def test_a_long_message_is_kept_whole_and_says_why_it_is_not_answered(world: World) -> None:
    chat = await world.chat()
    whole, beyond = "x" * MAX_KEPT, "x" * (MAX_KEPT + 1)
    taken = [await take_in(world, chat.id, text, f"m{number}") for number, text in enumerate(["x" * 10_001, whole, beyond])]
    stored = [(await world.message(each.posted.message_id)).content for each in taken]
    sentence = "A message has at most 10,000 characters; this one has 10,001. Shorten it or attach a file."
    assert taken[0].unanswered == f"{sentence} {KEPT}"
    assert (await world.message(taken[0].posted.message_id)).metadata == _unanswered("VALIDATION_ERROR", sentence)
    assert stored[:2] == ["x" * 10_001, whole]
    assert len(stored[2]) == MAX_KEPT
    assert stored[2].endswith("x\n(The rest was left out: the message was too long to be stored.)")
    assert (await take_in(world, chat.id, "x" * 10_000, "short enough")).posted.turn_id


async def test_a_message_longer_than_the_model_can_read_does_not_keep_the_next_from_being_answered(world: World) -> None:
    world.model.window_tokens = 8_000
    chat = await world.chat()
    await take_in(world, chat.id, "x" * MAX_KEPT, "m1")
    async with world.working():
        reply = await world.ended((await take_in(world, chat.id, "Too long?", "m2")).posted)
    assert (reply.content, reply.status) == ("OK.", MessageStatus.COMPLETED)
    assert said(world.model.requests[-1]) == ["Too long?"]


async def test_nothing_at_all_is_nothing(world: World) -> None:
    chat = await world.chat()
    with pytest.raises(InvalidInput, match="empty"):
        await take_in(world, chat.id, " \n", "m1")
    assert await all_of(world, chat.id) == []


async def test_files_without_a_word_are_named(world: World) -> None:
    chat = await world.chat()
    taken = await take_in(world, chat.id, " ", "m1", uploads=[Upload(name="a.txt", data=b"a"), Upload(name="dir/b.png", data=b"b")])
    assert (await world.message(taken.posted.message_id)).content == "(a.txt, b.png)"
    assert taken.posted.turn_id


_TOO_LARGE = "The file 'big.bin' has 10.5 MB; 10.5 MB is the most."


@pytest.mark.parametrize(
    ("text", "uploads", "content"),
    [
        ("Look", [Upload(name="none.txt", data=b"")], "Look\n(The file 'none.txt' is empty.)"),
        ("", [Upload(name="none.txt", data=b"")], "(none.txt)\n(The file 'none.txt' is empty.)"),
        ("Look", [Upload(name="big.bin", data=bytes(MAX_BYTES + 1))], f"Look\n({_TOO_LARGE})"),
        (
            "Look",
            [Upload(name=f"{number}", data=b"x") for number in range(11)],
            "Look\n(The file '10' was left out: a message has at most 10.)",
        ),
    ],
    ids=["empty", "empty and nothing said", "too large", "too many"],
)
async def test_a_file_that_cannot_be_stored_is_told_in_the_text(world: World, text: str, uploads: Sequence[Upload], content: str) -> None:
    chat = await world.chat()
    taken = await take_in(world, chat.id, text, "m1", uploads=uploads)
    assert (await world.message(taken.posted.message_id)).content == content
    files = await world.read(lambda uow: uow.attachments.of_messages([taken.posted.message_id]))
    assert len(files) == min(10, len(uploads) - 1)


async def test_files_of_a_message_that_is_not_answered_are_kept_too(world: World) -> None:
    chat = await world.chat()
    taken = await take_in(world, chat.id, "Look", "m1", uploads=[Upload(name="a.txt", data=b"a")], wants_answer=False)
    files = await world.read(lambda uow: uow.attachments.of_messages([taken.posted.message_id]))
    assert [file.name for file in files] == ["a.txt"]


async def test_only_what_gets_an_answer_denies_a_tool_that_waits_for_a_word(start: Start) -> None:
    model = ScriptedModel().will("May I?", Call("delete_task", {"ref": "OT-1"})).will("I see.").will("Yes.")
    async with start(model) as world, world.working():
        here = (await world.task("Buy milk")).conversation_id
        asked = await world.post(here, "Delete it")
        await world.comes_to(asked, TurnStatus.WAITING)
        approval = await world.approval(asked)

        async def decided() -> ApprovalStatus | None:
            found = await world.read(lambda uow: uow.approvals.get(approval.id))
            return found.status if found else None

        await take_in(world, here, "What do you think, Kim?", "m1", wants_answer=False)
        await take_in(world, here, "x" * 10_001, "m2")
        assert await decided() is ApprovalStatus.OPEN
        await take_in(world, here, "No, leave it", "m3")
        assert await decided() is ApprovalStatus.DENIED


async def test_a_message_brings_an_archived_conversation_back(world: World) -> None:
    chat = await world.chat()
    await world.write(lambda uow: conversations.archive(uow, world.admin, chat.id))
    await take_in(world, chat.id, "Hello", "m1", wants_answer=False)
    found = await world.read(lambda uow: uow.conversations.find(chat.id))
    assert found
    assert found.archived_at is None


# --- who may say something ---


async def test_who_joined_a_private_conversation_reads_it_and_writes_in_it(world: World) -> None:
    kim, chat = await world.user("kim"), await world.chat()
    with pytest.raises(NotFound):
        await take_in(world, chat.id, "Hello", "m1", kim)
    await world.write(lambda uow: conversations.join(uow, kim, chat.id))
    taken = await take_in(world, chat.id, "Hello", "m1", kim)
    assert (await world.message(taken.posted.message_id)).author_id == kim.user_id


async def test_who_reads_along_already_joins_nothing(world: World) -> None:
    kim, task, chat = await world.user("kim"), await world.task("Ours"), await world.chat()
    with world.app.live.subscribe() as events:
        await world.write(lambda uow: conversations.join(uow, kim, task.conversation_id))
        await world.write(lambda uow: conversations.join(uow, world.admin, chat.id))
        assert events.waiting() == []
        await world.write(lambda uow: conversations.join(uow, kim, chat.id))
        assert len(events.waiting()) == 1
        await world.write(lambda uow: conversations.join(uow, kim, chat.id))
        assert events.waiting() == []
    assert await world.read(lambda uow: uow.conversations.members_of([task.conversation_id, chat.id])) == {
        chat.id: frozenset({kim.user_id})
    }


async def test_nobody_joins_what_is_not_there(world: World) -> None:
    with pytest.raises(NotFound):
        await world.write(lambda uow: conversations.join(uow, world.admin, world.admin.user_id))


# --- imported ---


async def test_an_imported_thread_is_read_with_the_next_message(start: Start) -> None:
    async with start(clock=ManualClock()) as world:
        chat = await world.chat()
        rules = replace(world.app.rules, messages_per_minute=2)
        noted = [await import_note(world, chat.id, "ann: Who buys milk?", f"thread {number}") for number in (1, 1, 2)]
        asked = await take_in(world, chat.id, "And?", "m1", rules=replace(rules, messages_per_minute=3))
        async with world.working():
            await world.ended(asked.posted)
        assert noted[1] == noted[0]
        assert said(world.model.requests[0]) == ["ann: Who buys milk?", "ann: Who buys milk?", "And?"]


async def test_of_a_long_imported_thread_the_end_is_kept(world: World) -> None:
    chat = await world.chat()
    whole = await import_note(world, chat.id, "y" * MAX_IMPORTED, "t1")
    cut = await import_note(world, chat.id, "x" * MAX_IMPORTED + "the end", "t2")
    content = (await world.message(cut.message_id)).content
    assert (await world.message(whole.message_id)).content == "y" * MAX_IMPORTED
    assert len(content) == MAX_IMPORTED
    assert content.endswith("xthe end")


# --- edited and deleted ---


async def test_a_message_without_an_answer_can_be_edited_and_deleted(world: World) -> None:
    chat = await world.chat()
    taken = await take_in(world, chat.id, "Helo", "m1", wants_answer=False)
    edited = await world.edit(taken.posted.message_id, "Hello")
    assert (edited.content, edited.edited_at is not None, edited.revision) == ("Hello", True, 2)
    deleted = await world.delete(taken.posted.message_id)
    assert (deleted.content, deleted.revision) == ("", 3)


async def test_an_edit_on_a_platform_is_taken_however_long_it_is(world: World) -> None:
    chat = await world.chat()
    taken = await take_in(world, chat.id, "Hello", "m1", uploads=[Upload(name="a.txt", data=b"a")])

    async def edit(text: str) -> str:
        return (await world.write(lambda uow: messages.take_in_edit(uow, world.admin, taken.posted.message_id, text))).content

    assert await edit("x" * 50_000) == "x" * 50_000
    assert len(await edit("x" * 150_000)) == MAX_KEPT
    assert await edit("") == "(a.txt)"
    with pytest.raises(InvalidInput):
        await world.edit(taken.posted.message_id, "x" * 10_001)


async def test_an_edit_on_a_platform_is_the_authors_only(world: World) -> None:
    kim, task = await world.user("kim"), await world.task("Ours")
    taken = await take_in(world, task.conversation_id, "Hello", "m1")
    with pytest.raises(Conflict, match="Only the person who wrote"):
        await world.write(lambda uow: messages.take_in_edit(uow, kim, taken.posted.message_id, "Bye"))
    assert [each.role for each in await all_of(world, task.conversation_id)] == [Role.USER, Role.ASSISTANT]
