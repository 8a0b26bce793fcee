"""Every command of the README does what it says: they are run in their order, in one data directory.

`make run` starts what is installed, the others what is forked.
"""

import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests import forking

ROOT = Path(__file__).parents[2]
SERVERS = ("make run", "onethread serve")
"""Of these one can run at a time: they take the same port."""


def commands() -> list[str]:
    """The README's shell lines without their comments, the clone left out."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", ""), re.DOTALL)
    lines = [re.sub(r"\s{2,}#.*", "", line).strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("git clone")]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readme")


@pytest.fixture(scope="module")
def environ(home: Path) -> Mapping[str, str]:
    foreign = re.compile("ONETHREAD_.*|.*_API_KEY|SSL_CERT_FILE|ARGS|MAKE.*|MFLAGS")  # the last are what `make test ARGS=...` hands on
    bare = {name: value for name, value in os.environ.items() if not foreign.fullmatch(name)}
    program = home / "bin" / "onethread"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.join(forking.program())} "$@"\n', encoding="utf-8")
    program.chmod(0o700)
    path = os.pathsep.join([str(program.parent), str(ROOT / ".venv" / "bin"), os.environ["PATH"]])
    browser = home / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >> {home}/opened\n', encoding="utf-8")
    browser.chmod(0o700)
    return {**bare, "PATH": path, "ONETHREAD_DATA_DIR": str(home / "data"), "BROWSER": f"{browser} %s"}


@dataclass(frozen=True, slots=True)
class Started:
    """A command that goes on while those behind it run."""

    command: str
    process: "subprocess.Popen[str]"
    said: str
    """The line by which it said that it is ready: a server's names its link."""

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        with self.process:
            self.process.communicate(timeout=30)
        # make, which handed the signal on and waited, ends by it
        assert self.process.returncode == (-signal.SIGTERM if self.command.startswith("make") else 0)


@pytest.fixture(scope="module")
def left_running() -> Iterator[dict[str, Started]]:
    """By command."""
    started: dict[str, Started] = {}
    yield started
    for each in started.values():
        each.end()


@pytest.mark.requires("curl")
@pytest.mark.parametrize("command", [*(["echo 'create a task to buy milk' | onethread chat --json"]), *commands()])
def test_readme_command_works(command: str, environ: Mapping[str, str], left_running: dict[str, Started]) -> None:
    if command in SERVERS:
        for other in left_running.keys() & {*SERVERS}:
            left_running.pop(other).end()
    if command in ("onethread worker", *SERVERS):
        left_running[command] = _started(command, environ)
        return
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=ROOT, env=environ, input="", capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_make_run_opens_the_page_signed_in(home: Path, environ: Mapping[str, str]) -> None:
    """With what `ARGS` says; the link that it prints is the one that is opened."""
    started = _started("make run ARGS='--port 0'", environ)
    try:
        link = started.said.removeprefix("Open ").strip()
        opened = _opened(home, link)
        with httpx.Client(follow_redirects=True, timeout=30) as browser:
            page = browser.get(link)
    finally:
        started.end()

    assert opened
    assert re.match(r"http://127\.0\.0\.1:\d+/login\?code=", link)
    assert "//127.0.0.1:8420/" not in link
    assert (page.status_code, page.url.path) == (200, "/")
    assert "&quot;name&quot;: &quot;admin&quot;" in page.text


def _opened(home: Path, link: str) -> bool:
    """Whether the browser was asked to open it, within its time."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if (home / "opened").exists() and link in (home / "opened").read_text(encoding="utf-8").split():
            return True
        time.sleep(0.02)
    return False


def _started(command: str, environ: Mapping[str, str]) -> Started:
    """The process, once it is ready."""
    process = subprocess.Popen(shlex.split(command), cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    heard: list[str] = []
    for line in process.stdout:
        heard.append(line)
        if line.startswith("Open ") or not command.startswith(SERVERS):
            return Started(command, process, line)
    pytest.fail(f"{command} ended:\n{''.join(heard)}")
