"""What the core needs of the world, as Protocols that others implement: a model, a database, a clock."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from core.access import Principal
from core.events import StateEvent
from core.models import (
    JSON,
    Account,
    AccountLease,
    AgentStatus,
    Approval,
    ApprovalStatus,
    Attachment,
    Binding,
    Conversation,
    Delivery,
    Identity,
    InboundEvent,
    InboxEntry,
    KnownPlace,
    Link,
    LinkPurpose,
    Message,
    MessageStatus,
    ModelCall,
    ModelPause,
    Place,
    Project,
    Session,
    SignInAttempt,
    Step,
    Summary,
    Task,
    TaskChange,
    Token,
    TokenUsage,
    ToolCall,
    ToolRequest,
    Turn,
    TurnStatus,
    UsageEntry,
    User,
    WorkerInfo,
)


class Clock(Protocol):
    def now(self) -> datetime:
        """The time in UTC, aware."""
        ...


class PasswordHasher(Protocol):
    """Slow on purpose, so that a stolen hash does not give the password away. Both raise RateLimited when too many wait already."""

    async def hash(self, password: str) -> str: ...
    async def verify(self, password: str, hashed: str | None) -> bool:
        """None is the hash of somebody who has no password, or does not exist: False, after as long a time as any other takes."""
        ...


# --- the model ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """One model round. `messages` and `tools` are in OpenAI's chat format, which litellm translates for every provider."""

    model: str
    messages: Sequence[JSON]
    tools: Sequence[JSON] = ()
    tools_allowed: bool = True
    """False asks for text although the tools are declared (which keeps the cached prefix)."""


@dataclass(frozen=True, slots=True)
class TextChunk:
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundEnd:
    """Always the last item of a stream that ended well."""

    text: str
    """All of the round's text, cleaned."""
    tool_requests: tuple[ToolRequest, ...]
    finish_reason: str
    """`stop`, `tool_calls` or `length`."""
    usage: TokenUsage
    thinking: tuple[JSON, ...] = ()


class ChatModel(Protocol):
    """Any language model. One call is one request to the provider: it never retries by itself."""

    def stream(self, request: ModelRequest) -> AsyncGenerator[TextChunk | RoundEnd, None]:
        """Text as it comes, then one `RoundEnd`; raises ModelError, also for a stream that was cut short or empty.

        Close it (`contextlib.aclosing`) and the connection to the provider is closed.
        """
        ...

    async def count_tokens(self, request: ModelRequest) -> int:
        """Tokens of the request as the model would count them, approximately."""
        ...

    async def context_window(self, model: str) -> int:
        """Tokens that fit into one request, reply included."""
        ...

    async def image_types(self, model: str) -> frozenset[str]:
        """Media types of the images that it can see; none where it sees none, or where that is not known."""
        ...


# --- storage -----------------------------------------------------------------------------------------------------


class Users(Protocol):
    async def add(self, user: User) -> None: ...
    async def get(self, user_id: UUID) -> User | None: ...
    async def by_name(self, name: str) -> User | None: ...
    async def all(self) -> list[User]: ...
    async def page(self, query: str, *, after: UUID | None, limit: int) -> list[User]:
        """Those who are not disabled and whose name contains `query`, ignoring case; by id, beginning behind `after`."""
        ...

    async def everybody(self, query: str, *, after: UUID | None, limit: int) -> list[User]:
        """Like `page`, with those who are disabled."""
        ...

    async def names(self, user_ids: Collection[UUID]) -> dict[UUID, str]: ...
    async def hold(self, user_id: UUID) -> User | None:
        """Nobody else changes this user until the transaction ends."""
        ...

    async def is_busy(self, user_id: UUID) -> bool:
        """Whether a turn of theirs has not ended."""
        ...

    async def readable_by(self, user_id: UUID, *, limit: int) -> list[UUID]:
        """The conversations that they own or are a member of, the last used first."""
        ...

    async def merge(self, user_id: UUID, into: UUID) -> None:
        """What the one has, said and did is the other's, and the one is gone, with their ways to sign in.

        Raises Conflict where they do something at this moment.
        """
        ...

    async def hold_admins(self) -> list[User]:
        """All admins, disabled ones too; nobody else changes them until the transaction ends."""
        ...

    async def password_hash(self, user_id: UUID) -> str | None: ...
    async def set_password(self, user_id: UUID, hashed: str, at: datetime) -> None: ...
    async def set_disabled(self, user_id: UUID, at: datetime | None) -> None: ...
    async def set_admin(self, user_id: UUID, admin: bool) -> None: ...


