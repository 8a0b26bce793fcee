"""What was stored of a platform's events is taken in: in order, once, again where that helps, and never silently left out."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from bots import controls
from bots.policy import ChannelRules, Policy
from bots.surface import (
    AccountClosed,
    Action,
    Busy,
    Event,
    PermissionMissing,
    PlaceClosed,
    Profile,
    Promoted,
    Removed,
    Said,
    Stopped,
    Unclear,
    Unreachable,
)
from core import bindings, identity, tasks
from core.access import Principal
from core.errors import InvalidInput, LeaseLost
from core.models import ChannelKind, InboundEvent, MessageStatus, Place, Visibility
from core.ports import TaskFilter, UnitOfWork
from tests.databases import on_both
from tests.fake_surface import ACCOUNT
from tests.integration.bots.conftest import Stage
from tests.integration.bots.door import ALICE, BEGIN, BOB, Door, ShiftedClock, card, edit, file, mention, reply, said
from tests.integration.conftest import Start

new_database = on_both


@pytest.fixture
def clock() -> ShiftedClock:
    return ShiftedClock()


@pytest.fixture
async def stage(start: Start, clock: ShiftedClock) -> AsyncIterator[Stage]:
    async with start(clock=clock) as world:
        found = Stage(world)
        yield found
        await found.platform.close()


@pytest.fixture
def door(stage: Stage) -> Door:
    return Door(stage, Policy())


# --- in order, and once ----------------------------------------------------------------------------------------------


async def test_a_lane_is_taken_in_in_order(door: Door) -> None:
    stored = await door.store(mention("0"), *(reply(str(number), f"1.{number}") for number in range(1, 30)))
    async with door.open():
        await door.done(*stored)
    assert await door.texts("1") == [str(number) for number in range(30)]


async def test_a_lane_that_has_to_wait_does_not_hold_up_another(door: Door) -> None:
    door.surface.troubles = [Unreachable("Away.")] * 1_000
    (waits,) = await door.store(mention(author=BOB), lane="C1:1")
    async with door.open():
        await door.stage.world.until(lambda: _was_tried(door, waits))
        door.surface.troubles.clear()
        (other,) = await door.store(mention("other", "2"), lane="C1:2")
        await door.done(other, waits)
    assert (await door.texts("1"), await door.texts("2")) == (["hello"], ["other"])


async def _was_tried(door: Door, event: InboundEvent) -> bool:
    return (await door.row(event)).attempts > 1


async def test_what_follows_in_a_lane_waits_for_what_is_tried_again(door: Door) -> None:
    door.surface.troubles = [Unreachable("Away.")]
    stored = await door.store(mention("first", "1", channel="D1"), mention("second", "2", channel="D1"), lane="D1")
    async with door.open():
        await door.done(*stored)
    assert await door.texts("", "D1") == ["first", "second"]


async def test_what_the_platform_asks_to_wait_for_is_tried_again(door: Door) -> None:
    door.surface.troubles = [Busy(0.02), Unclear("No answer."), AccountClosed("The token was revoked.", reason="token_revoked")]
    stored = await door.store(mention())
    async with door.open():
        await door.done(*stored)
    assert (await door.texts("1"), door.stage.platform.told) == (["hello"], [])


async def test_what_is_being_taken_in_is_not_begun_a_second_time(door: Door) -> None:
    gate = door.surface.gates[BOB] = asyncio.Event()
    (slow,) = await door.store(mention("slow", author=BOB), lane="C1:1")
    async with door.open():
        for number in range(2, 6):  # each of them takes a look or more
            await door.done(*await door.store(mention("quick", f"{number}"), lane=f"C1:{number}"))
        assert door.surface.looked_up.count(BOB) == 1
        gate.set()
        await door.done(slow)


async def test_more_lanes_than_may_run_at_once_all_get_their_turn(door: Door) -> None:
    stored = [(await door.store(mention(str(number), f"{number}"), lane=f"C1:{number}"))[0] for number in range(30)]
    async with door.open():
        await door.done(*stored, seconds=60)


async def test_the_payload_is_erased_with_the_effect(door: Door) -> None:
    stored = await door.store(mention())
    async with door.open():
        await door.done(*stored)
    assert (await door.row(stored[0])).payload == {}


async def test_a_process_that_lost_the_account_writes_nothing_more(door: Door) -> None:
    await door.store(mention())
    lost = await door.lease()
    door.stage.world.app.clock.advance(600)  # type: ignore[attr-defined]
    await door.lease()
    with pytest.raises(LeaseLost):
        await door.intake().run(lost)
    assert await door.texts("1") == []


async def test_a_message_that_is_told_under_two_keys_is_one_message(door: Door) -> None:
    stored = await door.store(mention(), mention(), reply("again", "1.2"), reply("again", "1.2"))
    async with door.open():
        await door.done(*stored)
    assert await door.texts("1") == ["hello", "again"]
    assert ([(await door.row(each)).error for each in stored], door.stage.platform.told) == ([None] * 4, [])


async def test_a_mention_of_which_a_task_was_made_before_it_came_is_answered_there(door: Door) -> None:
    stored = await door.store(Promoted(said=mention("plan"), by=BOB), mention("plan"))
    async with door.open():
        await door.done(*stored)
    assert await door.texts("1") == ["Said in this thread before:\n\n**alice**:\n> plan", "plan"]
    assert (await door.messages("1"))[1].turn_id
    assert (await door.stage.world.titles(), door.stage.platform.told) == (["plan"], [])


# --- what was overtaken ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "early",
    [
        reply("early", "1.2"),
        edit("edited"),
        Removed(remote_id="1", channel="C1", thread=""),
    ],
)
async def test_what_came_too_early_waits_a_minute_and_is_then_left_out(door: Door, clock: ShiftedClock, early: Event) -> None:
    stored = await door.store(early)
    async with door.open():
        await door.stage.world.until(lambda: _was_looked_at(door, stored[0], 1))
        row = await door.row(stored[0])
        assert (row.waits, row.done_at) == (True, None)
        clock.advance(61)
        await door.done(*stored)
    assert await door.texts("1") == []


async def test_what_came_too_early_is_taken_in_as_soon_as_what_it_waited_for(door: Door, clock: ShiftedClock) -> None:
    """And is looked at, and so written, seldom until then: at the beginning, soon after it, and at the end."""
    (early,) = await door.store(reply("early", "1.2"))
    async with door.open():
        await door.stage.world.until(lambda: _was_looked_at(door, early, 1))
        clock.advance(3)
        await door.stage.world.until(lambda: _was_looked_at(door, early, 2))
        assert (await door.row(early)).run_after == early.received_at + timedelta(seconds=60)
        await door.done(*await door.store(mention()), early)
    assert await door.texts("1") == ["hello", "early"]


async def test_an_edit_of_what_nobody_knows_is_looked_at_once_more(door: Door, clock: ShiftedClock) -> None:
    (early,) = await door.store(edit("edited"))
    async with door.open():
        await door.stage.world.until(lambda: _was_looked_at(door, early, 1))
        assert (await door.row(early)).run_after == early.received_at + timedelta(seconds=60)


async def _was_looked_at(door: Door, event: InboundEvent, times: int) -> bool:
    return (await door.row(event)).attempts == times


async def test_an_older_edit_that_is_told_later_changes_nothing(door: Door) -> None:
    """Of two in the same second the platform's clock does not tell which is older."""
    async with door.open():
        await door.done(*await door.store(mention("one"), edit("three", seconds=2), edit("two", seconds=1)))
        assert await door.texts("1") == ["three"]
        await door.done(*await door.store(edit("four", seconds=2)))
        assert await door.texts("1") == ["four"]
        await door.done(*await door.store(reply("late in a second", "1.9"), edit("edited in it", "1.9", thread="1", seconds=1)))
    assert await door.texts("1") == ["four", "edited in it"]


