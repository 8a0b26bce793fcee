"""The server on standard input and output, for the one client that started this process.

The transport is the SDK's. Around it is what the SDK leaves open: a line that it would drop is answered, so that nobody waits for it;
calls that are being answered when the client closes its end, or when the process is told to end, are answered first; and nothing is lost
that was handed over to be written.
"""

import asyncio
import fcntl
import json
import os
import re
import sys
from typing import Any

from anyio import to_thread
from mcp.server.stdio import stdio_server
from mcp.shared._context_streams import ContextSendStream, create_context_streams
from mcp.shared.message import SessionMessage
from mcp.types import (
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError
from pydantic_core import from_json

from mcp_server.server import Server

LAST_CALLS_SECONDS = 5.0
"""How long calls may take that came before the client closed its end: the first one opens the database."""
STOP_SECONDS = 1.0
"""How long they may take when the process is told to end. Clients kill it 2 seconds after they asked."""
MAX_LINE_BYTES = 4 * 1024 * 1024
"""Of a message. The SDK draws the same line over HTTP."""
_LISTEN = "subscriptions/listen"
_PIECE_BYTES = 64 * 1024
"""What is held at a time of a line that is skipped."""
_END_BYTES = 1024
"""At either end of such a line, where its id is looked for."""
_MAX_DIGITS = 4300
"""Of a number. Python and pydantic read no longer ones."""


async def serve(server: Server, *, stopping: asyncio.Event, answered: asyncio.Event) -> None:
    """Until the client closes standard input, or `stopping` is set, which this does too. `answered` is set after the first answer.

    A thread may still wait for standard input then, which only the end of the process ends: leave it by os._exit.
    """
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    transport = asyncio.create_task(_transport(server, _Calls(stopping, answered), stopping, ended), name="mcp.stdio")
    await asyncio.wait({transport, ended}, return_when=asyncio.FIRST_COMPLETED)
    (ended if ended.done() else transport).result()


async def _transport(server: Server, calls: "_Calls", stopping: asyncio.Event, ended: "asyncio.Future[None]") -> None:
    wire = _Wire(calls)
    lines: Any = _Lines(wire)
    output: Any = wire
    async with stdio_server(stdin=lines, stdout=output) as (incoming, outgoing):
        try:
            await _talk(server, calls, stopping, incoming, outgoing)
        except Exception as error:  # noqa: BLE001  # whoever waits for the end raises it: here the transport would wait for more input
            ended.set_exception(error)
        else:
            ended.set_result(None)


async def _talk(server: Server, calls: "_Calls", stopping: asyncio.Event, incoming: Any, outgoing: Any) -> None:
    """The server reads from a stream of its own, which ends when everything is answered."""
    writing, reading = create_context_streams[SessionMessage | Exception](0)
    lowlevel = server.lowlevel
    running = asyncio.create_task(
        lowlevel.run(reading, _Counted(outgoing, calls), lowlevel.create_initialization_options()), name="mcp.server"
    )
    taking = asyncio.create_task(_take(incoming, writing, calls), name="mcp.taking")
    told = asyncio.create_task(stopping.wait(), name="mcp.told")
    await asyncio.wait({running, taking, told}, return_when=asyncio.FIRST_COMPLETED)
    seconds = STOP_SECONDS if stopping.is_set() else LAST_CALLS_SECONDS
    stopping.set()
    await calls.settled(0 if running.done() else seconds)
    taking.cancel()
    told.cancel()
    await writing.aclose()
    await asyncio.wait({running}, timeout=STOP_SECONDS)
    await calls.settled(STOP_SECONDS)
    if running.done():
        running.result()


async def _take(incoming: Any, writing: ContextSendStream[SessionMessage | Exception], calls: "_Calls") -> None:
    async for item in incoming:
        calls.came(item)
        await writing.send(item)


class _Calls:
    """What the client waits for: requests that are not answered, and answers that are not written."""

    def __init__(self, stopping: asyncio.Event, answered: asyncio.Event) -> None:
        self._stopping = stopping
        self._answered = answered
        self._open: set[str | int] = set()
        self._unwritten = 0
        self._changed = asyncio.Event()

    async def settled(self, seconds: float) -> None:
        """Waits until nothing is open, or the time is over."""
        try:
            async with asyncio.timeout(seconds):
                while self._open or self._unwritten:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return

    def came(self, item: SessionMessage | Exception) -> None:
        match item.message if isinstance(item, SessionMessage) else None:
            case JSONRPCRequest(id=number, method=method) if method != _LISTEN:  # whose answer is the end of what it listens to
                self._open.add(number)
            case JSONRPCNotification(method="notifications/cancelled", params={"requestId": str() | int() as number}):
                self._open.discard(number)
                self._changed.set()

    def sent(self, item: SessionMessage) -> None:
        self._unwritten += 1
        match item.message:
            case JSONRPCResponse(id=number) | JSONRPCError(id=str() | int() as number):
                self._open.discard(number)

    def written(self) -> None:
        self._answered.set()
        self.refused()

    def refusing(self) -> None:
        """What comes was never a request: whatever its id says, nothing that is open is answered by it."""
        self._unwritten += 1

    def refused(self) -> None:
        self._unwritten -= 1
        self._changed.set()

    def lost(self) -> None:
        """The client is gone."""
        self._open.clear()
        self._stopping.set()


class _Counted:
    """The way out."""

    def __init__(self, stream: Any, calls: _Calls) -> None:
        self._stream = stream
        self._calls = calls

    async def send(self, item: SessionMessage) -> None:
        self._calls.sent(item)
        await self._stream.send(item)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def __aenter__(self) -> "_Counted":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class _Wire:
    """Standard output, as the SDK writes to it. Whatever else is printed in this process goes to standard error instead."""

    def __init__(self, calls: _Calls) -> None:
        self._calls = calls
        self._text = ""
        self._writing = asyncio.Lock()
        sys.stdout.flush()
        self._file = os.fdopen(_duplicate(1), "wb", buffering=0)
        try:
            os.dup2(2, 1)
        except OSError:  # there is no standard error
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    async def write(self, text: str) -> None:
        self._text += text

    async def flush(self) -> None:
        await self._put()
        self._calls.written()

    async def refuse(self, refusal: JSONRPCError) -> None:
        """Answers a line that the server does not get to see."""
        self._calls.refusing()
        await self.write(refusal.model_dump_json(by_alias=True, exclude_unset=True) + "\n")
        await self._put()
        self._calls.refused()

    async def _put(self) -> None:
        async with self._writing:
            data, self._text = self._text.encode(), ""
            try:
                await asyncio.to_thread(self._write, data)
            except OSError:
                self._calls.lost()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]


