"""Which models there are."""

from dataclasses import asdict

from fastapi import APIRouter, Depends, Request

from core.access import require
from core.models import JSON
from web import schemas
from web.credentials import Caller
from web.parameters import no_repeats
from web.services import services_of

router = APIRouter(prefix="/api/models", tags=["models"], dependencies=[Depends(no_repeats)])


@router.get("", response_model=list[schemas.Model])
async def list_models(request: Request, caller: Caller) -> list[JSON]:
    """The default model, then one of each provider that Onethread knows. Any other id that litellm knows may be used, too."""
    require(caller, "chat")
    return [asdict(each) for each in services_of(request).models()]
