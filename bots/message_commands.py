"""Commands that are messages: `!stop`, `!follow OT-12`, `!unfollow` and `!where`. Slack has no others in threads."""

import re
from dataclasses import dataclass

from bots.follow_commands import Answer, Following, Target, wish
from bots.markdown import plain
from bots.people import People, enter
from bots.places import Places
from bots.services import Commit
from bots.surface import ChatSurface, Said
from bots.telling import Telling
from core import conversations, naming, turns
from core.access import Principal
from core.errors import Conflict, InvalidInput, NotFound, RateLimited
from core.models import Place
from core.ports import UnitOfWork

_LINE_CHARACTERS = 500
_NOT_IN_PRIVATE = "I cannot write to you in private. Use `/task {command}` here, or allow direct messages."
"""The answer is for the person alone: titles and places in it may be private."""
WORDS = ("stop", "follow", "unfollow", "where")
"""What follows the exclamation mark."""
_TYPED = re.compile(rf"!({'|'.join(WORDS)})(?:[ \t]+(\S.*))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Typed:
    name: str
    rest: str
    """What stands behind the name."""


def typed(text: str, *, is_to_us: bool) -> Typed | None:
    """The command that a message is. Unless it `is_to_us`, by its mention or where it stands, another bot may be meant."""
    found = _TYPED.fullmatch(text.strip())
    if found is None:
        return None
    command = Typed(name=found[1].lower(), rest=(found[2] or "").strip())
    names = any(map(naming.is_name, command.rest.split()))
    match command.name:
        case "stop":
            return None if command.rest else command
        case "follow":
            return command if is_to_us or names else None
        case _:
            return command if is_to_us and (names or not command.rest) else None


class MessageCommands:
    """Obeys them, for one account."""

    def __init__(self, surface: ChatSurface, people: People, places: Places, following: Following, telling: Telling) -> None:
        self._surface = surface
        self._people = people
        self._places = places
        self._following = following
        self._telling = telling

    async def obey(self, command: Typed, said: Said, commit: Commit) -> None:
        """Raises Stranger, and what asking the platform does; then nothing was done."""
        place = await self._places.answered(said) or self._places.of(said)
        if command.name == "stop":
            await self.stop(place, said.author, commit)
            return
        principal = await self._people.admit(said.author, said.channel)
        target = await self._target(said) if command.name == "follow" else None
        try:
            async with commit() as uow:
                answer = await self._answer(uow, principal, command, target, place)
        except (InvalidInput, NotFound, Conflict, RateLimited) as refusal:
            async with commit():
                answer = Answer(text=str(refusal))
        if not answer.is_shown:
            lines = [plain(line, _LINE_CHARACTERS) for line in answer.text.splitlines()]  # this way there is no markup
            here, openly = self._places.of(said), _NOT_IN_PRIVATE.format(command=command.name)
            await self._telling.tell(here, said.author, "\n".join(lines), otherwise=openly)

    async def stop(self, place: Place, by: str, commit: Commit) -> None:
        """Stops what is being answered there; nothing where nothing is shown."""
        if await self._places.look(place) is None:
            async with commit():
                return
        principal = await self._people.admit(by, place.channel)
        refusal = ""
        async with commit() as uow:
            binding = await self._places.shown(uow, place)
            if binding and not (refusal := await self._following.unheard(uow, principal, binding)):
                await conversations.join(uow, principal, binding.conversation_id)
                for turn in await uow.turns.unfinished(binding.conversation_id):
                    await turns.cancel(uow, principal, turn.id)
        if refusal:
            await self._telling.remind(place, by, refusal)

    async def _target(self, said: Said) -> Target:
        """Its thread, or the one below it; in a chat the chat."""
        kind = await self._surface.kind(said.channel, said.thread)
        here = self._places.of(said)
        place = here if self._places.is_chat(here, kind) else self._places.below(said)
        is_open = place == here or not self._surface.makes_threads
        return Target(place=place, opened=is_open, kind=kind, label=await self._following.label(place, kind), since=said.at)

    async def _answer(self, uow: UnitOfWork, principal: Principal, command: Typed, target: Target | None, place: Place) -> Answer:
        if command.name == "unfollow":
            return await self._following.unfollow(uow, principal, place, command.rest)
        await enter(uow, principal, place)
        if target:
            return await self._following.follow(uow, principal, target, wish(command.rest, "!follow"))
        return await self._following.where(uow, principal, place, command.rest)