class Sessions(Protocol):
    async def add(self, session: Session, sha256: str) -> None: ...
    async def by_sha256(self, sha256: str) -> Session | None: ...
    async def remove(self, sha256: str) -> None: ...
    async def remove_of(self, user_id: UUID) -> None: ...


class Links(Protocol):
    async def add(self, link: Link, sha256: str) -> None: ...
    async def by_sha256(self, sha256: str) -> Link | None: ...
    async def take(self, sha256: str, purpose: LinkPurpose) -> Link | None:
        """Removes the link and gives it to one caller only."""
        ...

    async def has_open(self, user_id: UUID, purpose: LinkPurpose) -> bool: ...
    async def remove_of(self, user_id: UUID, purpose: LinkPurpose | None = None) -> None:
        """Those for one purpose, or all."""
        ...


class SignInAttempts(Protocol):
    async def lock(self, address: str) -> None:
        """Lets nobody else count the attempts from this address until the transaction ends."""
        ...

    async def nth_last_from(self, address: str, n: int) -> datetime | None:
        """When the n-th last attempt was made; 1 is the last."""
        ...

    async def nth_last_of(self, who: str, n: int) -> datetime | None: ...
    async def add(self, attempt: SignInAttempt) -> None: ...
    async def forget(self, who: str) -> None: ...


class Tokens(Protocol):
    async def add(self, token: Token, sha256: str) -> None: ...
    async def by_sha256(self, sha256: str) -> Token | None: ...
    async def of_user(self, user_id: UUID) -> list[Token]: ...
    async def revoke(self, token_id: UUID, at: datetime) -> None: ...


class Projects(Protocol):
    async def add(self, project: Project) -> None: ...
    async def get(self, project_id: UUID) -> Project | None: ...
    async def by_key(self, key: str) -> Project | None: ...
    async def all(self) -> list[Project]: ...
    async def update(self, project_id: UUID, **changes: Any) -> None: ...
    async def next_task_number(self, project_id: UUID) -> int:
        """A number that no task of this project had or will have."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    statuses: frozenset[str] = frozenset()
    """Empty: any."""
    query: str = ""
    """In ref, title or description, ignoring case."""
    assignee_id: UUID | None = None
    updated_since: datetime | None = None


class ChangedTask(NamedTuple):
    """A place in the list of tasks that is ordered by their last change."""

    updated_at: datetime
    task_id: UUID


class Tasks(Protocol):
    async def add(self, task: Task) -> None: ...
    async def get(self, task_id: UUID, principal: Principal) -> Task | None: ...
    async def by_ref(self, ref: str, principal: Principal) -> Task | None: ...
    async def of_conversation(self, conversation_id: UUID) -> Task | None: ...
    async def of_conversations(self, conversation_ids: Collection[UUID]) -> list[Task]: ...
    async def page(self, principal: Principal, where: TaskFilter, *, after: UUID | None, limit: int) -> list[Task]:
        """Newest first, beginning behind the task `after`."""
        ...

    async def last_changed(self, principal: Principal, where: TaskFilter, *, after: ChangedTask | None, limit: int) -> list[Task]:
        """The last changed first, beginning behind the task `after`."""
        ...

    async def count(self, principal: Principal, where: TaskFilter, *, at_most: int | None = None) -> int:
        """`at_most` where there are more; counting ends there."""
        ...

    async def update(self, task_id: UUID, version: int, **changes: Any) -> Task | None:
        """The changed task with its version raised, or None where `version` is not its version any more."""
        ...

    async def delete(self, task_id: UUID) -> None:
        """Removes the task and its conversation with all that hangs on it."""
        ...


class TaskChanges(Protocol):
    """The history of tasks. It goes with its task."""

    async def add(self, *changes: TaskChange) -> None: ...
    async def page(self, task_id: UUID, *, before: UUID | None, limit: int) -> list[TaskChange]:
        """The newest first, beginning behind the change `before`."""
        ...


class Conversations(Protocol):
    async def add(self, conversation: Conversation) -> None: ...
    async def get(self, conversation_id: UUID, principal: Principal) -> Conversation | None: ...
    async def find(self, conversation_id: UUID) -> Conversation | None:
        """Without asking who wants it: for the worker."""
        ...

    async def of_ids(self, conversation_ids: Collection[UUID]) -> list[Conversation]:
        """Without asking who wants them; in any order."""
        ...

    async def readable(self, conversation_ids: Collection[UUID], principal: Principal) -> list[Conversation]:
        """Those of them that the principal may read; in any order."""
        ...

    async def page(self, principal: Principal, *, archived: bool = False, limit: int, offset: int) -> list[Conversation]:
        """The most recently used first: the archived ones, or all others."""
        ...

    async def count(self, principal: Principal, *, archived: bool = False) -> int: ...
    async def search(self, principal: Principal, query: str, *, limit: int) -> list[Conversation]:
        """Those with every word of `query` in their title or their task's ref, ignoring case: the one with just this ref, then the most
        recently used first; archived ones, too."""
        ...

    async def active(self, principal: Principal, *, limit: int) -> list[Conversation]:
        """Those that are not archived and whose agent is not idle, the last changed first."""
        ...

    async def agent_statuses(self, conversation_ids: Collection[UUID]) -> dict[UUID, AgentStatus]:
        """Without asking who wants them; those whose agent is idle are missing."""
        ...

    async def update(self, conversation_id: UUID, **changes: Any) -> None: ...
    async def say(self, messages: Mapping[UUID, str], status: AgentStatus) -> None:
        """Sets the agent's status and its message in several conversations."""
        ...

    async def take_seqs(self, conversation_id: UUID, number: int, **changes: Any) -> int:
        """Reserves `number` consecutive seqs and gives the first. Holds the conversation's row until the transaction ends."""
        ...

    async def add_member(self, conversation_id: UUID, user_id: UUID) -> None: ...
    async def members(self, conversation_id: UUID) -> frozenset[UUID]: ...
    async def members_of(self, conversation_ids: Collection[UUID]) -> dict[UUID, frozenset[UUID]]:
        """By conversation; those without members are missing."""
        ...

    async def delete(self, conversation_id: UUID) -> None: ...
    async def unused_since(self, moment: datetime, *, after: UUID | None, limit: int) -> list[Conversation]:
        """Those in which nothing happened or changed since, without a task or with a finished one, and without unfinished turns.

        By id, beginning behind `after`; held until the transaction ends.
        """
        ...

    async def count_unused_since(self, moment: datetime) -> int: ...


