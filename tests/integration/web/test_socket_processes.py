"""Two Onethreads on one database, each with its own server: who is connected to one sees what is done at the other."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from core import conversations
from core.access import Principal
from tests.databases import NewDatabase, on_both
from tests.fakes import Gate
from tests.integration.conftest import onethread
from tests.integration.web.conftest import Site, site_of
from tests.web_client import Client, client

new_database = on_both


@dataclass(frozen=True, slots=True)
class Two:
    here: Site
    there: Site

    @asynccontextmanager
    async def pages(self, who: Principal) -> AsyncIterator[tuple[Client, Client]]:
        """One at each, of the same person."""
        token = await self.here.token(who)
        async with client(self.here.url, token) as here, client(self.there.url, token) as there:
            yield here, there


@pytest.fixture
async def two(tmp_path: Path, new_database: NewDatabase) -> AsyncIterator[Two]:
    async with new_database() as url:
        address = url.render_as_string(hide_password=False)
        async with (
            onethread(tmp_path, database=address) as one,
            onethread(tmp_path, database=address) as other,
            site_of(one) as here,
            site_of(other) as there,
        ):
            yield Two(here, there)


async def test_a_reply_that_is_written_here_is_followed_there(two: Two) -> None:
    gate = Gate()
    two.here.world.model.will("One ", "🥛 two", gate, " three")
    kim = await two.here.world.user("kim")
    topic = f"conversation:{(await two.here.world.chat(kim)).id}"
    async with two.here.world.working(), two.pages(kim) as (here, there):
        near, far = await here.join(topic), await there.join(topic)
        posted = await there.say(topic, "Count")
        await here.shows(near, posted["reply_id"], "One 🥛 two")
        await there.shows(far, posted["reply_id"], "One 🥛 two")
        gate.open()
        await there.until(lambda: far.ended(posted["reply_id"]))

    assert far.texts[posted["reply_id"]] == "One 🥛 two three"
    assert {message["content"] for message in near.messages.values()} >= {"Count"}


async def test_the_same_client_id_at_both_makes_one_message(two: Two) -> None:
    kim = await two.here.world.user("kim")
    topic = f"conversation:{(await two.here.world.chat(kim)).id}"
    async with two.pages(kim) as (here, there):
        for page in (here, there):
            await page.join(topic)
        asked = {"content": "Once", "client_id": "one"}
        assert await here.ask("send_message", topic, asked) == await there.ask("send_message", topic, asked)


async def test_lists_are_told_of_what_the_other_did_deletions_too(two: Two) -> None:
    kim = await two.here.world.user("kim")
    world = two.here.world
    async with two.pages(kim) as (_, there), client(two.there.url, await two.here.token(world.admin)) as stranger:
        shown, strange = await there.join("conversations"), await stranger.join("conversations")
        chat = await world.chat(kim, title="Private")
        lee = await world.user("lee")
        await world.write(lambda uow: uow.conversations.add_member(chat.id, lee.user_id))
        await world.post(chat.id, "Hello", kim)
        await there.until(lambda: shown.things.get(str(chat.id), {}).get("message_count") == 2)
        await world.write(lambda uow: conversations.delete(uow, kim, chat.id))
        await there.until(lambda: shown.events("conversation_deleted"))
        board = await there.join("tasks")
        task = await world.task("Shared", assignee="kim")
        await there.until(lambda: board.things.get(str(task.id), {}).get("assignee") == "kim")
        await stranger.until(lambda: str(task.conversation_id) in strange.things)

    assert strange.events("conversation_deleted") == []
