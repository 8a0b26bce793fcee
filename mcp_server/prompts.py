"""The prompts: what one asks again and again about tasks, with the data that the answer needs, read in the caller's name."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.types import (
    GetPromptRequestParams,
    GetPromptResult,
    ListPromptsResult,
    PaginatedRequestParams,
    Prompt,
    PromptArgument,
    PromptMessage,
    TextContent,
)

from core import tasks
from core.access import Principal, require
from core.errors import InvalidInput
from core.frames import tasks_json, time_json
from core.models import Task, TaskStatus
from core.ports import TaskFilter, UnitOfWork
from mcp_server import markdown
from mcp_server.markdown import NOTICE, document
from mcp_server.resources import messages_page, newest, task, unfinished
from mcp_server.server import Server

_MESSAGES_BYTES = 20_000
_TASKS = 100
_GOING_ON = (TaskStatus.IN_PROGRESS, TaskStatus.IN_REVIEW)
_Context = ServerRequestContext[Any, Any]
_Make = Callable[[UnitOfWork, Principal, Mapping[str, str]], Awaitable[str]]


# --- what they say ---------------------------------------------------------------------------------------------------


async def plan_task(uow: UnitOfWork, principal: Principal, arguments: Mapping[str, str]) -> str:
    found = await tasks.get(uow, principal, arguments["ref"])
    asked = f"""\
Plan {found.ref} with me. The task and the end of its conversation stand below.

1. Find out what is wanted and how one will know that it is done. Look at the code or files here that it is about. If something that
   changes the plan is unclear, ask me first, three questions at most; else say what you assume.
2. Show me the plan: three to ten steps in the order of the work, each with its result and how that is checked, the riskiest as early as
   possible. Name what is left out on purpose.
3. Change nothing before I agree. Then write the plan into the task: update_task with ref="{found.ref}", expected_version={found.version}
   and the description that is there now followed by the plan. Make a task of its own (create_task) only of a step that somebody else
   does or that is done another day. When the work begins: update_task with status="in_progress"."""
    return document(asked, await _data(uow, principal, found.ref))


async def summarize_task(uow: UnitOfWork, principal: Principal, arguments: Mapping[str, str]) -> str:
    found = await tasks.get(uow, principal, arguments["ref"])
    asked = f"""\
Summarise {found.ref} for somebody who has not followed it, in at most 150 words and in this order: what it is for; where it stands; what
was decided, and by whom; what is open, and whose turn it is. Say only what the data says, and name what contradicts itself.

Only the end of the conversation stands below. If it names earlier messages and the decisions are not in what you see, read on with
list_messages (ref="{found.ref}", before=...). Change nothing. Offer to put the summary at the top of the description
(update_task with expected_version={found.version})."""
    return document(asked, await _data(uow, principal, found.ref))


async def triage(uow: UnitOfWork, principal: Principal, _arguments: Mapping[str, str]) -> str:
    found = await unfinished(uow, principal, _TASKS + 1)
    asked = f"""\
Triage the unfinished tasks below with me. It is {uow.now:%A, %Y-%m-%d} (UTC).

Look for: what is overdue or due within two days; what nobody is assigned to; priorities that do not fit; what is in progress or in review
and has not changed for a week; titles that do not say what is to be done; tasks that mean the same. Read a task (get_task,
list_messages) before you judge it by its title.

Show one table, the most urgent first: ref, what is wrong, what you would change (priority, assignee, status, due_at, title). Leave out
tasks that are fine. Change nothing before I agree. Then call update_task once for each task, with expected_version. Close what is not
wanted any more with status="cancelled"; do not delete it."""
    more = f"There are older ones: call list_tasks with cursor={found[_TASKS - 1].id}." if len(found) > _TASKS else ""
    shown = await _lines(uow, found[:_TASKS])
    return document(asked, "# Unfinished tasks", NOTICE, *(shown or ["None."]), more)


async def standup(uow: UnitOfWork, principal: Principal, arguments: Mapping[str, str]) -> str:
    since = _last_working_day(uow.now)
    name = arguments.get("user", "").strip()
    who = principal.user_id if name == "me" else await tasks.user_id(uow, name) if name else None
    whose = {"": "everybody's", "me": "my"}.get(name, f"{markdown.name(name)}'s")
    asked = f"""\
Write {whose} stand-up since {since:%A, %Y-%m-%d}. It is {uow.now:%A, %Y-%m-%d} (UTC).

