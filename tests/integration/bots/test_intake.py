"""What was stored of a platform's events is taken in: in order, once, again where that helps, and never silently left out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from bots.intake import Intake, IntakeRules
from bots.people import People
from bots.policy import ChannelRules, Policy
from bots.surface import AccountClosed, Busy, Edited, Event, PlaceClosed, Profile, Promoted, RemoteFile, Removed, Said, Unclear, Unreachable
from bots.taking import Taking
from core import bindings, identity
from core.attachments import Upload
from core.errors import InvalidInput, LeaseLost
from core.ids import new_id
from core.models import JSON, AccountLease, InboundEvent, Message, Place
from core.ports import UnitOfWork
from tests.databases import on_both
from tests.fake_surface import ACCOUNT, FakeSurface, Platform
from tests.integration.bots.conftest import Stage
from tests.integration.conftest import Start

new_database = on_both
RULES = IntakeRules(poll_seconds=0.02, backoff_seconds=0.02, longest_backoff_seconds=0.05)
ALICE, BOB = "U1", "U2"


class Telling(FakeSurface):
    """A platform whose stored payloads are numbers of events that the test made up."""

    def __init__(self, platform: Platform) -> None:
        super().__init__(platform)
        self.events: list[Event | None] = []
        self.files: dict[str, bytes | Exception] = {}
        self.troubles: list[Exception] = []
        """What the next look at a person raises."""
        self.looked_up: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        """Whose profile is not told before it is set."""
        platform.profiles |= {
            ALICE: Profile(external_id=ALICE, name="alice", member=True),
            BOB: Profile(external_id=BOB, name="bob", member=True),
        }

    def event(self, payload: JSON) -> Event | None:
        return self.events[payload["number"]]

    async def profile(self, external_id: str) -> Profile:
        self.looked_up.append(external_id)
        if external_id in self.gates:
            await self.gates[external_id].wait()
        if self.troubles:
            raise self.troubles.pop(0)
        return await super().profile(external_id)

    async def fetch(self, file: RemoteFile) -> Upload:
        found = self.files[file.name]
        if isinstance(found, Exception):
            raise found
        return Upload(name=file.name, data=found)


class Door:
    """Where events come in."""

    def __init__(self, stage: Stage, policy: Policy) -> None:
        self.stage = stage
        self.surface = Telling(stage.platform)
        self.policy = policy

    def intake(self) -> Intake:
        services = self.stage.services()
        people = People(services, self.surface, self.policy)
        return Intake(services, self.surface, Taking(services, self.surface, people, self.policy), RULES)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[asyncio.Task[None]]:
        """A process that takes in meanwhile."""
        lease = await self.lease()
        task = asyncio.create_task(self.intake().run(lease), name="intake")
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def lease(self) -> AccountLease:
        async def take(uow: UnitOfWork) -> AccountLease | None:
            return await uow.account_leases.take(ACCOUNT, new_id(), until=uow.now + timedelta(seconds=300), now=uow.now)

        lease = await self.stage.world.write(take)
        assert lease
        return lease

    async def store(self, *events: Event | None, lane: str = "C1") -> list[InboundEvent]:
        stored = []
        for told in events:
            self.surface.events.append(told)
            stored.append(await self.stage.world.write(partial(_add, number=len(self.surface.events) - 1, lane=lane)))
        return stored

    async def row(self, event: InboundEvent) -> InboundEvent:
        found = await self.stage.world.read(lambda uow: uow.inbound.get(event.id))
        assert found
        return found

    async def done(self, *events: InboundEvent) -> None:
        async def all_done() -> bool:
            return all([(await self.row(each)).done_at for each in events])

        await self.stage.world.until(all_done)

    async def messages(self, thread: str, channel: str = "C1") -> list[Message]:
        async def found(uow: UnitOfWork) -> list[Message]:
            binding = await bindings.at(uow, Place(account=ACCOUNT, channel=channel, thread=thread))
            return await uow.messages.since(binding.conversation_id, 1) if binding else []

        return await self.stage.world.read(found)

    async def texts(self, thread: str, channel: str = "C1") -> list[str]:
        return [each.content for each in await self.messages(thread, channel) if each.author_id]

    async def says(self, thread: str, *texts: str, channel: str = "C1") -> None:
        async def there() -> bool:
            return await self.texts(thread, channel) == list(texts)

        try:
            await self.stage.world.until(there)
        except TimeoutError:
            raise AssertionError(f"said: {await self.texts(thread, channel)}") from None


async def _add(uow: UnitOfWork, *, number: int, lane: str) -> InboundEvent:
    event = InboundEvent(
        id=new_id(),
        surface=ACCOUNT.surface,
        account=ACCOUNT.id,
        key=f"event:{number}",
        lane=lane,
        payload={"number": number},
        attempts=0,
        run_after=uow.now,
        waits=False,
        received_at=uow.now,
    )
    await uow.inbound.add(event)
    return event


class ShiftedClock:
    """The world's clock, which a test puts forward."""

    def __init__(self) -> None:
        self._shift = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self._shift

    def advance(self, seconds: float) -> None:
        self._shift += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> ShiftedClock:
    return ShiftedClock()


