"""The calls that one writer may make now, or waits to be granted: at most one of each kind at each place."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from bots.delivery.outlet import Need, Outlet
from bots.pacing import Budget, Rank, Urgency


@dataclass(slots=True, eq=False)
class _Grant:
    budgets: Mapping[str, Budget]
    """What it is counted in: that may change while it is waited for."""
    urgency: Urgency
    task: "asyncio.Task[None]"


class Grants:
    def __init__(self, outlet: Outlet) -> None:
        self._surface = outlet.surface
        self._pacer = outlet.pacer
        self._grants: dict[Need, _Grant] = {}

    @property
    def tasks(self) -> "Collection[asyncio.Task[None]]":
        """Each ends when its call is granted."""
        return [grant.task for grant in self._grants.values()]

    def has(self, need: Need) -> bool:
        return need in self._grants and self._grants[need].task.done()

    def use(self, need: Need) -> None:
        """Such a call is made."""
        self._grants.pop(need).task.result()

    async def ask(self, wanted: Mapping[Need, Urgency]) -> None:
        """Waits for these from now on, and for no others."""
        budgets = {need: self._surface.budgets(*need) for need in wanted}
        needless = [need for need, grant in self._grants.items() if need not in wanted or grant.budgets.keys() != budgets[need].keys()]
        await self._give_back([self._grants.pop(need) for need in needless])
        for need, urgency in wanted.items():
            if need not in self._grants:
                self._grants[need] = self._asked(need, budgets[need], urgency)
                continue
            self._grants[need].urgency = urgency
            if urgency.rank > Rank.LIVE and not self.has(need):
                self._pacer.reconsider(budgets[need])

    async def end(self) -> None:
        """None is waited for or used any more."""
        left = list(self._grants.values())
        self._grants.clear()
        await self._give_back(left)

    def _asked(self, need: Need, budgets: Mapping[str, Budget], urgency: Urgency) -> _Grant:
        grant: _Grant

        async def wait() -> None:
            await self._pacer.grant(budgets, lambda: grant.urgency)

        grant = _Grant(budgets, urgency, asyncio.create_task(wait(), name=f"delivery.grant.{need.call}"))
        return grant

    async def _give_back(self, grants: Collection[_Grant]) -> None:
        granted = [grant for grant in grants if grant.task.done()]
        waiting = [grant.task for grant in grants if not grant.task.done()]
        for grant in granted:
            self._pacer.give_back(grant.budgets)
        for task in waiting:
            task.cancel()
        if waiting:
            await asyncio.wait(waiting)
