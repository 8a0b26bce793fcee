"""What the core keeps of chat platforms, over one open transaction: people, places, what was delivered and what came in."""

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    Table,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    literal_column,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.exc import IntegrityError

from core.access import Principal
from core.errors import Conflict, LeaseLost
from core.models import (
    CARD,
    FORMER,
    TO_ARRANGE,
    Account,
    AccountLease,
    Binding,
    BindingCheck,
    BindingMode,
    ChannelKind,
    Delivery,
    DeliveryState,
    Identity,
    InboundEvent,
    KnownPlace,
    Place,
    Visibility,
)
from storage import schema
from storage.prepared import Prepared
from storage.repositories import Repository, Sieve, conflict_aware_insert, row_of, rows_among, visible_to
from storage.rows import dump, load
from storage.sqlite import LONG

_RECENT = 50
_TAKEN = "Another conversation is shown at this place already."
_bindings, _deliveries, _inbound, _leases = schema.bindings, schema.deliveries, schema.inbound, schema.account_leases
_cursors = schema.cursors


class Identities(Repository):
    async def add(self, identity: Identity) -> None:
        if not await self._add_if_new(schema.identities, dump(identity)):
            raise Conflict("Somebody else made this person known at the same moment. Look again.")

    async def get(self, account: Account, external_id: str) -> Identity | None:
        return await self._one(Identity, _identity(), external_id=external_id, **_names(account))

    async def of_users(self, account: Account, user_ids: Collection[UUID]) -> list[Identity]:
        found = await self._all(Identity, rows_among(schema.identities.c.user_id, *schema.identities.primary_key), keys=user_ids)
        return [each for each in found if (each.surface, each.account) == (account.surface, account.id)]

    async def of_user(self, user_id: UUID) -> list[Identity]:
        return await self._all(Identity, rows_among(schema.identities.c.user_id, *schema.identities.primary_key), keys=[user_id])

    async def link(self, account: Account, external_id: str, user_id: UUID, at: datetime) -> None:
        linked = update(schema.identities).where(*_is_person(account, external_id)).values(user_id=user_id, linked_at=at)
        await self._connection.execute(linked)

    async def remove(self, account: Account, external_id: str) -> None:
        await self._connection.execute(delete(schema.identities).where(*_is_person(account, external_id)))

    async def all(self, account: Account | None = None) -> list[Identity]:
        query = select(schema.identities).order_by(*schema.identities.primary_key)
        return await self._all(Identity, query.where(_of(schema.identities, account)) if account else query)


