"""The resources: the board, each task and its messages as Markdown, and what the agent does as JSON."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from mcp.server.context import ServerRequestContext
from mcp.shared.uri_template import UriTemplate
from mcp.types import (
    Annotations,
    ListResourcesResult,
    ListResourceTemplatesResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextResourceContents,
)

from core import messages, tasks
from core.access import Principal, require
from core.errors import InvalidInput, NotFound
from core.frames import messages_json, task_json, tasks_json, time_json
from core.messages import PostingRules
from core.models import JSON, Task, TaskStatus
from core.ports import TaskFilter, UnitOfWork
from core.tools import chat
from core.tools.registry import Posting, ToolContext
from core.tools.tasks import places_of
from mcp_server import markdown
from mcp_server.markdown import NOTICE, document, quoted
from mcp_server.results import result
from mcp_server.server import Server
from mcp_server.services import SOURCE

LISTED = 50
"""Tasks in the list of resources."""
MAX_PAGE_BYTES = 100_000
"""Of one page of messages."""
UNFINISHED = (TaskStatus.IN_PROGRESS, TaskStatus.IN_REVIEW, TaskStatus.TODO)
"""In the order in which the board shows them."""
_ON_BOARD = 100
_COUNTED = 1_000
"""So many are counted: to count all takes longer the more there are."""
_MESSAGES = 50
_MARKDOWN = "text/markdown"

Kind = Literal["board", "status", "task", "messages"]
_Context = ServerRequestContext[Any, Any]


# --- addresses -------------------------------------------------------------------------------------------------------

BOARD, STATUS, TASK, MESSAGES = "tasks://board", "agent://status", "task://{ref}", "task://{ref}/messages{?before}"
_TASK, _MESSAGES_OF = UriTemplate.parse(TASK), UriTemplate.parse(MESSAGES)
TASKS = "task://"
_MAX_URI, _MAX_DIGITS = 200, 15
_SCHEMES = ("tasks://", TASKS, "agent://")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """What a URI names."""

    kind: Kind
    ref: str = ""
    before: int | None = None

    @property
    def scope(self) -> str:
        """What a token must be good for."""
        return "chat" if self.kind in ("status", "messages") else "tasks:read"


def is_ours(uri: str) -> bool:
    return uri.startswith(_SCHEMES)


def address_of(uri: str) -> Address:
    """Raises NotFound for one that names none of our resources."""
    if uri == BOARD:
        return Address(kind="board")
    if uri == STATUS:
        return Address(kind="status")
    if len(uri) > _MAX_URI:
        raise unknown(uri)
    if found := _TASK.match(uri):
        return Address(kind="task", ref=_text(found, "ref"))
    if found := _MESSAGES_OF.match(uri):
        return Address(kind="messages", ref=_text(found, "ref"), before=_seq(_text(found, "before")))
    raise unknown(uri)


def unknown(uri: str) -> NotFound:
    return NotFound(f"There is no resource {uri[:_MAX_URI]!r}. There are {BOARD}, {TASK}, {MESSAGES} and {STATUS}.")


def task_uri(task: Task) -> str:
    return _TASK.expand({"ref": task.ref})


def messages_uri(task: Task, before: int | None = None) -> str:
    return _MESSAGES_OF.expand({"ref": task.ref} | ({"before": str(before)} if before else {}))


def _text(found: dict[str, str | list[str]], name: str) -> str:
    value = found.get(name, "")
    return value if isinstance(value, str) else ""


def _seq(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS and int(text)):
        raise InvalidInput("`before` is the number of a message: use the URI that the page behind it names.")
    return int(text)


# --- what there is to read -------------------------------------------------------------------------------------------


async def unfinished(uow: UnitOfWork, principal: Principal, limit: int) -> list[Task]:
    """The newest tasks that are neither done nor cancelled."""
    require(principal, "tasks:read")
    return await newest(uow, principal, UNFINISHED, limit)


async def newest(
    uow: UnitOfWork, principal: Principal, statuses: Iterable[TaskStatus], limit: int, *, assignee_id: UUID | None = None
) -> list[Task]:
    """The newest tasks that have one of these statuses."""
    found: list[Task] = []
    for status in statuses:  # an index has each by itself in this order; all at once are sorted, which takes longer the more there are
        where = TaskFilter(statuses=frozenset({status}), assignee_id=assignee_id)
        found += await uow.tasks.page(principal, where, after=None, limit=limit)
    return sorted(found, key=lambda task: task.id, reverse=True)[:limit]


async def board(uow: UnitOfWork, principal: Principal) -> str:
    found = await unfinished(uow, principal, _ON_BOARD)
    if not found:
        return document("# Board", "No task is unfinished. Call create_task to make one.")
    shown = await tasks_json(uow, found)
    groups = [_group(status, [each for each in shown if each["status"] == status], uow.now) for status in UNFINISHED]
    return document("# Board", NOTICE, *groups, await _not_shown(uow, principal, found))


def _group(status: TaskStatus, shown: Sequence[JSON], now: datetime) -> str:
    if not shown:
        return ""
    lines = [
        markdown.task_lines(each, each["priority"], markdown.assignee(each), markdown.due(each, now), markdown.agent(each))
        for each in shown
    ]
    return "\n\n".join([f"## {status} ({len(shown)})", *lines])


async def _not_shown(uow: UnitOfWork, principal: Principal, found: Sequence[Task]) -> str:
    total = await uow.tasks.count(principal, TaskFilter(statuses=frozenset(UNFINISHED)), at_most=_COUNTED + 1)
    if total <= len(found):
        return ""
    number = f"{total - len(found):,}" if total <= _COUNTED else f"More than {_COUNTED - len(found):,}"
    return f"{number} older ones are not shown. Call list_tasks with cursor={found[-1].id} to go on."


async def task(uow: UnitOfWork, principal: Principal, ref: str) -> str:
    found = await tasks.get(uow, principal, ref)
    conversation = await uow.conversations.find(found.conversation_id)
    assert conversation is not None
    shown = await task_json(uow, found, conversation)
    names = await uow.users.names([found.creator_id])
    conversed = messages_uri(found) if "chat" in principal.scopes else None
    followed = (await places_of(uow, [found.conversation_id])).get(found.conversation_id, "")
    return markdown.task_page(shown, creator=names.get(found.creator_id, "somebody"), messages=conversed, followed=followed)


async def messages_page(uow: UnitOfWork, principal: Principal, ref: str, before: int | None, *, max_bytes: int = MAX_PAGE_BYTES) -> str:
    """The newest messages below `before`, as many as fit; one always."""
    found = await tasks.get(uow, principal, ref)
    page = await messages.page(uow, principal, found.conversation_id, before=before, limit=_MESSAGES)
    shown = await messages_json(uow, page.messages)
    blocks = markdown.fitting([markdown.message(each, max_bytes // 2) for each in shown], max_bytes)
    if not blocks:
        return document(f"# Messages of {found.ref}", "None." if before is None else f"None before message {before}.")
    first = shown[-len(blocks)]["seq"]
    is_first = len(blocks) == len(shown) and not page.has_more
    earlier = "" if is_first else f"Earlier messages: {messages_uri(found, first)}"
    return document(f"# Messages of {found.ref}", NOTICE, quoted(found.title), earlier, *blocks)


async def status(uow: UnitOfWork, principal: Principal, rules: PostingRules) -> str:
    """What the tool agent_status gives, as JSON."""
    posting = Posting(rules=rules, source=SOURCE)
    found = await chat.agent_status.run(ToolContext(uow=uow, principal=principal, conversation=None, posting=posting), {})
    return json.dumps(result(chat.agent_status, found).structured_content, ensure_ascii=False, separators=(",", ":"))


# --- as the protocol has it ------------------------------------------------------------------------------------------


def install(server: Server) -> None:
    """Serves ours beside those that are registered with the server."""
    ours = _Resources(server)
    lowlevel = server.lowlevel
    lowlevel.add_request_handler("resources/list", PaginatedRequestParams, ours.listed)
    lowlevel.add_request_handler("resources/templates/list", PaginatedRequestParams, ours.templates)
    lowlevel.add_request_handler("resources/read", ReadResourceRequestParams, ours.read)


class _Resources:
    def __init__(self, server: Server) -> None:
        self._server = server
        reading = server.lowlevel.get_request_handler("resources/read")
        assert reading is not None
        self._read_other = reading.handler

    async def listed(self, ctx: _Context, _params: PaginatedRequestParams | None) -> ListResourcesResult:
        principal = await self._server.caller(ctx)
        found = [each for each, scope in _FIXED if scope in principal.scopes]
        if "tasks:read" in principal.scopes:
            async with (await self._server.services()).storage.read() as uow:
                found += [_listed(task) for task in await unfinished(uow, principal, LISTED)]
        return ListResourcesResult(resources=[*found, *await self._server.list_resources()])

    async def templates(self, ctx: _Context, _params: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
        scopes = (await self._server.caller(ctx)).scopes
        found = [template for template, needed in _TEMPLATES if needed <= scopes]
        return ListResourceTemplatesResult(resource_templates=[*found, *await self._server.list_resource_templates()])

    async def read(self, ctx: _Context, params: ReadResourceRequestParams) -> Any:
        uri = str(params.uri)
        if not is_ours(uri):
            return await self._read_other(ctx, params)
        address = address_of(uri)
        principal = await self._server.caller(ctx)
        require(principal, address.scope)
        services = await self._server.services()
        async with services.storage.read() as uow:
            text = await _text_of(uow, principal, address, services.posting)
        kind = "application/json" if address.kind == "status" else _MARKDOWN
        return ReadResourceResult(contents=[TextResourceContents(uri=uri, text=text, mime_type=kind)])


async def _text_of(uow: UnitOfWork, principal: Principal, address: Address, rules: PostingRules) -> str:
    match address.kind:
        case "board":
            return await board(uow, principal)
        case "status":
            return await status(uow, principal, rules)
        case "task":
            return await task(uow, principal, address.ref)
        case _:
            return await messages_page(uow, principal, address.ref, address.before)


def _listed(found: Task) -> Resource:
    return Resource(
        uri=task_uri(found),
        name=found.ref,
        title=found.title,
        description=f"Task, {found.status}, {found.priority} priority",
        mime_type=_MARKDOWN,
        annotations=Annotations(last_modified=time_json(found.updated_at)),
    )


_FIXED = (
    (
        Resource(
            uri=BOARD, name="board", title="Board", description="The newest unfinished tasks, grouped by status.", mime_type=_MARKDOWN
        ),
        "tasks:read",
    ),
    (
        Resource(
            uri=STATUS,
            name="agent-status",
            title="Agent status",
            description="Where the agent is busy or waits for somebody, the queue, and the workers.",
            mime_type="application/json",
        ),
        "chat",
    ),
)
_TEMPLATES = (
    (
        ResourceTemplate(
            uri_template=TASK,
            name="task",
            title="Task",
            description="A task with all its fields and its whole description. ref is for example OT-12.",
            mime_type=_MARKDOWN,
        ),
        frozenset({"tasks:read"}),
    ),
    (
        ResourceTemplate(
            uri_template=MESSAGES,
            name="task-messages",
            title="Messages of a task",
            description="The newest messages of a task's conversation; before=N gives those before message N.",
            mime_type=_MARKDOWN,
        ),
        frozenset({"tasks:read", "chat"}),
    ),
)
