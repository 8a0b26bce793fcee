"""No secret and nothing that somebody wrote gets into a log, a live event or an error, whatever goes wrong. A canary shows where it goes.

The canary is in what people write (messages, files, tasks), in the provider's key, in what the model answers and in what tools return and
raise. It belongs into messages, tool calls and text deltas, and nowhere else.
"""

import asyncio
import gc
import json
import logging
import sqlite3
import sys
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
import structlog

from core.attachments import Upload
from core.errors import ModelError, ModelFaltered
from core.events import Event, TaskDeleted, TextDelta
from core.ids import new_id
from core.live import LiveEvents
from core.llm.client import LiteLLM, ModelSettings
from core.models import Posted, Turn, TurnStatus
from core.ports import ChatModel, ModelRequest, RoundEnd, TextChunk, UnitOfWork
from core.retries import RetryPolicy
from core.tools import tasks as task_tools
from core.tools.registry import Arguments, Hints, Result, Tool, ToolContext, tool
from core.worker import WorkerRules
from onethread import logs
from onethread.bootstrap import SystemClock
from storage.engine import database_url
from storage.sqlite import sqlite_reader, sqlite_writer
from storage.unit_of_work import Database
from tests.emulators.raw_provider import Ending, RawProvider, Reply, ToolUse
from tests.fakes import Call, Gate, ScriptedModel

CANARY = "canary7f3a91"
KEY = f"sk-{CANARY}"
KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY")
ROUTES = {
    "openai": "openai/gpt-4o",
    "anthropic": "anthropic/claude-sonnet-4-6",
    "gemini": "gemini/gemini-2.5-flash",
    "ollama": "ollama_chat/llama3.1",
}
ENDED = (TurnStatus.SUCCEEDED, TurnStatus.FAILED, TurnStatus.CANCELLED)
RULES = WorkerRules(poll_seconds=0.02, heartbeat_seconds=0.05, retries=RetryPolicy(backoff_seconds=0.02, pause_seconds=0.02))
Start = Callable[..., AbstractAsyncContextManager[Any]]
"""The fixture `start` of conftest.py, which gives a World."""
routes = pytest.mark.parametrize("route", ROUTES)


# --- the detector ----------------------------------------------------------------------------------------------------


class Listening:
    """A model of which it is noted what its errors would tell whoever prints them."""

    def __init__(self, model: ChatModel) -> None:
        self._model = model
        self.errors: list[str] = []

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextChunk | RoundEnd, None]:
        try:
            async with aclosing(self._model.stream(request)) as items:
                async for item in items:
                    yield item
        except ModelError as error:
            self.errors.append("".join([*traceback.format_exception(error), repr(error), str(vars(error))]))
            raise

    async def count_tokens(self, request: ModelRequest) -> int:
        return await self._model.count_tokens(request)

    async def context_window(self, model: str) -> int:
        return await self._model.context_window(model)

    async def image_types(self, model: str) -> frozenset[str]:
        return await self._model.image_types(model)


