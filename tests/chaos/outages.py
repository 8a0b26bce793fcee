"""Outages of the database and of the provider, one after another, spread over all that people write."""

import asyncio
import itertools
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from tests.chaos.databases import Database, Outage
from tests.chaos.disturbance import Disturbance
from tests.chaos.fleet import wait_until
from tests.chaos.talker import Talker
from tests.emulators.raw_provider import RawProvider

SECONDS = (0.5, 3.5)
"""Added to what an outage lasts at least."""
PROVIDER_SECONDS = (1.5, 4.0)


class Outages:
    """Each kind in turn, whenever `progress`, which goes from 0 to 1, has come on by a step."""

    def __init__(self, database: Database, provider: RawProvider, talker: Talker, disturbance: Disturbance, *, seed: int) -> None:
        self._database = database
        self._provider = provider
        self._talker = talker
        self._disturbance = disturbance
        self._dice = random.Random(seed)
        self.figures: Counter[str] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @property
    def kinds(self) -> list[str]:
        """Those of the database and of the provider in turns."""
        pairs = itertools.zip_longest(self._database.outages, self._of_provider)
        return [kind for pair in pairs for kind in pair if kind]

    async def run(self, number: int, progress: Callable[[], float]) -> None:
        """At least one of each kind."""
        number = max(number, len(self.kinds))
        for index, kind in enumerate(itertools.islice(itertools.cycle(self.kinds), number)):
            await wait_until(lambda index=index: progress() >= (index + 0.5) / (number + 1), 600)  # type: ignore[misc]
            if kind in self._of_provider:
                await self._happen(kind, self._of_provider[kind], self._dice.uniform(*PROVIDER_SECONDS))
            else:
                await self._of_the_database(kind)

    async def _of_the_database(self, kind: str) -> None:
        """Every other time a worker dies meanwhile."""
        seconds = self._database.shortest_outages[kind] + self._dice.uniform(*SECONDS)
        async with self._disturbance.outage():
            await self._happen(kind, self._database.outages[kind], seconds, deadly=self._dice.random() < 0.5)

    async def _happen(self, kind: str, outage: Outage, seconds: float, *, deadly: bool = False) -> None:
        began = time.monotonic()
        async with outage():
            await asyncio.sleep(seconds / 2)
            if deadly:
                await self._disturbance.kill_unseen()
            await asyncio.sleep(seconds / 2)
        self.figures[kind] += 1
        self.seconds[kind] += round(time.monotonic() - began, 1)

    @property
    def _of_provider(self) -> Mapping[str, Outage]:
        return {"provider answers 503": self._busy, "provider refuses connections": self._provider.refusing}

    @asynccontextmanager
    async def _busy(self) -> AsyncIterator[None]:
        self._talker.away = True
        yield
        self._talker.away = False
