"""A page of history and a claim, in a small database and in a big one.

One database holds a thousand messages, another a million; every turn in them has ended. The long conversation in each has 500
messages, and 10,000; the others have 50. The figures are medians of many: reading 50 messages at the end and in the middle of the
long conversation, and claiming a turn that was just posted, without the commit (which costs the same in both). The reference is the
same in the small database; both take turns.
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
from tests.benchmarks.databases import DATABASES, on_each, writer
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A database with what was put there."""

    app: App
    contents: Contents
    long: UUID
    """The long conversation."""

    async def milliseconds(self) -> dict[str, float]:
        """What each piece of work takes inside its transaction."""
        pages, middle = self.app.storage.read, self.contents.longest // 2
        return {
            "a page at the end": await _took(pages, lambda uow: uow.messages.page(self.long, limit=PAGE)),
            "a page in the middle": await _took(pages, lambda uow: uow.messages.page(self.long, before=middle, limit=PAGE)),
            "a claim": await _took(lambda: _undone(self.app), _claim),
        }


async def measure(size: Size) -> Sequence[Result]:
    async def on_database(database: str, url: str) -> Sequence[Result]:
        async with DATABASES[database]() as other, _filled(other, SMALL) as small, _filled(url, size.big) as big:
            took = [(await small.milliseconds(), await big.milliseconds()) for _ in range(size.times)]
        at_small, at_big = (_medians(each) for each in zip(*took, strict=True))
        return [_figure(f"{what}, {size.big.messages:,} messages, {database}", at_big[what], at_small[what]) for what in at_small]

    return await on_each("a page of history and a claim", on_database)


def _figure(name: str, big: float, small: float) -> Figure:
    return Figure(
        name=name,
        value=big,
        unit="ms",
        reference=Reference(name=f"at {SMALL.messages:,}", value=small),
        target=Target(comparison=Comparison.RATIO_AT_MOST, bound=1.5),
    )


@asynccontextmanager
async def _filled(url: str, contents: Contents) -> AsyncIterator[Place]:
    async with onethread(url, model=InstantModel()) as app:
        async with app.storage.read() as uow:
            (project,) = await uow.projects.all()
        async with writer(url) as engine:
            long, *_ = await fill(engine, await app.person(), project, contents.lengths)
        principal = await app.principal()
        (fresh,) = await new_conversations(app, principal, 1)
        await post(app, principal, fresh, "Hello")
        yield Place(app=app, contents=contents, long=long)


def _medians(took: Sequence[dict[str, float]]) -> dict[str, float]:
    return {what: median(each[what] for each in took) for what in took[0]}


async def _took(begin: Callable[[], AbstractAsyncContextManager[UnitOfWork]], work: Callable[[UnitOfWork], Awaitable[object]]) -> float:
    async with begin() as uow:
        began = time.perf_counter()
        result = await work(uow)
        took = (time.perf_counter() - began) * 1000
    assert result
    return took


async def _claim(uow: UnitOfWork) -> list[Turn]:
    return (await turns.claim(uow, new_id(), ClaimRules(lease_seconds=60), limit=1)).turns


@asynccontextmanager
async def _undone(app: App) -> AsyncIterator[UnitOfWork]:
    try:
        async with app.storage.write() as uow:
            yield uow
            raise _NotDone
    except _NotDone:
        pass
