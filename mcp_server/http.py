"""`/mcp`: the server as an ASGI app, for whoever sends a token. A stream lasts until its token is revoked or the process is to end."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog
from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp
from mcp.server.transport_security import TransportSecuritySettings

from core.access import Principal
from core.errors import NotAuthenticated, OnethreadError, StorageUnavailable
from core.logs import place_of
from mcp_server import sessions
from mcp_server.callers import PersonalToken
from mcp_server.server import Server
from mcp_server.sessions import Message, Receive, Scope, Send

PATH = "/mcp"
MAX_BODY_BYTES = 1_000_000
MAX_SESSIONS = 1_000
"""In one process, of clients of the revisions before 2026-07-28, which have sessions."""
IDLE_SECONDS = 30 * 60
"""So long a session lasts without a request; its client then begins another one."""
LAST_SECONDS = 1.0
"""How long a subscription may take to end as its protocol has it, when the process is about to end."""
_LISTEN = (b"mcp-method", b"subscriptions/listen")
_HOW = "Create a token with `onethread token create NAME`, and send it as: Authorization: Bearer ot_..."
_log = structlog.get_logger()

Authenticate = Callable[[str], Awaitable[Principal]]
"""Who holds this credential. Raises NotAuthenticated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRules:
    public_url: str
    """What people type to get here, without a slash at its end."""
    hosts: Collection[str]
    """The names under which requests may come, without ports; `*` for any."""
    recheck_seconds: float = 30.0
    """How often the token of an open stream is looked at again."""


class Endpoint:
    """The ASGI app. It raises what it cannot answer as an OnethreadError: whatever it is mounted in tells of it as of its own errors.

    There is no OAuth server, so there is no /.well-known/oauth-protected-resource either: MCP wants one to be named there, and clients that
    find none named go and register at addresses that are not there. Who has no token is told how to get one. Cookies are not looked at.
    """

    def __init__(self, server: Server, *, authenticate: Authenticate, rules: HttpRules, stopping: asyncio.Event) -> None:
        server.streamable_http_app(
            streamable_http_path=PATH,
            max_request_body_size=MAX_BODY_BYTES,
            max_sessions=MAX_SESSIONS,
            session_idle_timeout=IDLE_SECONDS,
            transport_security=_security(rules),
        )
        logging.getLogger("mcp.server.transport_security").setLevel(logging.ERROR)  # its warnings quote what strangers send
        self._sessions = server.session_manager
        # Of that application only what is at its core: around it is one that answers errors of the database by itself.
        core = StreamableHTTPASGIApp(self._sessions)
        self._app = sessions.Bounded(AuthContextMiddleware(core), idle_seconds=IDLE_SECONDS)
        self._authenticate = authenticate
        self._resource = rules.public_url + PATH
        self._recheck_seconds = rules.recheck_seconds
        self._stopping = stopping

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Holds the sessions; to be left when no request is served any more."""
        begun, over = asyncio.Event(), asyncio.Event()
        # A task of its own: what the SDK holds them by can be left only in the task that entered it, and would cancel that one.
        holding = asyncio.create_task(self._hold(begun, over), name="mcp.sessions")
        try:
            await begun.wait()
            yield
        finally:
            over.set()
            await holding

    async def _hold(self, begun: asyncio.Event, over: asyncio.Event) -> None:
        try:
            async with self._sessions.run():
                begun.set()
                await over.wait()
        finally:
            begun.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        credential = _credential(scope)
        scope["user"] = AuthenticatedUser(await self._token(credential))
        if _lasts(scope):
            await self._until_over(credential, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _token(self, credential: str) -> PersonalToken:
        """As the SDK binds sessions and the state of requests to it: to the personal token, or where there is none to the user."""
        principal = await self._principal(credential)
        return PersonalToken(
            token="",  # nobody needs the secret any more
            client_id=str(principal.token_id or "password"),
            subject=str(principal.user_id),
            scopes=sorted(principal.scopes),
            resource=self._resource,
            principal=principal,
        )

    async def _principal(self, credential: str) -> Principal:
        try:
            return await self._authenticate(credential)
        except OnethreadError:
            raise
        except Exception as error:  # noqa: BLE001  # the surface's edge: whoever holds a good token must not be told that it is a bad one
            _log.error("mcp.token_not_checked", **place_of(error))
            raise StorageUnavailable("Your token cannot be checked just now. Try again in a moment.") from None

    async def _until_over(self, credential: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a stream. When it is over, the application is told that its client has left, and the client that this was all."""
        over = asyncio.create_task(self._over(credential, LAST_SECONDS if _LISTEN in scope["headers"] else 0), name="mcp.stream")
        begun = ended = False

        async def receiving() -> Message:
            message = asyncio.ensure_future(receive())
            try:
                await asyncio.wait({message, over}, return_when=asyncio.FIRST_COMPLETED)
                return message.result() if message.done() else {"type": "http.disconnect"}
            finally:
                message.cancel()

        async def sending(message: Message) -> None:
            nonlocal begun, ended
            begun = begun or message["type"] == "http.response.start"
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, receiving, sending)
            if begun and not ended:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            over.cancel()

    async def _over(self, credential: str, last_seconds: float) -> None:
        """Until the process is about to end, or the token is good no more."""
        while not self._stopping.is_set():
            try:
                async with asyncio.timeout(self._recheck_seconds):
                    await self._stopping.wait()
            except TimeoutError:
                if not await self._is_good(credential):
                    return
        await asyncio.sleep(last_seconds)

    async def _is_good(self, credential: str) -> bool:
        try:
            await self._principal(credential)
        except NotAuthenticated:
            return False
        except OnethreadError:
            return True  # the next look decides
        return True


def _credential(scope: Scope) -> str:
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    scheme, _, credential = (given[0] if len(given) == 1 else b"").decode("latin-1").partition(" ")
    if scheme.lower() != "bearer" or not credential.strip():
        raise NotAuthenticated(_HOW)
    return credential.strip()


def _lasts(scope: Scope) -> bool:
    """Whether the answer is a stream that ends with its client: one of either era. A call's answer ends by itself."""
    return scope["method"] == "GET" or _LISTEN in scope["headers"]


def _security(rules: HttpRules) -> TransportSecuritySettings:
    """Requests come to our names, and from browsers only of our own pages."""
    if "*" in rules.hosts:
        return TransportSecuritySettings(enable_dns_rebinding_protection=False)  # the SDK knows no such wildcard
    names = [f"[{host}]" if ":" in host else host for host in sorted(rules.hosts)]
    own = urlsplit(rules.public_url)
    ports = {"", f":{own.port}"} if own.port else {""}
    schemes = ("https",) if own.scheme == "https" else ("http", "https")
    return TransportSecuritySettings(
        allowed_hosts=[place for name in names for place in (name, f"{name}:*")],
        allowed_origins=[rules.public_url, *(f"{scheme}://{name}{port}" for scheme in schemes for name in names for port in sorted(ports))],
    )
