"""litellm's traps, each with the answer that `core.llm.client` gives: on four routes, against providers that break in every known way."""

import asyncio
import itertools
import json
import logging
import subprocess
import sys
import traceback
from collections.abc import Mapping
from contextlib import aclosing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from core.errors import ModelBusy, ModelError, ModelFaltered, ModelRefused
from core.llm.client import LiteLLM, ModelSettings, load
from core.llm.providers import PROVIDERS, provider_of
from core.models import ToolRequest
from core.ports import ModelRequest, RoundEnd
from tests.emulators.aimock import aimock
from tests.emulators.raw_provider import Ending, RawProvider, Reply, ToolUse, Usage

ROOT = Path(__file__).parents[2]
CANARY = "sk-canary0123456789"
ROUTES = {
    "openai": "openai/gpt-4o",
    "responses": "openai/responses/gpt-6-sol",
    "anthropic": "anthropic/claude-sonnet-4-6",
    "gemini": "gemini/gemini-2.5-flash",
    "ollama": "ollama_chat/llama3.1",
}
KEYS = {"OPENAI_API_KEY": CANARY, "ANTHROPIC_API_KEY": CANARY, "GEMINI_API_KEY": CANARY}
CREATE_TASK = {
    "type": "function",
    "function": {"name": "create_task", "parameters": {"type": "object", "properties": {"title": {"type": "string"}}}},
}
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:litellm"),
    pytest.mark.filterwarnings("ignore::UserWarning:pydantic"),
]
routes = pytest.mark.parametrize("route", ROUTES)


def _client(api_base: str | None, **settings: Any) -> LiteLLM:
    defaults: dict[str, Any] = {"first_token_seconds": 10.0, "idle_seconds": 10.0}
    return LiteLLM(ModelSettings(temperature=0.7, max_tokens=100, api_base=api_base, **defaults | settings), KEYS)


def _request(route: str, said: str = f"hello {CANARY}", **options: Any) -> ModelRequest:
    return ModelRequest(model=ROUTES.get(route, route), messages=[{"role": "user", "content": said}], tools=[CREATE_TASK], **options)


async def _end(client: LiteLLM, request: ModelRequest) -> RoundEnd:
    async with asyncio.timeout(20):
        items = [item async for item in client.stream(request)]
    assert isinstance(items[-1], RoundEnd)
    return items[-1]


async def _failure(client: LiteLLM, request: ModelRequest) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await _end(client, request)
    return caught.value


async def _failure_of(route: str, reply: Reply, **settings: Any) -> ModelError:
    """How the one request to a provider that answers with `reply` fails. After a 422 litellm's OpenAI route asks again by itself."""
    async with RawProvider(reply) as provider:
        error = await _failure(_client(provider.api_base(route), **settings), _request(route))
        assert len(provider.requests) == (2 if route == "openai" and reply.status == 422 else 1)
    return error


# --- a provider that says no ---------------------------------------------------------------------------------------

OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": f"Overloaded {CANARY}"}}
OUT_OF_CREDIT = {"error": {"message": CANARY, "type": "insufficient_quota", "code": "insufficient_quota"}}
TOO_LONG = {
    "openai": {"message": f"This model's maximum context length is 128000 tokens. {CANARY}", "code": "context_length_exceeded"},
    "responses": {"message": f"Your input exceeds the context window of this model. {CANARY}", "code": "context_length_exceeded"},
    "anthropic": {"message": f"prompt is too long: 201000 tokens > 200000 maximum {CANARY}", "type": "invalid_request_error"},
    "gemini": {"message": f"The input token count (1200000) exceeds the maximum number of tokens allowed (1048576). {CANARY}", "code": 400},
    "ollama": {"message": f"the input length exceeds the context length {CANARY}"},
}
POLICY = {
    "openai": {"message": f"Your request was rejected as a result of our safety system. {CANARY}", "code": "content_policy_violation"},
    "responses": {"message": f"Invalid prompt: violating our usage policy {CANARY}", "code": "invalid_prompt"},
    "anthropic": {"message": f"Output blocked by content filtering policy {CANARY}", "type": "invalid_request_error"},
    "gemini": {"message": f"The response was blocked by safety settings {CANARY}", "code": 400},
    "ollama": {"message": f"rejected by content filter {CANARY}"},
}


