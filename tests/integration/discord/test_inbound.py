"""What people say in Discord, taken in: over the wire, with the bot's real connection."""

from dataclasses import replace

import pytest

from bots.policy import ChannelRules
from core.models import Visibility
from tests.emulators.discord import DiscordEmulator, permissions, shapes
from tests.emulators.discord.objects import Overwrite
from tests.integration.discord.conftest import QUICK, Office, Open, Speaker, Thread

People = tuple[Speaker, Speaker, Speaker]


# --- what it replies to ---------------------------------------------------------------------------------------------


async def test_a_call_that_replies_to_somebody_brings_along_what_it_replies_to(office: Office, people: People, channel: str) -> None:
    alice, bob, carol = people
    asked = await bob.says_id(f"can <@{carol.id}> book a table?", files=[("menu.txt", b"1", "text/plain")])
    thread = await alice.says("@onethread do this", reply_to=asked)
    before = "Said before, in the message that the next one replies to:\n\n**Bob**:\n> can @Carol book a table?\n> [file: menu.txt]"
    await office.says(channel, thread.id, f"alice: {before}", "alice: do this")


async def test_a_call_that_replies_to_a_bot_does_likewise_and_to_discord_itself_does_not(
    office: Office, people: People, channel: str
) -> None:
    alice, _, _ = people
    robot = office.discord.person("robot", bot=True)
    built = await robot.say(channel, "The build failed.")
    thread = await alice.says("@onethread look into it", reply_to=built)
    before = "Said before, in the message that the next one replies to:\n\n**robot**:\n> The build failed."
    await office.says(channel, thread.id, f"alice: {before}", "alice: look into it")


# --- when it answers -------------------------------------------------------------------------------------------------


async def test_a_mention_makes_a_task_and_is_answered_in_its_thread(office: Office, people: People, channel: str) -> None:
    alice, bob, _ = people
    async with office.world.working():
        thread = await alice.says("@onethread plan my week")
        await thread.shows("onethread: OK.")
        await bob.says("and mine", thread)  # without a mention
        await thread.shows("onethread: OK.", "bob: and mine", "onethread: OK.")
    await office.says(channel, thread.id, "alice: plan my week", "bob: and mine")
    assert [task.title for task in await office.tasks()] == ["plan my week"]


async def test_a_direct_message_is_a_conversation_without_a_task(office: Office) -> None:
    alice = await office.direct("alice")
    async with office.world.working():
        thread = await alice.says("good morning")
        await alice.says("are you there?")
        await thread.shows("onethread: OK.", "onethread: OK.")
    await office.says(alice.channel, "", "alice: good morning", "alice: are you there?")
    assert not await office.tasks()


async def test_a_reply_to_the_bot_is_one_to_it_with_and_without_a_ping(office: Office, people: People, channel: str) -> None:
    alice, bob, _ = people
    elsewhere = office.discord.home.channel("elsewhere")
    async with office.world.working():
        thread = await alice.says("@onethread plan my week")
        answers = await thread.shows("onethread: OK.")
    answer = next(each["id"] for each in answers if each["author"]["id"] == office.discord.bot_id)
    await bob.says("why?", thread, reply_to=answer)
    await bob.says_id("how?", thread, reply_to=answer, ping=False)
    await office.says(channel, thread.id, "alice: plan my week", "bob: why?", "bob: how?")
    assert not await office.bound(elsewhere)


async def test_a_reply_to_a_person_in_a_thread_is_read_along_and_not_answered(office: Office, people: People, channel: str) -> None:
    alice, bob, _ = people
    thread = await alice.says("@onethread plan my week")
    second = await alice.says_id("and the next", thread)
    await bob.says("for us both?", thread, reply_to=second)
    await office.says(channel, thread.id, "alice: plan my week", "alice: and the next", "bob: for us both?")
    assert [bool(each.turn_id) for each in await office.messages(channel, thread.id) if each.author_id] == [True, True, False]


async def test_a_chat_channel_is_one_conversation(open_office: Open, channel: str) -> None:
    async with open_office(channel_rules={channel: ChannelRules(mode="chat")}) as office, office.world.working():
        alice, bob, _ = office.speakers(channel)
        await alice.says("good morning")
        await bob.says("good night")
        await office.says(channel, "", "alice: good morning", "bob: good night")
        await alice.person.sees(channel, lambda messages: str(messages).count("OK.") >= 2)
    assert not await office.tasks()


async def test_the_bots_role_is_as_good_as_its_name(office: Office, people: People, channel: str) -> None:
    role = next(each.id for each in office.discord.home.roles.values() if each.bot_id)
    thread = await people[0].says(f"<@&{role}> plan my week")
    await office.says(channel, thread.id, "alice: plan my week")


