"""How the bot stands in its guilds: which it is in, which of them it serves, and what it lacks there. `onethread doctor` asks."""

from collections.abc import Iterable
from dataclasses import dataclass

import discord

from bots.discord.access import SignedIn, missing_permissions, served_guilds
from bots.discord.client import Client
from bots.discord.config import DiscordConfig
from bots.discord.failures import translated


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    id: str
    name: str
    missing: tuple[str, ...]
    """The permissions that the bot lacks there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guild:
    id: str
    name: str
    served: bool
    missing: tuple[str, ...] = ()
    """The permissions that none of the bot's roles gives it; a channel may still do so."""
    channels: tuple[Channel, ...] = ()
    """Those that the settings name."""
    roles: frozenset[str] = frozenset()
    """The ids of its roles."""


async def guilds(client: Client, config: DiscordConfig, who: SignedIn) -> list[Guild]:
    """The guilds that the bot is in, as Discord tells them to a client that is signed in; raises a SurfaceError."""
    with translated():
        found = [guild async for guild in client.fetch_guilds(limit=None, with_counts=False)]
        known = [await client.fetch_guild(guild.id, with_counts=False) if _may_be_served(guild, config) else guild for guild in found]
        served = served_guilds(config, who, known)
        return [await _examined(guild, config, who) if str(guild.id) in served else _described(guild) for guild in known]


def _may_be_served(guild: discord.Guild, config: DiscordConfig) -> bool:
    return not config.guilds or str(guild.id) in config.guilds


async def _examined(guild: discord.Guild, config: DiscordConfig, who: SignedIn) -> Guild:
    me = await guild.fetch_member(int(who.bot_user_id))
    named = config.channels | config.channel_rules.keys()
    channels = await guild.fetch_channels() if named else ()
    return Guild(
        id=str(guild.id),
        name=guild.name,
        served=True,
        missing=tuple(missing_permissions(me.guild_permissions)),
        channels=tuple(_of_channels((each for each in channels if str(each.id) in named), me)),
        roles=frozenset(str(role.id) for role in guild.roles),
    )


def _of_channels(channels: Iterable[discord.abc.GuildChannel], me: discord.Member) -> Iterable[Channel]:
    for channel in channels:
        yield Channel(id=str(channel.id), name=channel.name, missing=tuple(missing_permissions(channel.permissions_for(me))))


def _described(guild: discord.Guild) -> Guild:
    return Guild(id=str(guild.id), name=guild.name, served=False)
