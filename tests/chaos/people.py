"""The people's side: they write, wait, stop and retry, and follow along, from a process that runs no worker."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from core import conversations, messages, turns
from core.access import Principal
from core.events import Lagged, TurnChanged
from core.follow import Follower
from core.frames import Frame
from core.models import Message, TurnStatus
from core.text import utf16_cut, utf16_len
from onethread.bootstrap import App, running
from onethread.settings import Settings
from tests.chaos.talker import Talker

MODELS = ("openai/chaos-a", "openai/chaos-b", "openai/chaos-c", "openai/chaos-d")
"""Several, so that a 429 pauses only some of the conversations."""


@asynccontextmanager
async def office(data_dir: Path) -> AsyncIterator["Office"]:
    """The application without a worker."""
    settings = Settings(data_dir=data_dir, model=MODELS[0], messages_per_minute=1_000_000)
    async with running(settings) as app:
        one = Office(app, await app.principal())
        watching = asyncio.create_task(one.watch(), name="watch")
        await one.watches.wait()
        try:
            yield one
        finally:
            watching.cancel()
            await asyncio.wait({watching})


class Office:
    def __init__(self, app: App, principal: Principal) -> None:
        self.app = app
        self.principal = principal
        self.watches = asyncio.Event()
        self.statuses: dict[UUID, TurnStatus] = {}
        self.figures: Counter[str] = Counter()
        self._changed = asyncio.Condition()

    async def conversation(self, number: int = 0) -> UUID:
        async with self.app.storage.write() as uow:
            created = await conversations.create(uow, self.principal, model=MODELS[number % len(MODELS)])
        return created.id

    async def post(self, conversation_id: UUID, content: str) -> UUID:
        """The turn that will answer it."""
        async with self.app.storage.write() as uow:
            posted = await messages.post(uow, self.principal, conversation_id, content, rules=self.app.rules, source="chaos")
        assert posted.turn_id
        return posted.turn_id

    async def cancel(self, turn_id: UUID) -> TurnStatus:
        async with self.app.storage.write() as uow:
            return (await turns.cancel(uow, self.principal, turn_id)).status

    async def retry(self, turn_id: UUID) -> UUID:
        """The turn that answers now: the same one in place, or a new one."""
        self.statuses.pop(turn_id, None)
        async with self.app.storage.write() as uow:
            posted = await messages.retry(uow, self.principal, turn_id, rules=self.app.rules, source="chaos")
        assert posted.turn_id
        return posted.turn_id

    async def ended(self, turn_id: UUID, seconds: float = 120) -> TurnStatus:
        """How the turn ended, told by live events alone."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: turn_id in self.statuses)
        return self.statuses[turn_id]

    async def answered(self, turn_id: UUID) -> None:
        """As a person would: whatever ended otherwise is asked again."""
        while (status := await self.ended(turn_id)) is not TurnStatus.SUCCEEDED:
            self.figures[f"retried after {status}"] += 1
            turn_id = await self.retry(turn_id)

    async def messages(self, conversation_id: UUID) -> list[Message]:
        async with self.app.storage.read() as uow:
            return await uow.messages.since(conversation_id, 1)

    async def watch(self) -> None:
        with self.app.live.subscribe(size=100_000) as subscription:
            self.watches.set()
            while True:
                match await subscription.get():
                    case TurnChanged(turn_id=turn_id, status=status) if status.finished:
                        async with self._changed:
                            self.statuses[turn_id] = status
                            self._changed.notify_all()
                    case Lagged():
                        raise AssertionError("the feed of changes has a gap")


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """One conversation: what is written in it, a few messages at a time, and how often a person stops an answer."""

    conversation_id: UUID
    keys: Sequence[str]
    cancelling: float
    seed: int

    async def hold(self, office: Office, talker: Talker) -> None:
        dice = random.Random(self.seed)
        waiting = list(self.keys)
        while waiting:
            burst = [waiting.pop(0) for _ in range(min(len(waiting), dice.choice((1, 1, 2, 3))))]
            asked = []
            for key in burst:
                asked.append(await office.post(self.conversation_id, f"{key} please"))
                await asyncio.sleep(dice.uniform(0, 0.3))
            if dice.random() < self.cancelling and burst[-1] not in talker.doomed:
                await asyncio.sleep(dice.uniform(0.2, 3.0))
                await office.cancel(asked[-1])
            for key, turn_id in zip(burst, asked, strict=True):
                if key in talker.doomed:
                    assert await office.ended(turn_id) is not TurnStatus.SUCCEEDED
                    talker.doomed.discard(key)
                await office.answered(turn_id)


@dataclass(slots=True)
class Mirror:
    """What a surface shows that only listens: kept up by frames, never by looking."""

    shown: dict[str, dict[str, Any]] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    deltas: int = 0

    async def follow(self, office: Office, conversation_id: UUID) -> None:
        follower = Follower(office.app.storage, office.app.live, office.principal, conversation_id, messages=10_000)
        async with aclosing(follower.frames()) as frames:
            async for frame in frames:
                self._take(frame)

    def differences(self, stored: Sequence[Message]) -> list[str]:
        """How this differs from what is stored."""
        mine = [(each["seq"], each["content"], each["status"]) for each in sorted(self.shown.values(), key=lambda each: int(each["seq"]))]
        theirs = [(each.seq, each.content, each.status.value) for each in stored]
        return (
            self.complaints
            + [f"shown {one}, stored {other}" for one, other in zip(mine, theirs, strict=False) if one != other]
            + ([] if len(mine) == len(theirs) else [f"shown {len(mine)} messages, stored {len(theirs)}"])
        )

    def _take(self, frame: Frame) -> None:
        payload = frame.payload
        match frame.event:
            case "snapshot":
                self.shown = {message["id"]: message for message in payload["messages"]}
                self.written = {message["id"]: message["content"] for message in payload["messages"]}
            case "new_message" | "message_changed":
                if frame.event == "new_message" and payload["id"] in self.shown:
                    self.complaints.append(f"message {payload['seq']} came twice")
                self.shown[payload["id"]] = payload
            case "llm_delta":
                self._write(payload)
            case "llm_complete":
                self._complete(payload)

    def _write(self, payload: dict[str, Any]) -> None:
        self.deltas += 1
        before = self.written.get(payload["message_id"], "")
        if payload["offset"] > utf16_len(before):
            self.complaints.append(f"a gap of {payload['offset'] - utf16_len(before)} before {payload['delta'][:40]!r}")
        self.written[payload["message_id"]] = utf16_cut(before, payload["offset"]) + payload["delta"]

    def _complete(self, payload: dict[str, Any]) -> None:
        text = self.written.get(payload["message_id"], "")
        if not payload["content"].startswith(text):
            self.complaints.append(f"{text[-120:]!r} was streamed, but {payload['content'][-120:]!r} stored, {payload['status']}")
        self.shown[payload["message_id"]] |= {"content": payload["content"], "status": payload["status"]}
        self.written[payload["message_id"]] = payload["content"]
