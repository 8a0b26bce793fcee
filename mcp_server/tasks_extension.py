"""MCP's tasks extension (io.modelcontextprotocol/tasks, SEP-2663): a tool call is answered at once with an id under which to ask on.

Here is the protocol alone, for clients that declare it. What runs behind it is a port, `Jobs`: "task" means another thing in Onethread.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal, Protocol, cast

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.extension import Extension, MethodBinding
from mcp.server.mcpserver import require_client_extension
from mcp.server.session import ServerSession
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp.shared.subscriptions import SUBSCRIPTION_ID_META_KEY
from mcp.types import (
    HEADER_MISMATCH,
    CallToolRequestParams,
    CallToolResult,
    ErrorData,
    InputRequest,
    RequestId,
    RequestParams,
    ServerNotification,
    SubscriptionsAcknowledgedNotification,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel, Field

from core.errors import NotFound, StorageUnavailable
from core.models import JSON

TASKS = "io.modelcontextprotocol/tasks"
MAX_LISTENED = 100
"""Jobs that one stream tells of."""
_RETRY_SECONDS = 1.0
_VERSIONS = frozenset(MODERN_PROTOCOL_VERSIONS)


class JobStatus(StrEnum):
    WORKING = "working"
    INPUT_REQUIRED = "input_required"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        return self not in (JobStatus.WORKING, JobStatus.INPUT_REQUIRED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A call that goes on, as it is now."""

    id: str
    status: JobStatus
    message: str = ""
    """What it does just now, for people and models."""
    created_at: datetime
    updated_at: datetime
    poll_seconds: float
    """After how long it is worth asking again."""
    kept_seconds: float | None = None
    """From its creation on; None where nothing ends its being kept."""
    requests: Mapping[str, InputRequest] = field(default_factory=dict)
    """What the client is asked, by keys that are never used for anything else; empty unless INPUT_REQUIRED."""
    result: CallToolResult | None = None
    """Of a COMPLETED one: what the call would have returned."""
    error: ErrorData | None = None
    """Of a FAILED one: what the call would have failed with, as a protocol error."""


class Jobs(Protocol):
    """Tool calls that go on after they were answered, for as long as they are kept and in whatever process they are asked for.

    Everything may raise OnethreadError; NotFound for a job that is not there, or not the caller's to see.
    """

    async def start(self, ctx: ServerRequestContext[Any, Any], call: CallToolRequestParams) -> Job | CallToolResult | None:
        """The job, once `get` would find it; a result, where the call came to its end at once; None for a call that is never a job."""
        ...

    async def get(self, ctx: ServerRequestContext[Any, Any], job_id: str) -> Job: ...

    def follow(self, ctx: ServerRequestContext[Any, Any], job_id: str) -> AsyncGenerator[Job, None]:
        """The job, and again whenever it has changed, until it has ended."""
        ...

    async def answer(self, ctx: ServerRequestContext[Any, Any], job_id: str, responses: Mapping[str, Any]) -> None:
        """Takes the client's responses to `requests`, by their keys. Others, and what is no response to them, change nothing."""
        ...

    async def cancel(self, ctx: ServerRequestContext[Any, Any], job_id: str) -> None:
        """Stops it. Nothing happens to one that has ended."""
        ...


class TaskParams(RequestParams):
    task_id: str = Field(alias="taskId")


class UpdateParams(TaskParams):
    input_responses: dict[str, Any] = Field(alias="inputResponses")


