"""Tools called over MCP.

MCP clients of the SDK, in a process of their own, call tools over HTTP (2026-07-28), one client and sixteen at once, each with a token
where one is wanted. The figure is the median time of a call of `list_tasks` (20 tasks) and `get_task` on SQLite. The reference is a
tool that gives its argument back, on a bare MCPServer that the same server program serves. All take turns.

The second figures are the same calls by one client where there are 100,000 tasks; their reference is the same server program with ten.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import httpx2
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import MCPServer

from core import tasks
from onethread.bootstrap import App
from tests.benchmarks.databases import sqlite, writer
from tests.benchmarks.figures import Comparison, Figure, Reference, Result, Target
from tests.benchmarks.filling import fill_tasks
from tests.benchmarks.serving import clients, plan, say, served, token_of
from tests.benchmarks.subject import InstantModel, onethread

TOOLS: dict[str, dict[str, Any]] = {"list_tasks": {}, "get_task": {"ref": "OT-5"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    clients: tuple[int, ...]
    calls: int
    """Of each client, tool and round."""
    rounds: int
    tasks: int


FULL = Size(clients=(1, 16), calls=50, rounds=6, tasks=100_000)
QUICK = Size(clients=(1, 4), calls=5, rounds=2, tasks=200)
FEW = 10
USUAL = 50
"""Tasks where the calls are compared with a bare server's."""


async def measure(size: Size) -> Sequence[Result]:
    results: list[Result] = []
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        usual, few, many = [await enter(_filled(count)) for count in (USUAL, FEW, size.tasks)]
        bare = {"url": await enter(_bare(usual.app)), "token": "", "tool": "echo", "arguments": {"text": "bench"}}
        for number in size.clients:
            calls = [usual.call(tool) for tool in TOOLS]
            *ours, reference = await _medians(size, number, [*calls, bare])
            results += [_against_bare(tool, number, took, reference) for tool, took in zip(TOOLS, ours, strict=True)]
        for tool in TOOLS:
            at_few, at_many = await _medians(size, 1, [few.call(tool), many.call(tool)])
            results.append(_growth(tool, size.tasks, at_many, at_few))
    return results


def _against_bare(tool: str, number: int, took: float, bare: float) -> Figure:
    return Figure(
        name=f"{tool}, {number} {'client' if number == 1 else 'clients'}",
        value=took,
        unit="ms",
        reference=Reference(name="a trivial tool on a bare MCPServer", value=bare),
        target=Target(comparison=Comparison.RATIO_AT_MOST, bound=2),
    )


def _growth(tool: str, number: int, many: float, few: float) -> Figure:
    return Figure(
        name=f"{tool} among {number:,} tasks",
        value=many,
        unit="ms",
        reference=Reference(name=f"among {FEW}", value=few),
        target=Target(comparison=Comparison.RATIO_AT_MOST, bound=1.5),
    )


# --- the servers -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Site:
    app: App
    url: str
    token: str

    def call(self, tool: str) -> dict[str, Any]:
        return {"url": self.url, "token": self.token, "tool": tool, "arguments": TOOLS[tool]}


@asynccontextmanager
async def _filled(number: int) -> AsyncIterator[_Site]:
    """Onethread with so many tasks, served."""
    async with sqlite() as url, onethread(url, model=InstantModel()) as app:
        principal = await app.principal()
        async with app.storage.write() as uow:
            first = await tasks.create(uow, principal, "Buy milk")
        async with writer(url) as engine:
            await fill_tasks(engine, first, number - 1)
        async with served(app) as address:
            yield _Site(app=app, url=f"http://{address}/mcp", token=await token_of(app, await app.person()))


@asynccontextmanager
async def _bare(app: App) -> AsyncIterator[str]:
    bare = MCPServer("bare")

    @bare.tool()
    async def echo(text: str) -> str:
        return text

    async with served(app, bare.streamable_http_app()) as address:
        yield f"http://{address}/mcp"


# --- the clients, in a process of their own --------------------------------------------------------------------------


async def _medians(size: Size, number: int, calls: Sequence[dict[str, Any]]) -> list[float]:
    """Milliseconds of each of the calls, made by so many clients at once."""
    what = {"clients": number, "times": size.calls, "rounds": size.rounds, "calls": calls}
    async with clients("tests.benchmarks.mcp_calls", what) as calling, asyncio.timeout(600):
        return [median(took) for took in await calling.said()]


async def _call_all(plan: dict[str, Any]) -> None:
    """The calls take turns; tells what each took."""
    async with AsyncExitStack() as stack:
        connected = [[await _connect(stack, call) for _ in range(plan["clients"])] for call in plan["calls"]]
        took: list[list[float]] = [[] for _ in plan["calls"]]
        for round_no in range(plan["rounds"] + 1):
            for index, call in enumerate(plan["calls"]):
                groups = await asyncio.gather(*[_called(client, call, plan["times"]) for client in connected[index]])
                if round_no:  # the first one warms up
                    took[index] += [each for group in groups for each in group]
    say(took)


async def _connect(stack: AsyncExitStack, call: dict[str, Any]) -> Client:
    headers = {"Authorization": f"Bearer {call['token']}"} if call["token"] else {}
    http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=60))
    return await stack.enter_async_context(Client(streamable_http_client(call["url"], http_client=http), mode="2026-07-28"))


async def _called(client: Client, call: dict[str, Any], times: int) -> list[float]:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        result = await client.call_tool(call["tool"], call["arguments"])
        took.append((time.perf_counter() - began) * 1000)
        assert not result.is_error, result
    return took


if __name__ == "__main__":
    asyncio.run(_call_all(plan()))
