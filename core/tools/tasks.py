"""The toolset `tasks`: what the agent and MCP clients do with tasks."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, WithJsonSchema

from core import tasks, wording
from core.errors import Conflict, InvalidInput
from core.frames import binding_json
from core.models import JSON, TASK_KEYS, InboxKey, Task
from core.ports import ChangedTask, TaskFilter, UnitOfWork
from core.text import clip, utf16_len
from core.tools.registry import Arguments, Hints, Result, ToolContext, advising, tool
from core.tools.sizes import ROOM, behind, cut, size_of, that_fit

_Status = Literal["todo", "in_progress", "in_review", "done", "cancelled"]
_Priority = Literal["low", "medium", "high", "urgent"]
_WRITTEN = ("title", "description", "labels", "agent_status_message", "followed")
"""The agent's message may quote a question of its own; channels have names that people gave them."""
LIST_THEM = "Call list_tasks to see what there is."
"""What to do where there is no such task."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_STATUS_MESSAGE = 200
"""Characters of it that are shown."""
_PLACES = 300
"""Characters of where a conversation is followed."""
_SENTENCE = 200
"""Bytes that the next call takes to say."""
_Ref = Annotated[str, Field(description="The task's ref, for example OT-12.")]


class ListTasks(Arguments):
    status: _Status | None = Field(None, description="Only tasks of this status.")
    query: str | None = Field(None, description="Words that must stand in ref, title or description.", max_length=200)
    assignee: str | None = Field(None, description="A user's name, or 'me'.")
    updated_since: str | None = Field(None, description="ISO 8601; the last changed come first then.")
    limit: int = Field(20, ge=1, le=100)
    cursor: str | None = Field(None, description="next_cursor of the page before.")


class GetTask(Arguments):
    ref: _Ref


class ReadTask(GetTask):
    after: int = Field(0, ge=0, description="Where the description begins that is shown.")


class CreateTask(Arguments):
    title: str = Field(description="Short and imperative, for example 'Buy milk'.", min_length=1, max_length=200)
    description: str | None = Field(None, description="Details in Markdown.", max_length=10_000)
    status: _Status | None = None
    priority: _Priority | None = None
    assignee: str | None = Field(None, description="A user's name.")
    due_at: str | None = Field(None, description="ISO 8601 date or time, for example 2026-12-24.")
    labels: list[str] | None = Field(None, max_length=20)


class UpdateTask(Arguments):
    ref: _Ref
    title: str | None = Field(None, min_length=1, max_length=200)
    description: str | None = Field(None, max_length=10_000)
    status: _Status | None = Field(None, description="Completing a task is status 'done'.")
    priority: _Priority | None = None
    assignee: str | None = Field(None, description="A user's name; an empty text assigns it to nobody.")
    due_at: str | None = Field(None, description="ISO 8601; an empty text removes it.")
    labels: list[str] | None = Field(None, description="Replaces all labels.", max_length=20)
    expected_version: int | None = Field(None, ge=1, description="Refuse when the task was changed since this version.")


class CreateTaskOnce(CreateTask):
    idempotency_key: str | None = Field(None, description="The same again gives the task of before.", min_length=1, max_length=255)


class TaskFields(Result):
    ref: str
    title: str
    status: str
    priority: str
    assignee: str | None = None
    due_at: str | None = None


class TaskBrief(TaskFields):
    agent_status: str | None = None
    """Where it is not idle."""


_Brief = Annotated[TaskBrief, WithJsonSchema({"type": "object", "required": ["ref", "title", "status", "priority"]})]
"""The description tells of the fields: a client checks each result, and twenty tasks field by field take it longer than the call."""


class ListTasksResult(Result):
    tasks: list[_Brief]
    total: int
    total_at_least: bool | None = None
    has_more: bool
    next_cursor: str | None = None
    next: str | None = None


class TaskDetails(TaskFields):
    """The agent is not told the conversation, its own status there, nor who made the task and when: clients are."""

    description: str | None = None
    description_clipped: bool | None = None
    labels: list[str] | None = None
    conversation_id: str | None = None
    agent_status: str | None = None
    agent_status_message: str | None = None
    followed: str | None = None
    """Where on chat platforms."""
    version: int
    created_by: str | None = None
    created_at: str | None = None
    updated_at: str
    next: str | None = None


class DeletedTask(Result):
    deleted: str


@tool(toolset="tasks", title="List tasks", hints=Hints(read_only=True, idempotent=True), untrusted=("tasks[].title",))
async def list_tasks(context: ToolContext, arguments: ListTasks) -> ListTasksResult:
    """Finds tasks, newest first. Use it to see what there is or to find a task's ref. Tasks have ref, title, status, priority and, where
    set, assignee, due_at, agent_status. total counts to 100 (total_at_least: there are more); where has_more, the next page is that of
    cursor=next_cursor."""
    where = await _filter(context, arguments)
    found = await tasks.listing(context.uow, context.principal, where, after=_place(arguments.cursor), limit=arguments.limit)
    shown = that_fit(await _briefs(context.uow, found.tasks), ROOM)
    is_cut = len(shown) < len(found.tasks)
    has_more = found.has_more or is_cut
    return ListTasksResult(
        tasks=shown,
        total=found.total,
        total_at_least=None if found.is_exact else True,
        has_more=has_more,
        next_cursor=_cursor(found.tasks[len(shown) - 1], where) if has_more else None,
        next="Too much for one result: call list_tasks with cursor next_cursor for the rest." if is_cut else None,
    )


@tool(toolset="tasks", title="Show a task", hints=Hints(read_only=True, idempotent=True), untrusted=_WRITTEN)
async def get_task(context: ToolContext, arguments: ReadTask) -> TaskDetails:
    """Reads one task in full."""
    with advising(LIST_THEM):
        task = await tasks.get(context.uow, context.principal, arguments.ref)
    return await _details(context, task, after=arguments.after)


@tool(toolset="tasks", title="Create a task", hints=Hints(), untrusted=_WRITTEN)
async def create_task(context: ToolContext, arguments: CreateTask) -> TaskFields:
    """Creates a task; call it once for each task that is wanted. Returns it as get_task does."""
    return await _details(context, await tasks.create(context.uow, context.principal, arguments.title, _given(arguments)))


async def _create_once(context: ToolContext, arguments: CreateTaskOnce) -> TaskFields:
    if arguments.idempotency_key is None:
        task = await tasks.create(context.uow, context.principal, arguments.title, _given(arguments))
    else:
        key = InboxKey(source=TASK_KEYS, scope=str(context.principal.user_id), event_id=arguments.idempotency_key)
        task = await tasks.create_once(context.uow, context.principal, arguments.title, _given(arguments), project=None, key=key)
    return await _details(context, task)


@tool(toolset="tasks", title="Change a task", hints=Hints(idempotent=True), untrusted=_WRITTEN)
async def update_task(context: ToolContext, arguments: UpdateTask) -> TaskFields:
    """Changes the given fields of a task and leaves the others. Use it also to complete, start or assign a task. Returns it as get_task
    does."""
    changes = _given(arguments)
    with advising(LIST_THEM):
        task = await tasks.update(context.uow, context.principal, arguments.ref, changes, expected_version=arguments.expected_version)
    return await _details(context, task)


@tool(toolset="tasks", title="Delete a task", hints=Hints(destructive=True), needs_approval=True)
async def delete_task(context: ToolContext, arguments: GetTask) -> DeletedTask:
    """Deletes a task and its whole conversation for good. Use it only when a person asked for exactly that; to close a task set its
    status to done or cancelled instead."""
    if context.conversation and context.conversation.task_ref == arguments.ref.upper():
        raise Conflict("This conversation belongs to that task, so it cannot be deleted from here. A person can delete it from outside.")
    with advising(LIST_THEM):
        return DeletedTask(deleted=(await tasks.delete(context.uow, context.principal, arguments.ref)).ref)


TOOLS = (list_tasks, get_task, create_task, update_task, delete_task)
CLIENT_TOOLS = (list_tasks, get_task, replace(create_task, arguments=CreateTaskOnce, handler=_create_once), update_task, delete_task)
"""The same for MCP clients, who may call again what they do not know to have arrived."""


async def _filter(context: ToolContext, asked: ListTasks) -> TaskFilter:
    assignee_id = None
    if asked.assignee:
        is_me = asked.assignee.lower() == "me"
        assignee_id = context.principal.user_id if is_me else await tasks.user_id(context.uow, asked.assignee)
    return TaskFilter(
        statuses=frozenset({asked.status}) if asked.status else frozenset(),
        query=asked.query or "",
        assignee_id=assignee_id,
        updated_since=tasks.moment(asked.updated_since) if asked.updated_since else None,
    )


def _given(arguments: CreateTask | UpdateTask) -> JSON:
    """The task's fields among the arguments; null is as good as nothing."""
    others = {"ref", "expected_version", "idempotency_key"} | ({"title"} if isinstance(arguments, CreateTask) else set())
    return arguments.model_dump(exclude_unset=True, exclude_none=True, exclude=others)


