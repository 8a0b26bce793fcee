"""What the models cost."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from core import frames, usage
from core.models import JSON, TokenUsage
from web import schemas
from web.credentials import Caller
from web.parameters import no_repeats
from web.services import services_of

router = APIRouter(prefix="/api/usage", tags=["models"], dependencies=[Depends(no_repeats)])


@router.get("", response_model=schemas.Usage)
async def get_usage(
    request: Request,
    caller: Caller,
    days: Annotated[int, Query(ge=1, le=3_650, description="Of the last so many days.")] = 30,
    everyone: Annotated[bool, Query(description="Everybody's, for admins; otherwise your own.")] = False,
) -> JSON:
    """Tokens and cost, in all and by model. A cost is null where the price of any part of it is unknown."""
    async with services_of(request).storage.read() as uow:
        since = uow.now - timedelta(days=days)
        report = await usage.report(uow, caller, since, everyone=everyone)
    by_model = [{"model": model, **_consumption(used)} for model, used in report.by_model.items()]
    return {"since": frames.time_json(since), "total": _consumption(report.total), "by_model": by_model}


def _consumption(used: TokenUsage) -> JSON:
    return {
        "tokens_in": used.tokens_in,
        "tokens_out": used.tokens_out,
        "tokens_cached": used.tokens_cached,
        "cost": None if used.cost is None else format(used.cost, "f"),
        "estimated": used.estimated,
    }
