"""Live events inside one process: published once, to any number of bounded subscriptions. The publisher never waits."""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Protocol
from uuid import UUID

from core.events import ConversationRead, Event, Lagged, TextDelta

QUEUE_SIZE = 1_000


class Publisher(Protocol):
    """Where live events go: to the subscribers in this process, or to those in others as well."""

    def publish(self, *events: Event) -> None: ...


class Subscription:
    """The events of one subscriber, in order. After an overflow it gets one Lagged in place of what was lost."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._events: deque[Event] = deque()
        self._ready = asyncio.Event()

    def put(self, event: Event) -> None:
        if len(self._events) >= self._size:
            self._events.clear()
            event = Lagged()
        self._events.append(event)
        self._ready.set()

    async def get(self) -> Event:
        """The next event; waits for it."""
        while not self._events:
            self._ready.clear()
            await self._ready.wait()
        return self._events.popleft()

    def waiting(self, limit: int | None = None) -> list[Event]:
        """All that has arrived, or its first `limit` events, without waiting."""
        if limit is not None and limit < len(self._events):
            return [self._events.popleft() for _ in range(limit)]
        events = list(self._events)
        self._events.clear()
        return events

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            yield await self.get()


class LiveEvents:
    """Every method belongs to the event loop's thread."""

    def __init__(self) -> None:
        self._subscriptions: defaultdict[UUID | None, set[Subscription]] = defaultdict(set)

    def publish(self, *events: Event) -> None:
        for event in events:
            for subscription in self._interested(event):
                subscription.put(event)

    @contextmanager
    def subscribe(self, conversation_id: UUID | None = None, *, size: int = QUEUE_SIZE) -> Iterator[Subscription]:
        """Registers at once, so a state read inside the block misses nothing.

        With a conversation: all its events but who read it. Without: the state events of every conversation, no text.
        """
        subscription = Subscription(size)
        self._subscriptions[conversation_id].add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions[conversation_id].discard(subscription)
            if not self._subscriptions[conversation_id]:
                del self._subscriptions[conversation_id]

    @property
    def followed(self) -> frozenset[UUID]:
        """The conversations that somebody follows by name."""
        return frozenset(each for each in self._subscriptions if each is not None)

    @property
    def subscriptions(self) -> int:
        """How many there are."""
        return sum(map(len, self._subscriptions.values()))

    def _interested(self, event: Event) -> list[Subscription]:
        match event:
            case Lagged():
                return [each for subscriptions in self._subscriptions.values() for each in subscriptions]
            case TextDelta():
                return list(self._subscriptions.get(event.conversation_id, ()))
            case ConversationRead():  # tells nothing of the conversation itself
                return list(self._subscriptions.get(None, ()))
            case _:
                return [*self._subscriptions.get(event.conversation_id, ()), *self._subscriptions.get(None, ())]
