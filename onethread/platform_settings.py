"""The chat platforms' part of the settings: their tables in onethread.toml, who is who on them, and what is wrong with a token, said
without showing it."""

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


def _slack_id(kind: str, letters: str) -> Callable[[str], str]:
    def checked(name: str) -> str:
        if not re.fullmatch(rf"[{letters}][A-Z0-9]{{2,30}}", name):
            raise ValueError(f"{name!r} is no {kind}'s id: Slack's begin with {' or '.join(letters)}, and are not its name")
        return name

    return checked


def _discord_id(kind: str) -> Callable[[Any], Any]:
    def checked(name: Any) -> Any:
        if type(name) is int:
            raise ValueError(f'{name} must stand in quotes, "{name}": Discord\'s ids are text here, not numbers')
        if isinstance(name, str) and not re.fullmatch("[0-9]{15,20}", name):
            raise ValueError(
                f"{name!r} is no {kind}'s id: Discord's are 15 to 20 digits, and not its name or its link. See docs/discord.md"
            )
        return name

    return checked


def _account(name: str) -> str:
    surface, *ids = name.split(":")
    checks = {
        "slack": (_slack_id("workspace", "T"), _slack_id("user", "UW")),
        "discord": (_discord_id("application"), _discord_id("user")),
    }.get(surface, ())
    if not checks or len(ids) != len(checks):
        raise ValueError(f"{name!r} is no account: write slack:WORKSPACE:USER or discord:APPLICATION:USER, all by their ids")
    for check, each in zip(checks, ids, strict=True):
        check(each)
    return name


