"""Discord's permissions: their bits, and what somebody may do in a channel by roles and overwrites."""

from collections.abc import Iterable
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from tests.emulators.discord.objects import Channel, Kind

if TYPE_CHECKING:
    from tests.emulators.discord.guilds import Guild

BITS: dict[str, int] = {
    "KICK_MEMBERS": 1 << 1,
    "ADMINISTRATOR": 1 << 3,
    "MANAGE_CHANNELS": 1 << 4,
    "MANAGE_GUILD": 1 << 5,
    "ADD_REACTIONS": 1 << 6,
    "VIEW_CHANNEL": 1 << 10,
    "SEND_MESSAGES": 1 << 11,
    "SEND_TTS_MESSAGES": 1 << 12,
    "MANAGE_MESSAGES": 1 << 13,
    "EMBED_LINKS": 1 << 14,
    "ATTACH_FILES": 1 << 15,
    "READ_MESSAGE_HISTORY": 1 << 16,
    "MENTION_EVERYONE": 1 << 17,
    "CONNECT": 1 << 20,
    "SPEAK": 1 << 21,
    "CHANGE_NICKNAME": 1 << 26,
    "MANAGE_ROLES": 1 << 28,
    "MANAGE_WEBHOOKS": 1 << 29,
    "USE_APPLICATION_COMMANDS": 1 << 31,
    "MANAGE_THREADS": 1 << 34,
    "CREATE_PUBLIC_THREADS": 1 << 35,
    "CREATE_PRIVATE_THREADS": 1 << 36,
    "SEND_MESSAGES_IN_THREADS": 1 << 38,
}
ALL = (1 << 53) - 1
_POWERS = ("KICK_MEMBERS", "ADMINISTRATOR", "MANAGE_CHANNELS", "MANAGE_GUILD", "MANAGE_MESSAGES")
_MORE_POWERS = ("MENTION_EVERYONE", "MANAGE_ROLES", "MANAGE_WEBHOOKS", "MANAGE_THREADS")


def bits(names: Iterable[str]) -> int:
    return reduce(or_, (BITS[name] for name in names), 0)


EVERYONE = bits(name for name in BITS if name not in (*_POWERS, *_MORE_POWERS))
INVITED = (
    "VIEW_CHANNEL",
    "SEND_MESSAGES",
    "SEND_MESSAGES_IN_THREADS",
    "CREATE_PUBLIC_THREADS",
    "READ_MESSAGE_HISTORY",
    "ATTACH_FILES",
)


def in_guild(guild: "Guild", user_id: str) -> int:
    """What a member's roles give; 0 to others."""
    member = guild.members.get(user_id)
    if member is None:
        return 0
    if guild.owner_id == user_id:
        return ALL
    held = reduce(or_, (guild.roles[role].permissions for role in (guild.id, *member.roles)), 0)
    return ALL if held & BITS["ADMINISTRATOR"] else held


def in_channel(guild: "Guild", channel: Channel, parent: Channel, user_id: str) -> int:
    """`parent` is the channel itself unless it is a thread, which has its parent's overwrites."""
    held = in_guild(guild, user_id)
    if held in (0, ALL):
        return held
    everyone = parent.overwrites.get(guild.id)
    if everyone:
        held = held & ~everyone.deny | everyone.allow
    of_roles = [parent.overwrites[role] for role in guild.members[user_id].roles if role in parent.overwrites]
    held &= ~reduce(or_, (one.deny for one in of_roles), 0)
    held |= reduce(or_, (one.allow for one in of_roles), 0)
    own = parent.overwrites.get(user_id)
    if own:
        held = held & ~own.deny | own.allow
    if not held & BITS["VIEW_CHANNEL"]:
        return 0
    hidden = channel.kind is Kind.PRIVATE_THREAD and user_id not in channel.members and not held & BITS["MANAGE_THREADS"]
    return 0 if hidden else held
