"""What the web surface works with. The composition root makes it, once for each process."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from starlette.requests import HTTPConnection

from core.addresses import Address
from core.linking import PeopleMap
from core.live import LiveEvents
from core.llm.providers import ModelChoice
from core.messages import PostingRules
from core.ports import Clock, PasswordHasher, Storage

MIN_SECRET = 32
"""Characters of a secret key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebRules:
    public_url: str
    """What people type to get here, without a slash at its end."""
    hosts: frozenset[str]
    """The names under which requests may come, without ports, in lower case; `*` for any."""
    secret_key: str
    """Signs the tokens that `POST /api/auth/token` gives."""
    reply_seconds: float = 30.0
    """How long `POST /api/chat` waits for the reply."""
    recheck_seconds: float = 30.0
    """How often a living WebSocket's session or token is looked at again."""

    @property
    def secure(self) -> bool:
        """Whether people come by https."""
        return self.public_url.startswith("https://")


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    storage: Storage
    live: LiveEvents
    clock: Clock
    posting: PostingRules
    passwords: PasswordHasher
    models: Callable[[], list[ModelChoice]]
    """Which models there are, and which can be asked."""
    rules: WebRules
    people_map: PeopleMap = field(default_factory=dict)
    """Whose chat accounts are whose, as the operator says."""
    read_place: Callable[[str], Address]
    """What a link to a chat platform says; raises InvalidInput where it is none."""


def services_of(connection: HTTPConnection) -> Services:
    return cast(Services, connection.app.state.services)
