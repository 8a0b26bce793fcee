"""One channel's history: what was said beyond what was heard, and what became of what was heard before."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from bots.discord import events
from bots.discord.events import Spot
from bots.discord.inbound.catch_up_calls import CatchUpCalls, Pace, Seat
from bots.discord.inbound.ingest import Heard, Ingest
from bots.discord.inbound.spots import Spots
from bots.discord.listening import Listening
from bots.surface import MessageGone, Said, SurfaceError
from core.models import JSON, DeliveryState

_PAGE = 100
"""Messages that Discord gives at once."""
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    messages: Sequence[JSON]
    """Beyond what was heard, oldest first."""
    page: Sequence[JSON]
    """The newest, heard before or not."""
    left_out: bool
    """Whether there are others before them that were not heard."""
    rest_before: int = 0
    """Where there are too many: those of the last hours go on before this id."""


class History:
    def __init__(self, listening: Listening, ingest: Ingest, spots: Spots, calls: CatchUpCalls, pace: Pace) -> None:
        self._listening = listening
        self._http = listening.client.http
        self._rules = listening.config.catch_up
        self._ingest = ingest
        self._spots = spots
        self._calls = calls
        self._pace = pace

    async def newest(self, spot: Spot, after: int, seat: Seat) -> Read:
        """The newest messages beyond `after`, as many as the rules allow."""
        floor = max(after, self.floor())
        found: list[JSON] = []
        first: list[JSON] = []
        before: int | None = None
        while True:
            page = await self._page(spot, before, seat)
            first = first or page
            newer = [message for message in page if int(message["id"]) > floor]
            found += newer
            if len(newer) < len(page) or len(page) < _PAGE:
                left_out = any(after < int(message["id"]) <= floor for message in page)
                break
            if left_out := len(found) >= self._rules.messages:
                break
            before = int(page[-1]["id"])
        kept = found[: self._rules.messages]
        left_out = left_out or len(kept) < len(found)
        rest = int(kept[-1]["id"]) if left_out and len(found) >= self._rules.messages else 0
        return Read(messages=kept[::-1], page=first, left_out=left_out, rest_before=rest)

    async def calls(self, spot: Spot, after: int, before: int, seat: Seat) -> AsyncIterator[JSON]:
        """What is written to the bot among the many that are left out."""
        floor = max(after, self.floor())
        while True:
            page = await self._page(spot, before, seat)
            for message in page:
                payload = self._described("message", message, spot)
                told = self._listening.surface.event(payload) if payload else None
                if int(message["id"]) > floor and isinstance(told, Said) and told.to_bot:
                    yield message
            if len(page) < _PAGE or int(page[-1]["id"]) <= floor:
                return
            before = int(page[-1]["id"])

    async def hear(self, kind: str, message: JSON, spot: Spot) -> None:
        if payload := self._described(kind, message, spot):
            await self._ingest.hear_earlier(Heard(spot=spot, payload=payload, caught_up=True))

    async def look_back(self, spot: Spot, after: int, page: Sequence[JSON], seat: Seat) -> None:
        """Edits and deletions of what was heard before."""
        for message in reversed(page):
            if int(message["id"]) <= after and message.get("edited_timestamp"):
                await self.hear("edit", message, spot)
        for message_id in await self._removed(spot, page, seat):
            await self._hear_removed(message_id, spot)

    async def look_at(self, message_id: str, spot: Spot, seat: Seat) -> None:
        """Likewise of one message: of a conversation's root, which may stand far back in its channel."""
        try:
            message = await self._message(message_id, spot, seat)
        except SurfaceError:
            return
        if message is None:
            await self._hear_removed(message_id, spot)
        elif message.get("edited_timestamp"):
            await self.hear("edit", message, spot)

    def floor(self) -> int:
        """The ids of what was said too long ago."""
        return events.id_at(self._listening.services.clock.now() - timedelta(hours=self._rules.hours))

    async def _page(self, spot: Spot, before: int | None, seat: Seat) -> list[JSON]:
        """The newest first, whatever the server makes of that."""
        page = await self._calls.patiently(lambda: self._http.logs_from(int(spot.id), _PAGE, before=before), seat)
        return sorted(({**message} for message in page), key=lambda message: -int(message["id"]))

    async def _message(self, message_id: str, spot: Spot, seat: Seat) -> JSON | None:
        """None where it is gone."""
        try:
            return {**await self._calls.patiently(lambda: self._http.get_message(int(spot.id), int(message_id)), seat)}
        except MessageGone:
            return None

    def _described(self, kind: str, message: JSON, spot: Spot) -> JSON | None:
        describe = events.said if kind == "message" else events.edited
        try:
            return describe(message, spot, self._spots.roles(spot.guild))
        except (KeyError, TypeError, ValueError, AttributeError):
            _log.warning("discord.not_described", kind=kind)
            return None

    async def _hear_removed(self, message_id: str, spot: Spot) -> None:
        await self._ingest.hear_earlier(Heard(spot=spot, payload=events.deleted(message_id, spot), caught_up=True))

    async def _removed(self, spot: Spot, page: Sequence[JSON], seat: Seat) -> Sequence[str]:
        """What people said there, and is not in its history any more. An empty one may only be one that the bot may not read."""
        if not page:
            return ()
        seen = {str(message["id"]) for message in page}
        oldest = min(map(int, seen)) if len(page) == _PAGE else 0
        place = self._listening.place(spot.channel, spot.thread)

        async def missing() -> list[str]:
            since = self._listening.services.clock.now() - timedelta(hours=self._rules.hours)
            async with self._listening.services.storage.read() as uow:
                known = await uow.deliveries.known_since(place.account, place.channel, since)
                absent = sorted(int(each) for each in known - seen if each.isdecimal() and int(each) >= oldest)
                noted = [await uow.deliveries.at(place, str(each)) for each in absent]
            theirs = [each for each in noted if each and each.state is DeliveryState.THEIRS and each.thread == spot.thread]
            return [each.remote_id for each in theirs if each.remote_id]

        found = await self._calls.stored(missing)
        if len(found) > self._pace.removed:
            _log.warning("discord.many_removed", channel_id=spot.id, missing=len(found))
            return [each for each in found[-_PAGE:] if await self._is_gone(each, spot, seat)]
        return found

    async def _is_gone(self, message_id: str, spot: Spot, seat: Seat) -> bool:
        try:
            return await self._message(message_id, spot, seat) is None
        except SurfaceError:
            return False
