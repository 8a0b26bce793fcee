"""The live events: what changed, told in ids.

They never hold a secret, nor what somebody wrote, `TextDelta` excepted. State events are stored in the transaction that they
report; `TextDelta` is ephemeral.
"""

from dataclasses import dataclass
from typing import Any, get_args
from uuid import UUID

from core.models import TurnStatus

Readers = tuple[UUID, ...] | None
"""Who could see what is not there any more, and so may learn that it is gone; None where that was everybody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageAdded:
    conversation_id: UUID
    message_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageChanged:
    """Its status, text, metadata or deletion changed."""

    conversation_id: UUID
    message_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnChanged:
    conversation_id: UUID
    turn_id: UUID
    status: TurnStatus
    lease_token: int
    """Leases with a lower token are lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallChanged:
    conversation_id: UUID
    turn_id: UUID
    step: int
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalChanged:
    conversation_id: UUID
    turn_id: UUID
    approval_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStatusChanged:
    conversation_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationChanged:
    """It was made, archived or brought back, or its title, model, task, members or a place where it is shown changed."""

    conversation_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationRead:
    """A user has read it further than before: up to the message at `seq`. Nobody else is told."""

    conversation_id: UUID
    user_id: UUID
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationDeleted:
    conversation_id: UUID
    readers: Readers


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskChanged:
    conversation_id: UUID
    task_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDeleted:
    conversation_id: UUID
    task_id: UUID
    ref: str
    readers: Readers


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDelta:
    """A piece of a reply that is being written. `offset` counts UTF-16 code units from the reply's start."""

    conversation_id: UUID
    message_id: UUID
    stream_no: int
    offset: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lagged:
    """A subscriber could not keep up, or the feed was interrupted: events are missing, read the state again."""


StateEvent = (
    MessageAdded
    | MessageChanged
    | TurnChanged
    | ToolCallChanged
    | ApprovalChanged
    | AgentStatusChanged
    | ConversationChanged
    | ConversationRead
    | ConversationDeleted
    | TaskChanged
    | TaskDeleted
)
Event = StateEvent | TextDelta | Lagged

_STATE_EVENTS = {kind.__name__: kind for kind in get_args(StateEvent)}


def packed(event: StateEvent) -> dict[str, Any]:
    """Its fields, with its name under `event`. Written as JSON it is flat: ids are strings, `readers` is a list of them or null."""
    return {"event": type(event).__name__, **{name: getattr(event, name) for name in event.__slots__}}


def unpacked(stored: dict[str, Any]) -> StateEvent:
    """The reverse of `packed`, read from JSON."""
    fields = dict(stored)
    kind = _STATE_EVENTS[fields.pop("event")]
    for name, value in fields.items():
        if name.endswith("_id"):
            fields[name] = UUID(value)
        elif name == "status":
            fields[name] = TurnStatus(value)
        elif name == "readers" and value is not None:
            fields[name] = tuple(UUID(each) for each in value)
    event: StateEvent = kind(**fields)
    return event
