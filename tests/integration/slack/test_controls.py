"""Buttons and the shortcut, as Slack sends them: what they do, and what the person is told where they do nothing."""

import pytest

from bots.slack.surface import SlackSurface
from core.models import MessageStatus
from tests.emulators.slack import SlackEmulator
from tests.integration.slack.conftest import Office, Speaker

pytestmark = pytest.mark.requires("slack-emulator")
People = tuple[Speaker, Speaker, Speaker]


async def test_stop_stops_the_reply(office: Office, people: People, channel: str) -> None:
    alice, bob, _ = people
    thread = await alice.says("@onethread plan my week")
    await bob.presses(await thread.button("Stop"))
    await office.settled()
    assert (await office.messages(channel, thread.ts))[1].status is MessageStatus.CANCELLED
    assert await office.told(bob) == []


async def test_stop_stops_the_reply_in_a_private_channel_for_who_did_not_write_there_yet(office: Office, slack: SlackEmulator) -> None:
    private = await slack.channel(private=True)
    alice, bob, _ = await office.speakers(private)
    thread = await alice.says("@onethread plan a surprise")
    await bob.presses(await thread.button("Stop"))
    await office.settled()
    assert (await office.messages(private, thread.ts))[1].status is MessageStatus.CANCELLED
    assert await office.told(bob) == []


async def test_whoever_presses_a_button_that_takes_long_is_told_later(office: Office, people: People) -> None:
    alice, _, _ = people
    await office.slack.fail("users.info", delay=3.5)
    await alice.presses_raw("onethread:stop", "no id")
    assert await office.told(alice) == []
    await office.tells(alice, "This button does not work any more.")


async def test_what_goes_wrong_with_one_button_leaves_the_rest_as_it_is(
    office: Office, people: People, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    alice, _, _ = people

    async def defect(*_: object) -> None:
        raise KeyError("a defect")

    monkeypatch.setattr(SlackSurface, "tell", defect)
    await alice.presses_raw("onethread:stop", "no id")
    monkeypatch.undo()
    await alice.presses_raw("onethread:stop", "no id")
    await office.tells(alice, "This button does not work any more.")
    logged = "".join(capsys.readouterr())
    assert "slack.not_told" in logged
    assert "slack.restarted" not in logged


async def test_a_button_that_came_too_late_tells_the_person_why(office: Office, people: People, channel: str) -> None:
    alice, bob, _ = people
    thread = await alice.says("@onethread plan my week")
    stop = await thread.button("Stop")
    await alice.presses(stop)
    retry = await thread.button("Retry")
    await alice.presses(retry)
    await bob.presses_raw("onethread:retry", retry.element["value"])
    await office.tells(bob, "Only a failed or stopped answer can be retried")
    assert await office.told(alice) == []


@pytest.mark.parametrize(
    ("action", "value"),
    [
        ("stop", "no id"),
        ("retry", ""),
        ("approve", "None"),
        ("deny", "00000000-0000-0000-0000-00000000000"),
        ("answer", "1"),
        ("answer:0", "x y"),
    ],
)
async def test_a_value_that_means_nothing_is_refused(office: Office, people: People, action: str, value: str) -> None:
    alice, _, _ = people
    await alice.presses_raw(f"onethread:{action}", value)
    await office.tells(alice, "This button does not work any more.")


@pytest.mark.parametrize("number", ["-1", "2", "99999999999999999999", "٢", ""])
async def test_an_option_that_a_question_does_not_have_is_refused(office: Office, people: People, channel: str, number: str) -> None:
    alice, _, _ = people
    thread = await alice.says("@onethread plan my week")
    await office.says(channel, thread.ts, "alice: plan my week")
    reply = (await office.messages(channel, thread.ts))[1]
    await alice.presses_raw("onethread:answer", f"{reply.id} {number}")
    await office.tells(alice, "This button does not work any more.")


@pytest.mark.parametrize("action", ["onethread:dance", "onethread:", "theirs:stop", "stop"])
async def test_buttons_of_others_are_acknowledged_and_left_alone(office: Office, people: People, action: str) -> None:
    alice, _, _ = people
    await alice.presses_raw(action, "1")
    assert (await office.users(), await office.told(alice)) == (["admin"], [])


async def test_without_a_database_the_person_is_told_to_press_again(office: Office, people: People) -> None:
    alice, _, _ = people
    await alice.types("/task list")
    office.storage.is_away = True
    await alice.presses_raw("onethread:stop", "1")
    office.storage.is_away = False
    await office.tells(alice, "The database is away.")


# --- the shortcut ----------------------------------------------------------------------------------------------------


async def test_a_reply_in_a_thread_becomes_a_task_with_what_was_said_before_it(office: Office, people: People, channel: str) -> None:
    alice, bob, carol = people
    thread = await bob.says("the printer is broken")
    ts = await carol.says_ts("we need a new one", thread)
    await alice.person.shortcut("onethread_make_task", channel, ts)
    imported = "Said in this thread before:\n\n**bob**:\n> the printer is broken\n\n**carol**:\n> we need a new one"
    await office.says(channel, thread.ts, f"alice: {imported}")
    assert [task.title for task in await office.tasks()] == ["we need a new one"]


async def test_a_direct_conversation_becomes_a_task_and_stays_private(office: Office, people: People) -> None:
    alice, _, _ = people
    ts = await alice.person.dm("Buy a present")
    direct = await alice.person.dm_channel()
    await office.says(direct, "", "alice: Buy a present")
    await alice.person.shortcut("onethread_make_task", direct, ts)
    await office.settled()
    conversation = await office.conversation(direct)
    assert (conversation.task_ref, conversation.visibility) == ("OT-1", "private")


async def test_what_is_a_task_already_is_told_its_ref(office: Office, people: People, channel: str) -> None:
    alice, bob, _ = people
    thread = await alice.says("@onethread plan my week")
    await office.says(channel, thread.ts, "alice: plan my week")
    await bob.person.shortcut("onethread_make_task", channel, thread.ts)
    await office.tells(bob, "This conversation belongs to OT-1 already.")
    assert len(await office.tasks()) == 1


async def test_the_message_of_a_bot_becomes_a_task_too(office: Office, people: People, channel: str) -> None:
    alice, _, _ = people
    posted = await office.slack.bot.chat_postMessage(channel=channel, text="Build 7 failed")
    await alice.person.shortcut("onethread_make_task", channel, str(posted["ts"]))
    await office.settled()
    assert [task.title for task in await office.tasks()] == ["Build 7 failed"]


async def test_another_shortcut_is_acknowledged_and_left_alone(office: Office, people: People, channel: str) -> None:
    alice, bob, _ = people
    thread = await bob.says("the printer is broken")
    assert (await alice.person.shortcut("something_else", channel, thread.ts)).status == 200
    await office.settled()
    assert await office.tasks() == []
