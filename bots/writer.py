"""The writer of one place: brings it to what its conversation says, one remote call after another, until nothing differs any more.

What is to be sent is decided anew before each call, from the conversation as it is then. What was sent is noted around each post and at
the end of each part; live edits in between are not.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import structlog

from bots import history, view
from bots.history import Item, LeftOut
from bots.outlet import DeliveryRules, Outlet
from bots.pacing import Rank, Urgency
from bots.plan import LONG_AGO, Remote, Want, as_final, digest, shows, stable_end, wanted
from bots.services import Services
from bots.status import StatusLine
from bots.surface import (
    AccountClosed,
    Busy,
    Call,
    MessageGone,
    Part,
    PlaceClosed,
    SurfaceError,
    TooLong,
    Unclear,
    Unreachable,
)
from bots.view import View
from core import bindings
from core.access import Principal
from core.errors import LeaseLost, NotFound, StorageUnavailable
from core.follow import Follower
from core.ids import new_id
from core.logs import place_of
from core.models import JSON, AgentStatus, Binding, BindingMode, Delivery, DeliveryState, Place
from core.ports import UnitOfWork
from core.talk import Entry, Talk

_T = TypeVar("_T")
_SHORTEST_PART = 200
_CLOCKS_DIFFER = timedelta(seconds=60)
"""At most, between this machine and the platform."""
_DELETED = "■ This conversation was deleted."
_log = structlog.get_logger()


class _Over(Exception):
    """Nothing is delivered to this place any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """Something to be done next, as soon as it is due and granted."""

    act: Callable[[], Awaitable[None]]
    call: Call | None
    """What it needs a grant for."""
    rank: Rank = Rank.LIVE
    since: float
    due: float

    @property
    def order(self) -> tuple[float, float]:
        return Urgency(self.rank, self.since).order


