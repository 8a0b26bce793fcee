"""Who somebody is: users, how they sign in (password, one-time link, session, JWT), and their personal access tokens.

Secrets are made here and never stored: the database has their sha256, and passwords as the slow hash of a PasswordHasher.
"""

import hashlib
import ipaddress
import re
import secrets
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from core import bindings
from core.access import ALL_SCOPES, Principal, require_admin
from core.errors import Conflict, InvalidInput, NotAuthenticated, NotFound, RateLimited
from core.ids import new_id
from core.models import Account, Identity, Link, LinkPurpose, Session, SignInAttempt, Token, User
from core.ports import PasswordHasher, Storage, UnitOfWork
from core.text import clean, clip

LOCAL_ADMIN = "admin"
SECRET_PREFIX = "ot_"  # noqa: S105  # how secrets begin, not one
SESSION_LIFETIME = timedelta(days=14)
PASSWORD_LINK_LIFETIME = timedelta(days=7)
USUAL_SCOPES = frozenset({"tasks:read", "tasks:write", "chat"})
"""Of a token for which nobody says which."""
MIN_PASSWORD, MAX_PASSWORD = 10, 1_000
"""Characters."""
MAX_TOKENS = 100
"""Usable ones of one user."""
ATTEMPTS_PER_NAME, ATTEMPTS_PER_ADDRESS = 5, 30
"""At signing in, from one address, in a minute."""
_MINUTE = timedelta(minutes=1)
_IPV6_HOME = 64
"""Bits that one household or server has to itself: all of its addresses count as one."""
_NAME = re.compile(r"[^\W_][\w.@-]{0,63}", re.UNICODE)
_FOREIGN_TO_NAMES = re.compile(r"[^\w.@-]+", re.UNICODE)
_MAX_DISPLAY_NAME = 200
_MAX_NAME_BASE = 56
"""Characters that leave room for a number."""
_WRONG = "The name or the password is wrong."
NOT_LET_IN = "You are not let in here any more. Ask an admin of Onethread."
_SIGN_IN_AGAIN = "You are not signed in any more. Sign in again."
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class UserPage:
    users: tuple[User, ...]
    next_cursor: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """By which somebody sets their password, once, until then."""

    user: User
    secret: str
    expires_at: datetime


# --- users -----------------------------------------------------------------------------------------------------------


async def local_admin(uow: UnitOfWork) -> User:
    """The first admin; made on first use, so that one person at one machine needs no set-up."""
    admins = [user for user in await uow.users.all() if user.admin and user.disabled_at is None]
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


async def can_sign_in(uow: UnitOfWork, user: User) -> bool:
    """Whether they can come by other ways than a chat platform: as an admin, by a password, or by a personal token."""
    return user.admin or user.password_set_at is not None or any(_usable(token, uow.now) for token in await uow.tokens.of_user(user.id))


def principal_of(user: User) -> Principal:
    return Principal(user_id=user.id, admin=user.admin)


async def user_of(uow: UnitOfWork, principal: Principal) -> User:
    """Raises NotAuthenticated for somebody who is disabled or gone."""
    return await _enabled(uow, principal.user_id)


async def disable(uow: UnitOfWork, user: User) -> User:
    """From now on nobody acts as this user, nor reads along: sessions and links end, tokens and JWTs are refused, nothing is shown in their
    direct messages. Raises Conflict for the last admin.
    """
    await _keep_an_admin(uow, user)
    held = await _held(uow, user.id)
    if held.disabled_at is not None:
        return held
    await uow.users.set_disabled(user.id, uow.now)
    await uow.sessions.remove_of(user.id)
    await uow.links.remove_of(user.id)
    await bindings.leave_direct(uow, user.id)
    return replace(held, disabled_at=uow.now)


async def enable(uow: UnitOfWork, user: User) -> User:
    """Lets somebody in again who was disabled, with the password and the tokens that they had."""
    held = await _held(uow, user.id)
    await uow.users.set_disabled(user.id, None)
    return replace(held, disabled_at=None)


async def make_admin(uow: UnitOfWork, user: User) -> User:
    held = await _held(uow, user.id)
    await uow.users.set_admin(user.id, True)
    return replace(held, admin=True)


async def make_member(uow: UnitOfWork, user: User) -> User:
    """An admin is none any more, from now on. Raises Conflict for the last admin."""
    await _keep_an_admin(uow, user)
    held = await _held(uow, user.id)
    await uow.users.set_admin(user.id, False)
    return replace(held, admin=False)


