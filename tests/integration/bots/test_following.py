"""A conversation that goes on elsewhere, followed at a place: what is shown there from the beginning to the end, and nowhere else."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from bots.delivery.theirs import standing
from bots.policy import ChannelRules, Policy
from bots.surface import Action, Busy, PlaceClosed, Unreachable
from core import bindings, conversations, tasks
from core.models import (
    AgentStatus,
    Binding,
    BindingCheck,
    BindingMode,
    ChannelKind,
    Decision,
    DeliveryState,
    Place,
    Summary,
    Visibility,
)
from tests.fake_surface import ACCOUNT, Fault, RemoteMessage
from tests.fakes import Call, Gate
from tests.integration.bots.conftest import EVERYWHERE, PLACE, THERE, Stage

MIA = "U7"
TWO_WAY, WATCH, OFF = BindingMode.TWO_WAY, BindingMode.WATCH, BindingMode.OFF


async def changed(stage: Stage, binding: Binding, mode: BindingMode, check: BindingCheck = BindingCheck.NONE) -> Binding:
    admin = stage.world.admin
    return await stage.world.write(
        lambda uow: bindings.change_mode(uow, admin, binding.id, mode, check=check, confirmed=True, source="test")
    )


def lines(stage: Stage, channel: str = "C2") -> list[str]:
    """What is read there, one line for each message: its text, or where it has none its first note."""
    return [_line(each) for each in stage.platform.shown(channel)]


def _line(message: RemoteMessage) -> str:
    return message.text.strip() or next(iter(message.part.notes), "")


# --- the beginning ---------------------------------------------------------------------------------------------------


async def test_a_place_that_follows_is_told_what_went_before_and_shown_what_comes(stage: Stage) -> None:
    task = await stage.world.task("Buy *milk*")
    home = await stage.bound(task.conversation_id, kind=ChannelKind.OPEN)
    stage.world.model.will("**Oat** milk, 2 * 2.").will("Done.")
    async with stage.world.working(), stage.delivering():
        await stage.world.ask(task.conversation_id, "Which [kind](https://evil.example) @everyone?")
        await stage.settled(home)
        await stage.platform.until(lambda: ("look_up", "C1") in stage.platform.calls)
        binding = await stage.followed(task.conversation_id)
        await stage.settled(binding)
        await stage.world.ask(task.conversation_id, "Then do")
        for each in (home, binding):
            await stage.settled(each)
    card, intro, *said = stage.platform.shown("C2")
    url = f"https://one.example/conversations/{task.conversation_id}"
    assert (card.part.is_card, intro.text) == (True, rf"Follows **[OT-1]({url})** Buy \*milk\*")
    count, first, last, how = intro.part.notes
    assert count.startswith("2 messages since ")
    assert count.endswith(", by admin.")
    assert first == "**First:** Which kind @\u2060everyone?"
    assert last == "**Last answer:** Oat milk, 2 \\* 2."
    assert how == "What is said here becomes part of it. `!unfollow` ends this."
    assert [each.text for each in said] == ["Then do", "Done."]
    assert card.part.notes[1:] == ("Also in #general on Fake",)
    at_home = lines(stage, "C1")
    assert at_home[1:] == [
        "Which [kind](https://evil.example) @\u2060everyone?",
        "**Oat** milk, 2 * 2.",
        "→ admin follows this in a channel on Fake from now on.",
        "Then do",
        "Done.",
    ]
    assert stage.platform.shown("C1")[0].part.notes[1:] == ("Also in a channel on Fake",)


async def test_a_reply_that_is_being_written_is_written_there_too_from_its_beginning(stage: Stage) -> None:
    chat = await stage.world.chat()
    home = await stage.bound(chat)
    gate = Gate()
    stage.world.model.will("One ", gate, "two")
    async with stage.world.working(), stage.delivering():
        await stage.world.post(chat.id, "Count")
        await stage.platform.until(lambda: stage.platform.newest().text == "One ")
        binding = await stage.followed(chat)
        await stage.platform.until(lambda: stage.platform.newest("C2").text == "One ")
        gate.open()
        for each in (home, binding):
            await stage.settled(each)
    assert lines(stage)[1:] == ["Count", "One two"]
    assert stage.platform.shown("C2")[0].part.notes[0] == "Nothing was said in it before."


async def test_what_was_summarised_is_told_in_short_and_what_is_deleted_is_told_no_longer(stage: Stage) -> None:
    chat = await stage.world.chat()
    noted = [await stage.world.note(chat.id, f"Note {number}") for number in range(3)]
    summary = Summary(conversation_id=chat.id, covers_to=2, text="They took\nnotes.", model="m", tokens=1, created_at=datetime.now(UTC))
    await stage.world.write(lambda uow: uow.summaries.add(summary))
    binding = await stage.followed(chat)
    async with stage.delivering():
        await stage.settled(binding)
        assert stage.platform.shown("C2")[0].part.notes[1] == "**So far:** They took notes."
        await stage.world.delete(noted[0].message_id)
        await stage.platform.until(lambda: stage.platform.shown("C2")[0].part.notes[1] == "**First:** Note 1")
        await stage.settled(binding)
    await stage.world.delete(noted[1].message_id)  # while nobody delivers
    async with stage.delivering():
        await stage.platform.until(lambda: stage.platform.shown("C2")[0].part.notes[1] == "**First:** Note 2")
        await stage.settled(binding)
    assert len(stage.platform.messages) == 1


async def test_a_private_conversation_says_at_a_place_who_reads_along_and_a_shared_one_in_a_private_place(stage: Stage) -> None:
    private, shared = await stage.world.chat(), await stage.world.chat()
    await stage.world.write(lambda uow: uow.conversations.update(shared.id, visibility=Visibility.SHARED))
    bound = [
        await stage.followed(private.id),
        await stage.followed(shared.id, replace(THERE, channel="D3"), kind=ChannelKind.DIRECT),
        await stage.followed(shared.id, replace(THERE, channel="C4"), mode=WATCH),
    ]
    async with stage.delivering():
        for binding in bound:
            await stage.settled(binding)
    how = [stage.platform.shown(channel)[0].part.notes[1].split(":")[0] for channel in ("C2", "D3", "C4")]
    assert how == ["What is said here becomes part of it. `!unfollow` ends this.", "What is said here becomes part of it", "Read-only"]


async def test_of_a_long_backlog_with_notices_in_it_one_sentence_is_left(stage: Stage) -> None:
    chat = await stage.world.chat()
    gate = Gate()
    stage.world.model.will(gate, "Late.")
    async with stage.world.working():
        await stage.world.post(chat.id, "Slow")
        await gate.reached()
        binding = await stage.followed(chat)
        for number in range(4):
            await stage.followed(chat, replace(THERE, channel=f"C{number + 5}"))
            await stage.world.note(chat.id, f"Note {number}")
        async with stage.delivering(backlog=3):
            gate.open()
            await stage.settled(binding)
    assert lines(stage)[1:] == [
        f"8 earlier messages are not shown here. [Read them all](https://one.example/conversations/{chat.id})",
        "Note 2",
        "→ admin follows this in a channel on Fake from now on.",
        "Note 3",
    ]


# --- many places -----------------------------------------------------------------------------------------------------


async def test_ten_places_of_one_account_two_of_them_in_one_channel_each_show_everything_once(stage: Stage) -> None:
    task = await stage.world.task("Everywhere")
    places = [Place(account=ACCOUNT, channel=f"C{number // 2}", thread=f"{number}.0") for number in range(10)]
    bound = [await stage.followed(task.conversation_id, place) for place in places]
    gate = Gate()
    stage.world.model.will("One ", gate, "two")
    async with stage.world.working(), stage.delivering():
        posted = await stage.world.post(task.conversation_id, "Go")
        await stage.platform.until(lambda: all(stage.platform.within(place.thread)[-1:] == ["One "] for place in places))
        gate.open()
        await stage.world.ended(posted)
        for binding in bound:
            await stage.settled(binding)
    for place in places:
        assert stage.platform.within(place.thread)[-2:] == ["Go", "One two"]
        assert len([each for each in stage.platform.within(place.thread) if each.startswith("Follows")]) == 1


# --- acting from elsewhere -------------------------------------------------------------------------------------------


async def test_who_decided_and_who_answered_elsewhere_is_shown_and_nothing_can_be_pressed_where_it_is_read_only(stage: Stage) -> None:
    task = await stage.world.task("Doomed")
    chat = await stage.world.chat()
    two_way, watch = await stage.followed(chat), await stage.followed(chat, replace(THERE, channel="C3"), mode=WATCH)
    url = f"https://one.example/conversations/{chat.id}"
    mia = await stage.world.user("mia", admin=True)
    await stage.world.write(lambda uow: conversations.join(uow, mia, chat.id))
    stage.world.model.will("I delete it.", Call("delete_task", {"ref": task.ref})).will(" Done.")
    stage.world.model.will("", Call("ask_user", {"question": "Which?", "options": ["Red", "Blue"]})).will("Blue it is.")
    async with stage.world.working(), stage.delivering():
        posted = await stage.world.post(chat.id, "Delete it")
        await stage.platform.until(lambda: [each.action for each in stage.platform.newest("C2").buttons] == [Action.APPROVE, Action.DENY])
        await stage.platform.until(lambda: stage.platform.newest("C3").notes[-1:] == (f"Read-only here: [answer on the web]({url})",))
        await stage.world.decide(await stage.world.approval(posted), Decision.APPROVE, mia)
        await stage.world.ended(posted)
        decided = f"✔ delete_task `ref={task.ref}` · approved by mia"
        await stage.platform.until(lambda: all(decided in stage.platform.newest(channel).notes for channel in ("C2", "C3")))
        asked = await stage.world.ask(chat.id, "Ask me")
        await stage.platform.until(lambda: [each.label for each in stage.platform.newest("C2").buttons] == ["Red", "Blue"])
        await stage.world.write(lambda uow: bindings.change_mode(uow, mia, two_way.id, WATCH, source="test"))
        await stage.platform.until(lambda: "read-only" in stage.platform.newest("C2").notes[0])
        question = next(each for each in stage.platform.shown("C2") if each.text == "Which?")
        await stage.platform.until(lambda: not question.part.buttons)
        await stage.world.answer(asked, "Blue", mia)
        await stage.platform.until(lambda: stage.platform.newest("C2").text == "Blue it is.")
        for each in (two_way, watch):
            await stage.settled(each)
    assert "✔ Answered by mia: Blue" in question.part.notes
    assert not any(part.buttons for each in stage.platform.shown("C3") for part in each.parts)


async def test_what_somebody_changed_elsewhere_is_told_once_where_they_wrote_it_and_kept_up_to_date(stage: Stage) -> None:
    chat = await stage.world.chat()
    home, there = await stage.bound(chat), await stage.followed(chat)
    stage.world.model.will("Tea.")
    async with stage.world.working(), stage.delivering():
        await stage.take_in(home, "Coffee?", "77", thread=PLACE.thread)
        await stage.settled(home)
        message = (await stage.world.read(lambda uow: uow.messages.page(chat.id, limit=3)))[1]
        await stage.platform.until(lambda: lines(stage)[1:] == ["Coffee?", "Tea."])
        await stage.world.edit(message.id, "Tea? *Or*")
        await stage.platform.until(lambda: lines(stage, "C1")[-1] == r"✎ admin changed elsewhere what they wrote here: Tea? \*Or\*")
        line = stage.platform.shown("C1")[-1]
        await stage.world.edit(message.id, "Water?")
        await stage.platform.until(lambda: line.part.notes == ("✎ admin changed elsewhere what they wrote here: Water?",))
    async with stage.delivering():  # another process knows that it was told
        await stage.world.edit(message.id, "Coffee?")
        await stage.platform.until(lambda: line.deleted)
        await stage.world.delete(message.id)
        await stage.platform.until(lambda: "deleted elsewhere" in lines(stage, "C1")[-1])
        for each in (home, there):
            await stage.settled(each)
    assert lines(stage)[1:] == ["Tea."]
    assert len(lines(stage, "C1")) == 3
    [row] = await stage.world.read(lambda uow: uow.deliveries.of_binding(home.id, [str(message.id)]))
    assert (row.state, row.shown) == (DeliveryState.THEIRS, standing("Coffee?"))


async def test_a_message_that_is_changed_elsewhere_before_it_is_answered_is_told_too(stage: Stage) -> None:
    chat = await stage.world.chat()
    home = await stage.bound(chat)
    async with stage.delivering():
        await stage.take_in(home, "Coffee?", "77", thread=PLACE.thread)
        await stage.platform.until(lambda: "No worker" in str(stage.platform.newest().notes))
        message, _ = await stage.world.read(lambda uow: uow.messages.page(chat.id, limit=2))
        await stage.world.edit(message.id, "Tea?")
        await stage.platform.until(lambda: lines(stage, "C1")[-1] == "✎ admin changed elsewhere what they wrote here: Tea?")


async def test_what_somebody_changed_where_they_wrote_it_is_told_nowhere(stage: Stage) -> None:
    chat = await stage.world.chat()
    home = await stage.bound(chat)
    stage.world.model.will("Tea.")
    async with stage.world.working(), stage.delivering():
        await stage.take_in(home, "Coffee?", "77", thread=PLACE.thread)
        await stage.settled(home)
        [message] = [each for each in await stage.world.read(lambda uow: uow.messages.page(chat.id, limit=2)) if each.author_id]
        [row] = await stage.world.read(lambda uow: uow.deliveries.of_binding(home.id, [str(message.id)]))

        async def edit_there(uow: Any) -> None:
            await uow.messages.update(message.id, content="Water?", edited_at=uow.now)
            await uow.deliveries.put(replace(row, shown=standing("Water?")))

        await stage.world.write(edit_there)
        await stage.world.note(chat.id, "And then")
        await stage.settled(home)
    assert lines(stage, "C1") == ["Tea.", "And then"]
    assert home.id not in await stage.world.read(lambda uow: uow.bindings.behind(ACCOUNT))


# --- the end, and again ----------------------------------------------------------------------------------------------


async def test_a_place_that_is_left_while_a_reply_is_written_there_says_where_it_goes_on(stage: Stage) -> None:
    chat = await stage.world.chat()
    home, binding = await stage.bound(chat), await stage.followed(chat)
    gate = Gate()
    stage.world.model.will("One ", gate, "two").will("Three")
    url = f"https://one.example/conversations/{chat.id}"
    async with stage.world.working(), stage.delivering():
        posted = await stage.world.post(chat.id, "Count")
        await stage.platform.until(lambda: stage.platform.newest("C2").text == "One ")
        stage.surface.will("post", *[Fault(error=Busy(0.5))] * 2)  # the last notice at both places
        await changed(stage, binding, OFF)
        await stage.platform.until(lambda: not stage.platform.shown("C2")[2].part.live)
        await stage.platform.until(lambda: stage.platform.statuses[THERE][-1][0] is AgentStatus.IDLE)
        gate.open()
        await stage.world.ended(posted)
        await stage.world.ask(chat.id, "More")
        for each in (home, binding):
            await stage.settled(each)
        assert (await stage.binding(binding)).status_shown is False
    intro, _, reply, end = stage.platform.shown("C2")
    assert (reply.text, reply.part.notes, reply.part.buttons, reply.part.live) == (
        "One ",
        (f"This goes on [on the web]({url}).",),
        (),
        False,
    )
    assert end.part.notes == ("→ admin stopped following this in a channel on Fake. What is said there is not part of it any more.",)
    assert intro.part.notes[-1] == "■ Not followed here any more."
    assert lines(stage, "C1")[-3:] == [
        "→ admin stopped following this in a channel on Fake. What is said there is not part of it any more.",
        "More",
        "Three",
    ]


async def test_a_place_that_is_left_before_anything_was_said_there_is_told_nothing(stage: Stage) -> None:
    task = await stage.world.task("Never there")
    binding = await stage.followed(task.conversation_id)
    await changed(stage, binding, OFF)
    async with stage.delivering():
        await stage.settled(binding)
    assert stage.platform.messages == {}


async def test_a_place_that_is_brought_back_goes_on_without_what_was_said_meanwhile(stage: Stage) -> None:
    chat = await stage.world.chat()
    binding = await stage.followed(chat)
    async with stage.delivering():
        await stage.world.note(chat.id, "One")
        await stage.settled(binding)
        await changed(stage, binding, OFF)
        await stage.settled(binding)
        await stage.world.note(chat.id, "Two")
        stage.surface.will("look_up", Fault(error=Unreachable("Nobody answers.")))
        await changed(stage, binding, TWO_WAY, BindingCheck.PLACE)
        await stage.world.note(chat.id, "Three")
        await stage.settled(binding)
    assert [each[:18] for each in lines(stage)[1:]] == ["One", "→ admin stopped fo", "Three", "→ This goes on her"]
    assert stage.platform.shown("C2")[0].part.notes[-1].startswith("What is said here becomes part of it.")


async def test_where_another_conversation_is_shown_since_the_reply_of_the_first_is_not_left_as_if_it_were_written(stage: Stage) -> None:
    chat, other = await stage.world.chat(), await stage.world.chat()
    binding = await stage.followed(chat)
    gate, blocked = Gate(), asyncio.Event()
    stage.world.model.will("One ", gate, "two")
    async with stage.world.working(), stage.delivering():
        posted = await stage.world.post(chat.id, "Count")
        await stage.platform.until(lambda: stage.platform.newest("C2").text == "One ")
        stage.surface.will("edit", Fault(until=blocked))
        await changed(stage, binding, OFF)
        await stage.until(lambda: not stage.surface.faults["edit"])
        second = await stage.followed(other.id)
        blocked.set()
        await stage.settled(second)
        await stage.until(lambda: not stage.platform.shown("C2")[2].part.live)
        gate.open()
        await stage.world.ended(posted)
    assert stage.platform.shown("C2")[2].part.notes[0].startswith("This goes on [on the web]")


async def test_a_place_that_fails_for_good_ends_where_everybody_sees_it(stage: Stage) -> None:
    task = await stage.world.task("Two places")
    home, binding = await stage.bound(task.conversation_id), await stage.followed(task.conversation_id)
    async with stage.delivering():
        await stage.settled(binding)
        stage.surface.closed["C2"] = PlaceClosed("It is archived.", reason="is_archived")
        await stage.world.note(task.conversation_id, "Still there?")
        await stage.until(lambda: not _is_written_to(binding))
        await stage.settled(home)
    assert (await stage.binding(binding)).ended == "is_archived"
    assert lines(stage, "C1")[-1] == "→ This is not shown in a channel on Fake any more. The channel is archived."
    assert stage.platform.shown("C1")[0].part.notes[1:] == ()


# --- what the platform is asked --------------------------------------------------------------------------------------

_LINK = Place(account=ACCOUNT, channel="C2", thread="")


async def _checked(stage: Stage, place: Place, check: BindingCheck = BindingCheck.PLACE, policy: Policy = EVERYWHERE) -> Binding:
    """What became of a place somebody wanted a task to be followed at that nobody knew anything of."""
    task = await stage.world.task("A task")
    binding = await stage.followed(task.conversation_id, place, kind=None, check=check)
    async with stage.delivering(policy=policy):
        await stage.settled(binding)
        await stage.until(lambda: not _is_written_to(binding))
    return await stage.binding(binding)


def _is_written_to(binding: Binding) -> bool:
    return f"delivery {binding.id}" in {task.get_name() for task in asyncio.all_tasks()}


async def test_in_a_channel_a_thread_is_made_for_it(stage: Stage) -> None:
    stage.platform.labels["C2"] = "#ops"
    binding = await _checked(stage, _LINK)
    card, intro = stage.platform.shown("C2")
    assert (card.place.thread, intro.place.thread, binding.thread) == ("", card.id, card.id)
    assert (binding.label, binding.kind, binding.url) == ("#ops", ChannelKind.OPEN, f"https://fake.example/C2/{card.id}")


async def test_a_link_to_a_thread_leads_into_it_and_the_name_of_a_private_place_stays_there(stage: Stage) -> None:
    stage.platform.parents["2.0"], stage.platform.labels["C2"] = "C2", "#secret"
    stage.platform.private.add("C2")
    binding = await _checked(stage, replace(_LINK, channel="2.0"))
    assert (binding.place, binding.label, binding.kind) == (THERE, "", ChannelKind.PRIVATE)
    assert {each.place for each in stage.platform.messages.values()} == {THERE}


async def test_in_a_direct_message_and_in_a_channel_of_one_chat_it_stands_there_itself(stage: Stage) -> None:
    direct = await _checked(stage, replace(_LINK, channel="D2"))
    chats = Policy(channel_rules={"C2": ChannelRules(mode="chat")})
    chat = await _checked(stage, _LINK, policy=chats)
    assert [(each.thread, each.opened) for each in (direct, chat)] == [("", True)] * 2


@pytest.mark.parametrize(
    ("reader", "missing", "policy", "reason"),
    [
        (False, False, EVERYWHERE, "not_a_reader"),
        (True, True, EVERYWHERE, "not_a_reader"),
        (True, False, Policy(channels=frozenset({"C1"})), "not_served"),
    ],
    ids=["no reader", "no channel", "not served"],
)
async def test_a_place_that_may_not_show_it_hears_not_a_word(
    stage: Stage, reader: bool, missing: bool, policy: Policy, reason: str
) -> None:
    await stage.known_as(MIA, "mia")
    await stage.known_as("U8", "mia")
    stage.platform.readers["C2"] = {MIA} if reader else set()
    stage.platform.missing = {"C2"} if missing else set()
    binding = await _checked(stage, _LINK, BindingCheck.PERSON, policy)
    assert (binding.ended, stage.platform.messages, stage.platform.told) == (reason, {}, [])
    assert await stage.world.read(lambda uow: uow.messages.page(binding.conversation_id, limit=1)) == []


async def test_a_platform_that_does_not_answer_is_asked_again_and_everything_comes_then(stage: Stage) -> None:
    await stage.known_as(MIA, "mia")
    stage.platform.readers["C2"] = {MIA}
    stage.surface.will("look_up", Fault(error=Busy(0.05)), Fault(error=Unreachable("Nobody answers.")), Fault(takes=1.0))
    binding = await _checked(stage, _LINK, BindingCheck.PERSON)
    assert (binding.ended, len(stage.platform.shown("C2"))) == (None, 2)


async def test_two_that_want_the_same_place_get_it_one_after_the_other(stage: Stage) -> None:
    stage.platform.parents["2.0"] = "C2"
    first = await _checked(stage, replace(_LINK, channel="2.0"))
    second = await _checked(stage, replace(_LINK, channel="2.0"))
    assert (first.ended, second.ended) == (None, "place_taken")
    assert len(stage.platform.shown("C2")) == 2


async def test_a_channel_that_shows_it_in_a_thread_already_gets_no_second_one(stage: Stage) -> None:
    first = await _checked(stage, _LINK)
    async with stage.delivering():
        second = await stage.followed(first.conversation_id, _LINK, kind=None, mode=WATCH, check=BindingCheck.PLACE)
        await stage.settled(second)
        await stage.settled(first)
        await stage.until(lambda: not _is_written_to(second))
    shown = await stage.world.read(lambda uow: uow.bindings.of_conversation(first.conversation_id))
    assert [(each.id, each.mode, each.ended) for each in shown] == [(first.id, WATCH, None)]
    _, intro, notice = stage.platform.shown("C2")
    assert (notice.place, _line(notice)) == (intro.place, "→ admin made this read-only in a channel on Fake.")


def test_a_renamed_channel_is_called_so_a_while_later_and_is_not_asked_for_before(play: Any) -> None:
    async def scenario(stage: Stage) -> None:
        chat = await stage.world.chat()
        binding = await stage.bound(chat, replace(THERE, channel="C1"))
        async with stage.delivering(idle_seconds=1.0, learned_seconds=30.0):
            for name, expected in (("#one", "#one"), ("#two", "#one"), ("#three", "#three")):
                stage.platform.labels["C1"] = name
                await stage.world.note(chat.id, name)
                await stage.settled(binding, seconds=100)
                await stage.until(lambda: not _is_written_to(binding), seconds=100)
                assert (await stage.binding(binding)).label == expected
                await asyncio.sleep(20)
        assert stage.platform.calls.count(("look_up", "C1")) == 2

    play(scenario)


async def test_a_task_that_was_put_away_and_left_is_not_taken_out_again(stage: Stage) -> None:
    task = await stage.world.task("Old")
    binding = await stage.followed(task.conversation_id)
    async with stage.delivering():
        await stage.settled(binding)
        await changed(stage, binding, OFF)
        await stage.settled(binding)
        calls = len(stage.platform.calls)
        await stage.world.write(lambda uow: tasks.update(uow, stage.world.admin, task.ref, {"status": "done"}))
        await stage.world.note(task.conversation_id, "Done")
        await stage.until(lambda: not _is_written_to(binding))
    assert len(stage.platform.calls) == calls
