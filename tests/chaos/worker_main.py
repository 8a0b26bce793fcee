"""One worker process of the chaos tests: the real application over a shared database file, with the rules and the sabotage it is given."""

import asyncio
import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from core.errors import StorageUnavailable
from core.llm.client import LiteLLM, ModelSettings
from core.ticks import Ticks
from core.worker import WorkerRules
from onethread import logs
from onethread.bootstrap import App, running, working
from onethread.settings import Settings
from tests.chaos.sabotage import DyingModel, Sabotage, overrides

IDLE_LOOKS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlan:
    """All that a worker process is told."""

    data_dir: Path
    database_url: str
    """Empty: a file in the data directory."""
    api_base: str
    log_file: Path
    isolation_port: int
    """Where the harness listens for workers that want a process for suspects."""
    rules: WorkerRules
    rescue_seconds: float
    sabotage: Sabotage


def main(plan: WorkerPlan) -> None:
    """Works until SIGTERM, or, for suspects, until there are none; ends at once when the test's process is gone."""
    _speak_to(plan.log_file)
    with asyncio.Runner() as runner:
        try:
            runner.run(_main(plan))
        except StorageUnavailable:
            sys.exit(1)  # as `onethread worker` does


async def _main(plan: WorkerPlan) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    parent = multiprocessing.parent_process()
    assert parent is not None
    loop.add_reader(parent.sentinel, os._exit, 1)
    async with _application(plan) as app, working(app):
        if plan.rules.suspects_only:
            await _until_no_suspects(app)
        else:
            await stop.wait()


@asynccontextmanager
async def _application(plan: WorkerPlan) -> AsyncIterator[App]:
    async def isolated_run() -> None:
        """As in production, the process of the suspects is not a part of this one, and outlives it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", plan.isolation_port)
        await reader.read()
        writer.close()

    settings = Settings(data_dir=plan.data_dir, database_url=plan.database_url, model="openai/unused", model_api_base=plan.api_base)
    model = LiteLLM(ModelSettings(temperature=0.7, max_tokens=1000, api_base=plan.api_base), {"OPENAI_API_KEY": "none"})
    given = overrides(plan.sabotage)
    async with running(
        settings,
        model=DyingModel(model, plan.sabotage),
        worker_rules=plan.rules,
        isolated_run=None if plan.rules.suspects_only else isolated_run,
        **given,
    ) as app:
        yield replace(app, ticks=Ticks(app.storage, app.clock, plan.rules.retries, kept=None, rescue_seconds=plan.rescue_seconds))


async def _until_no_suspects(app: App) -> None:
    idle = 0
    while idle < IDLE_LOOKS:
        await asyncio.sleep(0.1)
        idle = 0 if app.worker.running or await _may_wait(app) else idle + 1


async def _may_wait(app: App) -> bool:
    """Whether there are suspects, as far as may be known."""
    try:
        async with app.storage.read() as uow:
            return await uow.turns.has_suspect(uow.now)
    except StorageUnavailable:
        return True


def look_around(sender: "Connection[Any, Any]") -> None:
    """Tells what a process of the fork server begins with."""
    mine = {target.readlink().name for target in Path("/proc/self/fd").iterdir() if target.is_symlink()}
    inet = [line.split() for kind in ("tcp", "tcp6", "udp", "udp6") for line in Path(f"/proc/self/net/{kind}").read_text().splitlines()[1:]]
    sockets = [line for line in inet if f"socket:[{line[9]}]" in mine]
    sender.send({"litellm": "litellm" in sys.modules, "threads": threading.active_count(), "inet sockets": len(sockets)})


def _speak_to(log_file: Path) -> None:
    """The log, and beside it whatever is printed, dies with a traceback or hangs."""
    logs.to_file(log_file, "json")
    printed = os.open(log_file.with_suffix(".out"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    faulthandler.enable(2)
