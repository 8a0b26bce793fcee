"""Every language model, through litellm: the one module that imports it, on the first call, and the one that knows its traps."""

import asyncio
import copy
import functools
import gc
import json
import logging
import os
import sys
import threading
import types
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeVar

from core.llm import demo, images
from core.llm.failures import Reason, classify, failure
from core.llm.providers import DEMO_MODEL, Provider, key_of, missing_keys, provider_of, qualified
from core.models import JSON, TokenUsage, ToolRequest
from core.ports import ModelRequest, RoundEnd, TextChunk
from core.text import StreamCleaner, clean

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    temperature: float
    max_tokens: int
    api_base: str | None
    """Where every model but the demo is asked, instead of at its provider."""
    first_token_seconds: float = 30.0
    idle_seconds: float = 30.0
    """Between two pieces of an answer."""
    unknown_window_tokens: int = 8192
    """The context window of a model that litellm does not know."""
    vision_models: tuple[str, ...] = ()
    """Whole ids of those that see images though litellm does not know that."""


class LiteLLM:
    """`core.ports.ChatModel` for all providers that litellm knows, and for `demo/offline`. `environ` holds the providers' keys."""

    def __init__(self, settings: ModelSettings, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._environ = environ

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextChunk | RoundEnd, None]:
        """See `ChatModel.stream`."""
        self._require_key(request.model)
        litellm = await _loaded()
        reply = _Reply(model=request.model)
        deadline = _now() + self._settings.first_token_seconds
        stream = await _by(deadline, _open(litellm, self._arguments(litellm, request)), reply)
        try:
            while (chunk := await _by(deadline, anext(stream, None), reply)) is not None:
                if text := reply.add(chunk):
                    yield TextChunk(text)
                deadline = _now() + self._settings.idle_seconds
            if text := reply.finish():
                yield TextChunk(text)
            yield reply.round_end(litellm, stream)
        finally:
            await _close(stream)

    async def count_tokens(self, request: ModelRequest) -> int:
        """See `ChatModel.count_tokens`."""
        litellm = await _loaded()
        model, tools = qualified(request.model), list(request.tools) or None
        messages = [images.without(message) for message in request.messages]
        text = int(await asyncio.to_thread(litellm.token_counter, model=model, messages=messages, tools=tools))
        return text + images.TOKENS * images.count(request.messages)

    async def context_window(self, model: str) -> int:
        """See `ChatModel.context_window`."""
        entry = _map_entry(await _loaded(), model)
        return int(entry.get("max_input_tokens") or entry.get("max_tokens") or self._settings.unknown_window_tokens)

    async def image_types(self, model: str) -> frozenset[str]:
        """See `ChatModel.image_types`."""
        seen = _map_entry(await _loaded(), model).get("supports_vision") or qualified(model) in self._settings.vision_models
        return _image_types(model) if seen else frozenset()

    def _require_key(self, model: str) -> None:
        missing = () if self._settings.api_base else missing_keys(model, self._environ)
        if missing:
            raise failure(Reason.KEY_MISSING, model, variables=missing)

    def _arguments(self, litellm: Any, request: ModelRequest) -> JSON:
        provider = provider_of(request.model)
        arguments: JSON = {
            "model": qualified(request.model),
            "messages": copy.deepcopy(list(request.messages)),
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": self._settings.max_tokens,
            "drop_params": True,
            "num_retries": 0,
            "max_retries": 0,
            "timeout": max(self._settings.first_token_seconds, self._settings.idle_seconds) + _BACKSTOP_SECONDS,
            "_skip_mcp_handler": True,
        }
        if _map_entry(litellm, request.model).get("supports_sampling_params") is not False:
            arguments["temperature"] = self._settings.temperature
        return arguments | _tools(request, provider) | _caching(request, provider) | self._access(provider)

    def _access(self, provider: Provider | None) -> JSON:
        """The key and the address, from our settings rather than from the process's environment, which litellm would read."""
        if provider is None:
            return {"api_base": self._settings.api_base} if self._settings.api_base else {}
        if provider.default_model == DEMO_MODEL:
            return {}
        access = {name: value for name, variables in _ENVIRONMENT.get(provider.id, {}).items() if (value := self._first(variables))}
        if provider.id not in _KEYLESS and (key := key_of(provider, self._environ)):
            access["api_key"] = key
        if self._settings.api_base:
            access["api_base"] = self._settings.api_base
        if "api_base" in access and provider.id not in _KEYLESS:
            access.setdefault("api_key", _PLACEHOLDER_KEY)
        return access

    def _first(self, variables: tuple[str, ...]) -> str | None:
        return next((value for name in variables if (value := self._environ.get(name, "").strip())), None)


