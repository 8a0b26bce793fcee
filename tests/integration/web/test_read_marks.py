"""How far people have read: over HTTP, told to their own pages only, in both databases."""

import asyncio
from typing import Any

from core import tasks
from core.errors import ModelRefused
from core.events import ConversationRead
from core.models import Conversation
from tests.databases import on_both
from tests.fakes import Gate
from tests.integration.conftest import Start
from tests.integration.web.conftest import Site, site_of
from tests.web_client import client

new_database = on_both


async def read(site: Site, conversation: Conversation, seq: Any) -> int:
    """The answer's status."""
    return (await site.client.put(f"/api/conversations/{conversation.id}/read", json={"seq": seq})).status_code


async def marks(site: Site, conversation: Conversation) -> tuple[int, int | None]:
    """`last_seq` and `read_seq`, which the list, the conversation and a change of it tell alike."""
    place = f"/api/conversations/{conversation.id}"
    listed = (await site.client.get("/api/conversations")).json()["conversations"]
    about = [each for each in listed if each["id"] == str(conversation.id)]
    about += [(await site.client.get(place)).json(), (await site.client.patch(place, json={})).json()]
    found = {(each["last_seq"], each["read_seq"]) for each in about}
    assert len(found) == 1
    return found.pop()


async def test_a_mark_goes_on_and_never_back_nor_beyond_what_there_is(site: Site) -> None:
    chat = await site.world.chat(title="Groceries")
    never = await marks(site, chat)
    opened = (await read(site, chat, 0), await marks(site, chat))
    for text in ("one", "two", "three"):
        await site.world.note(chat.id, text)
    unread = await marks(site, chat)
    further = (await read(site, chat, 2), await marks(site, chat))
    back = (await read(site, chat, 1), await marks(site, chat))
    beyond = (await read(site, chat, 2**31 - 1), await marks(site, chat))
    await site.world.note(chat.id, "four")

    assert (never, opened) == ((0, None), (204, (0, 0)))
    assert (unread, further, back, beyond) == ((3, 0), (204, (3, 2)), (204, (3, 2)), (204, (3, 3)))
    assert await marks(site, chat) == (4, 3)


async def test_everybody_has_a_mark_of_their_own(site: Site) -> None:
    kim = await site.world.user("kim")
    task = await site.world.task("Shared")
    await site.world.note(task.conversation_id, "Hello")
    async with site.calling(kim) as calling:
        assert (await calling.put(f"/api/conversations/{task.conversation_id}/read", json={"seq": 1})).status_code == 204
        theirs = (await calling.get(f"/api/conversations/{task.conversation_id}")).json()["read_seq"]
    ours = (await site.client.get(f"/api/conversations/{task.conversation_id}")).json()["read_seq"]

    assert (theirs, ours) == (1, None)


async def test_last_seq_is_the_newest_finished_message_that_was_not_deleted(site: Site) -> None:
    chat = await site.world.chat(title="Groceries")
    await site.world.note(chat.id, "one")
    await site.world.post(chat.id, "two")  # its answer is to come
    waiting = await marks(site, chat)
    async with site.world.working():
        await site.world.ask(chat.id, "three")
    answered = await marks(site, chat)
    note = await site.world.note(chat.id, "four")
    noted = await marks(site, chat)
    await site.world.delete(note.message_id)

    assert (waiting, answered, noted) == ((1, None), (5, None), (6, None))
    assert await marks(site, chat) == (5, None)
    counted = (await site.client.get("/api/conversations")).json()["conversations"][0]["message_count"]
    await site.world.edit((await site.world.note(chat.id, "six")).message_id, "seven")
    assert (counted, (await site.client.get("/api/conversations")).json()["conversations"][0]["message_count"]) == (5, 6)


