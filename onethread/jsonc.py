"""JSON as editors keep it, with comments and trailing commas: read, and added to in one place, all else left byte for byte.

Our own, because no Python library of that kind is both small and widely kept; and little is needed: comments are blanked, so that the
standard library parses the rest and its positions are those of the original.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from core.models import JSON

_STRING = r'"(?:[^"\\\n]|\\.)*+"?'  # one that is never closed too: trying again behind each quote would take minutes
_COMMENTS = re.compile(rf"{_STRING}|//[^\r\n]*|/\*(?:.*?\*/|(?P<unclosed>.*))|^\ufeff", re.DOTALL)
_LAST_COMMAS = re.compile(rf"{_STRING}|,(?=\s*[}}\]])", re.DOTALL)
_SPACE = re.compile(r"[ \t\r\n]*")
_INDENTED = re.compile(r"^([ \t]+)\S", re.MULTILINE)
_DECODER = json.JSONDecoder()


class NoJSON(ValueError):
    """A text that is no JSON, even with comments; tells where."""


def is_blank(text: str) -> bool:
    """Whether it holds nothing but spaces and comments."""
    return not _plain(text).strip(" \t\r\n")


def read(text: str) -> Any:
    """What it holds. Raises NoJSON, for a blank text too."""
    plain = _plain(text)
    value, end = _decoded(plain, _skipped(plain, 0))
    if (end := _skipped(plain, end)) < len(plain):
        raise _no_json(json.JSONDecodeError("Extra data", plain, end))
    return value


def text(value: Any) -> str:
    """A file of this alone."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def filled(blank: str, value: Any) -> str:
    """A blank text with this below what it says."""
    newline = _newline(blank)
    begun = blank.endswith("\n") or not blank.strip("\ufeff")
    return blank + ("" if begun else newline) + text(value).replace("\n", newline)


def with_member(text: str, section: str, key: str, value: JSON) -> str:
    """With one more member in an object of the outermost object, which is made where it is missing.

    The text must hold an object, and the section, if it is there, one without this key.
    """
    root = _root(text)
    found = next((member for member in reversed(root.elements) if member.key == section), None)
    if found is None:
        return _added(text, root, section, {key: value})
    return _added(text, _container(text, found.start), key, value)


def with_item(text: str, section: str, item: JSON) -> str:
    """With one more item in a list of the outermost object, which is made where it is missing."""
    root = _root(text)
    found = next((member for member in reversed(root.elements) if member.key == section), None)
    if found is None:
        return _added(text, root, section, [item])
    return _added(text, _container(text, found.start), None, item)


@dataclass(frozen=True, slots=True)
class _Element:
    begin: int
    """Where it begins, its key included."""
    key: str | None
    start: int
    """Where its value begins."""
    end: int


@dataclass(frozen=True, slots=True)
class _Container:
    """An object or a list."""

    open: int
    close: int
    elements: list[_Element]


def _plain(text: str) -> str:
    """The same without comments and trailing commas, each replaced by spaces: every position stays what it is."""
    return _LAST_COMMAS.sub(_kept_string, _COMMENTS.sub(_kept_string, text))


def _kept_string(found: re.Match[str]) -> str:
    whole = found[0]
    return whole if whole.startswith('"') or found.lastgroup == "unclosed" else re.sub(r"[^\r\n]", " ", whole)


def _decoded(plain: str, at: int) -> tuple[Any, int]:
    """The value there, and where it ends."""
    try:
        return _DECODER.raw_decode(plain, at)
    except json.JSONDecodeError as error:
        raise _no_json(error) from None
    except RecursionError:
        raise NoJSON("it is nested too deeply") from None
    except ValueError:  # Python's own limit, so that nobody makes it count for minutes
        raise NoJSON("it holds a number of too many digits") from None


def _no_json(error: json.JSONDecodeError) -> NoJSON:
    return NoJSON(f"line {error.lineno}, column {error.colno}: {error.msg}")


def _root(text: str) -> _Container:
    return _container(text, _skipped(_plain(text), 0))


def _container(text: str, at: int) -> _Container:
    plain = _plain(text)
    elements = list(_elements(plain, at))
    return _Container(at, _skipped(plain, elements[-1].end if elements else at + 1), elements)


def _elements(plain: str, at: int) -> Iterator[_Element]:
    is_object = plain[at] == "{"
    place = _skipped(plain, at + 1)
    while plain[place] not in "}]":
        begin, key = place, None
        if is_object:
            key, place = _decoded(plain, place)
            place = _skipped(plain, _skipped(plain, place) + 1)
        start = place
        _, place = _decoded(plain, place)
        yield _Element(begin, key, start, place)
        place = _skipped(plain, place)
        if plain[place] == ",":
            place = _skipped(plain, place + 1)


def _skipped(plain: str, at: int) -> int:
    found = _SPACE.match(plain, at)
    assert found
    return found.end()


def _added(text: str, container: _Container, key: str | None, value: Any) -> str:
    newline = _newline(text)
    found = _INDENTED.search(text)
    unit = found[1] if found and "\t" in found[1] else " " * min(len(found[1]) if found else 2, 4)
    outer = _indent(text, container.open)
    inner = outer + unit
    if container.elements and not text[_line_start(text, begin := container.elements[-1].begin) : begin].strip():
        inner = _indent(text, begin)
    name = f"{json.dumps(key, ensure_ascii=False)}: " if key is not None else ""
    lines = (name + json.dumps(value, indent=unit, ensure_ascii=False)).split("\n")
    element = newline + newline.join(inner + line for line in lines)
    if not container.elements:
        is_one_line = "\n" not in text[container.open : container.close]
        end = newline + outer if is_one_line else ""
        return text[: container.open + 1] + element + text[container.open + 1 : container.close] + end + text[container.close :]
    return _appended(text, container, element, newline + outer)


def _appended(text: str, container: _Container, element: str, end: str) -> str:
    """Behind the last element, and behind what is said about it on its line."""
    last = container.elements[-1].end
    rest = _COMMENTS.sub(lambda found: "*" * len(found[0]), text[last : container.close])
    comma, line = rest.find(","), len(rest.splitlines()[0]) if rest else 0
    place = last + max(line, comma + 1)
    if place == container.close:
        element = element + ("," if comma >= 0 else "") + end
    elif comma >= 0:
        element += ","
    return text[:last] + ("," if comma < 0 else "") + text[last:place] + element + text[place:]


def _newline(text: str) -> str:
    """What most of its lines end with."""
    return "\r\n" if text.count("\r\n") * 2 > text.count("\n") else "\n"


def _indent(text: str, at: int) -> str:
    found = re.compile(r"[ \t]*").match(text, _line_start(text, at))
    return found[0] if found else ""


def _line_start(text: str, at: int) -> int:
    return text.rfind("\n", 0, at) + 1