async def _keep_an_admin(uow: UnitOfWork, user: User) -> None:
    """Raises Conflict where without this user nobody would be an admin who may act as one."""
    admins = [admin.id for admin in await uow.users.hold_admins() if admin.disabled_at is None]
    if admins == [user.id]:
        raise Conflict(f"{user.name} is the last admin. Add another one first: onethread user add NAME --admin")


async def can_anybody_administer(uow: UnitOfWork) -> bool:
    """Whether an admin can sign in: has a password, or an open link to set one."""
    for user in await uow.users.all():
        if not user.admin or user.disabled_at is not None:
            continue
        if user.password_set_at is not None or await uow.links.has_open(user.id, LinkPurpose.SET_PASSWORD):
            return True
    return False


# --- what admins do about others -------------------------------------------------------------------------------------


async def directory(uow: UnitOfWork, principal: Principal, query: str = "", *, after: UUID | None = None, limit: int = 50) -> UserPage:
    """Everybody whose name contains `query`, disabled ones too, the first to come first; `next_cursor` is the `after` of the next page."""
    require_admin(principal, "see all users")
    found = await uow.users.everybody(query, after=after, limit=limit + 1)
    shown = tuple(found[:limit])
    return UserPage(users=shown, next_cursor=shown[-1].id if len(found) > limit else None)


async def invite(uow: UnitOfWork, principal: Principal, name: str, *, admin: bool = False) -> Invitation:
    """A new user, with the link by which they come in."""
    _require_signed_in_admin(principal, "add users")
    user = await add_user(uow, name, admin=admin)
    _log.info("user.added", user_id=str(user.id), admin=admin, by=str(principal.user_id))
    return await _invitation(uow, user)


async def invite_again(uow: UnitOfWork, principal: Principal, user_id: UUID) -> Invitation:
    """Another link for somebody who lost theirs or forgot the password, which counts until the link is used.

    Raises Conflict for oneself: who sits at a session that an admin left open would get around the present password.
    """
    _require_signed_in_admin(principal, "make links for others")
    if user_id == principal.user_id:
        raise Conflict("You cannot make a link for yourself. Change your password under Settings.")
    user = await _some_user(uow, user_id)
    _log.info("user.link_made", user_id=str(user_id), by=str(principal.user_id))
    return await _invitation(uow, user)


async def change_user(
    uow: UnitOfWork, principal: Principal, user_id: UUID, *, admin: bool | None = None, disabled: bool | None = None
) -> User:
    """Makes somebody an admin or a member, disables or enables them; None leaves it as it is.

    Raises Conflict for what admins would take from themselves, and for the last admin.
    """
    _require_signed_in_admin(principal, "change users")
    await uow.users.hold_admins()  # before the user, in whatever order both are needed below: else two of these could wait for each other
    user = await _some_user(uow, user_id)
    if user.id == principal.user_id and (admin is False or disabled):
        raise Conflict("You cannot take this from yourself, or you might be locked out. Another admin can.")
    if admin and not user.admin:
        user = await make_admin(uow, user)
    if admin is False and user.admin:
        user = await make_member(uow, user)
    if disabled is not None:
        user = await (disable if disabled else enable)(uow, user)
    _log.info("user.changed", user_id=str(user_id), admin=user.admin, disabled=user.disabled_at is not None, by=str(principal.user_id))
    return user


async def _invitation(uow: UnitOfWork, user: User) -> Invitation:
    secret = await create_link(uow, user, LinkPurpose.SET_PASSWORD, lifetime=PASSWORD_LINK_LIFETIME)
    return Invitation(user=user, secret=secret, expires_at=uow.now + PASSWORD_LINK_LIFETIME)


async def _some_user(uow: UnitOfWork, user_id: UUID) -> User:
    user = await uow.users.get(user_id)
    if user is None:
        raise NotFound(f"There is no user {user_id}.")
    return user


def _require_signed_in_admin(principal: Principal, may: str) -> None:
    """For what would outlive a personal token, or may do more than it: an admin's password, or a session, counts."""
    require_admin(principal, may)
    if principal.token_id is not None:
        raise NotAuthenticated(f"A personal token cannot {may}. Sign in, or get a token by: POST /api/auth/token")


