"""A turn's reply, awaited by a call: what happens meanwhile is told, and the reply is given as far as it came."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from uuid import UUID

from core import turns
from core.access import Principal
from core.errors import StorageUnavailable
from core.follow import Follower
from core.frames import Frame
from core.models import JSON, AgentStatus, TurnStatus
from core.text import clip, utf16_cut
from core.tools.chat import reply_of
from core.wording import WAITS_FOR_WORKER
from mcp_server.services import Services
from mcp_server.waiting import first

Tell = Callable[[str], Awaitable[None]]
_LINE = 200
"""Characters of what is told; clients show no more."""
_PHASE = 80


def is_unfinished(reply: JSON) -> bool:
    """Whether somebody works on it, or is to."""
    return reply["state"] in (TurnStatus.QUEUED, TurnStatus.RUNNING)


async def follow(services: Services, principal: Principal, reply: JSON, *, after: int, wait_seconds: float, tell: Tell) -> JSON:
    """The reply when its turn has ended or waits for a person, when the time is over, or when this process is about to end.

    Whoever stops waiting for it stops nothing else. Raises NotFound where the conversation is deleted meanwhile.
    """
    if not is_unfinished(reply) or wait_seconds <= 0:
        return reply
    turn = _FollowedTurn(services, principal, reply)
    try:
        await first(turn.watch(), turn.keep_telling(tell), turn.keep_a_worker(), services.stopping.wait(), seconds=wait_seconds)
        return await read(services, principal, reply["turn_id"], after=after, newer=turn.text)
    except StorageUnavailable:
        return reply  # it was stored, and names the call with which to ask again


async def read(services: Services, principal: Principal, turn_id: str, *, after: int = 0, newer: str | None = None) -> JSON:
    """The reply of a turn as it is now. `newer` is its text as far as it was seen, which the database may not have yet."""
    async with services.storage.read() as uow:
        turn = await turns.get(uow, principal, UUID(turn_id))
        return (await reply_of(uow, turn, after=after, text=None if turn.status.finished else newer)).json()


class _FollowedTurn:
    """What is known of a turn while it is followed."""

    def __init__(self, services: Services, principal: Principal, reply: JSON) -> None:
        self._services = services
        self._principal = principal
        self._turn_id: str = reply["turn_id"]
        self._reply_id: str = reply["message_id"]
        self._conversation_id = UUID(reply["conversation_id"])
        self._status = TurnStatus(reply["state"])
        self._position = 0
        self._no_worker = False
        self._agent = ""
        """What the agent does in this conversation."""
        self._why_queued = ""
        self.text: str | None = None
        self._news = asyncio.Event()

    async def watch(self) -> None:
        """Until the turn has ended or waits for a person, or its conversation is deleted."""
        services = self._services
        follower = Follower(services.storage, services.live, self._principal, self._conversation_id)
        async with aclosing(follower.frames()) as found:
            async for frame in found:
                self._learn(frame)
                self._news.set()
                if self._status.finished or self._status is TurnStatus.WAITING:
                    return

    async def keep_telling(self, tell: Tell) -> None:
        """A new phase at once, more text after a moment, and the same again after a while, so that nobody takes the call for dead."""
        await self._news.wait()
        while True:
            phase, text = self._phase, self.text
            await tell(_line(phase, text or ""))
            await self._something_to_tell(phase, text)

    async def keep_a_worker(self) -> None:
        """Asks for one again and again: the one that works on this turn may be killed."""
        while True:
            await asyncio.sleep(self._services.rules.worker_seconds)
            self._services.worker_needed()

    async def _something_to_tell(self, phase: str, text: str | None) -> None:
        clock, rules = asyncio.get_running_loop().time, self._services.rules
        told_at = clock()
        while self._phase == phase:
            until = told_at + (rules.quiet_seconds if self.text == text else rules.told_seconds)
            if clock() >= until:
                return
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._news.wait()

    # --- what the frames tell ---

    def _learn(self, frame: Frame) -> None:
        payload = frame.payload
        match frame.event:
            case "snapshot":
                self._learn_all(payload)
            case "agent_status":
                self._learn_agent(payload["status"], payload["message"])
            case "turn_changed" if payload["turn_id"] == self._turn_id:
                self._learn_turn(payload)
            case "message_changed" if payload["id"] == self._reply_id:
                self.text = payload["content"]
            case "llm_delta" if payload["message_id"] == self._reply_id:
                self.text = utf16_cut(self.text or "", payload["offset"]) + payload["delta"]

    def _learn_all(self, state: JSON) -> None:
        self._learn_agent(state["conversation"]["agent_status"], state["conversation"]["agent_status_message"])
        self._status = TurnStatus.SUCCEEDED  # what it ended with is read later
        for turn in state["turns"]:
            if turn["turn_id"] == self._turn_id:
                self._learn_turn(turn)
        for message in state["messages"]:
            if message["id"] == self._reply_id:
                self.text = message["content"]

    def _learn_agent(self, status: str, message: str) -> None:
        self._agent = message or AgentStatus(status).style.label
        self._why_queued = message if status in (AgentStatus.IDLE, AgentStatus.THINKING) else ""

    def _learn_turn(self, turn: JSON) -> None:
        self._status, self._position, self._no_worker = TurnStatus(turn["status"]), turn["position"], "no_worker" in turn

    @property
    def _phase(self) -> str:
        if self._status is not TurnStatus.QUEUED:
            return clip(self._agent, _PHASE)
        if self._position:
            return f"Queued, {self._position} before it"
        return clip(self._why_queued, _PHASE) or (WAITS_FOR_WORKER if self._no_worker else "Queued")


def _line(phase: str, text: str) -> str:
    """The phase and the end of the text, on one line."""
    if not text:
        return phase
    room = _LINE - len(phase) - 3
    tail = " ".join(text[-4 * _LINE :].split())
    return f"{phase} · {tail if len(tail) <= room else '…' + tail[1 - room :]}"
