"""What live events change for those who listen: which resources look different, whether the list may have changed, and for whom.

Nothing is read here, and nobody is told: a batch says what is to be read, and learns what was found.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from uuid import UUID

from core.events import (
    AgentStatusChanged,
    ApprovalChanged,
    ConversationChanged,
    ConversationDeleted,
    Event,
    Lagged,
    MessageAdded,
    MessageChanged,
    TaskChanged,
    TaskDeleted,
    TextDelta,
    ToolCallChanged,
    TurnChanged,
)
from mcp_server.resources import Kind

Topic = tuple[Kind, UUID | None]
"""What kind of resource, and of which conversation, where it has one."""
_OF_A_TASK: frozenset[Kind] = frozenset({"board", "task"})


def topic(kind: Kind, conversation_id: UUID) -> Topic:
    return kind, None if kind in ("board", "status") else conversation_id


def changed_by(event: Event) -> tuple[Kind, ...]:
    """The kinds of resources that look different after it."""
    match event:
        case TaskChanged():
            return ("board", "task", "messages")  # the messages' page shows the title
        case TaskDeleted():
            return ("board", "task", "messages", "status")
        case AgentStatusChanged():
            return ("board", "task", "status")
        case MessageAdded() | MessageChanged():
            return ("messages",)
        case ToolCallChanged() | ApprovalChanged():
            return ("messages", "status")
        case TurnChanged() | ConversationChanged():
            return ("status",)
        case ConversationDeleted():
            return ("messages", "status")
    return ()


@dataclass(slots=True)
class Batch:
    """What events that came at once changed of that which somebody listens to."""

    missed: bool = False
    """Something happened, nobody knows what: all of it may look different."""
    of_list: bool = False
    """Whether the list of resources may be another one."""
    _kinds: dict[UUID, set[Kind]] = field(default_factory=dict)
    """By conversation."""
    _readers: dict[UUID, Collection[UUID] | None] = field(default_factory=dict)
    """Who may see what happened in each conversation; None where that is everybody."""

    @classmethod
    def of(cls, events: Iterable[Event], listened: Collection[Topic | None]) -> "Batch":
        batch = cls()
        for event in events:
            batch._add(event, listened)
        return batch

    @property
    def is_empty(self) -> bool:
        """Whether no resource changed."""
        return not self._kinds

    @property
    def unread(self) -> list[UUID]:
        """The conversations of which it must be learned who may see them. The status is told to everybody who listens to it."""
        return [each for each, kinds in self._kinds.items() if each not in self._readers and kinds != {"status"}]

    def learn(self, conversation_id: UUID, readers: Collection[UUID] | None, *, has_task: bool) -> None:
        """Of one that is there. What nothing is learned of is told to nobody."""
        self._readers[conversation_id] = readers
        if not has_task:
            self._kinds[conversation_id] -= _OF_A_TASK

    def topics_for(self, user_id: UUID) -> set[Topic]:
        """What changed of that which they may see."""
        return set(self._topics_for(user_id))

    def _topics_for(self, user_id: UUID) -> Iterator[Topic]:
        for conversation_id, kinds in self._kinds.items():
            allowed = self._readers.get(conversation_id, ())
            sees_it = allowed is None or user_id in allowed
            yield from (topic(kind, conversation_id) for kind in kinds if sees_it or kind == "status")

    def _add(self, event: Event, listened: Collection[Topic | None]) -> None:
        if isinstance(event, Lagged):
            self.missed = True
        if isinstance(event, Lagged | TextDelta):
            return
        if isinstance(event, TaskChanged | TaskDeleted):
            self.of_list = True
        if isinstance(event, TaskDeleted | ConversationDeleted):
            self._readers[event.conversation_id] = event.readers
        kinds = {kind for kind in changed_by(event) if topic(kind, event.conversation_id) in listened}
        if kinds:
            self._kinds.setdefault(event.conversation_id, set()).update(kinds)