class ReadMarks(Protocol):
    """How far people have read. A mark goes with its conversation."""

    async def advance(self, conversation_id: UUID, user_id: UUID, seq: int) -> bool:
        """Notes that this user has read up to `seq`; False where they had read as far before, and nothing changed."""
        ...

    async def set_back(self, conversation_id: UUID, seq: int) -> list[UUID]:
        """Nobody has read further than `seq` any more. Gives whose marks were further."""
        ...

    async def of_user(self, user_id: UUID, conversation_ids: Collection[UUID]) -> dict[UUID, int]:
        """By conversation; those that this user never opened are missing."""
        ...


class Extent(NamedTuple):
    """How much was said in a conversation, deleted messages left out."""

    messages: int
    last_seq: int
    """Of the newest message that is finished, as are all replies before it; notices do not count. 0 without one."""


class Messages(Protocol):
    async def add(self, *messages: Message) -> None: ...
    async def get(self, message_id: UUID) -> Message | None: ...
    async def of_ids(self, message_ids: Collection[UUID]) -> list[Message]:
        """In any order."""
        ...

    async def update(self, message_id: UUID, **changes: Any) -> None:
        """Raises the revision."""
        ...

    async def set_status(self, message_ids: Collection[UUID], status: MessageStatus) -> None:
        """Raises the revisions."""
        ...

    async def complete(self, message_id: UUID, reply_id: UUID, content: str, metadata: JSON) -> None:
        """Sets both to completed, and what the reply says. Raises the revisions."""
        ...

    async def page(self, conversation_id: UUID, *, before: int | None = None, limit: int) -> list[Message]:
        """The last `limit` messages below the seq `before`, ascending."""
        ...

    async def since(self, conversation_id: UUID, seq: int, *, limit: int | None = None) -> list[Message]:
        """All from `seq` on, or the first `limit` of them, ascending."""
        ...

    async def extents(self, conversation_ids: Collection[UUID]) -> dict[UUID, Extent]:
        """By conversation."""
        ...

    async def search(self, principal: Principal, query: str, *, limit: int) -> list[Message]:
        """Those with all the words of `query`, ignoring case; newest first, deleted ones left out."""
        ...

    async def save_drafts(self, drafts: "Iterable[Draft]") -> "list[Draft]":
        """Writes the text of replies that are still being streamed, where the lease and the stream are still the newest.

        Gives those that were written; one whose turn somebody holds just now is not.
        """
        ...