def load() -> Any:
    """litellm, imported once in a process, without network, output or threads; takes seconds. A fork server may call it ahead."""
    with _loading:
        return _litellm()


@functools.cache
def _litellm() -> Any:
    os.environ.update(_LITELLM_ENVIRONMENT)
    gc.disable()
    try:
        import litellm
    finally:
        gc.enable()
    _configure(litellm)
    gc.collect()
    gc.freeze()
    return litellm


_loading = threading.Lock()
_LITELLM_ENVIRONMENT = {
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "true",
}
_LOGGERS = ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy", "httpx")
_BACKSTOP_SECONDS = 5.0
_CLOSE_SECONDS = 5.0
_COST_DIGITS = 10
_PLACEHOLDER_KEY = "none"
_KEYLESS = frozenset({"ollama", "bedrock", "vertex_ai"})
_NO_TOOL_CHOICE = frozenset({"ollama", "demo"})
_ENVIRONMENT: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "openai": {"api_base": ("OPENAI_BASE_URL", "OPENAI_API_BASE")},
    "ollama": {"api_base": ("OLLAMA_API_BASE",)},
    "lm_studio": {"api_base": ("LM_STUDIO_API_BASE",)},
    "hosted_vllm": {"api_base": ("HOSTED_VLLM_API_BASE",)},
    "azure": {"api_base": ("AZURE_API_BASE",), "api_version": ("AZURE_API_VERSION",), "azure_ad_token": ("AZURE_AD_TOKEN",)},
    "bedrock": {
        "aws_access_key_id": ("AWS_ACCESS_KEY_ID",),
        "aws_secret_access_key": ("AWS_SECRET_ACCESS_KEY",),
        "aws_session_token": ("AWS_SESSION_TOKEN",),
        "aws_region_name": ("AWS_REGION_NAME", "AWS_REGION", "AWS_DEFAULT_REGION"),
        "aws_profile_name": ("AWS_PROFILE",),
    },
    "vertex_ai": {
        "vertex_project": ("VERTEXAI_PROJECT",),
        "vertex_location": ("VERTEXAI_LOCATION",),
        "vertex_credentials": ("VERTEXAI_CREDENTIALS", "GOOGLE_APPLICATION_CREDENTIALS"),
    },
}


def _configure(litellm: Any) -> None:
    litellm.suppress_debug_info = True
    litellm.disable_hf_tokenizer_download = True
    litellm.drop_params = True
    litellm.REPEATED_STREAMING_CHUNK_LIMIT = sys.maxsize  # a long line of dashes is an answer, not a fault of the provider
    litellm.telemetry = False
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=UserWarning, module="pydantic")  # of litellm's models; some quote the answer
    _leave_out_the_mcp_gateway()
    _register_demo(litellm)
    _warm_up(litellm)


def _leave_out_the_mcp_gateway() -> None:
    """OpenAI's Responses route imports litellm's gateway to MCP servers at its first call, seconds of it, also when told to skip it."""
    stub: Any = types.ModuleType("litellm.responses.mcp.litellm_proxy_mcp_handler")
    stub.LiteLLM_Proxy_MCP_Handler = type(
        "LiteLLM_Proxy_MCP_Handler", (), {"should_use_litellm_mcp_gateway": staticmethod(lambda tools: False)}
    )
    sys.modules.setdefault(stub.__name__, stub)


def _warm_up(litellm: Any) -> None:
    """What the first call would otherwise import and read, with the event loop standing still."""
    litellm.token_counter(model="gpt-4o", text="warm")
    litellm.utils.get_optional_params(model="gpt-4o", custom_llm_provider="openai", temperature=0.5, max_tokens=1)
    litellm.get_llm_provider(DEMO_MODEL)


