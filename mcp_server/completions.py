"""Completions: refs of tasks and names of users, while somebody types them."""

import re
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.types import CompleteRequestParams, CompleteResult, Completion, PromptReference

from core.access import Principal, require
from core.errors import InvalidInput
from core.models import Task
from core.ports import TaskFilter, UnitOfWork
from mcp_server import prompts, resources
from mcp_server.markdown import FINISHED
from mcp_server.server import Server

MOST = 100
"""Values in one answer, by the protocol."""
_LOOKED_AT = 200
"""Tasks of which titles are looked at, of the unfinished ones and of all: the newest. To look at all takes longer the more there are."""
_TYPED = 200
_NUMBER = re.compile(r"[^\s-]+-\d+")
_Context = ServerRequestContext[Any, Any]


async def refs(uow: UnitOfWork, principal: Principal, typed: str) -> tuple[list[str], bool]:
    """Refs that begin so, then those of new tasks whose titles hold these words, unfinished ones first; and whether there may be more."""
    require(principal, "tasks:read")
    typed = typed.strip()[:_TYPED]
    unfinished = await resources.unfinished(uow, principal, _LOOKED_AT)
    if not typed:
        return [task.ref for task in unfinished[:MOST]], len(unfinished) > MOST
    newest = await uow.tasks.page(principal, TaskFilter(), after=None, limit=_LOOKED_AT)
    known = {task.id: task for task in [*await _named(uow, principal, typed), *unfinished, *newest]}
    fitting = sorted((task for task in known.values() if _fits(task, typed)), key=lambda task: _rank(task, typed))
    return [task.ref for task in fitting[:MOST]], len(fitting) > MOST or len(newest) == _LOOKED_AT


async def users(uow: UnitOfWork, principal: Principal, typed: str) -> tuple[list[str], bool]:
    """Names that contain it."""
    require(principal, "tasks:read")
    found = await uow.users.page(typed.strip()[:_TYPED], after=None, limit=MOST + 1)
    return [user.name for user in found[:MOST]], len(found) > MOST


async def _named(uow: UnitOfWork, principal: Principal, typed: str) -> list[Task]:
    """The task that is named so, and those with one more digit, however old they are."""
    if not _NUMBER.fullmatch(typed):
        return []
    found = [await uow.tasks.by_ref(ref, principal) for ref in (typed, *(f"{typed}{digit}" for digit in range(10)))]
    return [task for task in found if task]


def _fits(task: Task, typed: str) -> bool:
    title = task.title.casefold()
    return _begins(task, typed) or all(word in title for word in typed.casefold().split())


def _begins(task: Task, typed: str) -> bool:
    return task.ref.startswith(typed.upper())


def _rank(task: Task, typed: str) -> tuple[bool, bool, bool]:
    """The task itself first, then those whose refs begin so."""
    return task.ref != typed.upper(), not _begins(task, typed), task.status in FINISHED


# --- as the protocol has it ------------------------------------------------------------------------------------------


def install(server: Server) -> None:
    server.lowlevel.add_request_handler("completion/complete", CompleteRequestParams, _Completions(server).complete)


class _Completions:
    def __init__(self, server: Server) -> None:
        self._server = server

    async def complete(self, ctx: _Context, params: CompleteRequestParams) -> CompleteResult:
        values, has_more = await self._found(ctx, params) if await self._is_ours(params) else ([], False)
        total = None if has_more else len(values)
        return CompleteResult(completion=Completion(values=values, total=total, has_more=has_more))

    async def _found(self, ctx: _Context, params: CompleteRequestParams) -> tuple[list[str], bool]:
        complete = {"ref": refs, "user": users}.get(params.argument.name)
        principal = await self._server.caller(ctx)
        if complete is None or "tasks:read" not in principal.scopes:
            return [], False
        async with (await self._server.services()).storage.read() as uow:
            return await complete(uow, principal, params.argument.value)

    async def _is_ours(self, params: CompleteRequestParams) -> bool:
        """Raises InvalidInput for what nobody has."""
        if isinstance(params.ref, PromptReference):
            others = {each.name for each in await self._server.list_prompts()}
            if params.ref.name not in prompts.NAMES | others:
                raise InvalidInput(f"There is no prompt {params.ref.name[:100]!r}. Prompts: {', '.join(sorted(prompts.NAMES))}.")
            return params.ref.name in prompts.NAMES
        others = {each.uri_template for each in await self._server.list_resource_templates()}
        if params.ref.uri not in {resources.TASK, resources.MESSAGES} | others:
            raise InvalidInput(f"There is no template {params.ref.uri[:200]!r}. Templates: {resources.TASK}, {resources.MESSAGES}.")
        return params.ref.uri in (resources.TASK, resources.MESSAGES)
