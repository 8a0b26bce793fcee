"""What was said in Discord while nobody listened, read from the channels' history after every new connection.

A guild's list of channels and threads tells which of them have messages beyond what was heard: only their history is read. Until that is
through, what comes live from such a channel is held back (`hearing.py`), so that all is stored in the order in which it was said.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import TypeVar

import structlog

from bots.discord import events
from bots.discord.access import served_guilds
from bots.discord.events import Spot
from bots.discord.failures import translated
from bots.discord.hearing import Heard, Hearing
from bots.discord.listening import Listening
from bots.discord.spots import Spots
from bots.surface import Busy, SurfaceError, Unclear, Unreachable
from core.errors import StorageUnavailable
from core.logs import place_of
from core.models import JSON, DeliveryState

_T = TypeVar("_T")
MayRead = Callable[[str, str], bool]
"""Whether the bot may read the history of a guild's channel, by their ids."""
_WITH_MESSAGES = frozenset({0, 2, 5, 10, 11, 12, 13})
"""The types of channels and threads that have a history."""
_LEAST_PAUSE_SECONDS = 0.05
_PAGE = 100
"""Messages that Discord gives at once."""
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    channels: int = 4
    """Read side by side."""
    homes: int = 50
    """Of the places that show a conversation, so many in which edits and deletions are looked for: those used last."""
    removed: int = 20
    """Of one place. Where more seem to be gone, its history is not believed."""
    again_seconds: float = 1.0
    """After a call failed; doubled each time."""
    longest_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class _Guild:
    id: int
    owner_id: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """A channel's history, to be read."""

    spot: Spot
    after: int
    """The newest message that was heard."""
    last: int = 0
    """The newest that there is, as its channel says: it may be gone."""
    looks_back: bool = False
    """Whether edits and deletions of what was heard are looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    messages: Sequence[JSON]
    """Beyond what was heard, oldest first."""
    page: Sequence[JSON]
    """The newest, heard before or not."""
    left_out: bool
    """Whether there are, or may be, others before them."""


class CatchUp:
    """Of one account, while its lease is held."""

    def __init__(self, listening: Listening, hearing: Hearing, spots: Spots, tasks: asyncio.TaskGroup, pace: Pace) -> None:
        self._listening = listening
        self._http = listening.client.http
        self._rules = listening.config.catch_up
        self._hearing = hearing
        self._spots = spots
        self._tasks = tasks
        self._pace = pace
        self._running: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._listed: set[str] = set()
        self._slots = asyncio.Semaphore(pace.channels)
        hearing.missed = self._channel_missed

    def begin(self, guilds: Collection[str], may_read: MayRead, *, anew: bool) -> None:
        """Catches these guilds up, and with "" the direct messages, from how far they were heard until now; from now on holds them back.

        `anew`: a new session of the gateway, so that edits and deletions may have been missed, too.
        """
        self._hearing.hold(guilds)
        self._listed -= set(guilds)
        baseline = self._hearing.baseline
        for guild, channel in list(self._running):
            if guild in guilds:
                self._running.pop((guild, channel)).cancel()
        for guild in guilds:
            work = partial(self._guild, guild, baseline, may_read, anew=anew) if guild else partial(self._direct, baseline, anew=anew)
            self._start((guild, ""), work, partial(self._hearing.release_guild, guild))

    def has_looked(self, guild: str) -> bool:
        """Whether it was seen already which of its channels have something new: what comes later is told live, or never."""
        return guild in self._listed

    def _channel_missed(self, guild: str, channel: str) -> None:
        self._start((guild, channel), partial(self._missed, channel), partial(self._hearing.give_up, channel))

    def _start(self, key: tuple[str, str], work: Callable[[], Awaitable[None]], give_up: Callable[[], None]) -> None:
        if running := self._running.pop(key, None):
            running.cancel()
        task = self._running[key] = self._tasks.create_task(_safely(key, work, give_up), name="discord.catch_up")
        task.add_done_callback(lambda ended: self._running.pop(key) if self._running.get(key) is ended else None)

    # --- which channels ---

    async def _guild(self, guild: str, baseline: int | None, may_read: MayRead, *, anew: bool) -> None:
        if not await self._is_served(guild):
            _log.warning("discord.guild_not_served", guild_id=guild)
            self._hearing.ignore(guild)
            return
        channels = await self._patiently(lambda: self._http.get_all_guild_channels(int(guild)))
        threads = await self._patiently(lambda: self._http.get_active_threads(int(guild)))
        listed = [{**each} for each in (*channels, *threads["threads"])]
        self._spots.learn(listed, guild)
        self._listed.add(guild)
        if baseline is None:
            await self._begin_here(guild, listed)
            return
        homes = await self._homes() if anew else []
        readings = [each for each in self._readings(guild, listed, homes, baseline) if may_read(guild, each.spot.id)]
        await self._read_all(guild, readings)

    async def _is_served(self, guild: str) -> bool:
        config, who = self._listening.config, self._listening.who
        if config.guilds and guild not in config.guilds:
            return False
        found = await self._patiently(lambda: self._http.get_guild(int(guild), with_counts=False))
        self._spots.learn_roles([{**role} for role in found["roles"]], guild)
        return bool(served_guilds(config, who, [_Guild(int(guild), int(found["owner_id"]))]))

    def _readings(self, guild: str, listed: Sequence[JSON], homes: Sequence[Spot], baseline: int) -> Iterator[_Reading]:
        """Of what is listed, where there is something new; and the homes, which may be threads that were put away since."""
        here = {str(each["id"]) for each in listed}
        looked_at = {spot.id: replace(spot, guild=guild) for spot in homes if spot.channel in here}
        newest = dict(self._with_messages(listed, guild))
        for spot in dict.fromkeys([*looked_at.values(), *newest]):
            after, last = self._hearing.cursor(spot.id, baseline), newest.get(spot, 0)
            if spot.id in looked_at or last > after:
                yield _Reading(spot=spot, after=after, last=last, looks_back=spot.id in looked_at)

    async def _direct(self, baseline: int | None, *, anew: bool) -> None:
        """Discord lists no direct messages: those are looked at that show a conversation."""
        readings: list[_Reading] = []
        for spot in await self._homes() if baseline is not None else ():
            if not spot.thread and await self._is_direct(spot.channel):
                direct = Spot(guild="", channel=spot.channel)
                readings.append(_Reading(spot=direct, after=self._hearing.cursor(direct.id, baseline or 0), looks_back=anew))
        await self._read_all("", readings)

    async def _is_direct(self, channel: str) -> bool:
        try:
            return not (await self._patiently(lambda: self._spots.find(channel))).guild
        except SurfaceError:
            return False  # it is gone

    def _with_messages(self, listed: Sequence[JSON], guild: str) -> list[tuple[Spot, int]]:
        """The channels and threads of a list, each with the newest message's id; 0 where it has none."""
        with_messages = [each for each in listed if each["type"] in _WITH_MESSAGES]
        return [(events.spot_of(each, guild), int(each.get("last_message_id") or 0)) for each in with_messages]

    async def _begin_here(self, guild: str, listed: Sequence[JSON]) -> None:
        """Nothing was ever heard: what is said from now on counts."""
        newest = max((last for _, last in self._with_messages(listed, guild)), default=0)
        now = events.id_at(self._listening.services.clock.now())
        await self._stored(lambda: self._hearing.note({guild: newest or now}))
        self._hearing.release_guild(guild)

    async def _homes(self) -> list[Spot]:
        """Places that show a conversation, the ones used last; of which guild is not told."""

        async def found() -> list[Spot]:
            async with self._listening.services.storage.read() as uow:
                bindings = await uow.bindings.of_account(self._listening.surface.account)
                since = uow.now - timedelta(hours=self._rules.hours)
            recent = [each for each in bindings if each.updated_at >= since and (each.opened or not each.thread)]
            recent.sort(key=lambda each: each.updated_at, reverse=True)
            return [Spot(guild="", channel=each.channel, thread=each.thread) for each in recent[: self._pace.homes]]

        return await self._stored(found)

    # --- their history ---

    async def _read_all(self, guild: str, readings: Sequence[_Reading]) -> None:
        unknown = {each.spot.id: each.after for each in readings if not self._hearing.knows(each.spot.id)}
        await self._stored(lambda: self._hearing.note(unknown))  # what others say meanwhile must not move where these begin
        self._hearing.release_guild(guild, but={each.spot.id for each in readings})
        async with asyncio.TaskGroup() as tasks:
            for each in sorted(readings, key=lambda each: not each.looks_back):
                tasks.create_task(self._read_in_turn(each), name="discord.catch_up.channel")

    async def _read_in_turn(self, reading: _Reading) -> None:
        async with self._slots:
            key = (reading.spot.guild, reading.spot.id)
            await _safely(key, partial(self._read, reading), partial(self._hearing.give_up, reading.spot.id))

    async def _missed(self, channel: str) -> None:
        """Of a channel that is held back already: nobody knew which it is, or too much came."""
        spot = await self._patiently(lambda: self._spots.find(channel))
        if not self._hearing.release(channel):
            await self._read(_Reading(spot=spot, after=self._hearing.cursor(channel, self._hearing.baseline or 0)))

    async def _read(self, reading: _Reading) -> None:
        spot, after, looks_back = reading.spot, reading.after, reading.looks_back
        while True:
            found = await self._history(spot, after)
            if looks_back:
                await self._look_back(spot, after, found.page)
            for message in found.messages:
                await self._hear("message", message, spot)
            newest = max([after, reading.last, *(int(message["id"]) for message in found.messages)])
            await self._hearing.hear_earlier(Heard(spot=spot, payload={}, newest=newest))
            if found.left_out:
                await self._say_left_out(spot, after)
            if self._hearing.release(spot.id):
                return
            after, looks_back = newest, False

    async def _history(self, spot: Spot, after: int) -> _Read:
        """The newest messages beyond `after`, as many as the rules allow."""
        floor = max(after, events.id_at(self._listening.services.clock.now() - timedelta(hours=self._rules.hours)))
        found: list[JSON] = []
        first: list[JSON] = []
        before: int | None = None
        while True:
            page = await self._page(spot, before)
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
        return _Read(messages=kept[::-1], page=first, left_out=left_out or len(kept) < len(found))

    async def _page(self, spot: Spot, before: int | None) -> list[JSON]:
        """The newest first, whatever the server makes of that."""
        page = await self._patiently(lambda: self._http.logs_from(int(spot.id), _PAGE, before=before))
        return sorted(({**message} for message in page), key=lambda message: -int(message["id"]))

    async def _hear(self, kind: str, message: JSON, spot: Spot) -> None:
        describe = events.said if kind == "message" else events.edited
        try:
            payload = describe(message, spot, self._spots.roles(spot.guild))
        except (KeyError, TypeError, ValueError, AttributeError):
            _log.warning("discord.not_described", kind=kind)
            return
        await self._hearing.hear_earlier(Heard(spot=spot, payload=payload, newest=int(message["id"]), caught_up=True))

    async def _look_back(self, spot: Spot, after: int, page: Sequence[JSON]) -> None:
        """Edits and deletions of what was heard before."""
        for message in reversed(page):
            if int(message["id"]) <= after and message.get("edited_timestamp"):
                await self._hear("edit", message, spot)
        for message_id in await self._removed(spot, page):
            await self._hearing.hear_earlier(Heard(spot=spot, payload=events.deleted(message_id, spot), caught_up=True))

    async def _removed(self, spot: Spot, page: Sequence[JSON]) -> Sequence[str]:
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

        found = await self._stored(missing)
        if len(found) > self._pace.removed:
            _log.warning("discord.history_not_believed", channel_id=spot.id, missing=len(found))
            return ()
        return found

    async def _say_left_out(self, spot: Spot, after: int) -> None:
        async def is_home() -> bool:
            async with self._listening.services.storage.read() as uow:
                return await uow.bindings.at(self._listening.place(spot.channel, spot.thread)) is not None

        _log.warning("discord.left_out", channel_id=spot.id)
        if await self._stored(is_home):
            self._listening.say_once(spot, f"left-out:{after}", _left_out(self._rules.messages, self._rules.hours))

    # --- patience ---

    async def _patiently(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """Until it passes what keeps Discord from answering; raises the SurfaceErrors that do not pass by themselves."""
        pause = self._pace.again_seconds
        while True:
            try:
                with translated():
                    return await call()
            except Busy as error:
                await asyncio.sleep(max(error.retry_after, _LEAST_PAUSE_SECONDS))
            except (Unreachable, Unclear) as error:
                _log.warning("discord.not_answered", error=type(error).__name__)
                await asyncio.sleep(pause)
                pause = min(pause * 2, self._pace.longest_seconds)

    async def _stored(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Likewise of the database."""
        while True:
            try:
                return await work()
            except StorageUnavailable:
                await asyncio.sleep(self._pace.again_seconds)


async def _safely(key: tuple[str, str], work: Callable[[], Awaitable[None]], give_up: Callable[[], None]) -> None:
    """Whatever happens, what comes live goes on."""
    guild, channel = key
    try:
        await work()
    except SurfaceError as error:
        _log.warning("discord.not_caught_up", guild_id=guild, channel_id=channel, error=type(error).__name__)
        give_up()
    except Exception as error:  # noqa: BLE001  # the outermost of one guild's or channel's catching up
        _log.error("discord.not_caught_up", guild_id=guild, channel_id=channel, **place_of(error))
        give_up()


def _left_out(messages: int, hours: float) -> str:
    return (
        f"While I was away more was written here than I read afterwards: of the last {hours:g} hours, and of these the last {messages:,} "
        "messages. What was said before that I do not know. Say it again if it matters."
    )
