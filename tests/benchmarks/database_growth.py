"""A page of history and a claim, in a small database and in a big one.

The database holds a thousand messages, then a million; every turn has ended. The long conversation in it has 500 messages, then
10,000, the others 50 each. Figures are medians of many: reading 50 messages at the end and in the middle of the long
conversation, and claiming a turn that was just posted, without the commit (which costs the same in both). The reference is the
same in the small database.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from statistics import median
from uuid import UUID

from core import turns
from core.ids import new_id
from core.models import Turn
from core.ports import UnitOfWork
from core.turns import ClaimRules
from onethread.bootstrap import App
from tests.benchmarks.databases import on_each, writer
from tests.benchmarks.figures import Comparison, Figure, Reference, Result, Target
from tests.benchmarks.filling import fill
from tests.benchmarks.subject import InstantModel, new_conversations, onethread, post

OTHER = 50
PAGE = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    messages: int
    longest: int

    @property
    def lengths(self) -> list[int]:
        return [self.longest, *[OTHER] * ((self.messages - self.longest) // OTHER)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    big: Contents
    times: int


SMALL = Contents(messages=1_000, longest=500)
FULL = Size(big=Contents(messages=1_000_000, longest=10_000), times=300)
QUICK = Size(big=Contents(messages=5_000, longest=2_000), times=20)


class _NotDone(Exception):
    """Rolls a claim back, so that the same turn can be claimed again."""


async def measure(size: Size) -> Sequence[Result]:
    async def on_database(database: str, url: str) -> Sequence[Result]:
        async with onethread(url, model=InstantModel()) as app:
            small = await _milliseconds(app, await _filled(app, url, SMALL), SMALL, size.times)
            big = await _milliseconds(app, await _filled(app, url, size.big), size.big, size.times)
        return [_figure(f"{what}, {size.big.messages:,} messages, {database}", big[what], small[what]) for what in small]

    return await on_each("a page of history and a claim", on_database)


def _figure(name: str, big: float, small: float) -> Figure:
    return Figure(
        name=name,
        value=big,
        unit="ms",
        reference=Reference(name=f"at {SMALL.messages:,}", value=small),
        target=Target(comparison=Comparison.RATIO_AT_MOST, bound=1.5),
    )


async def _filled(app: App, url: str, contents: Contents) -> UUID:
    """The long conversation."""
    async with app.storage.read() as uow:
        (project,) = await uow.projects.all()
    async with writer(url) as engine:
        return (await fill(engine, await app.person(), project, contents.lengths))[0]


async def _milliseconds(app: App, conversation_id: UUID, contents: Contents, times: int) -> dict[str, float]:
    principal = await app.principal()
    (fresh,) = await new_conversations(app, principal, 1)
    posted = await post(app, principal, fresh, "Hello")
    found = {
        "a page at the end": await _median(app.storage.read, lambda uow: uow.messages.page(conversation_id, limit=PAGE), times),
        "a page in the middle": await _median(
            app.storage.read, lambda uow: uow.messages.page(conversation_id, before=contents.longest // 2, limit=PAGE), times
        ),
        "a claim": await _median(lambda: _undone(app), _claim, times),
    }
    assert posted.turn_id
    async with app.storage.write() as uow:
        await turns.cancel(uow, principal, posted.turn_id)
    return found


async def _median(
    begin: Callable[[], AbstractAsyncContextManager[UnitOfWork]], work: Callable[[UnitOfWork], Awaitable[object]], times: int
) -> float:
    """Milliseconds that `work` takes inside its transaction."""
    took = []
    for _ in range(times):
        async with begin() as uow:
            began = time.perf_counter()
            result = await work(uow)
            took.append((time.perf_counter() - began) * 1000)
        assert result
    return median(took)


async def _claim(uow: UnitOfWork) -> list[Turn]:
    return await turns.claim(uow, new_id(), ClaimRules(lease_seconds=60), limit=1)


@asynccontextmanager
async def _undone(app: App) -> AsyncIterator[UnitOfWork]:
    try:
        async with app.storage.write() as uow:
            yield uow
            raise _NotDone
    except _NotDone:
        pass
