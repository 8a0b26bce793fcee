"""A person at a real terminal: onethread runs inside tmux, whose screen is what the tests read."""

import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import structlog

from onethread import cli
from tests import forking
from tests.serving import ONETHREAD, environment

_POLL_SECONDS = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Shell:
    """Runs commands to their end, in a folder and in processes of their own."""

    data_dir: Path
    folder: Path

    def run(self, *arguments: str, stdin: str = "", seconds: float = 60, **variables: str) -> Ran:
        environ = environment(self.data_dir, **variables)
        done = forking.run(arguments, env=environ, cwd=self.folder, stdin=stdin, seconds=seconds)
        return Ran(code=done.returncode, out=done.stdout, err=done.stderr)

    def run_installed(self, *arguments: str, stdin: str = "") -> Ran:
        """By the console script, which takes a second and more."""
        how: Any = {"env": environment(self.data_dir), "cwd": self.folder, "encoding": "utf-8", "timeout": 60}
        done = subprocess.run([ONETHREAD, *arguments], input=stdin, capture_output=True, check=False, **how)
        return Ran(code=done.returncode, out=done.stdout, err=done.stderr)


@dataclass(frozen=True, slots=True)
class Prompt(Shell):
    """Runs the commands in this process: the same entry, without a second for starting Python."""

    patch: pytest.MonkeyPatch
    capture: pytest.CaptureFixture[str]

    def run(self, *arguments: str, stdin: str = "", seconds: float = 60, **variables: str) -> Ran:
        assert not stdin, "a process of its own has a standard input"
        environ = environment(self.data_dir, **variables)
        with self.patch.context() as patch, mock.patch.dict(os.environ, environ, clear=True):  # what `.env` adds goes again, too
            patch.chdir(self.folder)
            patch.setattr(sys, "argv", ["onethread", *arguments])
            with _logging_as_it_was(), pytest.raises(SystemExit) as ended:
                cli.main()
        out, err = self.capture.readouterr()
        return Ran(code=int(ended.value.code or 0), out=out, err=err)


@contextmanager
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    configure = structlog.configure
    try:
        with mock.patch.object(structlog, "configure", lambda **chosen: configure(**{**chosen, "cache_logger_on_first_use": False})):
            yield
    finally:
        for handler in root.handlers:
            if handler not in handlers:
                handler.close()
        root.handlers[:], logging.raiseExceptions = handlers, raising
        root.setLevel(level)
        logging.captureWarnings(capture=False)
        structlog.reset_defaults()


