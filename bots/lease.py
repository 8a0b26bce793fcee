"""The lease of a platform's account, as its holder keeps it: how long it lasts is told by this machine's clock, not the database's."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from core.errors import LeaseLost
from core.models import AccountLease


@contextmanager
def lost_alone() -> Iterator[None]:
    """Around a TaskGroup: once the lease is lost, nothing else that went wrong in it matters. Raises LeaseLost then."""
    try:
        yield
    except BaseExceptionGroup as errors:
        if errors.subgroup(LeaseLost):
            raise LeaseLost("Another process acts for this account now.") from None
        raise


class Held:
    """A lease that this process holds. `until` is by the event loop's clock."""

    def __init__(self, lease: AccountLease, until: float) -> None:
        self.lease = lease
        self._until = until
        self._extended = asyncio.Event()

    @property
    def lasts(self) -> float:
        """Seconds."""
        return self._until - asyncio.get_running_loop().time()

    def extend(self, longer: "Held") -> None:
        self.lease, self._until = longer.lease, longer._until
        self._extended.set()
        self._extended = asyncio.Event()

    async def long_enough(self, seconds: float) -> None:
        """Waits until it lasts longer than that: what is begun then ends before somebody else may act."""
        while self.lasts <= seconds:
            await self._extended.wait()