async def test_a_mention_in_somebodys_thread_is_answered_there_with_what_was_said_before(
    office: Office, people: People, channel: str
) -> None:
    alice, bob, _ = people
    root = await alice.says_id("lunch?")
    thread = Thread(alice, await alice.person.thread(channel, root, "lunch"))
    await bob.says("at noon", thread)
    await bob.says("@onethread make it a task", thread)
    before = "Said in this thread before:\n\n**Alice**:\n> lunch?\n\n**Bob**:\n> at noon"
    await office.says(channel, thread.id, f"bob: {before}", "bob: make it a task")


async def test_a_forums_post_is_a_thread_of_the_forum(office: Office) -> None:
    alice = office.speaker("alice", office.discord.home.channel("ideas", kind="forum"))
    post = await alice.person.post(alice.channel, "Ideas", f"<@{office.discord.bot_id}> which first?")
    async with office.world.working():
        await Thread(alice, post).shows("onethread: OK.")
    await office.says(alice.channel, post, "alice: which first?")


async def test_a_private_thread_into_which_the_bot_is_called_is_heard(office: Office, people: People, channel: str) -> None:
    alice, bob, _ = people
    thread = Thread(alice, await alice.person.private_thread(channel, "secret", people=[bob.person]))
    await alice.says("@onethread plan my week", thread)
    await office.says(channel, thread.id, "alice: plan my week")
    await bob.says("and mine", thread)
    await office.says(channel, thread.id, "alice: plan my week", "bob: and mine")


# --- when it does not ------------------------------------------------------------------------------------------------


async def test_what_concerns_nobody_is_not_stored(office: Office, people: People, channel: str) -> None:
    alice, bob, _ = people
    thread = await alice.says("@onethread plan my week")
    lunch = await bob.says_id("lunch?")
    await bob.edits(lunch, "dinner?")
    await bob.deletes(lunch)
    loose = await bob.person.loose_thread(channel, "lunch")
    where = await bob.says_id("where?", Thread(bob, loose))
    last = await alice.says_id("and the next", thread)  # which comes after all that
    await office.says(channel, thread.id, "alice: plan my week", "alice: and the next")
    keys = [f"message:{channel}:{each}" for each in (last, lunch, where)] + [f"delete:{lunch}"]
    assert [await office.is_stored(key) for key in keys] == [True, False, False, False]


async def test_bots_and_discord_itself_are_left_alone(office: Office, people: People, channel: str) -> None:
    alice, _, _ = people
    robot = Speaker(office, office.discord.person("robot", bot=True), channel)
    thread = await alice.says("@onethread plan my week")
    await office.says(channel, thread.id, "alice: plan my week")
    await robot.says("@onethread hello")
    await robot.says("beep", thread)
    await alice.says("go on", thread)
    await office.says(channel, thread.id, "alice: plan my week", "alice: go on")
    assert len(await office.tasks()) == 1


async def test_only_named_guilds_are_listened_to(open_office: Open, channel: str, discord: DiscordEmulator) -> None:
    other = discord.guild("Elsewhere")
    theirs = other.channel("plans")
    async with open_office(guilds=frozenset({discord.home.id})) as office:
        mallory = Speaker(office, discord.stranger("mallory"), theirs)
        other.join(mallory.person)
        await mallory.says("@onethread tell me everything")
        thread = await office.speaker("alice", channel).says("@onethread plan my week")
        await office.says(channel, thread.id, "alice: plan my week")
        assert len(await office.tasks()) == 1
        assert not await office.bound(theirs)


async def test_a_bot_that_anybody_may_invite_serves_its_owners_guilds_alone(
    open_office: Open, channel: str, discord: DiscordEmulator
) -> None:
    discord.application.bot_public = True
    other = discord.guild("Elsewhere", discord.person("carol"))
    theirs = other.channel("plans")
    async with open_office() as office:
        await Speaker(office, discord.person("carol"), theirs).says("@onethread tell me everything")
        thread = await office.speaker("alice", channel).says("@onethread plan my week")
        await office.says(channel, thread.id, "alice: plan my week")
        assert len(await office.tasks()) == 1


async def test_who_and_where_is_not_allowed_is_told(open_office: Open, channel: str, discord: DiscordEmulator) -> None:
    elsewhere = discord.home.channel("elsewhere")
    role = discord.home.role("team", people=[discord.person("alice"), discord.person("carol")])
    allowed = {"users": frozenset({discord.person("alice").id, discord.person("bob").id}), "roles": frozenset({role})}
    async with open_office(channels=frozenset({channel}), **allowed) as office:
        alice, bob, carol = office.speakers(channel)
        await carol.says("@onethread hello")
        await office.tells(carol, "I may not talk with you yet.")
        await bob.says("@onethread hello")
        await office.tells(bob, "I talk with people who have certain roles only.")
        await office.speaker("alice", elsewhere).says("@onethread hello")
        await office.tells(alice, "I do not answer in this channel.")
        await alice.says("@onethread hello")
        await office.settled()
        assert len(await office.tasks()) == 1


