"""How one Slack workspace is served: what the composition root read from the settings, and the numbers by which calls are paced."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bots.pacing import Budget
from bots.policy import ChannelRules

SOURCE = "slack"
"""The surface's name, and where messages come from that are posted here."""
API_URL = "https://slack.com/api/"
PATH = "/slack/events"
"""Of the Request URL, under the web surface's address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlackRules:
    """Limits of Slack's, each with some room; per workspace where nothing else is said."""

    call_seconds: float = 10.0
    part_characters: int = 10_000
    edit_seconds: float = 1.0
    edits: Budget = Budget(calls=47, seconds=60, burst=2)
    """chat.update: 50 a minute."""
    posts: Budget = Budget(calls=1, seconds=1, burst=3)
    """chat.postMessage, for each channel."""
    deletes: Budget = Budget(calls=45, seconds=60, burst=5)
    """chat.delete: 50 a minute."""
    looks: Budget = Budget(calls=45, seconds=60, burst=5)
    """conversations.replies, and likewise conversations.history: 50 a minute."""
    statuses: Budget = Budget(calls=40, seconds=60, burst=2)
    stream_starts: Budget = Budget(calls=18, seconds=60, burst=2)
    """chat.startStream: 20 a minute."""
    stream_appends: Budget = Budget(calls=90, seconds=60, burst=2)
    """chat.appendStream: 100 a minute."""
    stream_seconds: float = 240.0
    """A native stream dies five minutes after its start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlackConfig:
    bot_token: str = field(repr=False)
    app_token: str = field(default="", repr=False)
    """Socket Mode where it is set, otherwise HTTP."""
    signing_secret: str = field(default="", repr=False)
    api_url: str = API_URL
    workspaces: frozenset[str] = frozenset()
    """Allow-lists, by id; empty: all."""
    channels: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()
    guests: bool = False
    """Whether Slack's guests and people of other companies' workspaces are let in."""
    channel_rules: Mapping[str, ChannelRules] = field(default_factory=dict)
    """By channel id, for those that differ."""
    native_streams: bool = False
    rules: SlackRules = SlackRules()
