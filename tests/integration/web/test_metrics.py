"""What Prometheus reads: the queue, what became of turns whoever answered them, and how callers are served."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from core.access import ALL_SCOPES
from core.errors import ModelRefused
from tests.fakes import Call, Gate, ManualClock, ScriptedModel
from tests.integration.conftest import MODEL, Start, World
from tests.integration.web.conftest import Site, site_of
from web import metrics

Figures = dict[str, float]


async def figures(site: Site) -> Figures:
    """Each sample under its name with its labels, as in `onethread_turns_total{model="one/model",outcome="succeeded"}`."""
    answer = await site.client.get("/metrics")
    assert answer.status_code == 200
    found = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


async def until(site: Site, holds: Callable[[Figures], bool]) -> Figures:
    """The figures as soon as they are like that."""

    async def so() -> bool:
        return holds(await figures(site))

    await site.world.until(so)
    return await figures(site)


def counted(outcome: str, times: float = 1) -> Callable[[Figures], bool]:
    return lambda found: found.get(f'onethread_turns_total{{model="{MODEL}",outcome="{outcome}"}}') == times


# --- who may read them ---


async def test_only_a_token_of_an_admin_with_the_scope_admin_reads_them(site: Site) -> None:
    kim = await site.world.user("kim")
    async with site.calling(site.world.admin) as without_scope, site.calling(kim) as no_admin, httpx.AsyncClient() as stranger:
        refused = [
            await without_scope.get("/metrics"),
            await no_admin.get("/metrics"),
            await stranger.get(f"{site.url}/metrics"),
        ]
    async with site.calling(site.world.admin, scopes=ALL_SCOPES) as admin:
        read = await admin.get("/metrics")
        head = await admin.head("/metrics")

    assert [answer.status_code for answer in refused] == [401, 401, 401]
    assert read.status_code == 200
    assert read.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert (head.status_code, head.content) == (200, b"")


# --- the queue ---


async def test_depth_and_age_of_the_queue_and_its_workers_are_read_from_the_database(start: Start) -> None:
    clock, gate = ManualClock(), Gate()
    async with start(ScriptedModel().will(gate, "Hi."), clock=clock) as world, site_of(world) as site:
        chat = await world.chat()
        first, second = await world.post(chat.id, "one"), await world.post(chat.id, "two")
        clock.advance(90)
        before = await figures(site)
        async with world.working():
            await gate.reached()
            during = await figures(site)
            gate.open()
            await world.ended(first)
            await world.ended(second)
            after = await figures(site)

    assert before['onethread_queue_turns{status="queued"}'] == 2
    assert before["onethread_queue_oldest_seconds"] == 90
    assert (before["onethread_workers"], before["onethread_worker_slots"]) == (0, 0)
    assert (during['onethread_queue_turns{status="queued"}'], during['onethread_queue_turns{status="running"}']) == (1, 1)
    assert (during["onethread_workers"], during["onethread_worker_slots"]) == (1, 100)
    assert after['onethread_queue_turns{status="queued"}'] == after['onethread_queue_turns{status="running"}'] == 0
    assert after["onethread_queue_oldest_seconds"] == 0


# --- turns ---


@pytest.fixture
async def served(start: Start) -> AsyncIterator[Site]:
    """A site that another process works for: two Onethreads on one database."""
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(start())
        elsewhere = await stack.enter_async_context(start(world.model))
        site = await stack.enter_async_context(site_of(world))
        await stack.enter_async_context(elsewhere.working())
        yield site


async def test_turn_that_another_process_answered_is_counted_with_its_time_tokens_and_cost(served: Site) -> None:
    world = served.world
    world.model.will("Let me see.", Call("list_tasks")).will("There are none.")

    reply = await world.ask((await world.chat()).id, "Which tasks are there?")
    found = await until(served, counted("succeeded"))

    assert reply.metadata["first_text_seconds"] >= 0
    assert found[f'onethread_first_text_seconds_count{{model="{MODEL}"}}'] == 1
    assert found['onethread_turn_seconds_count{outcome="succeeded"}'] == 1
    tokens = {way: found[f'onethread_tokens_total{{direction="{way}",model="{MODEL}"}}'] for way in ("in", "cached", "out")}
    assert tokens == {"in": 20, "cached": 4, "out": 10}  # two rounds
    assert found[f'onethread_cost_dollars_total{{model="{MODEL}"}}'] == pytest.approx(0.002)


async def test_failed_and_cancelled_turns_are_counted_as_such(served: Site) -> None:
    world, gate = served.world, Gate()
    world.model.will(ModelRefused("No.", reason="POLICY")).will("Hm", gate)
    chat = (await world.chat()).id

    await world.ask(chat, "one")
    running = await world.post(chat, "two")
    await gate.reached()
    await world.cancel(running)
    await until(served, lambda found: counted("failed")(found) and counted("cancelled")(found))


async def test_retried_turn_counts_its_rounds_once(served: Site) -> None:
    world = served.world
    world.model.will("First.", Call("list_tasks")).will(ModelRefused("No.", reason="POLICY")).will("Second.")
    posted = await world.post((await world.chat()).id, "Hello")
    await world.ended(posted)
    await until(served, counted("failed"))

    await world.retry(posted)
    await world.ended(posted)
    found = await until(served, counted("succeeded"))

    assert found[f'onethread_tokens_total{{direction="in",model="{MODEL}"}}'] == 20


async def test_names_of_models_that_callers_made_up_are_bounded(served: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_MODELS", 2)
    world = served.world
    for number in range(4):
        await world.ask((await world.chat()).id, "Hello", model=f"made/up-{number}")
    found = await until(served, lambda found: found.get('onethread_turn_seconds_count{outcome="succeeded"}') == 4)

    totals = {name: value for name, value in found.items() if name.startswith("onethread_turns_total")}
    assert sorted(totals.values()) == [1, 1, 2]
    assert totals['onethread_turns_total{model="other",outcome="succeeded"}'] == 2


# --- callers ---


async def test_requests_are_counted_under_their_route_and_never_under_their_path(site: Site) -> None:
    await site.client.get("/api/users")
    await site.client.get("/a-secret-that-somebody-pasted")
    await site.client.request("FROBNICATE", "/api/users")
    answer = await site.client.get("/metrics")
    found = await figures(site)

    assert "secret" not in answer.text
    assert "FROBNICATE" not in answer.text
    assert found['onethread_requests_total{method="GET",route="/api/users",status="200"}'] == 1
    assert found['onethread_requests_total{method="GET",route="(none)",status="404"}'] == 1
    assert found['onethread_request_seconds_count{method="GET",route="/api/users"}'] == 1


async def test_open_sockets_and_subscriptions_are_counted_while_they_last(site: Site) -> None:
    before = await figures(site)
    async with site.socket(), site.socket():
        during = await until(site, lambda found: found["onethread_open_sockets"] == 2)
    after = await until(site, lambda found: found["onethread_open_sockets"] == 0)

    assert before["onethread_open_sockets"] == 0
    assert during["onethread_live_subscriptions"] >= before["onethread_live_subscriptions"]
    assert after["onethread_live_subscriptions"] == before["onethread_live_subscriptions"]


async def test_lag_of_the_event_loop_is_observed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_LAG_SECONDS", 0.01)
    async with site_of(world) as site:
        found = await until(site, lambda found: found["onethread_loop_lag_seconds_count"] >= 3)

    assert found['onethread_loop_lag_seconds_bucket{le="+Inf"}'] >= 3
