"""Where a platform of the test's own tells what happened, and shorthand for what people say there."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from bots.commands import Command, Commands
from bots.intake import Intake, IntakeRules
from bots.people import People
from bots.policy import Policy
from bots.surface import Edited, Event, Profile, RemoteFile, Said, SurfaceError
from bots.taking import Taking
from core import bindings, identity
from core.access import Principal
from core.attachments import Upload
from core.ids import new_id
from core.models import (
    CARD,
    JSON,
    AccountLease,
    ChannelKind,
    Conversation,
    Delivery,
    DeliveryState,
    Identity,
    InboundEvent,
    Message,
    Place,
    Role,
)
from core.ports import UnitOfWork
from tests.fake_surface import ACCOUNT, FakeSurface, Platform
from tests.integration.bots.conftest import Stage

RULES = IntakeRules(poll_seconds=0.02, backoff_seconds=0.02, longest_backoff_seconds=0.05)
ALICE, BOB = "U1", "U2"
BEGIN = datetime(2026, 11, 22, 3, 10, tzinfo=UTC)
"""By the platform's clock: a message comes so many seconds later as its id says."""


class Telling(FakeSurface):
    """A platform whose stored payloads are numbers of events that the test made up."""

    def __init__(self, platform: Platform, *, makes_threads: bool = False) -> None:
        super().__init__(platform, makes_threads=makes_threads)
        self.events: list[Event | None] = []
        self.files: dict[str, bytes | Exception] = {}
        self.troubles: list[Exception] = []
        """What the next look at a person raises."""
        self.looked_up: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        """Whose profile is not told before it is set, or which file does not come."""
        self.kinds: dict[str, ChannelKind | SurfaceError] = {}
        """By channel or thread."""
        self.unreadable: SurfaceError | None = None
        """What a look at what was said before raises."""
        self.known: set[str] = set()
        self.fetching = 0
        """Files that are asked for just now."""
        platform.profiles |= {
            ALICE: Profile(external_id=ALICE, name="alice", member=True),
            BOB: Profile(external_id=BOB, name="bob", member=True),
        }

    def event(self, payload: JSON) -> Event | None:
        return self.events[payload["number"]]

    async def profile(self, external_id: str) -> Profile:
        self.looked_up.append(external_id)
        if external_id in self.gates:
            await self.gates[external_id].wait()
        if self.troubles:
            raise self.troubles.pop(0)
        return await super().profile(external_id)

    async def kind(self, channel: str, thread: str = "") -> ChannelKind:
        self.looked_up.append(channel)
        found = self.kinds.get(thread) or self.kinds.get(channel) or await super().kind(channel)
        if isinstance(found, SurfaceError):
            raise found
        return found

    def meet(self, *people: Identity) -> None:
        self.known |= {each.external_id for each in people}

    async def earlier(self, place: Place, before: str, *, limit: int) -> Sequence[tuple[str, str]]:
        if self.unreadable:
            raise self.unreadable
        return await super().earlier(place, before, limit=limit)

    async def fetch(self, file: RemoteFile) -> Upload:
        self.fetching += 1
        if file.name in self.gates:
            await self.gates[file.name].wait()
        self.fetching -= 1
        found = self.files[file.name]
        if isinstance(found, Exception):
            raise found
        return Upload(name=file.name, data=found)


