"""A provider of language models whose streams can be broken in every way that real ones break, in five vendors' formats.

async with RawProvider(Reply(text=("Hel", "lo"), ending=Ending.CLEAN_EOF)) as provider:
    ...  # api_base=provider.api_base("openai"); afterwards provider.requests holds the bodies
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self

JSON = dict[str, Any]


class Ending(StrEnum):
    """How a stream stops. All but COMPLETE leave out the finish reason."""

    COMPLETE = "complete"
    CLEAN_EOF = "the connection ends as if all were said"
    DONE_WITHOUT_FINISH = "[DONE] without a finish reason"
    ERROR_OBJECT = "an error object in the middle of the stream"
    BROKEN_JSON = "a line that is no JSON"
    DISCONNECT = "the connection breaks"
    STALL = "silence until the client hangs up"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    name: str
    fragments: tuple[str, ...]
    """The arguments' JSON text, in the pieces in which it is sent."""
    call_id: str = "call_1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    tokens_in: int = 10
    """Cached ones included."""
    tokens_out: int = 5
    tokens_cached: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer. With `disconnect` nothing is sent at all; with a `status` of 400 or more only `error`."""

    text: Iterable[str] = ("Hello", " there.")
    tools: tuple[ToolUse, ...] = ()
    finish: str = "stop"
    """`stop`, `tool_calls`, `length` or `content_filter`; each format has its own words for them."""
    usage: Usage | None = field(default_factory=Usage)
    ending: Ending = Ending.COMPLETE
    gap_seconds: float = 0.0
    """Before each piece of the stream, the first included."""
    disconnect: bool = False
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    error: JSON = field(default_factory=dict)


Script = Callable[[JSON, int], Reply]
"""What to answer to a request's body, which is the n-th (from 0)."""


