"""Tasks: found, made, changed, removed."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel

from core import frames, projects, tasks
from core.access import Principal, require
from core.errors import NotFound
from core.models import JSON, InboxKey, Task, TaskStatus
from core.ports import TaskFilter, UnitOfWork
from web import schemas
from web.credentials import Caller
from web.parameters import Key, Limit, inbox_key, no_repeats
from web.problems import documented
from web.services import services_of

router = APIRouter(prefix="/api/tasks", tags=["tasks"], dependencies=[Depends(no_repeats)])
Ref = Annotated[str, Path(max_length=64, description="The task's id, or its ref (`OT-12`).", examples=["OT-12"])]


@router.get("", response_model=schemas.Tasks, responses=documented(404))
async def list_tasks(
    *,
    request: Request,
    caller: Caller,
    status: Annotated[list[TaskStatus], Query(default_factory=list, description="Only of these; may be repeated.")],
    query: Annotated[str, Query(max_length=200, description="Words that must stand in ref, title or description.")] = "",
    assignee: Annotated[str | None, Query(max_length=64, description="Only those of this user, by name.")] = None,
    cursor: Annotated[UUID | None, Query(description="The `next_cursor` of the page before.")] = None,
    limit: Limit = 20,
) -> JSON:
    """The tasks that you may see, newest first."""
    require(caller, "tasks:read")
    async with services_of(request).storage.read() as uow:
        assignee_id = await _user_id(uow, assignee) if assignee is not None else None
        where = TaskFilter(statuses=frozenset(status), query=query, assignee_id=assignee_id)
        page = await tasks.page(uow, caller, where, after=cursor, limit=limit)
        shown = await frames.tasks_json(uow, page.tasks)
    return {"tasks": shown, "next_cursor": page.next_cursor, "total": page.total}


@router.post("", status_code=201, response_model=schemas.Task, responses=documented(404, 409))
async def create_task(request: Request, response: Response, caller: Caller, body: schemas.TaskDraft, key: Key = None) -> JSON:
    """Make a task. Its conversation, which everybody may read, is made with it."""
    async with services_of(request).storage.write() as uow:
        task = await _create(uow, caller, body, inbox_key(caller, key))
        response.headers["Location"] = f"/api/tasks/{task.id}"
        return await _task_json(uow, task)


@router.get("/{ref}", response_model=schemas.Task)
async def get_task(request: Request, caller: Caller, ref: Ref) -> JSON:
    """One task, as it stands."""
    async with services_of(request).storage.read() as uow:
        return await _task_json(uow, await tasks.get(uow, caller, ref))


@router.patch("/{ref}", response_model=schemas.Task, responses=documented(409))
async def change_task(request: Request, caller: Caller, ref: Ref, body: schemas.TaskPatch) -> JSON:
    """Change what is given and leave the rest. With `expected_version` it is a conflict when somebody changed the task since."""
    async with services_of(request).storage.write() as uow:
        return await _task_json(uow, await _change(uow, caller, ref, body))


@router.delete("/{ref}", status_code=204)
async def delete_task(request: Request, caller: Caller, ref: Ref) -> None:
    """Remove a task for good, with its conversation; what runs in it stops."""
    async with services_of(request).storage.write() as uow:
        await tasks.delete(uow, caller, ref)


@router.get("/{ref}/changes", response_model=schemas.TaskChanges)
async def list_task_changes(
    request: Request,
    caller: Caller,
    ref: Ref,
    before: Annotated[UUID | None, Query(description="Only those before the change of this id.")] = None,
    limit: Limit = 50,
) -> JSON:
    """What was changed of a task, by whom: the newest first."""
    async with services_of(request).storage.read() as uow:
        page = await tasks.changes(uow, caller, ref, before=before, limit=limit)
        return {"changes": await frames.task_changes_json(uow, page.changes), "has_more": page.has_more}


async def _create(uow: UnitOfWork, caller: Principal, body: schemas.TaskDraft, key: InboxKey | None) -> Task:
    require(caller, "tasks:write")
    project = await projects.read(uow, caller, body.project) if body.project else None
    fields = await _fields(uow, body, "title", "project")
    if key is None:
        return await tasks.create(uow, caller, body.title, fields, project=project)
    return await tasks.create_once(uow, caller, body.title, fields, project=project, key=key)


async def _change(uow: UnitOfWork, caller: Principal, ref: str, body: schemas.TaskPatch) -> Task:
    require(caller, "tasks:write")
    if fields := await _fields(uow, body, "expected_version"):
        return await tasks.update(uow, caller, ref, fields, expected_version=body.expected_version)
    return await tasks.get(uow, caller, ref)


async def _fields(uow: UnitOfWork, body: BaseModel, *but: str) -> dict[str, Any]:
    """What is given, as the core takes it."""
    fields = body.model_dump(exclude_unset=True, exclude={*but})
    if assignee := fields.get("assignee"):
        await _user_id(uow, assignee)
    return fields


async def _user_id(uow: UnitOfWork, name: str) -> UUID:
    user = await uow.users.by_name(name)
    if user is None:
        raise NotFound(f"There is no user {name!r}. See them with GET /api/users.")
    return user.id


async def _task_json(uow: UnitOfWork, task: Task) -> JSON:
    return (await frames.tasks_json(uow, [task]))[0]
