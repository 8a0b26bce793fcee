"""Which parts a message is shown in, and that what was cut before is not cut again."""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bots.delivery.plan import Cuts, Remote, Want, digest, stable_end, wanted
from bots.surface import Limits, Part, TextFile
from bots.view import View
from core.ids import new_id
from core.models import Delivery, DeliveryState

_LINES = ["A line of words.\n", "\n", "```py\n", "```\n", "x = 1\n", "- an item\n", "| a | b |\n|---|---|\n", "| 1 | 2 |\n", "**bold** "]


class Counting:
    """Measures a text, and tells how often it was asked."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, text: str) -> int:
        self.times += 1
        return len(text)


def _growing(text: str) -> View:
    return View(text=text, ended=False)


@given(st.lists(st.lists(st.sampled_from(_LINES), max_size=12), min_size=1, max_size=8), st.integers(0, 7))
def test_a_text_that_is_cut_while_it_grows_or_begins_anew_has_the_parts_that_it_has_at_once(pieces: list[list[str]], again: int) -> None:
    cuts, text = Cuts(), ""
    for number, piece in enumerate(pieces):
        text = "".join(piece) if number == again else text + "".join(piece)
        assert wanted(_growing(text), [], Limits(length=200), cuts) == wanted(_growing(text), [], Limits(length=200), Cuts())


def test_what_is_behind_a_cut_is_not_measured_again() -> None:
    cuts, measure = Cuts(), Counting()
    limits = Limits(length=300, measure=measure)
    text = "Some words of a long answer.\n" * 500
    wanted(_growing(text), [], limits, cuts)
    at_first, measure.times = measure.times, 0
    wanted(_growing(text), [], limits, cuts)
    assert measure.times == 0
    wanted(_growing(text + "And more.\n"), [], limits, cuts)
    assert measure.times < at_first / 20


def test_a_part_that_was_closed_stays_where_it_was_closed_although_the_limit_changed() -> None:
    text = "Some words of a long answer.\n" * 20
    wants = wanted(_growing(text), [], Limits(length=300), Cuts())
    row = replace(_row(), state=DeliveryState.CLOSED, end=wants[0].end, shown=digest(wants[0].part))
    assert wanted(_growing(text), [Remote(row)], Limits(length=200), Cuts())[0] == wants[0]


def test_a_part_is_closed_at_a_lines_end_and_not_before_it_has_text() -> None:
    assert stable_end("One line.\nHalf", 0) == 10
    assert stable_end("One line.\n", 10) is None
    assert stable_end("A word and anoth", 0) == 11


def _row() -> Delivery:
    return Delivery(
        binding_id=new_id(),
        item="1",
        part=0,
        message_id=None,
        revision=1,
        remote_id="1.0",
        nonce=new_id(),
        state=DeliveryState.LIVE,
        end=None,
        shown="",
        sent_at=datetime.now(UTC),
    )


def test_notes_that_do_not_fit_below_the_text_get_a_part_of_their_own_once_everything_was_said() -> None:
    limits = Limits(length=300, whole=330)
    view = View(text="x" * 280, notes=("A note of some length.", "Another note of some length."))
    below = Part(text="", notes=view.notes)
    assert wanted(replace(view, ended=False), [], limits, Cuts()) == [Want(replace(below, text=view.text, live=True), None, 280)]
    closed, last = wanted(view, [], limits, Cuts())
    assert (closed, last) == (Want(Part(text=view.text), 280, 280), Want(below, None, 280))
    row = replace(_row(), state=DeliveryState.CLOSED, end=280, shown=digest(closed.part))
    assert wanted(view, [Remote(row)], limits, Cuts()) == [closed, last]
    assert wanted(replace(view, notes=()), [Remote(row)], limits, Cuts()) == [closed]
    assert len(wanted(replace(view, notes=view.notes[:1]), [], limits, Cuts())) == 1


def test_a_text_of_too_many_parts_comes_as_a_file_in_the_last_one_and_what_was_closed_stays() -> None:
    limits, line = Limits(length=300, parts=3), "Some words of a long answer.\n"
    growing = [wanted(_growing(line * count), [], limits, Cuts()) for count in range(5, 60)]
    for earlier, later in pairwise(growing):
        assert len(later) <= 3
        assert later[: len(earlier) - 1] == earlier[:-1]
    assert growing[-1] == growing[-2]
    assert growing[-1][-1].part.file is None
    assert "as a file" in growing[-1][-1].part.notes[-1]
    whole = View(text=line * 60, notes=("cost",))
    *closed, last = wanted(whole, [], limits, Cuts(), "https://one.example/1")
    assert closed == growing[-1][:-1]
    assert last.part.text == growing[-1][-1].part.text
    assert last.part.file == TextFile(name="answer.md", text=whole.text)
    assert last.part.notes == ("cost", "All of it is in the file, and [on the web](https://one.example/1).")
    rows = [Remote(replace(_row(), state=DeliveryState.CLOSED, end=each.end, shown=digest(each.part))) for each in closed]
    assert wanted(whole, rows, limits, Cuts(), "https://one.example/1") == [*closed, last]
    assert all(each.part.file is None for each in wanted(replace(whole, text=line * 20), rows, limits, Cuts()))


def test_a_text_of_too_many_parts_ends_below_the_last_one_where_there_is_no_room_for_what_stands_below() -> None:
    limits = Limits(length=300, whole=310, parts=2)
    view = View(text="Some words of a long answer.\n" * 60, notes=("A note of some length.",))
    parts = wanted(view, [], limits, Cuts())
    assert [bool(each.part.file) for each in parts] == [False, False, True]
    assert parts[-1].part.text == ""
    rows = [Remote(replace(_row(), state=DeliveryState.CLOSED, end=each.end, shown=digest(each.part))) for each in parts[:-1]]
    assert wanted(view, rows, limits, Cuts()) == parts


def test_a_part_that_was_sent_before_there_were_files_counts_as_the_same() -> None:
    part = Part(text="Hello", notes=("a note",), speaker="alice, on the web")
    assert digest(part) == "49388c6560e79f5d366f6f17ca2f335c7d74e2c4dfc0c4b8c2babd8fa97032a5"
    assert digest(replace(part, file=TextFile(name="answer.md", text="Hello"))) != digest(part)
