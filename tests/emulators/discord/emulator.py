"""The emulator as a whole; the package's docstring says how it is used."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from aiohttp import web

from tests.emulators.discord import guilds, routes_interactions, routes_messages, routes_places, shapes, talk
from tests.emulators.discord.faults import Fault, Faults
from tests.emulators.discord.gateway import RECONNECT, Gateway
from tests.emulators.discord.guilds import Guild
from tests.emulators.discord.objects import User
from tests.emulators.discord.people import Person
from tests.emulators.discord.rest import Rest
from tests.emulators.discord.state import WAIT_SECONDS, Call, World

JSON = dict[str, Any]


@pytest.fixture
async def discord() -> AsyncIterator["DiscordEmulator"]:
    """A Discord that nobody has used."""
    async with discord_running() as emulator:
        yield emulator


@asynccontextmanager
async def discord_running() -> AsyncIterator["DiscordEmulator"]:
    """It listens within the `async with`, in this event loop."""
    emulator = DiscordEmulator()
    app = web.Application(client_max_size=100 * 2**20)
    Rest(emulator, [*routes_messages.routes(), *routes_places.routes(), *routes_interactions.routes()], emulator.faults).add_to(app)
    app.router.add_get("/gateway", emulator.gateway.serve)
    app.router.add_get("/", emulator.gateway.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    emulator.root = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield emulator
    finally:
        emulator.drop()
        await runner.cleanup()


@dataclass(kw_only=True)
class DiscordEmulator(World):
    """A guild of alice, bob, carol and the bot."""

    home: Guild = field(init=False)
    general: str = field(init=False)
    faults: Faults = field(default_factory=Faults)
    gateway: Gateway = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.events = self.gateway = Gateway(self)
        self.home = Guild.make(self, "Home", self.user("alice"))
        for name in ("bob", "carol"):
            self.home.admit(self.user(name))
        self.home.add_bot()
        self.general = self.home.channel("general")

    @property
    def api_url(self) -> str:
        return f"{self.root}/api/v10"

    @property
    def gateway_url(self) -> str:
        return f"{self.root.replace('http', 'ws', 1)}/gateway"

    @property
    def bot_id(self) -> str:
        return self.bot.id

    @property
    def application_id(self) -> str:
        return self.application.id

    @property
    def speed(self) -> float:
        return self.limits.speed

    @speed.setter
    def speed(self, factor: float) -> None:
        self.limits.speed = factor

    # --- places and people ---

    def guild(self, name: str, owner: Person | None = None, *, bot: bool = True) -> Guild:
        """The one of that name; else a new one, which the bot has joined."""
        for guild in self.guilds.values():
            if guild.name == name:
                return guild
        guild = Guild.make(self, name, owner.user if owner else self.user("alice"))
        if bot:
            guild.add_bot()
        return guild

    def person(self, name: str, *, bot: bool = False) -> Person:
        """A member of `home`. With `bot`: somebody else's bot."""
        user = self.user(name, bot=bot)
        self.home.admit(user)
        return Person(self, user, self.general)

    def stranger(self, name: str) -> Person:
        """Somebody who is in no guild yet."""
        return Person(self, self.user(name), self.general)

    def deny(self, channel: str, names: Collection[str]) -> None:
        """From now on the bot lacks exactly these permissions there."""
        place = self.channels[channel]
        guild = self.guilds[place.guild_id]
        before = {one.id for one in guild.channels if self.may(one, self.bot, "VIEW_CHANNEL")}
        guilds.forbid(self, place, names)
        self.tell_guild("CHANNEL_UPDATE", shapes.channel(self, place), guild)
        talk.sync_threads(self, guild, before)

    def webhook_says(self, channel: str, text: str) -> str:
        """The id of a message of somebody's webhook."""
        author = User(id=self.snowflake(), name="Build", bot=True)
        return talk.post(self, self.channels[channel], author, text, webhook_id=author.id).id

    def delete_channel(self, channel: str) -> None:
        """Or a thread."""
        talk.delete_channel(self, self.channels[channel])

    # --- looking ---

    def messages(self, channel: str) -> list[JSON]:
        """As people see them, oldest first."""
        return [shapes.message(self, one) for one in self.channels[channel].messages.values()]

    def message(self, message_id: str) -> JSON:
        return shapes.message(self, self.find_message(message_id))

    def thread(self, thread_id: str) -> JSON:
        return shapes.thread(self, self.channels[thread_id])

    def called(self, name: str, *, channel: str | None = None) -> list[Call]:
        """The calls of that name ("message.edit"; see routes_*.py), oldest first."""
        return [call for call in self.calls if call.name == name and channel in (None, call.channel)]

    @property
    def identifies(self) -> int:
        return self.gateway.identifies

    @property
    def resumes(self) -> int:
        return self.gateway.resumes

    @property
    def connections(self) -> int:
        """Open ones."""
        return len(self.gateway.connections)

    async def connected(self, *, seconds: float = WAIT_SECONDS) -> None:
        """Until there is a session that has its connection."""
        await self.until(lambda: self.gateway.ready, seconds=seconds)

    # --- misbehaviour of REST ---

    def age(self, message_id: str, seconds: float) -> None:
        """That message counts as so much older, and its id stays."""
        self.find_message(message_id).age += seconds

    def fail(
        self,
        method: str,
        route: str,
        *,
        status: int | None = None,
        code: int = 0,
        message: str = "",
        retry_after: float | None = None,
        everywhere: bool = False,
        via: bool = True,
        times: int = 1,
        after: bool = False,
    ) -> None:
        """The next `times` calls fail so; without `status` their connection is cut. `after`: they are done first."""
        self.faults.add(
            Fault(
                method,
                route,
                times,
                after,
                status=status,
                code=code,
                message=message,
                retry_after=retry_after,
                via=via,
                everywhere=everywhere,
            )
        )

    def slow(self, method: str, route: str, seconds: float, times: int = 1, *, after: bool = False) -> None:
        """The next `times` calls take so long: before they are done, or `after`."""
        self.faults.add(Fault(method, route, times, after, seconds=seconds))

    # --- misbehaviour of the gateway ---

    @property
    def can_resume(self) -> bool:
        return self.gateway.can_resume

    @can_resume.setter
    def can_resume(self, on: bool) -> None:
        self.gateway.can_resume = on

    def drop(self) -> None:
        """Every socket ends, as if the network had failed."""
        for connection in list(self.gateway.connections):
            connection.cut()

    async def close(self, code: int) -> None:
        """Discord closes every socket with that code."""
        for connection in list(self.gateway.connections):
            await connection.socket.close(code=code)

    def ask_reconnect(self) -> None:
        """Op 7."""
        self.gateway.broadcast(RECONNECT)

    def invalidate(self, resumable: bool = False) -> None:
        """Op 9."""
        self.gateway.invalidate(resumable=resumable)

    def silent(self, on: bool = True) -> None:
        """No heartbeat is acknowledged."""
        self.gateway.silent = on

    def refuse_connections(self, times: int) -> None:
        self.gateway.refusals = times

    def replay(self, count: int) -> None:
        """The last events once more, as after a RESUME."""
        self.gateway.replay(count)

    def hold(self) -> None:
        """Events wait until `release`."""
        self.gateway.hold()

    def release(self, order: Literal["as held", "reversed"] = "as held") -> None:
        self.gateway.release(order)

    def lose(self) -> None:
        """Events are lost until `keep`."""
        self.gateway.lost = True

    def keep(self) -> None:
        self.gateway.lost = False

    def unavailable(self, guild: Guild) -> None:
        """An outage: nothing is told of what happens there until `available`."""
        self.tell_guild("GUILD_DELETE", {"id": guild.id, "unavailable": True}, guild)
        guild.available = False

    def available(self, guild: Guild) -> None:
        guild.available = True
        self.tell_guild("GUILD_CREATE", shapes.guild_create(self, guild), guild)

    def dispatch(self, kind: str, data: Any) -> None:
        """Any event at all, to every session."""
        self.gateway.dispatch(kind, data)

    async def gone(self) -> None:
        """Until no connection is open."""
        await self.until(lambda: not self.gateway.connections)
