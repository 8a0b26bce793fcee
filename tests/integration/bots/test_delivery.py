"""Delivery over a real database and a platform that fails in every way."""

import asyncio
import time
from dataclasses import replace
from datetime import datetime
from uuid import UUID

import pytest
import structlog.testing

from bots.delivery import session
from bots.delivery.outlet import Outlet
from bots.delivery.picture import Picture
from bots.surface import Action, Limits
from core import bindings, conversations, messages, tasks
from core.events import ConversationRead, MessageChanged
from core.frames import Frame, snapshot
from core.ids import new_id
from core.llm.failures import Reason, failure
from core.models import AgentStatus, Binding, Decision, Delivery, DeliveryState
from tests.fakes import Call, Gate
from tests.integration.bots.conftest import EVERYWHERE, PLACE, QUICK, Shown, Stage


async def test_a_quick_answer_costs_one_call_for_each_message(stage: Stage) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    stage.world.model.will("Hello!")
    async with stage.world.working(), stage.delivering(first_seconds=2.0):
        await stage.world.ask(chat.id, "Hi")
        await stage.settled(binding)
    question, answer = stage.platform.shown()
    assert (question.text, question.part.speaker) == ("Hi", "admin, by test")
    assert answer.text == "Hello!"
    assert len(question.parts) == len(answer.parts) == 1
    assert not answer.part.live
    assert "one/model · 10 → 5 tokens · $0.0010" in answer.part.notes


async def test_that_somebody_read_it_elsewhere_is_no_reason_to_look(stage: Stage) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    read = ConversationRead(conversation_id=chat.id, user_id=stage.world.admin.user_id, seq=1)
    looked = []
    async with stage.delivering():
        await stage.world.note(chat.id, "Hi")
        await stage.settled(binding)
        await stage.until(lambda: not _looks(binding))
        for event in (read, MessageChanged(conversation_id=chat.id, message_id=new_id())):
            stage.world.app.live.publish(event)
            for _ in range(3):
                await asyncio.sleep(0)
            looked.append(_looks(binding))
    assert looked == [False, True]


def _looks(binding: Binding) -> bool:
    return f"delivery {binding.id}" in {task.get_name() for task in asyncio.all_tasks()}


async def test_a_reply_is_edited_while_it_grows_and_ends_in_its_final_form(stage: Stage) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    first, second = Gate(), Gate()
    stage.world.model.will("One ", first, "two ", second, "three")
    async with stage.world.working(), stage.delivering():
        posted = await stage.world.post(chat.id, "Count")
        await stage.platform.until(lambda: stage.platform.newest().text == "One ")
        stop = stage.platform.newest().buttons
        assert [(button.action, button.value) for button in stop] == [(Action.STOP, str(posted.turn_id))]
        first.open()
        await stage.platform.until(lambda: stage.platform.newest().text == "One two ")
        second.open()
        await stage.settled(binding)
    assert stage.platform.texts() == ["Count", "One two three"]
    assert stage.platform.newest().buttons == ()
    assert stage.platform.statuses[PLACE][0][0] is AgentStatus.THINKING
    assert stage.platform.statuses[PLACE][-1][0] is AgentStatus.IDLE
    assert not (await stage.binding(binding)).status_shown


async def test_messages_come_in_order_also_when_the_first_answer_takes_long(stage: Stage) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    gate = Gate()
    stage.world.model.will("First ", gate, "answer").will("Second answer")
    async with stage.world.working(), stage.delivering():
        await stage.world.post(chat.id, "One")
        await gate.reached()
        await stage.world.post(chat.id, "Two")
        await stage.platform.until(lambda: len(stage.platform.shown()) == 3)
        gate.open()
        await stage.settled(binding)
    assert stage.platform.texts() == ["One", "First answer", "Two", "Second answer"]


async def test_the_answer_that_is_written_says_how_many_come_after_it_and_these_are_not_begun(stage: Stage) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    gate = Gate()
    stage.world.model.will("First ", gate, "answer").will("Second answer").will("Third answer")
    async with stage.world.working(), stage.delivering():
        await stage.world.post(chat.id, "One")
        await gate.reached()
        await stage.world.post(chat.id, "Two")
        await stage.platform.until(lambda: "○ 1 more message is answered after this" in _notes(stage))
        await stage.world.post(chat.id, "Three")
        await stage.platform.until(lambda: "○ 2 more messages are answered after this" in _notes(stage))
        await stage.platform.until(lambda: stage.platform.texts() == ["One", "First ", "Two", "Three"])
        gate.open()
        await stage.settled(binding)
    assert sorted(stage.platform.texts()) == ["First answer", "One", "Second answer", "Third answer", "Three", "Two"]
    assert all(len(each.part.notes) <= 1 for each in stage.platform.shown())


