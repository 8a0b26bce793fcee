"""Conversations at places of chat platforms: bound, ended, taken up again; and who may do it."""

from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from core import bindings, conversations, frames, identity, linking, wording
from core.access import Audience, Principal
from core.errors import Conflict, NotAuthenticated, NotConfirmed, NotFound, RateLimited
from core.events import ConversationChanged, MessageAdded
from core.ids import new_id
from core.models import (
    INTRO,
    JSON,
    NOT_A_READER,
    Account,
    Binding,
    BindingCheck,
    BindingMode,
    ChannelKind,
    Delivery,
    DeliveryState,
    KnownPlace,
    Place,
    Role,
)
from core.ports import UnitOfWork
from tests.databases import on_both
from tests.fakes import Call, Gate, said
from tests.integration.conftest import World

new_database = on_both
TWO_WAY, WATCH, OFF = BindingMode
PLACE = Place(account=Account(surface="slack", id="T1"), channel="C1", thread="1.0")


async def bind(world: World, conversation_id: UUID, place: Place = PLACE, who: Principal | None = None, *, opened: bool = True) -> Binding:
    return await world.write(lambda uow: bindings.bind(uow, who or world.admin, conversation_id, place, opened=opened))


async def follow(world: World, conversation_id: UUID, place: Place = PLACE, who: Principal | None = None, **how: Any) -> Binding:
    how = {"mode": TWO_WAY, "kind": ChannelKind.OPEN, "confirmed": True, "source": "slack", **how}
    return await world.write(lambda uow: bindings.follow(uow, who or world.admin, conversation_id, place, **how))


async def change(world: World, binding: Binding, mode: BindingMode, who: Principal | None = None, **how: Any) -> Binding:
    how = {"check": BindingCheck.NONE, "confirmed": True, "source": "web", **how}
    return await world.write(lambda uow: bindings.change_mode(uow, who or world.admin, binding.id, mode, **how))


async def check(world: World, binding: Binding, thread: str = "1.0", **what: Any) -> Binding:
    what = {"channel": "C1", "thread": thread, "opened": True, "kind": ChannelKind.OPEN, "label": "#ops", "url": "https://s/1", **what}
    return await world.write(lambda uow: bindings.checked(uow, binding, **what))


async def learn(world: World, binding: Binding, **what: Any) -> Binding:
    what = {"kind": ChannelKind.OPEN, "label": "#ops", "url": "https://s/1", **what}
    return await world.write(lambda uow: bindings.learned(uow, binding, **what))


async def put(world: World, binding: Binding, item: str, message_id: UUID | None = None, remote_id: str = "1.5", **fields: Any) -> Delivery:
    """Notes what stands at a binding's place."""
    about = {"part": 0, "revision": 0, "nonce": new_id(), "end": None, "shown": "", "sent_at": binding.created_at, **fields}
    row = Delivery(binding_id=binding.id, item=item, message_id=message_id, remote_id=remote_id, **about)
    await world.write(lambda uow: uow.deliveries.put(row))
    return row


async def notices(world: World, conversation_id: UUID) -> list[tuple[str, str, UUID | None]]:
    """What each tells of, in words, and who did it."""
    messages = await world.read(lambda uow: uow.messages.since(conversation_id, 1))
    told = [each for each in messages if each.role is Role.SYSTEM]
    assert all((each.turn_id, each.status.finished) == (None, True) for each in told)
    return [(each.metadata["notice"], each.content, each.author_id) for each in told]


async def known(world: World, who: Principal, account: Account = PLACE.account) -> None:
    """Makes somebody known on a platform."""

    async def add(uow: UnitOfWork) -> None:
        user = await uow.users.get(who.user_id)
        assert user
        await identity.add_account(uow, account, f"U{user.name}", user.name, user, linked_at=uow.now)

    await world.write(add)


async def shown(world: World, conversation_id: UUID) -> list[JSON]:
    return await world.read(lambda uow: frames.bindings_json(uow, conversation_id))


async def found(world: World, place: Place = PLACE) -> Binding:
    binding = await world.read(lambda uow: bindings.at(uow, place))
    assert binding
    return binding