class TasksExtension(Extension):
    identifier = TASKS

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def methods(self) -> Sequence[MethodBinding]:
        return (
            MethodBinding("tasks/get", TaskParams, self._get, _VERSIONS),
            MethodBinding("tasks/update", UpdateParams, self._update, _VERSIONS),
            MethodBinding("tasks/cancel", TaskParams, self._cancel, _VERSIONS),
        )

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        started = await self._jobs.start(ctx, params) if _declared(ctx) else None
        match started:
            case Job():
                return {**_task(started), "resultType": "task"}
            case None:
                return await call_next(ctx)
        return started

    async def listen(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        """Middleware of the server: where a client listens to jobs, its stream carries `notifications/tasks` beside all else."""
        wanted = _wanted(ctx)
        if not wanted:
            return await call_next(ctx)
        require_client_extension(ctx, TASKS)
        seen = [job_id for job_id in wanted if await self._is_there(ctx, job_id)]
        session = _ListeningSession(ctx.session, seen)
        try:
            async with asyncio.TaskGroup() as group:
                telling = [group.create_task(self._tell(ctx, session, job_id), name="mcp.job") for job_id in seen]
                try:
                    return await call_next(replace(ctx, session=cast(ServerSession, session)))
                finally:
                    for each in telling:
                        each.cancel()
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def _is_there(self, ctx: ServerRequestContext[Any, Any], job_id: str) -> bool:
        try:
            await self._jobs.get(ctx, job_id)
        except NotFound:
            return False
        return True

    async def _tell(self, ctx: ServerRequestContext[Any, Any], session: "_ListeningSession", job_id: str) -> None:
        """Until it has ended, or is there no more."""
        await session.acknowledged.wait()
        while True:
            try:
                async with aclosing(self._jobs.follow(ctx, job_id)) as jobs:
                    async for job in jobs:
                        params = {**detailed(job), "_meta": {SUBSCRIPTION_ID_META_KEY: ctx.request_id}}
                        await session.send_notification(cast(ServerNotification, _TaskNotification(params=params)), ctx.request_id)
                return
            except NotFound:
                return
            except StorageUnavailable:
                await asyncio.sleep(_RETRY_SECONDS)

    async def _get(self, ctx: ServerRequestContext[Any, Any], params: TaskParams) -> HandlerResult:
        _check(ctx, params)
        return detailed(await self._jobs.get(ctx, params.task_id))

    async def _update(self, ctx: ServerRequestContext[Any, Any], params: UpdateParams) -> HandlerResult:
        _check(ctx, params)
        await self._jobs.answer(ctx, params.task_id, params.input_responses)
        return {}

    async def _cancel(self, ctx: ServerRequestContext[Any, Any], params: TaskParams) -> HandlerResult:
        _check(ctx, params)
        await self._jobs.cancel(ctx, params.task_id)
        return {}


def detailed(job: Job) -> JSON:
    """A job as `tasks/get` and `notifications/tasks` tell of it."""
    details: JSON = {}
    match job.status:
        case JobStatus.INPUT_REQUIRED:
            details["inputRequests"] = {key: _dumped(request) for key, request in job.requests.items()}
        case JobStatus.COMPLETED if job.result:
            details["result"] = _dumped(job.result)
        case JobStatus.FAILED if job.error:
            details["error"] = _dumped(job.error)
    return {**_task(job), **details}


def _task(job: Job) -> JSON:
    told = {"statusMessage": job.message} if job.message else {}
    return {
        "taskId": job.id,
        "status": job.status.value,
        **told,
        "createdAt": _time(job.created_at),
        "lastUpdatedAt": _time(job.updated_at),
        "ttlMs": None if job.kept_seconds is None else round(job.kept_seconds * 1000),
        "pollIntervalMs": round(job.poll_seconds * 1000),
    }


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _dumped(value: CallToolResult | InputRequest | ErrorData) -> JSON:
    return value.model_dump(mode="json", by_alias=True, exclude_none=True)


def _wanted(ctx: ServerRequestContext[Any, Any]) -> list[str]:
    """The jobs to which a client wants to listen."""
    asked = (ctx.params or {}).get("notifications") if ctx.method == "subscriptions/listen" else None
    given = asked.get("taskIds") if isinstance(asked, Mapping) else None
    return [each for each in dict.fromkeys(given) if isinstance(each, str)][:MAX_LISTENED] if isinstance(given, list) else []


class _TaskNotification(BaseModel):
    """The SDK knows no notifications of extensions, but sends what it can dump."""

    method: Literal["notifications/tasks"] = "notifications/tasks"
    params: JSON


class _ListeningSession:
    """A request's session, as far as a stream needs one. Its acknowledgement names the jobs that the stream will tell of, too."""

    def __init__(self, session: ServerSession, job_ids: Sequence[str]) -> None:
        self._session = session
        self._job_ids = list(job_ids)
        self.acknowledged = asyncio.Event()

    async def send_notification(self, notification: ServerNotification, related_request_id: RequestId | None = None) -> None:
        if isinstance(notification, SubscriptionsAcknowledgedNotification):
            params = notification.params
            honoured = params.notifications.model_copy(update={"taskIds": self._job_ids})
            notification = notification.model_copy(update={"params": params.model_copy(update={"notifications": honoured})})
        await self._session.send_notification(notification, related_request_id)
        self.acknowledged.set()


def _declared(ctx: ServerRequestContext[Any, Any]) -> bool:
    capabilities = ctx.session.client_capabilities
    return ctx.protocol_version in _VERSIONS and TASKS in ((capabilities and capabilities.extensions) or ())


def _check(ctx: ServerRequestContext[Any, Any], params: TaskParams) -> None:
    """What the SDK checks of the protocol's own methods only."""
    require_client_extension(ctx, TASKS)
    if ctx.request is not None and decode_header_value(ctx.request.headers.get(MCP_NAME_HEADER)) != params.task_id:
        raise MCPError(HEADER_MISMATCH, f"The header {MCP_NAME_HEADER} does not name the task of the request.")