class Bindings(Repository):
    async def add(self, binding: Binding) -> None:
        if not await self._add_if_new(_bindings, dump(binding)):
            raise Conflict(_TAKEN)

    async def get(self, binding_id: UUID) -> Binding | None:
        return await self._one(Binding, row_of(_bindings), row_id=binding_id)

    async def at(self, place: Place) -> Binding | None:
        return await self._one(Binding, _binding_at(), channel=place.channel, thread=place.thread, **_names(place.account))

    async def of_conversation(self, conversation_id: UUID) -> list[Binding]:
        return await self.of_conversations([conversation_id])

    async def of_conversations(self, conversation_ids: Collection[UUID]) -> list[Binding]:
        found = await self._all(Binding, rows_among(_bindings.c.conversation_id, _bindings.c.id), keys=conversation_ids)
        return [each for each in found if not each.is_former]

    async def of_account(self, account: Account) -> list[Binding]:
        return await self._search(Binding, select(_bindings).where(_of(_bindings, account), _is_delivered_to()).order_by(_bindings.c.id))

    async def heard(self, account: Account) -> list[Binding]:
        is_there = (_bindings.c.ended.is_(None), _bindings.c.thread.not_like(f"{FORMER}%"))
        return await self._search(Binding, select(_bindings).where(_of(_bindings, account), *is_there))

    async def direct_of(self, user_id: UUID) -> list[Binding]:
        conversation = schema.conversations.c
        joined = select(_bindings).join(schema.conversations, conversation.id == _bindings.c.conversation_id)
        is_theirs = func.coalesce(_bindings.c.bound_by, conversation.owner_id) == user_id
        is_private = conversation.visibility == Visibility.PRIVATE
        of_older_days = and_(_bindings.c.kind.is_(None), _bindings.c.thread == "", ~_bindings.c.followed, is_private)
        is_direct = or_(_bindings.c.kind == ChannelKind.DIRECT, of_older_days)
        return await self._search(Binding, joined.where(is_direct, is_theirs).order_by(_bindings.c.id))

    async def known_places(self, principal: Principal, *, limit: int) -> list[KnownPlace]:
        query = _known_places().where(visible_to(principal), schema.identities.c.user_id == principal.user_id).limit(limit)
        found = (await self._connection.execute(query, execution_options=LONG)).all()
        return [KnownPlace(account=Account(surface=row.surface, id=row.account), channel=row.channel, label=row.label) for row in found]

    async def behind(self, account: Account) -> list[UUID]:
        query = _behind().where(_of(_bindings, account))
        return list((await self._connection.execute(query, execution_options=LONG)).scalars())

    async def update(self, binding_id: UUID, **changes: Any) -> None:
        try:
            await self._change(_bindings, binding_id, {"updated_at": self._now, **changes})
        except IntegrityError:
            raise Conflict(_TAKEN) from None

    async def remove(self, binding_id: UUID) -> None:
        await self._connection.execute(delete(_bindings).where(_bindings.c.id == binding_id))

    async def open(self, binding_id: UUID, thread: str, arranged: str) -> Binding | None:
        changes = {"thread": thread, "opened": True, "arranged": arranged, "updated_at": self._now}
        is_unopened = (_bindings.c.id == binding_id, ~_bindings.c.opened)
        try:
            await self._connection.execute(update(_bindings).where(*is_unopened).values(changes))
        except IntegrityError:
            raise Conflict(_TAKEN) from None
        return await self.get(binding_id)


class Deliveries(Repository):
    async def put(self, *deliveries: Delivery) -> None:
        for delivery in deliveries:
            await self._upsert(_deliveries, dump(delivery))

    async def revise(self, binding_id: UUID, item: str, revision: int) -> None:
        is_it = (_deliveries.c.binding_id == binding_id, _deliveries.c.item == item)
        await self._connection.execute(update(_deliveries).where(*is_it).values(revision=revision))

    async def of_binding(self, binding_id: UUID, items: Collection[str]) -> list[Delivery]:
        query = select(_deliveries).where(_deliveries.c.binding_id == binding_id, _deliveries.c.item.in_(items))
        return await self._all(Delivery, query.order_by(_deliveries.c.item, _deliveries.c.part))

    async def unsettled(self, binding_id: UUID) -> list[Delivery]:
        found = {(row.item, row.part): row for row in await self._all(Delivery, _unsettled_of(), binding=binding_id)}
        return [row for _, row in sorted(found.items())]

    async def at(self, place: Place, remote_id: str) -> Delivery | None:
        return await self._one(Delivery, _delivery_at(), remote_id=remote_id, channel=place.channel, **_names(place.account))

    async def known_since(self, account: Account, channel: str, since: datetime) -> set[str]:
        found = await self._run(_known_since(), channel=channel, since=since, **_names(account))
        return {row["remote_id"] for row in found}

    async def remove(self, binding_id: UUID, item: str, part: int) -> None:
        table = _deliveries.c
        await self._connection.execute(delete(_deliveries).where(table.binding_id == binding_id, table.item == item, table.part == part))


