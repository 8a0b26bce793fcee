"""The history of a task: which fields changed from what to what. `core.tasks` notes it in the transaction of the change.

Of a description only that it changed: what somebody took out of it, such as a password, must not stay readable.
"""

from collections.abc import Iterator
from typing import Any

from core.access import Principal
from core.frames import time_json
from core.ids import new_id
from core.models import Task, TaskChange, TaskField
from core.ports import UnitOfWork

_Difference = tuple[TaskField, Any, Any]


async def note_created(uow: UnitOfWork, principal: Principal, task: Task) -> None:
    await _note(uow, principal, task, [(TaskField.CREATED, None, task.title)])


async def note_changed(uow: UnitOfWork, principal: Principal, before: Task, after: Task) -> None:
    """Those fields only that have another value than before."""
    differences = list(_differences(before, after))
    if before.assignee_id != after.assignee_id:
        names = await uow.users.names([each.assignee_id for each in (before, after) if each.assignee_id])
        was, is_now = [names.get(each.assignee_id) if each.assignee_id else None for each in (before, after)]
        differences.append((TaskField.ASSIGNEE, was, is_now))
    if differences:
        await _note(uow, principal, after, differences)


def _differences(before: Task, after: Task) -> Iterator[_Difference]:
    if before.title != after.title:
        yield TaskField.TITLE, before.title, after.title
    if before.description != after.description:
        yield TaskField.DESCRIPTION, None, None
    if before.status != after.status:
        yield TaskField.STATUS, before.status.value, after.status.value
    if before.priority != after.priority:
        yield TaskField.PRIORITY, before.priority.value, after.priority.value
    if before.due_at != after.due_at:
        yield TaskField.DUE_AT, time_json(before.due_at), time_json(after.due_at)
    if before.labels != after.labels:
        yield TaskField.LABELS, list(before.labels), list(after.labels)


async def _note(uow: UnitOfWork, principal: Principal, task: Task, differences: list[_Difference]) -> None:
    about: dict[str, Any] = {"task_id": task.id, "user_id": principal.user_id, "by_agent": principal.by_agent, "at": uow.now}
    changes = [TaskChange(**about, id=new_id(), field=field, before=before, after=after) for field, before, after in differences]
    await uow.task_changes.add(*changes)