@pytest.fixture
async def stage(start: Start, clock: ShiftedClock) -> AsyncIterator[Stage]:
    async with start(clock=clock) as world:
        found = Stage(world)
        yield found
        await found.platform.close()


@pytest.fixture
def door(stage: Stage) -> Door:
    return Door(stage, Policy())


def said(text: str, remote_id: str = "1", **fields: Any) -> Said:
    usual = {"channel": "C1", "thread": "", "author": ALICE, "to_bot": False, "to_others": False, "at": datetime.now(UTC)}
    return Said(remote_id=remote_id, text=text, **{**usual, **fields})


def mention(text: str = "hello", remote_id: str = "1", **fields: Any) -> Said:
    return said(text, remote_id, to_bot=True, **fields)


def reply(text: str, remote_id: str, **fields: Any) -> Said:
    return said(text, remote_id, thread="1", **fields)


def file(name: str) -> RemoteFile:
    return RemoteFile(name=name, media_type="text/plain", size=3, source={})


# --- in order, and once ----------------------------------------------------------------------------------------------


async def test_a_lane_is_taken_in_in_order(door: Door) -> None:
    stored = await door.store(mention("0"), *(reply(str(number), f"1.{number}") for number in range(1, 30)))
    async with door.open():
        await door.done(*stored)
    assert await door.texts("1") == [str(number) for number in range(30)]


async def test_a_lane_that_has_to_wait_does_not_hold_up_another(door: Door) -> None:
    door.surface.troubles = [Unreachable("Away.")] * 1_000
    (waits,) = await door.store(mention(author=BOB), lane="C1:1")
    async with door.open():
        await door.stage.world.until(lambda: _was_tried(door, waits))
        door.surface.troubles.clear()
        (other,) = await door.store(mention("other", "2"), lane="C1:2")
        await door.done(other, waits)
    assert (await door.texts("1"), await door.texts("2")) == (["hello"], ["other"])


async def _was_tried(door: Door, event: InboundEvent) -> bool:
    return (await door.row(event)).attempts > 1


async def test_what_follows_in_a_lane_waits_for_what_is_tried_again(door: Door) -> None:
    door.surface.troubles = [Unreachable("Away.")]
    stored = await door.store(said("first", "1", channel="D1"), said("second", "2", channel="D1"), lane="D1")
    async with door.open():
        await door.done(*stored)
    assert await door.texts("", "D1") == ["first", "second"]


async def test_what_the_platform_asks_to_wait_for_is_tried_again(door: Door) -> None:
    door.surface.troubles = [Busy(0.02), Unclear("No answer."), AccountClosed("The token was revoked.", reason="token_revoked")]
    stored = await door.store(mention())
    async with door.open():
        await door.done(*stored)
    assert (await door.texts("1"), door.stage.platform.told) == (["hello"], [])


async def test_what_is_being_taken_in_is_not_begun_a_second_time(door: Door) -> None:
    gate = door.surface.gates[BOB] = asyncio.Event()
    (slow,) = await door.store(mention("slow", author=BOB), lane="C1:1")
    async with door.open():
        for number in range(2, 6):  # each of them takes a look or more
            await door.done(*await door.store(mention("quick", f"{number}"), lane=f"C1:{number}"))
        assert door.surface.looked_up.count(BOB) == 1
        gate.set()
        await door.done(slow)


async def test_more_lanes_than_may_run_at_once_all_get_their_turn(door: Door) -> None:
    stored = [(await door.store(mention(str(number), f"{number}"), lane=f"C1:{number}"))[0] for number in range(50)]
    async with door.open():
        await door.done(*stored)


async def test_the_payload_is_erased_with_the_effect(door: Door) -> None:
    stored = await door.store(mention())
    async with door.open():
        await door.done(*stored)
    assert (await door.row(stored[0])).payload == {}