class RawProvider:
    """Answers the n-th request with the n-th reply, the last of them for ever; or as a script says."""

    def __init__(self, *replies: Reply, script: Script | None = None) -> None:
        given = replies or (Reply(),)
        self._script = script or (lambda _, n: given[min(n, len(given) - 1)])
        self._connections: set[asyncio.Task[None]] = set()
        self.requests: list[JSON] = []
        self.hung_up = asyncio.Event()
        """Set when a client closed its connection before its answer was complete."""
        self.url = ""

    def api_base(self, provider: str) -> str:
        """The address as litellm wants it for `provider`."""
        return self.url + {"openai": "/v1", "responses": "/v1", "gemini": "/v1beta"}.get(provider, "")

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    @asynccontextmanager
    async def refusing(self) -> AsyncIterator[None]:
        """While the block runs nobody can connect. Who is being answered is answered to the end."""
        port = self._server.sockets[0].getsockname()[1]
        self._server.close()
        yield
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):  # cancelled only by __aexit__
                await self._serve(reader, writer)
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path, body = await _read_request(reader)
        self.requests.append(body)
        reply = self._script(body, len(self.requests) - 1)
        if reply.disconnect:
            writer.transport.abort()
            return
        answering = asyncio.ensure_future(_answer(writer, _format(path, body), reply))
        watching = asyncio.ensure_future(reader.read())
        try:
            await asyncio.wait({answering, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done() or isinstance(answering.exception(), ConnectionError):
                self.hung_up.set()
        finally:
            answering.cancel()
            watching.cancel()
            await asyncio.gather(answering, watching, return_exceptions=True)


async def _read_request(reader: asyncio.StreamReader) -> tuple[str, JSON]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    lines = head.split("\r\n")
    lengths = [int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length:")]
    body = json.loads(await reader.readexactly(lengths[0])) if lengths and lengths[0] else {}
    return lines[0].split()[1], body


async def _answer(writer: asyncio.StreamWriter, form: "_Format", reply: Reply) -> None:
    if reply.status >= 400:
        await _send_error(writer, reply)
        return
    writer.write(_head(200, {"content-type": form.content_type, "transfer-encoding": "chunked"}))
    async for frame in _frames(form, reply):
        writer.write(b"%x\r\n%b\r\n" % (len(frame), frame))
        await writer.drain()
    if reply.ending is Ending.STALL:
        await asyncio.Event().wait()
    if reply.ending is Ending.DISCONNECT:
        writer.close()
        return
    writer.write(b"0\r\n\r\n")
    await writer.drain()


async def _send_error(writer: asyncio.StreamWriter, reply: Reply) -> None:
    body = json.dumps(reply.error).encode()
    writer.write(_head(reply.status, {"content-type": "application/json", "content-length": str(len(body)), **reply.headers}) + body)
    await writer.drain()


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} X", "connection: close", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _frames(form: "_Format", reply: Reply) -> AsyncIterator[bytes]:
    for frame in _body(form, reply):
        await asyncio.sleep(reply.gap_seconds)
        yield frame


def _body(form: "_Format", reply: Reply) -> Iterator[bytes]:
    yield from form.start()
    for piece in reply.text:
        yield form.text(piece)
    for index, tool in enumerate(reply.tools):
        yield from form.tool(index, tool)
    match reply.ending:
        case Ending.COMPLETE:
            yield from form.finish(reply.finish, reply.usage)
            yield from form.done()
        case Ending.DONE_WITHOUT_FINISH:
            yield from form.done()
        case Ending.ERROR_OBJECT:
            yield form.error()
        case Ending.BROKEN_JSON:
            yield form.broken()
        case _:
            return


class _Format(Protocol):
    """One vendor's way to write a stream."""

    content_type: str

    def start(self) -> Iterator[bytes]: ...
    def text(self, piece: str) -> bytes: ...
    def tool(self, index: int, tool: ToolUse) -> Iterator[bytes]: ...
    def finish(self, reason: str, usage: Usage | None) -> Iterator[bytes]: ...
    def done(self) -> Iterator[bytes]: ...
    def error(self) -> bytes: ...
    def broken(self) -> bytes: ...


def _format(path: str, body: JSON) -> _Format:
    if path.endswith("/messages"):
        return _Anthropic()
    if "generateContent" in path or "GenerateContent" in path:
        return _Gemini()
    if path.endswith("/responses"):
        return _Responses()
    return _Ollama() if path.endswith("/api/chat") else _OpenAI(str(body.get("model")))


def _event(value: JSON, name: str | None = None) -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(value).encode() + b"\n\n"


class _OpenAI:
    content_type = "text/event-stream"

    def __init__(self, model: str) -> None:
        self._model = model

    def start(self) -> Iterator[bytes]:
        yield self._chunk({"role": "assistant", "content": ""})

    def text(self, piece: str) -> bytes:
        return self._chunk({"content": piece})

    def tool(self, index: int, tool: ToolUse) -> Iterator[bytes]:
        function = {"name": tool.name, "arguments": ""}
        yield self._chunk({"tool_calls": [{"index": index, "id": tool.call_id, "type": "function", "function": function}]})
        for fragment in tool.fragments:
            yield self._chunk({"tool_calls": [{"index": index, "function": {"arguments": fragment}}]})

    def finish(self, reason: str, usage: Usage | None) -> Iterator[bytes]:
        yield self._chunk({}, finish_reason=reason)
        if usage is not None:
            total = usage.tokens_in + usage.tokens_out
            counts = {"prompt_tokens": usage.tokens_in, "completion_tokens": usage.tokens_out, "total_tokens": total}
            yield _event(
                self._base() | {"choices": [], "usage": counts | {"prompt_tokens_details": {"cached_tokens": usage.tokens_cached}}}
            )

    def done(self) -> Iterator[bytes]:
        yield b"data: [DONE]\n\n"

    def error(self) -> bytes:
        return _event({"error": {"message": "The server had an error while processing your request", "type": "server_error", "code": None}})

    def broken(self) -> bytes:
        return b'data: {"id":"x", broken\n\n'

    def _chunk(self, delta: JSON, finish_reason: str | None = None) -> bytes:
        return _event(self._base() | {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]})

    def _base(self) -> JSON:
        return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1795316865, "model": self._model}


