"""What a writer does with the calls that it was granted, in virtual time."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from bots.delivery.grants import Grants
from bots.delivery.outlet import DeliveryRules, Outlet
from bots.lease import Held
from bots.pacing import Budget, Rank, Urgency
from bots.policy import Policy
from bots.surface import Call
from core.ids import new_id
from core.models import AccountLease, Place
from tests import virtual_time
from tests.fake_surface import ACCOUNT, FakeSurface, Platform

PLACE = Place(account=ACCOUNT, channel="C1", thread="1.0")
SLOW = Budget(calls=1, seconds=10, burst=1)
LIVE = Urgency(Rank.LIVE, 0.0)


def _in_virtual_time(scenario: Callable[[Outlet], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        lease = AccountLease(surface=ACCOUNT.surface, account=ACCOUNT.id, owner=new_id(), token=1, until=datetime.now(UTC))
        surface = FakeSurface(Platform())
        surface.budgets_of[Call.EDIT] = {"edit": SLOW}
        await scenario(Outlet(surface, Held(lease, 1e9), Policy(), DeliveryRules()))

    virtual_time.run(main())


async def _granted(grants: Grants, call: Call) -> float:
    await asyncio.wait(grants.tasks)
    assert grants.has(call)
    return asyncio.get_running_loop().time()


def test_a_grant_that_is_not_needed_any_more_goes_to_whoever_waits() -> None:
    async def scenario(outlet: Outlet) -> None:
        first, second = Grants(outlet), Grants(outlet)
        await first.ask(PLACE, {Call.EDIT: LIVE})
        at = await _granted(first, Call.EDIT)
        await second.ask(PLACE, {Call.EDIT: LIVE})
        await first.ask(PLACE, {})
        assert await _granted(second, Call.EDIT) == at
        await first.end()
        await second.end()

    _in_virtual_time(scenario)


def test_a_grant_that_is_used_is_gone() -> None:
    async def scenario(outlet: Outlet) -> None:
        grants = Grants(outlet)
        await grants.ask(PLACE, {Call.EDIT: LIVE})
        at = await _granted(grants, Call.EDIT)
        grants.use(Call.EDIT)
        await grants.ask(PLACE, {Call.EDIT: LIVE})
        assert await _granted(grants, Call.EDIT) == at + 10
        await grants.end()

    _in_virtual_time(scenario)


def test_what_is_left_at_the_end_goes_to_whoever_waits() -> None:
    async def scenario(outlet: Outlet) -> None:
        first, second = Grants(outlet), Grants(outlet)
        await first.ask(PLACE, {Call.EDIT: LIVE})
        at = await _granted(first, Call.EDIT)
        await second.ask(PLACE, {Call.EDIT: LIVE})
        await first.end()
        assert await _granted(second, Call.EDIT) == at
        await second.end()

    _in_virtual_time(scenario)


def test_a_call_that_is_counted_elsewhere_by_now_is_asked_for_anew() -> None:
    """An edit that was granted while a stream ran is not the one that is made when it has ended."""

    async def scenario(outlet: Outlet) -> None:
        assert isinstance(outlet.surface, FakeSurface)
        grants = Grants(outlet)
        await grants.ask(PLACE, {Call.EDIT: LIVE})
        await _granted(grants, Call.EDIT)
        outlet.surface.budgets_of[Call.EDIT] = {"other": Budget(calls=1, seconds=50, burst=1)}
        await grants.ask(PLACE, {Call.EDIT: LIVE})
        assert not grants.has(Call.EDIT)
        assert await _granted(grants, Call.EDIT) == 50
        await grants.end()

    _in_virtual_time(scenario)