async def test_a_process_that_lost_the_account_writes_nothing_more(door: Door) -> None:
    await door.store(mention())
    lost = await door.lease()
    door.stage.world.app.clock.advance(600)  # type: ignore[attr-defined]
    await door.lease()
    with pytest.raises(LeaseLost):
        await door.intake().run(lost)
    assert await door.texts("1") == []


async def test_a_message_that_is_told_under_two_keys_is_one_message(door: Door) -> None:
    stored = await door.store(mention(), mention(), reply("again", "1.2"), reply("again", "1.2"))
    async with door.open():
        await door.done(*stored)
    assert await door.texts("1") == ["hello", "again"]
    assert ([(await door.row(each)).error for each in stored], door.stage.platform.told) == ([None] * 4, [])


async def test_a_mention_of_which_a_task_was_made_before_it_came_is_answered_there(door: Door) -> None:
    stored = await door.store(Promoted(said=mention("plan"), by=BOB), mention("plan"))
    async with door.open():
        await door.done(*stored)
    assert await door.texts("1") == ["Said in this thread before:\n\n**alice**:\n> plan", "plan"]
    assert (await door.messages("1"))[1].turn_id
    assert (await door.stage.world.titles(), door.stage.platform.told) == (["plan"], [])


# --- what was overtaken ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "early",
    [
        reply("early", "1.2"),
        Edited(remote_id="1", channel="C1", thread="", author=ALICE, text="edited"),
        Removed(remote_id="1", channel="C1", thread=""),
    ],
)
async def test_what_came_too_early_waits_a_minute_and_is_then_left_out(door: Door, clock: ShiftedClock, early: Event) -> None:
    stored = await door.store(early)
    async with door.open():
        await door.stage.world.until(lambda: _was_tried(door, stored[0]))
        row = await door.row(stored[0])
        assert (row.waits, row.done_at) == (True, None)
        clock.advance(61)
        await door.done(*stored)
    assert await door.texts("1") == []


async def test_a_removal_that_overtook_its_message_removes_it_then(door: Door) -> None:
    (early,) = await door.store(Removed(remote_id="1", channel="C1", thread=""))
    async with door.open():
        await door.stage.world.until(lambda: _was_tried(door, early))
        await door.done(*await door.store(mention()), early)
        assert (await door.messages("1"))[0].deleted_at


async def test_a_message_that_waited_and_was_imported_does_not_come_twice(door: Door) -> None:
    door.stage.platform.said["1"] = [("bob", "before")]
    (early,) = await door.store(reply("before", "1.1", author=BOB))
    async with door.open():
        await door.stage.world.until(lambda: _was_tried(door, early))
        (call,) = await door.store(mention("help", "1.2", thread="1"))
        await door.done(early, call)
    assert await door.texts("1") == ["Said in this thread before:\n\n**bob**:\n> before", "help"]


async def test_an_import_keeps_the_newest_that_fits(door: Door) -> None:
    door.stage.platform.said["1"] = [("bob", f"{number} " + "x" * 1_000) for number in range(100)]
    stored = await door.store(mention("help", "1.2", thread="1"))
    async with door.open():
        await door.done(*stored)
    imported = (await door.texts("1"))[0]
    assert "> 99 x" in imported
    assert "> 60 x" not in imported
    assert len(imported) <= 30_000


# --- trouble ---------------------------------------------------------------------------------------------------------


async def test_a_defect_is_tried_three_times_and_then_told_with_a_reference(door: Door) -> None:
    door.surface.troubles = [RuntimeError("a defect")] * 3
    stored = await door.store(mention("first"), reply("second", "1.2"))
    async with door.open():
        await door.done(stored[0])
        await door.stage.platform.until(lambda: door.stage.platform.told)
    row = await door.row(stored[0])
    assert (row.error, door.surface.troubles) == ("INTERNAL", [])
    person, sentence = door.stage.platform.told[0]
    assert (person, sentence.endswith(f"tell an admin: {row.id}")) == (ALICE, True)


async def test_a_place_that_is_closed_is_told_to_the_person(door: Door) -> None:
    door.surface.troubles = [PlaceClosed("This channel is archived.", reason="is_archived")]
    stored = await door.store(mention())
    async with door.open():
        await door.done(*stored)
        await door.stage.platform.until(lambda: door.stage.platform.told)
    assert door.stage.platform.told == [(ALICE, "This channel is archived.")]
    assert (await door.row(stored[0])).error == "is_archived"


