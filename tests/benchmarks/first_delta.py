"""From a post to the first word.

The time from before a message is posted to the first delta at a subscriber, with a provider in another process that answers at
once; in it are the post's commit, the claim, the history, and the model call. The reference is the time from a bare litellm call
to its first chunk with text. Both take turns, each pair in a new conversation; the medians are compared.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any
from uuid import UUID

from core.access import Principal
from core.events import TextDelta
from core.llm.client import load
from onethread.bootstrap import App, working
from tests.benchmarks.databases import sqlite
from tests.benchmarks.figures import Comparison, Figure, Reference, Result, Target
from tests.benchmarks.provider import model, provider
from tests.benchmarks.subject import bare_stream, ended, new_conversations, onethread, post

WARM_UPS = 3
CHUNKS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    pairs: int


FULL = Size(pairs=60)
QUICK = Size(pairs=5)


async def measure(size: Size) -> Sequence[Result]:
    litellm = load()
    async with provider() as api_base, sqlite() as url, onethread(url, api_base=api_base) as app, working(app):
        principal = await app.principal()
        pairs = []
        for conversation_id in await new_conversations(app, principal, WARM_UPS + size.pairs):
            pairs.append((await _bare(litellm, api_base), await _ours(app, principal, conversation_id)))
    bare, ours = zip(*pairs[WARM_UPS:], strict=True)
    return [
        Figure(
            name="first delta after a post",
            value=median(ours) * 1000,
            unit="ms",
            reference=Reference(name="first chunk of bare litellm", value=median(bare) * 1000),
            target=Target(comparison=Comparison.EXCESS_AT_MOST, bound=20),
        )
    ]


async def _bare(litellm: Any, api_base: str) -> float:
    began = time.perf_counter()
    first = 0.0
    async for chunk in await bare_stream(litellm, api_base, model(CHUNKS)):
        if not first and chunk.choices and chunk.choices[0].delta.content:
            first = time.perf_counter() - began
    return first


async def _ours(app: App, principal: Principal, conversation_id: UUID) -> float:
    with app.live.subscribe(conversation_id) as events:
        async with asyncio.timeout(30):
            began = time.perf_counter()
            await post(app, principal, conversation_id, "Count.", model=model(CHUNKS))
            while not isinstance(await events.get(), TextDelta):
                pass
            first = time.perf_counter() - began
            failed = await ended(events, 1)
    assert not failed
    return first
