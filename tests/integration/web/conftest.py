"""The web surface as its callers reach it: a real server on a port of 127.0.0.1, in front of the test's Onethread."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from starlette.routing import BaseRoute
from websockets.asyncio.client import ClientConnection, connect

from core import identity
from core.access import ALL_SCOPES, Principal
from onethread.serve import server_of, services_of
from tests.integration.conftest import World
from web.app import web_app
from web.credentials import issue_jwt
from web.passwords import Argon2
from web.services import Services, WebRules

SECRET_KEY = "a key of thirty-two characters!!"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Onethread's web surface under test. `client` speaks for the local admin."""

    world: World
    app: FastAPI
    url: str
    client: httpx.AsyncClient

    async def token(self, who: Principal, *, scopes: frozenset[str] = frozenset({"tasks:read", "tasks:write", "chat"})) -> str:
        """A personal token of theirs."""

        async def create(uow: Any) -> str:
            user = await uow.users.get(who.user_id)
            number = len(await uow.tokens.of_user(who.user_id))
            return (await identity.create_token(uow, user, f"test-{number}", scopes=scopes, lifetime=None))[1]

        return await self.world.write(create)

    @asynccontextmanager
    async def calling(self, who: Principal, **fields: Any) -> AsyncIterator[httpx.AsyncClient]:
        """A client that speaks for somebody, by a token."""
        headers = {"Authorization": f"Bearer {await self.token(who, **fields)}"}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=20) as client:
            yield client

    @asynccontextmanager
    async def signed_in(self, who: Principal) -> AsyncIterator[httpx.AsyncClient]:
        """A client that speaks for somebody, and may all that they may."""
        services: Services = self.app.state.services
        user = await self.world.read(lambda uow: identity.user_of(uow, who))
        headers = {"Authorization": f"Bearer {issue_jwt(user, services.rules, services.clock.now())}"}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=20) as client:
            yield client

    @asynccontextmanager
    async def socket(self, who: Principal | None = None, **fields: Any) -> AsyncIterator[ClientConnection]:
        """A WebSocket that speaks for somebody."""
        headers = {"Authorization": f"Bearer {await self.token(who or self.world.admin)}"}
        async with connect(f"{self.url.replace('http', 'ws', 1)}/ws", additional_headers=headers, **fields) as found:
            yield found


@asynccontextmanager
async def site_of(world: World, **rules: Any) -> AsyncIterator[Site]:
    """Serves `world` until the block ends. `rules` replace those of WebRules."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()  # who connects before the server is up waits
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    chosen = {"public_url": url, "hosts": frozenset({"127.0.0.1", "localhost"}), "secret_key": SECRET_KEY, **rules}
    services = replace(services_of(world.app, WebRules(**chosen)), passwords=_QuickArgon2())
    app = _with_the_routes_of_the_first(web_app(services))
    server = server_of(app, world.app.settings)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(_stop, server, asyncio.create_task(server.serve([listening]), name="uvicorn"))
        site = Site(world=world, app=app, url=url, client=await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=20)))
        site.client.headers["Authorization"] = f"Bearer {await site.token(world.admin, scopes=ALL_SCOPES)}"
        yield site


class _QuickArgon2(Argon2):
    """With the least that argon2 can be told to do. What passwords cost people is shown with the class itself."""

    def __init__(self) -> None:
        super().__init__()
        self._argon2 = PasswordHash((Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1),))


_routes: list[BaseRoute] = []


def _with_the_routes_of_the_first(app: FastAPI) -> FastAPI:
    """FastAPI reads the signatures behind all routes anew for each application, for longer than most tests take."""
    _routes.extend(() if _routes else app.router.routes)
    app.router.routes[:] = _routes
    return app


async def _stop(server: uvicorn.Server, serving: "asyncio.Task[None]") -> None:
    server.should_exit = True
    await serving


@pytest.fixture
async def site(world: World) -> AsyncIterator[Site]:
    async with site_of(world) as found:
        yield found
