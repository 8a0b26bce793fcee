"""The same listeners in Socket Mode, against a small fake of our own (tests/emulators/slack/agents.py): no emulator has it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from bots.slack.serving import running
from tests.emulators.slack import SlackEmulator
from tests.emulators.slack.agents import SlackAgents, slack_agents
from tests.integration.conftest import World
from tests.integration.office import Interruptible
from tests.integration.slack.conftest import Office, Speaker, config_of, services_of

pytestmark = pytest.mark.requires("slack-emulator")
People = tuple[Speaker, Speaker, Speaker]


@pytest.fixture
async def agents(slack: SlackEmulator) -> AsyncIterator[SlackAgents]:
    async with slack_agents(slack, ack_seconds=0.5) as found:
        yield found


@pytest.fixture
async def office(world: World, slack: SlackEmulator, agents: SlackAgents) -> AsyncIterator[Office]:
    """One that has no address."""
    storage = Interruptible(world.app.storage)
    async with running(services_of(world, storage), config_of(slack, signing_secret="", app_token=slack.app_token)) as endpoint:
        assert endpoint is None
        await slack.budgets({})
        await slack.connect(agents.request_url, retry_seconds=(0.0, 0.1, 0.2, 0.5))
        await agents.connected()
        yield Office(world, slack, storage)


async def test_a_mention_is_answered(office: Office, people: People) -> None:
    alice, _, _ = people
    async with office.world.working():
        thread = await alice.says("@onethread plan my week")
        await thread.shows("onethread: OK.")
    assert len(await office.tasks()) == 1


async def test_commands_and_buttons_are_answered(office: Office, people: People, channel: str) -> None:
    alice, bob, _ = people
    assert (await alice.types("/task new Measure the payload"))["text"] == "Made *OT-1* Measure the payload · todo"
    thread = await alice.says("@onethread plan my week")
    await bob.presses(await thread.button("Stop"))
    await thread.shows_text("Stopped")


async def test_what_cannot_be_stored_is_not_acknowledged_and_comes_again(
    office: Office, people: People, channel: str, agents: SlackAgents
) -> None:
    alice, _, _ = people
    office.storage.is_away = True
    thread = await alice.says("@onethread hello")
    await office.slack.until(office.slack.deliveries, lambda seen: any(each["status"] == 504 for each in seen))
    assert not any(each.acked for each in agents.envelopes)
    office.storage.is_away = False
    await office.says(channel, thread.ts, "alice: hello")


@pytest.mark.parametrize("reason", ["refresh_requested", "warning"])
async def test_it_connects_again_when_slack_asks_for_it(
    office: Office, people: People, channel: str, agents: SlackAgents, reason: str
) -> None:
    alice, _, _ = people
    async with asyncio.timeout(30):
        await agents.disconnect(reason)  # type: ignore[arg-type]
        thread = await alice.says("@onethread hello")
        await office.says(channel, thread.ts, "alice: hello")


async def test_it_ends_cleanly(world: World, slack: SlackEmulator, agents: SlackAgents) -> None:
    config = config_of(slack, signing_secret="", app_token=slack.app_token)
    async with running(services_of(world, Interruptible(world.app.storage)), config):
        await agents.connected()
        clients = [task for task in asyncio.all_tasks() if "SocketModeClient" in str(task.get_coro())]
    await agents.connected(0)
    _, still_running = await asyncio.wait(clients, timeout=5)
    assert clients
    assert not still_running


async def test_a_wrong_app_token_is_told_the_operator_and_not_logged(
    world: World, slack: SlackEmulator, agents: SlackAgents, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(slack, signing_secret="", app_token="xapp-wrong-canary")
    logged = ""
    async with running(services_of(world, Interruptible(world.app.storage)), config):

        async def refused() -> bool:
            nonlocal logged
            logged += "".join(capsys.readouterr())
            return "slack.refused" in logged

        await world.until(refused)
    assert agents.connections == 0
    assert "canary" not in logged