def _no(status: int, error: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status=status, error=error or {"error": {"message": CANARY, "type": "some_error"}}, headers=headers or {})


@routes
@pytest.mark.parametrize(
    ("reply", "kind", "reason", "retry_after"),
    [
        (_no(429, headers={"retry-after": "7"}), ModelBusy, "RATE_LIMITED", 7.0),
        (_no(429), ModelBusy, "RATE_LIMITED", None),
        (_no(429, OUT_OF_CREDIT), ModelRefused, "OUT_OF_CREDIT", None),
        (_no(503, headers={"retry-after": "3"}), ModelBusy, "UNAVAILABLE", 3.0),
        (_no(529, OVERLOADED), ModelBusy, "UNAVAILABLE", None),
        (_no(500), ModelFaltered, "SERVER_ERROR", None),
        (_no(502), ModelFaltered, "SERVER_ERROR", None),
        (_no(408), ModelFaltered, "TIMEOUT", None),
        (_no(401), ModelRefused, "KEY_REJECTED", None),
        (_no(403), ModelRefused, "KEY_REJECTED", None),
        (_no(402), ModelRefused, "OUT_OF_CREDIT", None),
        (_no(404), ModelRefused, "MODEL_UNKNOWN", None),
        (_no(400), ModelRefused, "BAD_REQUEST", None),
        (_no(422), ModelRefused, "BAD_REQUEST", None),
        (Reply(disconnect=True), ModelFaltered, "DISCONNECTED", None),
    ],
    ids=lambda value: f"{value.status}" if isinstance(value, Reply) else None,
)
async def test_a_refused_call_is_told_apart(route: str, reply: Reply, kind: type, reason: str, retry_after: float | None) -> None:
    error = await _failure_of(route, reply)

    assert (type(error), error.reason, error.retry_after) == (kind, reason, retry_after)


@routes
async def test_a_conversation_that_is_too_long_is_recognised_in_each_vendors_words(route: str) -> None:
    error = await _failure_of(route, _no(400, {"error": TOO_LONG[route]}))

    assert (type(error), error.reason) == (ModelRefused, "CONTEXT_TOO_LONG")


@routes
async def test_a_content_policy_is_recognised_in_each_vendors_words(route: str) -> None:
    error = await _failure_of(route, _no(400, {"error": POLICY[route]}))

    assert (type(error), error.reason) == (ModelRefused, "CONTENT_POLICY")


@routes
async def test_a_refused_connection_pauses_the_model(route: str) -> None:
    async with RawProvider() as provider:
        gone = provider.api_base(route)

    error = await _failure(_client(gone), _request(route))

    assert (type(error), error.reason) == (ModelBusy, "UNAVAILABLE")


@pytest.mark.parametrize(("model", "variable"), [("openai/gpt-4o", "OPENAI_API_KEY"), ("claude-sonnet-4-6", "ANTHROPIC_API_KEY")])
async def test_a_missing_key_is_named_before_anything_is_sent(model: str, variable: str) -> None:
    client = LiteLLM(ModelSettings(temperature=0.7, max_tokens=100, api_base=None), {})

    error = await _failure(client, _request(model))

    assert (type(error), error.reason) == (ModelRefused, "KEY_MISSING")
    assert variable in str(error)


async def test_an_address_of_ones_own_needs_no_key() -> None:
    async with RawProvider() as provider:
        client = LiteLLM(ModelSettings(temperature=0.7, max_tokens=100, api_base=provider.api_base("openai")), {})

        assert (await _end(client, _request("openai"))).text == "Hello there."


# --- a stream that breaks ------------------------------------------------------------------------------------------

CUT = ToolUse(name="create_task", fragments=('{"title": "tru',))


