"""What a pressed button does. Who pressed it may do no more than anywhere else: the core decides, and the button's value is not trusted."""

from uuid import UUID

from bots.people import NO_DATABASE
from bots.services import Services
from bots.surface import Action
from core import approvals, messages, turns
from core.access import Principal
from core.errors import InvalidInput, OnethreadError, StorageUnavailable
from core.models import Decision
from core.ports import UnitOfWork

_NOTHING = "This button does not work any more."


async def press(services: Services, principal: Principal, action: Action, value: str, *, source: str) -> str:
    """Why nothing was done, for the person alone; empty where it was, which everybody sees."""
    try:
        async with services.storage.write() as uow:
            await _press(uow, principal, action, value, rules=services.posting, source=source)
    except StorageUnavailable:
        return NO_DATABASE
    except OnethreadError as error:
        return str(error)
    return ""


async def _press(uow: UnitOfWork, principal: Principal, action: Action, value: str, *, rules: messages.PostingRules, source: str) -> None:
    match action:
        case Action.STOP:
            await turns.cancel(uow, principal, _id(value))
        case Action.RETRY:
            await messages.retry(uow, principal, _id(value), rules=rules, source=source)
        case Action.APPROVE:
            await approvals.decide(uow, principal, _id(value), Decision.APPROVE)
        case Action.DENY:
            await approvals.decide(uow, principal, _id(value), Decision.DENY)
        case Action.ANSWER:
            question, _, number = value.partition(" ")
            option = await _option(uow, principal, _id(question), number)
            await messages.answer(uow, principal, _id(question), option, rules=rules, source=source)


async def _option(uow: UnitOfWork, principal: Principal, question: UUID, number: str) -> str:
    reply = await messages.get(uow, principal, question)
    options = reply.metadata.get("question", {}).get("options") or []
    if not number.isdecimal() or int(number) >= len(options):
        raise InvalidInput(_NOTHING)
    return str(options[int(number)])


def _id(value: str) -> UUID:
    try:
        return UUID(value)
    except ValueError:
        raise InvalidInput(_NOTHING) from None