class Summaries(Protocol):
    async def add(self, summary: Summary) -> None: ...
    async def latest(self, conversation_id: UUID, *, upto: int | None = None) -> Summary | None:
        """The one that covers most; of those that tell of nothing behind the seq `upto`."""
        ...

    async def discard(self, conversation_id: UUID, seq: int) -> bool:
        """Removes those that tell of the message at `seq`; False where there was none."""
        ...


class Attachments(Protocol):
    async def add(self, attachment: Attachment, data: bytes) -> None: ...
    async def get(self, attachment_id: UUID) -> Attachment | None: ...
    async def data(self, attachment_id: UUID) -> bytes: ...
    async def head(self, attachment_id: UUID, size: int) -> bytes:
        """Its first `size` bytes."""
        ...

    async def of_messages(self, message_ids: Collection[UUID]) -> list[Attachment]: ...
    async def remove_of_message(self, message_id: UUID) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to write for a turn, until somebody else's token is higher."""

    turn_id: UUID
    token: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    lease: Lease
    reply_id: UUID
    stream_no: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """Whose turns a worker must leave alone for now."""

    models: frozenset[str] = frozenset()
    prefixes: frozenset[str] = frozenset()
    """Of models that only other workers can ask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueState:
    numbers: Mapping[TurnStatus, int]
    """Of the turns that have not ended; a status that none has is missing."""
    oldest_queued_at: datetime | None
    """When the oldest queued turn was posted."""


class TurnQueue(Protocol):
    """The turns, and the queue that they are."""

    async def add(self, turn: Turn) -> None: ...
    async def get(self, turn_id: UUID) -> Turn | None: ...
    async def lock(self, turn_id: UUID) -> Turn | None:
        """The turn, held until the transaction ends."""
        ...

    async def update(self, turn_id: UUID, **changes: Any) -> None: ...
    async def claim(
        self, worker_id: UUID, *, now: datetime, lease_until: datetime, suspects: bool, limit: int, closed: Closed
    ) -> list[Turn]:
        """Takes the next turns that may run, `limit` at most: due, first in their conversation, their model not closed; fewest running
        turns of their author first, then oldest. `suspects` takes only turns that were rescued twice, otherwise only others.
        Raises their `stream_no`."""
        ...

    async def fence(self, lease: Lease) -> Turn:
        """The turn, held until the transaction ends; raises LeaseLost unless it runs under this lease."""
        ...

    async def extend(self, leases: Collection[Lease], lease_until: datetime) -> frozenset[UUID]:
        """Extends the leases that still hold and gives their turns."""
        ...

    async def has_expired(self, now: datetime) -> bool: ...
    async def expired(self, now: datetime) -> list[Turn]:
        """Running turns whose lease ran out, held until the transaction ends."""
        ...

    async def unfinished(self, conversation_id: UUID) -> list[Turn]:
        """In the order in which they will be answered."""
        ...

    async def last(self, conversation_id: UUID) -> Turn | None: ...
    async def of_ids(self, turn_ids: Collection[UUID]) -> list[Turn]: ...
    async def open_count(self) -> int:
        """Queued and running turns, those of everybody."""
        ...

    async def state(self) -> QueueState: ...
    async def page(self, status: TurnStatus, *, after: UUID | None, limit: int) -> list[Turn]:
        """Those that are queued, running, waiting or failed, as `status` says: the newest first, beginning behind the turn `after`."""
        ...

    async def failed_since(self, moment: datetime) -> int: ...
    async def of_worker(self, worker_id: UUID) -> list[Turn]:
        """The turns that run under this worker's leases, held until the transaction ends."""
        ...

    async def has_suspect(self, now: datetime) -> bool: ...
    async def due(self, model: str, now: datetime, *, limit: int) -> list[Turn]:
        """The oldest queued turns of this model that could be claimed if it took any, held until the transaction ends."""
        ...

    async def running_by_model(self) -> dict[str, int]: ...
    async def running_by_worker(self) -> dict[UUID, int]: ...
    async def any_due(self, now: datetime) -> bool:
        """Whether a turn is queued whose time has come, claimable or not."""
        ...