def _notes(stage: Stage) -> list[str]:
    return [note for each in stage.platform.shown() for note in each.part.notes]


async def test_a_long_answer_is_shown_in_parts_that_stay_as_they_are(stage: Stage) -> None:
    stage.surface.limits_of = Limits(length=300, edit_seconds=0.01)
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    lines = [f"Line {number} of a long answer.\n" for number in range(40)]
    gates = [Gate() for _ in range(4)]
    items: list[str | Gate] = []
    for number, gate in enumerate(gates):
        items += [*lines[number * 10 : number * 10 + 10], gate]
    stage.world.model.will(*items)
    async with stage.world.working(), stage.delivering():
        await stage.world.post(chat.id, "Tell me everything")
        for gate in gates:
            await gate.reached()
            gate.open()
        await stage.settled(binding)
    parts = stage.platform.shown()[1:]
    assert len(parts) >= 4
    assert "\n".join(part.text for part in parts).split() == "".join(lines).split()
    assert all(not part.part.buttons and not part.part.notes for part in parts[:-1])
    assert all("tokens" in part.part.notes[-1] for part in parts[-1:])
    closed_at = [next(i for i, shown in enumerate(part.parts) if not shown.live) for part in parts[:-1]]
    assert all(len(part.parts) == number + 1 for part, number in zip(parts[:-1], closed_at, strict=True))


async def test_parts_that_a_second_attempt_does_not_need_disappear(stage: Stage) -> None:
    stage.surface.limits_of = Limits(length=300, edit_seconds=0.01)
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    gate = Gate()
    stage.world.model.will("A long beginning. " * 40, gate, failure(Reason.STREAM_CUT, "one/model")).will("Short.")
    async with stage.world.working(), stage.delivering():
        await stage.world.post(chat.id, "Go")
        await stage.platform.until(lambda: len(stage.platform.shown()) >= 4)
        gate.open()
        await stage.settled(binding)
    assert stage.platform.texts() == ["Go", "Short."]


async def test_a_part_that_cannot_be_changed_much_longer_is_closed_and_the_text_goes_on_in_a_new_one(stage: Stage) -> None:
    stage.surface.live_seconds_of = lambda _: 0.3
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    gate = Gate()
    stage.world.model.will("The beginning.\nAnd ", gate, "the end.")
    async with stage.world.working(), stage.delivering():
        await stage.world.post(chat.id, "Go")
        await stage.platform.until(lambda: len(stage.platform.shown()) == 3)
        gate.open()
        await stage.settled(binding)
    assert "\n".join(stage.platform.texts()[1:]).split() == ["The", "beginning.", "And", "the", "end."]
    assert "tokens" in stage.platform.newest().notes[-1]


async def test_a_part_that_ends_inside_code_goes_on_although_nothing_but_blanks_has_come_since(stage: Stage) -> None:
    stage.surface.live_seconds_of = lambda _: 0.3
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    blanks, end = Gate(), Gate()
    stage.world.model.will("```\nxxxxxxxxxxxx", blanks, "    ", end, "y\n```\nThe end.")
    with structlog.testing.capture_logs() as logs:
        async with stage.world.working(), stage.delivering():
            await stage.world.post(chat.id, "Go")
            await stage.platform.until(lambda: len(stage.platform.shown()) == 3)
            posted = len(stage.platform.messages)
            blanks.open()
            await stage.platform.until(lambda: len(stage.platform.messages) > posted + 1)
            end.open()
            await stage.settled(binding)
    assert [each for each in logs if each["event"] == "delivery.goes_in_circles"] == []
    assert "xxxxxxxxxxxx" in stage.platform.texts()[1]
    assert "The end." in stage.platform.newest().text


