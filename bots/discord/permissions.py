"""What somebody may do in a channel, from what Discord's API says of the server, the channel and them."""

from collections.abc import Collection, Iterable, Mapping
from functools import reduce
from operator import or_
from typing import Any

ADMINISTRATOR, VIEW_CHANNEL, MANAGE_THREADS = 1 << 3, 1 << 10, 1 << 34
_EVERYTHING = -1
JSON = Mapping[str, Any]


def held(guild: JSON, channel: JSON, person: str, roles: Collection[str]) -> int:
    """The bits of a member with these roles in a channel, which is no thread: those have their parent's."""
    if str(guild.get("owner_id")) == person:
        return _EVERYTHING
    everyone = str(guild["id"])
    mine = {everyone, *roles}
    bits = _united(int(role["permissions"]) for role in guild["roles"] if str(role["id"]) in mine)
    if bits & ADMINISTRATOR:
        return _EVERYTHING
    overwrites = {str(each["id"]): each for each in channel.get("permission_overwrites") or ()}
    for ids in ([everyone], [role for role in roles if role != everyone], [person]):
        there = [overwrites[each] for each in ids if each in overwrites]
        bits &= ~_united(int(each["deny"]) for each in there)
        bits |= _united(int(each["allow"]) for each in there)
    return bits


def _united(bits: Iterable[int]) -> int:
    return reduce(or_, bits, 0)
