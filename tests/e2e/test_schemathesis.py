"""The HTTP API against its own description: whatever the description allows is taken, all else refused, and every answer is as described.

By hand, with many more examples: SCHEMATHESIS_EXAMPLES=100 make test ARGS=tests/e2e/test_schemathesis.py
"""

import asyncio
import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from core.attachments import Upload
from core.errors import ModelRefused
from core.models import TurnStatus
from tests.fakes import Call
from tests.integration.conftest import World, onethread
from tests.integration.web.conftest import Site, site_of
from web import events

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "2"))
"""Of each operation, in each phase that makes them up; a larger number takes the longer."""
SEED = "4"
LINKED = """
[[operations]]
include-name = "POST /api/conversations/{conversation_id}/bindings"
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 401, 404, 409]
"""
"""No description can say which texts are links to a place."""


@dataclass(frozen=True, slots=True)
class Known:
    """Ids of what there is, without which a random id would find nothing: half of the requests use them."""

    name: str
    values: list[str]

    def __str__(self) -> str:
        return f"{json.dumps('path.' + self.name)} = {{ dictionary = {json.dumps(self.name)}, probability = 0.5 }}"


@pytest.mark.timeout(3_600)
async def test_every_answer_is_as_described_and_nothing_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_SECONDS", 1.0)  # the events of a turn that waits for a person have no end
    async with onethread(tmp_path, unserved=frozenset()) as found:
        unhurried = replace(found.app.rules, messages_per_minute=1_000_000, max_unfinished_turns=1_000_000)
        world = World(replace(found.app, rules=unhurried), found.model, found.admin)
        async with site_of(world, reply_seconds=5.0) as site, world.working():
            known = await _make_things(world)
            code, report = await _schemathesis(site, _config(tmp_path, known))

    assert code == 0, report
    assert "Tested: " in report


async def _make_things(world: World) -> list[Known]:
    """One of each that the API has no way to make: an approval that is open, a question, a failed turn."""
    task = await world.task("Paint the fence")
    chat = await world.chat(title="Known")
    world.model.will("Hi.").will(ModelRefused("The key is wrong.", reason="NO_KEY"))
    world.model.will(Call("ask_user", {"question": "Tea or coffee?", "options": ["Tea", "Coffee"]}))
    answered = await world.post(chat.id, "Hello", uploads=[Upload(name="note.txt", data=b"Hi")])
    await world.ended(answered)
    failed = await world.post((await world.chat()).id, "Hello")
    await world.ended(failed)
    question = await world.ask((await world.chat()).id, "Drinks?")
    world.model.will(Call("delete_task", {"ref": task.ref}))
    waiting = await world.post((await world.chat()).id, "Delete it")
    await world.comes_to(waiting, TurnStatus.WAITING)
    (file,) = await world.read(lambda uow: uow.attachments.of_messages([answered.message_id]))
    approval = await world.approval(waiting)
    return [
        Known("conversation_id", [str(chat.id), str(task.conversation_id)]),
        Known("turn_id", [str(answered.turn_id), str(failed.turn_id)]),
        Known("message_id", [str(answered.message_id), str(question.id)]),
        Known("approval_id", [str(approval.id)]),
        Known("attachment_id", [str(file.id)]),
        Known("ref", [task.ref, str(task.id)]),
        Known("key", ["OT"]),
        Known("user_id", [str((await world.user("kim")).user_id)]),
    ]


def _config(directory: Path, known: list[Known]) -> Path:
    dictionaries = [f"[dictionaries.{each.name}]\nvalues = {json.dumps(each.values)}" for each in known]
    path = directory / "schemathesis.toml"
    path.write_text("\n".join([*dictionaries, "[parameters]", *map(str, known), LINKED]), encoding="utf-8")
    return path


async def _schemathesis(site: Site, config: Path) -> tuple[int | None, str]:
    options = {
        "--checks": "all",
        "--phases": "examples,coverage,fuzzing,stateful",
        "--max-examples": str(EXAMPLES),
        "--seed": SEED,
        "--workers": "2",
        "--request-timeout": "10",
        "--header": f"Authorization: {site.client.headers['Authorization']}",
    }
    flat = [part for option in options.items() for part in option]
    process = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(config), "run", f"{site.url}/openapi.json"),
        *(*flat, "--continue-on-failure", "--no-color"),
        cwd=config.parent,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        report, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return process.returncode, report.decode()
