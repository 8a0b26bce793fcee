"""A worker: claims turns, keeps their leases alive, lets the agent answer them, and hands back what it could not finish."""

import asyncio
import os
import platform
import random
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from core import turns
from core.agent import Agent
from core.drafts import Drafts
from core.errors import Conflict, LeaseLost, ModelError, ModelFaltered, ModelRefused, StorageUnavailable
from core.events import Lagged, TurnChanged
from core.frames import WORKER_SILENT
from core.ids import new_id
from core.limits import ModelLimits
from core.live import LiveEvents
from core.logs import place_of
from core.models import Turn, TurnStatus, WorkerInfo
from core.ports import Clock, Lease, Storage
from core.retries import RetryPolicy
from core.turns import ClaimRules

CLAIM_AT_MOST = 10
"""Turns in one transaction: many for speed, few enough for other machines to get some."""
GATHER_SECONDS = 0.02
"""So long after a claim that took something the next one waits, and takes what came meanwhile in one transaction."""
EXPECTED_BACK = timedelta(minutes=10)
"""So long turns wait for a worker that could ask their model, after it was last seen. Then anybody takes them, to say what is missing."""
_log = structlog.get_logger()
IsolatedRun = Callable[[], Awaitable[None]]
"""Answers, in a process of its own, the turns whose workers vanished twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRules:
    concurrency: int = 100
    lease_seconds: float = 60.0
    heartbeat_seconds: float = 15.0
    turn_seconds: float = 600.0
    poll_seconds: float = 1.0
    """The longest wait before looking for turns that nobody announced."""
    shutdown_seconds: float = 10.0
    suspects_only: bool = False
    """True in the process that answers only what its predecessors died of."""
    retries: RetryPolicy = field(default_factory=RetryPolicy)
    limits: ModelLimits = field(default_factory=ModelLimits)


@dataclass(slots=True)
class _Running:
    lease: Lease
    task: asyncio.Task[None]


def vanished(worker: WorkerInfo) -> bool:
    """Whether its process was killed on this machine, although it counts as alive until its silence is noticed."""
    if worker.host != platform.node() or sys.platform == "win32":  # where os.kill would end it
        return False
    try:
        os.kill(worker.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it is somebody else's, and runs
    return False


class Worker:
    def __init__(
        self,
        *,
        worker_id: UUID,
        storage: Storage,
        live: LiveEvents,
        agent: Agent,
        drafts: Drafts,
        clock: Clock,
        rules: WorkerRules,
        unserved: frozenset[str] = frozenset(),
        isolated_run: IsolatedRun | None = None,
    ) -> None:
        self._id = worker_id
        self._unserved = unserved
        self._left_to_others: frozenset[str] = frozenset()
        self._clock = clock
        self._storage = storage
        self._live = live
        self._agent = agent
        self._drafts = drafts
        self._rules = rules
        self._isolated_run = isolated_run
        self._isolated: asyncio.Task[None] | None = None
        self._look_at = 0.0
        self._claim_at = 0.0
        # Suspects one by one: what one of them dies of must not count against another.
        self._slots = 1 if rules.suspects_only else rules.concurrency
        self._running: dict[UUID, _Running] = {}
        self._wake = asyncio.Event()
        self._beat_now = asyncio.Event()
        """Set when cancellations may have been missed: a heartbeat finds the leases that are lost."""
        self._unsure = False
        """Whether the database may count turns as this worker's that it does not work on."""
        self._started_at = clock.now()

    @property
    def running(self) -> int:
        """How many turns are being answered here."""
        return len(self._running)

    async def run(self) -> None:
        """Works until cancelled; then hands back at once what is not finished."""
        await self._begin()
        loops = (self._claim_turns, self._listen, self._beat, self._drafts.run)
        tasks = [asyncio.create_task(loop(), name=f"worker.{loop.__name__}") for loop in loops]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            await _end(tasks)
            await self._hand_back_all()

    async def _begin(self) -> None:
        """Tells the database of this worker, as soon as it is there."""
        while True:
            try:
                await self._take_over_from_the_dead()
                await self._heartbeat()
                return
            except StorageUnavailable as error:
                _log.warning("worker.storage_unavailable", reason=str(error))
                await asyncio.sleep(self._rules.poll_seconds)

    # --- claiming ---

    async def _claim_turns(self) -> None:
        while True:
            self._wake.clear()
            try:
                if self._unsure:
                    await self._let_go()
                while (free := self._slots - len(self._running)) > 0 and await self._claim(min(free, CLAIM_AT_MOST)):
                    pass
                await self._woken()
                await self._look_after_suspects()
            except StorageUnavailable as error:
                _log.warning("worker.storage_unavailable", reason=str(error))
                self._unsure = True
                await asyncio.sleep(self._rules.poll_seconds)

    async def _woken(self) -> None:
        """Waits for an announced turn, for a while, and where one was claimed just now, for those that follow."""
        # Not asyncio.wait_for: before Python 3.12 it loses a cancellation that meets the event.
        with suppress(TimeoutError):
            async with asyncio.timeout(self._rules.poll_seconds):
                await self._wake.wait()
        await asyncio.sleep(max(0.0, self._claim_at - time.monotonic()))

    async def _claim(self, limit: int) -> bool:
        """Begins to answer what can be answered, `limit` turns at most. Whether there may be more."""
        rules = ClaimRules(
            lease_seconds=self._rules.lease_seconds,
            policy=self._rules.retries,
            limits=self._rules.limits,
            suspects=self._rules.suspects_only,
            left_to_others=self._left_to_others,
        )
        try:
            async with self._storage.write() as uow:
                claimed = await turns.claim(uow, self._id, rules, limit=limit)
        except Conflict:  # another worker was faster, which says nothing of the other turns
            await asyncio.sleep(random.uniform(0.0, GATHER_SECONDS))
            return True
        for turn in claimed.turns:
            ids = {"turn_id": str(turn.id), "conversation_id": str(turn.conversation_id)}
            _log.info("turn.claimed", **ids, model=turn.model, failures=turn.failures, rescues=turn.rescues)
            self._start(turn)
        if claimed.turns:
            self._claim_at = time.monotonic() + GATHER_SECONDS
        return claimed.more

    async def _let_go(self) -> None:
        """Hands back what a claim took although its commit was never confirmed, and what ended here while the database was away."""
        async with self._storage.write() as uow:
            for turn in await uow.turns.of_worker(self._id):
                if turn.id not in self._running:
                    await turns.hand_back(uow, turn, draft=None)
        self._unsure = False

    def _start(self, turn: Turn) -> None:
        task = asyncio.create_task(self._answer(turn), name=f"turn {turn.id}")
        self._running[turn.id] = _Running(Lease(turn_id=turn.id, token=turn.lease_token), task)
        task.add_done_callback(lambda _: self._ended(turn))

    def _ended(self, turn: Turn) -> None:
        self._drafts.forget(Lease(turn_id=turn.id, token=turn.lease_token))
        if len(self._running) >= self._slots:
            self._wake.set()  # otherwise the event of its end wakes, where that lets another turn go
        if self._running.get(turn.id) and self._running[turn.id].lease.token == turn.lease_token:
            del self._running[turn.id]

    async def _look_after_suspects(self) -> None:
        """Once in a while, also where turns are announced without a pause."""
        if self._isolated_run is None or (self._isolated and not self._isolated.done()):
            return
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + self._rules.poll_seconds
        async with self._storage.read() as uow:
            waiting = await uow.turns.has_suspect(uow.now)
        if waiting:
            self._isolated = asyncio.ensure_future(self._isolated_run())

    # --- answering ---

    async def _answer(self, turn: Turn) -> None:
        """Each log entry of the turn names it."""
        with structlog.contextvars.bound_contextvars(turn_id=str(turn.id), conversation_id=str(turn.conversation_id)):
            await self._attempt(turn)

    async def _attempt(self, turn: Turn) -> None:
        lease = Lease(turn_id=turn.id, token=turn.lease_token)
        try:
            async with asyncio.timeout(self._rules.turn_seconds):
                await self._agent.answer(turn)
            _log.info("turn.left", turn_id=str(turn.id))
        except LeaseLost:
            _log.info("turn.lease_lost", turn_id=str(turn.id))
        except StorageUnavailable as error:
            _log.warning("turn.storage_unavailable", turn_id=str(turn.id), reason=str(error))
        except TimeoutError:
            await self._fail(turn, lease, ModelRefused(_TOO_LONG.format(minutes=self._rules.turn_seconds / 60), reason="TURN_TOO_LONG"))
        except ModelError as error:
            await self._fail(turn, lease, error)
        except Exception as error:  # noqa: BLE001  # the outermost loop: one turn must not end the worker
            reference = str(new_id())
            _log.error("turn.broke", turn_id=str(turn.id), reference=reference, **place_of(error))
            await self._fail(turn, lease, ModelFaltered(_BROKE.format(reference=reference), reason="INTERNAL"))

    async def _fail(self, turn: Turn, lease: Lease, error: ModelError) -> None:
        try:
            async with self._storage.write() as uow:
                draft = self._drafts.text(lease)
                after = await turns.fail_attempt(uow, lease, error, draft=draft, policy=self._rules.retries)
        except Exception as lost:  # noqa: BLE001  # asyncio would print its text; the turn's lease runs out, and it is rescued
            _log.warning("turn.failure_not_stored", turn_id=str(turn.id), reason=error.reason, **place_of(lost))
            return
        _log.warning("turn.failed_attempt", turn_id=str(turn.id), reason=error.reason, status=after.status.value, failures=after.failures)

    async def _hand_back_all(self) -> None:
        """Everything that this worker still owns is queued again, with what was written so far."""
        drafts = {lease.turn_id: self._drafts.text(lease) for lease in (running.lease for running in self._running.values())}
        await _end([running.task for running in self._running.values()])
        if self._isolated:
            await _end([self._isolated])
        try:
            async with asyncio.timeout(self._rules.shutdown_seconds), self._storage.write() as uow:
                for turn in await uow.turns.of_worker(self._id):
                    await turns.hand_back(uow, turn, draft=drafts.get(turn.id))
                # Not removed: others leave it the turns that only it can serve, for a while, in case it only starts anew.
                await uow.workers.beat(self._info(uow.now - WORKER_SILENT))
        except Exception as error:  # noqa: BLE001  # it would take the place of the cancellation, and the worker would go on
            _log.warning("worker.not_handed_back", **place_of(error))

    # --- staying alive ---

    async def _take_over_from_the_dead(self) -> None:
        """What a killed process of this machine was answering and holding is free at once, instead of when its leases end."""
        async with self._storage.read() as uow:
            workers = await uow.workers.alive(uow.now - WORKER_SILENT)
        dead = [worker for worker in workers if vanished(worker)]
        for worker in dead:
            async with self._storage.write() as uow:
                await turns.rescue_from(uow, worker.id, self._rules.retries)
                await uow.account_leases.release_all(worker.id)
                await uow.workers.remove(worker.id)

    async def _beat(self) -> None:
        while True:
            self._beat_now.clear()
            try:
                await self._heartbeat()
                await self._take_over_from_the_dead()
            except StorageUnavailable as error:
                _log.warning("worker.heartbeat_failed", reason=str(error))
                await asyncio.sleep(self._rules.poll_seconds)  # a commit that fails makes everybody look again, us too
                self._beat_now.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._rules.heartbeat_seconds):
                    await self._beat_now.wait()

    async def _heartbeat(self) -> None:
        leases = {running.lease for running in self._running.values()}
        async with self._storage.write() as uow:
            await uow.workers.beat(self._info(uow.now))
            others = await uow.workers.alive(uow.now - EXPECTED_BACK)
            lease_until = uow.now + timedelta(seconds=self._rules.lease_seconds)
            held = await uow.turns.extend(leases, lease_until) if leases else frozenset()
        self._left_to_others = frozenset(prefix for prefix in self._unserved if any(prefix not in other.unserved for other in others))
        for lease in leases:
            if lease.turn_id not in held:
                self._drop(lease.turn_id, lease.token)

    def _info(self, now: datetime) -> WorkerInfo:
        return WorkerInfo(
            id=self._id,
            host=platform.node(),
            pid=os.getpid(),
            concurrency=self._slots,
            unserved=self._unserved,
            started_at=self._started_at,
            heartbeat_at=now,
        )

    async def _listen(self) -> None:
        """Wakes when a turn was queued, and stops working on one that was cancelled."""
        with self._live.subscribe() as subscription:
            while True:
                match await subscription.get():
                    case TurnChanged(status=TurnStatus.QUEUED):
                        self._wake.set()
                    case Lagged():
                        self._wake.set()
                        self._beat_now.set()
                    case TurnChanged(status=status) as changed if status.finished:
                        self._wake.set()
                        self._drop(changed.turn_id, changed.lease_token - 1)

    def _drop(self, turn_id: UUID, token: int) -> None:
        """Stops working under a lease that is lost, unless the turn was claimed here anew."""
        running = self._running.get(turn_id)
        if running and running.lease.token <= token:
            running.task.cancel()


_TOO_LONG = "The answer took longer than {minutes:.0f} minutes. Retry, or ask for less at once."
_BROKE = "Onethread itself failed (reference {reference}; the log says where). It is tried again."


async def _end(tasks: "list[asyncio.Task[None]]") -> None:
    """Cancels until they end: a library may lose a cancellation."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        done, pending = await asyncio.wait(pending, timeout=1)
        for task in done:
            _ = task.cancelled() or task.exception()  # taken, or asyncio would print its text
