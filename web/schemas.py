"""The JSON that comes and goes, as the API's description shows it. What is sent is made by core/frames.py; these say what to expect.

What comes is checked here for its shape, so that every other rule is left to the core. Unknown members are refused: they are misspelt.
"""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, WithJsonSchema

from core.models import (
    AgentStatus,
    ApprovalStatus,
    ChannelKind,
    Decision,
    MessageStatus,
    Priority,
    Role,
    TaskField,
    TaskStatus,
    ToolCallState,
    TurnStatus,
    Visibility,
)
from core.text import clean

MAX_INTEGER = 2**31 - 1
"""Of seqs and versions, as the database holds them."""
NOT_BLANK = r"[^\s\x1c-\x1f]"


def _storable(value: Any) -> Any:
    return clean(value) if isinstance(value, str) else value


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _moment(text: str | None) -> str | None:
    if text is not None:
        datetime.fromisoformat(text)
    return text


# A validator stands behind the limits, and limits inside of a union, or pydantic leaves them out of the description.
_Cleaned = BeforeValidator(_storable)
MessageText = Annotated[str, Field(min_length=1, max_length=10_000, pattern=NOT_BLANK, description="Markdown; not blank."), _Cleaned]
Title = Annotated[str, Field(min_length=1, max_length=200, pattern=NOT_BLANK), _Cleaned]
Label = Annotated[str, Field(min_length=1, max_length=50, pattern=NOT_BLANK), _Cleaned]
UserName = Annotated[str, Field(min_length=1, max_length=64), _Cleaned]
TaskName = Annotated[str, Field(min_length=1, max_length=64), _Cleaned]
NewUserName = Annotated[
    str,
    Field(max_length=64),
    _Cleaned,
    WithJsonSchema({"type": "string", "pattern": r"^[^\W_][\w.@-]{0,63}$", "maxLength": 64, "examples": ["kim"]}),
]
"""What else the core asks of it stands in the description only, and so does what it asks of a key: its sentences tell it better."""
NewProjectKey = Annotated[
    str,
    Field(max_length=10),
    _Cleaned,
    WithJsonSchema({"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9]{1,9}$", "maxLength": 10, "examples": ["WEB"]}),
]
ProjectKey = Annotated[str, Field(min_length=1, max_length=10), _Cleaned]
Description = Annotated[str, Field(max_length=10_000), _Cleaned]
Instructions = Annotated[str, Field(max_length=20_000), _Cleaned]
TokenName = Annotated[str, Field(min_length=1, max_length=100, pattern=NOT_BLANK), _Cleaned]
ModelId = Annotated[str, Field(min_length=1, max_length=150, pattern=r"^[!-~]+$", examples=["anthropic/claude-sonnet-5-5"]), _Cleaned]
_Whole = BeforeValidator(_whole)  # as JSON Schema has it: 3.0 is a whole number, "3" and true are none
Version = Annotated[StrictInt, Field(ge=1, le=MAX_INTEGER), _Whole]
Days = Annotated[StrictInt, Field(ge=1, le=3_650), _Whole]
Moment = Annotated[
    str | None,
    AfterValidator(_moment),
    WithJsonSchema({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "string", "format": "date"}, {"type": "null"}]}),
    Field(description="A date, or a time with its zone (UTC where none is given)."),
]
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


# --- what comes ----------------------------------------------------------------------------------------------------


class Received(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ChatRequest(Received):
    message: MessageText
    conversation_id: UUID | None = Field(None, description="Where to write. Without it and `task_id` a new private conversation begins.")
    task_id: TaskName | None = Field(None, description="Instead: the task whose conversation it is, by id or ref.")
    model: ModelId | None = Field(None, description="Answers this message, instead of the conversation's model.")

    model_config = ConfigDict(json_schema_extra={"examples": [{"message": "Create a task to buy milk"}]})


class MessageEdit(Received):
    content: MessageText


class QuestionAnswer(Received):
    option: MessageText


class ApprovalDecision(Received):
    decision: Decision


class ConversationPatch(Received):
    title: Title = Field(default_factory=str)
    model: ModelId | None = Field(None, description="Answers from now on; null: the project's or the default model.")
    archived: StrictBool = Field(default_factory=bool, description="Whether it is left out of the list.")

    model_config = ConfigDict(json_schema_extra={"examples": [{"title": "Groceries", "archived": False}]})


class _TaskFields(Received):
    description: Description | None = Field(None, description="Markdown.")
    status: TaskStatus = TaskStatus.TODO
    priority: Priority = Priority.MEDIUM
    assignee: UserName | None = Field(None, description="A user's name; null: nobody.")
    due_at: Moment = None
    labels: list[Label] = Field(default_factory=list, max_length=20)


class TaskDraft(_TaskFields):
    title: Title
    project: ProjectKey | None = Field(None, description="A project's key. Without: the default project.")

    model_config = ConfigDict(json_schema_extra={"examples": [{"title": "Buy milk", "priority": "high", "due_at": "2026-12-24"}]})


class TaskPatch(_TaskFields):
    """What is left out stays as it is."""

    title: Title = Field(default_factory=str)
    status: TaskStatus = Field(default_factory=lambda: TaskStatus.TODO)
    priority: Priority = Field(default_factory=lambda: Priority.MEDIUM)
    expected_version: Version | None = Field(None, description="Refuse where somebody changed it since this version.")

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "done", "expected_version": 3}]})


