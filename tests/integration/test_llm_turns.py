"""What each way in which a provider fails does to a turn: its state, its messages, its next attempt. The real app, worker and litellm.

The providers are of our own making; what litellm makes of them is in test_litellm_client.py. The clock stands still unless a test
moves it, so times are exact and nothing is tried again by itself.
"""

import asyncio
import itertools
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from core import conversations, messages, tasks, turns
from core.access import Principal
from core.events import TextDelta
from core.llm import demo
from core.llm.client import LiteLLM, ModelSettings
from core.models import AgentStatus, Message, MessageStatus, ModelPause, Posted, TokenUsage, ToolCallState, Turn, TurnStatus
from core.ports import ModelRequest, TaskFilter
from core.retries import RetryPolicy
from core.worker import WorkerRules
from onethread.bootstrap import App, running, working
from onethread.settings import load
from tests.emulators.aimock import Aimock, aimock
from tests.emulators.raw_provider import Ending, RawProvider, Reply, ToolUse, Usage
from tests.fakes import ManualClock

ROUTES = {
    "openai": "openai/gpt-4o",
    "anthropic": "anthropic/claude-sonnet-4-6",
    "gemini": "gemini/gemini-2.5-flash",
    "ollama": "ollama_chat/llama3.1",
}
KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY")
OTHER_KEYS = ("GOOGLE_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE")
POLICY = RetryPolicy()

pytestmark = pytest.mark.asyncio(loop_scope="module")


def only(*names: str) -> pytest.MarkDecorator:
    """Runs the test on these routes instead of all."""
    return pytest.mark.parametrize("shared", names, indirect=True)