async def test_only_what_cannot_be_changed_much_longer_is_replaced_and_not_what_replaced_it(stage: Stage) -> None:
    streams = {"1001.0001": 0.2}
    stage.surface.live_seconds_of = streams.get
    stage.surface.limits_of = Limits(length=1000, edit_seconds=0.01, status_seconds=0.2)
    task = await stage.world.task("Old")
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    stage.world.model.will(Call("delete_task", {"ref": task.ref})).will("Done.")
    async with stage.world.working(), stage.delivering():
        posted = await stage.world.post(chat.id, "Delete it")
        await stage.platform.until(lambda: len(stage.platform.messages) == 3)
        shown = len(stage.platform.statuses[PLACE])
        await stage.platform.until(lambda: len(stage.platform.statuses[PLACE]) >= shown + 4)
        await stage.world.decide(await stage.world.approval(posted), Decision.APPROVE)
        await stage.settled(binding)
    assert len(stage.platform.messages) == 3
    assert stage.platform.texts() == ["Delete it", "Done."]


async def test_an_approval_is_asked_for_with_buttons_and_the_answer_goes_on_in_the_same_message(stage: Stage) -> None:
    task = await stage.world.task("Old")
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    stage.world.model.will("I delete it.", Call("delete_task", {"ref": task.ref})).will(" Done.")
    async with stage.world.working(), stage.delivering():
        posted = await stage.world.post(chat.id, "Delete it")
        await stage.platform.until(lambda: [b.action for b in stage.platform.newest().buttons] == [Action.APPROVE, Action.DENY])
        assert stage.platform.newest().notes[-1] == f"◎ May I run delete_task `ref={task.ref}`?"
        await stage.platform.until(lambda: stage.platform.statuses[PLACE][-1][0] is AgentStatus.WAITING_FOR_USER)
        await stage.world.decide(await stage.world.approval(posted), Decision.APPROVE)
        await stage.settled(binding)
    assert len(stage.platform.shown()) == 2
    assert stage.platform.newest().notes[0] == f"✔ delete_task `ref={task.ref}` · approved by admin"
    assert stage.platform.newest().buttons == ()
    assert stage.platform.statuses[PLACE][-1][0] is AgentStatus.IDLE


async def test_the_options_of_a_question_disappear_when_somebody_answers(stage: Stage) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    stage.world.model.will(Call("ask_user", {"question": "Which?", "options": ["Red", "Blue"]})).will("Fine.")
    async with stage.world.working(), stage.delivering():
        question = await stage.world.ask(chat.id, "Choose")
        await stage.settled(binding)
        asked = stage.platform.shown()[-1]
        assert [(b.label, b.value) for b in asked.part.buttons] == [("Red", f"{question.id} 0"), ("Blue", f"{question.id} 1")]
        await stage.world.answer(question, "Red")
        await stage.platform.until(lambda: "Fine." in stage.platform.texts())
        await stage.settled(binding)
    assert asked.part.buttons == ()
    assert stage.platform.texts() == ["Choose", "Which?", "Red", "Fine."]


async def test_an_edit_and_a_deletion_reach_what_was_delivered(stage: Stage) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    async with stage.delivering():
        first = await stage.world.note(chat.id, "Helo")
        second = await stage.world.note(chat.id, "Never mind")
        await stage.settled(binding)
        await stage.world.edit(first.message_id, "Hello")
        await stage.world.delete(second.message_id)
        await stage.settled(binding)
    assert stage.platform.texts() == ["Hello"]


async def test_a_stopped_answer_says_so_and_a_retry_goes_on_in_its_place(stage: Stage) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    gate = Gate()
    stage.world.model.will("Half ", gate).will("Whole")
    async with stage.world.working(), stage.delivering():
        posted = await stage.world.post(chat.id, "Go")
        await stage.platform.until(lambda: stage.platform.newest().text == "Half ")
        await stage.world.cancel(posted)
        await stage.settled(binding)
        stopped = stage.platform.shown()[-1].part
        assert stopped.notes == ("■ Stopped.",)
        assert [(b.action, b.value) for b in stopped.buttons] == [(Action.RETRY, str(posted.turn_id))]
        gate.open()
        await stage.world.retry(posted)
        await stage.world.ended(posted)
        await stage.settled(binding)
    assert stage.platform.texts() == ["Go", "Whole"]


async def test_what_broke_off_cannot_be_tried_again_from_there_once_another_turn_came(stage: Stage) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    gate = Gate()
    stage.world.model.will("Half ", gate).will("Fine.")
    async with stage.world.working(), stage.delivering():
        posted = await stage.world.post(chat.id, "Go")
        await gate.reached()
        await stage.world.cancel(posted)
        await stage.settled(binding)
        await stage.world.note(chat.id, "A remark, which nobody answers")
        await stage.settled(binding)
        stopped = stage.platform.shown()[1]
        assert [button.action for button in stopped.part.buttons] == [Action.RETRY]
        await stage.world.ask(chat.id, "Something else")
        await stage.settled(binding)
    assert stopped.part.buttons == ()
    assert stopped.part.notes == ("■ Stopped.",)
    assert stage.platform.texts() == ["Go", stopped.text, "A remark, which nobody answers", "Something else", "Fine."]