async def test_a_new_place_begins_at_the_end_where_nothing_waits(world: World) -> None:
    chat = await world.chat()
    async with world.working():
        await world.ask(chat.id, "Hello")
    binding = await bind(world, chat.id)
    assert await found(world) == binding
    assert (binding.conversation_id, binding.place, binding.cursor, binding.ended) == (chat.id, PLACE, 2, None)


async def test_a_new_place_begins_with_the_oldest_message_that_waits_for_an_answer(world: World) -> None:
    gate = Gate()
    chat = await world.chat()
    async with world.working():
        await world.ask(chat.id, "Answered")
        world.model.will(gate, "Later.")
        await world.post(chat.id, "Running")
        await world.post(chat.id, "Queued")
        await gate.reached()
        assert (await bind(world, chat.id)).cursor == 2
        gate.open()


async def test_an_empty_conversation_is_shown_from_its_beginning(world: World) -> None:
    assert (await bind(world, (await world.chat()).id)).cursor == 0


async def test_others_hear_of_a_place_and_of_its_end(world: World) -> None:
    chat = await world.chat()
    changed = ConversationChanged(conversation_id=chat.id)
    with world.app.live.subscribe() as events:
        binding = await bind(world, chat.id)
        assert events.waiting() == [changed]
        await world.write(lambda uow: bindings.end(uow, binding, "is_archived"))
        assert [type(each) for each in events.waiting()] == [ConversationChanged, MessageAdded]
        ended = await found(world)
        assert ended.ended == "is_archived"
        await world.write(lambda uow: bindings.end(uow, ended, "not_in_channel"))
        assert events.waiting() == []
        await world.write(lambda uow: bindings.revive(uow, ended))
        assert [type(each) for each in events.waiting()] == [ConversationChanged, MessageAdded]
        await world.write(lambda uow: bindings.revive(uow, ended))
        assert events.waiting() == []
    assert await notices(world, chat.id) == [
        ("ended", "This is not shown in a channel on Slack any more. The channel is archived.", None),
        ("back", "This is shown in a channel on Slack again.", None),
    ]


async def test_what_was_said_while_a_place_was_closed_is_not_poured_into_it(world: World) -> None:
    chat = await world.chat()
    binding = await bind(world, chat.id)
    await world.write(lambda uow: bindings.end(uow, binding, "is_archived"))
    async with world.working():
        for number in range(3):
            await world.ask(chat.id, f"Meanwhile {number}")
    await world.post(chat.id, "Waits")

    await world.write(lambda uow: bindings.revive(uow, replace(binding, ended="is_archived")))

    revived = await found(world)
    assert (revived.ended, revived.cursor) == (None, 7)


async def test_a_place_that_is_still_to_be_opened_keeps_our_name_to_itself(world: World) -> None:
    named = replace(PLACE, thread="new-1")
    binding = await bind(world, (await world.chat()).id, named, opened=False)
    assert binding.place == replace(PLACE, thread="")
    assert await found(world, named) == binding
    await world.write(lambda uow: uow.bindings.update(binding.id, opened=True, thread="1.0"))
    assert (await found(world)).place == PLACE


async def test_a_place_that_shows_something_is_not_given_away(world: World) -> None:
    kim, chat = await world.user("kim"), await world.chat()
    task = await world.task("Buy milk", kim)
    await bind(world, task.conversation_id, who=kim)
    with pytest.raises(Conflict, match=r"^This place shows OT-1 already\. Unfollow that first, with `/task unfollow`"):
        await follow(world, chat.id)
    await bind(world, (await world.chat(kim)).id, replace(PLACE, thread="2.0"), kim)
    with pytest.raises(Conflict, match=r"^This place shows another conversation already\. Unfollow that first, with `/task unfollow`"):
        await bind(world, chat.id, replace(PLACE, thread="2.0"))
    assert (await found(world)).conversation_id == task.conversation_id
    assert await notices(world, chat.id) == []


async def test_only_who_sees_a_conversation_shows_it_somewhere(world: World) -> None:
    chat, kim = await world.chat(), await world.user("kim")
    with pytest.raises(NotFound):
        await bind(world, chat.id, who=kim)
    with pytest.raises(NotAuthenticated, match="chat"):
        await bind(world, chat.id, who=replace(world.admin, scopes=frozenset({"tasks:read"})))
    assert await world.read(lambda uow: bindings.at(uow, PLACE)) is None


