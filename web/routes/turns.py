"""Turns: what becomes of a message, and what a person may do about it."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Request
from starlette.responses import Response

from core import approvals, frames, messages, turns
from core.models import JSON, Approval
from core.ports import UnitOfWork
from web import schemas
from web.credentials import Caller
from web.events import EventStream, Place, TurnEvents
from web.openapi import EVENTS
from web.parameters import no_repeats, source_of
from web.problems import documented
from web.replies import accepted, turn_json
from web.services import services_of

router = APIRouter(prefix="/api", tags=["turns"], dependencies=[Depends(no_repeats)])


@router.get("/turns/{turn_id}", response_model=schemas.Turn, response_model_exclude_unset=True)
async def get_turn(request: Request, caller: Caller, turn_id: UUID) -> JSON:
    """What became of a message: the state of its turn, and the reply as far as it is stored."""
    async with services_of(request).storage.read() as uow:
        return await turn_json(uow, await turns.get(uow, caller, turn_id))


@router.get("/turns/{turn_id}/events", response_class=Response, responses={200: EVENTS})
async def follow_turn(
    request: Request,
    caller: Caller,
    turn_id: UUID,
    last_event_id: Annotated[
        str | None, Header(description="The id of the last event that you got: only what came after it is sent.")
    ] = None,
) -> Response:
    """Follow a reply as it is written, as server-sent events; ends with `llm_complete` (then `llm_error`, where it failed).

    The data of `llm_delta` is `{message_id, stream_no, offset, delta}`: cut your text at `offset` and add `delta`. Offsets count UTF-16
    code units, as JavaScript does. An event's id is `<stream_no>.<offset after it>`; send the last one as `Last-Event-ID` and you get
    exactly what you miss. The other events are `tool_call`, `turn_changed`, `agent_status` and `conversation_deleted`; docs/protocol.md
    tells what they hold. A response lasts for 15 minutes at most: while a turn waits for a person, come back. Come no more after
    `llm_complete`.
    """
    services = services_of(request)
    async with services.storage.read() as uow:
        turn = await turns.get(uow, caller, turn_id)
    return EventStream(TurnEvents(services, caller, turn, Place.of(last_event_id)).encoded())


@router.post("/turns/{turn_id}/cancel", response_model=schemas.Turn, response_model_exclude_unset=True)
async def cancel_turn(request: Request, caller: Caller, turn_id: UUID) -> JSON:
    """Stop a reply. What was written so far stays. Nothing happens to one that has ended."""
    async with services_of(request).storage.write() as uow:
        return await turn_json(uow, await turns.cancel(uow, caller, turn_id))


@router.post(
    "/turns/{turn_id}/retry",
    status_code=202,
    response_model=schemas.Posted,
    response_model_exclude_unset=True,
    responses=documented(409, 429),
)
async def retry_turn(request: Request, caller: Caller, turn_id: UUID) -> Response:
    """Answer a failed or stopped message again: the conversation's last one in place, an earlier one as a new message at the end."""
    services = services_of(request)
    async with services.storage.write() as uow:
        posted = await messages.retry(uow, caller, turn_id, rules=services.posting, source=source_of(request))
    return await accepted(services, caller, posted)


@router.post("/approvals/{approval_id}", response_model=schemas.Approval, responses=documented(409))
async def decide(request: Request, caller: Caller, approval_id: UUID, body: schemas.ApprovalDecision) -> JSON:
    """Allow or forbid a tool call that waits for a person. The first decision counts."""
    async with services_of(request).storage.write() as uow:
        return await _approval_json(uow, await approvals.decide(uow, caller, approval_id, body.decision))


async def _approval_json(uow: UnitOfWork, approval: Approval) -> JSON:
    names = await uow.users.names([approval.decided_by] if approval.decided_by else [])
    return {
        "id": str(approval.id),
        "turn_id": str(approval.turn_id),
        "conversation_id": str(approval.conversation_id),
        "step": approval.step,
        "index": approval.index,
        "status": approval.status.value,
        "decided_by": names.get(approval.decided_by) if approval.decided_by else None,
        "created_at": frames.time_json(approval.created_at),
        "expires_at": frames.time_json(approval.expires_at),
        "decided_at": frames.time_json(approval.decided_at),
    }
