"""Who calls: a browser with a session cookie, or a program with a personal token or a JWT. All of them become a Principal."""

from datetime import UTC, datetime, timedelta
from typing import Annotated
from urllib.parse import urlsplit
from uuid import UUID

import jwt
from fastapi import Depends, Request, Response
from fastapi.security import APIKeyCookie, HTTPBearer
from starlette.requests import HTTPConnection

from core import identity
from core.access import Principal
from core.errors import NotAuthenticated, OnethreadError
from core.models import User
from core.ports import UnitOfWork
from web.services import Services, WebRules, services_of

JWT_LIFETIME = timedelta(minutes=15)
_ALGORITHM = "HS256"
_AUDIENCE = "onethread-api"
_ISSUER = "onethread"
_PASSWORD = "password_set_at"  # noqa: S105  # a claim's name
_TOKEN = HTTPBearer(scheme_name="token", auto_error=False, description="A personal token (`ot_...`), or one of POST /api/auth/token.")
_SESSION = APIKeyCookie(
    name="onethread_sid", scheme_name="session", auto_error=False, description="A browser's, after it signed in at /login."
)
"""These two describe; `principal_of` decides."""
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class CrossSite(OnethreadError):
    """Another web site sent this request with your cookie. Open the page itself and try again."""

    code = "FORBIDDEN"


async def caller(connection: HTTPConnection) -> Principal:
    """Raises NotAuthenticated, and CrossSite where another site makes a browser act."""
    services = services_of(connection)
    async with services.storage.read() as uow:
        return await principal_of(uow, connection, services)


async def _signed_in(
    request: Request, _token: Annotated[object, Depends(_TOKEN)] = None, _session: Annotated[object, Depends(_SESSION)] = None
) -> Principal:
    return await caller(request)


Caller = Annotated[Principal, Depends(_signed_in)]
"""The parameter of a route that only signed-in callers may use."""


async def principal_of(uow: UnitOfWork, connection: HTTPConnection, services: Services) -> Principal:
    scheme, _, credential = connection.headers.get("authorization", "").partition(" ")
    if scheme:
        if scheme.lower() != "bearer":
            raise NotAuthenticated("Send the token as: Authorization: Bearer ot_...")
        return await of_bearer(uow, credential.strip(), services.rules)
    secret = connection.cookies.get(cookie_name(services.rules))
    if not secret:
        raise NotAuthenticated("Sign in, or send a token as: Authorization: Bearer ot_...")
    if connection.scope["type"] == "http" and connection.scope["method"] not in _SAFE_METHODS:
        check_same_site(connection)
    principal = await identity.of_session(uow, secret)
    if _page_of(connection) not in (None, str(principal.user_id)):
        raise NotAuthenticated("Somebody else signed in with this browser since. Sign in again as yourself.")
    return principal


def _page_of(connection: HTTPConnection) -> str | None:
    """Whose page asks. A browser has one cookie for all its tabs, those too that somebody left open who was signed in before."""
    if connection.scope["type"] == "websocket":
        return connection.query_params.get("user")  # a page cannot give it headers
    return connection.headers.get("x-onethread-user")


async def of_bearer(uow: UnitOfWork, credential: str, rules: WebRules) -> Principal:
    """Who holds this personal token or JWT. Raises NotAuthenticated."""
    if credential.startswith(identity.SECRET_PREFIX):
        return await identity.authenticate(uow, credential)
    try:
        claims = jwt.decode(
            credential,
            rules.secret_key,
            algorithms=[_ALGORITHM],
            audience=_AUDIENCE,
            issuer=_ISSUER,
            options={"require": ["exp", "iat", "sub", "iss", "aud", _PASSWORD], "verify_exp": False, "verify_iat": False},
        )
        user_id, expires_at = UUID(claims["sub"]), datetime.fromtimestamp(claims["exp"], UTC)
        password_set_at = datetime.fromisoformat(claims[_PASSWORD]) if claims[_PASSWORD] else None
    except (jwt.InvalidTokenError, ValueError, TypeError, OverflowError):
        raise NotAuthenticated("This token is unknown, expired or revoked.") from None
    if expires_at <= uow.now:
        raise NotAuthenticated("This token has expired. Get a new one: POST /api/auth/token")
    return await identity.of_user(uow, user_id, password_set_at=password_set_at)


def check_same_site(connection: HTTPConnection) -> None:
    """A browser says where a request comes from; a cookie counts only from our own page."""
    fetch_site = connection.headers.get("sec-fetch-site")
    if fetch_site is not None:
        if fetch_site not in ("same-origin", "none"):
            raise CrossSite(CrossSite.__doc__)
        return
    if not is_our_origin(connection, services_of(connection).rules):
        raise CrossSite(CrossSite.__doc__)


def is_our_origin(connection: HTTPConnection, rules: WebRules) -> bool:
    """Whether a browser says that the page is ours which makes the request."""
    origin = connection.headers.get("origin", "")
    if origin == rules.public_url:
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    schemes = ("https",) if rules.secure else ("http", "https")
    return parts.scheme in schemes and parts.netloc == connection.headers.get("host")


def cookie_name(rules: WebRules) -> str:
    """By the prefix a browser knows that the cookie came from this host, over https."""
    return "__Host-onethread_sid" if rules.secure else "onethread_sid"


def give_cookie(response: Response, secret: str, rules: WebRules) -> None:
    """Signs the browser in that gets this answer, with a secret of `identity.open_session`."""
    lifetime = int(identity.SESSION_LIFETIME.total_seconds())
    response.set_cookie(cookie_name(rules), secret, max_age=lifetime, path="/", secure=rules.secure, httponly=True, samesite="lax")


def take_cookie(response: Response, rules: WebRules) -> None:
    response.delete_cookie(cookie_name(rules), path="/", secure=rules.secure, httponly=True, samesite="lax")


def issue_jwt(user: User, rules: WebRules, now: datetime) -> str:
    """Valid for JWT_LIFETIME, and no longer than the user's password."""
    claims = {"sub": str(user.id), "iss": _ISSUER, "aud": _AUDIENCE, "iat": now, "exp": now + JWT_LIFETIME, _PASSWORD: _since(user)}
    return jwt.encode(claims, rules.secret_key, algorithm=_ALGORITHM)


def _since(user: User) -> str:
    """Names the password by the moment at which it was set: servers' clocks may differ, so nothing is compared with this one's."""
    return user.password_set_at.isoformat() if user.password_set_at else ""
