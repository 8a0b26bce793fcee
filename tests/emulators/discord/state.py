"""The world in which the bot lives: everything that exists, who may do what, and what is told of it."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from tests.emulators.discord import permissions
from tests.emulators.discord.errors import refusal
from tests.emulators.discord.limits import Limits
from tests.emulators.discord.objects import (
    MESSAGE_CONTENT,
    MESSAGE_CONTENT_LIMITED,
    Application,
    Attachment,
    Call,
    Channel,
    Edit,
    Kind,
    Message,
    User,
)

if TYPE_CHECKING:
    from tests.emulators.discord.guilds import Guild
    from tests.emulators.discord.interactions import Interaction

__all__ = ["Call", "Edit", "Intents", "World"]
JSON = dict[str, Any]
T = TypeVar("T")
EPOCH_MS = 1_420_070_400_000
WAIT_SECONDS = 20.0


class Intents:
    GUILDS = 1 << 0
    GUILD_MEMBERS = 1 << 1
    GUILD_MESSAGES = 1 << 9
    DIRECT_MESSAGES = 1 << 12
    MESSAGE_CONTENT = 1 << 15


class Dispatcher(Protocol):
    """The gateway, as the world sees it."""

    def dispatch(self, kind: str, data: JSON, *, intents: int = 0, stripped: JSON | None = None) -> None: ...


@dataclass(kw_only=True)
class World:
    token: str = "MTIzNDU2Nzg5MDEyMzQ1Njc4.test-bot.token"
    root: str = ""
    """http://127.0.0.1:PORT"""
    clock_offset: float = 0.0
    heartbeat_seconds: float = 45.0
    interaction_seconds: float = 3.0
    nonce_seconds: float = 180.0
    nonce_in_history: bool = False
    max_upload: int = 10 * 2**20
    variant: str = ""

    users: dict[str, User] = field(default_factory=dict)
    guilds: dict[str, "Guild"] = field(default_factory=dict)
    channels: dict[str, Channel] = field(default_factory=dict)
    """Threads and DMs as well."""
    attachments: dict[str, Attachment] = field(default_factory=dict)
    interactions: dict[str, "Interaction"] = field(default_factory=dict)
    """By token."""
    commands: list[JSON] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    typing: list[tuple[float, str]] = field(default_factory=list)
    """When and where the bot said that it types."""
    deleted: list[str] = field(default_factory=list)
    limits: Limits = field(default_factory=Limits)

    bot: User = field(init=False)
    application: Application = field(init=False)
    events: Dispatcher = field(init=False)
    _edits: dict[str, list[Edit]] = field(default_factory=dict)
    _last_id: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        owner = self.user("alice")
        self.application = Application(id=self.snowflake(), name="Onethread", owner_id=owner.id)
        self.bot = self.user("onethread", bot=True)

    # --- time and ids ---

    def now(self) -> datetime:
        return datetime.fromtimestamp(time.time() + self.clock_offset, UTC)

    def snowflake(self) -> str:
        """Discord's time, and always greater than the one before."""
        of_now = (round((time.time() + self.clock_offset) * 1000) - EPOCH_MS) << 22
        self._last_id = max(self._last_id + 1, of_now)
        return str(self._last_id)

    def age_of(self, message: Message) -> float:
        return (self.now() - message.at).total_seconds() + message.age

    @property
    def other_server(self) -> bool:
        return self.variant == "other server"

    @property
    def message_content(self) -> bool:
        """Whether the application may have the contents of all messages."""
        return bool(self.application.flags & (MESSAGE_CONTENT | MESSAGE_CONTENT_LIMITED))

    @message_content.setter
    def message_content(self, on: bool) -> None:
        self.application.flags &= ~(MESSAGE_CONTENT | MESSAGE_CONTENT_LIMITED)
        self.application.flags |= MESSAGE_CONTENT_LIMITED if on else 0

    # --- what there is ---

    def user(self, name: str, *, bot: bool = False) -> User:
        """The one of that name, made where there is none."""
        for user in self.users.values():
            if user.name == name:
                return user
        user = User(id=self.snowflake(), name=name, bot=bot)
        self.users[user.id] = user
        return user

    def channel_of(self, channel_id: str) -> Channel:
        if channel_id not in self.channels:
            raise refusal(10003)
        return self.channels[channel_id]

    def guild_of(self, channel: Channel) -> "Guild | None":
        """None for a DM."""
        return self.guilds[channel.guild_id] if channel.guild_id else None

    def parent_of(self, channel: Channel) -> Channel:
        """Itself where it is no thread."""
        return self.channels[channel.parent_id] if channel.is_thread else channel

    def message_in(self, channel: Channel, message_id: str) -> Message:
        if message_id not in channel.messages:
            raise refusal(10008)
        return channel.messages[message_id]

    def find_message(self, message_id: str) -> Message:
        """Wherever it is. AssertionError if it is nowhere."""
        for channel in self.channels.values():
            if message_id in channel.messages:
                return channel.messages[message_id]
        raise AssertionError(f"there is no message {message_id}")

    def direct(self, user: User) -> Channel:
        """The DM of that person and the bot, made where there is none."""
        for channel in self.channels.values():
            if channel.kind is Kind.DIRECT and channel.recipient is user:
                return channel
        channel = Channel(id=self.snowflake(), kind=Kind.DIRECT, name="", recipient=user)
        self.channels[channel.id] = channel
        return channel

    # --- who may do what ---

    def permissions(self, channel: Channel, user: User) -> int:
        guild = self.guild_of(channel)
        if guild is None:
            return permissions.EVERYONE if user in (channel.recipient, self.bot) else 0
        return permissions.in_channel(guild, channel, self.parent_of(channel), user.id)

    def may(self, channel: Channel, user: User, *names: str) -> bool:
        wanted = permissions.bits(names)
        return self.permissions(channel, user) & wanted == wanted

    def demand(self, channel: Channel, *names: str) -> None:
        """That the bot sees the channel and may do this there."""
        if not self.may(channel, self.bot, "VIEW_CHANNEL"):
            raise refusal(50001)
        if not self.may(channel, self.bot, *names):
            raise refusal(50013)

    # --- what is told ---

    def tell(self, kind: str, data: JSON, *, channel: Channel, intents: int = Intents.GUILDS, stripped: JSON | None = None) -> None:
        """An event of that channel, if the bot sees it there."""
        guild = self.guild_of(channel)
        if (guild is None or guild.available) and self.may(channel, self.bot, "VIEW_CHANNEL"):
            self.events.dispatch(kind, data, intents=intents, stripped=stripped)
        self.touch()

    def tell_guild(self, kind: str, data: JSON, guild: "Guild", *, intents: int = Intents.GUILDS) -> None:
        if guild.available and self.bot.id in guild.members:
            self.events.dispatch(kind, data, intents=intents)
        self.touch()

    def note(self, message: Message) -> None:
        """The state that a message is in now."""
        state = Edit(asyncio.get_running_loop().time(), message.content, list(message.components))
        self._edits.setdefault(message.id, []).append(state)

    def edits(self, message_id: str) -> list[Edit]:
        """Every state that the message was in, oldest first; deleted messages too."""
        return list(self._edits.get(message_id, []))

    # --- waiting ---

    def touch(self) -> None:
        """Wakes those who wait for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, look: Callable[[], T], condition: Callable[[T], object] = bool, *, seconds: float = WAIT_SECONDS) -> T:
        """What `look` gives, as soon as `condition` holds for it: it looks again after each change. TimeoutError after that."""
        async with asyncio.timeout(seconds):
            while not condition(seen := look()):
                await self._changed.wait()
        return seen
