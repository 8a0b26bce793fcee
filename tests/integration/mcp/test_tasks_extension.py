"""The tasks extension: a message is answered at once with the id of its turn, under which any process tells how it goes."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any
from uuid import UUID

import httpx
import jsonschema  # type: ignore[import-untyped]
import pytest
import uvicorn
from structlog.testing import capture_logs

from core import conversations, tasks
from core.access import Principal
from core.errors import ModelRefused, StorageUnavailable
from core.models import ApprovalStatus, Decision, Posted, TurnStatus
from core.ports import Storage, UnitOfWork
from core.tools import chat as chat_tools
from mcp_server import resources, subscriptions
from mcp_server.offer import Selection
from mcp_server.server import Server
from tests.fakes import Call, Gate, ScriptedModel
from tests.integration.conftest import Start, World
from tests.integration.mcp.conftest import Office, office_of
from tests.mcp_client import JSON, LEGACY, MODERN, TASKS, HttpWire, McpClient, RpcError

CAN: JSON = {"extensions": TASKS, "elicitation": {}}
"""What the clients of these tests declare."""
DELETE = Call("delete_task", {"ref": "OT-1"})


@asynccontextmanager
async def client_of(server: Server, *, can: JSON | None = None, era: str = MODERN) -> AsyncIterator[McpClient]:
    """Somebody's client of this server, over HTTP."""
    door = socket.socket()
    door.bind(("127.0.0.1", 0))
    door.listen()
    config = uvicorn.Config(server.streamable_http_app(), log_config=None, lifespan="on", timeout_graceful_shutdown=1)
    http = uvicorn.Server(config)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(_stop, http, asyncio.create_task(http.serve([door]), name="uvicorn"))
        url = f"http://127.0.0.1:{door.getsockname()[1]}"
        wire = HttpWire(await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=20)))
        yield await McpClient(wire, era=era, capabilities=CAN if can is None else can).start()


async def _stop(server: uvicorn.Server, serving: "asyncio.Task[None]") -> None:
    server.should_exit = True
    await serving


@pytest.fixture
async def client(office: Office) -> AsyncIterator[McpClient]:
    """The admin's."""
    async with client_of(office.server()) as found:
        yield found


async def send(client: McpClient, text: str, **arguments: Any) -> JSON:
    task = await client.call("send_message", text=text, **arguments)
    assert task["resultType"] == "task", task
    return task


async def get(client: McpClient, task: JSON) -> JSON:
    return await client.request("tasks/get", {"taskId": task["taskId"]})


async def update(client: McpClient, task: JSON, **responses: JSON) -> JSON:
    return await client.request("tasks/update", {"taskId": task["taskId"], "inputResponses": responses})


def posted_of(task: JSON) -> Posted:
    """Its turn, as the world asks for it."""
    turn_id = UUID(task["taskId"])
    return Posted(conversation_id=turn_id, message_id=turn_id, reply_id=turn_id, turn_id=turn_id)


async def ended(office: Office, task: JSON) -> None:
    await office.world.comes_to(posted_of(task), TurnStatus.SUCCEEDED, TurnStatus.FAILED, TurnStatus.CANCELLED)


async def stored(world: World, reply_id: UUID, text: str) -> None:
    """Waits until this much of the reply is in the database."""

    async def there() -> bool:
        return (await world.message(reply_id)).content == text

    await world.until(there)


async def refused(client: McpClient, method: str, task_id: str) -> RpcError:
    """The error that it is answered with."""
    with pytest.raises(RpcError) as error:
        await client.request(method, {"taskId": task_id, "inputResponses": {}})
    return error.value


METHODS = ("tasks/get", "tasks/update", "tasks/cancel")


# --- a message becomes a task ------------------------------------------------------------------------------------------


