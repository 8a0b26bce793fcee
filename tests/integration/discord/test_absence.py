"""Where little tells what was said while nobody listened: no list, no history, or not for a long time. It is answered all the same."""

from dataclasses import replace
from datetime import timedelta

import pytest

from bots.discord.config import CatchUpRules
from tests.emulators.discord import DiscordEmulator
from tests.integration.discord.conftest import SOON, Office, Open, Speaker, Thread
from tests.integration.discord.test_catch_up import interrupted

People = tuple[Speaker, Speaker, Speaker]
IMPATIENT = replace(SOON, pace=replace(SOON.pace, patience_seconds=0.1, longest_seconds=0.1, aside_seconds=0.0))
FORGETFUL = replace(SOON, pace=replace(SOON.pace, homes=0))
"""As if every conversation had been used last before yesterday."""


# --- threads and direct messages -------------------------------------------------------------------------------------


async def test_what_follows_a_mention_in_its_thread_waits_for_the_mention(
    open_office: Open, discord: DiscordEmulator, channel: str
) -> None:
    async with open_office() as office:
        alice, bob, _ = office.speakers(channel)
        await alice.says("lunch?")
        await office.settled()
    asked = await bob.says_id("@onethread plan my week")
    await bob.person.thread(channel, asked, "plan")
    await bob.says("and also this", Thread(bob, asked))
    discord.slow("GET", f"channels/{channel}/messages", 0.2)
    async with open_office() as office:
        await office.says(channel, asked, "bob: plan my week", "bob: and also this")


async def test_what_comes_live_in_a_thread_waits_for_its_channel(office: Office, people: People, channel: str) -> None:
    alice, bob, _ = people
    await alice.says("lunch?")
    await office.settled()
    async with interrupted(office):
        await alice.says("news")
        office.discord.slow("GET", f"channels/{channel}/messages", 0.3)
    await office.discord.until(lambda: office.discord.identifies > 1)
    await office.discord.connected()
    asked = await bob.says_id("@onethread plan my week")
    await bob.person.thread(channel, asked, "plan")
    await bob.says("and also this", Thread(bob, asked))
    await office.says(channel, asked, "bob: plan my week", "bob: and also this")


async def test_a_direct_message_is_found_however_long_nobody_wrote_there(open_office: Open) -> None:
    async with open_office() as office:
        direct = await office.direct("carol")
        await direct.says("hello")
        await office.says(direct.channel, "", "carol: hello")
        await office.settled()
    await direct.says("are you there?")
    async with open_office(gateway=FORGETFUL) as office:
        await office.says(direct.channel, "", "carol: hello", "carol: are you there?")


async def test_an_archived_thread_is_found_however_long_nobody_wrote_there(open_office: Open, channel: str) -> None:
    async with open_office() as office:
        alice, bob, _ = office.speakers(channel)
        thread = await alice.says("@onethread plan my week")
        await bob.says("and mine", thread)
        await office.says(channel, thread.id, "alice: plan my week", "bob: and mine")
        await office.settled()
    await bob.says("soon", thread)
    await alice.person.archive(thread.id)
    async with open_office(gateway=FORGETFUL) as office:
        await office.says(channel, thread.id, "alice: plan my week", "bob: and mine", "bob: soon")


async def test_a_mention_in_anybodys_thread_is_found_that_discord_archived_meanwhile(
    open_office: Open, discord: DiscordEmulator, channel: str
) -> None:
    async with open_office() as office:
        alice, bob, _ = office.speakers(channel)
        loose = Thread(bob, await bob.person.loose_thread(channel, "lunch"))
        await alice.says("at noon", loose)
        await office.settled()
    await bob.says("@onethread where?", loose)
    await bob.person.archive(loose.id)
    discord.clock_offset = 2 * 3600.0
    async with open_office(later=timedelta(hours=2)) as office:
        await office.says(channel, loose.id, "bob: Said in this thread before:\n\n**Alice**:\n> at noon", "bob: where?")


async def test_a_roots_edit_and_deletion_are_noticed_afterwards(open_office: Open, channel: str) -> None:
    async with open_office() as office:
        alice, bob, _ = office.speakers(channel)
        first, second = [await alice.says(f"@onethread {what}") for what in ("one", "two")]
        for thread in (first, second):
            await bob.says("and mine", thread)
        await office.says(channel, second.id, "alice: two", "bob: and mine")
        await office.settled()
    await alice.edits(first.id, "@onethread the first")
    await alice.deletes(second.id)
    async with open_office() as office:
        await office.says(channel, first.id, "alice: the first", "bob: and mine")
        await office.says(channel, second.id, "bob: and mine")


