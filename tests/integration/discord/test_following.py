"""A task is followed where people are in Discord: by a command in a channel or a thread, by a message in a thread."""

from tests.emulators.discord import DiscordEmulator
from tests.integration.discord.conftest import Office, Speaker, Thread

People = tuple[Speaker, Speaker, Speaker]


async def test_a_thread_of_people_follows_a_task_as_long_as_they_want(discord: DiscordEmulator, office: Office, people: People) -> None:
    alice, bob, _ = people
    home = await alice.says("@onethread plan my week")
    await office.says(alice.channel, home.id, "alice: plan my week")
    bobs = office.speaker("bob", discord.home.channel("ops"))
    thread_id = await bob.person.thread(bobs.channel, await bobs.says_id("what is planned?"), "what is planned?")
    there = Thread(bobs, thread_id)
    await bobs.says("hm", there)
    await bobs.says("!follow ot-1", there)
    await there.shows_text("plan my week")
    assert (await bobs.types("task follow", there, ref="OT-1")).texts == ["**OT-1** plan my week is shown here already."]
    message = await bobs.says_id("and mine", there)
    await office.says(alice.channel, home.id, "alice: plan my week", "bob: and mine")
    await home.shows_text("bob")

    answer = await bobs.types("task follow", there, ref="OT-1", read_only=True)
    assert answer.texts == ["**OT-1** plan my week is shown here from now on: it can only be read there."]
    await bobs.says("among us", there)
    await bobs.says("@onethread and hers", there)
    await office.tells(bobs, "OT-1 can only be read where you wrote. Write to it on the web: http://127.0.0.1:8420/conversations/")
    assert (await bobs.types("task unfollow", there)).texts == ["**OT-1** plan my week is not shown here any more."]
    await home.shows_text("bob stopped following this in")
    await bobs.edits(message, "and bob's", there)
    await office.says(alice.channel, home.id, "alice: plan my week", "bob: and bob's")


async def test_a_command_follows_in_a_new_thread_or_a_direct_message(discord: DiscordEmulator, office: Office, people: People) -> None:
    alice, _, _ = people
    home = await alice.says("@onethread plan my week")
    await office.says(alice.channel, home.id, "alice: plan my week")
    elsewhere = office.speaker("alice", discord.home.channel("ops"))
    offered = await elsewhere.person.autocomplete("task follow", "ref", "week", at=elsewhere.channel)
    assert [each["value"] for each in offered] == ["OT-1"]
    answer = await elsewhere.types("task follow", ref="OT-1")
    assert answer.texts == ["**OT-1** plan my week gets a thread of its own, in a moment: what is written there is part of it."]
    direct = await office.direct("alice")
    assert (await direct.types("task follow", ref="OT-1")).texts[0].startswith("**OT-1** plan my week is shown here from now on")
    await direct.says("and mine")
    await office.says(alice.channel, home.id, "alice: plan my week", "alice: and mine")
    voice = office.speaker("alice", discord.home.channel("talk", kind="voice"))
    assert (await voice.types("task follow", ref="OT-1")).texts == [
        "No thread can be made here. Follow it in a text channel, or in a thread."
    ]
    where = (await direct.types("task where")).content
    assert (where.count("on Discord"), "in a direct message on Discord" in where) == (3, True)
    assert (await elsewhere.types("task unfollow", ref="OT-1")).texts == ["**OT-1** plan my week is not shown in this channel any more."]


async def test_a_link_is_for_the_person_alone(office: Office, people: People) -> None:
    alice, _, _ = people
    answer = await alice.types("link")
    assert answer.ephemeral
    assert "http://127.0.0.1:8420/link/" in answer.content
