"""`onethread` in a process that has everything imported when it begins: forked from one that did so once, for all tests of a run.

A start costs seconds otherwise, most of them litellm's. It is the same entry with its own arguments, environment, folder, standard
streams and process id, and it ends as every program does. What depends on how a process begins, such as what it imports and when, is
shown where the tests run `ONETHREAD` itself.
"""

import asyncio
import fcntl
import importlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from asyncio import StreamReader, StreamReaderProtocol, StreamWriter
from asyncio.streams import FlowControlMixin
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[1]
IMPORTED = (
    *("onethread.cli", "onethread.serve", "onethread.service", "onethread.mcp_stdio", "onethread.child_worker"),
    *("onethread.terminal.chat", "onethread.terminal.pipe"),
    *("web.app", "core.llm.demo", "bots.slack.serving", "bots.discord.serving", "storage.migrate", "tests.chaos.fork_server"),
)
"""What the commands need; the last one loads litellm."""
_LIMIT = 2**20
_MOST_INPUT = 60_000
"""That fits into a pipe nobody reads from yet."""
_LOOK_SECONDS = 1.0
_PID_BYTES = 4
Request = dict[str, Any]
Completed = subprocess.CompletedProcess[str]


# --- what the tests use --------------------------------------------------------------------------------------------------


class Process:
    """As asyncio's own, of which it has what the tests use."""

    def __init__(self, pid: int, stdin: StreamWriter | None, stdout: StreamReader | None, ended: asyncio.Task[int]) -> None:
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout
        self._ended = ended

    @property
    def returncode(self) -> int | None:
        return self._ended.result() if self._ended.done() else None

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)

    def send_signal(self, number: int) -> None:
        if not self._ended.done():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


async def start(
    arguments: Sequence[str], *, env: Mapping[str, str], cwd: Path, stdin: int | None = None, stdout: int | None = None, stderr: Any = None
) -> Process:
    """`onethread` with these arguments. Streams are as for `asyncio.create_subprocess_exec`: PIPE, DEVNULL, a file, or ours."""
    loop = asyncio.get_running_loop()
    writer, reader, given = None, None, []
    try:
        if stdin == asyncio.subprocess.PIPE:
            theirs, ours = os.pipe()
            given.append(theirs)
            transport, protocol = await loop.connect_write_pipe(FlowControlMixin, os.fdopen(ours, "wb", buffering=0))
            writer = StreamWriter(transport, protocol, None, loop)
        else:
            given.append(os.open(os.devnull, os.O_RDONLY))
        if stdout == asyncio.subprocess.PIPE:
            ours, theirs = os.pipe()
            given.append(theirs)
            reader = StreamReader(limit=_LIMIT)
            await loop.connect_read_pipe(lambda: StreamReaderProtocol(reader), os.fdopen(ours, "rb", buffering=0))
        else:
            given.append(os.open(os.devnull, os.O_WRONLY))
        given.append(os.dup(2 if stderr is None else stderr.fileno()))
        connection = await asyncio.to_thread(_asked, _request(arguments, env, cwd), given)
    finally:
        for each in given:
            os.close(each)
    told, telling = await asyncio.open_unix_connection(sock=connection)
    try:
        pid = int.from_bytes(await told.readexactly(_PID_BYTES))
    except asyncio.IncompleteReadError:
        telling.close()
        raise AssertionError(_what_it_said()) from None
    ended = asyncio.create_task(_end_of(told, [telling, *([writer] if writer else [])]))
    return Process(pid, writer, reader, ended)


async def _end_of(told: StreamReader, ours: Sequence[StreamWriter]) -> int:
    try:
        return int.from_bytes(await told.readexactly(_PID_BYTES), signed=True)
    finally:
        for each in ours:
            each.close()


class Background:
    """A process that goes on beside a test which is no coroutine."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid = pid
        self._connection = connection
        self._ended = False

    def send_signal(self, number: int) -> None:
        if not self._ended:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, seconds: float) -> None:
        if not self._ended:
            self._connection.settimeout(seconds)
            _exactly(self._connection, _PID_BYTES)
            self._connection.close()
            self._ended = True


def begin(arguments: Sequence[str], *, env: Mapping[str, str], cwd: Path, stdout: int, stderr: int) -> Background:
    """`onethread` with these arguments, without an input, and with these files as its outputs. Its offline demo answers without pauses."""
    with Path(os.devnull).open("rb") as nothing:
        connection = _asked(_request(arguments, env, cwd, seconds_per_word=0), [nothing.fileno(), stdout, stderr])
    return Background(int.from_bytes(_exactly(connection, _PID_BYTES)), connection)


def run(arguments: Sequence[str], *, env: Mapping[str, str], cwd: Path, stdin: str = "", seconds: float) -> Completed:
    """Runs `onethread` to its end, as `subprocess.run` does."""
    said = stdin.encode()
    assert len(said) <= _MOST_INPUT
    reads, writes = os.pipe()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            os.write(writes, said)
            os.close(writes)
            connection = _asked(_request(arguments, env, cwd), [reads, out.fileno(), err.fileno()])
        finally:
            os.close(reads)
        with connection:
            connection.settimeout(seconds)
            pid = int.from_bytes(_exactly(connection, _PID_BYTES))
            try:
                code = int.from_bytes(_exactly(connection, _PID_BYTES), signed=True)
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise
        for each in (out, err):
            each.seek(0)
        return Completed([*arguments], code, out.read().decode(), err.read().decode())


def program() -> tuple[str, ...]:
    """The command of an `onethread` that others start, with arguments of theirs behind it: signals, SIGKILL too, reach what is forked."""
    _connected().close()
    return _program(_place()[0])


def _program(path: Path) -> tuple[str, ...]:
    return (sys.executable, "-IS", str(ROOT / "tests" / "forked.py"), str(path))


def _request(arguments: Sequence[str], env: Mapping[str, str], cwd: Path, **demo: float) -> bytes:
    return json.dumps({"arguments": [*arguments], "env": dict(env), "cwd": str(cwd), "demo": demo}).encode() + b"\n"


def _asked(request: bytes, streams: list[int]) -> socket.socket:
    """The connection on which the new process's id comes, and at its end how it ended."""
    connection = _connected()
    sent = socket.send_fds(connection, [request], streams)
    connection.sendall(request[sent:])
    return connection


