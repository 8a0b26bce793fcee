"""The tools of MCP clients over a real database and a real worker: what they do, what they tell, and what they keep to themselves."""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from core import bindings, conversations, messages, tasks, turns
from core.access import Principal
from core.attachments import Upload
from core.errors import Conflict, InvalidInput, ModelRefused, NotAuthenticated, NotFound, RateLimited
from core.ids import new_id
from core.models import (
    JSON,
    Account,
    AgentStatus,
    BindingMode,
    ChannelKind,
    InboxKey,
    MessageStatus,
    Place,
    Posted,
    ToolCall,
    ToolCallState,
    TurnStatus,
)
from core.ports import UnitOfWork
from core.text import utf16_len
from core.tools import chat
from core.tools import tasks as task_tools
from core.tools.chat import reply_of
from core.tools.registry import MAX_RESULT_BYTES, Posting, ToolContext, Toolset
from tests.databases import on_both
from tests.fakes import Call, Gate, ScriptedModel
from tests.integration.conftest import MODEL, Start, World

new_database = on_both

TOOLS = Toolset((*task_tools.CLIENT_TOOLS, *chat.TOOLS))
ENDED = (TurnStatus.SUCCEEDED, TurnStatus.FAILED, TurnStatus.CANCELLED)


class Client:
    """One person's program that calls tools, each call in one transaction as a surface makes it. It does not follow replies."""

    def __init__(self, world: World, who: Principal | None = None) -> None:
        self.world = world
        self.who = who or world.admin
        self._posting = Posting(rules=world.app.rules, source="mcp")

    async def call(self, name: str, **arguments: Any) -> JSON:
        tool = TOOLS.get(name)
        storage = self.world.app.storage
        async with storage.read() if tool.hints.read_only else storage.write() as uow:
            context = ToolContext(uow=uow, principal=self.who, conversation=None, posting=self._posting)
            result = await tool.run(context, arguments)
        assert _bytes(result) <= MAX_RESULT_BYTES
        assert "null" not in json.dumps(result)
        return result

    async def ended(self, reply: JSON, *statuses: TurnStatus) -> JSON:
        """What get_reply gives when the turn has ended, or come to one of these states."""
        await self.world.comes_to(_posted(reply), *(statuses or ENDED))
        return await self.call("get_reply", turn_id=reply["turn_id"])

    async def ask(self, text: str, **arguments: Any) -> JSON:
        return await self.ended(await self.call("send_message", text=text, **arguments))


@pytest.fixture
def client(world: World) -> Client:
    return Client(world)


# --- sending and getting ---


async def test_a_message_to_a_task_is_queued_and_its_reply_can_be_fetched(world: World, client: Client) -> None:
    task = await world.task("Buy milk")
    world.model.will("Two litres ", "of milk.")
    sent = await client.call("send_message", text="  How much?", ref="ot-1")
    turn_id = sent.pop("turn_id")
    reply = await world.message(UUID(sent["message_id"]))
    assert sent == {
        "state": "queued",
        "ref": "OT-1",
        "conversation_id": str(task.conversation_id),
        "message_id": str(reply.id),
        "next": "No worker runs that could answer. What was sent is stored, and answered as soon as one does: call get_reply later.",
        "no_worker": True,
        "model": MODEL,
    }
    async with world.working():
        got = await client.ended({**sent, "turn_id": turn_id})
    assert got == {
        "turn_id": turn_id,
        "state": "completed",
        "ref": "OT-1",
        "conversation_id": str(task.conversation_id),
        "message_id": str(reply.id),
        "text": "Two litres of milk.",
        "model": MODEL,
        "tokens_in": 10,
        "tokens_out": 5,
        "cost": "0.0010",
    }
    said = await world.read(lambda uow: uow.messages.page(task.conversation_id, limit=10))
    assert [(each.content, each.source) for each in said] == [("  How much?", "mcp"), ("Two litres of milk.", "agent")]


async def test_a_message_to_nowhere_begins_a_private_chat_that_goes_on(world: World, client: Client) -> None:
    async with world.working():
        first = await client.ask("Hello")
        assert "ref" not in first
        second = await client.ask("And again", conversation_id=first["conversation_id"])
    assert second["conversation_id"] == first["conversation_id"]
    kim = await world.user("kim")
    with pytest.raises(NotFound):
        await Client(world, kim).call("list_messages", conversation_id=first["conversation_id"])


async def test_the_same_key_again_gives_the_first_turn(world: World, client: Client) -> None:
    sent = await client.call("send_message", text="Hello", idempotency_key="k")
    again = await client.call("send_message", text="Hello", idempotency_key="k")
    assert again == sent
    with pytest.raises(Conflict, match="Use a new key"):
        await client.call("send_message", text="Something else", idempotency_key="k")
    kim = Client(world, await world.user("kim"))
    assert (await kim.call("send_message", text="Hello", idempotency_key="k"))["turn_id"] != sent["turn_id"]
    async with world.working():
        assert (await client.ended(sent))["text"] == "OK."
        assert (await client.call("send_message", text="Hello", idempotency_key="k"))["state"] == "completed"