async def test_a_removal_that_overtook_its_message_removes_it_then(door: Door) -> None:
    (early,) = await door.store(Removed(remote_id="1", channel="C1", thread=""))
    async with door.open():
        await door.stage.world.until(lambda: _was_looked_at(door, early, 1))
        await door.done(*await door.store(mention()), early)
        assert (await door.messages("1"))[0].deleted_at


async def test_a_message_that_waited_and_was_imported_does_not_come_twice(door: Door) -> None:
    door.stage.platform.said["1"] = [("bob", "before")]
    (early,) = await door.store(reply("before", "1.1", author=BOB))
    async with door.open():
        await door.stage.world.until(lambda: _was_looked_at(door, early, 1))
        (call,) = await door.store(mention("help", "1.2", thread="1"))
        await door.done(early, call)
    assert await door.texts("1") == ["Said in this thread before:\n\n**bob**:\n> before", "help"]


async def test_a_call_knows_what_it_replies_to_where_nobody_else_does(door: Door) -> None:
    stored = await door.store(
        replace(mention("do this"), answers="0.5", answered=("bob", "book a table")),
        replace(mention("and this", "2"), answers="1", answered=("alice", "do this")),
    )
    async with door.open():
        await door.done(*stored)
    before = "Said before, in the message that the next one replies to:\n\n**bob**:\n> book a table"
    assert await door.texts("1") == [before, "do this", "and this"]


