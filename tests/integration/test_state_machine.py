"""Random lives of turns over a real database, compared with a simple model of what they should be.

The rules are what people, workers, crashes and the clock do; after each one everything that must always hold is checked. Look deeper
than the suite does, and get a failure's shortest story, with `EXAMPLES=500 pytest --timeout=0 tests/integration/test_state_machine.py`.
"""

import asyncio
import json
import os
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import event

from core import approvals, conversations, identity, messages, projects, tasks, turns
from core.access import Principal
from core.agent import Agent, AgentRules, _Job
from core.drafts import Drafts
from core.errors import Conflict, LeaseLost, ModelBusy, ModelError, ModelFaltered, ModelRefused, NotFound, RateLimited
from core.events import TurnChanged
from core.ids import new_id
from core.limits import ModelLimits
from core.live import LiveEvents, Subscription
from core.models import (
    AgentStatus,
    Decision,
    InboxKey,
    MessageStatus,
    Posted,
    Role,
    ToolCallState,
    Turn,
    TurnStatus,
)
from core.ports import Lease
from core.retries import RetryPolicy
from core.tools import agent as agent_tools
from core.tools import tasks as task_tools
from core.tools.registry import Toolset
from storage.engine import database_url
from storage.migrate import upgrade
from storage.sqlite import sqlite_reader, sqlite_writer
from storage.unit_of_work import Database, UnitOfWork
from tests.fakes import CUT, Call, Item, ManualClock, ScriptedModel, claim_one

EXAMPLES = int(os.environ.get("EXAMPLES", "0"))
LEASE_SECONDS = 60.0
POLICY = RetryPolicy()
RULES = messages.PostingRules(default_model="one/model", messages_per_minute=1_000_000, max_unfinished_turns=5)
MESSAGE_STATUS = {
    TurnStatus.QUEUED: MessageStatus.PENDING,
    TurnStatus.RUNNING: MessageStatus.PROCESSING,
    TurnStatus.WAITING: MessageStatus.PROCESSING,
    TurnStatus.SUCCEEDED: MessageStatus.COMPLETED,
    TurnStatus.FAILED: MessageStatus.FAILED,
    TurnStatus.CANCELLED: MessageStatus.CANCELLED,
}
ACTIVE = (TurnStatus.RUNNING, TurnStatus.WAITING)
UNFINISHED = (TurnStatus.QUEUED, *ACTIVE)
_T = TypeVar("_T")
SAYINGS = ["unknown", "broken", "ask", "create two", "delete", "create", "delete", "text"]
ERRORS = ["refused", "cut", "faltered", "busy for long", "busy", "faltered"]
PAUSES = [90_000, 8_000, 400, 30, 61, 1]
HOW_OFTEN = {
    "post": 5,
    "claim": 8,
    "advance": 12,
    "fail": 3,
    "time_passes": 3,
    "rescue": 2,
    "decide": 4,
    "cancel": 2,
    "retry": 3,
    "begin_and_crash": 1,
    "zombie": 2,
    "heartbeat": 1,
    "hand_back": 1,
    "expire": 1,
    "restart": 1,
    "edit": 1,
    "delete_message": 1,
    "delete_conversation": 1,
    "post_with_a_used_key": 1,
}
"""What happens, and how much more often than the rest. One rule picks, as hypothesis would switch off most of many rules in each life."""
some = st.integers(min_value=0, max_value=30)


@dataclass(slots=True)
class Expected:
    """What a turn should be."""

    id: UUID
    conversation_id: UUID
    posted: Posted
    author: Principal
    status: TurnStatus = TurnStatus.QUEUED
    token: int = 0
    failures: int = 0
    rescues: int = 0
    steps: int = 0
    begun: bool = False
    message_deleted: bool = False
    reply_deleted: bool = False
    edits: int = 0
    anew: dict[int, Posted] = field(default_factory=dict)
    """As what it was posted anew, by the edits until then."""


@dataclass(slots=True)
class Held:
    """A turn as its worker knows it, whether or not it still owns it."""

    worker: int
    job: _Job


