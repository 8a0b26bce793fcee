"""Every command of the README does what it says: they are run in their order, in one data directory."""

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def commands() -> list[str]:
    """The README's shell lines without their comments, the clone left out."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    lines = [re.sub(r"\s{2,}#.*", "", line).strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("git clone")]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readme")


@pytest.fixture(scope="module")
def environ(home: Path) -> Mapping[str, str]:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("ONETHREAD_") and not name.endswith("_API_KEY")}
    path = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**bare, "PATH": path, "ONETHREAD_DATA_DIR": str(home / "data")}


@pytest.mark.parametrize("command", [*(["echo 'create a task to buy milk' | onethread chat --json"]), *commands()])
def test_readme_command_works(command: str, environ: Mapping[str, str]) -> None:
    if command == "onethread worker":
        _starts_and_stops(command, environ)
        return
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=ROOT, env=environ, input="", capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def _starts_and_stops(command: str, environ: Mapping[str, str]) -> None:
    with subprocess.Popen(shlex.split(command), cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            assert process.stderr.readline()
        finally:
            process.send_signal(signal.SIGTERM)
        process.stderr.read()
    assert process.returncode == 0
