"""Questions to the person at the client (elicitation): may the agent run this, which of these, delete that for good?

Until 2025-11-25 the server asks within the call and waits. From 2026-07-28 on the call ends with the question, and the client calls again
with the answer; what it is about travels along as `requestState`, which the SDK seals.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import Context
from mcp.shared.exceptions import MCPError
from mcp.types import ElicitRequest, ElicitRequestFormParams, ElicitResult, InputRequiredResult
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import TypeAdapter, ValidationError

from core import approvals, messages, turns
from core.access import Principal
from core.errors import InvalidInput, StorageUnavailable
from core.models import JSON, ApprovalStatus, Decision, Role
from core.ports import UnitOfWork
from core.text import clip
from core.tools.chat import reply_of
from mcp_server.services import SOURCE, Services
from mcp_server.waiting import first

_ANSWER = "answer"
_MAX_TEXT = 1_000
_UNANSWERED = ElicitResult(action="cancel")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One question."""

    kind: Literal["approval", "question", "deletion", "decision"]
    about: str
    """The id of the approval, or of the reply that ended with the question; the ref of the task."""
    turn_id: str = ""
    """Of the reply that asks; likewise its conversation. Empty for what an assistant wants to do and a person is to confirm."""
    conversation_id: str = ""
    text: str
    options: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Never used for another question."""
        return f"{self.kind}:{self.about}"

    @property
    def request(self) -> ElicitRequest:
        return ElicitRequest(params=ElicitRequestFormParams(message=self.text, requested_schema=self._schema))

    @property
    def tool(self) -> str:
        """The tool that does the same as the answer: to whom it is not offered is not asked either."""
        return {"approval": "decide", "question": "send_message", "deletion": "delete_task", "decision": "decide"}[self.kind]

    @property
    def undone(self) -> str:
        """What is so where the person did not confirm it."""
        return "The approval is still open" if self.kind == "decision" else f"{self.about} was not deleted"

    def chosen(self, answer: ElicitResult) -> str | None:
        """The answer to a question; None where there is none that fits."""
        given = (answer.content or {}).get(_ANSWER)
        if answer.action != "accept" or not isinstance(given, str) or not given.strip():
            return None
        return given if given in self.options or not self.options else None

    @property
    def _schema(self) -> JSON:
        """To accept is to agree; only a question has something to fill in."""
        if self.kind != "question":
            return {"type": "object", "properties": {}}
        limits: JSON = {"enum": list(self.options)} if self.options else {"minLength": 1, "maxLength": 10_000}
        return {"type": "object", "properties": {_ANSWER: {"type": "string", "title": "Answer", **limits}}, "required": [_ANSWER]}


_STATE: TypeAdapter[Ask] = TypeAdapter(Ask)


def of_reply(reply: JSON) -> Ask | None:
    """What a reply asks its reader."""
    where = {"turn_id": reply["turn_id"], "conversation_id": reply["conversation_id"]}
    if waiting := reply.get("approvals"):
        return Ask(kind="approval", about=waiting[0]["approval_id"], text=_of_approval(waiting[0]), **where)
    if question := reply.get("question"):
        options = tuple(dict.fromkeys(option for option in question["options"] if option.strip()))
        return Ask(kind="question", about=reply["message_id"], text=clip(question["text"], _MAX_TEXT), options=options, **where)
    return None


def of_deletion(ref: str, title: str) -> Ask:
    return Ask(kind="deletion", about=ref, text=f"Delete {ref} “{title}” and its whole conversation for good?")


async def of_decision(uow: UnitOfWork, principal: Principal, approval_id: UUID) -> Ask | None:
    """None where nothing waits for it any more, or never did. Raises NotFound for what this person may not see."""
    approval = await uow.approvals.get(approval_id)
    if approval is None:
        return None
    reply = (await reply_of(uow, await turns.get(uow, principal, approval.turn_id))).json()
    for waiting in reply.get("approvals", ()):
        if waiting["approval_id"] == str(approval_id):
            return Ask(kind="decision", about=str(approval_id), text=_of_approval(waiting))
    return None


def _of_approval(waiting: JSON) -> str:
    arguments = clip(json.dumps(waiting["arguments"], ensure_ascii=False), _MAX_TEXT)
    return f"Onethread's agent wants to run {waiting['tool']} with {arguments}. Allow it?"


async def is_open(uow: UnitOfWork, ask: Ask) -> bool:
    """Whether nobody has answered it yet."""
    match ask.kind:
        case "approval":
            approval = await uow.approvals.get(UUID(ask.about))
            return approval is not None and approval.status is ApprovalStatus.OPEN
        case "question":
            last = await uow.turns.last(UUID(ask.conversation_id))
            return last is not None and last.id == UUID(ask.turn_id)
    return True


async def settle(services: Services, principal: Principal, ask: Ask, answer: ElicitResult) -> str | None:
    """Does in the person's name what they answered to a reply. Gives the turn that goes on then; None where nothing was decided.

    Raises what `approvals.decide` and `messages.answer` raise: Conflict where somebody else was faster, for example.
    """
    match ask.kind, answer.action:
        case "approval", "accept" | "decline":
            decision = Decision.APPROVE if answer.action == "accept" else Decision.DENY
            async with services.storage.write() as uow:
                await approvals.decide(uow, principal, UUID(ask.about), decision)
            turn_id = ask.turn_id
        case "question", "accept" if option := ask.chosen(answer):
            async with services.storage.write() as uow:
                posted = await messages.answer(uow, principal, UUID(ask.about), option, rules=services.posting, source=SOURCE)
            turn_id = str(posted.turn_id)
        case _:
            return None
    services.worker_needed()
    return turn_id


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstAnswer:
    """What a question was answered with: the first message after it, on whatever surface it was written."""

    text: str
    author_id: UUID | None
    author: str
    turn_id: str | None
    """Of the reply to it."""


async def first_answer(services: Services, principal: Principal, ask: Ask) -> FirstAnswer | None:
    """Of a question. Raises NotFound where the question is not there any more."""
    async with services.storage.read() as uow:
        question = await messages.get(uow, principal, UUID(ask.about))
        later = await uow.messages.since(question.conversation_id, question.seq + 1)
        found = next((each for each in later if each.role is Role.USER), None)
        if found is None:
            return None
        names = await uow.users.names([found.author_id] if found.author_id else [])
    turn_id = str(found.turn_id) if found.turn_id else None
    author = next(iter(names.values()), "Somebody")
    return FirstAnswer(text=found.content, author_id=found.author_id, author=author, turn_id=turn_id)


def can_ask(ctx: ServerRequestContext[Any, Any]) -> bool:
    """Whether the client says that it puts questions to its user, and a question can reach it."""
    capabilities = ctx.session.client_capabilities
    elicitation = capabilities.elicitation if capabilities else None
    by_form = elicitation is not None and (elicitation.form is not None or elicitation.url is None)
    return by_form and (_is_modern(ctx) or ctx.session.can_send_request)


class Person:
    """Whoever sits at the client, as one call may ask them."""

    def __init__(self, context: Context[Any, Any], services: Services, tell: Callable[[str], Awaitable[None]], *, until: float) -> None:
        """`until` is how long the call may wait for an answer, by the loop's clock."""
        self._context = context
        self._services = services
        self._tell = tell
        self._until = until

    @property
    def can_be_asked(self) -> bool:
        return can_ask(self._context.request_context)

    @property
    def answered(self) -> tuple[Ask, ElicitResult] | None:
        """What they were asked when this call was made before, and their answer. Raises InvalidInput for what another version asked."""
        if self._context.request_state is None:
            return None
        try:
            ask = _STATE.validate_json(self._context.request_state)
        except ValidationError:
            raise InvalidInput("This question was asked by another version of Onethread. Call the tool again.") from None
        answer = (self._context.input_responses or {}).get(ask.key)
        return ask, answer if isinstance(answer, ElicitResult) else _UNANSWERED

    async def ask(self, ask: Ask) -> ElicitResult | InputRequiredResult:
        """Their answer, or what the call must end with so that it comes. Who does not answer in time has cancelled."""
        if _is_modern(self._context.request_context):
            state = _STATE.dump_json(ask).decode()
            return InputRequiredResult(input_requests={ask.key: ask.request}, request_state=state)
        answers, seconds = [_UNANSWERED], self._until - asyncio.get_running_loop().time()
        if seconds > 0:
            waits = self._services.stopping.wait(), self._answered_elsewhere(ask), self._keep_telling()
            await first(self._elicit(ask, answers), *waits, seconds=seconds)
        return answers[-1]

    async def _elicit(self, ask: Ask, answers: list[ElicitResult]) -> None:
        params, ctx = ask.request.params, self._context.request_context
        assert isinstance(params, ElicitRequestFormParams)
        with suppress(MCPError, ValidationError):  # it says that it can be asked, and cannot
            answers.append(await ctx.session.elicit_form(params.message, params.requested_schema, ctx.request_id))

    async def _answered_elsewhere(self, ask: Ask) -> None:
        if not ask.conversation_id:
            await asyncio.Event().wait()
        with self._services.live.subscribe(UUID(ask.conversation_id)) as events:
            while await self._seems_open(ask):
                await events.get()

    async def _seems_open(self, ask: Ask) -> bool:
        try:
            async with self._services.storage.read() as uow:
                return await is_open(uow, ask)
        except StorageUnavailable:
            return True

    async def _keep_telling(self) -> None:
        """So that nobody takes the call for dead."""
        while True:
            await self._tell("Waiting for your answer")
            await asyncio.sleep(self._services.rules.quiet_seconds)


def _is_modern(ctx: ServerRequestContext[Any, Any]) -> bool:
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS
