"""Who is let in on a chat platform, and how the bot behaves where: what an operator decides."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelRules:
    """How the bot behaves in one channel."""

    mode: Literal["threads", "chat"] = "threads"
    """`chat`: the channel itself is one conversation."""
    answer: Literal["all", "mentions"] = "all"
    """Which messages of a conversation are answered; the others are read along."""


_USUAL = ChannelRules()


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    channels: frozenset[str] = frozenset()
    """Where the bot answers, by id; empty: everywhere. Direct messages are not counted among them."""
    users: frozenset[str] = frozenset()
    """Whom it answers, by id; empty: every full member."""
    guests: bool = False
    """Whether people are let in who are no full members."""
    channel_rules: Mapping[str, ChannelRules] = field(default_factory=dict)
    """By channel id, for those that differ."""

    def rules(self, channel: str) -> ChannelRules:
        return self.channel_rules.get(channel, _USUAL)