async def test_only_who_sees_a_conversation_sees_where_it_is_shown(world: World) -> None:
    chat, kim = await world.chat(), await world.user("kim")
    shown = [await bind(world, chat.id, replace(PLACE, channel=channel)) for channel in ("C1", "C2")]
    assert await world.read(lambda uow: bindings.of_conversation(uow, world.admin, chat.id)) == shown
    with pytest.raises(NotFound):
        await world.read(lambda uow: bindings.of_conversation(uow, kim, chat.id))


async def test_a_place_is_free_again_when_its_conversation_is_deleted(world: World) -> None:
    first, second = await world.chat(), await world.chat()
    await bind(world, first.id)
    await world.write(lambda uow: conversations.delete(uow, world.admin, first.id))
    await bind(world, second.id)
    assert (await found(world)).conversation_id == second.id


# --- followed elsewhere ---------------------------------------------------------------------------------------------------


async def test_who_follows_a_conversation_is_told_in_it_and_what_changes_later(world: World) -> None:
    chat, kim = (await world.task("Buy milk")).conversation_id, await world.user("kim")
    binding = await follow(world, chat, mode=WATCH, kind=ChannelKind.PRIVATE)
    assert (binding.followed, binding.bound_by, binding.cursor) == (True, world.admin.user_id, 0)
    assert await follow(world, chat, mode=WATCH, kind=ChannelKind.PRIVATE) == binding  # nothing changes: nothing is told
    await change(world, binding, TWO_WAY, kim)
    off = await change(world, binding, OFF, kim)
    assert (off.until, off.is_on, off.is_delivered_to) == (3, False, True)
    assert await change(world, off, OFF, kim) == await found(world)
    back = await follow(world, chat, mode=WATCH, kind=ChannelKind.PRIVATE, who=kim)
    assert (back.id, back.mode, back.until, back.cursor, back.bound_by) == (binding.id, WATCH, None, 3, kim.user_id)

    mia = world.admin.user_id
    where = "a private channel on Slack"
    assert await notices(world, chat) == [
        ("followed", f"admin follows this in {where} from now on, read-only.", mia),
        ("mode", f"kim opened this for answers from {where}.", kim.user_id),
        ("unfollowed", f"kim stopped following this in {where}. What is said there is not part of it any more.", kim.user_id),
        ("back", f"kim follows this in {where} again, read-only.", kim.user_id),
    ]


async def test_a_place_is_followed_from_the_oldest_message_that_waits_for_an_answer(world: World) -> None:
    gate, chat = Gate(), await world.chat()
    async with world.working():
        await world.ask(chat.id, "Answered")
        world.model.will(gate, "Later.")
        running, queued = await world.post(chat.id, "Running"), await world.post(chat.id, "Queued")
        await gate.reached()
        assert (await follow(world, chat.id)).cursor == 2
        gate.open()
        await world.ended(running)
        await world.ended(queued)
        await world.ask(chat.id, "And now?")

    first, second = world.model.requests[-2:]
    assert said(second) == [
        "Answered",
        "Running",
        "Queued",
        "<note>\nadmin follows this in a channel on Slack from now on.\n</note>",
        "And now?",
    ]
    assert first.messages[:-1] == second.messages[: len(first.messages) - 1]  # what a provider caches stays as it was


async def test_a_private_conversation_goes_to_other_readers_only_when_that_was_confirmed(world: World) -> None:
    chat, task = await world.chat(), await world.task("Buy milk")
    what = "This conversation is private: only admin reads it. Everybody in that channel or thread would read it, too"
    writers = ", and whoever writes there takes part from then on: all of it is theirs to read, also when it is unfollowed."
    for kind in (ChannelKind.OPEN, ChannelKind.PRIVATE, None):
        for mode, more in ((WATCH, "."), (TWO_WAY, writers)):
            with pytest.raises(NotConfirmed) as asked:
                await follow(world, chat.id, kind=kind, mode=mode, confirmed=False)
            assert str(asked.value) == what + more
    assert await shown(world, chat.id) == []
    await follow(world, task.conversation_id, replace(PLACE, thread="2.0"), confirmed=False)
    await follow(world, chat.id, replace(PLACE, channel="D1"), kind=ChannelKind.DIRECT, confirmed=False)

    binding = await follow(world, chat.id, mode=WATCH)
    for mode in (TWO_WAY, OFF):
        if mode is TWO_WAY:
            with pytest.raises(NotConfirmed):
                await change(world, binding, mode, confirmed=False)
        else:
            await change(world, binding, mode, confirmed=False)
    for mode in (WATCH, TWO_WAY):
        with pytest.raises(NotConfirmed):
            await change(world, binding, mode, confirmed=False)
    assert (await found(world)).mode is OFF