# --- chat platforms --------------------------------------------------------------------------------------------------


async def of_account(uow: UnitOfWork, account: Account, external_id: str) -> User | None:
    """Who this person of a chat platform is; None for somebody who never came. Raises NotAuthenticated for a user who is disabled."""
    known = await uow.identities.get(account, external_id)
    return await let_in(uow, known) if known else None


async def meet(uow: UnitOfWork, account: Account, external_id: str, name: str, *, reserved: Collection[str] = ()) -> tuple[User, Identity]:
    """Like `of_account`; whoever comes for the first time becomes a new user, named after the platform's `name`, but never
    as one of `reserved` is.

    Raises Conflict where another process meets them, or somebody of the same name, at the same moment: do it again.
    """
    if known := await uow.identities.get(account, external_id):
        return await let_in(uow, known), known
    user = await add_user(uow, await _free_name(uow, name, frozenset(each.casefold() for each in reserved)))
    return user, await add_account(uow, account, external_id, name, user)


async def add_account(
    uow: UnitOfWork, account: Account, external_id: str, name: str, user: User, *, linked_at: datetime | None = None
) -> Identity:
    """Notes that this person of a chat platform is `user`. Raises Conflict where somebody else did at the same moment."""
    identity = Identity(
        surface=account.surface,
        account=account.id,
        external_id=external_id,
        user_id=user.id,
        name=clip(clean(name), _MAX_DISPLAY_NAME),
        created_at=uow.now,
        linked_at=linked_at,
    )
    await uow.identities.add(identity)
    return identity


async def let_in(uow: UnitOfWork, identity: Identity) -> User:
    """Whose account it is. Raises NotAuthenticated for a user who is disabled."""
    user = await uow.users.get(identity.user_id)
    if user is None or user.disabled_at is not None:
        raise NotAuthenticated(NOT_LET_IN)
    return user


async def _free_name(uow: UnitOfWork, display_name: str, reserved: Collection[str]) -> str:
    """A user's name that nobody has: what people call themselves elsewhere must never make them somebody who is here already."""
    base = _as_user_name(display_name)
    number, name = 1, base
    while name == LOCAL_ADMIN or name.casefold() in reserved or await uow.users.by_name(name):
        number += 1
        name = f"{base}-{number}"
    return name


def _as_user_name(display_name: str) -> str:
    """In small letters: the database alone keeps two that come at the same moment from getting one name, and it tells `A` from `a`."""
    plain = _FOREIGN_TO_NAMES.sub("-", unicodedata.normalize("NFKC", clean(display_name)).lower())
    return plain.strip("._@-")[:_MAX_NAME_BASE].rstrip("._@-") or "user"


# --- signing in ------------------------------------------------------------------------------------------------------


async def sign_in(storage: Storage, passwords: PasswordHasher, name: str, password: str, *, address: str) -> User:
    """Who has this name and this password. `address` is where the attempt comes from.

    Raises NotAuthenticated, with the same sentence after the same time whatever is wrong, and RateLimited after too many attempts. They
    are counted in the database before the password is looked at, so that no number of processes or simultaneous attempts gets around it.
    """
    name = unicodedata.normalize("NFC", name.strip())
    origin = _network(address)
    who = sha256(f"{origin}\0{name.casefold()}")
    await count_attempt(storage, sha256(origin), who)
    async with storage.read() as uow:
        user = await uow.users.by_name(name)
        hashed = await uow.users.password_hash(user.id if user else new_id())
    may_enter = user is not None and user.disabled_at is None and len(password) <= MAX_PASSWORD
    is_right = await passwords.verify(_normal(password[:MAX_PASSWORD]), hashed if may_enter else None)
    if user is None or not is_right:
        raise NotAuthenticated(_WRONG)
    async with storage.write() as uow:
        await uow.sign_in_attempts.forget(who)
    return user


async def open_session(uow: UnitOfWork, user: User) -> str:
    """The secret for a browser's cookie, valid for SESSION_LIFETIME.

    Raises NotAuthenticated where `user` is not as it was when it signed in: disabled, or with another password.
    """
    held = await uow.users.hold(user.id)
    if held is None or held.disabled_at is not None or held.password_set_at != user.password_set_at:
        raise NotAuthenticated(_SIGN_IN_AGAIN)
    secret = secrets.token_urlsafe(32)
    session = Session(id=new_id(), user_id=user.id, created_at=uow.now, expires_at=uow.now + SESSION_LIFETIME)
    await uow.sessions.add(session, sha256(secret))
    return secret


