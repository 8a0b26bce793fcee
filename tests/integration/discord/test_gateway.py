"""The connection to Discord's gateway: whatever ends it or makes it deaf, the bot comes back, and nothing is lost or doubled."""

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest
from discord.gateway import KeepAliveHandler

from bots.discord.serving import running
from bots.discord.surface import DiscordSurface
from tests.emulators.discord import DiscordEmulator
from tests.integration.conftest import World
from tests.integration.discord.conftest import (
    SOON,
    Office,
    Open,
    Speaker,
    config_of,
    held_elsewhere,
    services_of,
    until_heard,
)
from tests.integration.office import Interruptible

People = tuple[Speaker, Speaker, Speaker]


async def still_hears(office: Office, channel: str) -> None:
    """What is said from now on."""
    thread = await office.speaker("carol", channel).says("@onethread are you there?")
    await office.says(channel, thread.id, "carol: are you there?")


async def test_it_comes_where_the_first_connections_fail(open_office: Open, discord: DiscordEmulator, channel: str) -> None:
    discord.refuse_connections(3)
    async with open_office() as office:
        await still_hears(office, channel)


async def test_it_comes_where_discord_cannot_be_reached_at_first(open_office: Open, discord: DiscordEmulator, channel: str) -> None:
    discord.fail("GET", "users/@me", status=None)
    async with open_office() as office:
        await still_hears(office, channel)


@pytest.mark.parametrize("can_resume", [True, False], ids=["resumed", "anew"])
@pytest.mark.parametrize("how", ["drop", "reconnect", "invalid", "invalid, resumable", 1000, 4000, 4009, 1011])
async def test_it_connects_again_and_hears_what_was_said_meanwhile(
    office: Office, people: People, channel: str, how: Any, can_resume: bool
) -> None:
    alice, bob, _ = people
    thread = await alice.says("@onethread plan my week")
    await office.says(channel, thread.id, "alice: plan my week")
    office.discord.can_resume = can_resume
    match how:
        case "drop":
            office.discord.drop()
        case "reconnect":
            office.discord.ask_reconnect()
        case "invalid":
            office.discord.invalidate()
        case "invalid, resumable":
            office.discord.invalidate(resumable=True)
        case code:
            await office.discord.close(code)
    await bob.says("and mine", thread)
    await alice.says("soon", thread)
    await office.says(channel, thread.id, "alice: plan my week", "bob: and mine", "alice: soon")
    await still_hears(office, channel)
    assert len(await office.tasks()) == 2


async def test_a_silent_connection_is_given_up(open_office: Open, discord: DiscordEmulator, channel: str) -> None:
    """Nobody answers, not even the heartbeats, and nothing tells that the other side is gone."""
    discord.heartbeat_seconds = 0.05
    async with open_office(gateway=replace(SOON, silent_seconds=0.3)) as office:
        discord.silent()
        discord.lose()
        thread = await office.speaker("alice", channel).says("@onethread plan my week")
        await discord.until(lambda: discord.resumes)
        discord.silent(False)
        discord.keep()
        discord.can_resume = False
        discord.drop()
        await office.says(channel, thread.id, "alice: plan my week")


async def test_one_that_never_gets_ready_is_given_up(
    open_office: Open, discord: DiscordEmulator, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = type(discord.gateway)
    identify = gateway._identify
    asked: list[object] = []

    def ignored_at_first(self: Any, connection: Any, data: Any) -> int:
        asked.append(data)
        return 0 if len(asked) < 3 else identify(self, connection, data)

    monkeypatch.setattr(gateway, "_identify", ignored_at_first)
    async with open_office(gateway=replace(SOON, ready_seconds=0.1)) as office:
        await still_hears(office, channel)
    assert len(asked) == 3


async def test_sessions_none_of_which_lasts_are_begun_more_and_more_slowly(
    open_office: Open, discord: DiscordEmulator, channel: str
) -> None:
    """Discord withdraws the token of a bot that begins too many."""
    rules = replace(SOON, restart_seconds=0.02, identify_seconds=0.02, longest_pause_seconds=60.0, sessions=2)
    async with open_office(gateway=rules) as office:
        for number in range(2, 6):
            discord.invalidate()
            await discord.until(lambda number=number: discord.identifies >= number)  # type: ignore[misc]
            await discord.connected()
        begun = asyncio.get_running_loop().time()
        await still_hears(office, channel)
        assert discord.identifies == 5
        discord.invalidate()
        await discord.until(lambda: discord.identifies > 5)
        assert asyncio.get_running_loop().time() - begun > 0.02 * 2**4
    assert not [each for each in threading.enumerate() if isinstance(each, KeepAliveHandler) and not each._stop_ev.is_set()]


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("GUILD_MEMBER_UPDATE", {"guild_id": "1"}),
        ("CHANNEL_UPDATE", {}),
        ("THREAD_CREATE", {"id": 5}),
        ("MESSAGE_CREATE", {"channel_id": "5", "guild_id": "5"}),
        ("MESSAGE_UPDATE", {}),
        ("MESSAGE_DELETE_BULK", {"ids": ["x"]}),
        ("INTERACTION_CREATE", {"type": 2}),
        ("READY", {}),
        ("SOMETHING_NEW", [1]),
    ],
)
async def test_an_event_that_nobody_can_read_makes_it_deaf_to_none(office: Office, channel: str, kind: str, data: Any) -> None:
    """discord.py ends its connection over some of them, while its calls still pass."""
    office.discord.dispatch(kind, data)
    await still_hears(office, channel)


