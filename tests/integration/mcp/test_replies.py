"""Replies as an assistant gets them: told while they are written, whole at their end, in part when the time is over."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import pytest
from mcp.types import CallToolResult

from core import conversations, drafts
from core.errors import ModelFaltered, ModelRefused, StorageUnavailable
from core.models import JSON, Conversation, Posted, TurnStatus
from tests.databases import NewDatabase, on_both
from tests.fakes import Call, Gate, ScriptedModel
from tests.integration.conftest import World, onethread
from tests.integration.mcp.conftest import ERAS, Heard, Office, answer, office_of, refusal

__all__ = ["on_both"]
SOON = 0.05


@pytest.fixture
async def chat(world: World) -> Conversation:
    return await world.chat()


def posted_of(reply: JSON) -> Posted:
    """The message that a call posted, as far as the world needs it."""
    reply_id, turn_id = UUID(reply["message_id"]), UUID(reply["turn_id"])
    return Posted(conversation_id=UUID(reply["conversation_id"]), message_id=reply_id, reply_id=reply_id, turn_id=turn_id)


async def stored(world: World, posted: Posted, text: str) -> None:
    """Waits until this much of the reply is in the database."""

    async def there() -> bool:
        return (await world.reply(posted)).content == text

    await world.until(there)


async def test_a_message_gets_its_reply(office: Office, era: str) -> None:
    office.world.model.will("Hello, Ada.")
    async with office.world.working(), office.client(era) as client:
        reply = answer(await client.call_tool("send_message", {"text": "Hello"}))
    assert (reply["state"], reply["text"], reply["model"]) == ("completed", "Hello, Ada.", "one/model")
    assert (reply["tokens_in"], reply["tokens_out"], reply["cost"]) == (10, 5, "0.0010")
    assert "text" in reply["untrusted"]
    message = await office.world.message(UUID(reply["message_id"]))
    assert (message.content, message.role) == ("Hello, Ada.", "assistant")


async def test_phase_and_tail_are_told_while_the_reply_is_written(office: Office, era: str) -> None:
    gate, heard = Gate(), Heard()
    office.world.model.will("Once upon a time,\nlong", gate, " ago.")
    async with office.world.working(), office.client(era) as client, asyncio.TaskGroup() as group:
        call = group.create_task(client.call_tool("send_message", {"text": "Tell me"}, progress_callback=heard))
        line = await heard.until(lambda line: "Once" in line)
        assert not call.done()
        gate.open()
    assert line == "Asking one/model … · Once upon a time, long"
    assert answer(call.result())["text"] == "Once upon a time,\nlong ago."
    assert heard.numbers == [float(number) for number in range(1, len(heard.numbers) + 1)]


async def test_of_a_long_reply_the_end_is_told_on_one_short_line(office: Office, era: str) -> None:
    gate, heard = Gate(), Heard()
    office.world.model.will("word " * 200 + "the end", gate)
    async with office.world.working(), office.client(era) as client, asyncio.TaskGroup() as group:
        call = group.create_task(client.call_tool("send_message", {"text": "Tell me"}, progress_callback=heard))
        line = await heard.until(lambda line: line.endswith("the end"))
        gate.open()
    assert line.startswith("Asking one/model … · …")
    assert len(line) == 200
    assert answer(call.result())["state"] == "completed"


async def test_a_tool_that_the_agent_runs_is_told_as_a_phase(office: Office, era: str) -> None:
    heard = Heard()
    office.world.model.will(Call("create_task", {"title": "Buy milk"})).will("Done.")
    async with office.world.working(), office.client(era) as client:
        reply = answer(await client.call_tool("send_message", {"text": "Buy milk"}, progress_callback=heard))
    assert reply["tool_calls"] == [{"name": "create_task", "state": "done"}]
    assert "Running create_task …" in heard.lines


async def test_who_waits_hears_the_same_again_after_a_while(office: Office, era: str) -> None:
    gate, heard = Gate(), Heard()
    office.world.model.will("Well,", gate)
    async with office.world.working(), office.under(quiet_seconds=0.02).client(era) as client, asyncio.TaskGroup() as group:
        call = group.create_task(client.call_tool("send_message", {"text": "Hello"}, progress_callback=heard))
        await heard.until(lambda line: heard.lines.count("Asking one/model … · Well,") >= 3)
        gate.open()
    assert answer(call.result())["text"] == "Well,"


async def test_more_text_is_told_after_a_moment_but_a_new_phase_at_once(office: Office, era: str) -> None:
    gate, heard = Gate(), Heard()
    office.world.model.will("One.", gate, " Two.", Call("create_task", {"title": "Buy milk"})).will("Done.")
    async with office.world.working(), office.under(told_seconds=60.0).client(era) as client, asyncio.TaskGroup() as group:
        call = group.create_task(client.call_tool("send_message", {"text": "Hello"}, progress_callback=heard))
        await heard.until(lambda line: line.startswith("Asking"))
        await gate.reached()
        gate.open()
    assert answer(call.result())["text"] == "One. Two.\n\nDone."
    assert any(line.startswith("Running create_task … · One.") for line in heard.lines)
    phases = [line.partition(" · ")[0] for line in heard.lines]
    assert phases == [phase for index, phase in enumerate(phases) if index == 0 or phases[index - 1] != phase]


async def test_at_the_times_end_there_is_what_came_so_far_and_what_to_call_next(office: Office, era: str, chat: Conversation) -> None:
    gate, world = Gate(), office.world
    world.model.will("The first half", gate, " and the second.")
    async with world.working():
        posted = await world.post(chat.id, "Tell me")
        await stored(world, posted, "The first half")
        async with office.under(max_wait_seconds=SOON).client(era) as client:
            partial = answer(await client.call_tool("get_reply", {"turn_id": str(posted.turn_id)}))
        gate.open()
        async with office.client(era) as client:
            rest = answer(await client.call_tool("get_reply", {"turn_id": str(posted.turn_id), "after": len(partial["text"])}))
    assert (partial["state"], partial["text"]) == ("running", "The first half")
    assert "get_reply" in partial["next"]
    assert (rest["state"], rest["text"], rest["text_from"]) == ("completed", " and the second.", len("The first half"))


async def test_text_is_given_that_the_database_does_not_have_yet(office: Office, era: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, heard, world = Gate(), Heard(), office.world
    monkeypatch.setattr(drafts, "CHECKPOINT_SECONDS", 60.0)
    world.model.will("Only in the air", gate)
    async with world.working(), office.client(era) as client, asyncio.TaskGroup() as group:
        call = group.create_task(client.call_tool("send_message", {"text": "Hello"}, progress_callback=heard))
        await heard.until(lambda line: "in the air" in line)
        office.services.stopping.set()
        reply = answer(await call)
        in_the_database = (await world.reply(posted_of(reply))).content
        gate.open()
    assert in_the_database == ""
    assert (reply["state"], reply["text"]) == ("running", "Only in the air")


async def test_a_process_that_is_about_to_end_answers_at_once(office: Office, era: str) -> None:
    gate = Gate()
    office.world.model.will(gate, "Too late.")
    async with office.world.working(), office.client(era) as client, asyncio.TaskGroup() as group:
        call = group.create_task(client.call_tool("send_message", {"text": "Hello"}))
        await gate.reached()
        office.services.stopping.set()
        async with asyncio.timeout(30):
            reply = answer(await call)
        gate.open()
    assert reply["state"] == "running"
    assert "get_reply" in reply["next"]


async def test_no_waiting_means_an_answer_at_once(office: Office, era: str) -> None:
    async with office.client(era) as client:
        reply = answer(await client.call_tool("send_message", {"text": "Hello", "wait_s": 0}))
        again = answer(await client.call_tool("get_reply", {"turn_id": reply["turn_id"], "wait_s": 0}))
    assert (reply["state"], reply["no_worker"]) == ("queued", True)
    assert again["turn_id"] == reply["turn_id"]
    assert len(office.wanted) == 2  # by the message, and by whoever looks after it
    assert (await office.world.turn(posted_of(reply))).status is TurnStatus.QUEUED


async def test_the_same_key_posts_one_message(office: Office, era: str) -> None:
    arguments = {"text": "Hello", "idempotency_key": "one", "wait_s": 0}
    async with office.client(era) as client:
        first = answer(await client.call_tool("send_message", arguments))
        again = answer(await client.call_tool("send_message", arguments))
    assert first["turn_id"] == again["turn_id"]


async def test_a_worker_is_asked_for_as_long_as_nobody_answers(office: Office, era: str) -> None:
    heard = Heard()
    async with office.under(worker_seconds=0.01).client(era) as client, asyncio.TaskGroup() as group:
        call = group.create_task(client.call_tool("send_message", {"text": "Hello"}, progress_callback=heard))
        line = await heard.until(bool)
        await office.wanted.until(3)
        office.services.stopping.set()
    assert line == "Waiting for a worker …"
    reply = answer(call.result())
    assert (reply["state"], reply["no_worker"]) == ("queued", True)


async def test_a_worker_is_asked_for_as_long_as_the_reply_is_written(office: Office, era: str) -> None:
    """The one that writes it may be killed."""
    gate, world = Gate(), office.world
    world.model.will("First.", gate)
    async with world.working(), office.under(worker_seconds=0.0).client(era) as client, asyncio.TaskGroup() as group:
        call = group.create_task(client.call_tool("send_message", {"text": "One"}))
        await gate.reached()
        asked = len(office.wanted)
        await world.until(lambda: _true(len(office.wanted) > asked + 2))
        gate.open()
    assert answer(call.result())["state"] == "completed"


async def _true(value: bool) -> bool:
    return value


async def test_who_waits_behind_another_message_is_told_so(office: Office, era: str, chat: Conversation) -> None:
    gate, heard, world = Gate(), Heard(), office.world
    world.model.will("First.", gate).will("Second.")
    async with world.working(), office.client(era) as client, asyncio.TaskGroup() as group:
        await world.post(chat.id, "One")
        await gate.reached()
        arguments = {"text": "Two", "conversation_id": str(chat.id)}
        call = group.create_task(client.call_tool("send_message", arguments, progress_callback=heard))
        line = await heard.until(bool)
        gate.open()
    assert line == "Queued, 1 before it"
    assert answer(call.result())["text"] == "Second."


async def test_a_turn_of_another_surface_is_followed_to_its_end(office: Office, era: str, chat: Conversation) -> None:
    gate, heard, world = Gate(), Heard(), office.world
    world.model.will("From the ", gate, "terminal.")
    async with world.working(), office.client(era) as client, asyncio.TaskGroup() as group:
        posted = await world.post(chat.id, "Hello", source="terminal")
        await gate.reached()
        call = group.create_task(client.call_tool("get_reply", {"turn_id": str(posted.turn_id)}, progress_callback=heard))
        await heard.until(lambda line: "From the" in line)
        gate.open()
    assert answer(call.result())["text"] == "From the terminal."


async def test_who_hangs_up_stops_only_their_watching(office: Office, era: str) -> None:
    gate, heard, world = Gate(), Heard(), office.world
    world.model.will("Still ", gate, "there.")
    async with world.working(), office.client(era) as client:
        with anyio.CancelScope() as hung_up:
            async with asyncio.TaskGroup() as group:
                group.create_task(_hang_up(heard, hung_up))
                await client.call_tool("send_message", {"text": "Hello"}, progress_callback=heard)
        assert hung_up.cancelled_caught
        (conversation,) = (await world.read(lambda uow: conversations.page(uow, world.admin))).conversations

        async def nobody_watches() -> bool:
            return conversation.id not in world.app.live.followed

        await world.until(nobody_watches)
        turn = await world.read(lambda uow: uow.turns.last(conversation.id))
        assert turn is not None
        assert turn.status is TurnStatus.RUNNING
        gate.open()
        reply = answer(await client.call_tool("get_reply", {"turn_id": str(turn.id)}))
    assert (reply["state"], reply["text"]) == ("completed", "Still there.")


async def _hang_up(heard: Heard, scope: anyio.CancelScope) -> None:
    await heard.until(lambda line: "Still" in line)
    scope.cancel()


async def test_a_turn_that_is_stopped_ends_for_who_follows_it_with_what_was_written(office: Office, era: str, chat: Conversation) -> None:
    gate, heard, world = Gate(), Heard(), office.world
    world.model.will("Half a sen", gate)
    async with world.working(), office.client(era) as client, asyncio.TaskGroup() as group:
        posted = await world.post(chat.id, "Hello", source="terminal")
        await stored(world, posted, "Half a sen")
        following = group.create_task(client.call_tool("get_reply", {"turn_id": str(posted.turn_id)}, progress_callback=heard))
        await heard.until(lambda line: "Half" in line)
        stopped = answer(await client.call_tool("cancel_turn", {"turn_id": str(posted.turn_id)}))
    followed = answer(following.result())
    assert stopped["state"] == followed["state"] == "cancelled"
    assert followed["text"] == "Half a sen"
    assert world.model.open_streams == 0
    assert (await world.turn(posted)).status is TurnStatus.CANCELLED


async def test_a_model_that_fails_is_told_as_the_replys_error(office: Office, era: str) -> None:
    office.world.model.will(ModelRefused("There is no key for this model.", reason="NO_KEY"))
    async with office.world.working(), office.client(era) as client:
        result = await client.call_tool("send_message", {"text": "Hello"})
    assert isinstance(result, CallToolResult)
    assert result.is_error
    reply = result.structured_content or {}
    assert reply["state"] == "failed"
    assert reply["error"] == {"code": "NO_KEY", "message": "There is no key for this model."}


async def test_an_attempt_that_failed_is_told_while_the_next_one_is_waited_for(office: Office, era: str) -> None:
    gate, heard = Gate(), Heard()
    office.world.model.will("Half a", ModelFaltered("The answer broke off.", reason="STREAM_CUT")).will("All", gate, " of it.")
    async with office.world.working(), office.client(era) as client, asyncio.TaskGroup() as group:
        call = group.create_task(client.call_tool("send_message", {"text": "Hello"}, progress_callback=heard))
        await heard.until(lambda line: line.endswith("… · All"))
        gate.open()
    assert answer(call.result())["text"] == "All of it."
    assert any(line.startswith("Trying again soon: The answer broke off.") for line in heard.lines)


async def test_a_conversation_that_is_deleted_meanwhile_is_not_there_any_more(office: Office, era: str, chat: Conversation) -> None:
    gate, heard, world = Gate(), Heard(), office.world
    world.model.will("Hello", gate)
    async with world.working(), office.client(era) as client, asyncio.TaskGroup() as group:
        arguments = {"text": "Hello", "conversation_id": str(chat.id)}
        call = group.create_task(client.call_tool("send_message", arguments, progress_callback=heard))
        await heard.until(lambda line: "Hello" in line)
        await world.write(lambda uow: conversations.delete(uow, world.admin, chat.id))
    assert refusal(call.result()).startswith("NOT_FOUND: ")


async def test_who_loses_the_database_while_waiting_still_learns_what_was_posted(
    office: Office, era: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise StorageUnavailable("The database cannot be reached just now.")

    monkeypatch.setattr(office.world.app.storage, "read", away)
    async with office.client(era) as client:
        reply = answer(await client.call_tool("send_message", {"text": "Hello"}))
    monkeypatch.undo()
    assert reply["state"] == "queued"
    assert (await office.world.turn(posted_of(reply))).status is TurnStatus.QUEUED


@asynccontextmanager
async def _two(directory: Path, database: NewDatabase, model: ScriptedModel) -> AsyncIterator[tuple[World, Office]]:
    """One Onethread that works, and the MCP surface of another on the same database."""
    async with database() as url:
        where: dict[str, Any] = {"database": url.render_as_string(hide_password=False)}
        async with onethread(directory, model, **where) as there, onethread(directory, **where) as here, there.working():
            yield there, office_of(here)


async def test_a_reply_of_another_process_is_followed_and_stopped(on_both: NewDatabase, tmp_path: Path) -> None:
    gate, heard, model = Gate(), Heard(), ScriptedModel()
    model.will("Written elsewhere", gate).will("Never ending", Gate())
    async with _two(tmp_path, on_both, model) as (there, office), office.client(ERAS[1]) as client, asyncio.TaskGroup() as group:
        call = group.create_task(client.call_tool("send_message", {"text": "Hello"}, progress_callback=heard))
        await heard.until(lambda line: "Written elsewhere" in line)
        gate.open()
        assert answer(await call)["text"] == "Written elsewhere"

        endless = group.create_task(client.call_tool("send_message", {"text": "On and on"}, progress_callback=heard))
        await heard.until(lambda line: "Never ending" in line)
        (running,) = answer(await client.call_tool("agent_status", {}))["agents"]
        stopped = answer(await client.call_tool("cancel_turn", {"turn_id": running["turn_id"]}))
        assert stopped["state"] == "cancelled"
        assert answer(await endless)["state"] == "cancelled"

        async def is_quiet() -> bool:
            return model.open_streams == 0

        await there.until(is_quiet)
        assert (await there.turn(posted_of(stopped))).status is TurnStatus.CANCELLED
