"""Somebody's personal access tokens."""

from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from core import frames, identity
from core.models import Token
from web.credentials import Caller
from web.problems import documented
from web.schemas import Days, Received, Time, TokenName
from web.services import services_of

router = APIRouter(prefix="/api/tokens", tags=["identity"])
Scope = Literal["tasks:read", "tasks:write", "chat", "admin"]


class NewToken(Received):
    name: TokenName
    scopes: list[Scope] | None = Field(
        None,
        min_length=1,
        description="What it may do: never more than you. Who may chat may have the agent read and change tasks. Without: tasks, chat.",
    )
    expires_in_days: Days | None = Field(None, description="Without: valid until it is revoked.")


class TokenJson(BaseModel):
    id: UUID
    name: str
    scopes: list[str]
    created_at: Time
    expires_at: Time | None


class CreatedToken(TokenJson):
    secret: str = Field(description="The token itself. It is shown now and never again.")


class Tokens(BaseModel):
    tokens: list[TokenJson]


@router.get("")
async def list_tokens(request: Request, caller: Caller) -> Tokens:
    """Your tokens that are not revoked, the oldest first, without their secrets."""
    async with services_of(request).storage.read() as uow:
        return Tokens(tokens=[TokenJson(**_json(token)) for token in await identity.tokens_of(uow, caller)])


@router.post("", status_code=201, responses=documented(409))
async def create_token(request: Request, caller: Caller, body: NewToken) -> CreatedToken:
    """Make a token for a program. Its secret is in this answer only."""
    lifetime = timedelta(days=body.expires_in_days) if body.expires_in_days else None
    scopes = None if body.scopes is None else frozenset[str](body.scopes)
    async with services_of(request).storage.write() as uow:
        token, secret = await identity.create_own_token(uow, caller, body.name, scopes=scopes, lifetime=lifetime)
    return CreatedToken(**_json(token), secret=secret)


@router.delete("/{token_id}", status_code=204)
async def revoke_token(request: Request, caller: Caller, token_id: UUID) -> None:
    """Make a token useless, at once."""
    async with services_of(request).storage.write() as uow:
        await identity.revoke_own_token(uow, caller, token_id)


def _json(token: Token) -> dict[str, Any]:
    return {
        "id": token.id,
        "name": token.name,
        "scopes": sorted(token.scopes),
        "created_at": frames.time_json(token.created_at),
        "expires_at": frames.time_json(token.expires_at),
    }