async def test_a_place_is_checked_before_anything_is_shown_there(world: World) -> None:
    task = await world.task("Buy milk")
    channel = replace(PLACE, thread="")
    with pytest.raises(Conflict, match="Link your Slack account first"):
        await follow(world, task.conversation_id, channel, kind=None, check=BindingCheck.PERSON)
    await known(world, world.admin)
    binding = await follow(world, task.conversation_id, channel, kind=None, check=BindingCheck.PERSON)
    assert not binding.takes_in
    assert not binding.opened
    assert binding.thread.startswith("new-")
    assert await world.read(lambda uow: bindings.at(uow, channel)) is None
    assert [each["state"] for each in await shown(world, task.conversation_id)] == ["pending"]
    assert await notices(world, task.conversation_id) == []

    live = await check(world, binding, label="#ops\nand more")
    assert live.takes_in
    assert (await found(world)).label == "#ops and more"
    assert [text for _, text, _ in await notices(world, task.conversation_id)] == [
        "admin follows this in #ops and more on Slack from now on."
    ]
    assert [each["url"] for each in await shown(world, task.conversation_id)] == ["https://s/1"]
    assert (await learn(world, live, kind=ChannelKind.PRIVATE)).label == ""
    assert [each["url"] for each in await shown(world, task.conversation_id)] == [""]
    assert len(await notices(world, task.conversation_id)) == 1


async def test_what_was_never_found_fit_is_neither_revived_nor_kept(world: World) -> None:
    chat = await world.chat()
    await known(world, world.admin)
    binding = await follow(world, chat.id, kind=None, check=BindingCheck.PERSON)
    await world.write(lambda uow: bindings.end(uow, binding, NOT_A_READER))
    ended = await found(world)
    await world.write(lambda uow: bindings.revive(uow, ended))
    assert (await found(world)).ended == "not_a_reader"
    await change(world, ended, OFF)
    assert await world.read(lambda uow: bindings.at(uow, PLACE)) is None

    await follow(world, chat.id, kind=None, check=BindingCheck.PERSON)
    pending = await found(world)
    assert (await change(world, pending, OFF)).mode is OFF
    assert await shown(world, chat.id) == []
    assert await notices(world, chat.id) == []


async def test_what_came_to_nothing_is_listed_until_the_next_try(world: World) -> None:
    chat = await world.chat()
    await known(world, world.admin)
    for channel in ("C1", "C2", "C3"):
        where = Place(account=PLACE.account, channel=channel)
        binding = await follow(world, chat.id, where, kind=None, check=BindingCheck.PERSON)
        await world.write(partial(bindings.end, binding=binding, reason=NOT_A_READER))
    [left] = await world.read(lambda uow: bindings.of_conversation(uow, world.admin, chat.id))
    assert (left.channel, left.ended) == ("C3", "not_a_reader")


async def test_who_has_it_back_from_elsewhere_must_read_there(world: World) -> None:
    task, kim = await world.task("Buy milk"), await world.user("kim")
    binding = await follow(world, task.conversation_id)
    await change(world, binding, OFF)
    with pytest.raises(Conflict, match="Link your Slack account first"):
        await change(world, binding, TWO_WAY, kim, check=BindingCheck.PERSON)
    await known(world, kim)
    back = await change(world, binding, TWO_WAY, kim, check=BindingCheck.PERSON)
    assert (back.check, back.bound_by, back.takes_in) == (BindingCheck.PERSON, kim.user_id, False)


