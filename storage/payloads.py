"""What processes tell one another by PostgreSQL's NOTIFY: live events, packed into as few payloads as the server's limit allows.

A payload is the sender's process id in 32 hexadecimal digits, then a JSON array: state events as objects, text deltas as arrays.
"""

import json
from collections.abc import Iterable
from dataclasses import replace
from uuid import UUID

from pydantic_core import to_json

from core.events import ConversationDeleted, Event, Lagged, StateEvent, TaskDeleted, TextDelta, packed, unpacked
from core.text import clean, utf16_len

NOTIFY = "SELECT pg_notify('onethread', payload) FROM unnest($1::text[]) AS payload"
"""Takes a list of payloads. Inside a transaction they are sent when it commits."""
CHANNEL = "onethread"
_MAX_BYTES = 7_900  # the server refuses 8,000
_MAX_CHARACTERS = 1_200
"""Of a delta's text: escaped, a character has at most six bytes."""
_MAX_READERS = 100
"""Of a deletion: each takes 39 bytes."""
_ORIGIN_DIGITS = 32


def pack(origin: UUID, events: Iterable[StateEvent | TextDelta]) -> list[str]:
    """The payloads that tell these events, in order."""
    payloads: list[str] = []
    batch: list[str] = []
    size = 0
    for text in _texts(events):
        length = len(text.encode()) + 1
        if batch and _ORIGIN_DIGITS + 2 + size + length > _MAX_BYTES:
            payloads.append(_payload(origin, batch))
            batch, size = [], 0
        batch.append(text)
        size += length
    return [*payloads, _payload(origin, batch)] if batch else payloads


def unpack(payload: str) -> list[Event]:
    """The events of a payload. Of what a newer version of the program sends, only that something happened is understood."""
    try:
        return [_event(each) for each in json.loads(payload[_ORIGIN_DIGITS:])]
    except (KeyError, TypeError, ValueError):
        return [Lagged()]


def is_from(origin: UUID, payload: str) -> bool:
    return payload.startswith(origin.hex)


def ping(origin: UUID) -> str:
    """A payload that tells nothing to anybody but its sender: that its notifications arrive."""
    return _payload(origin, ())


def _texts(events: Iterable[StateEvent | TextDelta]) -> Iterable[str]:
    for event in events:
        for each in _pieces(event):
            yield to_json(each).decode()


def _pieces(event: StateEvent | TextDelta) -> Iterable[object]:
    """What does not fit into one payload is told in several."""
    match event:
        case TextDelta():
            return _pieces_of_text(event)
        case ConversationDeleted(readers=tuple(users)) | TaskDeleted(readers=tuple(users)) if len(users) > _MAX_READERS:
            parts = [users[begin : begin + _MAX_READERS] for begin in range(0, len(users), _MAX_READERS)]
            return [packed(replace(event, readers=part)) for part in parts]
    return [packed(event)]


def _pieces_of_text(delta: TextDelta) -> Iterable[list[object]]:
    whole, offset = clean(delta.text), delta.offset
    for begin in range(0, len(whole), _MAX_CHARACTERS):
        text = whole[begin : begin + _MAX_CHARACTERS]
        yield [delta.conversation_id.hex, delta.message_id.hex, delta.stream_no, offset, text]
        offset += utf16_len(text)


def _payload(origin: UUID, texts: Iterable[str]) -> str:
    return f"{origin.hex}[{','.join(texts)}]"


def _event(told: object) -> Event:
    match told:
        case [str(conversation), str(message), int(stream_no), int(offset), str(text)]:
            return TextDelta(conversation_id=UUID(conversation), message_id=UUID(message), stream_no=stream_no, offset=offset, text=text)
        case dict():
            return unpacked(told)
    return Lagged()
