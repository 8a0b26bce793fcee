"""Streams that one process holds through litellm.

A provider in another process sends 20 chunks a second in each of 25, 50, 75, 100 and 150 answers at once. The figure is the
largest of these numbers at which a chunk needs less than 150 ms from the provider to a subscriber, at the 95th percentile, all of
them including the start. The reference is the number at which litellm alone would keep a core busy: its CPU time for each chunk,
measured by a bare loop in the same run, against 20 chunks a second.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.llm.client import load
from onethread.bootstrap import App, working
from tests.benchmarks.databases import sqlite
from tests.benchmarks.figures import Figure, Reference, Result, percentile95
from tests.benchmarks.provider import model, provider
from tests.benchmarks.stamps import lags_at_once
from tests.benchmarks.subject import bare_stream, onethread

CHUNKS_PER_SECOND = 20
LAG_SECONDS = 0.15
BARE_CHUNKS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    streams: tuple[int, ...]
    seconds: float


FULL = Size(streams=(25, 50, 75, 100, 150), seconds=10)
QUICK = Size(streams=(2, 5), seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    streams: int
    lag: float
    cpu_share: float


async def measure(size: Size) -> Sequence[Result]:
    litellm = load()
    async with provider() as api_base, sqlite() as url, onethread(url, api_base=api_base) as app, working(app):
        await _bare_cpu_seconds(litellm, api_base, 100)  # warms up
        alone = 1 / (await _bare_cpu_seconds(litellm, api_base, BARE_CHUNKS) * CHUNKS_PER_SECOND)
        held = await _most(app, size)
    beside = Reference(name="bare litellm on one core", value=alone)
    return [
        Figure(name="streams held", value=held.streams, unit="streams", reference=beside),
        Figure(name=f"share of a core at {held.streams} streams", value=held.cpu_share, unit="cores", reference=_share(held, alone)),
        Figure(name=f"lag at {held.streams} streams, 95th percentile", value=held.lag * 1000, unit="ms", reference=_bound()),
    ]


def _share(held: Held, alone: float) -> Reference:
    return Reference(name="bare litellm", value=held.streams / alone)


def _bound() -> Reference:
    return Reference(name="the bound", value=LAG_SECONDS * 1000)


async def _bare_cpu_seconds(litellm: Any, api_base: str, chunks: int) -> float:
    began = time.process_time()
    async for _ in await bare_stream(litellm, api_base, model(chunks)):
        pass
    return (time.process_time() - began) / chunks


async def _most(app: App, size: Size) -> Held:
    """The last number of streams that is held, or the first if none is."""
    best = await _hold(app, size.streams[0], size.seconds)
    for streams in size.streams[1:]:
        if best.lag >= LAG_SECONDS:
            return best
        held = await _hold(app, streams, size.seconds)
        if held.lag >= LAG_SECONDS:
            return best
        best = held
    return best


async def _hold(app: App, streams: int, seconds: float) -> Held:
    chunks = int(seconds * CHUNKS_PER_SECOND)
    cpu, wall = time.process_time(), time.perf_counter()
    lags = await lags_at_once(app, await app.principal(), streams, model=model(chunks, gap_ms=1000 // CHUNKS_PER_SECOND))
    cpu_share = (time.process_time() - cpu) / (time.perf_counter() - wall)
    return Held(streams=streams, lag=percentile95(lags), cpu_share=cpu_share)