async def test_in_a_channel_it_is_followed_in_one_thread_of_its_own_however_often_that_is_said(world: World) -> None:
    task = (await world.task("Buy milk")).conversation_id
    await known(world, world.admin)
    channel, new = replace(PLACE, thread=""), replace(PLACE, thread="new-1")
    by_link: dict[str, Any] = {"kind": None, "check": BindingCheck.PERSON}
    first = await follow(world, task, channel, **by_link)
    assert await follow(world, task, channel, **by_link) == first
    assert (await follow(world, task, channel, mode=WATCH, **by_link)).id == first.id
    live = await check(world, first, first.thread, opened=False)
    assert (live.id, live.mode, live.kind) == (first.id, WATCH, ChannelKind.OPEN)

    by_name = await follow(world, task, channel, check=BindingCheck.PERSON)
    there = await follow(world, task, new, opened=False)
    assert [(each.id, each.mode, each.takes_in) for each in (by_name, there)] == [(first.id, TWO_WAY, True)] * 2
    for mode in (WATCH, OFF):
        await change(world, first, mode)
        pending = await follow(world, task, channel, **by_link)
        assert (pending.id != first.id, pending.takes_in) == (True, False)
        merged = await check(world, pending, pending.thread, opened=False)
        assert (merged.id, merged.takes_in) == (first.id, True)
    assert [each["id"] for each in await shown(world, task)] == [str(first.id)]
    assert [notice for notice, _, _ in await notices(world, task)] == ["followed", "mode", "mode", "mode", "unfollowed", "back"]

    private = await follow(world, task, new, kind=ChannelKind.PRIVATE, opened=False)  # a thread of few in an open channel
    assert private.id != first.id
    await world.write(lambda uow: bindings.end(uow, first, "10003"))
    assert (await follow(world, task, replace(new, thread="new-2"), opened=False)).id not in (first.id, private.id)


async def test_a_thread_of_which_nothing_is_known_yet_is_not_taken_for_the_channels_own(world: World) -> None:
    task = (await world.task("Buy milk")).conversation_id
    await known(world, world.admin)
    by_link: dict[str, Any] = {"kind": None, "check": BindingCheck.PERSON}
    thread = await follow(world, task, **by_link)
    channel = await follow(world, task, replace(PLACE, thread=""), **by_link)
    assert (await check(world, channel, channel.thread, opened=False)).id == channel.id
    assert (await found(world)).check is BindingCheck.PERSON
    assert (await check(world, thread)).takes_in


async def test_a_link_to_where_it_is_shown_already_changes_how_it_is_shown_there(world: World) -> None:
    task, kim = (await world.task("Buy milk")).conversation_id, await world.user("kim")
    await known(world, kim)
    home = await bind(world, task)
    by_link: dict[str, Any] = {"kind": None, "check": BindingCheck.PERSON, "who": kim}
    for mode, notice in ((TWO_WAY, None), (WATCH, "mode")):
        pending = await follow(world, task, replace(PLACE, channel="1.0", thread=""), mode=mode, **by_link)
        after = await check(world, pending)
        assert (after.id, after.mode, after.ended) == (home.id, mode, None)
        assert [each["id"] for each in await shown(world, task)] == [str(home.id)]
        assert [told for told, _, _ in await notices(world, task)] == ([notice] if notice else [])


async def test_what_is_taken_back_while_the_platform_is_asked_stays_away(world: World) -> None:
    task = (await world.task("Buy milk")).conversation_id
    await known(world, world.admin)
    pending = await follow(world, task, kind=None, check=BindingCheck.PERSON)
    await change(world, pending, OFF)
    with pytest.raises(NotFound):
        await check(world, pending)
    await world.write(lambda uow: bindings.end(uow, pending, NOT_A_READER))
    assert await world.read(lambda uow: bindings.at(uow, PLACE)) is None
    assert await notices(world, task) == []


async def test_who_is_there_need_not_wait_for_the_platform(world: World) -> None:
    task, kim = (await world.task("Buy milk")).conversation_id, await world.user("kim")
    await known(world, world.admin)
    pending = await follow(world, task, kind=None, check=BindingCheck.PERSON)
    there = await follow(world, task, label="#ops", who=kim)
    assert (there.id, there.takes_in, there.bound_by) == (pending.id, True, kim.user_id)
    assert await notices(world, task) == [("followed", "kim follows this in #ops on Slack from now on.", kim.user_id)]
    assert (await learn(world, there)).bound_by == kim.user_id
    assert len(await notices(world, task)) == 1


