"""A part of a message as Slack shows it: blocks, and the text that stands beside them for notifications, search and screen readers."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from bots.markdown import neutral
from bots.slack.text import fallback, from_markdown
from bots.surface import Button, Part, TooLong
from core.models import JSON
from core.text import clip

ACTION_PREFIX = "onethread:"
"""What the ids of our buttons begin with; the action follows, and a number where several buttons do the same."""
MARKDOWN_CHARACTERS = 12_000
"""All markdown blocks of a message together."""
_TEXT_CHARACTERS = 3_000  # of a section, of a context's element, and of `text`, of which chat.update takes 4,000
_FIELD_CHARACTERS = 2_000
_FIELDS = 10
_CONTEXTS = 10
_BUTTONS = 25
_NOTHING = "…"  # Slack refuses a message without text


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    markdown: str
    """The part's text, its mentions written out."""
    text: str
    blocks: tuple[JSON, ...]


def rendered(part: Part, members: Mapping[str, str]) -> Rendered:
    """`members` maps casefolded names to user ids: the agent's @name mentions them. Raises TooLong where Slack would not take it."""
    markdown = from_markdown(part.text, members)
    if len(markdown) > MARKDOWN_CHARACTERS:
        raise TooLong("With its mentions written out the text is longer than Slack takes.")
    blocks = _card(part, markdown) if part.is_card else _message(part, markdown)
    return Rendered(markdown=markdown, text=_text(part, markdown), blocks=(*blocks, *_actions(part.buttons)))


def without_blocks(part: Part, content: Rendered) -> Rendered:
    """For blocks that Slack does not understand. Raises TooLong for a text that would be cut."""
    if len(part.text) > _TEXT_CHARACTERS // 2:
        raise TooLong("Slack takes a text as long as this only in blocks.")
    text = "\n".join(dict.fromkeys(filter(None, [content.text, *map(_small, part.notes)])))
    return replace(content, text=_clipped(text), blocks=())


def plain_text(sentence: str) -> str:
    """A sentence as Slack's `text`, in which nothing is markup."""
    return neutral(sentence).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _message(part: Part, markdown: str) -> Iterator[JSON]:
    if speaker := _speaker(part):
        yield _context(speaker)
    if markdown.strip():
        yield {"type": "markdown", "text": markdown}
    yield from map(_context, _packed(part.notes))


def _card(part: Part, markdown: str) -> Iterator[JSON]:
    """The text as one section, with its notes beside one another."""
    fields = [{"type": "mrkdwn", "text": _clipped(note, _FIELD_CHARACTERS)} for note in filter(None, map(_small, part.notes))]
    section: JSON = {"type": "section", "text": {"type": "mrkdwn", "text": _clipped(fallback(markdown).strip()) or _NOTHING}}
    yield section | ({"fields": fields[:_FIELDS]} if fields else {})


def _packed(notes: Iterable[str]) -> Sequence[str]:
    """The notes in mrkdwn, a line each, in as few texts as Slack's limit allows."""
    packed: list[str] = []
    for line in map(_clipped, filter(None, map(_small, notes))):
        if packed and len(packed[-1]) + 1 + len(line) <= _TEXT_CHARACTERS:
            packed[-1] += f"\n{line}"
        else:
            packed.append(line)
    return packed[:_CONTEXTS]


def _context(text: str) -> JSON:
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": text}]}


def _actions(buttons: Sequence[Button]) -> Iterator[JSON]:
    if buttons:
        several = {action for action, count in Counter(button.action for button in buttons).items() if count > 1}
        elements = [_button(button, number if button.action in several else None) for number, button in enumerate(buttons[:_BUTTONS])]
        yield {"type": "actions", "elements": elements}


def _button(button: Button, number: int | None) -> JSON:
    return {
        "type": "button",
        "action_id": f"{ACTION_PREFIX}{button.action}" + ("" if number is None else f":{number}"),
        "text": {"type": "plain_text", "text": clip(button.label, 75) or _NOTHING, "emoji": False},
        "value": button.value,
    } | ({"style": button.style} if button.style else {})


def _text(part: Part, markdown: str) -> str:
    said = (
        fallback(markdown)
        if markdown.strip()
        else "\n".join(map(_small, part.notes)) or ", ".join(plain_text(each.label) for each in part.buttons)
    )
    return _clipped(": ".join(filter(None, [_speaker(part), said.strip()]))) or _NOTHING


def _speaker(part: Part) -> str:
    return plain_text(clip(part.speaker, 200))


def _small(markdown: str) -> str:
    """Markdown as mrkdwn on lines of its own, without empty ones around it."""
    return fallback(from_markdown(markdown, {})).strip()


def _clipped(text: str, characters: int = _TEXT_CHARACTERS) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"
