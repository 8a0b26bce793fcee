"""Tasks: made, found, changed and deleted, each with its one conversation."""

import difflib
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from core import conversations, projects, task_changes, turns
from core.access import Principal, require
from core.errors import Conflict, InvalidInput, NotFound
from core.events import ConversationDeleted, TaskChanged, TaskDeleted
from core.ids import new_id
from core.models import TASK_KEYS, InboxEntry, InboxKey, Priority, Project, Task, TaskChange, TaskStatus, Visibility
from core.ports import ChangedTask, TaskFilter, UnitOfWork
from core.text import clean

_MAX_REF = 40
"""Characters of a ref or an id, as anybody may write it."""
_MAX_TITLE = 200
_MAX_DESCRIPTION = 10_000
_MAX_LABELS = 20
_MAX_LABEL = 50
COUNTED = 100
"""So many tasks of a listing are counted: to count all takes longer the more there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPage:
    tasks: tuple[Task, ...]
    next_cursor: UUID | None
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePage:
    changes: tuple[TaskChange, ...]
    has_more: bool
    """Whether there are earlier ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskListing:
    tasks: tuple[Task, ...]
    has_more: bool
    total: int
    is_exact: bool
    """False where there are more than `total`, which is COUNTED then."""


async def create(
    uow: UnitOfWork,
    principal: Principal,
    title: str,
    fields: Mapping[str, Any] | None = None,
    *,
    project: Project | None = None,
    visibility: Visibility = Visibility.SHARED,
    task_id: UUID | None = None,
) -> Task:
    """A new task with a conversation of its own. `fields`: see `update`; `task_id`: its id, where that was made before."""
    require(principal, "tasks:write")
    project = project or await projects.default(uow)
    values = await _cleaned(uow, {"title": title, **(fields or {})})
    conversation = await conversations.add(uow, principal, title=values["title"], visibility=visibility, project=project)
    return await _add(uow, principal, project, conversation.id, values, task_id=task_id)


async def promote(uow: UnitOfWork, principal: Principal, conversation_id: UUID, title: str) -> Task:
    """Makes a task of a conversation, whose readers stay who they are. Raises Conflict, with its ref, where it is one already."""
    require(principal, "tasks:write")
    conversation = await conversations.get(uow, principal, conversation_id)
    if conversation.task_ref:
        raise Conflict(f"This conversation belongs to {conversation.task_ref} already.")
    project = await uow.projects.get(conversation.project_id)
    assert project is not None
    values = await _cleaned(uow, {"title": title})
    task = await _add(uow, principal, project, conversation_id, values)
    await conversations.set_title(uow, conversation_id, task.title)
    return task


async def create_once(
    uow: UnitOfWork, principal: Principal, title: str, fields: Mapping[str, Any], *, project: Project | None, key: InboxKey
) -> Task:
    """Like `create`; the same key again gives the task that the first call made. Conflict where it came with another body."""
    require(principal, "tasks:write")
    task_id = new_id()
    asked = json.dumps(["task", title, dict(fields), project.key if project else None], sort_keys=True, default=str)
    body = hashlib.sha256(asked.encode()).hexdigest()
    entry = InboxEntry(key=replace(key, source=TASK_KEYS), body_sha256=body, result={"task_id": str(task_id)})
    earlier = await uow.inbox.add(entry, user_id=principal.user_id, at=uow.now)
    if earlier is None:
        return await create(uow, principal, title, fields, project=project, task_id=task_id)
    if earlier.body_sha256 != entry.body_sha256:
        raise Conflict("This key was used before for another task. Use a new key.")
    return await get(uow, principal, earlier.result["task_id"])


async def get(uow: UnitOfWork, principal: Principal, ref: str) -> Task:
    """By ref (`OT-12`) or id."""
    require(principal, "tasks:read")
    if len(ref) > _MAX_REF:
        raise NotFound(f"No task has a ref of more than {_MAX_REF} characters.")
    task = await uow.tasks.get(UUID(ref), principal) if _is_id(ref) else await uow.tasks.by_ref(ref.strip(), principal)
    if task is None:
        raise NotFound(f"No task {ref!r}.{await _closest(uow, principal, ref)}")
    return task