async def test_what_was_said_in_the_thread_is_all_that_comes_before(door: Door) -> None:
    door.stage.platform.said["1"] = [("bob", "book a table")]
    stored = await door.store(replace(mention("do this", "1.2", thread="1"), answers="1.1", answered=("bob", "book a table")))
    async with door.open():
        await door.done(*stored)
    assert await door.texts("1") == ["Said in this thread before:\n\n**bob**:\n> book a table", "do this"]


async def test_an_import_keeps_the_newest_that_fits(door: Door) -> None:
    door.stage.platform.said["1"] = [("bob", f"{number} " + "x" * 1_000) for number in range(100)]
    stored = await door.store(mention("help", "1.2", thread="1"))
    async with door.open():
        await door.done(*stored)
    imported = (await door.texts("1"))[0]
    assert "> 99 x" in imported
    assert "> 60 x" not in imported
    assert len(imported) <= 30_000


async def test_of_a_message_that_is_longer_than_all_that_is_taken_the_beginning_comes(door: Door) -> None:
    door.stage.platform.said["1"] = [("bob", "before"), ("bob", "y" * 40_000)]
    stored = await door.store(mention("help", "1.2", thread="1"))
    async with door.open():
        await door.done(*stored)
    imported = (await door.texts("1"))[0]
    assert imported.startswith("Said in this thread before:\n\n**bob**:\n> yyyy")
    assert imported.endswith("y…")
    assert 29_900 < len(imported) <= 30_000


async def test_a_thread_that_cannot_be_read_is_joined_without_what_was_said_before(door: Door, clock: ShiftedClock) -> None:
    door.surface.unreadable = Unclear("No answer.")
    stored = await door.store(mention("help", "1.2", thread="1"), reply("and soon", "1.3"))
    async with door.open():
        await door.stage.world.until(lambda: _was_tried(door, stored[0]))
        assert await door.texts("1") == []
        clock.advance(121)
        await door.done(*stored)
    assert await door.texts("1") == ["Said in this thread before:\n\n(What was said before could not be read.)", "help", "and soon"]


# --- mentions by an edit ---------------------------------------------------------------------------------------------


def mention_by_edit(text: str = "now with you", remote_id: str = "1", *, seconds: float = 60, **fields: Any) -> Said:
    return mention(text, remote_id, edited_at=BEGIN + timedelta(seconds=seconds), **fields)


async def test_a_message_that_mentions_the_bot_since_an_edit_is_answered_once(door: Door) -> None:
    before, by_edit = said("plan"), mention_by_edit("plan my week")
    async with door.open():
        stored = await door.store(before, edit("plan my week"), by_edit, by_edit, edit("plan my week"), edit("plan", seconds=30))
        await door.done(*stored)
    assert await door.texts("1") == ["plan my week"]
    assert (await door.messages("1"))[0].turn_id
    assert ([(await door.row(each)).error for each in stored], await door.stage.world.titles()) == ([None] * 6, ["plan my week"])


async def test_an_edited_mention_that_was_answered_is_edited(door: Door, clock: ShiftedClock) -> None:
    """Also where nobody remembers the event that it came with."""
    async with door.open():
        await door.done(*await door.store(mention("plan my week")))
        await _forgotten(door, clock)
        (stored,) = await door.store(mention_by_edit("plan my year", seconds=9 * 86_400))
        await door.done(stored)
    assert (await door.texts("1"), len(await door.messages("1")), (await door.row(stored)).error) == (["plan my year"], 2, None)


@pytest.mark.parametrize("is_forgotten", [False, True])
async def test_an_edited_mention_whose_task_was_deleted_is_left_alone(door: Door, clock: ShiftedClock, is_forgotten: bool) -> None:
    async with door.open():
        await door.done(*await door.store(mention("plan my week")))
        alice = await door.user(ALICE)
        await door.stage.world.write(lambda uow: tasks.delete(uow, alice, "OT-1"))
        if is_forgotten:
            await _forgotten(door, clock)
        (stored,) = await door.store(mention_by_edit("plan my year", seconds=9 * 86_400 if is_forgotten else 60))
        await door.done(stored)
    assert (await door.stage.world.titles(), (await door.row(stored)).error, door.stage.platform.told) == ([], None, [])


