"""The people's side: they write, wait, stop and retry, and follow along, from a process that runs no worker."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from core import approvals, conversations, messages, turns
from core.access import Principal
from core.errors import Conflict, StorageUnavailable
from core.events import Lagged, TurnChanged
from core.follow import Follower
from core.frames import Frame
from core.ids import new_id
from core.models import Decision, InboxKey, Message, Posted, Role, TurnStatus
from core.patience import Begin, Work
from core.ports import UnitOfWork
from core.text import utf16_cut, utf16_len
from onethread.bootstrap import App, running
from onethread.settings import Settings
from tests.chaos.talker import Talker, is_question, needs_approval, options

PATIENCE_SECONDS = 240.0
_T = TypeVar("_T")
MODELS = ("openai/chaos-a", "openai/chaos-b", "openai/chaos-c", "openai/chaos-d")
"""Several, so that a 429 pauses only some of the conversations."""


@asynccontextmanager
async def office(data_dir: Path, database_url: str = "") -> AsyncIterator["Office"]:
    """The application without a worker."""
    settings = Settings(data_dir=data_dir, database_url=database_url, model=MODELS[0], messages_per_minute=1_000_000)
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
        """How turns ended."""
        self.decisions: dict[str, Decision] = {}
        """What was decided, for each key that asked for it."""
        self.chosen: list[str] = []
        """The keys of the answers to questions."""
        self.figures: Counter[str] = Counter()
        self.complaints: list[str] = []
        """Turns that began before the one before them in their conversation had ended."""
        self._asked: defaultdict[UUID, list[UUID]] = defaultdict(list)
        """The turns of each conversation in the order in which they were queued."""
        self._over: set[UUID] = set()
        """Those that ended, or that a person stopped."""
        self._parked: set[UUID] = set()
        self._tokens: dict[UUID, int] = {}
        """Under which lease turns ended that were retried since: what tells of that one comes late."""
        self._changed = asyncio.Condition()

    async def conversation(self, number: int = 0) -> UUID:
        create = partial(conversations.create, principal=self.principal, model=MODELS[number % len(MODELS)])
        return (await self._write(create)).id

    async def post(self, conversation_id: UUID, content: str) -> UUID:
        """The turn that will answer it."""
        key = InboxKey(source="chaos", scope="people", event_id=str(new_id()))

        async def post(uow: UnitOfWork) -> Posted:
            return await messages.post(uow, self.principal, conversation_id, content, rules=self.app.rules, source="chaos", key=key)

        return self._follow(await self._write(post))

    async def cancel(self, turn_id: UUID) -> TurnStatus:
        self._over.add(turn_id)
        return (await self._write(lambda uow: turns.cancel(uow, self.principal, turn_id))).status

    async def retry(self, turn_id: UUID) -> UUID:
        """The turn that answers now: the same one in place, or a new one."""

        async def retry(uow: UnitOfWork) -> Posted:
            if tried and (again := await _retried(uow, turn_id)):
                return again
            tried.append(turn_id)
            return await messages.retry(uow, self.principal, turn_id, rules=self.app.rules, source="chaos")

        tried: list[UUID] = []
        self.statuses.pop(turn_id, None)
        return self._follow(await self._write(retry))

    async def decide(self, turn_id: UUID, decision: Decision) -> None:
        """As soon as the turn asks."""
        async with asyncio.timeout(PATIENCE_SECONDS), self._changed:
            await self._changed.wait_for(lambda: turn_id in self._parked)
        approval = await self._read(lambda uow: uow.approvals.open_of_turn(turn_id))
        assert approval
        with suppress(Conflict):  # it was stored, although nobody confirmed it
            await self._write(lambda uow: approvals.decide(uow, self.principal, approval.id, decision))

    async def choose(self, turn_id: UUID, option: str) -> UUID:
        """Answers the question that the turn ended with; the turn that goes on from there."""
        asked = await self._read(lambda uow: uow.turns.get(turn_id))
        assert asked

        async def choose(uow: UnitOfWork) -> Posted:
            return await messages.answer(uow, self.principal, asked.reply_id, option, rules=self.app.rules, source="chaos")

        try:
            return self._follow(await self._write(choose))
        except Conflict:  # it was stored, although nobody confirmed it
            answer, _ = await self._read(lambda uow: uow.messages.since(asked.conversation_id, asked.seq + 2))
            return self._follow(_posted(answer))

    async def ended(self, turn_id: UUID, seconds: float = PATIENCE_SECONDS) -> TurnStatus:
        """How the turn ended, told by live events alone."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: turn_id in self.statuses)
        return self.statuses[turn_id]

    async def answered(self, turn_id: UUID) -> None:
        """As a person would: whatever ended otherwise is asked again."""
        while (status := await self.ended(turn_id)) is not TurnStatus.SUCCEEDED:
            turn = await self._read(lambda uow, turn_id=turn_id: uow.turns.get(turn_id))  # type: ignore[misc]
            self.figures[f"retried after {status} {turn.error_code if turn and turn.error_code else ''}".rstrip()] += 1
            turn_id = await self.retry(turn_id)
        self.figures["answered"] += 1

    async def messages(self, conversation_id: UUID) -> list[Message]:
        return await self._read(lambda uow: uow.messages.since(conversation_id, 1))

    async def watch(self) -> None:
        with self.app.live.subscribe(size=100_000) as subscription:
            self.watches.set()
            while True:
                match await subscription.get():
                    case TurnChanged(turn_id=turn_id, status=status, lease_token=token) as changed:
                        if status is TurnStatus.RUNNING:
                            self._check_turn(changed.conversation_id, turn_id)
                        await self._hear(turn_id, status, token)
                    case Lagged():
                        self.figures["gaps in the feed"] += 1
                        for turn in await self._read(lambda uow: uow.turns.of_ids(self._unfinished())):
                            await self._hear(turn.id, turn.status, turn.lease_token)

    async def _hear(self, turn_id: UUID, status: TurnStatus, token: int) -> None:
        async with self._changed:
            if status.finished:
                self._over.add(turn_id)
            if status.finished and token > self._tokens.get(turn_id, -1):
                self.statuses[turn_id] = status
                self._tokens[turn_id] = token
            if status is TurnStatus.WAITING:
                self._parked.add(turn_id)
            self._changed.notify_all()

    def _check_turn(self, conversation_id: UUID, turn_id: UUID) -> None:
        before = takewhile(lambda other: other != turn_id, self._asked[conversation_id])
        if waiting := [other for other in before if other not in self._over]:
            self.complaints.append(f"{turn_id} began before {waiting} had ended")

    def _unfinished(self) -> list[UUID]:
        return [turn_id for asked in self._asked.values() for turn_id in asked if turn_id not in self.statuses]

    def _follow(self, posted: Posted) -> UUID:
        assert posted.turn_id
        if posted.turn_id not in self._asked[posted.conversation_id]:
            self._asked[posted.conversation_id].append(posted.turn_id)
        return posted.turn_id

    async def _read(self, work: Work[_T]) -> _T:
        return await self._insist(self.app.storage.read, work)

    async def _write(self, work: Work[_T]) -> _T:
        return await self._insist(self.app.storage.write, work)

    async def _insist(self, begin: Begin, work: Work[_T]) -> _T:
        """As a person would, again until it is done."""
        while True:
            try:
                async with begin() as uow:
                    return await work(uow)
            except StorageUnavailable:
                self.figures["told that the database is away"] += 1
                await asyncio.sleep(0.3)


