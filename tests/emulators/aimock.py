"""aimock (npm @copilotkit/aimock), which plays the well-behaved provider of every format, run as a child process on a free port."""

import asyncio
import json
import os
import re
import shutil
import tempfile
import urllib.request
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

JSON = dict[str, Any]

START_SECONDS = 20.0
STOP_SECONDS = 5.0
_LISTENING = re.compile(rb"listening on (http://127\.0\.0\.1:\d+)")
_API_BASES = {"openai": "/v1", "responses": "/v1", "gemini": "/v1beta"}


@dataclass(frozen=True, slots=True)
class Aimock:
    url: str

    def api_base(self, provider: str) -> str:
        """The address as litellm wants it for `provider`."""
        return self.url + _API_BASES.get(provider, "")

    async def journal(self) -> list[JSON]:
        """The requests so far, oldest first."""
        entries = await asyncio.to_thread(_get, f"{self.url}/__aimock/journal")
        return list(entries)


@asynccontextmanager
async def aimock(fixtures: Sequence[JSON]) -> AsyncIterator[Aimock]:
    """aimock with `fixtures`, of which the first that matches answers. Skips the test where it is not installed; in CI fails it."""
    program = _program()
    with tempfile.TemporaryDirectory() as folder:
        command = (*program, "-p", "0", "-h", "127.0.0.1", "-f", _written(fixtures, Path(folder)))
        process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL)
        try:
            async with asyncio.timeout(START_SECONDS):
                url = await _url(process)
                await asyncio.to_thread(_get, f"{url}/health")
            draining = asyncio.create_task(_drain(process), name="aimock output")
            yield Aimock(url)
            draining.cancel()
        finally:
            await _stop(process)


def _written(fixtures: Sequence[JSON], folder: Path) -> str:
    file = folder / "fixtures.json"
    file.write_text(json.dumps({"fixtures": list(fixtures)}), encoding="utf-8")
    return str(file)


def _program() -> tuple[str, str]:
    """Node and aimock's script."""
    node = shutil.which("node")
    modules = Path(os.environ.get("ONETHREAD_TEST_NODE_MODULES") or Path(__file__).parents[2] / "node_modules")
    script = modules / "@copilotkit" / "aimock" / "dist" / "cli.js"
    if node is None:
        _missing("Node.js is missing: install version 20.15 or newer")
    if not script.exists():
        _missing("aimock is missing: run `npm ci` in the repository")
    return str(node), str(script)


def _missing(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"{reason} (CI is set, so this is a failure)", pytrace=False)
    pytest.skip(reason)


async def _url(process: Process) -> str:
    assert process.stdout is not None
    while line := await process.stdout.readline():
        if found := _LISTENING.search(line):
            return found[1].decode()
    raise RuntimeError("aimock ended before it listened")


async def _drain(process: Process) -> None:
    """A pipe that nobody reads would stop it."""
    assert process.stdout is not None
    while await process.stdout.read(65_536):
        pass


async def _stop(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=STOP_SECONDS) as answer:
        return json.load(answer)