async def test_what_is_said_while_a_reply_is_written_does_not_hide_the_reply(site: Site) -> None:
    chat, gate = await site.world.chat(title="Groceries"), Gate()
    site.world.model.will("Milk", gate, " it is.")
    async with site.world.working():
        posted = await site.world.post(chat.id, "What?")
        await gate.reached()
        await site.world.note(chat.id, "Soon, please.")
        await read(site, chat, 3)
        meanwhile = await marks(site, chat)
        gate.open()
        await site.world.ended(posted)

    assert (meanwhile, await marks(site, chat)) == ((0, 0), (3, 0))
    assert (await read(site, chat, 3), await marks(site, chat)) == (204, (3, 3))


async def test_a_reply_that_is_not_finished_cannot_be_read(site: Site) -> None:
    chat, gate = await site.world.chat(title="Groceries"), Gate()
    await site.world.note(chat.id, "Hello")
    site.world.model.will("Milk", gate, " it is.")
    async with site.world.working():
        posted = await site.world.post(chat.id, "What?")
        await gate.reached()
        await read(site, chat, 3)
        meanwhile = await marks(site, chat)
        gate.open()
        await site.world.ended(posted)

    assert (meanwhile, await marks(site, chat)) == ((1, 1), (3, 1))


async def test_a_failed_reply_that_was_read_is_unread_when_it_is_written_anew(site: Site) -> None:
    world, kim = site.world, await site.world.user("kim")
    task = await world.task("Groceries")
    chat = await _conversation(site, task.conversation_id)
    world.model.will(ModelRefused("No.", reason="BAD_REQUEST"))
    async with world.working():
        posted = await world.post(chat.id, "What?")
        await world.ended(posted)
        await world.note(chat.id, "Well.")
        async with site.calling(kim) as calling:
            await calling.put(f"/api/conversations/{chat.id}/read", json={"seq": 1})
            await read(site, chat, 3)
            seen = await marks(site, chat)
            async with client(site.url, await site.token(world.admin)) as page, client(site.url, await site.token(kim)) as other:
                shown, theirs = [await each.join("conversations") for each in (page, other)]
                await world.retry(posted)
                await page.until(lambda: shown.events("conversation_read")[-1:] == [{"id": str(chat.id), "seq": 1}])
                assert (await world.ended(posted)).content == "OK."
                await other.until(lambda: theirs.things[str(chat.id)]["last_seq"] == 3)
            their_mark = (await calling.get(f"/api/conversations/{chat.id}")).json()["read_seq"]

    assert (seen, await marks(site, chat), their_mark) == ((3, 3), (3, 1), 1)
    assert all(told["seq"] == 1 for told in theirs.events("conversation_read"))  # at most what they read themselves


async def test_a_wrong_mark_is_refused(site: Site) -> None:
    chat = await site.world.chat()
    for body in ({}, {"seq": -1}, {"seq": 2**31}, {"seq": "1"}, {"seq": True}, {"seq": None}, {"seq": 1, "else": 2}):
        answer = await site.client.put(f"/api/conversations/{chat.id}/read", json=body)
        assert (answer.status_code, answer.json()["error_code"]) == (400, "VALIDATION_ERROR"), body
    async with site.calling(site.world.admin, scopes=frozenset({"tasks:read"})) as unable:
        assert (await unable.put(f"/api/conversations/{chat.id}/read", json={"seq": 0})).status_code == 401


async def test_marks_that_come_at_once_leave_the_furthest(site: Site) -> None:
    chat = await site.world.chat()
    for number in range(10):
        await site.world.note(chat.id, f"{number}")

    statuses = await asyncio.gather(*(read(site, chat, seq) for seq in (3, 10, 1, 7, 9, 2)))

    assert statuses == [204] * 6
    assert await marks(site, chat) == (10, 10)


