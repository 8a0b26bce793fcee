"""What chat platforms ask of each database: who is who, what is shown where, what was delivered, what came in, and who may act."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from statistics import median
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.engine import URL

from core import bindings, conversations, identity, messages, projects, tasks, turns
from core.access import Principal
from core.errors import Conflict, LeaseLost, NotFound
from core.ids import new_id
from core.live import LiveEvents
from core.messages import PostingRules
from core.models import (
    CARD,
    JSON,
    TO_ARRANGE,
    Account,
    AccountLease,
    Binding,
    BindingCheck,
    BindingMode,
    ChannelKind,
    Conversation,
    Delivery,
    DeliveryState,
    Identity,
    InboundEvent,
    Message,
    MessageStatus,
    Place,
    Posted,
    Role,
)
from core.ports import Storage, UnitOfWork
from storage.engine import engines, is_postgres
from storage.unit_of_work import Database
from tests.databases import NewDatabase, on_both
from tests.fakes import ManualClock

new_database = on_both
TEAM = Account(surface="slack", id="T1")
OTHER_TEAM = Account(surface="slack", id="T2")
RULES = PostingRules(default_model="one/model")
SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Subject:
    """One database as two processes see it."""

    url: URL
    processes: tuple[Storage, Storage]
    clock: ManualClock
    admin: Principal

    @property
    def storage(self) -> Storage:
        return self.processes[0]

    async def chat(self) -> Conversation:
        async with self.storage.write() as uow:
            return await conversations.create(uow, self.admin)

    async def bound(self, conversation_id: UUID, thread: str = "1.0", **changes: Any) -> Binding:
        async with self.storage.write() as uow:
            binding = await bindings.bind(uow, self.admin, conversation_id, _place(thread=thread))
            if changes:
                await uow.bindings.update(binding.id, **changes)
            return replace(binding, **changes)

    async def post(self, conversation_id: UUID) -> Posted:
        async with self.storage.write() as uow:
            return await messages.post(uow, self.admin, conversation_id, "Hello", rules=RULES, source="test")

    async def say(self, conversation_id: UUID, number: int, binding: Binding | None = None) -> None:
        """Messages that want no answer, delivered to the binding."""
        async with self.storage.write() as uow:
            first = await uow.conversations.take_seqs(conversation_id, number)
            said = [_message(conversation_id, seq, self.admin.user_id, uow.now) for seq in range(first, first + number)]
            await uow.messages.add(*said)
            if binding:
                await uow.deliveries.put(*(_delivery(binding, str(each.id), message_id=each.id, at=uow.now) for each in said))

    async def has_statistics(self) -> None:
        """PostgreSQL gathers them by itself after a while."""
        writer, reader = engines(self.url)
        if is_postgres(self.url):
            async with writer.begin() as connection:
                await connection.exec_driver_sql("ANALYZE")
        await writer.dispose()
        await reader.dispose()

    async def deliver(self, binding: Binding, item: UUID, **fields: Any) -> Delivery:
        """Notes a message's delivery as final, with the message's present revision, unless `fields` say something else."""
        async with self.storage.write() as uow:
            message = await uow.messages.get(item)
            delivery = _delivery(binding, str(item), message_id=item, revision=message.revision if message else 0, at=uow.now)
            delivery = replace(delivery, **fields)
            await uow.deliveries.put(delivery)
        return delivery

    async def behind(self, account: Account = TEAM) -> list[UUID]:
        async with self.storage.read() as uow:
            return await uow.bindings.behind(account)

    async def take(self, owner: UUID, process: int = 0, account: Account = TEAM) -> AccountLease | None:
        async with self.processes[process].write() as uow:
            return await uow.account_leases.take(account, owner, until=uow.now + 30 * SECOND, now=uow.now)

    async def receive(self, key: str, lane: str = "C1:1.0", payload: JSON | None = None, account: Account = TEAM) -> InboundEvent:
        now = self.clock.now()
        event = InboundEvent(
            id=new_id(),
            surface=account.surface,
            account=account.id,
            key=key,
            lane=lane,
            payload={"text": key} if payload is None else payload,
            attempts=0,
            run_after=now,
            waits=False,
            received_at=now,
        )
        async with self.storage.write() as uow:
            assert await uow.inbound.add(event)
        return event

    async def waiting(self, limit: int = 100, account: Account = TEAM) -> list[str]:
        async with self.storage.read() as uow:
            return [event.key for event in await uow.inbound.waiting(account, self.clock.now(), limit=limit)]

    async def write(self, work: Callable[[UnitOfWork], Awaitable[Any]]) -> Any:
        async with self.storage.write() as uow:
            return await work(uow)


@asynccontextmanager
async def _process(url: URL, clock: ManualClock) -> AsyncIterator[Storage]:
    writer, reader = engines(url)
    storage = Database(writer=writer, reader=reader, live=LiveEvents(), clock=clock, process_id=new_id())
    try:
        yield storage
    finally:
        await storage.close()


@pytest.fixture
async def subject(new_database: NewDatabase) -> AsyncIterator[Subject]:
    clock = ManualClock()
    async with new_database() as url, AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(_process(url, clock)) for _ in range(2)]
        async with one.write() as uow:
            await projects.default(uow)
            admin = identity.principal_of(await identity.local_admin(uow))
        yield Subject(url, (one, other), clock, admin)


def _place(channel: str = "C1", thread: str = "1.0", account: Account = TEAM) -> Place:
    return Place(account=account, channel=channel, thread=thread)


def _message(conversation_id: UUID, seq: int, author_id: UUID, at: datetime) -> Message:
    return Message(
        id=new_id(),
        conversation_id=conversation_id,
        turn_id=None,
        seq=seq,
        role=Role.USER,
        author_id=author_id,
        content="Hello",
        status=MessageStatus.COMPLETED,
        revision=1,
        metadata={},
        source="test",
        created_at=at,
        updated_at=at,
    )


def _delivery(binding: Binding, item: str, *, at: Any, message_id: UUID | None = None, revision: int = 1) -> Delivery:
    return Delivery(
        binding_id=binding.id,
        item=item,
        part=0,
        message_id=message_id,
        revision=revision,
        remote_id=item[-12:],
        nonce=new_id(),
        state=DeliveryState.FINAL,
        end=None,
        shown="",
        sent_at=at,
    )


# --- identities ---


async def test_a_person_is_known_in_their_own_account_only(subject: Subject) -> None:
    async with subject.storage.write() as uow:
        alice, known = await identity.meet(uow, TEAM, "U1", "Alice")
        bob, elsewhere = await identity.meet(uow, OTHER_TEAM, "U1", "Bob")
    async with subject.storage.read() as uow:
        assert await uow.identities.get(TEAM, "U1") == known
        assert await uow.identities.get(OTHER_TEAM, "U1") == elsewhere
        assert await uow.identities.get(Account(surface="discord", id="T1"), "U1") is None
        assert await uow.identities.all(TEAM) == [known]
        assert {each.user_id for each in await uow.identities.all()} == {alice.id, bob.id}
        assert await uow.identities.of_users(TEAM, [alice.id, bob.id]) == [known]
        assert await uow.identities.of_users(TEAM, []) == []
        assert await uow.identities.of_users(OTHER_TEAM, [alice.id, bob.id]) == [elsewhere]


async def test_a_person_who_comes_to_two_processes_at_once_becomes_one_user(subject: Subject) -> None:
    async def meet(storage: Storage) -> UUID:
        async with storage.write() as uow:
            return (await identity.meet(uow, TEAM, "U1", "Alice"))[0].id

    async with asyncio.timeout(30):
        met = await asyncio.gather(*(meet(storage) for storage in subject.processes * 5), return_exceptions=True)

    found = {each for each in met if isinstance(each, UUID)}
    assert len(found) == 1
    assert all(isinstance(each, UUID | Conflict) for each in met)
    async with subject.storage.read() as uow:
        assert [user.name for user in await uow.users.all()] == ["admin", "alice"]
        assert len(await uow.identities.all(TEAM)) == 1


# --- bindings ---


async def test_a_place_shows_one_conversation(subject: Subject) -> None:
    first, second = await subject.chat(), await subject.chat()
    binding = await subject.bound(first.id)
    with pytest.raises(Conflict, match="This place shows another conversation already"):
        await subject.bound(second.id)
    await subject.bound(second.id, thread="2.0")
    async with subject.storage.read() as uow:
        assert await uow.bindings.at(_place()) == binding
        assert await uow.bindings.at(_place(channel="C2")) is None
        assert await uow.bindings.at(_place(account=OTHER_TEAM)) is None
        assert await uow.bindings.of_conversation(first.id) == [binding]


async def test_a_place_is_not_opened_where_another_conversation_is_shown_by_then(subject: Subject) -> None:
    unopened = await subject.bound((await subject.chat()).id, "new-1", opened=False)
    await subject.bound((await subject.chat()).id, "1.0")
    with pytest.raises(Conflict, match="Another conversation is shown at this place"):
        await subject.write(lambda uow: uow.bindings.update(unopened.id, thread="1.0", opened=True))
    async with subject.storage.read() as uow:
        assert await uow.bindings.get(unopened.id) == unopened


async def test_of_two_who_open_a_place_the_first_says_where_it_is(subject: Subject) -> None:
    unopened = await subject.bound((await subject.chat()).id, "1.0", opened=False)
    opened = replace(unopened, opened=True, thread="7.0", arranged=TO_ARRANGE)
    for thread, arranged in (("7.0", TO_ARRANGE), ("1.0", "open OT-1")):
        assert replace(await subject.write(partial(_open, unopened, thread, arranged)), updated_at=opened.updated_at) == opened
    await subject.bound((await subject.chat()).id, "2.0")
    other = await subject.bound((await subject.chat()).id, "new-1", opened=False)
    with pytest.raises(Conflict, match="Another conversation is shown at this place"):
        await subject.write(partial(_open, other, "2.0", ""))


async def _open(binding: Binding, thread: str, arranged: str, uow: UnitOfWork) -> Binding | None:
    return await uow.bindings.open(binding.id, thread, arranged)


async def test_of_two_processes_that_bind_a_place_at_once_one_does(subject: Subject) -> None:
    chats = [await subject.chat() for _ in range(6)]

    async def bind(storage: Storage, conversation: Conversation) -> Binding:
        async with storage.write() as uow:
            return await bindings.bind(uow, subject.admin, conversation.id, _place())

    async with asyncio.timeout(30):
        pairs = zip(subject.processes * 3, chats, strict=True)
        ended = await asyncio.gather(*(bind(*pair) for pair in pairs), return_exceptions=True)

    assert sorted(type(each).__name__ for each in ended) == ["Binding"] + ["Conflict"] * 5


async def test_a_binding_goes_with_its_conversation_and_takes_its_deliveries_along(subject: Subject) -> None:
    chat = await subject.chat()
    binding, posted = await subject.bound(chat.id), await subject.post(chat.id)
    await subject.deliver(binding, posted.message_id)
    async with subject.storage.write() as uow:
        await conversations.delete(uow, subject.admin, chat.id)
    async with subject.storage.read() as uow:
        assert await uow.bindings.get(binding.id) is None
        assert await uow.deliveries.of_binding(binding.id, [str(posted.message_id)]) == []


async def test_nothing_is_delivered_to_what_ended_or_is_off(subject: Subject) -> None:
    shown, watching, over, off = [await subject.chat() for _ in range(4)]
    await subject.post(off.id)
    await subject.post(over.id)
    expected = [await subject.bound(shown.id, "1.0"), await subject.bound(watching.id, "2.0", mode=BindingMode.WATCH)]
    await subject.bound(over.id, "3.0", ended="is_archived")
    await subject.bound(off.id, "4.0", mode=BindingMode.OFF, cursor=2, until=2)
    async with subject.storage.read() as uow:
        assert await uow.bindings.of_account(TEAM) == expected
        assert await uow.bindings.of_account(OTHER_TEAM) == []
    assert await subject.behind() == []


async def test_a_place_that_was_left_has_the_last_word_still_delivered(subject: Subject) -> None:
    chat = await subject.chat()
    await subject.post(chat.id)
    left = await subject.bound(chat.id, mode=BindingMode.OFF, cursor=1, until=2)
    await subject.bound(chat.id, "2.0", mode=BindingMode.OFF, cursor=1, until=2, ended="is_archived")
    async with subject.storage.read() as uow:
        assert await uow.bindings.of_account(TEAM) == [left]
    assert await subject.behind() == [left.id]


async def test_what_is_known_of_a_place_is_kept_and_goes_when_it_is_removed(subject: Subject) -> None:
    first, second = await subject.chat(), await subject.chat()
    posted = await subject.post(first.id)
    told: dict[str, Any] = {"kind": ChannelKind.OPEN, "label": "#ops", "url": "https://example.com/1", "followed": True}
    binding = await subject.bound(first.id, check=BindingCheck.PERSON, cursor=2, **told)
    plain = await subject.bound(second.id, "2.0", kind=None)
    former = await subject.bound(second.id, "was-3.0", mode=BindingMode.OFF)
    await subject.deliver(binding, posted.message_id)
    async with subject.storage.read() as uow:
        assert await uow.bindings.of_conversations([second.id, first.id]) == [binding, plain]
        assert await uow.bindings.of_conversations([]) == []
        assert await uow.bindings.get(former.id) == former
    assert await subject.behind() == [binding.id]  # it is to be checked
    await subject.write(lambda uow: uow.bindings.remove(binding.id))
    async with subject.storage.read() as uow:
        assert await uow.bindings.at(_place()) is None
        assert await uow.deliveries.of_binding(binding.id, [str(posted.message_id)]) == []


async def test_of_two_who_change_a_place_at_once_both_are_told_and_one_is_last(subject: Subject) -> None:
    async with subject.storage.write() as uow:
        task = await tasks.create(uow, subject.admin, "Buy milk")

    async def follow(storage: Storage, mode: BindingMode) -> Binding:
        async with storage.write() as uow:
            how: Any = {"mode": mode, "kind": ChannelKind.OPEN, "source": "test"}
            return await bindings.follow(uow, subject.admin, task.conversation_id, _place(), **how)

    async with asyncio.timeout(30):
        modes = (BindingMode.TWO_WAY, BindingMode.WATCH)
        await asyncio.gather(*(follow(storage, mode) for storage in subject.processes for mode in modes))
    async with subject.storage.read() as uow:
        found = await uow.bindings.of_conversation(task.conversation_id)
        told = await uow.messages.since(task.conversation_id, 1)
    assert len(found) == 1
    notices = [each.metadata["notice"] for each in told]
    assert notices == ["followed"] + ["mode"] * (len(told) - 1)
    last = "read-only" if found[0].mode is BindingMode.WATCH else "on." if len(told) == 1 else "opened"
    assert last in told[-1].content


# --- what needs a writer ---


async def test_a_binding_at_its_end_needs_no_writer(subject: Subject) -> None:
    chat = await subject.chat()
    posted = await subject.post(chat.id)
    binding = await subject.bound(chat.id, cursor=2)
    for message_id in (posted.message_id, posted.reply_id):
        assert message_id
        await subject.deliver(binding, message_id)
    assert await subject.behind() == []


async def test_messages_beyond_the_cursor_need_a_writer(subject: Subject) -> None:
    chat = await subject.chat()
    binding = await subject.bound(chat.id)
    assert await subject.behind() == []
    await subject.post(chat.id)
    assert await subject.behind() == [binding.id]
    assert await subject.behind(OTHER_TEAM) == []
    await subject.write(lambda uow: uow.bindings.update(binding.id, cursor=1))
    assert await subject.behind() == [binding.id]
    await subject.write(lambda uow: uow.bindings.update(binding.id, cursor=2))
    assert await subject.behind() == []


@pytest.mark.parametrize("state", [DeliveryState.SENDING, DeliveryState.LIVE])
async def test_a_delivery_that_is_not_final_needs_a_writer(subject: Subject, state: DeliveryState) -> None:
    chat = await subject.chat()
    posted = await subject.post(chat.id)
    binding = await subject.bound(chat.id, cursor=2)
    delivery = await subject.deliver(binding, posted.message_id, state=state)
    assert await subject.behind() == [binding.id]
    async with subject.storage.read() as uow:
        assert await uow.deliveries.unsettled(binding.id) == [delivery]


@pytest.mark.parametrize(("state", "needs"), [(DeliveryState.FINAL, True), (DeliveryState.CLOSED, True), (DeliveryState.THEIRS, False)])
async def test_a_message_that_changed_since_it_was_delivered_needs_a_writer(subject: Subject, state: DeliveryState, needs: bool) -> None:
    chat = await subject.chat()
    posted = await subject.post(chat.id)
    binding = await subject.bound(chat.id, cursor=2)
    delivery = await subject.deliver(binding, posted.message_id, state=state)
    assert await subject.behind() == []
    async with subject.storage.write() as uow:
        await messages.edit(uow, subject.admin, posted.message_id, "Hello again", rules=RULES)
    assert await subject.behind() == [binding.id] * needs
    async with subject.storage.read() as uow:
        assert await uow.deliveries.unsettled(binding.id) == [delivery] * needs


async def test_a_deleted_message_needs_a_writer(subject: Subject) -> None:
    chat = await subject.chat()
    posted = await subject.post(chat.id)
    binding = await subject.bound(chat.id, cursor=2)
    await subject.deliver(binding, posted.message_id)
    await subject.write(lambda uow: messages.delete(uow, subject.admin, posted.message_id))
    assert await subject.behind() == [binding.id]


async def test_an_unopened_place_and_a_status_that_is_shown_need_a_writer(subject: Subject) -> None:
    unopened = await subject.bound((await subject.chat()).id, "1.0", opened=False)
    busy = await subject.bound((await subject.chat()).id, "2.0", status_shown=True)
    assert await subject.behind() == [unopened.id, busy.id]


async def test_a_card_that_is_missing_or_older_than_its_task_needs_a_writer(subject: Subject) -> None:
    async with subject.storage.write() as uow:
        task = await tasks.create(uow, subject.admin, "Buy milk")
    binding = await subject.bound(task.conversation_id)
    assert await subject.behind() == [binding.id]
    now = subject.clock.now()
    await subject.write(lambda uow: uow.deliveries.put(_delivery(binding, CARD, revision=task.version, at=now)))
    assert await subject.behind() == []
    await subject.write(lambda uow: tasks.update(uow, subject.admin, task.ref, {"status": "done"}))
    assert await subject.behind() == [binding.id]


async def test_a_revision_is_noted_beside_what_somebody_else_noted_meanwhile(subject: Subject) -> None:
    chat = await subject.chat()
    posted, binding = await subject.post(chat.id), await subject.bound(chat.id)
    read = await subject.deliver(binding, posted.message_id, state=DeliveryState.THEIRS, shown="a" * 64)
    edited = await subject.deliver(binding, posted.message_id, state=DeliveryState.THEIRS, shown="b" * 64)
    await subject.write(lambda uow: uow.deliveries.revise(binding.id, read.item, read.revision + 1))
    [found] = await subject.write(lambda uow: uow.deliveries.of_binding(binding.id, [read.item]))
    assert found == replace(edited, revision=read.revision + 1)


async def test_where_a_conversation_is_followed_what_was_said_before_may_be_quoted_and_needs_a_writer_when_it_is_changed(
    subject: Subject,
) -> None:
    chat = await subject.chat()
    posted = await subject.post(chat.id)
    await subject.write(lambda uow: turns.cancel_all(uow, chat.id))
    bound = [await subject.bound(chat.id, thread, cursor=2, followed=followed) for thread, followed in (("1.0", True), ("2.0", False))]
    assert await subject.behind() == []
    subject.clock.advance(1)
    await subject.write(lambda uow: messages.edit(uow, subject.admin, posted.message_id, "Hello again", rules=RULES))
    assert await subject.behind() == [bound[0].id]
    subject.clock.advance(1)
    await subject.write(lambda uow: uow.bindings.update(bound[0].id, cursor=2))
    assert await subject.behind() == []


async def test_a_message_whose_turn_went_on_since_needs_a_writer(subject: Subject) -> None:
    chat = await subject.chat()
    first, _ = await subject.post(chat.id), await subject.post(chat.id)
    binding = await subject.bound(chat.id, cursor=4)
    asked = await subject.deliver(binding, first.message_id)
    assert first.turn_id
    turn_id = first.turn_id
    assert await subject.behind() == []
    await subject.write(lambda uow: turns.cancel(uow, subject.admin, turn_id))
    assert await subject.behind() == [binding.id]
    async with subject.storage.read() as uow:
        assert await uow.deliveries.unsettled(binding.id) == [asked]


@pytest.mark.parametrize(
    ("change", "as_delivered"), [("edit", {}), ("delete", {}), ("edit", {"state": DeliveryState.THEIRS, "shown": "what they wrote"})]
)
async def test_a_message_that_is_changed_long_afterwards_needs_a_writer(subject: Subject, change: str, as_delivered: JSON) -> None:
    chat, posted = await subject.chat(), []
    for _ in range(2):
        posted.append(await subject.post(chat.id))
        await subject.write(lambda uow: turns.cancel_all(uow, chat.id))
    binding = await subject.bound(chat.id, cursor=4)
    old = await subject.deliver(binding, posted[0].message_id, **as_delivered)
    await subject.say(chat.id, 100)
    await subject.write(lambda uow: uow.bindings.update(binding.id, cursor=104))
    assert await subject.behind() == []
    async with subject.storage.write() as uow:
        if change == "edit":
            await messages.edit(uow, subject.admin, posted[0].message_id, "Hello again", rules=RULES)
        else:
            await messages.delete(uow, subject.admin, posted[0].message_id)
    assert await subject.behind() == [binding.id]
    async with subject.storage.read() as uow:
        assert await uow.deliveries.unsettled(binding.id) == [old]


async def test_the_last_turn_may_be_answered_again_long_afterwards(subject: Subject) -> None:
    chat = await subject.chat()
    posted = await subject.post(chat.id)
    await subject.write(lambda uow: turns.cancel_all(uow, chat.id))
    binding = await subject.bound(chat.id, cursor=2)
    assert posted.reply_id
    assert posted.turn_id
    turn_id, reply = posted.turn_id, await subject.deliver(binding, posted.reply_id)
    await subject.say(chat.id, 100)
    await subject.write(lambda uow: uow.bindings.update(binding.id, cursor=102))
    await subject.write(lambda uow: messages.retry(uow, subject.admin, turn_id, rules=RULES, source="test"))
    async with subject.storage.read() as uow:
        assert await uow.deliveries.unsettled(binding.id) == [reply]
    assert await subject.behind() == [binding.id]


async def test_what_is_unsettled_is_found_as_quickly_behind_thousands_of_messages(subject: Subject) -> None:
    """It is looked for after every change of a conversation."""
    bound = []
    for number, said in enumerate((100, 3_000)):
        chat = await subject.chat()
        binding = await subject.bound(chat.id, f"{number}.0", cursor=said)
        await subject.say(chat.id, said, binding)
        bound.append(binding)
    await subject.has_statistics()

    async def seconds(binding: Binding) -> float:
        async with subject.storage.read() as uow:
            began = time.perf_counter()
            assert await uow.deliveries.unsettled(binding.id) == []
            return time.perf_counter() - began

    few, many = [median([await seconds(binding) for _ in range(21)]) for binding in bound]
    assert many < 4 * few


async def test_a_revived_place_begins_with_what_waits_for_an_answer(subject: Subject) -> None:
    answered, asking = await subject.chat(), await subject.chat()
    ended = []
    for thread, chat in (("1.0", answered), ("2.0", asking)):
        async with subject.storage.write() as uow:
            await messages.post(uow, subject.admin, chat.id, "Hello", rules=RULES, source="test")
            await turns.cancel_all(uow, chat.id)
        ended.append(await subject.bound(chat.id, thread, ended="gone", cursor=0))
    await subject.post(asking.id)
    async with subject.storage.write() as uow:
        for binding in ended:
            await bindings.revive(uow, binding)
    async with subject.storage.read() as uow:
        revived = [await uow.bindings.get(binding.id) for binding in ended]
    assert [(each.ended, each.cursor) for each in revived if each] == [(None, 2), (None, 2)]
    assert await subject.behind() == [each.id for each in ended]  # each is told that it goes on


# --- deliveries ---


async def test_a_delivery_noted_again_takes_the_place_of_the_first(subject: Subject) -> None:
    chat = await subject.chat()
    posted, binding = await subject.post(chat.id), await subject.bound(chat.id)
    first = await subject.deliver(binding, posted.message_id, state=DeliveryState.SENDING, remote_id=None)
    second = await subject.deliver(binding, posted.message_id, part=1, remote_id=None)
    first = replace(first, state=DeliveryState.CLOSED, remote_id="7.0", end=3_000, shown="a" * 64)
    await subject.write(lambda uow: uow.deliveries.put(first))
    async with subject.storage.write() as uow:
        assert await uow.deliveries.of_binding(binding.id, [str(posted.message_id), "else"]) == [first, second]
        assert await uow.deliveries.of_binding(binding.id, []) == []
        await uow.deliveries.remove(binding.id, first.item, 0)
        assert await uow.deliveries.of_binding(binding.id, [first.item]) == [second]


async def test_a_remote_message_is_found_in_its_channel_whatever_its_thread(subject: Subject) -> None:
    chat = await subject.chat()
    posted, binding = await subject.post(chat.id), await subject.bound(chat.id)
    delivery = await subject.deliver(binding, posted.message_id, remote_id="7.0")
    async with subject.storage.read() as uow:
        assert await uow.deliveries.at(_place(thread=""), "7.0") == delivery
        assert await uow.deliveries.at(_place(channel="C2"), "7.0") is None
        assert await uow.deliveries.at(_place(account=OTHER_TEAM), "7.0") is None
        assert await uow.deliveries.at(_place(), "8.0") is None


async def test_what_is_known_in_a_channel_is_found_as_quickly_behind_thousands_of_messages(subject: Subject) -> None:
    chat = await subject.chat()
    bound = [await subject.bound(chat.id, f"{number}.0") for number in range(100)]
    elsewhere = await subject.bound(chat.id, "new-1", channel="C2")

    async def known(since: datetime) -> tuple[set[str], float]:
        async with subject.storage.read() as uow:
            began = time.perf_counter()
            return await uow.deliveries.known_since(TEAM, "C1", since), time.perf_counter() - began

    async def seconds_behind(items: Iterable[int]) -> float:
        old = [_delivery(each, str(number), at=subject.clock.now()) for each in bound for number in items]
        subject.clock.advance(600)
        now = subject.clock.now()
        theirs = replace(_delivery(bound[0], "theirs", at=now), state=DeliveryState.THEIRS)
        unsent = replace(_delivery(bound[1], "unsent", at=now), remote_id=None)
        new = [_delivery(bound[0], "new", at=now), theirs, unsent, _delivery(elsewhere, "elsewhere", at=now)]
        await subject.write(lambda uow: uow.deliveries.put(*old, *new))
        await subject.has_statistics()
        took = [await known(now) for _ in range(11)]
        assert all(ids == {"new", "theirs"} for ids, _ in took)
        return min(seconds for _, seconds in took)

    few, many = await seconds_behind(range(1)), await seconds_behind(range(1, 31))
    assert many < 10 * few, "of 31 times as many"


async def test_a_remote_message_belongs_to_one_item_of_a_place(subject: Subject) -> None:
    chat = await subject.chat()
    posted, binding = await subject.post(chat.id), await subject.bound(chat.id)
    await subject.deliver(binding, posted.message_id, remote_id="7.0")
    with pytest.raises(Exception, match=r"(?i)unique"):
        await subject.deliver(binding, posted.message_id, part=1, remote_id="7.0")


# --- what comes in ---


async def test_an_event_that_is_told_again_is_there_once(subject: Subject) -> None:
    event = await subject.receive("message:C1:1.0")
    async with subject.processes[1].write() as uow:
        assert not await uow.inbound.add(replace(event, id=new_id()))
        assert await uow.inbound.add(replace(event, id=new_id(), account="T2"))
    assert await subject.waiting() == ["message:C1:1.0"]


async def test_an_event_that_was_not_taken_in_is_completed_by_one_that_tells_more(subject: Subject) -> None:
    waiting, done = await subject.receive("message:C1:1.0"), await subject.receive("message:C1:2.0")
    await subject.write(lambda uow: uow.inbound.done(done.id, uow.now))
    more = {"text": "hi", "files": [1]}
    async with subject.storage.write() as uow:
        for event in (waiting, done):
            await uow.inbound.complete(replace(event, id=new_id(), payload=more))
        await uow.inbound.complete(replace(waiting, account="T2", payload={}))
    async with subject.storage.read() as uow:
        found = [await uow.inbound.get(each.id) for each in (waiting, done)]
    assert [each.payload for each in found if each] == [more, {}]


async def test_events_wait_in_the_order_in_which_they_came(subject: Subject) -> None:
    for number in range(5):
        await subject.receive(f"event {number}", lane=f"lane {number % 2}")
    assert await subject.waiting(limit=3) == ["event 0", "event 1", "event 2"]
    assert await subject.waiting(account=OTHER_TEAM) == []


async def test_of_more_events_than_are_asked_for_every_lane_has_its_turn(subject: Subject) -> None:
    for number in range(5):
        await subject.receive(f"busy {number}", lane="busy")
    await subject.receive("quiet", lane="quiet")
    assert await subject.waiting(limit=3) == ["busy 0", "busy 1", "quiet"]
    assert await subject.waiting(limit=1) == ["busy 0"]


async def test_an_event_that_is_tried_again_later_holds_up_those_behind_it_in_its_lane(subject: Subject) -> None:
    first = await subject.receive("first")
    for key, lane in (("second", "C1:1.0"), ("elsewhere", "C1:2.0")):
        await subject.receive(key, lane=lane)
    await subject.receive("first", account=OTHER_TEAM)
    later = subject.clock.now() + 10 * SECOND
    await subject.write(lambda uow: uow.inbound.later(first.id, later, attempts=1, waits=False))
    assert await subject.waiting() == ["elsewhere"]
    assert await subject.waiting(account=OTHER_TEAM) == ["first"]
    subject.clock.advance(10)
    assert await subject.waiting() == ["first", "second", "elsewhere"]
    await subject.write(lambda uow: uow.inbound.done(first.id, uow.now))
    assert await subject.waiting() == ["second", "elsewhere"]


async def test_an_event_does_not_hold_up_those_before_it_nor_others_once_it_is_done(subject: Subject) -> None:
    await subject.receive("first")
    second = await subject.receive("second")
    await subject.receive("third")
    later = subject.clock.now() + 10 * SECOND
    await subject.write(lambda uow: uow.inbound.later(second.id, later, attempts=1, waits=False))
    assert await subject.waiting() == ["first"]
    await subject.write(lambda uow: uow.inbound.done(second.id, uow.now))
    assert await subject.waiting() == ["first", "third"]


async def test_an_event_that_waits_for_another_lets_that_one_pass(subject: Subject) -> None:
    reply = await subject.receive("reply")
    await subject.receive("mention")
    later = subject.clock.now() + SECOND
    await subject.write(lambda uow: uow.inbound.later(reply.id, later, attempts=0, waits=True))
    assert await subject.waiting() == ["mention"]


async def test_what_was_taken_in_is_kept_without_its_payload_for_a_week(subject: Subject) -> None:
    done, waiting = await subject.receive("done"), await subject.receive("waiting")
    await subject.write(lambda uow: uow.inbound.done(done.id, uow.now, error="not_in_channel"))
    async with subject.storage.read() as uow:
        found = await uow.inbound.get(done.id)
    assert found == replace(done, payload={}, done_at=subject.clock.now(), error="not_in_channel")
    subject.clock.advance(7 * 86_400 - 1)
    assert (await subject.storage.prune(subject.clock.now()))["inbound"] == 0
    subject.clock.advance(2)
    assert (await subject.storage.prunable(subject.clock.now()))["inbound"] == 1
    assert (await subject.storage.prune(subject.clock.now()))["inbound"] == 1
    async with subject.storage.read() as uow:
        assert await uow.inbound.get(done.id) is None
        assert await uow.inbound.get(waiting.id) == waiting


async def test_a_payload_that_no_database_could_hold_is_stored_all_the_same(subject: Subject) -> None:
    event = await subject.receive(
        "odd \x00 key", payload={"te\x00xt": "nul \x00, half \ud83d, whole \U0001f600, \\u0000", "list": [None, 1]}
    )
    async with subject.storage.read() as uow:
        found = await uow.inbound.get(event.id)
    assert found
    assert found.payload == {"te\ufffdxt": "nul \ufffd, half \ufffd, whole \U0001f600, \\u0000", "list": [None, 1]}
    assert found.key == "odd \ufffd key"


# --- who may act for an account ---


async def test_an_account_is_known_for_as_long_after_it_was_served_as_one_asks(subject: Subject) -> None:
    await subject.take(new_id(), account=OTHER_TEAM)
    subject.clock.advance(100)
    await subject.take(new_id())
    now = subject.clock.now()

    async def known(seconds: int) -> list[Account]:
        async with subject.storage.read() as uow:
            return await uow.account_leases.accounts(now - seconds * SECOND)

    served = Account(surface="slack", id="T1")
    assert await known(0) == [served]
    assert await known(100) == sorted([served, OTHER_TEAM], key=lambda each: each.id)


async def test_a_lease_is_one_owners_until_it_runs_out(subject: Subject) -> None:
    one, other = new_id(), new_id()
    lease = await subject.take(one)
    assert lease == AccountLease(surface="slack", account="T1", owner=one, token=1, until=subject.clock.now() + 30 * SECOND)
    assert await subject.take(other, process=1) is None
    assert await subject.take(other, account=OTHER_TEAM)
    subject.clock.advance(29)
    extended = await subject.take(one)
    assert extended == replace(lease, until=subject.clock.now() + 30 * SECOND)
    subject.clock.advance(30)
    taken = await subject.take(other, process=1)
    assert taken
    assert (taken.owner, taken.token) == (other, 2)
    assert await subject.take(one) is None


async def test_of_two_processes_that_take_a_lease_at_once_one_gets_it(subject: Subject) -> None:
    async def race() -> list[AccountLease]:
        owners = [new_id() for _ in range(10)]
        async with asyncio.timeout(30):
            ended = await asyncio.gather(*(subject.take(owner, process=number % 2) for number, owner in enumerate(owners)))
        return [lease for lease in ended if lease]

    first = await race()
    subject.clock.advance(31)
    second = await race()
    assert [lease.token for lease in first + second] == [1, 2]


async def test_a_lease_that_ran_out_is_another_one_also_for_who_had_it(subject: Subject) -> None:
    """What was begun under the old one must not go on."""
    owner = new_id()
    old = await subject.take(owner)
    subject.clock.advance(31)
    again = await subject.take(owner)
    assert old
    assert again
    assert again.token == 2
    async with subject.storage.write() as uow:
        await uow.account_leases.fence(again)
        with pytest.raises(LeaseLost):
            await uow.account_leases.fence(old)


async def test_a_released_lease_may_be_taken_at_once(subject: Subject) -> None:
    lease = await subject.take(new_id())
    assert lease
    await subject.write(lambda uow: uow.account_leases.release(lease))
    taken = await subject.take(new_id(), process=1)
    assert taken
    assert taken.token == 2
    await subject.write(lambda uow: uow.account_leases.release(lease))
    assert await subject.take(new_id()) is None


async def test_what_a_dead_process_held_may_be_taken_at_once(subject: Subject) -> None:
    dead, alive = new_id(), new_id()
    await subject.take(dead)
    await subject.take(alive, account=OTHER_TEAM)
    await subject.write(lambda uow: uow.account_leases.release_all(dead))
    assert await subject.take(alive, process=1)
    assert await subject.take(new_id(), account=OTHER_TEAM) is None


async def test_who_lost_the_lease_writes_nothing(subject: Subject) -> None:
    lease, chat = await subject.take(new_id()), await subject.chat()
    assert lease
    subject.clock.advance(31)
    assert await subject.take(new_id(), process=1)

    async def write(uow: UnitOfWork) -> None:
        await conversations.set_title(uow, chat.id, "Too late")
        await uow.account_leases.fence(lease)

    with pytest.raises(LeaseLost):
        await subject.write(write)
    async with subject.storage.read() as uow:
        found = await uow.conversations.find(chat.id)
    assert found
    assert found.title == ""


async def test_a_lease_is_not_taken_from_under_a_transaction_that_was_fenced(subject: Subject) -> None:
    lease = await subject.take(new_id())
    assert lease
    subject.clock.advance(31)
    async with asyncio.timeout(30):
        async with subject.storage.write() as uow:
            await uow.account_leases.fence(lease)
            taking = asyncio.create_task(subject.take(new_id(), process=1), name="taking")
            await asyncio.wait({taking}, timeout=0.5)
            assert not taking.done()
        assert await taking


async def test_who_holds_the_lease_may_write_in_several_transactions_at_once(subject: Subject) -> None:
    """On SQLite they come one after another; on PostgreSQL one of them must not wait for the other's end."""
    lease = await subject.take(new_id())
    assert lease

    async def write(title: str, both: asyncio.Barrier | None) -> None:
        async with subject.storage.write() as uow:
            await uow.account_leases.fence(lease)
            if both:
                await both.wait()
            await conversations.create(uow, subject.admin, title=title)

    together = asyncio.Barrier(2) if (await subject.storage.version()).startswith("PostgreSQL") else None
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for title in ("one", "other"):
            group.create_task(write(title, together))
    async with subject.storage.read() as uow:
        assert await uow.conversations.count(subject.admin) == 2


async def test_a_place_in_a_conversation_that_is_gone_is_not_bound(subject: Subject) -> None:
    with pytest.raises(NotFound):
        await subject.bound(new_id())


async def test_who_is_gone_is_known_nowhere(subject: Subject) -> None:
    async with subject.storage.write() as uow:
        user, known = await identity.meet(uow, TEAM, "U1", "Alice")
    assert isinstance(known, Identity)
    async with subject.storage.read() as uow:
        assert await identity.of_account(uow, TEAM, "U1") == user
        assert await identity.of_account(uow, TEAM, "U2") is None
