"""How many sessions one person holds: of clients of the revisions before 2026-07-28, which begin one and seldom end it.

The SDK bounds only those of everybody together and tells nobody which there are, so they are counted here as they pass: one begins
with a request that names none, whose answer names it, and is gone when it is deleted or unknown, or when it was idle for too long.
"""

import math
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mcp.server.streamable_http import MCP_SESSION_ID_HEADER
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp.types.version import HANDSHAKE_PROTOCOL_VERSIONS

from core.errors import RateLimited
from mcp_server.callers import PersonalToken

MAX_EACH = 50
"""Of one person, in one process."""
_SESSION, _VERSION = MCP_SESSION_ID_HEADER.encode(), MCP_PROTOCOL_VERSION_HEADER.encode()

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(slots=True, eq=False)
class _Session:
    token: PersonalToken
    """That began it. The SDK knows it for no other."""
    requests: int = 0
    """That are being served."""
    ends_at: float = math.inf
    """When it will have been idle for too long."""


class Bounded:
    """ASGI middleware, behind whatever says who calls. Raises RateLimited for a session too many."""

    def __init__(self, app: App, *, idle_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._clock = clock
        self._idle_seconds = idle_seconds
        self._sessions: dict[str, _Session] = {}
        self._beginning: set[_Session] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        token: PersonalToken = scope["user"].access_token
        session_id = _header(scope["headers"], _SESSION)
        if session_id is not None:
            await self._within(session_id, token, scope, receive, send)
        elif _header(scope["headers"], _VERSION) in (None, *HANDSHAKE_PROTOCOL_VERSIONS):
            await self._begin(token, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _begin(self, token: PersonalToken, scope: Scope, receive: Receive, send: Send) -> None:
        self._admit(token)
        session, session_id = _Session(token), ""

        async def sending(message: Message) -> None:
            nonlocal session_id
            if message["type"] == "http.response.start" and message["status"] < 400:
                session_id = _header(message["headers"], _SESSION) or ""
                self._sessions[session_id] = session
            await send(message)

        self._beginning.add(session)
        try:
            with self._busy(session):
                await self._app(scope, receive, sending)
        except BaseException:  # then nothing has begun for the SDK, either
            self._sessions.pop(session_id, None)
            raise
        finally:
            self._beginning.discard(session)

    async def _within(self, session_id: str, token: PersonalToken, scope: Scope, receive: Receive, send: Send) -> None:
        session = self._sessions.get(session_id)
        if session is None or not _is_same(session.token, token):
            await self._app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start" and _is_gone(scope["method"], message["status"]):
                self._sessions.pop(session_id, None)
            await send(message)

        with self._busy(session):
            await self._app(scope, receive, sending)

    @contextmanager
    def _busy(self, session: _Session) -> Iterator[None]:
        session.requests += 1
        session.ends_at = math.inf
        try:
            yield
        finally:
            session.requests -= 1
            if not session.requests:
                session.ends_at = self._clock() + self._idle_seconds

    def _admit(self, token: PersonalToken) -> None:
        now = self._clock()
        self._sessions = {key: each for key, each in self._sessions.items() if each.ends_at > now}
        held = {each for each in (*self._sessions.values(), *self._beginning) if each.token.subject == token.subject}
        if len(held) >= MAX_EACH:
            idle = f"{self._idle_seconds / 60:.0f} min"
            sentence = f"You hold {len(held)} MCP sessions here, the most there may be. End one, or wait: one that is idle ends in {idle}."
            raise RateLimited(sentence, retry_after=self._first_end(held, now))

    def _first_end(self, held: Iterable[_Session], now: float) -> float:
        """In so many seconds the first of them will be over, if nobody uses it."""
        return math.ceil(min(min(each.ends_at for each in held) - now, self._idle_seconds))


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    """The first, as the SDK has it."""
    return next((value.decode("latin-1") for key, value in headers if key == name), None)


def _is_same(one: PersonalToken, other: PersonalToken) -> bool:
    return (one.client_id, one.subject) == (other.client_id, other.subject)


def _is_gone(method: str, status: int) -> bool:
    return status == 404 or (method == "DELETE" and status < 400)
