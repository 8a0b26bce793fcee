"""What a platform told lately, so that it is not asked for each message."""

import time
from collections.abc import Callable
from typing import Generic, TypeVar

_MOST = 5_000
Value = TypeVar("Value")


class Remembered(Generic[Value]):
    """By id, for so many seconds."""

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._now = now
        self._values: dict[str, tuple[Value, float]] = {}

    def get(self, key: str) -> Value | None:
        value, told_at = self._values.get(key, (None, 0.0))
        return value if self._now() - told_at < self._seconds else None

    def clear(self) -> None:
        self._values.clear()

    def put(self, key: str, value: Value) -> None:
        self._values.pop(key, None)
        self._values[key] = (value, self._now())
        if len(self._values) > _MOST:
            del self._values[next(iter(self._values))]
