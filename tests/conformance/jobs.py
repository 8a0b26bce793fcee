"""The jobs that the scenarios of the tasks extension ask for: another implementation of its port, beside the turns."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.types import (
    INTERNAL_ERROR,
    CallToolRequestParams,
    CallToolResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    TextContent,
)

from core.ids import new_id
from core.models import JSON
from mcp_server.tasks_extension import Job, Jobs, JobStatus

Work = Callable[["_Running"], Awaitable[CallToolResult]]


@dataclass(slots=True)
class _Running:
    job: Job
    arguments: JSON
    answers: dict[str, asyncio.Future[Any]] = field(default_factory=dict)

    def change(self, **changes: Any) -> None:
        if not self.job.status.finished:
            self.job = replace(self.job, updated_at=datetime.now(UTC), **changes)

    async def ask(self, *keys: str) -> None:
        """Waits until the client has answered all of these."""
        self.answers = {key: asyncio.get_running_loop().create_future() for key in keys}
        self.change(status=JobStatus.INPUT_REQUIRED, requests={key: _confirmation(key) for key in keys})
        await asyncio.gather(*self.answers.values())
        self.change(status=JobStatus.WORKING)

    def answer(self, key: str, response: Any) -> None:
        if key in self.job.requests and not self.answers[key].done():
            self.answers[key].set_result(response)
            self.change(requests={other: request for other, request in self.job.requests.items() if other != key})


class FixtureJobs:
    """Jobs in this process's memory, in front of `others`. Whoever gives `tasks` ends those that still run."""

    def __init__(self, others: Jobs, tasks: set[asyncio.Task[None]]) -> None:
        self._others = others
        self._tasks = tasks
        self._running: dict[str, tuple[_Running, asyncio.Task[None]]] = {}

    async def start(self, ctx: ServerRequestContext[Any, Any], call: CallToolRequestParams) -> Job | CallToolResult | None:
        work = _WORK.get(call.name)
        if work is None:
            return await self._others.start(ctx, call)
        if call.name == "test_tool_with_task" and not call.input_responses:
            return None
        now = datetime.now(UTC)
        job = Job(id=str(new_id()), status=JobStatus.WORKING, created_at=now, updated_at=now, poll_seconds=0.2, kept_seconds=3600)
        running = _Running(job, {**(call.arguments or {}), **_names(call)})
        task = asyncio.create_task(_run(running, work), name=f"conformance-{call.name}")
        self._running[job.id] = running, task
        self._tasks.add(task)
        return job

    async def get(self, ctx: ServerRequestContext[Any, Any], job_id: str) -> Job:
        return self._running[job_id][0].job if job_id in self._running else await self._others.get(ctx, job_id)

    async def follow(self, ctx: ServerRequestContext[Any, Any], job_id: str) -> AsyncGenerator[Job, None]:
        """No scenario listens to jobs yet."""
        yield await self.get(ctx, job_id)

    async def answer(self, ctx: ServerRequestContext[Any, Any], job_id: str, responses: Mapping[str, Any]) -> None:
        if job_id not in self._running:
            return await self._others.answer(ctx, job_id, responses)
        for key, response in responses.items():
            self._running[job_id][0].answer(key, response)
        return None

    async def cancel(self, ctx: ServerRequestContext[Any, Any], job_id: str) -> None:
        if job_id not in self._running:
            return await self._others.cancel(ctx, job_id)
        running, task = self._running[job_id]
        running.change(status=JobStatus.CANCELLED)
        task.cancel()
        return None


async def _run(running: _Running, work: Work) -> None:
    try:
        running.change(status=JobStatus.COMPLETED, result=await work(running))
    except MCPError as error:
        running.change(status=JobStatus.FAILED, error=error.error)


async def _compute(running: _Running) -> CallToolResult:
    await asyncio.sleep(float(running.arguments.get("seconds", 1)))
    return _said(f"computed {running.arguments.get('label', '')}")


async def _fail(_running: _Running) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text="it failed")], is_error=True)


async def _break(_running: _Running) -> CallToolResult:
    raise MCPError(INTERNAL_ERROR, "it broke")


async def _confirm(running: _Running) -> CallToolResult:
    await running.ask("confirm")
    return _said(f"deleted {running.arguments.get('filename')}")


async def _ask_two(running: _Running) -> CallToolResult:
    await running.ask("first", "second")
    return _said("both answered")


async def _greet(running: _Running) -> CallToolResult:
    return _said(f"Hello, {running.arguments.get('name')}!")


_WORK: dict[str, Work] = {
    "slow_compute": _compute,
    "failing_job": _fail,
    "protocol_error_job": _break,
    "confirm_delete": _confirm,
    "multi_input": _ask_two,
    "test_tool_with_task": _greet,
}


def _said(text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content={"result": text})


def _confirmation(key: str) -> ElicitRequest:
    schema = {"type": "object", "properties": {"confirm": {"type": "boolean"}}, "required": ["confirm"]}
    return ElicitRequest(params=ElicitRequestFormParams(message=f"{key}: sure?", requested_schema=schema))


def _names(call: CallToolRequestParams) -> JSON:
    """What the person was asked before it became a job."""
    answer = (call.input_responses or {}).get("user_name")
    return dict(answer.content or {}) if isinstance(answer, ElicitResult) else {}
