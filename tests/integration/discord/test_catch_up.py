"""What was said while nobody listened: read afterwards, all of it once, in its order."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import pytest

from bots.discord.config import CatchUpRules
from bots.policy import ChannelRules
from core.models import MessageStatus
from tests.emulators.discord import DiscordEmulator
from tests.integration.discord.conftest import SOON, Office, Open, Speaker, Thread

People = tuple[Speaker, Speaker, Speaker]


@asynccontextmanager
async def interrupted(office: Office) -> AsyncIterator[None]:
    """Discord forgets the session: what happens meanwhile is told to nobody."""
    office.discord.lose()
    yield
    office.discord.keep()
    office.discord.can_resume = False
    office.discord.drop()


# --- after a restart -------------------------------------------------------------------------------------------------


async def test_what_was_said_before_the_first_start_is_left_alone(open_office: Open, discord: DiscordEmulator, channel: str) -> None:
    await discord.person("alice").say(channel, "plan my week", mention=[discord.bot_id])
    async with open_office() as office:
        thread = await office.speaker("bob", channel).says("@onethread hello")
        await office.says(channel, thread.id, "bob: hello")
        assert len(await office.tasks()) == 1


async def test_a_direct_message_after_unfollowing_begins_a_new_chat_though_nobody_listened(open_office: Open, channel: str) -> None:
    async with open_office() as office:
        home = await office.speaker("carol", channel).says("@onethread plan my week")
        await office.says(channel, home.id, "carol: plan my week")
        direct = await office.direct("carol")
        assert (await direct.types("task follow", ref="OT-1")).texts[0].startswith("**OT-1** plan my week is shown here")
        assert (await direct.types("task unfollow")).texts == ["**OT-1** plan my week is not shown here any more."]
        await office.settled()

    await direct.says("are you there?")

    async with open_office() as office:
        await office.says(direct.channel, "", "carol: are you there?")
        assert (await office.conversation(direct.channel)).task_ref is None


async def test_everything_that_was_said_during_a_restart_is_answered_once(
    open_office: Open, discord: DiscordEmulator, channel: str
) -> None:
    chat = discord.home.channel("chat")
    rules = {"channel_rules": {chat: ChannelRules(mode="chat")}}
    async with open_office(**rules) as office:
        alice, bob, carol = office.speakers(channel)
        direct = await office.direct("carol")
        thread = await alice.says("@onethread plan my week")
        await direct.says("hello")
        await office.speaker("bob", chat).says("good morning")
        await alice.says("and the next", thread)
        await office.says(channel, thread.id, "alice: plan my week", "alice: and the next")
        await office.settled()

    new = discord.home.channel("new")
    second = await bob.says("@onethread and mine")
    await bob.says("soon", thread)
    await carol.says("is anybody there?", thread)
    await direct.says("are you there?")
    await office.speaker("bob", chat).says("good night")
    third = await office.speaker("alice", new).says("@onethread in a new channel")
    await alice.says("lunch?")

    async with open_office(**rules) as office, office.world.working():
        lines = ["alice: plan my week", "alice: and the next", "bob: soon", "carol: is anybody there?"]
        await office.says(channel, thread.id, *lines)
        await office.says(channel, second.id, "bob: and mine")
        await office.says(new, third.id, "alice: in a new channel")
        await office.says(direct.channel, "", "carol: hello", "carol: are you there?")
        await office.says(chat, "", "bob: good morning", "bob: good night")
        await office.settled()
        assert len(await office.tasks()) == 3
        await Thread(bob, second.id).shows("onethread: OK.")


async def test_another_restart_takes_nothing_in_again(open_office: Open, channel: str) -> None:
    async with open_office() as office:
        alice, _, _ = office.speakers(channel)
        thread = await alice.says("@onethread plan my week")
        await alice.says("and the next", thread)
        await office.settled()
    for _ in range(2):
        async with open_office() as office:
            await office.settled()
            await office.says(channel, thread.id, "alice: plan my week", "alice: and the next")
    assert len(await office.tasks()) == 1


async def test_edits_and_deletions_are_noticed_afterwards(open_office: Open, channel: str) -> None:
    async with open_office() as office:
        alice, bob, _ = office.speakers(channel)
        thread = await alice.says("@onethread plan my week")
        ids = [await alice.says_id(text, thread) for text in ("one", "two", "three")]
        await office.says(channel, thread.id, "alice: plan my week", "alice: one", "alice: two", "alice: three")
        await office.settled()

    await alice.edits(ids[0], "first", thread)
    await alice.deletes(ids[1], thread)
    new = await bob.says_id("four", thread)
    await bob.edits(new, "fourth", thread)
    wrong = await bob.says_id("five", thread)
    await bob.deletes(wrong, thread)

    async with open_office() as office:
        await office.says(channel, thread.id, "alice: plan my week", "alice: first", "alice: three", "bob: fourth")
        await office.settled()
        messages = {each.content: each for each in await office.messages(channel, thread.id)}
        assert messages["fourth"].edited_at is None  # it was never known to read otherwise


async def test_a_history_that_may_not_be_read_deletes_nothing(open_office: Open, discord: DiscordEmulator, channel: str) -> None:
    async with open_office() as office:
        alice, bob, _ = office.speakers(channel)
        thread = await alice.says("@onethread plan my week")
        await alice.says("and the next", thread)
        await office.says(channel, thread.id, "alice: plan my week", "alice: and the next")
        await office.settled()
    discord.deny(channel, ["READ_MESSAGE_HISTORY"])
    async with open_office() as office:
        await bob.says("and mine", thread)
        await office.says(channel, thread.id, "alice: plan my week", "alice: and the next", "bob: and mine")


async def test_a_thread_that_was_archived_meanwhile_is_read_too(open_office: Open, channel: str) -> None:
    async with open_office() as office:
        alice, bob, _ = office.speakers(channel)
        thread = await alice.says("@onethread plan my week")
        await bob.says("and mine", thread)
        await office.says(channel, thread.id, "alice: plan my week", "bob: and mine")
        await office.settled()
    await bob.says("soon", thread)
    await alice.person.archive(thread.id)
    async with open_office() as office:
        await office.says(channel, thread.id, "alice: plan my week", "bob: and mine", "bob: soon")


# --- how much --------------------------------------------------------------------------------------------------------


async def test_of_a_long_absence_the_newest_is_read_and_that_is_said(open_office: Open, channel: str) -> None:
    """Three hours of a busy thread, more than is read of it."""
    async with open_office(catch_up=CatchUpRules(messages=10)) as office:
        alice, bob, _ = office.speakers(channel)
        thread = await alice.says("@onethread plan my week")
        await alice.says("and the next", thread)
        await office.says(channel, thread.id, "alice: plan my week", "alice: and the next")
        await office.settled()
    for number in range(25):
        await bob.says(f"line {number}", thread)
    async with open_office(catch_up=CatchUpRules(messages=10)) as office:
        lines = [f"bob: line {number}" for number in range(15, 25)]
        await office.says(channel, thread.id, "alice: plan my week", "alice: and the next", *lines)
        await thread.shows_text("While I was away more was written here than I read afterwards")


async def test_what_is_too_long_ago_is_left_out_and_that_is_said(open_office: Open, discord: DiscordEmulator, channel: str) -> None:
    async with open_office() as office:
        alice, bob, _ = office.speakers(channel)
        thread = await alice.says("@onethread plan my week")
        await alice.says("and the next", thread)
        await office.says(channel, thread.id, "alice: plan my week", "alice: and the next")
        await office.settled()
    await bob.says("hours ago", thread)
    discord.clock_offset = 2 * 3600.0
    await bob.says("just now", thread)
    async with open_office(catch_up=CatchUpRules(hours=1), later=timedelta(hours=2)) as office:
        await office.says(channel, thread.id, "alice: plan my week", "alice: and the next", "bob: just now")
        await thread.shows_text("While I was away more was written here than I read afterwards")


async def test_a_mention_far_back_in_a_busy_channel_is_found(open_office: Open, channel: str) -> None:
    async with open_office() as office:
        alice, bob, _ = office.speakers(channel)
        await alice.says("lunch?")
        await office.settled()
    asked = await bob.says_id("@onethread plan my week")
    for number in range(130):
        await alice.says(f"line {number}")
    async with open_office() as office:
        await office.says(channel, asked, "bob: plan my week")


async def test_more_than_can_wait_for_the_database_is_read_later(open_office: Open, channel: str) -> None:
    rules = replace(SOON, ingest=replace(SOON.ingest, waiting=5, held=5, batch=2))
    async with open_office(gateway=rules) as office:
        alice, bob, _ = office.speakers(channel)
        thread = await alice.says("@onethread plan my week")
        await alice.says("and the next", thread)
        await office.says(channel, thread.id, "alice: plan my week", "alice: and the next")
        office.storage.is_away = True
        for number in range(30):
            await bob.says(f"line {number}", thread)
        office.storage.is_away = False
        lines = [f"bob: line {number}" for number in range(30)]
        await office.says(channel, thread.id, "alice: plan my week", "alice: and the next", *lines)


# --- while it is connected -------------------------------------------------------------------------------------------


async def test_what_comes_live_waits_for_what_was_said_before_it(office: Office, people: People, channel: str) -> None:
    alice, bob, _ = people
    async with office.world.working():
        thread = await alice.says("@onethread plan my week")
        await thread.shows("onethread: OK.")
    async with interrupted(office):
        await bob.says("one", thread)
        await bob.says("two", thread)
        elsewhere = await bob.says_id("@onethread and mine")
    office.discord.slow("GET", "messages", 0.1, times=4)
    identifies = office.discord.identifies
    await office.discord.until(lambda: office.discord.identifies > identifies)
    await office.discord.connected()
    for text in ("three", "four"):
        await alice.says(text, thread)
    last = await alice.says_id("five", thread)
    await alice.edits(last, "fifth", thread)
    await office.says(channel, thread.id, "alice: plan my week", "bob: one", "bob: two", "alice: three", "alice: four", "alice: fifth")
    await office.says(channel, elsewhere, "bob: and mine")


async def test_a_second_interruption_while_it_reads_loses_nothing(office: Office, people: People, channel: str) -> None:
    alice, bob, _ = people
    thread = await alice.says("@onethread plan my week")
    await alice.says("and the next", thread)
    await office.says(channel, thread.id, "alice: plan my week", "alice: and the next")
    async with interrupted(office):
        await bob.says("one", thread)
    office.discord.slow("GET", "messages", 0.2, times=8)
    await office.discord.until(lambda: office.discord.called("message.list"))
    async with interrupted(office):
        await bob.says("two", thread)
    await bob.says("three", thread)
    await office.says(channel, thread.id, "alice: plan my week", "alice: and the next", "bob: one", "bob: two", "bob: three")


@pytest.mark.parametrize("failure", [{"status": 500}, {"status": 429, "retry_after": 0.05}, {"status": None}], ids=str)
@pytest.mark.parametrize("route", ["channels", "threads/active", "messages"])
async def test_a_call_that_fails_is_made_again(office: Office, people: People, channel: str, failure: dict[str, float], route: str) -> None:
    alice, bob, _ = people
    thread = await alice.says("@onethread plan my week")
    await alice.says("and the next", thread)
    await office.says(channel, thread.id, "alice: plan my week", "alice: and the next")
    async with interrupted(office):
        await bob.says("and mine", thread)
        office.discord.fail("GET", route, times=2, **failure)  # type: ignore[arg-type]
    await office.says(channel, thread.id, "alice: plan my week", "alice: and the next", "bob: and mine")


async def test_what_cannot_be_read_at_all_holds_nothing_up(office: Office, people: People, channel: str) -> None:
    alice, bob, _ = people
    thread = await alice.says("@onethread plan my week")
    await alice.says("and the next", thread)
    await office.says(channel, thread.id, "alice: plan my week", "alice: and the next")
    async with interrupted(office):
        await bob.says("lost", thread)
        office.discord.fail("GET", "messages", status=403, code=50001, times=20)
    await office.discord.until(lambda: len([call for call in office.discord.calls if call.status == 403]) > 0)
    await bob.says("go on", thread)
    await office.says(channel, thread.id, "alice: plan my week", "alice: and the next", "bob: go on")


async def test_a_guild_that_was_away_is_caught_up(office: Office, people: People, channel: str) -> None:
    alice, bob, _ = people
    thread = await alice.says("@onethread plan my week")
    await alice.says("and the next", thread)
    await office.says(channel, thread.id, "alice: plan my week", "alice: and the next")
    office.discord.unavailable(office.discord.home)
    await bob.says("one", thread)
    office.discord.available(office.discord.home)
    await bob.says("two", thread)
    await office.says(channel, thread.id, "alice: plan my week", "alice: and the next", "bob: one", "bob: two")


async def test_a_guild_that_is_away_when_the_session_begins_is_caught_up_later(office: Office, people: People, channel: str) -> None:
    alice, bob, _ = people
    thread = await alice.says("@onethread plan my week")
    await alice.says("and the next", thread)
    await office.says(channel, thread.id, "alice: plan my week", "alice: and the next")
    looked = len(office.discord.called("threads.active"))
    async with interrupted(office):
        office.discord.unavailable(office.discord.home)
    await office.discord.until(lambda: len(office.discord.called("threads.active")) > looked)
    await office.settled()
    await bob.says("one", thread)
    office.discord.available(office.discord.home)
    await bob.says("two", thread)
    await office.says(channel, thread.id, "alice: plan my week", "alice: and the next", "bob: one", "bob: two")


async def test_channels_that_the_bot_may_not_read_are_not_asked_for(open_office: Open, discord: DiscordEmulator, channel: str) -> None:
    """Discord lists them, and counts calls that it refuses."""
    hidden = discord.home.channel("hidden", deny=["VIEW_CHANNEL"])
    deaf = discord.home.channel("deaf", deny=["READ_MESSAGE_HISTORY"])
    async with open_office() as office:
        alice, bob, _ = office.speakers(channel)
        await alice.says("lunch?")
        await office.settled()
    for each in (hidden, deaf):
        await office.speaker("bob", each).says("hello")
    asked = await bob.says_id("@onethread plan my week")
    async with open_office() as office:
        await office.says(channel, asked, "bob: plan my week")
        assert not [call for call in discord.calls if call.status == 403]
        assert not discord.called("message.list", channel=deaf)


async def test_one_guild_that_cannot_be_read_keeps_no_other_waiting(open_office: Open, discord: DiscordEmulator, channel: str) -> None:
    other = discord.guild("Elsewhere", discord.person("alice"))
    theirs = other.channel("plans")
    async with open_office() as office:
        alice, _, _ = office.speakers(channel)
        await alice.says("lunch?")
        await office.settled()
        async with interrupted(office):
            discord.fail("GET", f"guilds/{other.id}/channels", status=500, times=10_000)
        thread = await alice.says("@onethread plan my week")
        await office.says(channel, thread.id, "alice: plan my week")
        waiting = await office.speaker("alice", theirs).says("@onethread and here?")
        discord.faults.clear()
        await office.says(theirs, waiting.id, "alice: and here?")


async def test_a_guild_that_the_bot_joins_is_listened_to(office: Office, discord: DiscordEmulator) -> None:
    other = discord.guild("Elsewhere", discord.person("alice"), bot=False)
    theirs = other.channel("plans")
    other.add_bot()
    thread = await office.speaker("alice", theirs).says("@onethread plan my week")
    await office.says(theirs, thread.id, "alice: plan my week")


async def test_a_server_that_only_speaks_discords_protocol_is_caught_up(open_office: Open, discord: DiscordEmulator, channel: str) -> None:
    discord.variant = "other server"
    async with open_office() as office:
        alice, bob, _ = office.speakers(channel)
        thread = await alice.says("@onethread plan my week")
        await alice.says("and the next", thread)
        await office.says(channel, thread.id, "alice: plan my week", "alice: and the next")
        await office.settled()
    for number in range(3):
        await bob.says(f"line {number}", thread)
    async with open_office() as office:
        lines = [f"bob: line {number}" for number in range(3)]
        await office.says(channel, thread.id, "alice: plan my week", "alice: and the next", *lines)
        assert all(each.status is not MessageStatus.FAILED for each in await office.messages(channel, thread.id))
