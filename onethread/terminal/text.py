"""Text as a terminal may show it: without control characters, lightly styled Markdown, folded at words."""

import re
from collections.abc import Iterator

from prompt_toolkit.utils import get_cwidth

Fragments = list[tuple[str, str]]
"""Pieces of text, each with the style it is shown in."""
Cell = tuple[str, str, int]
"""A character with its style, and where it ends in the source."""

# Escape sequences begin with one of these; bidirectional overrides can make a line read as what it is not.
_DANGEROUS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_MARKED = re.compile(r"\*\*(?=\S)(?P<bold>.+?)(?<=\S)\*\*|`(?P<code>[^`]+)`")
_OPENING = re.compile(r"\*\*(?=\S)|`")
_BULLET = re.compile(r"\s*(?:[-*+]\s+|\d+[.)]\s+|>\s*)?")
_HEADING = re.compile(r"#{1,6}\s")
_TAB = "    "


def plain(text: str) -> str:
    """`text` without anything that a terminal would obey; line breaks stay."""
    return _DANGEROUS.sub("", text.replace("\r\n", "\n").replace("\t", _TAB))


def one_line(text: str, width: int) -> str:
    """`text` on one line, cut with an ellipsis where it is wider than `width` columns."""
    line = " ".join(plain(text).split())
    if get_cwidth(line) <= width:
        return line
    kept = ""
    for character in line:
        if get_cwidth(kept + character) > width - 1:
            break
        kept += character
    return kept.rstrip() + "…"


def is_fence(line: str) -> bool:
    return line.lstrip().startswith(("```", "~~~"))


def in_fence(text: str) -> bool:
    """Whether a code block is open behind `text`, which ends with whole lines."""
    return sum(is_fence(line) for line in text.split("\n")) % 2 == 1


def styled(line: str, style: str = "") -> list[Cell]:
    """A line of Markdown as cells. The marks of **bold** and `code` are left out where both are there."""
    base = f"{style} class:heading" if _HEADING.match(line) else style
    cells: list[Cell] = []
    place = 0
    for match in _MARKED.finditer(line):
        cells += _cells(line, place, match.start(), base)
        kind = "bold" if match["bold"] is not None else "code"
        cells += _cells(line, match.start(kind), match.end(kind), f"{base} class:{kind}")
        if cells:
            cells[-1] = (*cells[-1][:2], match.end())
        place = match.end()
    return cells + _cells(line, place, len(line), base)


def open_mark(line: str) -> int:
    """Where a mark stands that the rest of the line may still close; the line's length if there is none."""
    blanked = _MARKED.sub(lambda match: " " * len(match.group()), line)
    found = _OPENING.search(blanked)
    return found.start() if found else len(line)


def hanging(line: str) -> int:
    """How far the following rows of a list item or a quotation are indented."""
    match = _BULLET.match(line)
    return min(get_cwidth(match.group()), 12) if match else 0


def fold(cells: list[Cell], width: int, *, indent: int = 0, begun: bool = False) -> list[list[Cell]]:
    """Rows of at most `width` columns, broken at blanks where there are any. All but the first are indented; `begun` indents it too."""
    rows: list[list[Cell]] = []
    row: list[Cell] = []
    used = indent if begun else 0
    for word in _words(cells):
        if row and used + sum(get_cwidth(cell[1]) for cell in word if cell[1] != " ") > width:
            rows.append(row)
            row, used = [], indent
        for cell in word:
            if row and cell[1] != " " and used + get_cwidth(cell[1]) > width:  # a word that is longer than a row
                rows.append(row)
                row, used = [], indent
            row.append(cell)
            used += get_cwidth(cell[1])
    return [*rows, row] if row else rows


def fragments(cells: list[Cell]) -> Fragments:
    """Cells of the same style joined, without blanks at the end: they would wrap."""
    joined: Fragments = []
    end = max((place for place, cell in enumerate(cells, 1) if cell[1] != " "), default=0)
    for style, character, _ in cells[:end]:
        if joined and joined[-1][0] == style:
            joined[-1] = (style, joined[-1][1] + character)
        else:
            joined.append((style, character))
    return joined


def rows(text: str, width: int, style: str = "") -> Iterator[Fragments]:
    """A whole text as folded rows; lines of code stay as they are."""
    fenced = False
    for line in plain(text).split("\n"):
        if is_fence(line) or fenced:
            fenced ^= is_fence(line)
            yield [(f"{style} class:code", line)]
            continue
        indent = hanging(line)
        for number, row in enumerate(fold(styled(line, style), width, indent=indent) or [[]]):
            yield [*([("", " " * indent)] if number and indent else []), *fragments(row)]


def _cells(line: str, start: int, end: int, style: str) -> list[Cell]:
    return [(style, line[place], place + 1) for place in range(start, end)]


def _words(cells: list[Cell]) -> Iterator[list[Cell]]:
    """Words, each with the blanks behind it."""
    word: list[Cell] = []
    for cell in cells:
        if word and word[-1][1] == " " and cell[1] != " ":
            yield word
            word = []
        word.append(cell)
    if word:
        yield word
