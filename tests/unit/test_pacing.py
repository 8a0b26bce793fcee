"""Pacing in virtual time: what is granted when, and to whom."""

import asyncio
import random
from bisect import bisect_right
from collections.abc import Callable, Coroutine, Iterable
from itertools import pairwise
from typing import Any

import pytest

from bots import pacing
from bots.pacing import RECOVERY_SECONDS, Budget, Pacer, Rank, Urgency
from tests import virtual_time

EDITS = Budget(calls=47, seconds=60, burst=2)
SLOW = Budget(calls=1, seconds=1, burst=1)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _in_virtual_time(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    virtual_time.run(scenario())


class Callers:
    """Whoever waits for a call of one budget, and the order in which they got it."""

    def __init__(self, budget: Budget) -> None:
        self.pacer = Pacer()
        self.budget = budget
        self.granted: list[tuple[str, float]] = []
        self.ranks: dict[str, Rank] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def order(self) -> list[str]:
        return [name for name, _ in self.granted]

    @property
    def times(self) -> list[float]:
        return [at for _, at in self.granted]

    def wait(self, name: str, rank: Rank, since: float = 0.0, *, budgets: Iterable[str] = ("edit",)) -> None:
        self.ranks[name] = rank
        self.tasks[name] = asyncio.create_task(self._wait(name, since, budgets))

    async def _wait(self, name: str, since: float, budgets: Iterable[str]) -> None:
        await self.pacer.grant(dict.fromkeys(budgets, self.budget), lambda: Urgency(self.ranks[name], since))
        self.granted.append((name, _now()))

    async def all(self) -> None:
        await asyncio.gather(*self.tasks.values())


def test_a_bucket_is_empty_at_first_and_never_gives_more_than_its_rate_and_burst() -> None:
    async def scenario() -> None:
        callers = Callers(EDITS)
        for number in range(200):
            callers.wait(str(number), random.choice(list(Rank)), number)
        await callers.all()
        assert callers.times[0] >= 60 / 47
        for at in callers.times:
            assert sum(at <= other < at + 60 for other in callers.times) <= 49
        assert callers.times[-1] == pytest.approx(200 * 60 / 47, rel=0.02)

    _in_virtual_time(scenario)


def test_calls_that_were_not_made_for_a_while_may_follow_at_once_up_to_the_burst() -> None:
    async def scenario() -> None:
        callers = Callers(Budget(calls=1, seconds=1, burst=3))
        callers.wait("first", Rank.FINAL)
        await callers.all()
        await asyncio.sleep(100)
        for number in range(4):
            callers.wait(str(number), Rank.FINAL)
        await callers.all()
        assert callers.times[1:] == pytest.approx([101, 101, 101, 102])

    _in_virtual_time(scenario)


def test_the_most_urgent_goes_first_and_among_equals_the_one_that_waits_longest() -> None:
    async def scenario() -> None:
        callers = Callers(SLOW)
        callers.wait("live", Rank.LIVE, since=0.0)
        callers.wait("older live", Rank.LIVE, since=-1.0)
        callers.wait("first", Rank.FIRST)
        callers.wait("control", Rank.CONTROL)
        callers.wait("final", Rank.FINAL)
        await callers.all()
        assert callers.order == ["final", "control", "first", "older live", "live"]

    _in_virtual_time(scenario)


def test_a_waiting_edit_that_becomes_final_moves_up() -> None:
    async def scenario() -> None:
        callers = Callers(SLOW)
        for number in range(5):
            callers.wait(str(number), Rank.LIVE, since=float(number))
        await asyncio.sleep(1.5)
        callers.ranks["4"] = Rank.FINAL
        await callers.all()
        assert callers.order == ["0", "4", "1", "2", "3"]

    _in_virtual_time(scenario)


def test_a_final_call_finds_room_at_once_although_others_compete() -> None:
    async def scenario() -> None:
        callers = Callers(EDITS)
        for number in range(30):
            callers.wait(str(number), Rank.LIVE, since=float(number))
        await asyncio.sleep(20)
        at = _now()
        callers.wait("final", Rank.FINAL)
        await callers.tasks["final"]
        assert _now() == at
        await callers.all()

    _in_virtual_time(scenario)


def test_what_waits_without_competitors_uses_the_whole_burst() -> None:
    async def scenario() -> None:
        callers = Callers(EDITS)
        callers.wait("alone", Rank.LIVE)
        await callers.all()
        assert callers.times == pytest.approx([60 / 47])

    _in_virtual_time(scenario)


def test_a_cancelled_waiter_takes_no_room_with_it() -> None:
    async def scenario() -> None:
        callers = Callers(SLOW)
        callers.wait("cancelled", Rank.FINAL)
        callers.wait("patient", Rank.LIVE)
        await asyncio.sleep(0.5)
        callers.tasks["cancelled"].cancel()
        await callers.tasks["patient"]
        assert callers.order == ["patient"]
        assert callers.times == pytest.approx([1.0])

    _in_virtual_time(scenario)


def test_a_grant_that_meets_a_cancellation_is_given_back() -> None:
    async def scenario() -> None:
        callers = Callers(SLOW)
        callers.wait("cancelled", Rank.FINAL)
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_at(1.0, callers.tasks["cancelled"].cancel)
        await asyncio.sleep(1.0)
        callers.wait("patient", Rank.LIVE)
        await callers.tasks["patient"]
        assert callers.times[-1] == pytest.approx(1.0, abs=0.01)

    _in_virtual_time(scenario)


def test_a_decision_in_the_instant_of_a_cancellation_passes_it_over() -> None:
    async def scenario() -> None:
        callers = Callers(SLOW)
        callers.wait("cancelled", Rank.FINAL)
        callers.wait("patient", Rank.LIVE)
        await asyncio.sleep(0.999)
        callers.tasks["cancelled"].cancel()
        await asyncio.sleep(0)
        callers.pacer.reconsider(["edit"])
        await callers.tasks["patient"]

    _in_virtual_time(scenario)


def test_a_grant_of_which_no_use_is_made_goes_to_the_next() -> None:
    async def scenario() -> None:
        callers = Callers(SLOW)
        callers.wait("changes its mind", Rank.FINAL)
        await callers.all()
        callers.wait("next", Rank.LIVE)
        await asyncio.sleep(0)
        callers.pacer.give_back(["edit"])
        await callers.all()
        assert callers.times == [1.0, 1.0]

    _in_virtual_time(scenario)


def test_buckets_that_nobody_used_for_a_while_are_forgotten_and_nobody_gains_by_that() -> None:
    async def scenario() -> None:
        callers = Callers(Budget(calls=1, seconds=1, burst=3))
        for number in range(1_000):
            callers.wait(str(number), Rank.LIVE, budgets=(f"channel {number}",))
            if number % 100 == 99:
                await callers.all()
                await asyncio.sleep(5)
        assert callers.pacer.buckets < 300
        callers.pacer.busy({"channel 999": callers.budget}, 60.0)
        begin = _now()
        for number in range(4):
            callers.wait(f"again {number}", Rank.LIVE, budgets=("channel 0",))
        await callers.all()
        assert [at - begin for at in callers.times[-4:]] == pytest.approx([0, 0, 0, 1])

    _in_virtual_time(scenario)


def test_a_refusal_counts_also_where_the_bucket_was_forgotten_meanwhile() -> None:
    async def scenario() -> None:
        callers = Callers(SLOW)
        callers.pacer.busy({"edit": SLOW}, 60.0)
        callers.wait("refused", Rank.FINAL)
        await callers.all()
        assert callers.times[-1] >= 60

    _in_virtual_time(scenario)


def test_a_slowed_bucket_is_remembered_until_it_has_recovered() -> None:
    async def scenario() -> None:
        callers = Callers(SLOW)
        callers.wait("refused", Rank.LIVE)
        await callers.all()
        callers.pacer.busy({"edit": callers.budget}, 0.0)
        await asyncio.sleep(5)
        for number in range(500):
            callers.wait(str(number), Rank.LIVE, budgets=(f"channel {number}",))
        await callers.all()
        begin = _now()
        for number in range(3):
            callers.wait(f"again {number}", Rank.LIVE)
        await callers.all()
        assert _now() - begin > 2.5

    _in_virtual_time(scenario)


def test_who_waits_elsewhere_costs_nothing() -> None:
    async def scenario() -> None:
        pacer, asked = Pacer(), 0

        def urgency() -> Urgency:
            nonlocal asked
            asked += 1
            return Urgency(Rank.LIVE, 0.0)

        waiting = [asyncio.create_task(pacer.grant({f"channel {number}": SLOW}, urgency)) for number in range(2_000)]
        await asyncio.gather(*waiting)
        assert asked == 2_000

    _in_virtual_time(scenario)


def test_who_waits_for_the_same_is_asked_only_when_there_is_room() -> None:
    async def scenario() -> None:
        pacer, asked = Pacer(), 0

        def urgency() -> Urgency:
            nonlocal asked
            asked += 1
            return Urgency(Rank.LIVE, 0.0)

        waiting = [asyncio.create_task(pacer.grant({"edit": EDITS}, urgency)) for _ in range(1_000)]
        await asyncio.sleep(1)
        assert asked == 0
        await asyncio.sleep(10)
        granted = sum(task.done() for task in waiting)
        assert 0 < granted < 10
        assert asked <= 2 * (granted + 1) * 1_000
        for task in waiting:
            task.cancel()

    _in_virtual_time(scenario)


def test_control_does_not_starve_live_text() -> None:
    async def scenario() -> None:
        callers = Callers(SLOW)
        callers.wait("live", Rank.LIVE, since=0.0)
        for second in range(200):
            callers.wait(f"a {second}", Rank.CONTROL, since=float(second))
            callers.wait(f"b {second}", Rank.CONTROL, since=float(second))
            await asyncio.sleep(1)
            if "live" in callers.order:
                break
        assert "live" in callers.order
        assert _now() <= 130
        for task in callers.tasks.values():
            task.cancel()

    _in_virtual_time(scenario)


def test_after_a_refusal_nothing_is_sent_for_as_long_as_was_asked_and_then_at_half_the_rate() -> None:
    async def scenario() -> None:
        callers = Callers(SLOW)
        callers.wait("refused", Rank.LIVE)
        await callers.all()
        callers.pacer.busy({"edit": callers.budget}, 30.0)
        for number in range(3):
            callers.wait(str(number), Rank.FINAL, float(number))
        await callers.all()
        first, second, third = callers.times[1:]
        assert first >= 1 + 30 + 1.9
        assert second - first == pytest.approx(2.0, abs=0.1)
        assert third - second == pytest.approx(1.9, abs=0.1)

    _in_virtual_time(scenario)


def test_after_a_refusal_what_had_been_saved_up_is_gone() -> None:
    async def scenario() -> None:
        callers = Callers(Budget(calls=1, seconds=1, burst=3))
        callers.wait("refused", Rank.FINAL)
        await callers.all()
        await asyncio.sleep(9)
        callers.pacer.busy({"edit": callers.budget}, 1.0)
        callers.wait("again", Rank.FINAL)
        await callers.all()
        assert callers.times[-1] == pytest.approx(10 + 1 + 2, abs=0.1)

    _in_virtual_time(scenario)


def test_the_full_rate_comes_back_slowly() -> None:
    async def scenario() -> None:
        callers = Callers(SLOW)
        callers.wait("refused", Rank.LIVE)
        await callers.all()
        callers.pacer.busy({"edit": callers.budget}, 0.0)
        for number in range(400):
            callers.wait(str(number), Rank.LIVE, float(number))
        await callers.all()
        gaps = [later - earlier for earlier, later in pairwise(callers.times)]
        assert gaps[0] == pytest.approx(2.0, abs=0.1)
        assert gaps == sorted(gaps, reverse=True) or max(later - earlier for earlier, later in pairwise(gaps)) < 1e-6
        assert gaps[-1] == pytest.approx(1.0)
        assert next(at for at, gap in zip(callers.times[1:], gaps, strict=True) if gap < 1.01) < 2 * RECOVERY_SECONDS

    _in_virtual_time(scenario)


def test_refusals_at_the_same_time_slow_a_bucket_once_and_never_to_a_standstill() -> None:
    async def scenario() -> None:
        callers = Callers(SLOW)
        callers.wait("refused", Rank.LIVE)
        await callers.all()
        for _ in range(10):
            callers.pacer.busy({"edit": callers.budget}, 1.0)
        callers.wait("again", Rank.LIVE)
        await callers.tasks["again"]
        assert callers.times[-1] == pytest.approx(1 + 1 + 2.0, abs=0.1)
        for _ in range(10):
            callers.pacer.busy({"edit": callers.budget}, 0.0)
            await asyncio.sleep(0.001)
        begin = _now()
        callers.wait("at last", Rank.LIVE)
        await callers.tasks["at last"]
        assert _now() - begin <= 8.1

    _in_virtual_time(scenario)


def test_a_call_that_counts_in_two_budgets_waits_for_both_and_holds_up_nobody() -> None:
    async def scenario() -> None:
        callers = Callers(SLOW)
        callers.wait("channel", Rank.FINAL, budgets=("channel a",))
        await callers.all()
        callers.pacer.busy({"channel a": callers.budget}, 60.0)
        callers.wait("both", Rank.FINAL, budgets=("all", "channel a"))
        callers.wait("other", Rank.LIVE, budgets=("all", "channel b"))
        await callers.tasks["other"]
        assert _now() < 3
        await callers.tasks["both"]
        assert _now() > 60

    _in_virtual_time(scenario)


class Stream:
    """A reply that grows in bursts; knows since when text is not shown, and how old that was on average."""

    def __init__(self, seed: int, seconds: float) -> None:
        chance = random.Random(seed)
        self.arrivals: list[float] = []
        at = chance.uniform(0, 5)
        while at < seconds:
            self.arrivals.append(at)
            at += chance.choice([0.05, 0.05, 0.05, 0.05, 1.0]) if chance.random() > 0.01 else chance.uniform(5, 20)
        self.edits: list[float] = []

    def oldest_unshown(self, now: float) -> float | None:
        """When the oldest text came that no edit has shown."""
        shown_to = self.edits[-1] if self.edits else -1.0
        place = bisect_right(self.arrivals, shown_to)
        return self.arrivals[place] if place < len(self.arrivals) and self.arrivals[place] <= now else None

    def staleness(self, seconds: float) -> float:
        """The mean over time of the age of the oldest text that is not shown."""
        area = 0.0
        for begin, end in pairwise([-1.0, *self.edits, seconds]):
            oldest = next((at for at in self.arrivals if begin < at <= end), None)
            area += (end - oldest) ** 2 / 2 if oldest is not None else 0.0
        return area / seconds


async def _stream(pacer: Pacer, stream: Stream, seconds: float) -> None:
    for at in stream.arrivals:
        if stream.edits and at <= stream.edits[-1]:
            continue
        earliest = stream.edits[-1] + 1.0 if stream.edits else 0.0
        await asyncio.sleep(max(at, earliest) - _now())
        await pacer.grant({"edit": EDITS}, lambda at=at: Urgency(Rank.LIVE, at))  # type: ignore[misc]
        if _now() < seconds:
            stream.edits.append(_now())


def _greedy(streams: list[Stream], seconds: float) -> None:
    """At each moment with room the stream with the oldest unshown text is served."""
    step, room, now = 0.05, 0.0, 0.0
    while now < seconds:
        room = min(room + step * EDITS.calls / EDITS.seconds, EDITS.burst)
        waiting = [(oldest, stream) for stream in streams if (oldest := _due(stream, now)) is not None]
        while room >= 1 and waiting:
            waiting.sort(key=lambda each: each[0])
            waiting.pop(0)[1].edits.append(now)
            room -= 1
        now += step


def _due(stream: Stream, now: float) -> float | None:
    if stream.edits and now < stream.edits[-1] + 1.0:
        return None
    return stream.oldest_unshown(now)


@pytest.mark.parametrize("number", [1, 3, 10])
def test_text_is_hardly_older_than_under_the_best_schedule(number: int) -> None:
    seconds = 300.0
    best = [Stream(seed, seconds) for seed in range(number)]
    _greedy(best, seconds)
    ours = [Stream(seed, seconds) for seed in range(number)]

    async def scenario() -> None:
        pacer = Pacer()
        await asyncio.gather(*(_stream(pacer, stream, seconds) for stream in ours))

    _in_virtual_time(scenario)
    ratio = sum(each.staleness(seconds) for each in ours) / sum(each.staleness(seconds) for each in best)
    assert ratio <= 1.1


@pytest.mark.parametrize("look_seconds", [0.1, 0.3, 0.5, 0.7])
def test_room_that_comes_between_two_looks_at_the_clock_is_granted(look_seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly() -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, virtual_time.VirtualLoop)
        loop.clock.now += look_seconds
        return loop.time()

    async def scenario() -> None:
        pacer = Pacer()
        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(pacer.grant({"edit": Budget(calls=1, seconds=1, burst=2)}, lambda: Urgency(Rank.LIVE, 0.0)))

    monkeypatch.setattr(pacing, "_now", slowly)
    _in_virtual_time(scenario)