# --- the stage -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Answers:
    """A provider's script that each test sets anew."""

    replies: tuple[Reply, ...] = (Reply(),)
    since: int = 0

    def __call__(self, _body: Mapping[str, Any], n: int) -> Reply:
        return self.replies[min(n - self.since, len(self.replies) - 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is stored of a turn."""

    turn: Turn
    question: Message
    reply: Message
    pause: ModelPause | None
    agent_status: AgentStatus
    agent_message: str


@dataclass(slots=True, kw_only=True)
class Desk:
    """An app with its worker at work, for one route."""

    route: str
    app: App
    clock: ManualClock
    principal: Principal
    provider: RawProvider | None = None
    answers: Answers = field(default_factory=Answers)
    posted: list[UUID] = field(default_factory=list)

    def will(self, *replies: Reply) -> None:
        assert self.provider is not None
        self.answers.replies, self.answers.since = replies, len(self.provider.requests)
        self.provider.hung_up.clear()

    @property
    def requests(self) -> int:
        """How many the provider has seen since `will`."""
        return len(self.provider.requests) - self.answers.since if self.provider else 0

    async def post(self, text: str = "hello", *, model: str | None = None, conversation_id: UUID | None = None) -> Posted:
        async with self.app.storage.write() as uow:
            place = conversation_id or (await conversations.create(uow, self.principal)).id
            posted = await messages.post(uow, self.principal, place, text, rules=self.app.rules, source="test", model=model)
        assert posted.turn_id is not None
        self.posted.append(posted.turn_id)
        return posted

    async def ask(self, *replies: Reply, **post: Any) -> Seen:
        """Posts a message and waits until the worker has left its turn."""
        if replies:
            self.will(*replies)
        return await self.left(await self.post(**post))

    async def left(self, posted: Posted, *, attempt: int = 1) -> Seen:
        """The turn after its n-th attempt."""
        return await self.until(
            posted, lambda turn: turn.status.finished or (turn.status is TurnStatus.QUEUED and turn.lease_token >= attempt)
        )

    async def until(self, posted: Posted, done: Callable[[Turn], bool]) -> Seen:
        with self.app.live.subscribe() as events:
            async with asyncio.timeout(20):
                while not done((seen := await self.seen(posted)).turn):
                    await events.get()
        return seen

    async def seen(self, posted: Posted) -> Seen:
        assert posted.turn_id is not None
        assert posted.reply_id is not None
        async with self.app.storage.read() as uow:
            turn, question = await uow.turns.get(posted.turn_id), await uow.messages.get(posted.message_id)
            reply, conversation = await uow.messages.get(posted.reply_id), await uow.conversations.find(posted.conversation_id)
            assert turn is not None
            assert question is not None
            assert reply is not None
            assert conversation is not None
            pause = await uow.pauses.get(turn.model)
        return Seen(
            turn=turn,
            question=question,
            reply=reply,
            pause=pause,
            agent_status=conversation.agent_status,
            agent_message=conversation.agent_status_message,
        )

    async def begun(self, posted: Posted) -> None:
        """Waits for the first text of a reply."""
        with self.app.live.subscribe(posted.conversation_id) as events:
            async with asyncio.timeout(20):
                while not isinstance(event := await events.get(), TextDelta) or not event.text:
                    pass

    async def ledger(self, posted: Posted) -> TokenUsage:
        async with self.app.storage.read() as uow:
            return await uow.usage.of_conversation(posted.conversation_id)

    async def clear(self) -> None:
        """Nothing of this test is left to do when the next one begins."""
        async with self.app.storage.write() as uow:
            for turn_id in self.posted:
                turn = await turns.cancel(uow, self.principal, turn_id)
                await uow.pauses.remove(turn.model)
        self.posted.clear()


@asynccontextmanager
async def desk_at(folder: Path, route: str, api_base: str | None, **overrides: Any) -> AsyncIterator[Desk]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("ONETHREAD_DATA_DIR", str(folder))
        environment.setenv("ONETHREAD_MODEL", ROUTES[route])
        environment.setenv("ONETHREAD_MODEL_API_BASE", api_base or "")
        environment.setenv("ONETHREAD_MESSAGES_PER_MINUTE", "1000")
        settings = load(dotenv=False)
    clock = ManualClock()
    rules = WorkerRules(poll_seconds=0.1, retries=POLICY)
    async with running(settings, **{"clock": clock, "worker_rules": rules, **overrides}) as app, working(app):
        yield Desk(route=route, app=app, clock=clock, principal=await app.principal())


@pytest.fixture(autouse=True, scope="module")
def keys() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as environment:
        for name in KEYS:
            environment.setenv(name, "sk-test")
        for name in OTHER_KEYS:
            environment.delenv(name, raising=False)
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def warm(keys: None) -> None:
    """litellm imports and builds much at a route's first call, more than the short deadlines here allow."""
    async with RawProvider() as provider:
        for route, model in ROUTES.items():
            client = LiteLLM(ModelSettings(temperature=0.7, max_tokens=100, api_base=provider.api_base(route)), os.environ)
            request = ModelRequest(model=model, messages=[{"role": "user", "content": "hello"}])
            assert [item async for item in client.stream(request)]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ROUTES)
async def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    route, answers = request.param, Answers()
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(RawProvider(script=answers))
        desk = await stack.enter_async_context(desk_at(tmp_path_factory.mktemp(route), route, provider.api_base(route)))
        desk.provider, desk.answers = provider, answers
        yield desk


@pytest_asyncio.fixture(loop_scope="module")
async def desk(shared: Desk) -> AsyncIterator[Desk]:
    yield shared
    await shared.clear()


# --- one attempt that fails ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    status: TurnStatus
    code: str
    failures: int = 0
    waits: tuple[float, float] = (0.0, 0.0)
    """Seconds from now to the next attempt, at least and at most."""
    pauses: bool = False
    """Whether the model is paused until then, for everybody."""
    text: str = ""


def refused(code: str, *, text: str = "") -> Outcome:
    """Given up at once: a person has to change something."""
    return Outcome(status=TurnStatus.FAILED, code=code, failures=1, text=text)


def busy(code: str, *, seconds: float, text: str = "") -> Outcome:
    """Tried again after a pause of the model, at no cost for the turn."""
    return Outcome(status=TurnStatus.QUEUED, code=code, waits=(seconds, seconds), pauses=True, text=text)


def faltered(code: str, *, text: str = "") -> Outcome:
    """Tried again soon, as the first of three failures."""
    return Outcome(status=TurnStatus.QUEUED, code=code, failures=1, waits=(1.5, 2.5), text=text)


def says_no(status: int, error: Mapping[str, Any] | None = None, **headers: str) -> Reply:
    body = {"error": error or {"message": "No.", "type": "some_error"}}
    return Reply(status=status, error=body, headers={name.replace("_", "-"): value for name, value in headers.items()})


TOO_LONG: dict[str, dict[str, Any]] = {
    "openai": {"message": "This model's maximum context length is 128000 tokens.", "code": "context_length_exceeded"},
    "anthropic": {"message": "prompt is too long: 201000 tokens > 200000 maximum", "type": "invalid_request_error"},
    "gemini": {"message": "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).", "code": 400},
    "ollama": {"message": "the input length exceeds the context length"},
}
DECLINED: dict[str, dict[str, Any]] = {
    "openai": {"message": "Your request was rejected as a result of our safety system.", "code": "content_policy_violation"},
    "anthropic": {"message": "Output blocked by content filtering policy", "type": "invalid_request_error"},
    "gemini": {"message": "The response was blocked by safety settings", "code": 400},
    "ollama": {"message": "rejected by content filter"},
}
SAID = "Hello there."
CUT_CALL = ToolUse(name="create_task", fragments=('{"title": "tru',))


async def _expect(desk: Desk, reply: Reply, outcome: Outcome) -> None:
    """One message, one attempt, one request, and then everything stands as `outcome` says."""
    seen = await desk.ask(reply)
    _check(desk, seen, outcome)
    assert desk.requests == 1


def _check(desk: Desk, seen: Seen, outcome: Outcome) -> None:
    turn, reply = seen.turn, seen.reply
    assert (turn.status, turn.error_code, turn.failures) == (outcome.status, outcome.code, outcome.failures)
    assert turn.error
    assert turn.lease_owner is None
    assert reply.content == outcome.text
    if outcome.status is TurnStatus.FAILED:
        assert (seen.question.status, reply.status) == (MessageStatus.FAILED, MessageStatus.FAILED)
        assert reply.metadata["error"] == {"code": outcome.code, "message": turn.error}
        assert (seen.agent_status, seen.agent_message) == (AgentStatus.ERROR, turn.error)
        assert turn.finished_at == desk.clock.now()
    else:
        assert (seen.question.status, reply.status) == (MessageStatus.PENDING, MessageStatus.PENDING)
        assert "error" not in reply.metadata
        assert (seen.agent_status, seen.agent_message) == (AgentStatus.THINKING, f"Trying again soon: {turn.error}")
        least, most = outcome.waits
        assert least <= (turn.run_after - desk.clock.now()).total_seconds() <= most
    if outcome.pauses:
        assert seen.pause is not None
        assert (seen.pause.paused_until, seen.pause.pauses) == (turn.run_after, 1)
    else:
        assert seen.pause is None


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (says_no(429, retry_after="7"), busy("RATE_LIMITED", seconds=7)),
        (says_no(429), busy("RATE_LIMITED", seconds=5)),
        (says_no(401), refused("KEY_REJECTED")),
        (says_no(503), busy("UNAVAILABLE", seconds=5)),
        (says_no(503, retry_after="9"), busy("UNAVAILABLE", seconds=9)),
        (says_no(500), faltered("SERVER_ERROR")),
        (says_no(400), refused("BAD_REQUEST")),
        (Reply(disconnect=True), faltered("DISCONNECTED")),
        (Reply(ending=Ending.DISCONNECT), faltered("DISCONNECTED", text=SAID)),
        (Reply(text=()), faltered("EMPTY_REPLY")),
        (Reply(ending=Ending.CLEAN_EOF), faltered("STREAM_CUT", text=SAID)),
        (Reply(ending=Ending.DONE_WITHOUT_FINISH), faltered("STREAM_CUT", text=SAID)),
        (Reply(text=(), ending=Ending.DONE_WITHOUT_FINISH), faltered("STREAM_CUT")),
        (Reply(text=(), ending=Ending.CLEAN_EOF), faltered("STREAM_CUT")),
    ],
    ids=[
        "429 with Retry-After",
        "429",
        "401",
        "503",
        "503 with Retry-After",
        "500",
        "400",
        "disconnect before the body",
        "disconnect in mid-stream",
        "empty",
        "clean EOF",
        "[DONE] without finish_reason",
        "only [DONE]",
        "nothing at all",
    ],
)
async def test_a_failed_attempt_is_stored_as_what_it_was(desk: Desk, reply: Reply, outcome: Outcome) -> None:
    await _expect(desk, reply, outcome)


