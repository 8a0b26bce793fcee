"""Whether a place may show what somebody wants to follow there: the platform is asked before anything goes out or comes in."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import structlog

from bots.delivery.outlet import Outlet
from bots.pacing import Rank
from bots.services import Services
from bots.surface import AccountClosed, Busy, Call, PermissionMissing, PlaceClosed, Refused, Spot
from core import bindings
from core.errors import Conflict, NotFound
from core.ids import new_id
from core.models import NEW_THREAD, NOT_A_READER, NOT_SERVED, PLACE_TAKEN, Binding, BindingCheck
from core.ports import UnitOfWork

_MISSING = "missing_permission"
_T = TypeVar("_T")
_log = structlog.get_logger()


async def checked(services: Services, outlet: Outlet, binding: Binding, *, is_patient: bool) -> Binding | None:
    """The binding with what its place is; None where it ended instead, without a word at the place, or another one shows it there.

    Raises LeaseLost, StorageUnavailable, and the SurfaceErrors after which it is to be asked again: `is_patient` says whether what nobody
    knows the reason of is one of them.
    """
    try:
        spot = await _look_up(services, outlet, binding)
        if not await outlet.serves(spot.channel):
            raise PlaceClosed("Onethread is not to write there.", reason=NOT_SERVED)
        found = await _noted(services, outlet, lambda uow: _fit(uow, outlet, binding, spot))
    except (PlaceClosed, PermissionMissing, Refused) as error:
        if isinstance(error, Refused) and is_patient:
            raise
        reason = _MISSING if isinstance(error, PermissionMissing) else error.reason
    except Conflict:  # at this moment somebody had something else shown there
        reason = PLACE_TAKEN
    except NotFound:  # nobody wants it there any more
        return None
    except AccountClosed as error:
        outlet.close(error)
        raise
    else:
        outlet.learned(found.place)
        return found if found.id == binding.id and found.is_delivered_to else None
    _log.info("delivery.place_not_fit", binding_id=str(binding.id), reason=reason)
    await _noted(services, outlet, lambda uow: bindings.end(uow, binding, reason))
    return None


async def _look_up(services: Services, outlet: Outlet, binding: Binding) -> Spot:
    """Raises PlaceClosed where whoever bound it does not read there."""
    if binding.check is BindingCheck.PLACE:
        return await _asked(outlet, binding, "")
    async with services.storage.read() as uow:
        people = await uow.identities.of_users(binding.place.account, [binding.bound_by] if binding.bound_by else [])
    for person in people:
        with suppress(PlaceClosed, PermissionMissing):  # they are told no more of a place that the bot does not see than of others'
            spot = await _asked(outlet, binding, person.external_id)
            if spot.reads:
                return spot
    raise PlaceClosed("Whoever wanted that does not read there.", reason=NOT_A_READER)


async def _asked(outlet: Outlet, binding: Binding, person: str) -> Spot:
    place = binding.place
    await outlet.granted(Call.LOOK, place, Rank.FIRST)
    await outlet.ready()
    try:
        return await outlet.finish(outlet.surface.look_up(place, person))
    except Busy as error:
        outlet.busy(Call.LOOK, place, error)
        raise


async def _fit(uow: UnitOfWork, outlet: Outlet, binding: Binding, spot: Spot) -> Binding:
    """In a channel that is no conversation by itself a thread is made."""
    thread, opened = spot.thread, True
    if not thread and not outlet.is_chat(spot.channel, spot.kind):
        thread, opened = binding.thread if binding.thread.startswith(NEW_THREAD) else f"{NEW_THREAD}{new_id()}", False
    return await bindings.checked(
        uow, binding, channel=spot.channel, thread=thread, opened=opened, kind=spot.kind, label=spot.label, url=spot.url
    )


async def _noted(services: Services, outlet: Outlet, work: Callable[[UnitOfWork], Awaitable[_T]]) -> _T:
    """A transaction of the lease's holder."""
    async with services.storage.write() as uow:
        await uow.account_leases.fence(outlet.held.lease)
        return await work(uow)
