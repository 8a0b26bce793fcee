"""Conversations: made, listed, renamed, given a model, made private, archived, deleted."""

from dataclasses import dataclass
from uuid import UUID

from core import projects, turns
from core.access import Audience, Principal, require
from core.errors import Conflict, InvalidInput, NotFound
from core.events import ConversationChanged, ConversationDeleted, ConversationRead, Readers, TaskChanged
from core.ids import new_id
from core.llm.providers import checked
from core.models import AgentStatus, Binding, ChannelKind, Conversation, Project, Visibility
from core.ports import UnitOfWork
from core.text import clean

MAX_TITLE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationPage:
    conversations: tuple[Conversation, ...]
    message_counts: dict[UUID, int]
    total: int


async def create(
    uow: UnitOfWork, principal: Principal, *, title: str = "", model: str | None = None, conversation_id: UUID | None = None
) -> Conversation:
    """A private chat without a task. Without a title it gets one from its first message."""
    require(principal, "chat")
    project = await projects.default(uow)
    model = checked(model, any_provider=principal.admin) if model else None
    private = Visibility.PRIVATE
    return await add(uow, principal, title=_title(title), visibility=private, project=project, model=model, conversation_id=conversation_id)


async def add(
    uow: UnitOfWork,
    principal: Principal,
    *,
    title: str,
    visibility: Visibility,
    project: Project,
    model: str | None = None,
    conversation_id: UUID | None = None,
) -> Conversation:
    """`conversation_id` is the id that it gets, where that was made before."""
    conversation = Conversation(
        id=conversation_id or new_id(),
        task_id=None,
        task_ref=None,
        project_id=project.id,
        project_model=project.model,
        owner_id=principal.user_id,
        visibility=visibility,
        title=title,
        model=model,
        agent_status=AgentStatus.IDLE,
        agent_status_message="",
        next_seq=1,
        window_from_seq=1,
        created_at=uow.now,
        updated_at=uow.now,
    )
    await uow.conversations.add(conversation)
    uow.emit(ConversationChanged(conversation_id=conversation.id))
    return conversation


async def get(uow: UnitOfWork, principal: Principal, conversation_id: UUID) -> Conversation:
    require(principal, "chat")
    conversation = await uow.conversations.get(conversation_id, principal)
    if conversation is None:
        raise NotFound(f"There is no conversation {conversation_id}.")
    return conversation


async def hold(uow: UnitOfWork, conversation_id: UUID) -> None:
    """Holds its unfinished turns, then its row, until the transaction ends. Whoever decides on a turn takes them in that order, too."""
    for turn in await uow.turns.unfinished(conversation_id):
        await uow.turns.lock(turn.id)
    await uow.conversations.update(conversation_id)


async def page(uow: UnitOfWork, principal: Principal, *, archived: bool = False, limit: int = 50, offset: int = 0) -> ConversationPage:
    """The archived ones, or all others; the most recently used first."""
    require(principal, "chat")
    found = tuple(await uow.conversations.page(principal, archived=archived, limit=limit, offset=offset))
    extents = await uow.messages.extents([each.id for each in found])
    counts = {conversation_id: extent.messages for conversation_id, extent in extents.items()}
    total = await uow.conversations.count(principal, archived=archived)
    return ConversationPage(conversations=found, message_counts=counts, total=total)


async def active(uow: UnitOfWork, principal: Principal, *, limit: int) -> list[Conversation]:
    """Those in which the agent is not idle, the last changed first; archived ones are left out."""
    require(principal, "chat")
    return await uow.conversations.active(principal, limit=limit)


async def mark_read(uow: UnitOfWork, principal: Principal, conversation_id: UUID, seq: int) -> None:
    """Notes that this person has read up to the message at `seq`, 0 before the first.

    Reading takes a mark never back, nor beyond what has been said: a reply that is not finished cannot be read.
    """
    await get(uow, principal, conversation_id)
    seq = min(seq, (await uow.messages.extents([conversation_id]))[conversation_id].last_seq)
    if await uow.read_marks.advance(conversation_id, principal.user_id, seq):
        uow.emit(ConversationRead(conversation_id=conversation_id, user_id=principal.user_id, seq=seq))


async def rename(uow: UnitOfWork, principal: Principal, conversation_id: UUID, title: str) -> None:
    conversation = await get(uow, principal, conversation_id)
    if conversation.task_ref:
        raise Conflict(f"This conversation belongs to {conversation.task_ref}. Change the task's title instead.")
    if not _title(title):
        raise InvalidInput(f"A title has 1-{MAX_TITLE} characters.")
    await set_title(uow, conversation_id, _title(title))


