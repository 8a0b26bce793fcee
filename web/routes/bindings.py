"""Where on chat platforms a conversation is followed, and what people change about that."""

from uuid import UUID

from fastapi import APIRouter, Depends, Request

from core import addresses, bindings, conversations, frames, wording
from core.access import Principal
from core.models import JSON, Binding, BindingCheck, BindingMode, ChannelKind, KnownPlace, Place
from core.ports import UnitOfWork
from web import schemas
from web.credentials import Caller
from web.parameters import no_repeats, source_of
from web.problems import documented
from web.services import Services, services_of

router = APIRouter(prefix="/api", tags=["bindings"], dependencies=[Depends(no_repeats)])


@router.get("/conversations/{conversation_id}/bindings", response_model=schemas.Following)
async def list_bindings(request: Request, caller: Caller, conversation_id: UUID) -> JSON:
    """The places on chat platforms where a conversation is followed, and where else you can have it followed."""
    async with services_of(request).storage.read() as uow:
        await conversations.get(uow, caller, conversation_id)
        shown = await _bindings_json(uow, conversation_id)
        known = await bindings.known_places(uow, caller)
        mine = {each.surface for each in await addresses.accounts_of(uow, caller)}
        served = {each.surface for each in await addresses.served(uow)}
    return {
        "bindings": shown,
        "also": wording.also(shown),
        "places": [{"key": _key(each), "surface": each.account.surface, "label": each.label} for each in known],
        "platforms": [{"surface": surface, "linked": surface in mine} for surface in sorted(served | mine)],
    }


@router.post("/conversations/{conversation_id}/bindings", status_code=201, response_model=schemas.Binding, responses=documented(409))
async def follow(request: Request, caller: Caller, conversation_id: UUID, body: schemas.NewBinding) -> JSON:
    """Have a conversation followed at a place: what is said goes there, and comes from there where the mode is `two_way`.

    The platform is asked first whether you read there: until then the binding's state is `pending`. A thread that shows it already, where
    only the mode is changed, stays `live`. A 409 with `confirm` tells of people who would read a private conversation; send the same with
    `confirmed` once the person wants that.
    """
    services = services_of(request)
    async with services.storage.write() as uow:
        await conversations.get(uow, caller, conversation_id)
        place, kind = await _meant(uow, caller, services, body.place)
        binding = await bindings.follow(
            uow,
            caller,
            conversation_id,
            place,
            mode=BindingMode(body.mode),
            kind=kind,
            check=BindingCheck.PERSON,
            confirmed=body.confirmed,
            source=source_of(request),
        )
        return await _binding_json(uow, binding)


@router.patch("/bindings/{binding_id}", response_model=schemas.Binding, responses=documented(409))
async def change_binding(request: Request, caller: Caller, binding_id: UUID, body: schemas.BindingPatch) -> JSON:
    """Let what is said at a place come in, or not. What is off or ended is followed again. Asks as `POST` does."""
    async with services_of(request).storage.write() as uow:
        mode, source = BindingMode(body.mode), source_of(request)
        binding = await bindings.change_mode(uow, caller, binding_id, mode, confirmed=body.confirmed, source=source)
        return await _binding_json(uow, binding)


@router.delete("/bindings/{binding_id}", status_code=204, responses=documented(409))
async def unfollow(request: Request, caller: Caller, binding_id: UUID) -> None:
    """Show nothing more of a conversation at a place. What was shown there stays."""
    async with services_of(request).storage.write() as uow:
        await bindings.change_mode(uow, caller, binding_id, BindingMode.OFF, source=source_of(request))


async def _meant(uow: UnitOfWork, caller: Principal, services: Services, place: str) -> tuple[Place, ChannelKind | None]:
    """The place that is meant by the key of a known one, or by a link; and what kind of place it is, where that is known."""
    for known in await bindings.known_places(uow, caller):
        if place == _key(known):
            return Place(account=known.account, channel=known.channel), ChannelKind.OPEN
    return await addresses.place(uow, caller, services.read_place(place)), None


async def _bindings_json(uow: UnitOfWork, conversation_id: UUID) -> list[JSON]:
    shown = await frames.bindings_json(uow, conversation_id)
    return [{**each, "why": wording.ended(each["reason"], each["mode"]) if each["reason"] else ""} for each in shown]


async def _binding_json(uow: UnitOfWork, binding: Binding) -> JSON:
    return next(each for each in await _bindings_json(uow, binding.conversation_id) if each["id"] == str(binding.id))


def _key(known: KnownPlace) -> str:
    return ":".join((known.account.surface, known.account.id, known.channel))
