"""A tool as one self-describing value, and the toolsets that offer them to the agent and to MCP clients."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from core.access import Principal
from core.errors import InvalidInput, NotFound
from core.messages import PostingRules
from core.models import JSON, Conversation
from core.ports import UnitOfWork

MAX_RESULT_BYTES = 20_000
"""Of a result as compact JSON in UTF-8. What does not fit is left out, and the result says how to get it."""


class Arguments(BaseModel):
    """What a tool is called with. Its JSON schema is what the model sees."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


class Result(BaseModel):
    """What a tool gives. A field that is None is left out."""

    model_config = ConfigDict(extra="forbid")

    def json(self) -> JSON:  # type: ignore[override]  # pydantic's own of this name is deprecated
        """As it goes to the model."""
        return self.model_dump(mode="json", exclude_none=True)


_A = TypeVar("_A", bound=Arguments)
_R = TypeVar("_R", bound=Result)


@dataclass(frozen=True, slots=True, kw_only=True)
class Posting:
    """How a tool posts messages."""

    rules: PostingRules
    source: str
    """Where they come from, as it is shown; idempotency keys of different sources never meet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """What a tool works with: an open transaction, in whose name it acts, and where it was called (None outside a conversation)."""

    uow: UnitOfWork
    principal: Principal
    conversation: Conversation | None
    posting: Posting | None = None
    """None for the agent, whose tools post nothing."""


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
    result: type[Result]
    hints: Hints
    needs_approval: bool
    """The agent asks a person before it runs."""
    ends_turn: bool
    """The agent stops after it: its result is the question to the user."""
    follows: bool
    """Its result tells of a turn. A surface that has time goes on following it."""
    untrusted: tuple[str, ...]
    """The fields of the result whose text people or a model wrote, such as `tasks[].title`: no instructions to who reads it."""
    handler: Callable[[ToolContext, Any], Awaitable[Result]]

    @property
    def scope(self) -> str:
        """What a token must be good for."""
        if self.toolset != "tasks":
            return "chat"
        return "tasks:read" if self.hints.read_only else "tasks:write"

    @property
    def parameters(self) -> JSON:
        """The JSON schema of the arguments, without the noise that pydantic adds."""
        return _taken(self.arguments)

    @property
    def output(self) -> JSON:
        """The JSON schema of the result. It forbids no further fields: clients that know it must go on when there are."""
        return _given(self.result)

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
        return (await self.handler(context, self.parse(arguments))).json()


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


@contextmanager
def advising(advice: str) -> Iterator[None]:
    """Adds to a NotFound what to do about it."""
    try:
        yield
    except NotFound as error:
        raise NotFound(f"{error} {advice}") from None


def tool(
    *,
    toolset: str,
    title: str,
    hints: Hints,
    needs_approval: bool = False,
    ends_turn: bool = False,
    follows: bool = False,
    untrusted: tuple[str, ...] = (),
) -> Callable[[Callable[[ToolContext, _A], Awaitable[_R]]], Tool]:
    """Makes a Tool of a handler: its name is the function's, its description the docstring, its schemas those of the second parameter
    and of what it returns."""

    def make(handler: Callable[[ToolContext, _A], Awaitable[_R]]) -> Tool:
        return Tool(
            name=handler.__name__,
            title=title,
            toolset=toolset,
            description=" ".join((handler.__doc__ or "").split()),
            arguments=handler.__annotations__["arguments"],
            result=handler.__annotations__["return"],
            hints=hints,
            needs_approval=needs_approval,
            ends_turn=ends_turn,
            follows=follows,
            untrusted=untrusted,
            handler=handler,
        )

    return make


@cache
def _taken(arguments: type[Arguments]) -> JSON:
    return _plain(arguments.model_json_schema())


@cache
def _given(result: type[Result]) -> JSON:
    schema: JSON = _open(_plain(result.model_json_schema(mode="serialization")))
    return schema


def _plain(schema: JSON) -> JSON:
    """Without references, titles, formats, and null: what is optional is left out, by us and by the model."""
    definitions = schema.get("$defs", {})

    def plain(node: Any) -> Any:
        if isinstance(node, list):
            return [plain(each) for each in node]
        if not isinstance(node, dict):
            return node
        if _NULL in node.get("anyOf", ()):
            node = _never_null(node)
        if "$ref" in node:
            defined = definitions[node["$ref"].rpartition("/")[2]]
            node = {**_without(defined, "description"), **_without(node, "$ref")}
        return {key: plain(value) for key, value in node.items() if not (key in _NOISE and isinstance(value, str))}

    return {key: plain(value) for key, value in _without(schema, "$defs", "title", "description").items()}


def _never_null(node: JSON) -> JSON:
    others = [each for each in node["anyOf"] if each != _NULL]
    rest = _without(node, "anyOf", "default")
    return {**others[0], **rest} if len(others) == 1 else {"anyOf": others, **rest}


def _without(node: JSON, *keys: str) -> JSON:
    return {key: value for key, value in node.items() if key not in keys}


def _open(node: Any) -> Any:
    if isinstance(node, list):
        return [_open(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {key: _open(value) for key, value in node.items() if not (key == "additionalProperties" and isinstance(value, bool))}


def _explain(error: ValidationError) -> str:
    problems = [
        f"{'.'.join(map(str, each['loc'])) or 'arguments'}: {each['msg']}" for each in error.errors(include_url=False, include_input=False)
    ]
    return f"The arguments do not fit. {'; '.join(problems)}."


_NULL = {"type": "null"}
_NOISE = ("title", "format")
