"""`onethread serve` in Discord: killed while a reply streams, stopped, away for hours, and two of it with one token."""

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.emulators.discord import DiscordEmulator, discord
from tests.serving import Served, served

__all__ = ["discord"]
JSON = dict[str, Any]
ENDING = re.compile("298 299 300")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Where nothing was before."""
    return tmp_path / "data"


@asynccontextmanager
async def in_discord(discord: DiscordEmulator, data_dir: Path, *, name: str = "one") -> AsyncIterator[Served]:
    urls: Any = {"ONETHREAD_DISCORD_API_URL": discord.api_url, "ONETHREAD_DISCORD_GATEWAY_URL": discord.gateway_url}
    async with served(data_dir, port=0, name=name, DISCORD_TOKEN=discord.token, **urls) as site:
        async with asyncio.timeout(60):
            await site.has_logged("discord.serving", times=1)
        yield site


def shown(message: JSON) -> str:
    """All that people see of it."""
    return f"{message['content']}{message['components']}"


def replies(messages: list[JSON], discord: DiscordEmulator) -> list[JSON]:
    """The bot's messages in which it counts."""
    return [message for message in messages if message["author"]["id"] == discord.bot_id and "1 2 3 4 5" in message["content"]]


async def test_reply_of_a_killed_process_is_completed_in_the_same_message(discord: DiscordEmulator, data_dir: Path) -> None:
    alice, channel = discord.person("alice"), discord.general
    async with in_discord(discord, data_dir) as site:
        await discord.connected()
        root = await alice.say(channel, "count to 300", mention=[discord.bot_id])
        growing = await alice.sees(root, lambda messages: bool(replies(messages, discord)), seconds=60)
        [message] = replies(growing, discord)
        await discord.until(lambda: discord.edits(message["id"]), lambda edits: len(edits) >= 3, seconds=60)
        site.process.kill()
        await site.process.wait()
        before = discord.edits(message["id"])
        async with in_discord(discord, data_dir, name="two"):
            thread = await alice.sees(root, lambda messages: any(map(ended, replies(messages, discord))), seconds=60)

    assert not any(ENDING.search(edit.content) for edit in before), "it was killed too late to prove anything"
    [completed] = replies(thread, discord)
    assert completed["id"] == message["id"]
    assert " ".join(map(str, range(1, 301))) in completed["content"]
    assert "Stop" not in shown(completed)
    assert answered(data_dir) == [("succeeded",)]


async def test_another_process_goes_on_where_the_killed_one_stopped(discord: DiscordEmulator, data_dir: Path) -> None:
    alice, channel = discord.person("alice"), discord.general
    async with in_discord(discord, data_dir) as one, in_discord(discord, data_dir, name="two") as two:
        await discord.connected()
        root = await alice.say(channel, "count to 300", mention=[discord.bot_id])
        growing = await alice.sees(root, lambda messages: bool(replies(messages, discord)), seconds=60)
        [message] = replies(growing, discord)
        assert discord.connections == 1, "one of the two acts for the bot"
        holder, other = (one, two) if one.entries("account.held") else (two, one)
        holder.process.kill()
        await holder.process.wait()
        asked_again = await alice.say(root, "and count to 3")
        thread = await alice.sees(root, lambda messages: len(final(messages, discord)) == 2, seconds=60)
        took_over = other.entries("account.held")

    assert len(took_over) == 1
    assert [each["id"] for each in replies(thread, discord) if ended(each)] == [message["id"]]
    assert [each["id"] for each in thread if int(each["id"]) > int(asked_again) and "1 2 3" in each["content"]] != []
    assert answered(data_dir) == [("succeeded",), ("succeeded",)]


async def test_next_process_goes_on_and_takes_in_what_was_said_meanwhile(discord: DiscordEmulator, data_dir: Path) -> None:
    alice, channel = discord.person("alice"), discord.general
    async with in_discord(discord, data_dir) as site:
        await discord.connected()
        root = await alice.say(channel, "count to 300", mention=[discord.bot_id])
        await alice.sees(root, lambda messages: bool(replies(messages, discord)), seconds=60)
        async with asyncio.timeout(30):
            code = await site.end()
        in_thread = await alice.say(root, "and count to 3")
        elsewhere = await alice.say(channel, "count to 2", mention=[discord.bot_id])
        async with in_discord(discord, data_dir, name="two"):
            thread = await alice.sees(root, lambda messages: len(final(messages, discord)) == 2, seconds=60)
            await alice.sees(elsewhere, lambda messages: len(final(messages, discord)) == 1, seconds=60)

    assert code == 0
    assert len(replies(thread, discord)) == 1
    assert [each["id"] for each in thread if int(each["id"]) > int(in_thread) and "1 2 3" in each["content"]] != []
    assert answered(data_dir) == [("succeeded",)] * 3


def ended(message: JSON) -> bool:
    return ENDING.search(message["content"]) is not None and "Stop" not in shown(message)


def final(messages: list[JSON], discord: DiscordEmulator) -> list[JSON]:
    """The bot's messages that name what a reply cost: only finished ones do."""
    return [message for message in messages if message["author"]["id"] == discord.bot_id and "demo/offline ·" in message["content"]]


def answered(data_dir: Path) -> list[tuple[str]]:
    database = sqlite3.connect(data_dir / "onethread.db")
    try:
        return database.execute("SELECT status FROM turns ORDER BY id").fetchall()
    finally:
        database.close()
