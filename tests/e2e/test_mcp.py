"""`onethread mcp` as an IDE starts it, and `/mcp` of `onethread serve`: real processes, real clients, both eras of the protocol.

Where it matters how the process begins it is `installed`, which takes a second; the others are forked from one that has begun.
"""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from tests import forking
from tests.e2e.conftest import Shell
from tests.e2e.test_serve import counted_to
from tests.mcp_client import LEGACY, MODERN, HttpWire, McpClient, PipeWire
from tests.serving import ONETHREAD, environment, served

ERAS = [LEGACY, MODERN]
HEAVY = {"sqlalchemy", "alembic", "litellm", "fastapi", "slack_sdk", "slack_bolt", "discord", "apscheduler", "prompt_toolkit"}
TOOLS = {"list_tasks", "get_task", "create_task", "update_task", "delete_task"}
TOOLS |= {"send_message", "get_reply", "list_messages", "cancel_turn", "decide", "agent_status"}
END_SECONDS = 4.0
"""Within which a process has to end that was told to."""
ANSWER_SECONDS = 20.0
"""Within which a line has to be answered that is no request."""


# --- helpers ---


@dataclass(slots=True)
class Home:
    """A data directory, and what the processes on it did."""

    data_dir: Path

    def environment(self, **variables: str) -> dict[str, str]:
        return environment(self.data_dir, ONETHREAD_LOG_FORMAT="json", **variables)

    def entries(self, event: str) -> list[dict[str, Any]]:
        """What `onethread mcp` logged."""
        log = self.data_dir / "onethread.log"
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        return [entry for entry in map(json.loads, lines) if entry["event"] == event]

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What the database holds; nothing as long as there is none."""
        try:
            with closing(sqlite3.connect(f"file:{self.data_dir}/onethread.db?mode=ro", timeout=10, uri=True)) as database:
                return database.execute(query).fetchall()
        except sqlite3.OperationalError:
            return []

    async def until(self, holds: Callable[[], bool], seconds: float = 40) -> None:
        async with asyncio.timeout(seconds):
            while True:
                if holds():
                    return
                await asyncio.sleep(0.02)

    def child(self) -> int:
        """The last worker that was started as a child."""
        pid: int = self.entries("child_worker.started")[-1]["pid"]
        return pid

    def end_children(self) -> None:
        for entry in self.entries("child_worker.started"):
            with suppress(ProcessLookupError):
                if f"{self.data_dir}" in Path(f"/proc/{entry['pid']}/environ").read_text(encoding="utf-8"):
                    os.kill(entry["pid"], signal.SIGKILL)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    found = Home(tmp_path / "data")
    yield found
    with suppress(FileNotFoundError):
        found.end_children()


@dataclass(slots=True)
class Ide:
    """A client that has started `onethread mcp`."""

    process: asyncio.subprocess.Process | forking.Process
    client: McpClient

    async def end(self, how: signal.Signals | None) -> int:
        """Closes standard input, or sends the signal; gives the exit code."""
        if how is None:
            assert self.process.stdin
            self.process.stdin.close()
        else:
            self.process.send_signal(how)
        async with asyncio.timeout(END_SECONDS):
            return await self.process.wait()

    async def say(self, line: bytes) -> dict[str, Any]:
        """Sends a line as it is; gives what is said next."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(line + b"\n")
        async with asyncio.timeout(ANSWER_SECONDS):
            await self.process.stdin.drain()
            found: dict[str, Any] = json.loads(await self.process.stdout.readline())
        return found

    async def rest(self) -> list[dict[str, Any]]:
        """What it wrote, read to the end: protocol and nothing else."""
        assert self.process.stdout
        lines = (await self.process.stdout.read()).decode().splitlines()
        found = list(map(json.loads, lines))
        assert all(each["jsonrpc"] == "2.0" for each in found)
        return found


