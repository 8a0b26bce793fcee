"""The command `/link`: whose an account of a chat platform is, said by whoever writes with it."""

import re

from bots.services import Services
from core import linking
from core.errors import InvalidInput, NotConfirmed
from core.models import Account

_CODE = re.compile(r"([A-Za-z0-9]{4}-?[A-Za-z0-9]{4})( confirm)?", re.IGNORECASE)
_MINUTES = round(linking.LIFETIME.total_seconds() / 60)
HOW_TO = "`/link` gives you a link to sign in by, `/link ABCD-EFGH` uses a code from Settings > Accounts, `/link off` undoes it."


async def answer(services: Services, account: Account, person: str, text: str) -> str:
    """What the person alone is told; `text` stands behind `/link`. They were admitted. Raises what is a sentence for them."""
    text = " ".join(text.split())
    if text.lower() == "off":
        return await _unlinked(services, account, person)
    if found := _CODE.fullmatch(text):
        return await _by_code(services, account, person, found[1], confirmed=bool(found[2]))
    if text:
        raise InvalidInput(f"This is no code. {HOW_TO}")
    return await _by_link(services, account, person)


async def _by_link(services: Services, account: Account, person: str) -> str:
    async with services.storage.write() as uow:
        standing = await linking.standing(uow, account, person, services.people_map)
        if standing.by_operator:
            return f"This account is {standing.user.name}'s here: an admin of Onethread says so."
        if standing.linked:
            return f"This account is linked with {standing.user.name}. `/link off` undoes that."
        secret = await linking.begin(uow, account, person, services.people_map)
    link = f"{services.url}/link/{secret}"
    return f"Show this to nobody: who opens it and signs in has this account. It works once, for {_MINUTES} minutes: {link}"


async def _by_code(services: Services, account: Account, person: str, code: str, *, confirmed: bool) -> str:
    try:
        user = await linking.use_code(services.storage, account, person, code, services.people_map, confirmed=confirmed)
    except NotConfirmed as question:
        raise NotConfirmed(f"{question} Then: `/link {code.upper()} confirm`") from None
    return f"This account is linked with {user.name} from now on. `/link off` undoes that."


async def _unlinked(services: Services, account: Account, person: str) -> str:
    async with services.storage.write() as uow:
        user = await linking.unlink_account(uow, account, person, services.people_map)
    return f"This account is not linked with {user.name} any more. What you said so far stays theirs; from now on you are somebody new."
