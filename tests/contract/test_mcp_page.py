"""docs/mcp.md tells of the tools as they are.

After a change that is meant: `UPDATE_SNAPSHOTS=1 pytest tests/contract/test_mcp_page.py`, then read the diff.
"""

import os
import re

from core.tools.registry import Tool
from mcp_server.offer import INVENTORY
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "mcp.md"
_TABLE = re.compile(r"(<!-- tools: .*? -->\n)(.*?)(<!-- end of tools -->)", re.DOTALL)


def test_the_table_of_tools_is_what_the_server_offers() -> None:
    page = PAGE.read_text(encoding="utf-8")
    written = _TABLE.sub(lambda found: f"{found[1]}{_table()}{found[3]}", page)
    if os.environ.get("UPDATE_SNAPSHOTS"):
        PAGE.write_text(written, encoding="utf-8")
        page = written
    assert page == written


def _table() -> str:
    by_scope = sorted(INVENTORY, key=lambda tool: ("tasks:read", "tasks:write", "chat").index(tool.scope))
    return "\n".join(["| Tool | Scope | | What its assistant is told |", "|---|---|---|---|", *map(_row, by_scope), ""])


def _row(tool: Tool) -> str:
    arguments = ", ".join(tool.parameters["properties"])
    return f"| **{tool.name}**({arguments}) | `{tool.scope}` | {_kind(tool)} | {tool.description} |"


def _kind(tool: Tool) -> str:
    if tool.hints.destructive:
        return "cannot be undone"
    return "reads" if tool.hints.read_only else "changes"
