"""Workers on one database are killed, stopped and refused by their provider while people write. Everything is answered, once, in order.

ONETHREAD_CHAOS_TURNS=1000 makes it longer; ONETHREAD_CHAOS_SEED makes it different.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.chaos.disturbance import Disturbance
from tests.chaos.evidence import Evidence
from tests.chaos.fleet import Fleet
from tests.chaos.people import Mirror, Office, Talk, office
from tests.chaos.talker import Talker
from tests.emulators.raw_provider import RawProvider

TURNS = int(os.environ.get("ONETHREAD_CHAOS_TURNS", "150"))
SEED = int(os.environ.get("ONETHREAD_CHAOS_SEED", "1"))
WORKERS = 3
MESSAGES_IN_A_CONVERSATION = 5
FOLLOWED = 5
SECONDS = 120 + TURNS * 0.5


@pytest.mark.timeout(SECONDS + 60)
async def test_every_message_is_answered_once_whatever_is_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = [f"k{number:04}" for number in range(TURNS)]
    talker = Talker(trouble=0.08, gap_seconds=0.03, seed=SEED, doomed=keys[10::60])
    began = time.monotonic()
    async with (
        RawProvider(script=talker) as provider,
        office(tmp_path) as people,
        Fleet(tmp_path, provider.api_base("openai")) as fleet,
    ):
        evidence = Evidence(tmp_path / "onethread.db")
        disturbance = Disturbance(fleet, evidence, workers=WORKERS, seed=SEED)
        async with asyncio.timeout(SECONDS), _alongside(disturbance.run()):
            mirrors = await _everybody_talks(people, talker, keys)
        requests = len(provider.requests)
        faults = [*fleet.complaints(), *talker.complaints, *mirrors, *evidence.violations(keys)]
    figures = disturbance.figures
    summary = {"turns": TURNS, "seconds": round(time.monotonic() - began, 1), "requests": requests, **figures, **people.figures}
    with capsys.disabled():
        print(f"\nchaos: {summary}; isolated runs: {len(fleet.for_suspects)}; injected: {dict(talker.injected)}")  # noqa: T201
    assert not faults, "\n".join(faults)
    assert figures["kills that hit a turn"] >= TURNS // 50
    assert figures["drafts left behind"] > 0
    assert figures["turns lost by zombies"] > 0
    assert talker.injected.total() >= TURNS // 15
    assert people.figures["retried after failed"] >= len(keys[10::60])


async def _everybody_talks(people: Office, talker: Talker, keys: list[str]) -> list[str]:
    """Posts all keys, waits for their answers; what the followers saw wrong."""
    talks = []
    for number, start in enumerate(range(0, len(keys), MESSAGES_IN_A_CONVERSATION)):
        conversation_id = await people.conversation(number)
        part = keys[start : start + MESSAGES_IN_A_CONVERSATION]
        talks.append(Talk(conversation_id=conversation_id, keys=part, cancelling=0.08, seed=SEED + number))
    mirrors = {talk.conversation_id: Mirror() for talk in talks[:FOLLOWED]}
    async with asyncio.TaskGroup() as followers:
        following = [followers.create_task(mirror.follow(people, conversation_id)) for conversation_id, mirror in mirrors.items()]
        async with asyncio.TaskGroup() as talking:
            for talk in talks:
                talking.create_task(talk.hold(people, talker))
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
    task = asyncio.create_task(coroutine, name="disturbance")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled():
        task.result()