class _Responses:
    """OpenAI's other format, which litellm uses for GPT 5.4 and later where tools are offered."""

    content_type = "text/event-stream"
    _place: ClassVar[JSON] = {"item_id": "msg_1", "output_index": 0, "content_index": 0}

    def __init__(self) -> None:
        self._text = ""
        self._output: list[JSON] = []

    def start(self) -> Iterator[bytes]:
        yield self._of("response.created", response=self._response("in_progress"))
        yield self._of("response.output_item.added", output_index=0, item=self._message("in_progress"))

    def text(self, piece: str) -> bytes:
        self._text += piece
        return self._of("response.output_text.delta", **self._place, delta=piece, logprobs=[])

    def tool(self, index: int, tool: ToolUse) -> Iterator[bytes]:
        place = {"item_id": f"fc_{index}", "output_index": index + 1}
        item: JSON = {"type": "function_call", "id": f"fc_{index}", "call_id": tool.call_id, "name": tool.name, "status": "in_progress"}
        yield self._of("response.output_item.added", output_index=index + 1, item=item | {"arguments": ""})
        for fragment in tool.fragments:
            yield self._of("response.function_call_arguments.delta", **place, delta=fragment)
        done = item | {"arguments": "".join(tool.fragments), "status": "completed"}
        self._output.append(done)
        yield self._of("response.function_call_arguments.done", **place, name=tool.name, arguments=done["arguments"])
        yield self._of("response.output_item.done", output_index=index + 1, item=done)

    def finish(self, reason: str, usage: Usage | None) -> Iterator[bytes]:
        yield self._of("response.output_item.done", output_index=0, item=self._message("completed"))
        limits = {"length": "max_output_tokens", "content_filter": "content_filter"}
        kind = "incomplete" if reason in limits else "completed"
        response = self._response(kind) | {"output": [self._message(kind), *self._output], "usage": self._counts(usage or Usage())}
        if reason in limits:
            response["incomplete_details"] = {"reason": limits[reason]}
        yield self._of(f"response.{kind}", response=response)

    def done(self) -> Iterator[bytes]:
        yield from ()

    def error(self) -> bytes:
        return self._of("error", code="server_error", message="The server had an error", param=None)

    def broken(self) -> bytes:
        return b'event: response.output_text.delta\ndata: {"type": broken\n\n'

    def _message(self, status: str) -> JSON:
        content = [{"type": "output_text", "text": self._text, "annotations": []}] if self._text else []
        return {"type": "message", "id": "msg_1", "role": "assistant", "status": status, "content": content}

    def _response(self, status: str) -> JSON:
        fixed = {"id": "resp_1", "object": "response", "created_at": 1795316865, "model": "gpt-6-sol", "output": [], "tools": []}
        return fixed | {"status": status, "error": None, "parallel_tool_calls": True, "tool_choice": "auto"}

    def _counts(self, usage: Usage) -> JSON:
        counts = {"input_tokens": usage.tokens_in, "output_tokens": usage.tokens_out, "total_tokens": usage.tokens_in + usage.tokens_out}
        cached, reasoning = {"cached_tokens": usage.tokens_cached}, {"reasoning_tokens": 0}
        return counts | {"input_tokens_details": cached, "output_tokens_details": reasoning}

    def _of(self, kind: str, **rest: Any) -> bytes:
        return _event({"type": kind, "sequence_number": 0, **rest}, kind)


