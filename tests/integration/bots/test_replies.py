"""Where threads must be made, and people reply to single messages: which conversation something belongs to, and what is open by then."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from bots import controls
from bots.policy import ChannelRules, Policy
from bots.surface import Action, Profile, Promoted, Stopped
from core import bindings, tasks
from core.ids import new_id
from core.models import Binding, BindingMode, ChannelKind, Delivery, DeliveryState, MessageStatus, Place, Visibility
from tests.fake_surface import ACCOUNT
from tests.integration.bots.conftest import Stage
from tests.integration.bots.door import ALICE, BOB, Door, ShiftedClock, edit, mention, reply, said
from tests.integration.conftest import Start

OURS = "500"
"""A message of ours at the channel's top."""


@pytest.fixture
async def stage(start: Start) -> AsyncIterator[Stage]:
    async with start(clock=ShiftedClock()) as world:
        found = Stage(world)
        yield found
        await found.platform.close()


@pytest.fixture
def door(stage: Stage) -> Door:
    return Door(stage, Policy(), makes_threads=True)


def place(thread: str = "", channel: str = "C1") -> Place:
    return Place(account=ACCOUNT, channel=channel, thread=thread)


async def bound(door: Door, thread: str = "1", channel: str = "C1") -> Binding:
    found = await door.stage.world.read(lambda uow: bindings.at(uow, place(thread, channel)))
    assert found
    return found


async def stands(
    door: Door, binding: Binding, remote_id: str = OURS, *, thread: str = "", state: DeliveryState = DeliveryState.FINAL
) -> None:
    """A message of ours that belongs to a binding."""
    message = (await door.stage.world.read(lambda uow: uow.messages.since(binding.conversation_id, 1)))[-1]
    delivery = Delivery(
        binding_id=binding.id,
        item=str(message.id),
        part=0,
        message_id=message.id,
        revision=1,
        remote_id=remote_id,
        thread=thread,
        nonce=new_id(),
        state=state,
        end=None,
        shown="",
        sent_at=message.created_at,
    )
    await door.stage.world.write(lambda uow: uow.deliveries.put(delivery))


async def takes(door: Door, *events: Any, told: int = 0) -> None:
    """Has them taken in, after which so many people were told something."""
    async with door.open():
        await door.done(*await door.store(*events))
        await door.stage.platform.until(lambda: len(door.stage.platform.told) == told)
    door.stage.world.app.clock.advance(600)  # type: ignore[attr-defined]  # the lease is over


async def stood_in(door: Door) -> Binding:
    """A task whose thread is not made yet: its answer stands at the channel's top."""
    await takes(door, mention("plan"))
    binding = await bound(door)
    await stands(door, binding)
    return binding


# --- what is open ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("makes_threads", [True, False])
async def test_the_thread_of_a_mention_is_to_be_made_where_the_platform_wants_that(stage: Stage, makes_threads: bool) -> None:
    door = Door(stage, Policy(), makes_threads=makes_threads)
    await takes(door, mention())
    binding = await bound(door)
    assert (binding.opened, binding.root) == (not makes_threads, "1" if makes_threads else "")


async def test_a_thread_in_which_the_bot_is_mentioned_is_open(door: Door) -> None:
    await takes(door, mention("hello", "1.2", thread="1"))
    assert (await bound(door)).opened


async def test_a_thread_in_which_people_write_is_open_whatever_delivery_noted(door: Door) -> None:
    await takes(door, mention(), reply("and that", "1.2"))
    assert await door.texts("1") == ["hello", "and that"]
    assert (await bound(door)).opened


async def test_a_mention_of_which_a_task_was_made_before_it_came_does_not_open_its_thread(door: Door) -> None:
    await takes(door, Promoted(said=mention("plan"), by=BOB), mention("plan"))
    assert await door.texts("1") == ["Said in this thread before:\n\n**alice**:\n> plan", "plan"]
    assert (await bound(door)).root == "1"


async def test_a_task_made_of_a_message_has_its_thread_on_it_and_one_made_in_a_thread_has_that(door: Door) -> None:
    await takes(door, Promoted(said=said("plan"), by=BOB), Promoted(said=said("paint", "2.1", thread="2"), by=BOB))
    assert ((await bound(door)).root, (await bound(door, "2")).opened) == ("1", True)


