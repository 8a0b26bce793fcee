"""A task is followed where people are in Slack: by a command in a channel, by a message in a thread."""

import pytest

from tests.integration.slack.conftest import Office, Speaker, Thread

pytestmark = pytest.mark.requires("slack-emulator")
People = tuple[Speaker, Speaker, Speaker]


async def test_a_thread_of_people_follows_a_task_as_long_as_they_want(office: Office, people: People, channel: str) -> None:
    alice, _, _ = people
    home = await alice.says("@onethread plan my week")
    await office.says(channel, home.ts, "alice: plan my week")
    bobs = await office.speaker("bob", await office.slack.channel())
    there = await bobs.says("what is planned?")
    await bobs.says("hm", there)
    await office.slack.disturb("repeat")
    await bobs.says("!follow ot-1", there)
    await there.shows_text("plan my week")
    await bobs.says("!follow OT-1", there)
    await office.tells(bobs, "OT-1 plan my week is shown here already.")
    ts = await bobs.says_ts("and mine", there)
    await office.says(channel, home.ts, "alice: plan my week", "bob: and mine")
    await home.shows_text("bob")

    await bobs.says("!follow OT-1 read-only", there)
    await bobs.says("@onethread and hers", there)
    await office.tells(bobs, "OT-1 can only be read where you wrote. Write to it on the web: http://127.0.0.1:8420/conversations/")
    await bobs.says("@onethread !unfollow", there)
    await home.shows_text("bob stopped following this in")
    await bobs.person.edit(bobs.channel, ts, "and bob's")
    await office.says(channel, home.ts, "alice: plan my week", "bob: and bob's")
    assert await office.told(alice) == []


async def test_a_command_follows_in_a_thread_that_begins_with_the_card(office: Office, people: People, channel: str) -> None:
    alice, _, _ = people
    home = await alice.says("@onethread plan my week")
    await office.says(channel, home.ts, "alice: plan my week")
    elsewhere = await office.speaker("alice", await office.slack.channel())
    page = f"http://127.0.0.1:8420/conversations/{(await office.conversation(channel, home.ts)).id}"
    answer = await elsewhere.types(f"/task follow <{page}>")
    assert answer["text"] == "*OT-1* plan my week gets a thread of its own, in a moment: what is written there is part of it."
    history = await office.slack.until(lambda: elsewhere.person.history(elsewhere.channel), lambda seen: "OT-1" in str(seen))
    there = Thread(elsewhere, next(each["ts"] for each in history if "OT-1" in str(each)))
    await elsewhere.says("and mine", there)
    await office.says(channel, home.ts, "alice: plan my week", "alice: and mine")
    where = (await elsewhere.types("/task where OT-1"))["text"]
    assert (where.count("on Slack"), where.count("two-way")) == (2, 2)
    assert (await elsewhere.types("/task unfollow"))["text"].startswith("Nothing is followed here.")
    assert (await elsewhere.types("/task unfollow OT-1"))["text"] == "*OT-1* plan my week is not shown in this channel any more."


async def test_a_link_is_for_the_person_alone(office: Office, people: People) -> None:
    alice, _, _ = people
    answer = await alice.types("/link")
    assert answer["response_type"] == "ephemeral"
    assert "http://127.0.0.1:8420/link/" in answer["text"]
