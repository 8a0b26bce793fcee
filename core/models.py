"""What there is: users, projects, tasks, conversations, messages, and the turns that answer them. Plain frozen values."""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

JSON = dict[str, Any]


class TaskStatus(StrEnum):
    TODO = "todo"
    IN_PROGRESS = "in_progress"
    IN_REVIEW = "in_review"
    DONE = "done"
    CANCELLED = "cancelled"


class Priority(StrEnum):
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    URGENT = "urgent"


class Visibility(StrEnum):
    """Who may read a conversation: its owner and members, or every user."""

    PRIVATE = "private"
    SHARED = "shared"


class AgentStatus(StrEnum):
    IDLE = "idle"
    THINKING = "thinking"
    EXECUTING = "executing"
    WAITING_FOR_USER = "waiting_for_user"
    ERROR = "error"

    @property
    def style(self) -> "StatusStyle":
        """How every surface shows this status."""
        return _STATUS_STYLES[self]


@dataclass(frozen=True, slots=True)
class StatusStyle:
    label: str
    icon: str
    color: str
    animated: bool


_STATUS_STYLES = {
    AgentStatus.IDLE: StatusStyle("Idle", "○", "gray", False),
    AgentStatus.THINKING: StatusStyle("Thinking", "◐", "blue", True),
    AgentStatus.EXECUTING: StatusStyle("Executing", "◉", "green", True),
    AgentStatus.WAITING_FOR_USER: StatusStyle("Waiting", "◎", "yellow", False),
    AgentStatus.ERROR: StatusStyle("Error", "✕", "red", False),
}


class Role(StrEnum):
    USER = "user"
    ASSISTANT = "assistant"
    SYSTEM = "system"


class MessageStatus(StrEnum):
    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        return self in (MessageStatus.COMPLETED, MessageStatus.FAILED, MessageStatus.CANCELLED)


class TurnStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        return self in (TurnStatus.SUCCEEDED, TurnStatus.FAILED, TurnStatus.CANCELLED)


