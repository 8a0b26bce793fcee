"""Where in Discord something was said that was not heard, by the lists of a guild's channels and threads; direct messages are in no list.

Discord archives a thread after an hour without a message or later, and lists archived ones by channel only. So a channel's are listed where
it shows conversations; of all channels where the guild was not heard for so long that a message in a thread may have been archived unheard.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from bots.discord import events
from bots.discord.events import Spot
from bots.discord.inbound.catch_up_calls import CatchUpCalls, Pace, Seat
from bots.discord.inbound.cursors import Cursors
from bots.discord.inbound.spots import Spots
from bots.discord.listening import Listening
from bots.surface import SurfaceError
from core.models import JSON

MayRead = Callable[[str, str], bool]
"""Whether the bot may read the history of a guild's channel, by their ids."""
_TEXT, _DIRECT, _ANNOUNCEMENT, _FORUM, _MEDIA = 0, 1, 5, 15, 16
_WITH_MESSAGES = frozenset({_TEXT, 2, _ANNOUNCEMENT, 10, 11, 12, 13})
"""The types of channels and threads that have a history."""
_WITH_THREADS = frozenset({_TEXT, _ANNOUNCEMENT, _FORUM, _MEDIA})
_ARCHIVED_AFTER = timedelta(minutes=55)
"""At the earliest Discord does so after an hour."""
_PAGE = 100
_FRESH_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A channel's history, to be read."""

    spot: Spot
    after: int
    """The newest message that was heard."""
    last: int = 0
    """The newest that there is, as its channel says: it may be gone."""
    looks_back: bool = False
    """Whether edits and deletions of what was heard are looked for."""
    follows: bool = False
    """Whether it is a thread that may concern the bot because of what is new in its channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Homes:
    """Places that show a conversation; of which guild is not told."""

    ids: Collection[str]
    """Of the channels and threads."""
    channels: Collection[str]
    """In which they are."""
    flat: Sequence[str]
    """Channels that are themselves one conversation, the ones used last first."""
    recent: Sequence[Spot]
    """Those used last."""
    roots: Sequence[Spot]
    """The same and those for which no thread was made, with the message on which each stands, or would, as its thread."""


class Unread:
    def __init__(self, listening: Listening, cursors: Cursors, spots: Spots, calls: CatchUpCalls, pace: Pace) -> None:
        self._listening = listening
        self._http = listening.client.http
        self._cursors = cursors
        self._spots = spots
        self._calls = calls
        self._pace = pace
        self._lock = asyncio.Lock()
        self._homes: Homes | None = None
        self._homes_until = 0.0

    def forget(self) -> None:
        """What shows a conversation is to be read anew."""
        self._homes = None

    async def listed(self, guild: str, seat: Seat) -> list[JSON]:
        """The channels, and the threads that are not archived."""
        channels = await self._calls.patiently(lambda: self._http.get_all_guild_channels(int(guild)), seat)
        threads = await self._calls.patiently(lambda: self._http.get_active_threads(int(guild)), seat)
        return self._learned([{**each} for each in (*channels, *threads["threads"])], guild)

    async def archived(self, guild: str, listed: Sequence[JSON], may_read: MayRead, seat: Seat) -> list[JSON]:
        """The threads that were archived since the guild was heard."""
        now, homes = self._listening.services.clock.now(), await self.homes()
        since = max(events.time_of(self._cursors.of_guild(guild)), now - timedelta(hours=self._listening.config.catch_up.hours))
        parents = [str(each["id"]) for each in listed if each["type"] in _WITH_THREADS]
        asked = [each for each in parents if (each in homes.channels or now - since > _ARCHIVED_AFTER) and may_read(guild, each)]
        found = [await self._archived_in(parent, since, seat) for parent in asked]
        return self._learned([thread for threads in found for thread in threads], guild)

    async def _archived_in(self, parent: str, since: datetime, seat: Seat) -> list[JSON]:
        """The last archived first; none where they are not told."""
        found: list[JSON] = []
        before: Any = None  # a time, which discord.py gives on as it is
        with suppress(SurfaceError):
            while True:
                call = partial(self._http.get_public_archived_threads, int(parent), before=before, limit=_PAGE)
                page = await self._calls.patiently(call, seat)
                found += [{**each} for each in page["threads"] if _archived_at(each) >= since]
                if not page.get("has_more") or not page["threads"] or _archived_at(page["threads"][-1]) < since:
                    break
                before = page["threads"][-1]["thread_metadata"]["archive_timestamp"]
        return found

    async def readings(self, guild: str, listed: Sequence[JSON]) -> list[Reading]:
        """Of what is listed, where there is something new; and the homes used last, which may be threads that were archived."""
        return list(self._readings(guild, listed, await self.homes()))

    def _readings(self, guild: str, listed: Sequence[JSON], homes: Homes) -> Iterator[Reading]:
        here = {str(each["id"]) for each in listed}
        looked_at = {spot.id: replace(spot, guild=guild) for spot in homes.recent if spot.channel in here}
        newest = {events.spot_of(each, guild): _last(each) for each in listed if each["type"] in _WITH_MESSAGES}
        for spot in dict.fromkeys([*looked_at.values(), *newest]):
            after, last = self._cursors.of(guild, spot.id), newest.get(spot, 0)
            if spot.id in looked_at or last > after:
                follows = bool(spot.thread) and spot.id not in homes.ids
                yield Reading(spot=spot, after=after, last=last, looks_back=spot.id in looked_at, follows=follows)

    async def roots(self, guild: str, listed: Sequence[JSON]) -> list[Spot]:
        """Of the homes here: the messages on which they stand, each as its channel's thread."""
        here = {str(each["id"]) for each in listed if each["type"] in (_TEXT, _ANNOUNCEMENT)}
        return [replace(root, guild=guild) for root in (await self.homes()).roots if root.channel in here]

    async def direct(self) -> list[str]:
        """The direct messages that show a conversation, and channels that did so once. Discord lists none of them."""
        known = [each for each in (await self.homes()).flat if not self._listening.is_chat(each) and not self._spots.knows(each)]
        return known[: self._pace.directs]

    async def direct_reading(self, channel: str, floor: int, seat: Seat) -> Reading | None:
        """None where nothing is new. Raises a SurfaceError where it is gone."""
        found = await self._calls.patiently(lambda: self._spots.ask(channel), seat)
        spot = Spot(guild="", channel=channel)
        after, looks_back = self._cursors.of("", channel) or floor, spot in (await self.homes()).recent
        if found["type"] != _DIRECT or not (looks_back or _last(found) > after):
            return None
        return Reading(spot=spot, after=after, last=_last(found), looks_back=looks_back)

    async def homes(self) -> Homes:
        async with self._lock:
            now = asyncio.get_running_loop().time()
            if self._homes is None or now > self._homes_until:
                self._homes, self._homes_until = await self._calls.stored(self._find_homes), now + _FRESH_SECONDS
            return self._homes

    async def _find_homes(self) -> Homes:
        async with self._listening.services.storage.read() as uow:
            bindings = await uow.bindings.heard(self._listening.surface.account)
            since = uow.now - timedelta(hours=self._listening.config.catch_up.hours)
        bindings.sort(key=lambda each: each.updated_at, reverse=True)
        shown = [each for each in bindings if each.opened or not each.thread]
        latest = [each for each in bindings if each.updated_at >= since and each.thread.isdecimal()][: self._pace.homes]
        recent = [each for each in shown if each.updated_at >= since][: self._pace.homes]
        return Homes(
            ids=frozenset(each.thread or each.channel for each in shown),
            channels=frozenset(each.channel for each in bindings),
            flat=[each.channel for each in shown if not each.thread],
            recent=[Spot(guild="", channel=each.channel, thread=each.thread) for each in recent],
            roots=[Spot(guild="", channel=each.channel, thread=each.thread) for each in latest],
        )

    def _learned(self, channels: list[JSON], guild: str) -> list[JSON]:
        self._spots.learn(channels, guild)
        return channels


def _archived_at(thread: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(thread["thread_metadata"]["archive_timestamp"])


def _last(channel: JSON) -> int:
    return int(channel.get("last_message_id") or 0)
