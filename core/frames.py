"""The public JSON of messages, tasks and live frames, the same in the terminal's `--json`, the WebSocket and the HTTP API."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from core.events import ConversationDeleted, TaskDeleted
from core.models import (
    JSON,
    Approval,
    ApprovalStatus,
    Attachment,
    Binding,
    BindingCheck,
    BindingMode,
    ChannelKind,
    Conversation,
    Message,
    MessageStatus,
    Role,
    Task,
    TaskChange,
    ToolCall,
    ToolCallState,
    Turn,
    TurnStatus,
    WorkerInfo,
)
from core.ports import Extent, UnitOfWork

WORKER_SILENT = timedelta(seconds=45)
"""After so long without a heartbeat a worker counts as gone."""


FrameEvent = Literal[
    "snapshot",
    "new_message",
    "message_changed",
    "llm_delta",
    "llm_complete",
    "llm_error",
    "agent_status",
    "turn_changed",
    "tool_call",
    "task_changed",
    "task_deleted",
    "conversation_changed",
    "conversation_read",
    "conversation_deleted",
]


@dataclass(frozen=True, slots=True)
class Frame:
    event: FrameEvent
    payload: JSON


async def snapshot(uow: UnitOfWork, conversation: Conversation, *, reader: UUID, limit: int) -> JSON:
    """A conversation with its task and its last `limit` messages, unfinished replies with their text so far and `stream_no`; for one
    reader."""
    messages = await uow.messages.page(conversation.id, limit=limit)
    task = await uow.tasks.of_conversation(conversation.id)
    unfinished = await uow.turns.unfinished(conversation.id)
    return {
        "task": await task_json(uow, task, conversation) if task else None,
        "conversation": await shown_conversation_json(uow, conversation, reader),
        "messages": await messages_json(uow, messages),
        "turns": await turns_json(uow, unfinished, unfinished),
    }


async def messages_json(uow: UnitOfWork, messages: Sequence[Message]) -> list[JSON]:
    turn_ids = [message.turn_id for message in messages if message.turn_id and message.role is Role.ASSISTANT]
    people = {message.author_id for message in messages if message.author_id}
    turns = {turn.id: turn for turn in await uow.turns.of_ids(turn_ids)} if turn_ids else {}
    calls = await uow.tool_calls.of_turns(turn_ids) if turn_ids else []
    files = await uow.attachments.of_messages([message.id for message in messages])
    approvals = {call.approval_id: await uow.approvals.get(call.approval_id) for call in calls if call.approval_id}
    people |= {approval.decided_by for approval in approvals.values() if approval and approval.decided_by}
    names = await uow.users.names(people) if people else {}
    around = _Around(turns=turns, calls=calls, approvals=approvals, files=files, names=names)
    return [_message_json(message, around) for message in messages]


async def conversations_json(uow: UnitOfWork, conversations: Sequence[Conversation]) -> list[JSON]:
    """As they are for all who may see them. `last_seq` is the newest finished message's."""
    extents = await uow.messages.extents([each.id for each in conversations])
    return [_conversation_json(each, extents.get(each.id, Extent(0, 0))) for each in conversations]


async def read_conversations_json(uow: UnitOfWork, conversations: Sequence[Conversation], reader: UUID) -> list[JSON]:
    """As they are for one reader: with `read_seq`, how far they have read; None where they never opened it."""
    marks = await uow.read_marks.of_user(reader, [each.id for each in conversations])
    shown = await conversations_json(uow, conversations)
    return [{**payload, "read_seq": marks.get(each.id)} for each, payload in zip(conversations, shown, strict=True)]


async def shown_conversation_json(uow: UnitOfWork, conversation: Conversation, reader: UUID | None = None) -> JSON:
    """One with its `bindings`, the places where it is shown: for one reader, or as it is for all."""
    shown = await (read_conversations_json(uow, [conversation], reader) if reader else conversations_json(uow, [conversation]))
    return {**shown[0], "bindings": await bindings_json(uow, conversation.id)}


async def bindings_json(uow: UnitOfWork, conversation_id: UUID) -> list[JSON]:
    """The oldest first."""
    found = await uow.bindings.of_conversation(conversation_id)
    names = await uow.users.names({each.bound_by for each in found if each.bound_by})
    return [binding_json(each, names) for each in found]


