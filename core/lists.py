"""The lists of tasks and of conversations as surfaces follow them: the first page, then every change of what the person may see.

A change is read once for all who follow in this process, and several changes of one thing within a short time are told as one.
"""

import asyncio
from collections.abc import AsyncGenerator, Hashable, Iterable, Sequence
from typing import Final, Literal
from uuid import UUID

from core import conversations, tasks
from core.access import Principal
from core.errors import StorageUnavailable
from core.events import (
    AgentStatusChanged,
    ConversationChanged,
    ConversationDeleted,
    ConversationRead,
    Event,
    Lagged,
    MessageAdded,
    MessageChanged,
    TaskChanged,
    TaskDeleted,
)
from core.frames import Frame, conversations_json, deleted, read_conversations_json, tasks_json
from core.live import LiveEvents
from core.models import JSON, Conversation, Visibility
from core.ports import Storage, TaskFilter, UnitOfWork

TOLD_SECONDS = 0.25
"""Between two tellings."""
FIRST_PAGE = 50
REREAD_SECONDS = 1.0
_QUEUE_SIZE = 10_000
_AT_ONCE = 200
"""Things that are read in one transaction, and changes that wait for one follower."""

ListName = Literal["tasks", "conversations"]
_OF_TASKS: Final = (TaskChanged, AgentStatusChanged)
_OF_CONVERSATIONS: Final = (ConversationChanged, MessageAdded, MessageChanged, AgentStatusChanged)


class _Mailbox:
    """What one follower has not been told yet: of each thing the newest, or that too much has happened."""

    def __init__(self, reader: UUID) -> None:
        self._reader = reader
        self._frames: dict[Hashable, Frame] = {}
        self._lagged = False
        self._ready = asyncio.Event()

    def put(self, thing: Hashable, frame: Frame, readers: Iterable[UUID] | None) -> None:
        if self._lagged or not (readers is None or self._reader in readers):
            return
        self._frames.pop(thing, None)  # the newest is told last
        self._frames[thing] = frame
        if len(self._frames) > _AT_ONCE:
            self.lag()
        self._ready.set()

    def lag(self) -> None:
        self._frames.clear()
        self._lagged = True
        self._ready.set()

    async def take(self) -> list[Frame] | None:
        """Waits for changes; None where some were missed."""
        await self._ready.wait()
        self._ready.clear()
        if self._lagged:
            self._lagged = False
            return None
        frames = list(self._frames.values())
        self._frames.clear()
        return frames


