"""The turns as a durable queue: claimed by one conditional update, fenced by a token that only grows."""

from collections.abc import Collection
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Uuid, bindparam, exists, func, insert, or_, select, update
from sqlalchemy.orm import aliased
from sqlalchemy.sql.dml import ReturningUpdate

from core.errors import LeaseLost
from core.models import Turn, TurnStatus
from core.ports import Lease
from storage import schema
from storage.repositories import Repository
from storage.rows import dump, load

SUSPECT_AFTER_RESCUES = 2
_UNFINISHED = (TurnStatus.QUEUED, TurnStatus.RUNNING, TurnStatus.WAITING)
_turns = schema.turns


class TurnQueue(Repository):
    async def add(self, turn: Turn) -> None:
        await self._connection.execute(insert(_turns).values(**dump(turn)))

    async def get(self, turn_id: UUID) -> Turn | None:
        return await self._one(Turn, select(_turns).where(_turns.c.id == turn_id))

    async def lock(self, turn_id: UUID) -> Turn | None:
        return await self._one(Turn, select(_turns).where(_turns.c.id == turn_id).with_for_update())

    async def update(self, turn_id: UUID, **changes: Any) -> None:
        await self._connection.execute(update(_turns).where(_turns.c.id == turn_id).values(**changes))

    async def claim(self, worker_id: UUID, *, now: datetime, lease_until: datetime, suspects: bool) -> Turn | None:
        values = {"worker": worker_id, "moment": now, "until": lease_until}
        row = (await self._connection.execute(_claim(suspects=suspects), values)).mappings().first()
        return None if row is None else load(Turn, row)

    async def fence(self, lease: Lease) -> Turn:
        turn = await self.lock(lease.turn_id)
        if turn is None or turn.lease_token != lease.token or turn.status != TurnStatus.RUNNING:
            raise LeaseLost(str(lease.turn_id))
        return turn

    async def extend(self, leases: Collection[Lease], lease_until: datetime) -> frozenset[UUID]:
        held = or_(*((_turns.c.id == lease.turn_id) & (_turns.c.lease_token == lease.token) for lease in leases))
        extended = update(_turns).where(_turns.c.status == TurnStatus.RUNNING, held).values(lease_until=lease_until).returning(_turns.c.id)
        return frozenset((await self._connection.execute(extended)).scalars())

    async def has_expired(self, now: datetime) -> bool:
        return (await self._connection.execute(_expired(now).limit(1))).first() is not None

    async def expired(self, now: datetime) -> list[Turn]:
        return await self._all(Turn, _expired(now).with_for_update(skip_locked=True))

    async def unfinished(self, conversation_id: UUID) -> list[Turn]:
        query = select(_turns).where(_turns.c.conversation_id == conversation_id, _turns.c.status.in_(_UNFINISHED))
        return await self._all(Turn, query.order_by(_turns.c.seq))

    async def last(self, conversation_id: UUID) -> Turn | None:
        query = select(_turns).where(_turns.c.conversation_id == conversation_id)
        return await self._one(Turn, query.order_by(_turns.c.seq.desc()).limit(1))

    async def of_ids(self, turn_ids: Collection[UUID]) -> list[Turn]:
        return await self._all(Turn, select(_turns).where(_turns.c.id.in_(turn_ids)).order_by(_turns.c.seq))

    async def open_count(self) -> int:
        is_open = _turns.c.status.in_((TurnStatus.QUEUED, TurnStatus.RUNNING))
        return int((await self._connection.execute(select(func.count()).select_from(_turns).where(is_open))).scalar_one())

    async def of_worker(self, worker_id: UUID) -> list[Turn]:
        query = select(_turns).where(_turns.c.status == TurnStatus.RUNNING, _turns.c.lease_owner == worker_id)
        return await self._all(Turn, query.with_for_update())

    async def has_suspect(self, now: datetime) -> bool:
        found = await self._connection.execute(_claimable(suspects=True).limit(1), {"moment": now})
        return found.first() is not None


# Both statements are built once: they are big, and run every second.
_now = bindparam("moment", type_=schema.UtcDateTime)


@cache
def _claim(*, suspects: bool) -> ReturningUpdate[Any]:
    next_one = _claimable(suspects=suspects).limit(1).with_for_update(skip_locked=True, of=_turns)
    return (
        update(_turns)
        .where(_turns.c.id == next_one.scalar_subquery(), _turns.c.status == TurnStatus.QUEUED)
        .values(
            status=TurnStatus.RUNNING,
            lease_owner=bindparam("worker", type_=Uuid),
            lease_token=_turns.c.lease_token + 1,
            lease_until=bindparam("until", type_=schema.UtcDateTime),
            started_at=func.coalesce(_turns.c.started_at, _now),
        )
        .returning(*_turns.c)
    )


@cache
def _claimable(*, suspects: bool) -> Select[Any]:
    is_suspect = _turns.c.rescues >= SUSPECT_AFTER_RESCUES
    other, running, pause = aliased(_turns), aliased(_turns), schema.model_pauses.c
    by_author = select(running.c.author_id, func.count().label("runs")).where(running.c.status == TurnStatus.RUNNING)
    busy = by_author.group_by(running.c.author_id).subquery()
    conditions: list[ColumnElement[bool]] = [
        _turns.c.status == TurnStatus.QUEUED,
        _turns.c.run_after <= _now,
        is_suspect if suspects else ~is_suspect,
        ~exists().where(
            other.c.conversation_id == _turns.c.conversation_id,
            other.c.status.in_(_UNFINISHED),
            other.c.id != _turns.c.id,
            or_(other.c.status != TurnStatus.QUEUED, other.c.seq < _turns.c.seq),
        ),
        ~exists().where(pause.model == _turns.c.model, pause.paused_until > _now),
    ]
    fewest_first = (func.coalesce(busy.c.runs, 0), _turns.c.created_at, _turns.c.id)
    return select(_turns.c.id).outerjoin(busy, busy.c.author_id == _turns.c.author_id).where(*conditions).order_by(*fewest_first)


def _expired(now: datetime) -> Select[Any]:
    return select(_turns).where(_turns.c.status == TurnStatus.RUNNING, _turns.c.lease_until < now)