class Steps(Protocol):
    async def add(self, step: Step) -> bool:
        """False where the turn has a step of this number already."""
        ...

    async def of_turns(self, turn_ids: Collection[UUID], *, plain: bool = True) -> list[Step]:
        """Ordered by turn and number. Without the `plain` ones it leaves out first rounds without tools and thinking: such a round ends its
        turn, so the reply says the same."""
        ...


class ToolCalls(Protocol):
    async def put(self, call: ToolCall) -> None:
        """Inserts it, or replaces what was noted at its place."""
        ...

    async def get(self, turn_id: UUID, step: int, index: int) -> ToolCall | None: ...
    async def of_turns(self, turn_ids: Collection[UUID]) -> list[ToolCall]:
        """Ordered by turn, step and index."""
        ...


class Approvals(Protocol):
    async def add(self, approval: Approval) -> None: ...
    async def get(self, approval_id: UUID) -> Approval | None: ...
    async def open_of_turn(self, turn_id: UUID) -> Approval | None: ...
    async def overdue(self, now: datetime) -> list[Approval]: ...
    async def close(self, approval_id: UUID, status: ApprovalStatus, by: UUID | None, at: datetime) -> bool:
        """False where it was not open any more."""
        ...


class Inbox(Protocol):
    async def add(self, entry: InboxEntry, *, user_id: UUID, at: datetime) -> InboxEntry | None:
        """Stores the entry, or gives the one that was there before."""
        ...

    async def nth_last(self, user_id: UUID, n: int, *, since: datetime) -> datetime | None:
        """When this user's n-th last message came in; 1 is the last. None where fewer came after `since`."""
        ...


class UsageSum(NamedTuple):
    """What one model consumed in one day."""

    day: date
    """In UTC."""
    model: str
    usage: TokenUsage
    """Its cost is exact to a nano-dollar, and None where any part's is."""


class Usage(Protocol):
    async def add(self, entry: UsageEntry) -> None: ...
    async def of_conversation(self, conversation_id: UUID) -> TokenUsage:
        """The sum; its cost is None where any part's is."""
        ...

    async def sums(self, since: datetime, *, user_id: UUID | None) -> list[UsageSum]:
        """Since then, of one user or of everybody; in any order."""
        ...

    async def sums_of_conversation(self, conversation_id: UUID) -> list[UsageSum]: ...


class ModelPauses(Protocol):
    async def get(self, model: str) -> ModelPause | None: ...
    async def all(self) -> list[ModelPause]: ...
    async def lock_all(self) -> list[ModelPause]:
        """All, held until the transaction ends: one probe at a time."""
        ...

    async def hold(self, model: str) -> ModelPause | None:
        """The pause, if there is one. Until the transaction ends nobody else who holds it changes it, or makes one."""
        ...

    async def put(self, pause: ModelPause) -> None: ...
    async def remove(self, model: str) -> None: ...


class ModelRequests(Protocol):
    """The calls of models that have a limit."""

    async def begin(self, request: ModelCall) -> None: ...
    async def end(self, lease: Lease, at: datetime) -> None:
        """Whatever call of this lease is open has ended."""
        ...

    async def lock(self, model: str) -> None:
        """Lets nobody else count the calls of this model until the transaction ends."""
        ...

    async def open_count(self, model: str) -> int:
        """Calls that have not ended, of turns that still run."""
        ...

    async def nth_last(self, model: str, n: int) -> datetime | None:
        """When the n-th last call began; 1 is the last."""
        ...

    async def counts(self, since: datetime) -> dict[str, int]:
        """Calls that began after `since`, by model."""
        ...


class Workers(Protocol):
    async def beat(self, worker: WorkerInfo) -> None: ...
    async def remove(self, worker_id: UUID) -> None: ...
    async def alive(self, since: datetime) -> list[WorkerInfo]: ...


