"""Users and their personal access tokens."""

import hashlib
import re
import secrets
from datetime import datetime, timedelta

from core.access import ALL_SCOPES, Principal
from core.errors import Conflict, InvalidInput, NotAuthenticated, NotFound
from core.ids import new_id
from core.models import Token, User
from core.ports import UnitOfWork

LOCAL_ADMIN = "admin"
SECRET_PREFIX = "ot_"  # noqa: S105  # how secrets begin, not one
_NAME = re.compile(r"[^\W_][\w.@-]{0,63}", re.UNICODE)


async def local_admin(uow: UnitOfWork) -> User:
    """The first admin; made on first use, so that one person at one machine needs no set-up."""
    admins = [user for user in await uow.users.all() if user.admin]
    return admins[0] if admins else await add_user(uow, LOCAL_ADMIN, admin=True)


async def add_user(uow: UnitOfWork, name: str, *, admin: bool = False) -> User:
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{name!r} is no user name: use 1-64 letters, digits and . @ _ - and begin with a letter or digit.")
    if await uow.users.by_name(name):
        raise Conflict(f"There is a user {name!r} already.")
    user = User(id=new_id(), name=name, admin=admin, created_at=uow.now)
    await uow.users.add(user)
    return user


async def user_named(uow: UnitOfWork, name: str) -> User:
    user = await uow.users.by_name(name)
    if user is None:
        raise NotFound(f"There is no user {name!r}. See them with: onethread user list")
    return user


def principal_of(user: User) -> Principal:
    return Principal(user_id=user.id, admin=user.admin)


async def create_token(uow: UnitOfWork, user: User, name: str, *, scopes: frozenset[str], lifetime: timedelta | None) -> tuple[Token, str]:
    """The token and its secret, which is shown now and never again."""
    if unknown := scopes - ALL_SCOPES:
        raise InvalidInput(f"Unknown scope {min(unknown)!r}. Scopes: {', '.join(sorted(ALL_SCOPES))}.")
    if "admin" in scopes and not user.admin:
        raise InvalidInput(f"{user.name!r} is no admin, so a token of theirs cannot have the scope 'admin'.")
    if not name.strip() or len(name) > 100:
        raise InvalidInput("A token's name has 1-100 characters.")
    if any(token.name == name and _usable(token, uow.now) for token in await uow.tokens.of_user(user.id)):
        raise Conflict(f"{user.name} has a token {name!r} already. Revoke it first or choose another name.")
    secret = SECRET_PREFIX + secrets.token_urlsafe(32)
    expires_at = uow.now + lifetime if lifetime else None
    token = Token(
        id=new_id(),
        user_id=user.id,
        name=name,
        scopes=scopes,
        created_at=uow.now,
        expires_at=expires_at,
        revoked_at=None,
    )
    await uow.tokens.add(token, _sha256(secret))
    return token, secret


async def revoke_token(uow: UnitOfWork, user: User, name: str) -> None:
    usable = [token for token in await uow.tokens.of_user(user.id) if token.name == name and token.revoked_at is None]
    if not usable:
        raise NotFound(f"{user.name} has no token {name!r}. See them with: onethread token list")
    for token in usable:
        await uow.tokens.revoke(token.id, uow.now)


async def authenticate(uow: UnitOfWork, secret: str) -> Principal:
    """Who holds this token, with the token's scopes only."""
    token = await uow.tokens.by_sha256(_sha256(secret))
    user = await uow.users.get(token.user_id) if token and _usable(token, uow.now) else None
    if token is None or user is None:
        raise NotAuthenticated("This token is unknown, expired or revoked. Create one: onethread token create NAME")
    return Principal(user_id=user.id, admin=user.admin and "admin" in token.scopes, scopes=token.scopes)


def _usable(token: Token, now: datetime) -> bool:
    return token.revoked_at is None and (token.expires_at is None or token.expires_at > now)


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