async def test_an_answer_whose_end_was_told_but_not_read_yet_is_shown_as_far_as_it_was_told(stage: Stage) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    posted = await stage.world.post(chat.id, "Go")
    outlet = Outlet(stage.surface, await stage.held(), EVERYWHERE, QUICK.delivery)
    picture = Picture(stage.services(), outlet, binding, [])
    picture.apply(Frame("snapshot", await stage.world.read(lambda uow: snapshot(uow, chat, reader=stage.world.admin.user_id, limit=10))))
    await picture.refresh()
    told = {"message_id": str(posted.reply_id), "content": "The whole answer.", "status": "completed", "metadata": {}}
    picture.apply(Frame("llm_delta", {"message_id": told["message_id"], "stream_no": 1, "offset": 0, "delta": "The whole "}))
    picture.apply(Frame("llm_complete", told))
    shown = picture.view(picture.items[-1])
    assert shown is not None
    assert (shown.text, shown.ended) == ("The whole answer.", False)


async def test_a_task_gets_a_card_that_follows_it_before_its_first_message(stage: Stage) -> None:
    task = await stage.world.task("Write the report")
    binding = await stage.bound(task.conversation_id)
    async with stage.delivering():
        await stage.world.note(task.conversation_id, "Hello")
        await stage.settled(binding)
        card, _ = stage.platform.shown()
        assert card.part.is_card
        assert card.text == f"**[{task.ref}](https://one.example/conversations/{task.conversation_id})** Write the report"
        assert card.part.notes == ("○ Todo",)
        await stage.world.write(lambda uow: tasks.update(uow, stage.world.admin, task.ref, {"status": "done"}))
        await stage.platform.until(lambda: card.part.notes == ("✔ Done",))
        await stage.settled(binding)


async def test_a_thread_is_opened_on_the_card_where_it_does_not_exist_yet(stage: Stage) -> None:
    task = await stage.world.task("Write the report")
    binding = await stage.bound(task.conversation_id, replace(PLACE, thread="new-1"), opened=False)
    async with stage.delivering():
        await stage.world.note(task.conversation_id, "Hello")
        await stage.settled(binding)
    card, said = stage.platform.shown()
    assert (card.place.thread, card.part.is_card) == ("", True)
    assert (said.place.thread, said.text) == (card.id, "Hello")
    opened = await stage.binding(binding)
    assert (opened.opened, opened.thread) == (True, card.id)


async def test_a_deleted_conversation_gets_a_last_word_where_it_was_live(stage: Stage) -> None:
    chat = await stage.world.chat()
    await stage.bound(chat)
    gate = Gate()
    stage.world.model.will("Half ", gate)
    async with stage.world.working(), stage.delivering():
        await stage.world.post(chat.id, "Go")
        await stage.platform.until(lambda: stage.platform.newest().text == "Half ")
        await stage.world.write(lambda uow: conversations.delete(uow, stage.world.admin, chat.id))
        await stage.platform.until(lambda: stage.platform.newest().notes == ("■ This conversation was deleted.",))
        await stage.platform.until(lambda: stage.platform.statuses[PLACE][-1][0] is AgentStatus.IDLE)
        gate.open()


async def test_a_long_backlog_is_left_out_with_a_link(stage: Stage) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    for number in range(9):
        await stage.world.note(chat.id, f"Message {number}")
    async with stage.delivering(backlog=3):
        await stage.settled(binding)
    assert stage.platform.texts() == [
        f"6 earlier messages are not shown here. [Read them all](https://one.example/conversations/{chat.id})",
        "Message 6",
        "Message 7",
        "Message 8",
    ]


async def test_what_was_said_before_the_place_was_bound_stays_away_also_when_it_is_answered_there(stage: Stage) -> None:
    chat = await stage.world.chat()
    stage.world.model.will(Call("ask_user", {"question": "Which?", "options": ["Red", "Blue"]})).will("Fine.")
    async with stage.world.working(), stage.delivering():
        question = await stage.world.ask(chat.id, "Choose")
        binding = await stage.bound(chat)
        await stage.world.answer(question, "Red")
        await stage.platform.until(lambda: stage.platform.newest().text == "Fine.")
        await stage.settled(binding)
    assert stage.platform.texts() == ["Red", "Fine."]


