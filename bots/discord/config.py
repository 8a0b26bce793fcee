"""How one Discord bot is served: what the composition root read from the settings, and the numbers by which calls are paced."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bots.pacing import Budget
from bots.policy import ChannelRules

SOURCE = "discord"
"""The surface's name, and where messages come from that are posted here."""
API_URL = "https://discord.com/api/v10"
GATEWAY_URL = "wss://gateway.discord.gg/"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscordRules:
    """Discord documents no numbers for its limits: these are what others have seen, with some room, for each channel or thread."""

    call_seconds: float = 10.0
    part_units: int = 1_900
    """UTF-16 units of a part's text, so that a few notes have room beside it."""
    whole_units: int = 2_000
    """Of a message's content: the most that Discord takes."""
    parts: int = 5
    edit_seconds: float = 1.25
    edits: Budget = Budget(calls=4, seconds=5, burst=2)
    """5 in 5 seconds."""
    amends: Budget = Budget(calls=2, seconds=20)
    """Edits of messages that are older than an hour: about 3 in 20 seconds."""
    posts: Budget = Budget(calls=4, seconds=5, burst=3)
    """5 in 5 seconds."""
    deletes: Budget = Budget(calls=4, seconds=5, burst=3)
    looks: Budget = Budget(calls=4, seconds=5, burst=3)
    opens: Budget = Budget(calls=60, seconds=60, burst=30)
    """Threads of a channel. Discord was seen to ask for minutes of patience."""
    arranges: Budget = Budget(calls=2, seconds=600, burst=2)
    """New names of a thread: 2 in 10 minutes."""
    statuses: Budget = Budget(calls=4, seconds=5, burst=2)
    everything: Budget = Budget(calls=30, seconds=1, burst=10, shared=True)
    """Of the bot, which has 50 calls a second: what is delivered and `reads` share them."""
    reads: int = 15
    """Calls in a second that only ask for something: however many people come at once, what is delivered has its own room."""
    live_seconds: float = 55 * 60.0
    """A message that still grows is finished in a new one before its edits are limited as those of old ones are."""
    old_seconds: float = 55 * 60.0
    status_seconds: float = 8.0
    """Discord shows for ten seconds that somebody types."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CatchUpRules:
    """How much is caught up of what was said while nobody listened."""

    messages: int = 1_000
    """Of each channel, the newest."""
    hours: float = 24.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscordConfig:
    token: str = field(repr=False)
    api_url: str = API_URL
    gateway_url: str = GATEWAY_URL
    guilds: frozenset[str] = frozenset()
    """Allow-lists, by id; empty: all. Which guilds are served without a list: `access.served_guilds`."""
    channels: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    """People are let in who have one of them."""
    channel_rules: Mapping[str, ChannelRules] = field(default_factory=dict)
    """By channel id, for those that differ."""
    catch_up: CatchUpRules = CatchUpRules()
    rules: DiscordRules = DiscordRules()