async def test_a_key_of_the_http_api_is_another_key(world: World, client: Client) -> None:
    of_api = InboxKey(source="api", scope=str(world.admin.user_id), event_id="k")
    posted = await world.post((await world.chat()).id, "Something else", key=of_api)
    sent = await client.call("send_message", text="Hello", idempotency_key="k")
    assert sent["turn_id"] != str(posted.turn_id)


async def test_a_place_is_named_in_one_way(world: World, client: Client) -> None:
    task = await world.task("Buy milk")
    for name in ("send_message", "list_messages", "agent_status"):
        text = {"text": "Hello"} if name == "send_message" else {}
        with pytest.raises(InvalidInput, match="ref or conversation_id, not both"):
            await client.call(name, ref="OT-1", conversation_id=str(task.conversation_id), **text)
    with pytest.raises(InvalidInput, match="Say which conversation"):
        await client.call("list_messages")


async def test_what_cannot_be_sent_says_why(world: World, client: Client) -> None:
    with pytest.raises(InvalidInput, match="empty"):
        await client.call("send_message", text=" ")
    with pytest.raises(InvalidInput, match="at most 10,000 characters"):
        await client.call("send_message", text="a" * 10_001)
    with pytest.raises(InvalidInput, match="wait_s"):
        await client.call("send_message", text="Hello", wait_s=56)
    await world.task("Buy milk")
    with pytest.raises(NotFound, match=r"^No task 'OT-9'\. Closest: OT-1\. Call list_tasks to see what there is\.$"):
        await client.call("send_message", text="Hello", ref="OT-9")
    for _ in range(20):
        await client.call("send_message", text="Hello", ref="OT-1")
    with pytest.raises(RateLimited):
        await client.call("send_message", text="Hello", ref="OT-1")


async def test_a_chosen_model_answers(world: World, client: Client) -> None:
    async with world.working():
        assert (await client.ask("Hello", model="two/model"))["model"] == "two/model"


async def test_another_model_than_the_chosen_one_is_told(world: World, client: Client) -> None:
    sent = await client.call("send_message", text="Hello")
    fallback = {"model": "two/model", "fallback_from": MODEL, "fallback_reason": "KEY_MISSING"}
    await world.write(lambda uow: uow.messages.update(UUID(sent["message_id"]), metadata=fallback))
    got = await client.call("get_reply", turn_id=sent["turn_id"])
    assert (got["model"], got["fallback_from"]) == ("two/model", MODEL)


# --- a turn's states ---


async def test_a_turn_behind_another_says_its_position(start: Start) -> None:
    gate = Gate()
    async with start(ScriptedModel().will(gate, "One.")) as world, world.working():
        client = Client(world)
        first = await client.call("send_message", text="One")
        await gate.reached()
        second = await client.call("send_message", text="Two", conversation_id=first["conversation_id"])
        assert (second["state"], second["position"], "phase" in second) == ("queued", 1, False)
        (agent,) = (await client.call("agent_status"))["agents"]
        assert agent["turn_id"] == first["turn_id"]
        gate.open()
        assert "position" not in await client.ended(second)


async def test_what_went_wrong_before_is_no_phase_of_the_next_turn(world: World, client: Client) -> None:
    sent = await client.call("send_message", text="Hello")
    await world.write(lambda uow: turns.set_agent_status(uow, UUID(sent["conversation_id"]), AgentStatus.ERROR, "No key."))
    assert "phase" not in await client.call("get_reply", turn_id=sent["turn_id"])
    await world.write(lambda uow: turns.set_agent_status(uow, UUID(sent["conversation_id"]), AgentStatus.THINKING, "Trying again soon."))
    assert (await client.call("get_reply", turn_id=sent["turn_id"]))["phase"] == "Trying again soon."


async def test_a_running_turn_tells_its_phase_and_what_is_known_of_its_text(start: Start) -> None:
    gate = Gate()
    async with start(ScriptedModel().will("Half of", gate, " it.")) as world, world.working():
        client = Client(world)
        sent = await client.call("send_message", text="Hello")
        await gate.reached()

        async def is_stored() -> bool:
            return "text" in await client.call("get_reply", turn_id=sent["turn_id"])

        await world.until(is_stored)
        running = await client.call("get_reply", turn_id=sent["turn_id"])
        assert (running["state"], running["text"], running["phase"]) == ("running", "Half of", f"Asking {MODEL} …")
        assert running["next"] == f"Not finished: call get_reply with turn_id {sent['turn_id']}."

        turn = await world.turn(_posted(sent))
        newer = await world.read(lambda uow: reply_of(uow, turn, after=5, text="Half of it"))
        assert (newer.text, newer.text_from) == ("of it", 5)

        gate.open()
        assert (await client.ended(sent))["text"] == "Half of it."
        ended = await world.turn(_posted(sent))
        assert (await world.read(lambda uow: reply_of(uow, ended, text="Half of it, but older"))).text == "Half of it."


