"""The command `/link`: what whoever types it is told, by a link, a code, and when it is undone. What linking does: tests of the core."""

import re
from collections.abc import AsyncIterator

import pytest

from bots.commands import Command
from bots.link_command import HOW_TO
from bots.policy import Policy
from bots.surface import Profile
from core import identity, linking
from core.access import Principal
from core.ids import new_id
from core.models import Place
from tests.fake_surface import ACCOUNT
from tests.integration.bots.conftest import Stage
from tests.integration.bots.door import ALICE, Door
from tests.integration.conftest import Start

GUEST = "U9"
NOBODYS = "This account is not linked with anybody."


@pytest.fixture
async def door(start: Start) -> AsyncIterator[Door]:
    async with start() as world:
        stage = Stage(world)
        stage.platform.profiles[GUEST] = Profile(external_id=GUEST, name="eve", member=False)
        yield Door(stage, Policy())
        await stage.platform.close()


async def link(door: Door, text: str = "", person: str = ALICE) -> str:
    where = Place(account=ACCOUNT, channel="C1", thread="")
    return await door.commands().link(Command(text=text, person=person, place=where, event_id=str(new_id())))


async def mia(door: Door) -> Principal:
    """Somebody who can sign in."""
    return await door.stage.world.user("mia")


async def whose(door: Door) -> str:
    user = await door.stage.world.read(lambda uow: identity.of_account(uow, ACCOUNT, ALICE))
    assert user
    return user.name


async def test_the_link_is_for_ten_minutes_and_links_whoever_is_signed_in_where_it_is_opened(door: Door) -> None:
    who = await mia(door)
    told = await link(door)
    (secret,) = re.findall(r"https://one\.example/link/(\S+)$", told)
    assert told.startswith("Show this to nobody: who opens it and signs in has this account. It works once, for 10 minutes:")
    await door.stage.world.write(lambda uow: linking.confirm(uow, who, secret, {}))
    assert (await whose(door), await link(door)) == ("mia", "This account is linked with mia. `/link off` undoes that.")


async def test_a_code_links_once_that_is_confirmed_and_off_undoes_it(door: Door) -> None:
    who = await mia(door)
    assert await link(door, "OFF") == NOBODYS
    code = await door.stage.world.write(lambda uow: linking.code(uow, who))
    asked = await link(door, code.text.lower())
    assert asked.startswith("This is a code of mia.")
    assert asked.endswith(f"Then: `/link {code.text} confirm`")
    assert await whose(door) == "alice"
    told = await link(door, f"{code.text.replace('-', '')}  Confirm")
    assert told == "This account is linked with mia from now on. `/link off` undoes that."
    assert await whose(door) == "mia"
    assert (await link(door, "off")).startswith("This account is not linked with mia any more. What you said so far stays theirs;")
    await door.people().admit(ALICE, "C1")
    assert await whose(door) != "mia"


async def test_what_is_no_code_is_told_so_and_strangers_get_nothing(door: Door) -> None:
    assert [await link(door, each) for each in ("help", "ABCD", "ABCD-EFGH please")] == [f"This is no code. {HOW_TO}"] * 3
    assert (await link(door, "ABCD-EFGH")).startswith("This code")
    assert {await link(door, each, GUEST) for each in ("", "off", "ABCD-EFGH confirm")} == {
        "I talk with full members of this workspace only, not with guests, apps or people of other workspaces."
    }
    assert await door.stage.world.read(lambda uow: uow.identities.get(ACCOUNT, GUEST)) is None
