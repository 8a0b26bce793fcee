"""Tables, which Discord does not have: their text, to stand in a code block."""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from markdown_it.token import Token

from bots.markdown import plain

_CELL_CHARACTERS = 200
_GAP = "  "


@dataclass(frozen=True, slots=True)
class Table:
    rows: Sequence[Sequence[str]]
    """The first one is the header."""
    right: Sequence[bool]
    """Which columns are set to the right."""

    @classmethod
    def of(cls, tokens: Iterable[Token]) -> "Table":
        """`tokens` are those inside a table."""
        rows: list[list[str]] = []
        right: list[bool] = []
        for token in tokens:
            if token.type == "tr_open":
                rows.append([])
            elif token.type == "th_open":
                right.append("right" in str(token.attrs.get("style", "")))
            elif token.type == "inline":
                rows[-1].append(plain(token.content.replace("```", "'''"), _CELL_CHARACTERS))
        return cls(rows, right)

    def aligned(self) -> str:
        """In columns, with a line below the header."""
        widths = [max(map(_width, column)) for column in zip(*self.rows, strict=True)]
        lines = [self._row(row, widths) for row in self.rows]
        return "\n".join([lines[0], _GAP.join("─" * width for width in widths), *lines[1:]])

    def plain(self) -> str:
        """As short as it can be."""
        return "\n".join(" | ".join(row) for row in self.rows)

    def _row(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        return _GAP.join(self._padded(cells, widths)).rstrip()

    def _padded(self, cells: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
        for cell, width, right in zip(cells, widths, self.right, strict=True):
            padding = " " * (width - _width(cell))
            yield padding + cell if right else cell + padding


def _width(text: str) -> int:
    """In columns of a fixed font."""
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Cf", "Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
