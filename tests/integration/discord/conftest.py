"""A whole Onethread in the test's process, signed in to a Discord of our own, and shorthand for what people do and see there."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest

from bots.discord.config import DiscordConfig, DiscordRules
from bots.discord.gateway import GatewayRules
from bots.discord.inbound.catch_up import Pace
from bots.discord.inbound.ingest import IngestRules
from bots.discord.serving import running
from bots.pacing import Budget
from bots.services import Services
from core.ids import new_id
from core.models import Account, InboundEvent
from core.ports import Clock, UnitOfWork
from tests.emulators.discord import Answer, DiscordEmulator, Person, discord
from tests.integration.conftest import World
from tests.integration.office import Interruptible, Stored

__all__ = ["discord"]
JSON = dict[str, Any]
File = tuple[str, bytes, str]
"""Name, content, media type."""
BOT = "onethread"
_CALLS = 10
"""The last ones, that are told where a thread does not show what it should."""
_OFTEN = Budget(calls=1_000, seconds=1, burst=100)
_BUDGETS = dict.fromkeys(("edits", "amends", "posts", "deletes", "looks", "opens", "arranges", "statuses"), _OFTEN)
QUICK = DiscordRules(edit_seconds=0.02, everything=_OFTEN, reads=1_000, **_BUDGETS)  # type: ignore[arg-type]
"""As if Discord's limits were far away."""
SOON = GatewayRules(
    restart_seconds=0.02,
    identify_seconds=0.01,
    longest_pause_seconds=0.1,
    watch_seconds=0.02,
    ingest=IngestRules(again_seconds=0.02, cursor_seconds=0.02),
    pace=Pace(again_seconds=0.02),
)


@dataclass(frozen=True, slots=True)
class Later:
    """A clock that is ahead of the database's."""

    clock: Clock
    by: timedelta

    def now(self) -> datetime:
        return self.clock.now() + self.by


class Office(Stored):
    """The server, with the bot in it."""

    def __init__(self, world: World, discord: DiscordEmulator, storage: Interruptible) -> None:
        super().__init__(world, storage, Account(surface="discord", id=discord.bot_id))
        self.discord = discord
        self._began = int(discord.snowflake())

    def speaker(self, name: str, channel: str) -> "Speaker":
        return Speaker(self, self.discord.person(name), channel)

    def speakers(self, channel: str) -> "tuple[Speaker, Speaker, Speaker]":
        """Alice, bob and carol, in the channel."""
        return self.speaker("alice", channel), self.speaker("bob", channel), self.speaker("carol", channel)

    async def direct(self, name: str) -> "Speaker":
        """Somebody, alone with the bot."""
        person = self.discord.person(name)
        return Speaker(self, person, await person.direct())

    # --- what is stored ---

    async def settled(self) -> None:
        """Until every message was heard and taken in, or waits for what it overtook. (Of edits and deletions nothing tells so.)"""
        expected = self._newest()

        async def heard() -> bool:
            cursors = await self.cursors()
            return all(cursors.get(channel, 0) >= newest for channel, newest in expected.items())

        await self.world.until(heard)
        await self.taken_in()

    def _newest(self) -> dict[str, int]:
        """Of what was said since the bot came, where it sees it."""
        seen = [each for each in self.discord.channels.values() if self.discord.may(each, self.discord.bot, "VIEW_CHANNEL")]
        newest = {each.id: max(map(int, each.messages), default=0) for each in seen}
        return {channel: message_id for channel, message_id in newest.items() if message_id > self._began}

    async def cursors(self) -> dict[str, int]:
        """How far each channel was heard, as it is stored."""
        return await self.world.read(lambda uow: uow.cursors.all(self.account))

    async def is_stored(self, key: str) -> bool:
        """Whether an event with this key ever came in. Asked once: from then on it did."""

        async def there(uow: UnitOfWork) -> bool:
            at = uow.now
            names = {"surface": self.account.surface, "account": self.account.id, "key": key, "lane": ""}
            event = InboundEvent(id=new_id(), payload={}, attempts=0, run_after=at, waits=False, received_at=at, done_at=at, **names)
            return not await uow.inbound.add(event)

        return await self.world.write(there)

    async def told(self, person: "Speaker") -> list[str]:
        """What the bot told this person alone, by a direct message."""
        return [
            each["content"] for each in self.discord.messages(await person.person.direct()) if each["author"]["id"] == self.discord.bot_id
        ]

    async def tells(self, person: "Speaker", sentence: str) -> None:
        """Waits until the bot told this person alone something that begins so."""
        direct = await person.person.direct()

        def told(messages: Sequence[JSON]) -> bool:
            return any(each["content"].startswith(sentence) for each in messages if each["author"]["id"] == self.discord.bot_id)

        await person.person.sees(direct, told)


@dataclass(frozen=True, slots=True)
class Thread:
    """As whoever began it sees it. Its id is that of the message on which it stands, or will; empty at a channel's top or in a DM."""

    speaker: "Speaker"
    id: str

    @property
    def channel(self) -> str:
        """What Discord calls the channel."""
        return self.id or self.speaker.channel

    async def shows(self, *lines: str) -> list[JSON]:
        """Waits until these lines stand there, in this order, among others: `onethread: OK.`"""
        seen = [""]

        def there(messages: Sequence[JSON]) -> bool:
            seen[:] = [f"{each['author']['username']}: {text_of(each)}" for each in messages]
            rest = iter(seen)
            return all(line in rest for line in lines)

        try:
            return await self.speaker.person.sees(self.channel, there)
        except TimeoutError:
            calls = [f"{call.name or call.path} {call.status} {call.code}" for call in self.speaker.office.discord.calls[-_CALLS:]]
            raise AssertionError("\n".join(["the thread shows", *seen, "after the calls", *calls])) from None

    async def button(self, label: str) -> "Shown":
        """The newest button of this label, as soon as it is there."""

        def found(messages: Sequence[JSON]) -> list[Shown]:
            rows = [(each["id"], row) for each in messages for row in each.get("components") or []]
            buttons = [Shown(message_id, button) for message_id, row in rows for button in row.get("components", [])]
            return [each for each in buttons if each.element.get("label") == label]

        return found(await self.speaker.person.sees(self.channel, lambda messages: bool(found(messages))))[-1]

    async def shows_text(self, text: str) -> None:
        """Waits until this stands somewhere in it: in a note, a card or a button."""
        await self.speaker.person.sees(self.channel, lambda messages: text in str(messages))