def binding_json(binding: Binding, names: Mapping[UUID, str]) -> JSON:
    """`names` holds who bound it. What only follows, and is not open to all, keeps its address to itself.

    `state` is `live`, `pending` (the platform is still to be asked), `off` or `ended`, by `reason`.
    """
    return {
        "id": str(binding.id),
        "conversation_id": str(binding.conversation_id),
        "surface": binding.surface,
        "kind": binding.kind.value if binding.kind else None,
        "label": binding.label,
        "url": "" if binding.followed and binding.kind is not ChannelKind.OPEN else binding.url,
        "mode": binding.mode.value,
        "state": _binding_state(binding),
        "reason": binding.ended,
        "home": not binding.followed,
        "by": names.get(binding.bound_by) if binding.bound_by else None,
        "created_at": time_json(binding.created_at),
    }


def _binding_state(binding: Binding) -> str:
    if binding.mode is BindingMode.OFF:
        return "off"
    if binding.ended:
        return "ended"
    return "live" if binding.check is BindingCheck.NONE else "pending"


async def tasks_json(uow: UnitOfWork, tasks: Sequence[Task]) -> list[JSON]:
    conversations = {each.id: each for each in await uow.conversations.of_ids([task.conversation_id for task in tasks])}
    names = await uow.users.names({task.assignee_id for task in tasks if task.assignee_id})
    return [_task_json(task, conversations[task.conversation_id], names) for task in tasks if task.conversation_id in conversations]


def conversation_json(conversation: Conversation) -> JSON:
    return {
        "id": str(conversation.id),
        "title": conversation.title,
        "task_ref": conversation.task_ref,
        "model": conversation.model,
        "visibility": conversation.visibility.value,
        "agent_status": conversation.agent_status.value,
        "agent_status_message": conversation.agent_status_message,
        "archived_at": time_json(conversation.archived_at),
        "created_at": time_json(conversation.created_at),
        "updated_at": time_json(conversation.updated_at),
    }


def _conversation_json(conversation: Conversation, extent: Extent) -> JSON:
    return {**conversation_json(conversation), "message_count": extent.messages, "last_seq": extent.last_seq}


async def task_json(uow: UnitOfWork, task: Task, conversation: Conversation) -> JSON:
    return _task_json(task, conversation, await uow.users.names([task.assignee_id] if task.assignee_id else []))


def _task_json(task: Task, conversation: Conversation, names: Mapping[UUID, str]) -> JSON:
    return {
        "id": str(task.id),
        "ref": task.ref,
        "title": task.title,
        "description": task.description,
        "status": task.status.value,
        "priority": task.priority.value,
        "assignee": names.get(task.assignee_id) if task.assignee_id else None,
        "due_at": time_json(task.due_at),
        "labels": list(task.labels),
        "conversation_id": str(task.conversation_id),
        "agent_status": conversation.agent_status.value,
        "agent_status_message": conversation.agent_status_message,
        "version": task.version,
        "created_at": time_json(task.created_at),
        "updated_at": time_json(task.updated_at),
    }


async def task_changes_json(uow: UnitOfWork, changes: Sequence[TaskChange]) -> list[JSON]:
    names = await uow.users.names({each.user_id for each in changes})
    return [
        {
            "id": str(each.id),
            "at": time_json(each.at),
            "by": names[each.user_id],
            "by_agent": each.by_agent,
            "field": each.field.value,
            "before": each.before,
            "after": each.after,
        }
        for each in changes
    ]


async def turn_json(uow: UnitOfWork, turn: Turn) -> JSON:
    """A turn as `turn_changed` tells it. `position` is the number of turns before it; `retry_at` is set while it waits for a later time."""
    return (await turns_json(uow, [turn], await uow.turns.unfinished(turn.conversation_id)))[0]


async def turns_json(uow: UnitOfWork, turns: Sequence[Turn], unfinished: Sequence[Turn]) -> list[JSON]:
    """Several turns of one conversation; `unfinished` are all in it that have not ended."""
    waits = any(turn.status is TurnStatus.QUEUED for turn in turns)
    workers = await uow.workers.alive(uow.now - WORKER_SILENT) if waits else []
    return [await _turn_json(uow, turn, unfinished, workers) for turn in turns]


async def _turn_json(uow: UnitOfWork, turn: Turn, unfinished: Sequence[Turn], workers: Sequence[WorkerInfo]) -> JSON:
    before = [other for other in unfinished if other.seq < turn.seq]
    queued = turn.status is TurnStatus.QUEUED
    payload: JSON = {
        "turn_id": str(turn.id),
        "message_id": str(turn.reply_id),
        "status": turn.status.value,
        "position": len(before),
        "retry_at": time_json(await _retry_at(uow, turn)) if queued else None,
        "failures": turn.failures,
    }
    if turn.error_code:
        payload |= {"error_code": turn.error_code, "error": turn.error}
    if queued and not any(worker.serves(turn.model) for worker in workers):
        payload["no_worker"] = True
    return payload


