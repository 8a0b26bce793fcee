"""How people sign in and stay signed in, what ends that, and with which sentence each failure is told."""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from core import identity
from core.access import ALL_SCOPES, Principal
from core.errors import Conflict, InvalidInput, NotAuthenticated, NotFound, RateLimited
from core.ids import new_id
from core.models import LinkPurpose, User
from core.ports import UnitOfWork
from tests.fakes import PlainPasswords
from tests.unit.conftest import Desk

PASSWORD = "correct horse"
HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Door:
    """The desk with a person who has a password."""

    desk: Desk
    passwords: PlainPasswords
    kim: User

    async def sign_in(self, name: str = "kim", password: str = PASSWORD, address: str = "10.0.0.1") -> User:
        return await identity.sign_in(self.desk.storage, self.passwords, name, password, address=address)

    async def refused(self, name: str = "kim", password: str = "wrong", address: str = "10.0.0.1") -> str:
        """Why signing in failed."""
        with pytest.raises((NotAuthenticated, RateLimited)) as failed:
            await self.sign_in(name, password, address)
        return str(failed.value)

    async def session(self) -> str:
        user = await self.sign_in()
        return await self.desk.do(lambda uow: identity.open_session(uow, user))

    async def link(self, purpose: LinkPurpose = LinkPurpose.SET_PASSWORD) -> str:
        return await self.desk.do(lambda uow: identity.create_link(uow, self.kim, purpose, lifetime=HOUR))

    async def set_password(self, secret: str, password: str) -> User:
        return await identity.set_password_by_link(self.desk.storage, self.passwords, secret, password)

    async def change(self, current: str, new: str, who: Principal | None = None) -> User:
        principal = who or identity.principal_of(self.kim)
        return await identity.change_password(self.desk.storage, self.passwords, principal, current, new)

    async def token(self, *scopes: str, lifetime: timedelta | None = None) -> Principal:
        name = f"token-{new_id()}"
        _, secret = await self.desk.do(lambda uow: identity.create_token(uow, self.kim, name, scopes=frozenset(scopes), lifetime=lifetime))
        return await self.desk.do(lambda uow: identity.authenticate(uow, secret))


@pytest.fixture
async def door(desk: Desk) -> Door:
    passwords = PlainPasswords()
    async with desk.storage.write() as uow:
        kim = await identity.user_named(uow, "kim")
        link = await identity.create_link(uow, kim, LinkPurpose.SET_PASSWORD, lifetime=HOUR)
    kim = await identity.set_password_by_link(desk.storage, passwords, link, PASSWORD)
    desk.clock.advance(1)
    return Door(desk, passwords, kim)


# --- passwords at the door ---


async def test_a_name_and_its_password_let_in(door: Door) -> None:
    assert await door.sign_in() == door.kim
    assert await door.sign_in(" KIM ") == door.kim


async def test_whatever_is_wrong_the_sentence_and_the_time_are_the_same(door: Door) -> None:
    await door.desk.do(lambda uow: identity.add_user(uow, "lee"))
    gone = await door.desk.do(lambda uow: identity.add_user(uow, "gone"))
    await door.desk.do(lambda uow: uow.users.set_password(gone.id, f"plain:{PASSWORD}", uow.now))
    await door.desk.do(lambda uow: identity.disable(uow, gone))

    told = {
        await door.refused("kim", "wrong"),
        await door.refused("kim", "x" * 1_001),
        await door.refused("kim", "\ud800"),
        await door.refused("nobody", PASSWORD),
        await door.refused("\x00" * 5_000, PASSWORD),
        await door.refused("lee", ""),
        await door.refused("gone", PASSWORD),
    }

    assert told == {"The name or the password is wrong."}
    assert len(door.passwords.compared) == 7  # each was paid for


