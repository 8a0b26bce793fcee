"""A whole Onethread in the test's process, signed in to the emulated Slack, and shorthand for what people do and see there."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
import uvicorn

from bots.pacing import Budget
from bots.services import Services
from bots.slack.app import Endpoint
from bots.slack.config import SlackConfig, SlackRules
from bots.slack.serving import running
from core.ids import new_id
from core.models import Account
from tests.emulators.slack import JSON, Person, SlackEmulator, slack, slack_process
from tests.integration.conftest import World
from tests.integration.office import Interruptible, Stored

__all__ = ["slack", "slack_process"]
BOT = "onethread"
_CALLS = 10
"""The last ones, that are told where a thread does not show what it should."""
_OFTEN = Budget(calls=1_000, seconds=1, burst=100)
QUICK = SlackRules(edit_seconds=0.02, edits=_OFTEN, posts=_OFTEN, statuses=_OFTEN, stream_starts=_OFTEN, stream_appends=_OFTEN)
"""As if Slack's limits were far away."""


class Office(Stored):
    """The workspace, with the app in it."""

    def __init__(self, world: World, slack: SlackEmulator, storage: Interruptible) -> None:
        super().__init__(world, storage, Account(surface="slack", id=slack.team_id))
        self.slack = slack
        self.names = {slack.bot_user_id: BOT}

    async def speaker(self, name: str, channel: str) -> "Speaker":
        person = await self.slack.person(name)
        self.names[person.id] = name
        return Speaker(self, person, channel)

    async def speakers(self, channel: str) -> "tuple[Speaker, Speaker, Speaker]":
        """Alice, bob and carol, in the channel."""
        return await self.speaker("alice", channel), await self.speaker("bob", channel), await self.speaker("carol", channel)

    # --- what is stored ---

    async def settled(self) -> None:
        """Until everything that Slack told was taken in, or waits for what it overtook."""
        await self.slack.delivered()
        await self.taken_in()

    async def told(self, person: "Speaker") -> list[str]:
        """What the app told this person alone."""
        calls = await self.slack.calls("chat.postEphemeral")
        return [call["args"]["text"] for call in calls if call["args"]["user"] == person.id]

    async def tells(self, person: "Speaker", sentence: str) -> None:
        """Waits until the app told this person alone something that begins so."""
        await self.slack.until(lambda: self.told(person), lambda told: any(each.startswith(sentence) for each in told))


@dataclass(frozen=True, slots=True)
class Thread:
    """As whoever began it sees it."""

    speaker: "Speaker"
    ts: str

    async def shows(self, *lines: str) -> list[JSON]:
        """Waits until these lines stand there, in this order, among others: `alice: hello`."""
        office, seen = self.speaker.office, [""]

        def there(messages: Sequence[JSON]) -> bool:
            seen[:] = [f"{office.names.get(each['user'], '?')}: {text_of(each)}" for each in messages]
            rest = iter(seen)
            return all(line in rest for line in lines)

        try:
            return await self.speaker.person.sees(self.speaker.channel, self.ts, there)
        except TimeoutError:
            calls = [f"{call['method']} {call['status']} {call['error'] or ''}" for call in (await office.slack.calls())[-_CALLS:]]
            raise AssertionError("\n".join(["the thread shows", *seen, "after the calls", *calls])) from None

    async def button(self, label: str) -> "Shown":
        """The newest button of this label, as soon as it is there."""

        def found(messages: Sequence[JSON]) -> list[Shown]:
            blocks = [(each["ts"], block) for each in messages for block in each.get("blocks") or [] if block["type"] == "actions"]
            buttons = [Shown(ts, button) for ts, block in blocks for button in block["elements"]]
            return [each for each in buttons if each.element["text"]["text"] == label]

        return found(await self.speaker.person.sees(self.speaker.channel, self.ts, lambda messages: bool(found(messages))))[-1]

    async def shows_text(self, text: str) -> None:
        """Waits until this stands somewhere in it: in a note, a card or a button."""
        await self.speaker.person.sees(self.speaker.channel, self.ts, lambda messages: text in str(messages))


@dataclass(frozen=True, slots=True)
class Shown:
    """A button of a message."""

    ts: str
    element: JSON