async def _forgotten(door: Door, clock: ShiftedClock) -> None:
    clock.advance(8 * 86_400)
    await door.stage.world.app.storage.prune(clock.now())


async def test_what_was_said_before_the_bot_was_called_is_answered_where_it_mentions_the_bot_later(door: Door) -> None:
    door.stage.platform.said["1"] = [("bob", "before")]
    early = mention_by_edit("before, with you", "1.1", seconds=1.15, thread="1", author=BOB)
    late = mention_by_edit("and with you", "1.1", thread="1", author=BOB)
    async with door.open():
        await door.done(*await door.store(mention("help", "1.2", thread="1"), early, late))
    assert await door.texts("1") == ["Said in this thread before:\n\n**bob**:\n> before", "help", "and with you"]


# --- the thread of a card --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to_bot", [False, True])
async def test_what_is_said_under_a_card_before_its_thread_is_noted_belongs_to_its_task(door: Door, to_bot: bool) -> None:
    task = await door.stage.world.task("Buy milk")
    binding = await door.stage.bound(task.conversation_id, Place(account=ACCOUNT, channel="C1", thread="new-1"), opened=False)
    await door.stage.world.write(lambda uow: uow.deliveries.put(card(uow, binding.id)))
    async with door.open():
        await door.done(*await door.store(reply("oat milk", "1.2", to_bot=to_bot)))
    assert await door.texts("1") == ["oat milk"]
    assert (await door.conversation("1")).id == task.conversation_id
    assert (await door.stage.binding(binding)).opened


# --- trouble ---------------------------------------------------------------------------------------------------------


async def test_a_defect_is_tried_three_times_and_then_told_with_a_reference(door: Door) -> None:
    door.surface.troubles = [RuntimeError("a defect")] * 3
    stored = await door.store(mention("first"), reply("second", "1.2"))
    async with door.open():
        await door.done(stored[0])
        await door.stage.platform.until(lambda: door.stage.platform.told)
    row = await door.row(stored[0])
    assert (row.error, door.surface.troubles) == ("INTERNAL", [])
    person, sentence = door.stage.platform.told[0]
    assert (person, sentence.endswith(f"tell an admin: {row.id}")) == (ALICE, True)


async def test_a_place_that_is_closed_is_told_to_the_person(door: Door) -> None:
    door.surface.troubles = [PlaceClosed("This channel is archived.", reason="is_archived")]
    stored = await door.store(mention())
    async with door.open():
        await door.done(*stored)
        await door.stage.platform.until(lambda: door.stage.platform.told)
    assert door.stage.platform.told == [(ALICE, "This channel is archived.")]
    assert (await door.row(stored[0])).error == "is_archived"


async def test_a_place_that_is_closed_is_not_told_to_somebody_who_spoke_to_others(door: Door) -> None:
    async with door.open():
        await door.done(*await door.store(mention()))
        door.surface.kinds["C1"] = PlaceClosed("I am not in this channel.", reason="not_in_channel")
        (stored,) = await door.store(reply("carol, look", "1.2", to_others=True))
        await door.done(stored)
    assert ((await door.row(stored)).error, door.stage.platform.told) == ("not_in_channel", [])


async def test_what_the_platform_does_not_allow_is_told_after_two_minutes(door: Door, clock: ShiftedClock) -> None:
    door.surface.kinds["C1"] = PermissionMissing("The app lacks the scope groups:read.", reason="missing_scope")
    (stored,) = await door.store(mention())
    async with door.open():
        await door.stage.world.until(lambda: _was_tried(door, stored))
        assert door.stage.platform.told == []
        clock.advance(121)
        await door.done(stored)
        await door.stage.platform.until(lambda: door.stage.platform.told)
    told = "The app lacks the scope groups:read. Your message was not taken in: send it again then."
    assert ((await door.row(stored)).error, door.stage.platform.told) == ("missing_scope", [(ALICE, told)])