async def test_a_password_counts_however_its_letters_are_composed(door: Door) -> None:
    await door.set_password(await door.link(), "Gr\u00fcße aus K\u00f6ln")

    assert (await door.sign_in(password="Gru\u0308ße aus Ko\u0308ln")).id == door.kim.id


async def test_the_sixth_attempt_in_a_minute_is_not_even_looked_at(door: Door) -> None:
    for _ in range(5):
        await door.refused()
        door.desk.clock.advance(5)
    with pytest.raises(RateLimited, match=r"Try again in 35 seconds\.") as limited:
        await door.sign_in()

    assert limited.value.retry_after == 35
    assert len(door.passwords.compared) == 5
    door.desk.clock.advance(35)
    assert await door.sign_in() == door.kim


async def test_who_is_refused_does_not_wait_longer_for_trying_on(door: Door) -> None:
    for _ in range(30):
        await door.refused()
        door.desk.clock.advance(1)
    door.desk.clock.advance(30)
    assert await door.sign_in() == door.kim


@pytest.mark.parametrize("name", ["KIM", " kim", "Kim "])
async def test_spelling_a_name_otherwise_gives_no_further_attempts(door: Door, name: str) -> None:
    for _ in range(5):
        await door.refused()
    assert "Too many attempts" in await door.refused(name, PASSWORD)


async def test_attempts_from_elsewhere_shut_nobody_out(door: Door) -> None:
    for _ in range(5):
        await door.refused(address="10.0.0.66")
    assert await door.sign_in(address="10.0.0.1") == door.kim


@pytest.mark.parametrize("same", [("10.0.0.1", "::ffff:10.0.0.1"), ("2001:db8::1", "2001:db8::ffff:1"), ("fe80::1%eth0", "fe80::2")])
async def test_an_address_has_thirty_attempts_a_minute_whatever_the_names(door: Door, same: tuple[str, str]) -> None:
    for number in range(30):
        assert "wrong" in await door.refused(f"name-{number}", address=same[0])
    assert "Too many attempts" in await door.refused("kim", PASSWORD, address=same[1])
    assert await door.sign_in(address="2001:db8:0:1::1") == door.kim


async def test_a_success_forgets_the_failures_before_it_and_nobody_elses(door: Door) -> None:
    for number in range(25):
        await door.refused(f"name-{number}")
    for _ in range(4):
        await door.refused()
    await door.sign_in()
    for _ in range(4):
        assert "wrong" in await door.refused()
    await door.sign_in()  # 5 attempts of this name, 30 from this address
    for number in range(5):
        assert "wrong" in await door.refused(f"other-{number}")
    assert "Too many" in await door.refused("one too many")


async def test_what_was_typed_as_a_name_is_not_stored(door: Door) -> None:
    await door.refused("my secret password", address="10.9.8.7")
    async with door.desk.storage._reader.connect() as connection:
        stored = str((await connection.execute(text("SELECT * FROM sign_in_attempts"))).all())
    assert "secret" not in stored
    assert "10.9.8.7" not in stored


# --- sessions ---


async def test_of_a_session_only_its_sha256_is_stored(door: Door) -> None:
    secret = await door.session()
    async with door.desk.storage._reader.connect() as connection:
        stored = str((await connection.execute(text("SELECT * FROM sessions"))).all())
    assert hashlib.sha256(secret.encode()).hexdigest() in stored
    assert secret not in stored
    assert len(secret) == 43


async def test_a_session_lasts_fourteen_days(door: Door) -> None:
    secret = await door.session()
    door.desk.clock.advance(14 * 86_400 - 1)
    assert (await door.desk.do(lambda uow: identity.of_session(uow, secret))).user_id == door.kim.id

    door.desk.clock.advance(1)
    with pytest.raises(NotAuthenticated, match="Sign in again"):
        await door.desk.do(lambda uow: identity.of_session(uow, secret))


