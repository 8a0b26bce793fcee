"""Which remote messages one of our messages should have, beside those that it has. Pure: nothing is sent here."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from bots.markdown import Measure, cut, piece
from bots.surface import Limits, Part, TextFile
from bots.view import View
from core.models import Delivery, DeliveryState

LONG_AGO = float("-inf")
NEVER = float("inf")
_LINE_MARKUP = 5
"""At most so much stands around the speaker and around each note: a line's end, and what makes it bold or small."""
_GOES_ON = "The text goes on. All of it comes as a file once it has ended."


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
    def is_blank(self) -> bool:
        """Whether it is known to show no text."""
        return self.part is not None and not self.part.text

    @property
    def is_doubtful(self) -> bool:
        """Whether the last thing that it was sent may be overwritten by what was sent before."""
        return not self.lost and self.called_at < self.doubtful_until


@dataclass(frozen=True, slots=True)
class Want:
    part: Part
    end: int | None
    """Where it ends in the text; None for the last one."""
    upto: int
    """Up to where it shows the text; the last one leaves out what comes as a file."""


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


def wanted(view: View | None, remotes: Sequence[Remote], limits: Limits, cuts: Cuts, url: str = "") -> list[Want]:
    """The parts in which the message is to be shown. Those that are closed stay as they are while the text still begins with them.

    `cuts` are those of the same message before; at `url` all of it is read.
    """
    if view is None:
        return []
    cuts.follow(view.text)
    wants: list[Want] = []
    begin = 0
    while len(wants) != limits.parts:
        remote = remotes[len(wants)] if len(wants) < len(remotes) else None
        closed = _closed_end(view, begin, remote, cuts)
        end = closed or cuts.end(begin, limits.length, limits.measure)
        if end is None or (closed is None and len(wants) + 1 == limits.parts):
            return wants + _last(view, begin, len(view.text) if end is None else end, limits, cuts, url=url)
        wants.append(_closed(view, begin, end, cuts))
        begin = end
    return wants + _last(view, begin, begin, limits, cuts, url=url)


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
    shown = asdict(part)
    if part.file is None:  # as it was before parts could have one
        del shown["file"]
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()


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


def _closed(view: View, begin: int, end: int, cuts: Cuts) -> Want:
    """A part behind which the message goes on."""
    return Want(Part(text=cuts.piece(begin, end), speaker=view.speaker if begin == 0 else ""), end, end)


def _last(view: View, begin: int, upto: int, limits: Limits, cuts: Cuts, *, url: str) -> list[Want]:
    """What shows the text up to there, and what stands below it: by itself where there is no room for both."""
    last = _below(view, url if upto < len(view.text) else None)
    text = cuts.piece(begin, upto if upto < len(view.text) else None) if begin < upto else ""
    whole = replace(last, text=text, speaker=view.speaker if begin == 0 else "")
    if not view.ended or begin == upto or limits.whole is None or _size(whole, limits.measure) <= limits.whole:
        return [] if view.ended and begin and _is_empty(whole) else [Want(whole, None, upto)]
    return [_closed(view, begin, upto, cuts), Want(last, None, upto)]


def _below(view: View, url: str | None) -> Part:
    """What stands below the text; where not all of that is shown, `url` is where it is."""
    part = Part(text="", notes=view.notes, buttons=view.buttons, is_card=view.is_card, live=not view.ended)
    if url is None:
        return part
    if not view.ended:
        return replace(part, notes=(*view.notes, _GOES_ON))
    file = TextFile(name="message.md" if view.speaker else "answer.md", text=view.text)
    return replace(part, notes=(*view.notes, f"All of it is in the file, and [on the web]({url})."), file=file)


def _size(part: Part, measure: Measure) -> int:
    lines = [*part.notes, *filter(None, [part.speaker])]
    return measure(part.text) + sum(measure(line) + _LINE_MARKUP for line in lines)


def _is_empty(part: Part) -> bool:
    return not (part.text.strip() or part.notes or part.buttons)


def _closed_end(view: View, begin: int, remote: Remote | None, cuts: Cuts) -> int | None:
    """Where the part was closed or is to be, if the text is still the same up to there."""
    if remote and remote.cut_at is not None and begin < remote.cut_at <= len(view.text):
        return remote.cut_at
    if remote is None or remote.row.state is not DeliveryState.CLOSED or remote.row.end is None:
        return None
    end = remote.row.end
    if not begin < end <= len(view.text):
        return None
    return end if remote.lost or digest(_closed(view, begin, end, cuts).part) == remote.row.shown else None
