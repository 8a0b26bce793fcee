"""The client that calls Discord: discord.py's, but that it never repeats a call by itself and never waits out a limit. That is decided by
who calls."""

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Self
from urllib.parse import quote

import aiohttp
import discord
import structlog
import yarl
from discord.gateway import DiscordWebSocket
from discord.http import HTTPClient, MultipartParameters, Route
from discord.state import ConnectionState
from discord.types.user import User
from discord.utils import MISSING

from bots.discord.config import DiscordConfig
from bots.discord.limiter import Limiter
from core.logs import place_of

_CLOSE_SECONDS = 2.0
"""So long whoever is at the other end of a connection may take to see that it ends."""
_UPLOAD = "application/octet-stream"
_log = structlog.get_logger()


class Client(discord.Client):
    """Signs in with `enter`; without `connect` it is for calls only. It keeps no messages and no members."""

    http: "PromptHTTPClient"

    def __init__(
        self,
        config: DiscordConfig,
        *,
        intents: discord.Intents | None = None,
        limiter: Limiter | None = None,
        heartbeat_timeout: float = 60.0,
    ) -> None:
        self._config = config
        self._limiter = limiter or Limiter(reads=config.rules.reads)
        super().__init__(
            intents=intents or discord.Intents(guilds=True),
            allowed_mentions=discord.AllowedMentions.none(),
            max_messages=None,
            chunk_guilds_at_startup=False,
            member_cache_flags=discord.MemberCacheFlags.none(),
            heartbeat_timeout=heartbeat_timeout,
        )

    @property
    def limiter(self) -> Limiter:
        """To be shared with other clients of the bot."""
        return self._limiter

    async def enter(self) -> None:
        """Signs in; again after it failed. Raises what discord.py raises."""
        token = self._config.token.strip()
        if not token or not token.isascii() or not token.isprintable():
            raise discord.LoginFailure("The token cannot be one.")
        await self.login(token)

    def _get_state(self, **options: Any) -> ConnectionState[Self]:
        # The one place where the HTTP client can be replaced before anything holds the library's own.
        self.http = PromptHTTPClient(self._limiter, self._config.rules.call_seconds)
        return super()._get_state(**options)