class Door:
    """Where events come in."""

    def __init__(self, stage: Stage, policy: Policy, *, makes_threads: bool = False) -> None:
        self.stage = stage
        self.surface = Telling(stage.platform, makes_threads=makes_threads)
        self.policy = policy

    def people(self) -> People:
        return People(self.stage.services(), self.surface, self.policy)

    def intake(self) -> Intake:
        services = self.stage.services()
        return Intake(services, self.surface, Taking(services, self.surface, self.people(), self.policy), RULES)

    def commands(self) -> Commands:
        return Commands(self.stage.services(), self.surface, self.people(), self.policy)

    async def types(self, command: str, place: Place, **fields: Any) -> str:
        return await self.commands().run(Command(text=command, person=ALICE, place=place, event_id=str(new_id()), **fields))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[asyncio.Task[None]]:
        """A process that takes in meanwhile."""
        lease = await self.lease()
        task = asyncio.create_task(self.intake().run(lease), name="intake")
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def lease(self) -> AccountLease:
        async def take(uow: UnitOfWork) -> AccountLease | None:
            return await uow.account_leases.take(ACCOUNT, new_id(), until=uow.now + timedelta(seconds=300), now=uow.now)

        lease = await self.stage.world.write(take)
        assert lease
        return lease

    async def store(self, *events: Event | None, lane: str = "C1") -> list[InboundEvent]:
        stored = []
        for told in events:
            self.surface.events.append(told)
            stored.append(await self.stage.world.write(partial(_add, number=len(self.surface.events) - 1, lane=lane)))
        return stored

    async def row(self, event: InboundEvent) -> InboundEvent:
        found = await self.stage.world.read(lambda uow: uow.inbound.get(event.id))
        assert found
        return found

    async def done(self, *events: InboundEvent, seconds: float = 30) -> None:
        async def all_done(uow: UnitOfWork) -> bool:
            rows = [await uow.inbound.get(each.id) for each in events]
            return all(row and row.done_at for row in rows)

        await self.stage.world.until(lambda: self.stage.world.read(all_done), seconds)

    async def messages(self, thread: str, channel: str = "C1") -> list[Message]:
        async def found(uow: UnitOfWork) -> list[Message]:
            binding = await bindings.at(uow, Place(account=ACCOUNT, channel=channel, thread=thread))
            return await uow.messages.since(binding.conversation_id, 1) if binding else []

        return await self.stage.world.read(found)

    async def conversation(self, thread: str, channel: str = "C1") -> Conversation:
        async def found(uow: UnitOfWork) -> Conversation | None:
            binding = await bindings.at(uow, Place(account=ACCOUNT, channel=channel, thread=thread))
            return await uow.conversations.find(binding.conversation_id) if binding else None

        conversation = await self.stage.world.read(found)
        assert conversation
        return conversation

    async def user(self, external_id: str) -> Principal:
        user = await self.stage.world.read(lambda uow: identity.of_account(uow, ACCOUNT, external_id))
        assert user
        return identity.principal_of(user)

    async def texts(self, thread: str, channel: str = "C1") -> list[str]:
        """What people said, without what the conversation tells of its places."""
        return [each.content for each in await self.messages(thread, channel) if each.role is Role.USER]

    async def says(self, thread: str, *texts: str, channel: str = "C1") -> None:
        async def there() -> bool:
            return await self.texts(thread, channel) == list(texts)

        try:
            await self.stage.world.until(there)
        except TimeoutError:
            raise AssertionError(f"said: {await self.texts(thread, channel)}") from None


async def _add(uow: UnitOfWork, *, number: int, lane: str) -> InboundEvent:
    event = InboundEvent(
        id=new_id(),
        surface=ACCOUNT.surface,
        account=ACCOUNT.id,
        key=f"event:{number}",
        lane=lane,
        payload={"number": number},
        attempts=0,
        run_after=uow.now,
        waits=False,
        received_at=uow.now,
    )
    await uow.inbound.add(event)
    return event


class ShiftedClock:
    """The world's clock, which a test puts forward."""

    def __init__(self) -> None:
        self._shift = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self._shift

    def advance(self, seconds: float) -> None:
        self._shift += timedelta(seconds=seconds)


def said(text: str, remote_id: str = "1", **fields: Any) -> Said:
    usual = {"channel": "C1", "thread": "", "author": ALICE, "to_bot": False, "to_others": False}
    usual["at"] = BEGIN + timedelta(seconds=float(remote_id))
    return Said(remote_id=remote_id, text=text, **{**usual, **fields})


def mention(text: str = "hello", remote_id: str = "1", **fields: Any) -> Said:
    return said(text, remote_id, to_bot=True, **fields)


def reply(text: str, remote_id: str, **fields: Any) -> Said:
    return said(text, remote_id, thread="1", **fields)


def edit(text: str, remote_id: str = "1", *, seconds: int = 60, **fields: Any) -> Edited:
    at = BEGIN + timedelta(seconds=seconds)
    return Edited(remote_id=remote_id, text=text, at=at, **{"channel": "C1", "thread": "", "author": ALICE, **fields})


def file(name: str) -> RemoteFile:
    return RemoteFile(name=name, media_type="text/plain", size=3, source={})


def card(uow: UnitOfWork, binding_id: UUID) -> Delivery:
    """A task's, as the message `1` at the channel's top."""
    return Delivery(
        binding_id=binding_id,
        item=CARD,
        part=0,
        message_id=None,
        revision=1,
        remote_id="1",
        nonce=new_id(),
        state=DeliveryState.FINAL,
        end=None,
        shown="",
        sent_at=uow.now,
    )
