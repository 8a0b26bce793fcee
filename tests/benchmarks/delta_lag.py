"""Lag of a word among a hundred conversations.

A hundred conversations are answered at once, by a model inside the process that says 20 words a second in each. The lag is the
time from the model's word to the subscriber who hears it; up to 50 ms of it are meant, because words that come within 50 ms go
out together. The start, when all are posted and claimed at once, is included. The reference is the lag of the same words, read
from the models by bare loops: how late this machine wakes a hundred timers.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from core.llm.client import load
from core.ports import ModelRequest, RoundEnd, TextChunk
from onethread.bootstrap import working
from tests.benchmarks.databases import sqlite
from tests.benchmarks.figures import Comparison, Figure, Reference, Result, Target, percentile95
from tests.benchmarks.stamps import lags_at_once, stamp
from tests.benchmarks.subject import NO_USAGE, onethread

WORDS_PER_SECOND = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    conversations: int
    seconds: float


FULL = Size(conversations=100, seconds=15)
QUICK = Size(conversations=10, seconds=1)


class PacedModel:
    """Says a stamp 20 times a second."""

    def __init__(self, words: int) -> None:
        self._words = words

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextChunk | RoundEnd, None]:
        said = []
        async for word in paced(self._words):
            said.append(word)
            yield TextChunk(word)
        yield RoundEnd(text="".join(said), tool_requests=(), finish_reason="stop", usage=NO_USAGE)

    async def count_tokens(self, request: ModelRequest) -> int:
        return 1

    async def context_window(self, model: str) -> int:
        return 128_000

    async def image_types(self, model: str) -> frozenset[str]:
        return frozenset()


async def paced(words: int) -> AsyncGenerator[str, None]:
    began = time.monotonic()
    for number in range(words):
        await asyncio.sleep(began + number / WORDS_PER_SECOND - time.monotonic())
        yield stamp()


async def measure(size: Size) -> Sequence[Result]:
    await asyncio.to_thread(load)  # as in every worker: litellm's objects burden the garbage collector
    words = int(size.seconds * WORDS_PER_SECOND)
    bare = [lag for lags in await asyncio.gather(*(_bare(words) for _ in range(size.conversations))) for lag in lags]
    async with sqlite() as url, onethread(url, model=PacedModel(words)) as app, working(app):
        ours = await lags_at_once(app, await app.principal(), size.conversations)
    assert len(ours) == size.conversations * words
    return [
        Figure(
            name=f"lag of a word, {size.conversations} conversations, 95th percentile",
            value=percentile95(ours) * 1000,
            unit="ms",
            reference=Reference(name="bare loops", value=percentile95(bare) * 1000),
            target=Target(comparison=Comparison.VALUE_AT_MOST, bound=100),
        )
    ]


async def _bare(words: int) -> list[float]:
    """How late each word comes, against the beat."""
    began = time.monotonic()
    return [float(word) - began - number / WORDS_PER_SECOND async for number, word in _numbered(words)]


async def _numbered(words: int) -> AsyncGenerator[tuple[int, str], None]:
    number = 0
    async for word in paced(words):
        yield number, word
        number += 1
