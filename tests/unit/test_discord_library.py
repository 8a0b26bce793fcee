"""What bots/discord leans on in discord.py that it does not document, or may change: another version of it may need work there."""

import inspect

import aiohttp
import discord
import pytest
from discord.gateway import DiscordWebSocket, KeepAliveHandler
from discord.http import HTTPClient, MultipartParameters, Route
from discord.state import ConnectionState

from bots.discord.client import Client
from bots.discord.config import DiscordConfig

_LEFT = "discord.py {version} has no {name} any more, or another one: see where bots/discord uses it, then bound the version anew."
_CALLS = {
    "bulk_upsert_global_commands": ["application_id", "payload"],
    "delete_message": ["channel_id", "message_id"],
    "edit_channel": ["channel_id"],
    "edit_message": ["channel_id", "message_id", "params"],
    "get_active_threads": ["guild_id"],
    "get_all_guild_channels": ["guild_id"],
    "get_channel": ["channel_id"],
    "get_global_commands": ["application_id"],
    "get_guild": ["guild_id", "with_counts"],
    "get_member": ["guild_id", "member_id"],
    "get_message": ["channel_id", "message_id"],
    "get_user": ["user_id"],
    "logs_from": ["channel_id", "limit", "before", "after"],
    "request": ["route", "files", "form"],
    "send_message": ["channel_id", "params"],
    "send_typing": ["channel_id"],
    "start_private_message": ["user_id"],
    "static_login": ["token"],
    "ws_connect": ["url", "compress"],
}
_EVENTS = {
    *("READY", "RESUMED", "GUILD_CREATE", "GUILD_DELETE", "CHANNEL_CREATE", "CHANNEL_UPDATE", "THREAD_CREATE", "THREAD_UPDATE"),
    *("THREAD_LIST_SYNC", "INTERACTION_CREATE"),
}


def holds(name: str, *, is_there: object) -> None:
    assert is_there, _LEFT.format(version=discord.__version__, name=name)


@pytest.mark.parametrize("name", _CALLS)
def test_its_calls_take_what_they_are_given(name: str) -> None:
    call = getattr(HTTPClient, name, None)
    found = list(inspect.signature(call).parameters) if call else []
    holds(f"HTTPClient.{name}({', '.join(_CALLS[name])})", is_there=set(_CALLS[name]) <= set(found))


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (discord.Client, "_get_state"),
        (discord.Client, "before_identify_hook"),
        (discord.VoiceClient, "warn_nacl"),
        (discord.VoiceClient, "warn_dave"),
        (discord.Member, "guild_permissions"),
        (HTTPClient, "close"),
        (Route, "BASE"),
        (DiscordWebSocket, "DEFAULT_GATEWAY"),
        (DiscordWebSocket, "from_client"),
        (DiscordWebSocket, "poll_event"),
        (KeepAliveHandler, "stop"),
        (ConnectionState, "parse_ready"),
    ],
)
def test_its_classes_have_what_is_used_of_them(owner: type, name: str) -> None:
    holds(f"{owner.__name__}.{name}", is_there=hasattr(owner, name))


async def test_a_client_of_it_is_as_it_is_taken_apart() -> None:
    async with Client(DiscordConfig(token="secret"), heartbeat_timeout=7.0) as client:
        state = client._connection
        holds("ConnectionState.heartbeat_timeout", is_there=state.heartbeat_timeout == 7.0)
        holds("ConnectionState.http", is_there=client.http is state.http)
        holds("ConnectionState.parsers", is_there=set(state.parsers) >= _EVENTS)
        holds("HTTPClient.user_agent", is_there=client.http.user_agent)
        holds("HTTPClient.token", is_there=client.http.token is None)
        holds("HTTPClient.connector", is_there=hasattr(client.http, "connector"))
        holds("HTTPClient.__session", is_there=hasattr(client.http, "_HTTPClient__session"))
        holds("Client.ws", is_there=client.ws is None)
        holds("CommandTree.client", is_there=discord.app_commands.CommandTree(client).client is client)


def test_its_values_are_built_as_they_are_here() -> None:
    route = Route("GET", "/channels/{channel_id}/messages/{message_id}", channel_id="1", message_id="2")
    holds("Route.key", is_there=route.key == "GET /channels/{channel_id}/messages/{message_id}")
    holds("Route.major_parameters", is_there=route.major_parameters == "1")
    holds("MultipartParameters", is_there=MultipartParameters._fields == ("payload", "multipart", "files"))
    holds("RateLimited.retry_after", is_there=discord.RateLimited(1.5).retry_after == 1.5)


def test_a_failure_of_it_keeps_what_was_wrong_with_a_form() -> None:
    class Response:
        status, reason = 400, ""

    errors = {"content": {"_errors": [{"code": "BASE_TYPE_MAX_LENGTH", "message": ""}]}}
    failed = discord.HTTPException(Response(), {"code": 50035, "message": "", "errors": errors})  # type: ignore[arg-type]
    holds("HTTPException._errors", is_there=getattr(failed, "_errors", None) == errors)
    holds("ClientWSTimeout.ws_close of aiohttp", is_there=aiohttp.ClientWSTimeout(ws_close=2.0))
