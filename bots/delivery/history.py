"""What a writer has to look after, read from the database: the messages behind its cursor, those that changed, the task's card, and what a
place that follows is told first.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from bots import view
from bots.delivery import beginnings, theirs
from bots.delivery.beginnings import Past
from bots.delivery.plan import LONG_AGO, Cuts, Remote
from bots.view import Answer, View
from core import wording
from core.frames import binding_json, messages_json, task_json
from core.models import (
    CARD,
    INTRO,
    JSON,
    Binding,
    BindingMode,
    Conversation,
    Delivery,
    DeliveryState,
    Message,
    MessageStatus,
    Role,
    Task,
)
from core.ports import UnitOfWork

_LEFT_OUT = re.compile(r"left-out:(\d+)-(\d+)")
_BROKEN_OFF = (MessageStatus.FAILED, MessageStatus.CANCELLED)
_JUST_BEFORE = 3
"""Messages before the first new one among which the one is whose buttons it takes away."""


@dataclass(slots=True, eq=False)
class Item:
    """Something that is shown: a message, the task's card, an intro, or what stands for messages that are left out or were changed."""

    key: str
    seq: int
    """0 for the card and the intro, which stand before all messages."""
    revision: int
    message_id: UUID | None = None
    said: JSON | None = None
    """The message's public JSON."""
    still: View | None = None
    """Of what is no message."""
    answer: Answer | None = None
    """What was answered to the question that it asks."""
    is_past: bool = False
    """Whether a later message was answered since, or is to be."""
    cuts: Cuts = field(default_factory=Cuts)
    remotes: list[Remote] = field(default_factory=list)
    is_theirs: bool = False
    """It came from this place, and stands there already."""
    theirs: Delivery | None = None
    """What a person wrote there: this says what became of it elsewhere, if anything."""
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
    def is_head(self) -> bool:
        """Whether it is about the conversation, and nobody's message: who removes it there does not want it."""
        return self.key in (CARD, INTRO)

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
        self.answer, self.is_past, self.theirs = fresh.answer, fresh.is_past, fresh.theirs
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
    last = _last(binding, conversation)
    if last - binding.cursor <= most:
        return None
    newest = await uow.messages.page(conversation.id, before=last + 1, limit=most)
    return LeftOut(binding.cursor + 1, newest[0].seq - 1)


async def read(
    uow: UnitOfWork, binding: Binding, conversation: Conversation, past: Past, *, task: Task | None, left: LeftOut | None, url: str
) -> list[Item]:
    """In the order in which they are shown. `task` and `url` are the conversation's; `past` keeps what the intro quotes."""
    after = max(binding.cursor, left.last if left else 0)
    intro = await beginnings.told(uow, binding)
    messages = await _messages(uow, binding, conversation, after)
    shown = await messages_json(uow, messages)
    items = [_of_message(message, said) for message, said in zip(messages, shown, strict=True)]
    _word_beginnings(messages, items, binding, url)
    await _mark_past(uow, conversation, items)
    await _note_answers(uow, conversation, items)
    if left and left.last > binding.cursor:
        still = view.left_out(left.last - left.first + 1, url)
        items.append(Item(key=left.key, seq=left.last, revision=1, still=still))
    heads = await _heads(uow, binding, conversation, past, task=task, intro=intro, url=url)
    changes = {theirs.key(message.id): message for message in messages if message.role is Role.USER}
    keys = [item.key for item in (*heads, *items)]
    rows = await uow.deliveries.of_binding(binding.id, [*keys, *changes]) if keys else []
    for item in (*heads, *items):
        _note_rows(item, [row for row in rows if row.item == item.key])
    items = [item for item in items if item.seq > binding.cursor or item.remotes]  # what was said before, and is not there, stays away
    if binding.mode is not BindingMode.OFF:
        items += _changes(binding, changes, dict(zip([message.id for message in messages], shown, strict=True)), rows)
    return [*heads, *sorted(items, key=lambda item: item.seq)]


async def is_untold(uow: UnitOfWork, binding: Binding) -> bool:
    """Whether a place that was to follow was never told anything."""
    return binding.followed and not await uow.deliveries.of_binding(binding.id, [CARD, INTRO])


async def answers(uow: UnitOfWork, binding: Binding, item: Item) -> str:
    """The remote id of what a person said at the channel's top that a reply answers; empty for what answers nothing."""
    if item.said is None or item.said["role"] != Role.ASSISTANT or not item.said["turn_id"]:
        return ""
    turn = await uow.turns.get(UUID(item.said["turn_id"]))
    rows = await uow.deliveries.of_binding(binding.id, [str(turn.user_message_id)]) if turn else []
    return next((row.remote_id for row in rows if row.state is DeliveryState.THEIRS and not row.thread and row.remote_id), "")


def _last(binding: Binding, conversation: Conversation) -> int:
    """The seq of the last message that is shown there."""
    newest = conversation.next_seq - 1
    return min(binding.until or 0, newest) if binding.mode is BindingMode.OFF else newest


