"""What is heard of Discord, stored in the order in which it was said: what may concern the bot, and of the rest only how far it was heard.

What comes live and what is caught up come together here. Where a channel is being caught up, what comes live waits until that is through.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

import structlog

from bots.discord import events
from bots.discord.events import Spot
from bots.discord.listening import Listening
from bots.discord.spots import Spots
from bots.reminders import Reminders
from bots.surface import Edited, Event, Removed, Said
from core.errors import StorageUnavailable
from core.models import JSON
from core.ports import UnitOfWork

_UNREADABLE = (
    "I can read only those messages here that mention me: Discord's Message Content Intent is off for this bot. Mention me in each one, or "
    "ask an admin of Onethread to switch it on."
)
_WARNED = timedelta(minutes=1)
_MINUTE = 60_000 << 22
"""As a difference of ids."""
_ALL = 10_000
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class HearingRules:
    waiting: int = 10_000
    """Events that wait to be stored. One for which there is no room is caught up later."""
    held: int = 2_000
    """Likewise of one channel, while it is caught up; of all of them as many as may wait."""
    batch: int = 200
    """Events that one transaction stores."""
    again_seconds: float = 0.5
    """After the database was away."""
    cursor_seconds: float = 5.0
    """So often it is noted how far each channel was heard."""
    end_seconds: float = 2.0
    """So long the last such note may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Something that Discord told just now."""

    kind: Literal["said", "edited", "deleted"]
    guild: str
    """Empty for a direct message."""
    channel: str
    """Or the thread."""
    message: JSON
    """Of what was deleted only its id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """The same, as it is stored. Without a payload it tells only how far its channel was heard."""

    spot: Spot
    payload: JSON
    newest: int = 0
    """The id up to which its channel was heard, once this is stored."""
    caught_up: bool = False


@dataclass(slots=True)
class _Held:
    """What a channel tells while it waits."""

    guild: str
    told: list[Told] = field(default_factory=list)
    has_lost: bool = False
    """More came than can be held."""


