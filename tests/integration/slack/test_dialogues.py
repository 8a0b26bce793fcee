"""Who says what, and what the thread shows: with a worker, the delivery and the emulated Slack."""

from collections.abc import AsyncIterator

import pytest

from core.errors import ModelRefused
from tests.fakes import Call, Gate
from tests.integration.slack.conftest import Office, Speaker

pytestmark = pytest.mark.requires("slack-emulator")
People = tuple[Speaker, Speaker, Speaker]


@pytest.fixture(autouse=True)
async def _working(office: Office) -> AsyncIterator[None]:
    async with office.world.working():
        yield


async def test_a_thread_with_two_people(office: Office, people: People) -> None:
    alice, bob, _ = people
    model = office.world.model
    model.will("Monday: gym. Tuesday: tax.")
    thread = await alice.says("@onethread plan my week")
    await thread.shows("alice: <@U0ONETHREAD> plan my week", "onethread: Monday: gym. Tuesday: tax.")
    model.will("And on Wednesday bob cooks.")
    await bob.says("I can cook on Wednesday", thread)
    await thread.shows("bob: I can cook on Wednesday", "onethread: And on Wednesday bob cooks.")


async def test_the_model_reads_names_and_not_slacks_signs(office: Office, people: People) -> None:
    alice, _, carol = people
    thread = await alice.says(f"@onethread ask <@{carol.id}> &amp; me about <https://example.com|the page>")
    await thread.shows("onethread: OK.")
    (request,) = office.world.model.requests
    assert "ask @carol & me about [the page](https://example.com)" in str(request.messages)


async def test_a_reply_is_shown_while_it_grows(office: Office, people: People) -> None:
    alice, _, _ = people
    gate = Gate()
    office.world.model.will("Once upon a time", gate, " there was a task.")
    thread = await alice.says("@onethread tell me a story")
    await thread.shows("onethread: Once upon a time")
    gate.open()
    await thread.shows("onethread: Once upon a time there was a task.")


async def test_direct_messages_are_answered_there(office: Office, people: People) -> None:
    alice, _, _ = people
    office.world.model.will("Hello alice.")
    await alice.person.dm("hello")
    direct = await alice.person.dm_channel()
    await office.slack.until(
        lambda: alice.person.history(direct), lambda seen: any("Hello alice." in str(each.get("blocks")) for each in seen)
    )


async def test_called_into_a_thread_it_knows_what_was_said(office: Office, people: People) -> None:
    alice, bob, _ = people
    thread = await bob.says("the printer is broken")
    await alice.says("@onethread what can we do?", thread)
    await thread.shows("bob: the printer is broken", "onethread: OK.")
    assert "> the printer is broken" in str(office.world.model.requests[0].messages)


async def test_stop_ends_a_reply_where_it_is(office: Office, people: People) -> None:
    alice, bob, _ = people
    gate = Gate()
    office.world.model.will("Once upon a time", gate, " there was a task.")
    thread = await alice.says("@onethread tell me a story")
    await thread.shows("onethread: Once upon a time")
    await bob.says("!stop", thread)
    await thread.shows_text("Stopped")
    gate.open()
    await thread.shows("onethread: Once upon a time", "bob: !stop")


async def test_a_tool_waits_for_a_person_who_approves(office: Office, people: People) -> None:
    alice, _, _ = people
    model = office.world.model
    first = await alice.says("@onethread a task to delete")
    await first.shows("onethread: OK.")
    model.will(Call("delete_task", {"ref": "OT-1"})).will("Deleted.")
    thread = await alice.says("@onethread delete OT-1")
    await alice.presses(await thread.button("Approve"))
    await thread.shows("onethread: Deleted.")
    assert [task.ref for task in await office.tasks()] == ["OT-2"]


async def test_a_question_is_answered_by_a_button_and_everybody_sees_by_whom(office: Office, people: People) -> None:
    alice, bob, _ = people
    model = office.world.model
    model.will(Call("ask_user", {"question": "Which kind?", "options": ["oat", "soy"]})).will("Soy it is.")
    thread = await alice.says("@onethread buy milk")
    await thread.shows("onethread: Which kind?")
    await bob.presses(await thread.button("soy"))
    await thread.shows("onethread: Which kind?", "onethread: soy", "onethread: Soy it is.")
    await thread.shows_text("bob")


async def test_a_failed_reply_is_tried_again_by_its_button(office: Office, people: People) -> None:
    alice, _, _ = people
    office.world.model.will(ModelRefused("The key is wrong.", reason="KEY")).will("Here I am.")
    thread = await alice.says("@onethread hello")
    await thread.shows_text("The key is wrong.")
    await alice.presses(await thread.button("Retry"))
    await thread.shows("onethread: Here I am.")


async def test_a_message_becomes_a_task_by_the_shortcut(office: Office, people: People) -> None:
    alice, bob, _ = people
    thread = await bob.says("the printer is broken")
    assert (await alice.person.shortcut("onethread_make_task", alice.channel, thread.ts)).status == 200
    await thread.shows_text("OT-1")
    (task,) = await office.tasks()
    assert task.title == "the printer is broken"
    await alice.says("what can we do?", thread)
    await thread.shows("alice: what can we do?", "onethread: OK.")
    assert "> the printer is broken" in str(office.world.model.requests[0].messages)
