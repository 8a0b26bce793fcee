"""Passwords and the short tokens that they give, for programs."""

from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from core import identity
from web.credentials import JWT_LIFETIME, Caller, cookie_name, give_cookie, issue_jwt, take_cookie
from web.problems import documented
from web.schemas import Received
from web.services import services_of

router = APIRouter(prefix="/api/auth", tags=["identity"])


class SignIn(Received):
    name: str
    password: str


class AccessToken(BaseModel):
    access_token: str
    """Sent as `Authorization: Bearer ...`."""
    token_type: Literal["bearer"] = "bearer"  # noqa: S105  # how it is sent
    expires_in: int = Field(description="Seconds.")


class NewPassword(Received):
    current: str = Field("", description="The present password; without meaning for who has none yet.")
    new: str = Field(
        min_length=identity.MIN_PASSWORD, max_length=identity.MAX_PASSWORD, description="Not your name, and not nothing but spaces."
    )


@router.post("/token", responses=documented(401, 429))
async def create_access_token(request: Request, body: SignIn) -> AccessToken:
    """Exchange a name and a password for a token that is valid for 15 minutes."""
    services = services_of(request)
    address = request.client.host if request.client else ""
    user = await identity.sign_in(services.storage, services.passwords, body.name, body.password, address=address)
    token = issue_jwt(user, services.rules, services.clock.now())
    return AccessToken(access_token=token, expires_in=int(JWT_LIFETIME.total_seconds()))


@router.post("/password", status_code=204, responses=documented(409, 429))
async def change_password(request: Request, caller: Caller, body: NewPassword) -> Response:
    """Change your own password. All your sessions end, and tokens of `POST /api/auth/token`; a browser stays signed in by a new cookie."""
    services = services_of(request)
    user = await identity.change_password(services.storage, services.passwords, caller, body.current, body.new)
    response = Response(status_code=204)
    if "authorization" not in request.headers and cookie_name(services.rules) in request.cookies:
        async with services.storage.write() as uow:
            give_cookie(response, await identity.open_session(uow, user), services.rules)
    return response


@router.post("/sign-out-everywhere", status_code=204)
async def sign_out_everywhere(request: Request, caller: Caller) -> Response:
    """End all your sessions, in every browser, this one too, and take back links to set your password.

    Personal tokens stay; what `POST /api/auth/token` gave ends by itself.
    """
    services = services_of(request)
    async with services.storage.write() as uow:
        await identity.sign_out_everywhere(uow, caller)
    response = Response(status_code=204)
    take_cookie(response, services.rules)
    return response
