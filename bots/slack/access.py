"""The bot's way into its workspace: the client that calls Slack, whom it is signed in as, and what it must be allowed."""

import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import aiohttp
from slack_sdk.web.async_client import AsyncWebClient

from bots.slack.config import SlackConfig
from bots.slack.failures import translated
from bots.surface import AccountClosed, PlaceClosed, Refused

SCOPES: Mapping[str, str] = MappingProxyType(
    {
        "app_mentions:read": "Onethread does not notice that it is mentioned",
        "assistant:write": "Slack does not show that the agent works, and has no stop button",
        "channels:history": "messages in channels do not arrive",
        "channels:read": "Onethread cannot tell open channels from private ones",
        "chat:write": "Onethread cannot answer",
        "commands": "/task and “Make a task” do not work",
        "files:read": "files that people attach cannot be read",
        "groups:history": "messages in private channels do not arrive",
        "groups:read": "Onethread cannot work in private channels",
        "im:history": "direct messages do not arrive",
        "im:read": "Onethread cannot answer in direct messages",
        "im:write": "Onethread cannot tell a person something in private",
        "mpim:history": "messages in group conversations do not arrive",
        "mpim:read": "Onethread cannot work in group conversations",
        "users:read": "Onethread does not know who speaks, and answers nobody",
    }
)
"""The scopes that the app needs, each with what happens without it."""
ESSENTIAL = frozenset({"app_mentions:read", "channels:history", "channels:read", "chat:write", "users:read"})
"""Those without which it is of no use."""

_NO_SOCKET = (
    "Slack does not open Socket Mode for SLACK_APP_TOKEN. Turn it on under Socket Mode in the app's settings, and make a token with the "
    "scope connections:write under Basic Information, App-Level Tokens."
)
_QUIET = logging.getLogger("bots.slack.client")
_QUIET.setLevel(logging.WARNING)  # the SDK's debug lines hold what people wrote


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """Who the bot token is."""

    team_id: str
    team: str
    bot_user_id: str
    bot: str
    """The bot's name."""
    scopes: frozenset[str] | None
    """None where Slack does not tell."""


@asynccontextmanager
async def web_client(config: SlackConfig) -> AsyncIterator[AsyncWebClient]:
    """A client that keeps its connections, never repeats a call by itself and never waits out a limit: that is decided by who calls."""
    seconds = config.rules.call_seconds
    timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=seconds / 2)  # earlier, so that it tells from a call that was sent
    async with aiohttp.ClientSession(timeout=timeout, raise_for_status=_raise_for_nonsense) as session:
        client = AsyncWebClient(config.bot_token, config.api_url, int(seconds), session=session, retry_handlers=[], logger=_QUIET)
        yield client


async def _raise_for_nonsense(response: aiohttp.ClientResponse) -> None:
    """What is no answer of Slack's API, as a portal gives it: the SDK stumbles over some of them, and takes others for a success."""
    if response.status == 200 and not isinstance(await response.json(), dict):
        raise aiohttp.ClientPayloadError("What came is no answer of Slack's.")


async def signed_in(client: AsyncWebClient) -> SignedIn:
    """Asks Slack who the bot token is; raises a SurfaceError."""
    with translated():
        found = await client.auth_test()
    names = found.headers.get("x-oauth-scopes")
    return SignedIn(
        team_id=str(found["team_id"]),
        team=str(found["team"]),
        bot_user_id=str(found["user_id"]),
        bot=str(found["user"]),
        scopes=frozenset(name.strip() for name in names.split(",")) if names else None,
    )


async def check_app_token(client: AsyncWebClient, app_token: str) -> None:
    """Whether Socket Mode would begin; raises a SurfaceError where it would not."""
    try:
        with translated():
            await client.apps_connections_open(app_token=app_token)
    except (AccountClosed, PlaceClosed, Refused) as error:
        raise AccountClosed(_NO_SOCKET, reason=error.reason) from None


def manifest() -> dict[str, Any]:
    """The app as Slack makes it from manifest.json."""
    return dict(json.loads(files("bots.slack").joinpath("manifest.json").read_text(encoding="utf-8")))