async def test_a_failed_turn_says_why_and_keeps_what_was_written(start: Start) -> None:
    refused = ModelRefused("one/model needs a key.", reason="KEY_MISSING")
    async with start(ScriptedModel().will("Half", refused)) as world, world.working():
        got = await Client(world).ask("Hello")
    assert (got["state"], got["text"]) == ("failed", "Half")
    assert got["error"] == {"code": "KEY_MISSING", "message": "one/model needs a key."}
    assert got["next"] == "To try again, send the message again."


async def test_a_stopped_turn_stays_stopped_and_a_finished_one_finished(world: World, client: Client) -> None:
    sent = await client.call("send_message", text="Hello")
    assert (await client.call("cancel_turn", turn_id=sent["turn_id"]))["state"] == "cancelled"
    assert (await client.call("cancel_turn", turn_id=sent["turn_id"]))["state"] == "cancelled"
    async with world.working():
        done = await client.ask("Hello")
        assert (await client.call("cancel_turn", turn_id=done["turn_id"])) == done
    assert world.model.calls == 1


async def test_a_question_is_told_and_answered_by_the_next_message(start: Start) -> None:
    question = Call("ask_user", {"question": "Which kind?", "options": ["Whole", "Skimmed"]})
    async with start(ScriptedModel().will(question).will("Whole it is.")) as world, world.working():
        client = Client(world)
        asked = await client.ask("Buy milk")
        assert (asked["state"], asked["question"]) == ("completed", {"text": "Which kind?", "options": ["Whole", "Skimmed"]})
        assert asked["tool_calls"] == [{"name": "ask_user", "state": "done"}]
        assert asked["next"] == "The answer to the question is the next send_message here."
        (agent,) = (await client.call("agent_status"))["agents"]
        assert (agent["status"], agent["turn_id"]) == ("waiting_for_user", asked["turn_id"])
        assert agent["question"] == asked["question"]

        answered = await client.ask("Whole", conversation_id=asked["conversation_id"])
        assert answered["text"] == "Whole it is."
        assert (await client.call("agent_status"))["agents"] == []
        shown = (await client.call("list_messages", conversation_id=asked["conversation_id"]))["messages"]
        assert [each.get("question", {}).get("text") for each in shown] == [None, "Which kind?", None, None]


async def test_whatever_people_or_a_model_wrote_is_named_as_untrusted(world: World, client: Client) -> None:
    task = await world.task("trap", description="trap", labels=("trap",))
    world.model.will(Call("ask_user", {"question": "trap?", "options": ["trap"]}))
    async with world.working():
        asked = await client.ask("trap", ref=task.ref)
    calls: dict[str, JSON] = {
        "list_tasks": {},
        "get_task": {"ref": task.ref},
        "update_task": {"ref": task.ref, "priority": "high"},
        "get_reply": {"turn_id": asked["turn_id"]},
        "list_messages": {"ref": task.ref},
        "agent_status": {"ref": task.ref},
    }
    for name, arguments in calls.items():
        trapped = set(_where("trap", await client.call(name, **arguments)))
        assert trapped
        assert [path for path in trapped if not path.startswith(TOOLS.get(name).untrusted)] == []


def _where(word: str, value: Any, path: str = "") -> Iterator[str]:
    """The paths of the texts that contain it, as `untrusted` writes them."""
    match value:
        case dict():
            for name, each in value.items():
                yield from _where(word, each, f"{path}.{name}" if path else name)
        case list():
            for each in value:
                yield from _where(word, each, f"{path}[]")
        case str() if word in value:
            yield path


# --- approvals ---


@pytest.fixture
async def waiting(start: Start) -> AsyncIterator[tuple[Client, JSON]]:
    """The agent asks whether it may delete OT-1."""
    async with start(ScriptedModel().will(Call("delete_task", {"ref": "OT-1"})).will("I see.")) as world, world.working():
        await world.task("Buy milk")
        client = Client(world)
        sent = await client.call("send_message", text="Delete OT-1")
        yield client, await client.ended(sent, TurnStatus.WAITING)


async def test_what_waits_for_an_approval_names_it(waiting: tuple[Client, JSON]) -> None:
    client, reply = waiting
    (approval,) = reply["approvals"]
    assert reply["state"] == "waiting_for_approval"
    assert (approval["tool"], approval["arguments"]) == ("delete_task", {"ref": "OT-1"})
    assert reply["tool_calls"] == [{"name": "delete_task", "state": "awaiting_approval"}]
    assert (reply["phase"], reply["next"]) == (
        "May I run delete_task?",
        "Ask the person whether the tool may run, then call decide with approval_id.",
    )
    (agent,) = (await client.call("agent_status"))["agents"]
    assert (agent["turn_id"], agent["approvals"]) == (reply["turn_id"], [approval])


