"""`onethread serve` as it is installed, in a process of its own, with a token for it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from core.llm.providers import PROVIDERS

ONETHREAD = str(Path(sys.executable).parent / "onethread")
_KEYS = {name for provider in PROVIDERS for name in provider.key_names}
_OURS = ("ONETHREAD_", "SLACK_", "DISCORD_")
_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Serving:
    url: str
    token: str
    """Of the local admin, for everything that people do."""


@contextmanager
def serving(data_dir: Path) -> Iterator[Serving]:
    """Starts it with the offline model, and ends it well."""
    command, environ = [ONETHREAD, "serve", "--port", "0"], environment(data_dir, ONETHREAD_MODEL="demo/offline")
    with subprocess.Popen(
        command, env=environ, cwd=data_dir, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8"
    ) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            opened = re.match(r"Open (http://127\.0\.0\.1:\d+)/login", line)
            assert opened, f"onethread serve said {line!r}"
            yield Serving(opened[1], _token(environ))
            process.terminate()
            assert process.wait(_SECONDS) == 0
        finally:
            process.kill()


def environment(data_dir: Path, **more: str) -> dict[str, str]:
    """Ours, without anything that a developer has set for the product."""
    kept = {name: value for name, value in os.environ.items() if name not in _KEYS and not name.startswith(_OURS)}
    return {**kept, "ONETHREAD_DATA_DIR": str(data_dir), "PYTHONWARNINGS": "default", **more}


def _token(environ: dict[str, str]) -> str:
    command = [ONETHREAD, "token", "create", "tests"]
    return subprocess.run(command, env=environ, capture_output=True, encoding="utf-8", timeout=_SECONDS, check=True).stdout.strip()
