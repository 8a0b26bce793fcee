"""When a turn is tried again and when it is given up: pure decisions, no I/O."""

import random
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from core.errors import ModelBusy, ModelError, ModelRefused
from core.llm.failures import Reason
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
    fallback_models: tuple[str, ...] = ()
    """Asked in this order, each once, where the turn's model cannot answer."""
    patience_seconds: float = 15.0
    """A model that is paused for longer is not waited for where there is a fallback."""


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
    if pause and is_stale(pause, now, policy):
        pause = None
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """Another model answers the turn, with attempts of its own; `asked_model` and `reason` say instead of which, and why."""

    model: str
    asked_model: str
    reason: str


def fallback(turn: Turn, error: ModelError, after: GiveUp | TryAgain, now: datetime, policy: RetryPolicy) -> Switch | None:
    """Who answers instead of the turn's model, which failed and would be treated as `after` says; None where it stays with that."""
    if error.reason not in (_NOT_THE_FALLBACKS_TASK if turn.fallback_from else _OTHERS_MAY_DO_BETTER):
        return None
    if isinstance(after, TryAgain) and not (after.pause and is_long(after.pause, now, policy)):
        return None
    return _next(turn, error.reason, policy)


def fallback_while_paused(turn: Turn, pause: ModelPause, now: datetime, policy: RetryPolicy) -> Switch | None:
    """Who answers instead of a model that a waiting turn would have to wait for."""
    return _next(turn, Reason.UNAVAILABLE, policy) if is_long(pause, now, policy) else None


def is_long(pause: ModelPause, now: datetime, policy: RetryPolicy) -> bool:
    """Whether a model is paused for longer than people should wait."""
    if pause.paused_until <= now:
        return False
    # While it is probed, its end says how long the probe may take.
    ends = now if pause.probe_turn_id else pause.paused_until
    return max(ends - now, now - pause.paused_since) > timedelta(seconds=policy.patience_seconds)


def answers_nobody(error: ModelError) -> bool:
    """Whether the model would not answer anything else either."""
    return isinstance(error, ModelBusy) or error.reason in _OUT_OF_REACH


def _next(turn: Turn, reason: str, policy: RetryPolicy) -> Switch | None:
    asked = turn.asked_model or turn.model
    others = [model for model in dict.fromkeys(policy.fallback_models) if model != asked]
    if turn.asked_model is None:
        return Switch(model=others[0], asked_model=asked, reason=reason) if others else None
    if turn.model == asked:
        return None
    why = turn.fallback_reason or reason
    following = others[others.index(turn.model) + 1 :] if turn.model in others else []
    if following:
        return Switch(model=following[0], asked_model=asked, reason=why)
    # Nobody else is left: what was only busy is waited for after all.
    return Switch(model=asked, asked_model=asked, reason=why) if why in _BUSY else None


_BUSY = frozenset({Reason.RATE_LIMITED, Reason.UNAVAILABLE})
_OUT_OF_REACH = frozenset({Reason.KEY_MISSING, Reason.KEY_REJECTED, Reason.OUT_OF_CREDIT, Reason.MODEL_UNKNOWN, Reason.NOT_INSTALLED})
_FAULTS = frozenset(
    {Reason.SERVER_ERROR, Reason.TIMEOUT, Reason.DISCONNECTED, Reason.STREAM_CUT, Reason.EMPTY_REPLY, Reason.REPLY_MALFORMED}
)
_OTHERS_MAY_DO_BETTER = _BUSY | _OUT_OF_REACH | _FAULTS
# What a fallback alone cannot take, such as a long conversation, does not end a turn.
_NOT_THE_FALLBACKS_TASK = _OTHERS_MAY_DO_BETTER | {Reason.BAD_REQUEST, Reason.CONTEXT_TOO_LONG}


def may_be_rescued(turn: Turn, policy: RetryPolicy) -> bool:
    """Whether a turn whose worker vanished once more is queued again."""
    return turn.rescues + 1 < policy.max_rescues


def probing(pause: ModelPause, turn: Turn, now: datetime, policy: RetryPolicy) -> ModelPause:
    """The pause while `turn` alone tries whether the model answers again."""
    since, pauses = (now, 0) if is_stale(pause, now, policy) else (pause.paused_since, pause.pauses)
    until = now + timedelta(seconds=policy.probe_seconds)
    return replace(pause, paused_since=since, pauses=pauses, paused_until=until, probe_turn_id=turn.id)


def is_stale(pause: ModelPause, now: datetime, policy: RetryPolicy) -> bool:
    """Whether nobody asked the model for long after its pause was over: what was then says nothing of now."""
    return now - pause.paused_until > timedelta(seconds=policy.pause_limit_seconds + policy.probe_seconds)


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