async def test_what_was_shown_before_is_back_once_the_platform_was_asked(world: World) -> None:
    task = (await world.task("Buy milk")).conversation_id
    await known(world, world.admin)
    home = await bind(world, task)
    followed = await follow(world, task, replace(PLACE, thread="2.0"), kind=None, check=BindingCheck.PERSON)
    await world.write(lambda uow: bindings.end(uow, followed, NOT_A_READER))
    again = await change(world, followed, TWO_WAY, check=BindingCheck.PERSON)
    followed = await check(world, again, "2.0")  # nobody was told anything there yet
    await put(world, followed, INTRO, state=DeliveryState.FINAL)
    for binding in (home, followed):
        await change(world, binding, OFF)
        asked = await change(world, binding, TWO_WAY, check=BindingCheck.PERSON)
        await check(world, asked, binding.thread)
    assert [notice for notice, _, _ in await notices(world, task)] == ["followed", *["unfollowed", "back"] * 2]


async def test_what_to_do_where_it_ended_depends_on_whether_one_may_write_there(world: World) -> None:
    chat = await world.chat()
    for thread, mode in (("1.0", TWO_WAY), ("2.0", WATCH)):
        binding = await follow(world, chat.id, replace(PLACE, thread=thread), mode=mode)
        await world.write(lambda uow, binding=binding: bindings.end(uow, binding, "not_in_channel"))  # type: ignore[misc]
    invite = "Onethread is not in that channel. Invite it, then"
    ways = [f"{invite} write there again.", f"{invite} follow it again, there or on the page."]
    assert [text.partition("any more. ")[2] for notice, text, _ in await notices(world, chat.id) if notice == "ended"] == ways
    assert [wording.standing(each) for each in await shown(world, chat.id)] == ways


async def test_a_checked_place_that_shows_something_is_left_alone_and_one_that_rests_is_taken(world: World) -> None:
    first, second = (await world.task("Buy milk")).conversation_id, (await world.task("Buy bread")).conversation_id
    await known(world, world.admin)
    home = await bind(world, first)
    channel = replace(PLACE, thread="")
    pending = await follow(world, second, channel, kind=None, check=BindingCheck.PERSON)
    assert (await check(world, pending)).ended == "place_taken"
    assert await found(world) == home

    await change(world, home, OFF)
    again = await follow(world, second, channel, kind=None, check=BindingCheck.PERSON)
    taken = await check(world, again)
    assert (taken.place, taken.is_on) == (PLACE, True)
    assert (await found(world)).id == again.id


async def test_what_is_still_to_be_checked_keeps_nobody_from_a_place_who_is_there(world: World) -> None:
    first, second = (await world.task("Buy milk")).conversation_id, (await world.task("Buy bread")).conversation_id
    await known(world, world.admin)
    await follow(world, first, kind=None, check=BindingCheck.PERSON)
    with pytest.raises(Conflict, match="This place shows another conversation already"):  # to somebody who may not be there
        await follow(world, second, kind=None, check=BindingCheck.PERSON)
    await bind(world, second)
    assert await shown(world, first) == []


async def test_what_stood_at_a_place_is_still_known_when_it_shows_something_else(world: World) -> None:
    chat, other = await world.chat(), await world.chat()
    home = await bind(world, chat.id)
    said = await world.note(chat.id, "My salary is 5")
    theirs = await put(world, home, str(said.message_id), said.message_id, state=DeliveryState.THEIRS)
    await world.write(lambda uow: bindings.unfollow_at(uow, world.admin, PLACE, source="slack"))
    binding = await follow(world, other.id)
    assert (await found(world)).id == binding.id
    assert await world.read(lambda uow: uow.deliveries.at(PLACE, "1.5")) == theirs
    assert await shown(world, chat.id) == []
    with pytest.raises(NotFound):
        await change(world, home, TWO_WAY)


