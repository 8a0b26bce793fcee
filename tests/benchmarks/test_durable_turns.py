"""How fast turns are stored, queued, answered by an instant model and saved."""

import asyncio
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from core import conversations, messages
from core.access import Principal
from core.events import TurnChanged
from core.models import TokenUsage, TurnStatus
from core.ports import ModelRequest, RoundEnd, TextChunk
from onethread.bootstrap import App, running, working
from onethread.settings import Settings

CONVERSATIONS = 20
TURNS = 400
COMMITS_IN_A_TURN = 3
"""Post, claim and finish at the very least."""


class InstantModel:
    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextChunk | RoundEnd, None]:
        yield TextChunk("Done.")
        usage = TokenUsage(tokens_in=1, tokens_out=1, tokens_cached=0, cost=None, estimated=True)
        yield RoundEnd(text="Done.", tool_requests=(), finish_reason="stop", usage=usage)

    async def count_tokens(self, request: ModelRequest) -> int:
        return 1

    async def context_window(self, model: str) -> int:
        return 128_000


async def test_durable_turns_against_bare_commits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(data_dir=tmp_path, model="instant/model", messages_per_minute=1_000_000)
    async with running(settings, model=InstantModel()) as app:
        principal = await app.principal()
        commits = await _commits_per_second(app)
        turns = await _turns_per_second(app, principal)
        commits = max(commits, await _commits_per_second(app))
    ratio = turns / (commits / COMMITS_IN_A_TURN)
    with capsys.disabled():
        print(f"\ndurable turns: {turns:.0f}/s; bare commits: {commits:.0f}/s; ratio to a third of them: {ratio:.2f}")  # noqa: T201
    assert turns > 0


async def _commits_per_second(app: App) -> float:
    began = time.perf_counter()
    for _ in range(TURNS):
        async with app.storage.write() as uow:
            await uow.pauses.remove("nothing")
            await uow.projects.next_task_number((await uow.projects.all())[0].id)
    return TURNS / (time.perf_counter() - began)


async def _turns_per_second(app: App, principal: Principal) -> float:
    async with app.storage.write() as uow:
        ids = [(await conversations.create(uow, principal)).id for _ in range(CONVERSATIONS)]
    began = time.perf_counter()
    with app.live.subscribe(size=100_000) as events:
        async with working(app):
            for number in range(TURNS):
                async with app.storage.write() as uow:
                    await messages.post(uow, principal, ids[number % CONVERSATIONS], "Hello", rules=app.rules, source="bench")
            finished = 0
            async with asyncio.timeout(120):
                while finished < TURNS:
                    match await events.get():
                        case TurnChanged(status=TurnStatus.SUCCEEDED):
                            finished += 1
            return TURNS / (time.perf_counter() - began)
