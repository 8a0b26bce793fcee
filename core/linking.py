"""One person, one user: the accounts that somebody has on chat platforms, linked with the user that they are here.

Whoever writes on a chat platform for the first time becomes a *provisional* user (`identity.meet`). Linking joins it into the user that the
person is already: by a private link that they confirm while signed in, by a code that they type on the platform, or because the operator's
map says so. Unlinking lets the account begin anew.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from core import bindings, identity
from core.access import Principal
from core.errors import Conflict, NotAuthenticated, NotConfirmed, NotFound
from core.events import ConversationChanged, TaskChanged
from core.models import Account, Identity, LinkPurpose, User
from core.ports import Storage, UnitOfWork

LIFETIME = timedelta(minutes=10)
"""Of a link and of a code."""
PeopleMap = Mapping[tuple[str, str, str], str]
"""Whose an account is, as the operator says it: surface, account and the person's id there, to a user's name."""
_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""Of codes: nothing that reads like something else."""
_CODE_LENGTH = 8
_TOLD = 50
"""Conversations that open pages are told of, as many as a list begins with."""
_LINKED = "This account is linked already. Unlink it first: type /link off where you write with it."
_BY_OPERATOR = "Whoever runs Onethread says whose account this is. Ask them to change it."
_WRONG_CODE = "This code is wrong, too old, or was used already. Make a new one on the page, under Settings."
_MEANWHILE = "This account became somebody else's at this moment. Look again."
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    text: str
    """As it is typed: `ABCD-EFGH`."""
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Who an account is here."""

    user: User
    linked: bool
    """False for a provisional user, which nobody but this account is."""
    by_operator: bool
    """Whether the operator's map says so, so that nobody else can change it."""


# --- by a link, which is made on the platform and confirmed on the page ---------------------------------------------------


async def begin(uow: UnitOfWork, account: Account, external_id: str, people: PeopleMap) -> str:
    """The secret of `<PUBLIC_URL>/link/<secret>`, for this person's eyes only; an earlier one stops working.

    Raises Conflict where the account is linked already, and NotFound for somebody who never came.
    """
    found = await _account(uow, account, external_id)
    await _check_unlinked(uow, found)
    if _mapped_name(found, people):
        raise Conflict(_BY_OPERATOR)
    return await _make(uow, found.user_id, LinkPurpose.LINK_ACCOUNT, secrets.token_urlsafe(32))


async def peek(uow: UnitOfWork, principal: Principal, secret: str, people: PeopleMap) -> Identity:
    """Which account the link would make the caller's. It still works afterwards; raises what `confirm` would."""
    _require_signed_in(principal)
    found = await _of_link(uow, secret)
    await _check_joinable(uow, found, await identity.user_of(uow, principal), people)
    return found


async def confirm(uow: UnitOfWork, principal: Principal, secret: str, people: PeopleMap) -> Identity:
    """The account is the caller's from now on: whoever writes with it acts as the caller.

    Raises NotAuthenticated for a link that was used or is too old, and for a personal token; Conflict where the account is linked already,
    or something that was asked with it is not answered yet: then the link goes on working.
    """
    _require_signed_in(principal)
    found = await _of_link(uow, secret)
    into = await _hold(uow, found, principal.user_id)
    await _check_joinable(uow, found, into, people)
    await identity.use_link(uow, secret, LinkPurpose.LINK_ACCOUNT)
    return await _join(uow, found, into, by="link")


async def _of_link(uow: UnitOfWork, secret: str) -> Identity:
    provisional = await identity.peek_link(uow, secret, LinkPurpose.LINK_ACCOUNT)
    accounts = await uow.identities.of_user(provisional.id)
    if len(accounts) != 1:
        raise Conflict(_LINKED)
    return accounts[0]


# --- by a code, which is made on the page or by the command, and typed on the platform --------------------------------------


async def code(uow: UnitOfWork, principal: Principal) -> Code:
    """For `/link ABCD-EFGH`; an earlier one stops working. Raises NotAuthenticated for a personal token."""
    _require_signed_in(principal)
    letters = "".join(secrets.choice(_ALPHABET) for _ in range(_CODE_LENGTH))
    await _make(uow, principal.user_id, LinkPurpose.ACCOUNT_CODE, letters)
    return Code(text=f"{letters[:4]}-{letters[4:]}", expires_at=uow.now + LIFETIME)