def ended(reply_id: str, reply: JSON) -> list[Frame]:
    """What tells that a reply has ended, from the message that it is: `llm_complete`, and where it failed `llm_error`."""
    complete = Frame(
        "llm_complete", {"message_id": reply_id, **{key: reply[key] for key in ("content", "status", "metadata", "updated_at")}}
    )
    error = reply["metadata"].get("error")
    if reply["status"] != MessageStatus.FAILED or not error:
        return [complete]
    return [complete, Frame("llm_error", {"message_id": reply_id, "error": error["message"], "error_code": error["code"]})]


def tool_call_json(call: ToolCall, message_id: UUID, approval: Approval | None, names: Mapping[UUID, str], *, turn_ended: bool) -> JSON:
    """`names` holds who decided on the approval."""
    payload: JSON = {
        "message_id": str(message_id),
        "step": call.step,
        "index": call.index,
        "name": call.name,
        "arguments": call.arguments,
        "state": _shown_state(call, approval, turn_ended=turn_ended).value,
    }
    if call.result:
        payload["result"] = call.result
    if approval:
        payload |= {"approval_id": str(approval.id), "approval": approval.status.value}
        if approval.decided_by and approval.decided_by in names:
            payload["decided_by"] = names[approval.decided_by]
    return payload


def deleted(event: ConversationDeleted | TaskDeleted) -> Frame:
    match event:
        case ConversationDeleted():
            return Frame("conversation_deleted", {"id": str(event.conversation_id)})
        case TaskDeleted():
            return Frame("task_deleted", {"id": str(event.task_id), "ref": event.ref})


def time_json(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z") if moment else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Around:
    """What belongs to the messages of one page."""

    turns: Mapping[UUID, Turn]
    calls: Sequence[ToolCall]
    approvals: Mapping[UUID, Approval | None]
    files: Sequence[Attachment]
    names: Mapping[UUID, str]


def _message_json(message: Message, around: _Around) -> JSON:
    turn = around.turns.get(message.turn_id) if message.turn_id and message.role is Role.ASSISTANT else None
    payload: dict[str, Any] = {
        "id": str(message.id),
        "conversation_id": str(message.conversation_id),
        "turn_id": str(message.turn_id) if message.turn_id else None,
        "seq": message.seq,
        "role": message.role.value,
        "content": message.content,
        "status": message.status.value,
        "author": around.names.get(message.author_id) if message.author_id else None,
        "source": message.source,
        "metadata": message.metadata,
        "tool_calls": _tool_calls_json(message, turn, around) if turn else [],
        "attachments": [_attachment_json(each) for each in around.files if each.message_id == message.id],
        "created_at": time_json(message.created_at),
        "updated_at": time_json(message.updated_at),
        "edited_at": time_json(message.edited_at),
        "deleted_at": time_json(message.deleted_at),
    }
    return payload if turn is None else {**payload, "stream_no": turn.stream_no}


def _tool_calls_json(message: Message, turn: Turn, around: _Around) -> list[JSON]:
    return [
        tool_call_json(
            call,
            message.id,
            around.approvals.get(call.approval_id) if call.approval_id else None,
            around.names,
            turn_ended=turn.status.finished,
        )
        for call in around.calls
        if call.turn_id == turn.id
    ]


def _attachment_json(attachment: Attachment) -> JSON:
    return {"id": str(attachment.id), "name": attachment.name, "media_type": attachment.media_type, "size": attachment.size}


def _shown_state(call: ToolCall, approval: Approval | None, *, turn_ended: bool) -> ToolCallState:
    if call.state in (ToolCallState.DONE, ToolCallState.FAILED):
        return call.state
    if turn_ended:
        return ToolCallState.FAILED
    match approval.status if approval else None:
        case ApprovalStatus.OPEN:
            return ToolCallState.AWAITING_APPROVAL
        case ApprovalStatus.DENIED | ApprovalStatus.EXPIRED:
            return ToolCallState.FAILED
        case _:
            return ToolCallState.RUNNING


async def _retry_at(uow: UnitOfWork, turn: Turn) -> datetime | None:
    pause = await uow.pauses.get(turn.model)
    at = max(turn.run_after, pause.paused_until) if pause else turn.run_after
    return at if at > uow.now else None
