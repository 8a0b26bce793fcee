"""What is said to everybody at a place that shows no conversation."""

import structlog

from bots.discord.events import Spot
from tests.emulators.discord import DiscordEmulator
from tests.integration.conftest import World
from tests.integration.discord.desk import desk_of

SENTENCE = "While I was away more was written here."


async def test_what_is_said_once_is_said_although_discord_is_busy_and_fails(world: World, discord: DiscordEmulator) -> None:
    discord.fail("POST", "message.create", status=429, retry_after=0.05)
    discord.fail("POST", "message.create", status=502, after=True)
    async with desk_of(world, discord) as desk:
        spot = Spot(guild=discord.home.id, channel=discord.general)
        for _ in range(2):
            desk.listening.say_once(spot, "left-out:1", SENTENCE)
        await discord.until(lambda: len(discord.called("message.create")) == 3)
    assert [each["content"] for each in discord.messages(discord.general)] == [SENTENCE]


async def test_what_cannot_be_said_there_is_not_tried_again(world: World, discord: DiscordEmulator) -> None:
    discord.fail("POST", "message.create", status=403, code=50013)
    with structlog.testing.capture_logs() as entries:
        async with desk_of(world, discord) as desk:
            desk.listening.say_once(Spot(guild=discord.home.id, channel=discord.general), "left-out:1", SENTENCE)
    assert [each["error"] for each in entries if each["event"] == "discord.not_said"] == ["PlaceClosed"]
    assert len(discord.called("message.create")) == 1