def _cursor(task: Task, where: TaskFilter) -> str:
    return f"{(task.updated_at - _EPOCH) // _MICROSECOND}.{task.id}" if where.updated_since else str(task.id)


def _place(cursor: str | None) -> UUID | ChangedTask | None:
    if not cursor:
        return None
    changed, _, task_id = cursor.rpartition(".")
    try:
        return ChangedTask(_EPOCH + int(changed) * _MICROSECOND, UUID(task_id)) if changed else UUID(task_id)
    except (ValueError, OverflowError):
        raise InvalidInput("This cursor is none of ours. Pass next_cursor of the page before, or leave it out.") from None


async def _briefs(uow: UnitOfWork, found: Sequence[Task]) -> list[TaskBrief]:
    names = await uow.users.names({task.assignee_id for task in found if task.assignee_id})
    active = await uow.conversations.agent_statuses([task.conversation_id for task in found])
    return [TaskBrief(**_fields(task, names), agent_status=active.get(task.conversation_id)) for task in found]


async def _details(context: ToolContext, task: Task, *, after: int = 0) -> TaskDetails:
    names = await context.uow.users.names({each for each in (task.assignee_id, task.creator_id) if each})
    details = TaskDetails(
        **_fields(task, names),
        labels=list(task.labels) or None,
        version=task.version,
        updated_at=iso(task.updated_at),
        **(await _for_clients(context.uow, task, names) if context.conversation is None else {}),
    )
    return _described(details, task, after)


