"""What people type behind /task, and what they are answered."""

from urllib.parse import urlencode

import pytest

from bots.commands import SUBCOMMANDS
from core.models import TaskStatus
from tests.emulators.slack import SlackEmulator
from tests.integration.slack.conftest import Office, Open, Speaker

pytestmark = pytest.mark.requires("slack-emulator")
People = tuple[Speaker, Speaker, Speaker]


async def test_new_makes_a_task_whose_thread_opens_with_its_card(office: Office, people: People, channel: str) -> None:
    alice, _, _ = people
    answer = await alice.types("/task new Buy milk")
    assert (answer["response_type"], answer["text"]) == ("ephemeral", "Made *OT-1* Buy milk · todo")
    history = await office.slack.until(lambda: alice.person.history(channel), lambda seen: "OT-1" in str(seen))
    (card,) = [each for each in history if "OT-1" in str(each)]
    await alice.person.say(channel, "oat milk", thread=card["ts"])
    await office.says(channel, card["ts"], "alice: oat milk")


async def test_new_with_a_word_that_slack_uses_itself_makes_a_task(office: Office, people: People) -> None:
    alice, _, _ = people
    await alice.types("/task new Measure the payload of the API")
    assert [task.title for task in await office.tasks()] == ["Measure the payload of the API"]


async def test_new_in_direct_messages_makes_a_private_task(office: Office, people: People) -> None:
    alice, _, _ = people
    direct = await alice.person.dm_channel()
    await alice.person.slash("/task", "new Buy a present", direct)
    assert await office.tasks() == []
    assert "Buy a present" in (await alice.types("/task list"))["text"]


async def test_the_same_command_told_again_makes_no_second_task(office: Office, people: People, channel: str) -> None:
    alice, _, _ = people
    form = {"team_id": office.slack.team_id, "user_id": alice.id, "channel_id": channel, "command": "/task", "trigger_id": "1.2.3"}
    body = urlencode({**form, "text": "new Buy milk"})
    answers = [await office.slack.post_to_app(body, "application/x-www-form-urlencoded") for _ in range(2)]
    assert [each.json["text"] for each in answers] == ["Made *OT-1* Buy milk · todo", "This task was made already."]
    assert len(await office.tasks()) == 1


async def test_list_shows_what_is_open_or_looked_for(office: Office, people: People) -> None:
    alice, _, _ = people
    for title in ("Buy milk", "Sell milk", "Paint the wall"):
        await alice.types(f"/task new {title}")
    await alice.types("/task assign OT-2 me")
    await alice.types("/task done OT-3")
    assert await _listed(alice, "") == ["• *OT-2* Sell milk · todo · alice", "• *OT-1* Buy milk · todo"]
    assert await _listed(alice, "done") == ["• *OT-3* Paint the wall · done"]
    assert await _listed(alice, "paint") == ["• *OT-3* Paint the wall · done"]
    assert (await alice.types("/task list in progress"))["text"] == "No task is in progress."
    assert (await alice.types("/task list violin"))["text"] == "No task has these words: violin"


async def test_a_list_of_nothing_says_of_what_there_is_none(office: Office, people: People) -> None:
    alice, _, _ = people
    assert (await alice.types("/task list done"))["text"] == "No task is done yet."
    await alice.types("/task new Buy milk")
    assert (await alice.types("/task list done"))["text"] == "No task is done yet."
    await alice.types("/task done OT-1")
    assert (await alice.types("/task list"))["text"] == "No task is open. Make one: `/task new <title>`"


async def test_an_answer_mentions_nobody_and_a_title_has_no_markup(office: Office, people: People) -> None:
    alice, bob, _ = people
    made = await alice.types(f"/task new **Ask** &lt;@{bob.id}&gt; and &lt;!channel&gt;")
    answers = [made["text"], *[(await alice.types(f"/task {each}"))["text"] for each in ("list", "show OT-1", f"list &lt;@{bob.id}&gt;")]]
    assert all(bob.id in each and f"<@{bob.id}>" not in each and "<!channel>" not in each for each in answers)
    assert [task.title for task in await office.tasks()] == [f"Ask <@{bob.id}> and <!channel>"]


async def test_a_title_that_is_too_long_is_refused_and_not_cut(office: Office, people: People) -> None:
    alice, _, _ = people
    assert (await alice.types(f"/task new {'a' * 201}"))["text"].startswith("A title has 1-200 characters; this one has 201.")


async def _listed(person: Speaker, what: str) -> list[str]:
    text = (await person.types(f"/task list {what}"))["text"]
    return [" ".join(line.split()) for line in text.splitlines()]


async def test_an_answer_is_for_the_person_alone(office: Office, people: People) -> None:
    alice, _, _ = people
    assert {(await alice.types(f"/task {text}"))["response_type"] for text in ("list", "help", "show OT-9", "nonsense")} == {"ephemeral"}


