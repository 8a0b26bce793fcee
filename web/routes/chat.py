"""Writing a message and getting the reply, in one request."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Request
from starlette.responses import Response

from core import messages, tasks, turns
from core.access import Principal
from core.errors import Conflict
from core.frames import Frame
from core.models import InboxKey, Posted
from core.ports import UnitOfWork
from web import bodies, schemas
from web.bodies import Body
from web.credentials import Caller
from web.events import EventStream, Place, TurnEvents, encoded
from web.openapi import EVENTS, form_or_json
from web.parameters import Key, accepts_events, inbox_key, no_repeats, prefers_async, source_of
from web.problems import documented
from web.replies import accepted, awaited, location, posted_json
from web.services import Services, services_of

router = APIRouter(prefix="/api", tags=["chat"], dependencies=[Depends(no_repeats)])


@router.post(
    "/chat",
    response_model=schemas.Posted,
    responses={
        200: {"description": "The reply.", "content": EVENTS["content"]},
        202: {"model": schemas.Posted, "description": "The reply comes later, as you preferred, or when a person decided (`tool_calls`)."},
        **documented(404, 409, 429, 502, 504),
    },
    max_body_size=bodies.MAX_FORM_BYTES,
    openapi_extra={"requestBody": form_or_json(schemas.ChatRequest)},
)
async def chat(
    request: Request,
    caller: Caller,
    key: Key = None,
    prefer: Annotated[str | None, Header(description="`respond-async`: do not wait for the reply.", examples=["respond-async"])] = None,
    accept: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> Response:
    """Write a message and wait for the reply, half a minute at most.

    The message is stored first; hanging up does not stop its answer. A reply that is late is a 504, one that failed a 502, both with
    `conversation_id`, `turn_id` and `message_id`: go on with `/api/turns/{turn_id}`. With `Accept: text/event-stream` the reply is
    streamed: two `new_message`, then what `GET /api/turns/{turn_id}/events` sends.
    """
    services = services_of(request)
    posted = await _post(services, caller, await bodies.read(request), inbox_key(caller, key), source_of(request))
    if accepts_events(accept):
        return EventStream(_events(services, caller, posted), headers=location(posted))
    if prefers_async(prefer):
        return await accepted(services, caller, posted, **{"Preference-Applied": "respond-async"})
    return await awaited(services, caller, posted)


async def _post(services: Services, caller: Principal, body: Body, key: InboxKey | None, source: str) -> Posted:
    asked = bodies.checked(schemas.ChatRequest, body.fields)
    async with services.storage.write() as uow:
        return await messages.post(
            uow,
            caller,
            await _where(uow, caller, asked),
            asked.message,
            rules=services.posting,
            source=source,
            key=key,
            model=asked.model,
            uploads=body.files,
        )


async def _where(uow: UnitOfWork, caller: Principal, asked: schemas.ChatRequest) -> UUID | None:
    if asked.task_id is None:
        return asked.conversation_id
    task = await tasks.get(uow, caller, asked.task_id)
    if asked.conversation_id not in (None, task.conversation_id):
        raise Conflict(f"{task.ref} has another conversation. Send conversation_id or task_id, one of them is enough.")
    return task.conversation_id


async def _events(services: Services, caller: Principal, posted: Posted) -> AsyncGenerator[bytes, None]:
    assert posted.turn_id is not None
    async with services.storage.read() as uow:
        turn = await turns.get(uow, caller, posted.turn_id)
        body = await posted_json(uow, caller, posted)
    yield encoded(Frame("new_message", body["user_message"]))
    yield encoded(Frame("new_message", body["message"]))
    async with aclosing(TurnEvents(services, caller, turn, Place()).encoded()) as events:
        async for event in events:
            yield event
