"""What the MCP surface works with, and the numbers by which it waits. The composition root makes it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from core.live import LiveEvents
from core.messages import PostingRules
from core.ports import Storage

SOURCE = "mcp"
"""Where messages come from that are posted here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How a call waits."""

    max_wait_seconds: float = 55.0
    """After its start no call waits any longer, neither for a reply nor for the person at the client: clients give up after 60 seconds,
    and their assistants then send the message again."""
    quiet_seconds: float = 10.0
    """Whoever waits hears something at least so often."""
    told_seconds: float = 0.5
    """New text is told at most so often; a new phase at once."""
    worker_seconds: float = 2.0
    """How often it is looked whether anybody alive works on the turn that is waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    storage: Storage
    live: LiveEvents
    posting: PostingRules
    worker_needed: Callable[[], None]
    """Told of a turn that has not ended, and again while it is followed, so that somebody alive works on it. Never blocks."""
    stopping: asyncio.Event
    """Set when this process is about to end: what waits answers at once."""
    rules: Rules = Rules()


Opening = Callable[[], Awaitable[Services]]
"""Gives the services: after a while the first time, the same ones at once from then on."""
