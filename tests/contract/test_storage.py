"""What `core.ports.Storage` promises, kept on each database."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.engine import URL

from core import attachments, conversations, identity, messages, projects, retention, tasks, turns
from core.access import Principal
from core.attachments import Upload
from core.drafts import Drafts
from core.errors import Conflict, LeaseLost, NotFound, OnethreadError
from core.events import ConversationChanged, MessageAdded, TaskChanged
from core.ids import new_id
from core.limits import ModelLimits
from core.live import LiveEvents
from core.messages import PostingRules
from core.models import (
    TASK_KEYS,
    InboxEntry,
    InboxKey,
    ModelPause,
    Posted,
    Step,
    Summary,
    ToolCall,
    ToolCallState,
    ToolRequest,
    Turn,
    TurnStatus,
    UsageEntry,
)
from core.ports import Draft, Lease, Storage, TaskFilter
from core.retries import RetryPolicy
from storage.engine import engines, is_postgres
from storage.unit_of_work import Database
from tests.databases import NewDatabase, on_both
from tests.fakes import USAGE, ManualClock, claim_one

RULES = PostingRules(default_model="one/model", messages_per_minute=1_000_000, max_unfinished_turns=1_000)
POLICY = RetryPolicy()


@dataclass(slots=True)
class Subject:
    storage: Storage
    live: LiveEvents
    clock: ManualClock
    open_another: Callable[[], AbstractAsyncContextManager[Storage]]
    """The same database, as another process sees it."""
    keeps_changes: bool
    """Whether state events are rows, for other processes to read."""
    admin: Principal
    kim: Principal

    async def post(self, conversation_id: UUID | None = None, who: Principal | None = None, model: str | None = None) -> Posted:
        async with self.storage.write() as uow:
            who = who or self.admin
            conversation_id = conversation_id or (await conversations.create(uow, who)).id
            return await messages.post(uow, who, conversation_id, "Hello", rules=RULES, source="test", model=model)

    async def claim(self, worker: UUID | None = None, storage: Storage | None = None) -> Turn | None:
        async with (storage or self.storage).write() as uow:
            return await claim_one(uow, worker)

    async def get(self, posted: Posted) -> Turn:
        assert posted.turn_id
        async with self.storage.read() as uow:
            turn = await uow.turns.get(posted.turn_id)
        assert turn
        return turn


@asynccontextmanager
async def _opened(url: URL, live: LiveEvents, clock: ManualClock) -> AsyncIterator[Storage]:
    writer, reader = engines(url)
    storage = Database(writer=writer, reader=reader, live=live, clock=clock, process_id=new_id())
    try:
        yield storage
    finally:
        await storage.close()


new_database = on_both


@pytest.fixture
async def subject(new_database: NewDatabase) -> AsyncIterator[Subject]:
    live, clock = LiveEvents(), ManualClock()
    async with new_database() as url, _opened(url, live, clock) as storage:
        async with storage.write() as uow:
            await projects.default(uow)
            admin = identity.principal_of(await identity.local_admin(uow))
            kim = identity.principal_of(await identity.add_user(uow, "kim"))
        yield Subject(storage, live, clock, lambda: _opened(url, LiveEvents(), clock), not is_postgres(url), admin, kim)


# --- transactions ---


async def test_an_exception_undoes_everything_and_publishes_nothing(subject: Subject) -> None:
    with subject.live.subscribe() as events:
        with suppress(ZeroDivisionError):
            async with subject.storage.write() as uow:
                conversation = await conversations.create(uow, subject.admin)
                raise ZeroDivisionError
        assert events.waiting() == []
    async with subject.storage.read() as uow:
        assert await uow.conversations.find(conversation.id) is None


async def test_events_are_published_in_order_and_only_after_the_commit(subject: Subject) -> None:
    with subject.live.subscribe() as events:
        async with subject.storage.write() as uow:
            conversation = await conversations.create(uow, subject.admin)
            uow.emit(MessageAdded(conversation_id=conversation.id, message_id=conversation.id))
            assert events.waiting() == []
        first, second = events.waiting()
    assert first == ConversationChanged(conversation_id=conversation.id)
    assert isinstance(second, MessageAdded)


async def test_who_hears_an_event_can_read_what_it_tells(subject: Subject) -> None:
    async def listen() -> bool:
        with subject.live.subscribe() as events:
            listening.set()
            heard = await events.get()
        assert isinstance(heard, ConversationChanged)
        async with subject.storage.read() as uow:
            return await uow.conversations.find(heard.conversation_id) is not None

    listening = asyncio.Event()
    listener = asyncio.create_task(listen())
    async with asyncio.timeout(5):
        await listening.wait()
        async with subject.storage.write() as uow:
            await conversations.create(uow, subject.admin)
        assert await listener


async def test_a_savepoint_undoes_effects_and_events_of_its_own_only(subject: Subject) -> None:
    with subject.live.subscribe() as events:
        async with subject.storage.write() as uow:
            await tasks.create(uow, subject.admin, "Kept")
            with suppress(ZeroDivisionError):
                async with uow.savepoint():
                    await tasks.create(uow, subject.admin, "Undone")
                    raise ZeroDivisionError
            async with uow.savepoint():
                await tasks.create(uow, subject.admin, "Also kept")
        published = events.waiting()
    async with subject.storage.read() as uow:
        found = await uow.tasks.page(subject.admin, TaskFilter(), after=None, limit=10)
    assert [task.title for task in found] == ["Also kept", "Kept"]
    assert [task.ref for task in found] == ["OT-2", "OT-1"]
    assert [type(each) for each in published] == [ConversationChanged, TaskChanged] * 2


async def test_a_failed_statement_in_a_savepoint_leaves_the_transaction_usable(subject: Subject) -> None:
    async with subject.storage.write() as uow:
        user = await uow.users.by_name("kim")
        assert user
        with pytest.raises(Exception, match=r"(?i)unique"):
            async with uow.savepoint():
                await uow.users.add(user)
        await identity.add_user(uow, "lee")
    async with subject.storage.read() as uow:
        assert await uow.users.by_name("lee")


async def test_reading_refuses_to_write(subject: Subject) -> None:
    with pytest.raises(OnethreadError):
        async with subject.storage.read() as uow:
            await conversations.create(uow, subject.admin)
    async with subject.storage.read() as uow:
        assert await uow.conversations.count(subject.admin) == 0


async def test_a_reader_sees_one_moment(subject: Subject) -> None:
    async with subject.storage.read() as uow:
        assert await uow.conversations.count(subject.admin) == 0
        async with subject.storage.write() as other:
            await conversations.create(other, subject.admin)
        assert await uow.conversations.count(subject.admin) == 0
    async with subject.storage.read() as uow:
        assert await uow.conversations.count(subject.admin) == 1


async def test_no_update_of_what_a_turn_locks_is_lost(subject: Subject) -> None:
    posted = await subject.post()
    assert posted.turn_id

    turn_id = posted.turn_id

    async def add(storage: Storage) -> None:
        for _ in range(10):
            async with storage.write() as uow:
                await uow.turns.lock(turn_id)
                message = await uow.messages.get(posted.message_id)
                assert message
                await asyncio.sleep(0)
                await uow.messages.update(message.id, content=str(int(message.content) + 1))

    async with subject.storage.write() as uow:
        await uow.messages.update(posted.message_id, content="0")
    async with subject.open_another() as another, asyncio.timeout(60), asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(add(another if number % 2 else subject.storage))
    async with subject.storage.read() as uow:
        message = await uow.messages.get(posted.message_id)
    assert message
    assert message.content == "200"


async def test_seqs_are_taken_once_by_however_many_writers(subject: Subject) -> None:
    async with subject.storage.write() as uow:
        here = await conversations.create(uow, subject.admin)
    async with subject.open_another() as another, asyncio.timeout(60), asyncio.TaskGroup() as group:
        for number in range(30):
            group.create_task(_post_by(another if number % 2 else subject.storage, subject.admin, here.id))
    async with subject.storage.read() as uow:
        assert [each.seq for each in await uow.messages.since(here.id, 0)] == list(range(1, 61))


async def _post_by(storage: Storage, who: Principal, conversation: UUID) -> None:
    async with storage.write() as uow:
        await messages.post(uow, who, conversation, "Hello", rules=RULES, source="test")


async def test_cancelled_transactions_neither_wedge_the_writer_nor_lose_an_event(subject: Subject) -> None:
    dice = random.Random(7)
    committed: set[UUID] = set()

    async def work(number: int) -> None:
        async with subject.storage.write() as uow:
            conversation = await conversations.create(uow, subject.admin, title=str(number))
            async with uow.savepoint():
                uow.emit(ConversationChanged(conversation_id=conversation.id))
        committed.add(conversation.id)

    with subject.live.subscribe(size=10_000) as events:
        async with asyncio.timeout(60):
            began = time.monotonic()
            for _ in range(5):
                await work(0)
            seconds, cancelled = (time.monotonic() - began) / 5, 0
            for number in range(100):
                writers = [asyncio.create_task(work(number)) for _ in range(2)]
                for writer in writers:
                    for _ in range(dice.randrange(1, 3)):
                        # A cancelled connection may be gone, and a new one takes longer than the work.
                        limit = dice.choice((4, 40)) * seconds
                        asyncio.get_running_loop().call_later(dice.uniform(0, limit), writer.cancel)
                await asyncio.wait(writers)
                assert all(writer.cancelled() or writer.exception() is None for writer in writers)
                cancelled += sum(writer.cancelled() for writer in writers)
            await work(999)
        published = Counter(each.conversation_id for each in events.waiting() if isinstance(each, ConversationChanged))
    async with subject.storage.read() as uow:
        stored = {each.id for each in await uow.conversations.page(subject.admin, limit=1_000, offset=0)}
    assert 5 < cancelled < 195  # otherwise it tried one of the two cases only
    assert committed <= stored
    assert published == Counter(dict.fromkeys(stored, 2))


async def test_cancelled_readers_do_not_use_up_the_pool(subject: Subject) -> None:
    async def look() -> None:
        async with subject.storage.read() as uow:
            await uow.conversations.count(subject.admin)

    async with asyncio.timeout(60):
        for number in range(100):
            looking = asyncio.create_task(look())
            for _ in range(number % 20):
                await asyncio.sleep(0)
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking
        await asyncio.gather(*(look() for _ in range(20)))


# --- the queue ---


async def test_twenty_workers_claim_each_turn_once_and_in_order(subject: Subject) -> None:
    posts: list[list[Posted]] = []
    for _ in range(4):
        first = await subject.post()
        posts.append([first, *[await subject.post(first.conversation_id) for _ in range(4)]])
    claimed: list[UUID] = []

    async def work(storage: Storage) -> None:
        worker = new_id()
        while len(claimed) < 20:
            turn = await subject.claim(worker, storage)
            if turn is None:
                await asyncio.sleep(0.005)  # twenty that never rest keep SQLite's lock from one of them for longer than anybody waits
                continue
            claimed.append(turn.id)
            async with storage.write() as uow:
                await turns.finish(uow, await uow.turns.fence(Lease(turn_id=turn.id, token=turn.lease_token)), text="", metadata={})

    async with subject.open_another() as another, asyncio.timeout(60), asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(work(another if number % 2 else subject.storage))

    assert len(claimed) == len(set(claimed)) == 20
    for conversation in posts:
        order = [claimed.index(posted.turn_id) for posted in conversation if posted.turn_id]
        assert order == sorted(order)


async def test_a_claim_gives_a_lease_with_a_higher_token(subject: Subject) -> None:
    posted, worker = await subject.post(), new_id()

    turn = await subject.claim(worker)

    assert turn
    assert (turn.id, turn.status, turn.lease_owner, turn.lease_token) == (posted.turn_id, TurnStatus.RUNNING, worker, 1)
    assert turn.lease_until == subject.clock.now() + timedelta(seconds=60)
    assert await subject.claim() is None


async def test_a_claim_passes_over_what_is_not_due_or_paused(subject: Subject) -> None:
    later, paused = [await subject.post(model=model) for model in ("a/later", "a/paused")]
    assert later.turn_id
    now = subject.clock.now()
    async with subject.storage.write() as uow:
        await uow.turns.update(later.turn_id, run_after=now + timedelta(seconds=10))
        until = now + timedelta(seconds=20)
        await uow.pauses.put(ModelPause(model="a/paused", paused_since=now, paused_until=until, pauses=1))

    async def claims(at: float) -> list[UUID]:
        found = []
        subject.clock.advance((now + timedelta(seconds=at) - subject.clock.now()).total_seconds())
        async with subject.storage.write() as uow:
            while turn := await claim_one(uow):
                found.append(turn.id)
        return found

    assert await claims(9.9) == []
    assert await claims(10) == [later.turn_id]
    assert await claims(19.9) == []
    assert await claims(20) == [paused.turn_id]


async def test_turns_that_wait_for_a_model_are_those_that_it_could_answer_now(subject: Subject) -> None:
    chat = (await subject.post(model="one/model")).conversation_id
    await subject.post(chat, model="one/model")  # behind the first
    await subject.post(model="other/model")
    later, second = await subject.post(model="one/model"), await subject.post(model="one/model")
    async with subject.storage.write() as uow:
        assert later.turn_id
        await uow.turns.update(later.turn_id, run_after=uow.now + timedelta(seconds=1))
    async with subject.storage.write() as uow:
        due = await uow.turns.due("one/model", uow.now, limit=9)
    assert {turn.conversation_id for turn in due} == {chat, second.conversation_id}
    assert len(due) == 2


async def test_the_fence_holds_for_the_newest_lease_of_a_running_turn_only(subject: Subject) -> None:
    posted = await subject.post()
    assert posted.turn_id
    turn = await subject.claim()
    assert turn
    held = Lease(turn_id=turn.id, token=turn.lease_token)

    async def holds(lease: Lease) -> bool:
        try:
            async with subject.storage.write() as uow:
                return (await uow.turns.fence(lease)).id == turn.id
        except LeaseLost:
            return False

    assert await holds(held)
    assert not await holds(replace(held, token=2))
    assert not await holds(replace(held, token=0))
    assert not await holds(replace(held, turn_id=new_id()))
    for status in set(TurnStatus) - {TurnStatus.RUNNING}:
        async with subject.storage.write() as uow:
            await uow.turns.update(turn.id, status=status)
        assert not await holds(held)


async def test_a_heartbeat_extends_the_leases_that_still_hold(subject: Subject) -> None:
    for _ in range(3):
        await subject.post()
    claimed = [turn for turn in [await subject.claim() for _ in range(3)] if turn]
    leases = [Lease(turn_id=turn.id, token=turn.lease_token) for turn in claimed]
    until = subject.clock.now() + timedelta(seconds=99)
    async with subject.storage.write() as uow:
        await uow.turns.update(claimed[1].id, lease_token=9)
        await uow.turns.update(claimed[2].id, status=TurnStatus.QUEUED)
        assert await uow.turns.extend(leases, until) == {claimed[0].id}
    async with subject.storage.read() as uow:
        found = {turn.id: turn.lease_until for turn in await uow.turns.of_ids([turn.id for turn in claimed])}
    assert [found[turn.id] == until for turn in claimed] == [True, False, False]


async def test_drafts_are_stored_under_the_newest_lease_and_stream_only(subject: Subject) -> None:
    posted = await subject.post()
    turn = await subject.claim()
    assert turn
    assert posted.reply_id
    lease = Lease(turn_id=turn.id, token=turn.lease_token)
    async with subject.storage.write() as uow:
        stream_no = await turns.begin_stream(uow, lease, text="", limits=ModelLimits())
    good = Draft(lease=lease, reply_id=posted.reply_id, stream_no=stream_no, text="good")
    bad = [replace(good, stream_no=stream_no - 1), replace(good, stream_no=stream_no + 1), replace(good, lease=replace(lease, token=7))]
    async with subject.storage.write() as uow:
        await uow.messages.save_drafts([good, *(replace(each, text="bad") for each in bad)])
        await uow.turns.update(turn.id, status=TurnStatus.CANCELLED)
        await uow.messages.save_drafts([replace(good, text="late")])
    async with subject.storage.read() as uow:
        reply = await uow.messages.get(posted.reply_id)
    assert reply
    assert reply.content == "good"


async def test_a_draft_that_is_late_leaves_the_finished_reply_alone(subject: Subject) -> None:
    posted = await subject.post()
    turn = await subject.claim()
    assert turn
    assert posted.reply_id
    lease = Lease(turn_id=turn.id, token=turn.lease_token)
    draft = Draft(lease=lease, reply_id=posted.reply_id, stream_no=0, text="half of")

    async def checkpoint() -> None:
        async with subject.storage.write() as uow:
            await uow.messages.save_drafts([draft])

    async with asyncio.timeout(10):
        async with subject.storage.write() as uow:
            await turns.finish(uow, await uow.turns.fence(lease), text="half of it all", metadata={})
            late = asyncio.create_task(checkpoint())
            await asyncio.wait({late}, timeout=0.2)
        await late
    async with subject.storage.read() as uow:
        reply = await uow.messages.get(posted.reply_id)
    assert reply
    assert reply.content == "half of it all"


async def test_a_claim_takes_nothing_beside_what_another_one_begins_at_that_moment(subject: Subject) -> None:
    first = await subject.post()
    second = await subject.post(first.conversation_id)
    assert first.turn_id
    async with subject.storage.write() as uow:
        await uow.turns.update(first.turn_id, status=TurnStatus.FAILED)

    async def claim() -> Turn | None:
        with suppress(Conflict):
            return await subject.claim()
        return None

    async with asyncio.timeout(10):
        async with subject.storage.write() as uow:
            await uow.turns.update(first.turn_id, status=TurnStatus.RUNNING)
            claiming = asyncio.create_task(claim())
            await asyncio.wait({claiming}, timeout=0.2)
        assert await claiming is None
    assert (await subject.get(second)).status is TurnStatus.QUEUED


async def test_what_must_be_unique_is_refused_to_the_second_who_adds_it_at_the_same_moment(subject: Subject) -> None:
    async def add() -> None:
        async with subject.storage.write() as uow:
            await identity.add_user(uow, "lee")

    async with asyncio.timeout(10):
        async with subject.storage.write() as uow:
            await identity.add_user(uow, "lee")
            second = asyncio.create_task(add())
            await asyncio.wait({second}, timeout=0.2)
        with pytest.raises(Conflict):
            await second


async def test_a_round_is_stored_once_however_often(subject: Subject) -> None:
    await subject.post()
    turn = await subject.claim()
    assert turn
    lease = Lease(turn_id=turn.id, token=turn.lease_token)
    step = Step(
        turn_id=turn.id,
        number=0,
        content="Yes.",
        tool_requests=(),
        finish_reason="tool_calls",
        model="m",
        usage=USAGE,
        created_at=subject.clock.now(),
    )
    for _ in range(2):
        async with subject.storage.write() as uow:
            conversation = await uow.conversations.find(turn.conversation_id)
            assert conversation
            await turns.store_step(uow, lease, step, [], conversation=conversation, text="Yes.")
    async with subject.storage.read() as uow:
        assert await uow.steps.of_turns([turn.id]) == [step]
        assert (await uow.usage.of_conversation(turn.conversation_id)).tokens_in == USAGE.tokens_in


async def test_rounds_that_said_no_more_than_their_reply_can_be_left_out(subject: Subject) -> None:
    """What the history of a long conversation is read without."""
    request = ToolRequest(call_id="c", name="n", arguments="{}")
    plain, thoughtful, worked, unfinished = [(await subject.post()).turn_id or new_id() for _ in range(4)]
    told = [
        _step(subject, thoughtful, 0, thinking=({"type": "thinking"},)),
        _step(subject, worked, 0, tool_requests=(request,)),
        _step(subject, worked, 1),
        _step(subject, unfinished, 0, tool_requests=(request,)),
    ]
    async with subject.storage.write() as uow:
        for step in (_step(subject, plain, 0), *told):
            await uow.steps.add(step)
    async with subject.storage.read() as uow:
        all_four = [unfinished, thoughtful, plain, worked]
        assert await uow.steps.of_turns(all_four, plain=False) == told
        assert len(await uow.steps.of_turns(all_four)) == len(told) + 1


def _step(subject: Subject, turn_id: UUID, number: int, **fields: Any) -> Step:
    known: dict[str, Any] = {"content": "Yes.", "tool_requests": (), "finish_reason": "stop", "model": "m", "usage": USAGE}
    return Step(turn_id=turn_id, number=number, created_at=subject.clock.now(), **{**known, **fields})


async def test_what_no_database_or_surface_can_hold_is_replaced_wherever_it_comes_from(subject: Subject) -> None:
    nasty, clean = "a\x00b\ud800c\\u0000🥛", "a\ufffdb\ufffdc\\u0000🥛"
    posted = await subject.post()
    turn = await subject.claim()
    assert turn
    step = Step(
        turn_id=turn.id,
        number=0,
        content=nasty,
        tool_requests=(ToolRequest(call_id=nasty, name=nasty, arguments=nasty),),
        finish_reason="tool_calls",
        model="m",
        usage=USAGE,
        thinking=({nasty: [nasty, {"deep": nasty}]},),
        created_at=subject.clock.now(),
    )
    call = ToolCall(
        turn_id=turn.id,
        step=0,
        index=0,
        name=nasty,
        arguments={nasty: nasty},
        state=ToolCallState.DONE,
        result=nasty,
        created_at=subject.clock.now(),
    )
    async with subject.storage.write() as uow:
        await uow.steps.add(step)
        await uow.tool_calls.put(call)
        await uow.messages.update(posted.message_id, content=nasty, metadata={"error": {"message": nasty}})
        await uow.turns.update(turn.id, error=nasty, model=nasty)
        message = await uow.messages.get(posted.message_id)
        assert message
        upload = Upload(name="x.txt", media_type=nasty, data=nasty.encode("utf-8", "surrogatepass"))
        await attachments.add(uow, message, [upload])
    async with subject.storage.read() as uow:
        assert await uow.users.by_name(nasty) is None
        assert await uow.tasks.by_ref(nasty, subject.admin) is None
        assert [each.id for each in await uow.messages.search(subject.admin, nasty, limit=5)] == [posted.message_id]
        found = await uow.messages.get(posted.message_id)
        [stored_step], [stored_call] = await uow.steps.of_turns([turn.id]), await uow.tool_calls.of_turns([turn.id])
        [file] = await uow.attachments.of_messages([posted.message_id])
        data = await uow.attachments.data(file.id)
    assert found
    assert (found.content, found.metadata) == (clean, {"error": {"message": clean}})
    assert (stored_step.content, stored_step.thinking) == (clean, ({clean: [clean, {"deep": clean}]},))
    assert stored_step.tool_requests == (ToolRequest(call_id=clean, name=clean, arguments=clean),)
    assert (stored_call.name, stored_call.arguments, stored_call.result) == (clean, {clean: clean}, clean)
    assert (file.media_type, data) == (clean, upload.data)
    after = await subject.get(posted)
    assert (after.model, after.error) == (clean, clean)


# --- what repositories promise ---


async def test_the_newest_summary_counts_and_those_that_tell_of_a_message_are_discarded(subject: Subject) -> None:
    here, elsewhere = (await subject.post()).conversation_id, (await subject.post()).conversation_id
    made = [_summary(subject, here, covers_to) for covers_to in (4, 8, 12)]
    async with subject.storage.write() as uow:
        for summary in (*made, _summary(subject, elsewhere, 12)):
            await uow.summaries.add(summary)
        assert await uow.summaries.latest(here) == made[2]
        assert not await uow.summaries.discard(here, 13)
        assert await uow.summaries.discard(here, 8)
        assert await uow.summaries.latest(here) == made[0]
        assert await uow.summaries.latest(elsewhere)


def _summary(subject: Subject, conversation_id: UUID, covers_to: int) -> Summary:
    now = subject.clock.now()
    return Summary(conversation_id=conversation_id, covers_to=covers_to, text="They spoke.", model="m", tokens=3, created_at=now)


async def test_the_inbox_takes_an_event_in_once(subject: Subject) -> None:
    entry = InboxEntry(key=InboxKey(source="s", scope="c", event_id="1"), body_sha256="x", result={"made": 1})
    async with subject.storage.write() as uow:
        assert await uow.inbox.add(entry, user_id=subject.admin.user_id, at=uow.now) is None
        again = await uow.inbox.add(replace(entry, body_sha256="y"), user_id=subject.kim.user_id, at=uow.now)
        assert again == entry
        assert await uow.inbox.add(replace(entry, key=replace(entry.key, scope="d")), user_id=subject.kim.user_id, at=uow.now) is None


async def test_messages_of_the_last_minute_are_found_without_those_of_tasks_and_of_others(subject: Subject) -> None:
    began, me = subject.clock.now(), subject.admin.user_id
    async with subject.storage.write() as uow:
        for second, (source, user_id) in enumerate([("s", me), ("s", subject.kim.user_id), (TASK_KEYS, me), ("s", me), ("s", me)]):
            entry = InboxEntry(key=InboxKey(source=source, scope="c", event_id=str(second)), body_sha256="x")
            await uow.inbox.add(entry, user_id=user_id, at=began + timedelta(seconds=second))
    async with subject.storage.read() as uow:
        found = [await uow.inbox.nth_last(me, n, since=began - timedelta(seconds=1)) for n in (1, 2, 3, 4)]
        assert found == [began + timedelta(seconds=4), began + timedelta(seconds=3), began, None]
        assert await uow.inbox.nth_last(me, 3, since=began) is None


async def test_tasks_are_paged_newest_first_without_gap_or_repetition(subject: Subject) -> None:
    async with subject.storage.write() as uow:
        for number in range(7):
            await tasks.create(uow, subject.admin, f"Task {number}", {"status": "done" if number % 2 else "todo"})
    async with subject.storage.read() as uow:
        seen, after = [], None
        for _ in range(4):
            page = await tasks.page(uow, subject.kim, TaskFilter(), after=after, limit=3)
            assert page.total == 7
            seen += [task.ref for task in page.tasks]
            after = page.next_cursor
            if after is None:
                break
        done = await tasks.page(uow, subject.kim, TaskFilter(statuses=frozenset({"done"}), query="task 5"))
    assert seen == [f"OT-{number}" for number in range(7, 0, -1)]
    assert [task.title for task in done.tasks] == ["Task 5"]


@pytest.mark.parametrize("query", ["100%", "a_c", "ÄPFEL", "back\\slash", "'"])
async def test_a_search_takes_its_words_literally(subject: Subject, query: str) -> None:
    async with subject.storage.write() as uow:
        for title in ("100% sure", "a_c", "abc", "1000", "Äpfel", "back\\slash", "it's"):
            await tasks.create(uow, subject.admin, title)
        found = await uow.tasks.page(subject.admin, TaskFilter(query=query), after=None, limit=10)
    assert [task.title for task in found] == {
        "100%": ["100% sure"],
        "a_c": ["a_c"],
        "ÄPFEL": ["Äpfel"],
        "back\\slash": ["back\\slash"],
        "'": ["it's"],
    }[query]


async def test_a_changed_task_is_refused_its_old_version(subject: Subject) -> None:
    async with subject.storage.write() as uow:
        task = await tasks.create(uow, subject.admin, "Buy milk")
        assert await uow.tasks.update(task.id, task.version, title="Buy bread")
        assert await uow.tasks.update(task.id, task.version, title="Buy eggs") is None
        found = await uow.tasks.get(task.id, subject.admin)
    assert found
    assert (found.title, found.version) == ("Buy bread", 2)


async def test_task_numbers_are_never_used_again(subject: Subject) -> None:
    async with subject.storage.write() as uow:
        for ref in ("OT-1", "OT-2"):
            assert (await tasks.create(uow, subject.admin, "x")).ref == ref
        await tasks.delete(uow, subject.admin, "OT-2")
        assert (await tasks.create(uow, subject.admin, "y")).ref == "OT-3"


async def test_deleting_a_conversation_takes_all_with_it_except_the_ledger(subject: Subject) -> None:
    posted = await subject.post()
    async with subject.storage.write() as uow:
        conversation = await uow.conversations.find(posted.conversation_id)
        assert conversation
        entry = UsageEntry(
            id=new_id(),
            user_id=subject.admin.user_id,
            conversation_id=conversation.id,
            task_id=None,
            project_id=conversation.project_id,
            model="m",
            usage=USAGE,
            at=uow.now,
        )
        await uow.usage.add(entry)
        await uow.conversations.delete(conversation.id)
    assert posted.turn_id
    async with subject.storage.read() as uow:
        assert await uow.messages.get(posted.message_id) is None
        assert await uow.turns.get(posted.turn_id) is None
        assert (await uow.usage.of_conversation(conversation.id)).cost == Decimal("0.0010")


async def test_an_unknown_price_makes_the_sum_unknown(subject: Subject) -> None:
    posted = await subject.post()
    async with subject.storage.write() as uow:
        conversation = await uow.conversations.find(posted.conversation_id)
        assert conversation
        for cost in (Decimal("0.1"), None, Decimal("0.2")):
            entry = UsageEntry(
                id=new_id(),
                user_id=subject.admin.user_id,
                conversation_id=conversation.id,
                task_id=None,
                project_id=conversation.project_id,
                model="m",
                usage=replace(USAGE, cost=cost),
                at=uow.now,
            )
            await uow.usage.add(entry)
        usage = await uow.usage.of_conversation(conversation.id)
    assert (usage.tokens_in, usage.cost) == (30, None)


async def test_pruning_removes_what_is_old_and_keeps_the_rest(subject: Subject) -> None:
    await subject.post()
    subject.clock.advance(8 * 86_400)
    fresh = await subject.post()

    removed = await subject.storage.prune(subject.clock.now())

    assert removed["inbox"] == 1
    assert bool(removed["changes"]) == subject.keeps_changes
    assert (await subject.get(fresh)).status is TurnStatus.QUEUED
    assert (await subject.storage.prune(subject.clock.now()))["inbox"] == 0


async def test_unused_conversations_are_pruned_with_their_finished_tasks_and_used_ones_are_not(subject: Subject) -> None:
    waiting = await subject.post()
    async with subject.storage.write() as uow:
        finished = [await tasks.create(uow, subject.admin, "x", {"status": "done"}) for _ in range(25)]
        unfinished = await tasks.create(uow, subject.admin, "y")
        chat = await conversations.create(uow, subject.kim)
    subject.clock.advance(31 * 86_400)
    fresh = await subject.post()
    kept = timedelta(days=30)

    assert (await retention.prunable(subject.storage, subject.clock, kept))["conversations"] == 26
    assert (await retention.prune(subject.storage, subject.clock, kept))["conversations"] == 26

    async with subject.storage.read() as uow:
        for gone in (finished[0].conversation_id, finished[24].conversation_id, chat.id):
            assert await uow.conversations.find(gone) is None
        assert [task.ref for task in await uow.tasks.page(subject.admin, TaskFilter(), after=None, limit=50)] == [unfinished.ref]
        for each in (waiting.conversation_id, fresh.conversation_id):
            assert await uow.conversations.find(each)


async def test_archived_conversations_are_paged_and_counted_apart(subject: Subject) -> None:
    posts = [await subject.post() for _ in range(3)]
    async with subject.storage.write() as uow:
        await conversations.archive(uow, subject.admin, posts[1].conversation_id)
        listed = await conversations.page(uow, subject.admin)
        archived = await conversations.page(uow, subject.admin, archived=True)
    assert ({each.id for each in listed.conversations}, listed.total) == ({posts[0].conversation_id, posts[2].conversation_id}, 2)
    assert ([each.id for each in archived.conversations], archived.total) == ([posts[1].conversation_id], 1)


async def test_a_draft_whose_turn_is_held_is_written_later(subject: Subject) -> None:
    posted = await subject.post()
    turn = await subject.claim()
    assert turn
    lease = Lease(turn_id=turn.id, token=turn.lease_token)
    drafts = Drafts(subject.storage, subject.live)
    stream = drafts.open(turn, turn.stream_no, "")
    stream.write("Half")
    async with subject.storage.write() as uow:
        await uow.turns.extend([lease], subject.clock.now() + timedelta(seconds=60))
        checkpoint = asyncio.create_task(drafts._checkpoint())
        await asyncio.wait({checkpoint}, timeout=0.2)
    await checkpoint
    await drafts._checkpoint()
    stream.close()
    async with subject.storage.read() as uow:
        reply = await uow.messages.get(posted.reply_id or new_id())
    assert reply
    assert reply.content == "Half"


async def test_posting_into_a_conversation_that_is_being_deleted_finds_nothing(subject: Subject) -> None:
    posted = await subject.post()
    async with subject.storage.write() as uow:
        await conversations.delete(uow, subject.admin, posted.conversation_id)
        posting = asyncio.create_task(subject.post(posted.conversation_id))
        await asyncio.wait({posting}, timeout=0.3)
    with pytest.raises((NotFound, Conflict)):
        await posting
