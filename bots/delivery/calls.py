"""The calls by which one place is brought to what its conversation says, and what follows where one fails."""

import asyncio
import random
from contextlib import suppress
from dataclasses import replace

import structlog

from bots.delivery.due import Act, Step
from bots.delivery.history import Item
from bots.delivery.notes import Notes
from bots.delivery.outlet import Need, Outlet
from bots.delivery.picture import Picture, Twin
from bots.delivery.plan import LONG_AGO, Remote, begin_of, stable_end
from bots.pacing import Rank
from bots.surface import AccountClosed, Busy, Call, MessageGone, PlaceClosed, Refused, SurfaceError, TooLong, Unclear
from core.models import DeliveryState, Place

_log = structlog.get_logger()


class Calls:
    """Raises PlaceClosed where nothing can be sent to the place any more, and what `Notes` raises."""

    def __init__(self, outlet: Outlet, picture: Picture, notes: Notes) -> None:
        self._outlet = outlet
        self._surface = outlet.surface
        self._rules = outlet.rules
        self._picture = picture
        self._notes = notes
        self._failures = 0
        self._log = _log.bind(binding_id=str(picture.binding.id), conversation_id=str(picture.binding.conversation_id))

    async def take(self, step: Step) -> None:
        """Does it; what it needs was granted."""
        match step.act, step.subject:
            case Act.MOVE_CURSOR, _:
                await self._notes.moved()
            case Act.PART_TWINS, Twin() as twin:
                await self._part_twins(twin)
            case Act.EDIT, Item() as item:
                assert step.need
                await self._outlet.finish(self._edit(item, step.index, step.need))
            case act, Item() as item:
                await self._take(act, item, step.index)

    async def _take(self, act: Act, item: Item, index: int) -> None:
        match act:
            case Act.POST:
                await self._post(item, index)
            case Act.DELETE:
                await self._outlet.finish(self._delete(item, index))
            case Act.LOOK:
                await self._look(item, index)
            case Act.REPEAT:
                item.remotes[index].again = True
            case Act.CLOSE:
                self._close(item, index)
            case Act.FORGET:
                await self._notes.forgotten(item, index)
            case Act.SETTLE:
                await self._notes.settled(item, self._picture.wants(item, self._picture.view(item)))

    def back_off(self, **why: object) -> None:
        """Nothing is done for a while, longer each time until a call succeeds."""
        self._failures += 1
        self._wait(self._failures)
        self._log.info("delivery.tries_again", failures=self._failures, **why)

    def _wait(self, times: int) -> None:
        seconds = min(self._rules.backoff_seconds * 2 ** min(times - 1, 16), self._rules.backoff_limit_seconds)
        self._picture.not_before = _now() + seconds * random.uniform(0.75, 1.25)

    # --- posts ---

    async def _post(self, item: Item, index: int) -> None:
        await self._notes.announce(item, index)
        place = self._picture.place_of(item)
        if not self._outlet.may_call:  # noting it took long
            self._outlet.give_back(Call.POST, place)
            return
        await self._outlet.finish(self._post_now(item, index, place), posts_to=place)

    async def _post_now(self, item: Item, index: int, place: Place) -> None:
        wants, remote = self._picture.wants(item, self._picture.view(item)), item.remotes[index]
        if index >= len(wants):
            return
        part, before = wants[index].part, item.unshown_since
        item.unshown_since = None
        remote.unsent, remote.look_at = False, _now() + self._rules.settle_seconds
        remote.called_at = _now()
        try:
            answers = item.answers if index == 0 else ""
            remote_id = await self._surface.post(place, part, remote.row.nonce, answers=answers)
        except SurfaceError as error:
            item.unshown_since = before
            remote.look_at = _now() + self._rules.settle_seconds
            self._post_failed(error, item, remote, place)
            return
        self._failures = 0
        remote.part = part
        await self._notes.sent(item, index, wants, remote_id)

    def _post_failed(self, error: SurfaceError, item: Item, remote: Remote, place: Place) -> None:
        if isinstance(error, MessageGone):
            error = PlaceClosed(str(error), reason="message_gone")
        if not isinstance(error, Unclear):
            remote.unsent = True
        self._failed(error, Need(Call.POST, place), item, remote)

    async def _look(self, item: Item, index: int) -> None:
        """Finds out whether a post happened that nobody answered, and how often."""
        remote, place = item.remotes[index], self._picture.place_of(item)
        twin = Twin(item=item.key, nonce=remote.row.nonce, place=place, since=remote.row.sent_at, look_at=LONG_AGO)
        async with self._outlet.looking(place):
            try:
                found = await self._find(twin, may_guess=self._surface.guesses)
                await self._remove(place, found[1:])
            except SurfaceError as error:
                remote.look_at = _now()
                self._failed(error, Need(Call.LOOK, place), item, remote)
                return
            self._failures = 0
            if found and await self._notes.found(remote, found[0]):
                self._log.info("delivery.found", item=item.key, times=len(found))
                remote.part, remote.doubtful_until = None, LONG_AGO
                return
        remote.unsent = True
        self._picture.twins.append(self._later(twin))

    async def _part_twins(self, twin: Twin) -> None:
        """Deletes what a late first post made beside the second."""
        kept = await self._notes.posted_with(twin.item, twin.nonce)
        if kept and kept.remote_id is None:  # the second was not posted yet
            self._outlet.give_back(Call.LOOK, twin.place)
            self._put_off(twin)
            return
        async with self._outlet.looking(twin.place):
            try:
                found = await self._find(twin, may_guess=False)
                await self._remove(twin.place, [each for each in found if kept is None or each != kept.remote_id])
            except SurfaceError as error:
                self._put_off(twin)
                self._failed(error, Need(Call.LOOK, twin.place))
                return
        self._picture.twins.remove(twin)

    def _put_off(self, twin: Twin) -> None:
        self._picture.twins[self._picture.twins.index(twin)] = self._later(twin)

    def _later(self, twin: Twin) -> Twin:
        return replace(twin, look_at=_now() + self._rules.twin_seconds)

    async def _find(self, twin: Twin, *, may_guess: bool) -> list[str]:
        """What was posted with its nonce, without what is known by now to be something else."""
        known = await self._notes.others(twin) if may_guess else None
        found = await self._outlet.finish(self._surface.find(twin.place, twin.nonce, twin.since, known))
        if not found:
            return []
        await self._outlet.posts_noted(twin.place)
        others = await self._notes.others(twin)
        return [each for each in found if each not in others]

    async def _remove(self, place: Place, remote_ids: list[str]) -> None:
        for remote_id in remote_ids:
            await self._outlet.granted(Call.DELETE, place, Rank.CONTROL)
            await self._outlet.ready()
            await self._outlet.finish(self._surface.delete(place, remote_id))

    # --- changes ---

    async def _edit(self, item: Item, index: int, need: Need) -> None:
        wants, remote = self._picture.wants(item, self._picture.view(item)), item.remotes[index]
        if index >= len(wants) or remote.row.remote_id is None:
            return
        want, before = wants[index], item.unshown_since
        item.unshown_since = None
        began, remote.called_at = remote.again, _now()
        try:
            await self._surface.edit(need.place, remote.row.remote_id, want.part, remote.row.nonce)
        except SurfaceError as error:
            item.unshown_since = before
            await self._edit_failed(error, item, index, need)
            return
        self._failures = 0
        remote.part, remote.again = want.part, remote.again and not began
        if want.end is not None:
            await self._notes.sent(item, index, wants, remote.row.remote_id)

    async def _edit_failed(self, error: SurfaceError, item: Item, index: int, need: Need) -> None:
        remote = item.remotes[index]
        match error:
            case Unclear():
                remote.part = None
                remote.doubtful_until = _now() + self._rules.settle_seconds
            case MessageGone() if item.is_head:
                self._give_up(item, remote)
                return
            case MessageGone():
                await self._post_anew(item, index)
                return
        self._failed(error, need, item, remote)

    async def _post_anew(self, item: Item, index: int) -> None:
        """In place of what is gone, or cannot be changed any more; later each time, as it may happen again."""
        stale, place = item.remotes[index].row.remote_id, self._picture.place_of(item)
        await self._notes.replace(item, index)
        item.reposts += 1
        self._wait(item.reposts)
        if stale:
            with suppress(SurfaceError):  # otherwise it stays there as it is
                await self._remove(place, [stale])

    def _close(self, item: Item, index: int) -> None:
        shown = self._picture.view(item)
        if shown is not None:
            wants = self._picture.wants(item, shown)
            item.remotes[index].cut_at = stable_end(shown.text[: wants[index].upto], begin_of(wants, index))

    async def _delete(self, item: Item, index: int) -> None:
        remote, place = item.remotes[index], self._picture.place_of(item)
        if remote.row.remote_id:
            try:
                await self._surface.delete(place, remote.row.remote_id)
            except MessageGone:
                pass
            except SurfaceError as error:
                self._failed(error, Need(Call.DELETE, place), item, remote)
                return
        await self._notes.forgotten(item, index)

    # --- failures ---

    def _failed(self, error: SurfaceError, need: Need, item: Item | None = None, remote: Remote | None = None) -> None:
        """What follows from a failure for the next attempt."""
        match error:
            case Busy():
                self._outlet.busy(*need, error)
                if not self._surface.budgets(*need):
                    self._picture.not_before = _now() + error.retry_after
            case TooLong() if item and remote:
                self._shorten(item, remote)
            case AccountClosed():
                self._outlet.close(error)
            case PlaceClosed():
                self._closed(error, need)
            case Refused() if self._failures >= self._rules.refusals:
                self._closed(PlaceClosed(str(error), reason=error.reason), need)
            case _:
                self.back_off(error=type(error).__name__)

    def _closed(self, error: PlaceClosed, need: Need) -> None:
        """Where there will be a thread, what cannot be said at the channel's top waits for that."""
        picture = self._picture
        if not picture.waits_for_thread or need.place != picture.place:
            raise error
        picture.opening.is_only_way = True
        self.back_off(error=type(error).__name__, reason=error.reason)

    def _shorten(self, item: Item, remote: Remote) -> None:
        shorter = (item.limit or self._picture.limits(item).length) // 2
        if shorter < self._rules.shortest_part:
            self._give_up(item, remote)
            remote.unsent = False
        else:
            item.limit = shorter

    def _give_up(self, item: Item, remote: Remote) -> None:
        """The remote message stays as it is."""
        self._log.warning("delivery.part_given_up", item=item.key, part=remote.row.part)
        remote.lost = True
        if remote.is_sending:
            remote.row = replace(remote.row, state=DeliveryState.LIVE)


def _now() -> float:
    return asyncio.get_running_loop().time()
