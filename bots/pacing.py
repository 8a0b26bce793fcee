"""Keeps a platform's rate limits: which call may be made when, the most urgent first."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

RECOVERY_SECONDS = 120.0
"""After so long without a 429 a bucket that stood still has its full rate again."""
SLOWEST = 1 / 8
"""Of its full rate: a bucket is not slowed further, however often the platform is busy."""

_FEW_BUCKETS = 100
"""So many are not worth a look for those that could be forgotten."""
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How many calls a platform takes."""

    calls: float
    """In `seconds`, evenly."""
    seconds: float
    burst: int = 1
    """Calls that may follow one another at once when none were made for a while."""
    shared: bool = False
    """Beside narrower ones: a call that is turned away was so for one of these."""


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
        self._began_at = _now()
        self._buckets: dict[str, _Bucket] = {}
        self._prune_at = _FEW_BUCKETS

    async def grant(self, budgets: Mapping[str, Budget], urgency: Callable[[], Urgency]) -> None:
        """Waits until every named budget has room for a call, and counts one in each.

        `urgency` is asked at each decision: what waits may become more urgent. `reconsider` makes one at once.
        """
        if not budgets:
            return
        waiter = _Waiter([self._bucket(name, budget) for name, budget in budgets.items()], urgency)
        waiter.join()
        self._serve(waiter.buckets)
        try:
            await waiter.granted
        except asyncio.CancelledError:
            self._give_up(waiter)
            raise

    def give_back(self, names: Iterable[str]) -> None:
        """A call that was granted is not made."""
        found = self._named(names)
        for bucket in found:
            bucket.give_back()
        self._serve(found)

    def busy(self, budgets: Mapping[str, Budget], retry_after: float) -> None:
        """The platform turned a call away that was counted in these budgets: none for `retry_after` seconds, then half as many."""
        found = [self._bucket(name, budget) for name, budget in budgets.items()]
        for bucket in found:
            bucket.stop(_now(), retry_after)
        self._serve(found)

    def reconsider(self, names: Iterable[str]) -> None:
        """Grants what can be granted now."""
        self._serve(self._named(names))

    @property
    def buckets(self) -> int:
        """How many are remembered."""
        return len(self._buckets)

    def _bucket(self, name: str, budget: Budget) -> "_Bucket":
        if name not in self._buckets:
            self._prune()
            self._buckets[name] = _Bucket(budget, self._began_at)
        return self._buckets[name]

    def _prune(self) -> None:
        """A bucket that is full is as one that was never used."""
        if len(self._buckets) < self._prune_at:
            return
        now = _now()
        for bucket in self._buckets.values():
            bucket.refill(now)
        self._buckets = {name: bucket for name, bucket in self._buckets.items() if not bucket.is_unused}
        self._prune_at = max(_FEW_BUCKETS, 2 * len(self._buckets))

    def _named(self, names: Iterable[str]) -> "list[_Bucket]":
        return [self._buckets[name] for name in names if name in self._buckets]

    def _serve(self, buckets: "Iterable[_Bucket]") -> None:
        left = list(buckets)
        while left:
            bucket, now = left.pop(), _now()  # one and the same: room that comes between two looks would be seen by neither
            while waiter := bucket.next(now):
                waiter.take()
                left += [each for each in waiter.buckets if each is not bucket]  # fewer compete there
            bucket.wake_later(now, self._serve)

    def _give_up(self, waiter: "_Waiter") -> None:
        if waiter.waits:
            waiter.leave()
        elif not waiter.granted.cancelled():  # it was granted in the instant in which it was cancelled
            for bucket in waiter.buckets:
                bucket.give_back()
        self._serve(waiter.buckets)


@dataclass(slots=True, eq=False)
class _Waiter:
    buckets: "Sequence[_Bucket]"
    urgency: Callable[[], Urgency]
    granted: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def waits(self) -> bool:
        return self in self.buckets[0].waiting

    def join(self) -> None:
        for bucket in self.buckets:
            bucket.waiting[self] = None

    def leave(self) -> None:
        for bucket in self.buckets:
            del bucket.waiting[self]

    def take(self) -> None:
        self.leave()
        for bucket in self.buckets:
            bucket.room -= 1
        self.granted.set_result(None)

    def fits(self, rank: Rank, now: float) -> bool:
        """Whether all its buckets have room."""
        return not self.granted.cancelled() and all(bucket.seconds_until(bucket.needed(rank), now) <= 0 for bucket in self.buckets)


class _Bucket:
    """Room for calls, which comes back evenly, and those who wait for it."""

    def __init__(self, budget: Budget, began_at: float) -> None:
        self.budget = budget
        self.room = 0.0
        self.waiting: dict[_Waiter, None] = {}
        self._full_rate = budget.calls / budget.seconds
        self._rate = self._full_rate
        self._refilled_at = began_at
        self._stopped_until = began_at
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_unused(self) -> bool:
        return not self.waiting and self.room >= self.budget.burst and self._rate >= self._full_rate

    def next(self, now: float) -> _Waiter | None:
        """The most urgent one for which there is room."""
        self.refill(now)
        if self.seconds_until(1, now) > 0:
            return None
        urgencies = [(waiter, waiter.urgency()) for waiter in self.waiting]
        ready = [(waiter, urgency) for waiter, urgency in urgencies if waiter.fits(urgency.rank, now)]
        return min(ready, key=lambda each: each[1].order, default=(None, None))[0]

    def wake_later(self, now: float, serve: "Callable[[Iterable[_Bucket]], None]") -> None:
        """Has itself served when there is more room for those who wait. Who lacks room elsewhere is served from there."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        needed = 1 if self.seconds_until(1, now) > 0 else 2
        if self.waiting and needed <= max(self.budget.burst, 1) and (seconds := self.seconds_until(needed, now)) > 0:
            self._timer = asyncio.get_running_loop().call_at(now + max(seconds, 0.001), serve, (self,))

    def needed(self, rank: Rank) -> int:
        """Where several wait, all but the final ones leave room for one final call."""
        return 1 if rank is Rank.FINAL or self.budget.burst < 2 or len(self.waiting) < 2 else 2

    def refill(self, now: float) -> None:
        begins = max(self._refilled_at, self._stopped_until)
        if now <= begins:
            return
        seconds = now - begins
        self.room = min(self.room + seconds * self._rate, float(self.budget.burst))
        self._rate = min(self._rate + seconds * self._full_rate / RECOVERY_SECONDS, self._full_rate)
        self._refilled_at = now

    def seconds_until(self, needed: int, now: float) -> float:
        self.refill(now)
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


def _now() -> float:
    return asyncio.get_running_loop().time()
