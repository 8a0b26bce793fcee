"""The MCP surface as its clients reach it: a real client in this process, in both eras of the protocol, before the test's Onethread."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from mcp.client import Client
from mcp.client.context import ClientRequestContext
from mcp.server.context import ServerRequestContext
from mcp.types import CallToolResult, ElicitRequestFormParams, ElicitRequestParams, ElicitResult, TextContent

from core.access import Principal
from core.models import JSON
from mcp_server.offer import Selection
from mcp_server.server import Server
from mcp_server.services import Rules, Services
from tests.integration.conftest import World

ERAS = ("2025-11-25", "2026-07-28")
_EVERYTHING = Selection()
PROMPT = Rules(told_seconds=0.0)
"""Tells everything at once."""


class As:
    """A caller who is always the same, with what their token is good for and their request selects."""

    def __init__(self, principal: Principal, selection: Selection) -> None:
        self._principal = principal
        self._selection = selection

    async def principal(self, _ctx: ServerRequestContext[Any, Any]) -> Principal:
        return self._principal

    def scopes(self, _ctx: ServerRequestContext[Any, Any]) -> frozenset[str]:
        return self._principal.scopes

    def selection(self, _ctx: ServerRequestContext[Any, Any]) -> Selection:
        return self._selection


@dataclass(slots=True)
class Heard:
    """The progress that a client was told of."""

    numbers: list[float] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        self.numbers.append(progress)
        self.lines.append(message or "")
        self._news.set()

    async def until(self, holds: Callable[[str], bool], seconds: float = 30) -> str:
        """Waits for such a line."""
        async with asyncio.timeout(seconds):
            while not (found := [line for line in self.lines if holds(line)]):
                self._news.clear()
                await self._news.wait()
        return found[0]


@dataclass(slots=True)
class Person:
    """Whoever sits at the client: gives the answers that the test queued, and remembers what they were asked."""

    answers: list[ElicitResult | Callable[[], Awaitable[ElicitResult]]] = field(default_factory=list)
    asked: list[ElicitRequestFormParams] = field(default_factory=list)

    def will(self, action: str, **content: Any) -> "Person":
        self.answers.append(ElicitResult.model_validate({"action": action, "content": content if action == "accept" else None}))
        return self

    async def __call__(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        assert isinstance(params, ElicitRequestFormParams)
        self.asked.append(params)
        answer = self.answers.pop(0)
        return answer if isinstance(answer, ElicitResult) else await answer()


class Wanted:
    """How often a worker was asked for."""

    def __init__(self) -> None:
        self._times = 0
        self._news = asyncio.Event()

    def __call__(self) -> None:
        self._times += 1
        self._news.set()

    def __len__(self) -> int:
        return self._times

    async def until(self, times: int, seconds: float = 30) -> None:
        async with asyncio.timeout(seconds):
            while self._times < times:
                self._news.clear()
                await self._news.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Office:
    """Onethread's MCP surface under test."""

    world: World
    services: Services
    wanted: Wanted

    def server(self, who: Principal | None = None, *, serves: Selection = _EVERYTHING, asks: Selection = _EVERYTHING) -> Server:
        return Server(self._opened, As(who or self.world.admin, asks), selection=serves, state_keys=["k" * 32])

    @asynccontextmanager
    async def client(
        self, era: str, who: Principal | None = None, *, person: Person | None = None, server: Server | None = None
    ) -> AsyncIterator[Client]:
        """An assistant that speaks for somebody. Without a person it cannot ask anybody."""
        mode = "legacy" if era == ERAS[0] else era
        async with Client(server or self.server(who), mode=mode, elicitation_callback=person, raise_exceptions=True) as client:
            assert client.protocol_version == era
            yield client

    def under(self, **rules: Any) -> "Office":
        """The same with other numbers."""
        return replace(self, services=replace(self.services, rules=replace(self.services.rules, **rules)))

    async def _opened(self) -> Services:
        return self.services


def answer(result: CallToolResult) -> JSON:
    """What a call gave. Its text says the same."""
    assert not result.is_error, text(result)
    assert result.structured_content is not None
    content: JSON = result.structured_content
    assert json.loads(text(result)) == content
    return content


def refusal(result: CallToolResult) -> str:
    """What a call was refused with."""
    assert result.is_error
    assert result.structured_content is None
    return text(result)


def text(result: CallToolResult) -> str:
    (block,) = result.content
    assert isinstance(block, TextContent)
    return block.text


def office_of(world: World, **rules: Any) -> Office:
    wanted = Wanted()
    services = Services(
        storage=world.app.storage,
        live=world.app.live,
        posting=world.app.rules,
        worker_needed=wanted,
        stopping=asyncio.Event(),
        rules=replace(PROMPT, **rules),
    )
    return Office(world=world, services=services, wanted=wanted)


@pytest.fixture
def office(world: World) -> Office:
    return office_of(world)


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found