async def use_code(storage: Storage, account: Account, external_id: str, text: str, people: PeopleMap, *, confirmed: bool = False) -> User:
    """Makes the account that of the user whose code it is, and gives that user.

    Unless it is `confirmed` it only raises NotConfirmed, with a sentence that says whose code it is, and the code goes on working. Raises
    NotAuthenticated for a wrong code, RateLimited after too many, and Conflict as `confirm` does.
    """
    where = f"{account.surface}\0{account.id}"
    who = identity.sha256(f"{where}\0{external_id}")
    await identity.count_attempt(storage, identity.sha256(where), who)
    typed = "".join(letter for letter in text.upper() if letter in _ALPHABET)
    async with storage.write() as uow:
        found = await _account(uow, account, external_id)
        try:
            into = await identity.peek_link(uow, typed, LinkPurpose.ACCOUNT_CODE)
        except NotAuthenticated:
            raise NotAuthenticated(_WRONG_CODE) from None
        into = await _hold(uow, found, into.id)
        await _check_joinable(uow, found, into, people)
        if not confirmed:
            raise NotConfirmed(_warning(into))
        await identity.use_link(uow, typed, LinkPurpose.ACCOUNT_CODE)
        await _join(uow, found, into, by="code")
        await uow.sign_in_attempts.forget(who)
    return into


# --- what is linked ---------------------------------------------------------------------------------------------------------


async def standing(uow: UnitOfWork, account: Account, external_id: str, people: PeopleMap) -> Standing:
    """Raises NotFound for somebody who never came, and NotAuthenticated for a user who is disabled."""
    found = await _account(uow, account, external_id)
    user = await identity.let_in(uow, found)
    return Standing(user=user, linked=not await _is_provisional(uow, found), by_operator=bool(_mapped_name(found, people)))


async def accounts_of(uow: UnitOfWork, principal: Principal) -> list[Identity]:
    """The caller's, by surface, account and id."""
    return await uow.identities.of_user(principal.user_id)


async def unlink(uow: UnitOfWork, principal: Principal, account: Account, external_id: str, people: PeopleMap) -> None:
    """Takes one of the caller's accounts away from them; what was said with it stays. Whoever writes with it is somebody new.

    Raises NotFound for other people's, NotAuthenticated for a personal token, and Conflict where the operator's map links it, or where it
    is all that the caller has.
    """
    _require_signed_in(principal)
    await uow.users.hold(principal.user_id)
    found = await uow.identities.get(account, external_id)
    if found is None or found.user_id != principal.user_id:
        raise NotFound("You have no such account here. See yours under Settings, or with: onethread link list")
    await _unlink(uow, found, people)


async def unlink_account(uow: UnitOfWork, account: Account, external_id: str, people: PeopleMap) -> User:
    """The same, by the person who writes with the account. Gives whose it was."""
    found = await _account(uow, account, external_id)
    user = await uow.users.hold(found.user_id)
    if user is None or await uow.identities.get(account, external_id) != found:
        raise Conflict(_MEANWHILE)
    await _unlink(uow, found, people)
    return user


async def _unlink(uow: UnitOfWork, found: Identity, people: PeopleMap) -> None:
    if _mapped_name(found, people):
        raise Conflict(_BY_OPERATOR)
    if await _is_provisional(uow, found):
        raise Conflict("This account is not linked with anybody.")
    await bindings.leave_direct(uow, found.user_id, _platform(found))
    await uow.identities.remove(_platform(found), found.external_id)
    _log.info("account.unlinked", surface=found.surface, user_id=str(found.user_id))


# --- on contact ---------------------------------------------------------------------------------------------------------------


async def known(uow: UnitOfWork, account: Account, external_id: str, people: PeopleMap) -> tuple[User, Identity] | None:
    """Who this person is; None where `meet` has to settle that. Raises NotAuthenticated for a user who is disabled."""
    found = await uow.identities.get(account, external_id)
    mapped = await _mapped(uow, account, external_id, people)
    if found is None or (mapped and mapped.id != found.user_id):
        return None
    return await identity.let_in(uow, found), found


async def meet(uow: UnitOfWork, account: Account, external_id: str, name: str, people: PeopleMap) -> tuple[User, Identity]:
    """Like `known`; whoever comes for the first time becomes the user that the operator's map names, or else a provisional one.

    A provisional user whose questions are not all answered yet stays who they are, until they come the next time. Raises Conflict as
    `identity.meet` does: do it again.
    """
    mapped = await _mapped(uow, account, external_id, people)
    if mapped is None:
        return await identity.meet(uow, account, external_id, name, reserved=people.values())
    if mapped.disabled_at is not None:
        raise NotAuthenticated(identity.NOT_LET_IN)
    found = await uow.identities.get(account, external_id)
    if found is None:
        return mapped, await identity.add_account(uow, account, external_id, name, mapped, linked_at=uow.now)
    if found.user_id != mapped.id:
        found = await _give(uow, found, mapped)
    return await identity.let_in(uow, found), found


async def _mapped(uow: UnitOfWork, account: Account, external_id: str, people: PeopleMap) -> User | None:
    """Who the operator says this is; None where they say nothing, or name somebody who is not here."""
    name = people.get((account.surface, account.id, external_id))
    return await uow.users.by_name(name) if name else None


