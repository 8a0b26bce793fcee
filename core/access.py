"""Who asks, and what they may see."""

from dataclasses import dataclass
from uuid import UUID

from core.errors import NotAuthenticated

ALL_SCOPES = frozenset({"tasks:read", "tasks:write", "chat", "admin"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A user with what they may do. What they may not see is NotFound, never forbidden."""

    user_id: UUID
    admin: bool = False
    scopes: frozenset[str] = ALL_SCOPES
    token_id: UUID | None = None
    """The personal token that they showed, where they showed one."""
    reading_along: "Audience | None" = None
    """Set for the agent's tools: their results are read by others too, so they see only what all of these may see."""

    @property
    def by_agent(self) -> bool:
        """Whether it is the agent that acts for them, by a tool of its own. A client's assistant that shows their token is not."""
        return self.reading_along is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """The readers of a conversation. `users` is None when that is everybody."""

    conversation_id: UUID
    users: frozenset[UUID] | None


def require_admin(principal: Principal, may: str) -> None:
    """Raises NotAuthenticated for everybody else; `may` is what is for admins only, as the sentence says it."""
    if not principal.admin:
        raise NotAuthenticated(f"Only an admin may {may}.")


def require(principal: Principal, scope: str) -> None:
    """Raises NotAuthenticated where the principal's token lacks the scope."""
    if scope not in principal.scopes:
        wanted = " ".join(f"--scope {each}" for each in sorted({*principal.scopes, scope}))
        raise NotAuthenticated(f"This token lacks the scope {scope!r}. Create one that has it: onethread token create NAME {wanted}")
