"""The web surface under measurement, and its clients, which are a process of their own so that the server's CPU is counted alone."""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from core import identity
from core.models import User
from mcp_server import http as mcp_http
from onethread.bootstrap import App
from onethread.serve import mcp_endpoint, server_of, services_of
from web.app import mount, web_app
from web.services import WebRules

_ROOT = Path(__file__).parents[2]
_SECRET_KEY = "only for measuring: nobody may know"


@asynccontextmanager
async def served(app: App, web: Any = None) -> AsyncIterator[str]:
    """Serves Onethread's web surface with /mcp, or another application as Onethread's is served, until the block ends: host and port."""
    # asyncio turns Nagle's algorithm off where the protocol is named, as that of `onethread serve` is; with it answers wait for 40 ms.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen()  # who connects before the server is up waits
    async with AsyncExitStack() as parts:
        server = server_of(web or await parts.enter_async_context(_onethread(app)), app.settings)
        serving = asyncio.create_task(server.serve([listening]), name="uvicorn")
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


@asynccontextmanager
async def _onethread(app: App) -> AsyncIterator[Any]:
    rules = WebRules(public_url="http://127.0.0.1", hosts=frozenset({"127.0.0.1"}), secret_key=_SECRET_KEY)
    web = web_app(services_of(app, rules))
    mcp = mcp_endpoint(app, rules, web.state.stopping)
    mount(web, mcp_http.PATH, mcp)
    async with mcp.running():
        yield web


async def token_of(app: App, user: User) -> str:
    async with app.storage.write() as uow:
        return (await identity.create_token(uow, user, "bench", scopes=identity.USUAL_SCOPES, lifetime=None))[1]


class Clients:
    """A process that says a line of JSON now and then."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def said(self) -> Any:
        assert self._process.stdout
        return json.loads(await self._process.stdout.readline())


@asynccontextmanager
async def clients(module: str, plan: Any) -> AsyncIterator[Clients]:
    """Runs the module with the plan, as one line of JSON, on its standard input; ended with the block."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", module, stdin=pipe, stdout=pipe, cwd=_ROOT, limit=1_000_000_000)
    try:
        assert process.stdin
        process.stdin.write(json.dumps(plan).encode() + b"\n")
        yield Clients(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def plan() -> Any:
    """What the process of clients is to do."""
    return json.loads(sys.stdin.readline())


def say(said: Any) -> None:
    sys.stdout.write(f"{json.dumps(said)}\n")
    sys.stdout.flush()