async def _for_clients(uow: UnitOfWork, task: Task, names: Mapping[UUID, str]) -> JSON:
    """What the agent knows, since it sits in a conversation, or does not need."""
    conversation = await uow.conversations.find(task.conversation_id)
    followed = await places_of(uow, [task.conversation_id])
    return {
        "conversation_id": str(task.conversation_id),
        "agent_status": conversation.agent_status if conversation else None,
        "agent_status_message": clip(conversation.agent_status_message, _STATUS_MESSAGE) or None if conversation else None,
        "followed": followed.get(task.conversation_id),
        "created_by": names.get(task.creator_id),
        "created_at": iso(task.created_at),
    }


def _described(details: TaskDetails, task: Task, after: int) -> TaskDetails:
    """With as much of the description as fits."""
    begins, rest = behind(task.description, after)
    description = cut(rest, ROOM - size_of(details) - _SENTENCE)
    clipped: JSON = {}
    if len(description) < len(rest):
        goes_on = begins + utf16_len(description)
        clipped = {"description_clipped": True, "next": f"The rest of the description: get_task with ref {task.ref} and after {goes_on}."}
    return details.model_copy(update={"description": description or None, **clipped})


def _fields(task: Task, names: Mapping[UUID, str]) -> JSON:
    return {
        "ref": task.ref,
        "title": task.title,
        "status": task.status,
        "priority": task.priority,
        "assignee": names.get(task.assignee_id, "") if task.assignee_id else None,
        "due_at": iso(task.due_at) if task.due_at else None,
    }


async def places_of(uow: UnitOfWork, conversation_ids: Collection[UUID]) -> dict[UUID, str]:
    """Where conversations are followed on chat platforms: `in #ops on Slack, read-only in a private channel on Discord`."""
    found: dict[UUID, list[JSON]] = {each: [] for each in conversation_ids}
    for binding in await uow.bindings.of_conversations(conversation_ids):
        found[binding.conversation_id].append(binding_json(binding, {}))
    told = {each: wording.also(places).removeprefix("also ") for each, places in found.items()}
    return {each: clip(places, _PLACES) for each, places in told.items() if places}


def iso(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