async def test_show_tells_of_a_task_and_where_its_thread_is(office: Office, people: People, channel: str) -> None:
    alice, _, _ = people
    thread = await alice.says("@onethread plan the party")
    await office.says(channel, thread.ts, "alice: plan the party")
    shown = (await alice.types("/task show ot-1"))["text"]
    assert "*OT-1* plan the party · todo" in shown
    assert "priority medium · assigned to nobody" in shown
    assert f"/client/{office.slack.team_id}/{channel}/thread/{channel}-{thread.ts}|Its thread>" in shown


@pytest.mark.parametrize(("who", "name"), [("me", "alice"), ("bob", "bob"), ("@bob", "bob"), ("Bob", "bob")])
async def test_assign_knows_people_by_many_names(office: Office, people: People, who: str, name: str) -> None:
    alice, bob, _ = people
    await bob.types("/task list")
    await alice.types("/task new Buy milk")
    assert (await alice.types(f"/task assign OT-1 {who}"))["text"] == f"*OT-1* Buy milk · todo · assigned to {name}"
    assert (await alice.types("/task assign OT-1 nobody"))["text"].endswith("assigned to nobody")


async def test_assign_takes_a_mention_of_somebody_who_never_came(office: Office, people: People) -> None:
    alice, _, carol = people
    await alice.types("/task new Buy milk")
    answer = await alice.types(f"/task assign OT-1 <@{carol.id}|carol>")
    assert answer["text"].endswith("assigned to carol")


async def test_assign_to_nobody_known_names_those_who_are(office: Office, people: People) -> None:
    alice, _, _ = people
    await alice.types("/task new Buy milk")
    assert (await alice.types("/task assign OT-1 zoe"))["text"] == "There is no user 'zoe'. Users: admin, alice."


async def test_done_marks_a_task(office: Office, people: People) -> None:
    alice, _, _ = people
    await alice.types("/task new Buy milk")
    assert (await alice.types("/task done OT-1"))["text"] == "*OT-1* Buy milk · done"
    assert [task.status for task in await office.tasks()] == [TaskStatus.DONE]


async def test_model_chooses_for_a_task(office: Office, people: People) -> None:
    alice, _, _ = people
    await alice.types("/task new Buy milk")
    assert (await alice.types("/task model OT-1"))["text"].splitlines()[0] == "Now: `one/model`"
    assert (await alice.types("/task model OT-1 openai/gpt-4o"))["text"] == "From now on: `openai/gpt-4o`"
    assert (await alice.types("/task model OT-1"))["text"].splitlines()[0] == "Now: `openai/gpt-4o`"
    assert (await alice.types("/task model OT-1 default"))["text"] == "From now on: `one/model`"
    assert (await alice.types("/task model OT-1 two words"))["text"].startswith("A model's id has")


async def test_where_a_conversation_is_shown_no_ref_is_needed(office: Office, people: People) -> None:
    alice, _, _ = people
    direct = await alice.person.dm_channel()
    await alice.person.dm("hello")
    await office.says(direct, "", "alice: hello")
    assert (await alice.person.slash("/task", "model openai/gpt-4o", direct)).json["text"] == "From now on: `openai/gpt-4o`"
    assert (await office.conversation(direct)).model == "openai/gpt-4o"
    assert (await alice.person.slash("/task", "done", direct)).json["text"].startswith("Say which task")


@pytest.mark.parametrize("text", ["", "help"])
async def test_help_shows_every_command(office: Office, people: People, text: str) -> None:
    alice, _, _ = people
    lines = (await alice.types(f"/task {text}"))["text"]
    assert all(f"`/task {name}" in lines for name in SUBCOMMANDS)


async def test_a_wrong_command_is_told_the_closest(office: Office, people: People) -> None:
    alice, _, _ = people
    assert (await alice.types("/task lst"))["text"].startswith("There is no such command. Did you mean `/task list`?")


async def test_without_a_database_one_is_told_so(office: Office, people: People) -> None:
    alice, _, _ = people
    office.storage.is_away = True
    assert (await alice.types("/task list"))["text"] == "The database is away."


async def test_slack_is_answered_in_time_and_the_person_is_told_the_end_later(office: Office, people: People) -> None:
    alice, _, _ = people
    await office.slack.fail("users.info", delay=3.5)
    answer = await alice.types("/task new Buy **milk**")
    assert answer["text"] == "This takes longer than Slack waits. I tell you here how it ended."
    await office.tells(alice, "Made OT-1 Buy milk · todo")
    assert len(await office.tasks()) == 1


async def test_only_channels_and_people_on_the_list_are_answered(open_office: Open, slack: SlackEmulator, channel: str) -> None:
    bob = await slack.person("bob")
    async with open_office(users=frozenset({bob.id}), channels=frozenset({channel})) as office:
        alice, talker, _ = await office.speakers(channel)
        elsewhere = await office.speaker("bob", await slack.channel())
        assert (await alice.types("/task list"))["text"].startswith("I may not talk with you yet.")
        assert (await elsewhere.types("/task list"))["text"].startswith("I do not answer in this channel.")
        assert (await talker.types("/task list"))["text"].startswith("No task is open.")
        direct = await talker.person.dm_channel()
        assert (await talker.person.slash("/task", "list", direct)).json["text"].startswith("No task is open.")
