"""Socket Mode, native streams and agents' statuses: a small fake of our own, because no emulator has them. All else is the emulator's.

    async with slack_agents(slack) as agents:  # slack.url answers apps.connections.open, chat.startStream and the like from now on
        await slack.connect(agents.request_url)  # events, commands and button presses travel as envelopes
        await AsyncSocketModeHandler(app, slack.app_token).connect_async()
        await agents.connected()

Everything else in tests/emulators/slack works alike in Socket Mode: what it posts to the request URL becomes an envelope, and what the app
acknowledges becomes the answer. An envelope that is not acknowledged within 3 s is sent again, like a request without an answer.

Streams keep Slack's rules as far as they are known (a recipient outside of direct messages, an end after five minutes, no chat.update
before the end), with one exception: everybody sees them grow, where Slack shows them to the recipient only.
"""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl

import aiohttp
from aiohttp import web

from tests.emulators.slack import JSON, WAIT_SECONDS, SlackEmulator

STREAM_SECONDS = 300.0
ACK_SECONDS = 3.0
_MOST_MARKDOWN = 12_000
_STATUS_METHODS = (
    "agents.sessions.rename",
    "agents.sessions.setStatus",
    "assistant.threads.setStatus",
    "assistant.threads.setSuggestedPrompts",
    "assistant.threads.setTitle",
)


@asynccontextmanager
async def slack_agents(
    slack: SlackEmulator,
    *,
    ack_seconds: float = ACK_SECONDS,
    stream_seconds: float = STREAM_SECONDS,
    now: Callable[[], float] = time.monotonic,
) -> AsyncIterator["SlackAgents"]:
    """The fake beside a running emulator.

    The app has `ack_seconds` to acknowledge an envelope; streams live for `stream_seconds` of `now`.
    """
    agents = SlackAgents(slack, Streams(slack, stream_seconds, now), ack_seconds)
    app = web.Application()
    app.add_routes(agents.routes())
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        await agents.serve_at("{}:{}".format(*runner.addresses[0]))
        yield agents
    finally:
        await agents.close()
        await runner.cleanup()


@dataclass(slots=True, kw_only=True)
class Envelope:
    """What was sent to the app by a WebSocket."""

    id: str
    type: str
    payload: JSON
    retry: int
    acked: bool = False


@dataclass(slots=True, kw_only=True)
class Stream:
    """A message that grows. `chunks` are those that are not text."""

    channel: str
    ts: str
    started: float
    text: str = ""
    chunks: list[JSON] = field(default_factory=list)
    ended: str | None = None
    """Why nothing can be added any more, in Slack's word."""


