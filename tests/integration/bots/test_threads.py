"""Threads that must be made before anything is said in them: what is said meanwhile, and what becomes of them. In virtual time."""

import asyncio
from collections import deque
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest

from bots.pacing import Budget
from bots.places import Places
from bots.policy import Policy
from bots.surface import Busy, Call, Limits, NoThread, Part, PlaceClosed, Unclear, Unreachable
from core import bindings, conversations, tasks
from core.ids import new_id
from core.models import CARD, Binding, Delivery, Place, Task
from core.ports import ModelRequest, UnitOfWork
from tests.fake_surface import ACCOUNT, Enforced, FakeSurface, Fault, RemoteMessage, RemoteThread
from tests.fakes import Gate, Item, ScriptedModel
from tests.integration.bots.conftest import Database, Play, Stage

_SPOKEN = 10.0
"""Seconds, of an answer of 40 words."""
TOP = Place(account=ACCOUNT, channel="C1", thread="")


class Pause(Gate):
    """Between two words."""

    async def passing(self) -> None:
        await asyncio.sleep(_SPOKEN / 40)


class Mention:
    """A task that was made of what a person said at a channel's top, as the intake makes it."""

    def __init__(self, stage: Stage, task: Task, root: str, binding: Binding) -> None:
        self._stage = stage
        self.task = task
        self.root = root
        self.start = binding

    async def binding(self) -> Binding:
        return await self._stage.binding(self.start)

    @property
    def thread(self) -> list[str]:
        """The texts in its thread."""
        return self._stage.platform.within(self.root)

    @property
    def card(self) -> str:
        return f"**[{self.task.ref}](https://one.example/conversations/{self.task.conversation_id})** {self.task.title}"

    async def say(self, text: str, thread: str = "") -> None:
        """A person says something to it, at the channel's top or in its thread."""
        said = self._stage.platform.post(Place(account=ACCOUNT, channel="C1", thread=thread), Part(text=text), new_id())
        await self._stage.take_in(self.start, text, said, thread)


async def mention(stage: Stage, title: str, text: str = "Do it") -> Mention:
    async with stage.world.app.storage.write() as uow:
        made = await _bound(stage, uow, title, text)
    await stage.take_in(made.start, text, made.root)
    return made


async def _bound(stage: Stage, uow: UnitOfWork, title: str, text: str = "Do it") -> Mention:
    root = stage.platform.post(TOP, Part(text=text), new_id())
    task = await tasks.create(uow, stage.world.admin, title, {})
    place = Place(account=ACCOUNT, channel="C1", thread=root)
    return Mention(stage, task, root, await bindings.bind(uow, stage.world.admin, task.conversation_id, place, opened=False))