async def test_a_task_made_of_a_direct_message_is_talked_about_there(door: Door) -> None:
    await takes(door, Promoted(said=said("plan", channel="D1"), by=ALICE), mention("and that", "2", channel="D1"))
    assert (await door.texts("", "D1"))[1:] == ["and that"]
    assert ((await bound(door, "", "D1")).opened, len(await door.stage.world.read(lambda uow: uow.bindings.of_account(ACCOUNT)))) == (
        True,
        1,
    )


async def test_what_people_said_is_noted_with_its_thread(door: Door) -> None:
    await takes(door, mention(), reply("and that", "1.2"))
    noted = await door.stage.world.read(lambda uow: uow.deliveries.at(place(), "1"))
    within = await door.stage.world.read(lambda uow: uow.deliveries.at(place(), "1.2"))
    assert noted
    assert within
    assert (noted.thread, within.thread) == ("", "1")


# --- replies at the channel's top ------------------------------------------------------------------------------------


async def test_a_reply_to_a_message_of_ours_goes_on_with_its_conversation(door: Door) -> None:
    binding = await stood_in(door)
    await takes(door, mention("and mine?", "2", author=BOB, answers=OURS))
    assert await door.texts("1") == ["plan", "and mine?"]
    assert await door.stage.world.titles() == ["plan"]
    noted = await door.stage.world.read(lambda uow: uow.deliveries.at(place(), "2"))
    assert noted
    assert (noted.binding_id, noted.thread, noted.state) == (binding.id, "", DeliveryState.THEIRS)
    assert not (await bound(door)).opened


async def test_a_reply_to_the_card_of_a_task_with_a_thread_goes_on_there(door: Door) -> None:
    await takes(door, mention("plan", "1.2", thread="1"))
    await stands(door, await bound(door))
    await takes(door, mention("and mine?", "2", answers=OURS))
    assert (await door.texts("1"))[-1] == "and mine?"


async def test_a_reply_that_mentions_the_bot_goes_on_with_the_conversation_of_what_it_replies_to(door: Door) -> None:
    await stood_in(door)
    await takes(door, mention("and mine?", "2", author=BOB, to_others=True, answers="1"))
    assert await door.texts("1") == ["plan", "and mine?"]


async def test_a_reply_to_a_person_is_none_to_the_bot(door: Door) -> None:
    await stood_in(door)
    await takes(door, said("me too", "2", author=BOB, to_others=True, answers="1"))
    assert (await door.texts("1"), await door.stage.world.titles(), door.stage.platform.told) == (["plan"], ["plan"], [])


async def test_a_reply_to_what_a_task_was_made_of_goes_on_with_it(door: Door) -> None:
    await takes(door, Promoted(said=said("plan"), by=BOB), mention("and that", "2", answers="1"))
    assert (await door.texts("1"))[1:] == ["and that"]


async def test_a_thread_that_people_make_on_a_message_of_theirs_is_another_place(door: Door) -> None:
    binding = await stood_in(door)
    await takes(door, mention("more", "2", answers=OURS), mention("paint", "2.1", thread="2"))
    assert (await door.texts("1"), await door.texts("2")) == (["plan", "more"], ["paint"])
    assert not (await door.stage.binding(binding)).opened


async def test_a_reply_to_what_nobody_knows_is_a_new_task(door: Door) -> None:
    await stood_in(door)
    await takes(door, mention("another", "2", answers="499"))
    assert await door.stage.world.titles() == ["plan", "another"]


async def test_a_reply_to_a_conversation_that_was_deleted_is_a_new_task(door: Door) -> None:
    await stood_in(door)
    await door.stage.world.write(lambda uow: tasks.delete(uow, door.stage.world.admin, "OT-1"))
    await takes(door, mention("another", "2", answers=OURS))
    assert await door.stage.world.titles() == ["another"]


async def test_a_reply_where_a_conversation_can_only_be_read_is_told_what_to_do(door: Door) -> None:
    binding = await stood_in(door)
    await door.stage.world.write(lambda uow: uow.bindings.update(binding.id, mode=BindingMode.WATCH))
    await takes(door, mention("another", "2", answers=OURS), told=1)
    assert await door.stage.world.titles() == ["plan"]
    assert door.stage.platform.told[0][1].startswith("OT-1 can only be read where you wrote.")


