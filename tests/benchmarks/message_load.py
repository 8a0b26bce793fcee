"""A thousand messages a minute.

For three minutes a hundred people write into a hundred conversations over HTTP, each into their own, a message every 60 ms in all,
whether or not the ones before are stored. They are a process of their own; the server's has a worker too, with a model that needs no
time and answers by repeating what was said. The figure is how long a post takes, from the moment when it is due to the moment when
the answer that it is stored has come, at the 95th percentile. The reference is a bare commit on the same database, measured before
and after. Afterwards every conversation is read: each question must be there once, in the order of posting, with its own answer.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any
from uuid import UUID

import httpx

from core import identity
from core.models import MessageStatus
from onethread.bootstrap import App, working
from tests.benchmarks.databases import on_each
from tests.benchmarks.figures import Comparison, Figure, Reference, Result, Target, percentile95
from tests.benchmarks.serving import clients, plan, say, served, token_of
from tests.benchmarks.subject import InstantModel, bare_commits_per_second, ended, new_conversations, onethread

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
            async with working(app), served(app) as address:
                seconds, failed = await _load(app, address, places, size.messages)
            commit = mean(1000 / rate for rate in (before, await bare_commits_per_second(app, COMMITS)))
            wrong = sum([await _wrong(app, number, place, size.messages) for number, place in enumerate(places)])
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    conversation_id: UUID
    token: str


async def _place(app: App, number: int) -> _Place:
    async with app.storage.write() as uow:
        person = await identity.add_user(uow, f"person-{number}")
    (conversation_id,) = await new_conversations(app, identity.principal_of(person), 1)
    return _Place(conversation_id=conversation_id, token=await token_of(app, person))


async def _load(app: App, address: str, places: Sequence[_Place], messages: int) -> tuple[list[float], int]:
    """Seconds that each post took, and how many failed. Returns when all are answered."""
    people = [{"conversation_id": str(place.conversation_id), "token": place.token} for place in places]
    with app.live.subscribe(size=1_000_000) as events:
        async with clients("tests.benchmarks.message_load", {"address": address, "people": people, "messages": messages}) as writing:
            took: list[float] = await writing.said()
        async with asyncio.timeout(300):
            await ended(events, len(took))
    return took, messages - len(took)


def _text(number: int) -> str:
    return f"Message {number}"


async def _wrong(app: App, number: int, place: _Place, messages: int) -> int:
    """How many messages of a conversation are not what and where they should be."""
    expected = [(seq, _text(each)) for seq, each in enumerate(sorted([*range(number, messages, PEOPLE)] * 2), start=1)]
    async with app.storage.read() as uow:
        stored = await uow.messages.since(place.conversation_id, 1)
    found = [(message.seq, message.content) for message in stored if message.status is MessageStatus.COMPLETED]
    return len(set(expected) ^ set(found))


# --- the people, in a process of their own ---------------------------------------------------------------------------


async def _write_all(plan: dict[str, Any]) -> list[float]:
    """Seconds that each post took that was accepted."""
    loop = asyncio.get_running_loop()
    limits = httpx.Limits(max_connections=len(plan["people"]))
    async with httpx.AsyncClient(base_url=f"http://{plan['address']}", limits=limits, timeout=60) as client:
        began = loop.time() + 1

        async def one(number: int) -> float:
            person = plan["people"][number % len(plan["people"])]
            headers = {"Authorization": f"Bearer {person['token']}", "Prefer": "respond-async", "Idempotency-Key": str(number)}
            due = began + number * 60 / MESSAGES_PER_MINUTE
            await asyncio.sleep(due - loop.time())
            message = {"message": _text(number), "conversation_id": person["conversation_id"]}
            (await client.post("/api/chat", json=message, headers=headers)).raise_for_status()
            return loop.time() - due

        outcomes = await asyncio.gather(*(one(number) for number in range(plan["messages"])), return_exceptions=True)
    return [each for each in outcomes if isinstance(each, float)]


if __name__ == "__main__":
    say(asyncio.run(_write_all(plan())))
