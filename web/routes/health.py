"""For those who watch over the process: does it live, is it ready, how is it doing."""

import asyncio
from typing import cast

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from core.errors import NotAuthenticated, StorageUnavailable
from web.credentials import Caller
from web.metrics import CONTENT_TYPE, Metrics
from web.problems import Problem, problem_of
from web.services import services_of

READY_SECONDS = 5.0
"""How long the database may take to answer."""
router = APIRouter(tags=["operations"])


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process lives. It says nothing about the database."""
    return {"status": "ok"}


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", response_model=dict[str, str])
async def readyz(request: Request) -> Response:
    """The database can be reached and has this version's tables; otherwise 503 with the reason."""
    try:
        async with asyncio.timeout(READY_SECONDS):
            await services_of(request).storage.check()
    except StorageUnavailable as error:
        return problem_of(error)
    except TimeoutError:
        return Problem("SERVICE_UNAVAILABLE", f"The database did not answer within {READY_SECONDS:.0f} seconds.")
    return JSONResponse({"status": "ready"})


@router.head("/metrics", include_in_schema=False)
@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request, caller: Caller) -> Response:
    """For Prometheus, with a token of an admin that has the scope admin."""
    if not caller.admin:
        raise NotAuthenticated("The metrics are for admins. Create a token as one: onethread token create NAME --scope admin")
    return Response(await cast(Metrics, request.app.state.metrics).text(), media_type=CONTENT_TYPE)
