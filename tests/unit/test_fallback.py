"""Which model answers where the one that was asked for cannot."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from core.errors import ModelBusy, ModelError, ModelFaltered, ModelRefused
from core.ids import new_id
from core.models import ModelPause, Turn, TurnStatus
from core.retries import RetryPolicy, Switch, after_failure, fallback, fallback_while_paused

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
POLICY = RetryPolicy(fallback_models=("b/two", "c/three"))
FAULT = ModelFaltered("No.", reason="SERVER_ERROR")
NO_KEY = ModelRefused("No.", reason="KEY_MISSING")
TURN = Turn(
    id=new_id(),
    conversation_id=new_id(),
    seq=1,
    user_message_id=new_id(),
    reply_id=new_id(),
    author_id=new_id(),
    model="a/one",
    status=TurnStatus.RUNNING,
    failures=0,
    rescues=0,
    stream_no=1,
    first_step=0,
    run_after=NOW,
    lease_owner=None,
    lease_token=1,
    lease_until=None,
    error_code=None,
    error=None,
    created_at=NOW,
    started_at=NOW,
    finished_at=None,
)


def _switch(turn: Turn, error: ModelError, policy: RetryPolicy = POLICY, pause: ModelPause | None = None) -> Switch | None:
    return fallback(turn, error, after_failure(turn, error, pause, NOW, policy), NOW, policy)


def _on(model: str, reason: str = "SERVER_ERROR") -> Turn:
    """The turn after a fallback took over."""
    return replace(TURN, model=model, asked_model="a/one", fallback_reason=reason)


def _busy(retry_after: float | None = None) -> ModelBusy:
    return ModelBusy("No.", reason="RATE_LIMITED", retry_after=retry_after)


def _pause(*, lasts: float, for_long: float = 0, probe: bool = False) -> ModelPause:
    since, until = NOW - timedelta(seconds=for_long), NOW + timedelta(seconds=lasts)
    return ModelPause(model="a/one", paused_since=since, paused_until=until, pauses=1, probe_turn_id=new_id() if probe else None)


@pytest.mark.parametrize("reason", ["KEY_MISSING", "KEY_REJECTED", "OUT_OF_CREDIT", "MODEL_UNKNOWN", "NOT_INSTALLED"])
def test_a_provider_that_refuses_everything_is_left_at_once(reason: str) -> None:
    assert _switch(TURN, ModelRefused("No.", reason=reason)) == Switch(model="b/two", asked_model="a/one", reason=reason)


@pytest.mark.parametrize(
    "reason", ["CONTENT_POLICY", "BAD_REQUEST", "CONTEXT_TOO_LONG", "REPLY_TOO_LONG", "TOO_MANY_ROUNDS", "TURN_TOO_LONG"]
)
def test_what_lies_in_the_request_is_not_carried_to_another_model(reason: str) -> None:
    assert _switch(TURN, ModelRefused("No.", reason=reason)) is None


def test_a_faltering_model_has_all_its_attempts_first() -> None:
    assert [_switch(replace(TURN, failures=failures), FAULT) is None for failures in range(3)] == [True, True, False]


def test_a_defect_of_ours_is_not_carried_to_another_model() -> None:
    assert _switch(replace(TURN, failures=2), ModelFaltered("No.", reason="INTERNAL")) is None


@pytest.mark.parametrize(("retry_after", "left"), [(None, False), (15, False), (16, True), (4000, True)])
def test_a_busy_model_is_waited_for_a_short_while(retry_after: float | None, left: bool) -> None:
    assert (_switch(TURN, _busy(retry_after)) is not None) is left


def test_a_model_that_was_busy_again_and_again_is_left() -> None:
    probed = replace(_pause(lasts=60, for_long=16), probe_turn_id=TURN.id)
    assert _switch(TURN, _busy(), pause=probed) == Switch(model="b/two", asked_model="a/one", reason="RATE_LIMITED")


def test_each_fallback_is_asked_once_and_the_first_reason_is_kept() -> None:
    assert _switch(_on("b/two"), NO_KEY) == Switch(model="c/three", asked_model="a/one", reason="SERVER_ERROR")
    assert _switch(_on("c/three"), NO_KEY) is None


@pytest.mark.parametrize("error", [NO_KEY, _busy(600), ModelRefused("No.", reason="CONTEXT_TOO_LONG")], ids=lambda error: error.reason)
def test_where_nobody_else_can_answer_a_busy_model_is_waited_for_after_all(error: ModelError) -> None:
    back = _switch(_on("c/three", reason="RATE_LIMITED"), error)
    assert back == Switch(model="a/one", asked_model="a/one", reason="RATE_LIMITED")

    waiting = replace(TURN, asked_model="a/one", fallback_reason="RATE_LIMITED")
    assert _switch(waiting, _busy(600)) is None
    assert _switch(waiting, NO_KEY) is None


def test_the_model_that_was_asked_for_is_not_its_own_fallback() -> None:
    policy = RetryPolicy(fallback_models=("a/one", "b/two", "b/two"))
    assert _switch(TURN, NO_KEY, policy) == Switch(model="b/two", asked_model="a/one", reason="KEY_MISSING")
    assert _switch(_on("b/two"), NO_KEY, policy) is None


def test_without_fallbacks_nothing_changes() -> None:
    assert _switch(TURN, NO_KEY, RetryPolicy()) is None


def test_a_fallback_that_was_taken_from_the_settings_has_no_successor() -> None:
    assert _switch(_on("x/gone"), NO_KEY) is None


@pytest.mark.parametrize(
    ("pause", "left"),
    [
        (_pause(lasts=10), False),
        (_pause(lasts=20), True),
        (_pause(lasts=1, for_long=20), True),
        (_pause(lasts=60, for_long=1, probe=True), False),
        (_pause(lasts=60, for_long=20, probe=True), True),
        (_pause(lasts=0, for_long=600), False),
    ],
    ids=["short", "long", "again and again", "just probed", "probed for long", "over"],
)
def test_who_waits_for_a_paused_model_is_answered_by_another_if_it_takes_long(pause: ModelPause, left: bool) -> None:
    assert (fallback_while_paused(TURN, pause, NOW, POLICY) is not None) is left
