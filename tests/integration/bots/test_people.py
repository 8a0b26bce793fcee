"""Who somebody is who writes on a chat platform, where that changes: linked between two messages, or while one is taken in."""

import asyncio
from dataclasses import replace

import pytest

from bots.people import People, Stranger
from bots.policy import ChannelRules, Policy
from bots.surface import RemoteFile
from core import identity, linking
from core.access import Principal
from core.linking import PeopleMap
from core.models import ChannelKind
from tests.fake_surface import ACCOUNT
from tests.integration.bots.conftest import Stage
from tests.integration.bots.door import ALICE, Door, said

READ_ALONG = Policy(channel_rules={"C1": ChannelRules(mode="chat", answer="mentions")})


@pytest.fixture
def door(stage: Stage) -> Door:
    return Door(stage, READ_ALONG)


async def link(door: Door, who: Principal) -> None:
    secret = await door.stage.world.write(lambda uow: linking.begin(uow, ACCOUNT, ALICE, {}))
    await door.stage.world.write(lambda uow: linking.confirm(uow, who, secret, {}))


async def authors(door: Door) -> list[str]:
    found = await door.messages("")
    names = await door.stage.world.read(lambda uow: uow.users.names([each.author_id for each in found if each.author_id]))
    return [names[each.author_id] for each in found if each.author_id]


@pytest.mark.parametrize("kind", [ChannelKind.OPEN, ChannelKind.PRIVATE])
async def test_what_is_taken_in_while_its_author_is_linked_is_the_linked_ones(door: Door, kind: ChannelKind) -> None:
    door.surface.kinds["C1"] = kind
    mia = await door.stage.world.user("mia")
    door.surface.files["a.txt"] = b"abc"
    gate = door.surface.gates["a.txt"] = asyncio.Event()
    file = RemoteFile(name="a.txt", media_type="text/plain", size=3, source={})

    async def is_fetched() -> bool:
        return door.surface.fetching == 1

    async with door.open():
        await door.done(*await door.store(said("before")))
        assert await authors(door) == ["alice"]
        slow = await door.store(said("meanwhile", "2", files=(file,)))
        await door.stage.world.until(is_fetched)  # alice was let in
        await link(door, mia)
        gate.set()
        await door.done(*slow, *await door.store(said("after", "3")))
    assert await authors(door) == ["mia", "mia", "mia"]
    row = await door.row(slow[0])
    assert (row.error, row.attempts) == (None, 0)


async def test_whom_the_operator_names_is_that_user_from_the_first_word_on(door: Door) -> None:
    world = door.stage.world
    mia = await world.user("mia")
    people: PeopleMap = {(ACCOUNT.surface, ACCOUNT.id, ALICE): "mia"}
    mapped = People(replace(door.stage.services(), people_map=people), door.surface, READ_ALONG)
    assert (await mapped.admit(ALICE, "C1"), await mapped.admit(ALICE, "C1")) == (mia, mia)
    assert door.surface.known == {ALICE}
    await world.write(lambda uow: identity.add_user(uow, "bob"))
    bob = await world.read(lambda uow: uow.users.by_name("bob"))
    assert bob
    await world.write(lambda uow: identity.disable(uow, bob))
    people = {(ACCOUNT.surface, ACCOUNT.id, ALICE): "bob"}
    with pytest.raises(Stranger, match="not let in here any more"):
        await People(replace(door.stage.services(), people_map=people), door.surface, READ_ALONG).admit(ALICE, "C1")