For each person who has something: Done, Doing, Blocked, one line for each task with its ref, in plain words. A task is blocked where it is
overdue, where the agent waits for somebody, or where its messages say so. Where a title does not say what happened, read the last
messages (list_messages with ref and limit=5) and say it in half a sentence. Leave out empty headings and what nobody worked on.
Change nothing."""
    changed = await tasks.listing(uow, principal, TaskFilter(assignee_id=who, updated_since=since), limit=_TASKS)
    going_on = await newest(uow, principal, _GOING_ON, _TASKS + 1, assignee_id=who)
    told = await _lines(uow, changed.tasks)
    rest = await _lines(uow, [each for each in going_on[:_TASKS] if each.updated_at < since])
    more = "There are more than these: call list_tasks with updated_since." if changed.has_more or len(going_on) > _TASKS else ""
    return document(
        asked,
        NOTICE,
        f"# Changed since {time_json(since)}",
        *(told or ["None."]),
        "# Begun before and going on",
        *(rest or ["None."]),
        more,
    )


async def _data(uow: UnitOfWork, principal: Principal, ref: str) -> str:
    about = await task(uow, principal, ref)
    if "chat" not in principal.scopes:
        return document(about, "# Messages", "This token lacks the scope 'chat', so they are not shown.")
    return document(about, await messages_page(uow, principal, ref, None, max_bytes=_MESSAGES_BYTES))


async def _lines(uow: UnitOfWork, found: Sequence[Task]) -> list[str]:
    return [
        markdown.task_lines(
            shown,
            shown["status"],
            shown["priority"],
            markdown.assignee(shown) or "assigned to nobody",
            markdown.due(shown, uow.now),
            markdown.agent(shown),
            f"changed {shown['updated_at'][:10]}",
            f"version {shown['version']}",
        )
        for shown in await tasks_json(uow, found)
    ]


def _last_working_day(now: datetime) -> datetime:
    """Where the one before today begins."""
    day = now.date() - timedelta(days=1)
    while day.weekday() > 4:
        day -= timedelta(days=1)
    return datetime.combine(day, time(), UTC)


# --- as the protocol has it ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Ours:
    shown: Prompt
    make: _Make


_REF = PromptArgument(name="ref", description="The task's ref, for example OT-12.", required=True)
_USER = PromptArgument(name="user", description="A user's name, or 'me'. Without it: everybody.", required=False)
_PROMPTS = {
    each.shown.name: each
    for each in (
        _Ours(
            Prompt(
                name="plan_task",
                title="Plan a task",
                description="Works out a plan for a task and writes it into the task once you agree.",
                arguments=[_REF],
            ),
            plan_task,
        ),
        _Ours(
            Prompt(
                name="summarize_task",
                title="Summarise a task",
                description="What a task is for, where it stands, what was decided and what is open.",
                arguments=[_REF],
            ),
            summarize_task,
        ),
        _Ours(
            Prompt(
                name="triage",
                title="Triage the tasks",
                description="Finds what is overdue, unassigned, stuck, vague or double among the unfinished tasks, and what to change.",
                arguments=[],
            ),
            triage,
        ),
        _Ours(
            Prompt(
                name="standup",
                title="Stand-up",
                description="What was done since the last working day, what goes on, and what is blocked.",
                arguments=[_USER],
            ),
            standup,
        ),
    )
}
NAMES = frozenset(_PROMPTS)


def install(server: Server) -> None:
    """Serves ours beside those that are registered with the server."""
    ours = _Prompts(server)
    server.lowlevel.add_request_handler("prompts/list", PaginatedRequestParams, ours.listed)
    server.lowlevel.add_request_handler("prompts/get", GetPromptRequestParams, ours.get)


class _Prompts:
    def __init__(self, server: Server) -> None:
        self._server = server
        getting = server.lowlevel.get_request_handler("prompts/get")
        assert getting is not None
        self._get_other = getting.handler

    async def listed(self, ctx: _Context, _params: PaginatedRequestParams | None) -> ListPromptsResult:
        principal = await self._server.caller(ctx)
        found = [each.shown for each in _PROMPTS.values()] if "tasks:read" in principal.scopes else []
        return ListPromptsResult(prompts=[*found, *await self._server.list_prompts()])

    async def get(self, ctx: _Context, params: GetPromptRequestParams) -> Any:
        ours = _PROMPTS.get(params.name)
        others = [each.name for each in await self._server.list_prompts()]
        if ours is None and params.name in others:
            return await self._get_other(ctx, params)
        if ours is None:
            raise InvalidInput(f"There is no prompt {params.name[:100]!r}. Prompts: {', '.join([*_PROMPTS, *others])}.")
        principal = await self._server.caller(ctx)
        require(principal, "tasks:read")
        arguments = _checked(ours.shown, params.arguments or {})
        async with (await self._server.services()).storage.read() as uow:
            text = await ours.make(uow, principal, arguments)
        message = PromptMessage(role="user", content=TextContent(type="text", text=text))
        return GetPromptResult(description=ours.shown.description, messages=[message])


def _checked(prompt: Prompt, given: Mapping[str, str]) -> Mapping[str, str]:
    known = prompt.arguments or []
    names = ", ".join(each.name for each in known) or "none"
    if unknown := sorted(given.keys() - {each.name for each in known}):
        raise InvalidInput(f"The prompt {prompt.name} has no argument {unknown[0][:100]!r}. Arguments: {names}.")
    if missing := [each.name for each in known if each.required and not given.get(each.name, "").strip()]:
        raise InvalidInput(f"The prompt {prompt.name} needs {missing[0]!r}: {_REF.description}")
    return given
