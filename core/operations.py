"""What admins see of the work, whoever asked for it, and what they may do about it: the queue, its turns, the workers.

What people write, and what they call it, is none of it: a conversation is named only to an admin who may read it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

import structlog

from core import messages, turns
from core.access import Principal, require_admin
from core.errors import Conflict, InvalidInput, NotFound
from core.frames import WORKER_SILENT
from core.models import Conversation, ModelPause, Turn, TurnStatus, WorkerInfo
from core.ports import QueueState, UnitOfWork

LISTED: Final = (TurnStatus.QUEUED, TurnStatus.RUNNING, TurnStatus.WAITING, TurnStatus.FAILED)
"""The turns that an admin may have to look after."""
_DAY = timedelta(days=1)
_WATCH = "see the work of all"
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownWorker:
    worker: WorkerInfo
    running: int
    """Turns that it answers now."""
    alive: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    queue: QueueState
    oldest_queued_seconds: float | None
    """How long the oldest queued turn waits; None where none does."""
    failed_last_day: int
    workers: tuple[KnownWorker, ...]
    """Those that were heard of within a day and did not end in order; the newest first."""
    pauses: tuple[ModelPause, ...]
    """Of the models that nobody may ask now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedTurn:
    turn: Turn
    author: str
    conversation: Conversation | None
    """None where the admin may not read it."""
    no_worker: bool
    """Whether it is queued and no worker runs that could answer it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnPage:
    turns: tuple[ListedTurn, ...]
    next_cursor: UUID | None


async def overview(uow: UnitOfWork, principal: Principal) -> Overview:
    require_admin(principal, _WATCH)
    queue = await uow.turns.state()
    running = await uow.turns.running_by_worker()
    silent_since = uow.now - WORKER_SILENT
    known = [
        KnownWorker(worker=each, running=running.get(each.id, 0), alive=each.heartbeat_at > silent_since)
        for each in await uow.workers.alive(uow.now - _DAY)
    ]
    oldest = queue.oldest_queued_at
    return Overview(
        queue=queue,
        oldest_queued_seconds=max((uow.now - oldest).total_seconds(), 0.0) if oldest else None,
        failed_last_day=await uow.turns.failed_since(uow.now - _DAY),
        workers=tuple(reversed(known)),
        pauses=tuple(pause for pause in await uow.pauses.all() if pause.paused_until > uow.now),
    )


async def page(
    uow: UnitOfWork, principal: Principal, statuses: Collection[TurnStatus] = LISTED, *, after: UUID | None = None, limit: int = 50
) -> TurnPage:
    """Everybody's turns of these statuses, the newest first; `next_cursor` is the `after` of the next page."""
    require_admin(principal, _WATCH)
    if not {*statuses} <= {*LISTED}:
        raise InvalidInput(f"Only these turns are listed: {', '.join(LISTED)}.")
    found = [turn for status in {*statuses} for turn in await uow.turns.page(status, after=after, limit=limit + 1)]
    found.sort(key=lambda turn: turn.id, reverse=True)
    shown = await _listed(uow, principal, found[:limit])
    return TurnPage(turns=tuple(shown), next_cursor=shown[-1].turn.id if len(found) > limit else None)


async def retry(uow: UnitOfWork, principal: Principal, turn_id: UUID) -> ListedTurn:
    """Answers a failed or stopped message again, whoever's it is, in place.

    Raises Conflict where it is not the conversation's last: it would have to be posted anew, in its author's name.
    """
    require_admin(principal, "retry the answers to others")
    turn = await _held(uow, turn_id)
    await messages.retryable(uow, turn)
    if not await turns.is_last(uow, turn):
        raise Conflict("Something was asked after it in its conversation, so only those who may write there can ask for it again.")
    await turns.retry_in_place(uow, turn)
    _log.info("turn.retried", turn_id=str(turn_id), by=str(principal.user_id))
    return await _as_it_is(uow, principal, turn)


async def cancel(uow: UnitOfWork, principal: Principal, turn_id: UUID) -> ListedTurn:
    """Stops a turn, whoever's it is; nothing happens to one that has ended."""
    require_admin(principal, "stop the answers to others")
    turn = await turns.stop(uow, await _held(uow, turn_id))
    _log.info("turn.stopped", turn_id=str(turn_id), by=str(principal.user_id))
    return await _as_it_is(uow, principal, turn)


async def _held(uow: UnitOfWork, turn_id: UUID) -> Turn:
    turn = await uow.turns.lock(turn_id)
    if turn is None:
        raise NotFound(f"There is no turn {turn_id}.")
    return turn


async def _as_it_is(uow: UnitOfWork, principal: Principal, turn: Turn) -> ListedTurn:
    return (await _listed(uow, principal, [await uow.turns.get(turn.id) or turn]))[0]


async def _listed(uow: UnitOfWork, principal: Principal, found: Sequence[Turn]) -> list[ListedTurn]:
    if not found:
        return []
    may_read = {turn.conversation_id for turn in found} if "chat" in principal.scopes else set()
    readable = {each.id: each for each in await uow.conversations.readable(may_read, principal)} if may_read else {}
    names = await uow.users.names({turn.author_id for turn in found})
    workers = await uow.workers.alive(uow.now - WORKER_SILENT)
    return [
        ListedTurn(
            turn=turn,
            author=names[turn.author_id],
            conversation=readable.get(turn.conversation_id),
            no_worker=turn.status is TurnStatus.QUEUED and not any(worker.serves(turn.model) for worker in workers),
        )
        for turn in found
    ]
