"""A whole Onethread with a chat platform: the real engine over a real database, a scripted model, and a platform of the test's own."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from bots import origins
from bots.account import HoldRules, hold
from bots.delivery.outlet import DeliveryRules
from bots.lease import Held
from bots.policy import Policy
from bots.services import Services
from core import bindings, messages
from core.access import Principal
from core.errors import StorageUnavailable
from core.ids import new_id
from core.models import AccountLease, Binding, BindingCheck, BindingMode, ChannelKind, Conversation, Identity, Place
from core.ports import Storage, UnitOfWork
from core.worker import WorkerRules
from storage import sqlite_notifier
from tests import virtual_time
from tests.fake_surface import ACCOUNT, FakeSurface, Platform
from tests.fakes import Gate, ScriptedModel
from tests.integration.conftest import Start, World, onethread

QUICK = HoldRules(
    lease_seconds=2.0,
    extend_seconds=0.1,
    margin_seconds=0.1,
    poll_seconds=0.05,
    restart_seconds=0.05,
    delivery=DeliveryRules(
        first_seconds=0.05,
        idle_seconds=0.1,
        settle_seconds=0.1,
        twin_seconds=0.3,
        backoff_seconds=0.02,
        backoff_limit_seconds=0.1,
        account_seconds=0.1,
        storage_seconds=0.05,
        defect_seconds=0.05,
    ),
)
EVERYWHERE = Policy()
PLACE = Place(account=ACCOUNT, channel="C1", thread="1.0")
THERE = Place(account=ACCOUNT, channel="C2", thread="2.0")


class Database:
    """The database as one process sees it: it can be away, or keep its users waiting."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.is_away = False
        self.refused = 0
        """Transactions that failed for that."""
        self.writes = 0
        """Transactions that were begun to write."""
        self.reads_wait: asyncio.Event | None = None
        self.free_reads = 0
        """So many do not wait."""
        self.writes_wait: asyncio.Event | None = None

    @asynccontextmanager
    async def read(self) -> AsyncIterator[UnitOfWork]:
        self._check()
        if self.reads_wait and self.free_reads <= 0:
            await self.reads_wait.wait()
        self.free_reads -= 1
        async with self._storage.read() as uow:
            yield uow

    @asynccontextmanager
    async def write(self) -> AsyncIterator[UnitOfWork]:
        self.writes += 1
        self._check()
        if self.writes_wait:
            await self.writes_wait.wait()
        async with self._storage.write() as uow:
            yield uow
            self._check()

    def __getattr__(self, name: str) -> object:
        return getattr(self._storage, name)

    def _check(self) -> None:
        if self.is_away:
            self.refused += 1
            raise StorageUnavailable("The database is away.")


class Shown(Gate):
    """Where the model waits until people read what it said."""

    def __init__(self, platform: Platform, channel: str, text: str) -> None:
        super().__init__()
        self._is_there = lambda: platform.newest(channel).text.strip() == text.strip()
        self._platform = platform

    async def passing(self) -> None:
        await self._platform.until(self._is_there, seconds=30)


Play = Callable[..., None]


class NoIntake:
    """Nothing comes in from this platform but what the test posts itself."""

    async def run(self, lease: AccountLease) -> None:
        await asyncio.Event().wait()


