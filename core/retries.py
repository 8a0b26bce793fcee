"""When a turn is tried again and when it is given up: pure decisions, no I/O."""

import random
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from core.errors import ModelBusy, ModelError, ModelRefused
from core.models import ModelPause, Turn

RECOVERED_AT_ONCE = 64
"""Turns; a model that answers so many at once needs no further care."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    max_failures: int = 3
    max_rescues: int = 3
    backoff_seconds: float = 2.0
    """Before the second attempt; doubled for each further one."""
    backoff_limit_seconds: float = 120.0
    pause_seconds: float = 5.0
    """A model's first pause; doubled for each further one."""
    pause_limit_seconds: float = 300.0
    pause_total_seconds: float = 7_200.0
    """A model that was paused for so long without an answer costs its turns their attempts."""
    probe_seconds: float = 60.0
    """How long one turn probes a paused model before another may."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The turn has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TryAgain:
    run_after: datetime
    failures: int
    pause: ModelPause | None = None
    """Set where the model is to be paused, or paused for longer."""


def after_failure(turn: Turn, error: ModelError, pause: ModelPause | None, now: datetime, policy: RetryPolicy) -> GiveUp | TryAgain:
    """What a failed attempt leads to. `pause` is the model's present one."""
    if isinstance(error, ModelRefused):
        return GiveUp()
    if isinstance(error, ModelBusy) and not _paused_too_long(pause, now, policy):
        if pause and pause.paused_until > now and pause.probe_turn_id != turn.id:
            return TryAgain(run_after=now, failures=turn.failures)  # the pause holds it back, and ends early when the probe succeeds
        longer = _pause(turn.model, error.retry_after, pause, now, policy)
        return TryAgain(run_after=longer.paused_until, failures=turn.failures, pause=longer)
    failures = turn.failures + 1
    if failures >= policy.max_failures:
        return GiveUp()
    backoff = min(policy.backoff_seconds * 2 ** (failures - 1), policy.backoff_limit_seconds) * random.uniform(0.75, 1.25)
    return TryAgain(run_after=now + timedelta(seconds=max(error.retry_after or 0.0, backoff)), failures=failures)


def may_be_rescued(turn: Turn, policy: RetryPolicy) -> bool:
    """Whether a turn whose worker vanished once more is queued again."""
    return turn.rescues + 1 < policy.max_rescues


def probing(pause: ModelPause, turn: Turn, now: datetime, policy: RetryPolicy) -> ModelPause:
    """The pause while `turn` alone tries whether the model answers again."""
    return replace(pause, paused_until=now + timedelta(seconds=policy.probe_seconds), probe_turn_id=turn.id)


def recovering(pause: ModelPause, now: datetime) -> ModelPause | None:
    """What is left of a pause after an answer; None when the model may be asked freely again.

    Everything that waited would otherwise ask it in the same instant, and be turned away again.
    """
    if pause.at_once >= RECOVERED_AT_ONCE:
        return None
    return ModelPause(model=pause.model, paused_since=now, paused_until=now, pauses=0, at_once=pause.at_once * 2)


def _paused_too_long(pause: ModelPause | None, now: datetime, policy: RetryPolicy) -> bool:
    return pause is not None and now - pause.paused_since > timedelta(seconds=policy.pause_total_seconds)


def _pause(model: str, retry_after: float | None, pause: ModelPause | None, now: datetime, policy: RetryPolicy) -> ModelPause:
    pauses = pause.pauses + 1 if pause else 1
    backoff = min(policy.pause_seconds * 2 ** (pauses - 1), policy.pause_limit_seconds)
    seconds = min(max(retry_after or 0.0, backoff), policy.pause_limit_seconds)
    return ModelPause(
        model=model, paused_since=pause.paused_since if pause else now, paused_until=now + timedelta(seconds=seconds), pauses=pauses
    )