async def test_whoever_is_admitted_at_a_place_may_unfollow_what_it_shows_and_learns_nothing_of_it(world: World) -> None:
    chat, kim = await world.chat(), await world.user("kim")
    binding = await follow(world, chat.id)
    with pytest.raises(NotFound):
        await follow(world, chat.id, who=kim)
    for mode in (WATCH, OFF):
        with pytest.raises(NotFound, match="There is no binding"):
            await change(world, binding, mode, kim)
    with pytest.raises(NotAuthenticated, match="chat"):
        await follow(world, chat.id, who=replace(world.admin, scopes=frozenset({"tasks:read"})))
    await world.write(lambda uow: bindings.unfollow_at(uow, kim, PLACE, source="slack"))
    assert not (await found(world)).is_on
    with pytest.raises(Conflict, match="Nothing is followed here"):
        await world.write(lambda uow: bindings.unfollow_at(uow, kim, PLACE, source="slack"))


async def test_a_conversation_that_becomes_private_is_followed_nowhere(world: World) -> None:
    task = await world.task("Buy milk")
    home = await bind(world, task.conversation_id)
    followed = await follow(world, task.conversation_id, replace(PLACE, thread="2.0"))
    await world.write(lambda uow: bindings.keep_private(uow, task.conversation_id))
    await world.write(lambda uow: bindings.keep_private(uow, task.conversation_id))
    assert [(each["id"], each["state"]) for each in await shown(world, task.conversation_id)] == [
        (str(home.id), "live"),
        (str(followed.id), "off"),
    ]
    told = (await notices(world, task.conversation_id))[1:]
    assert told == [
        ("unfollowed", "This is not shown in a channel on Slack any more. What is said there is not part of it any more.", None)
    ]


async def test_nothing_more_is_shown_in_the_direct_messages_of_somebody_who_left(world: World) -> None:
    task, kim = (await world.task("Buy milk")).conversation_id, await world.user("kim")
    await known(world, kim)
    chat = await world.chat(kim)
    slack, discord = PLACE.account, Account(surface="discord", id="1")
    home = await bind(world, chat.id, replace(PLACE, channel="D1", thread=""), kim)
    await world.write(lambda uow: uow.bindings.update(home.id, bound_by=None))  # of an older database, as its kind
    await bind(world, (await world.task("Sell milk")).conversation_id, replace(PLACE, channel="C8", thread=""), kim)  # a chat of all
    other = replace(PLACE, account=discord, channel="7")
    for place in (replace(PLACE, channel="D2"), PLACE, other):
        await follow(world, task, place, kim, kind=ChannelKind.DIRECT if place is not PLACE else ChannelKind.OPEN)
    await follow(world, task, replace(PLACE, channel="D3"), kind=ChannelKind.DIRECT)

    async def delivered() -> list[str]:
        async def of(account: Account) -> list[Binding]:
            return await world.read(lambda uow: uow.bindings.of_account(account))

        return [each.channel for each in [*await of(slack), *await of(discord)]]

    await world.write(lambda uow: linking.unlink_account(uow, slack, "Ukim", {}))
    assert await delivered() == ["C8", "C1", "D3", "7"]
    assert [text for _, text, _ in await notices(world, chat.id)] == [
        "This is not shown in a channel on Slack any more. What is said there is not part of it any more."
    ]
    assert (await world.read(lambda uow: conversations.readers(uow, chat))) == (kim.user_id,)
    await world.write(lambda uow: disable(uow, kim))
    assert await delivered() == ["C8", "C1", "D3"]


async def disable(uow: UnitOfWork, who: Principal) -> None:
    user = await uow.users.get(who.user_id)
    assert user
    await identity.disable(uow, user)


async def test_tools_in_a_private_conversation_see_only_what_all_may_where_others_follow_it(world: World) -> None:
    chat, secret = await world.chat(), await world.chat(title="Secret")
    just_us = Audience(conversation_id=chat.id, users=frozenset({world.admin.user_id}))
    everybody = replace(just_us, users=None)

    async def audience() -> Audience:
        return await world.read(lambda uow: conversations.audience(uow, chat))

    await bind(world, chat.id)
    await follow(world, chat.id, replace(PLACE, channel="D1"), kind=ChannelKind.DIRECT)
    assert await audience() == just_us
    binding = await follow(world, chat.id, replace(PLACE, thread="2.0"), kind=None)
    assert await audience() == everybody
    along = replace(world.admin, reading_along=await audience())
    assert await world.read(lambda uow: uow.conversations.get(secret.id, along)) is None
    assert await world.read(lambda uow: conversations.readers(uow, chat)) == (
        world.admin.user_id,
    )  # who is told of it are the same as ever
    off = await change(world, binding, OFF)
    assert await audience() == everybody  # a reply may still be written there
    await world.write(lambda uow: uow.bindings.update(off.id, cursor=off.until))
    assert await audience() == just_us


