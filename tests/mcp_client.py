"""An MCP client that shares nothing with the SDK: JSON-RPC over HTTP or over a process's pipes, in both eras of the protocol."""

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx

from tests import forking

JSON = dict[str, Any]
LEGACY = "2025-11-25"
MODERN = "2026-07-28"
TASKS: JSON = {"io.modelcontextprotocol/tasks": {}}
_NAMES = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"} | dict.fromkeys(
    ("tasks/get", "tasks/update", "tasks/cancel"), "taskId"
)
"""Which parameter is sent as a header, too."""
_END_SECONDS = 30


class RpcError(Exception):
    """The server's error to a request."""

    def __init__(self, code: int, message: str, data: Any) -> None:
        super().__init__(code, message, data)
        self.code = code
        self.message = message
        self.data = data


class Wire(Protocol):
    def ask(self, message: JSON, headers: Mapping[str, str]) -> AsyncGenerator[JSON, None]:
        """Sends a request; gives what comes until its answer is there, the answer included."""
        ...

    async def tell(self, message: JSON, headers: Mapping[str, str]) -> None:
        """Sends what has no answer."""
        ...


class HttpWire:
    def __init__(self, http: httpx.AsyncClient, path: str = "/mcp") -> None:
        self._http = http
        self._path = path
        self._session: dict[str, str] = {}

    async def ask(self, message: JSON, headers: Mapping[str, str]) -> AsyncGenerator[JSON, None]:
        async with self._http.stream("POST", self._path, json=message, headers=self._headers(headers)) as answer:
            if session := answer.headers.get("mcp-session-id"):
                self._session = {"mcp-session-id": session}
            if answer.headers.get("content-type", "").startswith("text/event-stream"):
                async for line in answer.aiter_lines():
                    if line.startswith("data:") and (data := line.removeprefix("data:").strip()):
                        yield json.loads(data)
                return
            body = await answer.aread()
            assert answer.headers.get("content-type") == "application/json", (answer.status_code, body)
            yield json.loads(body)

    async def tell(self, message: JSON, headers: Mapping[str, str]) -> None:
        answer = await self._http.post(self._path, json=message, headers=self._headers(headers))
        assert answer.status_code == 202, answer.text

    def _headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {"accept": "application/json, text/event-stream", **self._session, **headers}


class PipeWire:
    """One request at a time."""

    def __init__(self, process: asyncio.subprocess.Process | forking.Process) -> None:
        self.process = process

    async def ask(self, message: JSON, headers: Mapping[str, str]) -> AsyncGenerator[JSON, None]:
        await self.tell(message, headers)
        while True:
            answer = await self._next()
            yield answer
            if answer.get("id") == message["id"] and "method" not in answer:
                return

    async def tell(self, message: JSON, _headers: Mapping[str, str]) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        await self.process.stdin.drain()

    async def _next(self) -> JSON:
        assert self.process.stdout
        line = await self.process.stdout.readline()
        assert line, "the server has ended"
        found: JSON = json.loads(line)
        assert found["jsonrpc"] == "2.0"
        return found


@dataclass
class McpClient:
    wire: Wire
    era: str = MODERN
    capabilities: JSON = field(default_factory=dict)
    answers: Callable[[JSON], JSON] | None = None
    """What it answers to the server's own requests, which there are in the older era only."""
    notified: list[JSON] = field(default_factory=list)
    """What the server sent without being asked."""
    server: JSON = field(default_factory=dict)
    """What it says of itself."""
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    async def start(self) -> "McpClient":
        """Says who it is, where the era has it so, and learns what the server can do."""
        if self.era == MODERN:
            self.server = await self.request("server/discover")
            return self
        params = {"protocolVersion": self.era, "capabilities": self.capabilities, "clientInfo": _SELF}
        self.server = await self.request("initialize", params)
        assert self.server["protocolVersion"] == self.era
        await self.wire.tell({"jsonrpc": "2.0", "method": "notifications/initialized"}, self._headers("notifications/initialized", {}))
        return self

    async def call(self, tool: str, **arguments: Any) -> JSON:
        return await self.request("tools/call", {"name": tool, "arguments": arguments})

    async def request(self, method: str, params: JSON | None = None, *, headers: Mapping[str, str] | None = None) -> JSON:
        """The result. Raises RpcError. `headers` replace those that belong to it."""
        async with aclosing(self.messages(method, params, headers=headers)) as messages:
            async for message in messages:
                if "method" not in message:
                    return _result(message)
                await self._take(message)
        raise AssertionError(f"{method} was not answered")

    async def messages(
        self, method: str, params: JSON | None = None, *, headers: Mapping[str, str] | None = None
    ) -> AsyncGenerator[JSON, None]:
        """All that comes in answer to a request."""
        sent = {**(params or {}), **self._meta(params or {})}
        message = {"jsonrpc": "2.0", "id": next(self._numbers), "method": method, "params": sent}
        async with aclosing(self.wire.ask(message, {**self._headers(method, sent), **(headers or {})})) as answers:
            async for answer in answers:
                yield answer

    def _meta(self, params: JSON) -> JSON:
        if self.era == LEGACY:
            return {}
        envelope = {
            "io.modelcontextprotocol/protocolVersion": self.era,
            "io.modelcontextprotocol/clientCapabilities": self.capabilities,
            "io.modelcontextprotocol/clientInfo": _SELF,
        }
        return {"_meta": {**envelope, **params.get("_meta", {})}}

    def _headers(self, method: str, params: JSON) -> dict[str, str]:
        version = {} if method == "initialize" else {"mcp-protocol-version": self.era}
        if self.era == LEGACY:
            return version
        name = {"mcp-name": str(params[_NAMES[method]])} if method in _NAMES else {}
        return {**version, "mcp-method": method, **name}

    async def _take(self, message: JSON) -> None:
        if "id" not in message:
            self.notified.append(message)
            return
        assert self.answers, message
        answer = {"jsonrpc": "2.0", "id": message["id"], "result": self.answers(message)}
        await self.wire.tell(answer, self._headers(message["method"], {}))


@asynccontextmanager
async def started(command: Sequence[str], environment: Mapping[str, str], folder: str) -> AsyncIterator[PipeWire]:
    """A server on pipes. At the end its standard input is closed, upon which it must end by itself, having said nothing but protocol."""
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, cwd=folder, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**20
    )
    assert process.stdin
    assert process.stdout
    try:
        yield PipeWire(process)
        process.stdin.close()
        async with asyncio.timeout(_END_SECONDS):
            rest = await process.stdout.read()
            await process.wait()
        assert all(json.loads(line)["jsonrpc"] == "2.0" for line in rest.splitlines())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


_SELF = {"name": "onethread-tests", "version": "1"}


def _result(message: JSON) -> JSON:
    if error := message.get("error"):
        raise RpcError(error["code"], error["message"], error.get("data"))
    found: JSON = message["result"]
    return found