class Hearing:
    """Of one account, while its lease is held."""

    def __init__(self, listening: Listening, spots: Spots, rules: HearingRules) -> None:
        self._listening = listening
        self._spots = spots
        self._rules = rules
        self._queue: asyncio.Queue[Heard] = asyncio.Queue(rules.waiting)
        self._ignored: set[str] = set()
        self._held_guilds: set[str] = set()
        self._held: dict[str, _Held] = {}
        self._cursors: dict[str, int] = {}
        self._unwritten: set[str] = set()
        self._reminders = Reminders(listening.services.clock)
        self.reads_content = True
        """Whether Discord gives what messages say that do not mention the bot."""
        self.missed: Callable[[str, str], None] = _nobody
        """Is told the guild and the channel that was held because it must be caught up."""

    # --- how far each channel was heard ---

    def cursor(self, channel: str, baseline: int) -> int:
        """Of a channel or thread, by its id."""
        return self._cursors.get(channel, baseline)

    def knows(self, channel: str) -> bool:
        return channel in self._cursors

    @property
    def baseline(self) -> int | None:
        """How far a channel counts as heard of which nothing is known. None where nothing was ever heard."""
        return max(self._cursors.values()) - _MINUTE if self._cursors else None

    async def note(self, newest: Mapping[str, int]) -> None:
        """That channels were heard so far, which will not be forgotten."""
        for channel, message_id in newest.items():
            self._advance(channel, message_id)
        await self._write_cursors()

    # --- in order ---

    def hear(self, told: Told) -> None:
        """Takes what came just now; in the order in which it came."""
        if told.guild in self._ignored:
            return
        if told.guild in self._held_guilds or told.channel in self._held:
            held = self._held.setdefault(told.channel, _Held(told.guild))
            held.told.append(told)
            if len(held.told) > self._rules.held or sum(len(each.told) for each in self._held.values()) > self._rules.waiting:
                held.told.clear()
                held.has_lost = True
            return
        spot = self._spots.at(told.channel, told.guild)
        if spot is None or not self._take(told, spot):
            self._held[told.channel] = _Held(told.guild, [told] if spot is None else [], has_lost=spot is not None)
            self.missed(told.guild, told.channel)

    async def hear_earlier(self, heard: Heard) -> None:
        """Takes what is caught up."""
        await self._queue.put(heard)

    def hold(self, guilds: Collection[str]) -> None:
        """Keeps back what comes from these guilds, from now on."""
        self._held_guilds |= set(guilds)
        self._ignored -= set(guilds)

    def ignore(self, guild: str) -> None:
        """Listens to it no more."""
        self._ignored.add(guild)
        self._held_guilds.discard(guild)
        self._held = {channel: held for channel, held in self._held.items() if held.guild != guild}

    def release_guild(self, guild: str, but: Collection[str] = ()) -> None:
        """Keeps back no more what comes from it, but for some of its channels."""
        self._held_guilds.discard(guild)
        waiting = {channel: held for channel, held in self._held.items() if held.guild == guild and channel not in but}
        for channel in but:
            self._held.setdefault(channel, _Held(guild))
        for channel, held in waiting.items():
            if held.has_lost:
                self.missed(guild, channel)
            else:
                self._pass(channel)

    def release(self, channel: str) -> bool:
        """Keeps back no more what comes from this channel. False where some of it was lost: it stays held, and is to be caught up again."""
        held = self._held.get(channel)
        if held and held.has_lost:
            self._held[channel] = _Held(held.guild)
            return False
        self._pass(channel)
        return True

    def give_up(self, channel: str) -> None:
        """Its history cannot be had: what is held of it goes on, but for what nobody knows where it stands."""
        held = self._held.pop(channel, None)
        for told in held.told if held else ():
            if self._spots.at(told.channel, told.guild):
                self.hear(told)

    def _pass(self, channel: str) -> None:
        held = self._held.pop(channel, None)
        for told in held.told if held else ():
            self.hear(told)

    def _take(self, told: Told, spot: Spot) -> bool:
        """False where there is no room."""
        try:
            heard = self._heard(told, spot)
        except (KeyError, TypeError, ValueError, AttributeError):
            _log.warning("discord.not_described", kind=told.kind)
            return True
        try:
            self._queue.put_nowait(heard)
        except asyncio.QueueFull:
            return False
        return True

    def _heard(self, told: Told, spot: Spot) -> Heard:
        match told.kind:
            case "said":
                payload = events.said(told.message, spot, self._spots.roles(told.guild))
                return Heard(spot=spot, payload=payload, newest=int(told.message["id"]))
            case "edited":
                return Heard(spot=spot, payload=events.edited(told.message, spot, self._spots.roles(told.guild)))
            case "deleted":
                return Heard(spot=spot, payload=events.deleted(told.message["id"], spot))

    # --- stored ---

    async def begin(self) -> None:
        """Reads how far everything was heard, and what waits to be taken in."""
        account, far = self._listening.surface.account, self._listening.services.clock.now() + timedelta(days=365)
        while True:
            try:
                async with self._listening.services.storage.read() as uow:
                    self._cursors = await uow.cursors.all(account)
                    waiting = await uow.inbound.waiting(account, far, limit=_ALL)
                break
            except StorageUnavailable as error:
                await self._storage_is_away(error)
        for event in waiting:
            if message := event.payload.get("message"):
                self._listening.recent.remember(message["id"], event.lane)

    async def run(self) -> None:
        """Stores what is heard. Until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._store_all(), name="discord.store")
                tasks.create_task(self._note_cursors(), name="discord.cursors")
        finally:
            with suppress(StorageUnavailable, TimeoutError):
                async with asyncio.timeout(self._rules.end_seconds):
                    await self._write_cursors()

    async def _store_all(self) -> None:
        while True:
            batch = [await self._queue.get()]
            while len(batch) < self._rules.batch and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            await self._store(batch)

    async def _store(self, batch: Sequence[Heard]) -> None:
        while True:
            try:
                if concerning := await self._concerning(batch):
                    await self._add(concerning)
                    self._listening.intake.wake()
                break
            except StorageUnavailable as error:
                await self._storage_is_away(error)
        for heard in batch:
            self._advance(heard.spot.id, heard.newest)

    async def _storage_is_away(self, error: StorageUnavailable) -> None:
        if self._reminders.may_tell("storage", _WARNED):
            _log.warning("discord.storage_unavailable", reason=str(error))
        await asyncio.sleep(self._rules.again_seconds)

    async def _concerning(self, batch: Sequence[Heard]) -> list[tuple[Heard, str]]:
        """What may concern the bot, each with its lane."""
        found: list[tuple[Heard, str]] = []
        async with self._listening.services.storage.read() as uow:
            for heard in batch:
                told = self._listening.surface.event(heard.payload) if heard.payload else None
                if told and await self._concerns(uow, told, heard):
                    message_id, recent = _id_of(told), self._listening.recent
                    lane = recent.lane_of(message_id) or await self._listening.lane(uow, heard.payload)
                    recent.remember(message_id, lane)
                    found.append((heard, lane))
        return found

    async def _concerns(self, uow: UnitOfWork, told: Event, heard: Heard) -> bool:
        match told:
            case Said():
                if not await self._is_for_us(uow, told, heard.spot):
                    return False
                return self._is_readable(told, heard)
            case Edited() | Removed():
                place = self._listening.place(told.channel, told.thread)
                return bool(self._listening.recent.lane_of(told.remote_id)) or await uow.deliveries.at(place, told.remote_id) is not None
        return False

    async def _is_for_us(self, uow: UnitOfWork, said: Said, spot: Spot) -> bool:
        """Whether it is written to the bot, or stands where a conversation is shown: as `Taking` will see it, or more."""
        if said.to_bot or not spot.guild or (not said.thread and self._listening.is_chat(said.channel)):
            return True
        place = self._listening.place(said.channel, said.thread)
        roots = list(filter(None, (said.thread, said.answers)))
        recent = self._listening.recent
        if recent.is_awaited(said.channel, said.thread) or any(map(recent.lane_of, roots)) or await uow.bindings.at(place):
            return True
        return any([await uow.deliveries.at(place, root) for root in roots])

    def _is_readable(self, said: Said, heard: Heard) -> bool:
        """Where it is not, people are told so."""
        mentions = heard.payload["message"].get("mentions", ())
        if self.reads_content or not heard.spot.guild or self._listening.who.bot_user_id in mentions or said.text or said.files:
            return True
        self._listening.say_once(heard.spot, "unreadable", _UNREADABLE)
        return False

    async def _add(self, concerning: Sequence[tuple[Heard, str]]) -> None:
        async with self._listening.services.storage.write() as uow:
            for heard, lane in concerning:
                event = self._listening.inbound(events.key(heard.payload), lane, heard.payload, uow.now)
                is_new = await uow.inbound.add(event)
                if heard.caught_up and heard.payload["type"] == "message" and heard.payload["message"].get("edited_timestamp"):
                    # It is stored as it reads since its edit, or only the edit is news.
                    edit = {**heard.payload, "type": "edit"}
                    await uow.inbound.add(self._listening.inbound(events.key(edit), lane, {} if is_new else edit, uow.now, done=is_new))

    def _advance(self, channel: str, newest: int) -> None:
        if newest > self._cursors.get(channel, 0):
            self._cursors[channel] = newest
            self._unwritten.add(channel)

    async def _note_cursors(self) -> None:
        while True:
            await asyncio.sleep(self._rules.cursor_seconds)
            try:
                await self._write_cursors()
            except StorageUnavailable as error:
                await self._storage_is_away(error)

    async def _write_cursors(self) -> None:
        if not self._unwritten:
            return
        newest = {channel: self._cursors[channel] for channel in self._unwritten}
        async with self._listening.services.storage.write() as uow:
            await uow.cursors.advance(self._listening.surface.account, newest)
        self._unwritten -= {channel for channel, message_id in newest.items() if self._cursors[channel] == message_id}


def _id_of(told: Event) -> str:
    return told.remote_id if isinstance(told, Said | Edited | Removed) else ""


def _nobody(_guild: str, _channel: str) -> None:
    """Nobody is told."""
