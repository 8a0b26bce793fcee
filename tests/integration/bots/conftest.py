"""A whole Onethread with a chat platform: the real engine over a real database, a scripted model, and a platform of the test's own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from bots.account import HoldRules, hold
from bots.outlet import DeliveryRules
from bots.services import Services
from core import bindings
from core.ids import new_id
from core.models import AccountLease, Binding, Conversation, Place
from core.ports import Storage
from tests.fake_surface import ACCOUNT, FakeSurface, Platform
from tests.integration.conftest import Start, World

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
    ),
)
PLACE = Place(account=ACCOUNT, channel="C1", thread="1.0")


class NoIntake:
    """Nothing comes in from this platform but what the test posts itself."""

    async def run(self, lease: AccountLease) -> None:
        await asyncio.Event().wait()


class Stage:
    """The world, its platform, and what happens at one place of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.platform = Platform()
        self.surface = self.client()

    def client(self) -> FakeSurface:
        """Another process's way to the platform."""
        return FakeSurface(self.platform)

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
    async def delivering(self, surface: FakeSurface | None = None, **changes: Any) -> AsyncIterator[asyncio.Task[None]]:
        """A process that holds the account meanwhile. Keywords replace its delivery rules."""
        rules = replace(QUICK, delivery=replace(QUICK.delivery, **changes))
        holder = asyncio.create_task(hold(self.services(), surface or self.surface, NoIntake(), rules), name="holder")
        try:
            yield holder
        finally:
            holder.cancel()
            await asyncio.wait({holder})

    async def bound(self, conversation: Conversation | UUID, place: Place = PLACE, **fields: Any) -> Binding:
        where = conversation if isinstance(conversation, UUID) else conversation.id
        return await self.world.write(lambda uow: bindings.bind(uow, self.world.admin, where, place, **fields))

    async def binding(self, binding: Binding) -> Binding:
        found = await self.world.read(lambda uow: uow.bindings.get(binding.id))
        assert found
        return found

    async def settled(self, binding: Binding, seconds: float = 5) -> None:
        """Waits until everything was delivered and noted."""

        async def nothing_left() -> bool:
            return binding.id not in await self.world.read(lambda uow: uow.bindings.behind(binding.place.account))

        await self.world.until(nothing_left, seconds)


@pytest.fixture
async def stage(start: Start) -> AsyncIterator[Stage]:
    async with start() as world:
        found = Stage(world)
        yield found
        await found.platform.close()