async def test_a_message_in_a_thread_belongs_to_the_thread_whatever_it_replies_to(door: Door) -> None:
    await stood_in(door)
    await takes(door, mention("elsewhere", "2.1", thread="2", answers=OURS))
    assert (await door.texts("1"), (await door.texts("2"))[-1]) == (["plan"], "elsewhere")


async def test_what_stands_in_a_thread_is_not_replied_to_at_the_top(door: Door) -> None:
    """No platform lets people do so: a conversation of few would come out among many."""
    await takes(door, mention("plan"))
    await stands(door, await bound(door), thread="1")
    await takes(door, mention("another", "2", answers=OURS))
    assert await door.texts("1") == ["plan"]


async def test_in_a_channel_that_is_one_conversation_a_reply_is_said_in_it(stage: Stage) -> None:
    door = Door(stage, Policy(channel_rules={"C1": ChannelRules(mode="chat")}), makes_threads=True)
    await takes(door, said("hello"))
    other = await stage.world.write(lambda uow: tasks.create(uow, stage.world.admin, "other"))
    await stands(door, await bound(door, ""), "499")
    elsewhere = await stage.bound(other.conversation_id, place("new-1"), opened=False)
    await door.stage.world.write(lambda uow: uow.bindings.update(elsewhere.id, thread="7"))
    await takes(door, mention("and that", "2", answers="499"))
    assert await door.texts("") == ["hello", "and that"]


async def test_what_replied_is_changed_where_it_was_said(door: Door) -> None:
    await stood_in(door)
    await takes(door, mention("and mine?", "2", answers=OURS), edit("and hers?", "2"))
    assert await door.texts("1") == ["plan", "and hers?"]


@pytest.mark.parametrize("word", ["!stop", " !STOP "])
async def test_the_word_that_stops_does_so_as_a_reply(door: Door, word: str) -> None:
    await stood_in(door)
    await takes(door, mention(word, "2", answers=OURS))
    assert (await door.messages("1"))[1].status is MessageStatus.CANCELLED
    assert await door.texts("1") == ["plan"]


async def test_the_platforms_own_stop_does_not_open_a_thread(door: Door) -> None:
    await takes(door, mention(), Stopped(channel="C1", thread="1", by=BOB))
    assert ((await door.messages("1"))[1].status, (await bound(door)).root) == (MessageStatus.CANCELLED, "1")


@pytest.mark.parametrize("opened", [False, True])
async def test_of_an_answer_at_the_top_no_second_task_is_made(door: Door, opened: bool) -> None:
    await stood_in(door)
    if opened:
        await takes(door, reply("and that", "1.2"))
    await takes(door, Promoted(said=said("an answer", OURS, author="BOT"), by=BOB), told=1)
    assert await door.stage.world.titles() == ["plan"]
    assert door.stage.platform.told == [(BOB, "This conversation belongs to OT-1 already.")]


async def test_a_button_of_an_answer_at_the_top_is_pressed_by_whoever_reads_along(door: Door) -> None:
    door.surface.kinds["C1"] = ChannelKind.PRIVATE
    await stood_in(door)
    turn_id, bob = str((await door.messages("1"))[0].turn_id), await door.people().admit(BOB, "C1")
    services = door.stage.services()
    elsewhere = await controls.press(services, bob, place(), Action.STOP, turn_id, message="499")
    there = await controls.press(services, bob, place(), Action.STOP, turn_id, message=OURS)
    assert (elsewhere, there) == ("What this button is for is gone, or belongs to a conversation that you cannot see.", "")


# --- who, and who reads along ----------------------------------------------------------------------------------------


async def test_a_private_thread_of_an_open_channel_is_private(door: Door) -> None:
    door.surface.kinds |= {"7": ChannelKind.PRIVATE, "8": ChannelKind.PRIVATE}
    await takes(door, mention("hello", "7.1", thread="7"), Promoted(said=said("x", "8.1", thread="8"), by=BOB), mention("hello", "1"))
    visible = [(await door.conversation(each)).visibility for each in ("7", "8", "1")]
    assert visible == [Visibility.PRIVATE, Visibility.PRIVATE, Visibility.SHARED]


