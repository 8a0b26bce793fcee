"""What a place is told first of a conversation that it follows from then on: what went before, and how it stands to it."""

from collections.abc import Sequence

from bots.view import Before, Standing
from core.models import (
    INTRO,
    Binding,
    BindingMode,
    ChannelKind,
    Conversation,
    Delivery,
    DeliveryState,
    Message,
    MessageStatus,
    Role,
    Visibility,
)
from core.ports import UnitOfWork

_QUOTED = 20
"""Messages at the beginning and at the end that are read for it."""


async def told(uow: UnitOfWork, binding: Binding) -> Delivery | None:
    """How it was told there; None before, and where nothing is followed."""
    rows = await uow.deliveries.of_binding(binding.id, [INTRO]) if binding.followed else []
    return rows[0] if rows else None


def begin_of(binding: Binding, row: Delivery | None) -> int:
    """The seq of the last message that went before; the same for ever, once it was told."""
    return row.revision if row and row.state is DeliveryState.FINAL else binding.cursor


def begins(message: Message, binding: Binding) -> bool:
    """Whether a message is the notice that the conversation is shown there from now on."""
    about = message.metadata
    return about.get("notice") in ("followed", "back") and about.get("binding_id") == str(binding.id)


def is_first(notice: Message) -> bool:
    """Whether such a notice tells of the first time: the intro says it there."""
    return bool(notice.metadata["notice"] == "followed")


class Past:
    """What went before at a place: read once, and not for every event. Where a message may have changed, another one is to be made."""

    def __init__(self) -> None:
        self._last: int | None = None
        self._before = Before(count=0, since=None)

    async def read(self, uow: UnitOfWork, conversation: Conversation, last: int) -> Before:
        """Up to the seq `last`."""
        if last != self._last:
            self._before = await _read(uow, conversation, last)
            self._last = last
        return self._before


def standing(binding: Binding, conversation: Conversation, *, also: str) -> Standing:
    return Standing(
        read_only=binding.mode is BindingMode.WATCH,
        read_by_others=binding.kind is not ChannelKind.OPEN and conversation.visibility is Visibility.SHARED,
        is_left=binding.mode is BindingMode.OFF,
        also=also,
    )


async def _read(uow: UnitOfWork, conversation: Conversation, last: int) -> Before:
    first = await uow.messages.since(conversation.id, 1, limit=_QUOTED) if last else []
    newest = await uow.messages.page(conversation.id, before=last + 1, limit=_QUOTED) if last else []
    read = list({each.id: each for each in (*first, *newest) if each.seq <= last}.values())
    said = [each for each in read if each.role is Role.USER]
    authors = dict.fromkeys(each.author_id for each in said if each.author_id)
    names = await uow.users.names(authors)
    summary = await uow.summaries.latest(conversation.id, upto=last)
    return Before(
        count=last - sum(each.role is Role.SYSTEM or each.deleted_at is not None for each in read),
        since=read[0].created_at if read else None,
        people=[names[each] for each in authors if each in names],
        summary=summary.text if summary else "",
        first="" if summary else _text(said),
        last="" if summary else _text([each for each in reversed(newest) if _is_answer(each)]),
    )


def _text(messages: Sequence[Message]) -> str:
    """Of the first that says something."""
    return next((each.content for each in messages if each.content.strip()), "")


def _is_answer(message: Message) -> bool:
    return message.role is Role.ASSISTANT and message.status is MessageStatus.COMPLETED
