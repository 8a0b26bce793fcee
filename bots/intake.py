"""What comes in from a chat platform, taken into the core: each event once, in the order of its lane, and tried again where that can help.

What an event does is decided in `taking.py`; here is when it is looked at, and what happens where it fails.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import structlog

from bots.lease import lost_alone
from bots.services import Services
from bots.surface import AccountClosed, Busy, ChatSurface, PermissionMissing, PlaceClosed, Said, SurfaceError
from bots.taking import Overtaken, Taking
from core.errors import Conflict, LeaseLost, OnethreadError, StorageUnavailable
from core.logs import place_of
from core.models import AccountLease, InboundEvent
from core.ports import UnitOfWork

_AGAIN = "Your message was not taken in: send it again then."
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeRules:
    poll_seconds: float = 0.5
    """The longest wait before looking for what another process stored."""
    lanes: int = 20
    """Side by side."""
    with_files: int = 4
    """Lanes among them whose message has files: these come slowly, and stay in memory until it is taken in."""
    with_files_of_one: int = 2
    """And so many with one person's."""
    batch: int = 500
    """Events that one look takes."""
    overtaken_seconds: float = 60.0
    """So long an event waits for the one that it overtook: until something is taken in from its lane, or this is over."""
    second_look_seconds: float = 2.0
    """A message is looked at once more before that: what it waits for may have come by way of another process."""
    backoff_seconds: float = 1.0
    """Before the second attempt; doubled each time."""
    longest_backoff_seconds: float = 60.0
    attempts: int = 3
    """Where it fails for a reason that nobody knows."""
    refused_seconds: float = 120.0
    """So long what the platform does not allow is tried again, until the person is told so."""
    away_seconds: float = 3600.0
    """So long an event waits for a platform that does not answer."""
    closed_seconds: float = 86_400.0
    """And so long for the bot to be let in again: until then nobody can be told anything."""


class _FileLanes:
    """The lanes whose message has files just now. The others find a lane free, however many such messages wait."""

    def __init__(self, rules: IntakeRules) -> None:
        self._rules = rules
        self._by_author: Counter[str] = Counter()

    def is_full(self, author: str) -> bool:
        """For this person's files."""
        return self._by_author.total() >= self._rules.with_files or self._by_author[author] >= self._rules.with_files_of_one

    @contextmanager
    def holding(self, author: str) -> Iterator[None]:
        self._by_author[author] += 1
        try:
            yield
        finally:
            self._by_author[author] -= 1
            self._by_author += Counter()  # forgets those who hold none


