"""Discord's rate limits: windows that begin with their first call, and the headers that tell of them."""

import asyncio
import hashlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

DEFAULTS: dict[str, tuple[int, float]] = {
    "global": (50, 1.0),
    "message.create": (5, 5.0),
    "message.edit": (5, 5.0),
    "message.delete": (5, 1.0),
    "message.list": (5, 5.0),
    "thread.create": (50, 300.0),
    "typing": (5, 5.0),
    "other": (100, 10.0),
    # only their 429 tells of these
    "channel.rename": (2, 600.0),
    "edit.old": (3, 20.0),
}


@dataclass(slots=True)
class Window:
    ends: float
    used: int = 0


@dataclass(slots=True)
class Verdict:
    """`retry_after` is None where the call may go on."""

    headers: dict[str, str] = field(default_factory=dict)
    retry_after: float | None = None
    everywhere: bool = False


@dataclass(slots=True)
class Limits:
    """`limits[name] = (calls, seconds)`; None: no such limit. `speed` shortens every window."""

    speed: float = 1.0
    clock_offset: float = 0.0
    _rules: dict[str, tuple[int, float] | None] = field(default_factory=lambda: dict(DEFAULTS))
    _windows: dict[tuple[str, str], Window] = field(default_factory=dict)

    def __getitem__(self, name: str) -> tuple[int, float] | None:
        return self._rules[name]

    def __setitem__(self, name: str, rule: tuple[int, float] | None) -> None:
        assert name in DEFAULTS, f"no such limit: {name!r}"
        self._rules[name] = rule
        for key in [key for key in self._windows if key[0] == name]:
            del self._windows[key]

    def __iter__(self) -> Iterator[str]:
        return iter(DEFAULTS)

    def off(self) -> None:
        """None is left."""
        for name in DEFAULTS:
            self[name] = None

    def take(self, name: str, major: str) -> Verdict:
        """Counts one call of that bucket."""
        rule = self._rules[name]
        if rule is None:
            return Verdict()
        retry_after = self.spend(name, major)
        window = self._windows[name, major]
        return Verdict(self._headers(name, rule[0], window), retry_after)

    def spend(self, name: str, major: str) -> float | None:
        """Counts one call; the seconds to wait where there is nothing left."""
        rule = self._rules[name]
        if rule is None:
            return None
        now = asyncio.get_running_loop().time()
        window = self._windows.get((name, major))
        if window is None or window.ends <= now:
            window = self._windows[name, major] = Window(now + rule[1] / self.speed)
        if window.used >= rule[0]:
            return window.ends - now
        window.used += 1
        return None

    def _headers(self, name: str, calls: int, window: Window) -> dict[str, str]:
        left = max(0.0, window.ends - asyncio.get_running_loop().time())
        return {
            "X-RateLimit-Limit": str(calls),
            "X-RateLimit-Remaining": str(calls - window.used),
            "X-RateLimit-Reset": f"{time.time() + self.clock_offset + left:.3f}",
            "X-RateLimit-Reset-After": f"{math.ceil(left * 1000) / 1000:.3f}",
            "X-RateLimit-Bucket": hashlib.md5(name.encode(), usedforsecurity=False).hexdigest(),
        }