async def test_a_message_is_answered_at_once_with_the_id_of_its_turn(office: Office, client: McpClient) -> None:
    task = await send(client, "Hello")

    turn = await office.world.turn(posted_of(task))
    at = turn.created_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert turn.status is TurnStatus.QUEUED
    assert {key: task[key] for key in ("status", "createdAt", "lastUpdatedAt", "ttlMs", "pollIntervalMs")} == {
        "status": "working",
        "createdAt": at,
        "lastUpdatedAt": at,
        "ttlMs": None,
        "pollIntervalMs": 1000,
    }
    assert not {"result", "error", "inputRequests", "requestState"} & task.keys()


async def test_the_server_says_that_it_has_the_extension(client: McpClient) -> None:
    assert client.server["capabilities"]["extensions"] == TASKS


async def test_the_result_of_a_task_is_what_the_call_would_have_returned(office: Office, client: McpClient) -> None:
    office.world.model.will("Hello, Ada.")
    async with office.world.working():
        task = await send(client, "Hello")
        await ended(office, task)
        done = await get(client, task)
    async with client_of(office.server(), can={}) as plain:
        same = await plain.call("get_reply", turn_id=task["taskId"])

    assert (done["resultType"], done["status"], done["taskId"]) == ("complete", "completed", task["taskId"])
    result = done["result"]
    assert (result["isError"], result["structuredContent"]["text"]) == (False, "Hello, Ada.")
    assert json.loads(result["content"][0]["text"]) == result["structuredContent"] == same["structuredContent"]
    jsonschema.validate(result["structuredContent"], chat_tools.send_message.output)


@pytest.mark.parametrize(("era", "can"), [(MODERN, {}), (LEGACY, CAN)])
async def test_a_client_that_cannot_have_tasks_gets_the_reply(office: Office, era: str, can: JSON) -> None:
    office.world.model.will("Hello.")
    async with office.world.working(), client_of(office.server(), era=era, can=can) as client:
        result = await client.call("send_message", text="Hello")
    assert result["structuredContent"]["text"] == "Hello."
    assert result.get("resultType", "complete") == "complete"


async def test_other_tools_never_become_tasks(office: Office, client: McpClient) -> None:
    task = await send(client, "Hello")
    reply = await client.call("get_reply", turn_id=task["taskId"], wait_s=0)
    created = await client.call("create_task", title="Buy milk")
    stopped = await client.call("cancel_turn", turn_id=task["taskId"])
    assert (reply["resultType"], reply["structuredContent"]["state"]) == ("complete", "queued")
    assert (created["resultType"], created["structuredContent"]["ref"]) == ("complete", "OT-1")
    assert (stopped["resultType"], stopped["structuredContent"]["state"]) == ("complete", "cancelled")


@pytest.mark.parametrize(
    ("arguments", "begins"),
    [
        ({"text": "Hello", "ref": "OT-99"}, "NOT_FOUND: "),
        ({"text": "x" * 10_001}, "VALIDATION_ERROR: "),
        ({"text": "Hello", "unknown": 1}, "VALIDATION_ERROR: "),
    ],
)
async def test_what_is_refused_before_there_is_a_turn_is_a_tool_error(client: McpClient, arguments: JSON, begins: str) -> None:
    result = await client.call("send_message", **arguments)
    assert (result["resultType"], result["isError"]) == ("complete", True)
    assert result["content"][0]["text"].startswith(begins)


async def test_whoever_sends_too_much_is_told_so_by_a_tool_error(office: Office, client: McpClient) -> None:
    first = await send(client, "Hello")
    conversation_id = str((await office.world.turn(posted_of(first))).conversation_id)
    for _ in range(19):
        await send(client, "And?", conversation_id=conversation_id)
    result = await client.call("send_message", text="And?", conversation_id=conversation_id)
    assert result["isError"]
    assert result["content"][0]["text"].startswith("RATE_LIMITED: ")


