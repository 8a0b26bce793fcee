"""What a link to a channel or thread of a chat platform says, and which place that is: on the account of a bot of ours."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from core import wording
from core.access import Principal
from core.errors import Conflict, InvalidInput
from core.models import Account, Place
from core.ports import UnitOfWork

_SERVED = timedelta(days=7)
"""An account that nobody has served for so long is one that was given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    surface: str
    account: str = ""
    """Empty where the link does not say it."""
    channel: str
    thread: str = ""
    """Empty for the channel itself."""


async def place(uow: UnitOfWork, principal: Principal, address: Address) -> Place:
    """On the account on which the person is linked. Raises Conflict where there is none, InvalidInput where it is another or unclear."""
    known = [each for each in await accounts_of(uow, principal) if each.surface == address.surface]
    return _place(address, known, wording.link_first(address.surface))


async def place_anywhere(uow: UnitOfWork, address: Address) -> Place:
    """On whichever account is served here: for who runs it. Raises as `place` does."""
    known = [each for each in await served(uow) if each.surface == address.surface]
    none = f"{wording.surface(address.surface)} is not served here. Set it up first: docs/{address.surface}.md tells how."
    return _place(address, known, none)


async def accounts_of(uow: UnitOfWork, principal: Principal) -> Sequence[Account]:
    """On which the person is known."""
    found = await uow.identities.of_user(principal.user_id)
    return list(dict.fromkeys(Account(surface=each.surface, id=each.account) for each in found))


async def served(uow: UnitOfWork) -> Sequence[Account]:
    """The accounts of all chat platforms that are set up."""
    return await uow.account_leases.accounts(uow.now - _SERVED)


def _place(address: Address, known: Sequence[Account], otherwise: str) -> Place:
    accounts = [each for each in known if address.account in ("", each.id)]
    name = wording.surface(address.surface)
    if not known:
        raise Conflict(otherwise)
    if not accounts:
        raise InvalidInput(f"The link is of another {name} than the one here.")
    if len(accounts) > 1:
        raise InvalidInput(f"There are several accounts of {name}, and the link does not say of which it is. Type `/task follow` there.")
    return Place(account=accounts[0], channel=address.channel, thread=address.thread)
