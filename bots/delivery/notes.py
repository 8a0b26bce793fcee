"""What a writer notes of its place in the database, always in the name of the lease's holder."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

import structlog

from bots import view
from bots.delivery import history
from bots.delivery.history import Item
from bots.delivery.outlet import Outlet
from bots.delivery.picture import Over, Picture, Twin
from bots.delivery.plan import Remote, Want, as_final, digest
from bots.services import Services
from bots.surface import PlaceClosed, Spot
from core import bindings
from core.errors import Conflict, StorageUnavailable
from core.ids import new_id
from core.models import PLACE_TAKEN, Delivery, DeliveryState
from core.ports import UnitOfWork

_CLOCKS_DIFFER = timedelta(minutes=5)
"""At most, between this machine and a platform."""
_T = TypeVar("_T")
_log = structlog.get_logger()


class Notes:
    """Every method waits while the database is away. Raises LeaseLost, and Over where the binding is gone."""

    def __init__(self, services: Services, outlet: Outlet, picture: Picture) -> None:
        self._services = services
        self._outlet = outlet
        self._picture = picture

    async def announce(self, item: Item, index: int) -> None:
        """Before a part is posted, and before it is posted again: that whether it is there will not be known."""
        row = item.remotes[index].row if index < len(item.remotes) else self._new(item, index)
        row = replace(row, thread=self._picture.place_of(item).thread, sent_at=self._services.clock.now())

        async def note(uow: UnitOfWork) -> Delivery:
            await uow.deliveries.put(row)
            if index == 0 and not row.thread and item.theirs is None:
                item.answers = await history.answers(uow, self._picture.binding, item) or self._picture.root
            return row

        announced = await self._write(note)
        if index < len(item.remotes):
            item.remotes[index].row = announced
        else:
            item.remotes.append(Remote(announced, unsent=True))

    async def replace(self, item: Item, index: int) -> None:
        """In place of a remote message that is gone another one will be posted."""
        row = replace(self._new(item, index), revision=item.remotes[index].row.revision)
        await self._write(lambda uow: uow.deliveries.put(row))
        item.remotes[index] = Remote(row, unsent=True)

    async def found(self, remote: Remote, remote_id: str) -> bool:
        """What was posted is there; False where that remote message is noted as another one by now."""
        row = replace(remote.row, remote_id=remote_id, state=DeliveryState.LIVE)

        async def note(uow: UnitOfWork) -> bool:
            if await uow.deliveries.at(self._picture.place, remote_id):
                return False
            await uow.deliveries.put(row)
            return True

        if not await self._write(note):
            return False
        remote.row = row
        return True

    async def sent(self, item: Item, index: int, wants: Sequence[Want], remote_id: str) -> None:
        """A part was posted or closed; and where nothing is left to be done for its message, that, too."""
        want, remote = wants[index], item.remotes[index]
        row = replace(remote.row, remote_id=remote_id, state=DeliveryState.LIVE)
        if want.end is not None:
            row = replace(row, state=DeliveryState.CLOSED, end=want.end, shown=digest(want.part))
        remote.row, remote.cut_at = row, None
        shown = self._picture.view(item)
        wants = self._picture.wants(item, shown)
        if self._picture.is_complete(item, shown, wants):
            await self.settled(item, wants)
        else:
            await self._write(lambda uow: uow.deliveries.put(row))

    async def settled(self, item: Item, wants: Sequence[Want]) -> None:
        """Everything of an item is there in its final form; and how far everything is."""
        rows = as_final(item.remotes, wants, item.revision)
        changed = [row for remote, row in zip(item.remotes, rows, strict=True) if row != remote.row]
        item.settled = True
        target = self._picture.target

        async def note(uow: UnitOfWork) -> None:
            await uow.deliveries.put(*changed)
            if item.theirs:  # of what a person wrote there: they may write on at this moment
                await uow.deliveries.revise(self._picture.binding.id, item.theirs.item, item.revision)
            await uow.bindings.update(self._picture.binding.id, cursor=target)

        if changed or target > self._picture.binding.cursor or item.theirs:
            self._picture.is_noted = True
            await self._write(note)
        for remote, row in zip(item.remotes, rows, strict=True):
            remote.row = row
        self._picture.binding = replace(self._picture.binding, cursor=target)

    async def moved(self) -> None:
        """How far everything is, and that it was looked."""
        self._picture.is_noted = True
        await self._bound(cursor=self._picture.target)

    async def forgotten(self, item: Item, index: int) -> None:
        """A part is not there any more, nor wanted."""
        await self._write(lambda uow: uow.deliveries.remove(self._picture.binding.id, item.key, index))
        del item.remotes[index]

    async def opened(self, thread: str, arranged: str) -> None:
        """Raises PlaceClosed where somebody has begun another conversation in the thread meanwhile."""
        binding = self._picture.binding
        try:
            opened = await self._write(lambda uow: uow.bindings.open(binding.id, thread, arranged))
        except Conflict:
            raise PlaceClosed("This thread shows another conversation already.", reason=PLACE_TAKEN) from None
        if opened:  # by somebody who wrote there, it may be
            self._picture.binding = replace(binding, thread=opened.thread, opened=True, arranged=opened.arranged)

    async def arranged(self, how: str) -> None:
        """How the thread looks, or that something is to be done about it, or that nothing can be."""
        await self._bound(arranged=how)

    async def learned(self, spot: Spot) -> None:
        """What the place is called, and who may read there."""
        binding = self._picture.binding
        await self._write(lambda uow: bindings.learned(uow, binding, kind=spot.kind, label=spot.label, url=spot.url))

    async def status(self, *, is_shown: bool) -> None:
        if self._picture.binding.status_shown != is_shown:
            await self._bound(status_shown=is_shown)
            self._picture.changed.set()

    async def others(self, twin: Twin) -> set[str]:
        """What is known to be in the channel since the twin was posted, and was not posted with its nonce."""

        async def look(uow: UnitOfWork) -> set[str]:
            known = await uow.deliveries.known_since(twin.place.account, twin.place.channel, twin.since - _CLOCKS_DIFFER)
            rows = await uow.deliveries.of_binding(self._picture.binding.id, [twin.item])
            return known - {row.remote_id for row in rows if row.nonce == twin.nonce and row.remote_id}

        return await self._read(look)

    async def posted_with(self, item: str, nonce: UUID) -> Delivery | None:
        """The part whose post bore this nonce."""
        rows = await self._read(lambda uow: uow.deliveries.of_binding(self._picture.binding.id, [item]))
        return next((row for row in rows if row.nonce == nonce), None)

    async def ended(self, reason: str) -> str | None:
        """Nothing is delivered to the place any more. Gives who is to be told, by the platform's id."""
        return await self._write(lambda uow: self._end(uow, reason))

    async def _end(self, uow: UnitOfWork, reason: str) -> str | None:
        binding = self._picture.binding
        await bindings.end(uow, binding, reason)
        turn = await uow.turns.last(binding.conversation_id)
        conversation = await uow.conversations.find(binding.conversation_id)
        asker = turn.author_id if turn else conversation.owner_id if conversation else None
        who = binding.bound_by if binding.followed else asker
        people = await uow.identities.of_users(binding.place.account, [who]) if who else []
        return people[0].external_id if people else None

    def _new(self, item: Item, index: int) -> Delivery:
        return Delivery(
            binding_id=self._picture.binding.id,
            item=item.key,
            part=index,
            message_id=item.message_id,
            revision=0,
            remote_id=None,
            thread=self._picture.place_of(item).thread,
            nonce=new_id(),
            state=DeliveryState.SENDING,
            end=None,
            shown="",
            sent_at=self._services.clock.now(),
        )

    async def _bound(self, **changes: Any) -> None:
        await self._write(lambda uow: uow.bindings.update(self._picture.binding.id, **changes))
        self._picture.binding = replace(self._picture.binding, **changes)

    async def _read(self, work: Callable[[UnitOfWork], Awaitable[_T]]) -> _T:
        return await self._again_and_again(self._services.storage.read, work)

    async def _write(self, work: Callable[[UnitOfWork], Awaitable[_T]]) -> _T:
        """A transaction of the lease's holder."""

        async def fenced(uow: UnitOfWork) -> _T:
            await uow.account_leases.fence(self._outlet.held.lease)
            binding = await uow.bindings.get(self._picture.binding.id)
            if binding is None or binding.is_former:
                is_deleted = await uow.conversations.find(self._picture.binding.conversation_id) is None
                self._picture.gone = view.DELETED if is_deleted else view.goes_on(self._picture.url)
                raise Over
            return await work(uow)

        return await self._again_and_again(self._services.storage.write, fenced)

    async def _again_and_again(
        self, begin: Callable[[], AbstractAsyncContextManager[UnitOfWork]], work: Callable[[UnitOfWork], Awaitable[_T]]
    ) -> _T:
        """While the database is away."""
        while True:
            try:
                async with begin() as uow:
                    return await work(uow)
            except StorageUnavailable as error:
                _log.warning("delivery.storage_unavailable", reason=str(error))
                await asyncio.sleep(self._outlet.rules.storage_seconds)