async def of_session(uow: UnitOfWork, secret: str) -> Principal:
    session = await uow.sessions.by_sha256(sha256(secret))
    if session is None or session.expires_at <= uow.now:
        raise NotAuthenticated(_SIGN_IN_AGAIN)
    return principal_of(await _enabled(uow, session.user_id))


async def close_session(uow: UnitOfWork, secret: str) -> None:
    """Signs the browser out; one that was signed out already stays so."""
    await uow.sessions.remove(sha256(secret))


async def sign_out_everywhere(uow: UnitOfWork, principal: Principal) -> None:
    """Ends all sessions of the caller, and takes back links for them that were not used.

    Raises NotAuthenticated for a personal token, which may do less than a session.
    """
    if principal.token_id is not None:
        raise NotAuthenticated("A personal token cannot end sessions. Sign in, or get a token by: POST /api/auth/token")
    await uow.users.hold(principal.user_id)  # one that is being opened ends, too, or begins after this
    await uow.sessions.remove_of(principal.user_id)
    await uow.links.remove_of(principal.user_id)


async def of_user(uow: UnitOfWork, user_id: UUID, *, password_set_at: datetime | None) -> Principal:
    """Who holds a JWT. It counts as long as the user has the password by which it was got: the one set at `password_set_at`."""
    user = await _enabled(uow, user_id)
    if user.password_set_at != password_set_at:
        raise NotAuthenticated("The password was changed since this token was made. Get a new one: POST /api/auth/token")
    return principal_of(user)


# --- one-time links --------------------------------------------------------------------------------------------------


async def create_link(uow: UnitOfWork, user: User, purpose: LinkPurpose, *, lifetime: timedelta) -> str:
    """The code for a link that works once, within `lifetime`."""
    secret = secrets.token_urlsafe(32)
    await add_link(uow, user, purpose, secret, lifetime=lifetime)
    return secret


async def add_link(uow: UnitOfWork, user: User, purpose: LinkPurpose, secret: str, *, lifetime: timedelta) -> None:
    """Lets `secret` be such a code."""
    held = await _held(uow, user.id)
    if held.disabled_at is not None:
        raise Conflict(f"{user.name} is disabled. Enable them first: onethread user enable {user.name}")
    link = Link(id=new_id(), user_id=user.id, purpose=purpose, created_at=uow.now, expires_at=uow.now + lifetime)
    await uow.links.add(link, sha256(secret))


async def peek_link(uow: UnitOfWork, secret: str, purpose: LinkPurpose) -> User:
    """Whom the link is for. It still works afterwards."""
    link = await uow.links.by_sha256(sha256(secret))
    return await _user_of(uow, link if link and link.purpose == purpose else None)


async def use_link(uow: UnitOfWork, secret: str, purpose: LinkPurpose) -> User:
    """Whom the link is for. It does not work a second time, also where two use it at the same moment."""
    if link := await uow.links.by_sha256(sha256(secret)):
        await uow.users.hold(link.user_id)  # before the link, as whoever disables the user does: else the two would wait for each other
    return await _user_of(uow, await uow.links.take(sha256(secret), purpose))


# --- passwords -------------------------------------------------------------------------------------------------------


async def set_password_by_link(storage: Storage, passwords: PasswordHasher, secret: str, password: str) -> User:
    """Uses the link up; a password that breaks the rules does not. All sessions and links of the user end."""
    async with storage.read() as uow:
        user = await peek_link(uow, secret, LinkPurpose.SET_PASSWORD)
    _check_password(password, user)
    hashed = await passwords.hash(_normal(password))
    async with storage.write() as uow:
        return await _set_password(uow, await use_link(uow, secret, LinkPurpose.SET_PASSWORD), hashed)


