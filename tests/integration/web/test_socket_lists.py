"""The topics `tasks` and `conversations`: the first page, then what changes, for those who may see it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from core import conversations, frames, tasks
from core.access import Principal
from core.errors import StorageUnavailable
from core.events import ConversationDeleted, Lagged, TaskDeleted
from core.ids import new_id
from core.models import Conversation
from core.ports import UnitOfWork
from tests.integration.web.conftest import Site
from tests.web_client import Client, client


@asynccontextmanager
async def talking(site: Site, who: Principal | None = None) -> AsyncIterator[Client]:
    async with client(site.url, await site.token(who or site.world.admin)) as found:
        yield found


async def delete(site: Site, conversation: Conversation, who: Principal) -> None:
    await site.world.write(lambda uow: conversations.delete(uow, who, conversation.id))


async def test_the_first_page_is_that_of_the_http_api(site: Site) -> None:
    await site.world.task("Buy milk", assignee="admin", labels=["shop"])
    await site.world.chat(title="Groceries")
    async with talking(site) as page:
        both = {name: await page.ask("join", name) for name in ("tasks", "conversations")}

    for name, first in both.items():
        assert first == (await site.client.get(f"/api/{name}?limit=50")).json()


async def test_a_new_a_changed_and_a_deleted_task_are_told(site: Site) -> None:
    async with talking(site) as page:
        shown = await page.join("tasks")
        task = await site.world.task("Buy milk")
        await page.until(lambda: str(task.id) in shown.things)
        await site.world.write(lambda uow: tasks.update(uow, site.world.admin, "OT-1", {"status": "done"}))
        await page.until(lambda: shown.things[str(task.id)]["status"] == "done")
        assert shown.things[str(task.id)] == (await site.client.get("/api/tasks/OT-1")).json()
        await site.world.write(lambda uow: tasks.delete(uow, site.world.admin, "OT-1"))
        await page.until(lambda: str(task.id) not in shown.things)

    assert shown.events("task_deleted") == [{"id": str(task.id), "ref": "OT-1"}]


async def test_the_agents_status_and_the_number_of_messages_are_told(site: Site) -> None:
    task = await site.world.task("Buy milk")
    async with site.world.working(), talking(site) as page:
        board, talks = await page.join("tasks"), await page.join("conversations")
        await site.world.ask(task.conversation_id, "Hello")
        await page.until(lambda: talks.things[str(task.conversation_id)]["message_count"] == 2)
        await page.until(lambda: board.events("task_changed") and board.things[str(task.id)]["agent_status"] == "idle")
        posted = await site.world.note(task.conversation_id, "And eggs")
        await page.until(lambda: talks.things[str(task.conversation_id)]["message_count"] == 3)
        await site.world.delete(posted.message_id)
        await page.until(lambda: talks.things[str(task.conversation_id)]["message_count"] == 2)

    assert {task["agent_status"] for task in board.events("task_changed")} <= {"thinking", "idle"}


async def test_nobody_hears_of_what_they_may_not_see_and_everybody_of_what_is_shared(site: Site) -> None:
    world = site.world
    kim, lee = await world.user("kim"), await world.user("lee")
    chat = await world.chat(kim, title="Private")
    await world.write(lambda uow: uow.conversations.add_member(chat.id, lee.user_id))
    async with talking(site, kim) as of_owner, talking(site, lee) as of_member, talking(site) as of_stranger:
        owner, member, stranger = [await page.join("conversations") for page in (of_owner, of_member, of_stranger)]
        assert (str(chat.id) in owner.things, str(chat.id) in member.things, str(chat.id) in stranger.things) == (True, True, False)
        await world.write(lambda uow: conversations.rename(uow, kim, chat.id, "Still private"))
        await of_owner.until(lambda: owner.things[str(chat.id)]["title"] == "Still private")
        await of_member.until(lambda: member.things[str(chat.id)]["title"] == "Still private")
        await delete(site, chat, kim)
        await of_owner.until(lambda: owner.events("conversation_deleted"))
        await of_member.until(lambda: member.events("conversation_deleted"))
        task = await world.task("Shared", kim)
        await of_stranger.until(lambda: str(task.conversation_id) in stranger.things)

    assert {frame["event"] for frame in stranger.frames} == {"snapshot", "conversation_changed"}
    assert {each["id"] for each in stranger.events("conversation_changed")} == {str(task.conversation_id)}


async def test_a_private_task_is_told_to_its_readers_only(site: Site) -> None:
    world = site.world
    kim = await world.user("kim")
    task = await world.task("Secret", kim)
    await world.write(lambda uow: uow.conversations.update(task.conversation_id, visibility="private"))
    async with talking(site, kim) as of_owner, talking(site) as of_stranger:
        owner, stranger = await of_owner.join("tasks"), await of_stranger.join("tasks")
        await world.write(lambda uow: tasks.update(uow, kim, "OT-1", {"status": "done"}))
        await of_owner.until(lambda: owner.events("task_changed"))
        await world.write(lambda uow: tasks.delete(uow, kim, "OT-1"))
        await of_owner.until(lambda: owner.events("task_deleted"))
        await world.task("Open")
        await of_stranger.until(lambda: stranger.events("task_changed"))

    assert stranger.events("task_deleted") == []
    assert [each["ref"] for each in stranger.events("task_changed")] == ["OT-2"]


async def test_several_changes_within_a_short_time_are_told_as_one(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = 0
    read = frames.tasks_json

    async def counted(uow: UnitOfWork, found: Any) -> Any:
        nonlocal reads
        reads += 1
        return await read(uow, found)

    async with talking(site) as page, talking(site) as other:
        shown, also = await page.join("tasks"), await other.join("tasks")
        monkeypatch.setattr("core.lists.tasks_json", counted)
        await site.world.task("First")
        await page.until(lambda: shown.events("task_changed"))
        for number in range(20):
            title = {"title": f"No. {number}"}
            await site.world.write(lambda uow: tasks.update(uow, site.world.admin, "OT-1", title))  # noqa: B023  # called at once
        await page.until(lambda: shown.events("task_changed")[-1]["title"] == "No. 19")
        await other.until(lambda: also.events("task_changed")[-1]["title"] == "No. 19")

    assert len(shown.events("task_changed")) < 10
    assert reads == len(shown.events("task_changed"))


async def test_who_missed_changes_gets_the_first_page_again(site: Site) -> None:
    async with talking(site) as page:
        shown = await page.join("tasks")
        site.world.app.live.publish(Lagged())
        await page.until(lambda: len(shown.events("snapshot")) == 2)
        many = [TaskDeleted(conversation_id=new_id(), task_id=new_id(), ref=f"OT-{number}", readers=None) for number in range(300)]
        site.world.app.live.publish(*many)
        await page.until(lambda: len(shown.events("snapshot")) == 3)
    assert shown.events("task_deleted") == []


async def test_a_database_that_was_away_is_read_anew(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = asyncio.Event()

    @asynccontextmanager
    async def away() -> AsyncIterator[UnitOfWork]:
        refused.set()
        raise StorageUnavailable("The database is away.")
        yield

    async with talking(site) as page:
        shown = await page.join("tasks")
        with monkeypatch.context() as patch:
            patch.setattr(site.world.app.storage, "read", away)
            task = await site.world.task("Buy milk")
            async with asyncio.timeout(5):
                await refused.wait()
        await page.until(lambda: str(task.id) in shown.things)


async def test_a_defect_is_survived(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.socket._RESTART_SECONDS", 0.01)
    broke = asyncio.Event()

    async def broken(*_: Any) -> Any:
        broke.set()
        raise ValueError

    async with talking(site) as page:
        shown = await page.join("tasks")
        with monkeypatch.context() as patch:
            patch.setattr("core.lists.tasks_json", broken)
            task = await site.world.task("Buy milk")
            async with asyncio.timeout(5):
                await broke.wait()
        await page.until(lambda: str(task.id) in shown.things)


async def test_an_id_that_only_readers_know_reaches_only_them(site: Site) -> None:
    kim = await site.world.user("kim")
    gone = new_id()
    async with talking(site, kim) as page, talking(site) as other:
        shown, strange = await page.join("conversations"), await other.join("conversations")
        site.world.app.live.publish(ConversationDeleted(conversation_id=gone, readers=(kim.user_id,)))
        await page.until(lambda: shown.events("conversation_deleted") == [{"id": str(gone)}])
        site.world.app.live.publish(ConversationDeleted(conversation_id=new_id(), readers=None))
        await other.until(lambda: len(strange.events("conversation_deleted")) == 1)
    assert strange.events("conversation_deleted") != [{"id": str(gone)}]
