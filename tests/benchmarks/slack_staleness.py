"""Ten threads that stream at once into one Slack workspace.

Slack takes 50 edits a minute for a whole workspace. The emulator counts them and turns away what is too much; Slack's minute lasts a
few seconds, and our pacing is quicker by as much. Staleness is the age of the oldest text that exists and is not shown, averaged over
time and over all threads, told in Slack's seconds. The reference is the best schedule that the same trace allows under the same
budget, with no time lost on the way: an edit every 1.2 seconds, always for whoever's text has waited longest. Edits that Slack refused
are counted, too: with pacing there must be none.
"""

import asyncio
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bots.pacing import Budget
from bots.services import Services
from bots.slack.config import SlackConfig, SlackRules
from bots.slack.serving import running as in_slack
from core.models import Account, Place
from onethread import logs
from onethread.bootstrap import App, running, working
from onethread.settings import Settings
from tests.benchmarks.figures import Comparison, Figure, Reference, Result, Target
from tests.benchmarks.staleness import Storyteller, Stream, greedy, staleness, watched
from tests.emulators.slack import JSON, SlackEmulator, slack_running
from tests.integration.slack.conftest import served, until_ready

MINUTE = 60.0
EDITS = 50
"""That Slack takes in a minute."""
THREADS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    minutes: float
    """Of Slack's time that each reply takes."""
    quicker: float
    """How much quicker Slack's time passes."""


FULL = Size(minutes=5, quicker=6)
QUICK = Size(minutes=1, quicker=12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    streams: Sequence[Stream]
    refused: int
    """Edits that Slack turned away."""
    whole: int
    """Replies whose last edit shows all of their text."""


async def measure(size: Size) -> Sequence[Result]:
    with slack_running() as root, tempfile.TemporaryDirectory() as directory:
        logs.to_file(Path(directory) / "onethread.log", "console")
        outcome = await stream(SlackEmulator(root), size, paced(size.quicker))
    assert outcome.whole == THREADS
    ours = staleness(outcome.streams) * size.quicker
    best = staleness([replace(each, shown=shown) for each, shown in greedy(outcome.streams, MINUTE / EDITS / size.quicker)]) * size.quicker
    return [
        Figure(
            name=f"staleness of {THREADS} streams in Slack",
            value=ours,
            unit="s",
            reference=Reference(name="greedy schedule of the same trace", value=best),
            target=Target(comparison=Comparison.RATIO_AT_MOST, bound=1.15),
        ),
        Figure(
            name="edits that Slack refused",
            value=outcome.refused,
            unit="edits",
            reference=Reference(name="made", value=sum(len(each.shown) for each in outcome.streams)),
            target=Target(comparison=Comparison.VALUE_AT_MOST, bound=0),
        ),
    ]


def paced(quicker: float) -> SlackRules:
    """Our rules for a Slack whose time passes so much quicker."""
    usual = SlackRules()
    return replace(
        usual,
        edit_seconds=usual.edit_seconds / quicker,
        edits=replace(usual.edits, seconds=usual.edits.seconds / quicker),
        posts=replace(usual.posts, seconds=usual.posts.seconds / quicker),
    )


def unpaced(quicker: float) -> SlackRules:
    """As if Slack had no limits."""
    endless = Budget(calls=1_000_000, seconds=1, burst=1_000)
    return replace(paced(quicker), edit_seconds=0.02, edits=endless, posts=endless)


async def stream(slack: SlackEmulator, size: Size, rules: SlackRules) -> Outcome:
    """Lets every thread's reply stream at once, and gives what became of them."""
    await slack.budgets({"chat.update": (EDITS, MINUTE / size.quicker)})
    alice, channel = await slack.person("alice"), await slack.channel()
    place = Place(account=Account(surface="slack", id=slack.team_id), channel=channel)
    async with _answering(slack, size, rules) as app:
        roots = [await alice.mention(channel, f"Tell me story {number}.") for number in range(THREADS)]
        async with asyncio.TaskGroup() as watching:
            told = [watching.create_task(watched(app, replace(place, thread=root))) for root in roots]
        streams = [each.result() for each in told]
        whole = 0
        for root, each in zip(roots, streams, strict=True):
            longest = each.written[-1][1]
            thread = await alice.sees(channel, root, partial(_shows, longest), seconds=30)
            each.shown = [(edit["at"], _length(edit)) for edit in await slack.edits(channel, thread[-1]["ts"]) if _length(edit)]
            whole += each.shown[-1][1] == longest
    return Outcome(streams=streams, refused=await slack.refused(), whole=whole)


# --- the subject -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _answering(slack: SlackEmulator, size: Size, rules: SlackRules) -> AsyncIterator[App]:
    config = SlackConfig(bot_token=slack.bot_token, signing_secret=slack.signing_secret, api_url=slack.url, rules=rules)
    model = Storyteller(size.minutes * MINUTE / size.quicker)
    with tempfile.TemporaryDirectory() as directory:
        settings = Settings(data_dir=Path(directory), model="story/teller", messages_per_minute=1_000)
        async with running(settings, model=model, isolated_run=None) as app, working(app):
            services = Services(
                storage=app.storage,
                live=app.live,
                clock=app.clock,
                posting=app.rules,
                process_id=app.process_id,
                url="http://127.0.0.1:8420",
                models=lambda: (),
            )
            async with in_slack(services, config) as endpoint, served(endpoint) as url:
                assert endpoint
                await until_ready(endpoint)
                await slack.connect(f"{url}/slack/events")
                yield app


def _shows(length: int, thread: Sequence[JSON]) -> bool:
    return _length(thread[-1]) >= length


def _length(message: JSON) -> int:
    """Of the story's text in it."""
    markdown = deque((block["text"] for block in message.get("blocks") or [] if block["type"] == "markdown"), maxlen=1)
    return len(markdown[0].rstrip()) if markdown else 0