async def change_password(storage: Storage, passwords: PasswordHasher, principal: Principal, current: str, new: str) -> User:
    """Somebody's own. Who has none yet sets the first one, and `current` does not matter. All their sessions and links end.

    Raises NotAuthenticated for a wrong `current` and for a personal token, which may do less than its owner; RateLimited after too many
    attempts; Conflict where the password is changed elsewhere at the same moment.
    """
    if principal.token_id is not None:
        raise NotAuthenticated("A personal token cannot change a password. Sign in, or get a token by: POST /api/auth/token")
    async with storage.read() as uow:
        user = await user_of(uow, principal)
        hashed = await uow.users.password_hash(user.id)
    _check_password(new, user)
    if hashed is not None:
        await _prove(storage, passwords, user, current, hashed)
    new_hash = await passwords.hash(_normal(new))
    async with storage.write() as uow:
        held = await _held(uow, user.id)
        if held.disabled_at != user.disabled_at or held.password_set_at != user.password_set_at:
            raise Conflict("The password was changed somewhere else at this moment. Sign in with that one.")
        return await _set_password(uow, held, new_hash)


async def _prove(storage: Storage, passwords: PasswordHasher, user: User, password: str, hashed: str) -> None:
    who = sha256(f"\0{user.id}")
    await count_attempt(storage, who, who)
    if len(password) > MAX_PASSWORD or not await passwords.verify(_normal(password), hashed):
        raise NotAuthenticated("The present password is wrong.")
    async with storage.write() as uow:
        await uow.sign_in_attempts.forget(who)


async def _set_password(uow: UnitOfWork, user: User, hashed: str) -> User:
    await uow.users.set_password(user.id, hashed, uow.now)
    await uow.sessions.remove_of(user.id)
    await uow.links.remove_of(user.id)
    return replace(user, password_set_at=uow.now)


def _check_password(password: str, user: User) -> None:
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise InvalidInput(f"A password has {MIN_PASSWORD}-{MAX_PASSWORD:,} characters.")
    if clean(password) != password:
        raise InvalidInput("The password holds a character that is none. Choose another one.")
    if not password.strip():
        raise InvalidInput("A password of nothing but spaces is too easy to guess. Choose another one.")
    if _normal(password).casefold() == user.name.casefold():
        raise InvalidInput("Your name is too easy to guess as a password. Choose another one.")


def _normal(password: str) -> str:
    """The same characters however a keyboard composes them."""
    return unicodedata.normalize("NFC", clean(password))


# --- personal tokens -------------------------------------------------------------------------------------------------


async def create_token(uow: UnitOfWork, user: User, name: str, *, scopes: frozenset[str], lifetime: timedelta | None) -> tuple[Token, str]:
    """The token and its secret, which is shown now and never again."""
    if unknown := scopes - ALL_SCOPES:
        raise InvalidInput(f"Unknown scope {min(unknown)!r}. Scopes: {', '.join(sorted(ALL_SCOPES))}.")
    if "admin" in scopes and not user.admin:
        raise InvalidInput(f"{user.name!r} is no admin, so a token of theirs cannot have the scope 'admin'.")
    if not name.strip() or len(name) > 100:
        raise InvalidInput("A token's name has 1-100 characters.")
    await uow.users.hold(user.id)  # one token after the other: the name must stay unique
    usable = [token for token in await uow.tokens.of_user(user.id) if _usable(token, uow.now)]
    if any(token.name == name for token in usable):
        raise Conflict(f"{user.name} has a token {name!r} already. Revoke it first or choose another name.")
    if len(usable) >= MAX_TOKENS:
        raise Conflict(f"{user.name} has {MAX_TOKENS} tokens already. Revoke one first.")
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
    await uow.tokens.add(token, sha256(secret))
    return token, secret


async def create_own_token(
    uow: UnitOfWork, principal: Principal, name: str, *, scopes: frozenset[str] | None, lifetime: timedelta | None
) -> tuple[Token, str]:
    """Like `create_token`, for the caller, and never more than the caller has: in scopes, nor in time where a token makes a token.

    Without `scopes` it gets the usual ones, as far as the caller has them.
    """
    user = await user_of(uow, principal)
    scopes = USUAL_SCOPES & principal.scopes if scopes is None else scopes
    if not scopes:
        raise InvalidInput(f"Name a scope, or the token may do nothing. Scopes: {', '.join(sorted(ALL_SCOPES))}.")
    if beyond := (scopes & ALL_SCOPES) - principal.scopes:
        raise InvalidInput(f"A token can only have scopes that you have now, and {min(beyond)!r} is not among them.")
    own = await _own_token(uow, principal)
    if own and own.expires_at and (lifetime is None or uow.now + lifetime > own.expires_at):
        raise InvalidInput(f"A token cannot make one that outlives it: it expires on {own.expires_at:%Y-%m-%d at %H:%M} UTC.")
    return await create_token(uow, user, name, scopes=scopes, lifetime=lifetime)


