"""Durable turns per second.

A turn is a person's message with its answer: stored, queued, claimed by the worker, answered by a model that needs no time,
saved. At the very least that is three commits (post, claim, finish), each synced to the disk; so the reference is a third of the
bare commits per second on the same database: transactions through the same storage layer that change one row, one after another.
20 conversations of one user; posting is included. Turns and commits take turns, and the medians are compared.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from core.access import Principal
from onethread.bootstrap import App, working
from tests.benchmarks.databases import on_each
from tests.benchmarks.figures import Comparison, Figure, Reference, Result, Target
from tests.benchmarks.subject import InstantModel, bare_commits_per_second, ended, new_conversations, onethread, post

CONVERSATIONS = 20
COMMITS_IN_A_TURN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    turns: int
    rounds: int


FULL = Size(turns=400, rounds=3)
QUICK = Size(turns=40, rounds=1)


async def measure(size: Size) -> Sequence[Result]:
    async def on_database(database: str, url: str) -> Sequence[Result]:
        async with onethread(url, model=InstantModel()) as app, working(app):
            return [await _figure(app, database, size)]

    return await on_each("durable turns", on_database)


async def _figure(app: App, database: str, size: Size) -> Figure:
    principal = await app.principal()
    await _turns_per_second(app, principal, CONVERSATIONS)  # warms up
    commits, turns = [await bare_commits_per_second(app, size.turns)], []
    for _ in range(size.rounds):
        turns.append(await _turns_per_second(app, principal, size.turns))
        commits.append(await bare_commits_per_second(app, size.turns))
    return Figure(
        name=f"durable turns, {database}",
        value=median(turns),
        unit="/s",
        reference=Reference(name="a third of the bare commits", value=median(commits) / COMMITS_IN_A_TURN),
        target=Target(comparison=Comparison.RATIO_AT_LEAST, bound=0.6),
    )


async def _turns_per_second(app: App, principal: Principal, turns: int) -> float:
    ids = await new_conversations(app, principal, CONVERSATIONS)
    began = time.perf_counter()
    with app.live.subscribe(size=100_000) as events:
        async with asyncio.timeout(120):
            for number in range(turns):
                await post(app, principal, ids[number % len(ids)], "Hello")
            failed = await ended(events, turns)
    assert not failed
    return turns / (time.perf_counter() - began)
