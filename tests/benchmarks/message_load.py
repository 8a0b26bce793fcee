"""A thousand messages a minute.

For three minutes a hundred people write into a hundred conversations, each into their own, a message every 60 ms in all, whether
or not the ones before are stored; a worker with a model that needs no time answers by repeating what was said. The figure is how
long a post takes, from the moment when it is due to the moment when it is stored, at the 95th percentile. The reference is a bare
commit on the same database, measured before and after. Afterwards every conversation is read: each question must be there once,
in the order of posting, with its own answer.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from uuid import UUID

from core import identity
from core.access import Principal
from core.models import MessageStatus
from onethread.bootstrap import App, working
from tests.benchmarks.databases import on_each
from tests.benchmarks.figures import Comparison, Figure, Reference, Result, Target, percentile95
from tests.benchmarks.subject import InstantModel, bare_commits_per_second, ended, new_conversations, onethread, post

PEOPLE = 100
MESSAGES_PER_MINUTE = 1_000
COMMITS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    seconds: int

    @property
    def messages(self) -> int:
        return self.seconds * MESSAGES_PER_MINUTE // 60


FULL = Size(seconds=180)
QUICK = Size(seconds=20)


async def measure(size: Size) -> Sequence[Result]:
    async def on_database(database: str, url: str) -> Sequence[Result]:
        async with onethread(url, model=InstantModel()) as app:
            before = await bare_commits_per_second(app, COMMITS)
            places = [await _place(app, number) for number in range(PEOPLE)]
            async with working(app):
                seconds, failed = await _load(app, places, size.messages)
            commit = mean(1000 / rate for rate in (before, await bare_commits_per_second(app, COMMITS)))
            wrong = sum([await _wrong(app, *place, size.messages) for place in enumerate(places)])
        return _figures(database, size, seconds, commit, failed + wrong)

    return await on_each("a thousand messages a minute", on_database)


def _figures(database: str, size: Size, seconds: list[float], commit: float, wrong: int) -> list[Result]:
    at_most = Comparison.VALUE_AT_MOST
    return [
        Figure(
            name=f"a post, 95th percentile, {database}",
            value=percentile95(seconds) * 1000,
            unit="ms",
            reference=Reference(name="a bare commit", value=commit),
            target=Target(comparison=at_most, bound=100),
        ),
        Figure(
            name=f"failed, lost, doubled or out of order, {database}",
            value=wrong,
            unit="messages",
            reference=Reference(name="posted", value=size.messages),
            target=Target(comparison=at_most, bound=0),
        ),
    ]


Place = tuple[Principal, UUID]


async def _place(app: App, number: int) -> Place:
    async with app.storage.write() as uow:
        person = identity.principal_of(await identity.add_user(uow, f"person-{number}"))
    (conversation_id,) = await new_conversations(app, person, 1)
    return person, conversation_id


async def _load(app: App, places: list[Place], messages: int) -> tuple[list[float], int]:
    """Seconds that each post took, and how many failed. Returns when all are answered."""
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def one(number: int) -> float:
        due = began + number * 60 / MESSAGES_PER_MINUTE
        await asyncio.sleep(due - loop.time())
        await post(app, *places[number % len(places)], _text(number))
        return loop.time() - due

    with app.live.subscribe(size=1_000_000) as events:
        outcomes = await asyncio.gather(*(one(number) for number in range(messages)), return_exceptions=True)
        took = [each for each in outcomes if isinstance(each, float)]
        async with asyncio.timeout(300):
            await ended(events, len(took))
    return took, messages - len(took)


def _text(number: int) -> str:
    return f"Message {number}"


async def _wrong(app: App, number: int, place: Place, messages: int) -> int:
    """How many messages of a conversation are not what and where they should be."""
    expected = [(seq, _text(each)) for seq, each in enumerate(sorted([*range(number, messages, PEOPLE)] * 2), start=1)]
    async with app.storage.read() as uow:
        stored = await uow.messages.since(place[1], 1)
    found = [(message.seq, message.content) for message in stored if message.status is MessageStatus.COMPLETED]
    return len(set(expected) ^ set(found))