async def test_what_came_while_the_bot_was_not_let_in_is_taken_in_once_it_is(door: Door, clock: ShiftedClock) -> None:
    door.surface.kinds["C1"] = AccountClosed("The token was revoked.", reason="token_revoked")
    (stored,) = await door.store(mention())
    async with door.open():
        await door.stage.world.until(lambda: _was_tried(door, stored))
        clock.advance(80_000)
        door.surface.kinds["C1"] = ChannelKind.OPEN
        await door.done(stored)
    assert ((await door.row(stored)).error, door.stage.platform.told) == (None, [])


async def test_a_platform_that_is_away_is_waited_for_for_an_hour(door: Door, clock: ShiftedClock) -> None:
    door.surface.kinds["C1"] = Unclear("No answer.")
    first, second = await door.store(mention(), reply("then", "1.2"))
    async with door.open():
        await door.stage.world.until(lambda: _was_tried(door, first))
        clock.advance(3_500)
        await door.stage.world.until(lambda: _was_looked_at(door, first, 5))
        clock.advance(101)
        await door.done(first, second)
    assert (await door.row(first)).error == "Unclear"


async def test_talk_among_people_asks_the_platform_nothing(door: Door) -> None:
    stored = await door.store(said("good morning"), said("!stop", "2"), said("hi carol", "3", to_others=True))
    async with door.open():
        await door.done(*stored)
    assert (door.surface.looked_up, door.stage.platform.told) == ([], [])


async def test_few_messages_have_their_files_in_memory_at_the_same_time(door: Door) -> None:
    gate = _slow_file(door)
    authors = [ALICE] * 3 + [BOB, "U3", "U4"]
    door.stage.platform.profiles |= {each: Profile(external_id=each, name=each, member=True) for each in ("U3", "U4")}
    stored = [await _with_slow_file(door, number, author) for number, author in enumerate(authors)]
    async with door.open():
        await door.stage.world.until(lambda: _are_fetched(door, 4))
        await door.done(*await door.store(mention("without", "7"), lane="C1:7"))  # a moment in which more could have come
        assert door.surface.fetching == 4
        gate.set()
        await door.done(*stored)


async def test_slow_files_of_one_person_hold_up_neither_others_nor_their_files(door: Door) -> None:
    gate = _slow_file(door)
    slow = [await _with_slow_file(door, number, ALICE) for number in range(60)]
    async with door.open():
        await door.stage.world.until(lambda: _are_fetched(door, 2))
        await door.done(*await door.store(mention("at once", "70", author=BOB), lane="C1:70"))
        door.surface.files["b.txt"] = b"abc"
        await door.done(*await door.store(mention("mine", "71", author=BOB, files=(file("b.txt"),)), lane="C1:71"))
        await door.done(*await door.store(mention("without", "72"), lane="C1:72"))
        assert door.surface.fetching == 2
        gate.set()
        await door.done(*slow, seconds=60)


async def test_a_file_behind_other_messages_of_its_lane_waits_for_its_turn_too(door: Door) -> None:
    gate = _slow_file(door)
    slow = [await _with_slow_file(door, number, ALICE) for number in range(2, 4)]
    async with door.open():
        await door.stage.world.until(lambda: _are_fetched(door, 2))
        first, third = await door.store(mention(), reply("read", "1.2", files=(file("a.txt"),)))
        await door.done(first)
        await door.done(*await door.store(mention("other", "9"), lane="C1:9"))
        assert (door.surface.fetching, (await door.row(third)).done_at) == (2, None)
        gate.set()
        await door.done(third, *slow)


def _slow_file(door: Door) -> asyncio.Event:
    door.surface.files["a.txt"] = b"abc"
    gate = door.surface.gates["a.txt"] = asyncio.Event()
    return gate


async def _with_slow_file(door: Door, number: int, author: str) -> InboundEvent:
    (stored,) = await door.store(mention(f"{number}", f"{number}", author=author, files=(file("a.txt"),)), lane=f"C1:{number}")
    return stored


async def _are_fetched(door: Door, number: int) -> bool:
    return door.surface.fetching == number


async def test_a_file_is_fetched_again_for_two_minutes_and_then_named(door: Door, clock: ShiftedClock) -> None:
    door.surface.files = {"a.txt": b"abc", "b.txt": Unreachable("Away.")}
    stored = await door.store(mention("read", files=(file("a.txt"), file("b.txt"))))
    async with door.open():
        await door.stage.world.until(lambda: _was_tried(door, stored[0]))
        assert await door.texts("1") == []
        clock.advance(121)
        await door.done(*stored)
    assert await door.texts("1") == ["read\n\n(The file 'b.txt' could not be fetched.)"]
    message = (await door.messages("1"))[0]
    assert [each.name for each in await door.stage.world.read(lambda uow: uow.attachments.of_messages([message.id]))] == ["a.txt"]


