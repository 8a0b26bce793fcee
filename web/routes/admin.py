"""What admins look after: who may sign in, and the work of all."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request

from core import frames, identity, operations
from core.identity import Invitation
from core.models import JSON, ModelPause, TurnStatus, User
from core.operations import KnownWorker, ListedTurn
from web import schemas
from web.credentials import Caller
from web.parameters import Limit, no_repeats
from web.problems import documented
from web.services import Services, services_of

router = APIRouter(prefix="/api/admin", tags=["admin"], dependencies=[Depends(no_repeats)])
Cursor = Annotated[UUID | None, Query(description="The `next_cursor` of the page before.")]
Listed = Literal[TurnStatus.QUEUED, TurnStatus.RUNNING, TurnStatus.WAITING, TurnStatus.FAILED]


# --- users -----------------------------------------------------------------------------------------------------------


@router.get("/users", response_model=schemas.Users)
async def list_all_users(
    request: Request,
    caller: Caller,
    query: Annotated[str, Query(max_length=64, description="Part of the name.")] = "",
    cursor: Cursor = None,
    limit: Limit = 50,
) -> JSON:
    """Everybody, and whether they can sign in. Only admins may."""
    async with services_of(request).storage.read() as uow:
        page = await identity.directory(uow, caller, query, after=cursor, limit=limit)
    return {"users": [_user_json(each) for each in page.users], "next_cursor": page.next_cursor}


@router.post("/users", status_code=201, response_model=schemas.AddedUser, responses=documented(409))
async def add_user(request: Request, caller: Caller, body: schemas.NewUser) -> JSON:
    """Add a user, and get the link by which they set their password. Only admins may, and none by a personal token."""
    services = services_of(request)
    async with services.storage.write() as uow:
        invitation = await identity.invite(uow, caller, body.name, admin=body.admin)
    return {"user": _user_json(invitation.user), **_link_json(services, invitation)}


@router.post("/users/{user_id}/link", response_model=schemas.PasswordLink, responses=documented(409))
async def make_password_link(request: Request, caller: Caller, user_id: UUID) -> JSON:
    """Make another link by which a user sets their password; not for yourself. Only admins may, and none by a personal token."""
    services = services_of(request)
    async with services.storage.write() as uow:
        return _link_json(services, await identity.invite_again(uow, caller, user_id))


@router.patch("/users/{user_id}", response_model=schemas.User, responses=documented(409))
async def change_user(request: Request, caller: Caller, user_id: UUID, body: schemas.UserPatch) -> JSON:
    """Make a user an admin or a member, disable or enable them. Only admins may, and none by a personal token; the last one stays, and
    nobody takes it from themselves.
    """
    async with services_of(request).storage.write() as uow:
        return _user_json(await identity.change_user(uow, caller, user_id, **body.model_dump(exclude_unset=True)))


def _user_json(user: User) -> JSON:
    return {
        "id": str(user.id),
        "name": user.name,
        "admin": user.admin,
        "disabled_at": frames.time_json(user.disabled_at),
        "has_password": user.password_set_at is not None,
        "created_at": frames.time_json(user.created_at),
    }


def _link_json(services: Services, invitation: Invitation) -> JSON:
    link = f"{services.rules.public_url}/welcome?code={invitation.secret}"
    return {"link": link, "expires_at": frames.time_json(invitation.expires_at)}


# --- the work of all -------------------------------------------------------------------------------------------------


@router.get("/queue", response_model=schemas.Queue)
async def get_queue(request: Request, caller: Caller) -> JSON:
    """How much work there is, who does it, and which models are paused. Only admins may."""
    async with services_of(request).storage.read() as uow:
        found = await operations.overview(uow, caller)
    statuses = (TurnStatus.QUEUED, TurnStatus.RUNNING, TurnStatus.WAITING)
    return {
        "turns": {status.value: found.queue.numbers.get(status, 0) for status in statuses},
        "oldest_queued_seconds": found.oldest_queued_seconds,
        "failed_last_day": found.failed_last_day,
        "workers": [_worker_json(each) for each in found.workers],
        "paused_models": [_pause_json(each) for each in found.pauses],
    }


@router.get("/turns", response_model=schemas.ListedTurns)
async def list_turns(
    *,
    request: Request,
    caller: Caller,
    status: Annotated[list[Listed], Query(default_factory=list, description="Only of these; may be repeated. Without: all of them.")],
    cursor: Cursor = None,
    limit: Limit = 50,
) -> JSON:
    """Everybody's turns that have not ended, or failed, without what is said in them. Only admins may."""
    async with services_of(request).storage.read() as uow:
        page = await operations.page(uow, caller, status or operations.LISTED, after=cursor, limit=limit)
    return {"turns": [_turn_json(each) for each in page.turns], "next_cursor": page.next_cursor}


@router.post("/turns/{turn_id}/retry", status_code=202, response_model=schemas.ListedTurn, responses=documented(409))
async def retry_anybodys_turn(request: Request, caller: Caller, turn_id: UUID) -> JSON:
    """Answer a failed or stopped message again, whoever's it is, where it is its conversation's last one. Only admins may."""
    async with services_of(request).storage.write() as uow:
        return _turn_json(await operations.retry(uow, caller, turn_id))


@router.post("/turns/{turn_id}/cancel", response_model=schemas.ListedTurn)
async def cancel_anybodys_turn(request: Request, caller: Caller, turn_id: UUID) -> JSON:
    """Stop a reply, whoever it is for. Nothing happens to one that has ended. Only admins may."""
    async with services_of(request).storage.write() as uow:
        return _turn_json(await operations.cancel(uow, caller, turn_id))


def _worker_json(known: KnownWorker) -> JSON:
    worker = known.worker
    return {
        "id": str(worker.id),
        "host": worker.host,
        "pid": worker.pid,
        "concurrency": worker.concurrency,
        "running": known.running,
        "unserved": sorted(worker.unserved),
        "started_at": frames.time_json(worker.started_at),
        "heartbeat_at": frames.time_json(worker.heartbeat_at),
        "alive": known.alive,
    }


def _pause_json(pause: ModelPause) -> JSON:
    return {
        "model": pause.model,
        "paused_since": frames.time_json(pause.paused_since),
        "paused_until": frames.time_json(pause.paused_until),
        "pauses": pause.pauses,
    }


def _turn_json(listed: ListedTurn) -> JSON:
    turn, conversation = listed.turn, listed.conversation
    return {
        "turn_id": str(turn.id),
        "conversation_id": str(turn.conversation_id),
        "title": conversation.title if conversation else None,
        "task_ref": conversation.task_ref if conversation else None,
        "author": listed.author,
        "model": turn.model,
        "status": turn.status.value,
        "failures": turn.failures,
        "rescues": turn.rescues,
        "error_code": turn.error_code,
        "error": turn.error,
        "no_worker": listed.no_worker,
        "created_at": frames.time_json(turn.created_at),
        "started_at": frames.time_json(turn.started_at),
        "finished_at": frames.time_json(turn.finished_at),
    }
