"""Other people's MCP clients, and one that shares nothing with any SDK, before `onethread mcp` and `onethread serve`.

On pipes nothing else runs: the server starts its own worker for what is to be answered. Most tests share that worker, as they share the
site, and find their tasks by their own titles.
"""

import asyncio
import contextlib
import json
import os
import select
import shlex
import signal
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import forking
from tests.mcp_client import JSON, LEGACY, MODERN, TASKS, HttpWire, McpClient, PipeWire, RpcError, Wire, started
from tests.serving import ONETHREAD, Serving, environment, serving

ROOT = Path(__file__).parents[2]
INSPECTOR = str(ROOT / "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js")
MCPORTER = str(ROOT / "node_modules/mcporter/dist/cli.js")
TOOLS = [
    *("agent_status", "cancel_turn", "create_task", "decide", "delete_task", "get_reply"),
    *("get_task", "list_messages", "list_tasks", "send_message", "update_task"),
]
TOOL_FAILED = 5
"""What the inspector ends with where a tool says that it failed."""
_RUN_SECONDS = 60
_END_SECONDS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def said(self) -> JSON:
        """What it printed, where it went well."""
        assert self.code == 0, self
        found: JSON = json.loads(self.out)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A folder with the settings that tell clients of the server, as an IDE has them, and nothing else of this machine."""

    home: Path

    async def inspect(self, era: str, method: str, *more: str) -> Ran:
        options = ("--config", "mcp.json", "--server", "onethread", "--protocol-era", era, "--format", "json", "--quiet")
        return await self._run("node", INSPECTOR, "--cli", *options, "--method", method, *more)

    async def inspect_tool(self, era: str, tool: str, **arguments: Any) -> Ran:
        return await self.inspect(era, "tools/call", "--tool-name", tool, "--tool-args-json", json.dumps(arguments))

    async def port(self, *arguments: str) -> Ran:
        """mcporter's."""
        return await self._run("node", MCPORTER, "--config", "mcp.json", *arguments)

    def tell(self, server: JSON) -> None:
        (self.home / "mcp.json").write_text(json.dumps({"mcpServers": {"onethread": server}}), encoding="utf-8")

    async def _run(self, *command: str) -> Ran:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=self.home,
            env={**os.environ, "HOME": str(self.home), "MCP_INSPECTOR_SECRET_STORE": "memory"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(_RUN_SECONDS):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        return Ran(code=process.returncode, out=out.decode(), err=err.decode())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """`onethread serve`, the same for all tests."""
    with serving(tmp_path_factory.mktemp("serve"), forking.program()) as found:
        yield found


@pytest.fixture
def title(tmp_path: Path) -> str:
    return f"Buy {tmp_path.name}"


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """Of an `onethread mcp` beside which nothing runs. The worker that it started is ended."""
    with _data(tmp_path) as data:
        yield data


@pytest.fixture(scope="module")
def shared_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same for all tests to which an earlier one's worker is welcome: it waits for more, and a start takes seconds."""
    with _data(tmp_path_factory.mktemp("pipes")) as data:
        yield data


@contextlib.contextmanager
def _data(folder: Path) -> Iterator[Path]:
    data = folder / "data"
    data.mkdir()
    yield data
    for pid in _workers(data):
        _end(pid)


def _workers(data_dir: Path) -> list[int]:
    if not (data_dir / "onethread.db").exists():
        return []
    with contextlib.closing(sqlite3.connect(data_dir / "onethread.db")) as database:
        return [pid for (pid,) in database.execute("SELECT pid FROM workers")]


def _end(pid: int) -> None:
    """It is no child of this process."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        ended, _, _ = select.select([process], [], [], _END_SECONDS)
        assert ended
    finally:
        os.close(process)


@pytest.fixture(params=["pipes", "http"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where clients know the one or the other."""
    place = Place(home=tmp_path)
    if request.param == "pipes":
        place.tell(_on_pipes(request.getfixturevalue("shared_dir"), *forking.program(), "mcp"))
    else:
        site: Serving = request.getfixturevalue("site")
        place.tell({"type": "http", "url": f"{site.url}/mcp", "headers": {"Authorization": f"Bearer {site.token}"}})
    return place


def _on_pipes(data_dir: Path, program: str, *arguments: str) -> JSON:
    told = {name: value for name, value in environment(data_dir, ONETHREAD_MODEL="demo/offline").items() if name.startswith("ONETHREAD_")}
    return {"command": program, "args": arguments, "env": told}


def _text(reply: Ran) -> str:
    """Of the agent, as the inspector shows it; empty where it had not written by the end of the wait."""
    return str(reply.said["result"]["structuredContent"].get("text", ""))


# --- the MCP project's inspector ---------------------------------------------------------------------------------------


@pytest.mark.requires("inspector")
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_the_inspector_finds_no_fault_and_gets_what_it_asks_for(place: Place, era: str, title: str) -> None:
    listed = await place.inspect(era, "tools/list", "--strict")
    created = await place.inspect_tool(era, "create_task", title=title)
    ref = created.said["result"]["structuredContent"]["ref"]
    tasks, unknown, board, prompt = await asyncio.gather(
        place.inspect_tool(era, "list_tasks", query=title),
        place.inspect_tool(era, "get_task", ref="OT-99"),
        place.inspect(era, "resources/read", "--uri", "tasks://board"),
        place.inspect(era, "prompts/get", "--prompt-name", "summarize_task", "--prompt-args", f"ref={ref}"),
    )
    reply = await place.inspect_tool(era, "send_message", text="count to 3", wait_s=55)
    assert [tool["name"] for tool in listed.said["result"]["tools"]] == TOOLS
    assert listed.err == ""
    assert [task["ref"] for task in tasks.said["result"]["structuredContent"]["tasks"]] == [ref]
    assert unknown.code == TOOL_FAILED
    assert "NOT_FOUND: No task 'OT-99'." in unknown.out
    assert ref in board.said["result"]["contents"][0]["text"]
    assert title in prompt.said["result"]["messages"][0]["content"]["text"]
    assert _text(reply).endswith("1 2 3"), reply


@pytest.mark.requires("inspector")
async def test_the_inspector_gets_its_reply_by_the_tasks_extension(tmp_path: Path, data_dir: Path) -> None:
    """Of what is installed, where the others start what is forked."""
    place, heard = Place(home=tmp_path), tmp_path / "heard.jsonl"
    place.tell(_on_pipes(data_dir, "sh", "-c", f"tee {shlex.quote(str(heard))} | {shlex.quote(ONETHREAD)} mcp"))
    reply = await place.inspect_tool("modern", "send_message", text="count to 3")
    methods = [json.loads(line)["method"] for line in heard.read_text("utf-8").splitlines()]
    assert _text(reply).endswith("1 2 3"), reply
    assert methods.count("tools/call") == 1
    assert "tasks/get" in methods


# --- mcporter ----------------------------------------------------------------------------------------------------------


@pytest.mark.requires("mcporter")
async def test_mcporter_lists_the_tools_and_gets_its_reply(place: Place) -> None:
    listed, reply, unknown = await asyncio.gather(
        place.port("list", "onethread", "--json"),
        place.port("call", "onethread.send_message", "text=count to 3", "--output", "json"),
        place.port("call", "onethread.get_task", "ref=OT-99", "--output", "json"),
    )
    assert [tool["name"] for tool in listed.said["tools"]] == TOOLS
    assert reply.said["text"].endswith("1 2 3")
    assert unknown.code == 1
    assert "NOT_FOUND: No task 'OT-99'." in unknown.out


# --- a client without any SDK ------------------------------------------------------------------------------------------


@pytest.fixture(params=["pipes", "http"])
async def wire(request: pytest.FixtureRequest) -> AsyncIterator[Wire]:
    """To a server of its own on pipes, to the site over HTTP."""
    if request.param == "pipes":
        async with _mcp(request.getfixturevalue("shared_dir")) as pipe:
            yield pipe
    else:
        site: Serving = request.getfixturevalue("site")
        headers = {"Authorization": f"Bearer {site.token}"}
        async with httpx.AsyncClient(base_url=site.url, headers=headers, timeout=_RUN_SECONDS) as http:
            yield HttpWire(http)


def _mcp(data_dir: Path) -> AbstractAsyncContextManager[PipeWire]:
    return started([*forking.program(), "mcp"], environment(data_dir, ONETHREAD_MODEL="demo/offline"), str(data_dir.parent))


@pytest.mark.parametrize("era", [LEGACY, MODERN])
async def test_a_client_without_an_sdk_has_everything(wire: Wire, era: str, title: str) -> None:
    client = await McpClient(wire, era=era).start()
    tools = await client.request("tools/list")
    ref = (await client.call("create_task", title=title))["structuredContent"]["ref"]
    board = await client.request("resources/read", {"uri": "tasks://board"})
    prompts = await client.request("prompts/list")
    token = {"_meta": {"progressToken": 7}}
    reply = await client.request("tools/call", {"name": "send_message", "arguments": {"text": "count to 20"}, **token})
    with pytest.raises(RpcError) as unknown:
        await client.request("tasks/list")
    told = [each["params"] for each in client.notified if each["method"] == "notifications/progress"]
    assert "tools" in client.server["capabilities"]
    assert [tool["name"] for tool in tools["tools"]] == TOOLS
    assert ref in board["contents"][0]["text"]
    assert {prompt["name"] for prompt in prompts["prompts"]} == {"plan_task", "standup", "summarize_task", "triage"}
    assert reply["structuredContent"]["text"].endswith("18 19 20")
    assert {each["progressToken"] for each in told} == {7}
    assert unknown.value.code == -32601


async def test_an_older_client_is_asked_before_a_task_is_deleted(wire: Wire, title: str) -> None:
    asked: list[JSON] = []
    answers: list[JSON] = [{"action": "decline"}, {"action": "accept", "content": {}}]

    def answer(request: JSON) -> JSON:
        asked.append(request)
        return answers.pop(0)

    client = await McpClient(wire, era=LEGACY, capabilities={"elicitation": {}}, answers=answer).start()
    ref = (await client.call("create_task", title=title))["structuredContent"]["ref"]
    declined = await client.call("delete_task", ref=ref)
    deleted = await client.call("delete_task", ref=ref)
    assert [each["method"] for each in asked] == ["elicitation/create"] * 2
    assert title in asked[0]["params"]["message"]
    assert declined["content"][0]["text"].startswith("DECLINED: ")
    assert deleted["structuredContent"] == {"deleted": ref}


async def test_a_newer_client_comes_back_with_the_answer(wire: Wire, title: str) -> None:
    client = await McpClient(wire, capabilities={"elicitation": {}}).start()
    ref = (await client.call("create_task", title=title))["structuredContent"]["ref"]
    call = {"name": "delete_task", "arguments": {"ref": ref}}
    asked = await client.request("tools/call", call)
    (key,) = asked["inputRequests"]
    answered = {"inputResponses": {key: {"action": "accept", "content": {}}}, "requestState": asked["requestState"]}
    with pytest.raises(RpcError):
        await client.request("tools/call", {**call, **answered, "requestState": asked["requestState"][:-2]})
    deleted = await client.request("tools/call", {**call, **answered})
    assert asked["resultType"] == "input_required"
    assert deleted["structuredContent"] == {"deleted": ref}


async def test_a_task_asks_for_a_decision_and_goes_on(wire: Wire, title: str) -> None:
    client = await McpClient(wire, capabilities={"extensions": TASKS, "elicitation": {}}).start()
    ref = (await client.call("create_task", title=title))["structuredContent"]["ref"]
    task = await client.call("send_message", text=f"delete {ref}")
    waiting = await told(client, task, "input_required")
    ((key, request),) = waiting["inputRequests"].items()
    accepted = {key: {"action": "accept", "content": {}}}
    await client.request("tasks/update", {"taskId": task["taskId"], "inputResponses": accepted})
    done = await told(client, task, "completed")
    left = await client.call("list_tasks", query=title)
    assert task["resultType"] == "task"
    assert ref in request["params"]["message"]
    assert done["result"]["structuredContent"]["tool_calls"] == [{"name": "delete_task", "state": "done", "decided": "approved by admin"}]
    assert left["structuredContent"]["tasks"] == []


async def test_another_process_tells_how_a_task_went_when_the_first_was_killed(data_dir: Path) -> None:
    can = {"extensions": TASKS}
    async with _mcp(data_dir) as wire:
        task = await (await McpClient(wire, capabilities=can).start()).call("send_message", text="count to 3")
        wire.process.kill()
    async with _mcp(data_dir) as wire:
        done = await told(await McpClient(wire, capabilities=can).start(), task, "completed")
    assert done["result"]["structuredContent"]["text"].endswith("1 2 3")


async def test_a_reply_whose_worker_died_with_the_machine_is_gone_on_with_when_a_client_comes_back(data_dir: Path) -> None:
    async with _mcp(data_dir) as wire:
        client = await McpClient(wire, capabilities={"extensions": TASKS}).start()
        task = await client.call("send_message", text="count to 150")

        async def is_written() -> bool:
            reply = await client.call("get_reply", turn_id=task["taskId"], wait_s=0)
            return "1 2 3" in reply["structuredContent"].get("text", "")

        await _until(is_written)
        for pid in _workers(data_dir):
            os.kill(pid, signal.SIGKILL)
        wire.process.kill()
    async with _mcp(data_dir) as wire:
        client = await McpClient(wire).start()
        await client.call("list_tasks")
        reply = (await client.call("get_reply", turn_id=task["taskId"], wait_s=25))["structuredContent"]
    assert (reply["state"], reply["text"][-11:]) == ("completed", "148 149 150")


async def test_of_workers_that_several_clients_start_at_once_one_stays(data_dir: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        clients = [await McpClient(await stack.enter_async_context(_mcp(data_dir))).start() for _ in range(3)]
        replies = await asyncio.gather(*[client.call("send_message", text="hello") for client in clients])

        async def is_one() -> bool:
            return sum(map(_runs, _workers(data_dir))) == 1

        await _until(is_one)
    assert [reply["structuredContent"]["state"] for reply in replies] == ["completed"] * 3


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Other processes tell nobody here, so it is looked again and again."""
    async with asyncio.timeout(_END_SECONDS):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.1)


async def told(client: McpClient, task: JSON, status: str) -> JSON:
    """Listens to a task until it has this status; how it is then."""
    wanted = {"notifications": {"taskIds": [task["taskId"]]}}
    async with asyncio.timeout(_END_SECONDS), aclosing(client.messages("subscriptions/listen", wanted)) as messages:
        async for message in messages:
            if message.get("method") == "notifications/tasks" and message["params"]["status"] == status:
                break
    return await client.request("tasks/get", {"taskId": task["taskId"]})