@asynccontextmanager
async def ide(
    home: Home, *options: str, era: str = MODERN, installed: bool = False, folder: Path | None = None, errors: Any = None, **variables: str
) -> AsyncIterator[Ide]:
    """Starts it, and kills it at the end if it still runs."""
    pipe = asyncio.subprocess.PIPE
    process: asyncio.subprocess.Process | forking.Process
    how: Any = {
        "stdin": pipe,
        "stdout": pipe,
        "stderr": errors,
        "cwd": folder or home.data_dir.parent,
        "env": home.environment(**variables),
    }
    if installed:
        process = await asyncio.create_subprocess_exec(ONETHREAD, "mcp", *options, **how, limit=2**20)
    else:
        process = await forking.start(["mcp", *options], **how)
    try:
        async with asyncio.timeout(60):
            yield Ide(process, await McpClient(PipeWire(process), era=era).start())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def run(home: Home, *arguments: str) -> str:
    """Runs a command to its end, and gives what it printed."""
    how: Any = {"env": home.environment(), "cwd": home.data_dir.parent, "seconds": 60}
    done = await asyncio.to_thread(forking.run, arguments, **how)
    assert done.returncode == 0
    return done.stdout


def content(answer: dict[str, Any]) -> dict[str, Any]:
    assert not answer.get("isError"), answer
    found: dict[str, Any] = answer["structuredContent"]
    return found


def refusal(answer: dict[str, Any]) -> str:
    assert answer["isError"], answer
    text: str = answer["content"][0]["text"]
    return text


def request_of(number: int, method: str, params: dict[str, Any], *, era: str) -> dict[str, Any]:
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    }
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": {**params, **({"_meta": meta} if era == MODERN else {})}}


async def waiting_call(ide: Ide, home: Home, text: str) -> None:
    """Sends a message and does not wait for the answer; returns when it is stored."""
    params = {"name": "send_message", "arguments": {"text": text, "wait_s": 55}}
    await ide.client.wire.tell(request_of(99, "tools/call", params, era=MODERN), {})
    await home.until(lambda: bool(home.entries("message.posted")))


# --- how it begins ---


@pytest.mark.parametrize("era", ERAS)
async def test_sdk_client_lists_and_calls_tools_in_both_eras(home: Home, era: str) -> None:
    program = StdioServerParameters(command=ONETHREAD, args=["mcp"], env=home.environment(), cwd=str(home.data_dir.parent))
    async with asyncio.timeout(60), Client(program, mode="legacy" if era == LEGACY else era) as client:
        tools = {tool.name for tool in (await client.list_tools()).tools}
        made = await client.call_tool("create_task", {"title": "Buy milk"})
        listed = await client.call_tool("list_tasks", {})

    assert tools == TOOLS
    assert made.structured_content
    assert listed.structured_content
    assert [task["title"] for task in listed.structured_content["tasks"]] == ["Buy milk"]


@pytest.mark.parametrize("era", ERAS)
async def test_first_answers_load_nothing_heavy(home: Home, era: str, tmp_path: Path) -> None:
    """Where the data directory is no place to write to, nothing is opened, and what was loaded is all that the answers need."""
    imports = tmp_path / "imports.txt"
    with imports.open("wb") as errors:
        nowhere: Any = {"PYTHONPROFILEIMPORTTIME": "1", "ONETHREAD_DATA_DIR": "/proc/nowhere"}
        async with ide(home, era=era, installed=True, errors=errors, **nowhere) as started:
            tools = await started.client.request("tools/list")
            refused = refusal(await started.client.call("list_tasks"))
            assert await started.end(None) == 0

    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in imports.read_text(encoding="utf-8").splitlines()}
    assert {tool["name"] for tool in tools["tools"]} == TOOLS
    assert refused.startswith("SERVICE_UNAVAILABLE: The data directory /proc/nowhere cannot be written to:")
    assert "mcp" in loaded
    assert loaded & HEAVY == set()


async def test_database_is_opened_after_the_first_answer_without_being_asked(home: Home) -> None:
    async with ide(home) as started:
        await home.until(lambda: home.rows("SELECT name FROM users") == [("admin",)])
        assert await started.end(None) == 0