async def test_many_messages_that_were_purged_meanwhile_are_all_deleted(open_office: Open, channel: str) -> None:
    async with open_office(gateway=replace(SOON, pace=replace(SOON.pace, removed=2))) as office:
        alice, bob, _ = office.speakers(channel)
        thread = await alice.says("@onethread plan my week")
        ids = [await bob.says_id(f"line {number}", thread) for number in range(4)]
        await office.says(channel, thread.id, "alice: plan my week", *(f"bob: line {number}" for number in range(4)))
        await office.settled()
    await alice.person.purge(thread.id, ids)
    await bob.says("go on", thread)
    async with open_office(gateway=replace(SOON, pace=replace(SOON.pace, removed=2))) as office:
        await office.says(channel, thread.id, "alice: plan my week", "bob: go on")


async def test_a_mention_before_more_than_is_read_is_found(open_office: Open, channel: str) -> None:
    async with open_office(catch_up=CatchUpRules(messages=10)) as office:
        alice, bob, _ = office.speakers(channel)
        await alice.says("lunch?")
        await office.settled()
    asked = await bob.says_id("@onethread plan my week")
    for number in range(25):
        await alice.says(f"line {number}")
    async with open_office(catch_up=CatchUpRules(messages=10)) as office:
        await office.says(channel, asked, "bob: plan my week")
        await office.settled()


# --- how far a guild was heard ---------------------------------------------------------------------------------------


async def test_other_guilds_do_not_move_how_far_one_that_is_away_was_heard(
    office: Office, people: People, channel: str, discord: DiscordEmulator
) -> None:
    other = discord.guild("Elsewhere", discord.person("alice"))
    theirs, quiet = other.channel("plans"), other.channel("quiet")
    await office.speaker("alice", theirs).says("lunch?")
    await office.settled()
    discord.unavailable(other)
    lost = await office.speaker("alice", quiet).says("@onethread and here?")
    discord.clock_offset = 300.0
    thread = await people[0].says("@onethread plan my week")
    await office.says(channel, thread.id, "alice: plan my week")
    discord.available(other)
    await office.says(quiet, lost.id, "alice: and here?")


@pytest.mark.parametrize("ends", ["a second session", "a restart"])
async def test_neither_does_what_interrupts_its_catching_up(open_office: Open, discord: DiscordEmulator, channel: str, ends: str) -> None:
    quiet = discord.home.channel("quiet")
    async with open_office() as office:
        alice, direct = office.speaker("alice", channel), await office.direct("bob")
        await alice.says("lunch?")
        await office.settled()
        async with interrupted(office):
            discord.fail("GET", "threads/active", status=500, times=10_000)
            first = await office.speaker("alice", quiet).says("@onethread plan my week")
        await discord.until(lambda: discord.called("threads.active")[-1].status == 500)
        second = await office.speaker("alice", quiet).says("@onethread and the next")
        discord.clock_offset = 300.0
        await direct.says("hello")
        await office.says(direct.channel, "", "bob: hello")
        if ends == "a second session":
            sessions = discord.identifies
            async with interrupted(office):
                pass
            await discord.until(lambda: discord.identifies > sessions)
            await discord.connected()
            discord.faults.clear()
            await office.says(quiet, first.id, "alice: plan my week")
            await office.says(quiet, second.id, "alice: and the next")
    discord.faults.clear()
    async with open_office() as office:
        await office.says(quiet, first.id, "alice: plan my week")
        await office.says(quiet, second.id, "alice: and the next")


async def test_a_session_that_goes_on_without_what_it_missed_is_caught_up(
    office: Office, people: People, channel: str, discord: DiscordEmulator
) -> None:
    thread = await people[0].says("@onethread plan my week")
    await office.says(channel, thread.id, "alice: plan my week")
    resumes = discord.resumes
    discord.lose()
    await people[1].says("and mine", thread)
    discord.keep()
    discord.drop()
    await office.says(channel, thread.id, "alice: plan my week", "bob: and mine")
    assert discord.resumes > resumes


# --- histories that cannot be had ------------------------------------------------------------------------------------


