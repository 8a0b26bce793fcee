"""What those work with who listen to Discord, and how what they hear is stored: the gateway, the catching up, the commands and buttons."""

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

import structlog

from bots.commands import Commands
from bots.discord import events
from bots.discord.access import SignedIn
from bots.discord.client import Client
from bots.discord.config import DiscordConfig
from bots.discord.events import Spot
from bots.discord.surface import DiscordSurface
from bots.intake import Intake
from bots.people import People
from bots.policy import Policy
from bots.services import Services
from bots.surface import Busy, SurfaceError, Unclear, Unreachable
from core.errors import StorageUnavailable
from core.ids import new_id
from core.logs import place_of
from core.models import JSON, InboundEvent, Place
from core.ports import UnitOfWork

T = TypeVar("T")
_REMEMBERED = 20_000
_AWAITED_SECONDS = 120.0
_TOLD_SECONDS = 600.0
"""So long it is tried to say something."""
_LEAST_PAUSE_SECONDS = 0.25
_log = structlog.get_logger()


class Recent:
    """What was stored lately. What follows it may come before anybody has looked at it."""

    def __init__(self) -> None:
        self._lanes: OrderedDict[str, str] = OrderedDict()
        self._stored_at: OrderedDict[str, float] = OrderedDict()

    def remember(self, message_id: str, lane: str) -> None:
        _put(self._lanes, message_id, lane)
        _put(self._stored_at, lane, time.monotonic())

    def lane_of(self, message_id: str) -> str | None:
        return self._lanes.get(message_id)

    def is_awaited(self, channel: str, thread: str) -> bool:
        """Whether something may come to be shown there, by what is being taken in."""
        stored_at = self._stored_at.get(f"{channel}:{thread}")
        return stored_at is not None and time.monotonic() - stored_at < _AWAITED_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Outlives every connection."""

    services: Services
    client: Client
    """Signed in, for calls; the gateway's clients are others."""
    surface: DiscordSurface
    who: SignedIn
    config: DiscordConfig
    policy: Policy
    people: People
    commands: Commands
    intake: Intake
    tasks: asyncio.TaskGroup
    """Owns what goes on after Discord was answered."""
    recent: Recent = field(default_factory=Recent)

    def place(self, channel: str, thread: str) -> Place:
        return Place(account=self.surface.account, channel=channel, thread=thread)

    def is_chat(self, channel: str) -> bool:
        """Whether the channel itself is one conversation."""
        return self.policy.rules(channel).mode == "chat"

    def inbound(self, key: str, lane: str, payload: JSON, now: datetime, *, done: bool = False) -> InboundEvent:
        account = self.surface.account
        return InboundEvent(
            id=new_id(),
            surface=account.surface,
            account=account.id,
            key=key,
            lane=lane,
            payload=payload,
            attempts=0,
            run_after=now,
            waits=False,
            received_at=now,
            done_at=now if done else None,
        )

    async def lane(self, uow: UnitOfWork, payload: JSON) -> str:
        """In which an event is taken in."""
        channel, answers = payload["channel"], (payload.get("message") or {}).get("answers")
        home = await self._thread_of(uow, channel, answers) if answers and payload["guild"] and not payload["thread"] else ""
        return events.lane(payload, is_chat=self.is_chat(channel), home=home)

    async def store(self, payload: JSON) -> None:
        """What somebody asked for with a message's menu."""
        async with self.services.storage.write() as uow:
            lane = await self.lane(uow, payload)
            self.recent.remember(payload["message"]["id"], lane)
            await uow.inbound.add(self.inbound(events.key(payload), lane, payload, uow.now))
        self.intake.wake()

    def say_once(self, spot: Spot, what: str, sentence: str) -> None:
        """Says something there to everybody, soon; not again within a week, whichever process wants to."""
        self.tasks.create_task(self._say_once(spot, what, sentence), name="discord.say")

    async def _say_once(self, spot: Spot, what: str, sentence: str) -> None:
        key = f"said:{what}:{spot.id}"
        try:
            async with self.services.storage.write() as uow:
                is_new = await uow.inbound.add(self.inbound(key, spot.id, {}, uow.now, done=True))
            if is_new:
                await self._told(self.place(spot.channel, spot.thread), sentence, key)
        except (SurfaceError, StorageUnavailable, TimeoutError) as error:
            _log.warning("discord.not_said", what=what, error=type(error).__name__)
        except Exception as error:  # noqa: BLE001  # nobody waits for it, and it must not end what else is served
            _log.error("discord.not_said", what=what, **place_of(error))

    async def _told(self, place: Place, sentence: str, key: str) -> None:
        """Nobody says it again: so it is tried until it is there, as long as that may pass."""
        pause = _LEAST_PAUSE_SECONDS
        async with asyncio.timeout(_TOLD_SECONDS):
            while True:
                try:
                    return await self.surface.notice(place, sentence, key)
                except Busy as error:
                    pause = max(error.retry_after, _LEAST_PAUSE_SECONDS)
                except (Unreachable, Unclear):
                    pause *= 2
                await asyncio.sleep(pause)

    async def _thread_of(self, uow: UnitOfWork, channel: str, remote_id: str) -> str:
        """Of the conversation that a message at the channel's top belongs to; empty where it belongs to none."""
        known = await uow.deliveries.at(self.place(channel, ""), remote_id)
        binding = await uow.bindings.get(known.binding_id) if known else None
        return binding.thread if binding else ""


def _put(known: OrderedDict[str, T], name: str, value: T) -> None:
    known[name] = value
    known.move_to_end(name)
    if len(known) > _REMEMBERED:
        known.popitem(last=False)