async def test_a_notice_is_no_answer_and_nothing_that_people_said(world: World) -> None:
    chat = await world.chat()
    world.model.will(Call("ask_user", {"question": "Which kind?", "options": ["Oat", "Soy"]}))
    async with world.working():
        question = await world.ask(chat.id, "Buy milk")
        binding = await follow(world, chat.id)
        unread = await world.read(lambda uow: uow.messages.extents([chat.id]))
        assert unread[chat.id].last_seq == question.seq
        assert await world.read(lambda uow: uow.messages.search(world.admin, "follows this", limit=10)) == []
        notice = (await world.read(lambda uow: uow.messages.since(chat.id, question.seq + 1)))[0]
        with pytest.raises(Conflict, match="stays as it is"):
            await world.delete(notice.id)
        await world.answer(question, "Oat")
        with pytest.raises(Conflict, match="admin answered this question already"):
            await world.answer(question, "Soy")
        await world.write(lambda uow: bindings.end(uow, binding, "is_archived"))


async def test_a_failed_answer_is_retried_in_place_whatever_was_followed_since(world: World) -> None:
    chat = await world.chat()
    posted = await world.post(chat.id, "Hello")
    await world.cancel(posted)
    await follow(world, chat.id)
    assert (await world.retry(posted)).message_id == posted.message_id


async def test_following_has_a_pace_and_a_number_of_places(world: World) -> None:
    chat = await world.chat()
    for number in range(bindings.MAX_PLACES):
        await follow(world, chat.id, replace(PLACE, channel=f"C{number}"))
        await world.note(chat.id, "And there")
    with pytest.raises(Conflict, match="20 places already"):
        await follow(world, chat.id, replace(PLACE, channel="C99"))
    binding = await found(world)
    for number in range(10):
        binding = await change(world, binding, TWO_WAY if number % 2 else WATCH)
    with pytest.raises(RateLimited, match=r"^This was followed and unfollowed too often in a minute\."):
        await change(world, binding, WATCH)
    for _ in range(10):
        await world.note(chat.id, "And here")
    with pytest.raises(RateLimited, match=r"^Too much was said and followed in a minute\."):
        await change(world, binding, WATCH)
    await change(world, binding, OFF)  # that is never refused


async def test_the_places_that_can_be_chosen_are_open_and_show_what_one_may_read(world: World) -> None:
    task, mine = (await world.task("Buy milk")).conversation_id, (await world.chat()).id
    kim, lee = await world.user("kim"), await world.user("lee")
    await known(world, kim)
    for number, (conversation, channel, kind, label) in enumerate(
        [
            (task, "C1", ChannelKind.OPEN, "#ops"),
            (task, "C1", ChannelKind.OPEN, "#ops"),
            (task, "C2", ChannelKind.PRIVATE, "#board"),
            (mine, "C3", ChannelKind.OPEN, "#mine"),
            (task, "C4", ChannelKind.OPEN, ""),
        ]
    ):
        binding = await follow(world, conversation, replace(PLACE, channel=channel, thread=f"{number}.0"))
        await learn(world, binding, kind=kind, label=label)

    async def places(who: Principal) -> list[KnownPlace]:
        return [*await world.read(lambda uow: bindings.known_places(uow, who))]

    assert await places(kim) == [KnownPlace(account=PLACE.account, channel="C1", label="#ops")]
    assert await places(lee) == await places(world.admin) == []
    told = await shown(world, task)
    assert [wording.place(each) for each in told][1:3] == ["#ops on Slack", "a private channel on Slack"]
    assert "#board" not in str(told)
    assert wording.also([{**told[0], "mode": "watch"}, *told], but=told[1]["id"]) == (
        "also read-only in #ops on Slack, in #ops on Slack, in a private channel on Slack, in a channel on Slack"
    )