@routes
@pytest.mark.parametrize(
    ("reply", "reasons"),
    [
        (Reply(ending=Ending.CLEAN_EOF), {"STREAM_CUT"}),
        (Reply(ending=Ending.DONE_WITHOUT_FINISH), {"STREAM_CUT"}),
        (Reply(text=(), ending=Ending.DONE_WITHOUT_FINISH), {"STREAM_CUT"}),
        (Reply(text=(), ending=Ending.CLEAN_EOF), {"STREAM_CUT"}),
        (Reply(ending=Ending.DISCONNECT), {"DISCONNECTED"}),
        (Reply(ending=Ending.ERROR_OBJECT), {"SERVER_ERROR", "UNAVAILABLE"}),
        (Reply(ending=Ending.BROKEN_JSON), {"REPLY_MALFORMED", "STREAM_CUT"}),
        (Reply(text=()), {"EMPTY_REPLY"}),
        (Reply(text=(" ", "\n")), {"EMPTY_REPLY"}),
    ],
    ids=["eof", "no finish reason", "only done", "nothing", "disconnect", "error object", "broken json", "no text", "only blanks"],
)
async def test_a_stream_that_breaks_is_no_answer_and_may_be_tried_again(route: str, reply: Reply, reasons: set[str]) -> None:
    error = await _failure_of(route, reply)

    assert isinstance(error, ModelFaltered | ModelBusy)
    assert error.reason in reasons


@pytest.mark.parametrize("route", ["openai", "responses", "anthropic"])
async def test_a_tool_call_cut_by_the_length_limit_is_never_passed_on(route: str) -> None:
    error = await _failure_of(route, Reply(text=("I will",), tools=(CUT,), finish="length"))

    assert (type(error), error.reason) == (ModelRefused, "REPLY_TOO_LONG")
    assert "ONETHREAD_MAX_TOKENS" in str(error)


@routes
async def test_a_limit_that_leaves_no_text_is_said(route: str) -> None:
    error = await _failure_of(route, Reply(text=(), finish="length"))

    assert (type(error), error.reason) == (ModelRefused, "REPLY_TOO_LONG")


@routes
async def test_text_cut_by_the_length_limit_is_an_answer(route: str) -> None:
    async with RawProvider(Reply(finish="length")) as provider:
        end = await _end(_client(provider.api_base(route)), _request(route))

    assert (end.text, end.finish_reason) == ("Hello there.", "length")


@pytest.mark.parametrize("route", ["openai", "responses", "anthropic", "gemini"])
async def test_a_reply_that_was_filtered_away_is_refused(route: str) -> None:
    error = await _failure_of(route, Reply(text=(), finish="content_filter"))

    assert (type(error), error.reason) == (ModelRefused, "CONTENT_POLICY")


@pytest.mark.parametrize("route", ["openai", "responses", "anthropic"])
async def test_arguments_that_are_no_json_are_passed_on_as_they_came(route: str) -> None:
    async with RawProvider(Reply(text=(), tools=(CUT,), finish="tool_calls")) as provider:
        end = await _end(_client(provider.api_base(route)), _request(route))

    [asked] = end.tool_requests
    assert asked == ToolRequest(call_id=asked.call_id, name="create_task", arguments='{"title": "tru')


@routes
async def test_parallel_tool_calls_are_kept_apart(route: str) -> None:
    tools = tuple(ToolUse(name="create_task", fragments=(f'{{"title": "{n}"}}',), call_id=f"call_{n}") for n in (1, 2, 3))
    async with RawProvider(Reply(text=(), tools=tools, finish="tool_calls")) as provider:
        end = await _end(_client(provider.api_base(route)), _request(route))

    assert [json.loads(one.arguments) for one in end.tool_requests] == [{"title": "1"}, {"title": "2"}, {"title": "3"}]


# --- time ----------------------------------------------------------------------------------------------------------