class Terminal:
    """One `onethread` in one tmux window."""

    def __init__(
        self,
        server: str,
        name: str,
        data_dir: Path,
        *arguments: str,
        columns: int = 100,
        lines: int = 40,
        program: Sequence[str] = (ONETHREAD,),
    ) -> None:
        self._tmux = ["tmux", "-L", server]
        self._target = name
        # tmux 3.3 may never learn how its own child ended, so a shell tells it
        command = ["sh", "-c", '"$0" "$@"; echo "[ended with $?]"; exec cat', *program, *arguments]
        size = ["-x", str(columns), "-y", str(lines)]
        self._call("-f", "/dev/null", "new-session", "-d", "-s", name, *size, "-c", str(data_dir), *command, env=environment(data_dir))
        self._call("set-option", "-g", "history-limit", "10000")

    def type(self, text: str) -> None:
        self._call("send-keys", "-t", self._target, "-l", text)

    def key(self, *names: str) -> None:
        """By tmux's names: Enter, C-c, M-Enter."""
        self._call("send-keys", "-t", self._target, *names)

    def enter(self, text: str) -> None:
        self.type(text)
        self.key("Enter")

    def clear(self, *, seconds: float = 40) -> None:
        """Empties the input and forgets what was on the screen, once nothing more comes."""
        deadline = time.monotonic() + seconds
        while len([line for line in self.screen.splitlines() if line.strip()]) > 2:  # the status and the input
            if time.monotonic() > deadline:
                pytest.fail(f"The screen was not cleared:\n{self.screen}", pytrace=False)
            self.key("C-u", "C-l")
            time.sleep(5 * _POLL_SECONDS)
            self._call("clear-history", "-t", self._target)

    def paste(self, text: str) -> None:
        """As a terminal with bracketed paste does."""
        self._call("set-buffer", text)
        self._call("paste-buffer", "-p", "-t", self._target)

    @property
    def screen(self) -> str:
        """What is seen, and what has scrolled away."""
        return self._call("capture-pane", "-p", "-J", "-S", "-", "-t", self._target)

    @property
    def visible(self) -> str:
        return self._call("capture-pane", "-p", "-t", self._target)

    @property
    def raw(self) -> str:
        """With the escape sequences that the terminal would need to show it again."""
        return self._call("capture-pane", "-p", "-e", "-S", "-", "-t", self._target)

    def wait_for(self, pattern: str, *, seconds: float = 40, times: int = 1) -> str:
        """The screen as soon as the pattern is on it so many times."""
        deadline = time.monotonic() + seconds
        while len(re.findall(pattern, seen := self.screen)) < times:
            if time.monotonic() > deadline:
                pytest.fail(f"{pattern!r} did not come within {seconds} s. The screen:\n{seen}", pytrace=False)
            time.sleep(_POLL_SECONDS)
        return seen

    def wait_until_idle(self, *, seconds: float = 40) -> str:
        """The screen once the input line stands below a status at rest."""
        deadline = time.monotonic() + seconds
        while not re.search(r"(?:○ Idle|✕ Error|◎ Waiting)[^\n]*\n❯\s*\Z", seen := self.screen):
            if time.monotonic() > deadline:
                pytest.fail(f"It did not come to rest within {seconds} s. The screen:\n{seen}", pytrace=False)
            time.sleep(_POLL_SECONDS)
        return seen

    def wait_for_end(self, *, seconds: float = 30) -> int:
        """The exit code; 128 and more for a signal."""
        ended = re.search(r"\[ended with (\d+)\]", self.wait_for(r"\[ended with \d+\]", seconds=seconds))
        assert ended
        return int(ended[1])

    @property
    def pid(self) -> int:
        shell = self._call("display-message", "-p", "-t", self._target, "#{pane_pid}").strip()
        return int(subprocess.run(["pgrep", "-P", shell], capture_output=True, text=True, check=True, timeout=10).stdout)

    def close(self) -> None:
        self._call("kill-session", "-t", self._target, check=False)

    def _call(self, *arguments: str, env: dict[str, str] | None = None, check: bool = True) -> str:
        done = subprocess.run([*self._tmux, *arguments], capture_output=True, encoding="utf-8", env=env, check=check, timeout=10)
        return done.stdout


class Terminals:
    """Opens terminals on one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._server = f"onethread-{os.getpid()}-{data_dir.name}"
        self._open: list[Terminal] = []

    def open(self, *arguments: str, **how: Any) -> Terminal:
        """`how` as Terminal takes it."""
        terminal = Terminal(self._server, f"t{len(self._open)}", self.data_dir, *(arguments or ("chat",)), **how)
        self._open.append(terminal)
        return terminal

    def close(self) -> None:
        subprocess.run(["tmux", "-L", self._server, "kill-server"], capture_output=True, check=False, timeout=10)


@pytest.fixture(scope="module")
def terminals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminals]:
    opened = Terminals(tmp_path_factory.mktemp("data"))
    yield opened
    opened.close()


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    folder = tmp_path / "folder"
    folder.mkdir()
    return Shell(tmp_path / "data", folder)


@pytest.fixture
def prompt(shell: Shell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Prompt:
    return Prompt(shell.data_dir, shell.folder, monkeypatch, capsys)