async def page(uow: UnitOfWork, principal: Principal, where: TaskFilter, *, after: UUID | None = None, limit: int = 20) -> TaskPage:
    """Newest first; `next_cursor` is the `after` of the next page."""
    require(principal, "tasks:read")
    found = await uow.tasks.page(principal, where, after=after, limit=limit + 1)
    shown = tuple(found[:limit])
    total = await uow.tasks.count(principal, where)
    return TaskPage(tasks=shown, next_cursor=shown[-1].id if len(found) > limit else None, total=total)


async def listing(
    uow: UnitOfWork, principal: Principal, where: TaskFilter, *, after: UUID | ChangedTask | None = None, limit: int = 20
) -> TaskListing:
    """Like `page`, but as quick however many tasks there are. With `updated_since` the last changed come first, and `after` is a
    ChangedTask."""
    require(principal, "tasks:read")
    found = await _first_of(uow, principal, where, after, limit + 1)
    total = await uow.tasks.count(principal, where, at_most=COUNTED + 1)
    return TaskListing(tasks=tuple(found[:limit]), has_more=len(found) > limit, total=min(total, COUNTED), is_exact=total <= COUNTED)


async def update(
    uow: UnitOfWork, principal: Principal, ref: str, changes: Mapping[str, Any], *, expected_version: int | None = None
) -> Task:
    """Changes any of title, description, status, priority, assignee (a user's name or None), due_at (a date or None) and labels.

    With `expected_version`, Conflict when somebody changed the task since.
    """
    require(principal, "tasks:write")
    task = await get(uow, principal, ref)
    values = await _cleaned(uow, changes)
    if not values:
        raise InvalidInput(f"Say what to change: {', '.join(_CLEAN)}.")
    changed = await uow.tasks.update(task.id, task.version if expected_version is None else expected_version, **values)
    if changed is None:
        raise Conflict(
            f"{task.ref} was changed by somebody else: it is at version {task.version} now. Read it again and repeat the change."
        )
    await task_changes.note_changed(uow, principal, task, changed)
    if "title" in values:
        await conversations.set_title(uow, task.conversation_id, values["title"])
    uow.emit(TaskChanged(conversation_id=task.conversation_id, task_id=task.id))
    return changed


async def changes(uow: UnitOfWork, principal: Principal, ref: str, *, before: UUID | None = None, limit: int = 50) -> ChangePage:
    """What was changed of a task, the newest first, beginning behind the change `before`."""
    task = await get(uow, principal, ref)
    found = await uow.task_changes.page(task.id, before=before, limit=limit + 1)
    return ChangePage(changes=tuple(found[:limit]), has_more=len(found) > limit)


async def delete(uow: UnitOfWork, principal: Principal, ref: str) -> Task:
    """Removes the task and its conversation for good, after stopping what runs in it."""
    require(principal, "tasks:write")
    task = await get(uow, principal, ref)
    await remove(uow, task)
    return task


async def user_id(uow: UnitOfWork, name: str) -> UUID:
    """Of somebody to whom a task may be assigned."""
    user = await uow.users.by_name(name)
    if user is None:
        known = ", ".join(each.name for each in (await uow.users.all())[:20])
        raise InvalidInput(f"There is no user {name!r}. Users: {known}.")
    return user.id


def moment(value: datetime | date | str) -> datetime:
    """A date is its first moment; without a zone it is UTC."""
    try:
        at = datetime.fromisoformat(value if isinstance(value, str) else value.isoformat())
        return (at.replace(tzinfo=UTC) if at.tzinfo is None else at).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(f"{value!r} is no date. Example: 2026-12-24 or 2026-12-24T17:00:00Z.") from None


async def remove(uow: UnitOfWork, task: Task) -> None:
    conversation = await uow.conversations.find(task.conversation_id)
    readers = await conversations.readers(uow, conversation) if conversation else ()
    await turns.cancel_all(uow, task.conversation_id)
    await uow.tasks.delete(task.id)
    uow.emit(
        TaskDeleted(conversation_id=task.conversation_id, task_id=task.id, ref=task.ref, readers=readers),
        ConversationDeleted(conversation_id=task.conversation_id, readers=readers),
    )


