"""Twenty threads that stream at once in Discord, and what an edit costs.

Discord's double counts the edits of each thread (5 in 5 seconds, as Discord was seen to) and turns away what is too much; our budget is
4 in 5 seconds, so that one is left for the end. Staleness is the age of the oldest text that exists and is not shown, averaged over time
and over all threads. The reference is the best schedule that the same trace allows under the same budget, with no time lost on
the way: an edit every 1.25 seconds in each thread. Onethread runs in a process of its own, whose processor time includes the worker, the
database and everything else; it is divided by the edits, and stands beside that of a bare loop that makes the same edits by discord.py.
"""

import asyncio
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bots.discord.config import DiscordConfig
from bots.discord.serving import running as in_discord
from bots.services import Services
from core.models import Account, Place
from onethread import logs
from onethread.bootstrap import App, running, working
from onethread.settings import Settings
from tests.benchmarks.figures import Comparison, Figure, Reference, Result, Target
from tests.benchmarks.staleness import WORDS, Storyteller, Stream, greedy, staleness, watched
from tests.emulators.discord import DiscordEmulator, discord_running

THREADS = 20
EDIT_SECONDS = 1.25
LETTERS = 5
"""Of each of the story's words, with the space behind it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    seconds: float
    """That each reply takes."""


FULL = Size(seconds=60)
QUICK = Size(seconds=6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the process that is measured says in the end."""

    written: Sequence[Sequence[tuple[float, int]]]
    """For each thread."""
    cpu_seconds: float
    """Of the whole process while the replies streamed."""


async def measure(size: Size) -> Sequence[Result]:
    async with discord_running() as discord:
        alice, channel = discord.person("alice"), discord.general
        threads = [await alice.thread(channel, await alice.say(channel, f"Story {number}"), f"Story {number}") for number in range(THREADS)]
        told = await _apart(_answer, size, _config(discord), discord.bot_id, channel, threads, begin=lambda: _ask(discord, threads))
        streams = [Stream(written=list(written)) for written in told.written]
        for thread, each in zip(threads, streams, strict=True):
            each.shown = _shown(discord, thread)
            assert each.shown[-1][1] == each.written[-1][1], "a reply was not shown whole"
        edits = list(discord.called("message.edit"))
        refused = sum(call.status == 429 for call in edits)
        bare = await _bare(discord, channel, len(edits))
    best = [replace(each, shown=shown) for stream in streams for each, shown in greedy([stream], EDIT_SECONDS)]
    return [
        Figure(
            name=f"staleness of {THREADS} streams in Discord",
            value=staleness(streams),
            unit="s",
            reference=Reference(name="greedy schedule of the same trace", value=staleness(best)),
            target=Target(comparison=Comparison.RATIO_AT_MOST, bound=1.15),
        ),
        Figure(
            name="edits that Discord refused",
            value=refused,
            unit="edits",
            reference=Reference(name="made", value=len(edits)),
            target=Target(comparison=Comparison.VALUE_AT_MOST, bound=0),
        ),
        Figure(
            name="processor time for each edit, all of Onethread",
            value=1000 * told.cpu_seconds / len(edits),
            unit="ms",
            reference=Reference(name="bare discord.py", value=1000 * bare),
        ),
    ]


def _config(discord: DiscordEmulator) -> DiscordConfig:
    return DiscordConfig(token=discord.token, api_url=discord.api_url, gateway_url=discord.gateway_url)


async def _ask(discord: DiscordEmulator, threads: Sequence[str]) -> None:
    await discord.connected()
    alice = discord.person("alice")
    for thread in threads:
        await alice.say(thread, "Tell me a story.", mention=[discord.bot_id])


def _shown(discord: DiscordEmulator, thread: str) -> list[tuple[float, int]]:
    """When how much of the story was shown, over all messages that show it. Times are the clock's."""
    offset = time.time() - asyncio.get_running_loop().time()
    ours = [message for message in discord.messages(thread) if message["author"]["id"] == discord.bot_id]
    changes = sorted((edit.at, message["id"], _words(edit.content)) for message in ours for edit in discord.edits(message["id"]))
    shown: dict[str, int] = {}
    found = []
    for at, message_id, words in changes:
        shown[message_id] = words
        if total := sum(shown.values()):
            found.append((at + offset, LETTERS * total - 1))
    return found


def _words(content: str) -> int:
    """Of the story, not of the notes below it."""
    return sum(word in WORDS for line in content.splitlines() if not line.startswith("-# ") for word in line.split())


# --- the processes that are measured ---------------------------------------------------------------------------------


async def _apart(measured: Any, *arguments: Any, begin: Any) -> Any:
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as process:
        ended = loop.run_in_executor(process, measured, *arguments)
        if begin:
            await begin()
        return await ended


def _answer(size: Size, config: DiscordConfig, bot_id: str, channel: str, threads: Sequence[str]) -> Told:
    return asyncio.run(_answering(size, config, bot_id, channel, threads))


async def _answering(size: Size, config: DiscordConfig, bot_id: str, channel: str, threads: Sequence[str]) -> Told:
    with tempfile.TemporaryDirectory() as directory:
        logs.to_file(Path(directory) / "onethread.log", "console")
        settings = Settings(data_dir=Path(directory), model="story/teller", messages_per_minute=1_000)
        async with (
            running(settings, model=Storyteller(size.seconds), isolated_run=None) as app,
            working(app),
            in_discord(_services(app), config),
        ):
            places = [Place(account=Account(surface="discord", id=bot_id), channel=channel, thread=thread) for thread in threads]
            async with asyncio.TaskGroup() as watching:
                told = [watching.create_task(watched(app, place)) for place in places]
                await asyncio.sleep(size.seconds / 4)  # by now all of them stream
                began, spent = time.monotonic(), time.process_time()
                await asyncio.sleep(size.seconds / 2)
                share = (time.process_time() - spent) / (time.monotonic() - began)
            await asyncio.sleep(3 * EDIT_SECONDS)  # for the last edits
        return Told(written=[each.result().written for each in told], cpu_seconds=share * size.seconds)


def _services(app: App) -> Services:
    return Services(
        storage=app.storage,
        live=app.live,
        clock=app.clock,
        posting=app.rules,
        process_id=app.process_id,
        url="http://127.0.0.1:8420",
        models=lambda: (),
    )


async def _bare(discord: DiscordEmulator, channel: str, edits: int) -> float:
    """Processor seconds for an edit."""
    discord.limits.off()
    cpu: float = await _apart(_edit, _config(discord), channel, edits, begin=None)
    return cpu


def _edit(config: DiscordConfig, channel: str, edits: int) -> float:
    return asyncio.run(_editing(config, channel, edits))


async def _editing(config: DiscordConfig, channel: str, edits: int) -> float:
    import discord as library
    import yarl

    library.http.Route.BASE = config.api_url
    library.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(config.gateway_url)
    async with library.Client(intents=library.Intents.none()) as client:
        await client.login(config.token)
        where = client.get_partial_messageable(int(channel))
        message = await where.send("Once")
        spent = time.process_time()
        for number in range(edits):
            await message.edit(content=f"{' '.join(WORDS)} " * (number % 40 + 1))
        return (time.process_time() - spent) / edits
