"""What the models cost."""

from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request

from core import frames, usage
from core.access import Principal
from core.models import JSON, TokenUsage
from web import schemas
from web.credentials import Caller
from web.long_reads import once_for
from web.parameters import no_repeats
from web.problems import documented
from web.services import Services, services_of

router = APIRouter(prefix="/api", tags=["models"], dependencies=[Depends(no_repeats)])


@router.get("/usage", response_model=schemas.Usage, responses=documented(429))
async def get_usage(
    request: Request,
    caller: Caller,
    days: Annotated[int, Query(ge=1, le=3_650, description="Today and the days before, so many in all.")] = 30,
    everyone: Annotated[bool, Query(description="Everybody's, for admins; otherwise your own.")] = False,
) -> JSON:
    """Tokens and cost, in all, by model and by day, each a whole day of UTC but for today. A cost is null where the price of any part of it
    is unknown.

    One such question of yours is answered at a time: another one ends it.
    """
    return await once_for(request, caller, "usage", _report_json(services_of(request), caller, days, everyone=everyone))


async def _report_json(services: Services, caller: Principal, days: int, *, everyone: bool) -> JSON:
    async with services.storage.read() as uow:
        since = uow.now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days - 1)
        report = await usage.report(uow, caller, since, everyone=everyone)
    by_day = [{"day": day.isoformat(), **_consumption(used)} for day, used in report.by_day.items()]
    return {"since": frames.time_json(since), **_usage_json(report), "by_day": by_day}


@router.get("/conversations/{conversation_id}/usage", response_model=schemas.ConversationUsage)
async def get_conversation_usage(request: Request, caller: Caller, conversation_id: UUID) -> JSON:
    """What all replies of a conversation consumed, whoever asked for them."""
    async with services_of(request).storage.read() as uow:
        return _usage_json(await usage.of_conversation(uow, caller, conversation_id))


def _usage_json(report: usage.UsageReport) -> JSON:
    by_model = [{"model": model, **_consumption(used)} for model, used in report.by_model.items()]
    return {"total": _consumption(report.total), "by_model": by_model}


def _consumption(used: TokenUsage) -> JSON:
    return {
        "tokens_in": used.tokens_in,
        "tokens_out": used.tokens_out,
        "tokens_cached": used.tokens_cached,
        "cost": None if used.cost is None else format(used.cost, "f"),
        "estimated": used.estimated,
    }
