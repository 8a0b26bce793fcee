"""What a posted message comes to: awaited for a while, and told as an answer to the request that posted it."""

import asyncio
from http import HTTPStatus

from fastapi.responses import JSONResponse
from starlette.responses import Response

from core import conversations, frames
from core.access import Principal
from core.errors import NotFound
from core.events import ConversationDeleted, Lagged, TurnChanged
from core.live import Subscription
from core.models import JSON, Posted, Turn, TurnStatus
from core.ports import UnitOfWork
from core.wording import NO_WORKER
from web.problems import Problem
from web.services import Services

_STILL_WRITTEN = "The reply takes longer than a request may. It goes on: see GET /api/turns/{id} or /api/turns/{id}/events."
_NO_WORKER = f"{NO_WORKER} The message is stored and is answered as soon as one does (onethread worker)."


async def awaited(services: Services, caller: Principal, posted: Posted) -> Response:
    """The reply, if it comes in time: 200, or 202 where a person must decide first; a Problem with the ids where it failed or is late."""
    turn = await _settled(services, posted)
    async with services.storage.read() as uow:
        body = await posted_json(uow, caller, posted)
        waits = await frames.turn_json(uow, turn) if not _is_settled(turn) else {}
    ids = {"conversation_id": body["conversation_id"], "turn_id": body["turn_id"], "message_id": body["message"]["id"]}
    match turn.status:
        case TurnStatus.SUCCEEDED | TurnStatus.CANCELLED:
            return JSONResponse(body)
        case TurnStatus.WAITING:
            return JSONResponse(body, HTTPStatus.ACCEPTED, headers=location(posted))
        case TurnStatus.FAILED:
            return Problem("AI_SERVICE_ERROR", turn.error or "The model did not answer.", reason=turn.error_code, **ids)
        case _:
            return Problem("TIMEOUT", _NO_WORKER if waits.get("no_worker") else _STILL_WRITTEN, headers=location(posted), **ids)


async def accepted(services: Services, caller: Principal, posted: Posted, **headers: str) -> Response:
    """At once: 202, with the reply as it is, and where to see what becomes of it."""
    async with services.storage.read() as uow:
        body = await posted_json(uow, caller, posted)
    return JSONResponse(body, HTTPStatus.ACCEPTED, headers={**location(posted), **headers})


def location(posted: Posted) -> dict[str, str]:
    return {"Location": f"/api/turns/{posted.turn_id}"}


async def posted_json(uow: UnitOfWork, caller: Principal, posted: Posted) -> JSON:
    await conversations.get(uow, caller, posted.conversation_id)
    stored = [await uow.messages.get(each) for each in (posted.message_id, posted.reply_id) if each]
    user_message, message = await frames.messages_json(uow, [each for each in stored if each])
    return {
        "conversation_id": str(posted.conversation_id),
        "turn_id": str(posted.turn_id),
        "message": message,
        "user_message": user_message,
    }


async def turn_json(uow: UnitOfWork, turn: Turn) -> JSON:
    reply = await uow.messages.get(turn.reply_id)
    (message,) = await frames.messages_json(uow, [reply] if reply else [])
    return {
        **await frames.turn_json(uow, turn),
        "conversation_id": str(turn.conversation_id),
        "user_message_id": str(turn.user_message_id),
        "model": turn.model,
        "message": message,
        "created_at": frames.time_json(turn.created_at),
        "started_at": frames.time_json(turn.started_at),
        "finished_at": frames.time_json(turn.finished_at),
    }


async def _settled(services: Services, posted: Posted) -> Turn:
    """The turn when it has ended or waits for a person, or as it is when the time is over."""
    assert posted.turn_id is not None
    with services.live.subscribe(posted.conversation_id) as subscription:
        until = asyncio.get_running_loop().time() + services.rules.reply_seconds
        while True:
            async with services.storage.read() as uow:
                turn = await uow.turns.get(posted.turn_id)
            if turn is None:
                raise NotFound("The conversation was deleted before the reply came.")
            if _is_settled(turn) or not await _has_news(subscription, turn, until):
                return turn


def _is_settled(turn: Turn) -> bool:
    return turn.status.finished or turn.status is TurnStatus.WAITING


async def _has_news(subscription: Subscription, turn: Turn, until: float) -> bool:
    """Waits until something happened to the turn; False when the time is over."""
    try:
        async with asyncio.timeout_at(until):
            while True:
                match event := await subscription.get():
                    case TurnChanged() if event.turn_id == turn.id:
                        return True
                    case Lagged() | ConversationDeleted():
                        return True
    except TimeoutError:
        pass
    return False