async def test_a_mark_goes_with_its_conversation(site: Site) -> None:
    task = await site.world.task("Buy milk")
    (chat,) = await site.world.read(lambda uow: uow.conversations.of_ids([task.conversation_id]))
    await read(site, chat, 0)
    admin = site.world.admin
    assert await site.world.read(lambda uow: uow.read_marks.of_user(admin.user_id, [chat.id])) == {chat.id: 0}

    await site.world.write(lambda uow: tasks.delete(uow, admin, task.ref))

    assert await site.world.read(lambda uow: uow.read_marks.of_user(admin.user_id, [chat.id])) == {}


async def test_only_a_persons_own_pages_hear_how_far_they_read(site: Site) -> None:
    kim = await site.world.user("kim")
    task = await site.world.task("Shared")
    chat, topic = await _conversation(site, task.conversation_id), "conversations"
    for text in ("one", "two"):
        await site.world.note(chat.id, text)
    async with (
        client(site.url, await site.token(site.world.admin)) as page,
        client(site.url, await site.token(site.world.admin)) as other_page,
        client(site.url, await site.token(kim)) as stranger,
    ):
        shown = [await each.join(topic) for each in (page, other_page, stranger)]
        inside = await stranger.join(f"conversation:{chat.id}")
        for seq in (1, 2):
            await read(site, chat, seq)
            for each, at in ((page, shown[0]), (other_page, shown[1])):
                await each.until(lambda: at.events("conversation_read")[-1:] == [{"id": str(chat.id), "seq": seq}])  # noqa: B023  # at once
        await read(site, chat, 1)
        await site.world.note(chat.id, "three")
        for each, at in zip((page, other_page, stranger), shown, strict=True):
            await each.until(lambda: [told["last_seq"] for told in at.events("conversation_changed")][-1:] == [3])  # noqa: B023  # at once

    assert [len(at.events("conversation_read")) for at in (*shown, inside)] == [2, 2, 0, 0]
    assert not any("read_seq" in told for at in shown for told in at.events("conversation_changed"))


async def test_a_mark_and_a_change_at_the_same_moment_are_both_told(site: Site) -> None:
    chat = await site.world.chat(title="Groceries")
    async with client(site.url, await site.token(site.world.admin)) as page:
        shown = await page.join("conversations")
        await asyncio.gather(site.world.note(chat.id, "one"), site.world.note(chat.id, "two"))
        await read(site, chat, 2)
        await page.until(lambda: shown.events("conversation_read") and shown.things[str(chat.id)]["last_seq"] == 2)


async def test_the_snapshot_of_a_conversation_is_for_its_reader(site: Site) -> None:
    kim = await site.world.user("kim")
    task = await site.world.task("Shared")
    chat = await _conversation(site, task.conversation_id)
    await site.world.note(chat.id, "one")
    await read(site, chat, 1)
    async with client(site.url, await site.token(site.world.admin)) as page, client(site.url, await site.token(kim)) as other:
        ours, theirs = [(await each.ask("join", f"conversation:{chat.id}"))["conversation"] for each in (page, other)]
        listed = (await page.ask("join", "conversations"))["conversations"]

    assert (ours["last_seq"], ours["read_seq"], theirs["read_seq"]) == (1, 1, None)
    assert [each["read_seq"] for each in listed] == [1]


async def test_pages_of_other_processes_hear_it_too(start: Start) -> None:
    async with start() as here, site_of(here) as site, start() as there:
        chat = await here.chat(title="Groceries")
        await here.note(chat.id, "one")
        with there.app.live.subscribe() as every, there.app.live.subscribe(chat.id) as of_conversation:
            await read(site, chat, 1)
            async with asyncio.timeout(5):
                while not isinstance(event := await every.get(), ConversationRead):
                    pass

    assert event == ConversationRead(conversation_id=chat.id, user_id=here.admin.user_id, seq=1)
    assert not [each for each in of_conversation.waiting() if isinstance(each, ConversationRead)]


async def _conversation(site: Site, conversation_id: Any) -> Conversation:
    (found,) = await site.world.read(lambda uow: uow.conversations.of_ids([conversation_id]))
    return found
