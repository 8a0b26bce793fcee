"""Who calls, and which tools their request wants to see: whoever started the process on stdio, the bearer of a token over HTTP."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from mcp.server.auth.provider import AccessToken
from mcp.server.context import ServerRequestContext
from pydantic import Field

from core.access import ALL_SCOPES, Principal
from core.errors import NotAuthenticated
from mcp_server.offer import Selection

TOOLS_HEADER = "X-MCP-Tools"
"""Names the tools that one request wants to see, separated by commas."""


class Caller(Protocol):
    async def principal(self, ctx: ServerRequestContext[Any, Any]) -> Principal:
        """Raises NotAuthenticated."""
        ...

    def scopes(self, ctx: ServerRequestContext[Any, Any]) -> frozenset[str]:
        """What they may do, told without looking anybody up. Raises NotAuthenticated."""
        ...

    def selection(self, ctx: ServerRequestContext[Any, Any]) -> Selection:
        """What this request narrows the tools to. Raises InvalidInput."""
        ...


class Fixed:
    """One person, who started the process."""

    def __init__(self, find: Callable[[], Awaitable[Principal]]) -> None:
        self._find = find

    async def principal(self, _ctx: ServerRequestContext[Any, Any]) -> Principal:
        return await self._find()

    def scopes(self, _ctx: ServerRequestContext[Any, Any]) -> frozenset[str]:
        return ALL_SCOPES

    def selection(self, _ctx: ServerRequestContext[Any, Any]) -> Selection:
        return Selection()


class PersonalToken(AccessToken):
    """A token that was found to be somebody's, as whoever verified it hands it on through the SDK."""

    principal: Principal = Field(exclude=True, repr=False)


class Bearer:
    """Whoever the token of a request belongs to."""

    async def principal(self, ctx: ServerRequestContext[Any, Any]) -> Principal:
        return _shown(ctx)

    def scopes(self, ctx: ServerRequestContext[Any, Any]) -> frozenset[str]:
        return _shown(ctx).scopes

    def selection(self, ctx: ServerRequestContext[Any, Any]) -> Selection:
        given = ctx.request.headers.get(TOOLS_HEADER) if ctx.request else None
        if given is None:
            return Selection()
        return Selection.of(names=[name for each in given.split(",") if (name := each.strip())])


def _shown(ctx: ServerRequestContext[Any, Any]) -> Principal:
    """Of this one request: a connection may outlive a token, and carry another one later."""
    user = ctx.request.scope.get("user") if ctx.request else None
    token = getattr(user, "access_token", None)
    if not isinstance(token, PersonalToken):
        raise NotAuthenticated("Send a token as: Authorization: Bearer ot_...")
    return token.principal
