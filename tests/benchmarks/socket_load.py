"""A hundred sessions over the WebSocket.

A hundred clients in a process of their own each follow one conversation through the web server; all are answered at once, by a
model inside the server's process that needs no time and says 50 words a second. A word is a stamp of the moment when it was said;
its lag is the time until a client has it. Up to 50 ms of it are meant, because words that come within 50 ms go out together. The
second run has fewer conversations, and five clients follow each.

The CPU is that of the server's process, for each delta and subscriber: what the run cost more than the same answers without any
client. The reference is the same number of frames of the same size at the same pace, made with json.dumps and sent over bare
WebSockets by the same server program.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from core.access import Principal
from core.ids import new_id
from core.llm.client import load
from core.ports import ModelRequest, RoundEnd, TextChunk
from onethread.bootstrap import App, working
from tests.benchmarks.databases import sqlite
from tests.benchmarks.figures import Comparison, Figure, Reference, Result, Target, percentile95
from tests.benchmarks.serving import Clients, clients, plan, say, served, token_of
from tests.benchmarks.stamps import stamp
from tests.benchmarks.subject import NO_USAGE, ended, new_conversations, onethread, post

WORDS_PER_SECOND = 50
DELTAS_PER_SECOND = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    sessions: int
    seconds: float
    shared: int
    """Conversations that five clients each follow."""


FULL = Size(sessions=100, seconds=15, shared=20)
QUICK = Size(sessions=10, seconds=1, shared=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What the clients of one run got."""

    lags: list[float]
    """Of each word, in seconds."""
    deltas: int
    """WebSocket messages with text."""
    cpu: float
    """Seconds that the server's process took."""


class InstantWords:
    """Says a stamp 50 times a second, and needs no time for it."""

    def __init__(self, words: int) -> None:
        self._words = words

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextChunk | RoundEnd, None]:
        said = []
        began = time.monotonic()
        for number in range(self._words):
            await asyncio.sleep(began + number / WORDS_PER_SECOND - time.monotonic())
            said.append(stamp())
            yield TextChunk(said[-1])
        yield RoundEnd(text="".join(said), tool_requests=(), finish_reason="stop", usage=NO_USAGE)

    async def count_tokens(self, request: ModelRequest) -> int:
        return 1

    async def context_window(self, model: str) -> int:
        return 128_000

    async def image_types(self, model: str) -> frozenset[str]:
        return frozenset()


async def measure(size: Size) -> Sequence[Result]:
    await asyncio.to_thread(load)  # as in every worker: litellm's objects burden the garbage collector
    words = int(size.seconds * WORDS_PER_SECOND)
    async with sqlite() as url, onethread(url, model=InstantWords(words)) as app, working(app):
        async with served(app) as address:
            site = _Site(app=app, principal=await app.principal(), address=address, token=await token_of(app, await app.person()))
            nobody, fewer = [await _heard(site, count, 0) for count in (size.sessions, size.shared)]
            single, shared = await _heard(site, size.sessions, 1), await _heard(site, size.shared, 5)
        bare = [await _bare(app, size, sessions) for sessions in (size.sessions, size.shared * 5)]
    return [
        *_figures(f"{size.sessions} sessions", single, nobody, bare[0], size.sessions * words),
        *_figures(f"{size.shared} conversations with 5 clients each", shared, fewer, bare[1], size.shared * 5 * words),
    ]


def _figures(name: str, heard: Heard, nobody: Heard, bare: Heard, words: int) -> list[Result]:
    return [
        Figure(
            name=f"lag of a word, {name}, 95th percentile",
            value=percentile95(heard.lags) * 1000,
            unit="ms",
            reference=Reference(name="bare WebSockets", value=percentile95(bare.lags) * 1000),
            target=Target(comparison=Comparison.VALUE_AT_MOST, bound=100),
        ),
        Figure(
            name=f"lost, {name}",
            value=words - len(heard.lags),
            unit="words",
            reference=Reference(name="said", value=words),
            target=Target(comparison=Comparison.VALUE_AT_MOST, bound=0),
        ),
        Figure(
            name=f"CPU for each delta and subscriber, {name}",
            value=(heard.cpu - nobody.cpu) / heard.deltas * 1e6,
            unit="µs",
            reference=Reference(name="json.dumps and a bare WebSocket", value=bare.cpu / bare.deltas * 1e6),
        ),
    ]


