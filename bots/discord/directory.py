"""Who and what there is in the guilds that are served: people, channels and roles, as Discord's API tells when it is asked."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import discord

from bots.discord.access import SignedIn, find_served_guilds
from bots.discord.client import Client
from bots.discord.config import DiscordConfig
from bots.discord.failures import UNKNOWN_MEMBER, UNKNOWN_USER, calling
from bots.discord.permissions import ADMINISTRATOR, MANAGE_THREADS, VIEW_CHANNEL, held
from bots.discord.text import mentions
from bots.remembered import Remembered
from bots.surface import Busy, PlaceClosed, Profile, SurfaceError
from core.models import NOT_SERVED, ChannelKind

_NAME_SECONDS = 600.0
_KIND_SECONDS = 60.0  # a channel may be made private at any time
_GUILDS_SECONDS = 60.0
_MEMBER_SECONDS = 60.0  # somebody may lose a role at any time
_SEARCH_SECONDS = 1.0
"""Before it goes on."""
_SEARCHED = 20
"""Guilds in which a person is looked for at once."""
_LOOKED_UP = 20
"""Names that are looked up for one text."""
_FOREVER = float("inf")
_NOBODY_THERE = frozenset({UNKNOWN_MEMBER, UNKNOWN_USER, 10004, 50001})
"""The person is not in the guild, or the bot is not."""
_DIRECT, _GROUP, _PRIVATE_THREAD = 1, 3, 12
_THREADS = frozenset({10, 11, _PRIVATE_THREAD})
_STRANGER = "I talk with members of the Discord servers that I serve only, and with no bots."
_NO_ROLE = "I talk with people who have certain roles only. An admin of the server can give you one."
_NOT_SERVED = PlaceClosed("Onethread does not serve this server.", reason=NOT_SERVED)
JSON = Mapping[str, Any]


class Directory:
    """Every call ends within the rules' `call_seconds`, and raises a SurfaceError where it fails."""

    def __init__(self, config: DiscordConfig, client: Client, who: SignedIn, *, now: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._client = client
        self._who = who
        self._seconds = config.rules.call_seconds
        self._names = Remembered[str](_NAME_SECONDS, now)
        self._kinds = Remembered[ChannelKind](_KIND_SECONDS, now)
        self._everyone = Remembered[int](_KIND_SECONDS, now)
        self._served = Remembered[frozenset[str]](_GUILDS_SECONDS, now)
        self._members = Remembered[tuple[str, JSON]](_MEMBER_SECONDS, now)
        self._homes = Remembered[str](_FOREVER, now)
        self._searched = Remembered[frozenset[str]](_MEMBER_SECONDS, now)
        self._guilds = Remembered[str](_FOREVER, now)
        self._changes = 0
        self._asking = asyncio.Lock()

    # --- people ---

    async def profile(self, person: str) -> Profile:
        async with calling(self._seconds):
            return await self._profile(person)

    def met(self, person: str, guild: str, member: JSON | None = None) -> None:
        """Somebody did something in a guild. `member`: as Discord described them there just now."""
        self._homes.put(person, guild)
        if member is not None:
            self._members.put(person, (guild, member))

    async def _profile(self, person: str) -> Profile:
        found: Profile | None = None
        searched = self._searched.get(person) or frozenset()
        left = [guild for guild in await self._where(person) if guild not in searched]
        for guild in left[:_SEARCHED]:
            if member := await self._member(guild, person):
                found = self._as_profile(person, member)
                if found.member:
                    self._homes.put(person, guild)
                    break
            searched |= {guild}
            self._searched.put(person, searched)
        else:
            if len(left) > _SEARCHED:
                raise Busy(_SEARCH_SECONDS)  # whoever asks again goes on from here
        self._searched.put(person, frozenset())
        if found is None:
            user = await self._user(person)
            found = Profile(external_id=person, name=_name(user) or person, member=False, refusal=_STRANGER)
        self._names.put(person, found.name)
        return found

    def _as_profile(self, person: str, member: JSON) -> Profile:
        user = member.get("user") or {}
        name = str(member.get("nick") or "") or _name(user) or person
        if user.get("bot"):
            return Profile(external_id=person, name=name, member=False, refusal=_STRANGER)
        if self._config.roles and self._config.roles.isdisjoint(map(str, member.get("roles") or ())):
            return Profile(external_id=person, name=name, member=False, refusal=_NO_ROLE)
        return Profile(external_id=person, name=name, member=True)

    async def _where(self, person: str) -> list[str]:
        """The guilds that are served, the one first in which the person was found before."""
        home = self._homes.get(person)
        return sorted(await self._served_guilds(), key=lambda guild: (guild != home, int(guild)))

    async def _served_guilds(self) -> frozenset[str]:
        """Those that the bot is in."""
        async with self._asking:  # one asks, and all others know it then
            known = self._served.get("")
            if known is None:
                known = await find_served_guilds(self._client, self._config, self._who)
                self._served.put("", known)
            return known

    async def _member(self, guild: str, person: str) -> JSON | None:
        there, described = self._members.get(person) or ("", {})
        if there == guild:
            return described
        try:
            return {**await self._client.http.get_member(guild, person)}
        except discord.HTTPException as error:
            if error.code not in _NOBODY_THERE:
                raise
            return None

    async def _user(self, person: str) -> JSON:
        try:
            return {**await self._client.http.get_user(person)}
        except discord.NotFound:
            return {}

    # --- channels ---

    async def kind(self, channel: str, thread: str = "") -> ChannelKind:
        known = self._kinds.get(thread or channel)
        if known is not None:
            return known
        async with calling(self._seconds):
            while True:
                asked_at = self._changes
                kind = await self._kind(channel, thread)
                if asked_at == self._changes:  # otherwise it may be what it was before
                    break
        self._kinds.put(thread or channel, kind)
        return kind

    async def found(self, channel: str) -> tuple[JSON, JSON]:
        """A channel or thread of a guild that is served, or a DM; and the channel that it is in: itself where it is no thread."""
        async with calling(self._seconds):
            found = await self._channel(channel)
            parent = await self._channel(str(found["parent_id"])) if found["type"] in _THREADS else found
            if "guild_id" in parent and str(parent["guild_id"]) not in await self._served_guilds():
                raise _NOT_SERVED
        return found, parent

    async def reads(self, found: JSON, parent: JSON, person: str) -> bool:
        """Whether somebody reads in what was `found`."""
        if "guild_id" not in parent:
            return any(str(each["id"]) == person for each in found.get("recipients") or ())
        guild = str(parent["guild_id"])
        async with calling(self._seconds):
            member = await self._member(guild, person)
            if member is None:
                return False
            of_guild = {**await self._client.http.get_guild(guild, with_counts=False)}
            bits = held(of_guild, parent, person, [str(role) for role in member.get("roles") or ()])
            hidden = found["type"] == _PRIVATE_THREAD and not bits & MANAGE_THREADS
            return bool(bits & VIEW_CHANNEL) and (not hidden or await self._is_in_thread(str(found["id"]), person))

    async def _is_in_thread(self, thread: str, person: str) -> bool:
        try:
            await self._client.http.get_thread_member(thread, person)
        except discord.NotFound:
            return False
        return True

    def forget_kinds(self) -> None:
        """Who may read which channel has changed, or may have."""
        self._changes += 1
        self._kinds.clear()
        self._everyone.clear()

    async def _kind(self, channel: str, thread: str) -> ChannelKind:
        if thread and (await self._channel(thread))["type"] == _PRIVATE_THREAD:
            return ChannelKind.PRIVATE
        found = await self._channel(channel)
        if found["type"] == _PRIVATE_THREAD or found["type"] == _GROUP:
            return ChannelKind.PRIVATE
        if found["type"] == _DIRECT:
            return ChannelKind.DIRECT
        if found["type"] in _THREADS:
            return await self._kind(str(found["parent_id"]), "")
        guild = str(found["guild_id"])
        permissions = await self._of_everyone(guild)
        for overwrite in found.get("permission_overwrites") or ():
            if str(overwrite["id"]) == guild:
                permissions = permissions & ~int(overwrite["deny"]) | int(overwrite["allow"])
        return ChannelKind.OPEN if permissions & (VIEW_CHANNEL | ADMINISTRATOR) else ChannelKind.PRIVATE

    async def _of_everyone(self, guild: str) -> int:
        """The permissions that all members have."""
        known = self._everyone.get(guild)
        return known if known is not None else await self._read_guild(guild)

    async def _read_guild(self, guild: str) -> int:
        found = await self._client.http.get_guild(guild, with_counts=False)
        everyone = 0
        for role in found["roles"]:
            self._names.put(str(role["id"]), str(role["name"]))
            if str(role["id"]) == guild:
                everyone = int(role["permissions"])
        self._everyone.put(guild, everyone)
        return everyone

    async def _channel(self, channel: str) -> JSON:
        found: JSON = {**await self._client.http.get_channel(channel)}
        self.learn(channel, str(found.get("guild_id") or ""))
        if name := found.get("name"):
            self._names.put(channel, str(name))
        return found

    def learn(self, channel: str, guild: str) -> None:
        """In which guild a channel or thread is; empty: a direct message."""
        self._guilds.put(channel, guild)

    def learn_names(self, names: Mapping[str, str]) -> None:
        """Of people, channels and roles, as Discord told them, by id."""
        for identity, name in names.items():
            self._names.put(identity, name)

    def guild_of(self, channel: str) -> str:
        """Empty where it is a direct message, or not known."""
        known = self._guilds.get(channel)
        if known is None and len(self._config.guilds) == 1:
            return next(iter(self._config.guilds))
        return known or ""

    # --- names ---

    async def names_in(self, text: str) -> Mapping[str, str]:
        """Of those whom a message's content mentions, by id; without those that Discord does not tell, or not in time."""
        found = mentions(text)
        ways: Mapping[str, Callable[[str], Awaitable[str]]] = {
            **dict.fromkeys(sorted(found.users), self._person_name),
            **dict.fromkeys(sorted(found.channels), self._channel_name),
            **dict.fromkeys(sorted(found.roles), self._role_name),
        }
        unknown = [identity for identity in ways if self._names.get(identity) is None]
        try:
            async with calling(self._seconds):
                for identity in unknown[:_LOOKED_UP]:
                    self._names.put(identity, await ways[identity](identity))
        except SurfaceError:
            pass  # a name is not worth a message that does not arrive
        return {identity: name for identity in ways if (name := self._names.get(identity))}

    async def name(self, person: str) -> str:
        """Empty where Discord does not tell."""
        return (await self.names_in(f"<@{person}>")).get(person, "")

    async def _person_name(self, person: str) -> str:
        """As people call them where they were met last. Empty for an id that nobody has."""
        for guild in (await self._where(person))[:1]:
            if member := await self._member(guild, person):
                return self._as_profile(person, member).name
        return _name(await self._user(person))

    async def _channel_name(self, channel: str) -> str:
        try:
            return str((await self._channel(channel)).get("name") or "")
        except (discord.Forbidden, discord.NotFound):
            return ""

    async def _role_name(self, role: str) -> str:
        for guild in sorted(await self._served_guilds(), key=int)[:_SEARCHED]:
            if self._everyone.get(guild) is None:
                await self._read_guild(guild)
        return self._names.get(role) or ""


def _name(user: JSON) -> str:
    return str(user.get("global_name") or user.get("username") or "")
