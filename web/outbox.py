"""What waits to be sent over one WebSocket: in order, bounded, text that waits merged."""

import asyncio
import json
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from pydantic_core import PydanticSerializationError, to_json

from core.frames import Frame
from core.models import JSON
from core.text import clean

MAX_CHARACTERS: Final = 256_000
"""That wait; who has more to send waits too, until the client has read."""
DELTA_SECONDS: Final = 0.04
"""For so long text is held back after text was sent: less than the 50 ms after which a reply tells more, so that it is not held twice."""
_FRAME = 150
"""Characters of a delta without its text, about."""


def encoded(topic: str | None, event: str, payload: JSON, ref: str | int | None = None) -> str:
    frame = {"topic": topic, "event": event, "ref": ref, "payload": payload}
    try:
        return to_json(frame).decode()
    except PydanticSerializationError:  # a lone surrogate, which no UTF-8 can hold
        return clean(json.dumps(frame, ensure_ascii=False))


class Outbox:
    def __init__(self) -> None:
        self._waiting: deque[str | _Delta] = deque()
        self._last: dict[str, _Delta] = {}
        """By topic: the delta that waits and has nothing of its topic behind it."""
        self._size = 0
        self._held_until = 0.0
        self._must_go = False
        """Something waits that is not held back."""
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def put(self, topic: str, frame: Frame) -> None:
        """Waits while the client does not read."""
        while self._size >= MAX_CHARACTERS:
            self._room.clear()
            await self._room.wait()
        if frame.event == "llm_delta":
            self._put_delta(topic, frame.payload)
        else:
            self._put_text(topic, encoded(topic, frame.event, frame.payload))

    async def reply(self, topic: str | None, ref: str | int | None, status: str, response: JSON) -> None:
        """Like `put`, for the answer to a request."""
        while self._size >= MAX_CHARACTERS:
            self._room.clear()
            await self._room.wait()
        self._put_text(topic, encoded(topic, "reply", {"status": status, "response": response}, ref))

    async def take(self) -> Sequence[str]:
        """All that is to be sent now, in order; waits for it."""
        while not self._waiting or (wait := self._hold()) > 0:
            self._arrived.clear()
            if not self._waiting:
                await self._arrived.wait()
                continue
            try:
                async with asyncio.timeout(wait):
                    await self._arrived.wait()
            except TimeoutError:
                pass
        texts = [each if isinstance(each, str) else each.encoded() for each in self._waiting]
        if self._last:
            self._held_until = asyncio.get_running_loop().time() + DELTA_SECONDS
        self._waiting.clear()
        self._last.clear()
        self._size = 0
        self._must_go = False
        self._room.set()
        return texts

    def _hold(self) -> float:
        """Seconds for which what waits is held back."""
        return 0.0 if self._must_go else self._held_until - asyncio.get_running_loop().time()

    def _put_text(self, topic: str | None, text: str) -> None:
        if topic:
            self._last.pop(topic, None)
        self._waiting.append(text)
        self._size += len(text)
        self._must_go = True
        self._arrived.set()

    def _put_delta(self, topic: str, payload: JSON) -> None:
        last = self._last.get(topic)
        if last and last.goes_on(payload):
            last.texts.append(payload["delta"])
            self._size += len(payload["delta"])
            return
        delta = self._last[topic] = _Delta(topic, payload)
        self._waiting.append(delta)
        self._size += _FRAME + len(payload["delta"])
        self._arrived.set()


class _Delta:
    """A delta that waits, and those of the same stream that came after it: each begins where the one before ends."""

    __slots__ = ("_payload", "_topic", "texts")

    def __init__(self, topic: str, payload: JSON) -> None:
        self._topic = topic
        self._payload = payload
        self.texts: list[str] = [payload["delta"]]

    def goes_on(self, payload: JSON) -> bool:
        return all(self._payload[key] == payload[key] for key in ("message_id", "stream_no"))

    def encoded(self) -> str:
        payload: dict[str, Any] = self._payload if len(self.texts) == 1 else {**self._payload, "delta": "".join(self.texts)}
        return encoded(self._topic, "llm_delta", payload)
