"""A WebSocket client that keeps to docs/protocol.md: it shows what the frames say, and comes back when the connection is lost."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from core.text import utf16_cut, utf16_len

JSON = dict[str, Any]
RETRY_SECONDS = 0.05


class Refused(Exception):
    """The server answered a request with an error."""

    def __init__(self, response: JSON) -> None:
        super().__init__(f"{response['error_code']}: {response['detail']}")
        self.code = str(response["error_code"])
        self.detail = str(response["detail"])


class Lost(Exception):
    """The connection ended before the reply came: whether the request was done is not known."""


@dataclass(slots=True)
class Shown:
    """What a page would show of one topic."""

    frames: list[JSON] = field(default_factory=list)
    """All that came, snapshots included."""
    messages: dict[str, JSON] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    """Of replies, by id."""
    streams: dict[str, int] = field(default_factory=dict)
    things: dict[str, JSON] = field(default_factory=dict)
    """Of a list, by id."""

    def take(self, event: str, payload: JSON) -> None:
        self.frames.append({"event": event, "payload": payload})
        match event:
            case "snapshot":
                for message in payload.get("messages", ()):
                    self._message(message)
                self.things = {thing["id"]: thing for name in ("tasks", "conversations") for thing in payload.get(name, ())}
            case "new_message" | "message_changed":
                self._message(payload)
            case "llm_delta":
                self._delta(payload)
            case "llm_complete":
                message_id = payload["message_id"]
                self.texts[message_id] = payload["content"]
                self.messages[message_id] |= {key: payload[key] for key in ("content", "status", "metadata")}
            case "task_changed" | "conversation_changed":
                self.things[payload["id"]] = payload
            case "task_deleted" | "conversation_deleted":
                self.things.pop(payload["id"], None)

    def events(self, event: str) -> list[JSON]:
        """The payloads of this kind that came."""
        return [frame["payload"] for frame in self.frames if frame["event"] == event]

    def ended(self, message_id: str) -> bool:
        message = self.messages.get(message_id)
        return message is not None and message["status"] in ("completed", "failed", "cancelled")

    def _message(self, message: JSON) -> None:
        self.messages[message["id"]] = message
        if message["role"] == "assistant":
            self.texts[message["id"]], self.streams[message["id"]] = message["content"], message["stream_no"]

    def _delta(self, delta: JSON) -> None:
        message_id, offset = delta["message_id"], delta["offset"]
        text, stream_no = self.texts.get(message_id, ""), self.streams.get(message_id, 0)
        assert delta["stream_no"] >= stream_no, "an older stream"
        assert offset <= utf16_len(text), "a gap"
        assert delta["stream_no"] > stream_no or offset == utf16_len(text), "told twice"
        self.texts[message_id], self.streams[message_id] = utf16_cut(text, offset) + delta["delta"], delta["stream_no"]


class Client:
    """Made by `client`."""

    def __init__(self) -> None:
        self.topics: dict[str, Shown] = {}
        self.connections = 0
        """How often it connected."""
        self.closed: list[int] = []
        """The codes with which connections ended."""
        self.messages = 0
        """WebSocket messages that came."""
        self._socket: ClientConnection | None = None
        self._refs = itertools.count(1)
        self._asked: dict[int, asyncio.Future[JSON]] = {}
        self._joining: dict[int, str] = {}
        self._news = asyncio.Condition()

    async def join(self, topic: str) -> Shown:
        """Follows a topic from now on, over all connections; what it shows when the snapshot has come. Raises Refused."""
        shown = self.topics.setdefault(topic, Shown())
        try:
            await self.ask("join", topic)
        except Refused:
            del self.topics[topic]
            raise
        return shown

    async def say(self, topic: str, content: str, **fields: Any) -> JSON:
        """Posts, and again with the same `client_id` when the connection was lost, until it is answered."""
        payload = {"content": content, "client_id": str(uuid4()), **fields}
        while True:
            try:
                return await self.ask("send_message", topic, payload)
            except Lost:
                await asyncio.sleep(RETRY_SECONDS)
            except Refused as refused:
                if "not joined" not in refused.detail:  # it is being joined anew
                    raise
                await asyncio.sleep(RETRY_SECONDS)

    async def ask(self, event: str, topic: str | None = None, payload: Mapping[str, Any] | None = None, *, seconds: float = 30) -> JSON:
        """The response. Raises Refused, or Lost."""
        if self._socket is None:
            raise Lost
        ref = next(self._refs)
        answer: asyncio.Future[JSON] = asyncio.get_running_loop().create_future()
        self._asked[ref] = answer
        if event == "join" and topic:
            self._joining[ref] = topic
        try:
            await self._socket.send(json.dumps({"topic": topic, "event": event, "ref": ref, "payload": payload or {}}))
            async with asyncio.timeout(seconds):
                return await answer
        except ConnectionClosed:
            raise Lost from None
        finally:
            self._asked.pop(ref, None)

    async def until(self, holds: Callable[[], Any], seconds: float = 30) -> None:
        """Waits for what is shown; looks again after every frame."""
        async with asyncio.timeout(seconds), self._news:
            await self._news.wait_for(lambda: bool(holds()))

    async def shows(self, shown: Shown, message_id: str, text: str, seconds: float = 30) -> None:
        """Waits until the reply's text is this."""
        await self.until(lambda: shown.texts.get(message_id) == text, seconds)

    async def drop(self) -> None:
        """Loses the connection, as a network does."""
        if self._socket:
            self._socket.transport.abort()
            await self._socket.wait_closed()

    async def keep_connected(self, url: str, connected: asyncio.Event, **how: Any) -> None:
        while True:
            try:
                async with connect(url, **how) as opened:
                    await self._talk(opened, connected)
            except (OSError, InvalidHandshake, ConnectionClosed, TimeoutError):
                pass
            await asyncio.sleep(RETRY_SECONDS)

    async def _talk(self, opened: ClientConnection, connected: asyncio.Event) -> None:
        self._socket = opened
        self.connections += 1
        try:
            for topic in self.topics:
                ref = next(self._refs)
                self._joining[ref] = topic
                await opened.send(json.dumps({"topic": topic, "event": "join", "ref": ref, "payload": {}}))
            connected.set()
            async for text in opened:
                await self._take(json.loads(text))
        finally:
            self.closed.append(opened.close_code or 1006)
            self._socket = None
            for answer in self._asked.values():
                if not answer.done():
                    answer.set_exception(Lost())
            async with self._news:
                self._news.notify_all()

    async def _take(self, frame: JSON) -> None:
        self.messages += 1
        event, payload, ref = frame["event"], frame["payload"], frame["ref"]
        if event == "reply":
            topic = self._joining.pop(ref, None)
            if topic in self.topics and payload["status"] == "ok":
                self.topics[topic].take("snapshot", payload["response"])
            answer = self._asked.get(ref)
            if answer and not answer.done():
                if payload["status"] == "ok":
                    answer.set_result(payload["response"])
                else:
                    answer.set_exception(Refused(payload["response"]))
        elif frame["topic"] in self.topics:
            self.topics[frame["topic"]].take(event, payload)
        async with self._news:
            self._news.notify_all()


@asynccontextmanager
async def client(url: str, token: str = "", *, seconds: float = 30, **how: Any) -> AsyncIterator[Client]:
    """A client of the server at `url` (http://...), connected now and again whenever the connection is lost. `how`: see `connect`."""
    made, connected = Client(), asyncio.Event()
    headers = {"additional_headers": {"Authorization": f"Bearer {token}"}} if token else {}
    address = f"{url.replace('http', 'ws', 1)}/ws"
    keeping = asyncio.create_task(made.keep_connected(address, connected, **{**headers, **how}), name="web client")
    try:
        async with asyncio.timeout(seconds):
            await connected.wait()
        yield made
    finally:
        keeping.cancel()
        await asyncio.wait({keeping})
        if not keeping.cancelled() and (wrong := keeping.exception()):
            raise wrong