class SlackAgents:
    """The fake: `envelopes` and `statuses` tell what happened."""

    def __init__(self, slack: SlackEmulator, streams: "Streams", ack_seconds: float) -> None:
        self.envelopes: list[Envelope] = []
        self.statuses: list[JSON] = []
        """The arguments of each call of `agents.sessions.*` and `assistant.threads.*`, and its method."""
        self._slack = slack
        self._streams = streams
        self._ack_seconds = ack_seconds
        self._address = ""
        self._links: list[web.WebSocketResponse] = []
        self._linked = asyncio.Condition()
        self._acks: dict[str, asyncio.Future[JSON]] = {}

    @property
    def request_url(self) -> str:
        """What is posted here reaches the app by its WebSocket."""
        return f"http://{self._address}/events"

    @property
    def streams(self) -> dict[str, Stream]:
        """By ts."""
        return self._streams.by_ts

    @property
    def connections(self) -> int:
        return len(self._links)

    async def connected(self, connections: int = 1) -> None:
        """Until the app has that many WebSockets."""
        async with asyncio.timeout(WAIT_SECONDS), self._linked:
            await self._linked.wait_for(lambda: len(self._links) == connections)

    async def disconnect(self, reason: Literal["warning", "refresh_requested", "link_disabled"]) -> None:
        """Tells the app that its oldest connection ends; after a warning it stays open for now, as with Slack."""
        link = self._links[0]
        await link.send_json({"type": "disconnect", "reason": reason, "debug_info": {"host": "applink-test"}})
        if reason != "warning":
            await self._unlink(link)
            await link.close()

    def stopped_by_user(self, ts: str) -> None:
        """From now on the app may not add to that stream."""
        self.streams[ts].ended = "stopped_by_user"

    async def serve_at(self, address: str) -> None:
        """Has the emulator ask here for what it lacks."""
        self._address = address
        methods = ["apps.connections.open", *_STATUS_METHODS, *self._streams.methods]
        await self._slack.post_test("extension", {"url": f"http://{address}/methods", "methods": methods})

    async def close(self) -> None:
        await self._slack.post_test("extension", {"url": "", "methods": []})
        for link in self._links:
            await link.close()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/events", self._events),
            web.post("/methods/{method}", self._method),
            web.get("/link", self._link),
        ]

    async def _method(self, request: web.Request) -> web.Response:
        name, args = request.match_info["method"], await request.json()
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if name == "apps.connections.open":
            return web.json_response(self._opened(token))
        if token != self._slack.bot_token:
            return web.json_response(_error("not_allowed_token_type"))
        if name in _STATUS_METHODS:
            self.statuses.append({**args, "method": name})
            return web.json_response({"ok": True})
        return web.json_response(await self._streams.methods[name](args))

    def _opened(self, token: str) -> JSON:
        if token != self._slack.app_token:
            return _error("invalid_auth")
        return {"ok": True, "url": f"ws://{self._address}/link?ticket={uuid.uuid4().hex}"}

    async def _link(self, request: web.Request) -> web.WebSocketResponse:
        link = web.WebSocketResponse()
        await link.prepare(request)
        info = {"type": "hello", "num_connections": len(self._links) + 1, "connection_info": {"app_id": self._slack.app_id}}
        await link.send_json({**info, "debug_info": {"host": "applink-test", "approximate_connection_time": 3600}})
        async with self._linked:
            self._links.append(link)
            self._linked.notify_all()
        async for message in link:
            self._acked(json.loads(message.data))
        await self._unlink(link)
        return link

    async def _unlink(self, link: web.WebSocketResponse) -> None:
        async with self._linked:
            if link in self._links:
                self._links.remove(link)
            self._linked.notify_all()

    def _acked(self, answer: JSON) -> None:
        waiting = self._acks.get(answer.get("envelope_id", ""))
        if waiting and not waiting.done():
            waiting.set_result(answer.get("payload") or {})

    async def _events(self, request: web.Request) -> web.Response:
        """Answers 504 where the app does not acknowledge, so that the launcher tries again."""
        envelope = _envelope(await request.text(), request.headers)
        self.envelopes.append(envelope)
        if not self._links:
            return web.Response(status=503)
        self._acks[envelope.id] = asyncio.get_running_loop().create_future()
        await self._links[-1].send_json(_on_the_wire(envelope))
        try:
            async with asyncio.timeout(self._ack_seconds):
                payload = await self._acks[envelope.id]
        except TimeoutError:
            return web.Response(status=504)
        finally:
            del self._acks[envelope.id]
        envelope.acked = True
        return web.json_response(payload) if payload else web.Response()