class NewBinding(Received):
    place: Annotated[str, Field(min_length=1, max_length=500), _Cleaned] = Field(
        description="The link of a channel or thread, as Slack or Discord gives it; or the `key` of one of `places`."
    )
    mode: Literal["two_way", "watch"] = Field("two_way", description="Whether what is said there comes in, or it is only read there.")
    confirmed: StrictBool = Field(default_factory=bool, description="Whether the person knows who would read it.")

    model_config = ConfigDict(json_schema_extra={"examples": [{"place": "https://team.slack.com/archives/C0123456789", "mode": "watch"}]})


class BindingPatch(Received):
    mode: Literal["two_way", "watch"]
    confirmed: StrictBool = Field(default_factory=bool, description="Whether the person knows who would read it.")


class ReadMark(Received):
    seq: Annotated[StrictInt, Field(ge=0, le=MAX_INTEGER, description="Of the last message that was seen; 0 before the first."), _Whole]

    model_config = ConfigDict(json_schema_extra={"examples": [{"seq": 12}]})


class ProjectPatch(Received):
    name: Title = Field(default_factory=str)
    instructions: Instructions = Field(default_factory=str, description="What the agent is told in every conversation of the project.")
    model: ModelId | None = Field(None, description="Answers where the conversation has none of its own; null: the default model.")

    model_config = ConfigDict(json_schema_extra={"examples": [{"instructions": "Answer in German."}]})


class NewProject(Received):
    key: NewProjectKey = Field(description="Begins the refs of its tasks; stored in capitals.")
    name: Title
    instructions: Instructions = Field("", description="What the agent is told in every conversation of the project.")
    model: ModelId | None = Field(None, description="Answers where the conversation has none of its own; null: the default model.")

    model_config = ConfigDict(json_schema_extra={"examples": [{"key": "WEB", "name": "Website"}]})


class NewUser(Received):
    name: NewUserName
    admin: StrictBool = False


class UserPatch(Received):
    """What is left out stays as it is."""

    admin: StrictBool = Field(default_factory=bool)
    disabled: StrictBool = Field(default_factory=bool, description="Nobody can act as this user; their sessions and links end.")

    model_config = ConfigDict(json_schema_extra={"examples": [{"admin": True}]})


# --- what goes -----------------------------------------------------------------------------------------------------


class Sent(BaseModel):
    """More members may come with time."""

    model_config = ConfigDict(extra="allow")


class Attachment(Sent):
    id: UUID
    name: str
    media_type: str
    size: int = Field(description="Bytes. Get them at `/api/attachments/{id}`.")


class ToolCall(Sent):
    message_id: UUID
    step: int
    index: int
    name: str
    arguments: dict[str, Any]
    state: ToolCallState
    result: str = Field(default_factory=str, description="What the model was told.")
    approval_id: UUID | None = Field(None, description="Decide at `/api/approvals/{approval_id}`.")
    approval: ApprovalStatus | None = None
    decided_by: str | None = Field(None, description="A user's name.")


class Message(Sent):
    id: UUID
    conversation_id: UUID
    turn_id: UUID | None
    seq: int = Field(description="Its place in the conversation.")
    role: Role
    content: str = Field(description="Markdown. Of a reply that is being written: as far as it is stored.")
    status: MessageStatus
    author: str | None = Field(description="A user's name; null for the agent.")
    source: str
    metadata: dict[str, Any] = Field(
        description="Of a reply: model, tokens and cost, or error, or question. Of what a person said: `unanswered`, why no answer comes. "
        "Of what nobody said: `notice`, what became of the binding `binding_id`."
    )
    tool_calls: list[ToolCall]
    attachments: list[Attachment]
    created_at: Time
    updated_at: Time
    edited_at: Time | None
    deleted_at: Time | None
    stream_no: int = Field(default_factory=int, description="Of a reply: the number of the stream that its text belongs to.")


