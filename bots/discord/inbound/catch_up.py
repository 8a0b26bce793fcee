"""What was said in Discord while nobody listened, read from the channels' history at the beginning of every session.

A guild's lists tell which channels and threads have messages beyond what was heard: only their history is read. Until the lists are there
the guild is held back as a whole, and then each such channel until its history is read, so that all is stored in the order in which it was
said (`holding.py`). Where that takes more than a minute, what comes live goes on, and what was missed comes later.

A session that is resumed is told what it missed, as far as the server remembers: there the lists alone are looked at once more.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import structlog

from bots.discord import events
from bots.discord.access import served_guilds
from bots.discord.events import Spot
from bots.discord.inbound.catch_up_calls import CatchUpCalls, Pace, Seat
from bots.discord.inbound.history import History
from bots.discord.inbound.holding import Key
from bots.discord.inbound.ingest import Heard, Ingest
from bots.discord.inbound.spots import Spots
from bots.discord.inbound.unread import MayRead, Reading, Unread
from bots.discord.listening import Listening
from bots.places import hears
from bots.surface import PlaceClosed, SurfaceError
from core.logs import place_of
from core.models import JSON

__all__ = ["CatchUp", "MayRead", "Pace"]
_LATE = (
    "Discord does not give me yet what was written here while I was away. I go on with what is written now, and take in what I missed as "
    "soon as I can read it."
)
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Guild:
    id: int
    owner_id: int | None


class CatchUp:
    """Of one account, while its lease is held."""

    def __init__(self, listening: Listening, ingest: Ingest, spots: Spots, tasks: asyncio.TaskGroup, pace: Pace) -> None:
        self._listening = listening
        self._rules = listening.config.catch_up
        self._ingest = ingest
        self._cursors = ingest.cursors
        self._holding = ingest.holding
        self._spots = spots
        self._tasks = tasks
        self._pace = pace
        self._calls = CatchUpCalls(pace)
        self._unread = Unread(listening, ingest.cursors, spots, self._calls, pace)
        self._history = History(listening, ingest, spots, self._calls, pace)
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._looked: set[str] = set()
        self._refused: set[str] = set()
        """Channels whose history Discord refused in this session."""
        self._awaited: dict[Key, asyncio.Event] = {}
        """Is set once what is new in a channel was heard: its threads wait for that."""
        self._holding.missed = self._channel_missed

    def begin(self, guilds: Collection[str], may_read: MayRead, *, anew: bool) -> None:
        """Catches these guilds up, and with "" the direct messages, from how far they were heard; from now on holds them back.

        `anew`: a new session of the gateway, or a guild that was away. Otherwise nothing should have been missed for long.
        """
        if "" in guilds:
            self._unread.forget()
            if anew:
                self._refused.clear()
        self._holding.close(guilds)
        self._looked -= set(guilds)
        for key in list(self._running):
            if key[0] in guilds:
                self._running.pop(key).cancel()
        for guild in guilds:
            self._cursors.begin(guild)
            if guild and self._listening.config.guilds and guild not in self._listening.config.guilds:
                self._holding.ignore(guild)
            elif guild:
                self._start((guild, ""), partial(self._guild, guild, may_read, anew=anew), partial(self._give_guild_up, guild))
            else:
                self._start(("", ""), self._direct, partial(self._holding.open, ""))

    def has_looked(self, guild: str) -> bool:
        """Whether it may have been seen already which of its channels have something new: what comes later is told live, or never."""
        return guild in self._looked

    def _start(self, key: Key, work: Callable[[], Awaitable[None]], give_up: Callable[[], None]) -> None:
        if running := self._running.pop(key, None):
            running.cancel()
        task = self._running[key] = self._tasks.create_task(_safely(key, work, give_up), name="discord.catch_up")
        task.add_done_callback(lambda ended: self._running.pop(key) if self._running.get(key) is ended else None)

    # --- guilds ---

    async def _guild(self, guild: str, may_read: MayRead, *, anew: bool) -> None:
        async with self._calls.listing() as seat:
            if not await self._is_served(guild, seat):
                _log.warning("discord.guild_not_served", guild_id=guild)
                self._holding.ignore(guild)
                return
            with self._impatient(partial(self._holding.open_late, guild)):
                self._looked.add(guild)
                listed = await self._unread.listed(guild, seat)
                if not self._cursors.of_guild(guild):
                    await self._begin_here(guild, listed)
                    return
                if anew:
                    listed += await self._unread.archived(guild, listed, may_read, seat)
                found = await self._unread.readings(guild, listed)
                roots = await self._unread.roots(guild, listed)
        may_be_read = [each for each in found if each.spot.id not in self._refused and may_read(guild, each.spot.id)]
        await self._read_all(guild, may_be_read, roots)

    async def _begin_here(self, guild: str, listed: Sequence[JSON]) -> None:
        """Nothing was ever heard: what is said from now on counts."""
        newest = max((int(each.get("last_message_id") or 0) for each in listed), default=0)
        self._cursors.begin_at(guild, newest or events.id_at(self._listening.services.clock.now()))
        await self._calls.stored(self._cursors.write)
        self._holding.open(guild)

    async def _is_served(self, guild: str, seat: Seat) -> bool:
        """Nothing is heard of it before this is known."""
        config, who = self._listening.config, self._listening.who
        pause = self._pace.again_seconds
        while True:
            try:
                found = await self._calls.patiently(lambda: self._listening.client.http.get_guild(int(guild), with_counts=False), seat)
                break
            except PlaceClosed:
                return False  # the bot is not in it
            except SurfaceError as error:
                _log.warning("discord.guild_not_known", guild_id=guild, error=type(error).__name__)
                await seat.wait(pause)
                pause = min(pause * 2, self._pace.longest_seconds)
        self._spots.learn_roles([{**role} for role in found["roles"]], guild)
        return bool(served_guilds(config, who, [_Guild(int(guild), int(found["owner_id"]))]))

    def _give_guild_up(self, guild: str) -> None:
        """Its lists cannot be had: what comes live goes on, where it is known to be served."""
        if guild in self._looked:
            self._holding.open_late(guild)
        else:
            self._holding.ignore(guild)

    # --- direct messages ---

    async def _direct(self) -> None:
        channels = list(dict.fromkeys([*self._holding.owed(""), *await self._unread.direct()]))
        for channel in channels:
            self._ingest.hold(Spot(guild="", channel=channel))
        self._holding.open("")
        async with asyncio.TaskGroup() as tasks:
            for channel in channels:
                key = ("", channel)
                work = _safely(key, partial(self._look_at_direct, channel), partial(self._holding.release, key))
                tasks.create_task(work, name="discord.catch_up.direct")

    async def _look_at_direct(self, channel: str) -> None:
        key = ("", channel)
        with self._impatient(partial(self._holding.go_on, key)):
            async with self._calls.listing() as seat:
                reading = await self._unread.direct_reading(channel, self._history.floor(), seat)
        if reading or self._holding.has_lost(key):
            await self._read_in_turn(reading or self._missed_reading(Spot(guild="", channel=channel)))
        else:
            self._holding.release(key)

    # --- histories ---

    async def _read_all(self, guild: str, readings: Sequence[Reading], roots: Sequence[Spot]) -> None:
        for each in readings:
            self._ingest.hold(each.spot)
            self._awaited[guild, each.spot.id] = asyncio.Event()
        self._holding.open(guild)
        for channel in set(self._holding.owed(guild)) - {each.spot.id for each in readings}:
            self._channel_missed(guild, channel)
        async with asyncio.TaskGroup() as tasks:
            for each in sorted(readings, key=lambda each: not each.looks_back):
                tasks.create_task(self._read_in_turn(each), name="discord.catch_up.channel")
            for root in roots:
                work = _safely((guild, root.thread), partial(self._look_at_root, root), lambda: None)
                tasks.create_task(work, name="discord.catch_up.root")

    async def _look_at_root(self, root: Spot) -> None:
        async with self._calls.reading() as seat:
            await self._history.look_at(root.thread, Spot(guild=root.guild, channel=root.channel), seat)

    def _channel_missed(self, guild: str, channel: str) -> None:
        if channel in self._refused:
            self._holding.go_on((guild, channel))
        else:
            self._start((guild, channel), partial(self._missed, guild, channel), partial(self._holding.go_on, (guild, channel)))

    async def _missed(self, guild: str, channel: str) -> None:
        """Nobody knew which channel it is, or too much came: edits and deletions among it."""
        async with self._calls.listing() as seat:
            spot = await self._calls.patiently(lambda: self._spots.find(channel), seat)
        await self._read_in_turn(self._missed_reading(spot))

    def _missed_reading(self, spot: Spot) -> Reading:
        after = self._cursors.of(spot.guild, spot.id) or self._history.floor()
        return Reading(spot=spot, after=after, looks_back=True, follows=bool(spot.thread))

    async def _read_in_turn(self, reading: Reading) -> None:
        """A thread after its channel, where what stands in that may be why the thread concerns the bot."""
        spot = reading.spot
        key = (spot.guild, spot.id)
        channel = self._awaited.get((spot.guild, spot.channel)) if reading.follows else None
        unread = self._awaited.setdefault(key, asyncio.Event())
        try:
            with self._impatient(partial(self._go_on_without, reading)):
                if channel:
                    await channel.wait()
                await _safely(key, partial(self._read, reading, unread), partial(self._give_up, reading))
        finally:
            unread.set()
            if self._awaited.get(key) is unread:
                del self._awaited[key]

    async def _read(self, reading: Reading, unread: asyncio.Event) -> None:
        spot, key = reading.spot, (reading.spot.guild, reading.spot.id)
        async with self._calls.reading() as seat:
            newest, rest = await self._read_newest(reading, seat)
        unread.set()
        if rest:
            self._holding.go_on(key)
            async with self._calls.reading_far_back() as seat:
                async for message in self._history.calls(spot, reading.after, rest, seat):
                    await self._history.hear("message", message, spot)
        await self._ingest.hear_earlier(Heard(spot=spot, payload={}, newest=newest, caught_up=True))
        self._holding.release(key)

    async def _read_newest(self, reading: Reading, seat: Seat) -> tuple[int, int]:
        """The newest message's id, and before which one there are more than were read; 0: none."""
        spot, key, rest = reading.spot, (reading.spot.guild, reading.spot.id), 0
        newest, looks_back = reading.after, reading.looks_back
        while True:
            looks_back, after = looks_back or self._holding.has_lost(key), newest
            self._holding.forgive(key)
            found = await self._history.newest(spot, after, seat)
            if looks_back:
                await self._history.look_back(spot, after, found.page, seat)
            for message in found.messages:
                await self._history.hear("message", message, spot)
            if found.left_out:
                await self._say_left_out(spot, after)
            rest = rest or found.rest_before
            newest = max([after, reading.last, *(int(message["id"]) for message in found.messages)])
            if not self._holding.has_lost(key):
                return newest, rest
            looks_back = False

    def _give_up(self, reading: Reading) -> None:
        """It is read again in the next session."""
        self._refused.add(reading.spot.id)
        self._go_on_without(reading)

    # --- what is told to people, and when it does not wait any longer ---

    @contextmanager
    def _impatient(self, go_on: Callable[[], None]) -> Iterator[asyncio.TimerHandle]:
        timer = asyncio.get_running_loop().call_later(self._pace.patience_seconds, go_on)
        try:
            yield timer
        finally:
            timer.cancel()

    def _go_on_without(self, reading: Reading) -> None:
        spot = reading.spot
        _log.warning("discord.late", guild_id=spot.guild, channel_id=spot.id)
        self._holding.go_on((spot.guild, spot.id))
        if reading.last > reading.after:
            self._tasks.create_task(self._say_at_home(spot, f"late:{reading.after}", _LATE), name="discord.say")

    async def _say_left_out(self, spot: Spot, after: int) -> None:
        _log.warning("discord.left_out", channel_id=spot.id)
        await self._say_at_home(spot, f"left-out:{after}", _left_out(self._rules.messages, self._rules.hours))

    async def _say_at_home(self, spot: Spot, what: str, sentence: str) -> None:
        """Where what is said comes into a conversation."""

        async def is_home() -> bool:
            async with self._listening.services.storage.read() as uow:
                binding = await uow.bindings.at(self._listening.place(spot.channel, spot.thread))
                return binding is not None and hears(binding)

        if await self._calls.stored(is_home):
            self._listening.say_once(spot, what, sentence)


async def _safely(key: Key, work: Callable[[], Awaitable[None]], give_up: Callable[[], None]) -> None:
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
        "messages. What was said before that I do not know, but for what mentions me. Say it again if it matters."
    )
