"""Somebody's accounts on chat platforms: which they are, unlinking them, and the code that links another one."""

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from core import frames, linking
from core.models import Account
from web.credentials import Caller
from web.problems import documented
from web.schemas import Time
from web.services import services_of

router = APIRouter(prefix="/api/accounts", tags=["identity"])


class AccountJson(BaseModel):
    surface: str = Field(description="`slack` or `discord`.")
    account: str = Field(description="The workspace's id, or that of the Discord application.")
    external_id: str = Field(description="The person's id there.")
    name: str = Field(description="As the platform showed it when they first came.")
    linked_at: Time | None = Field(description="null for the account with which you came here first.")
    by_operator: bool = Field(description="Whether the operator's configuration says so: then it cannot be unlinked here.")


class Accounts(BaseModel):
    accounts: list[AccountJson]


class AccountCode(BaseModel):
    code: str = Field(description="To be typed on the chat platform, once: `/link ABCD-EFGH`.")
    expires_at: Time | None
    expires_in: int = Field(description="Seconds until then.")


@router.get("")
async def list_accounts(request: Request, caller: Caller) -> Accounts:
    """Your accounts on chat platforms."""
    services = services_of(request)
    async with services.storage.read() as uow:
        found = await linking.accounts_of(uow, caller)
    return Accounts(
        accounts=[
            AccountJson(
                surface=each.surface,
                account=each.account,
                external_id=each.external_id,
                name=each.name,
                linked_at=frames.time_json(each.linked_at),
                by_operator=(each.surface, each.account, each.external_id) in services.people_map,
            )
            for each in found
        ]
    )


@router.post("/code", status_code=201)
async def make_code(request: Request, caller: Caller) -> AccountCode:
    """Make a code that links the chat account by which it is typed with you. An earlier one stops working."""
    async with services_of(request).storage.write() as uow:
        made = await linking.code(uow, caller)
        return AccountCode(
            code=made.text, expires_at=frames.time_json(made.expires_at), expires_in=round((made.expires_at - uow.now).total_seconds())
        )


@router.delete("/{surface}/{account}/{external_id}", status_code=204, responses=documented(409))
async def unlink_account(request: Request, caller: Caller, surface: str, account: str, external_id: str) -> None:
    """Unlink a chat account. What you said with it stays yours; whoever writes with it from now on is somebody new."""
    services = services_of(request)
    async with services.storage.write() as uow:
        await linking.unlink(uow, caller, Account(surface=surface, id=account), external_id, services.people_map)
