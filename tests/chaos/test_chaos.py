"""Workers on one database are killed, stopped, refused by their provider and left alone by their database while people write. Everything
is answered, once, in order.

`make chaos` makes it longer; ONETHREAD_CHAOS_TURNS=300 says how long, ONETHREAD_CHAOS_SEED=2 makes it different.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest

from storage.engine import is_postgres
from tests.chaos.databases import Database, PostgresDatabase, SqliteFile
from tests.chaos.disturbance import Disturbance
from tests.chaos.evidence import Evidence
from tests.chaos.fleet import Fleet
from tests.chaos.outages import Outages
from tests.chaos.people import Mirror, Office, Talk, office
from tests.chaos.talker import Talker
from tests.databases import NewDatabase, on_both
from tests.emulators.raw_provider import RawProvider

__all__ = ["on_both"]
TURNS = int(os.environ.get("ONETHREAD_CHAOS_TURNS", "120"))
SEED = int(os.environ.get("ONETHREAD_CHAOS_SEED", "1"))
WORKERS = 3
MESSAGES_IN_A_CONVERSATION = 5
CONVERSATIONS_AT_ONCE = 30
FOLLOWED = 5
"""Conversations, spread over all."""
TURNS_TO_AN_OUTAGE = 40
LETTERS = {7: "a", 13: "q"}
"""Which of twenty messages need an approval or end with a question."""
COSTS_NOTHING = ("RATE_LIMITED", "UNAVAILABLE")
SECONDS = 120 + TURNS * 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """The database that all processes share."""

    url: str
    database: Database


@pytest.fixture
async def shared(request: pytest.FixtureRequest, on_both: NewDatabase) -> AsyncIterator[Shared]:
    async with on_both() as url:
        name = url.database or ""
        own = PostgresDatabase(request.getfixturevalue("postgres"), name) if is_postgres(url) else SqliteFile(Path(name))
        yield Shared(url=url.render_as_string(), database=own)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """All who take part."""

    provider: RawProvider
    talker: Talker
    people: Office
    fleet: Fleet
    evidence: Evidence
    disturbance: Disturbance
    outages: Outages


@asynccontextmanager
async def scene(shared: Shared, tmp_path: Path, talker: Talker) -> AsyncIterator[Scene]:
    async with (
        RawProvider(script=talker) as provider,
        office(tmp_path, shared.url) as people,
        Fleet(tmp_path, provider.api_base("openai"), database_url=shared.url, suspects_lease_seconds=60) as fleet,
    ):
        evidence = Evidence(shared.database)
        disturbance = Disturbance(fleet, evidence, workers=WORKERS, seed=SEED)
        outages = Outages(shared.database, provider, talker, disturbance, seed=SEED)
        yield Scene(
            provider=provider,
            talker=talker,
            people=people,
            fleet=fleet,
            evidence=evidence,
            disturbance=disturbance,
            outages=outages,
        )


@pytest.mark.timeout(SECONDS + 60)
async def test_every_message_is_answered_once_whatever_goes_wrong(
    shared: Shared, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    keys = [f"{LETTERS.get(number % 20, 'k')}{number:04}" for number in range(TURNS)]
    doomed = keys[10::60]
    began = time.monotonic()
    async with scene(shared, tmp_path, Talker(trouble=0.08, gap_seconds=0.03, seed=SEED, doomed=doomed)) as on:
        async with asyncio.timeout(SECONDS), _alongside(on.disturbance.run()), asyncio.TaskGroup() as outages:
            outages.create_task(on.outages.run(TURNS // TURNS_TO_AN_OUTAGE, lambda: on.people.figures["answered"] / TURNS))
            mirrors = await _everybody_talks(on.people, on.talker, keys)
        seconds = round(time.monotonic() - began, 1)
        violations = [*mirrors, *_violations(on, keys, len(doomed))]
        told = {"turns": on.people.figures["answered"], "seconds": seconds, **_figures(on), "violations": len(violations)}
    record_property("figures", "\n".join(f"  {name}: {value}" for name, value in told.items()))
    assert not violations, "\n".join(violations)
    assert set(on.outages.figures) == set(on.outages.kinds)
    assert not (shared.database.gapless_feed and on.people.figures["gaps in the feed"])
    assert on.disturbance.figures["kills that hit a turn"] >= TURNS // 100
    assert on.disturbance.figures["drafts left behind"] > 0
    assert on.disturbance.figures["turns lost by zombies"] > 0
    assert on.talker.injected.total() >= TURNS // 15
    assert on.people.figures["retried after failed STREAM_CUT"] == len(doomed)
    assert on.people.chosen


def _violations(on: Scene, keys: list[str], doomed: int) -> list[str]:
    return [
        *on.fleet.complaints(),
        *on.talker.complaints,
        *on.people.complaints,
        *on.evidence.violations([*keys, *on.people.chosen], on.people.decisions),
        *_wrongly_charged(on.fleet, on.talker, on.evidence.keys()),
        *_given_up(on.people, doomed=doomed),
    ]


def _figures(on: Scene) -> dict[str, object]:
    return {
        "the slowest turn's seconds": round(on.evidence.slowest(), 1),
        "requests": len(on.provider.requests),
        **on.disturbance.figures,
        "turns rescued": sum(entry["number"] for entry in on.fleet.told("turns.rescued")),
        "processes for suspects": len(on.fleet.for_suspects),
        "outages": dict(on.outages.figures),
        "their seconds": {kind: round(seconds, 1) for kind, seconds in on.outages.seconds.items()},
        "injected": dict(on.talker.injected),
        "people": dict(on.people.figures),
        "decisions": dict(Counter(decision.value for decision in on.people.decisions.values())),
    }


def _wrongly_charged(fleet: Fleet, talker: Talker, keys: dict[UUID, str]) -> Iterator[str]:
    """Only what the provider did to a message itself costs it attempts: no outage does."""
    charged: Counter[str] = Counter()
    for entry in fleet.told("turn.failed_attempt"):
        charged[keys[UUID(entry["turn_id"])]] += entry["reason"] not in COSTS_NOTHING
    for key, number in charged.items():
        if number > talker.charged[key]:
            yield f"{key} was charged {number} attempts, but only {talker.charged[key]} went wrong"


def _given_up(people: Office, *, doomed: int) -> Iterator[str]:
    """Only those whose every attempt fails are given up."""
    failed = {what: number for what, number in people.figures.items() if what.startswith("retried after failed")}
    if failed.keys() > {"retried after failed STREAM_CUT"} or sum(failed.values()) > doomed:
        yield f"{doomed} messages were to be given up, but people {failed}"


async def _everybody_talks(people: Office, talker: Talker, keys: list[str]) -> list[str]:
    """Posts all keys, waits for their answers; what the followers saw wrong."""
    talks = []
    for number, start in enumerate(range(0, len(keys), MESSAGES_IN_A_CONVERSATION)):
        conversation_id = await people.conversation(number)
        part = keys[start : start + MESSAGES_IN_A_CONVERSATION]
        talks.append(Talk(conversation_id=conversation_id, keys=part, cancelling=0.08, seed=SEED + number))
    mirrors = {talk.conversation_id: Mirror() for talk in talks[:: max(1, len(talks) // FOLLOWED)]}
    places = asyncio.Semaphore(CONVERSATIONS_AT_ONCE)

    async def hold(talk: Talk) -> None:
        async with places:
            await talk.hold(people, talker)

    async with asyncio.TaskGroup() as followers:
        following = [followers.create_task(mirror.follow(people, conversation_id)) for conversation_id, mirror in mirrors.items()]
        async with asyncio.TaskGroup() as talking:
            for talk in talks:
                talking.create_task(hold(talk))
        await asyncio.sleep(1)  # the last frames
        for task in following:
            task.cancel()
    wrong = []
    for conversation_id, mirror in mirrors.items():
        wrong += mirror.differences(await people.messages(conversation_id))
        assert mirror.deltas
    return wrong


@asynccontextmanager
async def _alongside(coroutine: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """It goes on until the block ends; what breaks it ends the block."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(coroutine, name="alongside")
        yield
        task.cancel()
