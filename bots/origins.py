"""What came in from a place, noted as deliveries of its binding: it is never sent there, and known again when it is edited or removed."""

from datetime import datetime
from uuid import UUID

from bots.delivery.theirs import standing
from core.ids import new_id
from core.models import Binding, Delivery, DeliveryState, Message
from core.ports import UnitOfWork

_BEGINNING = "imported"
"""The item of the delivery that notes since when what is said at the place comes in by itself."""


def theirs(binding: Binding, message: Message, at: datetime, *, remote_id: str, thread: str) -> Delivery:
    """Of a message that came from there, as it stands there. `at` is when its text was written, by the platform's clock."""
    return _theirs(binding, str(message.id), message.id, at, remote_id=remote_id, thread=thread, shown=standing(message.content))


def imported(binding: Binding, message_id: UUID, at: datetime) -> Delivery:
    """Of a message of ours that holds what was said there before."""
    return _theirs(binding, str(message_id), message_id, at)


async def begin(uow: UnitOfWork, binding: Binding, at: datetime) -> None:
    """What was said there before does not come in by itself: it was imported, or is none of the conversation's."""
    await uow.deliveries.put(_theirs(binding, _BEGINNING, None, at))


async def is_before(uow: UnitOfWork, binding: Binding, at: datetime) -> bool:
    """Whether what was written then does not come in."""
    return any(at < each.sent_at for each in await uow.deliveries.of_binding(binding.id, [_BEGINNING]))


def _theirs(
    binding: Binding,
    item: str,
    message_id: UUID | None,
    at: datetime,
    *,
    remote_id: str | None = None,
    thread: str = "",
    shown: str = "",
) -> Delivery:
    return Delivery(
        binding_id=binding.id,
        item=item,
        part=0,
        message_id=message_id,
        revision=0,
        remote_id=remote_id,
        thread=thread,
        nonce=new_id(),
        state=DeliveryState.THEIRS,
        end=None,
        shown=shown,
        sent_at=at,
    )
