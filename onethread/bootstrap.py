"""The composition root: every port gets its implementation here, once."""

import asyncio
import gc
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog

from core import identity, projects
from core.access import Principal
from core.agent import Agent, AgentRules
from core.drafts import Drafts
from core.errors import Conflict, NotAuthenticated
from core.ids import new_id
from core.limits import ModelLimit, ModelLimits
from core.live import LiveEvents, Publisher
from core.llm.client import LiteLLM, ModelSettings
from core.llm.providers import ModelChoice, choices
from core.logs import place_of
from core.messages import PostingRules
from core.models import User
from core.ports import ChatModel, Clock, Notifier, Storage
from core.retries import RetryPolicy
from core.ticks import Ticks
from core.tools import agent as agent_tools
from core.tools import tasks as task_tools
from core.tools.registry import Toolset
from core.worker import IsolatedRun, Worker, WorkerRules
from onethread.settings import Settings
from storage.engine import database_url, engines, is_postgres
from storage.migrate import upgrade
from storage.sqlite_notifier import SqliteNotifier
from storage.transfer import Transfer
from storage.unit_of_work import Database

_COLLECTED_AFTER = (10_000, 20, 100)
"""New objects, and passes of the two younger generations. With Python 3.11's own (700, 10, 10) the collector takes a twentieth of the time
under load, to go through modules again and again."""
_RESTART_SECONDS = 1.0
_log = structlog.get_logger()


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """A running Onethread in this process. Everything that a surface needs is here."""

    settings: Settings
    process_id: UUID
    storage: Storage
    live: LiveEvents
    clock: Clock
    worker: Worker
    ticks: Ticks
    rules: PostingRules
    transfer: Transfer

    def models(self) -> list[ModelChoice]:
        """Those that can be chosen, and what is missing for them."""
        return choices(self.rules.default_model, self.settings.environ, any_key=bool(self.settings.model_api_base))

    async def person(self, name: str = "") -> User:
        """The user of that name, or the local admin; raises NotFound."""
        async with self.storage.write() as uow:
            wanted = name or self.settings.user
            return await (identity.user_named(uow, wanted) if wanted else identity.local_admin(uow))

    async def principal(self, name: str = "") -> Principal:
        """Likewise; raises NotAuthenticated for somebody who is disabled."""
        person = await self.person(name)
        if person.disabled_at:
            raise NotAuthenticated(f"{person.name} is disabled. An admin enables them again: onethread user enable {person.name}")
        return identity.principal_of(person)


@asynccontextmanager
async def running(settings: Settings, **overrides: Any) -> AsyncIterator[App]:
    """Opens the database, brings it up to date, and listens to other processes. Overrides replace what `_parts` makes, by name."""
    gc.set_threshold(*_COLLECTED_AFTER)
    parts = _Parts(settings, overrides)
    try:
        await upgrade(parts.writer)
        app = parts.app()
        await _make_first_rows(app.storage)
        listening = asyncio.Event()
        notifier = asyncio.create_task(parts.notifier.run(listening), name="notifier")
        try:
            await _first(listening, notifier)
            yield app
        finally:
            notifier.cancel()
            await asyncio.wait({notifier})
    finally:
        await parts.close()


async def _make_first_rows(storage: Storage) -> None:
    async def make() -> None:
        async with storage.write() as uow:
            await projects.default(uow)
            await identity.local_admin(uow)

    try:
        await make()
    except Conflict:
        await make()  # another process, starting at the same moment, made them: now they are there


@asynccontextmanager
async def working(app: App) -> AsyncIterator[None]:
    """Runs the app's worker and its clock while the block runs; at its end unfinished turns are handed back."""
    app.ticks.start()
    worker = asyncio.create_task(_supervised(app.worker), name="worker")
    try:
        yield
    finally:
        app.ticks.stop()
        worker.cancel()
        await asyncio.wait({worker})


async def _supervised(worker: Worker) -> None:
    while True:
        try:
            await worker.run()
        except Exception as error:  # noqa: BLE001  # the outermost loop: a defect must not leave the queue without a worker
            _log.error("worker.restarted", **place_of(error))
            await asyncio.sleep(_RESTART_SECONDS)