def test_the_thread_is_made_on_what_the_person_said_and_begins_with_the_card(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        async with stage.answering(), stage.delivering():
            plan = await mention(stage, "Plan the trip")
            await stage.platform.until(lambda: plan.thread == [plan.card, "OK."])
            await stage.settled(plan.start)
        assert stage.platform.texts() == ["Do it", plan.card, "OK."]
        assert stage.platform.threads[plan.root].names == [f"{plan.task.ref} Plan the trip"]
        assert (await plan.binding()).opened

    play(scenario)


def test_what_is_said_while_thread_making_is_turned_away_for_minutes_is_a_reply_and_the_threads_come_later_once(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        stage.platform.enforced["open"] = Enforced(calls=3, seconds=280.0, times=deque([0.0] * 3))
        async with stage.answering(), stage.delivering():
            asked = [await mention(stage, f"Task {number}", f"Do {number}") for number in range(3)]
            await stage.platform.until(lambda: stage.platform.texts().count("OK.") == 3)
            assert _now() < 5
            answers = [each for each in stage.platform.shown() if each.text == "OK."]
            # Three writers wait for one budget, and none for another.
            assert sorted(each.answers for each in answers) == [each.root for each in asked]
            assert stage.platform.threads == {}
            await stage.platform.until(lambda: len(stage.platform.threads) == 3, seconds=400)
            await stage.platform.until(lambda: [each.thread for each in asked] == [[each.card] for each in asked])
            assert _now() > 280
            await asked[1].say("And then?", asked[1].root)
            await stage.platform.until(lambda: asked[1].thread == [asked[1].card, "And then?", "OK."])
            for each in asked:
                await stage.settled(each.start)
        assert stage.platform.refused <= 3

    play(scenario)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _calls(stage: Stage, what: str) -> int:
    return [name for name, _ in stage.platform.calls].count(what)


def test_an_answer_that_began_in_the_channel_ends_there_and_what_comes_after_it_stands_in_the_thread(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        first, second = Gate(), Gate()
        stage.world.model.will("One ", first, "two ", second, "three").will("Four")
        stage.surface.will("open", Fault(error=Busy(20.0)))
        async with stage.answering(), stage.delivering():
            plan = await mention(stage, "Count")
            await stage.platform.until(lambda: "One " in stage.platform.texts())
            await stage.platform.until(lambda: stage.platform.threads, seconds=60)
            first.open()
            await stage.platform.until(lambda: "One two " in stage.platform.texts())
            await plan.say("Go on", plan.root)
            await stage.platform.until(lambda: plan.thread == [plan.card, "Go on"])
            second.open()
            await stage.platform.until(lambda: plan.thread == [plan.card, "Go on", "Four"])
            await stage.settled(plan.start)
        [answer] = [each for each in stage.platform.shown() if each.text == "One two three"]
        assert (answer.place, answer.answers) == (TOP, plan.root)
        assert not answer.part.live

    play(scenario)


def test_an_answer_waits_a_moment_for_its_thread_and_goes_to_the_channel_if_that_takes_longer(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        stage.surface = FakeSurface(stage.platform, call_seconds=10.0, makes_threads=True)
        stage.surface.will("open", Fault(takes=2.5), Fault(takes=8.0))
        async with stage.answering(), stage.delivering():
            quick = await mention(stage, "Quick")
            await stage.platform.until(lambda: quick.thread == [quick.card, "OK."])
            began = _now()
            slow = await mention(stage, "Slow")
            await stage.platform.until(lambda: stage.platform.texts().count("OK.") == 2)
            assert _now() - began < 5
            assert stage.platform.shown()[-1].answers == slow.root
            await stage.platform.until(lambda: slow.thread == [slow.card], seconds=60)

    play(scenario)


def test_without_the_message_that_it_is_about_there_is_no_thread_and_the_answer_stands_in_the_channel(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        async with stage.answering():
            plan = await mention(stage, "Plan")
            stage.platform.delete(plan.root)
            async with stage.delivering():
                await stage.platform.until(lambda: stage.platform.texts() == [plan.card, "OK."])
                await stage.settled(plan.start)
            async with stage.delivering():
                await asyncio.sleep(60)
        assert _calls(stage, "open") == 1
        binding = await plan.binding()
        assert (binding.opened, binding.ended) == (False, None)

    play(scenario)


def test_where_no_threads_are_allowed_a_takeover_of_many_places_asks_for_few(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        stage.surface.budgets_of[Call.OPEN] = {"open": Budget(calls=5, seconds=10, burst=5)}
        stage.surface.will("open", *[Fault(error=NoThread("Nobody allows it."))] * 500)
        plan = await mention(stage, "Plan")
        async with stage.world.app.storage.write() as uow:
            for number in range(500):
                chat = await conversations.create(uow, stage.world.admin)
                await bindings.bind(uow, stage.world.admin, chat.id, replace(TOP, thread=f"{number}.1"), opened=False)
        async with stage.answering():
            async with stage.delivering():
                await asyncio.sleep(100)
            assert _calls(stage, "open") <= 10
            assert await stage.world.read(lambda uow: uow.bindings.behind(ACCOUNT)) == []
            async with stage.delivering():
                before = _now()
                await plan.say("And now?")
                await stage.platform.until(lambda: stage.platform.texts()[-1] == "OK.")
                assert _now() - before < 5
                assert stage.platform.shown()[-1].answers == stage.platform.shown()[-2].id
            assert _calls(stage, "open") <= 11

    play(scenario)


def test_threads_are_made_again_once_people_allow_it(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        stage.surface.will("open", Fault(error=NoThread("Nobody allows it.")))
        async with stage.answering(), stage.delivering():
            plan = await mention(stage, "Plan")
            await stage.platform.until(lambda: "OK." in stage.platform.texts())
            await stage.settled(plan.start)
            await asyncio.sleep(700)
            await plan.say("And now?")
            await stage.platform.until(lambda: plan.thread == ["OK."])
            await stage.settled(plan.start)
        assert (await plan.binding()).opened

    play(scenario)


def test_a_thread_is_named_like_its_task_and_put_away_once_with_it(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        async with stage.answering(), stage.delivering():
            plan = await mention(stage, "Plan")
            await stage.platform.until(lambda: "OK." in plan.thread)
            thread = stage.platform.threads[plan.root]
            await _update(stage, plan.task, title="Plan the trip")
            await stage.platform.until(lambda: thread.names[-1] == f"{plan.task.ref} Plan the trip")
            await _update(stage, plan.task, status="done")
            await stage.platform.until(lambda: thread.archived)
            await stage.settled(plan.start)
            await plan.say("One more thing", plan.root)  # which brings it back
            await stage.platform.until(lambda: plan.thread[-1] == "OK.")
            await asyncio.sleep(60)
        assert not thread.archived
        assert thread.names == [f"{plan.task.ref} Plan", *[f"{plan.task.ref} Plan the trip"] * 2]

    play(scenario)


def test_a_thread_is_put_away_after_the_answer_in_it_has_ended_also_by_another_process(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        gate = Gate()
        stage.world.model.will("One ", gate, "two")
        async with stage.answering():
            async with stage.delivering():
                plan = await mention(stage, "Plan")
                await stage.platform.until(lambda: "One " in plan.thread)
                await _update(stage, plan.task, status="done")
                await asyncio.sleep(30)
                assert not stage.platform.threads[plan.root].archived
                stage.surface.will("arrange", Fault(error=Busy(300.0)), Fault(error=Unreachable("Nobody answers.")))
                gate.open()
                await stage.platform.until(lambda: len(stage.surface.faults["arrange"]) < 2)
                assert plan.thread == [plan.card, "One two"]
            async with stage.delivering():
                await stage.platform.until(lambda: stage.platform.threads[plan.root].archived)
                await stage.settled(plan.start)

    play(scenario)


def test_what_is_said_does_not_wait_for_the_thread_to_be_named(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        async with stage.answering(), stage.delivering():
            plan = await mention(stage, "Plan")
            await stage.platform.until(lambda: "OK." in plan.thread)
            stage.surface.will("arrange", Fault(error=Busy(500.0)))
            await _update(stage, plan.task, title="Plan the trip")
            await stage.until(lambda: not stage.surface.faults["arrange"])
            await plan.say("And?", plan.root)
            await stage.platform.until(lambda: plan.thread.count("OK.") == 2)
            assert _now() < 60
            await stage.platform.until(lambda: len(stage.platform.threads[plan.root].names) == 2, seconds=900)

    play(scenario)


def test_a_thread_that_may_not_be_changed_is_left_as_it_is_and_goes_on(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        stage.surface.will("arrange", Fault(error=PlaceClosed("Not allowed.", reason="missing_permission")))
        async with stage.answering(), stage.delivering():
            plan = await mention(stage, "Plan")
            await stage.platform.until(lambda: "OK." in plan.thread)
            await _update(stage, plan.task, title="Plan the trip")
            await stage.settled(plan.start)
            await plan.say("And?", plan.root)
            await stage.platform.until(lambda: plan.thread.count("OK.") == 2)
        assert (await plan.binding()).ended is None
        assert _calls(stage, "arrange") == 1

    play(scenario)


def test_a_thread_of_other_people_keeps_its_name_and_stays(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        task = await stage.world.task("Plan")
        binding = await stage.bound(task.conversation_id, replace(TOP, thread="77.1"))
        async with stage.delivering():
            await stage.settled(binding)
            await _update(stage, task, status="done")
            await stage.platform.until(lambda: stage.platform.newest().notes == ("✔ Done",))
            await stage.settled(binding)
        assert _calls(stage, "arrange") == 0

    play(scenario)


def test_a_reply_answers_what_it_replies_to_where_that_stands_beside_it(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        stage.surface.will("open", Fault(error=NoThread("Nobody allows it.")))
        async with stage.answering(), stage.delivering():
            plan = await mention(stage, "Plan")
            await stage.platform.until(lambda: stage.platform.texts()[-1] == "OK.")
            await plan.say("And then?")
            await stage.platform.until(lambda: stage.platform.texts()[-1] == "OK.")
            asked, answer = stage.platform.shown()[-2:]
            assert answer.answers == asked.id
            other = await mention(stage, "Other")
            await stage.platform.until(lambda: other.root in [each.answers for each in stage.platform.shown()])
            await asyncio.sleep(700)
            await other.say("More")
            await stage.platform.until(lambda: other.thread)
            await other.say("Here", other.root)
            await stage.platform.until(lambda: other.thread[-2:] == ["Here", "OK."])
            assert [each.answers for each in stage.platform.shown() if each.place.thread] == [""] * len(other.thread)

    play(scenario)


@pytest.mark.parametrize("done", [True, False], ids=["there", "not there"])
def test_a_lost_post_is_told_from_others_in_the_same_channel_by_what_is_known_of_them(play: Play, done: bool) -> None:
    async def scenario(stage: Stage) -> None:
        stage.surface.forgets_nonces = True
        stage.surface.will("open", *[Fault(error=NoThread("Nobody allows it."))] * 2)
        stage.surface.will("post", Fault(error=Unclear("No answer."), done=done))
        async with stage.answering(), stage.delivering():
            asked = [await mention(stage, "One"), await mention(stage, "Two")]
            await stage.platform.until(lambda: stage.platform.texts().count("OK.") == 2, seconds=60)
            await asyncio.sleep(60)
        assert sorted(stage.platform.texts()) == sorted(["Do it", "Do it", asked[0].card, asked[1].card, "OK.", "OK."])

    play(scenario)


def test_two_lost_posts_are_two_messages_also_where_both_are_looked_for_at_once(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        stage.surface.forgets_nonces = True
        stage.surface.will("open", *[Fault(error=NoThread("Nobody allows it."))] * 4)
        stage.surface.will("post", *[Fault(takes=0.05, error=Unclear("No answer."), done=True)] * 2)
        asked = [await mention(stage, "One"), await mention(stage, "Two")]
        async with stage.delivering():
            await stage.platform.until(lambda: len(stage.platform.texts()) == 4)
        stage.surface.will("find", *[Fault(takes=0.2)] * 2)
        async with stage.answering(), stage.delivering():
            await stage.platform.until(lambda: stage.platform.texts().count("OK.") == 2, seconds=60)
            await asyncio.sleep(60)
        cards = [(await _row(stage, each, CARD)).remote_id for each in asked]
        assert len(set(cards)) == 2
        assert sorted(stage.platform.texts()) == sorted(["Do it", "Do it", asked[0].card, asked[1].card, "OK.", "OK."])

    play(scenario)


def test_what_was_just_posted_and_is_not_noted_yet_is_not_taken_for_a_lost_post(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        database, noted = Database(stage.world.app.storage), asyncio.Event()

        def hold_up_its_note(step: str) -> None:
            if step == "post is done":
                stage.surface.before = lambda _: None
                database.writes_wait = noted
                asyncio.get_running_loop().call_later(0.01, setattr, database, "writes_wait", None)

        stage.surface.forgets_nonces = True
        stage.surface.will("open", *[Fault(error=NoThread("Nobody allows it."))] * 2)
        stage.surface.will("post", Fault(error=Unclear("No answer.")))
        async with stage.answering(), stage.delivering(storage=database):
            asked = [await mention(stage, "One")]
            await stage.until(lambda: not stage.surface.faults["post"])
            stage.surface.before = hold_up_its_note
            asked.append(await mention(stage, "Two"))
            await stage.until(lambda: _calls(stage, "find"), seconds=20)
            await asyncio.sleep(1)
            noted.set()
            await stage.platform.until(lambda: stage.platform.texts().count("OK.") == 2, seconds=60)
            await asyncio.sleep(60)
        shown = {each.text: each for each in stage.platform.shown()}
        assert [(await _row(stage, each, CARD)).remote_id for each in asked] == [shown[each.card].id for each in asked]
        assert {len(each.parts) for each in shown.values()} == {1}

    play(scenario)


async def _row(stage: Stage, at: Mention, item: str) -> Delivery:
    return (await stage.world.read(lambda uow: uow.deliveries.of_binding(at.start.id, [item])))[0]


_MAY_NOT_WRITE = PlaceClosed("Nobody lets it write here.", reason="50013")


def test_what_may_not_be_said_in_the_channel_waits_for_the_thread(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        stage.surface.will("open", Fault(error=Busy(20.0)))
        stage.surface.will("post", Fault(error=_MAY_NOT_WRITE))
        async with stage.answering(), stage.delivering():
            plan = await mention(stage, "Plan")
            await stage.platform.until(lambda: plan.thread == [plan.card, "OK."], seconds=60)
            await stage.settled(plan.start)
        assert _calls(stage, "post") == 3
        assert (await plan.binding()).ended is None

    play(scenario)


def test_where_nothing_may_be_said_and_no_thread_can_be_made_the_place_ends(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        stage.surface.will("open", Fault(error=Busy(20.0)), Fault(error=NoThread("Nobody allows it.")))
        stage.surface.will("post", *[Fault(error=_MAY_NOT_WRITE)] * 2)
        async with stage.answering(), stage.delivering():
            plan = await mention(stage, "Plan")
            await asyncio.sleep(10)
            assert (await plan.binding()).ended is None
            await asyncio.sleep(20)
        assert (await plan.binding()).ended == "50013"

    play(scenario)


def test_a_message_that_takes_no_thread_keeps_no_other_from_having_one(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        stage.surface.will("open", Fault(error=NoThread("Not on this one.", because_of="root")))
        async with stage.answering(), stage.delivering():
            odd = await mention(stage, "Odd")
            await stage.platform.until(lambda: stage.platform.texts() == ["Do it", odd.card, "OK."])
            plan = await mention(stage, "Plan")
            await stage.platform.until(lambda: plan.thread == [plan.card, "OK."])
            await stage.settled(odd.start)
        assert _calls(stage, "open") == 2

    play(scenario)


@pytest.mark.parametrize("refused", [1, 2])
def test_a_thread_whose_title_is_refused_is_named_by_its_ref(play: Play, refused: int) -> None:
    async def scenario(stage: Stage) -> None:
        stage.surface.will("open", *[Fault(error=NoThread("Not these words.", because_of="title"))] * refused)
        async with stage.answering(), stage.delivering():
            rude = await mention(stage, "Rude")
            await stage.platform.until(lambda: "OK." in stage.platform.texts())
            await stage.settled(rude.start)
            plan = await mention(stage, "Plan")
            await stage.platform.until(lambda: "OK." in plan.thread)
        assert stage.platform.threads.get(rude.root) == (RemoteThread([rude.task.ref]) if refused == 1 else None)
        assert (_calls(stage, "open"), _calls(stage, "arrange")) == (3, 0)

    play(scenario)


def test_a_reply_that_waits_for_hours_stays_and_its_text_begins_below(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        stage.surface.limits_of = Limits(length=1000, edit_seconds=1.25, old_seconds=3300)
        stage.surface.live_seconds_of = lambda _: 3300.0
        gate = Gate()
        stage.world.model.will("One ", gate, "two")
        async with stage.delivering():
            plan = await mention(stage, "Plan")
            await stage.platform.until(lambda: plan.thread == [plan.card, ""])
            waits = stage.platform.shown()[-1]
            posted = _calls(stage, "post")
            await asyncio.sleep(2 * 3600)
            assert (_calls(stage, "post") - posted, _calls(stage, "delete"), waits.deleted) == (0, 0, False)
            async with stage.answering():
                await stage.platform.until(lambda: plan.thread == [plan.card, "One "], seconds=60)
                assert waits.deleted
                gate.open()
                await stage.platform.until(lambda: plan.thread == [plan.card, "One two"])
                await stage.settled(plan.start)
        assert _calls(stage, "post") - posted == 1

    play(scenario)


def test_a_thread_that_a_person_entered_before_it_was_noted_is_named_and_put_away_all_the_same(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        places = Places(stage.services(), stage.surface, Policy())
        async with stage.answering():
            plan = await mention(stage, "Plan")
            stage.platform.make_thread(plan.root, f"{plan.task.ref} Plan")
            await stage.world.write(lambda uow: places.entered(uow, replace(TOP, thread=plan.root)))
            async with stage.delivering():
                await _update(stage, plan.task, status="done")
                await stage.platform.until(lambda: stage.platform.threads[plan.root].archived, seconds=60)
                await stage.settled(plan.start)

    play(scenario)


def test_a_thread_that_people_made_on_the_message_keeps_its_name(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        async with stage.answering():
            plan = await mention(stage, "Plan")
            stage.platform.make_thread(plan.root, "Our plans", by_people=True)
            async with stage.delivering():
                await stage.platform.until(lambda: plan.thread == [plan.card, "OK."])
                await _update(stage, plan.task, status="done")
                await stage.settled(plan.start, seconds=60)
        assert stage.platform.threads[plan.root] == RemoteThread(["Our plans"], by_people=True)

    play(scenario)


def test_where_somebody_entered_another_thread_meanwhile_the_conversation_stays_there(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        places = Places(stage.services(), stage.surface, Policy())
        made = asyncio.Event()
        stage.surface = FakeSurface(stage.platform, call_seconds=10.0, makes_threads=True)
        stage.surface.will("open", Fault(error=Busy(10.0)), Fault(until=made))
        async with stage.answering(), stage.delivering(open_call_seconds=10.0):
            plan = await mention(stage, "Plan")
            await stage.platform.until(lambda: "OK." in stage.platform.texts())
            ours = stage.platform.shown()[-1].id
            await stage.until(lambda: not stage.surface.faults["open"], seconds=60)
            stage.platform.make_thread(ours, "Aside", by_people=True)
            entered = await stage.world.write(lambda uow: places.entered(uow, replace(TOP, thread=ours)))
            assert entered
            assert (entered.opened, entered.thread) == (True, ours)
            made.set()
            await plan.say("Here", ours)
            await stage.platform.until(lambda: stage.platform.within(ours)[-1:] == ["OK."])
        assert (await plan.binding()).thread == ours

    play(scenario)


async def _update(stage: Stage, task: Task, **fields: object) -> None:
    await stage.world.write(lambda uow: tasks.update(uow, stage.world.admin, task.ref, fields))


def test_what_a_process_left_undone_of_a_thread_another_one_does_and_the_answer_goes_on_where_it_began(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        gate = Gate()
        stage.world.model.will("One ", gate, "two")
        stage.surface.will("open", Fault(error=Busy(100.0)))
        async with stage.answering():
            async with stage.delivering():
                plan = await mention(stage, "Plan")
                done = await mention(stage, "Done")
                await stage.platform.until(lambda: {"One ", "OK."} <= set(stage.platform.texts()))
            async with stage.delivering(stage.client()):
                await stage.platform.until(lambda: (plan.thread, done.thread) == ([plan.card], [done.card]), seconds=60)
                gate.open()
                await stage.platform.until(lambda: "One two" in stage.platform.texts())
                await stage.settled(plan.start, seconds=60)
        assert sorted(stage.platform.texts()) == sorted(["Do it", "Do it", "One two", "OK.", plan.card, done.card])

    play(scenario)


def test_a_change_of_an_old_message_waits_for_others_of_its_kind_and_a_stream_does_not_wait_for_it(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        stage.surface.limits_of = Limits(length=1000, edit_seconds=1.25, old_seconds=3000)
        stage.surface.budgets_of[Call.AMEND] = {"amend": Budget(calls=1, seconds=500, burst=1)}
        async with stage.answering(), stage.delivering():
            plan, other = await mention(stage, "Plan"), await mention(stage, "Other")
            await stage.platform.until(lambda: [each.thread[-1:] for each in (plan, other)] == [["OK."]] * 2)
            await asyncio.sleep(4000)
            await _update(stage, other.task, priority="high")
            await stage.platform.until(lambda: "High priority" in _card(stage, other).part.notes[0])
            gates = [Gate() for _ in range(3)]
            stage.world.model.will("0", *[item for number, gate in enumerate(gates) for item in (gate, f" {number + 1}")])
            await _update(stage, plan.task, priority="high")
            began = _now()
            await plan.say("Count", plan.root)
            for number, gate in enumerate(gates):
                await stage.platform.until(partial(_reads, plan, " ".join(map(str, range(number + 1)))))
                gate.open()
            await stage.platform.until(lambda: plan.thread[-1] == "0 1 2 3")
            assert _now() - began < 10
            assert _card(stage, plan).part.notes == ("○ Todo",)
            await stage.platform.until(lambda: "High priority" in _card(stage, plan).part.notes[0], seconds=600)

    play(scenario)


def _reads(at: Mention, text: str) -> bool:
    return at.thread[-1] == text


def _card(stage: Stage, of: Mention) -> RemoteMessage:
    return next(each for each in stage.platform.shown() if each.part.is_card and each.place.thread == of.root)


@pytest.mark.parametrize("in_threads", [True, False], ids=["in a thread each", "in one channel"])
def test_streams_share_the_edits_of_the_place_where_they_stand_and_none_is_held_up_by_a_call(play: Play, in_threads: bool) -> None:
    """The platform takes 5 edits in 5 seconds at each place, and one more is turned away."""

    def script(request: ModelRequest) -> list[Item]:
        return [item for _ in range(40) for item in ("word ", Pause())]

    async def scenario(stage: Stage) -> None:
        stage.surface.limits_of = Limits(length=2000, edit_seconds=1.25)
        stage.surface.budgets_of[Call.EDIT] = {"edit": Budget(calls=4, seconds=5, burst=2)}
        stage.surface.by_place = {Call.EDIT}
        if not in_threads:
            stage.surface.will("open", *[Fault(error=NoThread("Nobody allows it."))] * 2)
        async with stage.answering(), stage.delivering():
            asked = [await mention(stage, f"Task {number}") for number in range(2)]
            for place in [TOP, *[replace(TOP, thread=each.root) for each in asked]]:
                stage.platform.enforced[f"edit {place.channel} {place.thread}"] = Enforced(calls=5, seconds=5.0)
            await stage.platform.until(lambda: stage.platform.texts().count("word " * 40) == 2, seconds=60)
            for each in asked:
                await stage.settled(each.start)
        assert stage.platform.refused == 0
        for answer in [each for each in stage.platform.shown() if each.text == "word " * 40]:
            pauses = [later - earlier for earlier, later in pairwise(answer.at)]
            assert max(pauses) <= (1.5 if in_threads else 3.0)
            assert answer.at[-1] - answer.at[0] < _SPOKEN + (1.5 if in_threads else 2.75)

    play(scenario, ScriptedModel(script))
