"""The history of a task: which fields changed from what to what. `core.tasks` notes it in the transaction of the change."""

from collections.abc import Iterator
from os.path import commonprefix
from typing import Any

from core.access import Principal
from core.frames import time_json
from core.ids import new_id
from core.models import Task, TaskChange, TaskField
from core.ports import UnitOfWork

MAX_KEPT = 500
"""Characters of a description that are kept; of a longer one those where the change begins, between ellipses."""
_AROUND = 100
"""Characters that are kept before that place."""

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
        yield TaskField.DESCRIPTION, *_kept(before.description, after.description)
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


def _kept(before: str, after: str) -> tuple[str, str]:
    if max(len(before), len(after)) <= MAX_KEPT:
        return before, after
    begin = max(0, len(commonprefix([before, after])) - _AROUND)  # noqa: RUF071  # character by character, as is meant
    return _piece(before, begin), _piece(after, begin)


def _piece(text: str, begin: int) -> str:
    piece = f"…{text[begin:]}" if begin else text
    return piece if len(piece) <= MAX_KEPT else f"{piece[: MAX_KEPT - 1]}…"
