"""`/ws`: the live WebSocket. Each connection follows topics and passes requests on to the core; docs/protocol.md is its contract."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import structlog
from fastapi import APIRouter, FastAPI, WebSocket
from pydantic import BaseModel
from starlette.websockets import WebSocketDisconnect

from core import conversations, tasks
from core.access import Principal
from core.errors import Conflict, InvalidInput, NotAuthenticated, NotFound, OnethreadError, RateLimited, StorageUnavailable
from core.follow import Follower
from core.frames import Frame
from core.lists import Lists
from core.logs import place_of
from core.models import JSON
from core.ports import UnitOfWork
from web.credentials import is_our_origin, principal_of
from web.frames import FRAMES, MAX_FRAME_BYTES, Act, Place, Request, address_of, checked, parsed, request_of
from web.outbox import Outbox
from web.problems import Problem, internal
from web.services import Services, WebRules, services_of

MAX_TOPICS: Final = 100
"""That one connection may have joined."""
FRAMES_PER_SECOND: Final = 20
FRAMES_AT_ONCE: Final = 100
"""Frames that may come in a burst."""
FRAMES_REFUSED: Final = 100
"""Frames too many after which the connection is closed."""
STALLED_SECONDS: Final = 60.0
"""After so long in which nothing could be sent, a client counts as gone."""
_CLOSE_SECONDS = 5.0
_RESTART_SECONDS = 1.0

UNAUTHORIZED, TOO_LARGE, POLICY, TRY_AGAIN_LATER, BROKEN = 4401, 1009, 1008, 1013, 1011
_log = structlog.get_logger()


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    services: Services = app.state.services
    lists = Lists(services.storage, services.live)
    telling = asyncio.create_task(_supervised(lists), name="lists")
    try:
        yield {"lists": lists}
    finally:
        telling.cancel()
        await asyncio.wait({telling})


async def _supervised(lists: Lists) -> None:
    while True:
        try:
            await lists.run()
        except Exception as error:  # noqa: BLE001  # the outermost loop: a defect must not leave the followers without news
            _log.error("lists.restarted", **place_of(error))
            await asyncio.sleep(_RESTART_SECONDS)


router = APIRouter(lifespan=_lifespan)


@router.websocket("/ws")
async def socket(websocket: WebSocket) -> None:
    services = services_of(websocket)
    if not _is_from_our_page(websocket, services.rules):
        detail = "Another web site opened this connection. Open the page itself."
        await websocket.send_denial_response(Problem("FORBIDDEN", detail))
        return
    await websocket.accept()
    try:
        async with services.storage.read() as uow:
            await principal_of(uow, websocket, services)
    except NotAuthenticated as error:
        await websocket.close(UNAUTHORIZED, _reason(error))
    except StorageUnavailable as error:
        await websocket.close(TRY_AGAIN_LATER, _reason(error))
    else:
        await _Connection(websocket, services, websocket.state.lists).run()


def _is_from_our_page(websocket: WebSocket, rules: WebRules) -> bool:
    """Browsers say which page opens a connection; programs say nothing."""
    return "origin" not in websocket.headers or is_our_origin(websocket, rules)


class _Hangup(Exception):
    """The connection ends: by us with a code, or because the client is gone."""

    def __init__(self, code: int | None = None, reason: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(slots=True)
class _Joined:
    """A topic that is followed. `conversation_id` is None for the two lists, `ref` the request's."""

    conversation_id: UUID | None
    ref: str | int | None
    answered: bool = False
    following: "asyncio.Task[None] | None" = None


class _Pace:
    """How fast frames may come. Each costs one, also one that is refused."""

    def __init__(self) -> None:
        self._left = float(FRAMES_AT_ONCE)
        self._at = time.monotonic()

    def count(self) -> None:
        """Raises RateLimited, and _Hangup where that does not help."""
        now = time.monotonic()
        self._left = min(FRAMES_AT_ONCE, self._left + (now - self._at) * FRAMES_PER_SECOND) - 1
        self._at = now
        if self._left < -FRAMES_REFUSED:
            raise _Hangup(POLICY, f"More than {FRAMES_PER_SECOND} frames a second.")
        if self._left < 0:
            wait = -self._left / FRAMES_PER_SECOND
            raise RateLimited(f"More than {FRAMES_PER_SECOND} frames a second. Wait, or the connection is closed.", retry_after=wait)