async def test_the_same_key_again_gives_the_same_task(client: McpClient) -> None:
    first = await send(client, "Hello", idempotency_key="one")
    again = await send(client, "Hello", idempotency_key="one")
    other = await send(client, "Hello", idempotency_key="two")
    assert first["taskId"] == again["taskId"] != other["taskId"]


async def test_what_was_stored_is_told_although_nothing_can_be_read(office: Office) -> None:
    unreadable: Any = _Unreadable(office.services.storage)
    async with client_of(replace(office, services=replace(office.services, storage=unreadable)).server()) as client:
        result = await client.call("send_message", text="Hello")
    reply = result["structuredContent"]
    assert (result["resultType"], result["isError"], reply["state"]) == ("complete", False, "queued")
    assert (await office.world.turn(posted_of({"taskId": reply["turn_id"]}))).status is TurnStatus.QUEUED


@dataclass
class _Unreadable:
    """A database that can be written to only."""

    storage: Storage

    def __getattr__(self, name: str) -> Any:
        return getattr(self.storage, name)

    def read(self) -> AbstractAsyncContextManager[UnitOfWork]:
        raise StorageUnavailable("The database cannot be read.")


@pytest.mark.parametrize("is_gone", [True, False], ids=["deleted", "a defect"])
async def test_what_was_stored_is_told_whatever_happens_then(office: Office, is_gone: bool) -> None:
    await office.world.task("Buy milk")

    async def happens() -> None:
        if not is_gone:
            raise ZeroDivisionError
        await office.world.write(lambda uow: tasks.delete(uow, office.world.admin, "OT-1"))

    then: Any = _ReadAfter(office.services.storage, happens)
    async with client_of(replace(office, services=replace(office.services, storage=then)).server()) as client:
        with capture_logs() as logged:
            result = await client.call("send_message", text="Hello", ref="OT-1")
    reply = result["structuredContent"]
    assert (result["resultType"], result["isError"], reply["state"], reply["ref"]) == ("complete", False, "queued", "OT-1")
    assert reply["turn_id"] in reply["next"] or reply["no_worker"]
    assert [each["error"] for each in logged if each["log_level"] == "error"] == ([] if is_gone else ["ZeroDivisionError"])


@dataclass
class _ReadAfter:
    """A database in which something happens before it is read."""

    storage: Storage
    happens: Callable[[], Awaitable[None]]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.storage, name)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[UnitOfWork]:
        await self.happens()
        async with self.storage.read() as uow:
            yield uow


async def test_a_worker_is_asked_for_when_there_is_a_turn_and_while_nobody_answers_it(office: Office, client: McpClient) -> None:
    task = await send(client, "Hello")
    asked = len(office.wanted)
    assert asked > 0
    await get(client, task)
    assert len(office.wanted) > asked


async def test_a_worker_is_asked_for_also_while_one_works_on_it(office: Office, client: McpClient) -> None:
    """It may be killed."""
    gate = Gate()
    office.world.model.will("Well", gate)
    async with office.world.working():
        task = await send(client, "Hello")
        await gate.reached()
        asked = len(office.wanted)
        await get(client, task)
        assert len(office.wanted) == asked + 1
        gate.open()


# --- how it goes -------------------------------------------------------------------------------------------------------


async def test_a_task_tells_what_the_agent_does_and_the_end_of_its_text(office: Office, client: McpClient) -> None:
    world, gate = office.world, Gate()
    world.model.will("Once upon\na time", gate, " …")
    async with world.working():
        task = await send(client, "Tell me")
        await gate.reached()
        await stored(world, (await world.turn(posted_of(task))).reply_id, "Once upon\na time")
        shown = await get(client, task)
        gate.open()
        await ended(office, task)
    assert (shown["status"], shown["pollIntervalMs"]) == ("working", 500)
    assert shown["statusMessage"] == "Asking one/model … · Once upon a time"
    assert shown["lastUpdatedAt"] > shown["createdAt"]