def _register_demo(litellm: Any) -> None:
    class Demo(litellm.CustomLLM):  # type: ignore[misc]
        async def astreaming(self, *_: Any, **call: Any) -> AsyncIterator[JSON]:
            messages = call["messages"]
            answer = demo.answer(messages, call["optional_params"].get("tools") or ())
            for word in demo.words(answer.text):
                await asyncio.sleep(demo.SECONDS_PER_WORD)
                yield _demo_chunk(text=word)
            for index, tool_call in enumerate(answer.calls):
                yield _demo_chunk(tool_use=_demo_tool_use(index, tool_call))
            yield _demo_chunk(finish_reason="tool_calls" if answer.calls else "stop", usage=_demo_usage(messages, answer))

    litellm.custom_provider_map = [{"provider": "demo", "custom_handler": Demo()}]
    litellm.utils.custom_llm_setup()
    free = ("input_cost_per_token", "output_cost_per_token", "cache_read_input_token_cost", "cache_creation_input_token_cost")
    entry = {"litellm_provider": "demo", "mode": "chat", "max_input_tokens": 128_000, "max_output_tokens": 32_000}
    litellm.register_model({DEMO_MODEL: entry | dict.fromkeys(free, 0.0)})


def _demo_chunk(*, text: str = "", tool_use: JSON | None = None, finish_reason: str = "", usage: JSON | None = None) -> JSON:
    return {
        "text": text,
        "tool_use": tool_use,
        "is_finished": bool(finish_reason),
        "finish_reason": finish_reason,
        "usage": usage,
        "index": 0,
    }


def _demo_tool_use(index: int, call: demo.Call) -> JSON:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    return {"id": f"demo_{index}", "type": "function", "index": index, "function": {"name": call.name, "arguments": arguments}}


def _demo_usage(messages: Any, answer: demo.Answer) -> JSON:
    """A word counts as a token."""
    tokens_in = sum(len(str(message.get("content") or "").split()) for message in messages)
    tokens_out = len(answer.text.split()) + sum(1 + len(call.arguments) for call in answer.calls)
    return {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out}


async def _loaded() -> Any:
    return _litellm() if _litellm.cache_info().currsize else await asyncio.to_thread(load)


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _open(litellm: Any, arguments: JSON) -> Any:
    """The stream; its `tap` is what it lacks to tell a whole answer of Gemini from a cut one."""
    stream = await litellm.acompletion(**arguments)
    if stream is None:  # so it ends after a 422 of an OpenAI-like provider, which it asks twice
        raise failure(Reason.BAD_REQUEST, arguments["model"])
    try:
        if str(arguments["model"]).startswith(("gemini/", "vertex_ai/")):
            await stream.fetch_stream()
            stream.tap = _GeminiTap.on(stream.completion_stream)
        if type(stream.completion_stream).__name__ == "AsyncStream":
            stream.completion_stream = _Begun(stream.completion_stream)
    except BaseException:
        await _close(stream)
        raise
    return stream


async def _by(deadline: float, awaitable: Awaitable[_T], reply: "_Reply") -> _T:
    """What `awaitable` gives before `deadline`; whatever it raises becomes a ModelError that remembers nothing of the vendor's."""
    try:
        async with asyncio.timeout_at(deadline):
            return await awaitable
    except Exception as exc:  # noqa: BLE001  whatever a vendor raises is told apart by classify
        failed = classify(exc, reply.model, begun=reply.begun)
    raise failed


async def _close(stream: Any) -> None:
    """Ends the connection, which a stream that is merely dropped keeps until the process ends."""
    with suppress(Exception):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await stream.aclose()


def _tools(request: ModelRequest, provider: Provider | None) -> JSON:
    if not request.tools:
        return {}
    if request.tools_allowed:
        return {"tools": copy.deepcopy(list(request.tools))}
    if provider is not None and provider.id in _NO_TOOL_CHOICE:
        return {}
    return {"tools": copy.deepcopy(list(request.tools)), "tool_choice": "none"}


def _caching(request: ModelRequest, provider: Provider | None) -> JSON:
    """Anthropic caches only what is marked, at four places at most: the system text, the ends of the last two turns, the last message.

    A turn's newest message changes when the next one begins, so what lies behind it is not found again; the end of the turn before is.
    It is marked twice, in two turns: Anthropic looks back from a mark over 20 blocks only, and a turn may have more.
    """
    if provider is None or provider.id != "anthropic":
        return {}
    asked = [index for index, message in enumerate(request.messages) if message["role"] == "user"]
    places = {index - 1 for index in asked[-2:]} | {len(request.messages) - 1}
    marks: list[JSON] = [{"location": "message", "index": index} for index in sorted(places) if index > 0]
    return {"cache_control_injection_points": [{"location": "message", "role": "system"}, *marks]}


