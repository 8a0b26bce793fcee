"""What is heard of Discord, stored in the order in which it was said: what may concern the bot, and of the rest only how far it was heard.

What comes live and what is caught up come together here, in one queue, from which it is stored. These decide what is heard when:

- `holding.py` keeps back what comes live from a guild or a channel whose past is not known yet;
- `catch_up.py` says which these are, after every new session, and lets them go when their past was read, or after a minute without;
- `unread.py` lists where there is something new, and `history.py` reads it;
- `cursors.py` knows how far each channel was heard. A cursor moves only when a message is stored before which nothing is missing.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import structlog

from bots.discord import events
from bots.discord.events import Spot
from bots.discord.inbound.cursors import Cursors
from bots.discord.inbound.holding import Holding, Told
from bots.discord.inbound.spots import Spots
from bots.discord.listening import Listening
from bots.message_commands import typed
from bots.places import hears
from bots.reminders import Reminders
from bots.surface import Edited, Event, Removed, Said
from core.errors import StorageUnavailable
from core.models import JSON
from core.ports import UnitOfWork

__all__ = ["Heard", "Ingest", "IngestRules", "Told"]
_UNREADABLE = (
    "I can read only those messages here that mention me: Discord's Message Content Intent is off for this bot. Mention me in each one, or "
    "ask an admin of Onethread to switch it on."
)
_WARNED = timedelta(minutes=1)
_ALL = 10_000
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestRules:
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
class Heard:
    """The same, as it is stored. Without a payload it tells only how far its channel was heard."""

    spot: Spot
    payload: JSON
    newest: int = 0
    """The id up to which its channel was heard, once this is stored; 0 where something before it is still to be read."""
    caught_up: bool = False


class Ingest:
    """Of one account, while its lease is held."""

    def __init__(self, listening: Listening, spots: Spots, rules: IngestRules) -> None:
        self._listening = listening
        self._spots = spots
        self._rules = rules
        self._queue: asyncio.Queue[Heard] = asyncio.Queue(rules.waiting)
        self._reminders = Reminders(listening.services.clock)
        self.cursors = Cursors(listening.services.storage, listening.surface.account)
        self.holding = Holding(spots, each=rules.held, together=rules.waiting, hear=self.hear)
        self.reads_content = True
        """Whether Discord gives what messages say that do not mention the bot."""

    def hear(self, told: Told) -> None:
        """Takes what came just now; in the order in which it came."""
        if self.holding.keeps(told):
            return
        spot = self._spots.at(told.channel, told.guild)
        if spot is None or not self._take(told, spot):
            self.cursors.pin(told.guild, told.channel)
            self.holding.hold_back(told, lost=spot is not None)

    async def hear_earlier(self, heard: Heard) -> None:
        """Takes what is caught up."""
        await self._queue.put(heard)

    def hold(self, spot: Spot) -> None:
        """Keeps back what comes from this channel, whose history is to be read."""
        self.cursors.pin(spot.guild, spot.id)
        self.holding.hold((spot.guild, spot.id))

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
                if is_owed := self.holding.is_owed(spot):
                    self.cursors.pin(spot.guild, spot.id)
                return Heard(spot=spot, payload=payload, newest=0 if is_owed else int(told.message["id"]))
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
                await self.cursors.read()
                async with self._listening.services.storage.read() as uow:
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
                    await self.cursors.write()

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
            self.cursors.advance(heard.spot.id, heard.newest)
            if heard.newest and not heard.caught_up:
                self.cursors.advance_guild(heard.spot.guild, heard.newest)

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
        if said.to_bot or not spot.guild or (not said.thread and self._listening.is_chat(said.channel)) or typed(said.text, is_to_us=False):
            return True
        place = self._listening.place(said.channel, said.thread)
        roots = list(filter(None, (said.thread, said.answers)))
        recent = self._listening.recent
        if recent.is_awaited(said.channel, said.thread) or any(map(recent.lane_of, roots)):
            return True
        shown = await uow.bindings.at(place)
        if shown and (hears(shown) or typed(said.text, is_to_us=True)):
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

    async def _note_cursors(self) -> None:
        while True:
            await asyncio.sleep(self._rules.cursor_seconds)
            try:
                await self.cursors.write()
            except StorageUnavailable as error:
                await self._storage_is_away(error)


def _id_of(told: Event) -> str:
    return told.remote_id if isinstance(told, Said | Edited | Removed) else ""