@pytest.mark.parametrize(("decision", "left"), [("approve", []), ("deny", ["Buy milk"])])
async def test_a_decision_lets_the_turn_go_on(waiting: tuple[Client, JSON], decision: str, left: list[str]) -> None:
    client, reply = waiting
    approval_id = reply["approvals"][0]["approval_id"]
    decided = await client.call("decide", approval_id=approval_id, decision=decision)
    assert decided["turn_id"] == reply["turn_id"]
    assert "approvals" not in decided
    assert (await client.ended(reply))["text"] == "I see."
    assert await client.world.titles() == left
    with pytest.raises(Conflict, match="already"):
        await client.call("decide", approval_id=approval_id, decision="approve")


async def test_it_is_told_who_decided(waiting: tuple[Client, JSON]) -> None:
    client, reply = waiting
    await client.call("decide", approval_id=reply["approvals"][0]["approval_id"], decision="deny")
    told = {"name": "delete_task", "state": "failed", "decided": "denied by admin"}
    assert (await client.ended(reply))["tool_calls"] == [told]
    listed = await client.call("list_messages", conversation_id=reply["conversation_id"])
    assert listed["messages"][1]["tool_calls"] == [told]


async def test_what_is_too_long_in_an_approval_is_shortened(waiting: tuple[Client, JSON]) -> None:
    client, reply = waiting
    posted = _posted(reply)
    (call,) = await client.world.tool_calls(posted)
    long = replace(call, arguments={"ref": "OT-1", "text": "🥛" * 5_000, "labels": ["x" * 500] * 10})
    await client.world.write(lambda uow: uow.tool_calls.put(long))
    (approval,) = (await client.call("get_reply", turn_id=reply["turn_id"]))["approvals"]
    assert approval["arguments"]["ref"] == "OT-1"
    assert approval["arguments"]["text"] == "🥛" * 99 + "…"
    assert approval["arguments"]["labels"].startswith('["xxx')


# --- what is there ---


async def test_messages_are_listed_with_what_belongs_to_them(world: World, client: Client) -> None:
    task = await world.task("Buy milk")
    world.model.will("Let me see.", Call("list_tasks", {})).will("There is one.")
    kim = await world.user("kim")
    async with world.working():
        await world.ended(await world.post(task.conversation_id, "What is there?", kim, uploads=[Upload(name="list.txt", data=b"milk")]))
    note = await world.note(task.conversation_id, "Thanks")
    await world.edit(note.message_id, "Thank you")
    gone = await world.note(task.conversation_id, "Never mind")
    await world.delete(gone.message_id)
    listed = await client.call("list_messages", ref="OT-1")
    asked, answered, edited, deleted = listed["messages"]
    assert (listed["conversation_id"], listed["ref"], listed["has_more"]) == (str(task.conversation_id), "OT-1", False)
    assert [each["seq"] for each in listed["messages"]] == [1, 2, 3, 4]
    assert (asked["author"], asked["role"], asked["content"], asked["files"]) == ("kim", "user", "What is there?", ["list.txt"])
    assert (answered["role"], answered["turn_id"]) == ("assistant", asked["turn_id"])
    assert answered["tool_calls"] == [{"name": "list_tasks", "state": "done"}]
    assert (edited["content"], edited["edited"]) == ("Thank you", True)
    assert (deleted["content"], deleted["deleted"]) == ("", True)
    assert "clipped" not in asked


async def test_it_is_told_where_a_task_is_followed_and_by_whom(world: World, client: Client) -> None:
    task = await world.task("Buy milk")

    async def follow(uow: UnitOfWork) -> None:
        for surface, kind, mode in (("slack", ChannelKind.OPEN, BindingMode.TWO_WAY), ("discord", ChannelKind.PRIVATE, BindingMode.WATCH)):
            place = Place(account=Account(surface=surface, id="1"), channel="C1", thread="1.0")
            bound = await bindings.follow(uow, world.admin, task.conversation_id, place, mode=mode, kind=kind, source="slack")
            await bindings.checked(uow, bound, channel="C1", thread="1.0", opened=True, kind=kind, label="#ops", url="https://s/1")

    await world.write(follow)
    places = "in #ops on Slack, read-only in a private channel on Discord"
    assert (await client.call("get_task", ref="OT-1"))["followed"] == places
    (agent,) = (await client.call("agent_status", ref="OT-1"))["agents"]
    assert agent["followed"] == places
    first, second = (await client.call("list_messages", ref="OT-1"))["messages"]
    assert ("author" in first, first["role"], first["content"]) == (
        False,
        "system",
        "admin follows this in a channel on Slack from now on.",
    )
    assert second["content"] == "admin follows this in a private channel on Discord from now on, read-only."