class _Anthropic:
    content_type = "text/event-stream"
    _reasons: ClassVar[dict[str, str]] = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens", "content_filter": "refusal"}

    def start(self) -> Iterator[bytes]:
        message: JSON = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": [], "stop_reason": None}
        yield self._of("message_start", message=message | {"usage": {"input_tokens": 10, "output_tokens": 1}})
        yield self._of("content_block_start", index=0, content_block={"type": "text", "text": ""})

    def text(self, piece: str) -> bytes:
        return self._of("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})

    def tool(self, index: int, tool: ToolUse) -> Iterator[bytes]:
        block = {"type": "tool_use", "id": tool.call_id, "name": tool.name, "input": {}}
        yield self._of("content_block_start", index=index + 1, content_block=block)
        for fragment in tool.fragments:
            yield self._of("content_block_delta", index=index + 1, delta={"type": "input_json_delta", "partial_json": fragment})
        yield self._of("content_block_stop", index=index + 1)

    def finish(self, reason: str, usage: Usage | None) -> Iterator[bytes]:
        counts = usage or Usage()
        fresh = counts.tokens_in - counts.tokens_cached
        numbers = {"input_tokens": fresh, "cache_read_input_tokens": counts.tokens_cached, "output_tokens": counts.tokens_out}
        yield self._of("content_block_stop", index=0)
        yield self._of("message_delta", delta={"stop_reason": self._reasons[reason], "stop_sequence": None}, usage=numbers)

    def done(self) -> Iterator[bytes]:
        yield self._of("message_stop")

    def error(self) -> bytes:
        return self._of("error", error={"type": "overloaded_error", "message": "Overloaded"})

    def broken(self) -> bytes:
        return b'event: content_block_delta\ndata: {"type": broken\n\n'

    def _of(self, kind: str, **rest: Any) -> bytes:
        return _event({"type": kind, **rest}, kind)


class _Gemini:
    content_type = "text/event-stream"
    _reasons: ClassVar[dict[str, str]] = {"stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}

    def start(self) -> Iterator[bytes]:
        yield from ()

    def text(self, piece: str) -> bytes:
        return self._parts([{"text": piece}])

    def tool(self, index: int, tool: ToolUse) -> Iterator[bytes]:
        yield self._parts([{"functionCall": {"name": tool.name, "args": json.loads("".join(tool.fragments))}}])

    def finish(self, reason: str, usage: Usage | None) -> Iterator[bytes]:
        candidate = {"content": {"role": "model", "parts": [{"text": ""}]}, "finishReason": self._reasons[reason], "index": 0}
        counts = usage or Usage()
        numbers = {"promptTokenCount": counts.tokens_in, "candidatesTokenCount": counts.tokens_out}
        numbers |= {"totalTokenCount": counts.tokens_in + counts.tokens_out, "cachedContentTokenCount": counts.tokens_cached}
        yield _event({"candidates": [candidate], "usageMetadata": numbers})

    def done(self) -> Iterator[bytes]:
        yield from ()

    def error(self) -> bytes:
        return _event({"error": {"code": 500, "message": "Internal error encountered.", "status": "INTERNAL"}})

    def broken(self) -> bytes:
        return b'data: {"candidates": broken\n\n'

    def _parts(self, parts: list[JSON]) -> bytes:
        return _event({"candidates": [{"content": {"role": "model", "parts": parts}, "index": 0}]})


class _Ollama:
    content_type = "application/x-ndjson"
    _reasons: ClassVar[dict[str, str]] = {"stop": "stop", "tool_calls": "stop", "length": "length", "content_filter": "stop"}

    def start(self) -> Iterator[bytes]:
        yield from ()

    def text(self, piece: str) -> bytes:
        return self._line({"role": "assistant", "content": piece})

    def tool(self, index: int, tool: ToolUse) -> Iterator[bytes]:
        function = {"name": tool.name, "arguments": json.loads("".join(tool.fragments))}
        yield self._line({"role": "assistant", "content": "", "tool_calls": [{"function": function}]})

    def finish(self, reason: str, usage: Usage | None) -> Iterator[bytes]:
        counts = usage or Usage()
        numbers = {"prompt_eval_count": counts.tokens_in, "eval_count": counts.tokens_out}
        yield self._line({"role": "assistant", "content": ""}, done=True, done_reason=self._reasons[reason], **numbers)

    def done(self) -> Iterator[bytes]:
        yield from ()

    def error(self) -> bytes:
        return b'{"error": "an error was encountered while running the model"}\n'

    def broken(self) -> bytes:
        return b'{"message": broken\n'

    def _line(self, message: JSON, *, done: bool = False, **rest: Any) -> bytes:
        line = {"model": "llama3.1", "created_at": "2026-11-22T00:00:00Z", "message": message, "done": done, **rest}
        return json.dumps(line).encode() + b"\n"
