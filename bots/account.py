"""Holds a platform's account: one process at a time takes in what comes from it and delivers what goes to it."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

import structlog

from bots.apart import apart
from bots.delivery.deliveries import Deliveries
from bots.delivery.outlet import DeliveryRules
from bots.lease import Held, lost_alone
from bots.policy import Policy
from bots.services import Services
from bots.surface import ChatSurface
from core.errors import Conflict, LeaseLost, StorageUnavailable
from core.logs import place_of
from core.models import AccountLease

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRules:
    lease_seconds: float = 30.0
    extend_seconds: float = 5.0
    margin_seconds: float = 2.0
    """So much before its end a lease that could not be extended counts as lost: stopping takes a moment."""
    poll_seconds: float = 2.0
    """Between attempts to take a lease that somebody else holds."""
    restart_seconds: float = 1.0
    """Before what broke is started again."""
    release_seconds: float = 5.0
    delivery: DeliveryRules = field(default_factory=DeliveryRules)


class Intake(Protocol):
    """What takes events in while the lease is held."""

    def run(self, lease: AccountLease) -> Coroutine[Any, Any, None]: ...


async def hold(services: Services, surface: ChatSurface, intake: Intake, policy: Policy, rules: HoldRules | None = None) -> None:
    """Serves the account whenever this process holds its lease. Until cancelled; then the lease is given back."""
    await _Account(services, surface, intake, policy, rules or HoldRules()).run()


class _Account:
    def __init__(self, services: Services, surface: ChatSurface, intake: Intake, policy: Policy, rules: HoldRules) -> None:
        self._services = services
        self._surface = surface
        self._intake = intake
        self._policy = policy
        self._rules = rules
        self._log = _log.bind(surface=surface.account.surface, account=surface.account.id)

    async def run(self) -> None:
        while True:
            held = await self._take()
            self._log.info("account.held", token=held.lease.token)
            try:
                await apart(self._serve(held))
            except LeaseLost:
                self._log.warning("account.lease_lost", token=held.lease.token)
            finally:
                await self._release(held)

    async def _take(self) -> Held:
        """Waits until nobody else holds the lease."""
        while True:
            try:
                if held := await self._ask():
                    return held
            except StorageUnavailable as error:
                self._log.warning("account.storage_unavailable", reason=str(error))
            await asyncio.sleep(self._rules.poll_seconds * random.uniform(0.75, 1.25))

    async def _ask(self) -> Held | None:
        asked_at = asyncio.get_running_loop().time()
        services, seconds = self._services, self._rules.lease_seconds
        try:
            async with services.storage.write() as uow:
                until = uow.now + timedelta(seconds=seconds)
                lease = await uow.account_leases.take(self._surface.account, services.process_id, until=until, now=uow.now)
        except Conflict:
            return None  # another process was faster
        # A transaction's time is the one at its begin: the lease does not end later here than in the database.
        return Held(lease, asked_at + seconds - self._rules.margin_seconds) if lease else None

    async def _serve(self, held: Held) -> None:
        deliveries = Deliveries(self._services, self._surface, held, self._policy, self._rules.delivery)
        with lost_alone():
            async with asyncio.TaskGroup() as group:
                group.create_task(self._extend(held), name="account.extend")
                group.create_task(self._supervised("delivery", deliveries.run), name="account.delivery")
                group.create_task(self._supervised("intake", lambda: self._intake.run(held.lease)), name="account.intake")

    async def _extend(self, held: Held) -> None:
        """Raises LeaseLost where it ended, or may have."""
        pause = self._rules.extend_seconds
        while True:
            await asyncio.sleep(min(pause, max(held.lasts, 0.0)))
            if held.lasts <= 0:
                raise LeaseLost("The lease ended before it could be extended.")
            try:
                async with asyncio.timeout(held.lasts):
                    extended = await self._ask()
            except (StorageUnavailable, TimeoutError) as error:
                self._log.warning("account.lease_not_extended", error=type(error).__name__)
                pause = self._rules.restart_seconds
                continue
            if extended is None or extended.lease.token != held.lease.token:
                raise LeaseLost("Another process acts for this account now.")
            held.extend(extended)
            pause = self._rules.extend_seconds

    async def _supervised(self, name: str, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            try:
                await apart(run())
            except LeaseLost:
                raise
            except Exception as error:  # noqa: BLE001  # the outermost loop: a defect must not leave the account unserved
                self._log.error("account.restarted", part=name, **place_of(error))
            await asyncio.sleep(self._rules.restart_seconds)

    async def _release(self, held: Held) -> None:
        """Others need not wait for its end."""
        with suppress(StorageUnavailable, TimeoutError, Conflict):
            async with asyncio.timeout(self._rules.release_seconds), self._services.storage.write() as uow:
                await uow.account_leases.release(held.lease)