async def test_the_agent_is_shown_where_it_is_not_idle(world: World, client: Client) -> None:
    task = await world.task("Buy milk")
    await world.task("Idle")
    assert await client.call("agent_status") == {
        "agents": [],
        "has_more": False,
        "queued": 0,
        "running": 0,
        "workers": 0,
        "default_model": MODEL,
        "next": "No worker runs that could answer. What was sent is stored, and answered as soon as one does: call get_reply later.",
    }
    gate = Gate()
    world.model.will(gate, "Done.")
    async with world.working():
        sent = await client.call("send_message", text="Hello", ref="OT-1")
        await gate.reached()
        status = await client.call("agent_status")
        assert status["agents"] == [
            {
                "ref": "OT-1",
                "conversation_id": str(task.conversation_id),
                "title": "Buy milk",
                "status": "thinking",
                "message": f"Asking {MODEL} …",
                "turn_id": sent["turn_id"],
            }
        ]
        assert (status["running"], status["workers"], "next" in status) == (1, 1, False)
        (shown,) = (await client.call("list_tasks", query="milk"))["tasks"]
        assert shown["agent_status"] == "thinking"
        details = await client.call("get_task", ref="OT-1")
        assert (details["agent_status"], details["agent_status_message"]) == ("thinking", f"Asking {MODEL} …")
        gate.open()
        await client.ended(sent)
    (idle,) = (await client.call("agent_status", ref="OT-1"))["agents"]
    assert (idle["status"], idle["turn_id"]) == ("idle", sent["turn_id"])


async def test_more_agents_than_are_shown_are_told(world: World, client: Client) -> None:
    sent = [await client.call("send_message", text="Hello") for _ in range(21)]
    async with world.app.storage.write() as uow:
        for each in sent:
            await turns.set_agent_status(uow, UUID(each["conversation_id"]), AgentStatus.ERROR, "No key.")
    status = await client.call("agent_status")
    assert (len(status["agents"]), status["has_more"], status["queued"]) == (20, True, 21)
    assert status["next"].endswith("For one that is not shown, call agent_status with its ref or conversation_id.")


# --- who sees what ---


async def test_what_others_keep_private_is_not_there(start: Start) -> None:
    async with start(ScriptedModel().will(Call("delete_task", {"ref": "OT-1"}))) as world, world.working():
        await world.task("Buy milk")
        theirs = Client(world, await world.user("kim"))
        sent = await theirs.call("send_message", text="Delete OT-1")
        reply = await theirs.ended(sent, TurnStatus.WAITING)
        stranger = Client(world, await world.user("lee"))
        place, turn = {"conversation_id": reply["conversation_id"]}, {"turn_id": reply["turn_id"]}
        approval = {"approval_id": reply["approvals"][0]["approval_id"], "decision": "approve"}
        calls = {
            "send_message": {"text": "Hello", **place},
            "get_reply": turn,
            "list_messages": place,
            "cancel_turn": turn,
            "decide": approval,
            "agent_status": place,
        }
        for name, arguments in calls.items():
            with pytest.raises(NotFound):
                await stranger.call(name, **arguments)
        status = await stranger.call("agent_status")
        assert (status["agents"], status["has_more"]) == ([], False)
        assert len((await theirs.call("agent_status"))["agents"]) == 1
        assert (await world.turn(_posted(sent))).status is TurnStatus.WAITING


async def test_what_does_not_exist_says_where_to_look(client: Client) -> None:
    nothing = str(new_id())
    for name, arguments, advice in (
        ("get_reply", {"turn_id": nothing}, f"There is no turn {nothing}. agent_status shows the turns that go on."),
        ("cancel_turn", {"turn_id": nothing}, f"There is no turn {nothing}. agent_status shows the turns that go on."),
        (
            "list_messages",
            {"conversation_id": nothing},
            f"There is no conversation {nothing}. For a task's conversation pass its ref; list_tasks shows refs.",
        ),
        (
            "decide",
            {"approval_id": nothing, "decision": "deny"},
            f"There is no approval {nothing}. agent_status shows what waits.",
        ),
        ("get_task", {"ref": "OT-99"}, "No task 'OT-99'. Call list_tasks to see what there is."),
        ("update_task", {"ref": "OT-99", "status": "done"}, "No task 'OT-99'. Call list_tasks to see what there is."),
        ("delete_task", {"ref": "OT-99"}, "No task 'OT-99'. Call list_tasks to see what there is."),
    ):
        with pytest.raises(NotFound) as raised:
            await client.call(name, **arguments)
        assert str(raised.value) == advice


@pytest.mark.parametrize("scope", ["chat", "tasks:read", "tasks:write"])
async def test_a_tool_wants_the_scope_that_it_names(world: World, scope: str) -> None:
    """With all other scopes it is refused, where it is reached at all."""
    await world.task("Buy milk")
    posted = await world.post((await world.chat()).id, "Hello")
    client = Client(world, replace(world.admin, scopes=world.admin.scopes - {scope}))
    arguments: dict[str, JSON] = {
        "send_message": {"text": "Hello"},
        "get_reply": {"turn_id": str(posted.turn_id)},
        "list_messages": {"conversation_id": str(posted.conversation_id)},
        "cancel_turn": {"turn_id": str(posted.turn_id)},
        "decide": {"approval_id": str(new_id()), "decision": "deny"},
        "agent_status": {},
        "list_tasks": {},
        "get_task": {"ref": "OT-1"},
        "create_task": {"title": "Bread"},
        "update_task": {"ref": "OT-1", "status": "done"},
        "delete_task": {"ref": "OT-1"},
    }
    assert set(arguments) == {tool.name for tool in TOOLS}
    for tool in TOOLS:
        if tool.scope == scope:
            with pytest.raises(NotAuthenticated, match=f"lacks the scope '{scope}'"):
                await client.call(tool.name, **arguments[tool.name])