async def test_a_queued_task_tells_what_it_waits_for(office: Office, client: McpClient) -> None:
    first = await send(client, "Hello")
    conversation_id = str((await office.world.turn(posted_of(first))).conversation_id)
    second = await send(client, "And?", conversation_id=conversation_id)
    assert (first["statusMessage"], second["statusMessage"]) == ("Waiting for a worker", "Queued, 1 before it")


async def test_a_failed_turn_is_a_completed_task_with_an_error_in_its_result(office: Office, client: McpClient) -> None:
    office.world.model.will(ModelRefused("There is no key for this model.", reason="NO_KEY"))
    async with office.world.working():
        task = await send(client, "Hello")
        await office.world.comes_to(posted_of(task), TurnStatus.FAILED)
        done = await get(client, task)
    assert (done["status"], done["result"]["isError"]) == ("completed", True)
    assert done["result"]["structuredContent"]["state"] == "failed"
    assert done["result"]["structuredContent"]["error"]["code"] == "NO_KEY"


async def test_another_process_tells_of_the_task_at_once(office: Office, client: McpClient) -> None:
    task = await send(client, "Hello")
    async with client_of(office.server()) as other:
        assert (await get(other, task))["taskId"] == task["taskId"]


async def test_a_turn_of_another_surface_is_a_task_too(office: Office, client: McpClient) -> None:
    world = office.world
    posted = await world.post((await world.chat()).id, "Hello", source="terminal")
    task = {"taskId": str(posted.turn_id)}
    assert (await get(client, task))["status"] == "working"
    await client.request("tasks/cancel", task)
    assert (await world.turn(posted)).status is TurnStatus.CANCELLED
    assert (await get(client, task))["status"] == "cancelled"


async def test_cancelling_really_stops_the_turn(office: Office, client: McpClient) -> None:
    world, gate = office.world, Gate()
    world.model.will("Well", gate)
    async with world.working():
        task = await send(client, "Hello")
        await gate.reached()
        await stored(world, (await world.turn(posted_of(task))).reply_id, "Well")
        acknowledged = await client.request("tasks/cancel", {"taskId": task["taskId"]})

        async def nobody_streams() -> bool:
            return world.model.open_streams == 0

        await world.until(nobody_streams)
        shown = await get(client, task)
    assert (await world.turn(posted_of(task))).status is TurnStatus.CANCELLED
    assert (shown["status"], shown["statusMessage"]) == ("cancelled", "Stopped · Well")
    assert acknowledged.keys() - {"_meta"} == {"resultType"}


async def test_cancelling_what_has_ended_changes_nothing(office: Office, client: McpClient) -> None:
    office.world.model.will("Hello.")
    async with office.world.working():
        task = await send(client, "Hello")
        await ended(office, task)
    await client.request("tasks/cancel", {"taskId": task["taskId"]})
    assert (await get(client, task))["status"] == "completed"


# --- who may -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
async def test_a_foreign_task_looks_like_one_that_never_was(office: Office, client: McpClient, method: str) -> None:
    foreign = (await send(client, "A secret"))["taskId"]
    never = "0190c8a2-0000-7000-8000-000000000000"
    async with client_of(office.server(await office.world.user("eve"))) as eve:
        errors = {task_id: await refused(eve, method, task_id) for task_id in (foreign, never, "nonsense")}
    assert [error.code for error in errors.values()] == [-32602] * 3
    assert len({error.message.replace(task_id, "X") for task_id, error in errors.items()}) == 1
    assert [error.data for error in errors.values()] == [{"error_code": "NOT_FOUND"}] * 3
    assert (await office.world.turn(posted_of({"taskId": foreign}))).status is TurnStatus.QUEUED


@pytest.mark.parametrize("method", METHODS)
async def test_a_token_without_chat_sees_no_tasks(office: Office, client: McpClient, method: str) -> None:
    task = await send(client, "Hello")
    reader = Principal(user_id=office.world.admin.user_id, scopes=frozenset({"tasks:read"}))
    async with client_of(office.server(reader)) as limited:
        error = await refused(limited, method, task["taskId"])
    assert (error.code, error.data) == (-32602, {"error_code": "UNAUTHORIZED"})


