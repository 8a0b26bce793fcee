"""A person who uses Discord's client: says, edits, presses, commands, and waits for what there is to see."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.emulators.discord import commands, interactions, shapes, talk
from tests.emulators.discord.interactions import Answer
from tests.emulators.discord.objects import Attachment, Channel, Kind, Message, Said, User
from tests.emulators.discord.state import WAIT_SECONDS, World

JSON = dict[str, Any]
File = tuple[str, bytes, str]
"""Name, content, media type."""


@dataclass(slots=True)
class Person:
    """What Discord's client would not let this person do is an AssertionError."""

    world: World
    user: User
    home: str
    """The channel in which commands are given that name none."""

    @property
    def id(self) -> str:
        return self.user.id

    @property
    def name(self) -> str:
        return self.user.name

    @property
    def takes_no_dms(self) -> bool:
        return self.user.takes_no_dms

    @takes_no_dms.setter
    def takes_no_dms(self, on: bool) -> None:
        self.user.takes_no_dms = on

    # --- messages ---

    async def say(
        self,
        channel: str,
        text: str,
        *,
        reply_to: str | None = None,
        ping: bool = True,
        mention: "Sequence[str | Person]" = (),
        files: Sequence[File] = (),
    ) -> str:
        """The message's id. Mentions (of people or ids) come before the text; a reply with `ping` mentions whom it answers."""
        place = self._place(channel)
        self._may_speak(place)
        assert len(text) <= 2000
        assert text or files
        named = " ".join(f"<@{getattr(one, 'id', one)}>" for one in mention)
        reference = None
        if reply_to:
            assert reply_to in place.messages, f"{self.name} sees no message {reply_to} in {channel}"
            reference = {
                "type": 0,
                "channel_id": channel,
                "message_id": reply_to,
                **({"guild_id": place.guild_id} if place.guild_id else {}),
            }
        message = talk.post(
            self.world,
            place,
            self.user,
            f"{named} {text}" if named else text,
            kind=Said.REPLY if reply_to else Said.DEFAULT,
            reference=reference,
            allowed=None if ping else {"parse": ["users", "roles", "everyone"], "replied_user": False},
            attachments=[self._attachment(one) for one in files],
            nonce=self.world.snowflake(),
        )
        return message.id

    async def edit(self, channel: str, message_id: str, text: str) -> None:
        talk.edit(self.world, self._own(channel, message_id), content=text)

    async def delete(self, channel: str, message_id: str) -> None:
        """One's own, or anybody's with MANAGE_MESSAGES."""
        place = self._place(channel)
        message = place.messages[message_id]
        assert message.author is self.user or self.world.may(place, self.user, "MANAGE_MESSAGES"), (
            f"{self.name} may not delete {message_id}"
        )
        talk.delete(self.world, message)

    async def purge(self, channel: str, message_ids: Sequence[str]) -> None:
        """Many at once, as moderators' bots do."""
        talk.purge(self.world, self._place(channel), message_ids)

    async def direct(self) -> str:
        """The id of the DM with the bot."""
        return self.world.direct(self.user).id

    # --- threads ---

    async def thread(self, channel: str, message_id: str, name: str) -> str:
        """One on that message, whose id it gets."""
        place = self._place(channel)
        message = place.messages[message_id]
        assert not message.thread_id, f"{message_id} has a thread"
        assert place.kind in (Kind.TEXT, Kind.ANNOUNCEMENT), f"{place.kind.name} has no threads on messages"
        return talk.start_thread(self.world, place, self.user, name, message=message).id

    async def loose_thread(self, channel: str, name: str) -> str:
        """One on no message."""
        return talk.start_thread(self.world, self._place(channel), self.user, name).id

    async def private_thread(self, channel: str, name: str, *, people: "Sequence[Person]" = (), bot: bool = False) -> str:
        """With these people, and the bot; a mention within it brings others in, the bot as well."""
        thread = talk.start_thread(self.world, self._place(channel), self.user, name, private=True)
        for user in [*(person.user for person in people), *([self.world.bot] if bot else [])]:
            talk.join_thread(self.world, thread, user)
        return thread.id

    async def post(self, forum: str, title: str, text: str, *, files: Sequence[File] = ()) -> str:
        """A forum's post: its id is that of its thread and of its first message."""
        place = self._place(forum)
        assert place.kind is Kind.FORUM
        thread = talk.start_thread(self.world, place, self.user, title)
        talk.post(self.world, thread, self.user, text, id_=thread.id, attachments=[self._attachment(one) for one in files])
        return thread.id

    async def archive(self, thread: str) -> None:
        talk.change_thread(self.world, self._place(thread), archived=True)

    async def unarchive(self, thread: str) -> None:
        talk.change_thread(self.world, self._place(thread), archived=False)

    async def lock(self, thread: str) -> None:
        """A moderator's: only moderators speak in it, and bring it back from the archive."""
        talk.change_thread(self.world, self._place(thread), locked=True)

    async def unlock(self, thread: str) -> None:
        talk.change_thread(self.world, self._place(thread), locked=False)

    async def rename(self, thread: str, name: str) -> None:
        talk.change_thread(self.world, self._place(thread), by=self.user, name=name)

    async def delete_thread(self, thread: str) -> None:
        talk.delete_channel(self.world, self._place(thread))

    async def add_bot(self, thread: str) -> None:
        """To a private thread."""
        talk.join_thread(self.world, self._place(thread), self.world.bot)

    # --- buttons and commands ---

    async def press(self, channel: str, message_id: str, button: str, *, wait: bool = True) -> Answer:
        """The button with that label or custom_id. `wait`: until the bot has answered, or has not in time."""
        place = self._place(channel)
        message = place.messages[message_id]
        found = _buttons(message.components, button)
        assert found, f"the message has no button {button!r}: {message.components}"
        assert not found[0].get("disabled"), f"{button!r} cannot be pressed"
        data = {"component_type": found[0]["type"], "custom_id": found[0]["custom_id"], "id": found[0].get("id", 1)}
        return await self._ask(interactions.COMPONENT, place, data, source=message, wait=wait)

    async def press_ephemeral(self, answer: Answer, button: str, *, wait: bool = True) -> Answer:
        """The button of an answer that this person alone sees."""
        for message in answer.interaction.messages.values():
            if found := _buttons(message.components, button):
                data = {"component_type": found[0]["type"], "custom_id": found[0]["custom_id"], "id": found[0].get("id", 1)}
                return await self._ask(interactions.COMPONENT, answer.interaction.channel, data, source=message, wait=wait)
        raise AssertionError(f"the answer has no button {button!r}")

    async def command(self, line: str, /, *, at: str = "", wait: bool = True, **options: object) -> Answer:
        """`await alice.command("task new", title="Plan")`, in the channel, thread or DM `at` (`home`)."""
        place = self._place(at or self.home)
        command, data = commands.fill_in(self.world, line, options)
        assert commands.allowed_in(command, direct=not place.guild_id), f"/{line} is not offered here"
        return await self._ask(interactions.COMMAND, place, data, name=line, wait=wait)

    async def autocomplete(self, line: str, option: str, typed: str, /, *, at: str = "", **options: object) -> list[JSON]:
        """The choices (name, value) while this person types an option."""
        _, data = commands.fill_in(self.world, line, {**options, option: typed}, focused=option)
        answer = await self._ask(interactions.AUTOCOMPLETE, self._place(at or self.home), data, name=line, wait=True)
        return answer.choices

    async def menu(self, name: str, channel: str, message_id: str, *, wait: bool = True) -> Answer:
        """Chooses an application's entry in the menu of a message."""
        place = self._place(channel)
        message = place.messages[message_id]
        command = commands.menu(self.world, name)
        assert commands.allowed_in(command, direct=not place.guild_id), f"{name!r} is not offered here"
        shown = {message_id: shapes.message(self.world, message)}
        data = {"id": command["id"], "name": name, "type": 3, "target_id": message_id, "resolved": {"messages": shown}}
        return await self._ask(interactions.COMMAND, place, data, name=name, wait=wait)

    # --- looking ---

    async def sees(self, channel: str, condition: Callable[[list[JSON]], object], *, seconds: float = WAIT_SECONDS) -> list[JSON]:
        """The messages of a channel or thread, oldest first, as soon as `condition` holds for them and there are any."""

        def look() -> list[JSON]:
            place = self.world.channels.get(channel)
            if place is None or not self.world.may(place, self.user, "VIEW_CHANNEL"):
                return []
            return [shapes.message(self.world, message) for message in place.messages.values()]

        return await self.world.until(look, lambda messages: messages and condition(messages), seconds=seconds)

    # --- helpers ---

    async def _ask(self, kind: int, place: Channel, data: JSON, *, name: str = "", source: Message | None = None, wait: bool) -> Answer:
        answer = Answer(interactions.begin(self.world, kind, self.user, place, data, name=name, source=source))
        return await answer.settled() if wait else answer

    def _place(self, channel: str) -> Channel:
        place = self.world.channels[channel]
        assert self.world.may(place, self.user, "VIEW_CHANNEL"), f"{self.name} does not see {place.name or 'that DM'}"
        return place

    def _may_speak(self, place: Channel) -> None:
        assert place.kind is not Kind.FORUM, "people post in a forum"
        if place.locked:
            assert self.world.may(place, self.user, "MANAGE_THREADS"), f"{place.name} is locked"
        if place.guild_id:
            needed = "SEND_MESSAGES_IN_THREADS" if place.is_thread else "SEND_MESSAGES"
            assert self.world.may(place, self.user, needed), f"{self.name} may not speak in {place.name}"

    def _own(self, channel: str, message_id: str) -> Message:
        message = self._place(channel).messages[message_id]
        assert message.author is self.user, f"{message_id} is not {self.name}'s"
        return message

    def _attachment(self, file: File) -> Attachment:
        name, content, media_type = file
        return Attachment(self.world.snowflake(), name, media_type, content)


def _buttons(components: Sequence[JSON], wanted: str) -> list[JSON]:
    inner = [one for row in components for one in [*row.get("components", []), *_buttons(row.get("components", []), wanted)]]
    return [one for one in inner if "custom_id" in one and wanted in (one.get("label"), one["custom_id"])]
