"""How much each model may be asked, by all workers together. Calls are counted in the database, and only of models that have a limit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from core.errors import OnethreadError
from core.ids import new_id
from core.models import ModelCall, ModelPause
from core.ports import Lease, UnitOfWork

ANY_OTHER = "*"
_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLimit:
    requests_at_once: int | None = None
    requests_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class ModelLimits:
    by_model: Mapping[str, ModelLimit] = field(default_factory=dict)
    """By litellm id; `*` is for all that are not named."""

    @property
    def of_all(self) -> bool:
        """Whether every model has one."""
        return ANY_OTHER in self.by_model

    @property
    def named(self) -> frozenset[str]:
        return frozenset(self.by_model) - {ANY_OTHER}

    def of(self, model: str) -> ModelLimit | None:
        return self.by_model.get(model) or self.by_model.get(ANY_OTHER)


class ModelFull(OnethreadError):
    """As many requests as the model's limit allows are on their way, or were in the last minute."""


async def held_back(uow: UnitOfWork, pauses: Sequence[ModelPause]) -> frozenset[str]:
    """The models that take no further turn now: paused, or recovering with as many turns as they may have."""
    closed = {pause.model for pause in pauses if pause.paused_until > uow.now}
    if any(pause.at_once > 1 for pause in pauses):
        running = await uow.turns.running_by_model()
        closed |= {pause.model for pause in pauses if pause.at_once > 1 and running.get(pause.model, 0) >= pause.at_once}
    return frozenset(closed)


async def full(uow: UnitOfWork, limits: ModelLimits) -> frozenset[str]:
    """The models that are at their limit."""
    if not limits.by_model:
        return frozenset()
    running, recent = await uow.turns.running_by_model(), await uow.model_requests.counts(uow.now - _MINUTE)
    asked = ((model, limits.of(model)) for model in running.keys() | recent.keys())
    return frozenset(model for model, limit in asked if limit and _is_reached(limit, running.get(model, 0), recent.get(model, 0)))


async def admit(uow: UnitOfWork, lease: Lease, model: str, limits: ModelLimits) -> None:
    """Counts the call that follows; raises ModelFull where the limit leaves no room for it."""
    limit = limits.of(model)
    if limit is None:
        return
    await uow.model_requests.lock(model)
    await uow.model_requests.end(lease, uow.now)  # the turn's round before
    if limit.requests_at_once and await uow.model_requests.open_count(model) >= limit.requests_at_once:
        raise ModelFull(model)
    if limit.requests_per_minute:
        one_too_many = await uow.model_requests.nth_last(model, limit.requests_per_minute)
        if one_too_many and one_too_many > uow.now - _MINUTE:
            raise ModelFull(model)
    await uow.model_requests.begin(ModelCall(id=new_id(), model=model, turn_id=lease.turn_id, lease_token=lease.token, at=uow.now))


def _is_reached(limit: ModelLimit, running: int, recent: int) -> bool:
    at_once, per_minute = limit.requests_at_once, limit.requests_per_minute
    return (at_once is not None and running >= at_once) or (per_minute is not None and recent >= per_minute)
