"""What an event of a chat platform does to the core: whose it is, which conversation it belongs to, and whether it is answered.

The platform is asked first, outside every transaction. Then one transaction has the effect and notes that the event was taken in.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from bots import origins
from bots.delivery.theirs import standing
from bots.follow_commands import Following
from bots.markdown import plain
from bots.message_commands import MessageCommands, typed
from bots.people import People, Stranger
from bots.places import Places, hears
from bots.policy import Policy
from bots.reading import MAX_TITLE, Content, Reading, quoted, title_of
from bots.services import Commit, Services
from bots.surface import ChatSurface, Edited, Event, Promoted, Removed, Said, Stopped
from bots.telling import Telling
from core import bindings, conversations, identity, messages, projects, tasks
from core.access import Audience, Principal
from core.errors import Conflict, NotFound
from core.models import Binding, BindingMode, ChannelKind, Delivery, DeliveryState, InboundEvent, InboxKey, Message, Place
from core.ports import UnitOfWork

_HOW_TO = "Write what is to be done behind my name, and I make a task of it: its thread is the place to talk about it."
_DELETED = "The conversation was deleted at this moment."
_REMEMBERED = timedelta(days=6)
"""So long what came in is known by its key, a day less than it is kept. What is unknown and older may have been answered once."""


class Overtaken(Exception):
    """Nothing is known of what this event is about. It may be that what it follows is still to come."""


class _Answered(Exception):
    """This message came in once; its conversation is gone since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heard:
    """A message of somebody who is let in."""

    said: Said
    principal: Principal
    kind: ChannelKind
    """Of its channel."""
    received_at: datetime


