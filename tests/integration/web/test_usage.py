"""What the models cost, over HTTP and in both databases."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

from core.access import Principal
from core.ids import new_id
from core.models import TokenUsage, UsageEntry
from tests.databases import on_both
from tests.integration.web.conftest import Site

new_database = on_both


async def spend(site: Site, who: Principal, model: str = "one/model", cost: str | None = "0.001", days: float = 0, **fields: Any) -> None:
    usage = TokenUsage(
        **{"tokens_in": 10, "tokens_out": 5, "tokens_cached": 2, "estimated": False, **fields}, cost=Decimal(cost) if cost else None
    )

    async def add(uow: Any) -> None:
        ids = {name: new_id() for name in ("id", "conversation_id", "project_id")}
        await uow.usage.add(
            UsageEntry(**ids, task_id=None, user_id=who.user_id, model=model, usage=usage, at=uow.now - timedelta(days=days))
        )

    await site.world.write(add)


async def test_usage_is_summed_in_all_and_by_model_without_rounding(site: Site) -> None:
    admin = site.world.admin
    for cost in ("0.1", "0.2", "0.000000001"):
        await spend(site, admin, cost=cost)
    await spend(site, admin, "two/model", "1", tokens_in=100, estimated=True)

    usage = (await site.client.get("/api/usage")).json()

    assert usage["total"] == {"tokens_in": 130, "tokens_out": 20, "tokens_cached": 8, "cost": "1.300000001", "estimated": True}
    assert usage["by_model"] == [
        {"model": "two/model", "tokens_in": 100, "tokens_out": 5, "tokens_cached": 2, "cost": "1", "estimated": True},
        {"model": "one/model", "tokens_in": 30, "tokens_out": 15, "tokens_cached": 6, "cost": "0.300000001", "estimated": False},
    ]


async def test_a_price_that_is_unknown_makes_the_sum_unknown(site: Site) -> None:
    await spend(site, site.world.admin)
    await spend(site, site.world.admin, "two/model")
    await spend(site, site.world.admin, "two/model", None)

    usage = (await site.client.get("/api/usage")).json()

    assert usage["total"]["cost"] is None
    assert {model["model"]: model["cost"] for model in usage["by_model"]} == {"one/model": "0.001", "two/model": None}


async def test_one_sees_the_own_usage_and_an_admin_everybodys(site: Site) -> None:
    member = await site.world.user("member")
    await spend(site, site.world.admin)
    await spend(site, member)

    async with site.calling(member) as client:
        own = (await client.get("/api/usage")).json()
        refused = await client.get("/api/usage", params={"everyone": True})
    everybodys = (await site.client.get("/api/usage", params={"everyone": True})).json()

    assert own["total"]["tokens_in"] == 10
    assert refused.status_code == 401
    assert everybodys["total"]["tokens_in"] == 20


async def test_usage_reaches_back_as_far_as_one_asks(site: Site) -> None:
    await spend(site, site.world.admin, days=3)

    recent = (await site.client.get("/api/usage", params={"days": 2})).json()
    longer = (await site.client.get("/api/usage", params={"days": 4})).json()

    assert (recent["total"]["tokens_in"], recent["total"]["cost"], recent["by_model"]) == (0, "0", [])
    assert longer["total"]["tokens_in"] == 10


_WRONG_DAYS = ["0", "3651", "x", "-1"]


async def test_days_out_of_bounds_are_refused(site: Site) -> None:
    for days in _WRONG_DAYS:
        assert (await site.client.get("/api/usage", params={"days": days})).status_code == 400