async def test_a_conversation_that_is_too_long_is_given_up(desk: Desk) -> None:
    await _expect(desk, says_no(400, TOO_LONG[desk.route]), refused("CONTEXT_TOO_LONG"))


@only("openai", "anthropic")
async def test_a_conversation_that_is_too_long_is_summarised_and_asked_once_more(desk: Desk) -> None:
    desk.will(Reply())
    first = await desk.post("k1 " + "word " * 50)
    await desk.left(first)
    desk.will(says_no(400, TOO_LONG[desk.route]), Reply(text=("They spoke ", "of k1.")), Reply(text=("Gladly.",)))

    seen = await desk.left(await desk.post("k2 go on", conversation_id=first.conversation_id))

    assert (seen.turn.status, seen.turn.failures, seen.turn.lease_token, seen.reply.content) == ("succeeded", 0, 1, "Gladly.")
    assert desk.provider is not None
    whole, summary, shortened = (json.dumps(body["messages"]) for body in desk.provider.requests[-3:])
    assert ("k1 word" in whole, "k1 word" in summary, "k1 word" in shortened) == (True, True, False)
    assert "They spoke of k1." in shortened
    assert "tools" not in desk.provider.requests[-2]
    assert (await desk.ledger(first)).tokens_in == 3 * Usage().tokens_in