async def _give(uow: UnitOfWork, found: Identity, mapped: User) -> Identity:
    """The operator's word counts, whosever the account was: a provisional user comes along, of anybody else only the account."""
    into = await _hold(uow, found, mapped.id)
    if not await _is_provisional(uow, found):
        _log.info("account.linked", surface=found.surface, user_id=str(into.id), was=str(found.user_id), by="operator")
        await bindings.leave_direct(uow, found.user_id, _platform(found))
        return await _link(uow, found, into)
    return found if await uow.users.is_busy(found.user_id) else await _join(uow, found, into, by="operator")


# --- what several of them need ------------------------------------------------------------------------------------------------


async def _join(uow: UnitOfWork, found: Identity, into: User, *, by: str) -> Identity:
    """The provisional user whose account it is becomes part of `into`; both are held."""
    if await uow.users.is_busy(found.user_id):
        raise Conflict("Something that was asked with this account is not answered yet. Wait for it or stop it, then do this again.")
    theirs = await uow.users.readable_by(found.user_id, limit=_TOLD)
    await uow.users.merge(found.user_id, into.id)
    for conversation_id in theirs:
        uow.emit(ConversationChanged(conversation_id=conversation_id))
    for task in await uow.tasks.of_conversations(theirs):
        uow.emit(TaskChanged(conversation_id=task.conversation_id, task_id=task.id))
    _log.info("account.linked", surface=found.surface, user_id=str(into.id), was=str(found.user_id), by=by)
    return await _link(uow, found, into)


async def _link(uow: UnitOfWork, found: Identity, into: User) -> Identity:
    await uow.identities.link(_platform(found), found.external_id, into.id, uow.now)
    return replace(found, user_id=into.id, linked_at=uow.now)


async def _check_joinable(uow: UnitOfWork, found: Identity, into: User, people: PeopleMap) -> None:
    if found.user_id == into.id:
        raise Conflict(f"This account is {into.name}'s already.")
    await _check_unlinked(uow, found)
    mapped = _mapped_name(found, people)
    if mapped and mapped.casefold() != into.name.casefold():
        raise Conflict(_BY_OPERATOR)


async def _check_unlinked(uow: UnitOfWork, found: Identity) -> None:
    await identity.let_in(uow, found)
    if not await _is_provisional(uow, found):
        raise Conflict(_LINKED)


async def _is_provisional(uow: UnitOfWork, found: Identity) -> bool:
    """Whether the account made its user, who can come by nothing else."""
    if found.linked_at is not None or len(await uow.identities.of_user(found.user_id)) > 1:
        return False
    user = await uow.users.get(found.user_id)
    return user is not None and not await identity.can_sign_in(uow, user)


async def _hold(uow: UnitOfWork, found: Identity, into: UUID) -> User:
    """Holds whose account it is and whose it shall be, and gives the latter.

    Admins first, then by id: two transactions that hold several users would else wait for each other.
    """
    users = [user for user in (await uow.users.get(found.user_id), await uow.users.get(into)) if user]
    held = {user.id: await uow.users.hold(user.id) for user in sorted(users, key=lambda user: (not user.admin, user.id))}
    user = held.get(into)
    if user is None or user.disabled_at is not None:
        raise NotAuthenticated(identity.NOT_LET_IN)
    return user


async def _account(uow: UnitOfWork, account: Account, external_id: str) -> Identity:
    found = await uow.identities.get(account, external_id)
    if found is None:
        raise NotFound("Nobody has written with this account yet.")
    return found


async def _make(uow: UnitOfWork, user_id: UUID, purpose: LinkPurpose, secret: str) -> str:
    """In place of an earlier one of this user for the same purpose."""
    user = await uow.users.hold(user_id)
    if user is None:
        raise Conflict(_MEANWHILE)
    await uow.links.remove_of(user.id, purpose)
    await identity.add_link(uow, user, purpose, secret, lifetime=LIFETIME)
    return secret


def _warning(into: User) -> str:
    return (
        f"This is a code of {into.name}. Whoever writes with this account will act as {into.name}, "
        "and what you said with it, in private too, becomes theirs. Only go on if that is you."
    )


def _require_signed_in(principal: Principal) -> None:
    """A personal token may do less than its owner, and so must not give away who its owner is."""
    if principal.token_id is not None:
        raise NotAuthenticated("A personal token cannot link accounts. Sign in, or get a token by: POST /api/auth/token")


def _mapped_name(found: Identity, people: PeopleMap) -> str:
    return people.get((found.surface, found.account, found.external_id), "")


def _platform(found: Identity) -> Account:
    return Account(surface=found.surface, id=found.account)
