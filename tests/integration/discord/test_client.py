"""What the client makes of answers that are none of Discord's, and what reaches the log of what its library says."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

import aiohttp
import discord
import pytest
import structlog
from aiohttp import web
from discord.http import Route

from bots.discord.access import signed_in
from bots.discord.client import Client, quieten, set_endpoints
from bots.discord.config import DiscordConfig
from bots.discord.failures import translated
from bots.surface import AccountClosed, Busy, Refused, SurfaceError, Unclear

_PORTAL = "<html>Sign in to the network</html>"
_WORDS = {"code": 50035, "message": "words", "errors": {"content": {"_errors": [{"code": "BASE_TYPE_MAX_LENGTH", "message": "words"}]}}}


class Server:
    """Answers everything with the same."""

    def __init__(self) -> None:
        self.answer: Callable[[], web.Response] = web.Response
        self.calls: list[str] = []

    async def handle(self, request: web.Request) -> web.Response:
        self.calls.append(request.path)
        if request.path.endswith("/silent"):
            return await self._say_nothing(request)
        if request.path.endswith("/elsewhere"):
            return web.json_response({})
        return self.answer()

    async def _say_nothing(self, request: web.Request) -> web.Response:
        """A connection whose other end never reads, and never closes."""
        await web.WebSocketResponse(autoclose=False).prepare(request)
        await asyncio.Event().wait()
        raise AssertionError


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server, app = Server(), web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    set_endpoints(DiscordConfig(token="", api_url=f"http://127.0.0.1:{runner.addresses[0][1]}/api/v10"))
    yield server
    await runner.cleanup()


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """With a session, as after it signed in."""
    client = Client(DiscordConfig(token="secret"))
    client.http.token = "secret"
    client.http._HTTPClient__session = aiohttp.ClientSession()  # type: ignore[attr-defined]
    async with client:
        yield client


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda: web.Response(text=_PORTAL, content_type="text/html"), Unclear),
        (lambda: web.Response(text="{", content_type="application/json"), Unclear),
        (lambda: web.json_response("words"), Unclear),
        (lambda: web.Response(status=302, headers={"Location": "/elsewhere"}), Unclear),
        (lambda: web.Response(status=502, text=_PORTAL, content_type="text/html"), Unclear),
        (lambda: web.Response(status=403, text=_PORTAL, content_type="text/html"), Refused),
        (lambda: web.Response(status=429, text=_PORTAL, content_type="text/html", headers={"Via": "1.1 google"}), Busy),
        (lambda: web.json_response({"message": "404: Not Found", "code": 0}, status=404), Refused),
        (lambda: web.json_response({"retry_after": 0.5, "global": False}, status=429), Busy),
        (lambda: web.json_response({"code": "none", "message": None, "errors": ["odd"]}, status=400), Refused),
    ],
)
async def test_what_is_no_answer_of_discords_is_taken_for_none(
    server: Server, client: Client, answer: Callable[[], web.Response], error: type[SurfaceError]
) -> None:
    server.answer = answer
    with pytest.raises(SurfaceError) as raised, translated():
        await client.http.request(Route("GET", "/users/@me"))
    assert type(raised.value) is error
    assert server.calls == ["/api/v10/users/@me"]


async def test_an_answer_without_anything_is_one(server: Server, client: Client) -> None:
    server.answer = lambda: web.Response(status=204)
    assert await client.http.request(Route("POST", "/channels/1/typing")) is None


async def test_where_nobody_knows_how_to_sign_in_that_is_said(server: Server) -> None:
    server.answer = lambda: web.json_response({"message": "404: Not Found", "code": 0}, status=404)
    async with Client(DiscordConfig(token="secret")) as client:
        with pytest.raises(AccountClosed, match="ONETHREAD_DISCORD_API_URL"):
            await signed_in(client)


async def test_closing_waits_for_nobody_who_is_silent(server: Server, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bots.discord.client._CLOSE_SECONDS", 0.1)
    socket = await client.http.ws_connect(f"{Route.BASE}/silent")
    async with asyncio.timeout(5):
        await socket.close()
        await client.close()


async def test_closing_closes_a_socket_that_the_library_forgot(server: Server, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bots.discord.client._CLOSE_SECONDS", 0.1)
    socket = await client.http.ws_connect(f"{Route.BASE}/silent")
    await client.close()
    assert socket.closed


async def test_of_a_failure_only_the_codes_are_kept(server: Server, client: Client) -> None:
    server.answer = lambda: web.json_response(_WORDS, status=400)
    with pytest.raises(discord.HTTPException) as raised:
        await client.http.request(Route("GET", "/users/@me"))
    assert raised.value.code == 50035
    assert "words" not in repr((raised.value, raised.value.args, vars(raised.value)))


def test_nothing_that_the_library_says_reaches_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("discord")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "level", logging.NOTSET)
    monkeypatch.setattr(logger, "propagate", True)
    quieten()
    with structlog.testing.capture_logs() as entries:
        logging.getLogger("discord.http").info("secret")
        logging.getLogger("discord.webhook").warning("secret %s", "https://discord.com/api/webhooks/1/secret")
    assert [entry["event"] for entry in entries] == ["discord.library"]
    assert "secret" not in str(entries)
