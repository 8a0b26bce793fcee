"""The thread of a place: whether it is made, how it is named, and when it is put away."""

from dataclasses import dataclass

from bots.delivery.plan import LONG_AGO
from core.models import Task, TaskStatus
from core.text import clip

_NAME_CHARACTERS = 100
_TASKLESS = "Conversation"
_PUT_AWAY = frozenset({TaskStatus.DONE, TaskStatus.CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """How a thread is to look."""

    title: str
    ref: str
    """A title that nobody has to dislike."""
    archived: bool = False

    @property
    def noted(self) -> str:
        """As `Binding.arranged`."""
        return f"{'archived' if self.archived else 'open'} {self.title}"


@dataclass(slots=True, kw_only=True)
class Attempts:
    """How a call goes that nothing waits for."""

    failures: int = 0
    not_before: float = LONG_AGO


@dataclass(slots=True, kw_only=True)
class Opening(Attempts):
    """How making a thread goes."""

    since: float | None = None
    """When it was first to be made."""
    by_ref: bool = False
    """Its title was refused."""
    is_impossible: bool = False
    """There can be none on its root."""
    is_only_way: bool = False
    """Nothing can be said at the channel's top."""


def arrangement(task: Task | None) -> Arrangement:
    """How the thread of a conversation is to look, which may be a task's."""
    if task is None:
        return Arrangement(title=_TASKLESS, ref=_TASKLESS)
    title = clip(f"{task.ref} {task.title}", _NAME_CHARACTERS)
    return Arrangement(title=title, ref=task.ref, archived=task.status in _PUT_AWAY)