class Records(logging.Handler):
    """All that any handler could make of a log entry, its traceback and its fields included."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(f"{logging.Formatter().format(record)} {vars(record)!r}")


@dataclass(slots=True)
class Watch:
    """Sees everything that leaves Onethread beside the conversation itself."""

    folder: Path
    capture: pytest.CaptureFixture[str]
    records: Records = field(default_factory=Records)
    events: list[Event] = field(default_factory=list)
    models: list[Listening] = field(default_factory=list)

    @asynccontextmanager
    async def over(self, starting: Callable[..., AbstractAsyncContextManager[Any]], model: ChatModel, **parts: Any) -> AsyncIterator[Any]:
        """An app under observation, from before its worker runs until it is closed."""
        listening = Listening(model)
        self.models.append(listening)
        gc.freeze()  # what was there before, litellm above all, the collector need not go through
        with logging_as_in_production(self.folder, self.records):
            async with starting(listening, **{"worker_rules": RULES, **parts}) as world:
                with world.app.live.subscribe(size=1_000_000) as events:
                    yield world
                self.events += [event for event in events.waiting() if not isinstance(event, TextDelta)]
            gc.collect()  # asyncio reports a task whose error nobody took when the task is thrown away

    def leaks(self) -> dict[str, str]:
        """Where the canary was seen, with what stands around it."""
        seen = {where: text for where, text in self._texts() if CANARY in text.lower()}
        return {where: text[max(text.lower().index(CANARY) - 200, 0) :][:500] for where, text in seen.items()}

    def _texts(self) -> Iterator[tuple[str, str]]:
        printed = self.capture.readouterr()
        log = (self.folder / "onethread.log").read_text(encoding="utf-8")
        assert "turn.claimed" in log, "the detector is deaf: no log entry of a turn"
        assert "turn.claimed" in printed.err, "the detector is deaf: nothing was logged to the console"
        yield "log file", log
        yield "log records", "\n".join(self.records.texts)
        yield "standard output", printed.out
        yield "standard error", printed.err
        yield "events", "\n".join(map(repr, self.events))
        yield "model errors", "\n".join(error for model in self.models for error in model.errors)
        yield from self._stored()

    def _stored(self) -> Iterator[tuple[str, str]]:
        database = sqlite3.connect(self.folder / "onethread.db")
        try:
            changes = database.execute("SELECT * FROM changes").fetchall()
            errors = database.execute("SELECT error_code, error FROM turns").fetchall()
            metadata = [json.loads(row[0]) for row in database.execute("SELECT metadata FROM messages")]
        finally:
            database.close()
        assert changes, "the detector is blind: no change was stored"
        yield "changes", "\n".join(map(repr, changes))
        yield "turn.error", "\n".join(map(repr, errors))
        yield "reply.error", "\n".join(repr(each.get("error")) for each in metadata)


@contextmanager
def logging_as_in_production(folder: Path, records: Records) -> Iterator[None]:
    """Both of our outputs at once, and `records` beside them; afterwards all is as it was."""
    root, before, configured = logging.getLogger(), structlog.get_config(), structlog.is_configured()
    handlers, level, raises = list(root.handlers), root.level, logging.raiseExceptions
    logs.to_file(folder / "onethread.log", "json")
    [file] = root.handlers
    logs.to_stderr("console")
    root.handlers += [file, records]
    logging.captureWarnings(capture=False)  # pytest makes errors of them
    logging.raiseExceptions = True
    structlog.configure(**{**structlog.get_config(), "cache_logger_on_first_use": False})
    try:
        yield
    finally:
        file.close()
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.raiseExceptions = raises
        structlog.reset_defaults()
        if configured:
            structlog.configure(**before)


@pytest.fixture
def watch(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Watch:
    for name in KEYS:
        monkeypatch.setenv(name, KEY)
    return Watch(tmp_path, capfd)


# --- what people do --------------------------------------------------------------------------------------------------


async def _say(world: Any, model: str = "one/model") -> Posted:
    """A message and a file about a task, all full of canaries."""
    task = await world.task(f"Find {CANARY}", description=f"The {CANARY} is yellow.", labels=[CANARY])
    file = Upload(name=f"{CANARY}.txt", data=f"about {CANARY}".encode())
    posted = await world.post(task.conversation_id, f"Where is {CANARY}?", model=model, uploads=[file])
    return cast("Posted", posted)


async def _ended(world: Any, posted: Posted) -> Turn:
    async def there() -> bool:
        return (await world.turn(posted)).status in ENDED

    await world.until(there, seconds=60)  # litellm's first call takes seconds
    return cast("Turn", await world.turn(posted))


def _litellm(provider: RawProvider, route: str) -> LiteLLM:
    settings = ModelSettings(temperature=0.7, max_tokens=100, api_base=provider.api_base(route), first_token_seconds=60, idle_seconds=60)
    return LiteLLM(settings, dict.fromkeys(KEYS, KEY))


async def _answered(start: Start, watch: Watch, route: str, *replies: Reply) -> Turn:
    """The turn of a message that a provider answered with `replies`."""
    async with RawProvider(*replies) as provider:
        async with watch.over(start, _litellm(provider, route)) as world, world.working():
            turn = await _ended(world, await _say(world, ROUTES[route]))
        assert CANARY in json.dumps(provider.requests[0]["contents" if route == "gemini" else "messages"])
    return turn


# --- turns that go well ----------------------------------------------------------------------------------------------


@routes
async def test_an_answer_and_its_tools_stay_in_the_conversation(route: str, start: Start, watch: Watch) -> None:
    arguments = json.dumps({"title": f"Feed {CANARY}", "description": f"{CANARY} is hungry", "labels": [CANARY]})
    asks = Reply(text=(f"I feed {CANARY}.",), tools=(ToolUse(name="create_task", fragments=(arguments,)),), finish="tool_calls")
    lists = Reply(text=(), tools=(ToolUse(name="list_tasks", fragments=('{"query": "' + CANARY + '"}',)),), finish="tool_calls")

    turn = await _answered(start, watch, route, asks, lists, Reply(text=(f"Here is {CANARY}",)))

    assert turn.status is TurnStatus.SUCCEEDED
    assert watch.leaks() == {}


async def test_a_question_and_its_approval_stay_in_the_conversation(start: Start, watch: Watch) -> None:
    model = ScriptedModel().will(Call("ask_user", {"question": f"Which {CANARY}?", "options": [CANARY, f"no {CANARY}"]}))
    async with watch.over(start, model) as world, world.working():
        assert (await _ended(world, await _say(world))).status is TurnStatus.SUCCEEDED

    assert watch.leaks() == {}


@pytest.mark.parametrize(
    "call",
    [Call(CANARY), Call("create_task", "{" + CANARY), Call("create_task", {"title": 7, CANARY: CANARY}), Call("get_task", {"ref": CANARY})],
    ids=["an unknown tool", "broken arguments", "wrong arguments", "a ref that is none"],
)
async def test_a_tool_call_that_fails_is_told_to_the_model_only(call: Call, start: Start, watch: Watch) -> None:
    async with watch.over(start, ScriptedModel().will(call)) as world, world.working():
        posted = await _say(world)
        assert (await _ended(world, posted)).status is TurnStatus.SUCCEEDED
        [noted] = await world.tool_calls(posted)
        assert noted.state == "failed"

    assert watch.leaks() == {}


# --- providers that fail ---------------------------------------------------------------------------------------------


def _no(status: int, message: str, kind: str = "some_error") -> Reply:
    """A refusal whose words, and whose headers too, quote what they were sent."""
    return Reply(status=status, error={"error": {"message": message, "type": kind}}, headers={"x-request-id": CANARY})


QUOTED = f"Invalid request: messages[1].content 'Where is {CANARY}?' with key {KEY}"
CUT_CALL = ToolUse(name="create_task", fragments=(f'{{"title": "{CANARY}',))


@routes
@pytest.mark.parametrize(
    ("replies", "code"),
    [
        ([_no(400, QUOTED, "invalid_request_error")], "BAD_REQUEST"),
        ([_no(400, f"prompt is too long: {QUOTED}")], "CONTEXT_TOO_LONG"),
        ([_no(400, f"content_policy_violation: {QUOTED}")], "CONTENT_POLICY"),
        ([_no(401, f"Incorrect API key provided: {KEY}. You can find your API key at …")], "KEY_REJECTED"),
        ([_no(403, QUOTED)], "KEY_REJECTED"),
        ([_no(404, f"The model {CANARY} does not exist")], "MODEL_UNKNOWN"),
        ([_no(429, QUOTED), _no(503, QUOTED), _no(400, QUOTED)], "BAD_REQUEST"),
        ([_no(500, QUOTED)], "SERVER_ERROR"),
        ([Reply(disconnect=True)], "DISCONNECTED"),
        ([Reply(text=(CANARY,), ending=Ending.DISCONNECT)], "DISCONNECTED"),
        ([Reply(text=(CANARY,), ending=Ending.CLEAN_EOF)], "STREAM_CUT"),
        ([Reply(text=(CANARY,), ending=Ending.ERROR_OBJECT), _no(500, QUOTED)], "SERVER_ERROR"),
        ([Reply(text=(CANARY,), ending=Ending.BROKEN_JSON)], "*"),
        ([Reply(text=())], "EMPTY_REPLY"),
        ([Reply(text=(), finish="length")], "REPLY_TOO_LONG"),
    ],
    ids=[
        "400",
        "too long",
        "policy",
        "401",
        "403",
        "404",
        "429 and 503",
        "500",
        "disconnect before the body",
        "disconnect",
        "eof",
        "error object",
        "broken json",
        "empty",
        "no room",
    ],
)
async def test_a_providers_words_reach_no_log_and_no_error(route: str, replies: list[Reply], code: str, start: Start, watch: Watch) -> None:
    turn = await _answered(start, watch, route, *replies)

    assert turn.status is TurnStatus.FAILED
    assert code in ("*", turn.error_code)
    assert any(model.errors for model in watch.models)
    assert watch.leaks() == {}


@pytest.mark.parametrize("route", ["openai", "anthropic"])
async def test_a_tool_call_that_is_cut_reaches_no_log_and_no_error(route: str, start: Start, watch: Watch) -> None:
    turn = await _answered(start, watch, route, Reply(text=(CANARY,), tools=(CUT_CALL,), finish="length"))

    assert turn.error_code == "REPLY_TOO_LONG"
    assert watch.leaks() == {}


async def test_a_stopped_answer_reaches_no_log(start: Start, watch: Watch) -> None:
    gate = Gate()
    async with watch.over(start, ScriptedModel().will(CANARY, gate, CANARY)) as world, world.working():
        posted = await _say(world)
        await gate.reached()
        await world.cancel(posted)
        assert (await _ended(world, posted)).status is TurnStatus.CANCELLED

    assert watch.leaks() == {}


async def test_an_answer_that_takes_too_long_reaches_no_log(start: Start, watch: Watch) -> None:
    rules = WorkerRules(poll_seconds=0.02, turn_seconds=0.2)
    async with watch.over(start, ScriptedModel().will(CANARY, Gate()), worker_rules=rules) as world, world.working():
        assert (await _ended(world, await _say(world))).error_code == "TURN_TOO_LONG"

    assert watch.leaks() == {}


# --- defects of our own ------------------------------------------------------------------------------------------------


class Wish(Arguments):
    text: str


@tool(toolset="test", title="Break", hints=Hints())
async def break_down(_context: ToolContext, arguments: Wish) -> Result:
    """Raises an error that quotes what it was called with."""
    try:
        raise LookupError(arguments.text)
    except LookupError as error:
        raise RuntimeError(f"cannot do {arguments.text!r}") from error


async def test_an_error_inside_a_tool_is_told_by_its_place_only(start: Start, watch: Watch) -> None:
    tools: tuple[Tool, ...] = (*task_tools.TOOLS, break_down)
    async with watch.over(start, ScriptedModel().will(Call("break_down", {"text": CANARY})), tools=tools) as world, world.working():
        posted = await _say(world)
        assert (await _ended(world, posted)).status is TurnStatus.SUCCEEDED
        [noted] = await world.tool_calls(posted)

    assert CANARY not in noted.result
    assert "tool.failed" in "\n".join(watch.records.texts)
    assert watch.leaks() == {}


async def test_an_error_inside_the_model_is_told_by_its_place_only(start: Start, watch: Watch) -> None:
    model = ScriptedModel(lambda _: (CANARY, RuntimeError(CANARY)))
    async with watch.over(start, model) as world, world.working():
        assert (await _ended(world, await _say(world))).error_code == "INTERNAL"

    assert "turn.broke" in "\n".join(watch.records.texts)
    assert watch.leaks() == {}


class Breaking:
    """A storage that raises, before a transaction is committed, an error that quotes a row, where `breaks` says so."""

    def __init__(self, folder: Path) -> None:
        url = database_url(f"sqlite+aiosqlite:///{folder / 'onethread.db'}")
        live = LiveEvents()  # the app hears of this storage as of another process's
        writer, reader = sqlite_writer(url), sqlite_reader(url)
        self._database = Database(writer=writer, reader=reader, live=live, clock=SystemClock(), process_id=new_id())
        self.breaks: Callable[[asyncio.Task[Any]], bool] = lambda _: False
        self.holds: Callable[[asyncio.Task[Any]], bool] = lambda _: False
        """Who is kept waiting until it is cancelled, and gets the error then."""
        self.times = 0
        self.held = asyncio.Event()
        self.broke = asyncio.Event()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[UnitOfWork]:
        async with self._database.read() as uow:
            yield uow
            await self._break()

    @asynccontextmanager
    async def write(self) -> AsyncIterator[UnitOfWork]:
        async with self._database.write() as uow:
            yield uow
            await self._break()

    async def version(self) -> str:
        return await self._database.version()

    async def prune(self, now: datetime) -> Mapping[str, int]:
        return await self._database.prune(now)

    async def close(self) -> None:
        await self._database.close()

    async def broken(self) -> None:
        """Waits until it has raised; then it works again."""
        async with asyncio.timeout(20):
            await self.broke.wait()
        self.breaks = lambda _: False

    async def _break(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        held = self.holds(task)
        if held:
            await self._wait()
        if held or self.breaks(task):
            self.times += 1
            self.broke.set()
            raise RuntimeError(f"INSERT INTO messages VALUES ('{CANARY}')")

    async def _wait(self) -> None:
        self.held.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:  # as of a driver that fails in the middle of what was cancelled
            return


@pytest.fixture
async def breaking(tmp_path: Path) -> AsyncIterator[Breaking]:
    storage = Breaking(tmp_path)
    yield storage
    await storage.close()


@pytest.mark.parametrize("loop", ["worker._claim_turns", "worker._beat", "worker.run"], ids=["claiming", "heartbeat", "drafts"])
async def test_an_error_in_a_loop_of_the_worker_is_told_by_its_place_and_the_worker_goes_on(
    loop: str, start: Start, watch: Watch, breaking: Breaking
) -> None:
    gate = Gate()
    async with watch.over(start, ScriptedModel(lambda _: (CANARY, gate)), storage=breaking) as world, world.working():
        breaking.breaks = lambda task: task.get_name() == loop
        posted = await _say(world)
        await breaking.broken()
        gate.open()
        assert (await _ended(world, posted)).status is TurnStatus.SUCCEEDED

        async def restarted() -> bool:
            return "worker.restarted" in "\n".join(watch.records.texts)

        await world.until(restarted)

    assert watch.leaks() == {}


async def test_an_error_while_a_turn_is_stored_is_told_by_its_place_only(start: Start, watch: Watch, breaking: Breaking) -> None:
    async with watch.over(start, ScriptedModel(lambda _: (CANARY,)), storage=breaking) as world, world.working():
        breaking.breaks = lambda task: task.get_name().startswith("turn ") and breaking.times == 0
        posted = await _say(world)
        assert (await _ended(world, posted)).status is TurnStatus.SUCCEEDED

    assert breaking.times == 1
    assert "turn.broke" in "\n".join(watch.records.texts)
    assert watch.leaks() == {}


async def test_an_error_while_the_failure_of_a_turn_is_stored_is_told_by_its_place_only(
    start: Start, watch: Watch, breaking: Breaking
) -> None:
    async with watch.over(start, ScriptedModel(lambda _: (CANARY,)), storage=breaking) as world:
        async with world.working():
            breaking.breaks = lambda task: task.get_name().startswith("turn ")
            posted = await _say(world)
            await world.until(lambda: _logged(watch, "turn.failure_not_stored"))
            breaking.breaks = lambda _: False
        assert (await world.turn(posted)).status is TurnStatus.QUEUED

    assert watch.leaks() == {}


async def test_an_error_at_the_end_of_the_worker_does_not_keep_it_from_ending(start: Start, watch: Watch, breaking: Breaking) -> None:
    gate = Gate()
    async with watch.over(start, ScriptedModel().will(CANARY, gate), storage=breaking) as world, asyncio.timeout(60):
        async with world.working():
            await _say(world)
            await gate.reached()
            breaking.breaks = lambda task: task.get_name() == "worker"
        assert breaking.broke.is_set()
        breaking.breaks = lambda _: False

    assert watch.leaks() == {}


async def test_an_error_of_a_loop_that_is_being_stopped_is_not_printed(start: Start, watch: Watch, breaking: Breaking) -> None:
    async with watch.over(start, ScriptedModel(), storage=breaking) as world, asyncio.timeout(20):
        async with world.working():
            await _ended(world, await _say(world))
            breaking.holds = lambda task: task.get_name() == "worker._beat"
            await breaking.held.wait()
        assert breaking.broke.is_set()

    assert watch.leaks() == {}


async def test_an_error_in_a_tick_is_told_by_its_place_only(start: Start, watch: Watch, breaking: Breaking) -> None:
    here = asyncio.current_task()
    async with watch.over(start, ScriptedModel(), storage=breaking) as world:
        breaking.breaks = lambda task: task is not here and not task.get_name().startswith(("worker", "turn "))
        async with world.working():
            await breaking.broken()
            assert (await _ended(world, await _say(world))).status is TurnStatus.SUCCEEDED

    assert "tick.broke" in "\n".join(watch.records.texts)
    assert watch.leaks() == {}


async def _logged(watch: Watch, event: str) -> bool:
    return any(event in text for text in watch.records.texts)


# --- the detector detects --------------------------------------------------------------------------------------------


async def _log(_world: Any) -> None:
    structlog.get_logger().info("said", text=CANARY)


async def _log_by_a_library(_world: Any) -> None:
    logging.getLogger("some.library").warning("they said %s", CANARY.upper())


async def _log_a_traceback(_world: Any) -> None:
    try:
        raise RuntimeError(CANARY)
    except RuntimeError:
        logging.getLogger("some.library").exception("it failed")


async def _print(_world: Any) -> None:
    sys.stdout.write(CANARY)


async def _print_an_error(_world: Any) -> None:
    sys.stderr.write(KEY)


async def _lose_a_task(_world: Any) -> None:
    async def break_off() -> None:
        raise RuntimeError(CANARY)

    await asyncio.wait({asyncio.create_task(break_off())})


async def _emit(world: Any) -> None:
    await world.write(_emitted)


async def _emitted(uow: UnitOfWork) -> None:
    uow.emit(TaskDeleted(conversation_id=new_id(), task_id=new_id(), ref=CANARY, readers=()))


async def _store_an_error(world: Any) -> None:
    posted = await world.post((await world.chat()).id, "hello")
    await _ended(world, posted)
    await world.write(lambda uow: uow.turns.update(_id(posted.turn_id), error=CANARY))
    await world.write(lambda uow: uow.messages.update(_id(posted.reply_id), metadata={"error": {"message": CANARY}}))


LEAKS: dict[str, tuple[Callable[[Any], Awaitable[None]], set[str]]] = {
    "our log": (_log, {"log file", "log records", "standard error"}),
    "a library's log": (_log_by_a_library, {"log file", "log records", "standard error"}),
    "a traceback": (_log_a_traceback, {"log records"}),
    "output": (_print, {"standard output"}),
    "error output": (_print_an_error, {"standard error"}),
    "a lost task": (_lose_a_task, {"log file", "log records", "standard error"}),
    "an event": (_emit, {"events", "changes"}),
    "a stored error": (_store_an_error, {"turn.error", "reply.error"}),
}


@pytest.mark.parametrize("leak", LEAKS)
async def test_the_detector_sees_a_leak_made_on_purpose(leak: str, start: Start, watch: Watch) -> None:
    make, seen_in = LEAKS[leak]
    async with watch.over(start, ScriptedModel()) as world, world.working():
        await _ended(world, await _say(world))
        await make(world)

    assert seen_in <= set(watch.leaks())


async def test_a_logged_traceback_is_written_as_its_place_only(start: Start, watch: Watch) -> None:
    async with watch.over(start, ScriptedModel()) as world, world.working():
        await _ended(world, await _say(world))
        await _log_a_traceback(world)

    assert not {"log file", "standard error"} & set(watch.leaks())


def test_an_entry_of_ours_reaches_every_handler_once_with_its_level(tmp_path: Path) -> None:
    """Also where the log was set up anew since the logger was first used."""
    records, logger = Records(), structlog.get_logger()
    records.setLevel(logging.WARNING)
    with logging_as_in_production(tmp_path, Records()):
        logger.info("before")
        with logging_as_in_production(tmp_path / "anew", records):
            logger.info("turn.claimed")
            logger.error("turn.broke", reason="it")
    (text,) = records.texts
    assert "'levelname': 'ERROR'" in text
    lines = (tmp_path / "anew" / "onethread.log").read_text(encoding="utf-8").splitlines()
    assert [name in line for name, line in zip(("turn.claimed", "turn.broke"), lines, strict=True)] == [True, True]


async def test_the_detector_sees_a_model_error_that_tells_too_much(start: Start, watch: Watch) -> None:
    async with watch.over(start, ScriptedModel(lambda _: (ModelFaltered(CANARY, reason="STREAM_CUT"),))) as world, world.working():
        await _ended(world, await _say(world))

    assert {"model errors", "turn.error", "reply.error"} <= set(watch.leaks())


def _id(there: UUID | None) -> UUID:
    assert there is not None
    return there