@routes
@pytest.mark.parametrize("text", [(), ("Hello",)], ids=["before the first token", "between tokens"])
async def test_silence_ends_the_call_and_the_connection(route: str, text: tuple[str, ...]) -> None:
    async with RawProvider(Reply(text=text, ending=Ending.STALL)) as provider:
        client = _client(provider.api_base(route), first_token_seconds=0.5 if not text else 10.0, idle_seconds=0.2)
        error = await _failure(client, _request(route))
        async with asyncio.timeout(5):
            await provider.hung_up.wait()

    assert (type(error), error.reason) == (ModelFaltered, "TIMEOUT")


@routes
async def test_a_slow_stream_that_goes_on_is_not_cut(route: str) -> None:
    async with RawProvider(Reply(text=("a",) * 20, gap_seconds=0.05)) as provider:
        end = await _end(_client(provider.api_base(route), first_token_seconds=5.0, idle_seconds=0.7), _request(route))

    assert end.text == "a" * 20


@routes
async def test_cancelling_closes_the_connection_at_once(route: str) -> None:
    async with RawProvider(Reply(text=itertools.repeat("drip "), gap_seconds=0.01)) as provider:
        begun = asyncio.Event()

        async def consume() -> None:
            async for _ in _client(provider.api_base(route)).stream(_request(route)):
                begun.set()

        task = asyncio.create_task(consume())
        async with asyncio.timeout(10):
            await begun.wait()
            task.cancel()
            await provider.hung_up.wait()
        with pytest.raises(asyncio.CancelledError):
            await task


@routes
async def test_closing_the_iterator_closes_the_connection(route: str) -> None:
    async with RawProvider(Reply(text=itertools.repeat("drip "), gap_seconds=0.01)) as provider, asyncio.timeout(10):
        async with aclosing(_client(provider.api_base(route)).stream(_request(route))) as stream:
            await anext(stream)
        await provider.hung_up.wait()


async def test_a_chunk_of_openai_makes_no_task_of_its_own() -> None:
    begun: list[str] = []

    def noted(loop: asyncio.AbstractEventLoop, coroutine: Any, **context: Any) -> asyncio.Task[Any]:
        begun.append(repr(coroutine))
        return asyncio.Task(coroutine, loop=loop, **context)

    text = tuple(f"{number} " for number in range(200))
    async with RawProvider(Reply(text=text)) as provider:
        client = _client(provider.api_base("openai"))
        await _end(client, _request("openai"))
        asyncio.get_running_loop().set_task_factory(noted)
        end = await _end(client, _request("openai"))

    assert end.text == "".join(text)
    assert len(begun) < 50, begun[-5:]


async def test_an_answer_may_repeat_itself() -> None:
    async with RawProvider(Reply(text=("----",) * 200)) as provider:
        assert (await _end(_client(provider.api_base("openai")), _request("openai"))).text == "----" * 200


# --- what is sent, and what comes back -----------------------------------------------------------------------------


async def test_limits_and_cache_marks_are_sent_to_anthropic() -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
    async with RawProvider() as provider:
        await _end(_client(provider.url), ModelRequest(model=ROUTES["anthropic"], messages=messages, tools=[CREATE_TASK]))
        [body] = provider.requests

    assert (body["max_tokens"], body["temperature"], body["stream"]) == (100, 0.7, True)
    assert body["system"][-1]["cache_control"] == {"type": "ephemeral"}
    assert body["messages"][-1]["content"][-1]["cache_control"] == {"type": "ephemeral"}


async def test_anthropic_is_told_where_the_last_two_turns_end() -> None:
    messages = [{"role": "system", "content": "Be brief."}]
    for number in range(3):
        messages += [{"role": "user", "content": f"question {number}"}, {"role": "assistant", "content": f"answer {number}"}]
    async with RawProvider() as provider:
        await _end(
            _client(provider.url), ModelRequest(model=ROUTES["anthropic"], messages=[*messages, {"role": "user", "content": "go on"}])
        )
        [body] = provider.requests

    marked = [message["content"][-1]["text"] for message in body["messages"] if "cache_control" in json.dumps(message)]
    assert marked == ["answer 1", "answer 2", "go on"]