class Cursors(Repository):
    async def all(self, account: Account) -> dict[str, int]:
        found = await self._connection.execute(select(_cursors.c.channel, _cursors.c.heard).where(_of(_cursors, account)))
        return {row.channel: row.heard for row in found}

    async def advance(self, account: Account, heard: Mapping[str, int]) -> None:
        if not heard:
            return
        names = _names(account)
        insertion = conflict_aware_insert(_cursors, self._connection.dialect.name)
        forward = insertion.on_conflict_do_update(
            index_elements=list(_cursors.primary_key),
            set_={"heard": insertion.excluded.heard, "updated_at": insertion.excluded.updated_at},
            where=insertion.excluded.heard > _cursors.c.heard,
        )
        rows = [{**names, "channel": channel, "heard": newest, "updated_at": self._now} for channel, newest in sorted(heard.items())]
        await self._connection.execute(forward, rows)


class Inbound(Repository):
    async def add(self, event: InboundEvent) -> bool:
        return await self._add_if_new(_inbound, dump(event))

    async def waiting(self, account: Account, now: datetime, *, limit: int) -> list[InboundEvent]:
        return await self._all(InboundEvent, _due(), moment=now, at_most=limit, **_names(account))

    async def get(self, event_id: UUID) -> InboundEvent | None:
        return await self._one(InboundEvent, row_of(_inbound), row_id=event_id)

    async def complete(self, event: InboundEvent) -> None:
        account = Account(surface=event.surface, id=event.account)
        is_waiting = (_of(_inbound, account), _inbound.c.key == event.key, _inbound.c.done_at.is_(None))
        await self._connection.execute(update(_inbound).where(*is_waiting).values(payload=event.payload))

    async def later(self, event_id: UUID, run_after: datetime, *, attempts: int, waits: bool) -> None:
        await self._change(_inbound, event_id, {"run_after": run_after, "attempts": attempts, "waits": waits})

    async def done(self, event_id: UUID, at: datetime, *, error: str | None = None) -> None:
        await self._change(_inbound, event_id, {"done_at": at, "error": error, "payload": {}})


class AccountLeases(Repository):
    async def take(self, account: Account, owner: UUID, *, until: datetime, now: datetime) -> AccountLease | None:
        lease = AccountLease(surface=account.surface, account=account.id, owner=owner, token=1, until=until)
        insertion = conflict_aware_insert(_leases, self._connection.dialect.name).values(**dump(lease))
        is_theirs = and_(_leases.c.owner != owner, _leases.c.until > now)
        extends = and_(_leases.c.owner == owner, _leases.c.until > now)
        taken = insertion.on_conflict_do_update(
            index_elements=list(_leases.primary_key),
            set_={"owner": owner, "until": until, "token": case((extends, _leases.c.token), else_=_leases.c.token + 1)},
            where=~is_theirs,
        )
        row = (await self._connection.execute(taken.returning(*_leases.c))).mappings().first()
        return None if row is None else load(AccountLease, row)

    async def fence(self, lease: AccountLease) -> None:
        if not await self._run(_held_lease(), **_held_by(lease)):
            raise LeaseLost("Another process acts for this account now.")

    async def release(self, lease: AccountLease) -> None:
        held = (_leases.c.surface == lease.surface, _leases.c.account == lease.account, _leases.c.token == lease.token)
        await self._connection.execute(update(_leases).where(*held).values(until=self._now))

    async def release_all(self, owner: UUID) -> None:
        await self._connection.execute(update(_leases).where(_leases.c.owner == owner, _leases.c.until > self._now).values(until=self._now))

    async def accounts(self, since: datetime) -> list[Account]:
        found = select(_leases.c.surface, _leases.c.account).where(_leases.c.until > since).order_by(_leases.c.surface, _leases.c.account)
        return [Account(surface=row.surface, id=row.account) for row in await self._connection.execute(found)]


def _names(account: Account) -> dict[str, str]:
    return {"surface": account.surface, "account": account.id}


def _of(table: Table, account: Account) -> ColumnElement[bool]:
    return and_(table.c.surface == account.surface, table.c.account == account.id)


