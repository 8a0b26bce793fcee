"""What people follow where they are, by commands and by messages that are commands: what comes in then, who is told what, what stays."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from bots.commands import Command
from bots.policy import ChannelRules, Policy
from bots.surface import Profile, Promoted, Removed, Stopped
from core import bindings, tasks
from core.models import NOT_A_READER, Binding, BindingCheck, BindingMode, ChannelKind, MessageStatus, Place, Role, Visibility
from core.ports import UnitOfWork
from tests.fake_surface import ACCOUNT
from tests.integration.bots.conftest import Stage
from tests.integration.bots.door import ALICE, BEGIN, BOB, Door, ShiftedClock, card, edit, mention, reply, said
from tests.integration.conftest import Start

READ_ONLY = "OT-1 can only be read where you wrote."
OVER = "What was shown where you wrote is not followed there any more."
GUEST = "U9"


@pytest.fixture
async def stage(start: Start) -> AsyncIterator[Stage]:
    async with start(clock=ShiftedClock()) as world:
        found = Stage(world)
        found.platform.profiles[GUEST] = Profile(external_id=GUEST, name="eve", member=False)
        yield found
        await found.platform.close()


@pytest.fixture
def door(stage: Stage) -> Door:
    return Door(stage, Policy())


async def takes(door: Door, *events: Any) -> list[str]:
    """What people are told once these were taken in."""
    before = len(door.stage.platform.told)
    async with door.open():
        await door.done(*await door.store(*events, None))  # the last one is nothing: before it everybody was told
    door.stage.world.app.clock.advance(600)  # type: ignore[attr-defined]  # the lease is over
    return [sentence for _, sentence in door.stage.platform.told[before:]]


def place(thread: str = "1", channel: str = "C1") -> Place:
    return Place(account=ACCOUNT, channel=channel, thread=thread)


async def shown(door: Door, thread: str = "1", channel: str = "C1") -> Binding | None:
    return await door.stage.world.read(lambda uow: bindings.at(uow, place(thread, channel)))


async def mode(door: Door, thread: str = "1", channel: str = "C1") -> BindingMode | None:
    found = await shown(door, thread, channel)
    return found.mode if found else None


async def private_chat(door: Door, who: str = ALICE, channel: str = "D1") -> UUID:
    await takes(door, mention("plan a surprise", channel=channel, author=who))
    return (await door.conversation("", channel)).id


async def members(door: Door, conversation_id: UUID) -> set[UUID]:
    return set(await door.stage.world.read(lambda uow: uow.conversations.members(conversation_id)))


# --- from the beginning to the end -----------------------------------------------------------------------------------


async def test_a_thread_follows_a_task_from_when_that_is_said_until_it_is_unfollowed_and_again(door: Door) -> None:
    await door.stage.world.task("Buy milk")
    assert await takes(door, reply("our own talk", "1.1"), reply("!follow ot-1", "1.2")) == []
    found = await shown(door)
    assert found
    assert (found.mode, found.followed, found.kind, found.check) == (BindingMode.TWO_WAY, True, ChannelKind.OPEN, BindingCheck.NONE)
    assert await takes(door, reply("oat milk", "1.3"), reply("and bread", "1.4", author=BOB)) == []
    assert await door.texts("1") == ["oat milk", "and bread"]

    assert await takes(door, reply("!follow OT-1", "1.5")) == ["OT-1 Buy milk is shown here already."]
    assert await takes(door, reply("!follow OT-1 Read-Only", "1.6")) == []
    assert await mode(door) is BindingMode.WATCH
    told = await takes(door, reply("among us", "1.7", author=GUEST), reply("really", "1.8"), reply("you?", "1.9", to_bot=True))
    page = f"https://one.example/conversations/{found.conversation_id}"
    assert told == [f"{READ_ONLY} Write to it on the web: {page} To write there, too, write there `!follow OT-1`"]

    assert await takes(door, reply("!unfollow", "2.1", author=BOB)) == []
    assert await mode(door) is BindingMode.OFF
    told = await takes(door, reply("among us", "2.2", author=GUEST), reply("you?", "2.3", to_bot=True), reply("!unfollow", "2.4"))
    assert told == [
        f"{OVER} To go on with it, write there `!follow OT-1`. For something new, mention me in the channel.",
        "Nothing is followed here. Say which task it is that is to be unfollowed in this channel, such as OT-12.",
    ]
    changes = [edit("soy milk", "1.3", thread="1"), Removed(remote_id="1.4", channel="C1", thread="1")]
    assert await takes(door, *changes, reply("!follow OT-1", "2.5"), reply("and jam", "2.6")) == []
    assert await door.texts("1") == ["soy milk", "", "and jam"]
    again = await shown(door)
    assert again
    assert (again.id, again.mode) == (found.id, BindingMode.TWO_WAY)


async def test_what_is_meant_can_be_said_by_an_id_or_an_address_and_by_an_edit(door: Door) -> None:
    task, chat = await door.stage.world.task("Buy milk"), await private_chat(door)
    page = f"https://one.example/conversations/{task.conversation_id}"
    events = [
        reply(f"!follow {task.id}", "1.1"),
        said(f"!follow <{page}?x=1#m|{page}>", "2.1", thread="2"),
        said("!follow https://one.example/tasks/ot-1 read-only", "3.1", thread="3"),
        said(f"!follow confirm {chat}", "4.1", thread="4", to_bot=True),
        said("!follow OT-1", "5.1", thread="5", to_bot=True, edited_at=BEGIN + timedelta(seconds=6)),
    ]
    assert await takes(door, *events) == []
    found = [await shown(door, str(number)) for number in range(1, 6)]
    assert [each and each.conversation_id for each in found] == [task.conversation_id] * 3 + [chat, task.conversation_id]
    assert [each and each.mode for each in found] == [BindingMode.TWO_WAY] * 2 + [BindingMode.WATCH] + [BindingMode.TWO_WAY] * 2


async def test_at_a_channels_top_it_is_followed_in_a_thread_below_and_in_a_chat_there(stage: Stage) -> None:
    door = Door(stage, Policy(channel_rules={"C2": ChannelRules(mode="chat")}), makes_threads=True)
    await stage.world.task("Buy milk")
    follow = partial(said, "!follow OT-1")
    events = (follow(), follow("2", channel="C2"), follow("3", channel="D1", to_bot=True), follow("4.1", thread="4"))
    assert await takes(door, *events) == []
    found = [await shown(door, *where) for where in (("1", "C1"), ("", "C2"), ("", "D1"), ("4", "C1"))]
    assert [(each.root, each.opened) for each in found if each] == [("1", False), ("", True), ("", True), ("", True)]
    assert await takes(door, said("oat milk", "5", channel="C2"), said("and bread", "6", channel="D1", to_bot=True)) == []
    assert await door.texts("4") == ["oat milk", "and bread"]


async def test_a_command_follows_in_one_thread_of_its_own_in_the_channel(door: Door) -> None:
    await door.stage.world.task("Buy milk")
    types = partial(door.types, place=place(""))
    named = "**OT-1** Buy milk"
    door.stage.platform.labels["C1"] = "#ops"
    assert await types("follow ot-1 read-only") == f"{named} gets a thread of its own, in a moment: it can only be read there."
    (made,) = await door.stage.world.read(lambda uow: uow.bindings.of_account(ACCOUNT))
    assert (made.opened, made.root, made.mode, made.followed, made.label) == (False, "", BindingMode.WATCH, True, "#ops")
    await door.stage.world.write(lambda uow: uow.bindings.open(made.id, "7", ""))
    thread = "in its thread, https://fake.example/C1/7"
    assert await types("follow OT-1 read-only") == f"{named} is shown {thread} already, read-only."
    assert await types("follow OT-1") == f"{named} is shown {thread} from now on: what is written there is part of it."
    assert (await types("unfollow")).startswith("Nothing is followed here.")
    assert await types("unfollow OT-1") == f"{named} is not shown in this channel any more."
    assert await types("unfollow OT-1") == f"{named} is not followed in this channel."
    assert await types("follow OT-1") == f"{named} is shown {thread} from now on: what is written there is part of it."
    await door.stage.world.write(partial(end, thread="7"))
    assert await types("follow", ref="OT-1") == f"{named} gets a thread of its own, in a moment: what is written there is part of it."
    assert [each.id for each in await of_task(door) if each.is_on] != [made.id]
    assert await types("follow OT-1", has_threads=False, place=place("", "C9")) == (
        "No thread can be made here. Follow it in a text channel, or in a thread."
    )


async def of_task(door: Door, ref: str = "OT-1") -> Sequence[Binding]:
    task = await door.stage.world.read(lambda uow: uow.tasks.by_ref(ref, door.stage.world.admin))
    assert task
    return await door.stage.world.read(lambda uow: uow.bindings.of_conversation(task.conversation_id))


async def end(uow: UnitOfWork, thread: str = "1", reason: str = "is_archived") -> None:
    found = await bindings.at(uow, place(thread))
    assert found
    await bindings.end(uow, found, reason)


# --- who is told what ------------------------------------------------------------------------------------------------


async def test_what_cannot_be_followed_is_told_to_whoever_wants_it(door: Door) -> None:
    await takes(door, mention("plan", "7"))
    secret = await private_chat(door, BOB, "D2")
    bob = await door.user(BOB)
    await door.stage.world.write(lambda uow: tasks.promote(uow, bob, secret, "A surprise"))
    await door.stage.world.task("Buy milk")
    refused = {
        "!follow OT-99": "No task 'OT-99'.",
        "!follow OT-2": "No task 'OT-2'.",
        "!follow ot-2 confirm": "No task 'OT-2'.",
        f"!follow {secret}": f"There is no conversation {secret}.",
        "!follow OT-3 OT-1": "Say which task, and whether it is only to be read here: !follow OT-12 or !follow OT-12 read-only",
        "!follow OT-3 please": "Say which task",
        "!follow": "Say which task",
        "!follow OT-3": "This place shows OT-1 already. Unfollow that first, with /task unfollow there or on its page.",
        "!follow OT-1": "OT-1 plan is shown here already.",
    }
    told = await takes(door, *(said(text, f"7.{number}", thread="7") for number, text in enumerate(refused, 10)))
    assert {text: sentence.startswith(refused[text]) for text, sentence in zip(refused, told, strict=True)} == dict.fromkeys(refused, True)
    assert await door.texts("7") == ["plan"]


async def test_whoever_takes_no_direct_messages_is_told_in_front_of_others_only_how_to_be_told(door: Door) -> None:
    home = await private_chat(door)
    door.stage.platform.without_dms.add(ALICE)
    assert await takes(door, reply(f"!where {home}", "1.1", to_bot=True), reply(f"!follow {home}", "1.2")) == []
    assert door.stage.platform.texts() == [
        f"@{ALICE} I cannot write to you in private. Use `/task {name}` here, or allow direct messages." for name in ("where", "follow")
    ]


async def test_under_a_card_whose_thread_is_not_noted_yet_nothing_else_is_followed(door: Door) -> None:
    first = await door.stage.world.task("Buy milk")
    await door.stage.world.task("Sell milk")
    made = await door.stage.bound(first.conversation_id, place("new-1"), opened=False)
    await door.stage.world.write(lambda uow: uow.deliveries.put(card(uow, made.id)))
    assert await takes(door, reply("!follow OT-2", "1.1")) == [
        "This place shows OT-1 already. Unfollow that first, with /task unfollow there or on its page."
    ]
    assert await takes(door, reply("!follow OT-1", "1.2")) == ["OT-1 Buy milk is shown here already."]


async def test_what_is_private_is_followed_among_others_only_once_that_is_confirmed(door: Door) -> None:
    await door.people().admit(BOB, "C1")
    home = await private_chat(door)
    door.surface.kinds["C3"] = ChannelKind.PRIVATE
    for where in ("C1", "C3"):
        write = partial(reply, channel=where)
        (question,) = await takes(door, write(f"!follow {home} read-only", "1.1"))
        assert question.startswith("This conversation is private: only alice reads it.")
        assert question.endswith(f"If that is meant: !follow {home} read-only confirm")
        assert await shown(door, "1", where) is None
        assert await takes(door, write(question.rpartition(": ")[2], "1.2")) == []
        assert await mode(door, "1", where) is BindingMode.WATCH
        events = [write("me, too", "1.3", to_bot=True), write(f"!follow {home}", "1.4"), write("!where", "1.5")]
        assert await takes(door, *(replace(each, author=BOB) for each in events)) == [
            "What is shown where you wrote can only be read there. Who takes part in it can change that with `!follow`.",
            f"There is no conversation {home}.",
            "What is followed here is a conversation that you cannot see anywhere else.",
        ]
    assert await takes(door, reply("!unfollow", "1.6", author=BOB)) == []
    assert await takes(door, reply("hm", "1.7", author=BOB, to_bot=True)) == [f"{OVER} For something new, mention me in the channel."]
    assert await members(door, home) == set()
    asked = await door.types("follow", place("", "C4"), ref=str(home))
    assert asked.endswith("If that is meant: choose `confirm` in the command, too.")
    assert "gets a thread" in await door.types("follow confirm", place("", "C4"), ref=str(home))


async def test_who_writes_where_a_private_conversation_is_followed_both_ways_takes_part_in_it(door: Door) -> None:
    home = await private_chat(door)
    assert await takes(door, reply(f"!follow {home} confirm", "1.1"), reply("me, too", "1.2", author=BOB)) == []
    assert await members(door, home) == {(await door.user(BOB)).user_id}
    assert (await door.texts("", "D1"))[1:] == ["me, too"]


async def test_a_task_of_all_stays_one_where_few_follow_it(door: Door) -> None:
    door.surface.kinds["C3"] = ChannelKind.PRIVATE
    await takes(door, mention("plan", "7"), reply("!follow OT-1", "1.1", channel="C3"), reply("and mine", "1.2", channel="C3", author=BOB))
    conversation = await door.conversation("7")
    assert (conversation.visibility, await door.texts("7")) == (Visibility.SHARED, ["plan", "and mine"])


async def test_where_tells_all_the_places_and_how_it_is_shown_there(door: Door) -> None:
    task = await door.stage.world.task("Buy *milk*")
    door.stage.platform.missing.add("C1")  # as if its name were not told
    events = [
        said(text, f"{number}.1", thread=str(number)) for number, text in enumerate(("!follow OT-1", "!follow OT-1 read-only") * 2, 1)
    ]
    await takes(door, *events, said("!unfollow", "3.2", thread="3"))
    await door.stage.world.write(partial(end, thread="4"))
    lines = [
        "OT-1 Buy *milk* is shown",
        f"on the web · https://one.example/conversations/{task.conversation_id}",
        "in a channel on Fake · two-way",
        "in a channel on Fake · read-only",
        "in a channel on Fake · The channel is archived.",
    ]
    elsewhere = partial(said, thread="9", to_bot=True)
    told = await takes(door, reply("!where", "1.3"), elsewhere("!where ot-1", "9.1"), elsewhere("!where", "9.2"))
    assert [each.splitlines() for each in told[:2]] == [lines, lines]
    assert told[2] == "Nothing is followed here. Say which task it is that you look for, such as OT-12."
    assert await takes(door, said("hm", "4.2", thread="4", to_bot=True)) == [
        "What was shown where you wrote could not be sent there any more. To have it shown again, write there `!follow OT-1 read-only`."
    ]
    assert (await door.types("where", place("", "C9"), ref="OT-1")).splitlines()[0] == r"**OT-1** Buy \*milk\* is shown"
    assert (await door.types("show", place("1"))).endswith("Also read-only in a channel on Fake")
    assert await takes(door, said("!follow OT-1 read-only", "4.2", thread="4")) == []  # everybody sees that it is back
    assert [each.ended for each in await of_task(door)] == [None] * 4


async def test_talk_among_people_and_with_other_bots_asks_the_platform_nothing(door: Door) -> None:
    await door.stage.world.task("Buy milk")
    texts = ("!follow the money", "!follow", "!where", "!unfollow", "!where is it", "!unfollow OT-1", "!follow OT-1\nand more", "!stop it")
    assert await takes(door, *(said(text, str(number)) for number, text in enumerate(texts, 1))) == []
    assert door.surface.looked_up == []


async def test_strangers_follow_nothing_and_are_told_so_once(door: Door) -> None:
    await door.stage.world.task("Buy milk")
    told = await takes(door, *(reply("!follow OT-1", f"1.{number}", author=GUEST) for number in (1, 2)))
    assert told == ["I talk with full members of this workspace only, not with guests, apps or people of other workspaces."]
    assert await shown(door) is None


# --- what does not come in -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["!stop", "the platform's stop", "a task of it"])
async def test_where_it_can_only_be_read_nothing_is_done_by_whoever_is_there(door: Door, act: str) -> None:
    acts = {
        "!stop": reply("!stop", "1.2", author=BOB),
        "the platform's stop": Stopped(channel="C1", thread="1", by=BOB),
        "a task of it": Promoted(said=reply("mine", "1.3", author=BOB), by=BOB),
    }
    (told,) = await takes(door, mention("plan", "7"), reply("!follow OT-1 read-only", "1.1"), acts[act])
    assert told.startswith(READ_ONLY)
    assert [each.status for each in (await door.messages("7"))[:2]] == [MessageStatus.PENDING] * 2
    assert await door.stage.world.titles() == ["plan"]


async def test_before_the_platform_was_asked_nobody_comes_in_and_where_it_said_no_a_mention_is_a_task(door: Door) -> None:
    home, world = await private_chat(door), door.stage.world
    alice = await door.people().admit(ALICE, "C1")
    wanted = {"kind": None, "mode": BindingMode.TWO_WAY, "check": BindingCheck.PERSON, "confirmed": True, "source": "web"}
    await world.write(lambda uow: bindings.follow(uow, alice, home, place(), **wanted))  # type: ignore[arg-type]
    events = [reply("among us", "1.1"), reply("you?", "1.2", to_bot=True), reply("!stop", "1.3", author=GUEST)]
    told = await takes(door, *(replace(each, author=BOB) for each in events[:2]), events[2])
    assert told[0] == "I am still looking up the place where you wrote. Say it again in a moment."
    assert len(told) == 2  # the guest is turned away
    await door.commands().run(Command(text="where", person=BOB, place=place(), event_id="1"))
    assert await members(door, home) == set()
    await world.write(partial(end, reason=NOT_A_READER))
    assert await takes(door, reply("plan", "1.4", to_bot=True)) == []
    assert (await door.texts("1"), await world.titles()) == (["plan"], ["plan"])


async def test_who_is_there_need_not_wait_until_the_platform_was_asked(door: Door) -> None:
    task, world = await door.stage.world.task("Buy milk"), door.stage.world
    alice = await door.people().admit(ALICE, "C1")
    wanted = {"kind": None, "mode": BindingMode.TWO_WAY, "check": BindingCheck.PERSON, "source": "web"}
    await world.write(lambda uow: bindings.follow(uow, alice, task.conversation_id, place(), **wanted))  # type: ignore[arg-type]
    assert await takes(door, reply("our own talk", "1.1"), reply("!follow OT-1", "1.2", author=BOB), reply("oat milk", "1.3")) == []
    assert await door.texts("1") == ["oat milk"]
    assert [each.content for each in await door.messages("1") if each.role is Role.SYSTEM] == [
        "bob follows this in #general on Fake from now on."
    ]


async def test_a_chat_that_was_unfollowed_begins_anew_and_what_was_said_before_is_still_its_own(door: Door) -> None:
    talk = partial(said, channel="D1", to_bot=True)
    await door.stage.world.task("Buy milk")
    told = await takes(door, talk("hello", "1"), talk("a secret", "2"), talk("!follow OT-1", "3"))
    assert told == ["This place shows another conversation already. Unfollow that first, with /task unfollow there or on its page."]
    first = await door.conversation("", "D1")
    assert await takes(door, talk("!unfollow", "4"), talk("something new", "5")) == []
    second = await door.conversation("", "D1")
    assert (second.id != first.id, await door.texts("", "D1")) == (True, ["something new"])
    await takes(door, edit("hi", "1", channel="D1"), Removed(remote_id="2", channel="D1", thread=""))
    before = await door.stage.world.read(lambda uow: uow.messages.since(first.id, 1))
    assert [each.content for each in before if each.role is Role.USER] == ["hi", ""]
    assert await takes(door, talk("!unfollow", "6"), talk("!follow OT-1", "7"), talk("oat milk", "8")) == []
    assert (await door.conversation("", "D1")).task_ref == "OT-1"
    assert await door.texts("", "D1") == ["oat milk"]


async def test_what_became_private_is_not_followed_among_others_any_more_and_an_edit_lets_nobody_in(door: Door) -> None:
    await takes(door, mention("plan", "7"), reply("!follow OT-1", "1.1", author=BOB), reply("me, too", "1.2", author=BOB))
    door.surface.kinds["7"] = ChannelKind.PRIVATE
    assert await takes(door, said("among us", "7.1", thread="7")) == []
    assert await takes(door, edit("not me", "1.2", thread="1", author=BOB)) == []
    conversation = await door.conversation("7")
    assert (conversation.visibility, await mode(door)) == (Visibility.PRIVATE, BindingMode.OFF)
    assert await door.texts("7") == ["plan", "not me", "among us"]
    assert await members(door, conversation.id) == set()
