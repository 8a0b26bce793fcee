"""Single messages: changed, erased, answered."""

from uuid import UUID

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from core import frames, messages
from core.models import JSON
from web import schemas
from web.credentials import Caller
from web.parameters import no_repeats, source_of
from web.problems import documented
from web.replies import accepted
from web.services import services_of

router = APIRouter(prefix="/api/messages", tags=["messages"], dependencies=[Depends(no_repeats)])


@router.patch("/{message_id}", response_model=schemas.Message, response_model_exclude_unset=True, responses=documented(409))
async def edit_message(request: Request, caller: Caller, message_id: UUID, body: schemas.MessageEdit) -> JSON:
    """Change what you wrote. An answer that has not begun answers the new text; otherwise the message is marked as edited."""
    services = services_of(request)
    async with services.storage.write() as uow:
        message = await messages.edit(uow, caller, message_id, body.content, rules=services.posting)
        return (await frames.messages_json(uow, [message]))[0]


@router.delete("/{message_id}", status_code=204, responses=documented(409))
async def delete_message(request: Request, caller: Caller, message_id: UUID) -> None:
    """Erase what a message says, and stop its answer. Its place in the conversation stays."""
    async with services_of(request).storage.write() as uow:
        await messages.delete(uow, caller, message_id)


@router.post(
    "/{message_id}/answer",
    status_code=202,
    response_model=schemas.Posted,
    response_model_exclude_unset=True,
    responses=documented(409, 429),
)
async def answer_question(request: Request, caller: Caller, message_id: UUID, body: schemas.QuestionAnswer) -> Response:
    """Answer the question that a reply ended with (`metadata.question`), by an option or in your own words. The first answer counts."""
    services = services_of(request)
    async with services.storage.write() as uow:
        posted = await messages.answer(uow, caller, message_id, body.option, rules=services.posting, source=source_of(request))
    return await accepted(services, caller, posted)