async def test_signing_out_ends_this_session_and_no_other(door: Door) -> None:
    one, other = await door.session(), await door.session()
    await door.desk.do(lambda uow: identity.close_session(uow, one))
    await door.desk.do(lambda uow: identity.close_session(uow, one))

    with pytest.raises(NotAuthenticated):
        await door.desk.do(lambda uow: identity.of_session(uow, one))
    assert (await door.desk.do(lambda uow: identity.of_session(uow, other))).user_id == door.kim.id


@pytest.mark.parametrize("change", ["another password", "disabled"])
async def test_no_session_is_opened_for_who_changed_after_the_password_was_looked_at(door: Door, change: str) -> None:
    user = await door.sign_in()
    if change == "disabled":
        await door.desk.do(lambda uow: identity.disable(uow, door.kim))
    else:
        await door.set_password(await door.link(), "another password")

    with pytest.raises(NotAuthenticated):
        await door.desk.do(lambda uow: identity.open_session(uow, user))


# --- links ---


async def test_a_link_works_once_and_looking_at_it_does_not_count(door: Door) -> None:
    secret = await door.link(LinkPurpose.SIGN_IN)
    for _ in range(2):
        assert await door.desk.do(lambda uow: identity.peek_link(uow, secret, LinkPurpose.SIGN_IN)) == door.kim
    assert await door.desk.do(lambda uow: identity.use_link(uow, secret, LinkPurpose.SIGN_IN)) == door.kim

    for use in (identity.use_link, identity.peek_link):
        with pytest.raises(NotAuthenticated, match="used already, or is too old"):
            await use_link_by(door, use, secret, LinkPurpose.SIGN_IN)


@pytest.mark.parametrize("why", ["expired", "of another purpose", "unknown", "of somebody disabled"])
async def test_a_link_that_is_no_good_is_refused(door: Door, why: str) -> None:
    secret = await door.link(LinkPurpose.SIGN_IN)
    purpose = LinkPurpose.SET_PASSWORD if why == "of another purpose" else LinkPurpose.SIGN_IN
    if why == "expired":
        door.desk.clock.advance(3_600)
    if why == "of somebody disabled":
        await door.desk.do(lambda uow: identity.disable(uow, door.kim))
        await door.desk.do(lambda uow: identity.enable(uow, door.kim))

    for use in (identity.use_link, identity.peek_link):
        with pytest.raises(NotAuthenticated, match="used already, or is too old"):
            await use_link_by(door, use, "guess" if why == "unknown" else secret, purpose)


async def use_link_by(door: Door, use: Callable[..., Awaitable[User]], secret: str, purpose: LinkPurpose) -> User:
    return await door.desk.do(lambda uow: use(uow, secret, purpose))


async def test_who_is_disabled_gets_no_link(door: Door) -> None:
    await door.desk.do(lambda uow: identity.disable(uow, door.kim))
    with pytest.raises(Conflict, match=r"kim is disabled\. Enable them first: onethread user enable kim"):
        await door.link()


# --- setting a password ---

BAD_PASSWORDS = {
    "x" * 9: "10-1,000 characters",
    "x" * 1_001: "10-1,000 characters",
    " " * 10: "nothing but spaces",
    "\ud800" * 10: "a character that is none",
    "nul\x00in the middle": "a character that is none",
}


@pytest.mark.parametrize("password", BAD_PASSWORDS)
async def test_a_password_that_is_none_is_refused_and_costs_no_link(door: Door, password: str) -> None:
    secret = await door.link()
    with pytest.raises(InvalidInput, match=BAD_PASSWORDS[password]):
        await door.set_password(secret, password)
    with pytest.raises(InvalidInput, match=BAD_PASSWORDS[password]):
        await door.change(PASSWORD, password)

    assert (await door.set_password(secret, "x" * 10)).id == door.kim.id


async def test_ones_own_name_is_no_password(door: Door) -> None:
    user = await door.desk.do(lambda uow: identity.add_user(uow, "Kim.Longname"))
    secret = await door.desk.do(lambda uow: identity.create_link(uow, user, LinkPurpose.SET_PASSWORD, lifetime=HOUR))
    with pytest.raises(InvalidInput, match="Your name is too easy to guess"):
        await door.set_password(secret, "kim.longname")


