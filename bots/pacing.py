"""Keeps a platform's rate limits: which call may be made when, the most urgent first."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

RECOVERY_SECONDS = 120.0
"""After so long without a 429 a bucket that stood still has its full rate again."""
SLOWEST = 1 / 8
"""Of its full rate: a bucket is not slowed further, however often the platform is busy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How many calls a platform takes."""

    calls: float
    """In `seconds`, evenly."""
    seconds: float
    burst: int = 1
    """Calls that may follow one another at once when none were made for a while."""


class Rank(IntEnum):
    """What a call is for, the least urgent first."""

    LIVE = 0
    """Text that will still be changed."""
    FIRST = 1
    """The first that is seen of a message."""
    CONTROL = 2
    """Buttons, a question for approval, what the agent does."""
    FINAL = 3
    """What stays."""


_HEAD_START_SECONDS = {Rank.LIVE: 0.0, Rank.FIRST: 30.0, Rank.CONTROL: 60.0, Rank.FINAL: float("inf")}
"""So much older a call of this rank counts as: the more urgent goes first, and yet nothing waits for ever behind it."""


@dataclass(frozen=True, slots=True)
class Urgency:
    rank: Rank
    since: float
    """When the oldest of what is not shown came, by the event loop's clock."""

    @property
    def order(self) -> tuple[float, float]:
        """The smallest goes first."""
        return (self.since - _HEAD_START_SECONDS[self.rank], self.since)


class Pacer:
    """Grants calls. It begins without any room, as whoever made calls before may have used all there was.

    Every method belongs to the event loop's thread; time is the loop's.
    """

    def __init__(self) -> None:
        self._buckets: dict[str, _Bucket] = {}
        self._waiting: list[_Waiter] = []
        self._timer: asyncio.TimerHandle | None = None

    async def grant(self, budgets: Mapping[str, Budget], urgency: Callable[[], Urgency]) -> None:
        """Waits until every named budget has room for a call, and counts one in each.

        `urgency` is asked at each decision: what waits may become more urgent. `reconsider` makes one at once.
        """
        if not budgets:
            return
        for name, budget in budgets.items():
            if name not in self._buckets:
                self._buckets[name] = _Bucket(budget, self._now)
        waiter = _Waiter(frozenset(budgets), urgency)
        self._wait(waiter)
        self.reconsider()
        try:
            await waiter.granted
        except asyncio.CancelledError:
            self._give_up(waiter)
            raise

    def busy(self, names: Iterable[str], retry_after: float) -> None:
        """The platform turned a call away that was counted in these budgets: none for `retry_after` seconds, then half as many."""
        for name in names:
            if name in self._buckets:
                self._buckets[name].stop(self._now, retry_after)
        self.reconsider()

    def reconsider(self) -> None:
        """Grants what can be granted now."""
        now = self._now
        for bucket in self._buckets.values():
            bucket.refill(now)
        while waiter := self._next():
            self._leave(waiter)
            for name in waiter.names:
                self._buckets[name].room -= 1
            waiter.granted.set_result(None)
        self._set_timer(now)

    def _wait(self, waiter: "_Waiter") -> None:
        self._waiting.append(waiter)
        for name in waiter.names:
            self._buckets[name].waiting += 1

    def _leave(self, waiter: "_Waiter") -> None:
        self._waiting.remove(waiter)
        for name in waiter.names:
            self._buckets[name].waiting -= 1

    def _next(self) -> "_Waiter | None":
        """The most urgent one for which there is room."""
        ready = [each for each in self._waiting if not each.granted.cancelled() and self._lacks(each, each.urgency().rank) <= 0]
        return min(ready, key=lambda waiter: waiter.urgency().order, default=None)

    def _lacks(self, waiter: "_Waiter", rank: Rank) -> float:
        """Seconds until there is room; not more than 0 where it is there."""
        return max(self._buckets[name].seconds_until(self._needed(name, rank), self._now) for name in waiter.names)

    def _needed(self, name: str, rank: Rank) -> int:
        """Where several wait, all but the final ones leave room for one final call."""
        bucket = self._buckets[name]
        return 1 if rank is Rank.FINAL or bucket.budget.burst < 2 or bucket.waiting < 2 else 2

    def _set_timer(self, now: float) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            soonest = min(self._lacks(waiter, waiter.urgency().rank) for waiter in self._waiting)
            self._timer = asyncio.get_running_loop().call_at(now + max(soonest, 0.001), self.reconsider)

    def _give_up(self, waiter: "_Waiter") -> None:
        if waiter in self._waiting:
            self._leave(waiter)
        elif not waiter.granted.cancelled():  # it was granted in the instant in which it was cancelled
            for name in waiter.names:
                self._buckets[name].give_back()
        self.reconsider()

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time()


@dataclass(slots=True, eq=False)
class _Waiter:
    names: frozenset[str]
    urgency: Callable[[], Urgency]
    granted: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class _Bucket:
    """Room for calls, which comes back evenly."""

    def __init__(self, budget: Budget, now: float) -> None:
        self.budget = budget
        self.room = 0.0
        self.waiting = 0
        """Calls that wait for it."""
        self._full_rate = budget.calls / budget.seconds
        self._rate = self._full_rate
        self._refilled_at = now
        self._stopped_until = now

    def refill(self, now: float) -> None:
        begins = max(self._refilled_at, self._stopped_until)
        if now <= begins:
            return
        seconds = now - begins
        self.room = min(self.room + seconds * self._rate, float(self.budget.burst))
        self._rate = min(self._rate + seconds * self._full_rate / RECOVERY_SECONDS, self._full_rate)
        self._refilled_at = now

    def seconds_until(self, needed: int, now: float) -> float:
        if self.room >= needed - _ROUNDING:
            return 0.0
        return max(self._stopped_until - now, 0.0) + (needed - self.room) / self._rate

    def stop(self, now: float, seconds: float) -> None:
        self.refill(now)
        if now >= self._stopped_until:  # calls made at once are turned away at once: they slow it once
            self._rate = max(self._rate / 2, self._full_rate * SLOWEST)
        self.room = 0.0
        self._stopped_until = max(self._stopped_until, now + seconds)
        self._refilled_at = max(self._refilled_at, now)

    def give_back(self) -> None:
        self.room = min(self.room + 1, float(self.budget.burst))


_ROUNDING = 1e-9
