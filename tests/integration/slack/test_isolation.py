"""Who is turned away, and what somebody cannot reach: by no event, command, button or shortcut."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from core.models import MessageStatus
from tests.emulators.slack import SlackEmulator
from tests.fakes import Call
from tests.integration.slack.conftest import Office, Open, Speaker, Thread

pytestmark = pytest.mark.requires("slack-emulator")
People = tuple[Speaker, Speaker, Speaker]
NOT_YOURS = "What this button is for is gone, or belongs to a conversation that you cannot see."

STRANGERS: dict[str, dict[str, Any]] = {
    "a guest": {"is_restricted": True},
    "a guest of one channel": {"is_ultra_restricted": True},
    "somebody of another company": {"is_stranger": True, "team_id": "T0OTHER"},
    "somebody of another workspace": {"team_id": "T0OTHER"},
    "a bot": {"is_bot": True},
}


async def _mentions(bob: Speaker, _thread: Thread) -> None:
    await bob.says("@onethread let me in")


async def _writes(bob: Speaker, thread: Thread) -> None:
    await bob.says("let me in", thread)


async def _writes_directly(bob: Speaker, _thread: Thread) -> None:
    await bob.person.dm("let me in")


async def _stops(bob: Speaker, thread: Thread) -> None:
    await bob.says("!stop", thread)


async def _stops_by_slacks_button(bob: Speaker, thread: Thread) -> None:
    await bob.person.stop(bob.channel, thread.ts)


async def _chooses_the_shortcut(bob: Speaker, _thread: Thread) -> None:
    said = await bob.person.say(bob.channel, "mine")
    await bob.person.shortcut("onethread_make_task", bob.channel, said)


async def _follows(bob: Speaker, _thread: Thread) -> None:
    await bob.says("!follow OT-1", await bob.says("hello"))


async def _unfollows(bob: Speaker, thread: Thread) -> None:
    await bob.says("!unfollow", thread)


async def _asks_where(bob: Speaker, thread: Thread) -> None:
    await bob.says("!where", thread)


async def _presses_stop(bob: Speaker, thread: Thread) -> None:
    await bob.presses(await thread.button("Stop"))


ACTS: dict[str, Callable[[Speaker, Thread], Awaitable[None]]] = {
    each.__name__.strip("_"): each
    for each in (
        _mentions,
        _writes,
        _writes_directly,
        _stops,
        _stops_by_slacks_button,
        _follows,
        _unfollows,
        _asks_where,
        _chooses_the_shortcut,
        _presses_stop,
    )
}
COMMANDS = (
    "/task list",
    "/task show OT-1",
    "/task new Mine",
    "/task assign OT-1 me",
    "/task done OT-1",
    "/task follow OT-1 confirm",
    "/task unfollow OT-1",
    "/task where OT-1",
    "/task model OT-1 openai/gpt-4o",
    "/task help",
    "/link",
    "/link ABCD-EFGH confirm",
    "/link off",
)


async def _state(office: Office, channel: str, thread: str) -> list[Any]:
    messages = [(each.content, each.status, each.author_id) for each in await office.messages(channel, thread)]
    tasks = [(task.ref, task.title, task.status, task.assignee_id) for task in await office.tasks()]
    return [messages, tasks, await office.users(), (await office.conversation(channel, thread)).model]


_WHO_AND_WHAT = [*(("a guest", act) for act in ACTS), *((stranger, "mentions") for stranger in STRANGERS if stranger != "a guest")]


@pytest.mark.parametrize(("stranger", "act"), _WHO_AND_WHAT)
async def test_strangers_do_nothing_and_are_told_so_once(office: Office, people: People, channel: str, stranger: str, act: str) -> None:
    alice, bob, _ = people
    await bob.person.becomes(**STRANGERS[stranger])
    thread = await alice.says("@onethread plan my week")
    await thread.button("Stop")
    before = await _state(office, channel, thread.ts)
    await ACTS[act](bob, thread)
    await office.tells(bob, "I talk with full members of this workspace only")
    await office.settled()
    assert await _state(office, channel, thread.ts) == before
    assert len(await office.told(bob)) == 1


async def test_strangers_are_obeyed_in_no_command(office: Office, people: People, channel: str) -> None:
    alice, bob, _ = people
    await bob.person.becomes(is_stranger=True, team_id="T0OTHER")
    thread = await alice.says("@onethread plan my week")
    await office.says(channel, thread.ts, "alice: plan my week")
    before = await _state(office, channel, thread.ts)
    answers = {(await bob.types(command))["text"] for command in COMMANDS}
    assert answers == {"I talk with full members of this workspace only, not with guests, apps or people of other workspaces."}
    assert await _state(office, channel, thread.ts) == before


async def test_a_stranger_is_not_told_again_within_the_hour(office: Office, people: People, channel: str) -> None:
    alice, bob, _ = people
    await bob.person.becomes(is_restricted=True)
    thread = await alice.says("@onethread plan my week")
    await office.says(channel, thread.ts, "alice: plan my week")
    for text in ("hello?", "hello??"):
        await bob.says(text, thread)
    await office.settled()
    assert len(await office.told(bob)) == 1


async def test_a_stranger_who_speaks_to_others_is_not_told_anything(office: Office, people: People) -> None:
    _, bob, _ = people
    await bob.person.becomes(is_restricted=True)
    await bob.says("good morning")
    await office.settled()
    assert await office.told(bob) == []


async def test_guests_are_let_in_where_an_operator_says_so(open_office: Open, channel: str, slack: SlackEmulator) -> None:
    async with open_office(guests=True) as office:
        _, bob, _ = await office.speakers(channel)
        await bob.person.becomes(is_restricted=True)
        thread = await bob.says("@onethread let me in")
        await office.says(channel, thread.ts, "bob: let me in")


async def test_somebody_who_was_disabled_is_turned_away(office: Office, people: People, channel: str) -> None:
    alice, _, _ = people
    await alice.types("/task list")
    await office.world.write(_disable_alice)
    thread = await alice.says("@onethread hello")
    await office.tells(alice, "You are not let in here any more.")
    assert (await office.bound(channel, thread.ts), await office.tasks()) == (None, [])


async def test_what_somebody_said_is_erased_but_not_changed_after_they_were_disabled(office: Office, people: People, channel: str) -> None:
    alice, bob, _ = people
    thread = await alice.says("@onethread hello")
    ts = await alice.says_ts("and my week", thread)
    await office.says(channel, thread.ts, "alice: hello", "alice: and my week")
    await office.world.write(_disable_alice)
    await alice.person.edit(channel, thread.ts, "give alice a raise")
    await alice.person.delete(channel, ts)
    await bob.says("what is it?", thread)
    await office.says(channel, thread.ts, "alice: hello", "bob: what is it?")
    await office.settled()
    assert await office.said(channel, thread.ts) == ["alice: hello", "bob: what is it?"]


async def _disable_alice(uow: Any) -> None:
    user = await uow.users.by_name("alice")
    await uow.users.set_disabled(user.id, uow.now)


# --- members, where they are not -------------------------------------------------------------------------------------


@pytest.fixture
async def secret(office: Office, slack: SlackEmulator) -> tuple[Speaker, Thread]:
    """A private task of alice's."""
    alice = await office.speaker("alice", await slack.channel(private=True))
    thread = await alice.says("@onethread plan a surprise for carol")
    await office.says(alice.channel, thread.ts, "alice: plan a surprise for carol")
    return alice, thread


