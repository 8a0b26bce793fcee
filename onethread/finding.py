"""What `onethread doctor` found: one line, and what to do about it."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["fine", "note", "broken"]
_MARKS: dict[Level, tuple[str, str]] = {"fine": ("✔", "green"), "note": ("!", "yellow"), "broken": ("✕", "red")}


@dataclass(frozen=True, slots=True)
class Finding:
    level: Level
    text: str
    advice: str = ""

    @property
    def mark(self) -> str:
        return _MARKS[self.level][0]

    @property
    def color(self) -> str:
        return _MARKS[self.level][1]