async def test_a_message_of_a_shape_that_nobody_knows_holds_up_no_other(office: Office, people: People, channel: str) -> None:
    alice, _, _ = people
    thread = await alice.says("@onethread plan my week")
    await office.says(channel, thread.id, "alice: plan my week")
    office.discord.dispatch("MESSAGE_CREATE", {**office.discord.message(thread.id), "id": office.discord.snowflake(), "author": None})
    await alice.says("go on", thread)
    await office.says(channel, thread.id, "alice: plan my week", "alice: go on")


async def test_what_stands_nowhere_that_is_known_is_looked_up_once(office: Office, people: People, channel: str) -> None:
    alice, _, _ = people
    thread = await alice.says("@onethread plan my week")
    await office.says(channel, thread.id, "alice: plan my week")
    message = office.discord.message(thread.id)
    for _ in range(2):
        office.discord.dispatch("MESSAGE_CREATE", {**message, "guild_id": office.discord.home.id, "channel_id": "5", "id": "6"})
        await office.discord.until(lambda: office.discord.called("channel", channel="5"))
        await still_hears(office, channel)
    assert len(office.discord.called("channel", channel="5")) <= 2


async def test_a_revoked_token_is_told_the_operator_and_a_valid_one_again_is_enough(
    office: Office, people: People, channel: str, capsys: pytest.CaptureFixture[str]
) -> None:
    alice, _, _ = people
    token, office.discord.token = office.discord.token, "another"
    await office.discord.close(4004)
    logged = ""

    async def refused() -> bool:
        nonlocal logged
        logged += "".join(capsys.readouterr())
        return "discord.refused" in logged

    await office.world.until(refused)
    thread = await alice.says("@onethread plan my week")
    office.discord.token = token
    await office.says(channel, thread.id, "alice: plan my week")
    assert token not in logged


async def test_it_goes_on_without_contents_where_these_are_withdrawn(
    office: Office, people: People, channel: str, capsys: pytest.CaptureFixture[str]
) -> None:
    office.discord.message_content = False
    office.discord.can_resume = False
    office.discord.drop()
    await still_hears(office, channel)
    assert "Switch on Message Content Intent" in capsys.readouterr().out


async def test_only_one_process_listens(world: World, discord: DiscordEmulator, open_office: Open, channel: str) -> None:
    async with held_elsewhere(world, discord), open_office(connected=False) as office:
        await discord.until(lambda: discord.called("me"))
        assert discord.connections == 0
    async with open_office() as office:
        await still_hears(office, channel)


async def test_it_ends_while_a_connection_fails(open_office: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A TaskGroup of Python 3.11 and 3.12 raises what failed, and the cancellation is gone."""
    fails, failing, goes_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def failed(_client: Any) -> None:
        await fails.wait()
        raise ConnectionError

    async def ends_slowly(_client: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            failing.set()
            await goes_on.wait()

    monkeypatch.setattr("bots.discord.gateway._Client.stay", failed)
    monkeypatch.setattr("bots.discord.gateway._Client.watch", ends_slowly)
    async with asyncio.timeout(30):
        async with open_office(connected=False):
            fails.set()
            await failing.wait()
            asyncio.get_running_loop().call_later(0.05, goes_on.set)


async def test_it_hears_where_the_commands_cannot_be_told(open_office: Open, channel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_tree: object) -> bool:
        raise KeyError("name")

    monkeypatch.setattr("bots.discord.interactions.synced", broken)
    async with open_office() as office:
        await still_hears(office, channel)
        assert office.discord.identifies == 1


async def test_a_link_leads_to_its_server_from_the_beginning_on(
    open_office: Open, discord: DiscordEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = discord.guild("Elsewhere", discord.person("alice")).channel("plans")
    made: list[DiscordSurface] = []

    def make(*given: Any) -> DiscordSurface:
        made.append(DiscordSurface(*given))
        return made[-1]

    monkeypatch.setattr("bots.discord.serving.DiscordSurface", make)
    async with open_office() as office:
        link = f"https://discord.com/channels/{discord.channels[channel].guild_id}/5"
        await discord.until(lambda: made[0].link(office.place(channel, "5")) == link)


async def test_it_ends_cleanly(world: World, discord: DiscordEmulator, channel: str) -> None:
    discord.limits.off()
    before = asyncio.all_tasks()
    storage = Interruptible(world.app.storage)
    office = Office(world, discord, storage)
    async with running(services_of(world, storage), config_of(discord), SOON):
        await until_heard(office)
        await still_hears(office, channel)
    await discord.gone()
    ours = [task for task in asyncio.all_tasks() - before if "discord" in task.get_name()]
    assert not ours
