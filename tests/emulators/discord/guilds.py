"""A guild: its roles, members and channels, and how a test changes them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from tests.emulators.discord import permissions, shapes, talk
from tests.emulators.discord.objects import Channel, Kind, Member, Overwrite, Role, User
from tests.emulators.discord.state import Intents, World

if TYPE_CHECKING:
    from tests.emulators.discord.people import Person

JSON = dict[str, Any]
KINDS = {"text": Kind.TEXT, "announcement": Kind.ANNOUNCEMENT, "forum": Kind.FORUM, "voice": Kind.VOICE}

__all__ = ["Channel", "Guild"]


@dataclass(slots=True, eq=False)
class Guild:
    world: World
    id: str
    name: str
    owner_id: str
    made_at: datetime
    available: bool = True
    roles: dict[str, Role] = field(default_factory=dict)
    members: dict[str, Member] = field(default_factory=dict)

    @classmethod
    def make(cls, world: World, name: str, owner: User) -> "Guild":
        """With @everyone and its owner, without the bot."""
        guild = cls(world, world.snowflake(), name, owner.id, world.now())
        guild.roles[guild.id] = Role(guild.id, "@everyone", permissions.EVERYONE, 0)
        guild.members[owner.id] = Member(owner, world.now())
        world.guilds[guild.id] = guild
        return guild

    @property
    def channels(self) -> list[Channel]:
        """Without threads."""
        return [one for one in self.world.channels.values() if one.guild_id == self.id and not one.is_thread]

    @property
    def threads(self) -> list[Channel]:
        return [one for one in self.world.channels.values() if one.guild_id == self.id and one.is_thread]

    # --- channels ---

    def channel(
        self,
        name: str,
        kind: Literal["text", "announcement", "forum", "voice"] = "text",
        *,
        private: bool = False,
        people: "Sequence[Person] | None" = None,
        deny: Collection[str] = (),
    ) -> str:
        """The id of a new one. A private one is seen by `people` (all who are members now) and the bot; `deny`: what the bot may not do."""
        channel = Channel(self.world.snowflake(), KINDS[kind], name, guild_id=self.id, position=len(self.channels))
        if private:
            seen = permissions.bits(["VIEW_CHANNEL"])
            channel.overwrites[self.id] = Overwrite(self.id, member=False, deny=seen)
            for user_id in [self.world.bot.id, *([person.id for person in people] if people is not None else self.members)]:
                channel.overwrites[user_id] = Overwrite(user_id, member=True, allow=seen)
        self.world.channels[channel.id] = channel
        if deny:
            forbid(self.world, channel, deny)
        self.world.tell_guild("CHANNEL_CREATE", shapes.channel(self.world, channel), self)
        return channel.id

    # --- members ---

    def join(self, *people: "Person") -> None:
        for person in people:
            self.admit(person.user)

    def leave(self, person: "Person") -> None:
        """By that person, or by a kick."""
        del self.members[person.id]
        data = {"guild_id": self.id, "user": shapes.user(self.world, person.user)}
        self.world.tell_guild("GUILD_MEMBER_REMOVE", data, self, intents=Intents.GUILD_MEMBERS)

    def add_bot(self) -> None:
        """By its invitation, with a role of its own that has what was asked for."""
        bot = self.world.bot
        if bot.id in self.members:
            return
        role = Role(self.world.snowflake(), "Onethread", permissions.bits(permissions.INVITED), len(self.roles), bot_id=bot.id)
        self.roles[role.id] = role
        self.members[bot.id] = Member(bot, self.world.now(), [role.id])
        self.world.tell_guild("GUILD_CREATE", shapes.guild_create(self.world, self, joined=True), self)

    def remove_bot(self) -> None:
        """A kick."""
        self.world.tell_guild("GUILD_DELETE", {"id": self.id}, self)
        for role in self.members.pop(self.world.bot.id).roles:
            del self.roles[role]

    def admit(self, user: User) -> Member:
        """As a member, which nobody is twice."""
        if user.id not in self.members:
            self.members[user.id] = Member(user, self.world.now())
            data = {**shapes.member(self.world, self.members[user.id]), "guild_id": self.id}
            self.world.tell_guild("GUILD_MEMBER_ADD", data, self, intents=Intents.GUILD_MEMBERS)
        return self.members[user.id]

    # --- roles ---

    def role(self, name: str, *, allow: Collection[str] = (), people: "Sequence[Person]" = ()) -> str:
        """The id of a new one, which these people have."""
        role = Role(self.world.snowflake(), name, permissions.bits(allow), len(self.roles))
        self.roles[role.id] = role
        data = {"guild_id": self.id, "role": shapes.role(self.world, role)}
        self.world.tell_guild("GUILD_ROLE_CREATE", data, self)
        for person in people:
            self.give(person, role.id)
        return role.id

    def give(self, person: "Person", role: str) -> None:
        held = self.admit(person.user).roles
        held.append(role)
        self._member_changed(person.user)

    def take(self, person: "Person", role: str) -> None:
        self.members[person.id].roles.remove(role)
        self._member_changed(person.user)

    def allow_bot(self, names: Collection[str]) -> None:
        """From now on the bot's own role has these permissions and no others (@everyone's stay)."""
        own = next(role for role in self.roles.values() if role.bot_id)
        self._change_role(own, permissions.bits(names))

    def forbid_everyone(self, names: Collection[str]) -> None:
        """From now on @everyone lacks these."""
        self._change_role(self.roles[self.id], permissions.EVERYONE & ~permissions.bits(names))

    def _change_role(self, role: Role, held: int) -> None:
        before = {channel.id for channel in self.channels if self.world.may(channel, self.world.bot, "VIEW_CHANNEL")}
        role.permissions = held
        self.world.tell_guild("GUILD_ROLE_UPDATE", {"guild_id": self.id, "role": shapes.role(self.world, role)}, self)
        talk.sync_threads(self.world, self, before)

    def _member_changed(self, user: User) -> None:
        data = {**shapes.member(self.world, self.members[user.id]), "guild_id": self.id}
        self.world.tell_guild("GUILD_MEMBER_UPDATE", data, self, intents=Intents.GUILD_MEMBERS)


def forbid(world: World, channel: Channel, names: Collection[str]) -> None:
    """The bot lacks exactly these there."""
    own = channel.overwrites.setdefault(world.bot.id, Overwrite(world.bot.id, member=True))
    own.deny = permissions.bits(names)