async def _retried(uow: UnitOfWork, turn_id: UUID) -> Posted | None:
    """What a retry led to of which nobody knows whether it was stored; None where it was not."""
    turn = await uow.turns.get(turn_id)
    assert turn
    question, *later = await uow.messages.since(turn.conversation_id, turn.seq)
    again = [message for message in later if (message.role, message.content) == (Role.USER, question.content)]
    return _posted(again[-1]) if again else None if turn.status.finished else _posted(question)


def _posted(message: Message) -> Posted:
    return Posted(conversation_id=message.conversation_id, message_id=message.id, reply_id=None, turn_id=message.turn_id)


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
            alone = [key for key in waiting[:1] if needs_approval(key) or is_question(key)]
            if alone:
                await self._see_to(office, waiting.pop(0), dice)
                continue
            plain = takewhile(lambda key: not needs_approval(key) and not is_question(key), waiting)
            burst = list(islice(plain, dice.choice((1, 1, 2, 3))))
            del waiting[: len(burst)]
            await self._write(office, talker, burst, dice)

    async def _write(self, office: Office, talker: Talker, burst: Sequence[str], dice: random.Random) -> None:
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

    async def _see_to(self, office: Office, key: str, dice: random.Random) -> None:
        """Writes what leads to an approval or a question, and answers that."""
        turn_id = await office.post(self.conversation_id, f"{key} please")
        if needs_approval(key):
            office.decisions[key] = dice.choice(list(Decision))
            await office.decide(turn_id, office.decisions[key])
        await office.answered(turn_id)
        if is_question(key):
            option = dice.choice(options(key))
            office.chosen.append(option.split()[0])
            await office.answered(await office.choose(turn_id, option))


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
                self.written[payload["id"]] = payload["content"]
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