async def test_folder_of_somebody_else_neither_configures_nor_shadows(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    for name in ("core", "mcp_server", "mcp", "onethread"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise SystemExit('not ours')", encoding="utf-8")
    dotenv = "ONETHREAD_USER=nobody\nONETHREAD_MODEL=openai/gpt-4o\nONETHREAD_DATABASE_URL=sqlite+aiosqlite:///elsewhere.db\n"
    (folder / ".env").write_text(dotenv, encoding="utf-8")

    async with ide(home, installed=True, folder=folder) as started:
        reply = content(await started.client.call("send_message", text="hello", wait_s=30))
        assert await started.end(None) == 0

    assert (reply["state"], reply["model"]) == ("completed", "demo/offline")


SHOUTS = """
import os, threading, time

def shout():
    while not os.path.exists(os.environ["ONETHREAD_DATA_DIR"] + "/onethread.db"):
        time.sleep(0.01)
    os.write(1, b"stray")

threading.Thread(target=shout, daemon=True).start()
"""


async def test_what_a_library_prints_stays_out_of_the_protocol(home: Home, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SHOUTS, encoding="utf-8")
    errors = tmp_path / "errors.txt"
    with errors.open("wb") as file:
        async with ide(home, installed=True, errors=file, PYTHONPATH=str(tmp_path)) as started:
            await home.until(lambda: "stray" in errors.read_text(encoding="utf-8"))
            assert content(await started.client.call("list_tasks"))["tasks"] == []
            assert await started.end(None) == 0
            assert await started.rest() == []


async def test_only_chosen_tools_are_offered(home: Home, shell: Shell) -> None:
    async with ide(home, "--read-only", "--tools", "list_tasks, create_task") as started:
        tools = await started.client.request("tools/list")
        refused = refusal(await started.client.call("create_task", title="x"))
    unknown = shell.run("mcp", "--tools", "list_taks")

    assert [tool["name"] for tool in tools["tools"]] == ["list_tasks"]
    assert "create_task" in refused
    assert (unknown.code, unknown.out) == (1, "")
    assert unknown.err.startswith("Error: There is no tool 'list_taks'. Tools: ")


# --- what is wrong is said, and tried again ---


async def test_database_that_is_none_is_told_by_each_call_until_it_is_mended(home: Home, tmp_path: Path) -> None:
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear reader, this is a letter. " * 100, encoding="utf-8")
    errors = tmp_path / "errors.txt"
    with errors.open("wb") as file:
        async with ide(home, errors=file, ONETHREAD_DATABASE_URL=f"sqlite+aiosqlite:///{letter}") as started:
            refused = [refusal(await started.client.call("list_tasks")) for _ in range(2)]
            letter.unlink()
            listed = content(await started.client.call("list_tasks"))
            assert await started.end(None) == 0

    said = "The database file is no SQLite database. Restore it from a backup, or set ONETHREAD_DATABASE_URL to another one."
    assert refused == [f"SERVICE_UNAVAILABLE: {said}"] * 2
    assert listed["tasks"] == []
    assert errors.read_text(encoding="utf-8") == f"Error: {said}\n"


async def test_unknown_user_is_told_until_there_is_one(home: Home) -> None:
    async with ide(home, ONETHREAD_USER="kim") as started:
        refused = refusal(await started.client.call("list_tasks"))
        await run(home, "user", "add", "kim")
        made = content(await started.client.call("create_task", title="Kim's"))
        assert await started.end(None) == 0

    assert refused == "NOT_FOUND: There is no user 'kim'. See them with: onethread user list"
    assert home.rows("SELECT u.name FROM tasks t JOIN users u ON u.id = t.creator_id") == [("kim",)]
    assert made["ref"] == "OT-1"


async def test_wrong_setting_is_told_by_each_call(home: Home) -> None:
    async with ide(home, ONETHREAD_TEMPERATURE="hot") as started:
        assert refusal(await started.client.call("list_tasks")).startswith("VALIDATION_ERROR: A setting is wrong. ONETHREAD_TEMPERATURE:")


# --- lines that are no requests ---

NO_JSON = {
    "a raw control character": b'{"jsonrpc":"2.0","id":7,"method":"tools/list","params":{"a":"\x01"}}',
    "a raw NUL": b'{"jsonrpc":"2.0","id":7,"method":"tools/list","params":{"a":"\x00"}}',
    "a trailing comma": b'{"jsonrpc":"2.0","id":7,"method":"tools/list",}',
    "two messages": b'{"jsonrpc":"2.0","id":7,"method":"tools/list"}{"jsonrpc":"2.0","id":8,"method":"tools/list"}',
    "words": b"hunter2",
    "UTF-16": '{"jsonrpc":"2.0","id":7,"method":"tools/list"}'.encode("utf-16"),
}
DEEP, LONG = b"[" * 300 + b"]" * 300, b"1" * 5_000
NO_REQUEST: dict[str, tuple[bytes, int | str | None, str]] = {
    "a list as params": (b'{"jsonrpc":"2.0","id":7,"method":"tools/list","params":["hunter2"]}', 7, "Its params must be an object."),
    "a string as params": (
        b'{"jsonrpc":"2.0","id":"a b","method":"tools/list","params":"hunter2"}',
        "a b",
        "Its params must be an object.",
    ),
    "a number as method": (b'{"jsonrpc":"2.0","id":7,"method":5}', 7, "Its method must be a string."),
    "another version": (b'{"jsonrpc":"1.0","id":7,"method":"tools/list"}', 7, 'Its "jsonrpc" must be "2.0".'),
    "no version": (b'{"id":7,"method":"tools/list"}', 7, 'Its "jsonrpc" must be "2.0".'),
    "a float as id": (b'{"jsonrpc":"2.0","id":7.5,"method":"tools/list"}', None, "Its id must be a string or an integer."),
    "a boolean as id": (b'{"jsonrpc":"2.0","id":true,"method":"tools/list"}', None, "Its id must be a string or an integer."),
    "null as id": (b'{"jsonrpc":"2.0","id":null,"method":"tools/list"}', None, "Its id must be a string or an integer."),
    "a batch": (
        b'[{"jsonrpc":"2.0","id":7,"method":"tools/list"}]',
        None,
        "Batches are not taken; send each message on a line of its own.",
    ),
    "a string": (b'"hunter2"', None, "It is no request, no notification and no answer."),
    "an id alone": (b'{"jsonrpc":"2.0","id":7}', 7, "It is no request, no notification and no answer."),
    "a request that is an answer": (
        b'{"jsonrpc":"2.0","id":7,"method":"tools/list","result":{},"error":{"code":1,"message":"hunter2"}}',
        7,
        "It is no request, no notification and no answer.",
    ),
    "an answer that is none": (b'{"jsonrpc":"2.0","id":7,"result":["hunter2"]}', None, "It is no request, no notification and no answer."),
    "a notification with a list": (
        b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":[7]}',
        None,
        "Its params must be an object.",
    ),
    "300 levels": (
        b'{"jsonrpc":"2.0","id":7,"method":"tools/list","params":{"a":' + DEEP + b"}}",
        7,
        "It is nested too deep, or holds a number that is too long.",
    ),
    "100,000 levels": (
        b'{"jsonrpc":"2.0","id":7,"method":"tools/list","params":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        7,
        "It is nested too deep, or holds a number that is too long.",
    ),
    "5,000 digits": (
        b'{"jsonrpc":"2.0","id":7,"method":"tools/list","params":{"a":' + LONG + b"}}",
        7,
        "It is nested too deep, or holds a number that is too long.",
    ),
    "5,000 digits as id": (
        b'{"jsonrpc":"2.0","id":' + LONG + b',"method":"tools/list"}',
        None,
        "It is nested too deep, or holds a number that is too long.",
    ),
}


def invalid(number: int | str | None, fault: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "error": {"code": -32600, "message": f"Invalid Request: {fault}"}}


@pytest.mark.parametrize("era", ERAS)
async def test_line_that_is_no_request_is_answered_and_the_next_one_served(home: Home, era: str) -> None:
    no_json = {"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "Parse error: The line is not JSON."}}
    expected = dict.fromkeys(NO_JSON, no_json) | {name: invalid(number, fault) for name, (_, number, fault) in NO_REQUEST.items()}
    lines = NO_JSON | {name: line for name, (line, *_) in NO_REQUEST.items()}
    answers = {}

    async with ide(home, era=era) as started:
        for name, line in lines.items():
            answers[name] = await started.say(line)
            assert (await started.client.request("tools/list"))["tools"]
        assert await started.end(None) == 0
        assert await started.rest() == []

    assert answers == expected


def created(number: int, title: bytes, *, era: str, tool: bytes = b"create_task") -> bytes:
    """A request for a task, written as it is."""
    line = json.dumps(request_of(number, "tools/call", {"name": "TOOL", "arguments": {"title": "TITLE"}}, era=era)).encode()
    return line.replace(b"TITLE", title).replace(b"TOOL", tool)


TITLES = {
    rb"a\ud800b": "a\ufffdb",
    rb"\uDFFF\ud83d": "\ufffd\ufffd",
    rb"\ud83d\ud83d\ude00": "\ufffd\U0001f600",
    rb"\\ud800 \\\ud800": "\\ud800 \\\ufffd",
    b"a\xed\xa0\x80b": "a\ufffd\ufffd\ufffdb",  # a surrogate in bytes, which are three wrong ones in UTF-8
    b"a\xffb": "a\ufffdb",
}


@pytest.mark.parametrize("era", ERAS)
async def test_torn_characters_are_replaced_and_the_call_is_served(home: Home, era: str) -> None:
    titles = {}
    async with ide(home, era=era) as started:
        for number, written in enumerate(TITLES, 700):
            answer = await started.say(created(number, written, era=era))
            titles[written] = content(answer["result"])["title"]
            assert answer["id"] == number
        unknown = await started.say(created(800, b"x", era=era, tool=rb"create\ud800"))
        assert await started.end(None) == 0

    assert titles == TITLES
    assert unknown["id"] == 800
    assert "create\ufffd" in json.dumps(unknown, ensure_ascii=False)


@pytest.mark.parametrize("era", ERAS)
async def test_byte_order_mark_line_ends_and_blank_lines_do_not_matter(home: Home, era: str) -> None:
    async with ide(home, era=era) as started:
        answers = [
            await started.say(b"\xef\xbb\xbf" + created(700, b"x", era=era)),
            await started.say(b"\n  \r\n\t\n\xef\xbb\xbf\r\n" + created(701, b"y", era=era) + b"\r"),
        ]
        assert await started.end(None) == 0
        assert await started.rest() == []

    assert [(answer["id"], content(answer["result"])["title"]) for answer in answers] == [(700, "x"), (701, "y")]


FILLING = b"x" * 5_000_000
TOO_LONG: dict[str, tuple[bytes, int | str | None]] = {
    "id first": (b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"a":"' + FILLING + b'"}}', 7),
    "id after the method": (b'{"method": "tools/call", "id": "a-7", "params":{"a":"' + FILLING + b'"}}', "a-7"),
    "id last": (b'{"method":"tools/call","params":{"a":"' + FILLING + b'","id":1},"jsonrpc":"2.0","id":7}\r', 7),
    "an answer": (b'{"jsonrpc":"2.0","id":7,"result":{"a":"' + FILLING + b'"}}', None),
    "an answer with the id last": (b'{"result":{"a":"' + FILLING + b'"},"jsonrpc":"2.0","id":7}', None),
    "a notification": (b'{"jsonrpc":"2.0","method":"x","params":{"a":"' + FILLING + b'","id":7}}', None),
    "no message": (FILLING * 10, None),
}


async def test_line_that_is_too_long_is_answered_without_being_held(home: Home) -> None:
    answers = {}
    async with ide(home, installed=True) as started:
        content(await started.client.call("list_tasks"))
        before = peak_megabytes(started.process.pid)
        for name, (line, _) in TOO_LONG.items():
            answers[name] = await started.say(line)
            assert (await started.client.request("tools/list"))["tools"]
        grown = peak_megabytes(started.process.pid) - before
        assert await started.end(None) == 0

    assert answers == {name: invalid(number, "A message has at most 4 MB.") for name, (_, number) in TOO_LONG.items()}
    assert grown < 30


def peak_megabytes(pid: int) -> int:
    (line,) = [line for line in _of_process(pid, "status").splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) // 1024


async def test_long_message_is_served(home: Home) -> None:
    async with ide(home) as started:
        line = created(700, b"x", era=MODERN)
        answer = await started.say(line + b" " * (4 * 2**20 - len(line) - 1))
        assert await started.end(None) == 0

    assert content(answer["result"])["title"] == "x"


async def test_wrong_line_with_the_id_of_a_waiting_call_leaves_it_waiting(home: Home) -> None:
    async with served(home.data_dir), ide(home) as started:
        await waiting_call(started, home, "count to 200")
        wrong = await started.say(b'{"jsonrpc":"2.0","id":99,"method":5}')
        assert await started.end(None) == 0
        rest = await started.rest()

    assert wrong == invalid(99, "Its method must be a string.")
    assert [content(each["result"])["state"] in ("queued", "running") for each in rest if each.get("id") == 99] == [True]


def test_wrong_line_is_answered_before_anything_else_and_at_the_end(home: Home) -> None:
    lines = b"\n".join([b"hunter2", created(2, b"x", era=MODERN), b'{"jsonrpc":"2.0","id":3,"method":5}', b'{"jsonrpc":"2.0","id":4'])
    done = forking.run(["mcp"], env=home.environment(), cwd=home.data_dir.parent, stdin=lines.decode(), seconds=60)
    answers = [(answer["id"], answer.get("error", {}).get("code")) for answer in map(json.loads, done.stdout.splitlines())]
    assert sorted(answers, key=str) == [(2, None), (3, -32600), (None, -32700), (None, -32700)]
    assert (done.returncode, done.stderr) == (0, "")


async def test_nobody_else_reads_from_the_wire(home: Home) -> None:
    async with ide(home) as started:
        assert os.readlink(f"/proc/{started.process.pid}/fd/0") == os.devnull  # noqa: PTH115  # it blocks nobody


@pytest.mark.parametrize("closing", [">&-", "<&-"])
def test_closed_input_or_output_is_told_in_a_sentence(home: Home, closing: str) -> None:
    command = ["sh", "-c", f'exec "$0" mcp {closing}', ONETHREAD]
    done = subprocess.run(command, input=b"", capture_output=True, env=home.environment(), timeout=20, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode().splitlines() == [
        "Error: Standard input and output must be open: an IDE speaks MCP over them. See: onethread mcp config --help"
    ]


# --- how it ends ---


@pytest.mark.parametrize(("how", "code"), [(None, 0), (signal.SIGTERM, 0), (signal.SIGINT, 130)])
async def test_process_ends_at_once_while_a_call_waits_and_answers_it_first(home: Home, how: signal.Signals | None, code: int) -> None:
    async with served(home.data_dir), ide(home) as started:
        await waiting_call(started, home, "count to 200")

        assert await started.end(how) == code
        (answer,) = [each for each in await started.rest() if each.get("id") == 99]

    reply = content(answer["result"])
    assert reply["state"] in ("queued", "running")
    assert "get_reply" in reply["next"]


@pytest.mark.parametrize("how", [None, signal.SIGTERM])
async def test_process_that_was_asked_nothing_ends_at_once(home: Home, how: signal.Signals | None) -> None:
    async with ide(home, installed=True) as started:
        assert await started.end(how) == 0
        assert await started.rest() == []


def piped(home: Home, tool: str, **arguments: Any) -> dict[str, Any]:
    """What a call gives whose input ends right behind it."""
    requests = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": _SELF}},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": tool, "arguments": arguments}},
    ]
    lines = "".join(f"{json.dumps(each)}\n" for each in requests)
    done = forking.run(["mcp"], env=home.environment(), cwd=home.data_dir.parent, stdin=lines, seconds=60)
    assert (done.returncode, done.stderr) == (0, "")
    answers = {each["id"]: each for each in map(json.loads, done.stdout.splitlines())}
    return content(answers[2]["result"])