@only("openai", "anthropic")
async def test_a_conversation_that_stays_too_long_is_given_up_after_two_requests_and_a_summary(desk: Desk) -> None:
    desk.will(Reply())
    first = await desk.post("k1 " + "word " * 50)
    await desk.left(first)
    no = says_no(400, TOO_LONG[desk.route])
    desk.will(no, Reply(text=("They spoke.",)), no)

    seen = await desk.left(await desk.post("k2 go on", conversation_id=first.conversation_id))

    _check(desk, seen, refused("CONTEXT_TOO_LONG"))
    assert desk.requests == 3


async def test_what_the_provider_declines_is_given_up(desk: Desk) -> None:
    await _expect(desk, says_no(400, DECLINED[desk.route]), refused("CONTENT_POLICY"))


async def test_an_error_object_in_mid_stream_keeps_the_text_before_it(desk: Desk) -> None:
    overloaded = desk.route == "anthropic"  # whose error object says that it is overloaded
    outcome = busy("UNAVAILABLE", seconds=5, text=SAID) if overloaded else faltered("SERVER_ERROR", text=SAID)

    await _expect(desk, Reply(ending=Ending.ERROR_OBJECT), outcome)


@pytest.mark.parametrize("text", [("Hello", " there."), ()], ids=["after text", "as the whole body"])
async def test_a_broken_line_is_no_end_of_an_answer(desk: Desk, text: tuple[str, ...]) -> None:
    seen = await desk.ask(Reply(text=text, ending=Ending.BROKEN_JSON))

    assert seen.turn.error_code in ("REPLY_MALFORMED", "STREAM_CUT")  # as litellm passes it over on some routes
    _check(desk, seen, faltered(str(seen.turn.error_code), text="".join(text)))
    assert desk.requests == 1


@only("openai", "anthropic")
async def test_a_tool_call_cut_by_the_length_limit_is_not_carried_out(desk: Desk) -> None:
    await _expect(desk, Reply(text=("I will",), tools=(CUT_CALL,), finish="length"), refused("REPLY_TOO_LONG", text="I will"))

    async with desk.app.storage.read() as uow:
        assert await uow.tool_calls.of_turns(desk.posted) == []
        assert await uow.tasks.count(desk.principal, TaskFilter()) == 0


