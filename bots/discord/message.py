"""A part of a message as Discord shows it: its content, with who says it above and the notes below in small, and the buttons.

It is plain content rather than components or embeds: edits of those are limited harder, and come back undone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bots.discord.text import forms, line
from bots.surface import Button, Part, TooLong
from bots.view import inline
from core.models import JSON
from core.text import clip, utf16_cut, utf16_len

ACTION_PREFIX = "onethread:"
"""What the ids of our buttons begin with; the action and the value follow."""
_SPEAKER_CHARACTERS = 200
_LABEL_CHARACTERS = 80
_ROW = 5  # buttons
_ROWS = 5
_STYLES = {"": 2, "primary": 1, "danger": 4}
_SMALL = "-# "
_NOTHING = "…"  # Discord refuses a message without content


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    content: str
    components: tuple[JSON, ...]


def rendered(part: Part, members: dict[str, str], units: int) -> Rendered:
    """`members` maps casefolded names to user ids. Of the notes there are the newest for which `units` leave room.

    Raises TooLong where the text itself does not fit.
    """
    return Rendered(content=_content(part, members, units) or _NOTHING, components=tuple(_rows(part.buttons)))


def custom_id(button: Button) -> str:
    """By which a pressed button is known."""
    return f"{ACTION_PREFIX}{button.action}:{button.value}"


def _content(part: Part, members: dict[str, str], units: int) -> str:
    speaker = f"**{inline(part.speaker, _SPEAKER_CHARACTERS)}**" if part.speaker else ""
    notes = [_SMALL + shown for shown in map(line, part.notes) if shown]
    above = ["\n".join(filter(None, [speaker, form.strip("\n") if form.strip() else ""])) for form in forms(part.text, members)]
    above = [each for each in above if utf16_len(each) <= units]
    if not above:
        raise TooLong("The text is longer than Discord takes.")
    # A shorter form of the text rather than without what the agent does, or asks, just now.
    for wanted in (notes, notes[-1:]):
        for text in above:
            if utf16_len(_joined(text, wanted)) <= units:
                return _joined(text, _newest(notes, text, units))
    return _joined(above[-1], _clipped(notes[-1:], above[-1], units))


def _joined(text: str, notes: Sequence[str]) -> str:
    return "\n".join(filter(None, [text, *notes]))


def _newest(notes: Sequence[str], text: str, units: int) -> Sequence[str]:
    """The last ones, as many as fit below the text."""
    for first in range(len(notes)):
        if utf16_len(_joined(text, notes[first:])) <= units:
            return notes[first:]
    return []


def _clipped(notes: Sequence[str], text: str, units: int) -> Sequence[str]:
    """Notes that do not fit, as far as they do; without code, which would be torn."""
    room = units - utf16_len(text) - len(f"\n{_NOTHING}")
    return [utf16_cut(note.replace("`", "'"), room) + _NOTHING for note in notes if room > len(_SMALL)]


def _rows(buttons: Sequence[Button]) -> Iterator[JSON]:
    shown = buttons[: _ROW * _ROWS]
    for begin in range(0, len(shown), _ROW):
        yield {"type": 1, "components": [_button(each) for each in shown[begin : begin + _ROW]]}


def _button(button: Button) -> dict[str, Any]:
    return {
        "type": 2,
        "style": _STYLES[button.style],
        "label": clip(button.label, _LABEL_CHARACTERS) or _NOTHING,
        "custom_id": custom_id(button),
    }
