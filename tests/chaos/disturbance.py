"""What happens to the workers while people write: kills, stops beyond the lease, orderly restarts."""

import asyncio
import random
from collections import Counter
from contextlib import suppress

from tests.chaos.evidence import Evidence, Held
from tests.chaos.fleet import Fleet, WorkerProcess, wait_until

PAUSE_SECONDS = (2.0, 4.0)
ZOMBIE_SECONDS = 8.0


class Disturbance:
    def __init__(self, fleet: Fleet, evidence: Evidence, *, workers: int, seed: int) -> None:
        self._fleet = fleet
        self._evidence = evidence
        self._number = workers
        self._dice = random.Random(seed)
        self._workers: list[WorkerProcess] = []
        self._zombie: asyncio.Task[None] | None = None
        self.figures: Counter[str] = Counter()

    async def run(self) -> None:
        """Until cancelled; afterwards every worker runs."""
        for _ in range(self._number):
            self._workers.append(await self._fleet.start())
        try:
            while True:
                await asyncio.sleep(self._dice.uniform(*PAUSE_SECONDS))
                await self._do_something()
        finally:
            if self._zombie:
                self._zombie.cancel()
                await asyncio.wait({self._zombie})

    async def _do_something(self) -> None:
        awake = [worker for worker in self._workers if not worker.stopped]
        victim = self._dice.choice(awake)
        chance = self._dice.random()
        if chance < 0.30 and (self._zombie is None or self._zombie.done()):
            self._zombie = asyncio.create_task(self._make_a_zombie(victim), name="zombie")
        elif chance < 0.40:
            self.figures["orderly restarts"] += 1
            victim.ask_to_end()
            await victim.ended()
            await self._replace(victim)
        else:
            await self._kill(victim)

    async def _kill(self, victim: WorkerProcess) -> None:
        victim.stop()  # so that what it runs is counted at the moment of its death
        held = self._evidence.held_by(victim.pid)
        victim.kill()
        self.figures["kills"] += 1
        self.figures["turns hit"] += len(held)
        self.figures["kills that hit a turn"] += bool(held)
        self.figures["drafts left behind"] += sum(each.has_draft for each in held)
        await self._replace(victim)

    async def _replace(self, victim: WorkerProcess) -> None:
        self._workers[self._workers.index(victim)] = await self._fleet.start()

    async def _make_a_zombie(self, victim: WorkerProcess) -> None:
        victim.stop()
        try:
            lost = await self._taken_over(self._evidence.held_by(victim.pid))
            self.figures["zombies"] += bool(lost)
            self.figures["turns lost by zombies"] += lost
        finally:
            victim.go_on()

    async def _taken_over(self, held: list[Held]) -> int:
        """Waits until others have claimed some of them. One that was stopped within a transaction is let go: it stops everybody."""
        if not held or await asyncio.to_thread(self._evidence.write_locked):
            return 0
        with suppress(AssertionError):
            await wait_until(lambda: self._evidence.lost(held), ZOMBIE_SECONDS)
            await asyncio.sleep(self._dice.uniform(0.0, 1.5))
        return self._evidence.lost(held)
