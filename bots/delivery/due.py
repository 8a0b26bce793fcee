"""What is due at a place: the steps that bring it to what its conversation says, and those by which it gets its thread. Nothing is sent
or stored here.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from bots.delivery.history import Item
from bots.delivery.outlet import Need
from bots.delivery.picture import Picture, Twin
from bots.delivery.plan import LONG_AGO, NEVER, Remote, Want, all_shown, begin_of, shows
from bots.pacing import Rank, Urgency
from bots.surface import Call
from bots.view import View
from core.models import Place


class Act(StrEnum):
    POST = "post"
    EDIT = "edit"
    DELETE = "delete"
    LOOK = "look"
    """Whether a post happened that nobody answered."""
    PART_TWINS = "part_twins"
    OPEN = "open"
    """The thread, on the message that it is about."""
    MARK = "mark"
    """That something is to be done about the thread, or that nothing can be."""
    ARRANGE = "arrange"
    """The thread, by its name and whether it is put away."""
    LEARN = "learn"
    """What the place is called and who may read there: people elsewhere see that."""
    REPEAT = "repeat"
    """An earlier call may have come late and undone the last one."""
    CLOSE = "close"
    """Where the text ends now; it goes on in another part."""
    FORGET = "forget"
    SETTLE = "settle"
    """Everything of an item is there in its final form."""
    MOVE_CURSOR = "move_cursor"
    """Up to where everything was delivered, and that it was looked."""


OF_PLACE = frozenset({Act.OPEN, Act.MARK, Act.ARRANGE, Act.LEARN})
"""What is done about the place itself, and its thread."""
_CALLS = {
    Act.POST: Call.POST,
    Act.DELETE: Call.DELETE,
    Act.LOOK: Call.LOOK,
    Act.PART_TWINS: Call.LOOK,
    Act.OPEN: Call.OPEN,
    Act.ARRANGE: Call.ARRANGE,
    Act.LEARN: Call.LOOK,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Something to be done next, as soon as it is due and granted."""

    act: Act
    subject: Item | Twin | None = None
    index: int = 0
    """Of the item's part."""
    rank: Rank = Rank.LIVE
    since: float
    due: float
    need: Need | None
    """What must be granted."""

    @property
    def urgency(self) -> Urgency:
        return Urgency(self.rank, self.since)

    @property
    def what(self) -> tuple[Act, object, int]:
        """The same for the same step, whenever it is due."""
        return self.act, self.subject, self.index


def steps(picture: Picture) -> list[Step]:
    """All of them; those that are not due yet, too."""
    return _Steps(picture).all()