class Lists:
    """What those share who follow the lists in this process."""

    def __init__(self, storage: Storage, live: LiveEvents) -> None:
        self._storage = storage
        self._live = live
        self._mailboxes: dict[ListName, set[_Mailbox]] = {"tasks": set(), "conversations": set()}

    async def run(self) -> None:
        """Tells the followers what changes; until cancelled."""
        with self._live.subscribe(size=_QUEUE_SIZE) as subscription:
            self._lag()  # whoever follows already may have missed something
            while True:
                await self._tell([await subscription.get(), *subscription.waiting()])
                await asyncio.sleep(TOLD_SECONDS)

    async def frames(self, name: ListName, principal: Principal) -> AsyncGenerator[Frame, None]:
        """A `snapshot` with the first page, then `task_changed` and `task_deleted`, or those of conversations and `conversation_read`;
        another `snapshot` whenever changes were missed.

        Raises NotAuthenticated where the scope for it lacks, and StorageUnavailable where the first page cannot be read. Close it
        (`contextlib.aclosing`).
        """
        mailbox = _Mailbox(principal.user_id)
        self._mailboxes[name].add(mailbox)
        try:
            yield await self._first_page(name, principal)
            while True:
                changes = await mailbox.take()
                for frame in [await self._again(name, principal)] if changes is None else changes:
                    yield frame
        finally:
            self._mailboxes[name].discard(mailbox)

    # --- the first page ---

    async def _first_page(self, name: ListName, principal: Principal) -> Frame:
        async with self._storage.read() as uow:
            return Frame("snapshot", await (_tasks if name == "tasks" else _conversations)(uow, principal))

    async def _again(self, name: ListName, principal: Principal) -> Frame:
        while True:
            try:
                return await self._first_page(name, principal)
            except StorageUnavailable:
                await asyncio.sleep(REREAD_SECONDS)

    # --- changes ---

    async def _tell(self, events: Sequence[Event]) -> None:
        if any(isinstance(event, Lagged) for event in events):
            self._lag()
            return
        for event in events:
            match event:
                case TaskDeleted():
                    self._put("tasks", event.task_id, deleted(event), event.readers)
                case ConversationDeleted():
                    self._put("conversations", event.conversation_id, deleted(event), event.readers)
                case ConversationRead():
                    self._put("conversations", ("read", event.conversation_id), _read(event), (event.user_id,))
        try:
            if self._mailboxes["tasks"]:
                await self._tell_tasks([event.conversation_id for event in events if isinstance(event, _OF_TASKS)])
            if self._mailboxes["conversations"]:
                await self._tell_conversations([event.conversation_id for event in events if isinstance(event, _OF_CONVERSATIONS)])
        except StorageUnavailable:
            self._lag()

    async def _tell_tasks(self, conversation_ids: Sequence[UUID]) -> None:
        for batch in _batches(conversation_ids):
            async with self._storage.read() as uow:
                found = await uow.tasks.of_conversations(batch)
                shown = await tasks_json(uow, found)
                readers = await _readers(uow, await uow.conversations.of_ids([task.conversation_id for task in found]))
            for payload in shown:
                self._put("tasks", UUID(payload["id"]), Frame("task_changed", payload), readers[UUID(payload["conversation_id"])])

    async def _tell_conversations(self, conversation_ids: Sequence[UUID]) -> None:
        for batch in _batches(conversation_ids):
            async with self._storage.read() as uow:
                found = await uow.conversations.of_ids(batch)
                shown = await conversations_json(uow, found)
                readers = await _readers(uow, found)
            for conversation, payload in zip(found, shown, strict=True):
                self._put("conversations", conversation.id, Frame("conversation_changed", payload), readers[conversation.id])

    def _put(self, name: ListName, thing: Hashable, frame: Frame, readers: Iterable[UUID] | None) -> None:
        for mailbox in self._mailboxes[name]:
            mailbox.put(thing, frame, readers)

    def _lag(self) -> None:
        for mailboxes in self._mailboxes.values():
            for mailbox in mailboxes:
                mailbox.lag()


async def _tasks(uow: UnitOfWork, principal: Principal) -> JSON:
    page = await tasks.page(uow, principal, TaskFilter(), limit=FIRST_PAGE)
    cursor = str(page.next_cursor) if page.next_cursor else None
    return {"tasks": await tasks_json(uow, page.tasks), "next_cursor": cursor, "total": page.total}


async def _conversations(uow: UnitOfWork, principal: Principal) -> JSON:
    page = await conversations.page(uow, principal, limit=FIRST_PAGE)
    shown = await read_conversations_json(uow, page.conversations, principal.user_id)
    return {"conversations": shown, "total": page.total, "limit": FIRST_PAGE, "offset": 0}


def _read(event: ConversationRead) -> Frame:
    return Frame("conversation_read", {"id": str(event.conversation_id), "seq": event.seq})


async def _readers(uow: UnitOfWork, found: Sequence[Conversation]) -> dict[UUID, frozenset[UUID] | None]:
    """Who may see each; None where that is everybody."""
    private = [each for each in found if each.visibility is Visibility.PRIVATE]
    members = await uow.conversations.members_of([each.id for each in private]) if private else {}
    return {each.id: None for each in found} | {each.id: members.get(each.id, frozenset()) | {each.owner_id} for each in private}


def _batches(conversation_ids: Iterable[UUID]) -> list[list[UUID]]:
    ids = list(dict.fromkeys(conversation_ids))
    return [ids[begin : begin + _AT_ONCE] for begin in range(0, len(ids), _AT_ONCE)]
