"""The turns as a durable queue: claimed by one conditional update, fenced by a token that only grows."""

from collections.abc import Collection
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import CTE, ColumnElement, Select, Uuid, and_, bindparam, exists, func, literal_column, not_, or_, select, update
from sqlalchemy.orm import aliased
from sqlalchemy.sql.dml import ReturningUpdate

from core.errors import LeaseLost
from core.models import Turn, TurnStatus
from core.ports import Closed, Lease, QueueState
from storage import schema
from storage.prepared import Prepared
from storage.repositories import Repository, row_of, row_query, rows_among
from storage.rows import dump, load
from storage.sqlite import LONG

SUSPECT_AFTER_RESCUES = 2
_UNFINISHED = (TurnStatus.QUEUED, TurnStatus.RUNNING, TurnStatus.WAITING)
_turns = schema.turns


class TurnQueue(Repository):
    async def add(self, turn: Turn) -> None:
        await self._insert(_turns, dump(turn))

    async def get(self, turn_id: UUID) -> Turn | None:
        return await self._one(Turn, row_of(_turns), row_id=turn_id)

    async def lock(self, turn_id: UUID) -> Turn | None:
        return await self._one(Turn, _locked(), row_id=turn_id)

    async def update(self, turn_id: UUID, **changes: Any) -> None:
        await self._change(_turns, turn_id, changes)

    async def claim(
        self, worker_id: UUID, *, now: datetime, lease_until: datetime, suspects: bool, limit: int, closed: Closed
    ) -> list[Turn]:
        values = {"worker": worker_id, "moment": now, "until": lease_until, "at_most": limit, "closed": sorted(closed.models)}
        claim = _claim(suspects=suspects, prefixes=closed.prefixes)
        rows = await self._connection.execute(claim, values, execution_options=LONG)  # it ranks all that wait
        return sorted((load(Turn, row) for row in rows.mappings()), key=lambda turn: turn.created_at)

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
        return await self._all(Turn, _unfinished(), conversation=conversation_id)

    async def last(self, conversation_id: UUID) -> Turn | None:
        query = select(_turns).where(_turns.c.conversation_id == conversation_id)
        return await self._one(Turn, query.order_by(_turns.c.seq.desc()).limit(1))

    async def of_ids(self, turn_ids: Collection[UUID]) -> list[Turn]:
        return await self._all(Turn, rows_among(_turns.c.id, _turns.c.seq), keys=turn_ids)

    async def open_count(self) -> int:
        is_open = _turns.c.status.in_((TurnStatus.QUEUED, TurnStatus.RUNNING))
        return int((await self._connection.execute(select(func.count()).select_from(_turns).where(is_open))).scalar_one())

    async def state(self) -> QueueState:
        rows = (await self._connection.execute(_state())).all()
        posted = {TurnStatus(row.status): row.oldest for row in rows}
        return QueueState(numbers={TurnStatus(row.status): row.number for row in rows}, oldest_queued_at=posted.get(TurnStatus.QUEUED))

    async def page(self, status: TurnStatus, *, after: UUID | None, limit: int) -> list[Turn]:
        return await self._search(Turn, _newest(status, after, limit))

    async def failed_since(self, moment: datetime) -> int:
        return int((await self._connection.execute(_failed_since(moment), execution_options=LONG)).scalar_one())

    async def of_worker(self, worker_id: UUID) -> list[Turn]:
        query = select(_turns).where(_turns.c.status == TurnStatus.RUNNING, _turns.c.lease_owner == worker_id)
        return await self._all(Turn, query.with_for_update())

    async def has_suspect(self, now: datetime) -> bool:
        found = await self._connection.execute(select(_turns.c.id).where(_is_claimable(suspects=True)).limit(1), {"moment": now})
        return found.first() is not None

    async def due(self, model: str, now: datetime, *, limit: int) -> list[Turn]:
        query = select(_turns).where(_turns.c.model == model, or_(*(_is_claimable(suspects=suspects) for suspects in (True, False))))
        oldest = query.order_by(_turns.c.created_at, _turns.c.id).limit(limit)
        rows = await self._connection.execute(oldest.with_for_update(skip_locked=True), {"moment": now})
        return [load(Turn, row) for row in rows.mappings()]

    async def any_due(self, now: datetime) -> bool:
        return bool(await self._run(_any_due(), moment=now))

    async def running_by_model(self) -> dict[str, int]:
        query = select(_turns.c.model, func.count()).where(_turns.c.status == TurnStatus.RUNNING).group_by(_turns.c.model)
        return {row[0]: row[1] for row in await self._connection.execute(query)}

    async def running_by_worker(self) -> dict[UUID, int]:
        query = select(_turns.c.lease_owner, func.count()).where(_is(TurnStatus.RUNNING)).group_by(_turns.c.lease_owner)
        return {row[0]: row[1] for row in await self._connection.execute(query)}


@cache
def _locked() -> Prepared:
    return Prepared(row_query(_turns).with_for_update())