async def _add(
    uow: UnitOfWork,
    principal: Principal,
    project: Project,
    conversation_id: UUID,
    values: Mapping[str, Any],
    *,
    task_id: UUID | None = None,
) -> Task:
    task = Task(
        **{**_BLANK, **values},
        id=task_id or new_id(),
        ref=f"{project.key}-{await uow.projects.next_task_number(project.id)}",
        project_id=project.id,
        conversation_id=conversation_id,
        creator_id=principal.user_id,
        version=1,
        created_at=uow.now,
        updated_at=uow.now,
    )
    await uow.tasks.add(task)
    await task_changes.note_created(uow, principal, task)
    uow.emit(TaskChanged(conversation_id=conversation_id, task_id=task.id))
    return task


async def _first_of(uow: UnitOfWork, principal: Principal, where: TaskFilter, after: UUID | ChangedTask | None, limit: int) -> list[Task]:
    match where.updated_since, after:
        case None, None | UUID():
            return await uow.tasks.page(principal, where, after=after, limit=limit)
        case datetime(), None | ChangedTask():
            return await uow.tasks.last_changed(principal, where, after=after, limit=limit)
        case _:
            raise InvalidInput("This cursor belongs to a list in another order. Leave it out to begin anew.")


async def _closest(uow: UnitOfWork, principal: Principal, ref: str) -> str:
    known = await uow.tasks.page(principal, TaskFilter(), after=None, limit=200)
    closest = difflib.get_close_matches(ref.upper(), [task.ref for task in known], n=1, cutoff=0.5)
    return f" Closest: {closest[0]}." if closest else ""


async def _cleaned(uow: UnitOfWork, fields: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in fields.items():
        if name == "assignee":
            values["assignee_id"] = await user_id(uow, value) if value else None
        elif name in _CLEAN:
            values[name] = _CLEAN[name](value)
        else:
            raise InvalidInput(f"A task has no {name!r}. It has: {', '.join(_CLEAN)}, assignee.")
    return values


def _title(text: str) -> str:
    title = " ".join(clean(text).split())
    if not 1 <= len(title) <= _MAX_TITLE:
        raise InvalidInput(f"A title has 1-{_MAX_TITLE} characters; this one has {len(title)}.")
    return title


def _description(text: str | None) -> str:
    description = clean(text or "").strip()
    if len(description) > _MAX_DESCRIPTION:
        raise InvalidInput(f"A description has at most {_MAX_DESCRIPTION} characters; this one has {len(description)}.")
    return description


def _status(value: str) -> TaskStatus:
    try:
        return TaskStatus(value)
    except ValueError:
        raise InvalidInput(f"There is no status {value!r}. Statuses: {', '.join(TaskStatus)}.") from None


def _priority(value: str) -> Priority:
    try:
        return Priority(value)
    except ValueError:
        raise InvalidInput(f"There is no priority {value!r}. Priorities: {', '.join(Priority)}.") from None


def _due_at(value: datetime | date | str | None) -> datetime | None:
    return moment(value) if value else None


def _labels(values: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    labels = tuple(dict.fromkeys(clean(value).strip() for value in values))
    if len(labels) > _MAX_LABELS or not all(1 <= len(label) <= _MAX_LABEL for label in labels):
        raise InvalidInput(f"A task has at most {_MAX_LABELS} labels of 1-{_MAX_LABEL} characters each.")
    return labels


def _is_id(ref: str) -> bool:
    try:
        UUID(ref)
    except ValueError:
        return False
    return True


_CLEAN: dict[str, Callable[[Any], Any]] = {
    "title": _title,
    "description": _description,
    "status": _status,
    "priority": _priority,
    "due_at": _due_at,
    "labels": _labels,
}
_BLANK = {
    "description": "",
    "status": TaskStatus.TODO,
    "priority": Priority.MEDIUM,
    "assignee_id": None,
    "due_at": None,
    "labels": (),
}
