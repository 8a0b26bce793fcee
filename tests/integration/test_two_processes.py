"""Two real processes on one database: what one does, the other shows, soon and exactly.

The test is one of them; the other runs this file as a program: it works on turns with a model that says what the test writes to it.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

import pytest
import pytest_asyncio

from core import messages
from core.models import TurnStatus
from core.ports import ModelRequest, RoundEnd, TextChunk
from core.worker import WorkerRules
from onethread.bootstrap import App, running, working
from onethread.settings import Settings
from tests.databases import BOTH, NewDatabase, databases_of, on_both
from tests.fakes import USAGE
from tests.fakes import said as said_in
from tests.integration.conftest import World, onethread
from tests.integration.test_live import watching

pytestmark = pytest.mark.asyncio(loop_scope="module")
new_database = on_both
ROOT = Path(__file__).parents[2]
LONG = 60.0
"""The worker's own looking around is so rare that only an announcement can be what wakes it."""


class Other:
    """The other process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def tell(self, *words: str) -> None:
        assert self._process.stdin
        self._process.stdin.write((" ".join(words) + "\n").encode())

    async def says(self, line: str, seconds: float = 30) -> None:
        """Waits for this line. Each test asks something of its own: what an earlier one left unread must not be taken for it."""
        assert self._process.stdout
        async with asyncio.timeout(seconds):
            while (said := (await self._process.stdout.readline()).decode().strip()) != line:
                assert said, f"it ended before it said {line!r}"


@asynccontextmanager
async def another_process(directory: Path, database: str) -> AsyncIterator[Other]:
    command = (sys.executable, "-m", "tests.integration.test_two_processes", str(directory), database)
    with (directory / "other.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log
        )
    other = Other(process)
    try:
        await other.says("ready", seconds=30)
        yield other
    finally:
        assert process.stdin
        process.stdin.close()
        async with asyncio.timeout(20):
            await process.wait()


@dataclass(frozen=True, slots=True)
class Pair:
    here: World
    there: Other


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module", params=BOTH)
def shared_database(request: pytest.FixtureRequest, directory: Path) -> NewDatabase:
    return databases_of(request, directory)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(shared_database: NewDatabase, directory: Path) -> AsyncIterator[Pair]:
    async with shared_database() as url:
        address = url.render_as_string(hide_password=False)
        async with onethread(directory, database=address) as here, another_process(directory, address) as there:
            yield Pair(here, there)


async def test_a_message_posted_in_one_process_appears_in_the_other(pair: Pair) -> None:
    chat = await pair.here.chat()
    async with watching(pair.here, chat.id) as viewer:
        pair.there.tell("post", str(chat.id), "Hello from there")
        message = await viewer.until("new_message", seconds=10)
        assert (message["content"], message["seq"]) == ("Hello from there", 1)
        await viewer.until("turn_changed", lambda turn: turn["status"] == "running", seconds=10)
        pair.there.tell("end")
        await viewer.until("llm_complete", seconds=10)


async def test_a_reply_of_the_other_process_grows_and_ends_exactly(pair: Pair) -> None:
    chat = await pair.here.chat()
    async with watching(pair.here, chat.id) as viewer:
        posted, said = await pair.here.post(chat.id, "What shall I buy?"), ""
        for piece in ("Milk 🥛", " and", " bread"):
            pair.there.tell("say", piece)
            said += piece
            await viewer.shows(posted.reply_id, said, seconds=10)
        pair.there.tell("say", " and eggs")
        pair.there.tell("end")
        assert (await viewer.until("llm_complete", seconds=10))["content"] == "Milk 🥛 and bread and eggs"
        assert viewer.count("snapshot") == 1


async def test_cancelling_here_stops_the_worker_there_at_once(pair: Pair) -> None:
    waits = []
    for text in ("Count", "Count on", "Count again"):
        posted = await pair.here.post((await pair.here.chat()).id, text)
        await pair.there.says(f"asked {text}")
        began = time.monotonic()
        await pair.here.cancel(posted)
        await pair.there.says(f"closed {text}")
        waits.append(time.monotonic() - began)
    assert min(waits) < 1
    await pair.here.retry(posted)
    await pair.there.says("asked Count again")
    pair.there.tell("say", "Done.")
    pair.there.tell("end")
    assert (await pair.here.ended(posted)).content == "Done."


async def test_a_turn_posted_here_wakes_the_worker_there_at_once(pair: Pair) -> None:
    waits = []
    for number in range(3):
        posted = await pair.here.post((await pair.here.chat()).id, f"Hello {number}")
        began = time.monotonic()
        await pair.there.says(f"asked Hello {number}")
        waits.append(time.monotonic() - began)
        pair.there.tell("end")
        await pair.here.ended(posted)
    assert min(waits) < 0.5


async def test_a_turn_of_a_killed_process_is_answered_by_another(tmp_path: Path, new_database: NewDatabase) -> None:
    async with new_database() as url, onethread(tmp_path, database=(address := url.render_as_string(hide_password=False))) as world:
        posted = await world.post((await world.chat()).id, "Hello")
        async with another_process(tmp_path, address) as other:
            await other.says("asked Hello")
            other.tell("die")
        turn = await world.turn(posted)
        assert turn.status is TurnStatus.RUNNING
        await world.write(lambda uow: uow.turns.update(turn.id, lease_until=turn.created_at))
        await world.app.ticks.rescue()
        async with world.working():
            assert (await world.ended(posted)).content == "OK."


# --- the other process ---


class _Told:
    """A model that says what stands on the program's input."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[str] = asyncio.Queue()

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextChunk | RoundEnd, None]:
        text, said = said_in(request)[-1], ""
        _say(f"asked {text}")
        try:
            while (line := await self.lines.get()) != "end":
                said += line
                yield TextChunk(line)
            yield RoundEnd(text=said, tool_requests=(), finish_reason="stop", usage=USAGE)
        finally:
            _say(f"closed {text}")

    async def count_tokens(self, request: ModelRequest) -> int:
        return 1

    async def context_window(self, model: str) -> int:
        return 128_000

    async def image_types(self, model: str) -> frozenset[str]:
        return frozenset()


async def _main(directory: Path, database: str) -> None:
    model = _Told()
    rules = replace(WorkerRules(), poll_seconds=LONG)
    settings = Settings(data_dir=directory, database_url=database, model="one/model")
    async with running(settings, model=model, worker_rules=rules) as app, working(app):
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        _say("ready")
        while line := (await reader.readline()).decode().removesuffix("\n"):
            word, _, rest = line.partition(" ")
            match word:
                case "post":
                    await _post(app, rest)
                case "die":
                    os._exit(1)
                case _:
                    model.lines.put_nowait(rest if word == "say" else word)


async def _post(app: App, words: str) -> None:
    conversation, _, text = words.partition(" ")
    principal = await app.principal()
    async with app.storage.write() as uow:
        await messages.post(uow, principal, UUID(conversation), text, rules=app.rules, source="test")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), sys.argv[2]))
