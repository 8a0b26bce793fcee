"""The calls that one writer may make now, or waits to be granted: at most one of each kind."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from bots.delivery.outlet import Outlet
from bots.pacing import Budget, Rank, Urgency
from bots.surface import Call
from core.models import Place


@dataclass(slots=True, eq=False)
class _Grant:
    budgets: Mapping[str, Budget]
    """What it is counted in: a place's may change while it is waited for."""
    urgency: Urgency
    task: "asyncio.Task[None]"


class Grants:
    def __init__(self, outlet: Outlet) -> None:
        self._surface = outlet.surface
        self._pacer = outlet.pacer
        self._grants: dict[Call, _Grant] = {}

    @property
    def tasks(self) -> "Collection[asyncio.Task[None]]":
        """Each ends when its call is granted."""
        return [grant.task for grant in self._grants.values()]

    def has(self, call: Call) -> bool:
        return call in self._grants and self._grants[call].task.done()

    def use(self, call: Call) -> None:
        """Such a call is made."""
        self._grants.pop(call).task.result()

    async def ask(self, place: Place, wanted: Mapping[Call, Urgency]) -> None:
        """Waits for these from now on, and for no others."""
        budgets = {call: self._surface.budgets(call, place) for call in wanted}
        needless = [call for call, grant in self._grants.items() if call not in wanted or grant.budgets.keys() != budgets[call].keys()]
        await self._give_back([self._grants.pop(call) for call in needless])
        for call, urgency in wanted.items():
            if call not in self._grants:
                self._grants[call] = self._asked(call, budgets[call], urgency)
                continue
            self._grants[call].urgency = urgency
            if urgency.rank > Rank.LIVE and not self.has(call):
                self._pacer.reconsider(budgets[call])

    async def end(self) -> None:
        """None is waited for or used any more."""
        left = list(self._grants.values())
        self._grants.clear()
        await self._give_back(left)

    def _asked(self, call: Call, budgets: Mapping[str, Budget], urgency: Urgency) -> _Grant:
        grant: _Grant

        async def wait() -> None:
            await self._pacer.grant(budgets, lambda: grant.urgency)

        grant = _Grant(budgets, urgency, asyncio.create_task(wait(), name=f"delivery.grant.{call}"))
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
