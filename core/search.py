"""Searching what a person may see: conversations by title or task, then what was said in them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from core.access import Principal, require
from core.errors import InvalidInput
from core.models import Conversation, Message
from core.ports import UnitOfWork
from core.text import clean

MAX_QUERY = 200
_BEFORE, _BEHIND = 60, 140
"""Characters of a message that are shown around what was found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    conversation: Conversation
    message: Message | None
    """None where its title or its task's ref was found."""
    excerpt: str
    """Of the message: one line of plain text around what was found."""


async def find(uow: UnitOfWork, principal: Principal, query: str, *, limit: int = 20) -> list[Hit]:
    """Conversations with all these words in title or ref, then messages with all of them, newest first. Where there are many of both,
    half of them are conversations."""
    require(principal, "chat")
    text = " ".join(clean(query).split())
    if not 1 <= len(text) <= MAX_QUERY:
        raise InvalidInput(f"Search for 1-{MAX_QUERY} characters.")
    titled = await uow.conversations.search(principal, text, limit=limit)
    said = await uow.messages.search(principal, text, limit=limit)
    titled = titled[: max(limit - len(said), (limit + 1) // 2)]
    return [_titled(each) for each in titled] + await _said(uow, said[: limit - len(titled)], text)


def _titled(conversation: Conversation) -> Hit:
    return Hit(conversation=conversation, message=None, excerpt="")


async def _said(uow: UnitOfWork, messages: Sequence[Message], text: str) -> list[Hit]:
    found = await uow.conversations.of_ids({each.conversation_id for each in messages}) if messages else []
    conversations = {each.id: each for each in found}
    return [Hit(conversation=conversations[each.conversation_id], message=each, excerpt=_excerpt(each.content, text)) for each in messages]


def _excerpt(content: str, text: str) -> str:
    words = [re.escape(word) for word in text.split()]
    places = (re.search(each, content, re.IGNORECASE) for each in (r"\s+".join(words), *words))  # best as one phrase
    place = next(filter(None, places), None)  # a database may know other letters as the same: then from the beginning
    begin = max(0, place.start() - _BEFORE) if place else 0
    end = (place.end() if place else 0) + _BEHIND
    shown = " ".join(content[begin:end].split())
    return f"{'…' if begin else ''}{shown}{'…' if end < len(content) else ''}"
