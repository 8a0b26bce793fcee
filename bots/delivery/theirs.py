"""What people wrote at a place themselves. Nobody else can change it there: where it was changed elsewhere, a line says so."""

import hashlib
from uuid import UUID

from core.models import Delivery, DeliveryState, Message


def standing(content: str) -> str:
    """What a delivery notes of a text that stands at its place as somebody wrote it there; of "" for one that they deleted there."""
    return hashlib.sha256(content.encode()).hexdigest()


def key(message_id: UUID) -> str:
    """The item of the line that says what became of a message elsewhere."""
    return f"changed:{message_id}"


def differs(row: Delivery, message: Message) -> bool:
    """Whether what stands there is not what the message says by now."""
    return row.shown != standing(message.content)


def concerns(row: Delivery, message: Message, *, is_said: bool) -> bool:
    """Whether something may have to be said of it, or to be noted; `is_said`: something was."""
    if row.state is not DeliveryState.THEIRS or not (row.shown and row.remote_id):
        return False
    is_unnoted = row.revision != message.revision and bool(message.edited_at or message.deleted_at)
    return is_said or is_unnoted or differs(row, message)
