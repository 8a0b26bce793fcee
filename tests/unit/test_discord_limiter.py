"""Which calls are not made because Discord would turn them away."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import ExitStack

import discord
import pytest
from discord.http import Route

from bots.discord.limiter import Limiter

EDIT = Route("PATCH", "/channels/{channel_id}/messages/{message_id}", channel_id="1", message_id="2")
POST = Route("POST", "/channels/{channel_id}/messages", channel_id="1")
ELSEWHERE = Route("PATCH", "/channels/{channel_id}/messages/{message_id}", channel_id="9", message_id="2")
VIA = {"Via": "1.1 google"}


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limiter(clock: Clock) -> Limiter:
    return Limiter(clock)


def told(remaining: int, *, reset: float = 5.0, bucket: str = "edits", window: str = "1", limit: int = 5) -> Mapping[str, str]:
    return {
        "X-RateLimit-Limit": str(limit),
        "X-RateLimit-Remaining": str(remaining),
        "X-RateLimit-Reset": window,
        "X-RateLimit-Reset-After": str(reset),
        "X-RateLimit-Bucket": bucket,
    }


def call(limiter: Limiter, route: Route, headers: Mapping[str, str], status: int = 200) -> None:
    with limiter.calling(route):
        pass
    limiter.answered(route, status, headers)


def refused(limiter: Limiter, route: Route) -> float:
    with pytest.raises(discord.RateLimited) as raised, limiter.calling(route):
        pass
    return raised.value.retry_after


def test_a_window_that_is_used_up_is_waited_out_by_whoever_calls(limiter: Limiter, clock: Clock) -> None:
    call(limiter, EDIT, told(0))
    clock.now += 2
    assert refused(limiter, EDIT) == pytest.approx(3.0)
    with limiter.calling(ELSEWHERE):
        pass
    clock.now += 3
    with limiter.calling(EDIT):
        pass


def test_calls_on_their_way_are_counted(limiter: Limiter) -> None:
    call(limiter, EDIT, told(2))
    with limiter.calling(EDIT), limiter.calling(EDIT):
        assert refused(limiter, EDIT) == pytest.approx(5.0)


def test_answers_that_overtake_one_another_give_no_room_back(limiter: Limiter) -> None:
    call(limiter, EDIT, told(1))
    limiter.answered(EDIT, 200, told(3))
    call(limiter, EDIT, told(0))
    assert refused(limiter, EDIT) > 0


def test_a_cancelled_call_is_forgotten_with_its_window(limiter: Limiter, clock: Clock) -> None:
    call(limiter, EDIT, told(1))
    with pytest.raises(KeyboardInterrupt), limiter.calling(EDIT):
        raise KeyboardInterrupt
    assert refused(limiter, EDIT) == pytest.approx(5.0)
    clock.now += 5
    for remaining in (4, 3):
        call(limiter, EDIT, told(remaining, window="2"))


def test_routes_that_discord_counts_together_are(limiter: Limiter) -> None:
    call(limiter, EDIT, told(3, bucket="shared"))
    call(limiter, POST, told(0, bucket="shared"))
    assert refused(limiter, EDIT) > 0


def test_a_narrower_limit_stops_nothing_else(limiter: Limiter) -> None:
    call(limiter, EDIT, {**VIA, **told(0)}, status=429)
    assert limiter.turned_away(VIA, {"retry_after": 2.5, "code": 30046}) == 2.5
    with limiter.calling(EDIT):
        pass


def test_a_global_limit_stops_everything(limiter: Limiter, clock: Clock) -> None:
    assert limiter.turned_away({**VIA, "X-RateLimit-Global": "true"}, {"retry_after": 2.0, "global": True}) == 2.0
    assert refused(limiter, EDIT) == pytest.approx(2.0)
    clock.now += 2
    with limiter.calling(EDIT):
        pass


def test_a_ban_stops_everything_for_long(limiter: Limiter, clock: Clock) -> None:
    assert limiter.turned_away({"Retry-After": "5"}, None) == 60.0
    assert limiter.turned_away({}, {"retry_after": "soon"}) == 600.0
    assert limiter.turned_away({"Retry-After": "99999999"}, None) == 3_600.0
    assert refused(limiter, POST) == pytest.approx(3_600.0)


def test_what_discord_documents_is_its_word_whichever_way_it_came(limiter: Limiter) -> None:
    told = {"message": "You are being rate limited.", "retry_after": 0.6, "global": False}
    assert limiter.turned_away({"Retry-After": "1", "X-RateLimit-Scope": "user"}, told) == 0.6
    with limiter.calling(POST):
        pass


def test_room_in_a_new_window_is_for_those_who_are_on_their_way_alone(limiter: Limiter) -> None:
    with ExitStack() as outgoing:
        first = limiter.calling(EDIT)
        first.__enter__()
        for _ in range(3):
            outgoing.enter_context(limiter.calling(EDIT))
        first.__exit__(None, None, None)
        limiter.answered(EDIT, 200, told(4))
        with limiter.calling(EDIT):
            assert refused(limiter, EDIT) > 0


@pytest.mark.parametrize(("reset", "waits"), [(1e9, 600.0), (float("inf"), 0.0), (float("nan"), 0.0), (-5.0, 0.0)])
def test_no_bucket_is_blocked_for_ever(limiter: Limiter, reset: float, waits: float) -> None:
    call(limiter, EDIT, told(0, reset=reset))
    if waits:
        assert refused(limiter, EDIT) == waits
    else:
        call(limiter, EDIT, told(0, reset=reset))


def test_a_limit_of_nothing_is_none(limiter: Limiter) -> None:
    for _ in range(3):
        call(limiter, EDIT, told(0, limit=0, reset=0.0))


async def test_what_is_only_asked_for_waits_its_turn_and_leaves_room_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bots.discord.limiter._READS_SECONDS", 0.1)
    limiter, began = Limiter(reads=3), time.monotonic()
    await asyncio.gather(*(limiter.turn_to_read() for _ in range(7)))
    assert time.monotonic() - began >= 0.2
    with limiter.calling(POST):
        pass


def test_calls_that_discord_turns_away_are_never_hammered(limiter: Limiter, clock: Clock) -> None:
    for _ in range(999):
        call(limiter, EDIT, {}, status=403)
        call(limiter, POST, {"X-RateLimit-Scope": "shared"}, status=429)
        clock.now += 0.1
    call(limiter, POST, {}, status=404)
    call(limiter, EDIT, {}, status=401)
    assert refused(limiter, POST) == pytest.approx(600 - 99.9)
    clock.now += 600
    call(limiter, POST, {})


def test_headers_that_are_none_are_passed_over(limiter: Limiter) -> None:
    call(limiter, EDIT, {"X-RateLimit-Limit": "x", "X-RateLimit-Remaining": "", "X-RateLimit-Reset-After": "1"})
    assert limiter.turned_away(VIA, {"retry_after": "soon"}) == 5.0
    assert limiter.turned_away(VIA, {"retry_after": float("nan")}) == 5.0


def test_few_buckets_are_remembered(limiter: Limiter, clock: Clock) -> None:
    for number in range(1_000):
        route = Route("POST", "/channels/{channel_id}/messages", channel_id=str(number))
        call(limiter, route, told(0, bucket="posts"))
        clock.now += 1
    assert len(limiter._buckets) < 300