@pytest.mark.parametrize("method", METHODS)
async def test_a_client_must_declare_the_extension(office: Office, method: str) -> None:
    async with client_of(office.server(), can={}) as client:
        error = await refused(client, method, "anything")
    assert (error.code, error.data) == (-32021, {"requiredCapabilities": {"extensions": TASKS}})


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["0190c8a2-0000-7000-8000-000000000000", ""])
async def test_the_header_must_name_the_task(client: McpClient, method: str, name: str) -> None:
    task = await send(client, "Hello")
    with pytest.raises(RpcError) as error:
        await client.request(method, {"taskId": task["taskId"], "inputResponses": {}}, headers={"mcp-name": name})
    assert error.value.code == -32020
    assert (await get(client, task))["status"] == "working"


async def test_a_server_that_only_reads_cancels_nothing(office: Office, client: McpClient) -> None:
    task = await send(client, "Hello")
    async with client_of(office.server(serves=Selection.of(read_only=True))) as reader:
        assert (await get(reader, task))["status"] == "working"
        with pytest.raises(RpcError, match="cancel_turn"):
            await reader.request("tasks/cancel", {"taskId": task["taskId"]})
    assert (await office.world.turn(posted_of(task))).status is TurnStatus.QUEUED


# --- what waits for a person ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def asked(start: Start) -> AsyncIterator[tuple[Office, JSON, McpClient]]:
    """Somebody's agent waits for a word before it deletes OT-1."""
    async with start(ScriptedModel().will("May I?", DELETE).will("I see.")) as world, world.working():
        await world.task("Buy milk")
        office = office_of(world)
        async with client_of(office.server()) as client:
            task = await send(client, "Delete OT-1")
            await world.comes_to(posted_of(task), TurnStatus.WAITING)
            yield office, task, client


async def test_a_turn_that_waits_asks_the_person_at_the_client(start: Start) -> None:
    async with asked(start) as (office, task, client):
        shown = await get(client, task)
        approval = await office.world.approval(posted_of(task))
    (key,) = shown["inputRequests"]
    request = shown["inputRequests"][key]
    assert (shown["status"], shown["pollIntervalMs"]) == ("input_required", 2000)
    assert str(approval.id) in key
    assert (request["method"], request["params"]["mode"]) == ("elicitation/create", "form")
    assert "delete_task" in request["params"]["message"]
    assert "OT-1" in request["params"]["message"]


@pytest.mark.parametrize(
    ("response", "titles", "state", "decided"),
    [
        ({"action": "accept", "content": {}}, [], "done", "approved by admin"),
        ({"action": "decline"}, ["Buy milk"], "failed", "denied by admin"),
    ],
)
async def test_the_answer_decides_and_the_turn_goes_on(start: Start, response: JSON, titles: list[str], state: str, decided: str) -> None:
    async with asked(start) as (office, task, client):
        (key,) = (await get(client, task))["inputRequests"]
        acknowledged = await update(client, task, **{key: response, "unknown": {"action": "accept"}})
        await ended(office, task)
        done = await get(client, task)
        assert await office.world.titles() == titles
    assert acknowledged.keys() - {"_meta"} == {"resultType"}
    assert (done["status"], done["result"]["structuredContent"]["text"]) == ("completed", "May I?\n\nI see.")
    assert done["result"]["structuredContent"]["tool_calls"] == [{"name": "delete_task", "state": state, "decided": decided}]


@pytest.mark.parametrize("response", [{"action": "cancel"}, {"action": "accept!"}, {}, "yes", 1, None])
async def test_who_does_not_answer_leaves_it_open(start: Start, response: Any) -> None:
    async with asked(start) as (office, task, client):
        (key,) = (await get(client, task))["inputRequests"]
        await update(client, task, **{key: response})
        assert (await get(client, task))["inputRequests"].keys() == {key}
        assert (await office.world.approval(posted_of(task))).status is ApprovalStatus.OPEN


