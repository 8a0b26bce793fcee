"""What somebody was told lately, so that they are not told it again and again."""

from datetime import datetime, timedelta

from core.ports import Clock

_REMEMBERED = 1_000


class Reminders:
    """Of one process: after a restart somebody may be told once more."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told: dict[str, datetime] = {}

    def may_tell(self, what: str, pause: timedelta) -> bool:
        """Whether it was not told during the `pause`; then it counts as told now."""
        now = self._clock.now()
        if (last := self._told.get(what)) and now - last < pause:
            return False
        self._told.pop(what, None)
        self._told[what] = now
        if len(self._told) > _REMEMBERED:
            del self._told[next(iter(self._told))]
        return True