class Messages(Sent):
    messages: list[Message] = Field(description="Ascending.")
    has_more: bool = Field(description="Whether there are earlier ones: get them with `before` set to the first one's `seq`.")


class Posted(Sent):
    conversation_id: UUID
    turn_id: UUID
    message: Message = Field(description="The reply.")
    user_message: Message


class Turn(Sent):
    turn_id: UUID
    conversation_id: UUID
    user_message_id: UUID
    message_id: UUID = Field(description="The reply's id.")
    status: TurnStatus
    model: str
    position: int = Field(description="How many unfinished turns of the conversation come before it.")
    retry_at: Time | None = Field(description="When it is tried again.")
    failures: int
    error_code: str = Field(default_factory=str, description="Why it failed, or why it is tried again.")
    error: str | None = Field(None, description="The same as a sentence.")
    no_worker: bool = Field(default_factory=bool, description="True where no worker runs that could answer it.")
    message: Message = Field(description="The reply.")
    created_at: Time
    started_at: Time | None
    finished_at: Time | None


class Approval(Sent):
    id: UUID
    turn_id: UUID
    conversation_id: UUID
    step: int
    index: int
    status: ApprovalStatus
    decided_by: str | None = Field(description="A user's name.")
    created_at: Time
    expires_at: Time
    decided_at: Time | None


class Conversation(Sent):
    id: UUID
    title: str
    task_ref: str | None
    model: str | None
    visibility: Visibility
    agent_status: AgentStatus
    agent_status_message: str
    message_count: int
    last_seq: int = Field(description="The `seq` of the newest message that is finished, as are all replies before it; 0 without one.")
    read_seq: int | None = Field(description="Up to which `seq` you have read it; null where you never opened it.")
    archived_at: Time | None
    created_at: Time
    updated_at: Time


class Binding(Sent):
    id: UUID
    conversation_id: UUID
    surface: str = Field(examples=["slack"])
    kind: ChannelKind | None = Field(description="Null until the platform was asked.")
    label: str = Field(description="The name of an open channel, such as `#ops`; of any other place nothing.")
    url: str = Field(description="Where it is on its platform; empty where that is not known.")
    mode: Literal["two_way", "watch", "off"]
    state: Literal["live", "pending", "off", "ended"] = Field(description="`pending`: the platform is still to be asked about it.")
    reason: str | None = Field(description="Why it ended: a stable code.")
    why: str = Field(default_factory=str, description="The same as a sentence.")
    home: bool = Field(description="Whether the conversation was begun there.")
    by: str | None = Field(description="A user's name: who has it followed there.")
    created_at: Time


class KnownPlace(Sent):
    key: str
    surface: str
    label: str


class Platform(Sent):
    surface: str
    linked: bool = Field(description="Whether you have linked your account there.")


class Following(Sent):
    bindings: list[Binding] = Field(description="The oldest first.")
    also: str = Field(description="The same in words: `also in #ops on Slack`; empty without any.")
    places: list[KnownPlace] = Field(description="Open channels that you can choose by their `key`.")
    platforms: list[Platform] = Field(description="The chat platforms that are set up here.")


class Conversations(Sent):
    conversations: list[Conversation] = Field(description="The most recently used first.")
    total: int
    limit: int
    offset: int


class ConversationWithMessages(Conversation, Messages):
    """A conversation with its last 50 messages."""

    bindings: list[Binding] = Field(description="The places on chat platforms where it is followed, the oldest first.")


class Task(Sent):
    id: UUID
    ref: str = Field(examples=["OT-12"])
    title: str
    description: str
    status: TaskStatus
    priority: Priority
    assignee: str | None
    due_at: Time | None
    labels: list[str]
    conversation_id: UUID
    agent_status: AgentStatus
    agent_status_message: str
    version: int = Field(description="Raised by each change.")
    created_at: Time
    updated_at: Time


class Tasks(Sent):
    tasks: list[Task] = Field(description="Newest first.")
    next_cursor: UUID | None = Field(description="The `cursor` of the next page; null on the last one.")
    total: int


class TaskChange(Sent):
    id: UUID
    at: Time
    by: str = Field(description="A user's name.")
    by_agent: bool = Field(description="Whether the agent did it for this user.")
    field: TaskField = Field(description="`created` is the task's beginning, with its title in `after`.")
    before: str | list[str] | None = Field(description="As the task has the field. Of a description only the change is noted: null, twice.")
    after: str | list[str] | None