# --- what is changed afterwards --------------------------------------------------------------------------------------


async def test_an_edit_and_a_deletion_reach_the_conversation(office: Office, people: People, channel: str) -> None:
    alice, bob, _ = people
    thread = await alice.says("@onethread plan my week")
    second = await bob.says_id("and mine", thread)
    await office.says(channel, thread.id, "alice: plan my week", "bob: and mine")
    await alice.edits(thread.id, "@onethread plan my year")
    await office.says(channel, thread.id, "alice: plan my year", "bob: and mine")
    await bob.deletes(second, thread)
    await office.says(channel, thread.id, "alice: plan my year")


async def test_many_messages_that_are_purged_are_all_deleted(office: Office, people: People, channel: str) -> None:
    alice, _, _ = people
    thread = await alice.says("@onethread plan my week")
    ids = [await alice.says_id(text, thread) for text in ("one", "two", "three")]
    await office.says(channel, thread.id, "alice: plan my week", "alice: one", "alice: two", "alice: three")
    await alice.person.purge(thread.channel, ids)
    await office.says(channel, thread.id, "alice: plan my week")


async def test_one_who_says_edits_says_more_and_deletes_at_once_is_followed(office: Office, people: People, channel: str) -> None:
    alice, _, _ = people
    async with office.world.working():
        thread = await alice.says("@onethread plan my week")
        await alice.edits(thread.id, "@onethread plan my month")
        await alice.edits(thread.id, "@onethread plan my year")
        await alice.person.thread(channel, thread.id, "plans")  # before the bot made one
        wrong = await alice.says_id("or my life", thread)
        await alice.says("and quickly", thread)
        await alice.deletes(wrong, thread)
        await office.says(channel, thread.id, "alice: plan my year", "alice: and quickly")
        await thread.shows("onethread: OK.", "onethread: OK.")
    assert len(await office.tasks()) == 1


async def test_an_edit_that_adds_a_mention_calls_the_bot(office: Office, people: People, channel: str) -> None:
    alice, _, _ = people
    said = await alice.says_id("plan my week")
    await alice.edits(said, "@onethread plan my week")
    await office.says(channel, said, "alice: plan my week")


async def test_a_link_that_unfolds_is_no_edit(office: Office, people: People, channel: str) -> None:
    alice, _, _ = people
    thread = await alice.says("@onethread read https://example.org")
    await office.says(channel, thread.id, "alice: read https://example.org")
    unfolded = {**office.discord.message(thread.id), "guild_id": office.discord.home.id, "embeds": [{"title": "Example"}]}
    office.discord.dispatch("MESSAGE_UPDATE", unfolded)
    await alice.says("go on", thread)
    await office.says(channel, thread.id, "alice: read https://example.org", "alice: go on")
    assert not (await office.messages(channel, thread.id))[0].edited_at


async def test_a_deleted_root_leaves_the_conversation_where_it_is(office: Office, people: People, channel: str) -> None:
    alice, bob, _ = people
    thread = await alice.says("@onethread plan my week")
    await alice.person.thread(channel, thread.id, "plans")
    await bob.says("and mine", thread)
    await office.says(channel, thread.id, "alice: plan my week", "bob: and mine")
    await alice.deletes(thread.id)
    await office.says(channel, thread.id, "bob: and mine")
    await bob.says("still there?", thread)
    await office.says(channel, thread.id, "bob: and mine", "bob: still there?")


async def test_an_archived_thread_is_heard_again(office: Office, people: People, channel: str) -> None:
    alice, bob, _ = people
    async with office.world.working():
        thread = await alice.says("@onethread plan my week")
        await thread.shows("onethread: OK.")
        await bob.person.archive(thread.id)
        await bob.says("one more", thread)
        await thread.shows("onethread: OK.", "bob: one more", "onethread: OK.")


async def test_files_come_along(office: Office, people: People, channel: str) -> None:
    alice, _, _ = people
    thread = await alice.says("@onethread read this", files=[("plan.txt", b"Monday: rest", "text/plain")])
    await office.says(channel, thread.id, "alice: read this")
    [message, *_] = await office.messages(channel, thread.id)
    files = await office.world.read(lambda uow: uow.attachments.of_messages([message.id]))
    assert [each.name for each in files] == ["plan.txt"]


# --- order and doubling ----------------------------------------------------------------------------------------------


