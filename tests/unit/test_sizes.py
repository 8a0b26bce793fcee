"""What is left out of a result that would be too large."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.text import utf16_len
from core.tools.chat import ShownMessage, _in_equal_shares, _shares
from core.tools.registry import Result
from core.tools.sizes import behind, cut, size_of, text_size, that_fit

quick = settings(derandomize=True, deadline=None)
texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]) | st.sampled_from('🥛\x01"\\\né'), max_size=80)


class _Item(Result):
    text: str
    nothing: str | None = None


def _compact(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


@quick
@given(texts)
def test_sizes_are_those_of_compact_json(text: str) -> None:
    item = _Item(text=text)
    assert size_of(item) == len(_compact(item.json()))
    assert size_of(item, item) == len(_compact([item.json(), item.json()])) - 2
    assert text_size(text) == len(_compact(text)) - 2


@quick
@given(texts, st.integers(0, 100))
def test_a_text_is_cut_where_it_just_fits(text: str, room: int) -> None:
    piece = cut(text, room)
    assert text.startswith(piece)
    assert text_size(piece) <= room
    assert piece == text or text_size(text[: len(piece) + 1]) > room


@quick
@given(texts, st.integers(12, 40))
def test_the_pieces_of_a_text_are_the_text(text: str, room: int) -> None:
    """As a client reads it on: from where the piece before ended, in UTF-16 code units."""
    pieces: list[str] = []
    offset = 0
    while rest := behind(text, offset)[1]:
        pieces.append(cut(rest, room))
        offset += utf16_len(pieces[-1])
    assert "".join(pieces) == text


@pytest.mark.parametrize(
    ("offset", "begins", "rest"),
    [(0, 0, "a🥛b"), (1, 1, "🥛b"), (2, 1, "🥛b"), (3, 3, "b"), (4, 4, ""), (99, 4, "")],
    ids=["all", "before the pair", "within the pair", "behind the pair", "the end", "beyond the end"],
)
def test_an_offset_never_splits_a_character(offset: int, begins: int, rest: str) -> None:
    assert behind("a🥛b", offset) == (begins, rest)


@quick
@given(st.lists(texts, max_size=8), st.integers(0, 400))
def test_as_many_items_are_kept_as_fit(given: list[str], room: int) -> None:
    items = [_Item(text=text) for text in given]
    kept = that_fit(items, room)
    assert kept == items[: len(kept)]
    assert size_of(*kept) <= room or len(kept) == 1
    assert len(kept) == len(items) or size_of(*items[: len(kept) + 1]) > room


@quick
@given(st.lists(st.integers(0, 500), min_size=1, max_size=20), st.integers(0, 2_000))
def test_room_is_shared_equally_and_none_is_wasted(wanted: list[int], room: int) -> None:
    shares = _shares(wanted, room)
    assert all(0 <= share <= want for share, want in zip(shares, wanted, strict=True))
    assert min(sum(wanted), room) - len(wanted) < sum(shares) <= room
    clipped = [share for share, want in zip(shares, wanted, strict=True) if share < want]
    assert not clipped or max(clipped) - min(clipped) <= 1
    assert not clipped or max(shares) <= max(clipped)


@quick
@given(st.lists(st.integers(0, 3_000), max_size=30), st.sampled_from("a🥛\x01"))
def test_the_last_messages_are_kept_and_fit(lengths: list[int], character: str) -> None:
    whole = [_message(seq, character * length) for seq, length in enumerate(lengths, 1)]
    shown = _in_equal_shares(whole, 5_000)
    assert [each.seq for each in shown] == [each.seq for each in whole[len(whole) - len(shown) :]]
    assert bool(shown) == bool(whole)
    assert size_of(*shown) <= 5_000
    for message, told in zip(whole[len(whole) - len(shown) :], shown, strict=True):
        assert message.content.startswith(told.content)
        assert bool(told.clipped) == (told.content != message.content)


def test_short_messages_leave_their_room_to_long_ones() -> None:
    short, long = _message(1, "Hello"), _message(2, "a" * 10_000)
    one, other = _in_equal_shares([short, long], 3_000)
    assert one == short
    assert 2_980 < size_of(one, other) <= 3_000


def test_the_oldest_are_left_out_where_too_little_of_each_would_be_seen() -> None:
    shown = _in_equal_shares([_message(seq, "a" * 1_000) for seq in range(1, 101)], 5_000)
    assert [each.seq for each in shown] == list(range(91, 101))
    assert min(len(each.content) for each in shown) >= 300


def _message(seq: int, content: str) -> ShownMessage:
    return ShownMessage(seq=seq, message_id="0" * 36, role="user", status="completed", content=content, at="2026-11-26T00:00:00.000Z")