async def tokens_of(uow: UnitOfWork, principal: Principal) -> list[Token]:
    """The caller's own that are not revoked, the oldest first."""
    return [token for token in await uow.tokens.of_user(principal.user_id) if token.revoked_at is None]


async def revoke_own_token(uow: UnitOfWork, principal: Principal, token_id: UUID) -> None:
    """Raises NotFound for other people's. A token can revoke what it could have made, itself included."""
    token = next((each for each in await tokens_of(uow, principal) if each.id == token_id), None)
    if token is None:
        raise NotFound("You have no such token. See yours: GET /api/tokens")
    if principal.token_id is not None and not token.scopes <= principal.scopes:
        raise NotAuthenticated("A token cannot revoke one that may do more than itself. Sign in, or use a token with more scopes.")
    await uow.tokens.revoke(token.id, uow.now)


async def revoke_token(uow: UnitOfWork, user: User, name: str) -> None:
    usable = [token for token in await uow.tokens.of_user(user.id) if token.name == name and token.revoked_at is None]
    if not usable:
        raise NotFound(f"{user.name} has no token {name!r}. See them with: onethread token list")
    for token in usable:
        await uow.tokens.revoke(token.id, uow.now)


async def authenticate(uow: UnitOfWork, secret: str) -> Principal:
    """Who holds this token, with the token's scopes only."""
    token = await uow.tokens.by_sha256(sha256(secret))
    user = await uow.users.get(token.user_id) if token and _usable(token, uow.now) else None
    if token is None or user is None or user.disabled_at is not None:
        raise NotAuthenticated("This token is unknown, expired or revoked. Create one: onethread token create NAME")
    # Whoever may change tasks is shown what they changed.
    scopes = token.scopes | {"tasks:read"} if "tasks:write" in token.scopes else token.scopes
    return Principal(user_id=user.id, admin=user.admin and "admin" in scopes, scopes=scopes, token_id=token.id)


# --- what several of them need ---------------------------------------------------------------------------------------


async def count_attempt(storage: Storage, address: str, who: str) -> None:
    """Notes that somebody is about to try a secret, or raises RateLimited. Both are hashes: of where they are, and who they are there."""
    async with storage.write() as uow:
        attempts = uow.sign_in_attempts
        await attempts.lock(address)
        limiting = (await attempts.nth_last_of(who, ATTEMPTS_PER_NAME), await attempts.nth_last_from(address, ATTEMPTS_PER_ADDRESS))
        free_at = max((at + _MINUTE for at in limiting if at is not None), default=uow.now)
        if free_at > uow.now:
            seconds = (free_at - uow.now).total_seconds()
            raise RateLimited(f"Too many attempts. Try again in {max(1, round(seconds))} seconds.", retry_after=seconds)
        await attempts.add(SignInAttempt(id=new_id(), address=address, who=who, at=uow.now))


def _network(address: str) -> str:
    """What counts as one address."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    if found.is_loopback:
        return "loopback"  # this machine has millions of such addresses
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    return str(ipaddress.ip_network((found, _IPV6_HOME), strict=False))


async def _held(uow: UnitOfWork, user_id: UUID) -> User:
    user = await uow.users.hold(user_id)
    if user is None:
        raise NotFound("There is no such user any more. See them with: onethread user list")
    return user


async def _enabled(uow: UnitOfWork, user_id: UUID) -> User:
    user = await uow.users.get(user_id)
    if user is None or user.disabled_at is not None:
        raise NotAuthenticated(_SIGN_IN_AGAIN)
    return user


async def _user_of(uow: UnitOfWork, link: Link | None) -> User:
    user = await uow.users.get(link.user_id) if link and link.expires_at > uow.now else None
    if user is None or user.disabled_at is not None:
        raise NotAuthenticated("This link was used already, or is too old. Ask for a new one.")
    return user


async def _own_token(uow: UnitOfWork, principal: Principal) -> Token | None:
    """The token that the caller showed."""
    return next((token for token in await uow.tokens.of_user(principal.user_id) if token.id == principal.token_id), None)


def _usable(token: Token, now: datetime) -> bool:
    return token.revoked_at is None and (token.expires_at is None or token.expires_at > now)


def sha256(secret: str) -> str:
    """As secrets are stored."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