def test_request_that_came_before_the_end_of_input_is_answered(home: Home) -> None:
    assert piped(home, "create_task", title="By a pipe")["ref"] == "OT-1"


async def test_message_that_came_before_the_end_of_input_is_answered_by_a_worker(home: Home) -> None:
    assert piped(home, "send_message", text="count to 3")["state"] == "queued"

    await home.until(lambda: home.rows("SELECT status FROM turns") == [("succeeded",)])


_SELF = {"name": "test", "version": "1"}


def test_client_that_is_gone_ends_the_process(home: Home) -> None:
    """It closed what the process writes to, but not what it reads from."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([ONETHREAD, "mcp"], stdin=pipe, stdout=pipe, env=home.environment(), cwd=home.data_dir.parent)
    assert process.stdin
    assert process.stdout
    process.stdout.close()
    request = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    process.stdin.write(f"{json.dumps(request)}\n".encode())
    process.stdin.flush()
    try:
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait(timeout=10)
        with suppress(BrokenPipeError):
            process.stdin.close()


# --- the child that answers ---


async def test_message_is_answered_with_nothing_else_running(home: Home) -> None:
    async with ide(home, installed=True) as started:
        reply = content(await started.client.call("send_message", text="count to 3", wait_s=40))
        child, server = home.child(), started.process.pid
        own, libraries = _of_process(child, "environ").split("\0"), _of_process(server, "maps")
        again = content(await started.client.call("send_message", text="count to 4", conversation_id=reply["conversation_id"], wait_s=40))
        children = home.entries("child_worker.started")
        assert await started.end(None) == 0

    assert (reply["state"], reply["text"].endswith("1 2 3")) == ("completed", True)
    assert again["text"].endswith("1 2 3 4")
    assert f"ONETHREAD_DATA_DIR={home.data_dir}" in own
    assert "tiktoken" not in libraries  # which litellm would have brought along
    assert len(children) <= 2
    assert (home.data_dir / "worker.log").stat().st_mode & 0o077 == 0


def _of_process(pid: int, what: str) -> str:
    return Path(f"/proc/{pid}/{what}").read_text(encoding="utf-8")


@pytest.mark.parametrize("how", [None, signal.SIGTERM, signal.SIGKILL])
async def test_reply_is_written_to_its_end_when_the_ide_is_closed(home: Home, how: signal.Signals | None) -> None:
    async with ide(home) as started:
        await waiting_call(started, home, "count to 20")
        await home.until(lambda: bool(home.rows("SELECT 1 FROM turns WHERE status = 'running'")))
        assert os.getsid(home.child()) == home.child()
        await started.end(how)

    await home.until(lambda: not home.rows("SELECT 1 FROM turns WHERE status IN ('queued', 'running')"))
    assert home.rows("SELECT status, failures, rescues FROM turns") == [("succeeded", 0, 0)]
    ((text,),) = home.rows("SELECT content FROM messages WHERE role = 'assistant'")
    assert text.endswith(counted_to(20))


async def test_child_that_was_killed_is_followed_by_another(home: Home) -> None:
    async with ide(home) as started:
        await waiting_call(started, home, "count to 20")
        await home.until(lambda: bool(home.rows("SELECT 1 FROM turns WHERE status = 'running'")))
        os.kill(home.child(), signal.SIGKILL)
        await home.until(lambda: len(home.entries("child_worker.started")) == 2)
        await home.until(lambda: home.rows("SELECT status FROM turns") == [("succeeded",)])


# --- beside others ---


async def test_two_of_them_and_a_server_share_one_file(home: Home) -> None:
    async with served(home.data_dir) as site, ide(home) as one, ide(home, era=LEGACY) as other:
        made = content(await one.client.call("create_task", title="Buy milk"))
        seen = content(await other.client.call("get_task", ref=made["ref"]))
        replies = await asyncio.gather(
            *(each.client.call("send_message", text="count to 3", ref=made["ref"], wait_s=40) for each in (one, other))
        )
        tasks = (await site.browser.get("/api/tasks")).json()["tasks"]
        assert [await each.end(None) for each in (one, other)] == [0, 0]
        assert await site.end() == 0

    assert seen["title"] == "Buy milk"
    assert [task["ref"] for task in tasks] == [made["ref"]]
    assert [content(reply)["state"] for reply in replies] == ["completed", "completed"]
    assert home.entries("child_worker.started") == []  # the server's worker answered


async def test_turn_that_was_started_elsewhere_is_followed_and_cancelled(home: Home) -> None:
    async with served(home.data_dir) as site, ide(home) as started:
        asked = await site.ask("count to 300")
        turn = asked["turn_id"]
        partial = content(await started.client.call("get_reply", turn_id=turn, wait_s=3))
        cancelled = content(await started.client.call("cancel_turn", turn_id=turn))
        shown = (await site.browser.get(f"/api/turns/{turn}")).json()

    assert partial["state"] in ("queued", "running")
    assert cancelled["state"] == "cancelled"
    assert shown["status"] == "cancelled"


# --- over HTTP ---


async def token_of(home: Home) -> str:
    return (await run(home, "token", "create", "test")).strip()


async def test_served_endpoint_answers_the_sdk_client_in_both_eras(home: Home) -> None:
    async with served(home.data_dir) as site:
        headers = {"Authorization": f"Bearer {await token_of(home)}"}
        for era in ERAS:
            async with httpx2.AsyncClient(headers=headers, timeout=60) as web:
                transport = streamable_http_client(f"{site.url}/mcp", http_client=web)
                async with Client(transport, mode="legacy" if era == LEGACY else era) as client:
                    await _ask_and_be_told(client)
        assert await site.end() == 0


async def _ask_and_be_told(client: Client) -> None:
    told: list[str] = []

    async def tell(progress: float, total: float | None, message: str | None) -> None:
        told.append(message or f"{progress} of {total}")

    assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS
    reply = await client.call_tool("send_message", {"text": "count to 10", "wait_s": 40}, progress_callback=tell)

    assert reply.structured_content
    assert reply.structured_content["text"].endswith(counted_to(10))
    assert told
    assert all(len(line) <= 200 for line in told)


async def test_server_ends_with_open_streams_and_a_waiting_call(home: Home) -> None:
    async with served(home.data_dir, "--no-worker") as site:
        headers = {"Authorization": f"Bearer {await token_of(home)}", "Accept": "application/json, text/event-stream"}
        async with httpx.AsyncClient(base_url=site.url, headers=headers, timeout=60) as caller:
            modern = await McpClient(HttpWire(caller)).start()
            legacy = await McpClient(HttpWire(caller), era=LEGACY).start()
            calls = [asyncio.create_task(each.call("send_message", text="Hello", wait_s=55)) for each in (modern, legacy)]
            await site.has_logged("message.posted", times=2)
            listening = modern.messages("subscriptions/listen", {"notifications": {"resourcesListChanged": True}})
            await anext(listening)
            session = legacy.wire._headers({})  # type: ignore[attr-defined]
            async with caller.stream("GET", "/mcp", headers={**session, "mcp-protocol-version": LEGACY}) as stream:
                assert stream.status_code == 200
                async with asyncio.timeout(END_SECONDS):
                    code = await site.end()
                await stream.aread()
                rest = [message async for message in listening]
                replies = [content(await call) for call in calls]

    assert code == 0
    assert [reply["state"] for reply in replies] == ["queued", "queued"]
    assert ["result" in message for message in rest] == [True]  # the end of what was listened to
    log = site.log.read_text(encoding="utf-8")
    assert "Traceback" not in log
    entries = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert [entry for entry in entries if entry["level"] in ("warning", "error", "critical")] == []
    assert "serve.stopping" in log