class Intake:
    """Takes in what was stored of one account's events, in whichever process holds the account."""

    def __init__(self, services: Services, surface: ChatSurface, taking: Taking, rules: IntakeRules = IntakeRules()) -> None:
        self._services = services
        self._surface = surface
        self._taking = taking
        self._rules = rules
        self._woken = asyncio.Event()
        self._busy: set[str] = set()
        self._files = _FileLanes(rules)
        self._overtaken: defaultdict[str, dict[UUID, InboundEvent]] = defaultdict(dict)
        """Those that wait for what they overtook, by lane."""

    def wake(self) -> None:
        """Something was stored."""
        self._woken.set()

    async def run(self, lease: AccountLease) -> None:
        """Until cancelled; raises LeaseLost once another process has taken the account."""
        self._overtaken.clear()
        await self._introduce()
        with lost_alone():
            async with asyncio.TaskGroup() as lanes:
                await self._look(lanes, lease)

    async def _introduce(self) -> None:
        """Tells the surface who is who: most were met by other processes."""
        while True:
            try:
                async with self._services.storage.read() as uow:
                    self._surface.meet(*await uow.identities.all(self._surface.account))
                return
            except StorageUnavailable as error:
                _log.warning("intake.storage_unavailable", reason=str(error))
                await asyncio.sleep(self._rules.poll_seconds)

    async def _look(self, lanes: asyncio.TaskGroup, lease: AccountLease) -> None:
        while True:
            self._woken.clear()
            await self._start(lanes, lease)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._rules.poll_seconds):
                    await self._woken.wait()

    async def _start(self, lanes: asyncio.TaskGroup, lease: AccountLease) -> None:
        busy = frozenset(self._busy)  # a lane that ends while we read may have done what we read as waiting
        for lane, events in (await self._waiting()).items():
            if len(self._busy) >= self._rules.lanes:
                return
            if lane not in busy and not self._must_wait(events[0]):
                self._busy.add(lane)
                lanes.create_task(self._run_lane(lane, events, lease), name=f"intake.{lane}")

    async def _waiting(self) -> dict[str, list[InboundEvent]]:
        by_lane = defaultdict(list)
        try:
            async with self._services.storage.read() as uow:
                for event in await uow.inbound.waiting(self._surface.account, uow.now, limit=self._rules.batch):
                    by_lane[event.lane].append(event)
        except StorageUnavailable as error:
            _log.warning("intake.storage_unavailable", reason=str(error))
        return by_lane

    async def _run_lane(self, lane: str, events: Sequence[InboundEvent], lease: AccountLease) -> None:
        try:
            for event in events:
                if self._must_wait(event):
                    return
                self._overtaken[lane].pop(event.id, None)
                with self._files.holding(author) if (author := self._with_files_of(event)) is not None else nullcontext():
                    if not await self._take(event, lease):
                        return
        finally:
            if not self._overtaken[lane]:
                del self._overtaken[lane]
            self._busy.discard(lane)
            self._woken.set()

    def _must_wait(self, event: InboundEvent) -> bool:
        """For files of others to be taken in."""
        author = self._with_files_of(event)
        return author is not None and self._files.is_full(author)

    def _with_files_of(self, event: InboundEvent) -> str | None:
        told = self._surface.event(event.payload)
        return told.author if isinstance(told, Said) and told.files else None

    async def _take(self, event: InboundEvent, lease: AccountLease) -> bool:
        """Whether those behind it in its lane may follow."""
        try:
            return await self._try(event, lease)
        except StorageUnavailable as error:
            _log.warning("intake.storage_unavailable", reason=str(error))
            await asyncio.sleep(self._rules.poll_seconds)
            return False

    async def _try(self, event: InboundEvent, lease: AccountLease) -> bool:
        try:
            await self._attempt(event, lease)
        except (LeaseLost, StorageUnavailable):
            raise
        except Exception as error:  # noqa: BLE001  # the outermost loop: one event must not end the others
            return await self._failed(event, lease, error)
        await self._look_again(event.lane, lease)
        return True

    async def _attempt(self, event: InboundEvent, lease: AccountLease) -> None:
        @asynccontextmanager
        async def commit() -> AsyncIterator[UnitOfWork]:
            async with self._write(lease) as uow:
                yield uow
                await uow.inbound.done(event.id, uow.now)

        told = self._surface.event(event.payload)
        if told is None:
            async with commit():
                return
        try:
            await self._taking.take(told, commit, event)
        except Conflict:
            await self._taking.take(told, commit, event)  # somebody bound the place or met the person at the same moment

    async def _failed(self, event: InboundEvent, lease: AccountLease, error: Exception) -> bool:
        match error:
            case Overtaken():
                await self._wait(event, lease)
                return True
            case PlaceClosed():
                await self._give_up(event, lease, error.reason, str(error))
                return True
            case SurfaceError():
                return await self._held_up(event, lease, error)
            case OnethreadError() if not isinstance(error, Conflict):
                await self._give_up(event, lease, error.code, str(error))
                return True
        _log.error("intake.failed", event_id=str(event.id), attempts=event.attempts + 1, **place_of(error))
        if event.attempts + 1 < self._rules.attempts:
            await self._again(event, lease, self._backoff(event))
            return False
        await self._give_up(event, lease, "INTERNAL", _broken(event.id))
        return True

    async def _held_up(self, event: InboundEvent, lease: AccountLease, error: SurfaceError) -> bool:
        """By the platform: what is behind it in its lane waits too, but not for ever."""
        code = error.reason if isinstance(error, AccountClosed) else type(error).__name__
        _log.warning("intake.held_up", event_id=str(event.id), code=code, attempts=event.attempts + 1)
        match error:
            case PermissionMissing():
                patience = self._rules.refused_seconds
            case AccountClosed():
                patience = self._rules.closed_seconds
            case _:
                patience = self._rules.away_seconds
        if self._services.clock.now() - event.received_at > timedelta(seconds=patience):
            await self._give_up(event, lease, code, f"{error} {_AGAIN}")
            return True
        await self._again(event, lease, error.retry_after if isinstance(error, Busy) else self._backoff(event))
        return False

    async def _wait(self, event: InboundEvent, lease: AccountLease) -> None:
        """For the event that it overtook; in the end it was about nothing of ours."""
        end = event.received_at + timedelta(seconds=self._rules.overtaken_seconds)
        is_said = isinstance(self._surface.event(event.payload), Said)
        async with self._write(lease) as uow:
            if uow.now >= end:
                await uow.inbound.done(event.id, uow.now)
                return
            soon = uow.now + timedelta(seconds=self._rules.second_look_seconds)
            run_after = min(soon, end) if is_said and event.attempts == 0 else end
            await uow.inbound.later(event.id, run_after, attempts=event.attempts + 1, waits=True)
        self._overtaken[event.lane][event.id] = event

    async def _look_again(self, lane: str, lease: AccountLease) -> None:
        """At those that may have waited for what was taken in just now."""
        if waiting := self._overtaken.pop(lane, None):
            async with self._write(lease) as uow:
                for event in waiting.values():
                    await uow.inbound.later(event.id, uow.now, attempts=event.attempts + 1, waits=True)

    async def _again(self, event: InboundEvent, lease: AccountLease, seconds: float) -> None:
        async with self._write(lease) as uow:
            await uow.inbound.later(event.id, uow.now + timedelta(seconds=seconds), attempts=event.attempts + 1, waits=False)

    async def _give_up(self, event: InboundEvent, lease: AccountLease, code: str, sentence: str) -> None:
        _log.warning("intake.given_up", event_id=str(event.id), code=code)
        told = self._surface.event(event.payload)
        async with self._write(lease) as uow:
            await uow.inbound.done(event.id, uow.now, error=code)
        if told is not None:
            await self._taking.tell_about(told, sentence)

    @asynccontextmanager
    async def _write(self, lease: AccountLease) -> AsyncIterator[UnitOfWork]:
        async with self._services.storage.write() as uow:
            await uow.account_leases.fence(lease)
            yield uow

    def _backoff(self, event: InboundEvent) -> float:
        return min(self._rules.backoff_seconds * 2.0**event.attempts, self._rules.longest_backoff_seconds)


def _broken(event_id: UUID) -> str:
    return f"Something went wrong here, and this message was not taken in. Send it again; if that fails too, tell an admin: {event_id}"
