"""What a Prometheus server reads: the queue as it is, what became of turns, and how this process serves its callers.

Turns are counted from the live events, so each process that serves the web counts those that any worker answered: take the maximum over
processes, not the sum. Requests, sockets and the event loop's lag are of this process alone.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from core.errors import StorageUnavailable
from core.events import Lagged, TurnChanged
from core.frames import WORKER_SILENT
from core.live import LiveEvents
from core.logs import place_of
from core.models import JSON, Step, Turn, TurnStatus, WorkerInfo
from core.ports import QueueState, Storage, UnitOfWork

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_MODELS = 50
"""A model's name may come from a caller: further ones are counted together."""
OTHER = "other"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_EVENTS_SIZE = 10_000
_GATHER_SECONDS = 0.2
"""Turns that end within this time are read in one transaction."""
_RETRY_SECONDS = 1.0
_LAG_SECONDS = 1.0
_WAITS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_REQUESTS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LAGS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_UNFINISHED = (TurnStatus.QUEUED, TurnStatus.RUNNING, TurnStatus.WAITING)
_log = structlog.get_logger()


class Metrics:
    def __init__(self, storage: Storage, live: LiveEvents) -> None:
        self._storage = storage
        self._live = live
        self._models: set[str] = set()
        self._registry = registry = CollectorRegistry()
        self._turns = Counter("onethread_turns", "Turns that ended.", ["outcome", "model"], registry=registry)
        self._first_text = Histogram(
            "onethread_first_text_seconds", "From a turn's claim to its reply's first text.", ["model"], buckets=_WAITS, registry=registry
        )
        self._turn = Histogram(
            "onethread_turn_seconds", "From a message to the end of its answer.", ["outcome"], buckets=_WAITS, registry=registry
        )
        self._tokens = Counter("onethread_tokens", "Tokens of finished model rounds.", ["direction", "model"], registry=registry)
        self._cost = Counter("onethread_cost_dollars", "What they cost, where the price is known.", ["model"], registry=registry)
        self._unpriced = Counter("onethread_unpriced_rounds", "Model rounds whose price is unknown.", ["model"], registry=registry)
        self._missed = Counter("onethread_missed_events", "Times that live events were missed: turns may be uncounted.", registry=registry)
        self._requests = Counter("onethread_requests", "HTTP requests served.", ["route", "method", "status"], registry=registry)
        self._request = Histogram(
            "onethread_request_seconds", "Time to serve them.", ["route", "method"], buckets=_REQUESTS, registry=registry
        )
        self._sockets = Gauge("onethread_open_sockets", "WebSockets that are open.", registry=registry)
        self._lag = Histogram("onethread_loop_lag_seconds", "How late the event loop was.", buckets=_LAGS, registry=registry)
        subscriptions = Gauge("onethread_live_subscriptions", "Subscriptions to live events.", registry=registry)
        subscriptions.set_function(lambda: live.subscriptions)

    # --- what the middleware tells ---

    def request_served(self, route: str, method: str, status: int, seconds: float) -> None:
        """`route` is a template, never a path; a status of 0 stands for no answer."""
        known = method if method in _METHODS else OTHER
        self._requests.labels(route, known, str(status)).inc()
        self._request.labels(route, known).observe(seconds)

    def socket_opened(self) -> None:
        self._sockets.inc()

    def socket_closed(self) -> None:
        self._sockets.dec()

    # --- reading them ---

    async def text(self) -> bytes:
        """In Prometheus' text format. Raises StorageUnavailable where the queue cannot be read."""
        async with self._storage.read() as uow:
            queue = await uow.turns.state()
            workers = await uow.workers.alive(uow.now - WORKER_SILENT)
            oldest = (uow.now - queue.oldest_queued_at).total_seconds() if queue.oldest_queued_at else 0.0
        stored = CollectorRegistry()
        stored.register(_Stored(queue, workers, oldest_seconds=max(oldest, 0.0)))
        return generate_latest(stored) + generate_latest(self._registry)

    # --- counting ---

    @asynccontextmanager
    async def collecting(self) -> AsyncIterator[None]:
        """Counts what happens while the block runs."""
        loops = (self._count_turns, self._watch_loop)
        tasks = [asyncio.create_task(loop(), name=f"metrics.{loop.__name__}") for loop in loops]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _watch_loop(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LAG_SECONDS
            await asyncio.sleep(_LAG_SECONDS)
            self._lag.observe(max(loop.time() - due, 0.0))

    async def _count_turns(self) -> None:
        with self._live.subscribe(size=_EVENTS_SIZE) as events:
            while True:
                ended: list[TurnChanged] = []
                first = await events.get()
                if isinstance(first, TurnChanged):
                    await asyncio.sleep(_GATHER_SECONDS)
                for event in (first, *events.waiting()):
                    match event:
                        case TurnChanged(status=status) if status.finished:
                            ended.append(event)
                        case Lagged():
                            self._missed.inc()
                if ended:
                    await self._count(ended)

    async def _count(self, ended: Sequence[TurnChanged]) -> None:
        try:
            turns, steps, first_texts = await self._read(ended)
            for event in ended:
                self._count_turn(event, turns.get(event.turn_id), first_texts.get(event.turn_id))
                for step in steps.get(event.turn_id, ()):
                    self._count_step(step)
        except Exception as error:  # noqa: BLE001  # the outermost loop: one turn that cannot be counted must not be the last
            _log.error("metrics.broke", **place_of(error))

    async def _read(self, ended: Sequence[TurnChanged]) -> "tuple[dict[UUID, Turn], dict[UUID, list[Step]], dict[UUID, float]]":
        """The turns, their steps since the last retry, and their first text's seconds; those that were deleted meanwhile are missing."""
        while True:
            try:
                async with self._storage.read() as uow:
                    return await _read(uow, {event.turn_id for event in ended})
            except StorageUnavailable:
                await asyncio.sleep(_RETRY_SECONDS)

    def _count_turn(self, event: TurnChanged, turn: Turn | None, first_text: float | None) -> None:
        model = self._named(turn.model if turn else OTHER)
        self._turns.labels(event.status.value, model).inc()
        if turn and turn.finished_at:
            self._turn.labels(event.status.value).observe((turn.finished_at - turn.created_at).total_seconds())
        if first_text is not None:
            self._first_text.labels(model).observe(first_text)

    def _count_step(self, step: Step) -> None:
        model = self._named(step.model)
        self._tokens.labels("in", model).inc(step.usage.tokens_in)
        self._tokens.labels("cached", model).inc(step.usage.tokens_cached)
        self._tokens.labels("out", model).inc(step.usage.tokens_out)
        if step.usage.cost is None:
            self._unpriced.labels(model).inc()
        else:
            self._cost.labels(model).inc(float(step.usage.cost))

    def _named(self, model: str) -> str:
        if model not in self._models and len(self._models) >= MAX_MODELS:
            return OTHER
        self._models.add(model)
        return model


class _Stored:
    """What the database says, as one scrape's metrics."""

    def __init__(self, queue: QueueState, workers: Sequence[WorkerInfo], *, oldest_seconds: float) -> None:
        self._queue = queue
        self._workers = workers
        self._oldest_seconds = oldest_seconds

    def collect(self) -> list[Metric]:
        depth = GaugeMetricFamily("onethread_queue_turns", "Turns that have not ended, by status.", labels=["status"])
        for status in _UNFINISHED:
            depth.add_metric([status.value], self._queue.numbers.get(status, 0))
        slots = sum(worker.concurrency for worker in self._workers)
        return [
            depth,
            GaugeMetricFamily("onethread_queue_oldest_seconds", "How long the oldest queued turn waits.", value=self._oldest_seconds),
            GaugeMetricFamily("onethread_workers", "Workers that are alive.", value=len(self._workers)),
            GaugeMetricFamily("onethread_worker_slots", "Turns that they answer at once, at most.", value=slots),
        ]


async def _read(uow: UnitOfWork, turn_ids: set[UUID]) -> "tuple[dict[UUID, Turn], dict[UUID, list[Step]], dict[UUID, float]]":
    turns = {turn.id: turn for turn in await uow.turns.of_ids(turn_ids)}
    steps: dict[UUID, list[Step]] = {}
    for step in await uow.steps.of_turns(list(turns)):
        if step.number >= turns[step.turn_id].first_step:
            steps.setdefault(step.turn_id, []).append(step)
    first_texts: dict[UUID, float] = {}
    for turn in turns.values():
        reply = await uow.messages.get(turn.reply_id)
        seconds = _first_text_seconds(reply.metadata) if reply else None
        if seconds is not None:
            first_texts[turn.id] = seconds
    return turns, steps, first_texts


def _first_text_seconds(metadata: JSON) -> float | None:
    seconds = metadata.get("first_text_seconds")
    return float(seconds) if isinstance(seconds, int | float) else None
