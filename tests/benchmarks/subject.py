"""The Onethread that is measured, and what people do with it."""

import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from core import conversations, messages
from core.access import Principal
from core.events import TurnChanged
from core.live import Subscription
from core.models import Posted, TokenUsage, TurnStatus
from core.ports import ModelRequest, RoundEnd, TextChunk
from onethread import logs
from onethread.bootstrap import App, running
from onethread.settings import Settings

NO_USAGE = TokenUsage(tokens_in=1, tokens_out=1, tokens_cached=0, cost=None, estimated=True)


class InstantModel:
    """Says at once what the person said last."""

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextChunk | RoundEnd, None]:
        said = str(request.messages[-1]["content"]).split("\n\n<context>")[0]
        yield TextChunk(said)
        yield RoundEnd(text=said, tool_requests=(), finish_reason="stop", usage=NO_USAGE)

    async def count_tokens(self, request: ModelRequest) -> int:
        return 1

    async def context_window(self, model: str) -> int:
        return 128_000

    async def image_types(self, model: str) -> frozenset[str]:
        return frozenset()


class TurnFailed(Exception):
    """A turn under measurement did not succeed."""


@asynccontextmanager
async def onethread(url: str, *, api_base: str | None = None, **overrides: Any) -> AsyncIterator[App]:
    """Onethread on the database at `url`, logging to a file as `onethread chat` does. Its worker runs only inside `working(app)`."""
    with tempfile.TemporaryDirectory() as directory:
        settings = Settings(
            data_dir=Path(directory),
            database_url=url,
            model="instant/model",
            model_api_base=api_base,
            worker_concurrency=1_000,
            messages_per_minute=1_000_000,
        )
        logs.to_file(settings.log_file, "console")
        async with running(settings, isolated_run=None, **overrides) as app:
            yield app


async def new_conversations(app: App, principal: Principal, count: int) -> list[UUID]:
    async with app.storage.write() as uow:
        return [(await conversations.create(uow, principal)).id for _ in range(count)]


async def post(app: App, principal: Principal, conversation_id: UUID, text: str, *, model: str | None = None) -> Posted:
    async with app.storage.write() as uow:
        return await messages.post(uow, principal, conversation_id, text, rules=app.rules, source="bench", model=model)


async def ended(events: Subscription, turns: int) -> int:
    """Waits until so many turns have ended; how many of them did not succeed."""
    failed = 0
    while turns:
        match await events.get():
            case TurnChanged(status=status) if status.finished:
                turns -= 1
                failed += status is not TurnStatus.SUCCEEDED
    return failed


async def bare_commits_per_second(app: App, count: int) -> float:
    """Transactions through the same storage layer, each changing one row, one after another."""
    async with app.storage.read() as uow:
        (project,) = await uow.projects.all()
    began = time.perf_counter()
    for _ in range(count):
        async with app.storage.write() as uow:
            await uow.projects.update(project.id)
    return count / (time.perf_counter() - began)


async def bare_stream(litellm: Any, api_base: str, model: str) -> Any:
    """What one would write without Onethread."""
    messages = [{"role": "user", "content": "Count."}]
    return await litellm.acompletion(
        model=model, messages=messages, stream=True, stream_options={"include_usage": True}, api_base=api_base, api_key="none"
    )