class _Connection:
    """One client. Its requests are done one after another, so they take effect in the order in which they were sent."""

    def __init__(self, websocket: WebSocket, services: Services, lists: Lists) -> None:
        self._websocket = websocket
        self._services = services
        self._lists = lists
        self._topics: dict[str, _Joined] = {}
        self._outbox = Outbox()
        self._pace = _Pace()
        self._tasks = asyncio.TaskGroup()
        self._sending_since: float | None = None

    async def run(self) -> None:
        try:
            async with self._tasks:
                self._tasks.create_task(self._send(), name="socket: send")
                self._tasks.create_task(self._watch(), name="socket: watch")
                await self._receive()
        except* _Hangup as hangups:
            hangup = _first(hangups)
            if hangup.code is not None:
                await self._close(hangup.code, hangup.reason)

    # --- the client's requests ---

    async def _receive(self) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                raise _Hangup
            text = message.get("text")
            if text is not None and (len(text) > MAX_FRAME_BYTES or len(text.encode()) > MAX_FRAME_BYTES):
                raise _Hangup(TOO_LARGE, f"A frame has at most {MAX_FRAME_BYTES:,} bytes.")
            await self._take(text)

    async def _take(self, text: str | None) -> None:
        found = None if text is None else parsed(text)
        topic, ref = address_of(found)
        try:
            self._pace.count()
            if text is None:
                raise InvalidInput("Send text frames; this one was binary.")
            response = await self._done(request_of(found))
        except _Hangup:
            raise
        except Exception as error:  # noqa: BLE001  # the outermost loop of this surface: one request broke, the connection goes on
            await self._outbox.reply(topic, ref, "error", _error_json(error))
        else:
            if response is not None:
                await self._outbox.reply(topic, ref, "ok", response)

    async def _done(self, request: Request) -> JSON | None:
        event = FRAMES.get(request.event)
        if event is None:
            raise InvalidInput(f"There is no event {request.event!r}. Events: {', '.join(FRAMES)}.")
        return await event.handle(self, request, checked(event.payload, request.payload, request.event))

    async def join(self, request: Request) -> None:
        topic = _named(request.topic)
        await self._leave(topic)
        if len(self._topics) >= MAX_TOPICS:
            raise Conflict(f"This connection follows {MAX_TOPICS} topics already. Leave one first.")
        conversation_id, frames = await self._frames(topic)
        joined = self._topics[topic] = _Joined(conversation_id, request.ref)
        joined.following = self._tasks.create_task(self._follow(topic, joined, frames), name="socket: follow")

    async def leave(self, topic: str | None) -> None:
        self._joined(topic)
        await self._leave(_named(topic))

    async def act(self, topic: str | None, act: Act, payload: BaseModel, *, writes: bool) -> JSON:
        conversation_id = self._joined(topic).conversation_id
        if conversation_id is None:
            raise InvalidInput("Send this on the topic of a conversation or of a task.")
        storage = self._services.storage
        async with storage.write() if writes else storage.read() as uow:
            principal = await self._signed_in(uow)
            return await act(Place(uow=uow, principal=principal, conversation_id=conversation_id, rules=self._services.posting), payload)

    # --- topics ---

    async def _frames(self, topic: str) -> tuple[UUID | None, AsyncGenerator[Frame, None]]:
        """Raises NotFound, InvalidInput, NotAuthenticated."""
        async with self._services.storage.read() as uow:
            principal = await self._signed_in(uow)
            match topic.split(":", 1):
                case ["tasks" | "conversations" as name]:
                    return None, self._lists.frames(name, principal)
                case ["task", name]:
                    conversation_id = (await tasks.get(uow, principal, name)).conversation_id
                case ["conversation", name]:
                    conversation_id = (await conversations.get(uow, principal, _id(name))).id
                case _:
                    raise InvalidInput("There is no such topic. Topics: task:<id or ref>, conversation:<id>, tasks, conversations.")
        return conversation_id, Follower(self._services.storage, self._services.live, principal, conversation_id).frames()

    async def _follow(self, topic: str, joined: _Joined, frames: AsyncGenerator[Frame, None]) -> None:
        async with aclosing(frames):
            try:
                snapshot = await anext(frames)
            except Exception as error:  # noqa: BLE001  # as in `_take`: it is answered like any other request
                self._topics.pop(topic, None)
                joined.answered = True
                await self._outbox.reply(topic, joined.ref, "error", _error_json(error))
                return
            await self._outbox.reply(topic, joined.ref, "ok", snapshot.payload)
            joined.answered = True
            try:
                async for frame in frames:
                    await self._outbox.put(topic, frame)
            except Exception as error:  # noqa: BLE001  # the outermost loop of a topic: who comes back begins anew
                raise _Hangup(BROKEN, internal(error).detail[:120]) from None
        self._topics.pop(topic)  # the conversation is deleted

    async def _leave(self, topic: str) -> None:
        joined = self._topics.pop(topic, None)
        if joined is None or joined.following is None:
            return
        joined.following.cancel()
        await asyncio.wait({joined.following})
        if not joined.answered:
            superseded = Conflict("This topic was left, or joined again, before its snapshot was read.")
            await self._outbox.reply(topic, joined.ref, "error", _error_json(superseded))

    def _joined(self, topic: str | None) -> _Joined:
        joined = self._topics.get(_named(topic))
        if joined is None:
            raise NotFound("This topic is not joined. Send join first.")
        return joined

    # --- what goes on meanwhile ---

    async def _send(self) -> None:
        while True:
            for text in await self._outbox.take():
                self._sending_since = time.monotonic()
                try:
                    await self._websocket.send({"type": "websocket.send", "text": text})
                except (WebSocketDisconnect, RuntimeError):  # the latter: closed from elsewhere meanwhile
                    raise _Hangup from None
            self._sending_since = None

    async def _watch(self) -> None:
        """Ends the connection of who may not be here any more, and of who does not read."""
        while True:
            await asyncio.sleep(self._services.rules.recheck_seconds)
            if self._sending_since and time.monotonic() - self._sending_since > STALLED_SECONDS:
                raise _Hangup(POLICY, "Nothing was read for too long.")
            try:
                async with self._services.storage.read() as uow:
                    await self._signed_in(uow)
            except StorageUnavailable:
                continue  # the next look decides

    async def _signed_in(self, uow: UnitOfWork) -> Principal:
        try:
            return await principal_of(uow, self._websocket, self._services)
        except NotAuthenticated as error:
            raise _Hangup(UNAUTHORIZED, _reason(error)) from None

    async def _close(self, code: int, reason: str) -> None:
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):  # who does not read does not hear this either
                await self._websocket.close(code, reason)
        except (TimeoutError, WebSocketDisconnect, RuntimeError):
            return


def _first(hangups: "BaseExceptionGroup[_Hangup]") -> _Hangup:
    """Several tasks may end the connection at once; one reason is told."""
    found = hangups.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found


def _named(topic: str | None) -> str:
    if not topic:
        raise InvalidInput("Say which topic: task:<id or ref>, conversation:<id>, tasks or conversations.")
    return topic


def _id(name: str) -> UUID:
    try:
        return UUID(name)
    except ValueError:
        raise InvalidInput("A conversation's topic is conversation:<id>, with the id as the API gives it.") from None


def _error_json(error: Exception) -> JSON:
    match error:
        case RateLimited():
            return {"error_code": error.code, "detail": str(error), "retry_after": round(error.retry_after, 1)}
        case StorageUnavailable():
            return {"error_code": error.code, "detail": str(error), "retry_after": 1.0}
        case OnethreadError() if error.code != "INTERNAL":
            return {"error_code": error.code, "detail": str(error)}
    return {"error_code": "INTERNAL", "detail": internal(error).detail}


def _reason(error: OnethreadError) -> str:
    """As much of it as a close frame holds."""
    return str(error).encode()[:120].decode(errors="ignore")
