"""What can be built into a worker process to break it: a death at a named point, a message that kills, a queue without its fence.

It is applied in the worker's own process, never in the test's.
"""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from sqlalchemy import update

from core.events import StateEvent, TaskChanged, ToolCallChanged, TurnChanged
from core.models import Summary, TurnStatus
from core.ports import ChatModel, Draft, Lease, ModelRequest, RoundEnd, TextChunk
from core.tools import agent as agent_tools
from core.tools import tasks as task_tools
from core.tools.registry import Tool
from onethread import bootstrap
from storage import repositories, schema
from storage.repositories import Messages, Summaries
from storage.turn_queue import TurnQueue
from storage.unit_of_work import Database, UnitOfWork

CHUNKS_BEFORE_DEATH = 6


class Point(StrEnum):
    """Where a worker process dies by its own hand."""

    AFTER_CLAIM = "after the claim"
    AFTER_BEGIN_STREAM = "after begin_stream, before the provider is asked"
    IN_MID_STREAM = "in the middle of the text"
    AFTER_A_DRAFT = "in the middle of the text, after a draft was stored"
    BEFORE_THE_STEP = "in the transaction that stores the first round"
    AFTER_THE_STEP = "after the first round was stored, before its tools"
    BEFORE_THE_TOOLS_COMMIT = "in the first tool's transaction"
    AFTER_THE_TOOLS_COMMIT = "after the first tool's transaction"
    AFTER_THE_SECOND_TOOL = "after the second tool's transaction"
    BEFORE_FINISH = "in the transaction that finishes the turn"
    AFTER_FINISH = "after the turn was finished"
    BEFORE_THE_SUMMARYS_COMMIT = "in the transaction that stores a summary"
    AFTER_THE_SUMMARYS_COMMIT = "after a summary was stored, before it is used"
    WHILE_PARKED = "while the turn waits for an approval"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sabotage:
    dies: Point | None = None
    poison: str = ""
    """The process dies when it is to answer a message with this text."""
    unfenced: bool = False
    """Nothing asks any more whether the lease still holds: the negative control."""
    asks_approval: bool = False
    """create_task needs a person's approval. No sabotage, but the point WHILE_PARKED needs it."""
    window_tokens: int = 0
    """The model's context window, where it is to be smaller than it is. No sabotage, but summaries need it."""


def overrides(sabotage: Sabotage) -> dict[str, Any]:
    """What `bootstrap.running` is given; also does what cannot be given."""
    if sabotage.unfenced:
        TurnQueue.fence = _unfenced  # type: ignore[method-assign]
        Messages.save_drafts = _save_any_drafts  # type: ignore[method-assign]
    if sabotage.dies:
        _DyingDatabase.dies = sabotage.dies
        bootstrap.Database = _DyingDatabase  # type: ignore[attr-defined]
        repositories.Summaries = _Summaries  # type: ignore[misc]
    tools = (*task_tools.TOOLS, *agent_tools.TOOLS)
    return {"tools": [_asking(tool) for tool in tools]} if sabotage.asks_approval else {}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class DyingModel:
    """Passes everything on to `model` until it is time to die."""

    def __init__(self, model: ChatModel, sabotage: Sabotage) -> None:
        self._model = model
        self._sabotage = sabotage

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextChunk | RoundEnd, None]:
        if self._sabotage.dies is Point.AFTER_BEGIN_STREAM or self._is_poison(request):
            die()
        chunks = 0
        async with aclosing(self._model.stream(request)) as items:
            async for item in items:
                yield item
                chunks += isinstance(item, TextChunk)
                if chunks == CHUNKS_BEFORE_DEATH and request.messages[-1]["role"] == "tool":
                    await self._die_in_the_text()

    async def count_tokens(self, request: ModelRequest) -> int:
        return await self._model.count_tokens(request)

    async def context_window(self, model: str) -> int:
        return self._sabotage.window_tokens or await self._model.context_window(model)

    async def image_types(self, model: str) -> frozenset[str]:
        return await self._model.image_types(model)

    async def _die_in_the_text(self) -> None:
        match self._sabotage.dies:
            case Point.IN_MID_STREAM:
                die()
            case Point.AFTER_A_DRAFT:
                await asyncio.sleep(1.5)  # drafts are stored once a second
                die()

    def _is_poison(self, request: ModelRequest) -> bool:
        said = [str(message["content"]) for message in request.messages if message["role"] == "user"]
        return bool(self._sabotage.poison) and said[-1].startswith(self._sabotage.poison)


class _Summaries(Summaries):
    """Remembers whether one was stored in this transaction, which no event reports."""

    stored = False

    async def add(self, summary: Summary) -> None:
        await super().add(summary)
        self.stored = True


class _DyingDatabase(Database):
    """Knows a transaction by what it reports."""

    dies: Point
    _tools_done = 0

    @asynccontextmanager
    async def write(self) -> AsyncIterator[UnitOfWork]:
        async with super().write() as unit:
            yield unit
            happened = {*self._points(unit.events), *_stored_summary(unit)}
            if self.dies in happened and self.dies.name.startswith("BEFORE"):
                die()
        if self.dies in happened:
            die()

    def _points(self, events: Iterable[StateEvent]) -> Iterator[Point]:
        for event in events:
            match event:
                case TurnChanged(status=TurnStatus.RUNNING):
                    yield Point.AFTER_CLAIM
                case TurnChanged(status=TurnStatus.SUCCEEDED):
                    yield from (Point.BEFORE_FINISH, Point.AFTER_FINISH)
                case TurnChanged(status=TurnStatus.WAITING):
                    yield Point.WHILE_PARKED
                case TaskChanged():
                    type(self)._tools_done += 1
                    yield from (Point.BEFORE_THE_TOOLS_COMMIT, Point.AFTER_THE_TOOLS_COMMIT)
                    yield from [Point.AFTER_THE_SECOND_TOOL] if self._tools_done == 2 else []
                case ToolCallChanged(index=1) if not self._tools_done:
                    yield from (Point.BEFORE_THE_STEP, Point.AFTER_THE_STEP)


def _stored_summary(unit: UnitOfWork) -> Iterator[Point]:
    if isinstance(unit.summaries, _Summaries) and unit.summaries.stored:
        yield from (Point.BEFORE_THE_SUMMARYS_COMMIT, Point.AFTER_THE_SUMMARYS_COMMIT)


async def _unfenced(self: TurnQueue, lease: Lease) -> Any:
    return await self.lock(lease.turn_id)


async def _save_any_drafts(self: Messages, drafts: Iterable[Draft]) -> list[Draft]:
    saved = list(drafts)
    for draft in saved:
        message = schema.messages
        await self._connection.execute(update(message).where(message.c.id == draft.reply_id).values(content=draft.text))
    return saved


def _asking(tool: Tool) -> Tool:
    return replace(tool, needs_approval=tool.name == "create_task")
