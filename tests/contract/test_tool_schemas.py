"""What models and MCP clients are told of each tool: a changed word shows as a diff.

After a change that is meant: `UPDATE_SNAPSHOTS=1 pytest tests/contract/test_tool_schemas.py`, then read the diff.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from core.models import JSON
from core.tools import agent, tasks
from core.tools.registry import Tool

SNAPSHOTS = Path(__file__).parent / "snapshots"
TOOLS = {tool.name: tool for tool in (*tasks.TOOLS, *agent.TOOLS)}


def _definition(tool: Tool) -> JSON:
    return {
        "name": tool.name,
        "title": tool.title,
        "toolset": tool.toolset,
        "description": tool.description,
        "hints": asdict(tool.hints),
        "needs_approval": tool.needs_approval,
        "ends_turn": tool.ends_turn,
        "parameters": tool.parameters,
    }


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_is_what_its_snapshot_says(name: str) -> None:
    path = SNAPSHOTS / f"{name}.json"
    definition = _definition(TOOLS[name])
    if os.environ.get("UPDATE_SNAPSHOTS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(definition, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    assert definition == json.loads(path.read_text(encoding="utf-8"))


def test_each_snapshot_has_its_tool() -> None:
    assert {path.stem for path in SNAPSHOTS.glob("*.json")} == set(TOOLS)


@pytest.mark.parametrize("name", TOOLS)
def test_a_model_can_use_the_schema(name: str) -> None:
    """What the strictest providers ask: a plain object without references, everything else forbidden, a short description."""
    tool = TOOLS[name]
    assert tool.parameters["type"] == "object"
    assert tool.parameters["additionalProperties"] is False
    assert "$ref" not in json.dumps(tool.parameters)
    assert len(tool.description) <= 1_024
    assert tool.hints.destructive <= tool.needs_approval