@dataclass(frozen=True, slots=True)
class Speaker:
    """Somebody in a channel. What they write to `@onethread` mentions the app, as in Slack."""

    office: Office
    person: Person
    channel: str

    @property
    def id(self) -> str:
        return self.person.id

    async def says(self, text: str, thread: Thread | None = None, *, files: Sequence[tuple[str, bytes]] = ()) -> Thread:
        """The thread below the message, or the one that it stands in."""
        text = text.replace(f"@{BOT}", f"<@{self.office.slack.bot_user_id}>")
        ts = await self.person.say(self.channel, text, thread=thread.ts if thread else None, files=files)
        return Thread(self, thread.ts if thread else ts)

    async def says_ts(self, text: str, thread: Thread | None = None) -> str:
        """The same, for whoever needs the message itself."""
        text = text.replace(f"@{BOT}", f"<@{self.office.slack.bot_user_id}>")
        return await self.person.say(self.channel, text, thread=thread.ts if thread else None)

    async def presses(self, button: Shown) -> None:
        answer = await self.person.press(self.channel, button.ts, button.element["action_id"], value=button.element["value"])
        assert answer.status == 200

    async def presses_raw(self, action_id: str, value: str) -> None:
        """A button that no message has."""
        payload = {
            "type": "block_actions",
            "team": {"id": self.office.slack.team_id},
            "user": {"id": self.id, "team_id": self.office.slack.team_id},
            "channel": {"id": self.channel},
            "message": {"ts": "1.2"},
            "actions": [{"type": "button", "action_id": action_id, "value": value}],
        }
        form = urlencode({"payload": json.dumps(payload)})
        answer = await self.office.slack.post_to_app(form, "application/x-www-form-urlencoded")
        assert answer.status == 200

    async def types(self, command: str) -> JSON:
        """The answer to a slash command."""
        name, _, text = command.partition(" ")
        answer = await self.person.slash(name, text, self.channel)
        assert answer.status == 200
        return answer.json


def text_of(message: JSON) -> str:
    """What a message says, without what stands around it."""
    markdown = [block["text"] for block in message.get("blocks") or [] if block["type"] == "markdown"]
    return "\n".join(markdown) if markdown else str(message["text"])


# --- the app ---------------------------------------------------------------------------------------------------------

Open = Callable[..., AbstractAsyncContextManager[Office]]


@pytest.fixture
def open_office(world: World, slack: SlackEmulator) -> Open:
    """Opens an office, with changes to its configuration."""

    @asynccontextmanager
    async def opened(**config: Any) -> AsyncIterator[Office]:
        storage = Interruptible(world.app.storage)
        async with running(services_of(world, storage), config_of(slack, **config)) as endpoint:
            assert endpoint
            async with served(endpoint) as url:
                await slack.budgets({})
                await slack.connect(f"{url}/slack/events", retry_seconds=(0.0, 0.1, 0.2, 0.5))
                await until_ready(endpoint)
                yield Office(world, slack, storage)

    return opened


@pytest.fixture
async def office(open_office: Open) -> AsyncIterator[Office]:
    async with open_office() as found:
        yield found


@pytest.fixture
async def channel(slack: SlackEmulator) -> str:
    return await slack.channel()


@pytest.fixture
async def people(office: Office, channel: str) -> tuple[Speaker, Speaker, Speaker]:
    """Alice, bob and carol, in the channel."""
    return await office.speakers(channel)


def config_of(slack: SlackEmulator, **changes: Any) -> SlackConfig:
    given = {"bot_token": slack.bot_token, "signing_secret": slack.signing_secret, "api_url": slack.url, "rules": QUICK}
    return SlackConfig(**{**given, **changes})


def services_of(world: World, storage: Interruptible) -> Services:
    app = world.app
    return Services(
        storage=storage,
        live=app.live,
        clock=app.clock,
        posting=app.rules,
        process_id=app.process_id,
        url="http://127.0.0.1:8420",
        models=lambda: (),
    )


async def until_ready(endpoint: Endpoint) -> None:
    async with asyncio.timeout(30):
        await endpoint.ready.wait()


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    """An ASGI application on a free port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None))
        task = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            yield "http://{}:{}".format(*listening.getsockname())
        finally:
            server.should_exit = True
            await task


@asynccontextmanager
async def held_elsewhere(world: World, slack: SlackEmulator) -> AsyncIterator[None]:
    """Another process has the account meanwhile."""
    account, owner = Account(surface="slack", id=slack.team_id), new_id()
    async with world.app.storage.write() as uow:
        lease = await uow.account_leases.take(account, owner, until=uow.now + timedelta(minutes=5), now=uow.now)
    assert lease
    yield
    async with world.app.storage.write() as uow:
        await uow.account_leases.release(lease)
