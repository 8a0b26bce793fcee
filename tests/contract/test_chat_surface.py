"""The contract of every chat surface, over the one that tests use and, where its platform can be started, over real ones.

A platform takes part with a fixture that yields a `Tried`; `surface` is asked for it by its name.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bots.discord import access as discord_access
from bots.discord.client import Client, set_endpoints
from bots.discord.config import DiscordConfig
from bots.discord.surface import DiscordSurface
from bots.slack.access import signed_in, web_client
from bots.slack.config import SlackConfig
from bots.slack.surface import SlackSurface
from bots.surface import Action, Button, Call, ChatSurface, MessageGone, Part, PlaceClosed, TooLong
from core.ids import new_id
from core.models import Account, AgentStatus, ChannelKind, Place
from tests.emulators.discord import DiscordEmulator, discord
from tests.emulators.slack import SlackEmulator, slack, slack_process
from tests.fake_surface import ACCOUNT, FakeSurface, Platform

__all__ = ["discord", "slack", "slack_process"]
LONG_AGO = datetime.now(UTC) - timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A surface with a place to try it at, and how to see what is there."""

    surface: ChatSurface
    place: Place
    """With a thread that exists."""
    texts: Callable[[], Awaitable[list[str]]]
    """What people read in the place's thread, in order, its root left out."""
    reader: str
    """Somebody who reads there, by their id; nobody has the id 1."""
    label: str
    """Of the place's channel, which is open."""
    tells_alone: bool = False
    """Whether the reader can be told what nobody else there sees. They take no direct messages."""


@pytest.fixture
async def fake() -> AsyncIterator[Tried]:
    platform = Platform()
    place = Place(account=ACCOUNT, channel="C1", thread="1.0")

    async def texts() -> list[str]:
        return platform.texts()

    platform.readers["C1"].add("U1")
    platform.without_dms.add("U1")
    platform.missing.add("1")
    yield Tried(surface=FakeSurface(platform), place=place, texts=texts, reader="U1", label="#general")
    await platform.close()


@pytest.fixture
async def emulated_slack(slack: SlackEmulator) -> AsyncIterator[Tried]:
    alice, channel = await slack.person("alice"), await slack.channel()
    place = Place(account=Account(surface="slack", id=slack.team_id), channel=channel, thread=await alice.say(channel, "hello"))

    async def texts() -> list[str]:
        return [_read(message) for message in (await alice.replies(channel, place.thread))[1:]]

    config = SlackConfig(bot_token=slack.bot_token, api_url=slack.url)
    async with web_client(config) as client:
        surface = SlackSurface(config, client, await signed_in(client))
        label = f"#{(await alice.client.conversations_info(channel=channel))['channel']['name']}"
        yield Tried(surface=surface, place=place, texts=texts, reader=alice.id, label=label, tells_alone=True)


def _read(message: dict[str, Any]) -> str:
    return "".join(block["text"] for block in message.get("blocks", []) if block["type"] == "markdown")


@pytest.fixture
async def emulated_discord(discord: DiscordEmulator) -> AsyncIterator[Tried]:
    discord.limits.off()
    alice = discord.person("alice")
    alice.takes_no_dms = True
    thread = await alice.thread(discord.general, await alice.say(discord.general, "hello"), "hello")
    place = Place(account=Account(surface="discord", id=discord.bot_id), channel=discord.general, thread=thread)

    async def texts() -> list[str]:
        said = [message["content"] for message in discord.messages(thread) if message["author"]["id"] == discord.bot_id]
        return ["\n".join(line for line in text.split("\n") if not line.startswith("-# ")) for text in said]

    config = DiscordConfig(token=discord.token, api_url=discord.api_url, gateway_url=discord.gateway_url)
    set_endpoints(config)
    async with Client(config) as client:
        surface = DiscordSurface(config, client, await discord_access.signed_in(client))
        yield Tried(surface=surface, place=place, texts=texts, reader=alice.id, label="#general")


@pytest.fixture(params=["fake", "emulated_slack", "emulated_discord"])
def surface(request: pytest.FixtureRequest) -> Tried:
    tried: Tried = request.getfixturevalue(request.param)
    return tried


async def test_posts_appear_in_order(surface: Tried) -> None:
    first = await surface.surface.post(surface.place, Part(text="First"), new_id())
    second = await surface.surface.post(surface.place, Part(text="Second"), new_id())
    assert first != second
    assert await surface.texts() == ["First", "Second"]


async def test_an_edit_replaces_all_of_a_message(surface: Tried) -> None:
    stop = Button(action=Action.STOP, label="Stop", value=str(new_id()))
    nonce, half = new_id(), Part(text="Half", notes=("◐ Thinking",), buttons=(stop,), live=True)
    remote_id = await surface.surface.post(surface.place, half, nonce)
    await surface.surface.edit(surface.place, remote_id, Part(text="Whole"), nonce)
    await surface.surface.edit(surface.place, remote_id, Part(text="Whole"), nonce)
    assert await surface.texts() == ["Whole"]


async def test_a_part_with_nothing_but_a_note_is_a_message(surface: Tried) -> None:
    nonce = new_id()
    remote_id = await surface.surface.post(surface.place, Part(text="", notes=("◐ Thinking",), live=True), nonce)
    await surface.surface.edit(surface.place, remote_id, Part(text="Hello"), nonce)
    assert await surface.texts() == ["Hello"]