async def test_a_new_password_ends_all_that_the_old_one_opened(door: Door) -> None:
    session, link, sign_in_link = await door.session(), await door.link(), await door.link(LinkPurpose.SIGN_IN)
    bearer = await door.token("chat")

    changed = await door.change(PASSWORD, "another password")

    assert changed.password_set_at == door.desk.clock.now()
    with pytest.raises(NotAuthenticated):
        await door.desk.do(lambda uow: identity.of_session(uow, session))
    with pytest.raises(NotAuthenticated, match="password was changed"):
        await door.desk.do(lambda uow: identity.of_user(uow, door.kim.id, password_set_at=door.kim.password_set_at))
    for secret, purpose in ((link, LinkPurpose.SET_PASSWORD), (sign_in_link, LinkPurpose.SIGN_IN)):
        with pytest.raises(NotAuthenticated):
            await use_link_by(door, identity.use_link, secret, purpose)
    await door.refused(password=PASSWORD)
    assert (await door.sign_in(password="another password")) == changed
    assert (
        await door.desk.do(lambda uow: identity.of_user(uow, changed.id, password_set_at=changed.password_set_at))
    ).user_id == changed.id
    assert await door.desk.do(lambda uow: identity.tokens_of(uow, bearer)) != []  # programs go on


async def test_changing_a_password_takes_the_present_one_and_attempts_are_counted(door: Door) -> None:
    for _ in range(5):
        with pytest.raises(NotAuthenticated, match="present password is wrong"):
            await door.change("wrong", "another password")
    with pytest.raises(RateLimited):
        await door.change(PASSWORD, "another password")
    assert await door.sign_in() == door.kim  # another door


async def test_who_has_no_password_sets_the_first_one(door: Door) -> None:
    await door.change("", "first password", door.desk.admin)
    assert (await door.sign_in("admin", "first password")).id == door.desk.owner.id


async def test_a_personal_token_changes_no_password(door: Door) -> None:
    with pytest.raises(NotAuthenticated, match="personal token cannot change a password"):
        await door.change(PASSWORD, "another password", await door.token("chat"))


async def test_of_two_changes_at_once_one_is_refused(door: Door) -> None:
    class Interfering(PlainPasswords):
        async def hash(self, password: str) -> str:
            await door.change(PASSWORD, "the other one")
            return await super().hash(password)

    with pytest.raises(Conflict, match="changed somewhere else"):
        await identity.change_password(door.desk.storage, Interfering(), identity.principal_of(door.kim), PASSWORD, "this one here")
    assert (await door.sign_in(password="the other one")).id == door.kim.id


# --- disabling ---


async def test_nothing_of_somebody_who_is_disabled_counts_until_they_are_enabled(door: Door) -> None:
    _, token = await door.desk.do(lambda uow: identity.create_token(uow, door.kim, "ci", scopes=frozenset({"chat"}), lifetime=None))
    session = await door.session()
    ways: dict[str, Callable[[UnitOfWork], Awaitable[Principal]]] = {
        "token": lambda uow: identity.authenticate(uow, token),
        "session": lambda uow: identity.of_session(uow, session),
        "jwt": lambda uow: identity.of_user(uow, door.kim.id, password_set_at=door.kim.password_set_at),
    }
    for way in ways.values():
        assert (await door.desk.do(way)).user_id == door.kim.id

    disabled = await door.desk.do(lambda uow: identity.disable(uow, door.kim))
    assert await door.desk.do(lambda uow: identity.disable(uow, disabled)) == disabled
    for way in ways.values():
        with pytest.raises(NotAuthenticated):
            await door.desk.do(way)
    await door.refused(password=PASSWORD)

    await door.desk.do(lambda uow: identity.enable(uow, disabled))
    assert await door.sign_in() == door.kim
    await door.desk.do(ways["token"])
    with pytest.raises(NotAuthenticated):
        await door.desk.do(ways["session"])


