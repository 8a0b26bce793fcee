"""Discord's rate limits as its answers tell them. Nothing waits here: a call for which there is no room is not made, and it is said when
there will be.

Discord bans an address that makes 10,000 invalid calls in ten minutes; what keeps far from that is here, too.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import discord
import structlog
from discord.http import Route

_INVALID_STATUSES = frozenset({401, 403, 429})
_INVALID_SECONDS = 600.0
_INVALID_CALLS = 1_000
"""A tenth of those for which one is banned: other processes may call from the same address."""
_BLOCKED_SECONDS = (60.0, 3_600.0)
"""The least and the most that is waited where Cloudflare turns calls away."""
_BUSY_SECONDS = 5.0  # where Discord does not say how long
_WINDOW_SECONDS = 600.0
"""The longest that Discord has, for a thread's name. Whatever a server says, no call waits longer for its limit."""
_READS_SECONDS = 1.0
_MANY_BUCKETS = 256
_log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class _Bucket:
    """The calls that share a limit. Without a window nothing is known of it."""

    limit: int = 1
    remaining: int = 0
    ends_at: float = 0.0
    """When there is room again."""
    window: str = ""
    """By Discord's clock."""
    outgoing: int = 0


class Limiter:
    """What several clients of one bot may share. Every method belongs to the event loop's thread."""

    def __init__(self, now: Callable[[], float] = time.monotonic, *, reads: int = 1_000) -> None:
        self._now = now
        self._reads: deque[float] = deque(maxlen=reads)
        """When the last ones were: more than these are not made in a second, so that they use up no limit of all calls."""
        self._reading = asyncio.Lock()
        self._hashes: dict[str, str] = {}
        self._buckets: dict[str, _Bucket] = {}
        self._stopped_until = 0.0
        self._invalid: deque[float] = deque()

    async def turn_to_read(self) -> None:
        """Waits for room for a GET, one after another: were they refused, many at once would begin anew half-way again and again."""
        async with self._reading:
            if len(self._reads) == self._reads.maxlen:
                await asyncio.sleep(max(self._reads[0] + _READS_SECONDS - self._now(), 0.0))
            self._reads.append(self._now())

    @contextmanager
    def calling(self, route: Route) -> Iterator[None]:
        """Around one call. Raises discord.RateLimited where Discord would turn it away."""
        now = self._now()
        if now < self._stopped_until:
            raise discord.RateLimited(self._stopped_until - now)
        bucket = self._bucket(route)
        _take(bucket, now)
        try:
            yield
        finally:
            bucket.outgoing -= 1

    def answered(self, route: Route, status: int, headers: Mapping[str, str]) -> None:
        """Learns from an answer, of whatever kind."""
        self._count(status, headers)
        bucket = self._bucket(route)
        if (shared := headers.get("X-RateLimit-Bucket")) and self._hashes.get(route.key) != shared:
            self._hashes[route.key] = shared
            self._buckets.setdefault(f"{shared}:{route.major_parameters}", bucket)
        if status != 429:  # it may be of a narrower limit, whose numbers are not this bucket's
            _renew(self._bucket(route), headers, self._now())

    def turned_away(self, headers: Mapping[str, str], told: Mapping[str, object] | None) -> float:
        """The seconds to wait after a 429; `told` is the JSON that came with it, None where it was none."""
        if told is None or not (headers.get("Via") or _is_number(told.get("retry_after"))):
            return self._blocked(headers)  # it was not Discord that answered
        seconds = _seconds(told.get("retry_after")) or _seconds(headers.get("Retry-After")) or _BUSY_SECONDS
        if told.get("global") or headers.get("X-RateLimit-Global"):
            self._stop(seconds)
        return seconds

    def _blocked(self, headers: Mapping[str, str]) -> float:
        least, most = _BLOCKED_SECONDS
        seconds = min(max(_seconds(headers.get("Retry-After")) or _INVALID_SECONDS, least), most)
        if self._stop(seconds):
            _log.warning("discord.blocked", by="Cloudflare", seconds=round(seconds), why="too many calls from this address")
        return seconds

    def _count(self, status: int, headers: Mapping[str, str]) -> None:
        if status not in _INVALID_STATUSES or headers.get("X-RateLimit-Scope") == "shared":
            return
        now = self._now()
        self._invalid.append(now)
        while self._invalid[0] < now - _INVALID_SECONDS:
            self._invalid.popleft()
        if len(self._invalid) >= _INVALID_CALLS and self._stop(seconds := self._invalid[0] + _INVALID_SECONDS - now):
            _log.warning("discord.paused", seconds=round(seconds), why="Discord turned too many calls away")

    def _stop(self, seconds: float) -> bool:
        """No call is made for so long. Whether that is news."""
        now = self._now()
        is_news = now >= self._stopped_until
        self._stopped_until = max(self._stopped_until, now + seconds)
        return is_news

    def _bucket(self, route: Route) -> _Bucket:
        key = f"{self._hashes.get(route.key, route.key)}:{route.major_parameters}"
        if key not in self._buckets:
            self._prune()
            self._buckets[key] = _Bucket()
        return self._buckets[key]

    def _prune(self) -> None:
        if len(self._buckets) >= _MANY_BUCKETS:
            now = self._now()
            self._buckets = {key: each for key, each in self._buckets.items() if each.outgoing or now < each.ends_at}


def _take(bucket: _Bucket, now: float) -> None:
    """Counts a call. What a cancelled one used comes back with the window's end, as Discord may have counted it."""
    if now < bucket.ends_at:
        if bucket.remaining <= 0:
            raise discord.RateLimited(bucket.ends_at - now)
        bucket.remaining -= 1
    elif bucket.window and bucket.outgoing >= bucket.limit:  # whose answers will tell of the new window
        raise discord.RateLimited(1.0)
    bucket.outgoing += 1


def _renew(bucket: _Bucket, headers: Mapping[str, str], now: float) -> None:
    try:
        limit, remaining = int(headers["X-RateLimit-Limit"]), int(headers["X-RateLimit-Remaining"])
        lasts = float(headers["X-RateLimit-Reset-After"])
    except (KeyError, ValueError):
        return
    if limit < 1 or not math.isfinite(lasts):  # as of a server that has no limits
        bucket.window, bucket.ends_at = "", now
        return
    ends_at = now + min(max(lasts, 0.0), _WINDOW_SECONDS)
    window = headers.get("X-RateLimit-Reset", "")
    is_same = window == bucket.window and now < bucket.ends_at
    # Answers overtake one another, and this one may not know of calls that are on their way.
    bucket.remaining = min(remaining, bucket.remaining) if is_same else remaining - bucket.outgoing
    bucket.limit, bucket.ends_at, bucket.window = limit, ends_at, window or str(ends_at)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _seconds(value: object) -> float:
    """0 for what is none."""
    try:
        return min(max(0.0, float(value)), _BLOCKED_SECONDS[1]) if isinstance(value, str | int | float) else 0.0
    except ValueError:
        return 0.0