async def test_a_part_as_long_as_the_limit_fits(surface: Tried) -> None:
    limits = surface.surface.limits(surface.place)
    text = ("word " * limits.length)[: limits.length - 1] + "."
    assert limits.measure(text) == limits.length
    nonce = new_id()
    remote_id = await surface.surface.post(surface.place, Part(text=text), nonce)
    await surface.surface.edit(surface.place, remote_id, Part(text=text[:-1] + "!"), nonce)
    assert await surface.texts() == [text[:-1] + "!"]


async def test_a_post_is_found_by_its_nonce_and_no_other(surface: Tried) -> None:
    nonce = new_id()
    remote_id = await surface.surface.post(surface.place, Part(text="Hello"), nonce)
    other = await surface.surface.post(surface.place, Part(text="Other"), new_id())
    assert await surface.surface.find(surface.place, nonce, LONG_AGO, {other}) == [remote_id]
    assert await surface.surface.find(surface.place, new_id(), LONG_AGO, {other, remote_id}) == []


async def test_a_post_is_found_after_it_was_edited(surface: Tried) -> None:
    nonce = new_id()
    remote_id = await surface.surface.post(surface.place, Part(text="Hello"), nonce)
    await surface.surface.edit(surface.place, remote_id, Part(text="Changed"), nonce)
    assert await surface.surface.find(surface.place, nonce, LONG_AGO, ()) == [remote_id]


async def test_a_deleted_message_is_gone_and_deleting_it_again_does_nothing(surface: Tried) -> None:
    nonce = new_id()
    remote_id = await surface.surface.post(surface.place, Part(text="Hello"), nonce)
    await surface.surface.delete(surface.place, remote_id)
    await surface.surface.delete(surface.place, remote_id)
    assert await surface.texts() == []
    with pytest.raises(MessageGone):
        await surface.surface.edit(surface.place, remote_id, Part(text="Again"), nonce)


async def test_opening_a_thread_twice_gives_the_same(surface: Tried) -> None:
    channel = Place(account=surface.place.account, channel=surface.place.channel)
    root = await surface.surface.post(channel, Part(text="A card", is_card=True), new_id())
    thread = await surface.surface.open(channel, root, "OT-1 A card")
    assert await surface.surface.open(channel, root, "OT-1 A card") == thread
    inside = Place(account=channel.account, channel=channel.channel, thread=thread)
    await surface.surface.post(inside, Part(text="In the thread"), new_id())


async def test_a_thread_that_was_put_away_can_be_written_to(surface: Tried) -> None:
    if not surface.surface.makes_threads:
        return
    channel, nonce = Place(account=surface.place.account, channel=surface.place.channel), new_id()
    root = await surface.surface.post(channel, Part(text="A card", is_card=True), new_id())
    inside = Place(account=channel.account, channel=channel.channel, thread=await surface.surface.open(channel, root, "OT-1 A card"))
    remote_id = await surface.surface.post(inside, Part(text="Half"), nonce)
    await surface.surface.arrange(inside, "OT-1 Done", archived=True)
    await surface.surface.edit(inside, remote_id, Part(text="Whole"), nonce)
    await surface.surface.arrange(inside, "OT-1 Done", archived=True)
    await surface.surface.post(inside, Part(text="More"), new_id())


async def test_a_place_is_looked_up_with_its_name_and_who_reads_there(surface: Tried) -> None:
    spot = await surface.surface.look_up(surface.place, surface.reader)
    assert (spot.channel, spot.thread, spot.kind) == (surface.place.channel, surface.place.thread, ChannelKind.OPEN)
    assert (spot.label, spot.url, spot.reads) == (surface.label, surface.surface.link(surface.place), True)
    channel = await surface.surface.look_up(replace(surface.place, thread=""), "1")
    assert (channel.thread, channel.label, channel.reads) == ("", surface.label, False)
    assert not (await surface.surface.look_up(surface.place)).reads


async def test_what_is_not_there_is_a_closed_place(surface: Tried) -> None:
    with pytest.raises(PlaceClosed):
        await surface.surface.look_up(Place(account=surface.place.account, channel="1"))


async def test_what_one_person_alone_may_read_is_told_to_nobody_else(surface: Tried) -> None:
    await surface.surface.tell(surface.place, surface.reader, "A private title", otherwise="I cannot write to you in private.")
    said = await surface.texts()
    assert [text.partition(" ")[2] for text in said] == ([] if surface.tells_alone else ["I cannot write to you in private."])


async def test_a_status_is_shown_and_taken_back(surface: Tried) -> None:
    await surface.surface.show_status(surface.place, AgentStatus.THINKING, "CatchUpCalls demo/offline …")
    await surface.surface.show_status(surface.place, AgentStatus.IDLE, "")


async def test_budgets_keep_their_names(surface: Tried) -> None:
    for call in Call:
        assert surface.surface.budgets(call, surface.place) == surface.surface.budgets(call, surface.place)


async def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    platform = Platform()
    platform.longest = 10
    surface, place = FakeSurface(platform), Place(account=ACCOUNT, channel="C1", thread="1.0")
    with pytest.raises(TooLong):
        await surface.post(place, Part(text="word " * 10), new_id())
    assert platform.texts() == []