class _Lines:
    """Standard input, as the SDK reads it: only lines that it can read, the others are answered here. Nobody else in this process, and no
    child of it, reads from there."""

    def __init__(self, wire: _Wire) -> None:
        self._wire = wire
        self._file = os.fdopen(_duplicate(0), "rb", _PIECE_BYTES)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)

    def __aiter__(self) -> "_Lines":
        return self

    async def __anext__(self) -> str:
        while found := await to_thread.run_sync(self._next):
            if isinstance(found, str):
                return found
            await self._wire.refuse(found)
        raise StopAsyncIteration

    def _next(self) -> str | JSONRPCError | None:
        """The next message, or what is wrong with it; None at the end."""
        while line := self._file.readline(MAX_LINE_BYTES):
            if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                return self._skip(line)
            if text := _text(line):
                return _refusal(text) or text
        return None

    def _skip(self, start: bytes) -> JSONRPCError:
        end = start[-_END_BYTES:]
        while not end.endswith(b"\n") and (piece := self._file.readline(_PIECE_BYTES)):
            end = (end + piece)[-_END_BYTES:]
        return _refused(f"A message has at most {MAX_LINE_BYTES // 2**20} MB.", _id_at(start, end))


def _duplicate(number: int) -> int:
    """Which children do not inherit, and which takes the place of no standard stream that is closed."""
    return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3)