async def test_whoever_answers_too_late_changes_nothing(start: Start) -> None:
    async with asked(start) as (office, task, client):
        (key,) = (await get(client, task))["inputRequests"]
        await office.world.decide(await office.world.approval(posted_of(task)), Decision.DENY)
        await update(client, task, **{key: {"action": "accept"}})
        await ended(office, task)
        assert await office.world.titles() == ["Buy milk"]


async def test_whoever_is_overtaken_while_they_answer_changes_nothing(start: Start) -> None:
    async with asked(start) as (office, task, client):
        (key,) = (await get(client, task))["inputRequests"]
        approval = await office.world.approval(posted_of(task))
        denied = partial(office.world.decide, approval, Decision.DENY)
        overtaken: Any = _Overtaken(office.services.storage, denied)
        slow = replace(office, services=replace(office.services, storage=overtaken))
        async with client_of(slow.server()) as late:
            await update(late, task, **{key: {"action": "accept"}})
        await ended(office, task)
        assert await office.world.titles() == ["Buy milk"]


@dataclass
class _Overtaken:
    """A database in which something happens before each write."""

    storage: Storage
    happens: Callable[[], Awaitable[object]]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.storage, name)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[UnitOfWork]:
        await self.happens()
        async with self.storage.write() as uow:
            yield uow


async def test_who_may_see_but_not_decide_is_told_so(start: Start) -> None:
    async with start(ScriptedModel().will("May I?", DELETE)) as world, world.working():
        here = await world.task("Buy milk")
        posted = await world.post(here.conversation_id, "Delete it")
        await world.comes_to(posted, TurnStatus.WAITING)
        office, task = office_of(world), {"taskId": str(posted.turn_id)}
        async with client_of(office.server(await world.user("kim"))) as kim:
            (key,) = (await get(kim, task))["inputRequests"]
            with pytest.raises(RpcError, match="admin") as error:
                await update(kim, task, **{key: {"action": "accept"}})
            assert (await world.approval(posted)).status is ApprovalStatus.OPEN
    assert (error.value.code, error.value.data) == (-32602, {"error_code": "CONFLICT"})


async def test_a_question_ends_the_task_and_is_answered_by_another_message(office: Office, client: McpClient) -> None:
    office.world.model.will(Call("ask_user", {"question": "Which kind?", "options": ["Oat", "Soy"]}))
    async with office.world.working():
        task = await send(client, "Buy milk")
        await ended(office, task)
        done = await get(client, task)
        reply = done["result"]["structuredContent"]
        await update(client, task, **{f"question:{reply['message_id']}": {"action": "accept", "content": {"answer": "Oat"}}})
    assert (done["status"], reply["question"]) == ("completed", {"text": "Which kind?", "options": ["Oat", "Soy"]})
    assert office.world.model.calls == 1


async def test_a_client_that_cannot_ask_is_told_which_tool_decides(start: Start) -> None:
    async with asked(start) as (office, task, _), client_of(office.server(), can={"extensions": TASKS}) as client:
        shown = await get(client, task)
    reply = shown["result"]["structuredContent"]
    assert (shown["status"], reply["state"]) == ("completed", "waiting_for_approval")
    assert reply["approvals"][0]["tool"] == "delete_task"
    assert "decide" in reply["next"]


async def test_where_deciding_is_not_offered_nobody_is_asked(start: Start) -> None:
    chosen = Selection.of(names=["send_message", "get_reply"])
    async with asked(start) as (office, task, client), client_of(office.server(serves=chosen)) as limited:
        (key,) = (await get(client, task))["inputRequests"]
        shown = await get(limited, task)
        await update(limited, task, **{key: {"action": "accept"}})
        assert (await office.world.approval(posted_of(task))).status is ApprovalStatus.OPEN
    assert "inputRequests" not in shown


