"""What a pressed button does. Who pressed it may do no more than anywhere else: the core decides, and the button's value is not trusted."""

from uuid import UUID

from bots.people import enter
from bots.services import Services
from bots.surface import Action
from core import approvals, messages, turns
from core.access import Principal
from core.errors import Conflict, InvalidInput, NotFound, OnethreadError
from core.models import Decision, Place
from core.ports import UnitOfWork

_NOTHING = "This button does not work any more."
_ENDED = "This answer has ended already."
_NOT_YOURS = "What this button is for is gone, or belongs to a conversation that you cannot see."


async def press(services: Services, principal: Principal, place: Place, action: Action, value: str, *, message: str = "") -> str:
    """Why nothing was done, for the person alone; empty where it was, which everybody sees.

    `place` is where the button stands, and `message` the remote message that has it, where a place may hold more than it shows.
    """
    source = place.account.surface
    try:
        async with services.storage.write() as uow:  # apart, so that it stays where nothing else is done
            await enter(uow, principal, place, message)
        async with services.storage.write() as uow:
            await _press(uow, principal, action, value, rules=services.posting, source=source)
    except NotFound:
        return _NOT_YOURS
    except OnethreadError as error:
        return str(error)
    return ""


async def _press(uow: UnitOfWork, principal: Principal, action: Action, value: str, *, rules: messages.PostingRules, source: str) -> None:
    match action:
        case Action.STOP:
            await _stop(uow, principal, _id(value))
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


async def _stop(uow: UnitOfWork, principal: Principal, turn_id: UUID) -> None:
    before = await uow.turns.lock(turn_id)
    await turns.cancel(uow, principal, turn_id)
    if before and before.status.finished:
        raise Conflict(_ENDED)


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