async def test_what_came_from_the_place_is_not_said_there_again(stage: Stage) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    stage.world.model.will("Hello!")
    async with stage.world.working(), stage.delivering():
        async with stage.world.app.storage.write() as uow:
            posted = await messages.post(uow, stage.world.admin, chat.id, "Hi", rules=stage.world.app.rules, source="fake")
            await uow.deliveries.put(_theirs(binding, posted.message_id, uow.now))
        await stage.platform.until(lambda: stage.platform.newest().text == "Hello!")
        await stage.settled(binding)
    assert stage.platform.texts() == ["Hello!"]


def _theirs(binding: Binding, message_id: UUID, now: datetime) -> Delivery:
    return Delivery(
        binding_id=binding.id,
        item=str(message_id),
        part=0,
        message_id=message_id,
        revision=1,
        remote_id="17.0001",
        nonce=new_id(),
        state=DeliveryState.THEIRS,
        end=None,
        shown="",
        sent_at=now,
    )


async def test_a_long_message_that_is_changed_is_cut_anew(stage: Stage) -> None:
    stage.surface.limits_of = Limits(length=300, edit_seconds=0.01)
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    async with stage.delivering():
        posted = await stage.world.note(chat.id, "Some words of a long message.\n\n" * 30)
        await stage.settled(binding)
        assert len(stage.platform.shown()) == 4
        await stage.world.edit(posted.message_id, "Other words of a long text.\n\n" * 15)
        await stage.settled(binding)
    assert "\n".join(stage.platform.texts()).split() == ("Other words of a long text.\n\n" * 15).split()
    assert len(stage.platform.shown()) == 2
    assert all(text.rstrip().endswith("text.") for text in stage.platform.texts())


async def test_an_answer_of_too_many_parts_ends_with_a_file_and_loses_it_with_its_length(stage: Stage) -> None:
    stage.surface.limits_of = Limits(length=300, parts=3, edit_seconds=0.01)
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    gate = Gate()
    text = "Some words of a long answer.\n" * 60
    stage.world.model.will(text[:1000], gate, text[1000:])
    async with stage.world.working(), stage.delivering():
        await stage.world.post(chat.id, "Tell me everything")
        await stage.platform.until(lambda: "as a file" in " ".join(stage.platform.newest().notes))
        gate.open()
        await stage.settled(binding)
        parts = stage.platform.shown()[1:]
        assert [part.part.file and part.part.file.text for part in parts] == [None, None, text]
        note = await stage.world.note(chat.id, text)
        await stage.settled(binding)
        assert stage.platform.newest().file
        await stage.world.edit(note.message_id, text[:800])
        await stage.settled(binding)
    assert len(stage.platform.shown()) == 7
    assert stage.platform.newest().file is None


async def test_an_ended_place_gets_nothing_until_it_is_taken_up_again(stage: Stage) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    async with stage.delivering():
        await stage.world.note(chat.id, "One")
        await stage.settled(binding)
        await stage.world.write(lambda uow: bindings.end(uow, binding, "is_archived"))
        await stage.world.note(chat.id, "Two")
        ended = await stage.binding(binding)
        await stage.world.write(lambda uow: bindings.revive(uow, ended))
        await stage.world.note(chat.id, "Three")
        await stage.platform.until(lambda: stage.platform.newest().text == "Three")
    one, back, three = stage.platform.shown()
    assert (one.text, back.part.notes[0][:25], three.text) == ("One", "→ This goes on here again", "Three")


async def test_an_edit_that_becomes_due_between_two_looks_is_made_all_the_same(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly() -> float:
        time.sleep(0.03)
        return asyncio.get_running_loop().time()

    monkeypatch.setattr(session, "_now", slowly)
    stage.surface.limits_of = Limits(length=1000, edit_seconds=0.065)  # text comes every 0.05 seconds
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    texts = [" ".join(map(str, range(number + 1))) for number in range(8)]
    gates = [Shown(stage.platform, PLACE.channel, text) for text in texts]
    stage.world.model.will(*(item for number, gate in enumerate(gates) for item in (f" {number}" if number else "0", gate)))
    async with stage.world.working(), stage.delivering():
        await stage.world.post(chat.id, "Count")
        await stage.settled(binding)
    assert stage.platform.texts() == ["Count", texts[-1]]
