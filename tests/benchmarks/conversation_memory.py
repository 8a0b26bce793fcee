"""Memory for each open conversation.

A thousand conversations of 20 messages each are followed at once, as a surface follows what somebody has open. The figures are
what Python allocated for each (tracemalloc): for following it, and with the snapshot that the surface keeps in order to show it.
The reference is the size of its text.
"""

import asyncio
import gc
import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from uuid import UUID

from core.access import Principal
from core.follow import Follower
from core.frames import Frame
from onethread.bootstrap import App
from tests.benchmarks.databases import sqlite, writer
from tests.benchmarks.figures import Figure, Reference, Result
from tests.benchmarks.filling import TEXT, fill
from tests.benchmarks.subject import InstantModel, onethread

MESSAGES = 20
Keep = Callable[[Frame], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    conversations: int


FULL = Size(conversations=1_000)
QUICK = Size(conversations=50)


async def measure(size: Size) -> Sequence[Result]:
    async with sqlite() as url, onethread(url, model=InstantModel()) as app:
        async with app.storage.read() as uow:
            (project,) = await uow.projects.all()
        async with writer(url) as engine:
            warm_up, *ids = await fill(engine, await app.person(), project, [MESSAGES] * (size.conversations + 1))
        principal = await app.principal()
        await _grown(app, principal, [warm_up], _throw_away)
        followed = await _grown(app, principal, ids, _throw_away)
        snapshots: list[Frame] = []
        kept = await _grown(app, principal, ids, snapshots.append)
    text = Reference(name="its text", value=len(TEXT.encode()) * MESSAGES / 1000)
    return [
        Figure(name="a followed conversation", value=followed / 1000, unit="kB", reference=text),
        Figure(name="a followed conversation with its snapshot", value=kept / 1000, unit="kB", reference=text),
    ]


async def _grown(app: App, principal: Principal, ids: list[UUID], keep: Keep) -> float:
    """Bytes for each conversation while all are followed."""
    gc.collect()
    tracemalloc.start()
    async with asyncio.TaskGroup() as group, asyncio.timeout(300):
        arrived = asyncio.Semaphore(0)
        tasks = [group.create_task(_follow(app, principal, each, keep, arrived)) for each in ids]
        for _ in ids:
            await arrived.acquire()
        gc.collect()
        size, _ = tracemalloc.get_traced_memory()
        for task in tasks:
            task.cancel()
    tracemalloc.stop()
    return size / len(ids)


async def _follow(app: App, principal: Principal, conversation_id: UUID, keep: Keep, arrived: asyncio.Semaphore) -> None:
    follower = Follower(app.storage, app.live, principal, conversation_id)
    async with aclosing(follower.frames()) as frames:
        keep(await anext(frames))
        arrived.release()
        await anext(frames)


def _throw_away(_: Frame) -> None:
    pass
