"""How a reader of server-sent events goes on where they stopped reading."""

from hypothesis import given
from hypothesis import strategies as st

from core.text import utf16_cut, utf16_len
from web.events import Place

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def applied(text: str, missing: tuple[int, str] | None) -> str:
    """What a reader has who cuts at the offset and adds the rest."""
    return utf16_cut(text, missing[0]) + missing[1] if missing else text


@given(texts, st.integers(0, 70))
def test_whoever_read_a_beginning_has_the_whole_text_afterwards(text: str, offset: int) -> None:
    read = utf16_cut(text, offset)

    assert applied(read, Place(1, min(offset, utf16_len(text))).missing(1, 0, text)) == text


@given(texts, texts, st.integers(0, 70))
def test_nothing_is_sent_twice(first: str, second: str, offset: int) -> None:
    place = Place(1, utf16_len(utf16_cut(first + second, offset)))

    sent = [place.missing(1, 0, first), place.missing(1, utf16_len(first), second)]

    assert utf16_cut(first + second, offset) + "".join(each[1] for each in sent if each) == first + second
    assert str(place) == f"1.{utf16_len(first + second)}"


@given(texts, texts)
def test_another_stream_replaces_all(old: str, new: str) -> None:
    place = Place(1, utf16_len(old))

    assert applied(old, place.missing(2, 0, new)) == new
    assert str(place) == (f"2.{utf16_len(new)}" if old or new else "1.0")


def test_a_place_that_is_none_is_the_beginning() -> None:
    assert [str(Place.of(each)) for each in (None, "", "x", "1", "1.", "-1.2", "1.2.3", "1.2\n", "12345678901.1")] == ["0.0"] * 9
