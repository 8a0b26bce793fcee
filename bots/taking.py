"""What an event of a chat platform does to the core: whose it is, which conversation it belongs to, and whether it is answered.

The platform is asked first, outside every transaction. Then one transaction has the effect and notes that the event was taken in.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from bots.markdown import plain
from bots.people import People, Stranger
from bots.policy import Policy
from bots.reminders import Reminders
from bots.services import Services
from bots.surface import ChannelKind, ChatSurface, Edited, Event, Promoted, RemoteFile, Removed, Said, Stopped, SurfaceError
from core import bindings, conversations, identity, messages, projects, tasks, turns
from core.access import Principal
from core.attachments import MAX_FILES, Upload
from core.errors import Conflict, InvalidInput, NotFound
from core.ids import new_id
from core.models import Binding, BindingMode, Delivery, DeliveryState, InboundEvent, InboxKey, Message, Place, Visibility
from core.ports import UnitOfWork
from core.text import clip

Commit = Callable[[], AbstractAsyncContextManager[UnitOfWork]]
"""Opens the one transaction in which an event has its effect and is noted as taken in."""
_MAX_TITLE = 200
_IMPORTED = "imported"
"""The item of the delivery that notes up to when a thread was imported."""
_EARLIER_MESSAGES = 200
_IMPORT_CHARACTERS = messages.MAX_IMPORTED - 100
_PATIENCE = timedelta(minutes=2)
"""So long the platform's trouble with a file holds its message up."""
_ONLY_A_MENTION = "(a mention, without a word)"
_HOW_TO = "Write what is to be done behind my name, and I make a task of it: its thread is the place to talk about it."
_STOP = "!stop"


