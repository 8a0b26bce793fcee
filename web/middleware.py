"""What surrounds every request: its id in the log, its place in the metrics, the host check, protecting headers, a net for errors."""

import re
import time

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from core.ids import new_id
from web.metrics import Metrics
from web.problems import Problem, internal

REQUEST_ID = "X-Request-ID"
PROBES = frozenset({"/healthz", "/readyz"})
"""Asked by machines under whatever address they know; the answers tell nothing that a stranger may not know."""
_QUIET = PROBES | {"/metrics"}
_FILES = "/static/"
"""Of these each opening of the page asks for a dozen: only what went wrong with one is logged."""
_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
_PROTECTION = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
API_POLICY = "default-src 'none'; frame-ancestors 'none'"
"""The Content-Security-Policy of what is no page."""
_NO_STATUS = 1006
"""How a WebSocket is said to have ended whose end nobody told."""
_log = structlog.get_logger()


class RequestLog:
    """Gives every request an id, which its log entries carry and its answer names; an id that came with it is kept.

    One entry for each request when it has been served, two for each WebSocket: opened, closed.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = given if _GIVEN_ID.fullmatch(given) else str(new_id())
        serve = self._socket if scope["type"] == "websocket" else self._request
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await serve(scope, receive, send, request_id)

    async def _request(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        began, status = time.perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:  # a status of 0: the client, or the server's end, was faster than the answer
            seconds = time.perf_counter() - began
            route = route_of(scope)
            self._metrics.request_served(route, scope["method"], status, seconds)
            if not _is_quiet(scope["path"], status):
                _log.info("request.served", method=scope["method"], route=route, status=status, ms=round(seconds * 1000, 1))

    async def _socket(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        opened: float | None = None
        code = _NO_STATUS

        async def receiving() -> Message:
            nonlocal code
            message = await receive()
            if message["type"] == "websocket.disconnect":
                code = message.get("code", code)
            return message

        async def sending(message: Message) -> None:
            nonlocal opened, code
            match message["type"]:
                case "websocket.accept":
                    MutableHeaders(scope=message)[REQUEST_ID] = request_id
                    await send(message)
                    opened = time.perf_counter()
                    self._metrics.socket_opened()
                    _log.info("socket.opened", route=route_of(scope))
                    return
                case "websocket.close":
                    code = message.get("code", 1000)
            await send(message)

        try:
            await self._app(scope, receiving, sending)
        finally:
            if opened is None:
                _log.info("socket.refused", route=route_of(scope))
            else:
                self._metrics.socket_closed()
                _log.info("socket.closed", route=route_of(scope), code=code, seconds=round(time.perf_counter() - opened, 1))


class Protection:
    """Headers without which a browser would trust too much."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in {**_PROTECTION, "Content-Security-Policy": API_POLICY}.items():
                    headers.setdefault(name, value)
                if scope["path"].startswith("/api/"):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, sending if scope["type"] == "http" else send)


class UnknownErrors:
    """Whatever nobody foresaw becomes a Problem, or a WebSocket's close with 1011, once; it never reaches the server's own error page."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = closed = False

        async def sending(message: Message) -> None:
            nonlocal begun, closed
            begun = begun or message["type"] == "http.response.start"
            closed = closed or message["type"] == "websocket.close"
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except (ClientDisconnect, WebSocketDisconnect):
            return  # nobody is there any more
        except Exception as error:  # noqa: BLE001  # the outermost edge of the surface
            problem = internal(error)
            if scope["type"] == "http" and not begun:
                await problem(scope, receive, send)
            elif scope["type"] == "websocket" and not closed:
                await _close_broken(send)


class KnownHosts:
    """Answers only under our own names: another name is a web site that lets its own name point here (DNS rebinding)."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or scope["path"] in PROBES or self._is_known(Headers(scope=scope).getlist("host")):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            detail = "This host name is not served here. Whoever runs Onethread sets ONETHREAD_PUBLIC_URL to the address that people use."
            await Problem("MISDIRECTED", detail)(scope, receive, send)

    def _is_known(self, hosts: list[str]) -> bool:
        if "*" in self._hosts:
            return True
        found = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        return found is not None and found["name"].strip("[]").lower() in self._hosts


def _is_quiet(path: str, status: int) -> bool:
    return path in _QUIET or (path.startswith(_FILES) and 200 <= status < 400)


def route_of(scope: Scope) -> str:
    """The route's template. Paths are never told: they hold ids, and what somebody types or sends here by mistake."""
    return str(getattr(scope.get("route"), "path", None) or "(none)")


async def _close_broken(send: Send) -> None:
    try:
        await send({"type": "websocket.close", "code": 1011})
    except (OSError, RuntimeError):  # the client was faster
        return