def _is_person(account: Account, external_id: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return _of(schema.identities, account), schema.identities.c.external_id == external_id


def _of_named(table: Table) -> ColumnElement[bool]:
    return and_(table.c.surface == bindparam("surface"), table.c.account == bindparam("account"))


@cache
def _identity() -> Prepared:
    table = schema.identities
    return Prepared(select(table).where(_of_named(table), table.c.external_id == bindparam("external_id")))


@cache
def _binding_at() -> Prepared:
    place = (_bindings.c.channel == bindparam("channel"), _bindings.c.thread == bindparam("thread"))
    return Prepared(select(_bindings).where(_of_named(_bindings), *place))


@cache
def _delivery_at() -> Prepared:
    joined = select(_deliveries).join(_bindings, _bindings.c.id == _deliveries.c.binding_id)
    place = (_of_named(_bindings), _bindings.c.channel == bindparam("channel"))
    return Prepared(joined.where(_deliveries.c.remote_id == bindparam("remote_id"), *place).order_by(_deliveries.c.binding_id))


@cache
def _known_since() -> Prepared:
    """By time first: a channel may have shown thousands of conversations."""
    joined = select(_deliveries.c.remote_id).join(_bindings, _bindings.c.id == _deliveries.c.binding_id)
    noted = (_deliveries.c.remote_id.is_not(None), _deliveries.c.sent_at >= bindparam("since", type_=schema.UtcDateTime))
    names = (_bindings.c.surface, _bindings.c.account, _bindings.c.channel)
    return Prepared(joined.where(*noted, *(Sieve(name) == bindparam(name.key) for name in names)))


@cache
def _unsettled_of() -> Prepared:
    is_open = select(_deliveries).where(_deliveries.c.binding_id == bindparam("binding"), _is_open())
    outdated = [select(_deliveries).where(_bindings.c.id == bindparam("binding"), each) for each in _outdated()]
    return Prepared(union_all(is_open, *outdated))


def _is_open() -> ColumnElement[bool]:
    return _deliveries.c.state.in_(_written(DeliveryState.SENDING, DeliveryState.LIVE))


def _outdated() -> Iterator[ColumnElement[bool]]:
    """Whether a delivery of a binding shows another revision of its message, in three parts so that each finds its rows by an index.

    Messages behind the cursor change in these ways alone: by an edit or a deletion, or with the last turn. The most recent ones are looked
    at as well, since their turns raise their revisions to the end. What stands there as somebody wrote it is outdated by an edit or a
    deletion alone.
    """
    message, turn = schema.messages.c, schema.turns.c
    is_ours = _deliveries.c.state.in_(_written(DeliveryState.CLOSED, DeliveryState.FINAL))
    is_theirs = and_(_deliveries.c.state.in_(_written(DeliveryState.THEIRS)), _deliveries.c.shown != literal_column("''"))
    is_of_another_revision = (
        Sieve(_deliveries.c.binding_id) == _bindings.c.id,
        _deliveries.c.message_id == message.id,
        _deliveries.c.revision != message.revision,
    )
    is_other = (is_ours, *is_of_another_revision)
    of_conversation = message.conversation_id == _bindings.c.conversation_id
    turns = select(turn.id).where(turn.conversation_id == _bindings.c.conversation_id).correlate(_bindings)
    last_turn = turns.order_by(turn.seq.desc()).limit(1).scalar_subquery()
    yield and_(of_conversation, message.seq > _bindings.c.cursor - _RECENT, *is_other)
    yield and_(message.turn_id == last_turn, *is_other)
    is_changed = or_(message.edited_at.is_not(None), message.deleted_at.is_not(None))
    yield and_(of_conversation, is_changed, or_(is_ours, is_theirs), *is_of_another_revision)


@cache
def _behind() -> Select[Any]:
    conversation, task = schema.conversations.c, schema.tasks.c
    joined = select(_bindings.c.id).join(schema.conversations, conversation.id == _bindings.c.conversation_id)
    with_task = joined.outerjoin(schema.tasks, task.conversation_id == conversation.id)
    of_binding = _deliveries.c.binding_id == _bindings.c.id
    has_card = exists().where(of_binding, _deliveries.c.item == CARD, _deliveries.c.revision >= task.version)
    needs_writer = or_(
        and_(~_bindings.c.opened, _bindings.c.arranged == ""),
        _bindings.c.arranged == TO_ARRANGE,
        _bindings.c.status_shown,
        _bindings.c.check != BindingCheck.NONE,
        conversation.next_seq > _bindings.c.cursor + 1,
        and_(task.id.is_not(None), ~has_card),
        exists().where(of_binding, _is_open()),
        *(exists().where(each).correlate(_bindings) for each in _outdated()),
        and_(_bindings.c.followed, exists().where(_changed_before()).correlate(_bindings)),
    )
    return with_task.where(_is_delivered_to(), needs_writer).order_by(_bindings.c.id)


def _changed_before() -> ColumnElement[bool]:
    """A message of the conversation that was edited or deleted since somebody looked after the binding: it may be quoted there."""
    message = schema.messages.c
    is_changed = or_(message.edited_at.is_not(None), message.deleted_at.is_not(None))
    is_since = or_(message.edited_at > _bindings.c.updated_at, message.deleted_at > _bindings.c.updated_at)
    return and_(message.conversation_id == _bindings.c.conversation_id, is_changed, is_since, message.seq <= _bindings.c.cursor)


def _is_delivered_to() -> ColumnElement[bool]:
    return and_(_bindings.c.ended.is_(None), or_(_bindings.c.mode != BindingMode.OFF, _bindings.c.until > _bindings.c.cursor))


@cache
def _known_places() -> Select[Any]:
    """A channel once, whatever its threads show."""
    binding, identity = _bindings.c, schema.identities.c
    is_known = and_(identity.surface == binding.surface, identity.account == binding.account)
    joined = select(binding.surface, binding.account, binding.channel, func.max(binding.label).label("label")).join(
        schema.conversations, schema.conversations.c.id == binding.conversation_id
    )
    is_named = (binding.label != "", binding.ended.is_(None), binding.check == BindingCheck.NONE)  # only open channels are
    listed = joined.join(schema.identities, is_known).where(*is_named)
    return listed.group_by(binding.surface, binding.account, binding.channel).order_by(func.max(binding.label), binding.channel)


@cache
def _due() -> Prepared:
    """Without those whose lane is held up by an earlier one that is tried again later; of each lane its first, then of each its second.

    Found in one walk along the lanes: where each looked for those before it, a long queue would take time with the square of its length.
    """
    event, now = _inbound.c, bindparam("moment", type_=schema.UtcDateTime)
    holds_up = case((and_(event.run_after > now, ~event.waits), 1), else_=0)
    along: Any = {"partition_by": event.lane, "order_by": event.id}
    held_up, place = func.sum(holds_up).over(**along), func.row_number().over(**along)
    queued = select(event.id, event.run_after, held_up.label("held_up"), place.label("place"))
    waiting = queued.where(_of_named(_inbound), event.done_at.is_(None)).subquery().c
    due = select(waiting.id).where(waiting.held_up == 0, waiting.run_after <= now).order_by(waiting.place, waiting.id)
    return Prepared(select(_inbound).where(event.id.in_(due.limit(bindparam("at_most")))).order_by(event.id))


@cache
def _held_lease() -> Prepared:
    """Shared: who holds the lease may write in several transactions at once, and nobody takes it before they are committed."""
    held = (_leases.c.owner == bindparam("owner"), _leases.c.token == bindparam("token"))
    return Prepared(select(_leases.c.token).where(_of_named(_leases), *held).with_for_update(read=True))


def _held_by(lease: AccountLease) -> dict[str, Any]:
    return {"surface": lease.surface, "account": lease.account, "owner": lease.owner, "token": lease.token}


def _written(*states: DeliveryState) -> list[ColumnElement[str]]:
    return [literal_column(f"'{state}'") for state in states]