class Overtaken(Exception):
    """Nothing is known of what this event is about. It may be that what it follows is still to come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Content:
    text: str
    """Markdown."""
    uploads: tuple[Upload, ...]


class Taking:
    """Takes events into the core, for one account."""

    def __init__(self, services: Services, surface: ChatSurface, people: People, policy: Policy) -> None:
        self._services = services
        self._surface = surface
        self._people = people
        self._policy = policy
        self._reminders = Reminders(services.clock)

    async def take(self, told: Event, commit: Commit, stored: InboundEvent) -> None:
        """Raises Overtaken, SurfaceErrors, and what the core raises; then nothing was done."""
        try:
            match told:
                case Said():
                    await self._said(told, commit, stored.received_at)
                case Edited():
                    await self._edited(told, commit)
                case Removed():
                    await self._removed(told, commit)
                case Promoted():
                    await self._promoted(told, commit)
                case Stopped():
                    await self._stopped(self._place(told.channel, told.thread), told.by, commit)
        except Stranger as refusal:
            async with commit():
                pass
            await self._turn_away(told, str(refusal))

    async def tell_about(self, told: Event, sentence: str) -> None:
        """Says to the person whose event it was that it came to nothing, and why; not again within a minute."""
        place, person = _where(self._surface, told), _person(told)
        if person and self._reminders.may_tell(f"{place.channel}:{person}:{sentence}", timedelta(minutes=1)):
            await self._tell(place, person, sentence)

    # --- messages ---

    async def _said(self, said: Said, commit: Commit, received_at: datetime) -> None:
        place = self._place(said.channel, said.thread)
        below = self._place(said.channel, said.thread or said.remote_id)
        kind = await self._surface.kind(said.channel)
        if said.text.strip().casefold() == _STOP:
            await self._stopped(place, said.author, commit)
        elif self._is_chat(place, kind) or await self._is_shown(place):
            await self._said_at_home(said, place, kind, commit, received_at)
        elif said.to_bot and await self._is_shown(below):  # somebody made a task of it before it came
            await self._said_at_home(said, below, kind, commit, received_at)
        elif said.to_bot:
            await self._mentioned(said, below, kind, commit, received_at)
        elif said.thread:
            raise Overtaken
        else:
            async with commit():
                return

    async def _said_at_home(self, said: Said, place: Place, kind: ChannelKind, commit: Commit, received_at: datetime) -> None:
        """In a place that shows a conversation, or is one by itself."""
        principal = await self._people.admit(said.author, said.channel)
        content = await self._content(said, received_at)
        async with commit() as uow:
            binding = await bindings.at(uow, place) or await self._bound_chat(uow, principal, place, kind)
            if binding.mode is not BindingMode.TWO_WAY or await _was_imported(uow, binding, said):
                return
            await bindings.revive(uow, binding)
            wants_answer = kind is ChannelKind.DIRECT or self._wants_answer(said)
            unanswered = await self._take_in(uow, principal, binding, said, content, wants_answer=wants_answer)
        await self._say_why(said, unanswered)

    async def _mentioned(self, said: Said, place: Place, kind: ChannelKind, commit: Commit, received_at: datetime) -> None:
        """Where nothing is shown: a task is made, with this thread for it."""
        principal = await self._people.admit(said.author, said.channel)
        if not (said.thread or said.text.strip() or said.files):
            async with commit():
                pass
            await self._tell(self._place(said.channel, ""), said.author, _HOW_TO)
            return
        content = await self._content(said, received_at)
        earlier = await self._surface.earlier(place, said.remote_id, limit=_EARLIER_MESSAGES) if said.thread else ()
        async with commit() as uow:
            title = _title_of(content.text) or next((clip(file.name, _MAX_TITLE) for file in said.files), _ONLY_A_MENTION)
            task = await tasks.create(uow, principal, title, visibility=visibility_in(kind))
            binding = await bindings.bind(uow, principal, task.conversation_id, place)
            if said.thread:
                await self._import(uow, principal, binding, said, earlier)
            unanswered = await self._take_in(uow, principal, binding, said, content, wants_answer=True)
        await self._say_why(said, unanswered)

    async def _take_in(
        self, uow: UnitOfWork, principal: Principal, binding: Binding, said: Said, content: _Content, *, wants_answer: bool
    ) -> str:
        """Why it is not answered; empty where it is, or wants no answer."""
        await conversations.join(uow, principal, binding.conversation_id)
        taken = await messages.take_in(
            uow,
            principal,
            binding.conversation_id,
            content.text,
            rules=self._services.posting,
            source=binding.surface,
            key=self._key(said.channel, said.remote_id),
            uploads=content.uploads,
            wants_answer=wants_answer,
        )
        await uow.deliveries.put(_theirs(uow, binding, taken.posted.message_id, said.remote_id))
        return taken.unanswered

    async def _import(
        self, uow: UnitOfWork, principal: Principal, binding: Binding, said: Said, earlier: Sequence[tuple[str, str]]
    ) -> None:
        """What was said in the thread before the bot was called, as one message."""
        await uow.deliveries.put(_imported(binding, said.at))
        if not earlier:
            return
        noted = await messages.import_note(
            uow,
            principal,
            binding.conversation_id,
            _quoted(earlier),
            source=binding.surface,
            key=self._key(said.channel, f"before {said.remote_id}"),
        )
        await uow.deliveries.put(_theirs(uow, binding, noted.message_id, None))

    async def _content(self, said: Said, received_at: datetime) -> _Content:
        uploads, missing = await self._fetched(said.files, received_at)
        text = await self._surface.markdown(said.text)
        if not (text.strip() or said.files):
            text = _ONLY_A_MENTION
        return _Content(text="\n\n".join((text, *(f"({sentence})" for sentence in missing))).strip(), uploads=tuple(uploads))

    async def _fetched(self, files: Sequence[RemoteFile], received_at: datetime) -> tuple[list[Upload], list[str]]:
        """The files, and a sentence for each that cannot be had."""
        uploads: list[Upload] = []
        missing = [f"Only the first {MAX_FILES} files were taken."] if len(files) > MAX_FILES else []
        for file in files[:MAX_FILES]:
            try:
                uploads.append(await self._surface.fetch(file))
            except InvalidInput as error:
                missing.append(str(error))
            except SurfaceError:
                if self._services.clock.now() - received_at < _PATIENCE:
                    raise
                missing.append(f"The file {clip(file.name, 100)!r} could not be fetched.")
        return uploads, missing

    async def _edited(self, edited: Edited, commit: Commit) -> None:
        async with self._services.storage.read() as uow:
            await self._message_of(uow, edited)
        text = await self._surface.markdown(edited.text)
        async with commit() as uow:
            message = await self._message_of(uow, edited)
            known = await uow.identities.get(self._surface.account, edited.author)
            if message and known and known.user_id == message.author_id and text.strip():
                await messages.take_in_edit(uow, await _author(uow, message), message.id, text)

    async def _removed(self, removed: Removed, commit: Commit) -> None:
        async with commit() as uow:
            if message := await self._message_of(uow, removed):
                await messages.delete(uow, await _author(uow, message), message.id)

    async def _message_of(self, uow: UnitOfWork, about: Edited | Removed) -> Message | None:
        """What a person said there, as we have it; None where it was not a person, or is gone. Raises Overtaken where nothing is known."""
        delivery = await uow.deliveries.at(self._place(about.channel, about.thread), about.remote_id)
        if delivery is None or delivery.message_id is None:
            raise Overtaken
        message = await uow.messages.get(delivery.message_id) if delivery.state is DeliveryState.THEIRS else None
        return message if message and not message.deleted_at else None

    # --- tasks ---

    async def _promoted(self, promoted: Promoted, commit: Commit) -> None:
        said = promoted.said
        principal = await self._people.admit(promoted.by, said.channel)
        if shown := await self._shown_around(said):
            await self._promote(promoted, principal, shown, commit)
            return
        place = self._place(said.channel, said.thread or said.remote_id)
        kind = await self._surface.kind(said.channel)
        text = await self._surface.markdown(said.text)
        earlier = await self._surface.earlier(place, said.remote_id, limit=_EARLIER_MESSAGES) if said.thread else ()
        name = (await self._surface.profile(said.author)).name if said.author else "somebody"
        async with commit() as uow:
            task = await tasks.create(uow, principal, _title_of(text) or f"A message of {name}", visibility=visibility_in(kind))
            binding = await bindings.bind(uow, principal, task.conversation_id, place)
            await self._import(uow, principal, binding, said, [*earlier, (name, text)])

    async def _shown_around(self, said: Said) -> Place | None:
        """Where the conversation is shown that this message belongs to: in its thread, the thread below it, or the whole channel."""
        for thread in dict.fromkeys((said.thread or said.remote_id, said.thread)):
            if await self._is_shown(place := self._place(said.channel, thread)):
                return place
        return None

    async def _promote(self, promoted: Promoted, principal: Principal, place: Place, commit: Commit) -> None:
        text = await self._surface.markdown(promoted.said.text)
        sentence = ""
        async with commit() as uow:
            binding = await bindings.at(uow, place)
            if binding is None:
                raise Conflict("The conversation was deleted at this moment.")
            await conversations.join(uow, principal, binding.conversation_id)
            try:
                await tasks.promote(uow, principal, binding.conversation_id, _title_of(text) or "A conversation")
            except Conflict as error:
                sentence = str(error)
        if sentence:
            await self._tell(place, promoted.by, sentence)

    # --- turns ---

    async def _stopped(self, place: Place, by: str, commit: Commit) -> None:
        if not await self._is_shown(place):
            async with commit():
                return
        principal = await self._people.admit(by, place.channel)
        async with commit() as uow:
            if binding := await bindings.at(uow, place):
                await conversations.join(uow, principal, binding.conversation_id)
                for turn in await uow.turns.unfinished(binding.conversation_id):
                    await turns.cancel(uow, principal, turn.id)

    # --- places ---

    def _place(self, channel: str, thread: str) -> Place:
        return Place(account=self._surface.account, channel=channel, thread=thread)

    async def _is_shown(self, place: Place) -> bool:
        async with self._services.storage.read() as uow:
            return await bindings.at(uow, place) is not None

    def _is_chat(self, place: Place, kind: ChannelKind) -> bool:
        """Whether it is a conversation by itself: a direct message, a thread in one, or a channel that is set so."""
        return kind is ChannelKind.DIRECT or (not place.thread and self._policy.rules(place.channel).mode == "chat")

    async def _bound_chat(self, uow: UnitOfWork, principal: Principal, place: Place, kind: ChannelKind) -> Binding:
        if not self._is_chat(place, kind):
            raise Conflict("The conversation was deleted at this moment.")
        project = await projects.default(uow)
        chat = await conversations.add(uow, principal, title="", visibility=visibility_in(kind), project=project)
        return await bindings.bind(uow, principal, chat.id, place)

    def _wants_answer(self, said: Said) -> bool:
        if self._policy.rules(said.channel).answer == "mentions":
            return said.to_bot
        return said.to_bot or not said.to_others

    def _key(self, channel: str, event_id: str) -> InboxKey:
        account = self._surface.account
        return InboxKey(source=account.surface, scope=f"{account.id}:{channel}", event_id=event_id)

    # --- telling ---

    async def _say_why(self, said: Said, unanswered: str) -> None:
        if unanswered and self._reminders.may_tell(f"{said.channel}:{said.thread}:{said.author}", timedelta(minutes=1)):
            await self._tell(self._place(said.channel, said.thread), said.author, unanswered)

    async def _turn_away(self, told: Event, sentence: str) -> None:
        person = _person(told)
        if self._reminders.may_tell(person, timedelta(hours=1)):
            await self._tell(_where(self._surface, told), person, sentence)

    async def _tell(self, place: Place, person: str, sentence: str) -> None:
        with suppress(SurfaceError):  # what was done is done; whoever cannot be told cannot be told that either
            await self._surface.tell(place, person, sentence)


def _theirs(uow: UnitOfWork, binding: Binding, message_id: UUID, remote_id: str | None) -> Delivery:
    """It came from there, so it is never sent there."""
    return Delivery(
        binding_id=binding.id,
        item=str(message_id),
        part=0,
        message_id=message_id,
        revision=0,
        remote_id=remote_id,
        nonce=new_id(),
        state=DeliveryState.THEIRS,
        end=None,
        shown="",
        sent_at=uow.now,
    )


def _imported(binding: Binding, until: datetime) -> Delivery:
    return Delivery(
        binding_id=binding.id,
        item=_IMPORTED,
        part=0,
        message_id=None,
        revision=0,
        remote_id=None,
        nonce=new_id(),
        state=DeliveryState.THEIRS,
        end=None,
        shown="",
        sent_at=until,
    )


async def _was_imported(uow: UnitOfWork, binding: Binding, said: Said) -> bool:
    """Whether it was said before the message that bound the thread, and came in with the import."""
    return any(said.at < each.sent_at for each in await uow.deliveries.of_binding(binding.id, [_IMPORTED]))


async def _author(uow: UnitOfWork, message: Message) -> Principal:
    author = await uow.users.get(message.author_id) if message.author_id else None
    if author is None:
        raise NotFound("Whoever wrote this is not a user any more.")
    return identity.principal_of(author)


def _title_of(text: str) -> str:
    """A task's title: its first line. Empty where that says nothing."""
    return plain(next((line for line in text.splitlines() if line.strip()), ""), _MAX_TITLE)


def visibility_in(kind: ChannelKind) -> Visibility:
    """Of what is said in such a channel."""
    return Visibility.SHARED if kind is ChannelKind.OPEN else Visibility.PRIVATE


def _quoted(earlier: Sequence[tuple[str, str]]) -> str:
    """The newest of it, as much as is taken."""
    lines: list[str] = []
    room = _IMPORT_CHARACTERS
    for name, text in reversed(earlier):
        line = f"**{plain(name, 100)}**:\n" + "\n".join(f"> {each}" for each in text.splitlines() or [""])
        room -= len(line) + 2
        if room < 0:
            break
        lines.insert(0, line)
    return "\n\n".join(("Said in this thread before:", *lines))


def _person(told: Event) -> str:
    match told:
        case Said() | Edited():
            return told.author
        case Promoted() | Stopped():
            return told.by
        case Removed():
            return ""


def _where(surface: ChatSurface, told: Event) -> Place:
    about = told.said if isinstance(told, Promoted) else told
    return Place(account=surface.account, channel=about.channel, thread=about.thread)