# --- large things ---


async def test_a_long_reply_is_read_on_to_its_end(world: World, client: Client) -> None:
    """Of 200 kB, where each border of a piece may fall between the halves of a character."""
    whole = "".join(f"{number} 🥛\n" for number in range(20_000)) + 'é\x01"\\'
    sent = await client.call("send_message", text="Hello")
    await _finish(world, sent, whole)
    pieces, after = [], 0
    for _ in range(30):
        got = await client.call("get_reply", turn_id=sent["turn_id"], after=after)
        assert got.get("text_from", 0) == after
        pieces.append(got["text"])
        if "more_after" not in got:
            break
        assert _bytes(got) > MAX_RESULT_BYTES - 1_000
        after = got["more_after"]
        assert got["next"] == f"There is more: call get_reply with turn_id {sent['turn_id']} and after {after}."
        assert after == utf16_len("".join(pieces))
    assert len(whole.encode()) > 200_000
    assert "".join(pieces) == whole
    assert "next" not in got


async def test_nothing_is_behind_the_end_of_a_reply(world: World, client: Client) -> None:
    sent = await client.call("send_message", text="Hello")
    await _finish(world, sent, "Milk 🥛")
    got = await client.call("get_reply", turn_id=sent["turn_id"], after=7)
    assert ("text" in got, got["text_from"]) == (False, 7)
    got = await client.call("get_reply", turn_id=sent["turn_id"], after=6)
    assert (got["text"], got["text_from"]) == ("🥛", 5)


@pytest.mark.parametrize("character", ["a", "🥛", "\x01"])
async def test_long_messages_are_clipped_and_can_be_read_whole(world: World, client: Client, character: str) -> None:
    conversation = (await world.chat()).id
    await _say(world, conversation, [character * 10_000] * 100)
    page = await client.call("list_messages", conversation_id=str(conversation), limit=100)
    assert all(message["clipped"] for message in page["messages"])
    assert (page["has_more"], page["next_before"]) == (True, page["messages"][0]["seq"])
    assert page["next"] == (
        "Too much for one result: call list_messages with before next_before for earlier ones. "
        "A clipped message: call list_messages with before its seq + 1 and limit 1."
    )
    pieces, after = [], 0
    for _ in range(10):
        one = await client.call("list_messages", conversation_id=str(conversation), before=51, limit=1, after=after)
        (message,) = one["messages"]
        assert message["seq"] == 50
        pieces.append(message["content"])
        if "clipped" not in message:
            break
        after = utf16_len("".join(pieces))
        assert one["next"] == f"The rest: call list_messages with before 51, limit 1 and after {after}."
    assert "".join(pieces) == character * 10_000
    assert len(pieces) == {"a": 1, "🥛": 3, "\x01": 4}[character]
    with pytest.raises(InvalidInput, match="limit 1"):
        await client.call("list_messages", conversation_id=str(conversation), after=1)


async def test_pages_of_messages_have_no_gap(world: World, client: Client) -> None:
    conversation = (await world.chat()).id
    await _say(world, conversation, [f"{number} " * (number * 20) for number in range(1, 101)])
    seen: list[int] = []
    before: dict[str, int] = {}
    for _ in range(30):
        page = await client.call("list_messages", conversation_id=str(conversation), limit=30, **before)
        seen = [message["seq"] for message in page["messages"]] + seen
        if not page["has_more"]:
            break
        before = {"before": page["next_before"]}
    assert seen == list(range(1, 101))


async def test_many_long_titles_are_listed_in_pages(world: World, client: Client) -> None:
    await world.user("kim")

    async def make(uow: UnitOfWork) -> None:
        for _ in range(100):
            await tasks.create(uow, world.admin, "🥛" * 200, {"assignee": "kim", "due_at": "2026-12-24"})

    await world.write(make)
    seen: list[str] = []
    cursor: dict[str, str] = {}
    for _ in range(10):
        page = await client.call("list_tasks", limit=100, **cursor)
        seen += [task["ref"] for task in page["tasks"]]
        assert (page["total"], "total_at_least" in page) == (100, False)
        if not page["has_more"]:
            break
        assert page["next"] == "Too much for one result: call list_tasks with cursor next_cursor for the rest."
        cursor = {"cursor": page["next_cursor"]}
    assert seen == [f"OT-{number}" for number in range(100, 0, -1)]


