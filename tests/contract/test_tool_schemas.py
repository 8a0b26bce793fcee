"""What models and MCP clients are told of each tool: a changed word shows as a diff.

After a change that is meant: `UPDATE_SNAPSHOTS=1 pytest tests/contract/test_tool_schemas.py`, then read the diff.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from core.llm.client import LiteLLM, ModelSettings
from core.models import JSON
from core.ports import ModelRequest
from core.tools import agent, chat, tasks
from core.tools.registry import Arguments, Hints, Result, Tool, ToolContext, Toolset, tool

SNAPSHOTS = Path(__file__).parent / "snapshots"
OF_AGENT = {each.name: each for each in (*tasks.TOOLS, *agent.TOOLS)}
OF_CLIENTS = {each.name: each for each in (*tasks.CLIENT_TOOLS, *chat.TOOLS)}
TOOLS = OF_AGENT | {name if tool is OF_AGENT.get(name, tool) else f"{name}-of-clients": tool for name, tool in OF_CLIENTS.items()}
MOST_TOKENS = 3_800
"""Of all that a client is told; 4,000 with what the MCP server adds."""


def _definition(tool: Tool) -> JSON:
    return {
        "name": tool.name,
        "title": tool.title,
        "toolset": tool.toolset,
        "scope": tool.scope,
        "description": tool.description,
        "hints": asdict(tool.hints),
        "needs_approval": tool.needs_approval,
        "ends_turn": tool.ends_turn,
        "follows": tool.follows,
        "parameters": tool.parameters,
        "output": tool.output,
        "untrusted": list(tool.untrusted),
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
    assert '"null"' not in json.dumps(tool.parameters)
    assert len(tool.description) <= 1_024


@pytest.mark.parametrize("name", OF_AGENT)
def test_the_agent_asks_before_it_destroys(name: str) -> None:
    assert OF_AGENT[name].hints.destructive <= OF_AGENT[name].needs_approval


@pytest.mark.parametrize("name", TOOLS)
def test_a_client_of_today_understands_the_results_of_tomorrow(name: str) -> None:
    """Clients keep the schema of a result, and some refuse a result with a field that it does not allow."""
    output = json.dumps(TOOLS[name].output)
    assert TOOLS[name].output["type"] == "object"
    assert "additionalProperties" not in output
    assert "$ref" not in output
    assert '"null"' not in output


@pytest.mark.parametrize("name", TOOLS)
def test_what_is_marked_as_untrusted_is_in_the_result(name: str) -> None:
    """Also where the published schema is only a part of it: the whole is a subclass then."""
    tool = TOOLS[name]
    wholes = [_properties(kind.model_json_schema()) for kind in (tool.result, *tool.result.__subclasses__())]
    assert [path for path in tool.untrusted if not any(path.split(".")[0].removesuffix("[]") in whole for whole in wholes)] == []


def _properties(schema: JSON) -> set[str]:
    return set(schema["properties"])


def test_clients_are_offered_eleven_tools() -> None:
    assert {tool.name: tool.scope for tool in Toolset(OF_CLIENTS.values())} == {
        "agent_status": "chat",
        "cancel_turn": "chat",
        "create_task": "tasks:write",
        "decide": "chat",
        "delete_task": "tasks:write",
        "get_reply": "chat",
        "get_task": "tasks:read",
        "list_messages": "chat",
        "list_tasks": "tasks:read",
        "send_message": "chat",
        "update_task": "tasks:write",
    }


@pytest.mark.parametrize("model", ["openai/gpt-4o", "anthropic/claude-sonnet-4-5"])
async def test_all_definitions_together_are_short(model: str) -> None:
    """Clients give them to their model with each request. Of the tokenizers that litellm brings along, Anthropic's makes most of them."""
    inventory = json.dumps([_definition(tool) for tool in OF_CLIENTS.values()], ensure_ascii=False, separators=(",", ":"))
    client = LiteLLM(ModelSettings(temperature=0.7, max_tokens=100, api_base=None), {})
    request = ModelRequest(model=model, messages=[{"role": "user", "content": inventory}])
    assert await client.count_tokens(request) <= MOST_TOKENS


# --- how a schema is made ---


class _Inner(Result):
    title: str


class _Given(Result):
    """Not told to anybody."""

    several: list[_Inner]
    one: _Inner | None = None


class _Taken(Arguments):
    title: str | None = None
    number: int = 3


@tool(toolset="test", title="Test", hints=Hints())
async def _something(_context: ToolContext, arguments: _Taken) -> _Given:
    """Does  something."""
    return _Given(several=[_Inner(title=arguments.title or "")])


def test_a_schema_is_without_references_titles_and_null() -> None:
    inner = {"properties": {"title": {"type": "string"}}, "required": ["title"], "type": "object"}
    assert _something.parameters == {
        "additionalProperties": False,
        "properties": {"title": {"type": "string"}, "number": {"default": 3, "type": "integer"}},
        "type": "object",
    }
    assert _something.output == {
        "properties": {"several": {"items": inner, "type": "array"}, "one": inner},
        "required": ["several"],
        "type": "object",
    }


def test_a_result_is_told_without_what_it_lacks() -> None:
    assert _Given(several=[_Inner(title="Milk")]).json() == {"several": [{"title": "Milk"}]}