async def test_files_without_a_word_make_a_message_and_a_task(door: Door) -> None:
    door.surface.files = {"plan.txt": b"abc", "bad.txt": InvalidInput("The file 'bad.txt' is empty.")}
    stored = await door.store(mention("", files=(file("plan.txt"),)), reply("", "1.2", files=(file("bad.txt"),)))
    async with door.open():
        await door.done(*stored)
    assert await door.texts("1") == ["(plan.txt)", "(The file 'bad.txt' is empty.)"]
    assert await door.stage.world.titles() == ["plan.txt"]


# --- who and where ---------------------------------------------------------------------------------------------------


async def test_two_of_one_name_are_two_users_and_nobody_becomes_the_admin(door: Door) -> None:
    door.stage.platform.profiles[BOB] = Profile(external_id=BOB, name="admin", member=True)
    stored = await door.store(mention(author=BOB))
    async with door.open():
        await door.done(*stored)
    user = await door.stage.world.read(lambda uow: identity.of_account(uow, ACCOUNT, BOB))
    assert user
    assert (user.name, user.admin) == ("admin-2", False)


async def test_who_is_no_full_member_any_more_is_turned_away_within_ten_minutes(door: Door, clock: ShiftedClock) -> None:
    async with door.open():
        await door.done(*await door.store(mention(), reply("once more", "1.2")))
        assert door.surface.looked_up.count(ALICE) == 1
        door.stage.platform.profiles[ALICE] = Profile(external_id=ALICE, name="alice", member=False)
        clock.advance(601)
        await door.done(*await door.store(reply("let me in", "1.3"), edit("changed")))
    assert await door.texts("1") == ["hello", "once more"]
    sentence = "I talk with full members of this workspace only, not with guests, apps or people of other workspaces."
    assert door.stage.platform.told == [(ALICE, sentence)]


async def test_who_came_before_is_let_in_where_the_platform_is_away(door: Door, clock: ShiftedClock) -> None:
    async with door.open():
        await door.done(*await door.store(mention()))
        clock.advance(601)
        door.surface.troubles = [Unreachable("Away.")]
        await door.done(*await door.store(reply("still there?", "1.2"), reply("hm", "1.3")))
        assert door.surface.troubles == []
        door.stage.platform.profiles[ALICE] = Profile(external_id=ALICE, name="alice", member=False)
        clock.advance(31)
        await door.done(*await door.store(reply("and now?", "1.4")))
    assert await door.texts("1") == ["hello", "still there?", "hm"]


async def test_who_came_before_is_let_in_where_the_platform_does_not_answer_in_time(door: Door, clock: ShiftedClock) -> None:
    async with door.open():
        await door.done(*await door.store(mention()))
        clock.advance(601)
        door.surface.gates[ALICE] = asyncio.Event()
        await door.done(*await door.store(reply("still there?", "1.2")))
    assert await door.texts("1") == ["hello", "still there?"]


async def test_who_was_disabled_changes_nothing(door: Door) -> None:
    async with door.open():
        await door.done(*await door.store(mention(), reply("second", "1.2")))
        alice = await door.user(ALICE)
        await door.stage.world.write(lambda uow: uow.users.set_disabled(alice.user_id, uow.now))
        await door.done(*await door.store(edit("changed")))
    assert await door.texts("1") == ["hello", "second"]


async def test_what_is_removed_is_erased_whoever_wrote_it_and_whatever_they_may_do(door: Door, clock: ShiftedClock) -> None:
    """The platform does not say who removed it: an admin may have, after its author had left."""
    async with door.open():
        await door.done(*await door.store(mention(author=BOB), reply("second", "1.2")))
        door.surface.kinds["C1"] = ChannelKind.PRIVATE
        await door.done(*await door.store(reply("among us", "1.3", author=BOB)))
        alice = await door.user(ALICE)
        await door.stage.world.write(lambda uow: uow.users.set_disabled(alice.user_id, uow.now))
        door.stage.platform.profiles[ALICE] = Profile(external_id=ALICE, name="alice", member=False)
        clock.advance(601)
        looked_up = len(door.surface.looked_up)
        (stored,) = await door.store(Removed(remote_id="1.2", channel="C1", thread="1"))
        await door.done(stored)
    assert (await door.texts("1"), (await door.row(stored)).error) == (["hello", "", "among us"], None)
    assert (len(door.surface.looked_up), door.stage.platform.told) == (looked_up, [])
    conversation = await door.conversation("1")
    assert alice.user_id not in await door.stage.world.read(lambda uow: uow.conversations.members(conversation.id))


