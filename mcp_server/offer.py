"""Which tools there are, and which of them are offered."""

from collections.abc import Iterable
from dataclasses import dataclass

from core.errors import InvalidInput
from core.tools import chat, tasks
from core.tools.registry import Tool, Toolset

INVENTORY = Toolset((*tasks.CLIENT_TOOLS, *chat.TOOLS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which tools are offered, whatever the caller's token allows. Without names: all."""

    read_only: bool = False
    names: frozenset[str] | None = None

    @classmethod
    def of(cls, *, read_only: bool = False, names: Iterable[str] | None = None) -> "Selection":
        """Raises InvalidInput, naming the tools there are, for a name that is none of theirs."""
        if names is None:
            return cls(read_only=read_only)
        chosen = frozenset(names)
        there = [tool.name for tool in INVENTORY]
        if unknown := sorted(chosen.difference(there)):
            raise InvalidInput(f"There is no tool {', '.join(map(repr, unknown))}. Tools: {', '.join(there)}.")
        return cls(read_only=read_only, names=chosen)

    def refusal(self, tool: Tool) -> str | None:
        """Why it is not offered; None where it is."""
        if self.read_only and not tool.hints.read_only:
            return f"This server is read-only, so it does not offer {tool.name}. Start it without --read-only to change things."
        if self.names is not None and tool.name not in self.names:
            chosen = ", ".join(sorted(self.names)) or "none"
            return f"{tool.name} is not among the selected tools: {chosen}. They are selected by --tools and the header X-MCP-Tools."
        return None