# --- what a line holds -----------------------------------------------------------------------------------------------

_ESCAPED = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a pair
    r"|(?P<lone>\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
    r"|\\."
)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_ID = rb'"id"\s*:\s*("[\w.:-]+"|0|[1-9]\d*)\s*'
_STARTS = re.compile(
    rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?(?:' + _ID + rb',\s*)?"method"\s*:\s*"[^"\\]*"\s*,\s*(?:' + _ID + rb"[,}])?"
)
"""Of requests, as clients write them. Answers have ids, too, but those are ours."""
_ENDS = re.compile(rb",\s*" + _ID + rb"\}\s*$")
_FAULTS: dict[int | str, str] = {
    "jsonrpc": 'Its "jsonrpc" must be "2.0".',
    "id": "Its id must be a string or an integer.",
    "method": "Its method must be a string.",
    "params": "Its params must be an object.",
}
_NO_MESSAGE = "It is no request, no notification and no answer."


def _text(line: bytes) -> str:
    """A line as the SDK can read it; nothing if it is blank. Escaped or not, lone surrogates become U+FFFD, as everywhere in Onethread."""
    text = line.decode("utf-8-sig", "replace").strip(" \t\r\n")
    if _SURROGATE.search(text) is None:
        return text
    return _ESCAPED.sub(lambda found: r"\ufffd" if found["lone"] else found[0], text)


def _refusal(text: str) -> JSONRPCError | None:
    """What is to be answered to a line that the SDK would drop, or take for something else."""
    try:
        message = from_json(text)
    except ValueError:
        return _unread(text)
    fault = _fault(message)
    return _refused(fault, _id_of(message)) if fault else None


def _unread(text: str) -> JSONRPCError:
    """Python reads some of what pydantic does not: enough to tell what is no JSON, and whose it is."""
    start, end = text[:_END_BYTES].encode(), text[-_END_BYTES:].encode()
    try:
        number = _id_of(json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < _MAX_DIGITS else None))
    except RecursionError:
        number = _id_at(start, end)
    except ValueError:
        return JSONRPCError(jsonrpc="2.0", id=None, error=ErrorData(code=PARSE_ERROR, message="Parse error: The line is not JSON."))
    return _refused("It is nested too deep, or holds a number that is too long.", number)


def _fault(message: Any) -> str | None:
    if isinstance(message, list):
        return "Batches are not taken; send each message on a line of its own."
    if not isinstance(message, dict) or ("method" in message and ("result" in message or "error" in message)):
        return _NO_MESSAGE
    try:
        if "method" not in message:
            jsonrpc_message_adapter.validate_python(message)
        elif "id" in message:  # without an id that it can read the SDK takes a request for a notification
            JSONRPCRequest.model_validate(message)
        else:
            JSONRPCNotification.model_validate(message)
    except ValidationError as error:
        return _FAULTS.get(error.errors()[0]["loc"][0], _NO_MESSAGE)
    return None


def _id_of(message: Any) -> str | int | None:
    match message:
        case {"id": bool()}:
            return None
        case {"id": str() | int() as number} if "method" in message or not ("result" in message or "error" in message):
            return number
    return None  # or it is an answer, whose id is one of ours


def _id_at(start: bytes, end: bytes) -> str | int | None:
    """The id of a request that cannot be read as a whole, if it is written at one of its ends."""
    request = _STARTS.match(start)
    if request is None:
        return None
    written = request[1] or request[2] or ((last := _ENDS.search(end)) and last[1])
    number: str | int | None = json.loads(written) if written else None
    return number


def _refused(fault: str, number: str | int | None) -> JSONRPCError:
    return JSONRPCError(jsonrpc="2.0", id=number, error=ErrorData(code=INVALID_REQUEST, message=f"Invalid Request: {fault}"))
