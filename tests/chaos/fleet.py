"""The worker processes of one test: started from a fork server that holds litellm already, killed, stopped, and ended for certain."""

import asyncio
import json
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from core.retries import RetryPolicy
from core.worker import WorkerRules
from tests.chaos.sabotage import Sabotage
from tests.chaos.worker_main import WorkerPlan, main

ROOT = Path(__file__).parents[2]
END_SECONDS = 30.0
RETRIES = RetryPolicy(backoff_seconds=0.1, backoff_limit_seconds=0.5, pause_seconds=0.2, pause_limit_seconds=1.0)
RULES = WorkerRules(concurrency=10, lease_seconds=5.0, heartbeat_seconds=1.0, poll_seconds=0.5, shutdown_seconds=5.0, retries=RETRIES)
NOTHING = Sabotage()
_HARMLESS = re.compile(r"Exception terminating connection|Future exception was never retrieved.*unexpected connection_lost")
"""What SQLAlchemy says at an orderly end that meets a wait for a lock; it closes the connection all the same. And what asyncpg leaves
behind where a connection ends while it is being given up."""


def fork_server_context() -> ForkServerContext:
    """Makes processes that have litellm when they begin, which takes seconds to import."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.chaos.fork_server", "pytest"])  # pytest: a child imports its parent's main module
    with _python_path():
        ensure_running()
    return context


class WorkerProcess:
    def __init__(self, process: ForkServerProcess, log_file: Path) -> None:
        self._process = process
        self.log_file = log_file
        self.stopped = False

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Negative: the signal that ended it. None while it lives."""
        return self._process.exitcode

    def stop(self) -> None:
        self._signal(signal.SIGSTOP)
        self.stopped = True

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)
        self.stopped = False

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def ask_to_end(self) -> None:
        self._signal(signal.SIGTERM)

    async def ended(self, seconds: float = END_SECONDS) -> int:
        """Its exit code, when it has one."""
        await wait_until(lambda: self.exit_code is not None, seconds)
        assert self.exit_code is not None
        return self.exit_code

    def _signal(self, number: signal.Signals) -> None:
        if self.exit_code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Fleet:
    """Starts workers over the database in `data_dir`; when the block ends they are all dead."""

    def __init__(
        self,
        data_dir: Path,
        api_base: str,
        *,
        database_url: str = "",
        rules: WorkerRules = RULES,
        suspects_lease_seconds: float | None = None,
        rescue_seconds: float = 0.5,
    ) -> None:
        """`suspects_lease_seconds`: where nobody kills the processes for suspects; as for all others otherwise."""
        self._data_dir = data_dir
        self._database_url = database_url
        self._api_base = api_base
        self._rules = rules
        self._suspects_rules = replace(rules, suspects_only=True, lease_seconds=suspects_lease_seconds or rules.lease_seconds)
        self._rescue_seconds = rescue_seconds
        self._context = fork_server_context()
        self._port = 0
        self.sabotage = NOTHING
        """What is built into the workers that are started from now on, those for suspects included."""
        self.started: list[WorkerProcess] = []
        self.for_suspects: list[WorkerProcess] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._isolate, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.close()
        for worker in self.started:
            worker.kill()
        for worker in self.started:
            await worker.ended()

    async def start(self, *, rules: WorkerRules | None = None) -> WorkerProcess:
        """A new worker process."""
        log_file = self._data_dir / f"worker-{len(self.started)}.log"
        plan = WorkerPlan(
            data_dir=self._data_dir,
            database_url=self._database_url,
            api_base=self._api_base,
            log_file=log_file,
            isolation_port=self._port,
            rules=rules or self._rules,
            rescue_seconds=self._rescue_seconds,
            sabotage=self.sabotage,
        )
        process = self._context.Process(target=main, args=(plan,), name=log_file.stem)
        worker = WorkerProcess(process, log_file)
        self.started.append(worker)
        await asyncio.to_thread(process.start)  # the first one waits for the fork server's imports
        return worker

    def complaints(self) -> list[str]:
        """What the workers logged as errors or printed, both of which nothing here may cause."""
        found: list[str] = []
        for worker in self.started:
            for file in (worker.log_file, worker.log_file.with_suffix(".out")):
                text = file.read_text(encoding="utf-8") if file.exists() else ""
                lines = text.splitlines()
                bad = (
                    lines
                    if file.suffix == ".out"
                    else [line for line in lines if '"level": "error"' in line and not _HARMLESS.search(line)]
                )
                found += [f"{file.name}: {line[:600]}" for line in bad]
        return found

    def told(self, event: str) -> Iterator[dict[str, Any]]:
        """The entries of that name in the workers' logs."""
        for worker in self.started:
            text = worker.log_file.read_text(encoding="utf-8") if worker.log_file.exists() else ""
            yield from (json.loads(line) for line in text.splitlines() if f'"event": "{event}"' in line)

    async def _isolate(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A worker asks for a process for suspects; the connection ends when that has ended."""
        try:
            apart = await self.start(rules=self._suspects_rules)
            self.for_suspects.append(apart)
            await apart.ended(120)
        finally:
            writer.close()


async def wait_until(true: Callable[[], object], seconds: float) -> None:
    """Waits until the call gives something true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s"
        await asyncio.sleep(0.02)


@contextmanager
def _python_path() -> Iterator[None]:
    """Where the fork server finds the project: until Python 3.13 it does not take over our sys.path before it imports."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), before)))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
