"""Interactions: what a person's click or command becomes, how the bot may answer it, and what the person sees of that."""

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import Any

from tests.emulators.discord import forms, shapes, talk
from tests.emulators.discord.errors import Problems, refusal
from tests.emulators.discord.objects import EPHEMERAL, LOADING, Attachment, Channel, Message, Said, User
from tests.emulators.discord.state import WAIT_SECONDS, World

JSON = dict[str, Any]
COMMAND, COMPONENT, AUTOCOMPLETE = 2, 3, 4
MESSAGE, DEFERRED, DEFERRED_UPDATE, UPDATE, CHOICES, MODAL = 4, 5, 6, 7, 8, 9
_ANSWERS = {COMMAND: (MESSAGE, DEFERRED, MODAL), COMPONENT: (MESSAGE, DEFERRED, DEFERRED_UPDATE, UPDATE, MODAL), AUTOCOMPLETE: (CHOICES,)}
LIFE_SECONDS = 15 * 60


@dataclass(slots=True, eq=False)
class Interaction:
    """One, as Discord knows it."""

    world: World
    id: str
    kind: int
    user: User
    channel: Channel
    source: Message | None
    """The message whose button was pressed."""
    name: str
    started: float
    said: int = Said.DEFAULT
    """The type of the message that answers it."""
    token: str = field(default_factory=lambda: "aW50ZXJhY3Rpb24" + secrets.token_urlsafe(24))
    type: int = 0
    """Of the answer; 0 while there is none."""
    choices: list[JSON] = field(default_factory=list)
    modal: JSON | None = None
    messages: dict[str, Message] = field(default_factory=dict)
    original: str = ""
    answered_at: float = 0.0

    @property
    def late(self) -> bool:
        """No answer has come in time."""
        return not self.type and asyncio.get_running_loop().time() - self.started > self.world.interaction_seconds

    # --- what the bot does ---

    def answer(self, body: JSON, files: list[Attachment]) -> None:
        """The callback. Raises what Discord refuses."""
        problems = Problems()
        if problems.choice("type", body.get("type"), _ANSWERS[self.kind]):
            forms.message(body.get("data") or {}, problems, at="data.")
        problems.refuse()
        if self.late:
            raise refusal(10062)
        if self.type:
            raise refusal(40060)
        data = body.get("data") or {}
        kind = int(body["type"])
        if kind == CHOICES:
            forms.choices(data.get("choices") or [])
            self.choices = list(data.get("choices") or [])
        elif kind == MODAL:
            self.modal = data
        elif kind == UPDATE and self.source:
            self._change(self.source, data, files)
        elif kind in (MESSAGE, DEFERRED):
            flags = (int(data.get("flags") or 0)) | (LOADING if kind == DEFERRED else 0)
            self.original = self._say({**data, "flags": flags}, files, empty=kind == DEFERRED).id
        self.type = kind
        self.answered_at = asyncio.get_running_loop().time()
        self.world.touch()

    def callback(self) -> JSON:
        """What `with_response` gives back."""
        interaction: JSON = {"id": self.id, "type": self.kind}
        resource: JSON = {"type": self.type}
        original = self.messages.get(self.original) or (self.source if self.type in (UPDATE, DEFERRED_UPDATE) else None)
        if original:
            interaction["response_message_id"] = original.id
            interaction["response_message_loading"] = bool(original.flags & LOADING)
            interaction["response_message_ephemeral"] = bool(original.flags & EPHEMERAL)
            if self.type in (MESSAGE, UPDATE):
                resource["message"] = shapes.message(self.world, original)
        return {"interaction": interaction, "resource": resource}

    def follow_up(self, body: JSON, files: list[Attachment]) -> Message:
        """A further message; the first after a deferral takes the place of the "is thinking"."""
        self.demand_token()
        forms.message(body)
        waiting = self.messages.get(self.original)
        if waiting and waiting.flags & LOADING:
            self._change(waiting, body, files)
            return waiting
        return self._say(body, files)

    def change(self, message_id: str, body: JSON, files: list[Attachment]) -> Message:
        """PATCH of @original or of a follow-up."""
        self.demand_token()
        forms.message(body)
        message = self.message(message_id)
        self._change(message, body, files)
        return message

    def delete(self, message_id: str) -> None:
        self.demand_token()
        message = self.message(message_id)
        if not message.flags & EPHEMERAL and message.id in self.channel.messages:
            talk.delete(self.world, message)
        self.messages.pop(message.id, None)
        self.world.touch()

    def message(self, message_id: str) -> Message:
        if message_id == "@original" and self.type in (UPDATE, DEFERRED_UPDATE) and self.source:
            return self.source
        found = self.messages.get(self.original if message_id == "@original" else message_id)
        if found is None:
            raise refusal(10008)
        return found

    def demand_token(self) -> None:
        """That it was answered, and lives."""
        if not self.type:
            raise refusal(10015)
        if asyncio.get_running_loop().time() - self.started > LIFE_SECONDS:
            raise refusal(50027)

    def _say(self, body: JSON, files: list[Attachment], *, empty: bool = False) -> Message:
        if not empty and not ((body.get("content") or "").strip() or body.get("embeds") or files or body.get("flags", 0) & 1 << 15):
            raise refusal(50006)
        fields: JSON = {
            "flags": int(body.get("flags") or 0),
            "embeds": body.get("embeds") or [],
            "components": body.get("components") or [],
            "attachments": files,
            "interaction": self._metadata(),
            "webhook_id": self.world.application.id,
        }
        content = str(body.get("content") or "")
        if fields["flags"] & EPHEMERAL:
            message = Message(self.world.snowflake(), self.channel.id, self.world.bot, content, self.world.now(), **fields)
            self.world.attachments |= {one.id: one for one in files}
            self.world.note(message)
        else:
            fields["kind"] = Said.DEFAULT if self.type else self.said
            message = talk.post(self.world, self.channel, self.world.bot, content, allowed=body.get("allowed_mentions"), **fields)
        self.messages[message.id] = message
        self.world.touch()
        return message

    def _change(self, message: Message, body: JSON, files: list[Attachment]) -> None:
        changes: JSON = {key: body[key] or [] for key in ("components", "embeds") if key in body}
        if "content" in body:
            changes["content"] = str(body["content"] or "")
        if files or "attachments" in body:
            kept = {str(one.get("id")) for one in body.get("attachments") or []}
            changes["attachments"] = [one for one in message.attachments if one.id in kept] + files
        message.flags &= ~LOADING
        if message.flags & EPHEMERAL:
            for name, value in changes.items():
                setattr(message, name, value)
            self.world.note(message)
        else:
            talk.edit(self.world, message, allowed=body.get("allowed_mentions"), **changes)
        self.world.touch()

    def _metadata(self) -> JSON:
        owners = {"0": self.channel.guild_id or "0"}
        shape: JSON = {
            "id": self.id,
            "type": self.kind,
            "user": shapes.user(self.world, self.user),
            "authorizing_integration_owners": owners,
        }
        if self.source:
            shape["interacted_message_id"] = self.source.id
        return shape


