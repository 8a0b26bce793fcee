"""Signing in and out by browser, without script, and the cookie that this gives and takes."""

import re
from collections.abc import Mapping

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from core import identity
from core.errors import InvalidInput, NotAuthenticated, RateLimited
from core.models import LinkPurpose, User
from core.ports import UnitOfWork
from web import pages
from web.credentials import CrossSite, caller, check_same_site, cookie_name, give_cookie, take_cookie
from web.problems import problem_of
from web.services import services_of

router = APIRouter(include_in_schema=False)
HOME = "/"
_MAX_FIELDS = 10
_LOCAL_PATH = re.compile(r"/(?![/\\])[^\\\x00-\x20\x7f]*")
"""A browser would read `//host`, and `/\\host`, and either with a tab in it, as another web site."""
_NEVER_NEXT = ("/login", "/logout", "/welcome")


@router.get("/login")
@pages.telling_errors
async def ask(request: Request) -> Response:
    """The form; with a code, the way in for the one-time link that the start of the server prints."""
    if code := request.query_params.get("code"):
        return await _enter_by_link(request, code)
    after = _local(request.query_params.get("next", ""))
    try:
        await caller(request)
    except NotAuthenticated:
        return pages.sign_in(after=after)
    return _go(after)


@router.post("/login")
@pages.telling_errors
async def enter(request: Request) -> Response:
    check_same_site(request)
    services, form = services_of(request), await _form(request)
    name, after = form.get("name", ""), _local(form.get("next", ""))
    address = request.client.host if request.client else ""
    try:
        user = await identity.sign_in(services.storage, services.passwords, name, form.get("password", ""), address=address)
        return await _signed_in(request, user, after)
    except (NotAuthenticated, RateLimited) as error:
        return pages.sign_in(after=after, name=name, problem=problem_of(error))


@router.get("/welcome")
@pages.telling_errors
async def greet(request: Request) -> Response:
    """Only shows the form: programs that look at links before people do must not use them up."""
    code = request.query_params.get("code", "")
    async with services_of(request).storage.read() as uow:
        user = await identity.peek_link(uow, code, LinkPurpose.SET_PASSWORD)
    return pages.welcome(code=code, user=user)


@router.post("/welcome")
@pages.telling_errors
async def set_password(request: Request) -> Response:
    origin_is_hidden = _origin_is_hidden(request)
    if not origin_is_hidden:
        check_same_site(request)
    services, form = services_of(request), await _form(request)
    code, password = form.get("code", ""), form.get("password", "")
    async with services.storage.read() as uow:
        user = await identity.peek_link(uow, code, LinkPurpose.SET_PASSWORD)
    try:
        if form.get("again", password) != password:
            raise InvalidInput("The two passwords are not the same. Type it again.")
        user = await identity.set_password_by_link(services.storage, services.passwords, code, password)
    except (InvalidInput, RateLimited) as error:
        return pages.welcome(code=code, user=user, problem=problem_of(error))
    return _go("/login") if origin_is_hidden else await _signed_in(request, user, HOME)


@router.post("/logout")
@pages.telling_errors
async def leave(request: Request) -> Response:
    check_same_site(request)
    services = services_of(request)
    if secret := request.cookies.get(cookie_name(services.rules)):
        async with services.storage.write() as uow:
            await identity.close_session(uow, secret)
    response = _go("/login")
    take_cookie(response, services.rules)
    return response


async def _enter_by_link(request: Request, code: str) -> Response:
    if not _is_opened_by_hand(request):
        raise CrossSite("This link signs you in, so it must not be opened from another page. Copy it into the address bar.")
    async with services_of(request).storage.write() as uow:
        user = await identity.use_link(uow, code, LinkPurpose.SIGN_IN)
        secret = await _new_session(uow, request, user)
    return _entered(request, secret, HOME)


async def _signed_in(request: Request, user: User, after: str) -> Response:
    async with services_of(request).storage.write() as uow:
        secret = await _new_session(uow, request, user)
    return _entered(request, secret, after)


async def _new_session(uow: UnitOfWork, request: Request, user: User) -> str:
    """In place of the one that the browser may have: a cookie that somebody planted before is worth nothing."""
    if old := request.cookies.get(cookie_name(services_of(request).rules)):
        await identity.close_session(uow, old)
    return await identity.open_session(uow, user)


def _entered(request: Request, secret: str, after: str) -> Response:
    response = _go(after)
    give_cookie(response, secret, services_of(request).rules)
    return response


async def _form(request: Request) -> Mapping[str, str]:
    async with request.form(max_files=0, max_fields=_MAX_FIELDS) as form:
        return {name: value for name, value in form.items() if isinstance(value, str)}


def _local(path: str) -> str:
    """A path of this site to go to, whatever came."""
    is_good = _LOCAL_PATH.fullmatch(path) and not path.startswith(_NEVER_NEXT)
    return path if is_good else HOME


def _go(path: str) -> Response:
    return RedirectResponse(path, status_code=303, headers={"Cache-Control": "no-store"})


def _is_opened_by_hand(request: Request) -> bool:
    """Not from another site, which could sign people in as somebody else, and not by a browser that looks ahead."""
    looks_ahead = "prefetch" in request.headers.get("sec-purpose", "")
    return not looks_ahead and request.headers.get("sec-fetch-site", "none") in ("none", "same-origin")


def _origin_is_hidden(request: Request) -> bool:
    """Over plain http, browsers say nothing of the origin of a form on a page with `no-referrer`.

    Who has the code may set the password all the same, but is not signed in by that: it could be another site that signs people in as
    somebody else.
    """
    return "sec-fetch-site" not in request.headers and request.headers.get("origin") == "null"