async def test_a_model_that_refuses_a_temperature_is_sent_none() -> None:
    async with RawProvider() as provider:
        await _end(_client(provider.url), _request("anthropic/claude-sonnet-5-5"))
        [body] = provider.requests

    assert "temperature" not in body


async def test_forbidden_tools_stay_declared_so_that_the_cached_prefix_holds() -> None:
    async with RawProvider() as provider:
        await _end(_client(provider.api_base("openai")), _request("openai", tools_allowed=False))
        [body] = provider.requests

    assert body["tool_choice"] == "none"
    assert body["tools"] == [CREATE_TASK]


@pytest.mark.parametrize(
    ("route", "cost"),
    [("openai", Decimal("0.0032")), ("anthropic", Decimal("0.00210")), ("gemini", Decimal("0.00022"))],
)
async def test_cached_tokens_are_counted_and_priced(route: str, cost: Decimal) -> None:
    async with RawProvider(Reply(usage=Usage(tokens_in=2000, tokens_out=7, tokens_cached=1500))) as provider:
        usage = (await _end(_client(provider.api_base(route)), _request(route))).usage

    assert (usage.tokens_in, usage.tokens_out, usage.tokens_cached, usage.estimated) == (2000, 7, 1500, False)
    assert usage.cost is not None
    assert abs(usage.cost - cost) < Decimal("0.0001")


async def test_tokens_that_the_provider_did_not_report_are_marked_as_estimated() -> None:
    async with RawProvider(Reply(usage=None)) as provider:
        usage = (await _end(_client(provider.api_base("openai")), _request("openai"))).usage

    assert usage.estimated
    assert usage.tokens_in > 0
    assert usage.tokens_out > 0


async def test_an_unknown_price_is_not_zero() -> None:
    async with RawProvider() as provider:
        usage = (await _end(_client(provider.api_base("openai")), _request("openai/of-our-own"))).usage

    assert usage.cost is None


async def test_torn_and_lone_surrogates_become_whole_characters() -> None:
    async with RawProvider(Reply(text=("milk \ud83e", "\udd5b and \ud83e", " nothing\x00"))) as provider:
        end = await _end(_client(provider.api_base("openai")), _request("openai"))

    assert end.text == "milk 🥛 and \ufffd nothing\ufffd"


# --- well-behaved providers, as aimock plays them ------------------------------------------------------------------