class ToolCallState(StrEnum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    AWAITING_APPROVAL = "awaiting_approval"


class ApprovalStatus(StrEnum):
    OPEN = "open"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"


class Decision(StrEnum):
    APPROVE = "approve"
    DENY = "deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    id: UUID
    name: str
    admin: bool
    created_at: datetime
    disabled_at: datetime | None = None
    """Since then nobody can act as this user."""
    password_set_at: datetime | None = None
    """When the present password was set; None without one. What signed in by an older password is not accepted any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A browser that is signed in. Only the sha256 of its cookie is stored."""

    id: UUID
    user_id: UUID
    created_at: datetime
    expires_at: datetime


class LinkPurpose(StrEnum):
    """What a one-time link is good for."""

    SIGN_IN = "sign_in"
    SET_PASSWORD = "set_password"  # noqa: S105  # a purpose, not a password
    LINK_ACCOUNT = "link_account"
    """Makes the chat account of the provisional user whose link it is that of whoever confirms it."""
    ACCOUNT_CODE = "account_code"
    """Makes the chat account that types it that of the user whose code it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A link that works once. Only the sha256 of its code is stored."""

    id: UUID
    user_id: UUID
    purpose: LinkPurpose
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInAttempt:
    """Counted against guessing. Both texts are sha256: what is typed as a name is now and then a password."""

    id: UUID
    address: str
    """Where it came from."""
    who: str
    """The address together with the name that was tried."""
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A personal access token. Only its sha256 is stored."""

    id: UUID
    user_id: UUID
    name: str
    scopes: frozenset[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    id: UUID
    key: str
    name: str
    instructions: str
    model: str | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    id: UUID
    ref: str
    project_id: UUID
    conversation_id: UUID
    title: str
    description: str
    status: TaskStatus
    priority: Priority
    assignee_id: UUID | None
    creator_id: UUID
    due_at: datetime | None
    labels: tuple[str, ...]
    version: int
    created_at: datetime
    updated_at: datetime


class TaskField(StrEnum):
    """What of a task can change, as its history names it; `created` is its beginning."""

    CREATED = "created"
    TITLE = "title"
    DESCRIPTION = "description"
    STATUS = "status"
    PRIORITY = "priority"
    ASSIGNEE = "assignee"
    DUE_AT = "due_at"
    LABELS = "labels"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskChange:
    """One field of a task that somebody changed."""

    id: UUID
    task_id: UUID
    user_id: UUID
    by_agent: bool
    """Whether the agent did it for that user."""
    field: TaskField
    before: Any
    """As public JSON has the field: an assignee by name, a time as text, labels as a list. None where there was nothing."""
    after: Any
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    id: UUID
    task_id: UUID | None
    task_ref: str | None
    project_id: UUID
    project_model: str | None
    owner_id: UUID
    visibility: Visibility
    title: str
    model: str | None
    agent_status: AgentStatus
    agent_status_message: str
    next_seq: int
    window_from_seq: int
    """The model is shown messages from this seq on."""
    archived_at: datetime | None = None
    """Since then it is left out of lists, until somebody writes in it."""
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    id: UUID
    conversation_id: UUID
    turn_id: UUID | None
    seq: int
    role: Role
    author_id: UUID | None
    content: str
    status: MessageStatus
    revision: int
    metadata: JSON
    source: str
    created_at: datetime
    updated_at: datetime
    edited_at: datetime | None = None
    deleted_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    id: UUID
    message_id: UUID
    name: str
    media_type: str
    size: int
    """Bytes."""
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One user message to be answered, and itself the queue's row."""

    id: UUID
    conversation_id: UUID
    seq: int
    """The seq of its user message: turns of a conversation are answered in this order."""
    user_message_id: UUID
    reply_id: UUID
    author_id: UUID
    model: str
    status: TurnStatus
    failures: int
    """Attempts that failed since the last stored Step."""
    rescues: int
    """Leases that expired since the last stored Step."""
    stream_no: int
    """Raised before every model call; a delta of a lower number is stale."""
    first_step: int
    """Steps before this number belong to attempts before a person's retry and do not count as rounds."""
    run_after: datetime
    lease_owner: UUID | None
    lease_token: int
    lease_until: datetime | None
    error_code: str | None
    error: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    asked_model: str | None = None
    """The model that was asked for, once a fallback was tried: equal to `model` when none of them could answer either."""
    fallback_reason: str | None = None
    """Why it did not answer."""

    @property
    def fallback_from(self) -> str | None:
        """The model that should have answered, where another one does."""
        return None if self.asked_model == self.model else self.asked_model


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRequest:
    """A tool call as the model asked for it. `call_id` is the provider's and need not be unique."""

    call_id: str
    name: str
    arguments: str
    """JSON text, as it came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUsage:
    """What one model round consumed."""

    tokens_in: int
    """Prompt tokens, cached ones included."""
    tokens_out: int
    tokens_cached: int
    cost: Decimal | None
    """US dollars; None where the price is unknown."""
    estimated: bool
    """True where the provider reported no usage and the tokens were counted here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One finished model round of a turn."""

    turn_id: UUID
    number: int
    """From 0."""
    content: str
    tool_requests: tuple[ToolRequest, ...]
    finish_reason: str
    model: str
    usage: TokenUsage
    thinking: tuple[JSON, ...] = ()
    """The provider's signed thinking blocks, verbatim; to be sent back to the same provider only."""
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """The outcome of a tool request, at its place in the turn."""

    turn_id: UUID
    step: int
    index: int
    name: str
    arguments: JSON
    state: ToolCallState
    result: str
    approval_id: UUID | None = None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    id: UUID
    turn_id: UUID
    conversation_id: UUID
    step: int
    index: int
    status: ApprovalStatus
    decided_by: UUID | None
    created_at: datetime
    expires_at: datetime
    decided_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What the model is told of the beginning of a long conversation, instead of that beginning."""

    conversation_id: UUID
    covers_to: int
    """The seq of the last message that it tells of; it tells of all before, too."""
    text: str
    model: str
    tokens: int
    """Of the text."""
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageEntry:
    """A row of the usage ledger. It outlives what it names."""

    id: UUID
    user_id: UUID
    conversation_id: UUID
    task_id: UUID | None
    project_id: UUID
    model: str
    usage: TokenUsage
    at: datetime


TASK_KEYS = "task"
"""The source of keys with which tasks are made. They do not count against the rate of messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxKey:
    """Names one inbound event, so that the same event is taken in once.

    `scope` is the app, team or channel of a platform, or the user: two users' equal keys never meet.
    """

    source: str
    scope: str
    event_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxEntry:
    key: InboxKey
    body_sha256: str
    result: JSON = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """What a post made. `reply_id` and `turn_id` are None for a message that asks for no answer."""

    conversation_id: UUID
    message_id: UUID
    reply_id: UUID | None
    turn_id: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    id: UUID
    host: str
    pid: int
    concurrency: int
    unserved: frozenset[str]
    """The prefixes of the models whose keys this worker lacks."""
    started_at: datetime
    heartbeat_at: datetime

    def serves(self, model: str) -> bool:
        return model.partition("/")[0] not in self.unserved


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPause:
    """A model that turned everybody away. After `paused_until` one turn probes it."""

    model: str
    paused_since: datetime
    paused_until: datetime
    pauses: int
    """In a row, without an answer."""
    at_once: int = 1
    """How many turns may ask it at once when the pause is over; doubled by each answer, until it is asked freely again."""
    probe_turn_id: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCall:
    """A call of a model that has a limit, as it is counted."""

    id: UUID
    model: str
    turn_id: UUID
    lease_token: int
    at: datetime
    ended_at: datetime | None = None


# --- chat platforms ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What a bot is signed in to: a Slack workspace, or a Discord application. One process at a time sends everything in it."""

    surface: str
    """The surface's name: `slack`."""
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where on a chat platform a conversation is shown."""

    account: Account
    channel: str
    thread: str = ""
    """The thread's id; empty for the channel itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A person's account on a chat platform, and who they are here."""

    surface: str
    account: str
    external_id: str
    user_id: UUID
    name: str
    """As the platform showed it when they first came."""
    created_at: datetime
    linked_at: datetime | None = None
    """When it became this user's; None where it made the user."""


class ChannelKind(StrEnum):
    OPEN = "open"
    """Everybody of the account may read it."""
    PRIVATE = "private"
    DIRECT = "direct"
    """One person with the bot."""

    @property
    def visibility(self) -> Visibility:
        """Of what is said there."""
        return Visibility.SHARED if self is ChannelKind.OPEN else Visibility.PRIVATE


class BindingMode(StrEnum):
    """Whether what is said at a place comes into the conversation, and what is said in the conversation goes out to the place."""

    TWO_WAY = "two_way"
    WATCH = "watch"
    OFF = "off"


class BindingCheck(StrEnum):
    """What the platform is still to be asked before anything goes out to a place or comes in from it."""

    NONE = ""
    PLACE = "place"
    """What the place is, and whether it is there at all."""
    PERSON = "person"
    """That, and whether who bound it reads there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A conversation that is shown at a place. A place shows one conversation."""

    id: UUID
    conversation_id: UUID
    surface: str
    account: str
    channel: str
    thread: str
    opened: bool
    """False until the platform's thread was made; `thread` then is the message on which it is to be made, or a name of ours."""
    mode: BindingMode
    cursor: int
    """Every message up to this seq was delivered in its final form."""
    ended: str | None
    """Why nothing is delivered any more: a reason's code, such as `is_archived`."""
    status_shown: bool
    """Whether the platform may be showing that the agent works: to be taken back, whatever happens."""
    arranged: str = ""
    """How a thread that was made for it was last named, and whether it was archived; TO_ARRANGE; NO_THREAD. Empty for other threads."""
    kind: ChannelKind | None = None
    """Of the place; None where it is not known yet."""
    label: str = ""
    """The name of an open place, `#ops`. That of another never leaves its platform."""
    url: str = ""
    """Of the place on its platform; empty until it is known."""
    followed: bool = False
    """Whether somebody had a conversation shown there that goes on elsewhere; False where it was begun, its home."""
    bound_by: UUID | None = None
    check: BindingCheck = BindingCheck.NONE
    until: int | None = None
    """Where the mode is off: the seq up to which is still delivered, of the notice that says so. None where nothing more is."""
    created_at: datetime
    updated_at: datetime

    @property
    def is_former(self) -> bool:
        """Whether its place shows something else by now."""
        return self.thread.startswith(FORMER)

    @property
    def is_on(self) -> bool:
        """Whether what is said from now on is shown there, or will be once the place was checked."""
        return self.ended is None and self.mode is not BindingMode.OFF

    @property
    def is_delivered_to(self) -> bool:
        """Whether anything may still be sent there."""
        return self.is_on or (self.ended is None and self.until is not None and self.cursor < self.until)

    @property
    def takes_in(self) -> bool:
        """Whether what is said there comes into the conversation."""
        return self.is_on and self.mode is BindingMode.TWO_WAY and self.check is BindingCheck.NONE

    @property
    def root(self) -> str:
        """The remote message on which the thread is to be made. Empty where it was made, and where it will be on our first message."""
        return "" if self.opened or self.thread.startswith(NEW_THREAD) else self.thread

    @property
    def place(self) -> Place:
        account = Account(surface=self.surface, id=self.account)
        return Place(account=account, channel=self.channel, thread=self.thread if self.opened else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownPlace:
    """An open channel in which a conversation is shown already."""

    account: Account
    channel: str
    label: str


NOT_A_READER = "not_a_reader"
PLACE_TAKEN = "place_taken"
NOT_SERVED = "not_served"
"""Why we end a binding ourselves, beside the platforms' own reasons."""
NEW_THREAD = "new-"
"""What the names begin with that a thread has before the message was posted on which it is to be made. No platform gives such an id."""
FORMER = "was-"
"""What the thread's name begins with where the place shows something else by now. The row tells whose the messages are that stand there."""
NO_THREAD = "none"
"""No thread can be made there, as far as is known: it is not tried again before something is said."""
TO_ARRANGE = "?"
"""The thread is to be named or archived anew."""
CARD = "card"
"""The item of a delivery that is the card of a conversation's task. Its revision is the task's version."""
INTRO = "intro"
"""The item of the delivery that tells what went before, where something is followed. Its revision is the seq of the last such message."""


class DeliveryState(StrEnum):
    THEIRS = "theirs"
    """It came from this place."""
    SENDING = "sending"
    """Whether the platform has it is not known."""
    LIVE = "live"
    """It is there and will be changed."""
    CLOSED = "closed"
    """It is there, and the text goes on in the next part."""
    FINAL = "final"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One remote message, which is a part of what a binding shows: of one of our messages, or of its task's card."""

    binding_id: UUID
    item: str
    """The message's id, or CARD."""
    part: int
    """From 0."""
    message_id: UUID | None
    revision: int
    """Of the message, or the task's version, as it was last sent in its final form; 0 before."""
    remote_id: str | None
    thread: str = ""
    """The thread that the remote message stands in; empty for the channel's top."""
    nonce: UUID
    """Sent along, so that a post whose outcome is unknown can be looked up."""
    state: DeliveryState
    end: int | None
    """Where a closed part ends in the message's text, in characters."""
    shown: str
    """The sha256 of what was last sent in its final or closed form; empty before."""
    sent_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundEvent:
    """What a chat platform told, stored before it is acknowledged, until it was taken in. Kept without its payload for a week."""

    id: UUID
    surface: str
    account: str
    key: str
    """The same event, told again, has the same key."""
    lane: str
    """Events of one lane are taken in one after another, in order."""
    payload: JSON
    attempts: int
    run_after: datetime
    waits: bool
    """Whether it waits for an event that it overtook. Those behind it in its lane need not wait for it."""
    received_at: datetime
    done_at: datetime | None = None
    error: str | None = None
    """Why it could not be taken in: a code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountLease:
    """The right to act for an account on its platform, until somebody else's token is higher."""

    surface: str
    account: str
    owner: UUID
    token: int
    until: datetime