class Stage:
    """The world, its platform, and what happens at one place of it."""

    def __init__(self, world: World, platform: Platform | None = None, *, rules: HoldRules = QUICK, makes_threads: bool = False) -> None:
        self.world = world
        self.platform = platform or Platform()
        self._rules = rules
        self._makes_threads = makes_threads
        self.surface = self.client()

    def client(self) -> FakeSurface:
        """Another process's way to the platform."""
        return FakeSurface(self.platform, makes_threads=self._makes_threads)

    def services(self, storage: Storage | None = None, *, process_id: UUID | None = None) -> Services:
        app = self.world.app
        return Services(
            storage=storage or app.storage,
            live=app.live,
            clock=app.clock,
            posting=app.rules,
            process_id=process_id or new_id(),
            url="https://one.example",
            models=lambda: (),
        )

    @asynccontextmanager
    async def delivering(
        self, surface: FakeSurface | None = None, *, storage: Any = None, policy: Policy = EVERYWHERE, **changes: Any
    ) -> AsyncIterator[asyncio.Task[None]]:
        """A process that holds the account meanwhile. Keywords replace its delivery rules."""
        rules = replace(self._rules, delivery=replace(self._rules.delivery, **changes))
        holding = hold(self.services(storage), surface or self.surface, NoIntake(), policy, rules)
        holder = asyncio.create_task(holding, name="holder")
        try:
            yield holder
        finally:
            holder.cancel()
            await asyncio.wait({holder})

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """Runs the worker meanwhile, without what happens by the clock on the wall."""
        worker = asyncio.create_task(self.world.app.worker.run(), name="worker")
        try:
            yield
        finally:
            worker.cancel()
            await asyncio.wait({worker})

    async def bound(self, conversation: Conversation | UUID, place: Place = PLACE, **fields: Any) -> Binding:
        where = conversation if isinstance(conversation, UUID) else conversation.id
        return await self.world.write(lambda uow: bindings.bind(uow, self.world.admin, where, place, **fields))

    async def known_as(self, external_id: str, name: str) -> None:
        """The admin has this account there."""
        known = Identity(
            surface=ACCOUNT.surface,
            account=ACCOUNT.id,
            external_id=external_id,
            user_id=self.world.admin.user_id,
            name=name,
            created_at=self.world.app.clock.now(),
        )
        await self.world.write(lambda uow: uow.identities.add(known))

    async def followed(
        self,
        conversation: Conversation | UUID,
        place: Place = THERE,
        *,
        who: Principal | None = None,
        mode: BindingMode = BindingMode.TWO_WAY,
        kind: ChannelKind | None = ChannelKind.OPEN,
        check: BindingCheck = BindingCheck.NONE,
    ) -> Binding:
        """Somebody, the admin, has it shown there, too."""
        where, who = conversation if isinstance(conversation, UUID) else conversation.id, who or self.world.admin
        async with self.world.app.storage.write() as uow:
            return await bindings.follow(uow, who, where, place, mode=mode, kind=kind, check=check, confirmed=True, source="test")

    async def take_in(self, binding: Binding, text: str, remote_id: str, thread: str = "") -> None:
        """Somebody said it there, as the intake notes it."""
        rules = replace(self.world.app.rules, messages_per_minute=1_000)
        async with self.world.app.storage.write() as uow:
            posted = await messages.post(uow, self.world.admin, binding.conversation_id, text, rules=rules, source="fake")
            message = await uow.messages.get(posted.message_id)
            assert message
            await uow.deliveries.put(origins.theirs(binding, message, uow.now, remote_id=remote_id, thread=thread))

    async def binding(self, binding: Binding) -> Binding:
        found = await self.world.read(lambda uow: uow.bindings.get(binding.id))
        assert found
        return found

    async def held(self, seconds: float = 60) -> Held:
        """The account's lease, which nobody extends. The database's lasts longer."""
        owner = new_id()
        lease = await self.world.write(
            lambda uow: uow.account_leases.take(ACCOUNT, owner, until=uow.now + timedelta(minutes=10), now=uow.now)
        )
        assert lease
        return Held(lease, asyncio.get_running_loop().time() + seconds)

    async def until(self, holds: Callable[[], object], seconds: float = 30) -> None:
        """Waits for what is not stored."""

        async def asked() -> bool:
            return bool(holds())

        await self.world.until(asked, seconds)

    async def settled(self, binding: Binding, seconds: float = 30) -> None:
        """Waits until everything was delivered and noted."""

        async def nothing_left() -> bool:
            return binding.id not in await self.world.read(lambda uow: uow.bindings.behind(binding.place.account))

        await self.world.until(nothing_left, seconds)


@pytest.fixture
def play(tmp_path: Path, empty_sqlite: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Plays a scenario in virtual time, with the rules that hold when nobody changes them, on a platform that makes threads."""
    monkeypatch.setattr(sqlite_notifier, "POLL_SECONDS", 5.0)  # there is no other process

    def played(scenario: Callable[[Stage], Coroutine[Any, Any, None]], model: ScriptedModel | None = None) -> None:
        async def main() -> None:
            clock = virtual_time.Clock()
            shutil.copy(empty_sqlite, tmp_path / "onethread.db")
            async with onethread(tmp_path, model, clock=clock, worker_rules=WorkerRules(poll_seconds=5.0)) as world:
                stage = Stage(world, Platform(clock.now), rules=HoldRules(), makes_threads=True)
                try:
                    await scenario(stage)
                finally:
                    await stage.platform.close()

        virtual_time.run(main())

    return played


@pytest.fixture
async def stage(start: Start) -> AsyncIterator[Stage]:
    async with start() as world:
        found = Stage(world)
        yield found
        await found.platform.close()
