"""A whole Onethread in the test's process: a real database, a scripted model, and shorthand for what people do."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import pytest

from core import approvals, conversations, identity, messages, tasks, turns
from core.access import Principal
from core.models import AgentStatus, Approval, Conversation, Decision, Message, Posted, Step, Task, ToolCall, Turn, TurnStatus
from core.ports import TaskFilter, UnitOfWork
from core.retries import RetryPolicy
from core.worker import WorkerRules
from onethread.bootstrap import App, running, working
from onethread.settings import Settings
from tests.databases import NewDatabase
from tests.fakes import ScriptedModel

_T = TypeVar("_T")
MODEL = "one/model"
QUICK = RetryPolicy(backoff_seconds=0.02, pause_seconds=0.02)
RULES = WorkerRules(poll_seconds=0.02, heartbeat_seconds=0.1, retries=QUICK)


class World:
    def __init__(self, app: App, model: ScriptedModel, admin: Principal) -> None:
        self.app = app
        self.model = model
        self.admin = admin

    # --- people ---

    async def user(self, name: str, *, admin: bool = False) -> Principal:
        return identity.principal_of(await self.write(lambda uow: identity.add_user(uow, name, admin=admin)))

    async def chat(self, who: Principal | None = None, **fields: Any) -> Conversation:
        return await self.write(lambda uow: conversations.create(uow, who or self.admin, **fields))

    async def task(self, title: str, who: Principal | None = None, **fields: Any) -> Task:
        return await self.write(lambda uow: tasks.create(uow, who or self.admin, title, fields))

    async def post(self, conversation: UUID, text: str, who: Principal | None = None, **fields: Any) -> Posted:
        fields = {"rules": self.app.rules, "source": "test", **fields}
        return await self.write(lambda uow: messages.post(uow, who or self.admin, conversation, text, **fields))

    async def note(self, conversation: UUID, text: str, who: Principal | None = None) -> Posted:
        return await self.write(lambda uow: messages.note(uow, who or self.admin, conversation, text, rules=self.app.rules, source="test"))

    async def answer(self, question: Message, option: str, who: Principal | None = None) -> Posted:
        rules = self.app.rules
        return await self.write(lambda uow: messages.answer(uow, who or self.admin, question.id, option, rules=rules, source="test"))

    async def cancel(self, posted: Posted, who: Principal | None = None) -> Turn:
        return await self.write(lambda uow: turns.cancel(uow, who or self.admin, _id(posted.turn_id)))

    async def retry(self, posted: Posted, who: Principal | None = None) -> Posted:
        rules = self.app.rules
        return await self.write(lambda uow: messages.retry(uow, who or self.admin, _id(posted.turn_id), rules=rules, source="test"))

    async def edit(self, message_id: UUID, text: str, who: Principal | None = None) -> Message:
        return await self.write(lambda uow: messages.edit(uow, who or self.admin, message_id, text, rules=self.app.rules))

    async def delete(self, message_id: UUID | None, who: Principal | None = None) -> Message:
        return await self.write(lambda uow: messages.delete(uow, who or self.admin, _id(message_id)))

    async def decide(self, approval: Approval, decision: Decision, who: Principal | None = None) -> Approval:
        return await self.write(lambda uow: approvals.decide(uow, who or self.admin, approval.id, decision))

    # --- what is stored ---

    async def write(self, work: Callable[[UnitOfWork], Awaitable[_T]]) -> _T:
        async with self.app.storage.write() as uow:
            return await work(uow)

    async def read(self, work: Callable[[UnitOfWork], Awaitable[_T]]) -> _T:
        async with self.app.storage.read() as uow:
            return await work(uow)

    async def turn(self, posted: Posted) -> Turn:
        assert posted.turn_id
        turn = await self.read(lambda uow: uow.turns.get(_id(posted.turn_id)))
        assert turn
        return turn

    async def message(self, message_id: UUID | None) -> Message:
        message = await self.read(lambda uow: uow.messages.get(_id(message_id)))
        assert message
        return message

    async def reply(self, posted: Posted) -> Message:
        return await self.message(posted.reply_id)

    async def steps(self, posted: Posted) -> list[Step]:
        return await self.read(lambda uow: uow.steps.of_turns([_id(posted.turn_id)]))

    async def tool_calls(self, posted: Posted) -> list[ToolCall]:
        return await self.read(lambda uow: uow.tool_calls.of_turns([_id(posted.turn_id)]))

    async def approval(self, posted: Posted) -> Approval:
        approval = await self.read(lambda uow: uow.approvals.open_of_turn(_id(posted.turn_id)))
        assert approval
        return approval

    async def agent_status(self, conversation: UUID) -> tuple[AgentStatus, str]:
        found = await self.read(lambda uow: uow.conversations.find(conversation))
        assert found
        return found.agent_status, found.agent_status_message

    async def titles(self) -> list[str]:
        """The titles of all tasks, the oldest first."""
        page = await self.read(lambda uow: tasks.page(uow, self.admin, TaskFilter(), limit=100))
        return [task.title for task in page.tasks][::-1]

    # --- waiting ---

    def working(self) -> AbstractAsyncContextManager[None]:
        """Runs the worker meanwhile."""
        return working(self.app)

    async def until(self, holds: Callable[[], Awaitable[bool]], seconds: float = 30) -> None:
        """Waits for what is stored; looks again whenever something happens, and now and then."""
        with self.app.live.subscribe() as events:
            async with asyncio.timeout(seconds):
                while not await holds():
                    try:
                        async with asyncio.timeout(0.02):
                            await events.get()
                    except TimeoutError:
                        pass
                    events.waiting()

    async def comes_to(self, posted: Posted, *statuses: TurnStatus) -> Turn:
        """Waits until the turn is in one of these states."""

        async def there() -> bool:
            return (await self.turn(posted)).status in statuses

        await self.until(there)
        return await self.turn(posted)

    async def ended(self, posted: Posted) -> Message:
        """Waits for the end of the answer."""
        await self.comes_to(posted, TurnStatus.SUCCEEDED, TurnStatus.FAILED, TurnStatus.CANCELLED)
        return await self.reply(posted)

    async def ask(self, conversation: UUID, text: str, who: Principal | None = None, **fields: Any) -> Message:
        """Posts and waits for the end of the answer."""
        return await self.ended(await self.post(conversation, text, who, **fields))


Start = Callable[..., AbstractAsyncContextManager[World]]


@asynccontextmanager
async def onethread(directory: Path, model: ScriptedModel | None = None, *, database: str = "", **overrides: Any) -> AsyncIterator[World]:
    """Onethread with this database, or one in the directory; keywords replace its parts. The worker runs only inside `working()`."""
    model = model or ScriptedModel()
    settings = Settings(data_dir=directory, database_url=database, model=MODEL)
    async with running(settings, **{"model": model, "worker_rules": RULES, "isolated_run": None, **overrides}) as app:
        yield World(app, model, await app.principal())


@pytest.fixture
async def start(tmp_path: Path, new_database: NewDatabase) -> AsyncIterator[Start]:
    """`onethread` on the test's own database."""
    async with new_database() as url:
        yield partial(onethread, tmp_path, database=url.render_as_string(hide_password=False))


@pytest.fixture
async def world(start: Start) -> AsyncIterator[World]:
    async with start() as found:
        yield found


def _id(there: UUID | None) -> UUID:
    assert there
    return there
