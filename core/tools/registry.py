"""A tool as one self-describing value, and the toolsets that offer them to the agent and to MCP clients."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from core.access import Principal
from core.errors import InvalidInput
from core.models import JSON, Conversation
from core.ports import UnitOfWork


class Arguments(BaseModel):
    """What a tool is called with. Its JSON schema is what the model sees."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


_A = TypeVar("_A", bound=Arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """What a tool works with: an open transaction, in whose name it acts, and where it was called (None outside a conversation)."""

    uow: UnitOfWork
    principal: Principal
    conversation: Conversation | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """What a client may assume of a tool, in MCP's terms."""

    read_only: bool = False
    destructive: bool = False
    idempotent: bool = False
    open_world: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    name: str
    title: str
    toolset: str
    description: str
    arguments: type[Arguments]
    hints: Hints
    needs_approval: bool
    """The agent asks a person before it runs."""
    ends_turn: bool
    """The agent stops after it: its result is the question to the user."""
    handler: Callable[[ToolContext, Any], Awaitable[JSON]]

    @property
    def parameters(self) -> JSON:
        """The JSON schema of the arguments, without the noise that pydantic adds."""
        schema: JSON = _plain(self.arguments.model_json_schema())
        return schema

    @property
    def function(self) -> JSON:
        """The tool in OpenAI's chat format."""
        return {"type": "function", "function": {"name": self.name, "description": self.description, "parameters": self.parameters}}

    def parse(self, arguments: Mapping[str, Any]) -> Arguments:
        """Raises InvalidInput for arguments that do not fit."""
        try:
            return self.arguments.model_validate(arguments)
        except ValidationError as error:
            raise InvalidInput(_explain(error)) from None

    async def run(self, context: ToolContext, arguments: Mapping[str, Any]) -> JSON:
        """Raises InvalidInput for arguments that do not fit, and whatever of OnethreadError the handler raises."""
        return await self.handler(context, self.parse(arguments))


class Toolset:
    """Tools by name, in an order that never changes: the model's cached prefix depends on it."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools = {tool.name: tool for tool in sorted(tools, key=lambda tool: tool.name)}
        self.functions: tuple[JSON, ...] = tuple(tool.function for tool in self._tools.values())

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())

    def get(self, name: str) -> Tool:
        """Raises InvalidInput, naming the tools there are."""
        if name not in self._tools:
            raise InvalidInput(f"There is no tool {name!r}. Tools: {', '.join(self._tools)}.")
        return self._tools[name]


def tool(
    *, toolset: str, title: str, hints: Hints, needs_approval: bool = False, ends_turn: bool = False
) -> Callable[[Callable[[ToolContext, _A], Awaitable[JSON]]], Tool]:
    """Makes a Tool of a handler: its name is the function's, its description the docstring, its schema the second parameter's."""

    def make(handler: Callable[[ToolContext, _A], Awaitable[JSON]]) -> Tool:
        return Tool(
            name=handler.__name__,
            title=title,
            toolset=toolset,
            description=" ".join((handler.__doc__ or "").split()),
            arguments=handler.__annotations__["arguments"],
            hints=hints,
            needs_approval=needs_approval,
            ends_turn=ends_turn,
            handler=handler,
        )

    return make


def _plain(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: _plain(value) for key, value in schema.items() if not (key == "title" and isinstance(value, str))}
    return [_plain(each) for each in schema] if isinstance(schema, list) else schema


def _explain(error: ValidationError) -> str:
    problems = [
        f"{'.'.join(map(str, each['loc'])) or 'arguments'}: {each['msg']}" for each in error.errors(include_url=False, include_input=False)
    ]
    return f"The arguments do not fit. {'; '.join(problems)}."
