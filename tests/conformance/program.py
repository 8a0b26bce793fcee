"""npm's @modelcontextprotocol/conformance: the MCP project's own tests of servers, run to their end and read."""

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent.parent
_RUN_SECONDS = 300
_SAVED = re.compile(r"server-(.+)-\d{4}-\d{2}-\d{2}T")


@dataclass(frozen=True, slots=True)
class Failure:
    check: str
    message: str


@dataclass(frozen=True, slots=True)
class Scenario:
    """How a server fared in one of the scenarios."""

    passed: int
    failures: tuple[Failure, ...]
    warnings: tuple[Failure, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One of the two versions: the released one knows the protocol up to 2025-11-25, the coming one the newest revision too."""

    package: str

    @property
    def version(self) -> str:
        return str(json.loads((self._folder / "package.json").read_text("utf-8"))["version"])

    @property
    def _folder(self) -> Path:
        return ROOT / "node_modules" / self.package

    async def run(self, url: str, *arguments: str) -> Mapping[str, Scenario]:
        """Runs the scenarios that the arguments choose against the server at `url`. Raises AssertionError where it did not get so far."""
        with TemporaryDirectory() as folder:
            command = ["node", str(self._folder / "dist/index.js"), "server", "--url", url, "-o", folder, *arguments]
            said = await _run(command, folder)
            found = _read(Path(folder))
        assert found, said
        return found


RELEASED = Program(package="@modelcontextprotocol/conformance")
COMING = Program(package="@modelcontextprotocol/conformance-next")


async def _run(command: list[str], folder: str) -> str:
    """What it said. It ends with 1 where a check fails, which is for the caller to judge."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(_RUN_SECONDS):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return said.decode()


def _read(folder: Path) -> Mapping[str, Scenario]:
    return {_name(each.parent): _scenario(each) for each in sorted(folder.glob("*/checks.json"))}


def _name(folder: Path) -> str:
    found = _SAVED.match(folder.name)
    assert found, folder
    return found[1]


def _scenario(checks: Path) -> Scenario:
    found = json.loads(checks.read_text("utf-8"))
    return Scenario(
        passed=sum(check["status"] == "SUCCESS" for check in found),
        failures=tuple(_failure(check) for check in found if check["status"] == "FAILURE"),
        warnings=tuple(_failure(check) for check in found if check["status"] == "WARNING"),
    )


def _failure(check: dict[str, str]) -> Failure:
    return Failure(check["id"], " ".join(check.get("errorMessage", "").split()))
