"""Delivers conversations to the places of one account: knows its bindings, and starts a writer for each that has something to do."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

import structlog

from bots.delivery.outlet import DeliveryRules, Outlet
from bots.delivery.writer import Writer
from bots.lease import Held, lost_alone
from bots.policy import Policy
from bots.services import Services
from bots.surface import ChatSurface
from core.errors import StorageUnavailable
from core.events import ConversationChanged, ConversationDeleted, ConversationRead, Event, Lagged
from core.live import Subscription
from core.models import Binding

_log = structlog.get_logger()


class Deliveries:
    """Everything of one account, while its lease is held. A binding without anything to do costs nothing but its place in memory."""

    def __init__(self, services: Services, surface: ChatSurface, held: Held, policy: Policy, rules: DeliveryRules) -> None:
        self._services = services
        self._surface = surface
        self._rules = rules
        self._outlet = Outlet(surface, held, policy, rules)
        self._bindings: dict[UUID, Binding] = {}
        self._places: defaultdict[UUID, set[UUID]] = defaultdict(set)
        """The bindings of a conversation, by id."""
        self._writers: dict[UUID, tuple[Writer, asyncio.Task[None]]] = {}

    @property
    def writers(self) -> int:
        """How many are at work."""
        return len(self._writers)

    async def run(self) -> None:
        """Until cancelled; calls that have begun are ended first. Raises LeaseLost."""
        with lost_alone():
            async with asyncio.TaskGroup() as group:
                with self._services.live.subscribe() as events:
                    await self._load(group)
                    while True:
                        await self._hear(group, [await events.get(), *events.waiting()], events)

    async def _load(self, group: asyncio.TaskGroup) -> None:
        while True:
            try:
                async with self._services.storage.read() as uow:
                    found = await uow.bindings.of_account(self._surface.account)
                    behind = await uow.bindings.behind(self._surface.account)
            except StorageUnavailable as error:
                _log.warning("delivery.storage_unavailable", reason=str(error))
                await asyncio.sleep(self._rules.storage_seconds)
            else:
                break
        self._bindings.clear()
        self._places.clear()
        for binding in found:
            self._know(binding)
        group.create_task(self._take_over(group, behind), name="delivery.takeover")
        _log.info("delivery.loaded", surface=self._surface.account.surface, bindings=len(found), behind=len(behind))

    async def _take_over(self, group: asyncio.TaskGroup, behind: Sequence[UUID]) -> None:
        """Some at a time: thousands that read at once would keep everybody else waiting."""
        for begin in range(0, len(behind), self._rules.at_once):
            for binding_id in behind[begin : begin + self._rules.at_once]:
                self._wake(group, binding_id)
            for binding_id in behind[begin : begin + self._rules.at_once]:
                if binding_id in self._writers:
                    await self._writers[binding_id][0].has_begun.wait()

    async def _hear(self, group: asyncio.TaskGroup, events: list[Event], subscription: Subscription) -> None:
        if any(isinstance(event, ConversationChanged) for event in events):
            await asyncio.sleep(self._rules.gather_seconds)
            events += subscription.waiting()
        if any(isinstance(event, Lagged) for event in events):
            await self._load(group)
            return
        changed = {event.conversation_id for event in events if isinstance(event, ConversationChanged)}
        await self._look_up(group, changed)
        for event in events:
            if isinstance(event, ConversationDeleted):
                self._drop(event.conversation_id)
            elif not isinstance(event, ConversationRead | Lagged):
                for binding_id in self._places.get(event.conversation_id, ()):
                    self._wake(group, binding_id)

    async def _look_up(self, group: asyncio.TaskGroup, conversation_ids: set[UUID]) -> None:
        """Bindings are made, ended and taken up again with their conversation's change."""
        if not conversation_ids:
            return
        try:
            async with self._services.storage.read() as uow:
                found = await uow.bindings.of_conversations(conversation_ids)
        except StorageUnavailable:
            await self._load(group)
            return
        for conversation_id in conversation_ids:
            self._drop(conversation_id)
        for binding in found:
            if self._is_ours(binding):
                self._know(binding)

    def _is_ours(self, binding: Binding) -> bool:
        return binding.place.account == self._surface.account and binding.is_delivered_to

    def _know(self, binding: Binding) -> None:
        self._bindings[binding.id] = binding
        self._places[binding.conversation_id].add(binding.id)
        if binding.id in self._writers:  # which may be about to end, as the place was left before
            self._writers[binding.id][0].poke()

    def _drop(self, conversation_id: UUID) -> None:
        """Its writers find out by themselves."""
        for binding_id in self._places.pop(conversation_id, ()):
            self._bindings.pop(binding_id, None)

    def _wake(self, group: asyncio.TaskGroup, binding_id: UUID) -> None:
        if binding_id in self._writers:
            self._writers[binding_id][0].poke()
        elif binding := self._bindings.get(binding_id):
            writer = Writer(self._services, self._outlet, binding)
            self._writers[binding_id] = (writer, group.create_task(self._write(writer, binding_id), name=f"delivery {binding_id}"))

    async def _write(self, writer: Writer, binding_id: UUID) -> None:
        try:
            await writer.run()
        finally:
            del self._writers[binding_id]
        if writer.is_over and (binding := self._bindings.pop(binding_id, None)):
            self._places[binding.conversation_id].discard(binding_id)