async def _heads(
    uow: UnitOfWork, binding: Binding, conversation: Conversation, past: Past, *, task: Task | None, intro: Delivery | None, url: str
) -> list[Item]:
    """What stands before all messages: the card, and in a place that follows what it follows."""
    if not (task or binding.followed):
        return []
    task_said = await task_json(uow, task, conversation) if task else None
    shown = [binding_json(each, {}) for each in await uow.bindings.of_conversation(conversation.id)]
    also = wording.also(shown, but=str(binding.id))
    heads = []
    if task and task_said:
        heads.append(Item(key=CARD, seq=0, revision=task.version, still=view.card(task_said, url, also)))
    if binding.followed:
        begin = beginnings.begin_of(binding, intro)
        before = await past.read(uow, conversation, begin)
        standing = beginnings.standing(binding, conversation, also="" if task else also)
        heads.append(Item(key=INTRO, seq=0, revision=begin, still=view.intro(task_said, conversation.title, url, before, standing)))
    return heads


async def _messages(uow: UnitOfWork, binding: Binding, conversation: Conversation, after: int) -> Sequence[Message]:
    beyond = await uow.messages.since(conversation.id, after + 1)
    changed = {row.message_id for row in await uow.deliveries.unsettled(binding.id) if row.message_id}
    # A question loses its buttons when something is said behind it, and a reply that broke off loses its own with the next turn.
    before = await uow.messages.page(conversation.id, before=beyond[0].seq, limit=_JUST_BEFORE) if beyond else []
    changed |= {each.id for each in before if each.metadata.get("question") or (each.turn_id and each.status in _BROKEN_OFF)}
    # What waits for its answer can be changed elsewhere without a trace.
    changed |= {turn.user_message_id for turn in await uow.turns.unfinished(conversation.id)}
    older = await uow.messages.of_ids(changed - {each.id for each in beyond})
    last = _last(binding, conversation)
    found = sorted([*older, *beyond], key=lambda message: message.seq)
    return [message for message in found if message.seq <= last]


def _of_message(message: Message, said: JSON) -> Item:
    return Item(key=str(message.id), seq=message.seq, revision=message.revision, message_id=message.id, said=said)


def _word_beginnings(messages: Sequence[Message], items: Sequence[Item], binding: Binding, url: str) -> None:
    """That the conversation is shown there is told by the intro, and by a line of its own where it is so again."""
    for message, item in zip(messages, items, strict=True):
        if beginnings.begins(message, binding):
            item.said, item.still = None, None if beginnings.is_first(message) else view.back(url)


def _changes(binding: Binding, messages: dict[str, Message], shown: dict[UUID, JSON], rows: Sequence[Delivery]) -> list[Item]:
    """What is said of messages that people wrote there and changed elsewhere; also where nothing is left to be said of one."""
    by_item = {row.item: row for row in rows}
    found = []
    for key, message in messages.items():
        row = by_item.get(str(message.id))
        if row is None or not theirs.concerns(row, message, is_said=key in by_item):
            continue
        still = view.changed(shown[message.id]) if theirs.differs(row, message) else None
        answers = row.remote_id or "" if row.thread == binding.place.thread else ""
        item = Item(key=key, seq=message.seq, revision=message.revision, message_id=message.id, still=still, theirs=row, answers=answers)
        _note_rows(item, [each for each in rows if each.item == key])
        found.append(item)
    return found


async def _note_answers(uow: UnitOfWork, conversation: Conversation, items: Sequence[Item]) -> None:
    """Who answered what to the questions that had answers to choose from."""
    asked = [item for item in items if item.said and (item.said["metadata"].get("question") or {}).get("options")]
    if not asked or conversation.next_seq <= asked[0].seq + 1:
        return
    behind = [each for each in await uow.messages.since(conversation.id, asked[0].seq + 1) if each.role is Role.USER]
    names = await uow.users.names({each.author_id for each in behind if each.author_id})
    for item in asked:
        if answer := next((each for each in behind if each.seq > item.seq), None):
            name = names.get(answer.author_id) if answer.author_id else None
            item.answer = Answer(by=name or "Somebody", text=answer.content)


async def _mark_past(uow: UnitOfWork, conversation: Conversation, items: Sequence[Item]) -> None:
    broken_off = [item for item in items if item.said and item.said["role"] == Role.ASSISTANT and item.said["status"] in _BROKEN_OFF]
    last = await uow.turns.last(conversation.id) if broken_off else None
    for item in broken_off:
        item.is_past = last is not None and item.said is not None and item.said["turn_id"] != str(last.id)


def _note_rows(item: Item, rows: Sequence[Delivery]) -> None:
    item.is_theirs = any(row.state is DeliveryState.THEIRS for row in rows)
    item.remotes = [] if item.is_theirs else [Remote(row) for row in rows]
