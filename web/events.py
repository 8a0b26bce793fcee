"""Server-sent events: one turn as it is answered, from wherever its reader stopped reading."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, suppress
from typing import Final

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from core import conversations, frames, messages
from core.access import Principal
from core.errors import NotAuthenticated, OnethreadError, StorageUnavailable
from core.follow import Follower
from core.frames import Frame
from core.models import JSON, MessageStatus, Turn
from core.text import utf16_cut, utf16_len
from web.credentials import caller
from web.services import Services, services_of

MEDIA_TYPE: Final = "text/event-stream"
KEEP_ALIVE_SECONDS = 15.0
_END_SECONDS = 5.0
MAX_SECONDS = 900.0
"""Of one response: a reader comes back with Last-Event-ID, and shows anew who they are."""
_PLACE = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})")
_MORE_MESSAGES = 50
"""That may be posted while a turn is followed, without the reply falling out of a snapshot."""


class Place:
    """How far a reader has read: which stream's text, up to which offset."""

    def __init__(self, stream_no: int = 0, offset: int = 0) -> None:
        self._stream_no = stream_no
        self._offset = offset

    @classmethod
    def of(cls, event_id: str | None) -> "Place":
        """From a header Last-Event-ID; at the beginning where it is none of ours."""
        found = _PLACE.fullmatch(event_id or "")
        return cls(int(found[1]), int(found[2])) if found else cls()

    def __str__(self) -> str:
        return f"{self._stream_no}.{self._offset}"

    def missing(self, stream_no: int, offset: int, text: str) -> tuple[int, str] | None:
        """What a reader here lacks of a text that goes on at `offset`: the offset from which to replace theirs, and by what.

        Another stream's text may differ from the first character on, so nothing of the reader's is relied on.
        """
        end = offset + utf16_len(text)
        if stream_no == self._stream_no:
            if end <= self._offset:
                return None
            text = text[len(utf16_cut(text, max(0, self._offset - offset))) :]
        elif not (self._offset or text):
            return None
        self._stream_no, self._offset = stream_no, end
        return end - utf16_len(text), text


