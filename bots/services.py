"""What the chat surfaces work with. The composition root makes it."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from uuid import UUID

from core.linking import PeopleMap
from core.live import LiveEvents
from core.llm.providers import ModelChoice
from core.messages import PostingRules
from core.ports import Clock, Storage, UnitOfWork

Commit = Callable[[], AbstractAsyncContextManager[UnitOfWork]]
"""Opens the one transaction in which an event has its effect and is noted as taken in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    storage: Storage
    live: LiveEvents
    clock: Clock
    posting: PostingRules
    process_id: UUID
    url: str
    """Of the web surface, without a slash at its end: what links for people begin with."""
    people_map: PeopleMap = field(default_factory=dict)
    """Whose accounts are whose, as the operator says."""
    models: Callable[[], Sequence[ModelChoice]]
    """Those that can be chosen."""
