"""Who the caller is, and who else there is."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from core import identity
from core.access import require
from web.credentials import Caller
from web.services import services_of

router = APIRouter(prefix="/api", tags=["identity"])


class Me(BaseModel):
    id: UUID
    name: str
    admin: bool = Field(description="Whether you may act as an admin by what you showed.")
    scopes: list[str] = Field(description="What you may do by what you showed.")
    has_password: bool


class Person(BaseModel):
    id: UUID
    name: str


class People(BaseModel):
    users: list[Person]
    next_cursor: UUID | None = Field(description="The `cursor` of the next page; null on the last one.")


@router.get("/me")
async def get_me(request: Request, caller: Caller) -> Me:
    """Who you are."""
    async with services_of(request).storage.read() as uow:
        user = await identity.user_of(uow, caller)
    scopes = caller.scopes if caller.admin else caller.scopes - {"admin"}
    return Me(id=user.id, name=user.name, admin=caller.admin, scopes=sorted(scopes), has_password=user.password_set_at is not None)


@router.get("/users")
async def list_users(
    request: Request,
    caller: Caller,
    query: Annotated[str, Query(max_length=64, description="Part of the name.")] = "",
    cursor: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 100,
) -> People:
    """Whom a task can be assigned to."""
    require(caller, "tasks:read")
    async with services_of(request).storage.read() as uow:
        found = await uow.users.page(query, after=cursor, limit=limit + 1)
    shown = found[:limit]
    people = [Person(id=user.id, name=user.name) for user in shown]
    return People(users=people, next_cursor=shown[-1].id if len(found) > limit else None)