class PromptHTTPClient(HTTPClient):
    """Each call is made once or not at all, and ends in time. Of a failure's answer only the codes are kept."""

    def __init__(self, limiter: Limiter, call_seconds: float) -> None:
        super().__init__(MISSING)
        self._limiter = limiter
        self._sockets: list[aiohttp.ClientWebSocketResponse] = []
        # Connecting ends earlier, so that it tells from a call that was sent.
        self._timeout = aiohttp.ClientTimeout(total=call_seconds, connect=call_seconds / 2)

    async def static_login(self, token: str) -> User:
        await self.close()  # what an earlier attempt left
        self.connector = MISSING
        return await super().static_login(token)

    async def close(self) -> None:
        if self._session is not MISSING and (connector := self._session.connector):
            # Without a farewell to those who may not hear it.
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await connector.close(abort_ssl=True)
            for socket in self._sockets:  # discord.py forgets one that it is cancelled with before there was a session
                await socket.close()
        await super().close()

    async def ws_connect(self, url: str, *, compress: int = 0) -> aiohttp.ClientWebSocketResponse:
        # As discord.py does it, which waits half a minute for a peer that is silent to say goodbye.
        socket = await self._session.ws_connect(
            url,
            max_msg_size=0,
            timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_SECONDS),
            autoclose=False,
            headers={"User-Agent": self.user_agent},
            compress=compress,
        )
        self._sockets = [*(each for each in self._sockets if not each.closed), socket]
        return socket

    async def request(
        self,
        route: Route,
        *,
        files: Sequence[discord.File] | None = None,
        form: Any = None,
        **kwargs: Any,
    ) -> Any:
        headers = {"User-Agent": self.user_agent}
        if self.token is not None:
            headers["Authorization"] = f"Bot {self.token}"
        if reason := kwargs.pop("reason", None):
            headers["X-Audit-Log-Reason"] = quote(reason, safe="/ ")
        if "json" in kwargs:
            headers["Content-Type"] = "application/json"
            kwargs["data"] = json.dumps(kwargs.pop("json"), separators=(",", ":"))
        if form:
            kwargs["data"] = _form_data(form)
        if route.method == "GET":
            await self._limiter.turn_to_read()
        with self._limiter.calling(route):
            async with self._session.request(
                route.method, route.url, headers=headers, timeout=self._timeout, allow_redirects=False, **kwargs
            ) as response:
                told = await _told(response)
        self._limiter.answered(route, response.status, response.headers)
        return self._result(response, told)

    @asynccontextmanager
    async def opened(self, url: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """What is at an address of Discord's for files. It is not shown the token."""
        async with self._session.get(url, timeout=self._timeout, allow_redirects=False) as response:
            yield response

    @property
    def _session(self) -> aiohttp.ClientSession:
        session: aiohttp.ClientSession = self._HTTPClient__session  # type: ignore[attr-defined]  # discord.py's webhooks use it likewise
        return session

    def _result(self, response: aiohttp.ClientResponse, told: Any) -> Any:
        if 200 <= response.status < 300:
            if told is None and response.status != 204:
                raise aiohttp.ClientPayloadError("What came is no answer of Discord's.")
            return told
        body = told if isinstance(told, dict) else None
        if response.status == 429:
            raise discord.RateLimited(self._limiter.turned_away(response.headers, body))
        kinds = {403: discord.Forbidden, 404: discord.NotFound}
        kind = discord.DiscordServerError if response.status >= 500 else kinds.get(response.status, discord.HTTPException)
        raise kind(response, _codes(body) if body else "")


def multipart(payload: Mapping[str, Any], file: discord.File | None = None) -> MultipartParameters:
    """A message as discord.py's functions for messages take it."""
    if file is None:
        return MultipartParameters(payload=dict(payload), multipart=None, files=None)
    described = {**payload, "attachments": [{"id": 0, "filename": file.filename}]}
    form: list[dict[str, Any]] = [
        {"name": "payload_json", "value": json.dumps(described, separators=(",", ":"))},
        {"name": "files[0]", "value": file.fp, "filename": file.filename, "content_type": _UPLOAD},
    ]
    return MultipartParameters(payload=None, multipart=form, files=[file])


def text_file(name: str, text: str) -> discord.File:
    return discord.File(io.BytesIO(text.encode()), filename=name)


def set_endpoints(config: DiscordConfig) -> None:
    """Where all clients of this process find Discord: discord.py keeps its addresses in its classes."""
    Route.BASE = config.api_url.rstrip("/")
    DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(config.gateway_url)


def quieten() -> None:
    """Lets nothing that people wrote, and no secret, reach the log by way of discord.py."""
    logger = logging.getLogger("discord")
    logger.handlers[:] = [_WithoutTexts(logging.WARNING)]
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False  # nobody speaks here


class _WithoutTexts(logging.Handler):
    """The library's entries quote messages and addresses with tokens of interactions: only where they come from is logged."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        where = {"logger": record.name, "function": record.funcName, "line": record.lineno}
        _log.warning("discord.library", **where, **(place_of(error) if error else {}))


def _form_data(fields: Sequence[Mapping[str, Any]]) -> aiohttp.FormData:
    form = aiohttp.FormData(quote_fields=False)  # Discord does not understand files%5B0%5D
    for field in fields:
        form.add_field(**field)
    return form


async def _told(response: aiohttp.ClientResponse) -> Any:
    """The JSON object or list that was answered; None for anything else, as a portal or Cloudflare gives it."""
    text = await response.text(encoding="utf-8", errors="replace")
    if response.content_type != "application/json":
        return None
    try:
        told = json.loads(text)
    except ValueError:
        return None
    return told if isinstance(told, dict | list) else None


def _codes(body: Mapping[str, Any]) -> dict[str, Any]:
    """What Discord says of a failure, without its words, which quote what was sent."""
    code = body.get("code")
    return {"code": code if isinstance(code, int) else 0, "message": "", "errors": _fields(body.get("errors"))}


def _fields(errors: Any) -> dict[str, Any]:
    if not isinstance(errors, dict):
        return {}
    kept: dict[str, Any] = {}
    for name, found in errors.items():
        if name == "_errors" and isinstance(found, list):
            kept[name] = [{"code": str(each.get("code")), "message": ""} for each in found if isinstance(each, dict)]
        elif isinstance(found, dict):
            kept[str(name)] = _fields(found)
    return kept