@dataclass(slots=True)
class Answer:
    """What a person sees of the bot's answer; it goes on changing while the bot does."""

    interaction: Interaction

    @property
    def type(self) -> int:
        """4 a message, 5 "is thinking", 6 nothing yet, 7 the message itself changed, 8 choices, 9 a form; 0: none (yet)."""
        return self.interaction.type

    @property
    def failed(self) -> bool:
        """ "The application did not respond"."""
        return self.interaction.late

    @property
    def message(self) -> JSON:
        """The first answer; {} where there is none."""
        one = self.interaction
        if one.type in (DEFERRED_UPDATE, UPDATE) and one.source:
            return shapes.message(one.world, one.source)
        return shapes.message(one.world, one.messages[one.original]) if one.original in one.messages else {}

    @property
    def content(self) -> str:
        return str(self.message.get("content", ""))

    @property
    def ephemeral(self) -> bool:
        """Whether that person alone sees it."""
        one = self.interaction
        return one.original in one.messages and bool(one.messages[one.original].flags & EPHEMERAL)

    @property
    def thinking(self) -> bool:
        one = self.interaction
        return one.original in one.messages and bool(one.messages[one.original].flags & LOADING)

    @property
    def followups(self) -> list[JSON]:
        one = self.interaction
        return [shapes.message(one.world, message) for message in one.messages.values() if message.id != one.original]

    @property
    def texts(self) -> list[str]:
        """All that it said, in its order."""
        first = [self.content] if self.message and self.type in (MESSAGE, DEFERRED) else []
        return [*first, *(message["content"] for message in self.followups)]

    @property
    def choices(self) -> list[JSON]:
        return self.interaction.choices

    async def until(self, condition: Any, *, seconds: float = WAIT_SECONDS) -> "Answer":
        """Itself, as soon as `condition(answer)` holds. TimeoutError after that."""
        return await self.interaction.world.until(lambda: self, condition, seconds=seconds)

    async def settled(self) -> "Answer":
        """When it has answered and no longer thinks, or has not answered in time."""
        one = self.interaction
        try:
            await one.world.until(lambda: self, lambda seen: seen.type, seconds=one.world.interaction_seconds + 0.05)
        except TimeoutError:
            return self
        return await self.until(lambda seen: not seen.thinking)


def begin(
    world: World, kind: int, user: User, channel: Channel, data: JSON, *, name: str = "", source: Message | None = None
) -> Interaction:
    """Tells the bot of it."""
    interaction = Interaction(world, world.snowflake(), kind, user, channel, source, name, asyncio.get_running_loop().time())
    interaction.said = {1: Said.COMMAND, 3: Said.MENU_COMMAND}.get(data.get("type", 0), Said.DEFAULT)
    world.interactions[interaction.token] = interaction
    guild = world.guild_of(channel)
    payload: JSON = {
        "id": interaction.id,
        "application_id": world.application.id,
        "type": kind,
        "data": data,
        "channel_id": channel.id,
        "channel": {**shapes.channel(world, channel), "permissions": shapes.permissions_of(world, channel, user)},
        "token": interaction.token,
        "version": 1,
        "app_permissions": shapes.permissions_of(world, channel, world.bot),
        "locale": "en-US",
        "entitlements": [],
        "entitlement_sku_ids": [],
        "authorizing_integration_owners": {"0": channel.guild_id or "0"},
        "context": 0 if guild else 1,
        "attachment_size_limit": world.max_upload,
    }
    if guild:
        member = shapes.member(world, guild.members[user.id])
        payload |= {"guild_id": guild.id, "guild": {"id": guild.id, "locale": "en-US", "features": []}, "guild_locale": "en-US"}
        payload["member"] = {**member, "permissions": shapes.permissions_of(world, channel, user)}
    else:
        payload["user"] = shapes.user(world, user)
    if source:
        payload["message"] = shapes.message(world, source)
    world.events.dispatch("INTERACTION_CREATE", payload)
    world.touch()
    return interaction
