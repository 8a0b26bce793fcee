"""What identity asks of each database: limits and one-time things that hold when several processes act at the same moment."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Protocol

import pytest
from sqlalchemy.engine import URL

from core import identity
from core.errors import Conflict, NotAuthenticated, RateLimited
from core.ids import new_id
from core.live import LiveEvents
from core.models import LinkPurpose, User
from core.ports import Storage
from storage.engine import engines
from storage.unit_of_work import Database
from tests.databases import NewDatabase, on_both
from tests.fakes import ManualClock, PlainPasswords

new_database = on_both
HOUR = timedelta(hours=1)
Meanwhile = Callable[[], Awaitable[None]]


class Work(Protocol):
    """Something in a transaction that calls `meanwhile` before it commits."""

    def __call__(self, storage: Storage, /, *, meanwhile: Meanwhile) -> Coroutine[Any, Any, Any]: ...


async def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Fleet:
    """One database as two processes see it, with two admins."""

    processes: tuple[Storage, Storage]
    clock: ManualClock
    ann: User
    bob: User

    @property
    def storage(self) -> Storage:
        return self.processes[0]

    async def overlapping(self, first: "Work", second: "Work") -> list[Any]:
        """What two processes get whose transactions overlap: the second begins while the first is not committed.

        A second one that does not wait for the first is done long before that.
        """
        started: list[asyncio.Task[Any]] = []

        async def meanwhile() -> None:
            started.append(asyncio.create_task(second(self.processes[1], meanwhile=_nothing), name="second"))
            await asyncio.wait(started, timeout=0.5)

        async with asyncio.timeout(30):
            outcome = await first(self.processes[0], meanwhile=meanwhile)
            return [outcome, *await asyncio.gather(*started, return_exceptions=True)]

    async def link(self, purpose: LinkPurpose) -> str:
        async with self.storage.write() as uow:
            return await identity.create_link(uow, self.ann, purpose, lifetime=HOUR)


@asynccontextmanager
async def _process(url: URL, clock: ManualClock) -> AsyncIterator[Storage]:
    writer, reader = engines(url)
    storage = Database(writer=writer, reader=reader, live=LiveEvents(), clock=clock, process_id=new_id())
    try:
        yield storage
    finally:
        await storage.close()


@pytest.fixture
async def fleet(new_database: NewDatabase) -> AsyncIterator[Fleet]:
    clock = ManualClock()
    async with new_database() as url, AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(_process(url, clock)) for _ in range(2)]
        async with one.write() as uow:
            ann = await identity.add_user(uow, "ann", admin=True)
            bob = await identity.add_user(uow, "bob", admin=True)
        yield Fleet((one, other), clock, ann, bob)


async def test_simultaneous_attempts_in_two_processes_get_five_guesses_together(fleet: Fleet) -> None:
    passwords = PlainPasswords()
    guesses = [
        identity.sign_in(fleet.processes[number % 2], passwords, "ann", f"guess {number}", address="10.0.0.1") for number in range(20)
    ]
    async with asyncio.timeout(30):
        ended = await asyncio.gather(*guesses, return_exceptions=True)

    assert sorted(type(each).__name__ for each in ended) == ["NotAuthenticated"] * 5 + ["RateLimited"] * 15
    assert len(passwords.compared) == 5


async def test_simultaneous_attempts_with_many_names_get_thirty_guesses_together(fleet: Fleet) -> None:
    passwords = PlainPasswords()
    guesses = [
        identity.sign_in(fleet.processes[number % 2], passwords, f"name-{number}", "guess", address="10.0.0.1") for number in range(40)
    ]
    async with asyncio.timeout(30):
        ended = await asyncio.gather(*guesses, return_exceptions=True)

    assert sum(isinstance(each, RateLimited) for each in ended) == 10
    assert len(passwords.compared) == 30


async def test_of_two_who_use_a_link_at_once_one_gets_in(fleet: Fleet) -> None:
    secret = await fleet.link(LinkPurpose.SIGN_IN)

    async def use(storage: Storage) -> User:
        async with storage.write() as uow:
            return await identity.use_link(uow, secret, LinkPurpose.SIGN_IN)

    async with asyncio.timeout(30):
        ended = await asyncio.gather(*(use(storage) for storage in fleet.processes * 3), return_exceptions=True)

    assert [each for each in ended if isinstance(each, User)] == [fleet.ann]
    assert sum(isinstance(each, NotAuthenticated) for each in ended) == 5


async def test_a_link_is_not_used_up_by_a_transaction_that_fails(fleet: Fleet) -> None:
    secret = await fleet.link(LinkPurpose.SIGN_IN)
    with suppress(ZeroDivisionError):
        async with fleet.storage.write() as uow:
            await identity.use_link(uow, secret, LinkPurpose.SIGN_IN)
            raise ZeroDivisionError
    async with fleet.storage.write() as uow:
        assert await identity.use_link(uow, secret, LinkPurpose.SIGN_IN) == fleet.ann


async def test_two_admins_who_disable_each_other_at_once_do_not_both_go(fleet: Fleet) -> None:
    async def disable(storage: Storage, user: User, *, meanwhile: Meanwhile) -> User:
        async with storage.write() as uow:
            disabled = await identity.disable(uow, user)
            await meanwhile()
            return disabled

    ended = await fleet.overlapping(partial(disable, user=fleet.ann), partial(disable, user=fleet.bob))

    assert [type(each).__name__ for each in ended] == ["User", "Conflict"]
    async with fleet.storage.read() as uow:
        assert [user.name for user in await uow.users.all() if user.disabled_at is None] == ["bob"]


async def test_two_admins_who_unmake_each_other_at_once_do_not_both_go(fleet: Fleet) -> None:
    async def unmake(storage: Storage, user: User, by: User, *, meanwhile: Meanwhile) -> User:
        async with storage.write() as uow:
            changed = await identity.change_user(uow, identity.principal_of(by), user.id, admin=False)
            await meanwhile()
            return changed

    ended = await fleet.overlapping(partial(unmake, user=fleet.ann, by=fleet.bob), partial(unmake, user=fleet.bob, by=fleet.ann))

    assert [type(each).__name__ for each in ended] == ["User", "Conflict"]
    async with fleet.storage.read() as uow:
        assert [user.name for user in await uow.users.all() if user.admin] == ["bob"]


async def test_of_two_equal_tokens_made_at_once_one_is_refused(fleet: Fleet) -> None:
    async def create(storage: Storage, *, meanwhile: Meanwhile) -> str:
        async with storage.write() as uow:
            _, secret = await identity.create_token(uow, fleet.ann, "ci", scopes=frozenset({"chat"}), lifetime=None)
            await meanwhile()
            return secret

    ended = await fleet.overlapping(create, create)

    assert [type(each).__name__ for each in ended] == ["str", "Conflict"]


async def test_no_session_is_opened_while_the_user_is_being_disabled(fleet: Fleet) -> None:
    async def disable(storage: Storage, *, meanwhile: Meanwhile) -> User:
        async with storage.write() as uow:
            disabled = await identity.disable(uow, fleet.bob)
            await meanwhile()
            return disabled

    async def enter(storage: Storage, *, meanwhile: Meanwhile) -> str:
        async with storage.write() as uow:
            return await identity.open_session(uow, fleet.bob)

    ended = await fleet.overlapping(disable, enter)

    assert [type(each).__name__ for each in ended] == ["User", "NotAuthenticated"]


async def test_a_session_that_is_being_opened_ends_with_all_others(fleet: Fleet) -> None:
    async def enter(storage: Storage, *, meanwhile: Meanwhile) -> str:
        async with storage.write() as uow:
            secret = await identity.open_session(uow, fleet.ann)
            await meanwhile()
            return secret

    async def sign_out(storage: Storage, *, meanwhile: Meanwhile) -> None:
        async with storage.write() as uow:
            await identity.sign_out_everywhere(uow, identity.principal_of(fleet.ann))

    secret, signed_out = await fleet.overlapping(enter, sign_out)

    assert signed_out is None
    async with fleet.storage.read() as uow:
        with pytest.raises(NotAuthenticated):
            await identity.of_session(uow, secret)


async def test_changing_a_user_twice_over_waits_for_nobody_who_waits_for_it(fleet: Fleet) -> None:
    async with fleet.storage.write() as uow:
        carl = await identity.add_user(uow, "carl")

    async def make_and_disable(storage: Storage, *, meanwhile: Meanwhile) -> User:
        async with storage.write() as uow:
            hold_admins, begun = uow.users.hold_admins, False

            async def held() -> list[User]:
                nonlocal begun
                if not begun:
                    begun = True
                    await meanwhile()
                return await hold_admins()

            vars(uow.users)["hold_admins"] = held  # where the other one comes in
            return await identity.change_user(uow, identity.principal_of(fleet.ann), carl.id, admin=True, disabled=True)

    async def disable(storage: Storage, *, meanwhile: Meanwhile) -> User:
        async with storage.write() as uow:
            return await identity.change_user(uow, identity.principal_of(fleet.bob), carl.id, disabled=True)

    ended = await fleet.overlapping(make_and_disable, disable)

    assert [type(each).__name__ for each in ended] == ["User", "User"], ended


@pytest.mark.parametrize("name", ["Änne", "ŁUKASZ", "Δοκιμή"])
async def test_a_name_in_any_alphabet_is_found_as_it_was_given(fleet: Fleet, name: str) -> None:
    async with fleet.storage.write() as uow:
        added = await identity.add_user(uow, name)
        assert await identity.user_named(uow, name) == added
        with pytest.raises(Conflict):
            await identity.add_user(uow, name)


async def test_users_come_in_pages_with_and_without_those_who_are_disabled(fleet: Fleet) -> None:
    async with fleet.storage.write() as uow:
        for name in ("carla", "Carl", "dan", "c_rl"):
            await identity.add_user(uow, name)
        await identity.disable(uow, fleet.bob)
        first = await uow.users.page("", after=None, limit=3)
        second = await uow.users.page("", after=first[-1].id, limit=3)
        found = await uow.users.page("CARL", after=None, limit=10)
        literal = await uow.users.page("c_", after=None, limit=10)
        all_of_them = await uow.users.everybody("", after=None, limit=10)
        behind = await uow.users.everybody("B", after=fleet.ann.id, limit=1)

    assert [user.name for user in first + second] == ["ann", "carla", "Carl", "dan", "c_rl"]
    assert [user.name for user in found] == ["carla", "Carl"]
    assert [user.name for user in literal] == ["c_rl"]
    assert [user.name for user in all_of_them] == ["ann", "bob", "carla", "Carl", "dan", "c_rl"]
    assert [user.name for user in behind] == ["bob"]


async def test_what_has_expired_is_pruned_and_the_rest_stays(fleet: Fleet) -> None:
    async def fill() -> str:
        async with fleet.storage.write() as uow:
            await identity.create_link(uow, fleet.ann, LinkPurpose.SET_PASSWORD, lifetime=timedelta(days=14))
            secret = await identity.open_session(uow, fleet.ann)
        with pytest.raises(NotAuthenticated):
            await identity.sign_in(fleet.storage, PlainPasswords(), "ann", "guess", address="10.0.0.1")
        return secret

    async def pruned() -> tuple[int, ...]:
        would, removed = await fleet.storage.prunable(fleet.clock.now()), await fleet.storage.prune(fleet.clock.now())
        assert dict(would) == dict(removed)
        return tuple(removed[table] for table in ("links", "sessions", "sign_in_attempts"))

    await fill()
    assert await pruned() == (0, 0, 0)
    fleet.clock.advance(14 * 86_400 + 1)
    kept = await fill()

    assert await pruned() == (1, 1, 1)
    assert await pruned() == (0, 0, 0)
    async with fleet.storage.read() as uow:
        assert (await identity.of_session(uow, kept)).user_id == fleet.ann.id