@dataclass(frozen=True, slots=True)
class Shown:
    """A button of a message."""

    message_id: str
    element: JSON


@dataclass(frozen=True, slots=True)
class Speaker:
    """Somebody in a channel. What they write to `@onethread` mentions the bot."""

    office: Office
    person: Person
    channel: str

    @property
    def id(self) -> str:
        return self.person.id

    async def says(self, text: str, thread: Thread | None = None, *, reply_to: str = "", files: Sequence[File] = ()) -> Thread:
        """The thread that will stand on the message, or the one that it stands in."""
        message_id = await self.says_id(text, thread, reply_to=reply_to, files=files)
        is_direct = not self.office.discord.channels[self.channel].guild_id
        return thread or Thread(self, "" if is_direct else message_id)

    async def says_id(
        self,
        text: str,
        thread: Thread | None = None,
        *,
        reply_to: str = "",
        ping: bool = True,
        files: Sequence[File] = (),
    ) -> str:
        """The same, for whoever needs the message itself."""
        text = text.replace(f"@{BOT}", f"<@{self.office.discord.bot_id}>")
        channel = thread.channel if thread else self.channel
        await self.office.discord.until(lambda: channel in self.office.discord.channels)  # the bot makes its thread in a moment
        return await self.person.say(channel, text, reply_to=reply_to or None, ping=ping, files=files)

    async def edits(self, message_id: str, text: str, thread: Thread | None = None) -> None:
        text = text.replace(f"@{BOT}", f"<@{self.office.discord.bot_id}>")
        await self.person.edit(thread.channel if thread else self.channel, message_id, text)

    async def deletes(self, message_id: str, thread: Thread | None = None) -> None:
        await self.person.delete(thread.channel if thread else self.channel, message_id)

    async def presses(self, button: Shown, thread: Thread) -> Answer:
        return await self.person.press(thread.channel, button.message_id, button.element["custom_id"])

    async def types(self, line: str, thread: Thread | None = None, **options: Any) -> Answer:
        """The answer to a slash command: `types("task new", title="Plan")`."""
        return await self.person.command(line, at=thread.channel if thread else self.channel, **options)


def text_of(message: JSON) -> str:
    """What a message says, without the small lines below it."""
    return "\n".join(line for line in str(message["content"]).splitlines() if not line.startswith("-# "))


# --- the app ---------------------------------------------------------------------------------------------------------

Open = Callable[..., AbstractAsyncContextManager[Office]]


@pytest.fixture
def open_office(world: World, discord: DiscordEmulator) -> Open:
    """Opens an office, with changes to its configuration. `gateway`: other rules than SOON. `connected`: whether it waits for that.
    `later`: by so much its clock is ahead."""

    @asynccontextmanager
    async def opened(
        *, gateway: GatewayRules = SOON, connected: bool = True, later: timedelta = timedelta(), **config: Any
    ) -> AsyncIterator[Office]:
        storage = Interruptible(world.app.storage)
        discord.limits.off()
        office = Office(world, discord, storage)
        async with running(services_of(world, storage, later), config_of(discord, **config), gateway):
            if connected:
                await until_heard(office)
            yield office

    return opened


@pytest.fixture
async def office(open_office: Open) -> AsyncIterator[Office]:
    async with open_office() as found:
        yield found


@pytest.fixture
def channel(discord: DiscordEmulator) -> str:
    return discord.home.channel("plans")


@pytest.fixture
def people(office: Office, channel: str) -> tuple[Speaker, Speaker, Speaker]:
    """Alice, bob and carol, in the channel."""
    return office.speakers(channel)


def config_of(discord: DiscordEmulator, **changes: Any) -> DiscordConfig:
    given = {"token": discord.token, "api_url": discord.api_url, "gateway_url": discord.gateway_url, "rules": QUICK}
    return DiscordConfig(**{**given, **changes})


def services_of(world: World, storage: Interruptible, later: timedelta = timedelta()) -> Services:
    app = world.app
    return Services(
        storage=storage,
        live=app.live,
        clock=Later(app.clock, later),
        posting=app.rules,
        process_id=app.process_id,
        url="http://127.0.0.1:8420",
        models=lambda: (),
    )


async def until_heard(office: Office) -> None:
    """Until it listens, and knows from when on: what is said from now on is answered, whatever happens to the connection."""
    await office.discord.connected()

    async def begun() -> bool:
        return bool(await office.cursors())

    await office.world.until(begun)


@asynccontextmanager
async def held_elsewhere(world: World, discord: DiscordEmulator) -> AsyncIterator[None]:
    """Another process has the account meanwhile."""
    account, owner = Account(surface="discord", id=discord.bot_id), new_id()
    async with world.app.storage.write() as uow:
        lease = await uow.account_leases.take(account, owner, until=uow.now + timedelta(minutes=5), now=uow.now)
    assert lease
    yield
    async with world.app.storage.write() as uow:
        await uow.account_leases.release(lease)
