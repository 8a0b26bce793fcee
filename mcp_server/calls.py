"""One tool call, from its arguments to its result: it may follow a reply, and ask the person at the client."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mcp.server.mcpserver import Context
from mcp.types import CallToolResult, ElicitResult, InputRequiredResult

from core import tasks
from core.access import Principal
from core.errors import OnethreadError, StorageUnavailable
from core.models import JSON
from core.tools.chat import Decide, Following
from core.tools.registry import Tool
from core.tools.tasks import GetTask
from mcp_server import asking, following, results
from mcp_server.asking import Ask, FirstAnswer, Person
from mcp_server.services import Services

_MAX_QUOTE = 100
"""Bytes; the cap of a result leaves room for so much."""


class Declined(OnethreadError):
    """The person at the client did not agree, so nothing was changed."""

    code = "DECLINED"


class Call:
    def __init__(
        self,
        services: Services,
        principal: Principal,
        context: Context[Any, Any],
        tool: Tool,
        arguments: Mapping[str, Any],
        *,
        began: float,
        run: Callable[[], Awaitable[JSON]],
        offered: Callable[[], frozenset[str]],
    ) -> None:
        """`began` is when it was made, by the loop's clock. `run` is the tool's one transaction. `offered` tells the names of the tools
        that the caller may use."""
        self._services = services
        self._principal = principal
        self._context = context
        self._tool = tool
        self._arguments = arguments
        self._run = run
        self._offered = offered
        self._told = 0
        self._until = began + services.rules.max_wait_seconds
        self._person = Person(context, services, self._tell, until=self._until)
        self._may_ask = self._person.can_be_asked
        self._after = 0
        """Where the text of the reply begins that the result shall have."""
        self._answer = ""
        """A sentence on what was answered to the reply before."""
        self._trouble = ""
        """Why the person's answer did not count."""
        self._is_settled = False
        """Somebody else answered, so that what the reply says of how to go on is no more true."""

    async def result(self) -> CallToolResult | InputRequiredResult:
        """Raises OnethreadError."""
        if self._tool.follows:
            return await self._replied()
        if unconfirmed := await self._confirmed():
            return unconfirmed
        return results.result(self._tool, await self._run())

    # --- what a person confirms ---

    async def _confirmed(self) -> InputRequiredResult | None:
        """None where it may be done; what the call ends with where the client must ask first. Raises Declined."""
        answered = self._person.answered
        ask = answered[0] if answered else await self._to_confirm()
        if ask is None:
            return None
        answer = answered[1] if answered else await self._person.ask(ask)
        if isinstance(answer, InputRequiredResult):
            return answer
        if answer.action != "accept":
            how = "declined" if answer.action == "decline" else "did not confirm it"
            raise Declined(f"{ask.undone}: the person at this client {how}. Do not try again unless they ask for it.")
        return None

    async def _to_confirm(self) -> Ask | None:
        """What the person is asked before it is done; None where nobody is."""
        if not self._may_ask:
            return None
        match self._tool.parse(self._arguments):
            case GetTask(ref=ref) if self._tool.needs_approval:
                async with self._services.storage.read() as uow:
                    task = await tasks.get(uow, self._principal, ref)
                return asking.of_deletion(task.ref, task.title)
            case Decide(approval_id=approval_id, decision="approve"):
                async with self._services.storage.read() as uow:
                    return await asking.of_decision(uow, self._principal, approval_id)
        return None

    # --- replies ---

    async def _replied(self) -> CallToolResult | InputRequiredResult:
        asked = self._tool.parse(self._arguments)
        assert isinstance(asked, Following)
        self._after = asked.offset
        left = float(asked.wait_s)
        answered, clock = self._person.answered, asyncio.get_running_loop().time
        reply = await (self._gone_on(*answered) if answered else self._run())
        while True:
            began = clock()
            seconds = min(left, self._until - began)
            reply = await following.follow(self._services, self._principal, reply, after=self._after, wait_seconds=seconds, tell=self._tell)
            left -= clock() - began
            ask = await self._question(reply)
            if ask is None:
                return self._shown(reply)
            answer = await self._person.ask(ask)
            if isinstance(answer, InputRequiredResult):
                return answer
            reply = await self._gone_on(ask, answer)

    async def _question(self, reply: JSON) -> Ask | None:
        """What the person should be asked now."""
        ask = asking.of_reply(reply) if self._may_ask else None
        if ask is None or ask.tool not in self._offered():
            return None
        try:
            async with self._services.storage.read() as uow:
                return ask if await asking.is_open(uow, ask) else None
        except StorageUnavailable:
            return None

    async def _gone_on(self, ask: Ask, answer: ElicitResult) -> JSON:
        """The reply after the person answered: to follow, or to leave with what it asks."""
        try:
            turn_id = await asking.settle(self._services, self._principal, ask, answer)
        except OnethreadError as error:
            turn_id, self._trouble = None, str(error)
        if ask.kind == "question" and (first := await asking.first_answer(self._services, self._principal, ask)):
            turn_id = self._learnt(ask, first)
        if turn_id is None:
            self._may_ask = False
        return await following.read(self._services, self._principal, turn_id or ask.turn_id, after=self._after)

    def _learnt(self, ask: Ask, first: FirstAnswer) -> str | None:
        """The turn that goes on: of this person's answer, whether it was given just now or before. Not of anybody else's."""
        if first.author_id != self._principal.user_id:
            self._trouble, self._is_settled = f"{first.author} answered this question already.", True
            return None
        self._trouble, self._after = "", 0
        self._answer = _told(ask.text, first.text)
        return first.turn_id

    def _shown(self, reply: JSON) -> CallToolResult:
        goes_on = "" if self._is_settled else reply.get("next", "")
        said = " ".join(each for each in (self._answer, self._trouble, goes_on) if each)
        shown = {**reply, "next": said} if said else reply
        return results.of_reply(self._tool, shown, untrusted=("next",) if self._answer else ())

    async def _tell(self, line: str) -> None:
        self._told += 1
        await self._context.report_progress(self._told, message=line)


def _told(question: str, answer: str) -> str:
    """Which question and answer led to a reply, where they are short."""
    if max(len(question.encode()), len(answer.encode())) > _MAX_QUOTE:
        return "The person answered a question of the agent; list_messages shows both."
    return f"The question “{question}” was answered with “{answer}”."
