"""Slack's native streams: a message that grows while it is shown, in direct messages with the bot. Whatever goes wrong with one ends it,
and its text goes on by edits of the same message.
"""

import asyncio
import re
from dataclasses import dataclass, field

import structlog
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bots.slack.failures import code, surface_error
from bots.surface import Action, Busy, Part, Unclear, Unreachable
from core.models import Place

_log = structlog.get_logger()
_NEVER = frozenset({"unknown_method", "missing_scope", "not_allowed_token_type", "method_deprecated", "no_permission", "feature_disabled"})
_UNFINISHED = re.compile(r"[@<][^\s>]{0,79}\Z")  # may become a mention, and what was appended cannot be taken back


@dataclass(slots=True)
class _Stream:
    place: Place
    sent: str
    broken: bool = False
    """Whether what it shows is not known, or it takes nothing any more."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Streams:
    """Those that this process began. After a crash nobody knows them: Slack then refuses an edit until the stream was ended."""

    def __init__(self, client: AsyncWebClient, *, wanted: bool) -> None:
        self._client = client
        self._wanted = wanted
        self._streams: dict[str, _Stream] = {}

    def fit(self, place: Place) -> bool:
        """Whether messages can be streamed there. In channels only the person who asked would see one grow."""
        return self._wanted and place.channel.startswith("D") and bool(place.thread)

    def run_in(self, place: Place) -> bool:
        return any(stream.place == place and not stream.broken for stream in self._streams.values())

    def known(self, ts: str) -> bool:
        return ts in self._streams

    def grows(self, ts: str) -> bool:
        """Whether that message is a stream still, which Slack will end."""
        return ts in self._streams and not self._streams[ts].broken

    async def start(self, place: Place, part: Part, text: str) -> str | None:
        """The new message's ts; None where it must be posted. Raises what an API call raises where it may pass or have happened."""
        if not (self.fit(place) and _streamable(part)):
            return None
        ready = _ready(text)
        try:
            started = await self._client.chat_startStream(channel=place.channel, thread_ts=place.thread, markdown_text=ready or None)
        except SlackApiError as error:
            if isinstance(surface_error(error), Busy | Unclear | Unreachable):
                raise
            self._wanted = self._wanted and code(error) not in _NEVER
            _log.info("slack.not_streamed", reason=code(error), for_good=not self._wanted)
            return None
        ts = str(started["ts"])
        self._streams[ts] = _Stream(place=place, sent=ready)
        return ts

    async def grow(self, ts: str, part: Part, text: str) -> bool:
        """False where the message must be edited, after `end`."""
        stream = self._streams.get(ts)
        if stream is None:
            return False
        async with stream.lock:
            ready = _ready(text)
            if stream.broken or not _streamable(part) or not ready.startswith(stream.sent):
                return False
            if ready != stream.sent:
                await self._append(ts, stream, ready)
            return not stream.broken

    async def end(self, place: Place, ts: str) -> None:
        """So that the message can be edited."""
        try:
            await self._client.chat_stopStream(channel=place.channel, ts=ts)
        except SlackApiError as error:
            if isinstance(surface_error(error), Busy | Unclear | Unreachable):
                raise
        self._streams.pop(ts, None)

    async def _append(self, ts: str, stream: _Stream, text: str) -> None:
        """Notes that the stream is broken where Slack refuses. Where it is not known whether the text was appended, raises as well."""
        try:
            await self._client.chat_appendStream(channel=stream.place.channel, ts=ts, markdown_text=text[len(stream.sent) :])
            stream.sent = text
        except SlackApiError as error:
            meaning = surface_error(error)
            stream.broken = not isinstance(meaning, Busy | Unreachable)
            if isinstance(meaning, Busy | Unclear | Unreachable):
                raise
        except BaseException as error:
            stream.broken = not isinstance(surface_error(error), Unreachable) if isinstance(error, Exception) else True
            raise


def _streamable(part: Part) -> bool:
    """A stream shows text. Slack has a stop button of its own; other buttons people would miss."""
    return part.live and not part.is_card and not part.speaker and all(button.action is Action.STOP for button in part.buttons)


def _ready(text: str) -> str:
    return _UNFINISHED.sub("", text)
