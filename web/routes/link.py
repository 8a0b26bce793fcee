"""The private link by which somebody says that a chat account is theirs. Without script, as signing in is."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from core import identity, linking
from core.access import Principal
from core.errors import Conflict, NotAuthenticated
from web import pages
from web.credentials import caller, check_same_site
from web.page import sign_in_first
from web.services import Services, services_of

router = APIRouter(include_in_schema=False)
_ACCOUNTS = "/settings/accounts"


@router.get("/link/{secret}")
@pages.telling_errors
async def ask(request: Request) -> Response:
    """Only shows what the link would do, and to whom: programs that look at links before people do must not use them up."""
    services = services_of(request)
    try:
        principal = await caller(request)
    except NotAuthenticated:
        return RedirectResponse(sign_in_first(request), status_code=303, headers={"Cache-Control": "no-store"})
    async with services.storage.read() as uow:
        user = await identity.user_of(uow, principal)
        account = await linking.peek(uow, principal, request.path_params["secret"], services.people_map)
    return pages.link(user=user, account=account)


@router.post("/link/{secret}")
@pages.telling_errors
async def confirm(request: Request) -> Response:
    """Who presses twice is answered twice, and only the second answer is seen."""
    check_same_site(request)
    principal, services = await caller(request), services_of(request)
    try:
        async with services.storage.write() as uow:
            await linking.confirm(uow, principal, request.path_params["secret"], services.people_map)
    except (NotAuthenticated, Conflict):
        if not await _is_linked(services, principal, request.query_params.get("account", "")):
            raise
    return RedirectResponse(_ACCOUNTS, status_code=303, headers={"Cache-Control": "no-store"})


async def _is_linked(services: Services, principal: Principal, account: str) -> bool:
    """Whether the account that the form names is the caller's by now."""
    async with services.storage.read() as uow:
        return account in [pages.name_of(each) for each in await linking.accounts_of(uow, principal)]