class Writer:
    def __init__(self, services: Services, outlet: Outlet, binding: Binding, rules: DeliveryRules) -> None:
        self._services = services
        self._outlet = outlet
        self._surface = outlet.surface
        self._pacer = outlet.pacer
        self._binding = binding
        self._rules = rules
        self._log = _log.bind(binding_id=str(binding.id), conversation_id=str(binding.conversation_id))
        self._was_poked = False
        self._begin()

    def _begin(self) -> None:
        """With nothing known but what is in the database."""
        self._talk = Talk()
        self._items: list[Item] = []
        self._left: LeftOut | None = None
        self._is_read = False
        self._is_stale = True
        self._is_deleted = False
        self._dirty = asyncio.Event()
        self._status = StatusLine(self._outlet, self._rules, lambda: self._place, self._doing, self._note_status)
        self._urgencies: dict[Call, Urgency] = {}
        self._twins: list[_Step] = []
        self._failures = 0
        self._not_before = 0.0

    def poke(self) -> None:
        """Something happened in the conversation: a writer that is about to end looks again."""
        self._was_poked = True

    async def run(self) -> None:
        """Until nothing is left to be done. Raises LeaseLost."""
        while True:
            self._was_poked = False
            try:
                await self._session()
            except (_Over, NotFound):
                await self._say_deleted()
            except PlaceClosed as error:
                await self._end_binding(error)
            except LeaseLost:
                raise
            except StorageUnavailable as error:
                self._log.warning("delivery.storage_unavailable", reason=str(error))
                await asyncio.sleep(self._rules.storage_seconds)
                continue
            except Exception as error:  # noqa: BLE001  # a writer's outermost loop: it begins anew from what is stored
                self._log.error("delivery.broke", **place_of(error))
                await asyncio.sleep(self._rules.storage_seconds)
                continue
            if not self._was_poked:
                return

    async def _session(self) -> None:
        self._begin()
        loops = (self._deliver, self._follow, self._status.run)
        tasks = [asyncio.create_task(loop(), name=f"delivery.{loop.__name__}") for loop in loops]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _end(tasks)
        for task in done:
            task.result()

    # --- what is to be shown ---

    async def _follow(self) -> None:
        principal = Principal(user_id=await self._owner())
        follower = Follower(
            self._services.storage, self._services.live, principal, self._binding.conversation_id, messages=self._rules.backlog
        )
        async with aclosing(follower.frames()) as frames:
            async for frame in frames:
                self._talk.apply(frame)
                self._talk.notices.clear()
                match frame.event:
                    case "llm_delta":
                        self._grew(frame.payload["message_id"])
                        continue
                    case "conversation_deleted":
                        self._is_deleted = True
                    case "tool_call" | "turn_changed" | "agent_status":
                        self._unsettle_unfinished()
                    case _:
                        self._is_stale = True
                self._status.look()
                self._dirty.set()
        await asyncio.Event().wait()  # the conversation was deleted: what is left to be said ends the session

    async def _owner(self) -> Any:
        async with self._services.storage.read() as uow:
            conversation = await uow.conversations.find(self._binding.conversation_id)
        if conversation is None:
            raise _Over
        return conversation.owner_id

    def _grew(self, message_id: str) -> None:
        """Many pieces of text are shown by one edit: only the first of them is told."""
        item = next((item for item in self._items if item.key == message_id), None)
        if item is None:
            return
        if item.unshown_since is None or not item.remotes:
            self._dirty.set()
        if item.unshown_since is None:
            item.unshown_since = _now()

    def _unsettle_unfinished(self) -> None:
        for item in self._items:
            if item.is_unfinished_reply and item.unshown_since is None:
                item.unshown_since = _now()

    async def _refresh(self) -> None:
        """Reads what is to be looked after."""
        self._is_stale = False
        async with self._services.storage.read() as uow:
            binding = await uow.bindings.get(self._binding.id)
            conversation = await uow.conversations.find(self._binding.conversation_id)
            if binding is None or conversation is None:
                self._is_deleted = True
                raise _Over
            if binding.ended or binding.mode is BindingMode.OFF:
                raise _Over
            if not self._is_read:
                self._left = await history.left_out(uow, binding, conversation, self._rules.backlog)
            items = await history.read(uow, binding, conversation, self._left, self._url)
        # Whether the status is shown is noted meanwhile by who shows it.
        self._binding = replace(binding, status_shown=self._binding.status_shown) if self._is_read else binding
        self._renew(items)

    def _renew(self, items: list[Item]) -> None:
        known = {item.key: item for item in self._items}
        for place, item in enumerate(items):
            if item.key in known:
                known[item.key].renew(item)
                items[place] = known[item.key]
            else:
                self._meet(item)
        self._items = items
        if not self._is_read:
            self._is_read = True
            if self._binding.status_shown:
                self._status.may_be_shown()
            self._status.look()

    def _meet(self, item: Item) -> None:
        """What was sent before this writer began may still change what is there."""
        item.seen_at = _now()
        for remote in item.remotes:
            row = remote.row
            if row.state in (DeliveryState.SENDING, DeliveryState.LIVE):
                remote.doubtful_until = _now() + self._uncertain_seconds
            if row.state is DeliveryState.SENDING:
                age = (self._services.clock.now() - row.sent_at).total_seconds()
                remote.look_at = _now() + max(self._uncertain_seconds - max(age, 0.0), 0.0)

    @property
    def _uncertain_seconds(self) -> float:
        """So long after it was begun a call of a process that was killed may still happen."""
        return self._surface.call_seconds + self._rules.settle_seconds

    def _view(self, item: Item) -> View | None:
        if item.said is None:
            return item.still
        said = item.said
        if item.is_unfinished_reply and (entry := self._entry(item.key)) and not entry.ended:
            said = _as_told(entry)
        turn = self._talk.turns.get(said["turn_id"] or "")
        return view.message(said, turn=turn, agent=self._talk.agent, answered=item.answered)

    def _entry(self, message_id: str) -> Entry | None:
        return next((entry for entry in self._talk.entries if entry.message["id"] == message_id), None)

    @property
    def _place(self) -> Place:
        return self._binding.place

    @property
    def _url(self) -> str:
        return view.page(self._services.url, self._binding.conversation_id)

    # --- what is to be done ---

    async def _deliver(self) -> None:
        """Ends when nothing was left to be done for a while."""
        grants: dict[Call, asyncio.Task[None]] = {}
        try:
            while True:
                self._dirty.clear()
                await self._look_around()
                steps = list(self._steps()) if self._talk.known else []
                if await self._take_step(steps, grants):
                    continue
                await self._ask_for_grants(steps, grants)
                if await self._rest(steps, grants):
                    return
        finally:
            await _end(list(grants.values()))

    async def _look_around(self) -> None:
        if self._is_deleted:
            raise _Over
        if self._is_stale:
            await self._refresh()

    async def _take_step(self, steps: list[_Step], grants: "dict[Call, asyncio.Task[None]]") -> bool:
        """Does what can be done now, the most urgent first; whether there was something."""
        now = _now()
        ready = [step for step in steps if step.due <= now and (step.call is None or _is_granted(grants, step.call))]
        step = min(ready, key=lambda each: (each.call is not None, each.order), default=None)
        if step is None:
            return False
        if step.call is not None:
            await self._outlet.ready()
            if self._is_stale or self._is_deleted or self._outlet.held.lasts <= self._surface.call_seconds:
                return True  # what is to be sent may be something else by now; the grant stays
            grants.pop(step.call).result()
        await step.act()
        return True

    async def _ask_for_grants(self, steps: list[_Step], grants: "dict[Call, asyncio.Task[None]]") -> None:
        now = _now()
        due = [step for step in steps if step.call is not None and step.due <= now]
        best: dict[Call, _Step] = {}
        for step in due:
            assert step.call is not None
            best[step.call] = min(best.get(step.call, step), step, key=lambda each: each.order)
        needless = [grants.pop(call) for call in list(grants) if call not in best]
        await _end(needless)
        for call, step in best.items():
            self._urgencies[call] = Urgency(step.rank, step.since)
            if call not in grants:
                grants[call] = asyncio.create_task(self._grant(call), name=f"delivery.grant.{call}")
            elif step.rank > Rank.LIVE:
                self._pacer.reconsider()

    async def _grant(self, call: Call) -> None:
        await self._pacer.grant(self._surface.budgets(call, self._place), lambda: self._urgencies[call])

    async def _rest(self, steps: list[_Step], grants: "dict[Call, asyncio.Task[None]]") -> bool:
        """Waits for whatever comes first; True when nothing came and nothing is left to be done."""
        now = _now()
        later = [step.due - now for step in steps if step.due > now]
        idle = not steps and self._has_rest
        if idle:
            self._was_poked = False
        seconds = min([*later, self._rules.idle_seconds] if idle else later, default=None)
        waiting = asyncio.create_task(self._dirty.wait(), name="delivery.dirty")
        try:
            done, _ = await asyncio.wait({waiting, *grants.values()}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        return idle and not done and not self._was_poked and self._has_rest

    @property
    def _has_rest(self) -> bool:
        is_quiet = self._talk.known and not self._talk.turns and self._status.is_idle and not self._binding.status_shown
        return is_quiet and not self._dirty.is_set()

    def _steps(self) -> Iterator[_Step]:
        yield from self._twins
        if not self._binding.opened and (root := self._root()):
            yield self._now_step(lambda: self._open(root))
            return
        may_post = True
        for item in self._items:
            if item.is_theirs or item.settled or (not may_post and not item.remotes):
                continue
            shown = self._view(item)
            wants = self._wants(item, shown)
            yield from self._steps_of(item, shown, wants, may_post=may_post)
            may_post = may_post and self._may_follow(item, wants)
        if self._target() > self._binding.cursor:
            yield self._now_step(self._move_cursor)

    def _may_follow(self, item: Item, wants: list[Want]) -> bool:
        """Whether what comes behind the item may be posted: all of it is there, and the thread is, too."""
        is_posted = len(item.remotes) >= len(wants) and not any(each.row.state is DeliveryState.SENDING for each in item.remotes)
        return is_posted and (self._binding.opened or not item.remotes)

    def _wants(self, item: Item, shown: View | None) -> list[Want]:
        limits = self._surface.limits(self._place)
        return wanted(shown, item.remotes, item.limit or limits.length, limits.measure)

    def _steps_of(self, item: Item, shown: View | None, wants: list[Want], *, may_post: bool) -> Iterator[_Step]:
        ended = shown is None or shown.ended
        is_right = True
        for index, want in enumerate(wants):
            remote = item.remotes[index] if index < len(item.remotes) else None
            if remote is None or remote.unsent:
                if is_right and (may_post or index):
                    yield self._post_step(item, index, shown, ended=ended)
                is_right = False
                break
            for step in self._steps_for(item, index, remote, want, ended=ended):
                is_right = is_right and step.call is None and shows(remote, want) and not ended
                yield step
        for index in range(len(item.remotes) - 1, len(wants) - 1, -1):
            is_right = False
            yield self._surplus_step(item, index)
        if is_right:
            item.unshown_since = None
            if ended:
                yield self._now_step(lambda: self._settle(item))

    def _steps_for(self, item: Item, index: int, remote: Remote, want: Want, *, ended: bool) -> Iterator[_Step]:
        """For a remote message that was posted."""
        if remote.row.state is DeliveryState.SENDING:
            yield self._step(lambda: self._look(item, index), None, due=remote.look_at)
        elif not shows(remote, want):
            rank = self._rank_of_edit(item, remote, want, ended=ended)
            due = remote.called_at + self._surface.limits(self._place).edit_seconds
            yield self._step(lambda: self._edit(item, index), Call.EDIT, rank=rank, since=item.unshown_since, due=due)
        elif not remote.lost and remote.called_at < remote.doubtful_until:
            yield self._step(lambda: self._repeat(remote), None, due=remote.doubtful_until)
        elif not ended and want.end is None and (dies_at := self._dies_at(remote)) is not None:
            if want.part.text.strip():
                yield self._step(lambda: self._go_on_elsewhere(item, index), None, due=dies_at)
            else:
                yield self._step(lambda: self._delete(item, index), Call.EDIT, due=dies_at)

    def _rank_of_edit(self, item: Item, remote: Remote, want: Want, *, ended: bool) -> Rank:
        if item.is_card:
            return Rank.CONTROL
        if ended:
            return Rank.FINAL
        if remote.part is None or (remote.part.buttons == want.part.buttons and remote.part.text != want.part.text):
            return Rank.LIVE
        return Rank.CONTROL

    def _post_step(self, item: Item, index: int, shown: View | None, *, ended: bool) -> _Step:
        waits = not ended and index == 0 and shown is not None and not shown.text
        rank = Rank.CONTROL if item.is_card else Rank.FINAL if ended else Rank.LIVE if index else Rank.FIRST
        due = item.seen_at + self._rules.first_seconds if waits else item.seen_at
        return self._step(lambda: self._post(item, index), Call.POST, rank=rank, since=item.seen_at, due=due)

    def _surplus_step(self, item: Item, index: int) -> _Step:
        remote = item.remotes[index]
        if remote.unsent or remote.lost:
            return self._now_step(lambda: self._forget(item, index))
        if remote.row.state is DeliveryState.SENDING:
            return self._step(lambda: self._look(item, index), None, due=remote.look_at)
        return self._step(lambda: self._delete(item, index), Call.EDIT, rank=Rank.FINAL)

    def _step(
        self,
        act: Callable[[], Awaitable[None]],
        call: Call | None,
        *,
        rank: Rank = Rank.LIVE,
        since: float | None = None,
        due: float = float("-inf"),
    ) -> _Step:
        return _Step(act=act, call=call, rank=rank, since=_now() if since is None else since, due=max(due, self._not_before))

    def _now_step(self, act: Callable[[], Awaitable[None]]) -> _Step:
        return self._step(act, None)

    def _dies_at(self, remote: Remote) -> float | None:
        """When the platform lets a message not be changed any more, by the event loop's clock."""
        seconds = self._surface.limits(self._place).live_seconds
        if seconds is None:
            return None
        return _now() + seconds - (self._services.clock.now() - remote.row.sent_at).total_seconds()

    # --- posts ---

    async def _post(self, item: Item, index: int) -> None:
        if index == len(item.remotes):
            row = self._row(item, index)
            await self._write(lambda uow: uow.deliveries.put(row))
            item.remotes.append(Remote(row, unsent=True))
        await self._outlet.finish(self._post_now(item, index))

    def _row(self, item: Item, index: int) -> Delivery:
        return Delivery(
            binding_id=self._binding.id,
            item=item.key,
            part=index,
            message_id=item.message_id,
            revision=0,
            remote_id=None,
            nonce=new_id(),
            state=DeliveryState.SENDING,
            end=None,
            shown="",
            sent_at=self._services.clock.now(),
        )

    async def _post_now(self, item: Item, index: int) -> None:
        wants, remote = self._wants(item, self._view(item)), item.remotes[index]
        if index >= len(wants):
            return
        part, before = wants[index].part, item.unshown_since
        item.unshown_since = None
        remote.unsent, remote.look_at = False, _now() + self._rules.settle_seconds
        remote.called_at = _now()
        try:
            remote_id = await self._surface.post(self._place, part, remote.row.nonce)
        except SurfaceError as error:
            item.unshown_since = before
            remote.look_at = _now() + self._rules.settle_seconds
            self._post_failed(error, item, remote)
            return
        remote.part = part
        await self._noted(item, index, wants, replace(remote.row, remote_id=remote_id, state=DeliveryState.LIVE))

    def _post_failed(self, error: SurfaceError, item: Item, remote: Remote) -> None:
        if isinstance(error, MessageGone):
            raise PlaceClosed(str(error), reason="message_gone")
        if not isinstance(error, Unclear):
            remote.unsent = True
        self._failed(error, Call.POST, item, remote)

    async def _look(self, item: Item, index: int) -> None:
        """Finds out whether a post happened that nobody answered, and how often."""
        await self._outlet.ready()
        remote = item.remotes[index]
        try:
            found = await self._find(remote.row)
            for extra in found[1:]:
                await self._outlet.finish(self._surface.delete(self._place, extra))
        except SurfaceError as error:
            remote.look_at = _now() + (error.retry_after if isinstance(error, Busy) else 0.0)
            self._failed(error, Call.EDIT, item, remote)
            return
        self._failures = 0
        if found:
            self._log.info("delivery.found", item=item.key, times=len(found))
            row = replace(remote.row, remote_id=found[0], state=DeliveryState.LIVE)
            await self._write(lambda uow: uow.deliveries.put(row))
            remote.row, remote.part, remote.doubtful_until = row, None, LONG_AGO
        else:
            remote.unsent = True
            self._look_for_twins(item, remote)

    async def _find(self, row: Delivery) -> list[str]:
        return await self._outlet.finish(self._surface.find(self._place, row.nonce, row.sent_at - _CLOCKS_DIFFER))

    def _look_for_twins(self, item: Item, remote: Remote) -> None:
        step = self._step(lambda: self._part_twins(step, item, remote), None, due=_now() + self._rules.twin_seconds)
        self._twins.append(step)

    async def _part_twins(self, step: _Step, item: Item, remote: Remote) -> None:
        """Deletes what a late first post made beside the second."""
        self._twins.remove(step)
        if remote.row.remote_id is None:  # the second was not posted yet
            self._look_for_twins(item, remote)
            return
        await self._outlet.ready()
        try:
            for extra in await self._find(remote.row):
                if extra != remote.row.remote_id:
                    await self._outlet.finish(self._surface.delete(self._place, extra))
        except SurfaceError as error:
            self._look_for_twins(item, remote)
            self._failed(error, Call.EDIT, item, remote)

    # --- changes ---

    async def _edit(self, item: Item, index: int) -> None:
        await self._outlet.finish(self._edit_now(item, index))

    async def _edit_now(self, item: Item, index: int) -> None:
        wants, remote = self._wants(item, self._view(item)), item.remotes[index]
        if index >= len(wants) or remote.row.remote_id is None:
            return
        want, before = wants[index], item.unshown_since
        item.unshown_since = None
        began, remote.called_at = remote.again, _now()
        try:
            await self._surface.edit(self._place, remote.row.remote_id, want.part)
        except SurfaceError as error:
            item.unshown_since = before
            await self._edit_failed(error, item, index)
            return
        self._failures = 0
        remote.part, remote.again = want.part, remote.again and not began
        if want.end is not None:
            await self._noted(item, index, wants, remote.row)

    async def _edit_failed(self, error: SurfaceError, item: Item, index: int) -> None:
        remote = item.remotes[index]
        match error:
            case Unclear():
                remote.part = None
                remote.doubtful_until = _now() + self._rules.settle_seconds
            case MessageGone() if item.was_reposted or item.is_card:
                self._give_up(item, remote)
                return
            case MessageGone():
                item.was_reposted = True
                await self._post_anew(item, index)
                return
        self._failed(error, Call.EDIT, item, remote)

    async def _post_anew(self, item: Item, index: int) -> None:
        """Somebody took the remote message away."""
        row = replace(self._row(item, index), revision=item.remotes[index].row.revision)
        await self._write(lambda uow: uow.deliveries.put(row))
        item.remotes[index] = Remote(row, unsent=True)

    def _give_up(self, item: Item, remote: Remote) -> None:
        self._log.warning("delivery.part_given_up", item=item.key, part=remote.row.part)
        remote.lost = True
        if remote.row.state is DeliveryState.SENDING:
            remote.row = replace(remote.row, state=DeliveryState.LIVE)

    async def _repeat(self, remote: Remote) -> None:
        """An earlier call may have come late and undone the last one."""
        remote.again = True

    async def _go_on_elsewhere(self, item: Item, index: int) -> None:
        """Closes the part where its text ends now."""
        shown, remote = self._view(item), item.remotes[index]
        if shown is None:
            return
        wants = self._wants(item, shown)
        begin = wants[index - 1].end or 0 if index else 0
        remote.cut_at = stable_end(shown.text, begin)

    async def _delete(self, item: Item, index: int) -> None:
        await self._outlet.finish(self._delete_now(item, index))

    async def _delete_now(self, item: Item, index: int) -> None:
        remote = item.remotes[index]
        if remote.row.remote_id:
            try:
                await self._surface.delete(self._place, remote.row.remote_id)
            except MessageGone:
                pass
            except SurfaceError as error:
                self._failed(error, Call.EDIT, item, remote)
                return
        await self._forget(item, index)

    async def _forget(self, item: Item, index: int) -> None:
        await self._write(lambda uow: uow.deliveries.remove(self._binding.id, item.key, index))
        del item.remotes[index]

    # --- failures ---

    def _failed(self, error: SurfaceError, call: Call, item: Item, remote: Remote) -> None:
        """What follows from a failure for the next attempt."""
        match error:
            case Busy():
                self._outlet.busy(call, self._place, error)
                if not self._surface.budgets(call, self._place):
                    self._not_before = _now() + error.retry_after
            case TooLong():
                self._shorten(item, remote)
            case AccountClosed():
                self._outlet.close(error)
            case PlaceClosed():
                raise error
            case _:
                self._back_off(error)

    def _shorten(self, item: Item, remote: Remote) -> None:
        shorter = (item.limit or self._surface.limits(self._place).length) // 2
        if shorter < _SHORTEST_PART:
            self._give_up(item, remote)
            remote.unsent = False
        else:
            item.limit = shorter

    def _back_off(self, error: SurfaceError) -> None:
        self._failures += 1
        seconds = min(self._rules.backoff_seconds * 2 ** min(self._failures - 1, 16), self._rules.backoff_limit_seconds)
        self._not_before = _now() + seconds * random.uniform(0.75, 1.25)
        self._log.info("delivery.tries_again", error=type(error).__name__, failures=self._failures)

    async def _end_binding(self, error: PlaceClosed) -> None:
        """Nothing can be sent there any more: the turn goes on, and who asked is told where to read it."""
        self._log.warning("delivery.place_closed", reason=error.reason)
        try:
            asker = await self._write(lambda uow: self._ended(uow, error.reason))
        except _Over:
            return
        if asker is None:
            return
        with suppress(SurfaceError):
            await self._outlet.ready()
            await self._outlet.finish(self._surface.tell(self._place, asker, f"{error} The conversation goes on here: {self._url}"))

    async def _ended(self, uow: UnitOfWork, reason: str) -> str | None:
        """Who is to be told, by the platform's id."""
        await bindings.end(uow, self._binding, reason)
        turn = await uow.turns.last(self._binding.conversation_id)
        people = await uow.identities.of_users(self._surface.account, [turn.author_id]) if turn else []
        return people[0].external_id if people else None

    async def _say_deleted(self) -> None:
        """The last frame of what was live when its conversation was deleted; nothing can be noted of it any more."""
        if not self._is_deleted:
            return
        for item in self._items:
            for remote in item.remotes:
                if remote.row.state is DeliveryState.LIVE and remote.row.remote_id and not remote.lost and not item.settled:
                    await self._last_words(remote, remote.row.remote_id)
        await self._status.take_back()

    async def _last_words(self, remote: Remote, remote_id: str) -> None:
        part = replace(remote.part or Part(text=""), notes=(_DELETED,), buttons=(), live=False)
        for _ in range(self._rules.last_words):
            await self._outlet.granted(Call.EDIT, self._place, Rank.FINAL)
            await self._outlet.ready()
            try:
                await self._outlet.finish(self._surface.edit(self._place, remote_id, part))
            except Busy as error:
                self._outlet.busy(Call.EDIT, self._place, error)
            except (Unclear, Unreachable):
                await asyncio.sleep(self._rules.settle_seconds)
            except SurfaceError:
                return
            else:
                return

    # --- what is noted ---

    async def _noted(self, item: Item, index: int, wants: list[Want], row: Delivery) -> None:
        """Notes a part that was posted or closed, and where nothing is left to be done for its message, that too."""
        want, remote = wants[index], item.remotes[index]
        if want.end is not None:
            row = replace(row, state=DeliveryState.CLOSED, end=want.end, shown=digest(want.part))
        remote.row, remote.cut_at = row, None
        self._failures = 0
        if self._is_complete(item, wants):
            await self._settle(item)
        else:
            await self._write(lambda uow: uow.deliveries.put(row))

    def _is_complete(self, item: Item, wants: list[Want]) -> bool:
        shown = self._view(item)
        if len(wants) != len(item.remotes) or (shown is not None and not shown.ended) or not self._binding.opened:
            return False
        return all(shows(each, want) and not _is_doubtful(each) for each, want in zip(item.remotes, wants, strict=True))

    async def _settle(self, item: Item) -> None:
        """Everything of it is there in its final form: notes that, and how far everything is."""
        wants = self._wants(item, self._view(item))
        rows = as_final(item.remotes, wants, item.revision)
        changed = [row for remote, row in zip(item.remotes, rows, strict=True) if row != remote.row]
        item.settled = True
        target = self._target()

        async def note(uow: UnitOfWork) -> None:
            await uow.deliveries.put(*changed)
            await uow.bindings.update(self._binding.id, cursor=target)

        if changed or target > self._binding.cursor:
            await self._write(note)
        for remote, row in zip(item.remotes, rows, strict=True):
            remote.row = row
        self._binding = replace(self._binding, cursor=target)

    async def _move_cursor(self) -> None:
        target = self._target()
        await self._write(lambda uow: uow.bindings.update(self._binding.id, cursor=target))
        self._binding = replace(self._binding, cursor=target)

    def _target(self) -> int:
        """The seq up to which everything was delivered."""
        target = self._binding.cursor
        for item in self._items:
            if not item.is_card:
                if not (item.settled or item.is_theirs):
                    break
                target = max(target, item.seq)
        return target

    def _root(self) -> str | None:
        """The remote message on which the thread is made."""
        remotes = [remote for item in self._items for remote in item.remotes]
        return next((each.row.remote_id for each in remotes if each.row.remote_id), None)

    async def _open(self, root: str) -> None:
        """Makes the thread behind its first message."""
        await self._outlet.ready()
        try:
            thread = await self._outlet.finish(self._surface.open(self._place, root))
        except Busy as error:
            self._not_before = _now() + error.retry_after
            return
        except AccountClosed as error:
            self._outlet.close(error)
            return
        except PlaceClosed:
            raise
        except SurfaceError as error:
            self._back_off(error)
            return
        await self._write(lambda uow: uow.bindings.update(self._binding.id, thread=thread, opened=True))
        self._binding = replace(self._binding, thread=thread, opened=True)
        self._status.look()

    async def _write(self, work: Callable[[UnitOfWork], Awaitable[_T]]) -> _T:
        """A transaction of the lease's holder, again and again while the database is away."""
        while True:
            try:
                async with self._services.storage.write() as uow:
                    await uow.account_leases.fence(self._outlet.held.lease)
                    if await uow.bindings.get(self._binding.id) is None:
                        self._is_deleted = True
                        raise _Over
                    return await work(uow)
            except StorageUnavailable as error:
                self._log.warning("delivery.storage_unavailable", reason=str(error))
                await asyncio.sleep(self._rules.storage_seconds)

    # --- what the agent does ---

    def _doing(self) -> tuple[AgentStatus, str] | None:
        """None where it is not known yet, or there is no place for it."""
        if not (self._is_read and self._talk.known and self._binding.opened):
            return None
        return view.doing(self._talk.turn, self._talk.agent)

    async def _note_status(self, *, is_shown: bool) -> None:
        if self._binding.status_shown != is_shown:
            await self._write(lambda uow: uow.bindings.update(self._binding.id, status_shown=is_shown))
            self._binding = replace(self._binding, status_shown=is_shown)
            self._dirty.set()


def _as_told(entry: Entry) -> JSON:
    calls = [call for _, call in sorted(entry.calls.items())]
    return {**entry.message, "content": entry.text, "tool_calls": calls}


def _is_doubtful(remote: Remote) -> bool:
    return not remote.lost and remote.called_at < remote.doubtful_until


def _is_granted(grants: "dict[Call, asyncio.Task[None]]", call: Call) -> bool:
    return call in grants and grants[call].done()


async def _end(tasks: "list[asyncio.Task[Any]]") -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


def _now() -> float:
    return asyncio.get_running_loop().time()