class TurnEvents:
    """The frames of one turn for one reader, from their place on, until its reply has ended."""

    def __init__(self, services: Services, caller: Principal, turn: Turn, place: Place) -> None:
        self._services = services
        self._caller = caller
        self._turn = turn
        self._place = place
        self._told: dict[str, JSON] = {}
        self._is_over = False

    async def encoded(self) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._frames()) as found:
            async for frame in found:
                place = str(self._place) if frame.event in ("llm_delta", "llm_complete") else None
                yield encoded(frame, place)

    async def _frames(self) -> AsyncGenerator[Frame, None]:
        if self._turn.status.finished:
            for told in self._of_reply(await self._stored_reply()):
                yield told
            return
        async with aclosing((await self._follower()).frames()) as found:
            async for frame in found:
                is_end = frame.event == "llm_complete" and frame.payload["message_id"] == str(self._turn.reply_id)
                for told in self._of_reply(await self._stored_reply()) if is_end else self._translated(frame):
                    yield told
                if self._is_over:
                    return

    async def _follower(self) -> Follower:
        services, conversation_id = self._services, self._turn.conversation_id
        async with services.storage.read() as uow:
            conversation = await conversations.get(uow, self._caller, conversation_id)
        window = conversation.next_seq - self._turn.seq + _MORE_MESSAGES
        return Follower(services.storage, services.live, self._caller, conversation_id, messages=window)

    async def _stored_reply(self) -> JSON:
        async with self._services.storage.read() as uow:
            reply = await messages.get(uow, self._caller, self._turn.reply_id)
            return (await frames.messages_json(uow, [reply]))[0]

    def _translated(self, frame: Frame) -> Iterator[Frame]:
        payload, reply_id = frame.payload, str(self._turn.reply_id)
        match frame.event:
            case "snapshot":
                yield from self._of_snapshot(payload)
            case "message_changed" if payload["id"] == reply_id:
                yield from self._of_reply(payload)
            case "llm_delta" if payload["message_id"] == reply_id:
                yield from self._text(payload["stream_no"], payload["offset"], payload["delta"])
            case "tool_call" if payload["message_id"] == reply_id:
                yield from self._news(frame)
            case "turn_changed" if payload["turn_id"] == str(self._turn.id):
                yield from self._news(frame)
            case "agent_status":
                yield from self._news(frame)
            case "conversation_deleted":
                self._is_over = True
                yield frame

    def _of_snapshot(self, state: JSON) -> Iterator[Frame]:
        conversation = state["conversation"]
        yield from self._news(
            Frame("agent_status", {"status": conversation["agent_status"], "message": conversation["agent_status_message"]})
        )
        for turn in state["turns"]:
            if turn["turn_id"] == str(self._turn.id):
                yield from self._news(Frame("turn_changed", turn))
        for message in state["messages"]:
            if message["id"] == str(self._turn.reply_id):
                yield from self._of_reply(message)

    def _of_reply(self, reply: JSON) -> Iterator[Frame]:
        for call in reply["tool_calls"]:
            yield from self._news(Frame("tool_call", call))
        yield from self._text(reply["stream_no"], 0, reply["content"])
        if MessageStatus(reply["status"]).finished:
            yield from self._end(reply)

    def _text(self, stream_no: int, offset: int, text: str) -> Iterator[Frame]:
        if missing := self._place.missing(stream_no, offset, text):
            place = {"message_id": str(self._turn.reply_id), "stream_no": stream_no, "offset": missing[0]}
            yield Frame("llm_delta", {**place, "delta": missing[1]})

    def _end(self, reply: JSON) -> Iterator[Frame]:
        self._is_over = True
        yield from frames.ended(str(self._turn.reply_id), reply)

    def _news(self, frame: Frame) -> Iterator[Frame]:
        """The frame, unless the same was told before: a snapshot repeats what is known."""
        about = f"{frame.event} {frame.payload['step']}.{frame.payload['index']}" if frame.event == "tool_call" else frame.event
        if self._told.get(about) != frame.payload:
            self._told[about] = frame.payload
            yield frame


class EventStream(Response):
    """Sends what the generator yields, as it comes; in pauses a comment, so that nothing on the way takes the connection for dead."""

    media_type = MEDIA_TYPE

    def __init__(self, events: AsyncGenerator[bytes, None], *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(headers={**(headers or {}), "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._sending = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        parts = {
            asyncio.create_task(self._send_events(send), name="events"),
            asyncio.create_task(self._keep_alive(send), name="events: keep-alive"),
            asyncio.create_task(_hung_up(receive), name="events: hang-up"),
            asyncio.create_task(_shut_out(HTTPConnection(scope)), name="events: shut out"),
            asyncio.create_task(scope["app"].state.stopping.wait(), name="events: server ends"),
        }
        try:
            done, _ = await asyncio.wait(parts, timeout=MAX_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for part in parts:
                part.cancel()
            await asyncio.wait(parts)
        for part in done:
            part.result()
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):  # who does not read does not hear of the end either
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_events(self, send: Send) -> None:
        async with aclosing(self._events) as events:
            try:
                async for event in events:
                    await self._send(send, event)
            except OnethreadError:
                pass  # the reader comes back, and hears as a status what is wrong

    async def _keep_alive(self, send: Send) -> None:
        while True:
            await asyncio.sleep(KEEP_ALIVE_SECONDS)
            await self._send(send, KEEPALIVE_COMMENT)

    async def _send(self, send: Send, data: bytes) -> None:
        async with self._sending:
            await send({"type": "http.response.body", "body": data, "more_body": True})


def encoded(frame: Frame, place: str | None = None) -> bytes:
    data = json.dumps(frame.payload, ensure_ascii=False, separators=(",", ":"))
    return format_sse_event(event=frame.event, data_str=data, id=place)


async def _shut_out(reader: HTTPConnection) -> None:
    """Until the reader's session or token ends."""
    while True:
        await asyncio.sleep(services_of(reader).rules.recheck_seconds)
        try:
            await caller(reader)
        except NotAuthenticated:
            return
        except StorageUnavailable:
            continue


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
