"""What the models cost: the ledger's arithmetic, and who may see it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from core.access import Principal, require
from core.errors import NotAuthenticated
from core.models import TokenUsage
from core.ports import UnitOfWork


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageReport:
    total: TokenUsage
    by_model: Mapping[str, TokenUsage]
    """The model that cost most tokens first."""


async def report(uow: UnitOfWork, principal: Principal, since: datetime, *, everyone: bool = False) -> UsageReport:
    """What this person's turns consumed since then; `everyone` is for admins."""
    require(principal, "chat")
    if everyone and not principal.admin:
        raise NotAuthenticated("Only an admin may see what everybody used. Leave everyone=true out to see your own.")
    found = await uow.usage.by_model(since, user_id=None if everyone else principal.user_id)
    ordered = sorted(found.items(), key=lambda item: (-item[1].tokens_in - item[1].tokens_out, item[0]))
    return UsageReport(total=total(found.values()), by_model=dict(ordered))


def total(usages: Iterable[TokenUsage]) -> TokenUsage:
    """The sum. Its cost is None where any part's price is unknown: a wrong figure is worse than none."""
    parts = list(usages)
    costs = [part.cost for part in parts if part.cost is not None]
    return TokenUsage(
        tokens_in=sum(part.tokens_in for part in parts),
        tokens_out=sum(part.tokens_out for part in parts),
        tokens_cached=sum(part.tokens_cached for part in parts),
        cost=sum(costs, Decimal(0)) if len(costs) == len(parts) else None,
        estimated=any(part.estimated for part in parts),
    )