def _each_of_one(people: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    owners: dict[str, str] = {}
    for name, accounts in people.items():
        for account in accounts:
            if (owner := owners.setdefault(account, name)) != name:
                raise ValueError(f"{account!r} is {owner}'s and {name}'s: an account belongs to one person")
    return people


def _address(pattern: str, example: str, *, end: str = "") -> Callable[[str], str]:
    def checked(url: str) -> str:
        if url and not re.fullmatch(rf"{pattern}://[^/\s?#@]+(/[^\s?#]*)?", url):
            raise ValueError(f"it must look like {example}")
        return url.rstrip("/") + end if url else ""

    return checked


SlackApiUrl = Annotated[str, AfterValidator(_address("https?", "https://slack.example.com/api/", end="/"))]
DiscordApiUrl = Annotated[str, AfterValidator(_address("https?", "https://discord.example.com/api/v10"))]
DiscordGatewayUrl = Annotated[str, AfterValidator(_address("wss?", "wss://gateway.example.com/"))]
_SlackUserId = Annotated[str, AfterValidator(_slack_id("user", "UW"))]
_SlackChannelId = Annotated[str, AfterValidator(_slack_id("channel", "CG"))]
_DiscordChannelId = Annotated[str, BeforeValidator(_discord_id("channel"))]
_Accounts = Annotated[
    tuple[Annotated[str, AfterValidator(_account)], ...], BeforeValidator(lambda one: (one,) if isinstance(one, str) else one)
]
People = Annotated[dict[str, _Accounts], AfterValidator(_each_of_one)]
"""Whose accounts on chat platforms are whose: by user name, each as `slack:T0123ABCD:U0456EFGH` or `discord:APPLICATION:USER`."""


class ChannelSettings(BaseModel):
    """How the bot behaves in one channel."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["threads", "chat"] = "threads"
    """`chat`: the channel itself is one conversation."""
    answer: Literal["all", "mentions"] = "all"
    """Which messages of a conversation are answered; the others are read along."""


class SlackSettings(BaseModel):
    """The table `[slack]` of onethread.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workspaces: tuple[Annotated[str, AfterValidator(_slack_id("workspace", "T"))], ...] = ()
    """Allow-lists, by id; empty: all."""
    channels: tuple[_SlackChannelId, ...] = ()
    """Where it answers. Direct messages are not counted among them."""
    users: tuple[_SlackUserId, ...] = ()
    guests: bool = False
    """Whether guests and people of other companies' workspaces are let in."""
    native_streams: bool = False
    """Whether replies in direct messages grow by Slack's own streams."""
    channel: dict[_SlackChannelId, ChannelSettings] = Field(default_factory=dict)
    """By channel id, for those that differ."""


class DiscordSettings(BaseModel):
    """The table `[discord]` of onethread.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    guilds: tuple[Annotated[str, BeforeValidator(_discord_id("server"))], ...] = ()
    """Allow-lists, by id; empty: all. `guilds` are what people call servers; of a public bot, empty: those of the application's owners."""
    channels: tuple[_DiscordChannelId, ...] = ()
    """Where it answers, their threads too. Direct messages are not counted among them."""
    users: tuple[Annotated[str, BeforeValidator(_discord_id("user"))], ...] = ()
    roles: tuple[Annotated[str, BeforeValidator(_discord_id("role"))], ...] = ()
    """Who has one of them is let in."""
    channel: dict[_DiscordChannelId, ChannelSettings] = Field(default_factory=dict)
    """By channel id, for those that differ."""


def slack_problem(bot: str, app: str, secret: str) -> str:
    """What is wrong with the tokens, none of which it shows; empty where nothing is."""
    for name, value in (("SLACK_BOT_TOKEN", bot), ("SLACK_APP_TOKEN", app), ("SLACK_SIGNING_SECRET", secret)):
        if not re.fullmatch(r"[\w.-]*", value, flags=re.ASCII):
            return f"{name} holds what no token of Slack's does: blanks, quotes or the like. Copy it again."
    if not bot:
        return f"{'SLACK_APP_TOKEN' if app else 'SLACK_SIGNING_SECRET'} is set, but SLACK_BOT_TOKEN is not."
    if bot.startswith("xoxe"):
        return "SLACK_BOT_TOKEN ends after twelve hours: turn token rotation off in the Slack app, and install it anew."
    if not bot.startswith("xoxb-"):
        return "SLACK_BOT_TOKEN is no bot's token: those begin with xoxb-."
    if app and not app.startswith("xapp-"):
        return "SLACK_APP_TOKEN is no app's token: those begin with xapp-."
    if secret.startswith(("xox", "xapp")):
        return "SLACK_SIGNING_SECRET is a token: the signing secret stands under Basic Information, App Credentials."
    return "" if app or secret else "SLACK_BOT_TOKEN is set, but neither SLACK_APP_TOKEN (Socket Mode) nor SLACK_SIGNING_SECRET (HTTP) is."


def discord_problem(token: str) -> str:
    """What is wrong with the token, which it does not show; empty where nothing is."""
    if re.fullmatch("[0-9]{15,20}", token):
        return f"DISCORD_TOKEN is an id, such as the application's. {_BOT_TOKEN}"
    if re.fullmatch("[0-9a-f]{64}", token):
        return f"DISCORD_TOKEN is the application's public key. {_BOT_TOKEN}"
    if token.startswith("Bearer "):
        return f"DISCORD_TOKEN is a token for a person, not for a bot. {_BOT_TOKEN}"
    if not re.fullmatch(r"[\w.-]+", token, flags=re.ASCII):
        return "DISCORD_TOKEN holds what no token of Discord's does: blanks, quotes or the like. Copy it again."
    if re.fullmatch(r"[\w-]{32}", token, flags=re.ASCII):
        return f"DISCORD_TOKEN is the application's client secret. {_BOT_TOKEN}"
    if not re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+", token, flags=re.ASCII):
        return f"DISCORD_TOKEN is no bot's token: those have three parts with dots between them. {_BOT_TOKEN}"
    return ""


_BOT_TOKEN = "The bot's token is made in the Developer Portal: your application, Bot, Reset Token."  # noqa: S105