class TaskChanges(Sent):
    changes: list[TaskChange] = Field(description="Newest first.")
    has_more: bool = Field(description="Whether there are earlier ones: get them with `before` set to the last one's `id`.")


class FoundMessage(Sent):
    id: UUID
    seq: int
    role: Role
    author: str | None = Field(description="A user's name; null for the agent.")
    created_at: Time


class SearchResult(Sent):
    conversation: Conversation
    message: FoundMessage | None = Field(description="Null where the conversation's title or task's ref was found.")
    excerpt: str = Field(description="A line of plain text around what was found in the message; else empty.")


class SearchResults(Sent):
    results: list[SearchResult]


class Project(Sent):
    key: str
    name: str
    instructions: str
    model: str | None
    created_at: Time
    updated_at: Time


class Projects(Sent):
    projects: list[Project]


class Model(Sent):
    id: str
    provider: str
    available: bool = Field(description="Whether it can be asked with the keys that are set.")
    missing: list[str] = Field(description="The variables of which one must be set first.")
    default: bool


class Consumption(Sent):
    tokens_in: int
    tokens_out: int
    tokens_cached: int = Field(description="How many of `tokens_in` were cached.")
    cost: str | None = Field(description="US dollars; null where the price of any part is unknown.", examples=["0.0123"])
    estimated: bool = Field(description="Whether a provider left it to us to count tokens.")


class ModelConsumption(Consumption):
    model: str


class DayConsumption(Consumption):
    day: Annotated[str, Field(json_schema_extra={"format": "date"})] = Field(description="In UTC.")


class ConversationUsage(Sent):
    total: Consumption
    by_model: list[ModelConsumption]


class Usage(ConversationUsage):
    since: Time = Field(description="The beginning of a day in UTC, the first of `by_day`.")
    by_day: list[DayConsumption] = Field(description="Ascending; days without use are missing.")


# --- what only admins get ------------------------------------------------------------------------------------------


class User(Sent):
    id: UUID
    name: str
    admin: bool
    disabled_at: Time | None = Field(description="Since then nobody can act as this user.")
    has_password: bool
    created_at: Time


class Users(Sent):
    users: list[User] = Field(description="The first to come first, disabled ones too.")
    next_cursor: UUID | None = Field(description="The `cursor` of the next page; null on the last one.")


class PasswordLink(Sent):
    link: str = Field(description="Whoever opens it sets the user's password, once. It is shown now and never again.")
    expires_at: Time


class AddedUser(PasswordLink):
    user: User


class QueueDepth(Sent):
    queued: int
    running: int
    waiting: int = Field(description="For a person's decision.")


class Worker(Sent):
    id: UUID
    host: str
    pid: int
    concurrency: int = Field(description="How many turns it answers at once, at most.")
    running: int = Field(description="How many it answers now.")
    unserved: list[str] = Field(description="Prefixes of the models whose keys it lacks.")
    started_at: Time
    heartbeat_at: Time
    alive: bool


class PausedModel(Sent):
    model: str
    paused_since: Time
    paused_until: Time
    pauses: int = Field(description="In a row, without an answer.")


class Queue(Sent):
    turns: QueueDepth
    oldest_queued_seconds: float | None = Field(description="How long the oldest queued turn waits; null where none does.")
    failed_last_day: int
    workers: list[Worker] = Field(description="Also those that fell silent within the last day; the newest first.")
    paused_models: list[PausedModel] = Field(description="Those that nobody may ask now: their providers turned everybody away.")


class ListedTurn(Sent):
    turn_id: UUID
    conversation_id: UUID
    title: str | None = Field(description="The conversation's; null where you may not read it.")
    task_ref: str | None
    author: str = Field(description="A user's name.")
    model: str
    status: TurnStatus
    failures: int = Field(description="Since the last finished round.")
    rescues: int = Field(description="How often its worker vanished since then.")
    error_code: str | None = Field(description="Why it failed, or why it is tried again.")
    error: str | None = Field(description="The same as a sentence.")
    no_worker: bool = Field(description="True where it is queued and no worker runs that could answer it.")
    created_at: Time
    started_at: Time | None
    finished_at: Time | None


class ListedTurns(Sent):
    turns: list[ListedTurn] = Field(description="Newest first.")
    next_cursor: UUID | None = Field(description="The `cursor` of the next page; null on the last one.")
