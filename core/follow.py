"""One conversation as a surface follows it: its state first, then every change, in order, with no gap and nothing twice."""

import asyncio
import time
from collections.abc import AsyncGenerator
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
from core.frames import Frame, conversation_json, messages_json, snapshot, task_json, tool_call_json, turn_json
from core.live import LiveEvents, Subscription
from core.models import JSON, MessageStatus, Role
from core.ports import Storage, UnitOfWork
from core.text import utf16_cut, utf16_len

REREAD_SECONDS = 1.0
_ENDED = (MessageStatus.COMPLETED, MessageStatus.FAILED, MessageStatus.CANCELLED)


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

    async def frames(self) -> AsyncGenerator[Frame, None]:
        """A `snapshot`, then live frames; another `snapshot` whenever events were missed. Ends when the conversation is deleted.

        Raises NotFound where the person may not see it, and StorageUnavailable where the first state cannot be read. Close it
        (`contextlib.aclosing`).
        """
        with self._live.subscribe(self._conversation_id) as subscription:
            yield await self._snapshot()
            while True:
                for frame in await self._translate(await self._next(subscription)):
                    yield frame
                    if frame.event == "conversation_deleted":
                        return

    async def _next(self, subscription: Subscription) -> list[Event]:
        try:
            async with asyncio.timeout(REREAD_SECONDS if self._held else None):
                return [await subscription.get(), *subscription.waiting()]
        except TimeoutError:
            return []

    async def _translate(self, events: list[Event]) -> list[Frame]:
        while True:
            try:
                return await self._translated(events)
            except NotFound:
                gone = ConversationDeleted(conversation_id=self._conversation_id)
                return [_deleted(event) for event in events if isinstance(event, TaskDeleted)] + [_deleted(gone)]
            except StorageUnavailable:
                events = [Lagged()]
                await asyncio.sleep(REREAD_SECONDS)

    async def _translated(self, events: list[Event]) -> list[Frame]:
        if any(isinstance(event, Lagged) for event in events):
            return [await self._snapshot()]
        frames: list[Frame] = []
        for event in events:
            match event:
                case TextDelta():
                    frames += self._delta(event)
                case ConversationDeleted() | TaskDeleted():
                    frames.append(_deleted(event))
                case _:
                    frames += await self._state(event)
        return frames + (await self._reread() if self._held else [])

    # --- text ---

    def _delta(self, delta: TextDelta) -> list[Frame]:
        reply = self._replies.get(delta.message_id)
        if reply is None:  # it has ended
            return []
        if not reply.fits(delta):
            self._held.append(delta)
            return []
        change = reply.apply(delta)
        return [_delta_frame(delta.message_id, reply.stream_no, *change)] if change else []

    async def _reread(self) -> list[Frame]:
        """Closes gaps: the stored drafts reach up to the deltas that are held, a second later at most."""
        if time.monotonic() < self._reread_at:
            return []
        self._reread_at = time.monotonic() + REREAD_SECONDS
        held, self._held = self._held, []
        frames: list[Frame] = []
        for message_id in dict.fromkeys(delta.message_id for delta in held):
            if stored := await self._stored_text(message_id):
                frames += self._delta(stored)
        return frames + [frame for delta in held for frame in self._delta(delta)]

    async def _stored_text(self, message_id: UUID) -> TextDelta | None:
        async with self._storage.read() as uow:
            message = await uow.messages.get(message_id)
            turn = await uow.turns.get(message.turn_id) if message and message.turn_id else None
        if message is None or turn is None or message.status in _ENDED:
            return None
        return TextDelta(
            conversation_id=message.conversation_id, message_id=message_id, stream_no=turn.stream_no, offset=0, text=message.content
        )

    # --- state ---

    async def _snapshot(self) -> Frame:
        async with self._storage.read() as uow:
            conversation = await conversations.get(uow, self._principal, self._conversation_id)
            state = await snapshot(uow, conversation, limit=self._messages)
        self._held.clear()
        self._positions = {turn["turn_id"]: turn["position"] for turn in state["turns"]}
        self._newest_seq = max((message["seq"] for message in state["messages"]), default=0)
        self._replies = {
            UUID(message["id"]): ReplyText(message["stream_no"], message["content"])
            for message in state["messages"]
            if message["role"] == Role.ASSISTANT and message["status"] not in _ENDED
        }
        return Frame("snapshot", state)

    async def _state(self, event: Event) -> list[Frame]:
        async with self._storage.read() as uow:
            match event:
                case MessageAdded():
                    return await self._message(uow, event.message_id, "new_message")
                case MessageChanged():
                    return await self._message(uow, event.message_id, "message_changed")
                case TurnChanged():
                    return await self._turn(uow, event.turn_id)
                case ToolCallChanged():
                    return await _tool_call(uow, event.turn_id, event.step, event.index)
                case ApprovalChanged():
                    return await self._approval(uow, event.approval_id)
                case AgentStatusChanged() | ConversationChanged() | TaskChanged():
                    return await self._conversation(uow, event)
        return []

    async def _message(self, uow: UnitOfWork, message_id: UUID, event: str) -> list[Frame]:
        message = await uow.messages.get(message_id)
        if message is None:
            return []
        (payload,) = await messages_json(uow, [message])
        if event == "new_message" and message.seq <= self._newest_seq:  # a snapshot was read between its commit and its event
            event = "message_changed"
        self._newest_seq = max(self._newest_seq, message.seq)
        if message.role is not Role.ASSISTANT:
            return [Frame(event, payload)]
        if event == "new_message" or message.status not in _ENDED:
            return [Frame(event, self._with_text(message_id, payload))]
        if self._replies.pop(message_id, None) is None:
            return [Frame(event, payload)]
        self._held = [delta for delta in self._held if delta.message_id != message_id]
        return _ended(payload)

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
        frames = [Frame("turn_changed", await turn_json(uow, turn)) for turn in told]
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
                return [Frame("conversation_changed", conversation_json(conversation))]
        task = await uow.tasks.of_conversation(conversation.id)
        return [Frame("task_changed", await task_json(uow, task, conversation))] if task else []


async def _tool_call(uow: UnitOfWork, turn_id: UUID, step: int, index: int) -> list[Frame]:
    turn, call = await uow.turns.get(turn_id), await uow.tool_calls.get(turn_id, step, index)
    if turn is None or call is None:
        return []
    approval = await uow.approvals.get(call.approval_id) if call.approval_id else None
    return [Frame("tool_call", tool_call_json(call, turn.reply_id, approval, turn_ended=turn.status.finished))]


def _deleted(event: ConversationDeleted | TaskDeleted) -> Frame:
    match event:
        case ConversationDeleted():
            return Frame("conversation_deleted", {"id": str(event.conversation_id)})
        case TaskDeleted():
            return Frame("task_deleted", {"id": str(event.task_id), "ref": event.ref})


def _ended(reply: JSON) -> list[Frame]:
    complete = Frame("llm_complete", {"message_id": reply["id"], **{key: reply[key] for key in ("content", "status", "metadata")}})
    error = reply["metadata"].get("error")
    if reply["status"] != MessageStatus.FAILED or not error:
        return [complete]
    return [complete, Frame("llm_error", {"message_id": reply["id"], "error": error["message"], "error_code": error["code"]})]


def _delta_frame(message_id: UUID, stream_no: int, offset: int, text: str) -> Frame:
    return Frame("llm_delta", {"message_id": str(message_id), "stream_no": stream_no, "offset": offset, "delta": text})
