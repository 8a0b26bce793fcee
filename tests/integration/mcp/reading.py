"""Shorthand for tests that read resources and prompts and listen to what changes."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2
import pytest
import uvicorn
from mcp.client import Client
from mcp.client._transport import Transport
from mcp.client.session import IncomingMessage
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError
from mcp.types import (
    EmbeddedResource,
    ResourceListChangedNotification,
    ResourceUpdatedNotification,
    TextContent,
    TextResourceContents,
)

from core import identity
from core.access import Principal
from core.errors import StorageUnavailable
from core.ports import Storage, UnitOfWork
from mcp_server import completions, prompts, resources, subscriptions
from mcp_server.http import Endpoint, HttpRules
from mcp_server.server import Server
from tests.integration.mcp.conftest import ERAS, Office

LIST = "the list of resources"


def equipped(office: Office, who: Principal | None = None, *, told_seconds: float = 0.0) -> Server:
    """With all that there is beside the tools, and without a moment between two tellings."""
    server = office.server(who)
    for part in (resources, prompts, completions):
        part.install(server)
    subscriptions.install(server, told_seconds=told_seconds)
    return server


def only(who: Principal, *scopes: str) -> Principal:
    """Somebody whose token is good for no more than this."""
    return replace(who, scopes=frozenset(scopes))


@asynccontextmanager
async def reader(office: Office, era: str, who: Principal | None = None) -> AsyncIterator[Client]:
    async with office.client(era, server=equipped(office, who)) as client:
        yield client


async def read(client: Client, uri: str) -> str:
    (content,) = (await client.read_resource(uri)).contents
    assert isinstance(content, TextResourceContents)
    assert content.uri == uri
    return content.text


async def prompt(client: Client, name: str, **arguments: str) -> str:
    (message,) = (await client.get_prompt(name, arguments)).messages
    assert message.role == "user"
    assert not isinstance(message.content, EmbeddedResource)
    assert isinstance(message.content, TextContent)
    return message.content.text


@asynccontextmanager
async def refused(code: int, saying: str) -> AsyncIterator[None]:
    with pytest.raises(MCPError) as raised:
        yield
    assert raised.value.code == code
    assert saying in raised.value.message


def unquoted(markdown: str) -> list[str]:
    """The lines of which nobody but Onethread decides what they say."""
    return [line for line in markdown.splitlines() if line and not line.lstrip(" ").startswith(">")]


@dataclass(slots=True)
class News:
    """What a client was told of, in order."""

    told: list[str] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, what: str) -> None:
        self.told.append(what)
        self._news.set()

    async def until(self, *uris: str, seconds: float = 30) -> set[str]:
        """Waits until it was told of all of these. Gives all that it was told since the last time."""
        async with asyncio.timeout(seconds):
            while not {*uris} <= {*self.told}:
                self._news.clear()
                await self._news.wait()
        told, self.told = {*self.told}, []
        return told


@asynccontextmanager
async def listening(server: Server | Transport, era: str, *uris: str, of_list: bool = False) -> AsyncIterator[News]:
    """A client that subscribed to these, and to the list of resources, in the way of its era."""
    news = News()

    async def heard(message: IncomingMessage) -> None:
        match message:
            case ResourceUpdatedNotification():
                news.add(message.params.uri)
            case ResourceListChangedNotification():
                news.add(LIST)

    mode = "legacy" if era == ERAS[0] else era
    async with Client(server, mode=mode, message_handler=heard, raise_exceptions=True) as client:
        if era != ERAS[0]:
            async with client.listen(resource_subscriptions=uris, resources_list_changed=of_list):
                yield news
            return
        for uri in uris:
            await subscribe(client, uri)
        if of_list:
            await client.list_resources()
        yield news


async def subscribe(client: Client, uri: str) -> None:
    with pytest.warns(MCPDeprecationWarning):
        await client.subscribe_resource(uri)


async def unsubscribe(client: Client, uri: str) -> None:
    with pytest.warns(MCPDeprecationWarning):
        await client.unsubscribe_resource(uri)


@asynccontextmanager
async def over_http(office: Office, server: Server, credential: str) -> AsyncIterator[Callable[[], Transport]]:
    """Serves it on a port of 127.0.0.1, and gives ways to it for the bearer of this token."""

    async def authenticate(given: str) -> Principal:
        return await office.world.read(lambda uow: identity.authenticate(uow, given))

    rules = HttpRules(public_url="http://127.0.0.1", hosts={"127.0.0.1"})
    endpoint = Endpoint(server, authenticate=authenticate, rules=rules, stopping=office.services.stopping)
    async with (
        serving(endpoint) as url,
        endpoint.running(),
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {credential}"}, timeout=20) as calls,
    ):
        yield lambda: streamable_http_client(f"{url}/mcp", http_client=calls)


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """An ASGI app on a port of 127.0.0.1."""
    listening_at = socket.create_server(("127.0.0.1", 0))
    http = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, access_log=False))
    running = asyncio.create_task(http.serve([listening_at]), name="uvicorn")
    try:
        yield f"http://127.0.0.1:{listening_at.getsockname()[1]}"
    finally:
        http.should_exit = True
        await running


class Watched:
    """A storage that counts how often it is read, fails when it is told to, and does once what it is told to do after a reading."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.reads = 0
        self.failures = 0
        self.afterwards: Callable[[], Awaitable[object]] | None = None

    @asynccontextmanager
    async def read(self) -> AsyncIterator[UnitOfWork]:
        self.reads += 1
        if self.failures:
            self.failures -= 1
            raise StorageUnavailable("The database is away.")
        async with self._storage.read() as uow:
            yield uow
        if deed := self.afterwards:
            self.afterwards = None
            await deed()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)
