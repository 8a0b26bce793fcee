"""Which remote messages one of our messages should have, beside those that it has. Pure: nothing is sent here."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from bots.markdown import Measure, cut, piece
from bots.surface import Part
from bots.view import View
from core.models import Delivery, DeliveryState

LONG_AGO = float("-inf")


@dataclass(slots=True, eq=False)
class Remote:
    """A remote message as this process knows it."""

    row: Delivery
    part: Part | None = None
    """What it shows, where this process sent it and knows that it arrived."""
    unsent: bool = False
    """Nothing was posted with the row's nonce: it can be, without a look."""
    look_at: float = LONG_AGO
    """When it can be told whether a post of unknown outcome happened."""
    called_at: float = LONG_AGO
    """When it was last sent something."""
    doubtful_until: float = LONG_AGO
    """Until then a call that was made earlier may still happen, and overwrite what was sent later."""
    cut_at: int | None = None
    """Where it is to be closed although there would be room: the platform lets a message be changed only for a while."""
    again: bool = False
    """It is sent once more, as an earlier call may have overwritten it."""
    lost: bool = False
    """It cannot be changed any more, and is left as it is."""

    @property
    def is_sending(self) -> bool:
        return self.row.state is DeliveryState.SENDING

    @property
    def is_doubtful(self) -> bool:
        """Whether the last thing that it was sent may be overwritten by what was sent before."""
        return not self.lost and self.called_at < self.doubtful_until


@dataclass(frozen=True, slots=True)
class Want:
    part: Part
    end: int | None
    """Where it ends in the text; None for the last one."""


class Cuts:
    """How one text was cut before. While it only grows, what is behind a cut stays as it is, and is not parsed again."""

    def __init__(self) -> None:
        self._text = ""
        self._ends: dict[tuple[int, int], int | None] = {}
        self._pieces: dict[tuple[int, int | None], str] = {}

    def follow(self, text: str) -> None:
        """`text` is what is cut from now on."""
        if text == self._text:
            return
        grew = text.startswith(self._text)
        self._ends = {place: end for place, end in self._ends.items() if grew and end is not None}
        self._pieces = {place: shown for place, shown in self._pieces.items() if grew and place[1] is not None}
        self._text = text

    def end(self, begin: int, limit: int, measure: Measure) -> int | None:
        if (begin, limit) not in self._ends:
            self._ends[begin, limit] = cut(self._text, begin, limit, measure)
        return self._ends[begin, limit]

    def piece(self, begin: int, end: int | None) -> str:
        if (begin, end) not in self._pieces:
            self._pieces[begin, end] = piece(self._text, begin, end)
        return self._pieces[begin, end]


def wanted(view: View | None, remotes: Sequence[Remote], limit: int, measure: Measure, cuts: Cuts) -> list[Want]:
    """The parts in which the message is to be shown. Those that are closed stay as they are while the text still begins with them.

    `cuts` are those of the same message before.
    """
    if view is None:
        return []
    cuts.follow(view.text)
    wants: list[Want] = []
    begin = 0
    while True:
        remote = remotes[len(wants)] if len(wants) < len(remotes) else None
        end = _closed_end(view, begin, remote, cuts) or cuts.end(begin, limit, measure)
        if end is None:
            return [*wants, Want(_last(view, begin, cuts), None)]
        wants.append(Want(_closed(view, begin, end, cuts), end))
        begin = end


def shows(remote: Remote, want: Want) -> bool:
    """Whether it looks as it should, as far as is known."""
    if remote.lost or remote.again:
        return remote.lost
    if remote.part is not None:
        return remote.part == want.part
    return remote.row.state in (DeliveryState.CLOSED, DeliveryState.FINAL) and remote.row.shown == digest(want.part)


def all_shown(remotes: Sequence[Remote], wants: Sequence[Want]) -> bool:
    """Whether these parts are there, look as they should, and are all."""
    return len(remotes) == len(wants) and all(shows(remote, want) for remote, want in zip(remotes, wants, strict=True))


def as_final(remotes: Sequence[Remote], wants: Sequence[Want], revision: int) -> list[Delivery]:
    """What is to be noted once everything is there in its final form."""
    return [
        replace(
            remote.row,
            state=DeliveryState.FINAL if want.end is None else DeliveryState.CLOSED,
            shown=digest(want.part),
            revision=revision,
            end=want.end,
        )
        for remote, want in zip(remotes, wants, strict=True)
    ]


def digest(part: Part) -> str:
    """The sha256 of what a part shows."""
    return hashlib.sha256(json.dumps(asdict(part), sort_keys=True).encode()).hexdigest()


def stable_end(text: str, begin: int) -> int | None:
    """Where a part that cannot be changed much longer is closed: at the last line's or word's end; None where it has no text yet."""
    present = text[begin:]
    if not present.strip():
        return None
    for separator in ("\n", " "):
        place = present.rfind(separator)
        if place > len(present) // 2:
            return begin + place + 1
    return len(text)


def begin_of(wants: Sequence[Want], index: int) -> int:
    """Where a part begins in the text."""
    return wants[index - 1].end or 0 if index else 0


def _closed(view: View, begin: int, end: int, cuts: Cuts) -> Part:
    """A part behind which the text goes on."""
    return Part(text=cuts.piece(begin, end), speaker=view.speaker if begin == 0 else "")


def _last(view: View, begin: int, cuts: Cuts) -> Part:
    speaker = view.speaker if begin == 0 else ""
    text = cuts.piece(begin, None)
    return Part(text=text, notes=view.notes, buttons=view.buttons, speaker=speaker, is_card=view.is_card, live=not view.ended)


def _closed_end(view: View, begin: int, remote: Remote | None, cuts: Cuts) -> int | None:
    """Where the part was closed or is to be, if the text is still the same up to there."""
    if remote and remote.cut_at is not None and begin < remote.cut_at <= len(view.text):
        return remote.cut_at
    if remote is None or remote.row.state is not DeliveryState.CLOSED or remote.row.end is None:
        return None
    end = remote.row.end
    if not begin < end <= len(view.text):
        return None
    return end if remote.lost or digest(_closed(view, begin, end, cuts)) == remote.row.shown else None
