"""Every command of the README does what it says: they are run in their order, in one data directory."""

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


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
    foreign = re.compile("ONETHREAD_.*|.*_API_KEY|ARGS|MAKE.*|MFLAGS")  # the last are what `make test ARGS=...` hands on
    bare = {name: value for name, value in os.environ.items() if not foreign.fullmatch(name)}
    path = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**bare, "PATH": path, "ONETHREAD_DATA_DIR": str(home / "data")}


@pytest.fixture(scope="module")
def left_running(environ: Mapping[str, str]) -> Iterator[list[subprocess.Popen[str]]]:
    """What goes on while the commands behind it run, and ends well at the end."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode == 0


@pytest.mark.requires("curl")
@pytest.mark.parametrize("command", [*(["echo 'create a task to buy milk' | onethread chat --json"]), *commands()])
def test_readme_command_works(command: str, environ: Mapping[str, str], left_running: list[subprocess.Popen[str]]) -> None:
    if command in ("onethread worker", "onethread serve"):
        left_running.append(_started(command, environ))
        return
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=ROOT, env=environ, input="", capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def _started(command: str, environ: Mapping[str, str]) -> "subprocess.Popen[str]":
    """The process, once it says something: it does that when it is ready."""
    process = subprocess.Popen(shlex.split(command), cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    assert process.stdout.readline()
    return process
