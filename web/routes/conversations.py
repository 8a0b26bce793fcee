"""Conversations and what was said in them."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request

from core import conversations, frames, messages
from core.access import Principal
from core.models import JSON, Conversation
from core.ports import UnitOfWork
from web import schemas
from web.credentials import Caller
from web.parameters import Limit, no_repeats
from web.problems import documented
from web.services import services_of

SHOWN_MESSAGES = 50
router = APIRouter(prefix="/api/conversations", tags=["conversations"], dependencies=[Depends(no_repeats)])


@router.get("", response_model=schemas.Conversations)
async def list_conversations(
    request: Request,
    caller: Caller,
    limit: Limit = 50,
    offset: Annotated[int, Query(ge=0, le=schemas.MAX_INTEGER, description="How many to skip.")] = 0,
    archived: Annotated[bool, Query(description="The archived ones instead of all others.")] = False,
) -> JSON:
    """The conversations that you may see, the most recently used first."""
    async with services_of(request).storage.read() as uow:
        page = await conversations.page(uow, caller, archived=archived, limit=limit, offset=offset)
        shown = await frames.read_conversations_json(uow, page.conversations, caller.user_id)
    return {"conversations": shown, "total": page.total, "limit": limit, "offset": offset}


@router.get("/{conversation_id}", response_model=schemas.ConversationWithMessages, response_model_exclude_unset=True)
async def get_conversation(request: Request, caller: Caller, conversation_id: UUID) -> JSON:
    """A conversation with its last 50 messages, ascending."""
    async with services_of(request).storage.read() as uow:
        conversation = await conversations.get(uow, caller, conversation_id)
        about = await frames.shown_conversation_json(uow, conversation, caller.user_id)
        return {**about, **await _messages_json(uow, caller, conversation_id, limit=SHOWN_MESSAGES)}


@router.patch("/{conversation_id}", response_model=schemas.Conversation, responses=documented(409))
async def change_conversation(request: Request, caller: Caller, conversation_id: UUID, body: schemas.ConversationPatch) -> JSON:
    """Rename it, choose the model that answers from now on, or archive it. A task's conversation has the task's title."""
    async with services_of(request).storage.write() as uow:
        if "title" in body.model_fields_set:
            await conversations.rename(uow, caller, conversation_id, body.title)
        if "model" in body.model_fields_set:
            await conversations.set_model(uow, caller, conversation_id, body.model)
        if "archived" in body.model_fields_set:
            change = conversations.archive if body.archived else conversations.unarchive
            await change(uow, caller, conversation_id)
        return await _conversation_json(uow, caller, await conversations.get(uow, caller, conversation_id))


@router.delete("/{conversation_id}", status_code=204, responses=documented(409))
async def delete_conversation(request: Request, caller: Caller, conversation_id: UUID) -> None:
    """Remove it for good, with all its messages; what runs in it stops. A task's conversation goes with its task."""
    async with services_of(request).storage.write() as uow:
        await conversations.delete(uow, caller, conversation_id)


@router.put("/{conversation_id}/read", status_code=204, responses=documented(409))
async def mark_read(request: Request, caller: Caller, conversation_id: UUID, body: schemas.ReadMark) -> None:
    """Note how far you have read it, for all your devices. It never goes back."""
    async with services_of(request).storage.write() as uow:
        await conversations.mark_read(uow, caller, conversation_id, body.seq)


@router.get("/{conversation_id}/messages", response_model=schemas.Messages, response_model_exclude_unset=True)
async def list_messages(
    request: Request,
    caller: Caller,
    conversation_id: UUID,
    before: Annotated[int | None, Query(ge=1, le=schemas.MAX_INTEGER, description="Only those of a lower `seq`.")] = None,
    limit: Limit = 50,
) -> JSON:
    """The last messages, or the last before one of them, ascending."""
    async with services_of(request).storage.read() as uow:
        return await _messages_json(uow, caller, conversation_id, before=before, limit=limit)


async def _conversation_json(uow: UnitOfWork, caller: Principal, conversation: Conversation) -> JSON:
    return (await frames.read_conversations_json(uow, [conversation], caller.user_id))[0]


async def _messages_json(uow: UnitOfWork, caller: Principal, conversation_id: UUID, *, limit: int, before: int | None = None) -> JSON:
    page = await messages.page(uow, caller, conversation_id, before=before, limit=limit)
    return {"messages": await frames.messages_json(uow, page.messages), "has_more": page.has_more}
