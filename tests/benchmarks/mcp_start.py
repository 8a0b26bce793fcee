"""From starting the stdio MCP server to its first answer.

What an IDE waits for when it starts `onethread mcp` on a SQLite file: the time from spawning the process to its answer to the first
request, `server/discover` and, for older clients, `initialize`. The reference is a program that does nothing but run a bare MCPServer
of the same SDK with one tool. Both take turns, and the medians are compared. What the first tool call takes from the start on, the
database opened, is told beside it.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.figures import Comparison, Figure, Reference, Result, Target

BARE = """
from mcp.server.mcpserver import MCPServer

server = MCPServer("bare")


@server.tool()
async def echo(text: str) -> str:
    return text


server.run()
"""
ONETHREAD = str(Path(sys.executable).with_name("onethread"))
_ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
DISCOVER = {"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": _ENVELOPE}}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}},
}
LIST_TASKS = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "list_tasks", "arguments": {}, "_meta": _ENVELOPE}}
ECHO = {**LIST_TASKS, "params": {"name": "echo", "arguments": {"text": "bench"}, "_meta": _ENVELOPE}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    starts: int
    """Of each program and request."""


FULL = Size(starts=21)
QUICK = Size(starts=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    onethread: list[str]
    bare: list[str]
    environment: dict[str, str]


async def measure(size: Size) -> Sequence[Result]:
    with tempfile.TemporaryDirectory() as directory:
        bare = Path(directory) / "bare.py"
        bare.write_text(BARE, encoding="utf-8")
        environment = {**os.environ, "ONETHREAD_DATA_DIR": directory}
        programs = Programs(onethread=[ONETHREAD, "mcp"], bare=[sys.executable, str(bare)], environment=environment)
        _both(programs, [DISCOVER], [DISCOVER])  # makes the database and warms the disk's cache
        modern = [_both(programs, [DISCOVER], [DISCOVER]) for _ in range(size.starts)]
        legacy = [_both(programs, [INITIALIZE], [INITIALIZE]) for _ in range(size.starts)]
        calls = [_both(programs, [DISCOVER, LIST_TASKS], [DISCOVER, ECHO]) for _ in range(size.starts)]
    target = Target(comparison=Comparison.RATIO_AT_MOST, bound=1.3)
    return [
        _figure("start to the answer to server/discover", modern, target),
        _figure("start to the answer to initialize", legacy, target),
        _figure("start to the first list_tasks", calls, None),
    ]


def _figure(name: str, took: Sequence[tuple[float, float]], target: Target | None) -> Figure:
    ours, bare = (median(each) for each in zip(*took, strict=True))
    return Figure(name=name, value=ours, unit="ms", reference=Reference(name="bare MCPServer", value=bare), target=target)


def _both(programs: Programs, ours: Sequence[Any], bare: Sequence[Any]) -> tuple[float, float]:
    return _milliseconds(programs.onethread, programs.environment, ours), _milliseconds(programs.bare, programs.environment, bare)


def _milliseconds(command: Sequence[str], environment: dict[str, str], requests: Sequence[Any]) -> float:
    """From the start of the process to its answer to the last of the requests, each sent when the one before is answered."""
    began = time.perf_counter()
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment, text=True)
    try:
        assert process.stdin
        assert process.stdout
        for request in requests:
            process.stdin.write(f"{json.dumps(request)}\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            assert answer["id"] == request["id"]
            assert "result" in answer, answer
            assert not answer["result"].get("isError"), answer
        return (time.perf_counter() - began) * 1000
    finally:
        process.kill()
        process.communicate()
