"""How large a result is, and what to leave out where it would be too large: whole items, or the end of a text."""

import json
from collections.abc import Sequence
from itertools import accumulate
from typing import TypeVar

from pydantic_core import to_json

from core.text import utf16_cut, utf16_len
from core.tools.registry import MAX_RESULT_BYTES, Result

ROOM = MAX_RESULT_BYTES - 400
"""Some of a result is kept free: a surface may add which fields are untrusted."""
_R = TypeVar("_R", bound=Result)


def size_of(*results: Result) -> int:
    """Bytes of compact JSON, those between them included."""
    return len(to_json(results, exclude_none=True)) - 2


def text_size(text: str) -> int:
    """Bytes of compact JSON, without the quotes."""
    return len(json.dumps(text, ensure_ascii=False).encode()) - 2


def that_fit(items: Sequence[_R], room: int) -> list[_R]:
    """The first of them, as many as fit; the very first in any case."""
    if size_of(*items) <= room:
        return list(items)
    ends = accumulate(size_of(each) + 1 for each in items)
    return [each for place, (each, end) in enumerate(zip(items, ends, strict=True)) if not place or end - 1 <= room]


def cut(text: str, room: int) -> str:
    """As much of the beginning as fits into so many bytes."""
    if len(text) <= room and text_size(text) <= room:
        return text
    fits, too_long = 0, min(len(text), room) + 1
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        fits, too_long = (middle, too_long) if text_size(text[:middle]) <= room else (fits, middle)
    return text[:fits]


def behind(text: str, offset: int) -> tuple[int, str]:
    """What follows the UTF-16 code unit `offset`, and where that begins: earlier where it would split a character or lie beyond the end."""
    before = utf16_cut(text, offset)
    return utf16_len(before), text[len(before) :]