async def test_a_long_description_is_read_on_to_its_end(world: World, client: Client) -> None:
    whole = "".join(f"{number}🥛" for number in range(2_000))
    made = await client.call("create_task", title="🥛" * 200, description=whole, labels=["🥛" * 48 + str(label) for label in range(20)])
    assert made["description_clipped"]
    pieces, after = [], 0
    for _ in range(5):
        got = await client.call("get_task", ref="OT-1", after=after)
        pieces.append(got["description"])
        if "next" not in got:
            break
        after = utf16_len("".join(pieces))
        assert got["next"] == f"The rest of the description: get_task with ref OT-1 and after {after}."
    assert "".join(pieces) == whole


@pytest.mark.parametrize("what", ["question", "error"])
async def test_whatever_a_model_writes_fits_into_a_result(world: World, client: Client, what: str) -> None:
    """Controls are written with six bytes each: no text is larger."""
    worst = "\x01" * 100_000
    sent = await client.call("send_message", text="Hello")
    about = {"question": {"text": worst[:1_000], "options": [worst] * 5}, "error": {"code": "X", "message": worst[:1_000]}}
    await world.write(lambda uow: uow.messages.update(UUID(sent["message_id"]), content=worst, metadata={what: about[what]}))
    (turn,) = await world.read(lambda uow: uow.turns.unfinished(UUID(sent["conversation_id"])))
    await _call_tools(world, turn.id, [worst[:128]] * 30)
    got = await client.call("get_reply", turn_id=sent["turn_id"])
    assert (len(got["tool_calls"]), got["text"][0], "more_after" in got) == (20, "\x01", True)
    await world.write(lambda uow: turns.set_agent_status(uow, turn.conversation_id, AgentStatus.WAITING_FOR_USER, worst))
    await world.write(lambda uow: conversations.set_title(uow, turn.conversation_id, worst[:200]))
    assert len((await client.call("agent_status"))["agents"]) == 1
    assert len((await client.call("list_messages", conversation_id=sent["conversation_id"]))["messages"]) == 2


# --- tasks ---


async def test_a_client_is_told_more_of_a_task_than_the_agent(world: World, client: Client) -> None:
    await world.user("kim")
    made = await client.call("create_task", title="Buy milk", description="Two.", assignee="kim", due_at="2026-12-24", labels=["home"])
    task = await world.read(lambda uow: uow.tasks.by_ref("OT-1", world.admin))
    conversation = await world.read(lambda uow: uow.conversations.find(UUID(made["conversation_id"])))
    assert task
    times = {name: made.pop(name) for name in ("created_at", "updated_at")}
    assert times["created_at"] == times["updated_at"] == task.created_at.isoformat(timespec="seconds").replace("+00:00", "Z")
    owner = (await world.read(lambda uow: uow.users.names([world.admin.user_id])))[world.admin.user_id]
    assert made == {
        "ref": "OT-1",
        "title": "Buy milk",
        "status": "todo",
        "priority": "medium",
        "assignee": "kim",
        "due_at": "2026-12-24T00:00:00Z",
        "description": "Two.",
        "labels": ["home"],
        "conversation_id": str(task.conversation_id),
        "agent_status": "idle",
        "version": 1,
        "created_by": owner,
    }
    assert await client.call("get_task", ref="ot-1") == {**made, **times}
    async with world.app.storage.read() as uow:
        context = ToolContext(uow=uow, principal=world.admin, conversation=conversation)
        known = await task_tools.get_task.run(context, {"ref": "OT-1"})
    assert set(made) - set(known) == {"conversation_id", "agent_status", "created_by"}
    assert set(known) - set(made) == {"updated_at"}


async def test_a_task_is_made_once_for_each_key(world: World, client: Client) -> None:
    made = await client.call("create_task", title="Buy milk", labels=["home"], idempotency_key="k")
    assert await client.call("create_task", title="Buy milk", labels=["home"], idempotency_key="k") == made
    with pytest.raises(Conflict, match="Use a new key"):
        await client.call("create_task", title="Buy milk", labels=["work"], idempotency_key="k")
    kim = Client(world, await world.user("kim"))
    assert (await kim.call("create_task", title="Buy milk", labels=["home"], idempotency_key="k"))["ref"] == "OT-2"
    assert (await client.call("create_task", title="Buy milk", labels=["home"]))["ref"] == "OT-3"
    with pytest.raises(InvalidInput, match="idempotency_key"):
        await client.call("create_task", title="Bread", idempotency_key="k" * 256)


