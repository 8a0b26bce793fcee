"""What delivery does where a call fails: nothing is lost, nothing doubled, and people are told what they can do."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from itertools import pairwise

import pytest
import structlog.testing

from bots.delivery import calls
from bots.pacing import Budget
from bots.policy import Policy
from bots.surface import AccountClosed, Busy, Call, Limits, MessageGone, PlaceClosed, Refused, TooLong, Unclear, Unreachable
from core import messages
from core.models import AgentStatus, Place
from core.ports import ModelRequest
from tests.fake_surface import Enforced, FakeSurface, Fault, Platform
from tests.fakes import Gate, Item, ScriptedModel, said
from tests.integration.bots.conftest import PLACE, Database, Shown, Stage
from tests.integration.conftest import Start

_CLOSED = PlaceClosed("The channel is archived.", reason="is_archived")
_PASSING = [
    Fault(error=Busy(0.05)),
    Fault(error=Unreachable("Nobody answers.")),
    Fault(error=Unclear("No answer.")),
    Fault(error=Unclear("No answer."), done=True),
    Fault(late=0.05),
    Fault(takes=1.0),
    Fault(error=AccountClosed("The token was revoked.", reason="token_revoked")),
]
_NAMES = ["busy", "unreachable", "not done", "done without an answer", "done late", "too slow", "not let in"]


@pytest.mark.parametrize("fault", _PASSING, ids=_NAMES)
async def test_a_post_that_fails_for_a_while_happens_once(stage: Stage, fault: Fault) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    await stage.world.note(chat.id, "Hello")
    stage.surface.will("post", fault)
    async with stage.delivering():
        await stage.settled(binding)
    assert stage.platform.texts() == ["Hello"]


@pytest.mark.parametrize("fault", _PASSING, ids=_NAMES)
async def test_an_edit_that_fails_for_a_while_is_made_up_for(stage: Stage, fault: Fault) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    gate = Gate()
    stage.world.model.will("Half ", gate, "and half")
    async with stage.world.working(), stage.delivering():
        await stage.world.post(chat.id, "Go")
        await stage.platform.until(lambda: stage.platform.newest().text == "Half ")
        stage.surface.will("edit", fault)
        gate.open()
        await stage.settled(binding)
    assert stage.platform.texts() == ["Go", "Half and half"]
    assert not stage.platform.newest().live


async def test_a_final_frame_is_repeated_where_an_earlier_edit_may_come_late(stage: Stage) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    first, second, arrives = Gate(), Gate(), asyncio.Event()
    stage.world.model.will("One ", first, "two ", second, "three")
    async with stage.world.working(), stage.delivering(settle_seconds=2.0):
        await stage.world.post(chat.id, "Go")
        await stage.platform.until(lambda: stage.platform.newest().text == "One ")
        stage.surface.will("edit", Fault(late=arrives))
        first.open()
        await stage.platform.until(lambda: not stage.surface.faults["edit"])
        second.open()
        await stage.platform.until(lambda: stage.platform.newest().text == "One two three" and not stage.platform.newest().live)
        arrives.set()
        await stage.settled(binding)
    shown = [part.text for part in stage.platform.shown()[-1].parts]
    assert [text == "One two three" for text in shown[-3:]] == [True, False, True]
    assert not stage.platform.newest().live


async def test_a_post_that_happened_twice_is_left_once(stage: Stage) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    posted = await stage.world.note(chat.id, "Hello")
    arrives = asyncio.Event()
    stage.surface.will("post", Fault(late=arrives))
    async with stage.delivering(settle_seconds=0.05, twin_seconds=0.6):
        await stage.platform.until(lambda: stage.platform.texts() == ["Hello"])
        arrives.set()
        await stage.platform.until(lambda: len(stage.platform.messages) == 2)
        await stage.platform.until(lambda: stage.platform.texts() == ["Hello"])
    row = (await stage.world.read(lambda uow: uow.deliveries.of_binding(binding.id, [str(posted.message_id)])))[0]
    assert row.remote_id == stage.platform.shown()[0].id


async def test_a_message_that_the_platform_finds_too_long_is_cut_into_smaller_parts(stage: Stage) -> None:
    stage.platform.longest = 300
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    text = "Some words of a long message.\n\n" * 30
    await stage.world.note(chat.id, text)
    async with stage.delivering():
        await stage.settled(binding)
    assert "\n".join(stage.platform.texts()).split() == text.split()


async def test_a_message_that_is_too_long_however_short_its_parts_does_not_hold_up_the_next(stage: Stage) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    await stage.world.note(chat.id, "Never fits")
    await stage.world.note(chat.id, "Fits")
    stage.surface.will("post", *[Fault(error=TooLong("Too long."))] * 3)
    async with stage.delivering():
        await stage.settled(binding)
    assert stage.platform.texts() == ["Fits"]


async def test_a_reply_that_somebody_removes_again_and_again_is_posted_anew_and_ends_whole(stage: Stage) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    first, second = Gate(), Gate()
    stage.world.model.will("One ", first, "two ", second, "three")
    async with stage.world.working(), stage.delivering():
        await stage.world.post(chat.id, "Go")
        await stage.platform.until(lambda: stage.platform.newest().text == "One ")
        stage.platform.delete(stage.platform.shown()[-1].id)
        first.open()
        await stage.platform.until(lambda: stage.platform.newest().text == "One two ")
        stage.platform.delete(stage.platform.shown()[-1].id)
        second.open()
        await stage.settled(binding)
    assert stage.platform.texts() == ["Go", "One two three"]
    assert len(stage.platform.messages) == 4


async def test_a_reply_that_cannot_be_changed_any_more_is_taken_away_and_goes_on_in_another_one(stage: Stage) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    gate = Gate()
    stage.world.model.will("One ", gate, "two")
    gone = Fault(error=MessageGone("The time for changes is over."))
    async with stage.world.working(), stage.delivering():
        await stage.world.post(chat.id, "Go")
        await stage.platform.until(lambda: stage.platform.newest().text == "One ")
        stage.surface.will("edit", gone, gone)
        gate.open()
        await stage.settled(binding)
    assert stage.platform.texts() == ["Go", "One two"]


async def test_what_is_refused_for_an_unknown_reason_is_tried_again(stage: Stage) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    refused = Fault(error=Refused("Not taken (new_error).", reason="new_error"))
    stage.surface.will("post", *[refused] * 3)
    await stage.world.note(chat.id, "Hello")
    async with stage.delivering():
        await stage.settled(binding)
    assert stage.platform.texts() == ["Hello"]


async def test_what_is_always_refused_closes_the_place(stage: Stage) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    refused = Fault(error=Refused("Not taken (new_error).", reason="new_error"))
    stage.surface.will("post", *[refused] * 20)
    await stage.world.note(chat.id, "Hello")

    async def is_ended() -> bool:
        return (await stage.binding(binding)).ended == "new_error"

    async with stage.delivering():
        await stage.world.until(is_ended)
    assert stage.platform.texts() == []


async def test_a_closed_place_ends_its_binding_and_whoever_asked_is_told_while_the_turn_goes_on(stage: Stage) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    await stage.known_as("U1", "alice")
    stage.surface.will("post", Fault(error=_CLOSED))
    stage.world.model.will("An answer.")
    async with stage.world.working(), stage.delivering():
        answer = await stage.world.ask(chat.id, "Hi")
        await stage.platform.until(lambda: stage.platform.told)
        assert (await stage.binding(binding)).ended == "is_archived"
    url = f"https://one.example/conversations/{chat.id}"
    assert stage.platform.told == [("U1", f"The channel is archived. The conversation goes on here: {url}")]
    assert answer.content == "An answer."
    assert stage.platform.texts() == []


async def test_nothing_is_lost_while_the_bot_is_not_let_in_and_the_admin_reads_why(stage: Stage) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    closed = Fault(error=AccountClosed("The token was revoked.", reason="token_revoked"))
    stage.surface.will("post", closed, closed)
    await stage.world.note(chat.id, "Hello")
    with structlog.testing.capture_logs() as logs:
        async with stage.delivering():
            await stage.settled(binding)
    assert stage.platform.texts() == ["Hello"]
    assert [each["reason"] for each in logs if each["event"] == "delivery.account_closed"] == ["token_revoked"] * 2


async def test_a_place_that_hangs_delays_no_other(stage: Stage) -> None:
    chat = await stage.world.chat()
    slow = await stage.bound(chat, replace(PLACE, channel="C2"))
    quick = await stage.bound(chat)
    stage.surface.hanging["C2"] = asyncio.Event()
    gate = Gate()
    stage.world.model.will("Half ", gate, "and half")
    async with stage.world.working(), stage.delivering():
        await stage.world.post(chat.id, "Go")
        await stage.platform.until(lambda: stage.platform.newest().text == "Half ")
        gate.open()
        await stage.settled(quick)
        assert stage.platform.texts("C2") == []
        stage.surface.hanging.pop("C2").set()
        await stage.settled(slow)
    assert stage.platform.texts("C2") == stage.platform.texts() == ["Go", "Half and half"]


@pytest.mark.parametrize("what", ["find", "delete"])
async def test_a_kind_of_call_that_is_turned_away_stops_no_other(stage: Stage, what: str) -> None:
    chat, other = await stage.world.chat(), await stage.world.chat()
    binding = await stage.bound(chat)
    await stage.bound(other, replace(PLACE, channel="C2"))
    first, second = Gate(), Gate()
    stage.world.model.will("Half ", first, "and ", second, "half")
    async with stage.world.working(), stage.delivering():
        await stage.world.post(chat.id, "Go")
        await stage.platform.until(lambda: stage.platform.newest().text == "Half ")
        first.open()
        await stage.platform.until(lambda: stage.platform.newest().text == "Half and ")
        stage.surface.will(what, Fault(error=Busy(600.0)))
        if what == "find":
            stage.surface.will("post", Fault(error=Unclear("No answer.")))
        note = await stage.world.note(other.id, "Hello")
        if what == "delete":
            await stage.platform.until(lambda: stage.platform.texts("C2") == ["Hello"])
            await stage.world.delete(note.message_id)
        await stage.until(lambda: not stage.surface.faults[what])
        second.open()
        await stage.settled(binding)
    assert stage.platform.texts() == ["Go", "Half and half"]


@pytest.mark.parametrize("call", [Call.DELETE, Call.LOOK])
async def test_look_ups_and_deletions_stay_within_their_limits(stage: Stage, call: Call) -> None:
    what = {Call.DELETE: "delete", Call.LOOK: "find"}[call]
    stage.platform.enforced[what] = Enforced(calls=2, seconds=0.5)
    stage.surface.budgets_of[call] = {what: Budget(calls=1.9, seconds=0.5, burst=1)}
    if call is Call.LOOK:
        stage.surface.will("post", *[Fault(error=Unclear("No answer."), done=True)] * 5)
    bound, notes = [], []
    async with stage.delivering():
        for number in range(5):
            chat = await stage.world.chat()
            bound.append(await stage.bound(chat, replace(PLACE, channel=f"C{number}")))
            notes.append(await stage.world.note(chat.id, "Hello"))
        for binding in bound:
            await stage.settled(binding)
        if call is Call.DELETE:
            for note in notes:
                await stage.world.delete(note.message_id)
            for binding in bound:
                await stage.settled(binding)
    assert sum(name == what for name, _ in stage.platform.calls) >= 5
    assert stage.platform.refused == 0


async def test_a_thread_that_somebody_else_took_meanwhile_ends_the_binding_and_whoever_asked_is_told(stage: Stage) -> None:
    task, other = await stage.world.task("Mine"), await stage.world.task("Theirs")
    await stage.known_as("U1", "alice")
    binding = await stage.bound(task.conversation_id, replace(PLACE, thread="new-1"), opened=False)
    taken = asyncio.Event()
    stage.surface.will("open", Fault(until=taken))
    with structlog.testing.capture_logs() as logs:
        async with stage.delivering():
            await stage.platform.until(stage.platform.shown)
            await stage.bound(other.conversation_id, replace(PLACE, thread=stage.platform.shown()[0].id))
            taken.set()
            await stage.platform.until(lambda: stage.platform.told)
    assert (await stage.binding(binding)).ended == "place_taken"
    url = f"https://one.example/conversations/{task.conversation_id}"
    assert stage.platform.told == [("U1", f"This thread shows another conversation already. The conversation goes on here: {url}")]
    assert [each for each in logs if each["event"] == "delivery.broke"] == []


async def test_a_defect_at_one_place_is_told_ever_more_rarely_and_delays_no_other(stage: Stage) -> None:
    chat, broken = await stage.world.chat(), await stage.world.chat()
    binding = await stage.bound(chat)
    await stage.bound(broken, replace(PLACE, channel="C2"))
    surface, gate, broke_at = Defective(stage.platform, "C2"), Gate(), list[float]()
    stage.world.model.will("Half ", gate, "and half")
    surface.breaks = lambda: broke_at.append(asyncio.get_running_loop().time())
    with structlog.testing.capture_logs() as logs:
        async with stage.world.working(), stage.delivering(surface, backoff_limit_seconds=60.0):
            await stage.world.post(chat.id, "Go")
            await stage.platform.until(lambda: stage.platform.newest().text == "Half ")
            await stage.world.note(broken.id, "Hello")
            await stage.until(lambda: len(broke_at) >= 4)
            gate.open()
            await stage.settled(binding)
    pauses = [later - earlier for earlier, later in pairwise(broke_at)]
    assert all(pause >= 0.05 * 2**number for number, pause in enumerate(pauses))
    assert [each["failures"] for each in logs if each["event"] == "delivery.broke"] == list(range(1, len(broke_at) + 1))
    assert [each for each in logs if each["event"] == "account.restarted"] == []
    assert stage.platform.texts() == ["Go", "Half and half"]


async def test_a_defect_in_telling_why_a_place_was_given_up_concerns_no_other(stage: Stage) -> None:
    chat, closed = await stage.world.chat(), await stage.world.chat()
    await stage.bound(chat)
    binding = await stage.bound(closed, replace(PLACE, channel="C2"))
    await stage.known_as("U1", "alice")
    surface, gate = Defective(stage.platform, "nowhere"), Gate()
    stage.world.model.will("Half ", gate, "and half")
    with structlog.testing.capture_logs() as logs:
        async with stage.world.working(), stage.delivering(surface):
            await stage.world.post(chat.id, "Go")
            await stage.platform.until(lambda: stage.platform.newest().text == "Half ")
            surface.will("post", Fault(error=_CLOSED))
            await stage.world.note(closed.id, "Hello")
            await stage.until(lambda: any(each["event"] == "delivery.broke" for each in logs))
            gate.open()
            await stage.platform.until(lambda: stage.platform.newest().text == "Half and half")
    assert (await stage.binding(binding)).ended == "is_archived"
    assert [each for each in logs if each["event"] == "account.restarted"] == []


class Defective(FakeSurface):
    """With a defect of ours in it: at one channel, and wherever somebody is told something."""

    def __init__(self, platform: Platform, channel: str) -> None:
        super().__init__(platform)
        self.channel = channel
        self.breaks: Callable[[], object] = lambda: None

    def heal(self) -> None:
        self.channel = "nowhere"

    def limits(self, place: Place) -> Limits:
        if place.channel == self.channel:
            self.breaks()
            raise KeyError(place.channel)
        return super().limits(place)

    async def tell(self, place: Place, person: str, sentence: str, *, otherwise: str = "") -> None:
        raise KeyError(person)


async def test_a_step_that_changes_nothing_does_not_keep_the_process_from_everything_else(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "stable_end", lambda text, begin: None)
    stage.surface.live_seconds_of = lambda _: 0.05
    chat, other = await stage.world.chat(), await stage.world.chat()
    binding = await stage.bound(chat)
    await stage.bound(other, replace(PLACE, channel="C2"))
    gate = Gate()
    stage.world.model.will("Half ", gate, "and half")
    with structlog.testing.capture_logs() as logs:
        async with stage.world.working(), stage.delivering():
            await stage.world.post(chat.id, "Go")
            await stage.until(lambda: any(each["event"] == "delivery.goes_in_circles" for each in logs))
            await stage.world.note(other.id, "Hello")
            await stage.platform.until(lambda: stage.platform.texts("C2") == ["Hello"])
            gate.open()
            await stage.settled(binding)
    assert stage.platform.texts() == ["Go", "Half and half"]


async def test_a_post_that_is_repeated_is_noted_as_sent_then(stage: Stage) -> None:
    tried, clock = list[datetime](), stage.world.app.clock
    stage.surface.will("post", Fault(error=Unreachable("Nobody answers.")))
    stage.surface.before = lambda what: tried.append(clock.now()) if what == "post is sent" else None
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    note = await stage.world.note(chat.id, "Hello")
    async with stage.delivering():
        await stage.settled(binding)
    [row] = await stage.world.read(lambda uow: uow.deliveries.of_binding(binding.id, [str(note.message_id)]))
    assert tried[0] < row.sent_at <= tried[1]


async def test_what_was_said_while_the_database_was_away_is_delivered_also_where_a_writer_was_about_to_end(stage: Stage) -> None:
    chat = await stage.world.chat()
    await stage.bound(chat)
    database = Database(stage.world.app.storage)
    async with stage.delivering(storage=database, idle_seconds=0.3):
        await stage.world.note(chat.id, "Hello")
        await stage.platform.until(lambda: stage.platform.texts() == ["Hello"])
        database.is_away = True
        await stage.world.note(chat.id, "And again")
        await stage.until(lambda: database.refused >= 3)
        database.is_away = False
        await stage.platform.until(lambda: stage.platform.texts() == ["Hello", "And again"])


async def test_a_late_twin_is_looked_for_also_after_the_writer_began_anew(stage: Stage) -> None:
    chat = await stage.world.chat()
    await stage.bound(chat)
    surface = Defective(stage.platform, "nowhere")
    surface.will("post", Fault(error=Unclear("No answer.")))
    with structlog.testing.capture_logs() as logs:
        async with stage.delivering(surface, settle_seconds=0.05, twin_seconds=0.5):
            await stage.world.note(chat.id, "Hello")
            await stage.platform.until(lambda: stage.platform.texts() == ["Hello"])
            posted = stage.platform.shown()[0]
            surface.channel, surface.breaks = "C1", surface.heal
            await stage.world.note(chat.id, "And again")
            await stage.until(lambda: any(each["event"] == "delivery.broke" for each in logs))
            stage.platform.post(posted.place, posted.part, posted.nonce)
            await stage.platform.until(lambda: stage.platform.texts() == ["Hello", "And again"])
    assert len(stage.platform.messages) == 3


async def test_a_late_twin_is_looked_for_again_where_that_failed_also_by_a_writer_that_began_anew(stage: Stage) -> None:
    chat = await stage.world.chat()
    await stage.bound(chat)
    stage.surface.will("post", Fault(error=Unclear("No answer.")))
    found, database = asyncio.Event(), Database(stage.world.app.storage)
    async with stage.delivering(storage=database, settle_seconds=0.05, twin_seconds=0.2):
        await stage.world.note(chat.id, "Hello")
        await stage.platform.until(lambda: stage.platform.texts() == ["Hello"])
        posted = stage.platform.shown()[0]
        stage.platform.post(posted.place, posted.part, posted.nonce)
        stage.surface.will("find", Fault(until=found))
        await stage.until(lambda: not stage.surface.faults["find"])
        database.is_away = True
        found.set()
        await stage.until(lambda: database.refused > 2)
        database.is_away = False
        await stage.platform.until(lambda: stage.platform.texts() == ["Hello"])


async def test_a_status_that_the_platform_does_not_show_costs_no_call(stage: Stage) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    stage.surface.limits_of = Limits(length=1000, edit_seconds=0.01, status_seconds=0.05)
    stage.surface.statuses = {AgentStatus.THINKING}
    gate, shown = Gate(), stage.platform.statuses[PLACE]
    stage.world.model.will(gate, "Hello")
    async with stage.world.working(), stage.delivering():
        await stage.world.post(chat.id, "Hi")
        await stage.until(lambda: len(shown) >= 3)
        assert not (await stage.binding(binding)).status_shown
        gate.open()
        await stage.settled(binding)
        calls = len(shown)
        await asyncio.sleep(0.15)
    assert {status for status, _ in shown} == {AgentStatus.THINKING}
    assert len(shown) == calls


async def test_what_an_older_version_noted_without_its_thread_is_changed_in_that(stage: Stage) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    async with stage.delivering():
        noted = await stage.world.note(chat.id, "Hello")
        await stage.settled(binding)
    rows = await stage.world.read(lambda uow: uow.deliveries.of_binding(binding.id, [str(noted.message_id)]))
    await stage.world.write(lambda uow: uow.deliveries.put(*[replace(row, thread="") for row in rows]))
    async with stage.delivering():
        await stage.world.write(lambda uow: messages.edit(uow, stage.world.admin, noted.message_id, "Goodbye", rules=stage.world.app.rules))
        await stage.platform.until(lambda: stage.platform.texts() == ["Goodbye"])
    assert len(stage.platform.messages) == 1


async def test_a_channel_that_the_operator_took_off_the_list_gets_nothing_and_direct_messages_do(stage: Stage) -> None:
    channels = {"C1": "listed", "C2": "not listed", "D1": "direct"}
    bound = []
    for channel, text in channels.items():
        chat = await stage.world.chat()
        bound.append(await stage.bound(chat, replace(PLACE, channel=channel)))
        await stage.world.note(chat.id, text)
    async with stage.delivering(policy=Policy(channels=frozenset({"C1"}))):
        await stage.settled(bound[0])
        await stage.settled(bound[2])
    assert (stage.platform.texts("C1"), stage.platform.texts("C2"), stage.platform.texts("D1")) == (["listed"], [], ["direct"])
    assert (await stage.binding(bound[1])).ended is None
    async with stage.delivering():
        await stage.settled(bound[1])
    assert stage.platform.texts("C2") == ["not listed"]


async def test_a_status_that_cannot_be_shown_holds_up_nothing(stage: Stage) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    stage.surface.will("status", *[Fault(error=_CLOSED)] * 10)
    stage.world.model.will("Hello")
    async with stage.world.working(), stage.delivering():
        await stage.world.ask(chat.id, "Hi")
        await stage.settled(binding)
    assert stage.platform.texts() == ["Hi", "Hello"]
    assert (await stage.binding(binding)).ended is None


@pytest.mark.parametrize("fault", _PASSING, ids=_NAMES)
async def test_a_status_that_could_not_be_shown_before_the_answer_ended_is_taken_back(stage: Stage, fault: Fault) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    stage.surface.will("status", fault)
    gate = Gate()
    stage.world.model.will(gate, "Hello")
    async with stage.world.working(), stage.delivering():
        await stage.world.post(chat.id, "Hi")
        await stage.until(lambda: not stage.surface.faults["status"])
        gate.open()
        await stage.settled(binding)
    assert not (await stage.binding(binding)).status_shown
    assert [status for status, _ in stage.platform.statuses[PLACE]][-1:] == [AgentStatus.IDLE]


@pytest.mark.parametrize("paced", [True, False], ids=["paced", "not paced"])
async def test_many_streams_stay_within_the_platforms_limit(start: Start, paced: bool) -> None:
    """Without pacing the same streams are turned away: the platform of this test does enforce its limit."""
    platform = Platform()

    def script(request: ModelRequest) -> list[Item]:
        channel = said(request)[-1]
        return [item for count in range(1, 5) for item in ("word ", Shown(platform, channel, "word " * count))]

    async with start(ScriptedModel(script)) as world:
        stage = Stage(world, platform)
        stage.platform.enforced["edit"] = Enforced(calls=5, seconds=1.0)
        if paced:
            stage.surface.budgets_of[Call.EDIT] = {"edit": Budget(calls=4, seconds=1.0, burst=1)}
        chats = {f"C{number}": await stage.world.chat() for number in range(6)}
        bound = [await stage.bound(chat, replace(PLACE, channel=channel)) for channel, chat in chats.items()]
        async with stage.world.working(), stage.delivering():
            for channel, chat in chats.items():
                await stage.world.post(chat.id, channel)
            for binding in bound:
                await stage.settled(binding, seconds=30)
        for channel in chats:
            assert stage.platform.newest(channel).text == "word " * 4
            assert not stage.platform.newest(channel).live
        assert (stage.platform.refused == 0) is paced
