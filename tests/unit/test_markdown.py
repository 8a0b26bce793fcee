"""Markdown for models: whatever people write, no line of theirs stands outside a quote, and what is one line stays one."""

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.models import JSON
from mcp_server import markdown

LINE_ENDS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
"""Whatever some reader takes for the end of a line."""
NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
TASK: JSON = {
    "ref": "OT-1",
    "title": "Buy milk",
    "description": "",
    "status": "todo",
    "priority": "medium",
    "assignee": None,
    "due_at": None,
    "labels": [],
    "agent_status": "idle",
    "agent_status_message": "",
    "version": 1,
    "created_at": "2026-11-23T09:30:00.000Z",
    "updated_at": "2026-11-23T09:30:00.000Z",
}
MESSAGE: JSON = {
    "seq": 7,
    "author": "admin",
    "role": "user",
    "turn_id": None,
    "status": "completed",
    "metadata": {},
    "content": "Hello",
    "tool_calls": [],
    "attachments": [],
    "created_at": "2026-11-23T09:30:00.000Z",
    "edited_at": None,
    "deleted_at": None,
}
hostile = st.text(st.one_of(st.sampled_from(LINE_ENDS), st.sampled_from("#>-` a"), st.characters(exclude_categories=["Cs"])), max_size=60)
marked = hostile.map(lambda text: "".join(f"{end}PEOPLE" for end in LINE_ENDS) + text)
"""Each line of it that gets loose is seen."""


def lines(text: str) -> list[str]:
    """As the reader has them who sees most of them."""
    return re.split(f"\r\n|[{LINE_ENDS}]", text)


def loose(text: str) -> list[str]:
    """Lines outside quotes that people had a hand in."""
    return [line for line in lines(text) if "PEOPLE" in line and not line.lstrip(" ").startswith("> ")]


@given(hostile)
def test_every_line_of_a_quote_is_quoted_and_nothing_of_it_is_lost(text: str) -> None:
    found = lines(markdown.quoted(text))
    assert all(line == ">" or line.startswith("> ") for line in found)
    assert [line.removeprefix(">").removeprefix(" ") for line in found] == (text.splitlines() or [""])


@given(hostile, st.integers(min_value=1, max_value=40))
def test_a_quoted_line_and_a_name_are_one_line(text: str, characters: int) -> None:
    (line,) = lines(markdown.quoted_line(text, characters=characters))
    assert line == ">" or (line.startswith("> ") and len(line) <= 2 + characters)
    (name,) = lines(markdown.name(text))
    assert len(name) <= 100


@given(marked)
def test_no_line_of_people_stands_outside_a_quote_of_a_task(text: str) -> None:
    shown = {**TASK, "title": text, "description": text, "labels": [text, text], "agent_status": "error", "agent_status_message": text}
    assert loose(markdown.task_page(shown, creator="admin", messages=None, followed=text)) == []
    assert loose(markdown.task_lines(shown, "medium")) == []
    assert len(lines(markdown.task_lines(shown, "medium"))) == 2


@given(marked, st.sampled_from(["user", "assistant"]), st.integers(min_value=1, max_value=100))
def test_no_line_of_people_stands_outside_a_quote_of_a_message(text: str, role: str, max_bytes: int) -> None:
    calls, files = [{"name": text, "state": "done"}], [{"name": text}]
    shown = {**MESSAGE, "role": role, "content": text, "tool_calls": calls, "attachments": files, "turn_id": "t"}
    assert loose(markdown.message(shown, max_bytes)) == []


@given(marked)
def test_a_name_adds_no_line_to_ours(text: str) -> None:
    named, plain = {**TASK, "assignee": text}, {**TASK, "assignee": "ana"}
    about = (markdown.assignee(named) or "", markdown.due(named, NOW))
    assert len(lines(markdown.task_lines(named, *about))) == 2
    pages = [markdown.task_page(shown, creator=creator, messages=None, followed="") for shown, creator in ((named, text), (plain, "admin"))]
    assert len(lines(pages[0])) == len(lines(pages[1]))
    heads = [markdown.message({**MESSAGE, "author": author}, 1_000) for author in (text, "ana")]
    assert len(lines(heads[0])) == len(lines(heads[1]))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"due_at": None}, None),
        ({"due_at": "2026-11-22T00:00:00.000Z"}, "due 2026-11-22 (overdue)"),
        ({"due_at": "2026-11-22T00:00:00.000Z", "status": "done"}, "due 2026-11-22"),
        ({"due_at": "2026-11-24T00:00:00.000Z"}, "due 2026-11-24"),
    ],
)
def test_only_what_is_not_finished_is_overdue(fields: dict[str, Any], said: str | None) -> None:
    assert markdown.due({**TASK, **fields}, NOW) == said