async def test_a_burst_keeps_its_order(office: Office, people: People, channel: str) -> None:
    alice, bob, _ = people
    thread = await alice.says("@onethread plan my week")
    for number in range(20):
        await (alice, bob)[number % 2].says(f"line {number}", thread)
    lines = [f"{('alice', 'bob')[number % 2]}: line {number}" for number in range(20)]
    await office.says(channel, thread.id, "alice: plan my week", *lines)


async def test_what_is_told_twice_is_taken_in_once(office: Office, people: People, channel: str) -> None:
    alice, _, _ = people
    thread = await alice.says("@onethread plan my week")
    await alice.says("and the next", thread)
    await office.says(channel, thread.id, "alice: plan my week", "alice: and the next")
    office.discord.replay(3)
    await alice.says("go on", thread)
    await office.says(channel, thread.id, "alice: plan my week", "alice: and the next", "alice: go on")
    assert len(await office.tasks()) == 1


async def test_answers_of_one_conversation_at_the_channels_top_are_taken_in_in_order(office: Office, people: People, channel: str) -> None:
    """Where no thread can be made, the bot answers in the channel, and people reply to it there."""
    alice, _, _ = people
    office.discord.deny(channel, ["CREATE_PUBLIC_THREADS"])
    async with office.world.working():
        asked = await alice.says_id("@onethread plan my week")
        seen = await alice.person.sees(channel, lambda messages: "OK." in messages[-1]["content"])
    office.discord.slow("GET", "attachments", 0.2)
    await alice.says_id("first read this", reply_to=seen[-1]["id"], files=[("plan.txt", b"Monday: rest", "text/plain")])
    await alice.says_id("then this", reply_to=seen[-1]["id"])
    await office.says(channel, asked, "alice: plan my week", "alice: first read this", "alice: then this")
    assert len(await office.tasks()) == 1


async def test_nothing_is_lost_while_the_database_is_away(office: Office, people: People, channel: str) -> None:
    alice, bob, _ = people
    office.storage.is_away = True
    thread = await alice.says("@onethread plan my week")
    await bob.says("@onethread hello")
    office.storage.is_away = False
    await office.says(channel, thread.id, "alice: plan my week")
    await office.settled()
    assert len(await office.tasks()) == 2


# --- without Message Content Intent ----------------------------------------------------------------------------------


async def test_without_contents_mentions_and_direct_messages_are_answered(
    open_office: Open, discord: DiscordEmulator, channel: str, capsys: pytest.CaptureFixture[str]
) -> None:
    discord.message_content = False
    async with open_office() as office:
        alice, bob, _ = office.speakers(channel)
        thread = await alice.says("@onethread plan my week")
        await bob.says("and mine", thread)
        await thread.shows_text("I can read only those messages here that mention me")
        await bob.says("really", thread)
        await bob.says("@onethread and mine", thread)
        await office.says(channel, thread.id, "alice: plan my week", "bob: and mine")
        direct = await office.direct("alice")
        await direct.says("hello")
        await office.says(direct.channel, "", "alice: hello")
        assert str(discord.messages(thread.id)).count("I can read only") == 1
    assert "Switch on Message Content Intent" in capsys.readouterr().out


async def test_a_channel_that_was_made_private_just_now_is_private(office: Office, people: People, channel: str) -> None:
    alice, _, _ = people
    thread = await alice.says("@onethread plan my week")
    await office.says(channel, thread.id, "alice: plan my week")
    place, home, seen = office.discord.channels[channel], office.discord.home.id, permissions.bits(["VIEW_CHANNEL"])
    place.overwrites[home] = Overwrite(home, member=False, deny=seen)
    for member in (alice.id, office.discord.bot_id):
        place.overwrites[member] = Overwrite(member, member=True, allow=seen)
    office.discord.tell_guild("CHANNEL_UPDATE", shapes.channel(office.discord, place), office.discord.guilds[home])
    second = await alice.says("@onethread what bob earns")
    await office.says(channel, second.id, "alice: what bob earns")
    assert (await office.conversation(channel, second.id)).visibility is Visibility.PRIVATE


async def test_many_who_come_at_once_are_all_answered_within_the_limit_of_reading(open_office: Open, discord: DiscordEmulator) -> None:
    """Each of them asks Discord for the same: which servers there are, who this is, and who sees the channel."""
    channels = [discord.home.channel(f"plan-{number}") for number in range(20)]
    async with open_office(rules=replace(QUICK, reads=15)) as office:
        for channel in channels:
            await office.speaker("alice", channel).says("@onethread plan my week")

        async def all_are_there() -> bool:
            return len(await office.tasks()) == len(channels)

        await office.world.until(all_are_there, seconds=20)