async def test_channels_whose_history_fails_for_long_hold_nothing_up_and_are_read_later(
    open_office: Open, discord: DiscordEmulator, channel: str
) -> None:
    broken = [discord.home.channel(f"broken-{number}") for number in range(5)]
    async with open_office(gateway=IMPATIENT) as office:
        bob = office.speaker("bob", channel)
        thread = await office.speaker("alice", broken[0]).says("@onethread plan my week")
        await bob.says("and mine", thread)
        await office.says(broken[0], thread.id, "alice: plan my week", "bob: and mine")
        await office.settled()
    for each in broken[1:]:
        await office.speaker("bob", each).says("lunch?")
    missed = await office.speaker("bob", broken[1]).says("@onethread what did I miss?")
    await bob.says("missed", thread)
    for each in (thread.id, *broken[1:]):
        discord.fail("GET", f"channels/{each}/messages", status=500, times=10_000)
    elsewhere = await bob.says_id("@onethread elsewhere")
    async with open_office(gateway=IMPATIENT) as office:
        await office.says(channel, elsewhere, "bob: elsewhere")
        await thread.shows_text("Discord does not give me yet what was written here")
        await bob.says("live", thread)
        live = await office.speaker("bob", broken[2]).says("@onethread live")
        await office.says(broken[0], thread.id, "alice: plan my week", "bob: and mine", "bob: live")
        await office.says(broken[2], live.id, "bob: live")
    discord.faults.clear()
    async with open_office(gateway=IMPATIENT) as office:  # also after a restart, though newer ones were heard
        await office.says(broken[0], thread.id, "alice: plan my week", "bob: and mine", "bob: live", "bob: missed")
        await office.says(broken[1], missed.id, "bob: what did I miss?")


async def test_a_history_that_is_refused_is_asked_for_once_in_a_session(
    office: Office, people: People, channel: str, discord: DiscordEmulator
) -> None:
    alice, bob, _ = people
    await alice.says("lunch?")
    await office.settled()
    async with interrupted(office):
        await bob.says("lost")
        discord.fail("GET", f"channels/{channel}/messages", status=403, code=50001, times=10_000)
    await discord.until(lambda: discord.called("message.list", channel=channel))
    looked = len(discord.called("guild.channels"))
    discord.unavailable(discord.home)
    discord.available(discord.home)
    await discord.until(lambda: len(discord.called("guild.channels")) > looked)
    thread = await alice.says("@onethread plan my week")
    await office.says(channel, thread.id, "alice: plan my week")
    assert len(discord.called("message.list", channel=channel)) == 1


async def test_edits_among_more_than_can_wait_are_noticed(open_office: Open, channel: str) -> None:
    rules = replace(SOON, ingest=replace(SOON.ingest, waiting=5, held=5, batch=2))
    async with open_office(gateway=rules) as office:
        alice, bob, _ = office.speakers(channel)
        thread = await alice.says("@onethread plan my week")
        ids = [await bob.says_id(text, thread) for text in ("one", "two")]
        await office.says(channel, thread.id, "alice: plan my week", "bob: one", "bob: two")
        office.storage.is_away = True
        for number in range(20):
            await bob.says(f"line {number}", thread)
        await bob.edits(ids[0], "first", thread)
        await bob.deletes(ids[1], thread)
        office.storage.is_away = False
        lines = [f"bob: line {number}" for number in range(20)]
        await office.says(channel, thread.id, "alice: plan my week", "bob: first", *lines)


async def test_a_direct_message_that_is_read_when_a_session_begins_is_not_lost(open_office: Open, discord: DiscordEmulator) -> None:
    """The very first ones, of which nothing tells afterwards."""
    rules = replace(SOON, ingest=replace(SOON.ingest, waiting=5, held=5, batch=2))
    async with open_office(gateway=rules) as office:
        direct = await office.direct("carol")
        office.storage.is_away = True
        discord.fail("GET", f"channels/{direct.channel}/messages", status=500, times=10_000)
        for number in range(20):
            await direct.says(f"line {number}")
        await discord.until(lambda: discord.called("message.list"))
        office.storage.is_away = False
        async with interrupted(office):
            pass
        await discord.until(lambda: discord.identifies > 1)
        discord.faults.clear()
        await office.says(direct.channel, "", *(f"carol: line {number}" for number in range(20)))


# --- whether a guild is served ---------------------------------------------------------------------------------------


async def test_a_guild_is_heard_only_once_it_is_known_to_be_served(open_office: Open, discord: DiscordEmulator, channel: str) -> None:
    discord.application.bot_public = True
    other = discord.guild("Elsewhere", discord.stranger("mallory"), bot=False)
    other.join(discord.person("bob"))
    theirs = other.channel("plans")
    async with open_office() as office:
        discord.fail("GET", f"guilds/{other.id}", status=404, times=2)
        other.add_bot()
        asked = await office.speaker("bob", theirs).says_id("@onethread plan my week")
        await discord.until(lambda: len([call for call in discord.called("guild") if other.id in call.path]) > 2)
        async with interrupted(office):
            discord.fail("GET", f"guilds/{discord.home.id}", status=404, times=2)
            discord.fail("GET", f"guilds/{other.id}", status=404, times=2)
        thread = await office.speaker("alice", channel).says("@onethread plan my week")
        await office.says(channel, thread.id, "alice: plan my week")
        assert not await office.bound(theirs, asked)