class Turns(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="onethread-turns-"))
        shutil.copy(_empty_database(), self.directory / "onethread.db")
        self.eye = sqlite3.connect(self.directory / "onethread.db", isolation_level=None)
        self.eye.row_factory = sqlite3.Row
        self.runner = asyncio.Runner()
        self.clock = ManualClock()
        self.model = ScriptedModel()
        self.live = LiveEvents()
        self.told: dict[UUID, TurnStatus] = {}
        self.turns: dict[UUID, Expected] = {}
        self.kinds: dict[UUID, str] = {}
        self.held: list[Held] = []
        self.lost: list[Held] = []
        self.titles: Counter[str] = Counter()
        self.rounds = 0
        self.answered: dict[UUID, list[int]] = {}
        self.keys: dict[InboxKey, tuple[UUID, str, Principal, Posted]] = {}
        self.approvals: dict[UUID, UUID] = {}
        self.number = 0
        self.open_database()

    def open_database(self) -> None:
        url = database_url(f"sqlite+aiosqlite:///{self.directory / 'onethread.db'}")
        self.writer, self.reader = sqlite_writer(url), sqlite_reader(url)
        event.listen(self.writer.sync_engine, "connect", _without_waiting_for_the_disk)
        self.storage = Database(writer=self.writer, reader=self.reader, live=self.live, clock=self.clock, process_id=new_id())
        self.workers = [new_id(), new_id()]
        self.drafts = Drafts(self.storage, self.live)
        tools = Toolset((*task_tools.TOOLS, *agent_tools.TOOLS))
        self.agent = Agent(storage=self.storage, model=self.model, tools=tools, drafts=self.drafts, rules=AgentRules(max_rounds=4))

    def teardown(self) -> None:
        try:
            self.run(self.storage.close())
        finally:
            self.runner.close()
            self.eye.close()
            shutil.rmtree(self.directory)

    # --- what the rules use ---

    def run(self, work: Awaitable[_T]) -> _T:
        async def bounded() -> _T:
            async with asyncio.timeout(20):
                return await work

        return self.runner.run(bounded())

    def write(self, work: Callable[[UnitOfWork], Awaitable[_T]]) -> _T:
        async def transaction() -> _T:
            with self.live.subscribe() as subscription:
                async with self.storage.write() as uow:
                    done = await work(uow)
                self.listen(subscription)
            return done

        return self.run(transaction())

    def read(self, work: Callable[[UnitOfWork], Awaitable[_T]]) -> _T:
        async def view() -> _T:
            async with self.storage.read() as uow:
                return await work(uow)

        return self.run(view())

    def listen(self, subscription: Subscription) -> None:
        for each in subscription.waiting():
            if isinstance(each, TurnChanged):
                self.told[each.turn_id] = each.status

    def query(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        return self.eye.execute(sql, values).fetchall()

    def dump(self) -> list[Any]:
        """All that is stored."""
        tables = self.query("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name")
        return [(table["name"], list(map(tuple, self.query(f"SELECT * FROM {table['name']}")))) for table in tables]

    @asynccontextmanager
    async def heard(self) -> AsyncIterator[None]:
        with self.live.subscribe() as subscription:
            try:
                yield
            finally:
                self.listen(subscription)

    def changes_nothing(self, work: Callable[[], Any], error: type[Exception]) -> None:
        before = self.dump()
        try:
            work()
        except error:
            assert self.dump() == before
        else:
            raise AssertionError(f"no {error.__name__}")

    def pick(self, where: list[_T], number: int) -> _T:
        """The newest for 0."""
        return where[-1 - number % len(where)]

    def of(self, conversation_id: UUID) -> list[Expected]:
        return [turn for turn in self.turns.values() if turn.conversation_id == conversation_id]

    def unfinished(self, conversation_id: UUID) -> list[Expected]:
        return [turn for turn in self.of(conversation_id) if turn.status in UNFINISHED]

    @rule(what=st.sampled_from([what for what, times in HOW_OFTEN.items() for _ in range(times)]), which=some, how=some)
    def happens(self, what: str, which: int, how: int) -> None:
        """`which` picks one of what is there, `how` a variant."""
        if what in ("advance", "fail", "begin_and_crash") and not self.held:
            what = "claim"
        if what == "claim" and self.claimable(suspects=how % 4 == 3) is None and how % 3:
            what = "post" if how % 2 else "time_passes"
        getattr(self, what)(which, how)

    # --- people ---

    @initialize()
    def begin(self) -> None:
        async def people(uow: UnitOfWork) -> tuple[Principal, Principal]:
            await projects.default(uow)
            return identity.principal_of(await identity.local_admin(uow)), identity.principal_of(await identity.add_user(uow, "kim"))

        self.admin, self.kim = self.write(people)
        for kind in ("chat", "chat", "task"):
            self.new_conversation(kind)

    def new_conversation(self, kind: str) -> None:
        self.number += 1

        async def create(uow: UnitOfWork) -> UUID:
            if kind == "chat":
                return (await conversations.create(uow, self.admin)).id
            return (await tasks.create(uow, self.admin, f"task {self.number}")).conversation_id

        self.kinds[self.write(create)] = kind

    def author(self, conversation_id: UUID, number: int) -> Principal:
        return self.kim if self.kinds[conversation_id] == "task" and number % 2 else self.admin

    def post(self, where: int, who: int) -> None:
        conversation_id = self.pick(list(self.kinds), where)
        author, self.number = self.author(conversation_id, who), self.number + 1
        said, key = f"message {self.number}", InboxKey(source="test", scope=str(author.user_id), event_id=str(self.number))

        def work() -> Posted:
            return self.write(lambda uow: messages.post(uow, author, conversation_id, said, rules=RULES, source="test", key=key))

        if len(self.unfinished(conversation_id)) >= RULES.max_unfinished_turns:
            self.changes_nothing(work, RateLimited)
            return
        posted = work()
        self.keys[key] = (conversation_id, said, author, posted)
        self.posted(posted, author)

    def posted(self, posted: Posted, author: Principal) -> None:
        assert posted.turn_id
        for turn in self.unfinished(posted.conversation_id):
            if turn.status is TurnStatus.WAITING:
                turn.status = TurnStatus.QUEUED
        self.turns[posted.turn_id] = Expected(posted.turn_id, posted.conversation_id, posted, author)

    def post_with_a_used_key(self, which: int, how: int) -> None:
        if not self.keys:
            return
        same = how % 2 == 0
        key = self.pick(list(self.keys), which)
        conversation_id, said, author, posted = self.keys[key]
        body = said if same else said + "!"
        if conversation_id not in self.kinds:
            return

        def work() -> Posted:
            return self.write(lambda uow: messages.post(uow, author, conversation_id, body, rules=RULES, source="test", key=key))

        if same:
            before = self.dump()
            assert work() == posted
            assert self.dump() == before
        else:
            self.changes_nothing(work, Conflict)

    def cancel(self, which: int, how: int) -> None:
        if not self.turns:
            return
        going_on = [turn for turn in self.turns.values() if turn.status in UNFINISHED]
        turn = self.pick(going_on if going_on and how % 4 else list(self.turns.values()), which)
        finished = turn.status not in UNFINISHED
        before = self.dump() if finished else None
        self.write(lambda uow: turns.cancel(uow, turn.author, turn.id))
        if finished:
            assert self.dump() == before
        self.cancelled(turn)

    def cancelled(self, turn: Expected) -> None:
        if turn.status in UNFINISHED:
            turn.status, turn.token = TurnStatus.CANCELLED, turn.token + 1
        self.sort_out_leases()

    def sort_out_leases(self) -> None:
        """Jobs whose turn runs under another lease, or not at all, are lost, whether or not their worker knows."""
        lost = [held for held in self.held if not self.owns(held)]
        self.lost += lost
        self.held = [held for held in self.held if self.owns(held)]

    def owns(self, held: Held) -> bool:
        turn = self.turns.get(held.job.lease.turn_id)
        return turn is not None and turn.status is TurnStatus.RUNNING and turn.token == held.job.lease.token

    def retry(self, which: int, how: int) -> None:
        if not self.turns:
            return
        ended = [turn for turn in self.turns.values() if turn.status in (TurnStatus.FAILED, TurnStatus.CANCELLED)]
        turn = self.pick(ended if ended and how % 4 else list(self.turns.values()), which)

        def work() -> Posted:
            return self.write(lambda uow: messages.retry(uow, turn.author, turn.id, rules=RULES, source="test"))

        if turn.status not in (TurnStatus.FAILED, TurnStatus.CANCELLED) or turn.message_deleted:
            self.changes_nothing(work, Conflict)
            return
        if turn is self.of(turn.conversation_id)[-1]:
            assert work() == turn.posted
            turn.status, turn.failures, turn.rescues = TurnStatus.QUEUED, 0, 0
            turn.reply_deleted = False
        elif turn.edits in turn.anew:
            assert work() == turn.anew[turn.edits]
        elif len(self.unfinished(turn.conversation_id)) >= RULES.max_unfinished_turns:
            self.changes_nothing(work, RateLimited)
        else:
            posted = work()
            assert posted.turn_id not in self.turns
            turn.anew[turn.edits] = posted
            self.posted(posted, turn.author)

    def edit(self, which: int, _: int) -> None:
        if not self.turns:
            return
        turn = self.pick(list(self.turns.values()), which)
        self.number += 1
        said = f"edited {self.number}"

        def work() -> Any:
            return self.write(lambda uow: messages.edit(uow, turn.author, turn.posted.message_id, said, rules=RULES))

        if turn.message_deleted:
            self.changes_nothing(work, Conflict)
            return
        message = work()
        assert message.content == said
        turn.edits += 1
        fresh = turn.status is TurnStatus.QUEUED and turn.steps == 0
        assert fresh or message.edited_at == self.clock.now()

    def delete_message(self, which: int, how: int) -> None:
        if not self.turns:
            return
        reply = how % 2 == 1
        turn = self.pick(list(self.turns.values()), which)
        message_id = turn.posted.reply_id if reply else turn.posted.message_id
        assert message_id
        self.write(lambda uow: messages.delete(uow, turn.author, message_id))
        already = turn.reply_deleted if reply else turn.message_deleted
        if reply:
            turn.reply_deleted = True
        else:
            turn.message_deleted = True
        if not already:
            self.cancelled(turn)

    def delete_conversation(self, which: int, _: int) -> None:
        if not self.turns:
            return
        conversation_id = self.pick(list(self.turns.values()), which).conversation_id
        kind = self.kinds.pop(conversation_id)

        async def delete(uow: UnitOfWork) -> None:
            if kind == "chat":
                await conversations.delete(uow, self.admin, conversation_id)
            else:
                task = await uow.tasks.of_conversation(conversation_id)
                assert task
                await tasks.delete(uow, self.admin, task.ref)

        if kind == "task":
            self.changes_nothing(lambda: self.write(lambda uow: conversations.delete(uow, self.admin, conversation_id)), Conflict)
        self.write(delete)
        for turn in self.of(conversation_id):
            del self.turns[turn.id]
            self.told.pop(turn.id, None)
        self.sort_out_leases()
        self.new_conversation(kind)

    def decide(self, which: int, how: int) -> None:
        if not self.approvals:
            return
        approval_id = self.pick(list(self.approvals), which)
        turn = self.turns.get(self.approvals[approval_id])
        decision = Decision.APPROVE if how % 3 else Decision.DENY

        def work() -> Any:
            return self.write(lambda uow: approvals.decide(uow, self.admin, approval_id, decision))

        if turn is None:
            self.changes_nothing(work, NotFound)
        elif approval_id != self.open_approval(turn):
            self.changes_nothing(work, Conflict)
        else:
            work()
            turn.status = TurnStatus.QUEUED

    def open_approval(self, turn: Expected) -> UUID | None:
        found = self.read(lambda uow: uow.approvals.open_of_turn(turn.id))
        return found.id if found else None

    # --- workers ---

    def claim(self, worker: int, how: int) -> None:
        worker, suspects = worker % 2, how % 4 == 3
        wanted = self.claimable(suspects=suspects)

        async def work(uow: UnitOfWork) -> Turn | None:
            return await claim_one(uow, self.workers[worker], seconds=LEASE_SECONDS, suspects=suspects)

        turn = self.write(work)
        assert (turn.id if turn else None) == wanted
        if turn is None:
            return
        expected = self.turns[turn.id]
        expected.status, expected.token, expected.begun = TurnStatus.RUNNING, expected.token + 1, True
        assert turn.lease_token == expected.token
        job = _Job(turn=turn, lease=Lease(turn_id=turn.id, token=turn.lease_token), began_at=turn.created_at)
        self.held.append(Held(worker, job))

    def claimable(self, *, suspects: bool) -> UUID | None:
        """What should be claimed next, found the slow way."""
        stored = self.read(lambda uow: uow.turns.of_ids(list(self.turns)))
        pauses = {row[0]: (_time(row[1]), row[2]) for row in self.query("SELECT model, paused_until, at_once FROM model_pauses")}
        running = Counter(turn.author_id for turn in stored if turn.status is TurnStatus.RUNNING)
        asking = Counter(turn.model for turn in stored if turn.status is TurnStatus.RUNNING)
        now = self.clock.now()
        ready = []
        for turn in stored:
            others = [each for each in stored if each.conversation_id == turn.conversation_id and each.id != turn.id]
            blocked = any(each.status in ACTIVE or (each.status is TurnStatus.QUEUED and each.seq < turn.seq) for each in others)
            due = turn.status is TurnStatus.QUEUED and turn.run_after <= now and self.may_be_asked(turn.model, pauses, asking)
            if due and not blocked and (turn.rescues >= 2) is suspects:
                ready.append((running[turn.author_id], turn.created_at, turn.id))
        return min(ready)[2] if ready else None

    def may_be_asked(self, model: str, pauses: dict[str, tuple[datetime, int]], asking: Counter[str]) -> bool:
        paused_until, at_once = pauses.get(model, (self.clock.now(), 1))
        return paused_until <= self.clock.now() and (at_once == 1 or asking[model] < at_once)

    def stored(self, turn_id: UUID) -> Turn:
        turn = self.read(lambda uow: uow.turns.get(turn_id))
        assert turn
        return turn

    def advance(self, which: int, how: int) -> None:
        """One round, or one tool call where one is open."""
        if not self.held:
            return
        self.move(self.pick(self.held, which), self.round(self.pick(SAYINGS, how)))

    def fail(self, which: int, how: int) -> None:
        if not self.held:
            return
        self.move(self.pick(self.held, which), ("So", " far", _error(self.pick(ERRORS, how))))

    def round(self, says: str) -> tuple[Item, ...]:
        self.number += 1
        match says:
            case "create":
                return "Creating.", Call("create_task", {"title": f"made {self.number}"})
            case "create two":
                first, self.number = f"made {self.number}", self.number + 1
                return Call("create_task", {"title": first}), Call("create_task", {"title": f"made {self.number}"})
            case "delete":
                return "May I?", Call("delete_task", {"ref": "OT-999"})
            case "ask":
                return "Well.", Call("ask_user", {"question": "Which one?"}), Call("create_task", {"title": f"made {self.number}"})
            case "broken":
                return "Oops.", Call("create_task", '{"title": "cut')
            case "unknown":
                return (Call("no_such_tool"),)
            case _:
                return f"Answer {self.number}", "."

    def move(self, held: Held, items: tuple[Item, ...]) -> None:
        turn = self.turns[held.job.turn.id]
        before = self.model.calls
        self.model.will(*items)
        try:
            done = self.run(self.advancing(held))
        except ModelError as error:
            self.rounds_left_over(before)
            self.failed(held, turn, error)
            return
        self.rounds_left_over(before)
        self.learn(turn)
        if self.model.calls > before:
            self.rounds += 1
            turn.steps += 1
            turn.failures = turn.rescues = 0
        assert done == (turn.status is not TurnStatus.RUNNING)
        if turn.status is TurnStatus.SUCCEEDED:
            self.answered.setdefault(turn.conversation_id, []).append(self.stored(turn.id).seq)
        self.sort_out_leases()

    async def advancing(self, held: Held) -> bool:
        async with self.heard():
            return await self.agent._advance(held.job)

    def rounds_left_over(self, before: int) -> None:
        """A tool call needs no round: what was queued for it goes."""
        if self.model.calls == before:
            self.model._rounds.clear()

    def learn(self, turn: Expected) -> None:
        """What an advance leads to: it succeeds, waits for a person, or goes on."""
        stored = self.stored(turn.id)
        assert stored.status in (TurnStatus.RUNNING, TurnStatus.WAITING, TurnStatus.SUCCEEDED)
        turn.status = stored.status
        if stored.status is TurnStatus.WAITING:
            approval = self.open_approval(turn)
            assert approval
            self.approvals[approval] = turn.id

    def failed(self, held: Held, turn: Expected, error: ModelError) -> None:
        async def work(uow: UnitOfWork) -> Turn:
            draft = self.drafts.text(held.job.lease)
            return await turns.fail_attempt(uow, held.job.lease, error, draft=draft, policy=POLICY)

        pause = self.read(lambda uow: uow.pauses.get(held.job.turn.model))
        now = self.clock.now()
        forgotten = pause and (now - pause.paused_until).total_seconds() > POLICY.pause_limit_seconds + POLICY.probe_seconds
        paused_too_long = pause and not forgotten and (now - pause.paused_since).total_seconds() > POLICY.pause_total_seconds
        after = self.write(work)
        charged = isinstance(error, ModelFaltered) or (isinstance(error, ModelBusy) and paused_too_long)
        gives_up = isinstance(error, ModelRefused) or (charged and turn.failures + 1 >= POLICY.max_failures)
        turn.status = TurnStatus.FAILED if gives_up else TurnStatus.QUEUED
        turn.failures += 1 if charged or gives_up else 0
        assert (after.status, after.failures) == (turn.status, turn.failures)
        if error.retry_after and not gives_up:
            assert after.run_after > self.clock.now()
        self.drafts.forget(held.job.lease)
        self.sort_out_leases()

    def begin_and_crash(self, which: int, _: int) -> None:
        """The worker raises the stream's number and vanishes."""
        if not self.held:
            return
        held = self.pick(self.held, which)
        self.write(lambda uow: turns.begin_stream(uow, held.job.lease, text="", limits=ModelLimits()))

    def zombie(self, which: int, _: int) -> None:
        """A worker that does not know that its lease is lost may write nothing."""
        if not self.lost:
            return
        held = self.pick(self.lost, which)
        self.model.will("Late.", Call("create_task", {"title": "by a zombie"}))
        self.changes_nothing(lambda: self.run(self.agent._advance(held.job)), LeaseLost)
        self.model._rounds.clear()
        refused = ModelRefused("Late.", reason="LATE")
        self.changes_nothing(
            lambda: self.write(lambda uow: turns.fail_attempt(uow, held.job.lease, refused, draft="late", policy=POLICY)), LeaseLost
        )

    def heartbeat(self, worker: int, _: int) -> None:
        worker %= 2
        leases = [held.job.lease for held in [*self.held, *self.lost] if held.worker == worker]
        until = self.clock.now()
        if leases:
            kept = self.write(lambda uow: uow.turns.extend(leases, until))
            assert kept == {held.job.lease.turn_id for held in self.held if held.worker == worker}

    def hand_back(self, worker: int, _: int) -> None:
        """The worker ends as it should."""
        worker %= 2

        async def work(uow: UnitOfWork) -> list[UUID]:
            owned = await uow.turns.of_worker(self.workers[worker])
            for turn in owned:
                await turns.hand_back(uow, turn, draft=None)
            return [turn.id for turn in owned]

        back = self.write(work)
        assert set(back) == {held.job.turn.id for held in self.held if held.worker == worker}
        for turn_id in back:
            self.turns[turn_id].status = TurnStatus.QUEUED
        self.sort_out_leases()

    def time_passes(self, _: int, how: int) -> None:
        self.clock.advance(self.pick(PAUSES, how))

    def rescue(self, _: int = 0, __: int = 0) -> None:
        now = self.clock.now()
        expired = [turn for turn in self.turns.values() if turn.status is TurnStatus.RUNNING and _until(self.stored(turn.id)) < now]
        assert self.write(lambda uow: turns.rescue(uow, POLICY)) == len(expired)
        for turn in expired:
            if turn.rescues + 1 < POLICY.max_rescues:
                turn.status, turn.rescues = TurnStatus.QUEUED, turn.rescues + 1
            else:
                turn.status = TurnStatus.FAILED
        self.sort_out_leases()

    def expire(self, _: int = 0, __: int = 0) -> None:
        self.write(approvals.expire)
        for turn in self.turns.values():
            if turn.status is TurnStatus.WAITING and self.open_approval(turn) is None:
                turn.status = TurnStatus.QUEUED

    def restart(self, _: int = 0, __: int = 0) -> None:
        """The process is killed and another begins."""
        self.run(self.storage.close())
        self.open_database()
        self.lost = []
        self.held = [Held(2, held.job) for held in self.held]

    # --- what must always hold ---

    @invariant()
    def turns_are_what_they_should_be(self) -> None:
        found = {row["id"]: row for row in self.query("SELECT * FROM turns")}
        assert set(found) == {turn.id.hex for turn in self.turns.values()}
        for expected in self.turns.values():
            turn = found[expected.id.hex]
            shown = (turn["status"], turn["lease_token"], turn["failures"], turn["rescues"])
            assert shown == (expected.status, expected.token, expected.failures, expected.rescues)
            running = turn["status"] == TurnStatus.RUNNING
            assert (turn["lease_owner"] is not None) == (turn["lease_until"] is not None) == running
            assert (turn["finished_at"] is not None) == (turn["status"] not in UNFINISHED)
            assert self.told[expected.id] == turn["status"]

    @invariant()
    def one_turn_at_a_time_in_the_order_of_posting(self) -> None:
        for conversation_id in self.kinds:
            assert sum(turn.status in ACTIVE for turn in self.of(conversation_id)) <= 1
            order = self.answered.get(conversation_id, [])
            assert order == sorted(order)

    @invariant()
    def messages_fit_their_turns(self) -> None:
        found = {row["id"]: row for row in self.query("SELECT * FROM messages")}
        for expected in self.turns.values():
            for message_id in (expected.posted.message_id, expected.posted.reply_id):
                assert message_id
                message = found[message_id.hex]
                assert message["status"] == MESSAGE_STATUS[expected.status]
                deleted = expected.reply_deleted if message["role"] == Role.ASSISTANT else expected.message_deleted
                assert (message["deleted_at"] is not None) == deleted

    @invariant()
    def each_turn_has_one_reply(self) -> None:
        for conversation_id in self.kinds:
            found = self.query("SELECT * FROM messages WHERE conversation_id = ? ORDER BY seq", conversation_id.hex)
            assert [message["seq"] for message in found] == list(range(1, len(found) + 1))
            replies = [message["turn_id"] for message in found if message["role"] == Role.ASSISTANT]
            assert replies == [turn.id.hex for turn in self.of(conversation_id)]

    @invariant()
    def replies_say_what_the_rounds_said(self) -> None:
        for expected in self.turns.values():
            if expected.status is TurnStatus.SUCCEEDED and not expected.reply_deleted and expected.posted.reply_id:
                (reply,) = self.query("SELECT * FROM messages WHERE id = ?", expected.posted.reply_id.hex)
                steps = self.query("SELECT content FROM steps WHERE turn_id = ? ORDER BY number", expected.id.hex)
                metadata = json.loads(reply["metadata"])
                question = [metadata["question"]["text"]] if "question" in metadata else []
                assert reply["content"] == "\n\n".join([*(step["content"] for step in steps if step["content"]), *question])

    @invariant()
    def the_agents_status_fits(self) -> None:
        for conversation_id in self.kinds:
            (row,) = self.query("SELECT agent_status FROM conversations WHERE id = ?", conversation_id.hex)
            assert row["agent_status"] in self.fitting_status(conversation_id)

    def fitting_status(self, conversation_id: UUID) -> set[AgentStatus]:
        found = self.of(conversation_id)
        for turn in found:
            if turn.status is TurnStatus.RUNNING:
                return {AgentStatus.THINKING, AgentStatus.EXECUTING}
            if turn.status is TurnStatus.WAITING:
                return {AgentStatus.WAITING_FOR_USER}
        if any(turn.status is TurnStatus.QUEUED and turn.begun for turn in found):
            return {AgentStatus.IDLE, AgentStatus.THINKING, AgentStatus.EXECUTING}
        return {AgentStatus.IDLE, AgentStatus.ERROR, AgentStatus.WAITING_FOR_USER}

    @invariant()
    def tools_take_effect_once(self) -> None:
        made = Counter(row["title"] for row in self.query("SELECT title FROM tasks WHERE title NOT LIKE 'task %'"))
        assert all(count == 1 for count in made.values())
        assert "by a zombie" not in made
        for call in self.query("SELECT arguments, state FROM tool_calls WHERE name = 'create_task'"):
            title = json.loads(call["arguments"]).get("title")
            assert (made[title] == 1) == (call["state"] == ToolCallState.DONE)

    @invariant()
    def each_round_is_paid_once(self) -> None:
        assert self.query("SELECT count(*) AS n FROM usage")[0]["n"] == self.rounds
        steps = Counter(row["turn_id"] for row in self.query("SELECT turn_id FROM steps"))
        assert steps == Counter({turn.id.hex: turn.steps for turn in self.turns.values() if turn.steps})

    @invariant()
    def a_waiting_turn_has_one_open_approval(self) -> None:
        waiting = [turn.id.hex for turn in self.turns.values() if turn.status is TurnStatus.WAITING]
        found = self.query("SELECT turn_id FROM approvals WHERE status = 'open'")
        assert Counter(row["turn_id"] for row in found) == Counter(waiting)


class TurnsThatEnd(Turns):
    """At the end of each life, everything that was posted comes to an end by itself."""

    def teardown(self) -> None:
        try:
            if hasattr(self, "admin"):
                self.everything_ends()
        finally:
            super().teardown()

    def everything_ends(self) -> None:
        self.restart()
        for _ in range(200):
            if not any(turn.status in UNFINISHED for turn in self.turns.values()):
                break
            self.clock.advance(90_000)
            self.rescue()
            self.expire()
            self.claim(0, 3)
            self.claim(0, 0)
            while self.held:
                self.advance(0, 0)
        assert not [turn for turn in self.turns.values() if turn.status in UNFINISHED]
        self.turns_are_what_they_should_be()
        self.one_turn_at_a_time_in_the_order_of_posting()
        self.messages_fit_their_turns()


TestTurns = TurnsThatEnd.TestCase
TestTurns.settings = settings(
    max_examples=EXAMPLES or 25,
    stateful_step_count=40,
    derandomize=not EXAMPLES,
    phases=list(Phase) if EXAMPLES else [Phase.generate],
    deadline=None,
    print_blob=False,
    suppress_health_check=list(HealthCheck),
)


def _error(kind: str) -> Item:
    match kind:
        case "busy":
            return ModelBusy("Too many requests.", reason="RATE_LIMITED")
        case "busy for long":
            return ModelBusy("Too many requests.", reason="RATE_LIMITED", retry_after=100)
        case "faltered":
            return ModelFaltered("It failed.", reason="SERVER_ERROR")
        case "cut":
            return CUT
        case _:
            return ModelRefused("No key.", reason="NO_KEY")


def _until(turn: Turn) -> datetime:
    assert turn.lease_until
    return turn.lease_until


def _time(stored: str) -> datetime:
    return datetime.fromisoformat(stored + "+00:00")


def _without_waiting_for_the_disk(connection: Any, _record: object) -> None:
    connection.cursor().execute("PRAGMA synchronous=OFF")


@cache
def _empty_database() -> Path:
    """A file with all tables, made once."""
    path = Path(tempfile.mkdtemp(prefix="onethread-empty-")) / "onethread.db"

    async def make() -> None:
        writer = sqlite_writer(database_url(f"sqlite+aiosqlite:///{path}"))
        await upgrade(writer)
        await writer.dispose()

    asyncio.run(make())
    return path