class Identities(Protocol):
    async def add(self, identity: Identity) -> None:
        """Raises Conflict where the person is known already."""
        ...

    async def get(self, account: Account, external_id: str) -> Identity | None: ...
    async def of_users(self, account: Account, user_ids: Collection[UUID]) -> list[Identity]:
        """Their accounts on this platform."""
        ...

    async def of_user(self, user_id: UUID) -> list[Identity]:
        """Their accounts on all platforms, by surface, account and id."""
        ...

    async def link(self, account: Account, external_id: str, user_id: UUID, at: datetime) -> None:
        """It is this user's from now on."""
        ...

    async def remove(self, account: Account, external_id: str) -> None: ...

    async def all(self, account: Account | None = None) -> list[Identity]:
        """On one account, or on all of them."""
        ...


class Bindings(Protocol):
    async def add(self, binding: Binding) -> None:
        """Raises Conflict where the place shows a conversation already."""
        ...

    async def get(self, binding_id: UUID) -> Binding | None: ...
    async def at(self, place: Place) -> Binding | None:
        """Ended ones and those that are off, too."""
        ...

    async def of_conversation(self, conversation_id: UUID) -> list[Binding]:
        """Those that have a place (`Binding.is_former`). By id: the oldest first."""
        ...

    async def of_conversations(self, conversation_ids: Collection[UUID]) -> list[Binding]:
        """Likewise of several."""
        ...

    async def direct_of(self, user_id: UUID) -> list[Binding]:
        """In direct messages with this person, as far as is known: who bound them, or else owns what they show. By id.

        Where a place's kind was never noted, one that shows a private conversation without a thread counts as such.
        """
        ...

    async def of_account(self, account: Account) -> list[Binding]:
        """Those to which something may have to be delivered (`Binding.is_delivered_to`). By id."""
        ...

    async def heard(self, account: Account) -> list[Binding]:
        """Those where the bot is still spoken to: those that are off, too, but no ended or former ones."""
        ...

    async def known_places(self, principal: Principal, *, limit: int) -> list[KnownPlace]:
        """The open channels where conversations are shown that the principal may read, on accounts where they are known. By label."""
        ...

    async def behind(self, account: Account) -> list[UUID]:
        """Of those, the ones that need a writer now: messages beyond the cursor, a delivery that is not final or of an older revision than
        its message, a thread that is to be made (and was not given up) or arranged, a status shown, a card older than its task, a
        place that is to be checked, or of those that follow a message that was edited or deleted since: it may be quoted there."""
        ...

    async def update(self, binding_id: UUID, **changes: Any) -> None:
        """Raises Conflict where it would come to a place that shows another conversation."""
        ...

    async def remove(self, binding_id: UUID) -> None:
        """With what was delivered there."""
        ...

    async def open(self, binding_id: UUID, thread: str, arranged: str) -> Binding | None:
        """Notes the thread that there is for it, unless another process was first; gives the binding as it is then. Raises Conflict as
        `update` does."""
        ...


class Deliveries(Protocol):
    async def put(self, *deliveries: Delivery) -> None:
        """Inserts them, or replaces what was noted in their place."""
        ...

    async def revise(self, binding_id: UUID, item: str, revision: int) -> None:
        """Notes which revision of its message an item shows, and leaves what else is noted of it as it is."""
        ...

    async def of_binding(self, binding_id: UUID, items: Collection[str]) -> list[Delivery]:
        """By item and part."""
        ...

    async def unsettled(self, binding_id: UUID) -> list[Delivery]:
        """Neither final nor theirs nor closed; or of a message that has another revision by now, as one that was deleted has. Of theirs
        those whose message was edited or deleted since somebody looked."""
        ...

    async def at(self, place: Place, remote_id: str) -> Delivery | None:
        """Which of our messages this remote message of the place's channel belongs to; in whichever of its threads."""
        ...

    async def known_since(self, account: Account, channel: str, since: datetime) -> set[str]:
        """The ids of the remote messages, ours and others', of a channel and its threads that were noted since."""
        ...

    async def remove(self, binding_id: UUID, item: str, part: int) -> None: ...


class Cursors(Protocol):
    """How far a platform was heard that does not tell again what nobody took in."""

    async def all(self, account: Account) -> dict[str, int]:
        """The newest message that was heard of each channel and thread; a message's id is a number that grows with time."""
        ...

    async def advance(self, account: Account, heard: Mapping[str, int]) -> None:
        """Never back."""
        ...