class Streams:
    """Native streams, kept as messages of the emulator's."""

    def __init__(self, slack: SlackEmulator, seconds: float, now: Callable[[], float]) -> None:
        self.by_ts: dict[str, Stream] = {}
        self.methods: Mapping[str, Callable[[JSON], Awaitable[JSON]]] = {
            "chat.startStream": self._start,
            "chat.appendStream": self._append,
            "chat.stopStream": self._stop,
            "chat.update": self._update,
        }
        self._slack = slack
        self._seconds = seconds
        self._now = now

    async def _start(self, args: JSON) -> JSON:
        if error := _start_error(args):
            return _error(error)
        text, chunks = _content(args)
        where = {"channel": args["channel"], "thread_ts": args["thread_ts"]}
        posted = await self._emulated("chat.postMessage", {**where, "text": text or " "})
        if posted["ok"]:
            stream = Stream(channel=posted["channel"], ts=posted["ts"], started=self._now(), text=text, chunks=chunks)
            self.by_ts[stream.ts] = stream
        return posted

    async def _append(self, args: JSON) -> JSON:
        if error := self._live_error(args):
            return _error(error)
        if not (args.get("markdown_text") or args.get("chunks")):
            return _error("no_text")
        return await self._grown(args, {})

    async def _stop(self, args: JSON) -> JSON:
        if error := self._live_error(args):
            return _error(error)
        stopped = await self._grown(args, {name: args[name] for name in ("blocks", "metadata") if args.get(name)})
        if stopped["ok"]:
            self.by_ts[args["ts"]].ended = "message_not_in_streaming_state"
        return stopped

    async def _update(self, args: JSON) -> JSON:
        if args.get("ts") in self.by_ts and self._live_error(args) is None:
            return _error("streaming_state_conflict")
        return await self._emulated("chat.update", args)

    async def _grown(self, args: JSON, rest: JSON) -> JSON:
        stream = self.by_ts[args["ts"]]
        text, chunks = _content(args)
        updated = await self._emulated(
            "chat.update", {"channel": stream.channel, "ts": stream.ts, "text": stream.text + text or " ", **rest}
        )
        if updated["ok"]:
            stream.text += text
            stream.chunks += chunks
        return updated

    def _live_error(self, args: JSON) -> str | None:
        stream = self.by_ts.get(args.get("ts", ""))
        if stream is None or stream.channel != args.get("channel"):
            return "message_not_found"
        if self._now() - stream.started >= self._seconds:
            return "message_not_in_streaming_state"
        return stream.ended or _length_error(args)

    async def _emulated(self, method: str, args: JSON) -> JSON:
        headers = {"Authorization": f"Bearer {self._slack.bot_token}"}
        url = f"{self._slack.root}/_test/inner/{method}"
        async with aiohttp.ClientSession(headers=headers) as session, session.post(url, json=args) as answer:
            return dict(await answer.json())


def _start_error(args: JSON) -> str | None:
    if not args.get("thread_ts"):
        return "invalid_thread_ts"
    if not args["channel"].startswith("D"):
        missing = [name for name in ("recipient_team_id", "recipient_user_id") if not args.get(name)]
        if missing:
            return f"missing_{missing[0]}"
    return _length_error(args)


def _length_error(args: JSON) -> str | None:
    return "msg_too_long" if len(args.get("markdown_text") or "") > _MOST_MARKDOWN else None


def _content(args: JSON) -> tuple[str, list[JSON]]:
    """The text, and the chunks that are not text."""
    chunks = args.get("chunks") or []
    chunks = json.loads(chunks) if isinstance(chunks, str) else chunks
    text = (args.get("markdown_text") or "") + "".join(chunk["text"] for chunk in chunks if chunk["type"] == "markdown_text")
    return text, [chunk for chunk in chunks if chunk["type"] != "markdown_text"]


def _error(error: str) -> JSON:
    return {"ok": False, "error": error}


def _envelope(body: str, headers: Mapping[str, str]) -> Envelope:
    retry = int(headers.get("X-Slack-Retry-Num", "0"))
    if headers["Content-Type"] == "application/json":
        return Envelope(id=uuid.uuid4().hex, type="events_api", payload=json.loads(body), retry=retry)
    form = dict(parse_qsl(body, keep_blank_values=True))
    if "payload" in form:
        return Envelope(id=uuid.uuid4().hex, type="interactive", payload=json.loads(form["payload"]), retry=retry)
    return Envelope(id=uuid.uuid4().hex, type="slash_commands", payload=form, retry=retry)


def _on_the_wire(envelope: Envelope) -> JSON:
    whole = {"envelope_id": envelope.id, "type": envelope.type, "payload": envelope.payload}
    if envelope.type != "events_api":
        return {**whole, "accepts_response_payload": True}
    return {
        **whole,
        "accepts_response_payload": False,
        "retry_attempt": envelope.retry,
        "retry_reason": "timeout" if envelope.retry else "",
    }