def _image_types(model: str) -> frozenset[str]:
    """Some that see refuse a type: Gemini GIF, xAI all but PNG and JPEG."""
    provider = provider_of(model)
    if provider is not None and provider.id == "xai":
        return frozenset({images.PNG, images.JPEG})
    return images.TYPES - {images.GIF} if "gemini" in qualified(model) else images.TYPES


def _map_entry(litellm: Any, model: str) -> Mapping[str, Any]:
    """What litellm's bundled map says of `model`. Its own look-up is not used: it asks a local Ollama over the network."""
    full = qualified(model)
    _, _, bare = full.partition("/")
    provider = provider_of(model)
    candidates = [full, f"{provider.id}/{bare}" if provider else full, bare]
    entries: Mapping[str, Mapping[str, Any]] = litellm.model_cost
    return next((entry for name in candidates if (entry := entries.get(name)) and _serves(entry, provider, name)), {})


def _serves(entry: Mapping[str, Any], provider: Provider | None, name: str) -> bool:
    """A name without a prefix may be another provider's model of the same name, at another price."""
    owner = str(entry.get("litellm_provider", ""))
    return "/" in name or provider is None or owner.startswith(provider.id)


@dataclass(frozen=True, slots=True)
class _Begun:
    """OpenAI's stream as an iterator of its own. litellm begins an `async for` for every chunk, for which OpenAI's makes a generator each
    time, and asyncio a task to end it: an eighth of what a chunk costs.
    """

    stream: Any

    def __aiter__(self) -> "_Begun":
        return self

    async def __anext__(self) -> Any:
        return await anext(self.stream)

    async def close(self) -> None:
        await self.stream.close()


@dataclass(slots=True)
class _Call:
    call_id: str
    name: str = ""
    arguments: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _GeminiTap:
    """Reads along what Gemini sends: litellm gives each of its chunks the finish reason "stop", so that a cut answer looks whole."""

    parse: Callable[[JSON], Any]
    finish: str | None = None

    @classmethod
    def on(cls, iterator: Any) -> "_GeminiTap | None":
        """None for another vendor's stream, for example Claude's on Vertex AI."""
        if not type(iterator).__module__.endswith("gemini"):
            return None
        tap = cls(iterator.chunk_parser)
        iterator.chunk_parser = tap.read
        return tap

    def read(self, chunk: JSON) -> Any:
        for candidate in chunk.get("candidates") or ():
            self.finish = candidate.get("finishReason") or self.finish
        if (chunk.get("promptFeedback") or {}).get("blockReason"):
            self.finish = "safety"
        return self.parse(chunk)


