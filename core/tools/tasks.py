"""The toolset `tasks`: what the agent and MCP clients do with tasks."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from core import tasks
from core.errors import Conflict, InvalidInput
from core.models import JSON, Task
from core.ports import TaskFilter, UnitOfWork
from core.tools.registry import Arguments, Hints, ToolContext, tool

_Status = Literal["todo", "in_progress", "in_review", "done", "cancelled"]
_Priority = Literal["low", "medium", "high", "urgent"]
_Ref = Annotated[str, Field(description="The task's ref, for example OT-12.", max_length=40)]


class ListTasks(Arguments):
    status: _Status | None = Field(None, description="Only tasks of this status.")
    query: str | None = Field(None, description="Words that must stand in ref, title or description.", max_length=200)
    limit: int = Field(20, ge=1, le=100, description="At most so many, newest first.")
    cursor: str | None = Field(None, description="next_cursor of the page before.", max_length=40)


class GetTask(Arguments):
    ref: _Ref


class CreateTask(Arguments):
    title: str = Field(description="Short and imperative, for example 'Buy milk'.", min_length=1, max_length=200)
    description: str | None = Field(None, description="Details in Markdown.", max_length=10_000)
    status: _Status | None = None
    priority: _Priority | None = None
    assignee: str | None = Field(None, description="A user's name.", max_length=64)
    due_at: str | None = Field(None, description="ISO 8601 date or time, for example 2026-12-24.", max_length=40)
    labels: list[str] | None = Field(None, max_length=20)


class UpdateTask(Arguments):
    ref: _Ref
    title: str | None = Field(None, min_length=1, max_length=200)
    description: str | None = Field(None, max_length=10_000)
    status: _Status | None = Field(None, description="Completing a task is status 'done'.")
    priority: _Priority | None = None
    assignee: str | None = Field(None, description="A user's name; an empty text assigns it to nobody.", max_length=64)
    due_at: str | None = Field(None, description="ISO 8601; an empty text removes it.", max_length=40)
    labels: list[str] | None = Field(None, description="Replaces all labels.", max_length=20)
    expected_version: int | None = Field(None, ge=1, description="Refuse when the task was changed since this version.")


@tool(toolset="tasks", title="List tasks", hints=Hints(read_only=True, idempotent=True))
async def list_tasks(context: ToolContext, arguments: ListTasks) -> JSON:
    """Finds tasks, newest first, by status and words. Use it to see what there is or to find a task's ref. Returns tasks (ref, title,
    status, priority, assignee, due_at), total, and next_cursor when there are more."""
    statuses = frozenset({arguments.status}) if arguments.status else frozenset()
    where = TaskFilter(statuses=statuses, query=arguments.query or "")
    page = await tasks.page(context.uow, context.principal, where, after=_cursor(arguments.cursor), limit=arguments.limit)
    names = await _names(context.uow, *page.tasks)
    result: JSON = {"tasks": [_brief(task, names) for task in page.tasks], "total": page.total}
    return {**result, "next_cursor": str(page.next_cursor)} if page.next_cursor else result


@tool(toolset="tasks", title="Show a task", hints=Hints(read_only=True, idempotent=True))
async def get_task(context: ToolContext, arguments: GetTask) -> JSON:
    """Reads one task in full: description, labels, version and times beside what list_tasks returns."""
    return await _whole(context.uow, await tasks.get(context.uow, context.principal, arguments.ref))


@tool(toolset="tasks", title="Create a task", hints=Hints())
async def create_task(context: ToolContext, arguments: CreateTask) -> JSON:
    """Creates a task; call it once for each task that is wanted. Returns the new task with its ref."""
    fields = arguments.model_dump(exclude_unset=True, exclude_none=True, exclude={"title"})
    return await _whole(context.uow, await tasks.create(context.uow, context.principal, arguments.title, fields))


@tool(toolset="tasks", title="Change a task", hints=Hints(idempotent=True))
async def update_task(context: ToolContext, arguments: UpdateTask) -> JSON:
    """Changes the given fields of a task and leaves the others. Use it also to complete, start or assign a task.
    Returns the changed task."""
    changes = arguments.model_dump(exclude_unset=True, exclude_none=True, exclude={"ref", "expected_version"})
    changed = await tasks.update(context.uow, context.principal, arguments.ref, changes, expected_version=arguments.expected_version)
    return await _whole(context.uow, changed)


@tool(toolset="tasks", title="Delete a task", hints=Hints(destructive=True), needs_approval=True)
async def delete_task(context: ToolContext, arguments: GetTask) -> JSON:
    """Deletes a task and its whole conversation for good. Use it only when a person asked for exactly that; to close a task set its
    status to done or cancelled instead. Returns the ref that was deleted."""
    if context.conversation and context.conversation.task_ref == arguments.ref.upper():
        raise Conflict("This conversation belongs to that task, so it cannot be deleted from here. A person can delete it from outside.")
    return {"deleted": (await tasks.delete(context.uow, context.principal, arguments.ref)).ref}


TOOLS = (list_tasks, get_task, create_task, update_task, delete_task)


def _cursor(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        raise InvalidInput("This cursor is none of ours. Pass next_cursor of the page before, or leave it out.") from None


async def _names(uow: UnitOfWork, *found: Task) -> dict[UUID, str]:
    return await uow.users.names({task.assignee_id for task in found if task.assignee_id})


def _brief(task: Task, names: dict[UUID, str]) -> JSON:
    fields: JSON = {"ref": task.ref, "title": task.title, "status": task.status.value, "priority": task.priority.value}
    if task.assignee_id:
        fields["assignee"] = names.get(task.assignee_id, "")
    if task.due_at:
        fields["due_at"] = _iso(task.due_at)
    return fields


async def _whole(uow: UnitOfWork, task: Task) -> JSON:
    fields = _brief(task, await _names(uow, task))
    if task.description:
        fields["description"] = task.description
    if task.labels:
        fields["labels"] = list(task.labels)
    return {**fields, "version": task.version, "updated_at": _iso(task.updated_at)}


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
