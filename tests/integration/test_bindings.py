"""Conversations at places of chat platforms: bound, ended, taken up again; and who may do it."""

from dataclasses import replace
from uuid import UUID

import pytest

from core import bindings, conversations
from core.access import Principal
from core.errors import Conflict, NotAuthenticated, NotFound
from core.events import ConversationChanged
from core.models import Account, Binding, Place
from tests.databases import on_both
from tests.fakes import Gate
from tests.integration.conftest import World

new_database = on_both
PLACE = Place(account=Account(surface="slack", id="T1"), channel="C1", thread="1.0")


async def bind(world: World, conversation_id: UUID, place: Place = PLACE, who: Principal | None = None, *, opened: bool = True) -> Binding:
    return await world.write(lambda uow: bindings.bind(uow, who or world.admin, conversation_id, place, opened=opened))


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
        assert events.waiting() == [changed]
        ended = await found(world)
        assert ended.ended == "is_archived"
        await world.write(lambda uow: bindings.revive(uow, ended))
        assert events.waiting() == [changed]
        await world.write(lambda uow: bindings.revive(uow, replace(ended, ended=None)))
        assert events.waiting() == []


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
    assert (revived.ended, revived.cursor) == (None, 6)


async def test_a_place_that_is_still_to_be_opened_keeps_our_name_to_itself(world: World) -> None:
    named = replace(PLACE, thread="new-1")
    binding = await bind(world, (await world.chat()).id, named, opened=False)
    assert binding.place == replace(PLACE, thread="")
    assert await found(world, named) == binding
    await world.write(lambda uow: uow.bindings.update(binding.id, opened=True, thread="1.0"))
    assert (await found(world)).place == PLACE


async def test_a_place_that_shows_something_is_not_given_away(world: World) -> None:
    first, second = await world.chat(), await world.chat()
    binding = await bind(world, first.id)
    await world.write(lambda uow: bindings.end(uow, binding, "gone"))
    with pytest.raises(Conflict, match="Another conversation is shown at this place already"):
        await bind(world, second.id)
    assert (await found(world)).conversation_id == first.id


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