async def test_the_last_admin_stays(door: Door) -> None:
    second = await door.desk.do(lambda uow: identity.add_user(uow, "second", admin=True))
    await door.desk.do(lambda uow: identity.disable(uow, door.desk.owner))
    with pytest.raises(Conflict, match=r"second is the last admin\. Add another one first"):
        await door.desk.do(lambda uow: identity.disable(uow, second))
    assert (await door.desk.do(identity.local_admin)).id == second.id


async def test_the_last_admin_who_may_act_as_one_stays_one(door: Door) -> None:
    second = await door.desk.do(lambda uow: identity.add_user(uow, "second", admin=True))
    await door.desk.do(lambda uow: identity.disable(uow, door.desk.owner))
    with pytest.raises(Conflict, match=r"second is the last admin\. Add another one first"):
        await door.desk.do(lambda uow: identity.make_member(uow, second))
    assert not (await door.desk.do(lambda uow: identity.make_member(uow, door.desk.owner))).admin
    assert (await door.desk.do(lambda uow: identity.make_admin(uow, door.kim))).admin
    assert not (await door.desk.do(lambda uow: identity.make_member(uow, second))).admin
    admins = await door.desk.do(lambda uow: uow.users.hold_admins())
    assert [admin.name for admin in admins] == ["kim"]


async def test_what_an_admin_does_not_say_of_a_user_stays_as_it_is(door: Door) -> None:
    async def change(**changes: bool) -> tuple[bool, bool]:
        user = await door.desk.do(lambda uow: identity.change_user(uow, door.desk.admin, door.kim.id, **changes))
        assert user == await door.desk.do(lambda uow: uow.users.get(door.kim.id))
        return user.admin, user.disabled_at is not None

    assert await change() == (False, False)
    assert await change(admin=True) == (True, False)
    assert await change(disabled=True) == (True, True)
    assert await change() == (True, True)
    assert await change(admin=False) == (False, True)
    assert await change(admin=True, disabled=False) == (True, False)
    assert await door.sign_in() != door.kim  # an admin now, by the same password


async def test_the_password_counts_until_another_one_is_set_by_an_admins_link(door: Door) -> None:
    invitation = await door.desk.do(lambda uow: identity.invite_again(uow, door.desk.admin, door.kim.id))
    assert await door.sign_in() == door.kim
    await door.set_password(invitation.secret, "another horse")
    await door.refused(password=PASSWORD)
    assert (await door.sign_in(password="another horse")).id == door.kim.id
    door.desk.clock.advance(7 * 86_400)
    late = await door.desk.do(lambda uow: identity.invite_again(uow, door.desk.admin, door.kim.id))
    assert late.expires_at - door.desk.clock.now() == timedelta(days=7)
    door.desk.clock.advance(7 * 86_400)
    with pytest.raises(NotAuthenticated, match="used already, or is too old"):
        await door.set_password(late.secret, "a third horse")


async def test_an_admin_with_a_password_or_an_open_link_can_administer(door: Door) -> None:
    can = identity.can_anybody_administer
    assert not await door.desk.do(can)  # kim, who has a password, is no admin

    await door.desk.do(lambda uow: identity.create_link(uow, door.desk.owner, LinkPurpose.SIGN_IN, lifetime=HOUR))
    assert not await door.desk.do(can)
    link = await door.desk.do(lambda uow: identity.create_link(uow, door.desk.owner, LinkPurpose.SET_PASSWORD, lifetime=HOUR))
    assert await door.desk.do(can)
    door.desk.clock.advance(3_600)
    assert not await door.desk.do(can)

    link = await door.desk.do(lambda uow: identity.create_link(uow, door.desk.owner, LinkPurpose.SET_PASSWORD, lifetime=HOUR))
    await door.set_password(link, "first password")
    assert await door.desk.do(can)
    await door.desk.do(lambda uow: identity.add_user(uow, "second", admin=True))
    await door.desk.do(lambda uow: identity.disable(uow, door.desk.owner))
    assert not await door.desk.do(can)


