"""What a writer has to look after, read from the database: the messages behind its cursor, those that changed, and the task's card."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from bots import view
from bots.delivery.plan import LONG_AGO, Cuts, Remote
from bots.view import View
from core.frames import messages_json, task_json
from core.models import CARD, JSON, Binding, Conversation, Delivery, DeliveryState, Message, MessageStatus, Role, Task
from core.ports import UnitOfWork

_LEFT_OUT = re.compile(r"left-out:(\d+)-(\d+)")
_BROKEN_OFF = (MessageStatus.FAILED, MessageStatus.CANCELLED)
_JUST_BEFORE = 3
"""Messages before the first new one among which the one is whose buttons it takes away."""


@dataclass(slots=True, eq=False)
class Item:
    """Something that is shown: a message, the task's card, or what stands for messages that are left out."""

    key: str
    seq: int
    """0 for the card, which stands before all messages."""
    revision: int
    message_id: UUID | None = None
    said: JSON | None = None
    """The message's public JSON."""
    still: View | None = None
    """Of what is no message."""
    answered: bool = False
    """Whether something was said after this message."""
    is_past: bool = False
    """Whether a later message was answered since, or is to be."""
    cuts: Cuts = field(default_factory=Cuts)
    remotes: list[Remote] = field(default_factory=list)
    is_theirs: bool = False
    """It came from this place, and stands there already."""
    settled: bool = False
    answers: str = ""
    """The remote message that it answers, by its id."""
    limit: int | None = None
    """Of its parts' length, where the platform took less than it promised."""
    reposts: int = 0
    """How often one of its remote messages was gone, or could not be changed any more, and was posted anew."""
    seen_at: float = LONG_AGO
    unshown_since: float | None = None
    """Since when there has been text that is not shown."""

    @property
    def is_card(self) -> bool:
        return self.key == CARD

    @property
    def stands(self) -> bool:
        """Whether something of it was posted, or may have been: then all of it goes there."""
        return not all(remote.unsent for remote in self.remotes)

    @property
    def is_unfinished_reply(self) -> bool:
        return self.said is not None and self.said["role"] == Role.ASSISTANT and not MessageStatus(self.said["status"]).finished

    def renew(self, fresh: "Item") -> None:
        """Takes over what was read anew; what is there on the platform is known better here."""
        self.revision, self.said, self.still = fresh.revision, fresh.said, fresh.still
        self.answered, self.is_past = fresh.answered, fresh.is_past
        self.settled = False


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Messages of a long backlog, by seq, that one sentence stands for."""

    first: int
    last: int

    @property
    def key(self) -> str:
        return f"left-out:{self.first}-{self.last}"


async def left_out(uow: UnitOfWork, binding: Binding, conversation: Conversation, most: int) -> LeftOut | None:
    """What is left out so that at most `most` messages are delivered at once; the same again after a crash."""
    for row in await uow.deliveries.unsettled(binding.id):
        if found := _LEFT_OUT.fullmatch(row.item):
            return LeftOut(int(found[1]), int(found[2]))
    if conversation.next_seq - 1 - binding.cursor <= most:
        return None
    newest = await uow.messages.page(conversation.id, limit=most)
    return LeftOut(binding.cursor + 1, newest[0].seq - 1)


async def read(
    uow: UnitOfWork, binding: Binding, conversation: Conversation, *, task: Task | None, left: LeftOut | None, url: str
) -> list[Item]:
    """In the order in which they are shown. `task` and `url` are the conversation's."""
    after = max(binding.cursor, left.last if left else 0)
    messages = await _messages(uow, binding, conversation, after)
    shown = await messages_json(uow, messages)
    items = [_of_message(message, said, conversation) for message, said in zip(messages, shown, strict=True)]
    await _mark_past(uow, conversation, items)
    if left and left.last > binding.cursor:
        still = view.left_out(left.last - left.first + 1, url)
        items.append(Item(key=left.key, seq=left.last, revision=1, still=still))
    if task:
        still = view.card(await task_json(uow, task, conversation), url)
        items.append(Item(key=CARD, seq=0, revision=task.version, still=still))
    rows = await uow.deliveries.of_binding(binding.id, [item.key for item in items]) if items else []
    for item in items:
        _note_rows(item, [row for row in rows if row.item == item.key])
    return sorted((item for item in items if _belongs(item, binding)), key=lambda item: item.seq)


async def answers(uow: UnitOfWork, binding: Binding, item: Item) -> str:
    """The remote id of what a person said at the channel's top that a reply answers; empty for what answers nothing."""
    if item.said is None or item.said["role"] != Role.ASSISTANT or not item.said["turn_id"]:
        return ""
    turn = await uow.turns.get(UUID(item.said["turn_id"]))
    rows = await uow.deliveries.of_binding(binding.id, [str(turn.user_message_id)]) if turn else []
    return next((row.remote_id for row in rows if row.state is DeliveryState.THEIRS and not row.thread and row.remote_id), "")


def _belongs(item: Item, binding: Binding) -> bool:
    """What was said before the binding, and is not there, stays away."""
    return item.is_card or item.seq > binding.cursor or bool(item.remotes)


async def _messages(uow: UnitOfWork, binding: Binding, conversation: Conversation, after: int) -> Sequence[Message]:
    beyond = await uow.messages.since(conversation.id, after + 1)
    changed = {row.message_id for row in await uow.deliveries.unsettled(binding.id) if row.message_id}
    # A question loses its buttons when something is said behind it, and a reply that broke off loses its own with the next turn.
    before = await uow.messages.page(conversation.id, before=beyond[0].seq, limit=_JUST_BEFORE) if beyond else []
    changed |= {each.id for each in before if each.metadata.get("question") or (each.turn_id and each.status in _BROKEN_OFF)}
    older = await uow.messages.of_ids(changed - {each.id for each in beyond})
    return sorted([*older, *beyond], key=lambda message: message.seq)


def _of_message(message: Message, said: JSON, conversation: Conversation) -> Item:
    answered = conversation.next_seq > message.seq + 1
    return Item(key=str(message.id), seq=message.seq, revision=message.revision, message_id=message.id, said=said, answered=answered)


async def _mark_past(uow: UnitOfWork, conversation: Conversation, items: Sequence[Item]) -> None:
    broken_off = [item for item in items if item.said and item.said["role"] == Role.ASSISTANT and item.said["status"] in _BROKEN_OFF]
    last = await uow.turns.last(conversation.id) if broken_off else None
    for item in broken_off:
        item.is_past = last is not None and item.said is not None and item.said["turn_id"] != str(last.id)


def _note_rows(item: Item, rows: Sequence[Delivery]) -> None:
    item.is_theirs = any(row.state is DeliveryState.THEIRS for row in rows)
    item.remotes = [] if item.is_theirs else [Remote(row) for row in rows]
