"""One attempt to bring a place to what its conversation says, from what is stored until nothing differs any more or something breaks.

What is to be sent is decided anew before each call, from the conversation as it is then. What was sent is noted around each post and at
the end of each part; live edits in between are not.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any
from uuid import UUID

import structlog

from bots.delivery import due, endings
from bots.delivery.calls import Calls
from bots.delivery.due import OF_PLACE, Step
from bots.delivery.grants import Grants
from bots.delivery.notes import Notes
from bots.delivery.outlet import Need, Outlet
from bots.delivery.picture import Over, Picture, Twin, Unchecked
from bots.delivery.place_calls import PlaceCalls
from bots.delivery.status import StatusLine
from bots.pacing import Urgency
from bots.services import Services
from bots.surface import PlaceClosed
from core.access import Principal
from core.errors import NotFound
from core.follow import Follower
from core.models import Binding

_IN_CIRCLES = 3
"""So often a step that needs no call may be taken before anything else happens."""
_EARLY = 1e-6
"""Seconds. The event loop may end a wait by its clock's resolution too early."""
_log = structlog.get_logger()


class Session:
    """`has_begun` is set when it has read what it looks after; `poked` whenever something happened in the conversation."""

    def __init__(
        self, services: Services, outlet: Outlet, binding: Binding, twins: list[Twin], *, has_begun: asyncio.Event, poked: asyncio.Event
    ) -> None:
        self._services = services
        self._outlet = outlet
        self._rules = outlet.rules
        self._has_begun = has_begun
        self._poked = poked
        self._picture = Picture(services, outlet, binding, twins)
        self._notes = Notes(services, outlet, self._picture)
        self._calls = Calls(outlet, self._picture, self._notes)
        self._place_calls = PlaceCalls(outlet, self._picture, self._notes)
        self._grants = Grants(outlet)
        self._status = StatusLine(outlet, lambda: self._picture.place, self._picture.doing, self._note_status)
        self._taken: Counter[object] = Counter()
        """The steps without a call since anything else happened."""

    @property
    def binding(self) -> Binding:
        """As far as it is known."""
        return self._picture.binding

    async def run(self) -> None:
        """Until nothing was left to be done for a while, or nothing is delivered to the place any more."""
        try:
            await self._work()
        except Unchecked:
            self._poked.set()
        except (Over, NotFound):
            if self._picture.gone:
                await endings.gone(self._outlet, self._picture, self._status)
        except PlaceClosed as error:
            await endings.place_closed(self._outlet, self._picture, self._status, self._notes, error)

    async def _work(self) -> None:
        loops = (self._deliver, self._follow, self._status.run)
        tasks = [asyncio.create_task(loop(), name=f"delivery.{loop.__name__}") for loop in loops]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for task in done:
            task.result()

    async def _note_status(self, *, is_shown: bool) -> None:
        await self._notes.status(is_shown=is_shown)

    # --- what is to be shown ---

    async def _follow(self) -> None:
        principal, conversation_id = Principal(user_id=await self._owner()), self._picture.binding.conversation_id
        follower = Follower(self._services.storage, self._services.live, principal, conversation_id, messages=self._rules.newest)
        async with aclosing(follower.frames()) as frames:
            async for frame in frames:
                self._picture.apply(frame)
                if frame.event != "llm_delta":
                    self._status.look()
        await asyncio.Event().wait()  # the conversation was deleted: what is left to be said ends the session

    async def _owner(self) -> UUID:
        async with self._services.storage.read() as uow:
            conversation = await uow.conversations.find(self._picture.binding.conversation_id)
        if conversation is None:
            raise Over
        return conversation.owner_id

    async def _refresh(self) -> None:
        was_read = self._picture.is_read
        await self._picture.refresh()
        self._taken.clear()
        if not was_read and self._picture.binding.status_shown:
            self._status.may_be_shown()
        if not was_read or self._picture.is_left:
            self._status.look()

    # --- what is done ---

    async def _deliver(self) -> None:
        """Ends when nothing was left to be done for a while."""
        try:
            while True:
                self._picture.changed.clear()
                if self._picture.gone:
                    raise Over
                if self._picture.is_stale:
                    await self._refresh()
                steps = due.steps(self._picture) if self._picture.is_known else []
                now = _now() + _EARLY  # one and the same for all: what is not due yet here is waited for below
                if await self._take_one_of(steps, now):
                    continue
                if self._picture.is_known:
                    self._has_begun.set()
                await self._ask_for_grants(steps, now)
                if await self._rest(steps, now):
                    return
        finally:
            await self._grants.end()

    async def _take_one_of(self, steps: Sequence[Step], now: float) -> bool:
        """Does what can be done now, the most urgent first; whether there was something."""
        ready = [step for step in steps if step.due <= now and (step.need is None or self._grants.has(step.need))]
        step = min(ready, key=lambda each: (each.need is not None, each.urgency.order), default=None)
        if step is None:
            return False
        if step.need is not None:
            await self._outlet.ready()
            if self._picture.is_stale or self._picture.gone or not self._outlet.may_call:
                return True  # what is to be sent may be something else by now; the grant stays
            self._grants.use(step.need)
            self._taken.clear()
        elif self._goes_in_circles(step):
            return True
        await (self._place_calls if step.act in OF_PLACE else self._calls).take(step)
        return True

    def _goes_in_circles(self, step: Step) -> bool:
        """A step that does not change what is due is a defect. It must not keep the event loop from everybody else."""
        self._taken[step.what] += 1
        if self._taken[step.what] <= _IN_CIRCLES:
            return False
        self._taken.clear()
        _log.error("delivery.goes_in_circles", binding_id=str(self._picture.binding.id), step=step.act.value)
        self._calls.back_off(step=step.act.value)
        return True

    async def _ask_for_grants(self, steps: Sequence[Step], now: float) -> None:
        wanted: dict[Need, Urgency] = {}
        for step in steps:
            if step.need is not None and step.due <= now:
                wanted[step.need] = min(wanted.get(step.need, step.urgency), step.urgency, key=lambda each: each.order)
        await self._grants.ask(wanted)

    async def _rest(self, steps: Sequence[Step], now: float) -> bool:
        """Waits for whatever comes first; True when nothing came and nothing is left to be done."""
        later = [max(step.due - _now(), 0.0) for step in steps if step.due > now]
        idle = not steps and self._has_rest
        if idle and self._poked.is_set():  # the follower may not have told it, where the database was away
            self._poked.clear()
            self._picture.is_stale = True
            return False
        seconds = min([*later, self._rules.idle_seconds] if idle else later, default=None)
        changed: asyncio.Task[Any] = asyncio.create_task(self._picture.changed.wait(), name="delivery.changed")
        try:
            done, _ = await asyncio.wait({changed, *self._grants.tasks}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
        self._taken.clear()
        return idle and not done and not self._poked.is_set() and self._has_rest

    @property
    def _has_rest(self) -> bool:
        picture = self._picture
        is_still = self._status.is_idle and not picture.binding.status_shown and not picture.changed.is_set()
        return picture.is_known and picture.is_answered and is_still


def _now() -> float:
    return asyncio.get_running_loop().time()