# --- tokens that make tokens ---


async def make(door: Door, who: Principal, scopes: set[str] | None, lifetime: timedelta | None = None) -> frozenset[str]:
    wanted = None if scopes is None else frozenset(scopes)
    token, _ = await door.desk.do(lambda uow: identity.create_own_token(uow, who, f"made-{new_id()}", scopes=wanted, lifetime=lifetime))
    return token.scopes


async def test_a_token_makes_none_that_may_do_more(door: Door) -> None:
    reader = await door.token("tasks:read", "chat")

    assert await make(door, reader, {"tasks:read"}) == {"tasks:read"}
    assert await make(door, reader, None) == {"tasks:read", "chat"}
    assert await make(door, identity.principal_of(door.kim), None) == {"tasks:read", "tasks:write", "chat"}
    with pytest.raises(InvalidInput, match="'tasks:write' is not among them"):
        await make(door, reader, {"tasks:read", "tasks:write"})
    with pytest.raises(InvalidInput, match="is no admin"):
        await make(door, identity.principal_of(door.kim), {"admin"})
    with pytest.raises(InvalidInput, match="Unknown scope 'root'"):
        await make(door, reader, {"root"})
    with pytest.raises(InvalidInput, match="Name a scope"):
        await make(door, reader, set())
    assert await make(door, door.desk.admin, {"admin"}) == {"admin"}


async def test_a_token_makes_none_that_outlives_it(door: Door) -> None:
    brief = await door.token("chat", lifetime=HOUR)
    for lifetime in (None, timedelta(hours=2)):
        with pytest.raises(InvalidInput, match="cannot make one that outlives it"):
            await make(door, brief, {"chat"}, lifetime)
    assert await make(door, brief, {"chat"}, HOUR) == {"chat"}


async def test_a_token_revokes_what_it_could_have_made_and_nobody_elses(door: Door) -> None:
    weak, strong = await door.token("chat"), await door.token("chat", "tasks:write")
    others = await make_for_admin(door)
    revoke = identity.revoke_own_token

    for token_id in (others, new_id()):
        with pytest.raises(NotFound, match="You have no such token"):
            await door.desk.do(lambda uow, token_id=token_id: revoke(uow, identity.principal_of(door.kim), token_id))  # type: ignore[misc]
    with pytest.raises(NotAuthenticated, match="cannot revoke one that may do more"):
        await door.desk.do(lambda uow: revoke(uow, weak, given(strong.token_id)))
    await door.desk.do(lambda uow: revoke(uow, strong, given(weak.token_id)))
    await door.desk.do(lambda uow: revoke(uow, strong, given(strong.token_id)))
    assert await door.desk.do(lambda uow: identity.tokens_of(uow, strong)) == []
    with pytest.raises(NotFound):
        await door.desk.do(lambda uow: revoke(uow, identity.principal_of(door.kim), given(weak.token_id)))


async def make_for_admin(door: Door) -> UUID:
    token, _ = await door.desk.do(lambda uow: identity.create_token(uow, door.desk.owner, "theirs", scopes=ALL_SCOPES, lifetime=None))
    return token.id


def given(token_id: UUID | None) -> UUID:
    assert token_id
    return token_id


async def test_nobody_has_more_than_a_hundred_tokens(door: Door) -> None:
    me = identity.principal_of(door.kim)
    for _ in range(100):
        await make(door, me, {"chat"}, HOUR)
    with pytest.raises(Conflict, match="100 tokens already"):
        await make(door, me, {"chat"})
    door.desk.clock.advance(3_600)
    await make(door, me, {"chat"})