USAGE = {"prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 70, "input_tokens": 50, "output_tokens": 20}
FIXTURES: list[dict[str, Any]] = [
    {
        "match": {"userMessage": "buy milk", "hasToolResult": False},
        "response": {"toolCalls": [{"name": "create_task", "arguments": {"title": "Buy milk"}}], "usage": USAGE},
    },
    {"match": {"userMessage": "think"}, "response": {"content": "Forty-two.", "reasoning": "Hm, let me see.", "usage": USAGE}},
    {"match": {}, "response": {"content": "Hello, this is a whole answer in several pieces.", "usage": USAGE}},
]


async def test_every_route_streams_text_and_tool_calls() -> None:
    async with aimock(FIXTURES) as server:
        for route, model in ROUTES.items():
            client = _client(server.api_base(route))
            text = await _end(client, _request(model))
            tool = await _end(client, _request(model, "buy milk"))
            thought = await _end(client, _request(model, "think"))

            assert text.text == "Hello, this is a whole answer in several pieces.", route
            if route != "ollama":  # for which aimock counts no tokens
                assert (text.usage.tokens_in, text.usage.tokens_out, text.usage.estimated) == (50, 20, False), route
            assert tool.finish_reason == "tool_calls", route
            assert [(one.name, json.loads(one.arguments)) for one in tool.tool_requests] == [("create_task", {"title": "Buy milk"})], route
            assert thought.text == "Forty-two.", route
            if route == "anthropic":
                assert [block["thinking"] for block in thought.thinking] == ["Hm, let me see."]
                assert thought.thinking[0]["signature"]
        assert len(await server.journal()) == 3 * len(ROUTES)


# --- secrets -------------------------------------------------------------------------------------------------------


@routes
@pytest.mark.parametrize(
    "reply",
    [
        _no(400),
        _no(401),
        _no(500),
        Reply(ending=Ending.ERROR_OBJECT),
        Reply(text=(CANARY,), ending=Ending.BROKEN_JSON),
        Reply(disconnect=True),
    ],
    ids=["400", "401", "500", "error object", "broken json", "disconnect"],
)
async def test_no_word_of_prompt_key_or_vendor_is_in_an_error_or_a_log(route: str, reply: Reply, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    error = await _failure_of(route, reply)

    seen = "".join([str(error), repr(error), *traceback.format_exception(error), *(str(vars(error))), caplog.text])
    assert CANARY not in seen
    assert error.__cause__ is None
    assert error.__context__ is None


# --- the process ---------------------------------------------------------------------------------------------------


def _python(program: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env={"PATH": "", **environ}, capture_output=True, text=True, timeout=60, check=False
    )


def test_importing_the_client_does_not_load_litellm() -> None:
    ran = _python("import sys, core.llm.client, core.llm.failures, core.llm.demo; print([m for m in sys.modules if 'litellm' in m])")

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "[]\n", "")


_LOADING = """
import asyncio, socket, sys, threading

def refuse(*_, **__):
    raise AssertionError("the network was touched")

socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
from core.llm.client import LiteLLM, ModelSettings, load
from core.llm import demo
from core.ports import ModelRequest
demo.SECONDS_PER_WORD = 0
assert load() is load()
assert threading.active_count() == 1
settings = ModelSettings(temperature=0.7, max_tokens=100, api_base=None, unknown_window_tokens=4321)
model = LiteLLM(settings, {})

def request(name):
    return ModelRequest(model=name, messages=[{"role": "user", "content": "hello"}])

async def main():
    items = [item async for item in model.stream(request("demo/offline"))]
    assert items[-1].text.startswith("I am")
    for name in ("groq/llama-3.3-70b-versatile", "ollama_chat/llama3.1", "claude-sonnet-5-5", "acme/unknown"):
        assert await model.count_tokens(request(name)) > 0
    assert await model.context_window("acme/unknown") == 4321
    assert await model.context_window("ollama_chat/of-our-own") == 4321
    try:
        async for _ in model.stream(request("acme/unknown")):
            pass
    except Exception as error:
        print(error.reason, file=sys.stderr)

asyncio.run(main())
"""


def test_loading_counting_and_the_demo_touch_no_network_and_print_nothing(tmp_path: Path) -> None:
    ran = _python(_LOADING, HOME=str(tmp_path))

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "MODEL_UNKNOWN\n")


def test_a_dotenv_of_the_working_directory_is_not_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ONETHREAD_TEST_TRAP=1\n", encoding="utf-8")
    program = f"import os, sys; sys.path.insert(0, {str(ROOT)!r}); os.chdir({str(tmp_path)!r})\n"

    ran = _python(program + "from core.llm.client import load; load(); print(os.environ.get('ONETHREAD_TEST_TRAP'))")

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "None\n", "")


def test_litellm_logs_through_our_handlers_from_warning_on() -> None:
    load()

    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        logger = logging.getLogger(name)
        assert (logger.handlers, logger.propagate, logger.getEffectiveLevel()) == ([], True, logging.WARNING)


def test_the_default_models_are_known_to_litellm_and_our_reading_of_names_is_its_own() -> None:
    litellm = load()

    for provider_id in ("anthropic", "openai", "gemini"):
        [provider] = [one for one in PROVIDERS if one.id == provider_id]
        entry = litellm.get_model_info(provider.default_model)
        assert entry["supports_function_calling"]
        assert entry["litellm_provider"] == provider_id
    for name in ("gpt-6-sol", "o3-mini", "claude-sonnet-5-5", "ft:gpt-4o:team", *(one.default_model for one in PROVIDERS)):
        ours = provider_of(name)
        assert ours is not None
        assert litellm.get_llm_provider(name)[1].startswith(ours.id), name
