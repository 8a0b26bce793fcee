"""What delivery does where a call fails: nothing is lost, nothing doubled, and people are told what they can do."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import structlog.testing

from bots.pacing import Budget
from bots.surface import AccountClosed, Busy, Call, PlaceClosed, TooLong, Unclear, Unreachable
from core.models import Identity
from tests.fake_surface import ACCOUNT, Enforced, Fault
from tests.fakes import Gate
from tests.integration.bots.conftest import PLACE, Stage

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
    first, second = Gate(), Gate()
    stage.world.model.will("One ", first, "two ", second, "three")
    async with stage.world.working(), stage.delivering(settle_seconds=0.5):
        await stage.world.post(chat.id, "Go")
        await stage.platform.until(lambda: stage.platform.newest().text == "One ")
        stage.surface.will("edit", Fault(late=0.3))
        first.open()
        await stage.platform.until(lambda: not stage.surface.faults["edit"])
        second.open()
        await stage.settled(binding)
    shown = [part.text for part in stage.platform.shown()[-1].parts]
    assert shown[-3:] == ["One two three", "One two ", "One two three"]
    assert not stage.platform.newest().live


async def test_a_post_that_happened_twice_is_left_once(stage: Stage) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    posted = await stage.world.note(chat.id, "Hello")
    stage.surface.will("post", Fault(late=0.3))
    async with stage.delivering(settle_seconds=0.05, twin_seconds=0.6):
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


async def test_a_reply_that_somebody_removed_on_the_platform_is_posted_once_more_and_then_given_up(stage: Stage) -> None:
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
    assert stage.platform.texts() == ["Go"]
    assert len(stage.platform.messages) == 3


async def test_a_closed_place_ends_its_binding_and_whoever_asked_is_told_while_the_turn_goes_on(stage: Stage) -> None:
    chat = await stage.world.chat()
    binding = await stage.bound(chat)
    await _known_as(stage, "U1")
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
        await stage.platform.until(lambda: stage.platform.newest().text == "Half ", seconds=1)
        gate.open()
        await stage.settled(quick, seconds=2)
        stage.surface.hanging.pop("C2").set()
        await stage.settled(slow)
    assert stage.platform.texts("C2") == stage.platform.texts() == ["Go", "Half and half"]


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


@pytest.mark.parametrize("paced", [True, False], ids=["paced", "not paced"])
async def test_many_streams_stay_within_the_platforms_limit(stage: Stage, paced: bool) -> None:
    """Without pacing the same streams are turned away: the platform of this test does enforce its limit."""
    stage.platform.enforced["edit"] = Enforced(calls=5, seconds=1.0)
    if paced:
        stage.surface.budgets_of[Call.EDIT] = {"edit": Budget(calls=4, seconds=1.0, burst=1)}
    for _ in range(6):
        stage.world.model.will("word ", _Slow(), "word ", _Slow(), "word ", _Slow(), "word ")
    chats = [await stage.world.chat() for _ in range(6)]
    bound = [await stage.bound(chat, replace(PLACE, channel=f"C{number}")) for number, chat in enumerate(chats)]
    async with stage.world.working(), stage.delivering():
        for chat in chats:
            await stage.world.post(chat.id, "Go")
        for binding in bound:
            await stage.settled(binding, seconds=20)
    for number in range(6):
        assert stage.platform.newest(f"C{number}").text == "word " * 4
        assert not stage.platform.newest(f"C{number}").live
    assert (stage.platform.refused == 0) is paced


class _Slow(Gate):
    """A place at which a stream rests for a while."""

    async def passing(self) -> None:
        await asyncio.sleep(0.3)


async def _known_as(stage: Stage, external_id: str) -> None:
    identity = Identity(
        surface=ACCOUNT.surface,
        account=ACCOUNT.id,
        external_id=external_id,
        user_id=stage.world.admin.user_id,
        name="alice",
        created_at=datetime.now(UTC),
    )
    await stage.world.write(lambda uow: uow.identities.add(identity))
