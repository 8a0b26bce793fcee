"""The terminal without a screen: lines from standard input, each sent when the one before is answered; frames or whole replies go out."""

import asyncio
import json
import os
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Protocol, TextIO
from uuid import UUID

from core import conversations, messages, wording
from core.errors import OnethreadError, RateLimited
from core.follow import Follower
from core.frames import Frame
from core.identity import principal_of
from core.models import JSON, Posted, User
from onethread.bootstrap import App
from onethread.terminal.text import plain
from onethread.terminal.transcript import model_name, shown_arguments

SOURCE = "terminal"
_LINES_AHEAD = 100
_CHUNK = 65_536
_SETTLE_SECONDS = 2.0
_ANSWERED = ("succeeded", "failed", "cancelled", "waiting")
_ENDED = {"completed": "succeeded", "failed": "failed", "cancelled": "cancelled"}
_AT_REST = ("idle", "waiting_for_user", "error")


class Sink(Protocol):
    """Where it goes out."""

    def frame(self, frame: Frame) -> None: ...
    def error(self, error: OnethreadError) -> None: ...


class JsonLines:
    """One JSON object a line, `event` and `payload`."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def frame(self, frame: Frame) -> None:
        self._write(frame.event, frame.payload)

    def error(self, error: OnethreadError) -> None:
        self._write("error", {"error_code": error.code, "detail": str(error)})

    def _write(self, event: str, payload: JSON) -> None:
        self._out.write(json.dumps({"event": event, "payload": payload}, ensure_ascii=True) + "\n")
        self._out.flush()


class PlainText:
    """Whole replies; what went wrong goes to standard error."""

    def __init__(self, out: TextIO, errors: TextIO) -> None:
        self._out = out
        self._errors = errors

    def frame(self, frame: Frame) -> None:
        payload = frame.payload
        match frame.event:
            case "llm_complete" if payload["content"].strip():
                self._write(self._out, plain(payload["content"]).strip())
                self._options(payload["metadata"])
                if other := wording.instead(payload["metadata"], model_name):
                    self._write(self._errors, f"{plain(str(payload['metadata']['model']))} answered {other}.")
            case "llm_error":
                self._write(self._errors, f"Error: {plain(payload['error'])}")
            case "tool_call" if payload["state"] == "awaiting_approval":
                asked = plain(f"May I run {payload['name']} {shown_arguments(payload['arguments'])}?")
                self._write(self._errors, f"{asked} It waits: decide in `onethread chat --last`; the next line denies it.")

    def error(self, error: OnethreadError) -> None:
        self._write(self._errors, f"Error: {error}")

    def _options(self, metadata: JSON) -> None:
        options = (metadata.get("question") or {}).get("options") or []
        if options:
            self._write(self._out, "\n".join(f"- {plain(str(option))}" for option in options))

    @staticmethod
    def _write(out: TextIO, text: str) -> None:
        out.write(text + "\n")
        out.flush()


class Pipe:
    def __init__(self, app: App, user: User, sink: Sink) -> None:
        self._app = app
        self._principal = principal_of(user)
        self._sink = sink
        self._turns: dict[str, str] = {}
        self._agent = "idle"
        self._news = asyncio.Condition()

    async def run(self, lines: AsyncIterator[str], conversation_id: UUID | None) -> bool:
        """True if everything was answered."""
        good = True
        following: asyncio.Task[None] | None = None
        try:
            if conversation_id:
                following = await self._followed(conversation_id)
            async for line in lines:
                if not line.strip():
                    continue
                try:
                    conversation_id = conversation_id or await self._begin(line)
                    following = following or await self._followed(conversation_id)
                    good = await self._ask(conversation_id, line, following) and good
                except OnethreadError as error:
                    self._sink.error(error)
                    good = False
        finally:
            if following:
                following.cancel()
                await asyncio.wait({following})
        return good

    async def _begin(self, line: str) -> UUID:
        messages.checked(line, self._app.rules)
        async with self._app.storage.write() as uow:
            return (await conversations.create(uow, self._principal)).id

    async def _ask(self, conversation_id: UUID, line: str, following: "asyncio.Task[None]") -> bool:
        posted = await self._post(conversation_id, line)
        turn_id = str(posted.turn_id)
        waiting = asyncio.ensure_future(self._answered(turn_id))
        await asyncio.wait({waiting, following}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if following.done():
            following.result()
        return self._turns.get(turn_id) in ("succeeded", "waiting")

    async def _post(self, conversation_id: UUID, line: str) -> Posted:
        """Lines that come too fast wait instead of being lost."""
        while True:
            try:
                async with self._app.storage.write() as uow:
                    return await messages.post(uow, self._principal, conversation_id, line, rules=self._app.rules, source=SOURCE)
            except RateLimited as error:
                await asyncio.sleep(error.retry_after)

    async def _answered(self, turn_id: str) -> None:
        async with self._news:
            await self._news.wait_for(lambda: self._turns.get(turn_id) in _ANSWERED)
            try:
                async with asyncio.timeout(_SETTLE_SECONDS):
                    await self._news.wait_for(lambda: self._agent in _AT_REST)
            except TimeoutError:
                return

    async def _followed(self, conversation_id: UUID) -> "asyncio.Task[None]":
        """Follows the conversation; the first frame has gone out."""
        begun = asyncio.Event()
        following = asyncio.create_task(self._follow(conversation_id, begun), name="pipe.follow")
        waiting = asyncio.ensure_future(begun.wait())
        await asyncio.wait({waiting, following}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if following.done():
            following.result()
        return following

    async def _follow(self, conversation_id: UUID, begun: asyncio.Event) -> None:
        follower = Follower(self._app.storage, self._app.live, self._principal, conversation_id)
        async with aclosing(follower.frames()) as frames:
            async for frame in frames:
                self._sink.frame(frame)
                begun.set()
                async with self._news:
                    self._take(frame)
                    self._news.notify_all()

    def _take(self, frame: Frame) -> None:
        match frame.event:
            case "snapshot":
                self._agent = frame.payload["conversation"]["agent_status"]
                replies = [message for message in frame.payload["messages"] if message["role"] == "assistant"]
                self._turns |= {reply["turn_id"]: _ENDED[reply["status"]] for reply in replies if reply["status"] in _ENDED}
                self._turns |= {turn["turn_id"]: turn["status"] for turn in frame.payload["turns"]}
            case "agent_status":
                self._agent = frame.payload["status"]
            case "turn_changed":
                self._turns[frame.payload["turn_id"]] = frame.payload["status"]


async def stdin_lines() -> AsyncIterator[str]:
    """The lines of standard input, read in a thread that nobody waits for."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | None] = asyncio.Queue(_LINES_AHEAD)

    def put(line: str | None) -> None:
        asyncio.run_coroutine_threadsafe(lines.put(line), loop).result()

    def read() -> None:
        rest = b""
        try:
            while chunk := os.read(sys.stdin.fileno(), _CHUNK):
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    put(line.decode("utf-8", "replace").removesuffix("\r"))
            if rest:
                put(rest.decode("utf-8", "replace"))
            put(None)
        except (OSError, RuntimeError, asyncio.CancelledError):
            return  # the program ends

    threading.Thread(target=read, name="stdin", daemon=True).start()
    while (line := await lines.get()) is not None:
        yield line


def quietly_close(stream: Any) -> None:
    """After a broken pipe: what is still buffered must not raise again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