# --- the server ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Site:
    app: App
    principal: Principal
    address: str
    token: str


async def _heard(site: _Site, conversations: int, followers: int) -> Heard:
    """Posts into so many new conversations, each followed by so many clients."""
    ids = await new_conversations(site.app, site.principal, conversations)
    topics = [f"conversation:{each}" for each in ids for _ in range(followers)]
    async with _clients(site.address, site.token, topics) as following, asyncio.timeout(300):
        await following.said()  # all have joined
        began = time.process_time()
        with site.app.live.subscribe(size=1_000_000) as events:
            for each in ids:
                await post(site.app, site.principal, each, "Talk.")
            assert await ended(events, len(ids)) == 0
        heard = await following.said()
        return Heard(**heard, cpu=time.process_time() - began)


async def _bare(app: App, size: Size, sessions: int) -> Heard:
    """The same frames from a server that has nothing else to do."""
    topic, message = f"conversation:{new_id()}", new_id()
    begun = asyncio.Event()

    async def web(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if scope["type"] == "lifespan":
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        await send({"type": "websocket.accept"})
        await receive()  # join
        await send({"type": "websocket.send", "text": _frame(topic, "reply", {"status": "ok", "response": {"messages": []}})})
        await begun.wait()
        started = time.monotonic()
        for number in range(int(size.seconds * DELTAS_PER_SECOND)):
            await asyncio.sleep(started + number / DELTAS_PER_SECOND - time.monotonic())
            await send({"type": "websocket.send", "text": _delta(topic, message, stamp() * (number % 2 + 2))})
        await send({"type": "websocket.send", "text": _frame(topic, "llm_complete", {})})
        await receive()

    async with served(app, web) as address, _clients(address, "", [topic] * sessions) as following, asyncio.timeout(300):
        await following.said()
        began = time.process_time()
        begun.set()
        heard = await following.said()
        return Heard(**heard, cpu=time.process_time() - began)


def _delta(topic: str, message: UUID, text: str) -> str:
    return _frame(topic, "llm_delta", {"message_id": str(message), "stream_no": 1, "offset": 1_000, "delta": text})


def _frame(topic: str, event: str, payload: dict[str, Any]) -> str:
    return json.dumps({"topic": topic, "event": event, "ref": None, "payload": payload})


# --- the clients, in a process of their own --------------------------------------------------------------------------


def _clients(address: str, token: str, topics: list[str]) -> AbstractAsyncContextManager[Clients]:
    return clients("tests.benchmarks.socket_load", {"address": f"ws://{address}/ws", "token": token, "topics": topics})


async def _follow_all(plan: dict[str, Any]) -> None:
    """Joins all topics, one connection each; tells when all have joined, and then what they heard."""
    from websockets.asyncio.client import connect

    headers = {"Authorization": f"Bearer {plan['token']}"} if plan["token"] else {}
    joined = asyncio.Semaphore(0)
    lags: list[float] = []
    deltas = 0

    async def follow(topic: str) -> None:
        nonlocal deltas
        async with connect(plan["address"], additional_headers=headers, compression=None, max_size=None) as opened:
            await opened.send(json.dumps({"topic": topic, "event": "join", "ref": 1, "payload": {}}))
            await opened.recv()
            joined.release()
            async for text in opened:
                now = time.monotonic()
                frame = json.loads(text)
                match frame["event"]:
                    case "llm_delta":
                        deltas += 1
                        lags.extend(now - float(word) for word in frame["payload"]["delta"].split())
                    case "llm_complete":
                        return

    async with asyncio.TaskGroup() as group:
        for topic in plan["topics"]:
            group.create_task(follow(topic))
        for _ in plan["topics"]:
            await joined.acquire()
        say("ready")
    say({"lags": lags, "deltas": deltas})


if __name__ == "__main__":
    asyncio.run(_follow_all(plan()))
