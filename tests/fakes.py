"""Stand-ins for what lies outside Onethread: the time and the language model. Nothing of ours is faked; the database is a real one."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from core import turns
from core.ids import new_id
from core.llm import summary
from core.models import JSON, TokenUsage, ToolRequest, Turn
from core.ports import ModelRequest, RoundEnd, TextChunk, UnitOfWork
from core.turns import ClaimRules

USAGE = TokenUsage(tokens_in=10, tokens_out=5, tokens_cached=2, cost=Decimal("0.0010"), estimated=False)
"""What each round of the ScriptedModel costs."""


class ManualClock:
    """A clock that stands still until a test moves it. It begins today: apscheduler, which has its own, would catch up on a past one."""

    def __init__(self) -> None:
        self._now = datetime.now(UTC).replace(microsecond=0)

    def now(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)


class Gate:
    """A place in a stream where the model stops until the test lets it go on."""

    def __init__(self) -> None:
        self._reached = asyncio.Event()
        self._opened = asyncio.Event()

    async def reached(self, seconds: float = 30) -> None:
        """Waits until a stream has come to this place."""
        async with asyncio.timeout(seconds):
            await self._reached.wait()

    @property
    def was_reached(self) -> bool:
        return self._reached.is_set()

    def open(self) -> None:
        self._opened.set()

    async def passing(self) -> None:
        """What a stream does here."""
        self._reached.set()
        await self._opened.wait()


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call of the model. `arguments` may be broken JSON text."""

    name: str
    arguments: JSON | str = field(default_factory=dict)
    call_id: str = ""


@dataclass(frozen=True, slots=True)
class Thinks:
    """A provider's signed thinking block."""

    block: JSON


CUT = "\x00the stream ends here without its end\x00"
"""As the last item of a round: the stream stops and no RoundEnd comes."""

Item = str | Call | Thinks | Gate | Exception
Script = Callable[[ModelRequest], Sequence[Item]]


class ScriptedModel:
    """A ChatModel that says what the test told it to.

    Each round is a sequence of items in the order of the stream: text pieces, `Gate`s at which it stops, exceptions that it raises,
    `Call`s and `Thinks` that come with its end, `CUT`. `will` queues rounds; when none is queued, `script` makes one from the request.
    """

    def __init__(self, script: Script | None = None) -> None:
        self.requests: list[ModelRequest] = []
        self.open_streams = 0
        self.window_tokens = 128_000
        self.sees: frozenset[str] = frozenset()
        """Media types of images."""
        self.count: Callable[[ModelRequest], int] = lambda request: sum(len(str(each)) for each in request.messages) // 4
        self._script = script or (lambda _: ("OK.",))
        self._rounds: deque[tuple[Item, ...]] = deque()

    def will(self, *items: Item) -> "ScriptedModel":
        """Queues one round."""
        self._rounds.append(items)
        return self

    @property
    def calls(self) -> int:
        """How often it was asked."""
        return len(self.requests)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextChunk | RoundEnd, None]:
        self.requests.append(request)
        items = self._rounds.popleft() if self._rounds else tuple(self._script(request))
        self.open_streams += 1
        try:
            for item in items:
                match item:
                    case Exception():
                        raise item
                    case Gate():
                        await item.passing()
                    case str() if item == CUT:
                        return
                    case str():
                        yield TextChunk(item)
            yield _end(items)
        finally:
            self.open_streams -= 1

    async def count_tokens(self, request: ModelRequest) -> int:
        return self.count(request)

    async def context_window(self, model: str) -> int:
        return self.window_tokens

    async def image_types(self, model: str) -> frozenset[str]:
        return self.sees


def said(request: ModelRequest) -> list[str]:
    """What the people in a request said, the agent's notes on time and task and the summary left out."""
    texts = [str(message["content"]) for message in request.messages if message["role"] == "user"]
    return [text.split("\n\n<context>")[0] for text in texts if not text.startswith("<summary>")]


def summarised(request: ModelRequest) -> str:
    """What a request tells of what was said before; empty where it tells nothing."""
    texts = [str(message["content"]) for message in request.messages if str(message["content"]).startswith("<summary>")]
    return texts[0].removesuffix("\n</summary>").partition("\n\n")[2] if texts else ""


def asks_for_summary(request: ModelRequest) -> bool:
    return bool(request.messages[0]["content"] == summary.INSTRUCTIONS)


def results(request: ModelRequest) -> list[Any]:
    """The tool results in a request, parsed."""
    return [json.loads(message["content"]) for message in request.messages if message["role"] == "tool"]


def _end(items: Sequence[Item]) -> RoundEnd:
    calls = [item for item in items if isinstance(item, Call)]
    return RoundEnd(
        text="".join(item for item in items if isinstance(item, str)),
        tool_requests=tuple(_request(call, number) for number, call in enumerate(calls)),
        finish_reason="tool_calls" if calls else "stop",
        usage=USAGE,
        thinking=tuple(item.block for item in items if isinstance(item, Thinks)),
    )


def _request(call: Call, number: int) -> ToolRequest:
    arguments = call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments)
    return ToolRequest(call_id=call.call_id or f"call_{number}", name=call.name, arguments=arguments)


async def claim_one(uow: UnitOfWork, worker: UUID | None = None, *, seconds: float = 60, suspects: bool = False) -> Turn | None:
    """What a worker with one free slot claims."""
    rules = ClaimRules(lease_seconds=seconds, suspects=suspects)
    return next(iter((await turns.claim(uow, worker or new_id(), rules, limit=1)).turns), None)


class PlainPasswords:
    """A PasswordHasher that costs nothing. `compared` tells what it was asked to compare with, each time."""

    def __init__(self) -> None:
        self.compared: list[str | None] = []

    async def hash(self, password: str) -> str:
        await asyncio.sleep(0)
        return f"plain:{password}"

    async def verify(self, password: str, hashed: str | None) -> bool:
        self.compared.append(hashed)
        await asyncio.sleep(0)
        return hashed == f"plain:{password}"
