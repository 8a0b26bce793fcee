"""What the chat surfaces work with. The composition root makes it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from core.live import LiveEvents
from core.llm.providers import ModelChoice
from core.messages import PostingRules
from core.ports import Clock, Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    storage: Storage
    live: LiveEvents
    clock: Clock
    posting: PostingRules
    process_id: UUID
    url: str
    """Of the web surface, without a slash at its end: what links for people begin with."""
    models: Callable[[], Sequence[ModelChoice]]
    """Those that can be chosen."""