@pytest.mark.parametrize("route", ROUTES)
async def test_a_refused_connection_pauses_the_model(route: str, tmp_path: Path) -> None:
    async with RawProvider() as provider:
        gone = provider.api_base(route)
    async with desk_at(tmp_path, route, gone) as desk:
        _check(desk, await desk.ask(), busy("UNAVAILABLE", seconds=5))


@pytest.mark.parametrize("route", ["openai", "anthropic", "gemini"])
async def test_a_missing_key_is_named_and_nothing_is_tried_again(route: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.delenv(name)
    async with desk_at(tmp_path, route, None) as desk:
        seen = await desk.ask()

        _check(desk, seen, refused("KEY_MISSING"))
        assert f"{route.upper()}_API_KEY" in str(seen.turn.error)


# --- time ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("reply", "deadlines", "text"),
    [
        (Reply(gap_seconds=60), {"first_token_seconds": 0.3, "idle_seconds": 10.0}, ""),
        (Reply(ending=Ending.STALL), {"first_token_seconds": 10.0, "idle_seconds": 0.3}, SAID),
    ],
    ids=["a slow first token", "a stall"],
)
async def test_silence_costs_an_attempt_and_closes_the_connection(
    route: str, reply: Reply, deadlines: dict[str, Any], text: str, tmp_path: Path
) -> None:
    async with RawProvider(reply) as provider:
        model = LiteLLM(ModelSettings(temperature=0.7, max_tokens=100, api_base=provider.api_base(route), **deadlines), os.environ)
        async with desk_at(tmp_path, route, None, model=model) as desk:
            _check(desk, await desk.ask(), faltered("TIMEOUT", text=text))
            async with asyncio.timeout(1):
                await provider.hung_up.wait()
        assert len(provider.requests) == 1


async def test_stopping_an_answer_closes_the_connection_within_a_second_and_not_before(desk: Desk) -> None:
    desk.will(Reply(text=itertools.repeat("drip "), gap_seconds=0.01))
    posted = await desk.post()
    await desk.begun(posted)
    assert desk.provider is not None
    assert not desk.provider.hung_up.is_set()

    async with desk.app.storage.write() as uow:
        assert posted.turn_id is not None
        await turns.cancel(uow, desk.principal, posted.turn_id)
    async with asyncio.timeout(1):
        await desk.provider.hung_up.wait()

    seen = await desk.seen(posted)
    assert (seen.turn.status, seen.question.status, seen.reply.status) == ("cancelled", "cancelled", "cancelled")
    assert (seen.agent_status, seen.turn.error_code) == (AgentStatus.IDLE, None)
    assert desk.requests == 1


# --- attempts that follow --------------------------------------------------------------------------------------------


async def test_two_failures_and_an_answer_are_an_answer(desk: Desk) -> None:
    desk.will(says_no(500), Reply(ending=Ending.CLEAN_EOF), Reply(text=("All", " of it.")))
    posted = await desk.post()
    first = await desk.left(posted, attempt=1)
    desk.clock.advance(3)
    second = await desk.left(posted, attempt=2)
    assert (first.turn.failures, second.turn.failures) == (1, 2)
    assert 3.0 <= (second.turn.run_after - desk.clock.now()).total_seconds() <= 5.0
    desk.clock.advance(5)

    seen = await desk.left(posted, attempt=3)

    assert (seen.turn.status, seen.turn.failures, seen.turn.error_code, seen.turn.error) == (TurnStatus.SUCCEEDED, 0, None, None)
    assert (seen.question.status, seen.reply.status, seen.reply.content) == ("completed", "completed", "All of it.")
    assert "error" not in seen.reply.metadata
    assert seen.agent_status is AgentStatus.IDLE
    assert desk.requests == 3


