"""One conversation as a surface follows it: its state first, then every change, in order, with no gap and nothing twice."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from uuid import UUID

from core import conversations
from core.access import Principal
from core.errors import NotFound, StorageUnavailable
from core.events import (
    AgentStatusChanged,
    ApprovalChanged,
    ConversationChanged,
    ConversationDeleted,
    Event,
    Lagged,
    MessageAdded,
    MessageChanged,
    TaskChanged,
    TaskDeleted,
    TextDelta,
    ToolCallChanged,
    TurnChanged,
)
from core.frames import (
    Frame,
    FrameEvent,
    deleted,
    ended,
    messages_json,
    shown_conversation_json,
    snapshot,
    task_json,
    tool_call_json,
    turns_json,
)
from core.live import LiveEvents, Subscription
from core.models import JSON, MessageStatus, Role
from core.ports import Storage, UnitOfWork
from core.text import utf16_cut, utf16_len

REREAD_SECONDS = 1.0
DRAFT_SECONDS = 1.5
"""After so long what was told before somebody began to listen is stored: drafts are, once a second. Where nothing is, it is looked again,
after twice as long each time."""
LATEST_DRAFT_SECONDS = 20.0
"""Later than that no draft is waited for."""
_BATCH = 50
"""Events that are read and told together. More of them would be held in memory while whoever reads the frames is slow."""


class ReplyText:
    """The text of one reply put together from deltas. A higher stream cuts it, the same extends it, a lower one is stale."""

    def __init__(self, stream_no: int, text: str) -> None:
        self.stream_no = stream_no
        self.text = text
        self.length = utf16_len(text)

    def fits(self, delta: TextDelta) -> bool:
        """Whether nothing is missing between this text and the delta."""
        return delta.stream_no < self.stream_no or delta.offset <= self.length

    def apply(self, delta: TextDelta) -> tuple[int, str] | None:
        """What changes: the offset from which on the text is replaced, and by what. None for a delta that tells nothing new."""
        if delta.stream_no < self.stream_no:
            return None
        if delta.stream_no > self.stream_no:
            return self._replace(delta.stream_no, delta.offset, delta.text)
        known = self.length - delta.offset
        fresh = delta.text[len(utf16_cut(delta.text, known)) :] if known else delta.text
        return self._replace(self.stream_no, self.length, fresh) if fresh else None

    def _replace(self, stream_no: int, offset: int, text: str) -> tuple[int, str]:
        kept = self.text if offset == self.length else utf16_cut(self.text, offset)
        self.stream_no, self.text, self.length = stream_no, kept + text, offset + utf16_len(text)
        return offset, text


class Follower:
    """Follows one conversation in the name of one person."""

    def __init__(self, storage: Storage, live: LiveEvents, principal: Principal, conversation_id: UUID, *, messages: int = 50) -> None:
        self._storage = storage
        self._live = live
        self._principal = principal
        self._conversation_id = conversation_id
        self._messages = messages
        self._replies: dict[UUID, ReplyText] = {}
        self._held: list[TextDelta] = []
        self._positions: dict[str, int] = {}
        self._newest_seq = 0
        """Of the messages that were told."""
        self._reread_at = 0.0
        self._unsure: set[UUID] = set()
        """Replies that were being written when the snapshot was read: text told before may be missing in it."""
        self._sure_at = 0.0
        self._sure_seconds = DRAFT_SECONDS

    async def frames(self) -> AsyncGenerator[Frame, None]:
        """A `snapshot`, then live frames; another `snapshot` whenever events were missed. Ends when the conversation is deleted.

        Raises NotFound where the person may not see it, and StorageUnavailable where the first state cannot be read. Close it
        (`contextlib.aclosing`).
        """
        with self._live.subscribe(self._conversation_id) as subscription:
            yield await self._snapshot()
            while True:
                for frame in await self._translate(await self._next(subscription), subscription):
                    yield frame
                    if frame.event == "conversation_deleted":
                        return

    async def _next(self, subscription: Subscription) -> list[Event]:
        if not (self._held or self._unsure):
            return [await subscription.get(), *subscription.waiting(_BATCH)]
        try:
            async with asyncio.timeout(REREAD_SECONDS if self._held else self._sure_at - time.monotonic()):
                return [await subscription.get(), *subscription.waiting(_BATCH)]
        except TimeoutError:
            return []

    async def _translate(self, events: list[Event], subscription: Subscription) -> list[Frame]:
        while True:
            try:
                return await self._translated(events)
            except NotFound:
                events += subscription.waiting()
                gone = ConversationDeleted(conversation_id=self._conversation_id, readers=())
                return [deleted(event) for event in events if isinstance(event, TaskDeleted)] + [deleted(gone)]
            except StorageUnavailable:
                events = [Lagged()]
                await asyncio.sleep(REREAD_SECONDS)

    async def _translated(self, events: list[Event]) -> list[Frame]:
        if any(isinstance(event, Lagged) for event in events):
            return [await self._snapshot()]
        if all(isinstance(event, TextDelta) for event in events):
            frames = [frame for event in events if isinstance(event, TextDelta) for frame in self._delta(event)]
        else:
            async with self._storage.read() as uow:
                messages = await _messages(uow, events)
                frames = [frame for event in _once(events) for frame in await self._told(uow, messages, event)]
        return frames + (await self._reread() if self._held or self._unsure else [])

    async def _told(self, uow: UnitOfWork, messages: Mapping[UUID, JSON], event: Event) -> list[Frame]:
        match event:
            case TextDelta():
                return self._delta(event)
            case MessageAdded():
                return self._message(messages.get(event.message_id), "new_message")
            case MessageChanged():
                return self._message(messages.get(event.message_id), "message_changed")
            case TurnChanged():
                return await self._turn(uow, event.turn_id)
            case ToolCallChanged():
                return await _tool_call(uow, event.turn_id, event.step, event.index)
            case ApprovalChanged():
                return await self._approval(uow, event.approval_id)
            case AgentStatusChanged() | ConversationChanged() | TaskChanged():
                return await self._conversation(uow, event)
            case ConversationDeleted() | TaskDeleted():
                return [deleted(event)]
        return []

    # --- text ---

    def _delta(self, delta: TextDelta) -> list[Frame]:
        reply = self._replies.get(delta.message_id)
        if reply is None:  # it has ended
            return []
        if not reply.fits(delta):
            self._held.append(delta)
            return []
        self._unsure.discard(delta.message_id)
        change = reply.apply(delta)
        return [_delta_frame(delta.message_id, reply.stream_no, *change)] if change else []

    async def _reread(self) -> list[Frame]:
        """Closes gaps: the stored drafts reach up to the deltas that are held, a second later at most."""
        now = time.monotonic()
        held: list[TextDelta] = []
        missing: set[UUID] = set()
        if self._unsure and now >= self._sure_at:
            missing, self._unsure = self._unsure, missing
            self._sure_seconds *= 2
            self._sure_at = now + self._sure_seconds
        if self._held and now >= self._reread_at:
            self._reread_at = now + REREAD_SECONDS
            held, self._held = self._held, held
        frames: list[Frame] = []
        for message_id in missing | {delta.message_id for delta in held}:
            if stored := await self._stored_text(message_id):
                told = self._delta(stored)
                frames += told
                if message_id in missing and not told and self._sure_seconds <= LATEST_DRAFT_SECONDS:
                    self._unsure.add(message_id)
        return frames + [frame for delta in held for frame in self._delta(delta)]

    async def _stored_text(self, message_id: UUID) -> TextDelta | None:
        async with self._storage.read() as uow:
            message = await uow.messages.get(message_id)
            turn = await uow.turns.get(message.turn_id) if message and message.turn_id else None
        if message is None or turn is None or message.status.finished:
            return None
        return TextDelta(
            conversation_id=message.conversation_id, message_id=message_id, stream_no=turn.stream_no, offset=0, text=message.content
        )

    # --- state ---

    async def _snapshot(self) -> Frame:
        async with self._storage.read() as uow:
            conversation = await conversations.get(uow, self._principal, self._conversation_id)
            state = await snapshot(uow, conversation, reader=self._principal.user_id, limit=self._messages)
        self._held.clear()
        self._positions = {turn["turn_id"]: turn["position"] for turn in state["turns"]}
        self._newest_seq = max((message["seq"] for message in state["messages"]), default=0)
        self._replies = {
            UUID(message["id"]): ReplyText(message["stream_no"], message["content"])
            for message in state["messages"]
            if message["role"] == Role.ASSISTANT and not MessageStatus(message["status"]).finished
        }
        written = {UUID(message["id"]) for message in state["messages"] if message["status"] == MessageStatus.PROCESSING}
        self._unsure = written & self._replies.keys()
        self._sure_seconds = DRAFT_SECONDS
        self._sure_at = time.monotonic() + DRAFT_SECONDS
        return Frame("snapshot", state)

    def _message(self, payload: JSON | None, event: FrameEvent) -> list[Frame]:
        if payload is None:
            return []
        message_id = UUID(payload["id"])
        if event == "new_message" and payload["seq"] <= self._newest_seq:  # a snapshot was read between its commit and its event
            event = "message_changed"
        self._newest_seq = max(self._newest_seq, payload["seq"])
        if payload["role"] != Role.ASSISTANT:
            return [Frame(event, payload)]
        if event == "new_message" or not MessageStatus(payload["status"]).finished:
            return [Frame(event, self._with_text(message_id, payload))]
        if self._replies.pop(message_id, None) is None:
            return [Frame(event, payload)]
        self._held = [delta for delta in self._held if delta.message_id != message_id]
        return ended(payload["id"], payload)

    def _with_text(self, message_id: UUID, reply: JSON) -> JSON:
        """A reply that is being written, as far as it was shown: its stored draft lags behind. No older stream is shown after it."""
        known, stored = self._replies.get(message_id), ReplyText(reply["stream_no"], reply["content"])
        if known and known.stream_no == stored.stream_no and known.length > stored.length:
            return {**reply, "content": known.text}
        self._replies[message_id] = stored
        return reply

    async def _turn(self, uow: UnitOfWork, turn_id: UUID) -> list[Frame]:
        """This turn's change, and those of the queued ones behind it, which move up."""
        changed = await uow.turns.get(turn_id)
        unfinished = await uow.turns.unfinished(self._conversation_id)
        told = ([changed] if changed else []) + [turn for turn in unfinished if turn.id != turn_id]
        frames = [Frame("turn_changed", payload) for payload in await turns_json(uow, told, unfinished)]
        moved = [each for each in frames if each.payload["turn_id"] == str(turn_id) or self._has_moved(each.payload)]
        self._positions = {each.payload["turn_id"]: each.payload["position"] for each in frames}
        return moved

    def _has_moved(self, turn: JSON) -> bool:
        return bool(self._positions.get(turn["turn_id"]) != turn["position"])

    async def _approval(self, uow: UnitOfWork, approval_id: UUID) -> list[Frame]:
        approval = await uow.approvals.get(approval_id)
        return await _tool_call(uow, approval.turn_id, approval.step, approval.index) if approval else []

    async def _conversation(self, uow: UnitOfWork, event: Event) -> list[Frame]:
        conversation = await conversations.get(uow, self._principal, self._conversation_id)
        match event:
            case AgentStatusChanged():
                status = {"status": conversation.agent_status.value, "message": conversation.agent_status_message}
                return [Frame("agent_status", status)]
            case ConversationChanged():
                return [Frame("conversation_changed", await shown_conversation_json(uow, conversation))]
        task = await uow.tasks.of_conversation(conversation.id)
        return [Frame("task_changed", await task_json(uow, task, conversation))] if task else []