class Inbound(Protocol):
    async def add(self, event: InboundEvent) -> bool:
        """False where an event with this key is there already."""
        ...

    async def waiting(self, account: Account, now: datetime, *, limit: int) -> list[InboundEvent]:
        """Due events that were not taken in, in the order in which they came; without those behind one in their lane that is not due and
        does not `wait`. Where there are more than `limit`, every lane has its turn: a long one keeps none of the others waiting."""
        ...

    async def get(self, event_id: UUID) -> InboundEvent | None: ...
    async def complete(self, event: InboundEvent) -> None:
        """Gives the payload of this event to the one that is there with its key, unless that was taken in already."""
        ...

    async def later(self, event_id: UUID, run_after: datetime, *, attempts: int, waits: bool) -> None: ...
    async def done(self, event_id: UUID, at: datetime, *, error: str | None = None) -> None:
        """Its payload is erased."""
        ...


class AccountLeases(Protocol):
    async def take(self, account: Account, owner: UUID, *, until: datetime, now: datetime) -> AccountLease | None:
        """The lease, taken or extended; None while somebody else holds it. Taking it, also after it ran out, raises its token; extending it
        does not."""
        ...

    async def fence(self, lease: AccountLease) -> None:
        """Raises LeaseLost where somebody else has taken it; nobody takes it before the transaction ends."""
        ...

    async def release(self, lease: AccountLease) -> None:
        """Others may take it at once."""
        ...

    async def release_all(self, owner: UUID) -> None:
        """Likewise those of a process that is known to be dead."""
        ...

    async def accounts(self, since: datetime) -> list[Account]:
        """Those that some process has served since then. By surface and id."""
        ...


class UnitOfWork(Protocol):
    """One transaction. What `emit` is given is stored with it and published after it is committed."""

    @property
    def now(self) -> datetime:
        """When the transaction began."""
        ...

    @property
    def users(self) -> Users: ...
    @property
    def sessions(self) -> Sessions: ...
    @property
    def links(self) -> Links: ...
    @property
    def sign_in_attempts(self) -> SignInAttempts: ...
    @property
    def tokens(self) -> Tokens: ...
    @property
    def projects(self) -> Projects: ...
    @property
    def tasks(self) -> Tasks: ...
    @property
    def task_changes(self) -> TaskChanges: ...
    @property
    def conversations(self) -> Conversations: ...
    @property
    def read_marks(self) -> ReadMarks: ...
    @property
    def messages(self) -> Messages: ...
    @property
    def summaries(self) -> Summaries: ...
    @property
    def attachments(self) -> Attachments: ...
    @property
    def turns(self) -> TurnQueue: ...
    @property
    def steps(self) -> Steps: ...
    @property
    def tool_calls(self) -> ToolCalls: ...
    @property
    def approvals(self) -> Approvals: ...
    @property
    def inbox(self) -> Inbox: ...
    @property
    def usage(self) -> Usage: ...
    @property
    def pauses(self) -> ModelPauses: ...
    @property
    def model_requests(self) -> ModelRequests: ...
    @property
    def workers(self) -> Workers: ...
    @property
    def identities(self) -> Identities: ...
    @property
    def bindings(self) -> Bindings: ...
    @property
    def deliveries(self) -> Deliveries: ...
    @property
    def inbound(self) -> Inbound: ...
    @property
    def cursors(self) -> Cursors: ...
    @property
    def account_leases(self) -> AccountLeases: ...

    def emit(self, *events: StateEvent) -> None: ...
    def savepoint(self) -> AbstractAsyncContextManager[None]:
        """Undoes what was done and emitted inside it when an exception leaves it."""
        ...


class Notifier(Protocol):
    """Publishes here what other processes do to the same database."""

    async def run(self, started: asyncio.Event) -> None:
        """Until cancelled. `started` is set when nothing committed from then on can be missed."""
        ...


class Storage(Protocol):
    """The database. Both context managers raise StorageUnavailable when it cannot be reached or written to."""

    def read(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """A consistent view; writing in it is an error."""
        ...

    def write(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """A transaction, committed at the end, rolled back by an exception. Never await the network inside.

        Raises Conflict where somebody else stored at the same moment what there can be only one of.
        """
        ...

    async def version(self) -> str:
        """The database's name and version."""
        ...

    async def check(self) -> None:
        """Raises StorageUnavailable where the database cannot be reached or does not have this version's tables."""
        ...

    async def prune(self, now: datetime) -> Mapping[str, int]:
        """Removes what is only kept for a while; rows removed, by table."""
        ...

    async def prunable(self, now: datetime) -> Mapping[str, int]:
        """What `prune` would remove."""
        ...
