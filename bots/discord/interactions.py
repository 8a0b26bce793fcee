"""What people ask of the bot without a message: by a command, by the menu of a message, or with a button.

Discord is answered at once, before anything is looked up; what came of it is told afterwards, to that person alone. Nothing here raises.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from re import Match
from typing import Any, Self, TypeVar, cast

import discord
import structlog
from discord import app_commands

from bots import controls
from bots.commands import Command
from bots.discord import events
from bots.discord.access import served_guilds
from bots.discord.command_tree import Asked, Choices, Tree, synced
from bots.discord.failures import calling
from bots.discord.listening import Listening
from bots.discord.message import ACTION_PREFIX
from bots.discord.text import forms
from bots.markdown import neutral, parts
from bots.people import NO_PLATFORM, Stranger
from bots.surface import Action, SurfaceError
from core.errors import OnethreadError
from core.logs import place_of
from core.models import JSON, Place
from core.text import clip, utf16_cut, utf16_len

_BUTTON = rf"{ACTION_PREFIX}(?P<action>[a-z]+):(?P<value>.*)"
_CHOICE_CHARACTERS = 100
_MESSAGES = 5
"""Of an answer, at most."""
_GUILD = "I do not answer in this server. An admin of Onethread can allow it."
_ELSEWHERE = "I answer in the channels of servers and in direct messages only."
_MADE = "I make a task of it."
_CHANGED = "This command is another one by now. Discord shows the new one in a moment: try again then."
_BROKEN = "Something went wrong here. Try again; if that fails too, tell an admin of Onethread."
_MORE = "…"
_log = structlog.get_logger()
_Button = discord.ui.Button[discord.ui.View]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class InteractionRules:
    choice_seconds: float = 2.0
    """So long what may be chosen is looked for: Discord waits three."""
    sync_seconds: float = 5.0
    """Before Discord is told of the commands once more, where that failed; doubled each time."""
    longest_sync_seconds: float = 3600.0


class Interactions:
    """Of one bot: the same on each of its connections."""

    def __init__(self, listening: Listening, rules: InteractionRules = InteractionRules()) -> None:
        self._listening = listening
        self._rules = rules

    def attach(self, client: discord.Client) -> Tree:
        """Has a client bring what people ask. It is not connected yet."""
        client.add_dynamic_items(_button(self))
        return Tree(client, self)

    async def sync(self, tree: Tree) -> None:
        """Tells Discord which commands there are. Where that fails, for whatever reason, it is tried again, until Discord has them."""
        pause = self._rules.sync_seconds
        while not await _synced(tree):
            await asyncio.sleep(pause)
            pause = min(pause * 2, self._rules.longest_sync_seconds)

    # --- what people ask ---

    async def command(self, asked: Asked, text: str, *, ref: str = "") -> None:
        async def obeyed() -> str:
            return await self._listening.commands.run(self._command(asked, text, ref))

        self._start(self._answer(asked, obeyed))

    async def link(self, asked: Asked, text: str) -> None:
        async def obeyed() -> str:
            return await self._listening.commands.link(self._command(asked, text))

        self._start(self._answer(asked, obeyed))

    async def make_task(self, asked: Asked, message_id: str) -> None:
        async def stored() -> str:
            place = self._place(asked)
            await self._listening.people.admit(str(asked.user.id), place.channel)
            message = _resolved(asked, message_id)
            spot = events.Spot(guild=str(asked.guild_id or ""), channel=place.channel, thread=place.thread)
            await self._listening.store(events.promoted(message, spot, by=str(asked.user.id), interaction=str(asked.id)))
            return _MADE

        self._start(self._answer(asked, stored))

    async def press(self, asked: Asked, action: str, value: str) -> None:
        async def pressed() -> str:
            place, message = self._place(asked), str(asked.message.id) if asked.message else ""
            principal = await self._listening.people.admit(str(asked.user.id), place.channel)
            if action not in list(Action):
                return ""
            return await controls.press(self._listening.services, principal, place, Action(action), value, message=message)

        self._start(self._answer_press(asked, pressed))

    async def refs(self, asked: Asked, typed: str) -> Choices:
        async def found() -> Sequence[tuple[str, str]]:
            return await self._listening.commands.refs(str(asked.user.id), self._place(asked), typed)

        return [
            app_commands.Choice(name=clip(f"{ref} {title}", _CHOICE_CHARACTERS), value=ref) for ref, title in await self._in_time(found)
        ]

    async def models(self, asked: Asked, typed: str) -> Choices:
        async def found() -> Sequence[str]:
            return await self._listening.commands.models(str(asked.user.id), self._place(asked), typed)

        return [app_commands.Choice(name=each, value=each) for each in await self._in_time(found) if len(each) <= _CHOICE_CHARACTERS]

    async def unknown(self, asked: Asked, error: Exception) -> None:
        """A command that Discord knows and we do not, or not so: it was told of others lately."""
        _log.warning("discord.command_unknown", **place_of(error))
        if asked.type is discord.InteractionType.application_command and not asked.response.is_done():

            async def told() -> str:
                return _CHANGED

            self._start(self._answer(asked, told))

    # --- where ---

    def _command(self, asked: Asked, text: str, ref: str = "") -> Command:
        """Raises Stranger where nobody is let in."""
        place = self._place(asked)
        return Command(
            text=text,
            person=str(asked.user.id),
            place=place,
            event_id=str(asked.id),
            ref=ref,
            has_threads=_has_threads(asked.channel),
            at=asked.created_at if place.thread else None,
        )

    def _place(self, asked: Asked) -> Place:
        """Raises Stranger where nobody is let in."""
        if asked.guild_id is None and not isinstance(asked.channel, discord.DMChannel):
            raise Stranger(_ELSEWHERE)
        if asked.guild_id is not None and not self._serves(asked.guild):
            raise Stranger(_GUILD)
        self._listening.surface.met(str(asked.user.id), str(asked.guild_id or ""))
        match asked.channel:
            case discord.Thread() as thread:
                return self._listening.place(str(thread.parent_id), str(thread.id))
            case None:
                raise Stranger(_ELSEWHERE)
            case channel:
                return self._listening.place(str(channel.id), "")

    def _serves(self, guild: discord.Guild | None) -> bool:
        return bool(guild and served_guilds(self._listening.config, self._listening.who, [guild]))

    # --- what comes back ---

    async def _answer(self, asked: Asked, work: Callable[[], Awaitable[str]]) -> None:
        """Does what was asked, once Discord has taken it that the answer comes later: nobody would be told what came of it otherwise."""
        if await self._deferred(asked):
            await self._tell(asked, await _sentence(work))

    async def _answer_press(self, asked: Asked, work: Callable[[], Awaitable[str]]) -> None:
        """Everybody sees what it did, whether the person can be told or not."""
        deferred, refusal = await asyncio.gather(self._deferred(asked), _sentence(work))
        if deferred and refusal:
            await self._tell(asked, refusal)

    async def _deferred(self, asked: Asked) -> bool:
        """Whether Discord waits for the answer."""
        try:
            async with self._calling():
                await asked.response.defer(ephemeral=True)
        except SurfaceError as error:
            _log.warning("discord.not_deferred", error=type(error).__name__)
            return False
        return True

    async def _tell(self, asked: Asked, sentence: str) -> None:
        """To the person alone, in a few messages at most."""
        rules = self._listening.config.rules
        pieces = [_shown(each, rules.whole_units) for each in parts(sentence, rules.part_units, utf16_len)]
        shown = pieces[:_MESSAGES] if len(pieces) <= _MESSAGES else [*pieces[: _MESSAGES - 1], _MORE]
        try:
            if asked.type is not discord.InteractionType.component:  # the first answer of a button is the message that has it
                async with self._calling():
                    await asked.edit_original_response(content=shown.pop(0))
            for each in shown:
                async with self._calling():
                    await asked.followup.send(each, ephemeral=True, suppress_embeds=True)
        except SurfaceError as error:
            _log.warning("discord.not_told", error=type(error).__name__)

    async def _in_time(self, work: Callable[[], Awaitable[Sequence[_T]]]) -> Sequence[_T]:
        """Nothing where it takes longer than Discord waits, or fails."""
        try:
            async with asyncio.timeout(self._rules.choice_seconds):
                return await work()
        except (TimeoutError, Stranger):
            return ()
        except Exception as error:  # noqa: BLE001  # the outermost of what one person asked for
            _log.error("discord.choices_failed", **place_of(error))
            return ()

    def _calling(self) -> AbstractAsyncContextManager[None]:
        return calling(self._listening.config.rules.call_seconds)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        safe = _safely(work)
        try:
            self._listening.tasks.create_task(safe, name="discord.answer")
        except RuntimeError:  # everything ends just now
            safe.close()
            work.close()


async def _synced(tree: Tree) -> bool:
    try:
        return await synced(tree)
    except Exception as error:  # noqa: BLE001  # what a server has registered may look like anything, and people still write messages
        _log.error("discord.commands_not_registered", **place_of(error))
        return False


async def _safely(work: Awaitable[None]) -> None:
    try:
        await work
    except Exception as error:  # noqa: BLE001  # the outermost of what one person asked for: it must not end what else is served
        _log.error("discord.answer_failed", **place_of(error))


async def _sentence(work: Callable[[], Awaitable[str]]) -> str:
    """What the person is told."""
    try:
        return await work()
    except (Stranger, OnethreadError) as error:
        return str(error)
    except SurfaceError:
        return NO_PLATFORM
    except Exception as error:  # noqa: BLE001  # the outermost of what one person asked for
        _log.error("discord.answer_failed", **place_of(error))
        return _BROKEN


def _button(interactions: Interactions) -> type[discord.ui.DynamicItem[_Button]]:
    """Any button of ours, on whichever message: all that is known of it is in its id, and whoever sees it can press it."""

    class Pressed(discord.ui.DynamicItem[_Button], template=_BUTTON):
        @classmethod
        async def from_custom_id(cls, _asked: Asked, item: discord.ui.Item[Any], _found: Match[str], /) -> Self:
            return cls(cast("_Button", item))

        async def callback(self, interaction: Asked) -> None:
            found = self.template.fullmatch(self.custom_id)
            assert found
            await interactions.press(interaction, found["action"], found["value"])

    return Pressed


def _shown(text: str, units: int) -> str:
    """As Discord shows it, mentioning nobody."""
    fitting = (each for each in forms(text, {}) if utf16_len(each) <= units)
    return next(fitting, utf16_cut(neutral(text), units))


def _has_threads(channel: object) -> bool:
    """Whether a thread can be made in the channel for those who read along: no private thread's title is shown to all."""
    if isinstance(channel, discord.Thread):
        return not channel.is_private() and not isinstance(channel.parent, discord.ForumChannel)
    return isinstance(channel, discord.TextChannel)


def _resolved(asked: Asked, message_id: str) -> JSON:
    """The message that was chosen, as Discord's API gives it."""
    data: Any = asked.data
    message: JSON = data["resolved"]["messages"][message_id]
    return message
