"""What the models cost: the ledger's arithmetic."""

from collections.abc import Iterable
from decimal import Decimal

from core.models import TokenUsage


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
