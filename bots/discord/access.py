"""The bot's way into Discord: whom it is signed in as, what it must be allowed, and which guilds it serves."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import discord

from bots.discord.client import Client
from bots.discord.config import DiscordConfig
from bots.discord.failures import NO_API, translated
from bots.surface import AccountClosed

PERMISSIONS: Mapping[str, str] = MappingProxyType(
    {
        "View Channels": "Onethread sees no channel, and answers nobody",
        "Send Messages": "Onethread cannot answer in channels",
        "Send Messages in Threads": "Onethread cannot answer in threads",
        "Create Public Threads": "answers stand in the channel instead of a thread of their own",
        "Read Message History": "Onethread cannot read what was said while it was away, nor find its own messages again after a crash",
        "Attach Files": "very long answers end with a link instead of a file",
    }
)
"""The permissions that the bot needs, as Discord's settings name them, each with what happens without it."""
FLAGS: Mapping[str, str] = MappingProxyType(
    {"View Channels": "view_channel"} | {name: name.lower().replace(" ", "_") for name in PERMISSIONS if name != "View Channels"}
)
"""What discord.py calls them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """Who the token is."""

    bot_user_id: str
    bot: str
    """The bot's name."""
    application_id: str
    public: bool
    """Whether anybody may invite the bot."""
    message_content: bool
    """Whether it may read messages that are not written to it."""
    owner_ids: frozenset[str]
    """Of the application's owner, or of its team."""
    is_sent_elsewhere: bool = False
    """Whether Discord sends commands and buttons to an address, so that they never come here."""


class Served(Protocol):
    """A guild, as discord.py has them."""

    @property
    def id(self) -> int: ...
    @property
    def owner_id(self) -> int | None: ...


async def signed_in(client: Client) -> SignedIn:
    """Signs the client in, and asks Discord who it is; raises a SurfaceError. It can be called again."""
    with translated():
        try:
            await client.enter()
        except discord.NotFound:
            raise AccountClosed(NO_API, reason="404") from None
    application = client.application
    assert client.user
    assert application
    return SignedIn(
        bot_user_id=str(client.user.id),
        bot=client.user.name,
        application_id=str(application.id),
        public=application.bot_public,
        message_content=application.flags.gateway_message_content or application.flags.gateway_message_content_limited,
        owner_ids=_owners(application),
        is_sent_elsewhere=application.interactions_endpoint_url is not None,
    )


def invite_link(application_id: str) -> str:
    """Where an admin of a guild lets the bot in, with all that it needs."""
    permissions = discord.Permissions(**dict.fromkeys(FLAGS.values(), True))
    return discord.utils.oauth_url(application_id, permissions=permissions, scopes=("bot", "applications.commands"))


def missing_permissions(granted: discord.Permissions) -> list[str]:
    """The names of those that are not among them."""
    return [name for name, flag in FLAGS.items() if not (granted.administrator or getattr(granted, flag))]


def served_guilds(config: DiscordConfig, who: SignedIn, guilds: Iterable[Served]) -> frozenset[str]:
    """The ids of those that are served.

    Where none are named and anybody may invite the bot, only those of the people who own the application: who invites it elsewhere would
    be let in to what is said here.
    """
    known = list(guilds)
    if config.guilds:
        return frozenset(str(guild.id) for guild in known) & config.guilds
    return frozenset(str(guild.id) for guild in known if not who.public or str(guild.owner_id) in who.owner_ids)


async def find_served_guilds(client: Client, config: DiscordConfig, who: SignedIn) -> frozenset[str]:
    """Likewise, as Discord tells a client that is signed in; raises a SurfaceError."""
    with translated():
        guilds = [guild async for guild in client.fetch_guilds(limit=None, with_counts=False)]
        if who.public and not config.guilds:  # only then it matters who owns them, which the list does not say
            guilds = [await client.fetch_guild(guild.id, with_counts=False) for guild in guilds]
    return served_guilds(config, who, guilds)


def _owners(application: discord.AppInfo) -> frozenset[str]:
    if application.team is None:
        return frozenset({str(application.owner.id)})
    accepted = discord.TeamMembershipState.accepted
    return frozenset(str(each.id) for each in application.team.members if each.membership_state is accepted)
