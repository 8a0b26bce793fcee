"""Turns as jobs of the tasks extension.

A job's id is its turn's, and all it tells is read from the database: so every process knows it, after a restart too, and whatever surface
the message came from. Who has no right to see the turn is told what is told of one that never was.
"""

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Protocol
from uuid import UUID

from mcp.server.context import ServerRequestContext
from mcp.types import CallToolRequestParams, CallToolResult, ElicitResult
from pydantic import ValidationError

from core import turns
from core.access import Principal, require
from core.errors import Conflict, InvalidInput, NotFound, OnethreadError
from core.events import TextDelta
from core.models import JSON, Message, Turn, TurnStatus
from core.tools import chat
from core.tools.chat import Reply, reply_of
from core.tools.registry import Tool, Toolset
from mcp_server import asking, errors
from mcp_server.asking import Ask
from mcp_server.results import of_reply
from mcp_server.services import Services
from mcp_server.tasks_extension import Job, JobStatus

_POLL_SECONDS = {TurnStatus.QUEUED: 1.0, TurnStatus.RUNNING: 0.5, TurnStatus.WAITING: 2.0}
"""A draft is stored once a second, but a reply may be complete at any time."""
_ENDED_SECONDS = 5.0
_TAIL = 150
"""Characters of the reply in a status message."""


class Tools(Protocol):
    """What is needed of the server."""

    tools: Toolset

    async def services(self) -> Services: ...

    async def caller(self, ctx: ServerRequestContext[Any, Any]) -> Principal: ...

    async def run_tool(self, ctx: ServerRequestContext[Any, Any], tool: Tool, arguments: Mapping[str, Any]) -> JSON: ...

    def offered(self, ctx: ServerRequestContext[Any, Any]) -> frozenset[str]: ...


class TurnJobs:
    def __init__(self, server: Tools) -> None:
        self._server = server

    async def start(self, ctx: ServerRequestContext[Any, Any], call: CallToolRequestParams) -> Job | CallToolResult | None:
        """Of tools that post a message. What they refuse, so that there is no turn, is an ordinary result."""
        tool = next((each for each in self._server.tools if each.name == call.name and each.follows and not each.hints.read_only), None)
        if tool is None:
            return None
        posted = await errors.shown(self._server.run_tool(ctx, tool, call.arguments or {}))
        if isinstance(posted, CallToolResult):
            return posted
        try:
            return await self.get(ctx, posted["turn_id"])
        except OnethreadError:
            pass
        except Exception as error:  # noqa: BLE001  # who is told of an error sends the message again, and this one is stored
            errors.logged(error, ctx.method)
        return of_reply(tool, posted)

    async def get(self, ctx: ServerRequestContext[Any, Any], job_id: str) -> Job:
        services, principal = await self._server.services(), await self._server.caller(ctx)
        async with services.storage.read() as uow:
            turn = await turns.get(uow, principal, _turn_id(job_id))
            reply = await reply_of(uow, turn)
            written = await uow.messages.get(turn.reply_id)
        if turn.status in (TurnStatus.QUEUED, TurnStatus.RUNNING):
            services.worker_needed()
        return _job(turn, reply, written, self._ask(ctx, reply))

    async def follow(self, ctx: ServerRequestContext[Any, Any], job_id: str) -> AsyncGenerator[Job, None]:
        services, told = await self._server.services(), None
        with services.live.subscribe(await self._conversation_id(ctx, job_id)) as events:
            while True:
                job = await self.get(ctx, job_id)
                if job != told:
                    yield job
                if job.status.finished:
                    return
                told = job
                while isinstance(await events.get(), TextDelta):
                    pass  # the database has the text a second later, and a client that wants to see it grow has other means
                events.waiting()

    async def answer(self, ctx: ServerRequestContext[Any, Any], job_id: str, responses: Mapping[str, Any]) -> None:
        """The first decision counts; to come too late with another is no error."""
        services, principal = await self._server.services(), await self._server.caller(ctx)
        async with services.storage.read() as uow:
            reply = await reply_of(uow, await turns.get(uow, principal, _turn_id(job_id)))
        ask = self._ask(ctx, reply)
        response = _response(responses.get(ask.key)) if ask else None
        if ask is None or response is None:
            return
        try:
            await asking.settle(services, principal, ask, response)
        except Conflict:
            async with services.storage.read() as uow:
                if await asking.is_open(uow, ask):
                    raise

    async def cancel(self, ctx: ServerRequestContext[Any, Any], job_id: str) -> None:
        services, principal = await self._server.services(), await self._server.caller(ctx)
        require(principal, chat.cancel_turn.scope)
        if chat.cancel_turn.name not in self._server.offered(ctx):
            raise InvalidInput(f"{chat.cancel_turn.name} is not offered here, so nothing is cancelled.")
        async with services.storage.write() as uow:
            await turns.cancel(uow, principal, _turn_id(job_id))

    async def _conversation_id(self, ctx: ServerRequestContext[Any, Any], job_id: str) -> UUID:
        services, principal = await self._server.services(), await self._server.caller(ctx)
        async with services.storage.read() as uow:
            return (await turns.get(uow, principal, _turn_id(job_id))).conversation_id

    def _ask(self, ctx: ServerRequestContext[Any, Any], reply: Reply) -> Ask | None:
        """What the person at this client can be asked, so that the turn goes on."""
        ask = asking.of_reply(reply.json()) if reply.approvals and asking.can_ask(ctx) else None
        return ask if ask and ask.tool in self._server.offered(ctx) else None


def _turn_id(job_id: str) -> UUID:
    try:
        return UUID(job_id)
    except ValueError:
        raise NotFound(f"There is no turn {job_id}.") from None


def _job(turn: Turn, reply: Reply, written: Message | None, ask: Ask | None) -> Job:
    status = _status(turn.status, ask)
    times = (turn.created_at, turn.started_at, turn.finished_at, written and written.updated_at)
    return Job(
        id=str(turn.id),
        status=status,
        message=_told(reply),
        created_at=turn.created_at,
        updated_at=max(at for at in times if at),
        poll_seconds=_POLL_SECONDS.get(turn.status, _ENDED_SECONDS),
        requests={ask.key: ask.request} if ask else {},
        result=_result(reply) if status is JobStatus.COMPLETED else None,
    )


def _status(turn: TurnStatus, ask: Ask | None) -> JobStatus:
    """Where its person cannot be asked, a client gets what it would get without this extension: what is waited for, and who decides how."""
    match turn:
        case TurnStatus.QUEUED | TurnStatus.RUNNING:
            return JobStatus.WORKING
        case TurnStatus.WAITING if ask:
            return JobStatus.INPUT_REQUIRED
        case TurnStatus.CANCELLED:
            return JobStatus.CANCELLED
    return JobStatus.COMPLETED


def _result(reply: Reply) -> CallToolResult:
    return of_reply(chat.send_message, reply.json())


def _told(reply: Reply) -> str:
    """What is done just now, and the end of what was written so far."""
    if reply.state in ("completed", "failed"):
        return ""
    written = " ".join((reply.text or "")[-_TAIL:].split())
    return " · ".join(each for each in (_phase(reply), written) if each)


def _phase(reply: Reply) -> str:
    match reply.state:
        case "queued" if reply.position:
            return f"Queued, {reply.position} before it"
        case "queued":
            return "Waiting for a worker" if reply.no_worker else "Queued"
        case "cancelled":
            return "Stopped"
    return reply.phase or ""


def _response(given: Any) -> ElicitResult | None:
    try:
        return ElicitResult.model_validate(given)
    except ValidationError:
        return None
