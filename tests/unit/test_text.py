"""Text as every surface and database can hold it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.text import StreamCleaner, clean, clip, utf16_cut, utf16_len

quick = settings(derandomize=True, deadline=None)
anything = st.text(alphabet=st.characters(exclude_categories=[]) | st.sampled_from("\ud83e\udd5b\x00a"), max_size=30)
"""Lone surrogates and U+0000 included."""
storable = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=30)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Milk 🥛", "Milk 🥛"),
        ("a\x00b", "a\ufffdb"),
        ("\ud83e\udd5b", "🥛"),
        ("\ud83e", "\ufffd"),
        ("\udd5b\ud83e", "\ufffd\ufffd"),
        ("\ud83ex", "\ufffdx"),
    ],
)
def test_what_no_database_holds_is_replaced(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


@quick
@given(anything)
def test_cleaned_text_can_be_stored_and_stays_as_it_is(text: str) -> None:
    cleaned = clean(text)
    cleaned.encode("utf-8")
    assert "\x00" not in cleaned
    assert clean(cleaned) == cleaned


@quick
@given(storable)
def test_text_that_can_be_stored_is_left_alone(text: str) -> None:
    assert clean(text) == text


@quick
@given(st.lists(anything, max_size=8))
def test_a_cleaned_stream_is_the_cleaned_whole(pieces: list[str]) -> None:
    cleaner = StreamCleaner()
    shown = [cleaner.feed(piece) for piece in pieces]
    assert "".join([*shown, cleaner.finish()]) == clean("".join(pieces))


@quick
@given(st.lists(anything, max_size=8))
def test_each_piece_of_a_cleaned_stream_can_be_stored(pieces: list[str]) -> None:
    cleaner = StreamCleaner()
    for piece in pieces:
        assert clean(shown := cleaner.feed(piece)) == shown


def test_a_torn_character_is_held_back_until_it_is_whole() -> None:
    cleaner = StreamCleaner()
    assert [cleaner.feed("milk \ud83e"), cleaner.feed("\udd5b!"), cleaner.finish()] == ["milk ", "🥛!", ""]
    assert [cleaner.feed("\ud83e"), cleaner.finish()] == ["", "\ufffd"]


@pytest.mark.parametrize(("text", "units"), [("", 0), ("abc", 3), ("é", 1), ("🥛", 2), ("👩\u200d🚀", 5)])
def test_length_is_counted_as_javascript_does(text: str, units: int) -> None:
    assert utf16_len(text) == units


@quick
@given(storable, st.integers(0, 70))
def test_a_cut_is_the_longest_beginning_that_fits(text: str, units: int) -> None:
    cut = utf16_cut(text, units)
    assert text.startswith(cut)
    assert utf16_len(cut) <= units
    longer = text[: len(cut) + 1]
    assert longer == text[: len(cut)] or utf16_len(longer) > units


@quick
@given(storable, storable)
def test_lengths_add_up(one: str, other: str) -> None:
    assert utf16_len(one + other) == utf16_len(one) + utf16_len(other)
    assert utf16_cut(one + other, utf16_len(one)) == one


@quick
@given(storable, st.integers(1, 40))
def test_a_clipped_text_is_one_line_and_fits(text: str, characters: int) -> None:
    clipped = clip(text, characters)
    assert len(clipped) <= characters
    assert len(clipped.splitlines()) <= 1
    assert clipped == " ".join(text.split()) or clipped.endswith("…")
