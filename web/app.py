"""The web application: routes, middleware, errors, put together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Scope

from web import openapi, page, problems
from web.bodies import MAX_JSON_BYTES
from web.long_reads import LongReads
from web.metrics import Metrics
from web.middleware import KnownHosts, Protection, RequestLog, UnknownErrors
from web.problems import OversizeTold
from web.routes import ROUTERS
from web.services import Services


def web_app(services: Services) -> FastAPI:
    metrics = Metrics(services.storage, services.live)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with metrics.collecting():
            yield

    app = FastAPI(
        title="Onethread",
        summary="One task, one conversation with an agent.",
        version=openapi.version(),
        docs_url=None,  # its page would come from a CDN
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=openapi.operation_id,
        telemetry={"tracing": False, "metrics": False, "logs": False},
        lifespan=lifespan,
        middleware=[
            Middleware(RequestLog, metrics=metrics),
            Middleware(Protection),
            Middleware(UnknownErrors),
            Middleware(KnownHosts, hosts=services.rules.hosts),
            Middleware(OversizeTold),
        ],
    )
    app.state.services = services
    app.state.metrics = metrics
    app.state.long_reads = LongReads()
    app.state.stopping = asyncio.Event()  # set when the server is about to end: what lasts ends then, and its clients come back
    problems.install(app)
    page.install(app)
    for router in ROUTERS:
        app.include_router(router, max_body_size=MAX_JSON_BYTES)
    openapi.install(app)
    return app


def mount(app: FastAPI, path: str, surface: ASGIApp) -> None:
    """Another surface under this one address: inside our middleware, which knows its route and tells of the errors that it raises.

    Its path is no route's of ours, so it is looked at first: looking at all of them takes longer than some calls do.
    """
    app.router.routes.insert(0, _Surface(path, surface, include_in_schema=False))


class _Surface(Route):
    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        return match, {**found, "route": self}