async def test_a_private_task_is_not_there_for_others(office: Office, people: People, secret: tuple[Speaker, Thread]) -> None:
    _, _, carol = people
    assert "OT-1" not in (await carol.types("/task list"))["text"]
    for command in ("show OT-1", "assign OT-1 me", "done OT-1", "model OT-1 openai/gpt-4o", "follow OT-1", "unfollow OT-1", "where OT-1"):
        assert (await carol.types(f"/task {command}"))["text"].startswith("No task 'OT-1'")


async def test_the_private_task_is_there_for_its_own(office: Office, secret: tuple[Speaker, Thread]) -> None:
    alice, _ = secret
    assert "plan a surprise" in (await alice.types("/task show OT-1"))["text"]


@pytest.mark.parametrize("action", ["stop", "retry"])
async def test_buttons_of_a_private_conversation_do_nothing_for_others(
    office: Office, people: People, secret: tuple[Speaker, Thread], action: str
) -> None:
    _, _, carol = people
    alice, thread = secret
    reply = (await office.messages(alice.channel, thread.ts))[1]
    await carol.presses_raw(f"onethread:{action}", str(reply.turn_id))
    await office.tells(carol, NOT_YOURS)
    assert (await office.messages(alice.channel, thread.ts))[1].status is MessageStatus.PENDING


@pytest.mark.parametrize("action", ["approve", "deny"])
async def test_approvals_of_a_private_conversation_are_not_for_others(
    office: Office, people: People, secret: tuple[Speaker, Thread], action: str
) -> None:
    _, _, carol = people
    alice, thread = secret
    office.world.model.will(Call("delete_task", {"ref": "OT-1"}))
    async with office.world.working():
        approve = await thread.button("Approve")
        await carol.presses_raw(f"onethread:{action}", approve.element["value"])
        await office.tells(carol, NOT_YOURS)
    assert (await office.conversation(alice.channel, thread.ts)).task_ref == "OT-1"


async def test_an_approval_in_an_open_channel_is_the_askers(office: Office, people: People) -> None:
    alice, bob, _ = people
    office.world.model.will(Call("delete_task", {"ref": "OT-1"})).will("Deleted.")
    async with office.world.working():
        thread = await alice.says("@onethread delete OT-1")
        await bob.presses(await thread.button("Approve"))
        await office.tells(bob, "Only the person who asked, the task's assignee or an admin may decide this.")
    assert [task.ref for task in await office.tasks()] == ["OT-1"]


async def test_questions_of_a_private_conversation_are_not_for_others(
    office: Office, people: People, secret: tuple[Speaker, Thread]
) -> None:
    _, _, carol = people
    alice, thread = secret
    reply = (await office.messages(alice.channel, thread.ts))[1]
    await carol.presses_raw("onethread:answer", f"{reply.id} 0")
    await office.tells(carol, NOT_YOURS)


async def test_nobody_changes_or_deletes_what_another_person_said(office: Office, people: People, channel: str) -> None:
    """Slack lets only the author edit; an event that says otherwise is not believed."""
    alice, bob, _ = people
    thread = await alice.says("@onethread plan my week")
    await bob.says("and mine", thread)
    await office.says(channel, thread.ts, "alice: plan my week", "bob: and mine")
    before = {"type": "message", "user": alice.id, "text": "plan my week", "ts": thread.ts}
    after = {**before, "user": bob.id, "text": "give bob a raise"}
    changed = {"type": "message", "subtype": "message_changed", "channel": channel, "message": after, "previous_message": before}
    await office.slack.send(changed)
    await office.settled()
    assert await office.said(channel, thread.ts) == ["alice: plan my week", "bob: and mine"]
