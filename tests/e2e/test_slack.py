"""`onethread serve` in a Slack workspace: killed while a reply streams, stopped, and two of it at once."""

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.emulators.slack import SlackEmulator, slack, slack_process
from tests.serving import Served, served

__all__ = ["slack", "slack_process"]
pytestmark = pytest.mark.requires("slack-emulator")
JSON = dict[str, Any]
ENDING = re.compile("298 299 300")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Where nothing was before."""
    return tmp_path / "data"


@asynccontextmanager
async def in_slack(slack: SlackEmulator, data_dir: Path, *, port: int = 0, name: str = "one") -> AsyncIterator[Served]:
    tokens: Any = {"SLACK_BOT_TOKEN": slack.bot_token, "SLACK_SIGNING_SECRET": slack.signing_secret, "ONETHREAD_SLACK_API_URL": slack.url}
    async with served(data_dir, port=port, name=name, **tokens) as site:
        async with asyncio.timeout(60):
            await site.has_logged("slack.serving", times=1)
        await slack.connect(f"{site.url}/slack/events")
        yield site


def counting(message: JSON) -> bool:
    return "1 2 3 4 5" in shown(message)


def shown(message: JSON) -> str:
    """All that people see of it."""
    return f"{message.get('blocks')}{message['text']}"


def replies(messages: list[JSON], slack: SlackEmulator) -> list[JSON]:
    """The app's messages in which it counts."""
    return [message for message in messages if message.get("user") == slack.bot_user_id and counting(message)]


async def test_reply_of_a_killed_process_is_completed_in_the_same_message(slack: SlackEmulator, data_dir: Path) -> None:
    alice, channel = await slack.person("alice"), await slack.channel()
    async with in_slack(slack, data_dir) as site:
        root = await alice.mention(channel, "count to 300")
        growing = await alice.sees(channel, root, lambda messages: bool(replies(messages, slack)), seconds=60)
        [message] = replies(growing, slack)
        await slack.until(lambda: slack.edits(channel, message["ts"]), lambda edits: len(edits) >= 3, seconds=60)
        site.process.kill()
        await site.process.wait()
        before = await slack.edits(channel, message["ts"])
        async with in_slack(slack, data_dir, name="two"):
            await alice.sees(channel, root, lambda messages: any(map(ended, replies(messages, slack))), seconds=60)
            thread = await alice.replies(channel, root)

    assert not any(ENDING.search(shown(edit)) for edit in before), "it was killed too late to prove anything"
    [completed] = replies(thread, slack)
    assert completed["ts"] == message["ts"]
    assert " ".join(map(str, range(1, 301))) in shown(completed)
    assert "Stop" not in shown(completed)
    assert answered(data_dir) == [("succeeded",)]


async def test_another_process_goes_on_where_the_killed_one_stopped(slack: SlackEmulator, data_dir: Path) -> None:
    alice, channel = await slack.person("alice"), await slack.channel()
    async with in_slack(slack, data_dir) as one, in_slack(slack, data_dir, name="two") as two:
        root = await alice.mention(channel, "count to 300")
        growing = await alice.sees(channel, root, lambda messages: bool(replies(messages, slack)), seconds=60)
        [message] = replies(growing, slack)
        holder, other = (one, two) if one.entries("account.held") else (two, one)
        holder.process.kill()
        await holder.process.wait()
        await slack.connect(f"{other.url}/slack/events")
        asked_again = await alice.say(channel, "and count to 3", thread=root)
        await alice.sees(channel, root, lambda messages: len(final(messages, slack)) == 2, seconds=60)
        thread = await alice.replies(channel, root)
        took_over = other.entries("account.held")

    assert len(took_over) == 1
    assert [each["ts"] for each in replies(thread, slack) if ended(each)] == [message["ts"]]
    assert [each["ts"] for each in thread if each["ts"] > asked_again and "1 2 3" in shown(each)] != []
    assert answered(data_dir) == [("succeeded",), ("succeeded",)]


async def test_stopped_process_ends_at_once_and_the_next_one_goes_on(slack: SlackEmulator, data_dir: Path) -> None:
    alice, channel = await slack.person("alice"), await slack.channel()
    async with in_slack(slack, data_dir) as site:
        root = await alice.mention(channel, "count to 300")
        await alice.sees(channel, root, lambda messages: bool(replies(messages, slack)), seconds=60)
        async with asyncio.timeout(20):
            code = await site.end()
        async with in_slack(slack, data_dir, name="two"):
            thread = await alice.sees(channel, root, lambda messages: any(map(ended, replies(messages, slack))), seconds=60)

    assert code == 0
    assert len(replies(thread, slack)) == 1


def ended(message: JSON) -> bool:
    return ENDING.search(shown(message)) is not None and "Stop" not in shown(message)


def final(messages: list[JSON], slack: SlackEmulator) -> list[JSON]:
    """The app's messages that name what a reply cost: only finished ones do."""
    return [message for message in messages if message.get("user") == slack.bot_user_id and "demo/offline ·" in shown(message)]


def answered(data_dir: Path) -> list[tuple[str]]:
    database = sqlite3.connect(data_dir / "onethread.db")
    try:
        return database.execute("SELECT status FROM turns ORDER BY id").fetchall()
    finally:
        database.close()