@pytest.mark.parametrize("policy", [Policy(users=frozenset({BOB})), Policy(channels=frozenset({"C2"}))])
async def test_who_is_not_allowed_any_more_changes_and_stops_nothing(stage: Stage, policy: Policy) -> None:
    before, after = Door(stage, Policy()), Door(stage, policy)
    async with before.open():
        await before.done(*await before.store(mention()))
    stage.world.app.clock.advance(600)  # type: ignore[attr-defined]  # the lease is over
    after.surface.events = before.surface.events
    async with after.open():
        await after.done(*await after.store(edit("changed"), Stopped(channel="C1", thread="1", by=ALICE)))
    assert await after.texts("1") == ["hello"]
    assert len(stage.platform.told) == 1


async def test_a_channel_that_became_private_makes_its_conversation_private(door: Door) -> None:
    async with door.open():
        await door.done(*await door.store(mention()))
        assert (await door.conversation("1")).visibility is Visibility.SHARED
        door.surface.kinds["C1"] = ChannelKind.PRIVATE
        await door.done(*await door.store(reply("a secret", "1.2", author=BOB)))
    conversation, bob = await door.conversation("1"), await door.user(BOB)
    assert conversation.visibility is Visibility.PRIVATE
    assert await door.stage.world.read(lambda uow: uow.conversations.members(conversation.id)) == {bob.user_id}
    assert await door.stage.world.titles() == []  # which the admin, who is not among them, does not see


async def test_people_whom_another_process_met_are_known_by_name(door: Door) -> None:
    await door.stage.world.write(lambda uow: identity.meet(uow, ACCOUNT, "U3", "carol"))
    async with door.open():
        await door.done(*await door.store(mention()))
        assert door.surface.known == {"U3", ALICE}
        await door.stage.world.write(lambda uow: identity.meet(uow, ACCOUNT, BOB, "bob"))
        await door.done(*await door.store(reply("me too", "1.2", author=BOB)))
    assert door.surface.known == {"U3", ALICE, BOB}


async def test_who_presses_a_button_in_a_private_channel_reads_along_from_then_on(door: Door) -> None:
    door.surface.kinds["C1"] = ChannelKind.PRIVATE
    async with door.open():
        await door.done(*await door.store(mention()))
    turn_id, bob = str((await door.messages("1"))[0].turn_id), await door.people().admit(BOB, "C1")
    elsewhere = await _press(door, bob, "2", turn_id)
    there = await _press(door, bob, "1", turn_id)
    assert elsewhere == "What this button is for is gone, or belongs to a conversation that you cannot see."
    assert there == ""
    assert (await door.messages("1"))[1].status is MessageStatus.CANCELLED


async def _press(door: Door, who: Principal, thread: str, value: str) -> str:
    place = Place(account=ACCOUNT, channel="C1", thread=thread)
    return await controls.press(door.stage.services(), who, place, Action.STOP, value)


async def test_who_types_a_command_in_a_private_chat_channel_reads_along_from_then_on(stage: Stage) -> None:
    door = Door(stage, Policy(channel_rules={"C1": ChannelRules(mode="chat")}))
    door.surface.kinds["C1"] = ChannelKind.PRIVATE
    async with door.open():
        await door.done(*await door.store(said("hello", author=BOB)))
    answer = await door.types("model openai/gpt-4o", Place(account=ACCOUNT, channel="C1"))
    assert answer == "From now on: `openai/gpt-4o`"


async def test_me_is_whoever_says_so_also_where_somebody_is_called_me(door: Door) -> None:
    door.stage.platform.profiles |= {each: Profile(external_id=each, name=each, member=True) for each in ("me", "nobody")}
    for each in ("me", "nobody"):
        await door.people().admit(each, "C1")
    place = Place(account=ACCOUNT, channel="C1")
    await door.types("new Buy milk", place)
    assert (await door.types("assign OT-1 me", place)).endswith("assigned to alice")
    await door.types("assign OT-1 Nobody", place)
    task = (await door.stage.world.read(lambda uow: uow.tasks.page(door.stage.world.admin, TaskFilter(), after=None, limit=1)))[0]
    assert task.assignee_id is None


