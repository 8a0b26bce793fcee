"""CPU for each streamed chunk.

A provider in another process sends one answer in thousands of chunks as fast as they are taken. The figure is the CPU time of our
process, all threads together, from the post to the end of the turn: litellm, our client, the agent, the drafts once a second, and
a subscriber of the live events. The reference is the CPU time of a bare loop over litellm's stream of the same answer, in the
same process. Both take turns, and the medians are compared.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any
from uuid import UUID

from core.access import Principal
from core.llm.client import load
from onethread.bootstrap import App, working
from tests.benchmarks.databases import sqlite
from tests.benchmarks.figures import Comparison, Figure, Reference, Result, Target
from tests.benchmarks.provider import model, provider
from tests.benchmarks.stamps import stamped_lags
from tests.benchmarks.subject import bare_stream, new_conversations, onethread, post


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    chunks: int
    rounds: int


WARM_UP_CHUNKS = 200
FULL = Size(chunks=5_000, rounds=5)
QUICK = Size(chunks=1_000, rounds=1)


async def measure(size: Size) -> Sequence[Result]:
    litellm = load()
    async with provider() as api_base, sqlite() as url, onethread(url, api_base=api_base) as app, working(app):
        principal = await app.principal()
        (warm_up, *ids) = await new_conversations(app, principal, size.rounds + 1)
        await _bare(litellm, api_base, WARM_UP_CHUNKS)
        await _ours(app, principal, warm_up, WARM_UP_CHUNKS)
        bare, ours = [], []
        for conversation_id in ids:
            bare.append(await _bare(litellm, api_base, size.chunks))
            ours.append(await _ours(app, principal, conversation_id, size.chunks))
    return [
        Figure(
            name="CPU for each chunk, from the provider's socket to a subscriber",
            value=median(ours),
            unit="µs",
            reference=Reference(name="bare litellm", value=median(bare)),
            target=Target(comparison=Comparison.RATIO_AT_MOST, bound=1.25),
        )
    ]


async def _bare(litellm: Any, api_base: str, chunks: int) -> float:
    began = time.process_time()
    heard = 0
    async for chunk in await bare_stream(litellm, api_base, model(chunks)):
        heard += bool(chunk.choices and chunk.choices[0].delta.content)
    assert heard == chunks
    return (time.process_time() - began) / chunks * 1e6


async def _ours(app: App, principal: Principal, conversation_id: UUID, chunks: int) -> float:
    with app.live.subscribe(conversation_id) as events:
        began = time.process_time()
        await post(app, principal, conversation_id, "Count.", model=model(chunks))
        heard = len(await stamped_lags(events))
    assert heard == chunks
    return (time.process_time() - began) / chunks * 1e6
