"""What happens to the workers while people write: kills, stops beyond the lease, orderly restarts."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.chaos.databases import Away
from tests.chaos.evidence import Evidence, Held
from tests.chaos.fleet import Fleet, WorkerProcess

PAUSE_SECONDS = (2.0, 4.0)
ZOMBIE_SECONDS = 15.0
LOOK_SECONDS = 0.1
SPARED = 2
"""After so many kills a turn is left alone: one more, and it is given up as one that kills its workers."""
STOPS = 20
"""Until one hits a worker that runs turns and holds no lock."""


class Disturbance:
    def __init__(self, fleet: Fleet, evidence: Evidence, *, workers: int, seed: int) -> None:
        self._fleet = fleet
        self._evidence = evidence
        self._number = workers
        self._dice = random.Random(seed)
        self._workers: list[WorkerProcess] = []
        self._zombie: asyncio.Task[None] | None = None
        self._opening = iter((False, True) * 3)
        """Whether to make a zombie, so that a short run has some of everything; afterwards dice decide, once there was one."""
        self._one_at_a_time = asyncio.Lock()
        self._hits: Counter[object] = Counter()
        """How often each turn lost its worker."""
        self.figures: Counter[str] = Counter()

    async def run(self) -> None:
        """Until cancelled; afterwards every worker runs."""
        for _ in range(self._number):
            self._workers.append(await self._fleet.start())
        try:
            while True:
                await asyncio.sleep(self._dice.uniform(*PAUSE_SECONDS))
                async with self._one_at_a_time:
                    await self._do_something()
        finally:
            if self._zombie:
                self._zombie.cancel()
                await asyncio.wait({self._zombie})

    @asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        """The database may be away while the block runs: nobody is killed then, as nobody could see what is hit. Who died is replaced."""
        async with self._one_at_a_time:
            yield
            for worker in [worker for worker in self._workers if worker.exit_code is not None]:
                await self._replace(worker)

    async def kill_unseen(self) -> None:
        """A worker dies while the database is away."""
        victim = self._dice.choice(self._awake())
        victim.kill()
        await victim.ended()
        self.figures["kills while the database was away"] += 1

    async def _do_something(self) -> None:
        victim = self._dice.choice(self._awake())
        chance = self._dice.random()
        wants_zombie = next(self._opening, chance < 0.30 or not self.figures["zombies"])
        if wants_zombie and (self._zombie is None or self._zombie.done()):
            if held := await self._stopped_at_work(victim):
                self._zombie = asyncio.create_task(self._make_a_zombie(victim, held), name="zombie")
        elif 0.30 <= chance < 0.40:
            self.figures["orderly restarts"] += 1
            victim.ask_to_end()
            await victim.ended()
            await self._replace(victim)
        else:
            await self._kill(victim)

    def _awake(self) -> list[WorkerProcess]:
        return [worker for worker in self._workers if not worker.stopped and worker.exit_code is None]

    async def _kill(self, victim: WorkerProcess) -> None:
        victim.stop()  # so that what it runs is counted at the moment of its death
        held = self._evidence.held_by(victim.pid)
        for _ in range(0 if self.figures["drafts left behind"] else STOPS):  # a short run, too, has one that dies in the middle of a reply
            if any(each.has_draft for each in held):
                break
            victim.go_on()
            await asyncio.sleep(self._dice.uniform(0.02, 0.2))
            victim.stop()
            held = self._evidence.held_by(victim.pid)
        if self._is_spared(held):
            victim.go_on()
            return
        victim.kill()
        self._hits.update(each.turn_id for each in held)
        self.figures["kills"] += 1
        self.figures["turns hit"] += len(held)
        self.figures["kills that hit a turn"] += bool(held)
        self.figures["drafts left behind"] += sum(each.has_draft for each in held)
        await self._replace(victim)

    async def _replace(self, victim: WorkerProcess) -> None:
        self._workers[self._workers.index(victim)] = await self._fleet.start()

    async def _stopped_at_work(self, victim: WorkerProcess) -> list[Held]:
        """What it runs, now that it is stopped; nothing where it had no work when it was stopped.

        One that was stopped within a transaction stops everybody: it goes on and is stopped anew.
        """
        for _ in range(STOPS):
            victim.stop()
            held = self._evidence.held_by(victim.pid)
            if held and not self._is_spared(held) and not await asyncio.to_thread(self._evidence.write_locked):
                return held
            victim.go_on()
            await asyncio.sleep(self._dice.uniform(0.02, 0.2))
        return []

    def _is_spared(self, held: list[Held]) -> bool:
        return any(self._hits[each.turn_id] >= SPARED for each in held)

    async def _make_a_zombie(self, victim: WorkerProcess, held: list[Held]) -> None:
        self._hits.update(each.turn_id for each in held)
        try:
            lost = await self._taken_over(held)
            self.figures["zombies"] += bool(lost)
            self.figures["turns lost by zombies"] += lost
        finally:
            victim.go_on()

    async def _taken_over(self, held: list[Held]) -> int:
        """Waits until others have claimed some of them."""
        for _ in range(int(ZOMBIE_SECONDS / LOOK_SECONDS)):
            if self._lost(held):
                break
            await asyncio.sleep(LOOK_SECONDS)
        await asyncio.sleep(self._dice.uniform(0.0, 1.5))
        return self._lost(held)

    def _lost(self, held: list[Held]) -> int:
        with suppress(Away):
            return self._evidence.lost(held)
        return 0