async def test_a_command_that_fails_makes_nobody_known(door: Door) -> None:
    answer = await door.types(f"assign OT-9 <@{BOB}>", Place(account=ACCOUNT, channel="C1"))
    assert answer.startswith("No task 'OT-9'")
    assert BOB not in door.surface.known


async def test_writing_where_delivery_had_ended_begins_it_again(door: Door) -> None:
    async with door.open():
        await door.done(*await door.store(mention()))
        await door.stage.world.write(_end)
        await door.done(*await door.store(reply("still there?", "1.2")))
    assert not await _has_ended(door)


async def test_a_button_where_delivery_had_ended_begins_it_again_and_says_what_has_ended(door: Door) -> None:
    async with door.open():
        await door.done(*await door.store(mention()))
    turn_id, alice = str((await door.messages("1"))[0].turn_id), await door.user(ALICE)
    assert await _press(door, alice, "1", turn_id) == ""
    await door.stage.world.write(_end)
    assert await _press(door, alice, "1", turn_id) == "This answer has ended already."
    assert not await _has_ended(door)


async def test_a_command_where_delivery_had_ended_begins_it_again(door: Door) -> None:
    async with door.open():
        await door.done(*await door.store(mention()))
        await door.stage.world.write(_end)
    await door.types("show", Place(account=ACCOUNT, channel="C1", thread="1"))
    assert not await _has_ended(door)


async def _has_ended(door: Door) -> bool:
    binding = await door.stage.world.read(lambda uow: bindings.at(uow, Place(account=ACCOUNT, channel="C1", thread="1")))
    assert binding
    return binding.ended is not None


async def _end(uow: UnitOfWork) -> None:
    binding = await bindings.at(uow, Place(account=ACCOUNT, channel="C1", thread="1"))
    assert binding
    await bindings.end(uow, binding, "is_archived")


async def test_where_only_mentions_are_answered_the_rest_is_read_along(stage: Stage) -> None:
    door = Door(stage, Policy(channel_rules={"C1": ChannelRules(answer="mentions")}))
    stored = await door.store(mention(), reply("by the way", "1.2"), reply("and now?", "1.3", to_bot=True))
    async with door.open():
        await door.done(*stored)
    answered = [each.turn_id is not None for each in await door.messages("1") if each.author_id]
    assert answered == [True, False, True]


async def test_in_direct_messages_everything_is_answered(door: Door) -> None:
    stored = await door.store(mention("ask carol", channel="D1", to_others=True), lane="D1")
    async with door.open():
        await door.done(*stored)
    (question, _) = await door.messages("", "D1")
    assert question.turn_id


async def test_a_title_is_the_first_line_without_markup_and_short(door: Door) -> None:
    stored = await door.store(mention("\n\n**Plan** the [party](https://x.example)\nwith cake", "1"), mention("x" * 300, "2"))
    async with door.open():
        await door.done(*stored)
    first, second = await door.stage.world.titles()
    assert first == "Plan the party"
    assert len(second) == 200


async def test_whoever_is_not_answered_is_told_at_most_once_a_minute(door: Door, clock: ShiftedClock) -> None:
    long = "x" * 10_001
    async with door.open():
        await door.done(*await door.store(mention(), reply(long, "1.2"), reply(long, "1.3")))
        clock.advance(61)
        await door.done(*await door.store(reply(long, "1.4")))
    assert len(door.stage.platform.told) == 2


async def test_whoever_is_not_answered_for_another_reason_is_told_that_one_too(door: Door) -> None:
    many = [reply(str(number), f"2.{number}") for number in range(10, 31)]
    async with door.open():
        await door.done(*await door.store(mention(), reply("x" * 10_001, "1.2"), *many))
    reasons = [sentence.partition(".")[0] for _, sentence in door.stage.platform.told]
    assert reasons == ["A message has at most 10,000 characters; this one has 10,001", "20 messages here wait for an answer"]


async def test_who_may_not_be_answered_leaves_no_trace(stage: Stage) -> None:
    door = Door(stage, Policy(users=frozenset({BOB})))
    stored = await door.store(mention("canary"))
    async with door.open():
        await door.done(*stored)
    assert await door.texts("1") == []
    assert [user.name for user in await stage.world.read(lambda uow: uow.users.all())] == ["admin"]