@dataclass(slots=True)
class _Reply:
    """A reply as its chunks come in."""

    model: str
    begun: bool = False
    """Whether the provider has sent something of the answer."""
    _text: list[str] = field(default_factory=list)
    _cleaner: StreamCleaner = field(default_factory=StreamCleaner)
    _calls: list[_Call] = field(default_factory=list)
    _open_calls: dict[int, _Call] = field(default_factory=dict)
    _thinking: list[JSON] = field(default_factory=list)
    _usage: Any = None

    def add(self, chunk: Any) -> str:
        """Takes `chunk` in, in the formats of litellm 1.106 and 1.109; returns the text that can be shown."""
        self._usage = getattr(chunk, "usage", None) or self._usage
        if not chunk.choices:
            return ""
        delta = chunk.choices[0].delta
        self.begun = True
        for block in getattr(delta, "thinking_blocks", None) or ():
            self._think(dict(block))
        for fragment in getattr(delta, "tool_calls", None) or ():
            self._call(fragment)
        return self._show(self._cleaner.feed(delta.content or ""))

    def finish(self) -> str:
        return self._show(self._cleaner.finish())

    def round_end(self, litellm: Any, stream: Any) -> RoundEnd:
        """The whole of a stream that has ended; raises ModelError if it did not end as an answer should."""
        text = "".join(self._text)
        finish = _finish_reason(stream, self.model)
        self._check(finish, text)
        requests = () if finish == "content_filter" else tuple(self._requests())
        return RoundEnd(
            text=text,
            tool_requests=requests,
            finish_reason="tool_calls" if requests else "stop" if finish == "tool_calls" else finish,
            usage=self._tokens(litellm, stream),
            thinking=tuple(self._thinking),
        )

    def _show(self, text: str) -> str:
        if text:
            self._text.append(text)
        return text

    def _think(self, block: JSON) -> None:
        """Thinking comes in pieces, of which the last bears the signature."""
        last = self._thinking[-1] if self._thinking else None
        if block.get("type") != "thinking" or last is None or last.get("type") != "thinking" or last.get("signature"):
            self._thinking.append(block)
            return
        last["thinking"] = (last.get("thinking") or "") + (block.get("thinking") or "")
        if block.get("signature"):
            last["signature"] = block["signature"]

    def _call(self, fragment: Any) -> None:
        index, call_id = fragment.index or 0, fragment.id or ""
        call = self._open_calls.get(index)
        if call is None or (call_id and call.call_id and call_id != call.call_id):
            call = self._open_calls[index] = _Call(call_id)
            self._calls.append(call)
        call.call_id = call.call_id or call_id
        call.name = call.name or fragment.function.name or ""
        call.arguments.append(_argument_text(fragment.function.arguments))

    def _requests(self) -> Iterator[ToolRequest]:
        for position, call in enumerate(self._calls):
            yield ToolRequest(
                call_id=call.call_id or f"call_{position}", name=clean(call.name), arguments=clean("".join(call.arguments)) or "{}"
            )

    def _check(self, finish: str, text: str) -> None:
        if finish == "length" and (self._calls or not text):
            raise failure(Reason.REPLY_TOO_LONG, self.model)
        if finish == "content_filter" and not text:
            raise failure(Reason.CONTENT_POLICY, self.model)
        if not text.strip() and not self._calls:
            raise failure(Reason.EMPTY_REPLY, self.model)

    def _tokens(self, litellm: Any, stream: Any) -> TokenUsage:
        usage = self._usage
        details = getattr(usage, "prompt_tokens_details", None)
        tokens_in = getattr(usage, "prompt_tokens", 0) or 0
        return TokenUsage(
            tokens_in=tokens_in,
            tokens_out=getattr(usage, "completion_tokens", 0) or 0,
            tokens_cached=getattr(details, "cached_tokens", 0) or 0,
            cost=_cost(litellm, self.model, usage),
            estimated=tokens_in == 0 or not _reported(stream),
        )


_BROKEN_FINISHES = frozenset(
    {
        "error",
        "network_error",
        "insufficient_system_resource",
        "malformed_function_call",
        "unexpected_tool_call",
        "missing_thought_signature",
        "other",
    }
)
_FINISHES = {
    "length": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
    "safety": "content_filter",
    "refusal": "content_filter",
    "recitation": "content_filter",
    "blocklist": "content_filter",
    "prohibited_content": "content_filter",
    "spii": "content_filter",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
}


def _finish_reason(stream: Any, model: str) -> str:
    """Why the provider ended the stream. litellm ends one that was cut off with an invented "stop", so it is asked what it received."""
    tap = getattr(stream, "tap", None)
    received = tap.finish if tap else stream.received_finish_reason or stream.intermittent_finish_reason
    if not received:
        raise failure(Reason.STREAM_CUT, model)
    name = str(received).lower()
    if name in _BROKEN_FINISHES:
        raise failure(Reason.REPLY_MALFORMED, model)
    return _FINISHES.get(name, "stop")


def _argument_text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else "" if arguments is None else json.dumps(arguments, ensure_ascii=False)


def _reported(stream: Any) -> bool:
    """Whether the provider counted the tokens. Where it did not, litellm counts them silently, after the last chunk that it kept."""
    usages = (getattr(chunk, "usage", None) for chunk in getattr(stream, "chunks", ()))
    return any(usage is not None and type(usage).__name__ != "UnreportedUsage" for usage in usages)


def _cost(litellm: Any, model: str, usage: Any) -> Decimal | None:
    """US dollars; None where neither the provider nor litellm's map knows the price, for which litellm says 0."""
    entry = _map_entry(litellm, model)
    reported = getattr(usage, "cost", None)
    if isinstance(reported, int | float) and reported > 0:
        return Decimal(str(round(reported, _COST_DIGITS)))
    prices = (entry.get("input_cost_per_token"), entry.get("output_cost_per_token"))
    if usage is None or None in prices:
        return None
    if prices == (0, 0):
        return Decimal(0)
    with suppress(Exception):
        return Decimal(str(round(sum(litellm.cost_per_token(model=qualified(model), usage_object=usage)), _COST_DIGITS)))
    return None
