"""Discord's limit on edits, which its double enforces: 5 in 5 seconds at each place, its seconds passing five times as quickly.

The cases A to F are those that were measured with discord.py alone, whose call then returns up to 10 seconds late: here none does.
F, an edit that is cancelled in its middle, is among the tests of the client.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest

from bots.discord.config import DiscordRules
from bots.discord.surface import DiscordSurface
from bots.pacing import Budget
from bots.surface import Part
from core.models import Place
from tests.emulators.discord import DiscordEmulator
from tests.fakes import Gate
from tests.integration.discord.conftest import QUICK, Office, Open

JSON = dict[str, Any]
SPEED = 5
SPACING = 1.25 / SPEED
LATE = 0.6
"""Seconds. No call takes so long: discord.py's own take 0.94 at this speed."""
WORDS = 30
STORY_SECONDS = 2.5
USUAL = DiscordRules()
PACED = replace(QUICK, edit_seconds=SPACING, edits=replace(USUAL.edits, seconds=USUAL.edits.seconds / SPEED))
HASTY = replace(QUICK, edits=Budget(calls=1_000, seconds=1, burst=100))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long each edit took, in seconds, whatever came of it."""
    took: list[float] = []
    edit, now = DiscordSurface.edit, asyncio.get_running_loop

    async def timed(self: DiscordSurface, place: Place, remote_id: str, part: Part, nonce: UUID) -> None:
        began = now().time()
        try:
            await edit(self, place, remote_id, part, nonce)
        finally:
            took.append(now().time() - began)

    monkeypatch.setattr(DiscordSurface, "edit", timed)
    return took


class Pause(Gate):
    """Opens by itself."""

    async def passing(self) -> None:
        await asyncio.sleep(STORY_SECONDS / WORDS)


STORY = [item for number in range(WORDS) for item in (f"word{number} ", Pause())]


@asynccontextmanager
async def telling(open_office: Open, rules: DiscordRules) -> AsyncIterator[Office]:
    """The bot tells two stories."""
    async with open_office(rules=rules) as office:
        office.world.model.will(*STORY).will(*STORY)
        office.discord.limits["message.edit"] = (5, 5.0)
        office.discord.limits.speed = SPEED
        async with office.world.working():
            yield office


async def told(office: Office, channel: str, count: int = 1) -> list[JSON]:
    """The bot's messages in a channel or thread, as soon as so many of them show a whole story."""
    alice = office.discord.person("alice")
    whole = f"word{WORDS - 1}"
    messages = await alice.sees(channel, lambda found: sum(whole in each["content"] for each in found) == count, seconds=60)
    return [each for each in messages if whole in each["content"]]


def longest_pause(office: Office, messages: Sequence[JSON]) -> float:
    edits = [[edit.at for edit in office.discord.edits(each["id"])] for each in messages]
    return max(later - earlier for times in edits for earlier, later in pairwise(times))


def refused(office: Office) -> int:
    return sum(call.status == 429 for call in office.discord.called("message.edit"))


@pytest.mark.parametrize("rules", [HASTY, replace(HASTY, edit_seconds=1.0 / SPEED), PACED], ids=["A", "B", "C"])
async def test_no_edit_blocks_its_stream(open_office: Open, channel: str, calls: list[float], rules: DiscordRules) -> None:
    async with telling(open_office, rules) as office:
        thread = await office.speaker("alice", channel).says("@onethread tell a story")
        answers = await told(office, thread.channel)
        assert max(calls) < LATE
        if rules is PACED:
            assert (refused(office), longest_pause(office, answers) < SPACING + 2 * LATE) == (0, True)


async def test_streams_of_one_channel_share_its_edits(open_office: Open, discord: DiscordEmulator, calls: list[float]) -> None:
    """D: where no thread may be made both are answered in the channel."""
    channel = discord.home.channel("plans", deny=["CREATE_PUBLIC_THREADS"])
    async with telling(open_office, PACED) as office:
        for name in ("alice", "bob"):
            await office.speaker(name, channel).says("@onethread tell a story")
        answers = await told(office, channel, 2)
        assert (refused(office), max(calls) < LATE) == (0, True)
        assert longest_pause(office, answers) < 2 * SPACING + 2 * LATE


async def test_streams_of_two_threads_do_not_share_theirs(open_office: Open, channel: str, calls: list[float]) -> None:
    """E."""
    async with telling(open_office, PACED) as office:
        threads = [await office.speaker(name, channel).says("@onethread tell a story") for name in ("alice", "bob")]
        answers = [message for thread in threads for message in await told(office, thread.channel)]
        assert (refused(office), max(calls) < LATE) == (0, True)
        assert longest_pause(office, answers) < SPACING + 2 * LATE
