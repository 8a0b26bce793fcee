"""The thread of a place: whether it is made, how it is named, and when it is put away."""

from dataclasses import dataclass

from bots.delivery.plan import LONG_AGO
from core.models import Task, TaskStatus
from core.text import clip

_NAME_CHARACTERS = 100
_PUT_AWAY = frozenset({TaskStatus.DONE, TaskStatus.CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """How a thread is to look."""

    title: str
    archived: bool = False

    @property
    def noted(self) -> str:
        """As `Binding.arranged`."""
        return f"{'archived' if self.archived else 'open'} {self.title}"


@dataclass(slots=True, kw_only=True)
class Progress:
    """How making or arranging a thread goes."""

    since: float | None = None
    """When it was first to be made."""
    failures: int = 0
    not_before: float = LONG_AGO
    is_impossible: bool = False
    """Its root is gone."""


def arrangement(task: Task | None) -> Arrangement:
    """How the thread of a conversation is to look, which may be a task's."""
    if task is None:
        return Arrangement(title="Conversation")
    return Arrangement(title=clip(f"{task.ref} {task.title}", _NAME_CHARACTERS), archived=task.status in _PUT_AWAY)
