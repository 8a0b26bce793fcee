"""`onethread serve` in a process of its own: with a token for it, or with a browser that came by its link."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from core.llm.providers import PROVIDERS
from tests import forking

ONETHREAD = str(Path(sys.executable).parent / "onethread")
_KEYS = {name for provider in PROVIDERS for name in provider.key_names}
_OURS = ("ONETHREAD_", "SLACK_", "DISCORD_")
_SECONDS = 60
Frame = dict[str, Any]
FROM_OUR_PAGE = {"Sec-Fetch-Site": "same-origin"}


@dataclass(frozen=True, slots=True)
class Serving:
    url: str
    token: str
    """Of the local admin, for everything that people do."""


@contextmanager
def serving(data_dir: Path, program: Sequence[str] = (ONETHREAD,)) -> Iterator[Serving]:
    """Starts it with the offline model, and ends it well."""
    command, environ = [*program, "serve", "--port", "0"], environment(data_dir, ONETHREAD_MODEL="demo/offline")
    with subprocess.Popen(
        command, env=environ, cwd=data_dir, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8"
    ) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            opened = re.match(r"Open (http://127\.0\.0\.1:\d+)/login", line)
            assert opened, f"onethread serve said {line!r}"
            yield Serving(opened[1], _token(program, environ))
            process.terminate()
            assert process.wait(_SECONDS) == 0
        finally:
            process.kill()


@dataclass(slots=True)
class Served:
    """A running `onethread serve`, and a browser that came by its link."""

    process: asyncio.subprocess.Process | forking.Process
    link: str
    log: Path
    browser: httpx.AsyncClient

    @property
    def url(self) -> str:
        return self.link.partition("/login")[0]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def cookie(self) -> dict[str, str]:
        return {"Cookie": f"onethread_sid={self.browser.cookies['onethread_sid']}", "Origin": self.url}

    async def ask(self, message: str) -> Frame:
        """Posts it in a new chat, and does not wait for the answer."""
        answer = await self.browser.post("/api/chat", json={"message": message}, headers={"Prefer": "respond-async", **FROM_OUR_PAGE})
        assert answer.status_code == 202, answer.text
        found: Frame = answer.json()
        return found

    def entries(self, event: str) -> list[Frame]:
        """What it logged so far."""
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return [entry for entry in map(json.loads, filter(lambda line: line.startswith("{"), lines)) if entry["event"] == event]

    async def has_logged(self, event: str, *, times: int) -> None:
        while True:
            if len(self.entries(event)) >= times:
                return
            await asyncio.sleep(0.02)

    async def refuses(self) -> None:
        """Waits until nobody can connect any more."""
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except ConnectionRefusedError:
                return
            writer.close()
            await asyncio.sleep(0.02)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return await self.process.wait()


@asynccontextmanager
async def served(
    data_dir: Path, *arguments: str, port: int = 0, name: str = "one", installed: bool = False, **variables: str
) -> AsyncIterator[Served]:
    """Starts it, signs in, and kills it at the end if it still runs. `installed`: by the console script, which takes seconds."""
    log = data_dir.parent / f"{name}.log"
    process: asyncio.subprocess.Process | forking.Process
    with log.open("w", encoding="utf-8") as errors:
        streams: Any = {"stdout": asyncio.subprocess.PIPE, "stderr": errors}
        environ = environment(data_dir, ONETHREAD_LOG_FORMAT="json", **variables)
        command = ("serve", "--port", str(port), *arguments)
        if installed:
            process = await asyncio.create_subprocess_exec(ONETHREAD, *command, **streams, env=environ, cwd=data_dir.parent)
        else:
            process = await forking.start(command, **streams, env=environ, cwd=data_dir.parent)
    try:
        assert process.stdout
        async with asyncio.timeout(_SECONDS):
            line = (await process.stdout.readline()).decode()
        opened = re.fullmatch(r"Open (http://127\.0\.0\.1:\d+/login\?code=[\w-]{43})\n", line)
        assert opened, line + log.read_text(encoding="utf-8")
        async with httpx.AsyncClient(base_url=opened[1].partition("/login")[0], timeout=60) as browser:
            assert (await browser.get(opened[1])).status_code == 303
            yield Served(process, opened[1], log, browser)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def environment(data_dir: Path, **more: str) -> dict[str, str]:
    """Ours, without anything that a developer has set for the product."""
    kept = {name: value for name, value in os.environ.items() if name not in _KEYS and not name.startswith(_OURS)}
    return {**kept, "ONETHREAD_DATA_DIR": str(data_dir), "PYTHONWARNINGS": "default", **more}


def _token(program: Sequence[str], environ: dict[str, str]) -> str:
    command = [*program, "token", "create", "tests"]
    return subprocess.run(command, env=environ, capture_output=True, encoding="utf-8", timeout=_SECONDS, check=True).stdout.strip()
