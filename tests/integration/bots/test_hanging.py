"""One chat platform hangs for a minute and then fails for good: nobody elsewhere waits for it, and everybody sees that it ended."""

import asyncio
from dataclasses import replace
from statistics import median
from uuid import UUID

from bots.surface import Limits, PlaceClosed
from core.models import Account, ChannelKind, Place
from tests.fake_surface import FakeSurface, RemoteMessage
from tests.fakes import Gate
from tests.integration.bots.conftest import PLACE, Play, Stage

OTHER = Account(surface="fake", id="T2")
SICK = Place(account=OTHER, channel="C2", thread="2.0")
NEIGHBOUR = replace(SICK, channel="C3", thread="3.0")
_WORDS = 20


class Beat(Gate):
    """A pause of the model; notes when it began, which is when everything before it was said."""

    def __init__(self, said_at: list[float]) -> None:
        super().__init__()
        self._said_at = said_at

    async def passing(self) -> None:
        self._said_at.append(_now())
        await asyncio.sleep(1.5)


async def _lags(stage: Stage, conversation_id: UUID, places: list[Place], name: str) -> dict[Place, list[float]]:
    """Seconds from a message to when it is read at each place, and from each word of its reply."""
    said_at: list[float] = []
    words = [f"{name}-{number} " for number in range(_WORDS)]
    stage.world.model.will(*[item for word in words for item in (word, Beat(said_at))])
    asked_at = _now()
    await stage.world.post(conversation_id, "Go on")
    await stage.platform.until(lambda: all(_shown(stage, each, words[-1])[1:] for each in places), seconds=100)
    found = {}
    for place in places:
        question, reply = _shown(stage, place, words[-1])
        shown = list(zip(reply.at, reply.parts, strict=True))
        read_at = [next(at for at, part in shown if word in f"{part.text} ") for word in words]
        found[place] = [question.at[0] - asked_at, *(read - said for read, said in zip(read_at, said_at, strict=True))]
    return found


def _shown(stage: Stage, place: Place, end: str) -> list[RemoteMessage]:
    """The question and the reply that ended so."""
    there = [each for each in stage.platform.shown(place.channel) if each.text]
    ends = [number for number, each in enumerate(there) if each.text.strip().endswith(end.strip()) and not each.part.live]
    return there[ends[0] - 1 : ends[0] + 1] if ends else []


def test_while_one_platform_hangs_and_when_it_fails_nobody_elsewhere_waits_and_its_end_is_seen(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        sick = FakeSurface(stage.platform, account=OTHER, call_seconds=10.0, makes_threads=True)
        for surface in (stage.surface, sick):
            surface.limits_of = Limits(length=1000, edit_seconds=1.0)
        task = await stage.world.task("Everywhere")
        home = await stage.bound(task.conversation_id, kind=ChannelKind.OPEN)
        followed = [await stage.followed(task.conversation_id, place) for place in (SICK, NEIGHBOUR)]
        async with stage.answering(), stage.delivering(), stage.delivering(sick):
            before = await _lags(stage, task.conversation_id, [PLACE, SICK, NEIGHBOUR], "before")
            sick.hanging["C2"] = asyncio.Event()
            began_at = _now()
            during = await _lags(stage, task.conversation_id, [PLACE, NEIGHBOUR], "during")
            longer = await _lags(stage, task.conversation_id, [PLACE, NEIGHBOUR], "longer")
            assert _now() - began_at >= 60
            sick.closed["C2"] = PlaceClosed("The channel was deleted.", reason="channel_not_found")
            sick.hanging.pop("C2").set()
            after = await _lags(stage, task.conversation_id, [PLACE, NEIGHBOUR], "after")
            for binding in (home, followed[1]):
                await stage.settled(binding)
        for place in (PLACE, NEIGHBOUR):
            for lags in (during[place], longer[place], after[place]):
                assert median(lags) <= 1.05 * median(before[place])
                assert max(lags) <= max(before[place]) + 0.5
        assert max(before[PLACE]) < 1.6
        ended = "→ This is not shown in a channel on Fake any more. Onethread is not in that channel."
        for place in (PLACE, NEIGHBOUR):
            notes = [each.part.notes[0] for each in stage.platform.shown(place.channel) if not each.text]
            assert [note.startswith(ended) for note in notes[-1:]] == [True]
        assert (await stage.binding(followed[0])).ended == "channel_not_found"

    play(scenario)


def _now() -> float:
    return asyncio.get_running_loop().time()
