"""Which parts a message is shown in, and that what was cut before is not cut again."""

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from bots.delivery.plan import Cuts, Remote, digest, stable_end, wanted
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
        assert wanted(_growing(text), [], 200, len, cuts) == wanted(_growing(text), [], 200, len, Cuts())


def test_what_is_behind_a_cut_is_not_measured_again() -> None:
    cuts, measure = Cuts(), Counting()
    text = "Some words of a long answer.\n" * 500
    wanted(_growing(text), [], 300, measure, cuts)
    at_first, measure.times = measure.times, 0
    wanted(_growing(text), [], 300, measure, cuts)
    assert measure.times == 0
    wanted(_growing(text + "And more.\n"), [], 300, measure, cuts)
    assert measure.times < at_first / 20


def test_a_part_that_was_closed_stays_where_it_was_closed_although_the_limit_changed() -> None:
    text = "Some words of a long answer.\n" * 20
    wants = wanted(_growing(text), [], 300, len, Cuts())
    row = replace(_row(), state=DeliveryState.CLOSED, end=wants[0].end, shown=digest(wants[0].part))
    assert wanted(_growing(text), [Remote(row)], 200, len, Cuts())[0] == wants[0]


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