def _once(events: list[Event]) -> list[Event]:
    """A message is told as it is now, so only its last change counts: else a reply would have ended before what it did is told."""
    last = {event.message_id: event for event in events if isinstance(event, MessageChanged)}
    return [event for event in events if not isinstance(event, MessageChanged) or last[event.message_id] is event]


async def _messages(uow: UnitOfWork, events: list[Event]) -> dict[UUID, JSON]:
    """Those that the events tell of."""
    ids = {event.message_id for event in events if isinstance(event, MessageAdded | MessageChanged)}
    shown = await messages_json(uow, await uow.messages.of_ids(ids)) if ids else []
    return {UUID(message["id"]): message for message in shown}


async def _tool_call(uow: UnitOfWork, turn_id: UUID, step: int, index: int) -> list[Frame]:
    turn, call = await uow.turns.get(turn_id), await uow.tool_calls.get(turn_id, step, index)
    if turn is None or call is None:
        return []
    approval = await uow.approvals.get(call.approval_id) if call.approval_id else None
    names = await uow.users.names([approval.decided_by]) if approval and approval.decided_by else {}
    return [Frame("tool_call", tool_call_json(call, turn.reply_id, approval, names, turn_ended=turn.status.finished))]


def _delta_frame(message_id: UUID, stream_no: int, offset: int, text: str) -> Frame:
    return Frame("llm_delta", {"message_id": str(message_id), "stream_no": stream_no, "offset": offset, "delta": text})