async def test_tasks_are_found_by_who_has_them_and_when_they_changed(world: World, client: Client) -> None:
    kim = await world.user("kim")
    for title, who in (("Milk", "kim"), ("Bread", None), ("Eggs", "kim")):
        await world.task(title, assignee=who)
    before = datetime.now(UTC)
    await client.call("update_task", ref="OT-1", status="in_progress")

    async def refs(who: Client, **where: Any) -> list[str]:
        return [task["ref"] for task in (await who.call("list_tasks", **where))["tasks"]]

    assert await refs(client, assignee="Kim") == ["OT-3", "OT-1"]
    assert await refs(Client(world, kim), assignee="me") == ["OT-3", "OT-1"]
    assert await refs(client, assignee="me") == []
    assert await refs(client, status="in_progress", assignee="kim") == ["OT-1"]
    assert await refs(client, updated_since=before.isoformat()) == ["OT-1"]
    assert await refs(client, updated_since=(before - timedelta(days=1)).date().isoformat()) == ["OT-1", "OT-3", "OT-2"]
    assert await refs(client, updated_since=(before + timedelta(hours=1)).isoformat()) == []
    with pytest.raises(InvalidInput, match=r"There is no user 'max'\. Users: .*kim"):
        await refs(client, assignee="max")
    with pytest.raises(InvalidInput, match="is no date"):
        await refs(client, updated_since="yesterday")


@pytest.mark.parametrize("where", [{}, {"updated_since": "2020-01-01"}], ids=["newest", "last changed"])
async def test_a_cursor_leads_through_all_tasks(world: World, client: Client, where: JSON) -> None:
    for number in range(5):
        await world.task(f"Task {number}")
    await client.call("update_task", ref="OT-2", status="done")
    seen: list[str] = []
    cursor: JSON = {}
    for _ in range(3):
        page = await client.call("list_tasks", limit=2, **where, **cursor)
        assert page["total"] == 5
        seen += [task["ref"] for task in page["tasks"]]
        cursor = {"cursor": page.get("next_cursor")}
    assert (page["has_more"], "next_cursor" in page) == (False, False)
    assert seen == (["OT-2", "OT-5", "OT-4", "OT-3", "OT-1"] if where else ["OT-5", "OT-4", "OT-3", "OT-2", "OT-1"])


@pytest.mark.parametrize("cursor", ["x", "1.x", "x.01a2152f-a62f-7346-8aaf-b51a5e008e7b", f"{10**30}.01a2152f-a62f-7346-8aaf-b51a5e008e7b"])
async def test_a_cursor_that_is_none_is_refused(client: Client, cursor: str) -> None:
    with pytest.raises(InvalidInput, match="none of ours"):
        await client.call("list_tasks", cursor=cursor)


async def test_a_cursor_of_another_order_is_refused(world: World, client: Client) -> None:
    for number in range(2):
        await world.task(f"Task {number}")
    page = await client.call("list_tasks", limit=1)
    with pytest.raises(InvalidInput, match="another order"):
        await client.call("list_tasks", limit=1, cursor=page["next_cursor"], updated_since="2020-01-01")


async def test_more_than_a_hundred_tasks_are_not_counted(world: World, client: Client) -> None:
    async def make(uow: UnitOfWork) -> None:
        for number in range(101):
            await tasks.create(uow, world.admin, f"Task {number}")

    await world.write(make)
    page = await client.call("list_tasks", limit=1)
    assert (page["total"], page["total_at_least"], page["has_more"]) == (100, True, True)
    assert (await client.call("list_tasks", query="task 99"))["total"] == 2


async def test_a_task_that_somebody_else_changed_is_left_alone(client: Client) -> None:
    await client.call("create_task", title="Buy milk")
    await client.call("update_task", ref="OT-1", status="done")
    with pytest.raises(Conflict, match="at version 2 now"):
        await client.call("update_task", ref="OT-1", title="Buy bread", expected_version=1)
    assert await client.call("delete_task", ref="OT-1") == {"deleted": "OT-1"}


# --- helpers ---


def _bytes(result: JSON) -> int:
    return len(json.dumps(result, ensure_ascii=False, separators=(",", ":")).encode())


def _posted(reply: JSON) -> Posted:
    ids = {"conversation_id": UUID(reply["conversation_id"]), "turn_id": UUID(reply["turn_id"])}
    return Posted(message_id=new_id(), reply_id=None, **ids)


async def _finish(world: World, sent: JSON, text: str) -> None:
    """Ends a turn with this reply, as a worker would."""
    async with world.app.storage.write() as uow:
        await uow.turns.update(UUID(sent["turn_id"]), status=TurnStatus.SUCCEEDED)
        await uow.messages.update(UUID(sent["message_id"]), status=MessageStatus.COMPLETED, content=text)


async def _say(world: World, conversation_id: UUID, texts: Sequence[str]) -> None:
    rules = replace(world.app.rules, messages_per_minute=1_000)
    async with world.app.storage.write() as uow:
        for text in texts:
            await messages.note(uow, world.admin, conversation_id, text, rules=rules, source="test")


async def _call_tools(world: World, turn_id: UUID, names: Sequence[str]) -> None:
    async with world.app.storage.write() as uow:
        for index, name in enumerate(names):
            about: Any = {"arguments": {}, "state": ToolCallState.DONE, "result": "", "created_at": uow.now}
            await uow.tool_calls.put(ToolCall(turn_id=turn_id, step=0, index=index, name=name, **about))