@only("openai")
async def test_the_third_failure_is_the_last(desk: Desk) -> None:
    desk.will(says_no(500), Reply(text=("One",), ending=Ending.DISCONNECT), Reply(text=("Two",), ending=Ending.CLEAN_EOF), Reply())
    posted = await desk.post()
    for attempt in (1, 2):
        await desk.left(posted, attempt=attempt)
        desk.clock.advance(5)

    seen = await desk.left(posted, attempt=3)

    assert (seen.turn.status, seen.turn.error_code) == (TurnStatus.FAILED, "STREAM_CUT")
    assert (seen.question.status, seen.reply.status, seen.reply.content) == ("failed", "failed", "Two")
    assert seen.reply.metadata["error"] == {"code": "STREAM_CUT", "message": seen.turn.error}
    assert desk.requests == 3


async def test_a_busy_model_costs_no_attempts_and_is_asked_again_after_its_pause(desk: Desk) -> None:
    desk.will(*[says_no(429)] * 4, Reply())
    posted = await desk.post()
    waits = []
    for attempt in (1, 2, 3, 4):
        seen = await desk.left(posted, attempt=attempt)
        assert (seen.turn.status, seen.turn.failures) == (TurnStatus.QUEUED, 0)
        waits.append((seen.turn.run_after - desk.clock.now()).total_seconds())
        desk.clock.advance(waits[-1])

    seen = await desk.left(posted, attempt=5)

    assert waits == [5, 10, 20, 40]
    assert (seen.turn.status, seen.turn.error_code, seen.reply.content) == (TurnStatus.SUCCEEDED, None, SAID)
    assert seen.pause
    assert (seen.pause.paused_until, seen.pause.at_once) == (desk.clock.now(), 2)
    assert desk.requests == 5


@only("openai")
async def test_everybody_waits_for_a_paused_model_but_no_other(desk: Desk) -> None:
    desk.will(says_no(429, retry_after="7"), Reply())
    first = await desk.post()
    turned_away = await desk.left(first)
    second = await desk.post()
    elsewhere = await desk.ask(text="another model", model="openai/gpt-4o-mini")
    assert elsewhere.turn.status is TurnStatus.SUCCEEDED
    assert (await desk.seen(second)).turn.started_at is None
    desk.clock.advance(7)

    seen = [await desk.left(first, attempt=2), await desk.left(second)]

    assert [each.turn.status for each in seen] == [TurnStatus.SUCCEEDED, TurnStatus.SUCCEEDED]
    assert seen[1].turn.started_at == turned_away.turn.run_after
    assert desk.requests == 4


async def test_a_missing_key_is_set_and_a_person_retries_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.delenv(name)
    async with RawProvider() as provider, desk_at(tmp_path, "openai", None) as desk:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.api_base("openai"))
        posted = await desk.post()
        assert (await desk.left(posted)).turn.error_code == "KEY_MISSING"
        assert provider.requests == []
        monkeypatch.setenv("OPENAI_API_KEY", "sk-now")

        async with desk.app.storage.write() as uow:
            assert posted.turn_id is not None
            again = await messages.retry(uow, desk.principal, posted.turn_id, rules=desk.app.rules, source="test")
        seen = await desk.left(again, attempt=2)

        assert again == posted
        assert (seen.turn.status, seen.turn.error_code, seen.reply.content) == (TurnStatus.SUCCEEDED, None, SAID)
        assert (seen.question.status, seen.reply.status) == (MessageStatus.COMPLETED, MessageStatus.COMPLETED)
        assert "error" not in seen.reply.metadata
        assert len(provider.requests) == 1


# --- what it cost ----------------------------------------------------------------------------------------------------

COUNTED = Reply(usage=Usage(tokens_in=2000, tokens_out=7, tokens_cached=1500))


