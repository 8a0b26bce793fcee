"""People of chat platforms become users: once, under a name of their own, and never as somebody who is here already."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from core import identity
from core.errors import NotAuthenticated
from core.models import Account, User
from tests.unit.conftest import Desk

TEAM = Account(surface="slack", id="T1")


async def meet(desk: Desk, external_id: str, name: str) -> User:
    return (await desk.do(lambda uow: identity.meet(uow, TEAM, external_id, name)))[0]


async def of_account(desk: Desk, external_id: str) -> User | None:
    return await desk.do(lambda uow: identity.of_account(uow, TEAM, external_id))


async def test_somebody_who_never_came_is_nobody(desk: Desk) -> None:
    assert await of_account(desk, "U1") is None


async def test_whoever_comes_first_becomes_a_user_without_rights_or_password(desk: Desk) -> None:
    user, known = await desk.do(lambda uow: identity.meet(uow, TEAM, "U1", "Alice Smith"))
    assert (user.name, user.admin, user.password_set_at) == ("alice-smith", False, None)
    assert (known.surface, known.account, known.external_id, known.user_id, known.name) == ("slack", "T1", "U1", user.id, "Alice Smith")
    assert await of_account(desk, "U1") == user


async def test_whoever_comes_again_stays_who_they_are_whatever_their_name_is_by_then(desk: Desk) -> None:
    first = await desk.do(lambda uow: identity.meet(uow, TEAM, "U1", "Alice"))
    assert await desk.do(lambda uow: identity.meet(uow, TEAM, "U1", "admin")) == first


async def test_two_of_one_name_are_told_apart_by_a_number(desk: Desk) -> None:
    assert [(await meet(desk, f"U{number}", "Alice")).name for number in range(3)] == ["alice", "alice-2", "alice-3"]


@pytest.mark.parametrize("name", ["admin", "Admin", " ADMIN ", "\uff41\uff44\uff4d\uff49\uff4e", "@admin", "admin."])
async def test_nobody_becomes_the_admin_by_calling_themselves_so(desk: Desk, name: str) -> None:
    user = await meet(desk, "U1", name)
    assert (user.name, user.admin) == ("admin-2", False)
    assert user.id != desk.owner.id


async def test_the_local_admins_name_is_kept_free_for_them(desk: Desk) -> None:
    async with desk.storage._writer.begin() as connection:
        await connection.execute(text("UPDATE users SET name = 'root' WHERE name = 'admin'"))
    assert (await meet(desk, "U1", "admin")).name == "admin-2"


async def test_nobody_becomes_a_user_of_another_spelling(desk: Desk) -> None:
    await desk.do(lambda uow: identity.add_user(uow, "Bob"))
    assert (await meet(desk, "U1", "bob")).name == "bob-2"


@pytest.mark.parametrize(
    ("display_name", "name"),
    [
        ("", "user"),
        ("🥛", "user"),
        ("...", "user"),
        ("  Zoë  van 't Hof ", "zoë-van-t-hof"),
        ("李雷", "李雷"),
        ("a" * 200, "a" * 56),
        ("a\x00b\ud83d", "a-b"),
        ("<!channel> *bold*", "channel-bold"),
    ],
)
async def test_a_display_name_is_made_to_fit(desk: Desk, display_name: str, name: str) -> None:
    assert (await meet(desk, "U1", display_name)).name == name


async def test_a_long_display_name_is_kept_shortened(desk: Desk) -> None:
    _, known = await desk.do(lambda uow: identity.meet(uow, TEAM, "U1", "Ä" * 500))
    assert known.name == "Ä" * 199 + "…"


@given(st.text(max_size=80))
def test_any_display_name_gives_a_users_name_with_room_for_a_number(display_name: str) -> None:
    assert identity._NAME.fullmatch(f"{identity._as_user_name(display_name)}-1234567")


async def test_who_is_disabled_is_not_let_in(desk: Desk) -> None:
    user = await meet(desk, "U1", "Alice")
    await desk.do(lambda uow: identity.disable(uow, user))
    for again in (of_account(desk, "U1"), meet(desk, "U1", "Alice")):
        with pytest.raises(NotAuthenticated, match="not let in here any more"):
            await again
    await desk.do(lambda uow: identity.enable(uow, user))
    assert await of_account(desk, "U1") == user