def worker_rules_of(settings: Settings) -> WorkerRules:
    retries = RetryPolicy(fallback_models=settings.fallback_models)
    limits = {model: ModelLimit(**limit.model_dump()) for model, limit in settings.model_limits.items()}
    return WorkerRules(concurrency=settings.worker_concurrency, retries=retries, limits=ModelLimits(limits))


class _Parts:
    def __init__(self, settings: Settings, overrides: dict[str, Any]) -> None:
        self._settings = settings
        self._overrides = overrides
        self._url = database_url(settings.database)
        self.process_id = new_id()
        self.live = LiveEvents()
        self.writer, self.reader = engines(self._url)
        self.notifier, self._publisher = self._connect_processes()

    def app(self) -> App:
        settings = self._settings
        clock: Clock = self._part("clock", SystemClock)
        storage: Storage = self._part("storage", lambda: self._database(clock))
        worker_rules: WorkerRules = self._part("worker_rules", lambda: worker_rules_of(settings))
        drafts = Drafts(storage, self._publisher)
        model: ChatModel = self._part("model", self._model)
        tools = Toolset(self._part("tools", lambda: (*task_tools.TOOLS, *agent_tools.TOOLS)))
        rules_of_settings = AgentRules(approval_hours=settings.approval_hours, limits=worker_rules.limits)
        agent_rules: AgentRules = self._part("agent_rules", lambda: rules_of_settings)
        agent = Agent(storage=storage, model=model, tools=tools, drafts=drafts, rules=agent_rules)
        isolated_run: IsolatedRun | None = None if worker_rules.suspects_only else _answer_suspects_apart
        worker = Worker(
            worker_id=self.process_id,
            storage=storage,
            live=self.live,
            agent=agent,
            drafts=drafts,
            clock=clock,
            rules=worker_rules,
            unserved=self._part("unserved", lambda: settings.unserved),
            isolated_run=self._part("isolated_run", lambda: isolated_run),
        )
        return App(
            settings=settings,
            process_id=self.process_id,
            storage=storage,
            live=self.live,
            clock=clock,
            worker=worker,
            ticks=Ticks(storage, clock, worker_rules.retries, kept=settings.kept),
            rules=PostingRules(default_model=settings.default_model, messages_per_minute=settings.messages_per_minute),
            transfer=Transfer(writer=self.writer, reader=self.reader, clock=clock),
        )

    async def close(self) -> None:
        await self.reader.dispose()
        await self.writer.dispose()

    def _connect_processes(self) -> tuple[Notifier, Publisher]:
        """What hears other processes, and where the text of replies goes: on SQLite they read it from the drafts."""
        if is_postgres(self._url):
            from storage.postgres_notifier import PostgresNotifier  # the driver is loaded only where it is used

            notifier = PostgresNotifier(url=self._url, live=self.live, process_id=self.process_id)
            return notifier, notifier
        path = self._url.database or ""
        return SqliteNotifier(path=path, reader=self.reader, live=self.live, process_id=self.process_id), self.live

    def _part(self, name: str, make: Any) -> Any:
        return self._overrides[name] if name in self._overrides else make()

    def _database(self, clock: Clock) -> Storage:
        return Database(writer=self.writer, reader=self.reader, live=self.live, clock=clock, process_id=self.process_id)

    def _model(self) -> ChatModel:
        settings = self._settings
        how = ModelSettings(
            temperature=settings.temperature,
            max_tokens=settings.max_tokens,
            api_base=settings.model_api_base,
            vision_models=settings.vision_models,
        )
        return LiteLLM(how, settings.environ)


async def _first(event: asyncio.Event, task: "asyncio.Task[None]") -> None:
    """Waits for the event; raises what the task died of, if it does."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if task.done():
        task.result()


async def _answer_suspects_apart() -> None:
    command = (sys.executable, "-P", "-m", "onethread", "worker", "--suspects")
    child = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    await child.wait()