@pytest.mark.parametrize("policy", [Policy(), Policy(guests=True), Policy(users=frozenset({BOB}), guests=True)])
async def test_whom_the_platform_refuses_is_told_why_whatever_the_policy(stage: Stage, policy: Policy) -> None:
    door = Door(stage, policy, makes_threads=True)
    stage.platform.profiles[BOB] = Profile(external_id=BOB, name="bob", member=False, refusal="You lack a role.")
    await takes(door, mention(author=BOB), told=1)
    assert (await door.texts("1"), stage.platform.told) == ([], [(BOB, "You lack a role.")])


# --- commands that ask for a ref apart -------------------------------------------------------------------------------


async def made(door: Door, *titles: str) -> None:
    for title in titles:
        await door.types(f"new {title}", place())


async def test_a_ref_that_is_asked_for_apart_is_no_part_of_the_text(door: Door) -> None:
    await made(door, "Buy milk", "Sell milk")
    assert (await door.types("assign me", place(), ref="OT-2")).endswith("**OT-2** Sell milk · todo · assigned to alice")
    assert (await door.types("assign OT-1 me", place(), ref="ot-2")).startswith("There is no user 'OT-1 me'.")
    assert (await door.types("show OT-1", place(), ref="OT-2")).startswith("**OT-2**")
    assert (await door.types("model openai/gpt-4o", place(), ref="OT-1")) == "From now on: `openai/gpt-4o`"


async def test_a_ref_that_is_none_marks_nothing_as_done(door: Door) -> None:
    await takes(door, mention("plan"))
    assert (await door.types("done", place("1"), ref="buy milk")).startswith("No task 'buy milk'")
    assert (await door.types("done", place("1"), ref="x" * 41)).startswith("No task has a ref of more than")
    assert await door.types("done", place("1"), ref="") == "**OT-1** plan · done"


async def test_what_may_be_meant_comes_with_the_open_tasks_first(door: Door) -> None:
    await made(door, "Buy milk", "Sell milk", "Paint")
    await door.types("done OT-2", place())
    commands = door.commands()
    assert await commands.refs(ALICE, place(), "") == [("OT-3", "Paint"), ("OT-1", "Buy milk"), ("OT-2", "Sell milk")]
    assert await commands.refs(ALICE, place(), " MILK ") == [("OT-1", "Buy milk"), ("OT-2", "Sell milk")]
    assert await commands.refs(ALICE, place(), "ot-3") == [("OT-3", "Paint")]
    assert await commands.refs(ALICE, place(), "", limit=2) == [("OT-3", "Paint"), ("OT-1", "Buy milk")]


async def test_nothing_that_may_be_meant_is_shown_to_strangers_or_of_what_is_private(door: Door) -> None:
    door.surface.kinds["C2"] = ChannelKind.PRIVATE
    await door.types("new A secret", place("", "C2"))
    assert await door.commands().refs(BOB, place(), "") == []
    assert await door.commands().refs("U9", place(), "") == []
    assert await door.commands().models("U9", place(), "") == []
    assert await door.commands().models(BOB, place(), "def") == ["default"]


async def test_where_no_thread_can_be_made_new_says_so_and_where_its_conversation_is(door: Door) -> None:
    answer = await door.types("new Buy a present", place("", "D1"), has_threads=False)
    task = await door.stage.world.read(lambda uow: uow.tasks.by_ref("OT-1", door.stage.world.admin))
    assert task is None  # it is alice's alone
    assert answer.startswith(
        "Made **OT-1** Buy a present · todo\n\nNo thread can be made here. Talk about it [on the web](https://one.example/"
    )
    assert await door.stage.world.read(lambda uow: uow.bindings.of_account(ACCOUNT)) == []


async def test_new_in_a_private_thread_makes_a_private_task(door: Door) -> None:
    door.surface.kinds["7"] = ChannelKind.PRIVATE
    await door.types("new A secret", place("7"), has_threads=False)
    assert await door.stage.world.titles() == []


async def test_help_shows_what_must_be_typed_where_people_type_it(door: Door) -> None:
    typed, chosen = await door.types("help", place()), await door.types("help", place(), ref="")
    assert "`/task assign [OT-12] <name, me or nobody>` says whose it is" in typed
    assert "`/task assign` says whose it is" in chosen
    assert (await door.types("dnoe", place(), ref="")).endswith(chosen)
