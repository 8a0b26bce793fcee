"""What a writer does with the calls that it was granted, in virtual time."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from bots.delivery.grants import Grants
from bots.delivery.outlet import DeliveryRules, Need, Outlet
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
EDIT = Need(Call.EDIT, PLACE)
LIVE = Urgency(Rank.LIVE, 0.0)


def _in_virtual_time(scenario: Callable[[Outlet], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        lease = AccountLease(surface=ACCOUNT.surface, account=ACCOUNT.id, owner=new_id(), token=1, until=datetime.now(UTC))
        surface = FakeSurface(Platform())
        surface.budgets_of[Call.EDIT] = {"edit": SLOW}
        await scenario(Outlet(surface, Held(lease, 1e9), Policy(), DeliveryRules()))

    virtual_time.run(main())


async def _granted(grants: Grants, need: Need = EDIT) -> float:
    await asyncio.wait(grants.tasks)
    assert grants.has(need)
    return asyncio.get_running_loop().time()


def test_a_grant_that_is_not_needed_any_more_goes_to_whoever_waits() -> None:
    async def scenario(outlet: Outlet) -> None:
        first, second = Grants(outlet), Grants(outlet)
        await first.ask({EDIT: LIVE})
        at = await _granted(first)
        await second.ask({EDIT: LIVE})
        await first.ask({})
        assert await _granted(second) == at
        await first.end()
        await second.end()

    _in_virtual_time(scenario)


def test_a_grant_that_is_used_is_gone() -> None:
    async def scenario(outlet: Outlet) -> None:
        grants = Grants(outlet)
        await grants.ask({EDIT: LIVE})
        at = await _granted(grants)
        grants.use(EDIT)
        await grants.ask({EDIT: LIVE})
        assert await _granted(grants) == at + 10
        await grants.end()

    _in_virtual_time(scenario)


def test_what_is_left_at_the_end_goes_to_whoever_waits() -> None:
    async def scenario(outlet: Outlet) -> None:
        first, second = Grants(outlet), Grants(outlet)
        await first.ask({EDIT: LIVE})
        at = await _granted(first)
        await second.ask({EDIT: LIVE})
        await first.end()
        assert await _granted(second) == at
        await second.end()

    _in_virtual_time(scenario)


def test_a_call_that_is_counted_elsewhere_by_now_is_asked_for_anew() -> None:
    """An edit that was granted while a stream ran is not the one that is made when it has ended."""

    async def scenario(outlet: Outlet) -> None:
        assert isinstance(outlet.surface, FakeSurface)
        grants = Grants(outlet)
        await grants.ask({EDIT: LIVE})
        await _granted(grants)
        outlet.surface.budgets_of[Call.EDIT] = {"other": Budget(calls=1, seconds=50, burst=1)}
        await grants.ask({EDIT: LIVE})
        assert not grants.has(EDIT)
        assert await _granted(grants) == 50
        await grants.end()

    _in_virtual_time(scenario)


def test_a_call_of_another_kind_or_at_another_place_waits_by_itself() -> None:
    async def scenario(outlet: Outlet) -> None:
        assert isinstance(outlet.surface, FakeSurface)
        outlet.surface.by_place = {Call.EDIT}
        amend, elsewhere = Need(Call.AMEND, PLACE), Need(Call.EDIT, replace(PLACE, thread=""))
        grants = Grants(outlet)
        await grants.ask({EDIT: LIVE})
        await _granted(grants)
        await grants.ask({EDIT: LIVE, amend: LIVE, elsewhere: LIVE})
        await asyncio.wait(grants.tasks)
        assert all(grants.has(need) for need in (EDIT, amend, elsewhere))
        grants.use(EDIT)
        assert (grants.has(EDIT), grants.has(amend)) == (False, True)
        await grants.end()

    _in_virtual_time(scenario)
