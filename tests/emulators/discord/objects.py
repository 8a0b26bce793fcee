"""The things of which Discord's world is made, as plain data; shapes.py says how they look in JSON."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import Any, NamedTuple

JSON = dict[str, Any]

EPHEMERAL = 1 << 6
HAS_THREAD = 1 << 5
LOADING = 1 << 7
SUPPRESS_EMBEDS = 1 << 2
SUPPRESS_NOTIFICATIONS = 1 << 12
COMPONENTS_V2 = 1 << 15

MESSAGE_CONTENT = 1 << 18
MESSAGE_CONTENT_LIMITED = 1 << 19


class Kind(IntEnum):
    """Of a channel."""

    TEXT = 0
    DIRECT = 1
    VOICE = 2
    ANNOUNCEMENT = 5
    ANNOUNCEMENT_THREAD = 10
    PUBLIC_THREAD = 11
    PRIVATE_THREAD = 12
    FORUM = 15


class Said(IntEnum):
    """The type of a message."""

    DEFAULT = 0
    RENAMED = 4
    THREAD_CREATED = 18
    REPLY = 19
    COMMAND = 20
    THREAD_STARTER = 21
    MENU_COMMAND = 23


THREADS = (Kind.ANNOUNCEMENT_THREAD, Kind.PUBLIC_THREAD, Kind.PRIVATE_THREAD)
SYSTEM = (Said.RENAMED, Said.THREAD_CREATED, Said.THREAD_STARTER)


class Edit(NamedTuple):
    """A state that a message was in, since `at` (of the loop's clock)."""

    at: float
    content: str
    components: list[JSON]


@dataclass(slots=True)
class Call:
    """One REST call of the bot's. `at` and `ended_at` are of the loop's clock; status 0: it got no answer."""

    method: str
    name: str
    route: str
    path: str
    channel: str
    at: float
    query: dict[str, str]
    json: JSON = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    status: int = 0
    code: int = 0
    ended_at: float = 0.0


@dataclass(slots=True)
class Application:
    id: str
    name: str
    owner_id: str
    flags: int = MESSAGE_CONTENT_LIMITED
    bot_public: bool = True
    interactions_endpoint_url: str | None = None


@dataclass(slots=True)
class User:
    id: str
    name: str
    bot: bool = False
    takes_no_dms: bool = False


@dataclass(slots=True)
class Role:
    id: str
    name: str
    permissions: int
    position: int
    bot_id: str = ""
    """The bot whose own role it is."""


@dataclass(slots=True)
class Member:
    user: User
    joined_at: datetime
    roles: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Overwrite:
    id: str
    member: bool
    """Else it is a role's."""
    allow: int = 0
    deny: int = 0


@dataclass(slots=True)
class Attachment:
    id: str
    filename: str
    media_type: str
    content: bytes


@dataclass(slots=True)
class Message:
    id: str
    channel_id: str
    author: User
    content: str
    at: datetime
    type: int = Said.DEFAULT
    edited_at: datetime | None = None
    mentions: list[User] = field(default_factory=list)
    mention_roles: list[str] = field(default_factory=list)
    mention_everyone: bool = False
    attachments: list[Attachment] = field(default_factory=list)
    embeds: list[JSON] = field(default_factory=list)
    components: list[JSON] = field(default_factory=list)
    flags: int = 0
    reference: JSON | None = None
    nonce: str | int | None = None
    thread_id: str = ""
    position: int = 0
    interaction: JSON | None = None
    """`interaction_metadata` of an answer to an interaction."""
    webhook_id: str = ""
    age: float = 0.0
    """Seconds by which it counts as older than its id says."""


@dataclass(slots=True)
class Channel:
    """A channel, a thread or a DM."""

    id: str
    kind: Kind
    name: str
    guild_id: str = ""
    parent_id: str = ""
    owner_id: str = ""
    position: int = 0
    overwrites: dict[str, Overwrite] = field(default_factory=dict)
    recipient: User | None = None
    messages: dict[str, Message] = field(default_factory=dict)
    last_message_id: str | None = None
    members: dict[str, datetime] = field(default_factory=dict)
    archived: bool = False
    locked: bool = False
    invitable: bool = True
    auto_archive: int = 4320
    archive_timestamp: datetime | None = None
    made_at: datetime | None = None
    message_count: int = 0
    total_message_sent: int = 0

    @property
    def is_thread(self) -> bool:
        return self.kind in THREADS
