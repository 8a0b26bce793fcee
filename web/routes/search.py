"""Search in what the caller may see."""

from collections.abc import Mapping
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request

from core import frames, search
from core.access import Principal
from core.models import JSON, Message
from web import schemas
from web.credentials import Caller
from web.long_reads import once_for
from web.parameters import Limit, no_repeats
from web.problems import documented
from web.services import Services, services_of

router = APIRouter(prefix="/api/search", tags=["conversations"], dependencies=[Depends(no_repeats)])
Text = Annotated[str, Query(min_length=1, max_length=search.MAX_QUERY, pattern=schemas.NOT_BLANK, description="What to look for.")]


@router.get("", response_model=schemas.SearchResults, responses=documented(429))
async def search_conversations(request: Request, caller: Caller, query: Text, limit: Limit = 20) -> JSON:
    """Conversations whose title or task's ref has all the words, then messages that have them, newest first; archived ones, too.

    One search of yours runs at a time: another one ends it.
    """
    return await once_for(request, caller, "search", _results(services_of(request), caller, query, limit))


async def _results(services: Services, caller: Principal, query: str, limit: int) -> JSON:
    async with services.storage.read() as uow:
        hits = await search.find(uow, caller, query, limit=limit)
        shown = await frames.read_conversations_json(uow, [hit.conversation for hit in hits], caller.user_id)
        names = await uow.users.names({hit.message.author_id for hit in hits if hit.message and hit.message.author_id})
    results = [
        {"conversation": conversation, "message": _message_json(hit.message, names) if hit.message else None, "excerpt": hit.excerpt}
        for hit, conversation in zip(hits, shown, strict=True)
    ]
    return {"results": results}


def _message_json(message: Message, names: Mapping[UUID, str]) -> JSON:
    return {
        "id": str(message.id),
        "seq": message.seq,
        "role": message.role.value,
        "author": names.get(message.author_id) if message.author_id else None,
        "created_at": frames.time_json(message.created_at),
    }
