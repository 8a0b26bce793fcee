"""What `core.ports.ChatModel` promises, kept by litellm's four main routes over a stand-in provider, and by the offline demo."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from decimal import Decimal

import pytest

from core.errors import ModelError, ModelRefused
from core.llm import demo
from core.llm.client import LiteLLM, ModelSettings
from core.models import JSON, ToolRequest
from core.ports import ChatModel, ModelRequest, RoundEnd, TextChunk
from tests.emulators.raw_provider import RawProvider, Reply, ToolUse, Usage

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning:litellm"), pytest.mark.filterwarnings("ignore::UserWarning:pydantic")]
CREATE_TASK = {
    "type": "function",
    "function": {
        "name": "create_task",
        "description": "Creates a task.",
        "parameters": {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]},
    },
}
ROUTES = {
    "openai": "openai/gpt-4o",
    "anthropic": "anthropic/claude-sonnet-4-6",
    "gemini": "gemini/gemini-2.5-flash",
    "ollama": "ollama_chat/llama3.1",
    "demo": "demo/offline",
}


@pytest.fixture(params=ROUTES)
async def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator["Subject"]:
    monkeypatch.setattr(demo, "SECONDS_PER_WORD", 0.0)
    async with RawProvider(script=_script) as provider:
        settings = ModelSettings(temperature=0.7, max_tokens=100, api_base=provider.api_base(request.param))
        yield Subject(LiteLLM(settings, {}), ROUTES[request.param])


class Subject:
    """A ChatModel, and the name under which it is asked."""

    def __init__(self, model: ChatModel, name: str) -> None:
        self.model, self.name = model, name

    def request(self, said: str, *, tools_allowed: bool = True) -> ModelRequest:
        messages: list[JSON] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": said}]
        return ModelRequest(model=self.name, messages=messages, tools=[CREATE_TASK], tools_allowed=tools_allowed)

    async def collect(self, request: ModelRequest) -> tuple[list[str], RoundEnd]:
        items = [item async for item in self.model.stream(request)]
        end = items.pop()
        assert isinstance(end, RoundEnd)
        return [item.text for item in items if isinstance(item, TextChunk)], end


def _script(body: JSON, _: int) -> Reply:
    """As the demo would: a task is created when one is asked for."""
    said = str(body)
    if "create a task to buy milk" in said and "tools" in body:
        return Reply(text=(), tools=(ToolUse(name="create_task", fragments=('{"title": "Buy', ' milk"}')),), finish="tool_calls")
    return Reply(text=("Hel", "lo 🥛", "!"), usage=Usage(tokens_in=12, tokens_out=3))


async def test_text_comes_in_pieces_and_then_as_a_whole(model: Subject) -> None:
    pieces, end = await model.collect(model.request("hello"))

    assert len(pieces) > 1
    assert "".join(pieces) == end.text
    assert end.finish_reason == "stop"
    assert end.tool_requests == ()


async def test_a_tool_call_comes_with_the_end(model: Subject) -> None:
    pieces, end = await model.collect(model.request("create a task to buy milk"))

    assert pieces == []
    assert end.finish_reason == "tool_calls"
    [asked] = end.tool_requests
    assert asked == ToolRequest(call_id=asked.call_id, name="create_task", arguments='{"title": "Buy milk"}')
    assert asked.call_id


async def test_tools_that_are_not_allowed_are_not_called(model: Subject) -> None:
    if model.name.startswith(("openai", "anthropic", "gemini")):
        pytest.skip("these are told so by tool_choice, which is the provider's to obey")

    _, end = await model.collect(model.request("create a task to buy milk", tools_allowed=False))

    assert end.tool_requests == ()


async def test_usage_is_counted_and_priced_or_said_to_be_unknown(model: Subject) -> None:
    _, end = await model.collect(model.request("hello"))

    assert end.usage.tokens_in > 0
    assert end.usage.tokens_out > 0
    assert not end.usage.estimated
    assert (end.usage.cost == Decimal(0)) == model.name.startswith(("demo", "ollama"))


async def test_a_stream_can_be_closed_half_way(model: Subject) -> None:
    async with aclosing(model.model.stream(model.request("hello"))) as stream:
        first = await anext(stream)

    assert isinstance(first, TextChunk)


async def test_the_request_is_left_as_it_was(model: Subject) -> None:
    request = model.request("hello")

    await model.collect(request)

    assert request == model.request("hello")


async def test_tokens_are_counted_and_the_window_is_known(model: Subject) -> None:
    short = await model.model.count_tokens(model.request("hello"))
    long = await model.model.count_tokens(model.request("hello " * 500))

    assert 0 < short < long
    assert await model.model.context_window(model.name) > long


async def test_a_model_of_nobody_is_refused() -> None:
    nobody = LiteLLM(ModelSettings(temperature=0.7, max_tokens=100, api_base=None), {})

    with pytest.raises(ModelRefused) as caught:
        await anext(nobody.stream(ModelRequest(model="acme/gpt-4o", messages=[{"role": "user", "content": "hi"}])))

    assert isinstance(caught.value, ModelError)
    assert caught.value.reason == "MODEL_UNKNOWN"