async def test_a_file_is_fetched_again_for_two_minutes_and_then_named(door: Door, clock: ShiftedClock) -> None:
    door.surface.files = {"a.txt": b"abc", "b.txt": Unreachable("Away.")}
    stored = await door.store(mention("read", files=(file("a.txt"), file("b.txt"))))
    async with door.open():
        await door.stage.world.until(lambda: _was_tried(door, stored[0]))
        assert await door.texts("1") == []
        clock.advance(121)
        await door.done(*stored)
    assert await door.texts("1") == ["read\n\n(The file 'b.txt' could not be fetched.)"]
    message = (await door.messages("1"))[0]
    assert [each.name for each in await door.stage.world.read(lambda uow: uow.attachments.of_messages([message.id]))] == ["a.txt"]


async def test_files_without_a_word_make_a_message_and_a_task(door: Door) -> None:
    door.surface.files = {"plan.txt": b"abc", "bad.txt": InvalidInput("The file 'bad.txt' is empty.")}
    stored = await door.store(mention("", files=(file("plan.txt"),)), reply("", "1.2", files=(file("bad.txt"),)))
    async with door.open():
        await door.done(*stored)
    assert await door.texts("1") == ["(plan.txt)", "(The file 'bad.txt' is empty.)"]
    assert await door.stage.world.titles() == ["plan.txt"]


# --- who and where ---------------------------------------------------------------------------------------------------


async def test_two_of_one_name_are_two_users_and_nobody_becomes_the_admin(door: Door) -> None:
    door.stage.platform.profiles[BOB] = Profile(external_id=BOB, name="admin", member=True)
    stored = await door.store(mention(author=BOB))
    async with door.open():
        await door.done(*stored)
    user = await door.stage.world.read(lambda uow: identity.of_account(uow, ACCOUNT, BOB))
    assert user
    assert (user.name, user.admin) == ("admin-2", False)


async def test_writing_where_delivery_had_ended_begins_it_again(door: Door) -> None:
    async with door.open():
        await door.done(*await door.store(mention()))
        await door.stage.world.write(_end)
        await door.done(*await door.store(reply("still there?", "1.2")))
    binding = await door.stage.world.read(lambda uow: bindings.at(uow, Place(account=ACCOUNT, channel="C1", thread="1")))
    assert binding
    assert binding.ended is None


async def _end(uow: UnitOfWork) -> None:
    binding = await bindings.at(uow, Place(account=ACCOUNT, channel="C1", thread="1"))
    assert binding
    await bindings.end(uow, binding, "is_archived")


async def test_where_only_mentions_are_answered_the_rest_is_read_along(stage: Stage) -> None:
    door = Door(stage, Policy(channel_rules={"C1": ChannelRules(answer="mentions")}))
    stored = await door.store(mention(), reply("by the way", "1.2"), reply("and now?", "1.3", to_bot=True))
    async with door.open():
        await door.done(*stored)
    answered = [each.turn_id is not None for each in await door.messages("1") if each.author_id]
    assert answered == [True, False, True]


async def test_in_direct_messages_everything_is_answered(door: Door) -> None:
    stored = await door.store(said("ask carol", channel="D1", to_others=True), lane="D1")
    async with door.open():
        await door.done(*stored)
    (question, _) = await door.messages("", "D1")
    assert question.turn_id


async def test_a_title_is_the_first_line_without_markup_and_short(door: Door) -> None:
    stored = await door.store(mention("\n\n**Plan** the [party](https://x.example)\nwith cake", "1"), mention("x" * 300, "2"))
    async with door.open():
        await door.done(*stored)
    first, second = await door.stage.world.titles()
    assert first == "Plan the party"
    assert len(second) == 200


async def test_whoever_is_not_answered_is_told_at_most_once_a_minute(door: Door, clock: ShiftedClock) -> None:
    long = "x" * 10_001
    async with door.open():
        await door.done(*await door.store(mention(), reply(long, "1.2"), reply(long, "1.3")))
        clock.advance(61)
        await door.done(*await door.store(reply(long, "1.4")))
    assert len(door.stage.platform.told) == 2


async def test_who_may_not_be_answered_leaves_no_trace(stage: Stage) -> None:
    door = Door(stage, Policy(users=frozenset({BOB})))
    stored = await door.store(mention("canary"))
    async with door.open():
        await door.done(*stored)
    assert await door.texts("1") == []
    assert [user.name for user in await stage.world.read(lambda uow: uow.users.all())] == ["admin"]
