"""What the models cost, over HTTP and in both databases."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from core.access import Principal
from core.ids import new_id
from core.models import TokenUsage, UsageEntry
from tests.databases import on_both
from tests.integration.web.conftest import Site

new_database = on_both


async def spend(
    site: Site,
    who: Principal,
    model: str = "one/model",
    cost: str | None = "0.001",
    *,
    days: float = 0,
    at: datetime | None = None,
    conversation_id: UUID | None = None,
    **fields: Any,
) -> None:
    usage = TokenUsage(
        **{"tokens_in": 10, "tokens_out": 5, "tokens_cached": 2, "estimated": False, **fields}, cost=Decimal(cost) if cost else None
    )

    async def add(uow: Any) -> None:
        ids = {"id": new_id(), "conversation_id": conversation_id or new_id(), "project_id": new_id()}
        moment = at or uow.now - timedelta(days=days)
        await uow.usage.add(UsageEntry(**ids, task_id=None, user_id=who.user_id, model=model, usage=usage, at=moment))

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


async def test_usage_is_summed_by_day_in_utc(site: Site) -> None:
    admin = site.world.admin
    noon = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
    for days in (1, 3):
        await spend(site, admin, at=noon - timedelta(days=days))
    await spend(site, admin, "two/model", "0.2", at=noon - timedelta(days=1, hours=5), estimated=True)
    await spend(site, admin, "three/model", None, at=noon - timedelta(days=3))

    by_day = (await site.client.get("/api/usage")).json()["by_day"]

    assert by_day == [
        {"day": _day(noon, 3), "tokens_in": 20, "tokens_out": 10, "tokens_cached": 4, "cost": None, "estimated": False},
        {"day": _day(noon, 1), "tokens_in": 20, "tokens_out": 10, "tokens_cached": 4, "cost": "0.201", "estimated": True},
    ]


async def test_usage_is_that_of_whole_days_and_today(site: Site) -> None:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    begin = today - timedelta(days=6)
    await spend(site, site.world.admin, at=begin)
    await spend(site, site.world.admin, at=begin - timedelta(microseconds=1))

    usage = (await site.client.get("/api/usage", params={"days": 7})).json()
    of_today = (await site.client.get("/api/usage", params={"days": 1})).json()

    assert (datetime.fromisoformat(usage["since"]), [each["day"] for each in usage["by_day"]]) == (begin, [_day(begin, 0)])
    assert (datetime.fromisoformat(of_today["since"]), of_today["by_day"]) == (today, [])


async def test_a_day_ends_at_midnight_utc(site: Site) -> None:
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    for moment in (midnight, midnight - timedelta(microseconds=1)):
        await spend(site, site.world.admin, at=moment)

    by_day = (await site.client.get("/api/usage")).json()["by_day"]

    assert [each["day"] for each in by_day] == [_day(midnight, 1), _day(midnight, 0)]


async def test_the_usage_of_a_conversation_is_everybodys_in_it(site: Site) -> None:
    kim = await site.world.user("kim")
    task = await site.world.task("Shared")
    other = await site.world.chat()
    for who in (site.world.admin, kim):
        await spend(site, who, conversation_id=task.conversation_id)
    await spend(site, kim, "two/model", None, conversation_id=task.conversation_id)
    await spend(site, site.world.admin, conversation_id=other.id)
    async with site.calling(kim) as calling:
        usage = (await calling.get(f"/api/conversations/{task.conversation_id}/usage")).json()
    nothing = (await site.client.get(f"/api/conversations/{(await site.world.chat()).id}/usage")).json()

    assert usage == {
        "total": {"tokens_in": 30, "tokens_out": 15, "tokens_cached": 6, "cost": None, "estimated": False},
        "by_model": [
            {"model": "one/model", "tokens_in": 20, "tokens_out": 10, "tokens_cached": 4, "cost": "0.002", "estimated": False},
            {"model": "two/model", "tokens_in": 10, "tokens_out": 5, "tokens_cached": 2, "cost": None, "estimated": False},
        ],
    }
    assert nothing == {"total": {"tokens_in": 0, "tokens_out": 0, "tokens_cached": 0, "cost": "0", "estimated": False}, "by_model": []}


def _day(moment: datetime, days_before: int) -> str:
    return (moment - timedelta(days=days_before)).date().isoformat()