class _Steps:
    def __init__(self, picture: Picture) -> None:
        self._picture = picture
        self._now = asyncio.get_running_loop().time()

    def all(self) -> list[Step]:
        picture = self._picture
        found = [self._step(Act.PART_TWINS, twin, due=twin.look_at) for twin in picture.twins if not picture.is_uncertain]
        found += self._of_thread()
        found += self._of_items()
        if picture.target > picture.binding.cursor or (not found and picture.is_to_be_noted):
            found.append(self._step(Act.MOVE_CURSOR))
        if not found and picture.is_answered:
            found += self._of_place()
        return found

    def _of_place(self) -> Iterator[Step]:
        """What may wait until everything was said."""
        picture = self._picture
        if picture.is_to_be_arranged:
            yield self._step(Act.ARRANGE, due=picture.arranging.not_before)
        if picture.is_to_be_learned:
            yield self._step(Act.LEARN, due=picture.learning.not_before)

    def _of_thread(self) -> Iterator[Step]:
        picture = self._picture
        if picture.mark:
            yield self._step(Act.MARK)
        if picture.waits_for_thread:
            since = picture.opening.since = picture.opening.since or self._now
            yield self._step(Act.OPEN, rank=Rank.CONTROL, since=since, due=picture.opening.not_before)

    def _of_items(self) -> Iterator[Step]:
        may_post, is_answering = True, False
        for item in self._picture.items:
            if item.is_theirs or item.settled or self._comes_with_thread(item):
                continue
            # A reply of several parts would go on below the empty beginning of the next one.
            waits = not may_post or (is_answering and item.is_unfinished_reply)
            is_answering = is_answering or item.is_unfinished_reply
            if waits and not item.remotes:
                continue
            shown = self._picture.view(item)
            wants = self._picture.wants(item, shown)
            yield from self._of_item(item, shown, wants, may_post=may_post)
            may_post = may_post and self._may_follow(item, wants)

    def _comes_with_thread(self, item: Item) -> bool:
        """The card is what a thread begins with, and nobody misses it before."""
        return item.is_card and not item.stands and self._picture.waits_for_thread

    def _may_follow(self, item: Item, wants: list[Want]) -> bool:
        """Whether what comes behind the item may be posted: all of it is there."""
        return len(item.remotes) >= len(wants) and not any(each.is_sending for each in item.remotes)

    def _of_item(self, item: Item, shown: View | None, wants: list[Want], *, may_post: bool) -> Iterator[Step]:
        yield from self._of_parts(item, shown, wants, may_post=may_post)
        yield from self._of_surplus(item, len(wants))
        if not all_shown(item.remotes, wants):
            return
        item.unshown_since = None
        if (shown is None or shown.ended) and not any(remote.is_doubtful for remote in item.remotes):
            yield self._step(Act.SETTLE, item)

    def _of_parts(self, item: Item, shown: View | None, wants: list[Want], *, may_post: bool) -> Iterator[Step]:
        for index in range(len(wants)):
            remote = item.remotes[index] if index < len(item.remotes) else None
            if remote is None or remote.unsent:
                if all_shown(item.remotes[:index], wants[:index]) and (may_post or index) and (step := self._post(item, index, shown)):
                    yield step
                return
            yield from self._of_remote(item, index, remote, shown, wants)

    def _of_remote(self, item: Item, index: int, remote: Remote, shown: View | None, wants: list[Want]) -> Iterator[Step]:
        """For a part that was posted."""
        ended, want = shown is None or shown.ended, wants[index]
        dies_at = None if ended or want.end is not None else self._picture.dies_at(item, remote)
        has_text = dies_at is not None and shown is not None and bool(shown.text[begin_of(wants, index) : want.upto].strip())
        if remote.is_sending:
            yield self._step(Act.LOOK, item, index, rank=Rank.CONTROL, due=remote.look_at)
        elif dies_at is not None and dies_at <= self._now and has_text and remote.is_blank:  # the text begins where people look for it
            yield self._step(Act.DELETE, item, index)
        elif not shows(remote, want):
            rank = self._rank_of_edit(item, remote, want, ended=ended)
            due = remote.called_at + self._picture.limits(item).edit_seconds
            call = self._picture.call_to_edit(item, remote)
            yield self._step(Act.EDIT, item, index, rank=rank, since=item.unshown_since, due=due, call=call)
        elif remote.is_doubtful:
            yield self._step(Act.REPEAT, item, index, due=remote.doubtful_until)
        elif dies_at is not None and has_text:
            yield self._step(Act.CLOSE, item, index, due=dies_at)
        elif dies_at is not None and self._picture.limits(item).old_seconds is None:  # what can be changed for ever may wait
            yield self._step(Act.DELETE, item, index, due=dies_at)

    def _rank_of_edit(self, item: Item, remote: Remote, want: Want, *, ended: bool) -> Rank:
        if item.is_head:
            return Rank.CONTROL
        if ended:
            return Rank.FINAL
        if remote.part is None or (remote.part.buttons == want.part.buttons and remote.part.text != want.part.text):
            return Rank.LIVE
        return Rank.CONTROL

    def _post(self, item: Item, index: int, shown: View | None) -> Step | None:
        """None where it may be posted in the thread alone, which is still to be made."""
        posts_from = LONG_AGO if item.stands else self._picture.posts_from
        if posts_from == NEVER:
            return None
        ended = shown is None or shown.ended
        waits = not ended and index == 0 and shown is not None and not shown.text
        rank = Rank.CONTROL if item.is_head else Rank.FINAL if ended else Rank.LIVE if index else Rank.FIRST
        due = item.seen_at + self._picture.first_seconds if waits else item.seen_at
        return self._step(Act.POST, item, index, rank=rank, since=item.seen_at, due=max(due, posts_from))

    def _of_surplus(self, item: Item, wanted: int) -> Iterator[Step]:
        """The last first."""
        for index in range(len(item.remotes) - 1, wanted - 1, -1):
            remote = item.remotes[index]
            if remote.unsent or remote.lost:
                yield self._step(Act.FORGET, item, index)
            elif remote.is_sending:
                yield self._step(Act.LOOK, item, index, rank=Rank.CONTROL, due=remote.look_at)
            else:
                yield self._step(Act.DELETE, item, index, rank=Rank.FINAL)

    def _step(
        self,
        act: Act,
        subject: Item | Twin | None = None,
        index: int = 0,
        *,
        rank: Rank = Rank.LIVE,
        since: float | None = None,
        due: float = LONG_AGO,
        call: Call | None = None,
    ) -> Step:
        since = self._now if since is None else since
        call = call or _CALLS.get(act)
        need = Need(call, self._place(subject)) if call else None
        return Step(act=act, subject=subject, index=index, rank=rank, since=since, due=max(due, self._picture.not_before), need=need)

    def _place(self, subject: Item | Twin | None) -> Place:
        match subject:
            case Item():
                return self._picture.place_of(subject)
            case Twin():
                return subject.place
        return self._picture.place