def _exactly(connection: socket.socket, number: int) -> bytes:
    found = b""
    while len(found) < number:
        more = connection.recv(number - len(found))
        assert more, _what_it_said()
        found += more
    return found


def _what_it_said() -> str:
    log = _place()[0].with_suffix(".log")
    return f"the process that forks is gone: {log.read_text(encoding='utf-8')[-4000:] if log.exists() else ''}"


@cache
def _place() -> tuple[Path, int]:
    """Where the process that forks listens, and whose it is: of all processes of a test run, of this one otherwise."""
    run_id = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    owner = os.getppid() if run_id else os.getpid()
    return Path(tempfile.gettempdir()) / f"onethread-forks-{os.getuid()}-{owner}-{(run_id or '0')[:8]}", owner


def _connected() -> socket.socket:
    """To the process that forks, which is started where there is none."""
    path, owner = _place()
    with (path.with_suffix(".lock")).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = _connection(path)
        if found is None:
            path.unlink(missing_ok=True)
            _start(path, owner)
            found = _connection(path)
    assert found
    return found


def _connection(path: Path) -> socket.socket | None:
    found = socket.socket(socket.AF_UNIX)
    try:
        found.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        found.close()
        return None
    return found


def _start(path: Path, owner: int) -> None:
    """It is no child of this process, and ends with its owner."""
    with socket.socket(socket.AF_UNIX) as listener, path.with_suffix(".log").open("wb") as log:
        listener.bind(str(path))
        listener.listen(64)
        subprocess.run(
            [sys.executable, "-m", "tests.forking", str(path), str(owner), str(listener.fileno())],
            cwd=ROOT,
            env={**os.environ, "PYTHONWARNINGS": "default"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[listener.fileno()],
            start_new_session=True,
            check=True,
            timeout=30,
        )


# --- the process that forks ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Forks:
    listener: socket.socket
    owner: int
    children: dict[int, socket.socket]

    def next(self) -> tuple[Request, list[int]] | None:
        """In a new process: what it is to do, and its streams. None in the old one, when its owner is gone."""
        woken, wakes = socket.socketpair()
        with woken, wakes:
            for each in (woken, wakes):
                each.setblocking(False)
            signal.set_wakeup_fd(wakes.fileno())
            signal.signal(signal.SIGCHLD, lambda *_: None)
            while _lives(self.owner):
                ready, _, _ = select.select([woken, self.listener, *self.children.values()], [], [], _LOOK_SECONDS)
                if woken in ready:
                    woken.recv(4096)
                self._tell_ends()
                self._kill(pid for pid, connection in self.children.items() if connection in ready)
                if self.listener in ready and (found := self._taken()):
                    return found
        return None

    def _taken(self) -> tuple[Request, list[int]] | None:
        connection, _ = self.listener.accept()
        text, streams, _, _ = socket.recv_fds(connection, _LIMIT, 3)
        while text and not text.endswith(b"\n"):
            text += connection.recv(_LIMIT)
        if not text:
            connection.close()
            return None
        pid = os.fork()
        if pid:
            for each in streams:
                os.close(each)
            self.children[pid] = connection
            with suppress(OSError):
                connection.sendall(pid.to_bytes(_PID_BYTES))
            return None
        connection.close()
        for other in self.children.values():
            other.close()
        return json.loads(text), streams

    def _tell_ends(self) -> None:
        while self.children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            with self.children.pop(pid) as connection, suppress(OSError):
                connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(_PID_BYTES, signed=True))

    def _kill(self, pids: Iterable[int]) -> None:
        """As who asked for them is gone, killed itself perhaps."""
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    def end(self, path: Path) -> None:
        self._kill(self.children)
        for each in (path, path.with_suffix(".lock"), path.with_suffix(".log")):
            each.unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _become(request: Request, streams: list[int], path: Path) -> None:
    """Makes this process what its request says; what it starts of its own kind is forked likewise."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, each in enumerate(streams):
        os.dup2(each, number)
        os.close(each)
    kept = {name: value for name, value in os.environ.items() if name.startswith("LITELLM_")}  # as litellm was loaded with
    os.environ.clear()
    os.environ.update({**kept, **request["env"]})
    os.chdir(request["cwd"])
    for name, value in request["demo"].items():
        setattr(sys.modules["core.llm.demo"], name.upper(), value)
    sys.modules["onethread.child_worker"].ONETHREAD = _program(path)  # type: ignore[attr-defined]
    sys.argv = ["onethread", *request["arguments"]]
    random.seed()


def _main() -> NoReturn:
    path, owner, listener = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    if os.fork():
        os._exit(0)
    for name in IMPORTED:
        importlib.import_module(name)
    from onethread import cli

    assert threading.active_count() == 1, threading.enumerate()  # a thread would not be there in those that are forked
    forks = _Forks(socket.socket(fileno=listener), owner, {})
    found = forks.next()
    if found is None:
        forks.end(path)
        sys.exit()
    forks.listener.close()
    _become(*found, path)
    cli.main()
    raise AssertionError


if __name__ == "__main__":
    _main()
