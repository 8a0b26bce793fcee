"""Bindings: the places on chat platforms where a conversation is shown."""

from collections.abc import Sequence
from uuid import UUID

from core import conversations
from core.access import Principal
from core.events import ConversationChanged
from core.ids import new_id
from core.models import Binding, BindingMode, Conversation, Place
from core.ports import UnitOfWork


async def bind(
    uow: UnitOfWork,
    principal: Principal,
    conversation_id: UUID,
    place: Place,
    *,
    mode: BindingMode = BindingMode.TWO_WAY,
    opened: bool = True,
) -> Binding:
    """Shows a conversation at a place from now on, beginning with the oldest message that waits for an answer.

    Where the platform's thread is still to be made, `opened` is False and the place's thread a name of ours. Raises Conflict where the
    place shows a conversation already.
    """
    conversation = await conversations.get(uow, principal, conversation_id)
    binding = Binding(
        id=new_id(),
        conversation_id=conversation_id,
        surface=place.account.surface,
        account=place.account.id,
        channel=place.channel,
        thread=place.thread,
        opened=opened,
        mode=mode,
        cursor=await _before_what_is_new(uow, conversation),
        ended=None,
        status_shown=False,
        created_at=uow.now,
        updated_at=uow.now,
    )
    await uow.bindings.add(binding)
    uow.emit(ConversationChanged(conversation_id=conversation_id))
    return binding


async def at(uow: UnitOfWork, place: Place) -> Binding | None:
    """What a place shows; also where nothing is delivered to it any more."""
    return await uow.bindings.at(place)


async def of_conversation(uow: UnitOfWork, principal: Principal, conversation_id: UUID) -> Sequence[Binding]:
    """The places where it is shown, the oldest first; ended ones too."""
    await conversations.get(uow, principal, conversation_id)
    return await uow.bindings.of_conversation(conversation_id)


async def end(uow: UnitOfWork, binding: Binding, reason: str) -> None:
    """Nothing is delivered to the place any more. `reason` is a stable code, such as `is_archived`."""
    await uow.bindings.update(binding.id, ended=reason)
    uow.emit(ConversationChanged(conversation_id=binding.conversation_id))


async def revive(uow: UnitOfWork, binding: Binding) -> None:
    """Delivers to the place again, without what was said meanwhile and is answered: a year of it may be missing there."""
    conversation = await uow.conversations.find(binding.conversation_id)
    if binding.ended and conversation:
        await uow.bindings.update(binding.id, ended=None, cursor=await _before_what_is_new(uow, conversation))
        uow.emit(ConversationChanged(conversation_id=binding.conversation_id))


async def _before_what_is_new(uow: UnitOfWork, conversation: Conversation) -> int:
    """The seq before the oldest message that waits for an answer, or the last one."""
    unfinished = await uow.turns.unfinished(conversation.id)
    return (unfinished[0].seq if unfinished else conversation.next_seq) - 1
