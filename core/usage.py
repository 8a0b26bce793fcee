"""What the models cost: the ledger's arithmetic, and who may see it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import TypeVar
from uuid import UUID

from core import conversations
from core.access import Principal, require
from core.errors import NotAuthenticated
from core.models import TokenUsage
from core.ports import UnitOfWork, UsageSum

_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageReport:
    total: TokenUsage
    by_model: Mapping[str, TokenUsage]
    """The model that cost most tokens first."""
    by_day: Mapping[date, TokenUsage]
    """Ascending; days in UTC, those without use are missing."""


async def report(uow: UnitOfWork, principal: Principal, since: datetime, *, everyone: bool = False) -> UsageReport:
    """What this person's turns consumed since then; `everyone` is for admins."""
    require(principal, "chat")
    if everyone and not principal.admin:
        raise NotAuthenticated("Only an admin may see what everybody used. Leave everyone=true out to see your own.")
    return _report(await uow.usage.sums(since, user_id=None if everyone else principal.user_id))


async def of_conversation(uow: UnitOfWork, principal: Principal, conversation_id: UUID) -> UsageReport:
    """What all turns of a conversation consumed, whoever asked."""
    conversation = await conversations.get(uow, principal, conversation_id)
    return _report(await uow.usage.sums_of_conversation(conversation.id))


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


def _report(sums: Sequence[UsageSum]) -> UsageReport:
    by_model = _totals((each.model, each.usage) for each in sums)
    by_day = _totals((each.day, each.usage) for each in sums)
    return UsageReport(
        total=total(each.usage for each in sums),
        by_model=dict(sorted(by_model.items(), key=lambda item: (-item[1].tokens_in - item[1].tokens_out, item[0]))),
        by_day=dict(sorted(by_day.items())),
    )


def _totals(usages: Iterable[tuple[_Key, TokenUsage]]) -> dict[_Key, TokenUsage]:
    parts: defaultdict[_Key, list[TokenUsage]] = defaultdict(list)
    for key, usage in usages:
        parts[key].append(usage)
    return {key: total(found) for key, found in parts.items()}
