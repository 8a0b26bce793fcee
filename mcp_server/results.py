"""Tools and what they give, as MCP shows it."""

import json
from collections.abc import Iterator
from typing import Any

import structlog
from mcp.types import CallToolResult, TextContent, ToolAnnotations
from mcp.types import Tool as Definition

from core.models import JSON
from core.tools.registry import MAX_RESULT_BYTES, Tool
from mcp_server.errors import problem

_UNTRUSTED_SCHEMA: JSON = {"type": "array", "items": {"type": "string"}}
_log = structlog.get_logger()


def definition(tool: Tool) -> Definition:
    """The tool as `tools/list` shows it."""
    hints = tool.hints
    return Definition(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=tool.parameters,
        output_schema=_with_untrusted(tool.output) if tool.untrusted else tool.output,
        annotations=ToolAnnotations(
            read_only_hint=hints.read_only,
            destructive_hint=hints.destructive,
            idempotent_hint=hints.idempotent,
            open_world_hint=hints.open_world,
        ),
    )


def of_reply(tool: Tool, reply: JSON, *, untrusted: tuple[str, ...] = ()) -> CallToolResult:
    """A reply as a result; one that failed is an error."""
    return result(tool, reply, untrusted=untrusted).model_copy(update={"is_error": reply["state"] == "failed"})


def result(tool: Tool, content: JSON, *, untrusted: tuple[str, ...] = ()) -> CallToolResult:
    """As compact text and as structured content. `untrusted` are fields of people's text beside those that the tool names."""
    if marked := [path for path in (*tool.untrusted, *untrusted) if _is_there(content, path)]:
        content = {**content, "untrusted": marked}
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    if (size := len(text.encode())) > MAX_RESULT_BYTES:
        _log.error("tool.result_too_large", tool=tool.name, bytes=size)
        sentence = f"The result of {tool.name} is larger than {MAX_RESULT_BYTES:,} bytes, which is a defect. Ask for less."
        return problem("INTERNAL", sentence)
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=content)


def _with_untrusted(schema: JSON) -> JSON:
    return {**schema, "properties": {**schema["properties"], "untrusted": _UNTRUSTED_SCHEMA}}


def _is_there(content: JSON, path: str) -> bool:
    return any(True for _ in _at(content, path.split(".")))


def _at(value: Any, path: list[str]) -> Iterator[Any]:
    """What stands at a path such as `tasks[].title`."""
    if not path:
        yield value
        return
    field, *rest = path
    found = value.get(field.removesuffix("[]"))
    for each in (found or ()) if field.endswith("[]") else () if found is None else (found,):
        yield from _at(each, rest)