async def set_title(uow: UnitOfWork, conversation_id: UUID, title: str) -> None:
    await uow.conversations.update(conversation_id, title=title)
    uow.emit(ConversationChanged(conversation_id=conversation_id))


async def set_model(uow: UnitOfWork, principal: Principal, conversation_id: UUID, model: str | None) -> None:
    """For the messages from now on; None goes back to the project's or the default model."""
    await get(uow, principal, conversation_id)
    await uow.conversations.update(conversation_id, model=checked(model, any_provider=principal.admin) if model else None)
    uow.emit(ConversationChanged(conversation_id=conversation_id))


async def archive(uow: UnitOfWork, principal: Principal, conversation_id: UUID) -> None:
    """Leaves it out of lists until somebody writes in it. Its task, if it has one, stays where it is."""
    conversation = await get(uow, principal, conversation_id)
    if conversation.archived_at is None:
        await uow.conversations.update(conversation_id, archived_at=uow.now)
        uow.emit(ConversationChanged(conversation_id=conversation_id))


async def unarchive(uow: UnitOfWork, principal: Principal, conversation_id: UUID) -> None:
    await bring_back(uow, await get(uow, principal, conversation_id))


async def bring_back(uow: UnitOfWork, conversation: Conversation) -> None:
    """Lists it again, where it was archived."""
    if conversation.archived_at:
        await uow.conversations.update(conversation.id, archived_at=None)
        uow.emit(ConversationChanged(conversation_id=conversation.id))


async def join(uow: UnitOfWork, principal: Principal, conversation_id: UUID) -> None:
    """Makes somebody a member who reads along already: where a private conversation is shown on a chat platform, who is let in there."""
    require(principal, "chat")
    conversation = await uow.conversations.find(conversation_id)
    if conversation is None:
        raise NotFound(f"There is no conversation {conversation_id}.")
    if conversation.visibility is Visibility.PRIVATE and principal.user_id not in await _private_readers(uow, conversation):
        await uow.conversations.add_member(conversation_id, principal.user_id)
        uow.emit(ConversationChanged(conversation_id=conversation_id))


async def make_private(uow: UnitOfWork, conversation_id: UUID) -> None:
    """From now on it is its owner's and its members', where it was everybody's: the place where it is held became private."""
    conversation = await uow.conversations.find(conversation_id)
    if conversation is None or conversation.visibility is Visibility.PRIVATE:
        return
    await uow.conversations.update(conversation_id, visibility=Visibility.PRIVATE)
    uow.emit(ConversationChanged(conversation_id=conversation_id))
    if conversation.task_id:
        uow.emit(TaskChanged(conversation_id=conversation_id, task_id=conversation.task_id))


async def delete(uow: UnitOfWork, principal: Principal, conversation_id: UUID) -> None:
    """Removes a conversation for good, after stopping what runs in it."""
    conversation = await get(uow, principal, conversation_id)
    if conversation.task_ref:
        raise Conflict(f"This conversation belongs to {conversation.task_ref}. Delete the task instead.")
    await remove(uow, conversation)


async def remove(uow: UnitOfWork, conversation: Conversation) -> None:
    who = await readers(uow, conversation)
    await turns.cancel_all(uow, conversation.id)
    await uow.conversations.delete(conversation.id)
    uow.emit(ConversationDeleted(conversation_id=conversation.id, readers=who))


async def audience(uow: UnitOfWork, conversation: Conversation) -> Audience:
    """Who reads along what is said in it: its readers, and whoever reads a place where it is followed, who may be anybody."""
    users = None if conversation.visibility is Visibility.SHARED else await _private_readers(uow, conversation)
    if users is not None and any(map(_has_other_readers, await uow.bindings.of_conversation(conversation.id))):
        users = None
    return Audience(conversation_id=conversation.id, users=users)


async def readers(uow: UnitOfWork, conversation: Conversation) -> Readers:
    """Who may see it."""
    return None if conversation.visibility is Visibility.SHARED else tuple(sorted(await _private_readers(uow, conversation)))


def _has_other_readers(binding: Binding) -> bool:
    return binding.followed and binding.kind is not ChannelKind.DIRECT and (binding.is_on or binding.is_delivered_to)


async def _private_readers(uow: UnitOfWork, conversation: Conversation) -> frozenset[UUID]:
    return await uow.conversations.members(conversation.id) | {conversation.owner_id}


def _title(text: str) -> str:
    title = " ".join(clean(text).split())
    if len(title) > MAX_TITLE:
        raise InvalidInput(f"A title has at most {MAX_TITLE} characters; this one has {len(title)}.")
    return title