class Taking:
    """Takes events into the core, for one account."""

    def __init__(self, services: Services, surface: ChatSurface, people: People, policy: Policy) -> None:
        self._services = services
        self._surface = surface
        self._people = people
        self._policy = policy
        self._places = Places(services, surface, policy)
        self._reading = Reading(surface, services.clock)
        self._following = Following(services, surface, self._places)
        self._telling = Telling(surface, services.clock)
        self._commands = MessageCommands(surface, people, self._places, self._following, self._telling)

    async def take(self, told: Event, commit: Commit, stored: InboundEvent) -> None:
        """Raises Overtaken, SurfaceErrors, and what the core raises; then nothing was done."""
        try:
            match told:
                case Said(edited_at=None):
                    await self._said(told, commit, stored.received_at)
                case Said():
                    await self._said_by_an_edit(told, commit, stored.received_at)
                case Edited():
                    await self._edited(told, commit)
                case Removed():
                    await self._removed(told, commit)
                case Promoted():
                    await self._promoted(told, commit, stored.received_at)
                case Stopped():
                    await self._commands.stop(self._places.of(told), told.by, commit)
        except Stranger as refusal:
            async with commit():
                pass
            if self._is_for_us(told):
                await self._telling.turn_away(self._places.of(told), _person(told), str(refusal))
        except _Answered:
            async with commit():
                pass

    async def tell_about(self, told: Event, sentence: str) -> None:
        """Says to whoever wanted something of the bot that it came to nothing, and why; not again within a minute."""
        if self._is_for_us(told):
            await self._telling.remind(self._places.of(told), _person(told), sentence)

    # --- messages ---

    async def _said(self, said: Said, commit: Commit, received_at: datetime) -> None:
        place = self._places.of(said)
        shown, is_chat = await self._places.look(place), self._places.is_chat_channel(place)
        if command := typed(said.text, is_to_us=said.to_bot or is_chat or shown is not None):
            await self._commands.obey(command, said, commit)
        elif said.to_bot or self._is_heard(shown, is_chat=is_chat):
            await self._said_to_us(said, commit, received_at)
        elif said.thread and shown is None:
            raise Overtaken
        else:
            async with commit():
                return

    def _is_heard(self, shown: Binding | None, *, is_chat: bool) -> bool:
        """Whether what people say at a place comes in though it is not written to the bot."""
        if shown is None or shown.mode is BindingMode.OFF:
            return is_chat
        return hears(shown)

    async def _said_by_an_edit(self, said: Said, commit: Commit, received_at: datetime) -> None:
        """An edit of what is known, which may be told as one, too; otherwise a message that became one to the bot."""
        assert said.edited_at
        async with self._services.storage.read() as uow:
            is_known = await uow.deliveries.at(self._places.of(said), said.remote_id) is not None
        if is_known:
            await self._edited(_as_edit(said, said.edited_at), commit)
        elif said.edited_at - said.at > _REMEMBERED:
            raise _Answered
        else:
            await self._said(said, commit, received_at)

    async def _said_to_us(self, said: Said, commit: Commit, received_at: datetime) -> None:
        principal = await self._people.admit(said.author, said.channel)
        kind = await self._surface.kind(said.channel, said.thread)
        heard = _Heard(said=said, principal=principal, kind=kind, received_at=received_at)
        if home := await self._home(said, kind):
            await self._said_at_home(heard, home, commit)
        else:
            await self._called(heard, commit)

    async def _home(self, said: Said, kind: ChannelKind) -> Place | None:
        """The place whose conversation it belongs to."""
        place, below = self._places.of(said), self._places.below(said)
        if self._places.is_chat(place, kind) or await self._places.look(place):
            return place
        if await self._places.look(below):  # somebody made a task of it before it came
            return below
        return await self._places.answered(said)

    async def _said_at_home(self, heard: _Heard, place: Place, commit: Commit) -> None:
        """In a place that shows a conversation, or is one by itself."""
        said, refusal = heard.said, ""
        content = await self._reading.content(said, heard.received_at)
        async with commit() as uow:
            binding = await self._binding(uow, said, place)
            if binding is None or self._places.is_free(place, binding, heard.kind):
                binding = await self._bound_chat(uow, heard, place)
            if await origins.is_before(uow, binding, said.edited_at or said.at):
                return
            if not (refusal := await self._following.unheard(uow, heard.principal, binding)):
                await bindings.revive(uow, binding)
                refusal = await self._take_in(uow, heard, binding, content, wants_answer=self._wants_answer(said))
        await self._say_why(said, refusal)

    async def _called(self, heard: _Heard, commit: Commit) -> None:
        """Where nothing is shown: a task is made, with this thread for it, or one that is made on the message."""
        said, principal = heard.said, heard.principal
        place = self._places.below(said)
        if not (said.thread or said.text.strip() or said.files):
            async with commit():
                pass
            await self._telling.tell(self._places.of(said), said.author, _HOW_TO)
            return
        earlier = await self._reading.earlier(place, said, heard.received_at)
        content = await self._reading.content(said, heard.received_at)
        async with commit() as uow:
            task = await tasks.create(uow, principal, content.title, visibility=heard.kind.visibility)
            opened = self._is_open(said, place)
            binding = await bindings.bind(uow, principal, task.conversation_id, place, opened=opened, kind=heard.kind)
            await (self._import if said.thread else self._note)(uow, principal, binding, said, earlier)
            unanswered = await self._take_in(uow, heard, binding, content, wants_answer=True)
        await self._say_why(said, unanswered)

    async def _take_in(self, uow: UnitOfWork, heard: _Heard, binding: Binding, content: Content, *, wants_answer: bool) -> str:
        """Why it is not answered; empty where it is, or wants no answer."""
        said = heard.said
        await _come_in(uow, heard.principal, binding, heard.kind)
        taken = await messages.take_in(
            uow,
            heard.principal,
            binding.conversation_id,
            content.text,
            rules=self._services.posting,
            source=binding.surface,
            key=self._key(said.channel, said.remote_id),
            uploads=content.uploads,
            wants_answer=wants_answer,
        )
        message = await uow.messages.get(taken.posted.message_id)
        if message is None or message.conversation_id != binding.conversation_id:
            raise _Answered
        at = said.edited_at or said.at
        await uow.deliveries.put(origins.theirs(binding, message, at, remote_id=said.remote_id, thread=said.thread))
        return taken.unanswered

    async def _import(self, uow: UnitOfWork, principal: Principal, binding: Binding, said: Said, earlier: str) -> None:
        """Everything that was said there up to now, which will not be taken in by itself."""
        await origins.begin(uow, binding, said.at)
        await self._note(uow, principal, binding, said, earlier)

    async def _note(self, uow: UnitOfWork, principal: Principal, binding: Binding, said: Said, earlier: str) -> None:
        """What was said before the bot was called, as one message."""
        if not earlier:
            return
        noted = await messages.import_note(
            uow,
            principal,
            binding.conversation_id,
            earlier,
            source=binding.surface,
            key=self._key(said.channel, f"before {said.remote_id}"),
        )
        await uow.deliveries.put(origins.imported(binding, noted.message_id, said.at))

    # --- what is changed afterwards ---

    async def _edited(self, edited: Edited, commit: Commit) -> None:
        async with self._services.storage.read() as uow:
            await self._taken_in(uow, edited)
        principal = await self._people.admit(edited.author, edited.channel)
        text = await self._surface.markdown(edited.text)
        async with commit() as uow:
            message, delivery = await self._taken_in(uow, edited)
            is_new = edited.at >= delivery.sent_at.replace(microsecond=0)
            if message and message.author_id == principal.user_id and is_new and text.strip():
                changed = await messages.take_in_edit(uow, _reading_along(principal, message), message.id, text)
                await uow.deliveries.put(replace(delivery, sent_at=edited.at, shown=standing(changed.content)))

    async def _removed(self, removed: Removed, commit: Commit) -> None:
        """As if its author had, whom nobody need let in for that: the platform does not say who did, and what is erased stays erased."""
        async with commit() as uow:
            message, delivery = await self._taken_in(uow, removed)
            if message:
                await messages.delete(uow, _reading_along(await _author(uow, message), message), message.id)
                await uow.deliveries.put(replace(delivery, shown=standing("")))

    async def _taken_in(self, uow: UnitOfWork, about: Edited | Removed) -> tuple[Message | None, Delivery]:
        """What a person said there, as we have it; None where it was not a person, or is gone. Raises Overtaken where nothing is known."""
        delivery = await uow.deliveries.at(self._places.of(about), about.remote_id)
        if delivery is None or delivery.message_id is None:
            raise Overtaken
        message = await uow.messages.get(delivery.message_id) if delivery.state is DeliveryState.THEIRS else None
        return (message if message and not message.deleted_at else None), delivery

    # --- tasks ---

    async def _promoted(self, promoted: Promoted, commit: Commit, received_at: datetime) -> None:
        said = promoted.said
        principal = await self._people.admit(promoted.by, said.channel)
        kind = await self._surface.kind(said.channel, said.thread)
        if shown := await self._shown_around(said, kind):
            await self._promote(promoted, principal, kind, shown, commit)
            return
        has_threads = kind is not ChannelKind.DIRECT or not self._surface.makes_threads
        place = self._places.below(said) if has_threads else self._places.of(said)
        text = await self._surface.markdown(said.text)
        before = await self._reading.before(place, said, received_at)
        name = plain((await self._surface.profile(said.author)).name, MAX_TITLE // 2) if said.author else "somebody"
        async with commit() as uow:
            task = await tasks.create(uow, principal, title_of(text) or f"A message of {name}", visibility=kind.visibility)
            binding = await bindings.bind(uow, principal, task.conversation_id, place, opened=self._is_open(said, place), kind=kind)
            await self._import(uow, principal, binding, said, quoted([*before, (name, text)]))

    async def _shown_around(self, said: Said, kind: ChannelKind) -> Place | None:
        """Where the conversation is shown that this message belongs to: in its thread, the thread below it, or the whole channel."""
        for place in dict.fromkeys((self._places.below(said), self._places.of(said))):
            if not self._places.is_free(place, await self._places.look(place), kind):
                return place
        return None if said.thread else await self._places.of_message(said.channel, said.remote_id)

    async def _promote(self, promoted: Promoted, principal: Principal, kind: ChannelKind, place: Place, commit: Commit) -> None:
        text = await self._surface.markdown(promoted.said.text)
        async with commit() as uow:
            binding = await self._binding(uow, promoted.said, place)
            if binding is None:
                raise Conflict(_DELETED)
            if not (refusal := await self._following.unheard(uow, principal, binding)):
                await _come_in(uow, principal, binding, kind)
                try:
                    await tasks.promote(uow, principal, binding.conversation_id, title_of(text) or "A conversation")
                except Conflict as error:
                    refusal = str(error)
        if refusal:
            await self._telling.tell(place, promoted.by, refusal)

    # --- places ---

    async def _binding(self, uow: UnitOfWork, said: Said, place: Place) -> Binding | None:
        """What the place shows. A thread in which somebody said something is there, whether delivery noted that or not."""
        return await (self._places.entered(uow, place) if said.thread else self._places.shown(uow, place))

    def _is_open(self, said: Said, place: Place) -> bool:
        """Whether something can be said at the place already: its thread need not be made."""
        return place == self._places.of(said) or not self._surface.makes_threads

    async def _bound_chat(self, uow: UnitOfWork, heard: _Heard, place: Place) -> Binding:
        if not self._places.is_chat(place, heard.kind):
            raise Conflict(_DELETED)
        project = await projects.default(uow)
        chat = await conversations.add(uow, heard.principal, title="", visibility=heard.kind.visibility, project=project)
        return await bindings.bind(uow, heard.principal, chat.id, place, kind=heard.kind)

    def _wants_answer(self, said: Said) -> bool:
        if self._policy.rules(said.channel).answer == "mentions":
            return said.to_bot
        return said.to_bot or not said.to_others

    def _key(self, channel: str, event_id: str) -> InboxKey:
        account = self._surface.account
        return InboxKey(source=account.surface, scope=f"{account.id}:{channel}", event_id=event_id)

    # --- telling ---

    async def _say_why(self, said: Said, unanswered: str) -> None:
        if unanswered:
            await self._telling.remind(self._places.of(said), said.author, unanswered)

    def _is_for_us(self, told: Event) -> bool:
        """Whether somebody wants something of the bot, and not of other people."""
        return self._wants_answer(told) if isinstance(told, Said) else bool(_person(told))


async def _come_in(uow: UnitOfWork, principal: Principal, binding: Binding, kind: ChannelKind) -> None:
    """Makes a member of whoever writes there, and a private conversation of one whose home is private by now."""
    await bindings.seen(uow, binding, kind)
    if kind is not ChannelKind.OPEN and not binding.followed:
        await bindings.keep_private(uow, binding.conversation_id)
    await conversations.join(uow, principal, binding.conversation_id)


def _reading_along(principal: Principal, message: Message) -> Principal:
    """Somebody who wrote it, where its conversation may be closed to them by now."""
    return replace(principal, reading_along=Audience(conversation_id=message.conversation_id, users=None))


def _as_edit(said: Said, at: datetime) -> Edited:
    return Edited(remote_id=said.remote_id, channel=said.channel, thread=said.thread, author=said.author, text=said.text, at=at)


async def _author(uow: UnitOfWork, message: Message) -> Principal:
    author = await uow.users.get(message.author_id) if message.author_id else None
    if author is None:
        raise NotFound("Whoever wrote this is not a user any more.")
    return identity.principal_of(author)


def _person(told: Event) -> str:
    match told:
        case Said() | Edited():
            return told.author
        case Promoted() | Stopped():
            return told.by
        case Removed():
            return ""
