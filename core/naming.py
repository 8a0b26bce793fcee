"""Conversations as people name them: by their task's ref, by an id, or by the address of their page."""

import re
from uuid import UUID

from core import conversations, tasks
from core.access import Principal
from core.errors import NotFound
from core.models import Conversation
from core.ports import UnitOfWork

_REF = re.compile(r"[A-Za-z][A-Za-z0-9]{1,9}-\d{1,18}")
_ID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_ADDRESS = re.compile(r"<?https?://[^\s<>|]*?/(?:conversations|tasks)/([^/?#\s<>|]+)/?(?:[?#][^\s<>|]*)?(?:\|[^<>]*)?>?")
"""Of a page, also as chat platforms write what was pasted there."""


def is_name(text: str) -> bool:
    """Whether this can name a conversation, as it is written."""
    name = _name(text)
    return bool(_REF.fullmatch(name) or _ID.fullmatch(name))


async def conversation(uow: UnitOfWork, principal: Principal, text: str) -> Conversation:
    """The one that is meant. Raises NotFound where there is none, or none that this person may see."""
    name = _name(text)
    if "://" in name:
        raise NotFound("This is the address of no task and of no conversation here.")
    if _ID.fullmatch(name) and await uow.tasks.get(UUID(name), principal) is None:
        return await conversations.get(uow, principal, UUID(name))
    task = await tasks.get(uow, principal, name.upper() if _REF.fullmatch(name) else name)
    return await conversations.get(uow, principal, task.conversation_id)


def _name(text: str) -> str:
    address = _ADDRESS.fullmatch(text.strip())
    return address[1] if address else text.strip()