@pytest.mark.parametrize(
    ("shared", "cost"),
    [("openai", Decimal("0.003195")), ("anthropic", Decimal("0.002055"))],
    indirect=["shared"],
    ids=["openai", "anthropic"],
)
async def test_a_known_price_is_in_the_reply_and_in_the_ledger(desk: Desk, cost: Decimal) -> None:
    desk.will(COUNTED)
    posted = await desk.post()
    metadata = (await desk.left(posted)).reply.metadata

    assert (metadata["model"], metadata["tokens_in"], metadata["tokens_out"], metadata["tokens_cached"]) == (
        ROUTES[desk.route],
        2000,
        7,
        1500,
    )
    assert Decimal(metadata["cost"]) == cost
    assert not metadata["estimated"]
    assert await desk.ledger(posted) == TokenUsage(tokens_in=2000, tokens_out=7, tokens_cached=1500, cost=cost, estimated=False)


@only("openai")
async def test_an_unknown_price_is_none_and_makes_the_sum_unknown(desk: Desk) -> None:
    desk.will(COUNTED)
    posted = await desk.post()
    await desk.left(posted)

    follow_up = await desk.post(model="openai/of-our-own", conversation_id=posted.conversation_id)
    metadata = (await desk.left(follow_up)).reply.metadata

    assert (metadata["model"], metadata["tokens_in"], metadata["cost"]) == ("openai/of-our-own", 2000, None)
    ledger = await desk.ledger(posted)
    assert (ledger.tokens_in, ledger.cost) == (4000, None)


@only("openai")
async def test_failed_attempts_cost_nothing_in_the_ledger(desk: Desk) -> None:
    desk.will(Reply(ending=Ending.CLEAN_EOF))
    posted = await desk.post()
    await desk.left(posted)

    ledger = await desk.ledger(posted)
    assert (ledger.tokens_in, ledger.tokens_out) == (0, 0)


@only("openai")
async def test_the_demo_costs_zero_and_asks_nobody(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "SECONDS_PER_WORD", 0)
    desk.will(Reply())
    posted = await desk.post(model="demo/offline")
    seen = await desk.left(posted)

    assert (seen.turn.status, seen.reply.metadata["cost"]) == (TurnStatus.SUCCEEDED, "0")
    assert (await desk.ledger(posted)).cost == 0
    assert desk.requests == 0


# --- well-behaved providers, as aimock plays them ------------------------------------------------------------------

USAGE = {"prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 70, "input_tokens": 50, "output_tokens": 20}
FIXTURES: list[dict[str, Any]] = [
    {
        "match": {"userMessage": "buy milk", "hasToolResult": False},
        "response": {"toolCalls": [{"name": "create_task", "arguments": {"title": "Buy milk"}}], "usage": USAGE},
    },
    {"match": {}, "response": {"content": "The task is there.", "usage": USAGE}},
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def well_behaved() -> AsyncIterator[Aimock]:
    async with aimock(FIXTURES) as server:
        yield server


@pytest.mark.parametrize("route", ROUTES)
async def test_a_tool_call_goes_round_and_is_counted(route: str, well_behaved: Aimock, tmp_path: Path) -> None:
    before = len(await well_behaved.journal())
    async with desk_at(tmp_path, route, well_behaved.api_base(route)) as desk:
        seen = await desk.ask(text="Create a task to buy milk")
        async with desk.app.storage.read() as uow:
            [call] = await uow.tool_calls.of_turns([seen.turn.id])
            page = await tasks.page(uow, desk.principal, TaskFilter())

    assert (seen.turn.status, seen.reply.status, seen.reply.content) == ("succeeded", "completed", "The task is there.")
    assert (call.name, call.arguments, call.state) == ("create_task", {"title": "Buy milk"}, ToolCallState.DONE)
    assert [(task.ref, task.title) for task in page.tasks] == [("OT-1", "Buy milk")]
    metadata = seen.reply.metadata
    assert (metadata["model"], metadata["rounds"], metadata["finish_reason"]) == (ROUTES[route], 2, "stop")
    if route == "ollama":  # for which aimock counts no tokens
        assert metadata["estimated"]
    else:
        assert (metadata["tokens_in"], metadata["tokens_out"], metadata["estimated"]) == (100, 40, False)
        assert Decimal(metadata["cost"]) > 0
    assert len(await well_behaved.journal()) == before + 2
