"""How stale streams are that are shown by edits, beside the best schedule that the same trace allows under the same budget.

Staleness is the age of the oldest text that exists and is not shown, averaged over time and over all streams.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from core import bindings
from core.events import TextDelta
from core.models import Place
from core.ports import ModelRequest, RoundEnd, TextChunk
from onethread.bootstrap import App
from tests.benchmarks.subject import NO_USAGE

WORDS = ("time", "tide", "wait", "none", "ever", "song", "rain", "leaf")


@dataclass(slots=True)
class Stream:
    """One reply: when which length of its text was there, and when which was shown. Seconds of the clock, the oldest first."""

    written: list[tuple[float, int]] = field(default_factory=list)
    shown: list[tuple[float, int]] = field(default_factory=list)

    def there(self, at: float) -> int:
        return next((length for when, length in reversed(self.written) if when <= at), 0)

    def written_at(self, length: int) -> float:
        """When text beyond this length came."""
        return next((when for when, reached in self.written if reached > length), float("inf"))


def staleness(streams: Sequence[Stream]) -> float:
    """Seconds."""
    return sum(map(_staleness, streams)) / len(streams)


def _staleness(stream: Stream) -> float:
    """The mean over the time from the first word to the moment when all is shown."""
    area = 0.0
    begin = stream.written[0][0]
    shown, since = 0, begin
    for at, length in stream.shown:
        waits_since = max(stream.written_at(shown), since)
        if at > waits_since:
            oldest = stream.written_at(shown)
            area += ((at - oldest) ** 2 - (waits_since - oldest) ** 2) / 2
        shown, since = max(shown, length), max(at, since)
    return area / max(since - begin, 1e-9)


def greedy(streams: Sequence[Stream], interval: float) -> list[tuple[Stream, list[tuple[float, int]]]]:
    """For each stream what would be shown by one edit every `interval` seconds, for whoever's text has waited longest.

    The first text is shown when it was really posted: posts do not count as edits.
    """
    shown = {id(each): [each.shown[0]] for each in streams}
    at = min(each.shown[0][0] for each in streams)
    while True:
        waiting = [(each.written_at(shown[id(each)][-1][1]), each) for each in streams]
        oldest, chosen = min(waiting, key=lambda pair: pair[0])
        if oldest == float("inf"):
            return [(each, shown[id(each)]) for each in streams]
        at = max(at + interval, oldest, chosen.shown[0][0])
        _, chosen = min(((each.written_at(shown[id(each)][-1][1]), each) for each in streams), key=lambda pair: pair[0])
        shown[id(chosen)].append((at, chosen.there(at)))


class Storyteller:
    """Tells each reply word by word, for as long as it is told, each at its own pace."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._pace = random.Random(20261126)

    async def stream(self, _: ModelRequest) -> AsyncGenerator[TextChunk | RoundEnd, None]:
        said: list[str] = []
        pause = self._pace.uniform(0.04, 0.12)
        ends = time.monotonic() + self._seconds
        while time.monotonic() < ends:
            said.append(f"{WORDS[len(said) % len(WORDS)]} ")
            yield TextChunk(said[-1])
            await asyncio.sleep(pause)
        yield RoundEnd(text="".join(said).rstrip(), tool_requests=(), finish_reason="stop", usage=NO_USAGE)

    async def count_tokens(self, _: ModelRequest) -> int:
        return 1

    async def context_window(self, _: str) -> int:
        return 128_000

    async def image_types(self, _: str) -> frozenset[str]:
        return frozenset()


async def watched(app: App, place: Place) -> Stream:
    """Follows the reply that is shown at a place to its end."""
    stream, conversation_id = Stream(), None
    with app.live.subscribe() as anything:
        async with asyncio.timeout(60):
            while conversation_id is None:
                async with app.storage.read() as uow:
                    binding = await bindings.at(uow, place)
                conversation_id = binding.conversation_id if binding else None
                if conversation_id is None:
                    await anything.get()
    with app.live.subscribe(conversation_id) as events:
        async with asyncio.timeout(180):
            while not await _ended(app, conversation_id):
                event: Any = await events.get()
                if isinstance(event, TextDelta):
                    stream.written.append((time.time(), event.offset + len(event.text.rstrip())))
    return stream


async def _ended(app: App, conversation_id: UUID) -> bool:
    async with app.storage.read() as uow:
        return not await uow.turns.unfinished(conversation_id)
