"""Following a conversation where one is: what people ask for at a place, by a command or by a message that is one.

In one transaction each; what the platform must be asked was asked before. Refusals are sentences for the person.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from bots import origins
from bots.places import Places
from bots.services import Services
from bots.surface import ChatSurface, SurfaceError
from bots.view import inline, page
from core import bindings, naming, wording
from core.access import Principal
from core.errors import Conflict, InvalidInput, NotConfirmed, NotFound
from core.frames import binding_json
from core.models import JSON, Binding, BindingCheck, BindingMode, ChannelKind, Conversation, Place
from core.ports import UnitOfWork

_READ_ONLY = frozenset({"read-only", "readonly", "read_only"})
_CONFIRMED = frozenset({"confirm", "confirmed"})
_TITLE_CHARACTERS = 200
_CHECKED = "I am still looking up the place where you wrote. Say it again in a moment."


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody wants to follow, and how."""

    name: str
    """As they wrote it: `OT-12`, an id, or a page's address."""
    mode: BindingMode
    confirmed: bool
    again: str
    """What to do to ask for the same once more, confirmed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where it is to be followed."""

    place: Place
    opened: bool
    """False where a thread is to be made."""
    kind: ChannelKind
    label: str = ""
    """The channel's name, as far as it is known and open."""
    since: datetime | None = None
    """When that was asked for, by the platform's clock: what was said there before is none of the conversation's. None: nothing was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    text: str
    """For the person alone: markdown that says the same without its markup."""
    is_shown: bool = False
    """Whether everybody at the place sees what came of it anyway."""


def wish(words: str, command: str) -> Wish:
    """What stands behind `command`. Raises InvalidInput where it does not say what, or says too much."""
    said = {each.lower() for each in words.split()}
    names = [each for each in words.split() if each.lower() not in _READ_ONLY | _CONFIRMED]
    if len(names) != 1:
        raise InvalidInput(f"Say which task, and whether it is only to be read here: `{command} OT-12` or `{command} OT-12 read-only`")
    mode = BindingMode.WATCH if said & _READ_ONLY else BindingMode.TWO_WAY
    again = " ".join([command, names[0].strip("<>"), *(["read-only"] if said & _READ_ONLY else []), "confirm"])
    return Wish(name=names[0], mode=mode, confirmed=bool(said & _CONFIRMED), again=f"`{again}`")


class Following:
    """Of one account."""

    def __init__(self, services: Services, surface: ChatSurface, places: Places) -> None:
        self._services = services
        self._surface = surface
        self._places = places

    async def label(self, channel: Place, kind: ChannelKind) -> str:
        """The name of an open channel. Empty where the platform does not tell: delivery asks for it again."""
        if kind is ChannelKind.OPEN:
            with suppress(SurfaceError):
                return (await self._surface.look_up(replace(channel, thread=""))).label
        return ""

    async def follow(self, uow: UnitOfWork, principal: Principal, target: Target, wanted: Wish) -> Answer:
        """Has it shown there; in a channel in one thread of its own. Raises NotFound, Conflict, and NotConfirmed with what to do."""
        conversation = await naming.conversation(uow, principal, wanted.name)
        place = target.place
        if place.thread:
            await self._places.entered(uow, place)
        before = await bindings.leads_to(uow, conversation.id, place, target.kind)
        try:
            after = await bindings.follow(
                uow,
                principal,
                conversation.id,
                place,
                mode=wanted.mode,
                kind=target.kind,
                label=target.label,
                opened=target.opened,
                confirmed=wanted.confirmed,
                source=place.account.surface,
            )
        except NotConfirmed as question:
            raise NotConfirmed(f"{question} If that is meant: {wanted.again}") from None
        is_new = before is None or before.id != after.id or not before.is_on or before.check is not after.check
        if is_new and target.since:
            await origins.begin(uow, after, target.since)
        where = "here" if _key(after) == place else f"in its thread, {self._surface.link(after.place)}"
        if before and not is_new and before.mode is after.mode:
            return Answer(text=f"{_named(conversation)} is shown {where} already{_read_only(after)}.")
        return Answer(text=_shown(conversation, after, where), is_shown=True)

    async def unfollow(self, uow: UnitOfWork, principal: Principal, place: Place, name: str = "") -> Answer:
        """Ends what is shown there or, by its name, in that channel. Raises Conflict where nothing is."""
        source = place.account.surface
        if not name:
            binding = await self._places.shown(uow, place)
            if binding is None or not binding.is_on:
                raise Conflict("Nothing is followed here. Say which task it is that is to be unfollowed in this channel, such as OT-12.")
            conversation = await uow.conversations.get(binding.conversation_id, principal)
            await bindings.unfollow_at(uow, principal, _key(binding), source=source)
            return Answer(text=f"{_named(conversation)} is not shown here any more.", is_shown=True)
        conversation = await naming.conversation(uow, principal, name)
        found = await bindings.of_conversation(uow, principal, conversation.id)
        shown = [each for each in found if each.is_on and (each.place.account, each.channel) == (place.account, place.channel)]
        if not shown:
            raise Conflict(f"{_named(conversation)} is not followed in this channel.")
        for each in [each for each in shown if each.followed] or shown:
            await bindings.change_mode(uow, principal, each.id, BindingMode.OFF, source=source)
        return Answer(text=f"{_named(conversation)} is not shown in this channel any more.")

    async def where(self, uow: UnitOfWork, principal: Principal, place: Place, name: str = "") -> Answer:
        """All the places where something is shown: what is shown here, or what is named."""
        conversation = await (naming.conversation(uow, principal, name) if name else self._shown_here(uow, principal, place))
        found = await bindings.of_conversation(uow, principal, conversation.id)
        lines = [_line(binding_json(each, {})) for each in found if each.mode is not BindingMode.OFF]
        web = f"- on the web · {page(self._services.url, conversation.id)}"
        return Answer(text="\n".join([f"{_named(conversation)} is shown", web, *lines]))

    async def unheard(self, uow: UnitOfWork, principal: Principal, binding: Binding) -> str:
        """Why nothing that is said at its place comes in, and what to do about that; empty where it does. It may be read elsewhere."""
        if binding.mode is BindingMode.TWO_WAY:
            return _CHECKED if binding.check is not BindingCheck.NONE else ""
        conversation = await uow.conversations.get(binding.conversation_id, principal)
        if binding.mode is BindingMode.WATCH and binding.ended:
            again = f" To have it shown again, write there `!follow {_name(conversation)} read-only`." if conversation else ""
            return f"What was shown where you wrote could not be sent there any more.{again}"
        if binding.mode is BindingMode.WATCH:
            return self._can_only_be_read(conversation)
        again = f"To go on with it, write there `!follow {_name(conversation)}`. " if conversation else ""
        return f"What was shown where you wrote is not followed there any more. {again}For something new, mention me in the channel."

    def _can_only_be_read(self, conversation: Conversation | None) -> str:
        if conversation is None:
            return "What is shown where you wrote can only be read there. Who takes part in it can change that with `!follow`."
        web, name = page(self._services.url, conversation.id), _name(conversation)
        what = conversation.task_ref or "The conversation"
        return f"{what} can only be read where you wrote. Write to it on the web: {web} To write there, too, write there `!follow {name}`"

    # --- helpers ---

    async def _shown_here(self, uow: UnitOfWork, principal: Principal, place: Place) -> Conversation:
        binding = await self._places.shown(uow, place)
        if binding is None or binding.mode is BindingMode.OFF:
            raise InvalidInput("Nothing is followed here. Say which task it is that you look for, such as OT-12.")
        conversation = await uow.conversations.get(binding.conversation_id, principal)
        if conversation is None:
            raise NotFound("What is followed here is a conversation that you cannot see anywhere else.")
        return conversation


def _key(binding: Binding) -> Place:
    """Where it is kept, whether its thread was made or not."""
    return replace(binding.place, thread=binding.thread)


def _name(conversation: Conversation) -> str:
    return conversation.task_ref or str(conversation.id)


def _named(conversation: Conversation | None) -> str:
    """For somebody who may see it; None where they may not."""
    if conversation is None:
        return "What was shown here"
    ref = f"**{conversation.task_ref}**" if conversation.task_ref else ""
    return " ".join(filter(None, (ref, inline(conversation.title, _TITLE_CHARACTERS)))) or "This conversation"


def _read_only(binding: Binding) -> str:
    return ", read-only" if binding.mode is BindingMode.WATCH else ""


def _shown(conversation: Conversation, binding: Binding, where: str) -> str:
    heard = "what is written there is part of it" if binding.mode is BindingMode.TWO_WAY else "it can only be read there"
    how = f"is shown {where} from now on" if binding.opened else "gets a thread of its own, in a moment"
    return f"{_named(conversation)} {how}: {heard}."


def _line(binding: JSON) -> str:
    parts = [f"in {inline(wording.place(binding), _TITLE_CHARACTERS)}", wording.standing(binding), binding["url"]]
    return f"- {' · '.join(filter(None, parts))}"