# --- listening -----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def listening(client: McpClient, *task_ids: str) -> AsyncIterator[AsyncGenerator[JSON, None]]:
    """What the server sends to who listens to these tasks."""
    async with aclosing(client.messages("subscriptions/listen", {"notifications": {"taskIds": list(task_ids)}})) as messages:
        yield messages


async def heard(messages: AsyncGenerator[JSON, None]) -> JSON:
    async with asyncio.timeout(30):
        return await anext(messages)


async def test_who_listens_hears_of_a_task_until_it_has_ended(office: Office, client: McpClient) -> None:
    world, gate = office.world, Gate()
    world.model.will("Hello", gate, ".")
    task = await send(client, "Hello")
    async with listening(client, task["taskId"]) as messages:
        acknowledged = await heard(messages)
        news = [await heard(messages)]
        async with world.working():
            await gate.reached()
            gate.open()
            while news[-1]["params"]["status"] != "completed":
                news.append(await heard(messages))
    first, last = news[0], news[-1]
    expected = await get(client, task)

    assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
    assert acknowledged["params"]["notifications"] == {"taskIds": [task["taskId"]]}
    assert (first["method"], first["params"]["status"]) == ("notifications/tasks", "working")
    assert {each["params"]["status"] for each in news} == {"working", "completed"}
    assert all(before != after for before, after in pairwise(news))
    assert {key: value for key, value in last["params"].items() if key != "_meta"} == {
        key: value for key, value in expected.items() if key not in ("_meta", "resultType")
    }
    assert first["params"]["_meta"] == {"io.modelcontextprotocol/subscriptionId": acknowledged["params"]["_meta"][_SUBSCRIPTION]}


_SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"


async def test_who_listens_hears_only_of_changes(office: Office, client: McpClient) -> None:
    world = office.world
    task = await send(client, "Hello")
    conversation_id = (await world.turn(posted_of(task))).conversation_id
    async with listening(client, task["taskId"]) as messages:
        await heard(messages)
        before = await heard(messages)
        await world.write(lambda uow: conversations.rename(uow, world.admin, conversation_id, "Another title"))
        await get(client, task)
        await client.request("tasks/cancel", {"taskId": task["taskId"]})
        after = await heard(messages)
    assert (before["params"]["status"], after["params"]["status"]) == ("working", "cancelled")


async def test_nobody_listens_to_foreign_tasks(office: Office, client: McpClient) -> None:
    foreign = await send(client, "A secret")
    async with client_of(office.server(await office.world.user("eve"))) as eve:
        own = await send(eve, "Hello")
        async with listening(eve, foreign["taskId"], own["taskId"], "nonsense") as messages:
            assert (await heard(messages))["params"]["notifications"] == {"taskIds": [own["taskId"]]}
            assert (await heard(messages))["params"]["taskId"] == own["taskId"]


async def test_who_listens_to_tasks_must_declare_the_extension(office: Office) -> None:
    async with client_of(office.server(), can={}) as client, listening(client, "anything") as messages:
        answer = await heard(messages)
    assert answer["error"]["code"] == -32021


async def test_a_stream_that_tells_of_tasks_tells_of_resources_too(office: Office) -> None:
    server = office.server()
    resources.install(server)
    subscriptions.install(server)
    async with client_of(server) as client:
        task = await send(client, "Hello")
        wanted = {"taskIds": [task["taskId"]], "resourceSubscriptions": ["tasks://board"]}
        async with aclosing(client.messages("subscriptions/listen", {"notifications": wanted})) as messages:
            assert (await heard(messages))["params"]["notifications"] == wanted
            await office.world.task("Buy milk")
            methods = {(await heard(messages))["method"]}
            while len(methods) < 2:
                methods.add((await heard(messages))["method"])
    assert methods == {"notifications/tasks", "notifications/resources/updated"}
