"""What tests of chat platforms share: what the core has of an account, and a database that can go away."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from core import bindings
from core.errors import StorageUnavailable
from core.models import Account, Binding, Conversation, InboundEvent, Message, Place, Role, Task
from core.ports import Storage, TaskFilter, UnitOfWork
from tests.integration.conftest import World


class Interruptible:
    """A database that goes away when the test says so."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.is_away = False

    @asynccontextmanager
    async def read(self) -> AsyncIterator[UnitOfWork]:
        self._check()
        async with self._storage.read() as uow:
            yield uow

    @asynccontextmanager
    async def write(self) -> AsyncIterator[UnitOfWork]:
        self._check()
        async with self._storage.write() as uow:
            yield uow

    def _check(self) -> None:
        if self.is_away:
            raise StorageUnavailable("The database is away.")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


class Stored:
    """Of one account, what is stored."""

    def __init__(self, world: World, storage: Interruptible, account: Account) -> None:
        self.world = world
        self.storage = storage
        self.account = account

    def place(self, channel: str, thread: str = "") -> Place:
        return Place(account=self.account, channel=channel, thread=thread)

    async def bound(self, channel: str, thread: str = "") -> Binding | None:
        return await self.world.read(lambda uow: bindings.at(uow, self.place(channel, thread)))

    async def conversation(self, channel: str, thread: str = "") -> Conversation:
        async def found(uow: UnitOfWork) -> Conversation | None:
            binding = await bindings.at(uow, self.place(channel, thread))
            return await uow.conversations.find(binding.conversation_id) if binding else None

        conversation = await self.world.read(found)
        assert conversation, f"nothing is bound to {channel} {thread}"
        return conversation

    async def messages(self, channel: str, thread: str = "") -> list[Message]:
        """Of the conversation that is shown there; none where there is none."""

        async def found(uow: UnitOfWork) -> list[Message]:
            binding = await bindings.at(uow, self.place(channel, thread))
            return await uow.messages.since(binding.conversation_id, 1) if binding else []

        return await self.world.read(found)

    async def said(self, channel: str, thread: str = "") -> list[str]:
        """What people said there, as `alice: hello`."""
        messages = [each for each in await self.messages(channel, thread) if each.role is Role.USER and not each.deleted_at]
        names = await self.world.read(lambda uow: uow.users.names([each.author_id for each in messages if each.author_id]))
        return [f"{names[each.author_id]}: {each.content}" for each in messages if each.author_id]

    async def says(self, channel: str, thread: str, *lines: str) -> None:
        """Waits until people said this there, as the core has it."""
        seen: list[str] = []

        async def there() -> bool:
            seen[:] = await self.said(channel, thread)
            return seen == list(lines)

        try:
            await self.world.until(there)
        except TimeoutError:
            raise AssertionError(f"said: {seen}") from None

    async def tasks(self) -> list[Task]:
        """Those that everybody may see, and the admin's; the oldest first."""
        return (await self.world.read(lambda uow: uow.tasks.page(self.world.admin, TaskFilter(), after=None, limit=100)))[::-1]

    async def users(self) -> list[str]:
        return sorted(each.name for each in await self.world.read(lambda uow: uow.users.all()))

    async def taken_in(self) -> None:
        """Until every event was taken in, or waits for what it overtook."""

        async def done() -> bool:
            return not [each for each in await self.waiting() if not each.waits]

        await self.world.until(done)

    async def waiting(self) -> list[InboundEvent]:
        far = self.world.app.clock.now().replace(year=9999)
        return await self.world.read(lambda uow: uow.inbound.waiting(self.account, far, limit=10_000))