@cache
def _unfinished() -> Prepared:
    of_conversation = (_turns.c.conversation_id == bindparam("conversation"), _is(*_UNFINISHED))
    return Prepared(select(_turns).where(*of_conversation).order_by(_turns.c.seq))


def _newest(status: TurnStatus, after: UUID | None, limit: int) -> Select[Any]:
    of_status = _turns if status is TurnStatus.FAILED else _apart()
    ids = select(of_status.c.id).where(_is(status, column=of_status.c.status))
    if after is not None:
        ids = ids.where(of_status.c.id < after)
    return select(_turns).where(_turns.c.id.in_(ids.order_by(of_status.c.id.desc()).limit(limit))).order_by(_turns.c.id.desc())


def _failed_since(moment: datetime) -> Select[Any]:
    return select(func.count()).select_from(_turns).where(_is(TurnStatus.FAILED), _turns.c.finished_at >= moment)


@cache
def _apart() -> CTE:
    """Those that have not ended, read before they are put in order: otherwise they are looked for among all, from the newest on."""
    return select(_turns.c.id, _turns.c.status).where(_is(*_UNFINISHED)).cte("apart").prefix_with("MATERIALIZED")


@cache
def _state() -> Select[Any]:
    oldest = func.min(_turns.c.created_at).label("oldest")
    return select(_turns.c.status, func.count().label("number"), oldest).where(_is(*_UNFINISHED)).group_by(_turns.c.status)


# Built once for each worker: it is big, and runs every second.
_now = bindparam("moment", type_=schema.UtcDateTime)


@cache
def _any_due() -> Prepared:
    return Prepared(select(_turns.c.id).where(_is(TurnStatus.QUEUED), _turns.c.run_after <= _now).limit(1))


@cache
def _claim(*, suspects: bool, prefixes: frozenset[str]) -> ReturningUpdate[Any]:
    following = _following(suspects=suspects, prefixes=prefixes)
    return (
        update(_turns)
        .where(_turns.c.id.in_(select(following.c.id)), _turns.c.status == TurnStatus.QUEUED)
        .values(
            status=TurnStatus.RUNNING,
            lease_owner=bindparam("worker", type_=Uuid),
            lease_token=_turns.c.lease_token + 1,
            lease_until=bindparam("until", type_=schema.UtcDateTime),
            stream_no=_turns.c.stream_no + 1,
            started_at=func.coalesce(_turns.c.started_at, _now),
        )
        .returning(*_turns.c)
    )


def _following(*, suspects: bool, prefixes: frozenset[str]) -> CTE:
    """Those to be claimed. Ranked first, then locked: PostgreSQL locks no rows below a window function."""
    running = aliased(_turns)
    by_author = select(running.c.author_id, func.count().label("runs")).where(running.c.status == TurnStatus.RUNNING)
    busy = by_author.group_by(running.c.author_id).subquery()
    turn_of_author = func.row_number().over(partition_by=_turns.c.author_id, order_by=(_turns.c.created_at, _turns.c.id))
    place = (func.coalesce(busy.c.runs, 0) + turn_of_author).label("place")
    elsewhere = [_turns.c.model.startswith(f"{prefix}/", autoescape=True) for prefix in sorted(prefixes)]
    allowed = (_is_claimable(suspects=suspects), _turns.c.model.not_in(bindparam("closed", expanding=True)), *map(not_, elsewhere))
    ranked = select(_turns.c.id, place).outerjoin(busy, busy.c.author_id == _turns.c.author_id).where(*allowed).subquery()
    ordered = select(_turns.c.id).join(ranked, ranked.c.id == _turns.c.id).order_by(ranked.c.place, _turns.c.created_at, _turns.c.id)
    return ordered.limit(bindparam("at_most")).with_for_update(skip_locked=True, of=_turns).cte("following")


def _is_claimable(*, suspects: bool) -> ColumnElement[bool]:
    is_suspect, other = _turns.c.rescues >= SUSPECT_AFTER_RESCUES, aliased(_turns)
    goes_before = exists().where(
        other.c.conversation_id == _turns.c.conversation_id,
        other.c.status.in_(_UNFINISHED),
        other.c.id != _turns.c.id,
        or_(other.c.status != TurnStatus.QUEUED, other.c.seq < _turns.c.seq),
    )
    due = and_(_turns.c.status == TurnStatus.QUEUED, _turns.c.run_after <= _now)
    return and_(due, is_suspect if suspects else ~is_suspect, ~goes_before)


def _expired(now: datetime) -> Select[Any]:
    return select(_turns).where(_turns.c.status == TurnStatus.RUNNING, _turns.c.lease_until < now)


def _is(*statuses: TurnStatus, column: ColumnElement[str] = _turns.c.status) -> ColumnElement[bool]:
    """Written as in the index of such turns, where the planner sees that it serves: SQLite takes IN with one value for something else."""
    written: list[ColumnElement[str]] = [literal_column(f"'{status}'") for status in statuses]
    return column == written[0] if len(written) == 1 else column.in_(written)
