"""Onethread on a PostgreSQL server that fails in the middle of turns: nothing is lost, nothing done twice, and it goes on by itself.

A failover is played by one server: stopped as by a power failure, back for reading only, then back for writing on the same address.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from core import bindings, conversations, messages
from core.errors import StorageUnavailable
from core.events import ConversationDeleted, Lagged, MessageAdded, StateEvent, TaskDeleted, TextDelta
from core.ids import new_id
from core.models import Account, BindingMode, ChannelKind, InboxKey, MessageStatus, Place, Posted, TurnStatus, Visibility
from core.ports import UnitOfWork
from core.text import clean, utf16_len
from storage import postgres_notifier
from storage.payloads import pack, unpack
from tests.databases import NewDatabase
from tests.fakes import Call, Gate, ScriptedModel
from tests.integration.conftest import Start, World, onethread
from tests.integration.test_live import watching
from tests.postgres import Server

pytestmark = pytest.mark.requires("postgresql")


@pytest.fixture
def new_database(postgres: Server) -> NewDatabase:
    return postgres.database


@pytest.fixture
async def database(new_database: NewDatabase) -> AsyncIterator[str]:
    async with new_database() as url:
        yield url.render_as_string(hide_password=False)


@pytest.fixture
def start(tmp_path: Path, database: str) -> Start:
    return partial(onethread, tmp_path, database=database)


@pytest.fixture
async def world(start: Start) -> AsyncIterator[World]:
    async with start() as found:
        yield found


async def end_all(postgres: Server, world: World, who: str = "onethread%") -> None:
    name = world.app.settings.database_url.rpartition("/")[2]
    await postgres.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1 AND application_name LIKE $2", name, who
    )


async def notify(postgres: Server, world: World, payload: str) -> None:
    name = world.app.settings.database_url.rpartition("/")[2]
    await postgres.execute("SELECT pg_notify('onethread', $1)", payload, database=name)


def two_rounds(world: World) -> tuple[Gate, Gate]:
    """A turn that makes a task and then says so; it stops within each round."""
    first, second = Gate(), Gate()
    world.model.will("Making", first, " it.", Call("create_task", {"title": "Buy milk"})).will("Done", second, ".")
    return first, second


async def expect_done_once(world: World, posted: Posted) -> None:
    reply = await world.ended(posted)
    assert (reply.content, reply.status) == ("Making it.\n\nDone.", MessageStatus.COMPLETED)
    assert await world.titles() == ["Buy milk"]
    assert world.model.calls == 2
    assert (await world.turn(posted)).failures == 0


async def test_a_turn_survives_the_loss_of_every_connection(postgres: Server, world: World) -> None:
    gates = two_rounds(world)
    chat = await world.chat()
    async with world.working():
        posted = await world.post(chat.id, "Create a task")
        for gate in gates:
            await gate.reached()
            await end_all(postgres, world)
            gate.open()
        await expect_done_once(world, posted)
        assert (await world.ask(chat.id, "And now?")).content == "OK."


async def test_turns_survive_a_crash_of_the_server(postgres: Server, world: World) -> None:
    gates = two_rounds(world)
    chat = await world.chat()
    async with world.working():
        posted = await world.post(chat.id, "Create a task")
        for gate in gates:
            await gate.reached()
            await asyncio.to_thread(postgres.restart, "immediate")
            gate.open()
        await expect_done_once(world, posted)


async def test_people_are_told_while_the_server_is_down_and_all_goes_on_after_a_failover(postgres: Server, world: World) -> None:
    gates = two_rounds(world)
    chat = await world.chat()
    async with world.working():
        posted = await world.post(chat.id, "Create a task")
        await gates[0].reached()
        await asyncio.to_thread(postgres.stop, "immediate")
        gates[0].open()
        with pytest.raises(StorageUnavailable, match="cannot be reached"):
            await world.post(chat.id, "Are you there?")
        await asyncio.to_thread(postgres.start, "-c default_transaction_read_only=on")
        try:
            with pytest.raises(StorageUnavailable, match="takes no changes at the moment"):
                await world.post(chat.id, "Are you there?")
            assert (await world.reply(posted)).status is MessageStatus.PROCESSING
        finally:
            await asyncio.to_thread(postgres.restart)
        await gates[1].reached(20)
        gates[1].open()
        await expect_done_once(world, posted)


# --- live events ---


async def test_text_reaches_the_other_process_at_once_and_once(start: Start) -> None:
    gate = Gate()
    text = "Milk 🥛 and \u0007bread " * 500
    async with start(ScriptedModel().will(text, gate, "!")) as here, start() as there:
        chat = await here.chat()
        async with here.working(), watching(there, chat.id) as viewer:
            with there.app.live.subscribe(chat.id) as events:
                posted = await here.post(chat.id, "Hello")
                await viewer.shows(posted.reply_id, text)
                heard = events.waiting()
                gate.open()
                assert (await viewer.until("llm_complete"))["content"] == text + "!"
        assert viewer.count("snapshot") == 1
    added = [each for each in heard if isinstance(each, MessageAdded)]
    assert [each.message_id for each in added] == [posted.message_id, posted.reply_id]
    deltas = [each for each in heard if isinstance(each, TextDelta)]
    assert "".join(each.text for each in deltas) == text
    assert deltas[-1].offset == utf16_len(text) - utf16_len(deltas[-1].text)


async def test_who_did_it_hears_it_once(postgres: Server, world: World) -> None:
    chat = await world.chat()
    async with world.working():
        with world.app.live.subscribe(chat.id) as events:
            posted = await world.post(chat.id, "Hello")
            await world.ended(posted)
            heard = events.waiting()
            await notify(postgres, world, "x")
            while (event := await events.get()) != Lagged():  # all that came before has arrived
                heard.append(event)
    assert sum(isinstance(each, MessageAdded) for each in heard) == 2
    assert [each.text for each in heard if isinstance(each, TextDelta)] == ["OK."]


async def test_after_a_lost_listener_everybody_looks_again_and_hears_on(postgres: Server, start: Start) -> None:
    async with start() as here, start() as there:
        with here.app.live.subscribe() as events:
            await end_all(postgres, here, "onethread listener")
            async with asyncio.timeout(30):
                assert await events.get() == Lagged()
            chat = await there.chat()
            async with asyncio.timeout(30):
                assert (await events.get()).conversation_id == chat.id  # type: ignore[union-attr]


async def test_a_listener_that_is_not_answered_is_replaced(postgres: Server, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_notifier, "PING_SECONDS", 0.05)
    monkeypatch.setattr(postgres_notifier, "ANSWER_SECONDS", 0.3)
    async with start() as world:
        name = world.app.settings.database_url.rpartition("/")[2]
        found = await postgres.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = $1 AND application_name = 'onethread listener'", name
        )
        with world.app.live.subscribe() as events:
            os.kill(found[0][0], signal.SIGSTOP)
            try:
                async with asyncio.timeout(30):
                    assert await events.get() == Lagged()
            finally:
                os.kill(found[0][0], signal.SIGCONT)


async def test_text_is_still_shown_here_while_its_connection_is_away(postgres: Server, start: Start) -> None:
    gate = Gate()
    async with start(ScriptedModel().will("So far", gate, ", so good.")) as here, start() as there:
        chat = await here.chat()
        async with here.working(), watching(here, chat.id) as near, watching(there, chat.id) as far:
            posted = await here.post(chat.id, "Hello")
            await near.shows(posted.reply_id, "So far")
            await end_all(postgres, here, "onethread deltas")
            gate.open()
            assert (await near.until("llm_complete"))["content"] == "So far, so good."
            assert (await far.until("llm_complete"))["content"] == "So far, so good."


async def test_what_a_newer_version_tells_makes_everybody_look_again(postgres: Server, world: World) -> None:
    sender = new_id().hex
    with world.app.live.subscribe() as events:
        for payload in (sender + '[{"event":"Invented"}]', sender + "nonsense", sender + "[7]"):
            await notify(postgres, world, payload)
            async with asyncio.timeout(30):
                assert await events.get() == Lagged()


async def waiting_for_another(postgres: Server, world: World) -> None:
    """Until a transaction waits for what another one holds."""
    name = world.app.settings.database_url.rpartition("/")[2]
    query = "SELECT 1 FROM pg_stat_activity WHERE datname = $1 AND wait_event_type = 'Lock'"

    async def is_there() -> bool:
        return bool(await postgres.execute(query, name))

    await world.until(is_there)


PLACE = Place(account=Account(surface="slack", id="T1"), channel="C1", thread="1.0")


async def test_who_decides_and_who_writes_at_a_place_that_had_ended_do_not_wait_for_each_other(world: World, postgres: Server) -> None:
    chat = await world.chat()
    binding = await world.write(lambda uow: bindings.bind(uow, world.admin, chat.id, PLACE))
    await world.write(lambda uow: bindings.end(uow, binding, "is_archived"))
    task = await world.task("Buy milk")
    world.model.will(Call("delete_task", {"ref": task.ref})).will("Kept.")
    async with world.working():
        posted = await world.post(chat.id, "Delete it")
        await world.comes_to(posted, TurnStatus.WAITING)

    async def write(uow: UnitOfWork) -> None:
        ended = await uow.bindings.get(binding.id)
        assert ended
        await bindings.revive(uow, ended)
        key = InboxKey(source="slack", scope="T1:C1", event_id="1")
        await messages.take_in(uow, world.admin, chat.id, "No, keep it", rules=world.app.rules, source="slack", key=key)

    async with world.app.storage.write() as uow:
        assert await uow.turns.lock(posted.turn_id or new_id())
        meanwhile = asyncio.create_task(world.write(write), name="meanwhile")
        await waiting_for_another(postgres, world)
        await conversations.set_title(uow, chat.id, "Decided")
    await meanwhile


async def test_who_follows_while_it_becomes_private_does_not_follow_it_then(world: World, postgres: Server) -> None:
    task = (await world.task("Buy milk")).conversation_id
    async with world.app.storage.write() as uow:
        about = {"mode": BindingMode.WATCH, "kind": ChannelKind.OPEN, "source": "slack"}
        binding = await bindings.follow(uow, world.admin, task, PLACE, **about)  # type: ignore[arg-type]
        meanwhile = asyncio.create_task(world.write(lambda other: bindings.keep_private(other, task)), name="meanwhile")
        await waiting_for_another(postgres, world)
    await meanwhile
    after = await world.read(lambda uow: uow.bindings.get(binding.id))
    conversation = await world.read(lambda uow: uow.conversations.find(task))
    assert after
    assert conversation
    assert (conversation.visibility, after.is_on) == (Visibility.PRIVATE, False)


def test_a_payload_is_never_too_long_and_loses_nothing() -> None:
    here, reply = new_id(), new_id()
    texts = ["x" * 100_000, "\u0001" * 5_000, "🥛" * 3_000, '"\\' * 4_000, "short", "\ud800"]
    sent, offset = [], 0
    for text in texts:
        sent.append(TextDelta(conversation_id=here, message_id=reply, stream_no=1, offset=offset, text=text))
        offset += utf16_len(clean(text))
    sent_state = [MessageAdded(conversation_id=here, message_id=new_id()) for _ in range(200)]
    readers = tuple(new_id() for _ in range(450))
    deletions: list[StateEvent] = [
        TaskDeleted(conversation_id=here, task_id=here, ref="OT-1", readers=readers),
        ConversationDeleted(conversation_id=here, readers=readers),
        ConversationDeleted(conversation_id=here, readers=None),
    ]

    payloads = pack(new_id(), [*sent, *sent_state, *deletions])

    assert max(len(each.encode()) for each in payloads) < 8_000
    events = [event for payload in payloads for event in unpack(payload)]
    deltas = [each for each in events if isinstance(each, TextDelta)]
    assert "".join(each.text for each in deltas) == clean("".join(texts))
    assert all(after.offset == before.offset + utf16_len(before.text) for before, after in pairwise(deltas))
    told = events[len(deltas) + len(sent_state) :]
    assert events[len(deltas) : -len(told)] == sent_state
    assert told[-1] == deletions[-1]
    for kind in (TaskDeleted, ConversationDeleted):
        assert tuple(each for deleted in told[:-1] if isinstance(deleted, kind) for each in deleted.readers or ()) == readers
