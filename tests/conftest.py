"""What all tests share. Here: programs that a test needs beside Python, and what happens where one is missing."""

import functools
import gc
import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.databases import empty_sqlite, new_database, postgres
from tests.postgres import programs as postgres_programs
from tests.side_by_side import pytest_collection_modifyitems, pytest_xdist_make_scheduler

__all__ = ["empty_sqlite", "new_database", "postgres", "pytest_collection_modifyitems", "pytest_xdist_make_scheduler"]
ROOT = Path(__file__).parent.parent
os.environ["SSL_CERT_FILE"] = str(ROOT / "tests" / "authority.pem")
"""An authority of nobody. Nothing here speaks TLS, and who makes an HTTP client would read those of all the world, for 26 ms each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A program that the test suite uses and that `make test` may not be able to install."""

    is_there: Callable[[], bool]
    install: str  # the command that helps


def _found(program: str) -> Callable[[], bool]:
    return lambda: shutil.which(program) is not None


def chromium() -> str | None:
    """The program, by the name that each distribution gives it. The first one, which can show no windows, takes a fifth less."""
    names = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


@functools.cache
def _node_version() -> tuple[int, int]:
    """(0, 0) where there is none."""
    node = shutil.which("node")
    version = node and subprocess.run([node, "--version"], capture_output=True, text=True, check=False, timeout=30).stdout
    numbers = re.match(r"v(\d+)\.(\d+)", version or "")
    return (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)


def _npm_package(name: str, *, node: tuple[int, int]) -> Component:
    return Component(
        is_there=lambda: _node_version() >= node and (ROOT / "node_modules" / name / "package.json").exists(),
        install="npm ci, with Node.js {}.{} or newer (as root: bash .ci/run)".format(*node),
    )


COMPONENTS = {
    "chromium": Component(is_there=lambda: chromium() is not None, install="apt-get install chromium-headless-shell"),
    "curl": Component(is_there=_found("curl"), install="apt-get install curl"),
    "aimock": _npm_package("@copilotkit/aimock", node=(20, 15)),
    "conformance": _npm_package("@modelcontextprotocol/conformance-next", node=(22, 19)),
    "inspector": _npm_package("@modelcontextprotocol/inspector", node=(22, 19)),
    "mcporter": _npm_package("mcporter", node=(22, 19)),
    "postgresql": Component(is_there=lambda: postgres_programs() is not None, install="apt-get install postgresql"),
    "slack-emulator": _npm_package("emulate", node=(22, 19)),
    "tmux": Component(is_there=_found("tmux"), install="apt-get install tmux"),
}


def require(name: str) -> None:
    """Skips the running test if the component is missing; in CI, where everything can be installed, that fails it."""
    component = COMPONENTS[name]
    if component.is_there():
        return
    reason = f"{name} is missing: {component.install}"
    if os.environ.get("CI"):
        pytest.fail(f"{reason} (CI is set, so this is a failure)", pytrace=False)
    pytest.skip(reason)


_numbers = itertools.count(1)
_TESTS_TO_A_FREEZE = 50


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Obeys `@pytest.mark.requires("tmux")`."""
    if next(_numbers) % _TESTS_TO_A_FREEZE == 0:
        _freeze()
    for marker in item.iter_markers("requires"):
        for name in marker.args:
            require(name)


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: the collector need not go through it each time, for a tenth of a second."""
    _freeze()


def _freeze() -> None:
    """Takes what there is out of the collector's way: each test leaves thousands of objects in caches and reports."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Shows what tests record as their `figures`: processes beside this one print nothing themselves."""
    for report in [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]:
        for name, value in report.user_properties:
            if name == "figures":
                terminalreporter.section(report.nodeid)
                terminalreporter.write_line(value)
