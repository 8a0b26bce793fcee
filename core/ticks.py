"""What happens by the clock. Each tick is safe in any number of processes at once: it only does what still needs doing."""

import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from core import approvals, retention, turns
from core.errors import StorageUnavailable
from core.logs import place_of
from core.ports import Clock, Storage
from core.retries import RetryPolicy

RESCUE_SECONDS = 10
AFTER_OUTAGE = timedelta(seconds=20)
"""Longer than it takes a living worker to extend its leases."""
EXPIRE_SECONDS = 60
PRUNE_HOURS = 24
_log = structlog.get_logger()


class Ticks:
    def __init__(
        self, storage: Storage, clock: Clock, policy: RetryPolicy, *, kept: timedelta | None, rescue_seconds: float = RESCUE_SECONDS
    ) -> None:
        """`kept`: how long conversations are kept that nobody uses; None for ever."""
        self._storage = storage
        self._clock = clock
        self._policy = policy
        self._kept = kept
        self._rescue_seconds = rescue_seconds
        self._rescues_from = clock.now()
        self._scheduler = AsyncIOScheduler(timezone="UTC", job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1})

    def start(self) -> None:
        """Needs a running event loop. The first rescue comes at once."""
        # It reports what `stop` cancels as errors, with texts that may quote content; _safe reports the rest. Not by its level, which
        # litellm sets when it is imported.
        logging.getLogger("apscheduler.executors.default").disabled = True
        now = self._clock.now()
        self._scheduler.add_job(_safe(self.rescue), "interval", seconds=self._rescue_seconds, next_run_time=now)
        self._scheduler.add_job(_safe(self.expire), "interval", seconds=EXPIRE_SECONDS, next_run_time=now)
        self._scheduler.add_job(_safe(self.prune), "interval", hours=PRUNE_HOURS, next_run_time=now + timedelta(minutes=1))
        self._scheduler.start()

    def stop(self) -> None:
        self._scheduler.shutdown(wait=False)

    async def rescue(self) -> None:
        """After an outage of the database the living extend their leases first: it must not cost their turns a rescue."""
        if self._clock.now() < self._rescues_from:
            return
        try:
            async with self._storage.read() as uow:
                if not await uow.turns.has_expired(uow.now):
                    return
        except StorageUnavailable:
            self._rescues_from = self._clock.now() + AFTER_OUTAGE
            raise
        async with self._storage.write() as uow:
            rescued = await turns.rescue(uow, self._policy)
        _log.warning("turns.rescued", number=rescued)

    async def expire(self) -> None:
        async with self._storage.read() as uow:
            if not await uow.approvals.overdue(uow.now):
                return
        async with self._storage.write() as uow:
            _log.info("approvals.expired", number=await approvals.expire(uow))

    async def prune(self) -> None:
        _log.info("storage.pruned", **await retention.prune(self._storage, self._clock, self._kept))


def _safe(tick: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        try:
            await tick()
        except StorageUnavailable as error:
            _log.warning("tick.skipped", tick=tick.__name__, reason=str(error))
        except Exception as error:  # noqa: BLE001  # a clock's outermost loop: the next tick comes all the same
            _log.error("tick.broke", tick=tick.__name__, **place_of(error))

    return run
