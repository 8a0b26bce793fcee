"""What the conformance program is run against: our server with the fixtures on it, and `onethread serve` as it is installed.

The program can send no token, so each of them is reached by way of something that adds one.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import uvicorn

from core import identity
from core.access import ALL_SCOPES, Principal
from mcp_server import http
from mcp_server.callers import Bearer
from mcp_server.server import build
from mcp_server.services import Services
from mcp_server.turn_jobs import TurnJobs
from onethread.bootstrap import App, running, working
from onethread.serve import server_of, services_of
from onethread.settings import Settings
from tests.conformance import fixtures
from tests.conformance.jobs import FixtureJobs
from tests.serving import serving
from web.app import mount, web_app
from web.credentials import of_bearer
from web.services import WebRules

_ONE_HOP = (b"connection", b"transfer-encoding", b"keep-alive")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]


@asynccontextmanager
async def with_fixtures() -> AsyncIterator[str]:
    """The address of our server, put together as `serve` does it, with the fixtures on it and a worker."""
    with TemporaryDirectory() as folder:
        async with (
            running(Settings(data_dir=Path(folder), database_url="", model="demo/offline")) as app,
            working(app),
            _ended_at_last() as jobs,
        ):
            door, url = _door()
            rules = WebRules(public_url=url, hosts=frozenset({"127.0.0.1", "localhost"}), secret_key="k" * 32)
            web = web_app(services_of(app, rules))
            endpoint = _endpoint(app, rules, web.state.stopping, jobs)
            mount(web, http.PATH, endpoint)
            async with endpoint.running(), _served(_WithHeader(web, await _token(app)), door, app.settings):
                yield url + http.PATH
            web.state.stopping.set()


@asynccontextmanager
async def _ended_at_last() -> AsyncIterator[set[asyncio.Task[None]]]:
    """Holds tasks that no scenario need have ended."""
    tasks: set[asyncio.Task[None]] = set()
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _endpoint(app: App, rules: WebRules, stopping: asyncio.Event, tasks: set[asyncio.Task[None]]) -> http.Endpoint:
    services = Services(storage=app.storage, live=app.live, posting=app.rules, worker_needed=lambda: None, stopping=stopping)

    async def opening() -> Services:
        return services

    async def authenticate(credential: str) -> Principal:
        async with app.storage.read() as uow:
            return await of_bearer(uow, credential, rules)

    server = build(opening, Bearer(), state_keys=["s" * 32], jobs=lambda server: FixtureJobs(TurnJobs(server), tasks))
    fixtures.install(server)
    how = http.HttpRules(public_url=rules.public_url, hosts=rules.hosts)
    return http.Endpoint(server, authenticate=authenticate, rules=how, stopping=stopping)


async def _token(app: App) -> str:
    async with app.storage.write() as uow:
        user = await identity.local_admin(uow)
        _, secret = await identity.create_token(uow, user, "conformance", scopes=ALL_SCOPES, lifetime=None)
    return secret


class _WithHeader:
    """An application whose every request comes with a token."""

    def __init__(self, app: Any, token: str) -> None:
        self._app = app
        self._header = (b"authorization", f"Bearer {token}".encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "headers": [*scope["headers"], self._header]}
        await self._app(scope, receive, send)


# --- as it is installed ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def as_installed() -> AsyncIterator[str]:
    """The address of something that hands on to `onethread serve`, a process of its own, what it gets."""
    with TemporaryDirectory() as folder, serving(Path(folder)) as found:
        async with httpx.AsyncClient(timeout=None) as client:
            door, address = _door()
            app = _WithHeader(_Forward(client, address, found.url), found.token)
            async with _served(app, door, Settings(data_dir=Path(folder))):
                yield address + http.PATH


class _Forward:
    """Hands requests on as if they had come there, and answers as they come; whoever leaves is seen to leave there too."""

    def __init__(self, client: httpx.AsyncClient, own: str, url: str) -> None:
        self._client = client
        self._url = url
        self._ports = [address.rpartition(":")[2].encode() for address in (own, url)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message.get("more_body"):
                break
        headers = [(name, value.replace(*self._ports)) for name, value in scope["headers"] if name not in _ONE_HOP]
        request = self._client.build_request(scope["method"], self._url + scope["path"], headers=headers, content=body)
        answering = asyncio.ensure_future(self._answer(request, send))
        leaving = asyncio.ensure_future(receive())
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        for each in (answering, leaving):
            each.cancel()
        await asyncio.wait({answering, leaving})

    async def _answer(self, request: httpx.Request, send: Send) -> None:
        answer = await self._client.send(request, stream=True)
        try:
            headers = [(name.lower(), value) for name, value in answer.headers.raw if name.lower() not in _ONE_HOP]
            await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
            async for piece in answer.aiter_raw():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await answer.aclose()


# --- serving -----------------------------------------------------------------------------------------------------------


def _door() -> tuple[socket.socket, str]:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()  # who connects before the server is up waits
    return listening, f"http://127.0.0.1:{listening.getsockname()[1]}"


@asynccontextmanager
async def _served(app: Asgi, door: socket.socket, settings: Settings) -> AsyncIterator[None]:
    server: uvicorn.Server = server_of(app, settings)
    serving = asyncio.create_task(server.serve([door]), name="uvicorn")
    try:
        yield
    finally:
        server.should_exit = True
        await serving
