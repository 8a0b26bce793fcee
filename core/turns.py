"""Every change of a turn's state, each a function over one transaction.

    queued ──claim──> running ──finish──> succeeded
      ^  ^               │ ├───fail─────> failed
      │  └── requeue, ───┘ ├───park─────> waiting ──decide──> queued
      │  hand_back, rescue └─ cancel (also of queued and waiting) ─> cancelled
      └────────────── retry (of the conversation's last turn, failed or cancelled)

Functions with a Lease write for the worker and begin with the fence: they raise LeaseLost and write nothing when another owns the turn.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from core.access import Principal, require
from core.errors import ModelError, NotFound
from core.events import AgentStatusChanged, ApprovalChanged, ConversationRead, MessageChanged, ToolCallChanged, TurnChanged
from core.ids import new_id
from core.limits import ModelLimits, admit, full, held_back
from core.llm.failures import why
from core.models import (
    JSON,
    AgentStatus,
    Approval,
    ApprovalStatus,
    Conversation,
    Message,
    MessageStatus,
    ModelPause,
    Step,
    TokenUsage,
    ToolCall,
    ToolCallState,
    Turn,
    TurnStatus,
    UsageEntry,
)
from core.ports import Closed, Lease, UnitOfWork
from core.retries import (
    GiveUp,
    RetryPolicy,
    Switch,
    TryAgain,
    after_failure,
    fallback,
    fallback_while_paused,
    is_long,
    may_be_rescued,
    probing,
    recovering,
)
from core.text import clip
from core.wording import WAITS_FOR_WORKER

INTERRUPTED = "INTERRUPTED"
LIMITED = "MODEL_LIMIT"
_MAX_STATUS_MESSAGE = 500
_AT_ONCE = 20
"""Waiting turns that one transaction looks after."""
_INTERRUPTED = "The answer was interrupted {times} times because the worker stopped. Retry it; if that happens again, see the log."
_LIMITED = "Waiting until {model} may be asked again: its limit is reached"
_FALLBACK = ("fallback_from", "fallback_reason")
"""Of a reply's metadata."""
_FREE: dict[str, Any] = {"lease_owner": None, "lease_until": None}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRules:
    lease_seconds: float
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    limits: ModelLimits = field(default_factory=ModelLimits)
    suspects: bool = False
    """True claims only turns that were rescued twice, otherwise only others."""
    left_to_others: frozenset[str] = frozenset()
    """Prefixes of models that other workers can ask and this one cannot."""


class Claimed(NamedTuple):
    turns: list[Turn]
    more: bool
    """Whether to claim again at once."""


async def claim(uow: UnitOfWork, worker_id: UUID, rules: ClaimRules, *, limit: int) -> Claimed:
    """The next turns that may run, now this worker's; `limit` at most, and one by one where a model needs care.

    Where a turn has no finished round, its stream may begin at once under the number that it got here.
    """
    if not await uow.turns.any_due(uow.now):
        return Claimed([], more=False)
    pauses = {pause.model: pause for pause in await uow.pauses.lock_all()}
    passed_on = await _pass_on(uow, pauses.values(), rules.policy)
    claimed, more = await _take_some(uow, worker_id, rules, tuple(pauses.values()), limit)
    for turn in claimed:
        if (pause := pauses.get(turn.model)) and pause.at_once == 1:
            await uow.pauses.put(probing(pause, turn, uow.now, rules.policy))
        _changed(uow, turn, TurnStatus.RUNNING)
    if claimed:
        await _mark_messages(uow, claimed, MessageStatus.PROCESSING)
        await say_asking(uow, claimed)
    return Claimed(claimed, more or passed_on)


async def _take_some(uow: UnitOfWork, worker_id: UUID, rules: ClaimRules, pauses: Sequence[ModelPause], limit: int) -> Claimed:
    """Many of models without pause or limit; where there are none, one of another."""
    at_limit = await full(uow, rules.limits)
    await _tell_of_limit(uow, at_limit)
    closed = at_limit | await held_back(uow, pauses)
    with_care = rules.limits.named | {pause.model for pause in pauses}
    if not rules.limits.of_all and (many := await _take(uow, worker_id, rules, closed | with_care, limit)):
        return Claimed(many, more=len(many) == limit or bool(with_care))
    if not (with_care or rules.limits.of_all):
        return Claimed([], more=False)
    one = await _take(uow, worker_id, rules, closed, 1)
    return Claimed(one, more=bool(one))


async def _take(uow: UnitOfWork, worker_id: UUID, rules: ClaimRules, closed: frozenset[str], limit: int) -> list[Turn]:
    lease_until = uow.now + timedelta(seconds=rules.lease_seconds)
    left = Closed(models=closed, prefixes=rules.left_to_others)
    return await uow.turns.claim(worker_id, now=uow.now, lease_until=lease_until, suspects=rules.suspects, limit=limit, closed=left)


async def _tell_of_limit(uow: UnitOfWork, models: Iterable[str]) -> None:
    """Says in each turn that could run why it does not."""
    for model in sorted(models):
        for turn in await uow.turns.due(model, uow.now, limit=_AT_ONCE):
            if turn.error_code is None:
                await uow.turns.update(turn.id, error_code=LIMITED, error=_LIMITED.format(model=model))
                _changed(uow, turn, TurnStatus.QUEUED)


async def _pass_on(uow: UnitOfWork, pauses: Iterable[ModelPause], policy: RetryPolicy) -> bool:
    """Gives turns that would wait long for a paused model to a fallback. Whether there may be more of them."""
    more = False
    for pause in pauses:
        if not policy.fallback_models or not is_long(pause, uow.now, policy):
            continue
        waiting = await uow.turns.due(pause.model, uow.now, limit=_AT_ONCE)
        switches = [(turn, to) for turn in waiting if (to := fallback_while_paused(turn, pause, uow.now, policy))]
        for turn, to in switches:
            await _switch(uow, turn, to)
        more |= len(switches) == _AT_ONCE
    return more


async def begin_stream(uow: UnitOfWork, lease: Lease, *, text: str, limits: ModelLimits) -> int:
    """A new number for the stream that follows; the reply goes back to `text`, what the finished rounds said. Raises ModelFull."""
    turn = await uow.turns.fence(lease)
    await admit(uow, lease, turn.model, limits)
    stream_no = turn.stream_no + 1
    await uow.turns.update(turn.id, stream_no=stream_no)
    await uow.messages.update(turn.reply_id, content=text)
    await say_asking(uow, [turn])
    return stream_no


async def wait_for_model(uow: UnitOfWork, lease: Lease) -> None:
    """Says that the model is asked as often as it may be."""
    turn = await uow.turns.fence(lease)
    await set_agent_status(uow, turn.conversation_id, AgentStatus.THINKING, f"Waiting until {turn.model} may be asked again …")


async def store_step(uow: UnitOfWork, lease: Lease, step: Step, calls: list[ToolCall], *, conversation: Conversation, text: str) -> Turn:
    """A finished round, with its tool calls noted as running. It clears what went wrong before. Without calls, `finish` must follow.

    Nothing happens when it is repeated: the first time was committed, but nobody heard of it.
    """
    turn = await uow.turns.fence(lease)
    if not await uow.steps.add(step):
        return turn
    await charge(uow, turn, step.model, step.usage, conversation)
    await _recover(uow, turn)
    if turn.failures or turn.rescues or turn.error_code:
        await uow.turns.update(turn.id, failures=0, rescues=0, error_code=None, error=None)
    if calls:
        await uow.messages.update(turn.reply_id, content=text)
        await say_running(uow, turn, calls[0].name)
    for call in calls:
        await put_tool_call(uow, turn, call)
    return turn


async def put_tool_call(uow: UnitOfWork, turn: Turn, call: ToolCall) -> None:
    await uow.tool_calls.put(call)
    uow.emit(ToolCallChanged(conversation_id=turn.conversation_id, turn_id=turn.id, step=call.step, index=call.index))


async def say_running(uow: UnitOfWork, turn: Turn, tool_name: str) -> None:
    await set_agent_status(uow, turn.conversation_id, AgentStatus.EXECUTING, f"Running {tool_name} …")


async def charge(uow: UnitOfWork, turn: Turn, model: str, usage: TokenUsage, conversation: Conversation) -> None:
    """Notes what a request for this turn consumed, in the ledger."""
    entry = UsageEntry(
        id=new_id(),
        user_id=turn.author_id,
        conversation_id=conversation.id,
        task_id=conversation.task_id,
        project_id=conversation.project_id,
        model=model,
        usage=usage,
        at=uow.now,
    )
    await uow.usage.add(entry)


async def finish(uow: UnitOfWork, turn: Turn, *, text: str, metadata: Mapping[str, Any]) -> None:
    """The end of a turn that went well. Call it under the fence, behind `store_step`."""
    await _close(uow, turn, TurnStatus.SUCCEEDED)
    await uow.messages.complete(turn.user_message_id, turn.reply_id, text, dict(metadata))
    if question := metadata.get("question"):
        await set_agent_status(uow, turn.conversation_id, AgentStatus.WAITING_FOR_USER, question["text"])
    else:
        await set_agent_status(uow, turn.conversation_id, AgentStatus.IDLE)


async def fail_attempt(uow: UnitOfWork, lease: Lease, error: ModelError, *, draft: str | None, policy: RetryPolicy) -> Turn:
    """Queues the turn again or gives it up, as the policy says. `draft` is the partial text to keep."""
    turn = await uow.turns.fence(lease)
    if draft is not None:
        await uow.messages.update(turn.reply_id, content=draft)
    after = after_failure(turn, error, await uow.pauses.hold(turn.model), uow.now, policy)
    noted = {"error_code": error.reason, "error": clip(str(error), 1000)}
    match fallback(turn, error, after, uow.now, policy) or after:
        case Switch() as to:
            await _switch(uow, turn, to, **noted)
        case GiveUp():
            await fail(uow, turn, error.reason, _with_asked(turn, str(error)), failures=turn.failures + 1)
        case again:
            await requeue(uow, turn, run_after=again.run_after, failures=again.failures, **noted)
            await set_agent_status(uow, turn.conversation_id, AgentStatus.THINKING, f"Trying again soon: {error}")
    if isinstance(after, TryAgain) and after.pause:
        await uow.pauses.put(after.pause)
    changed = await uow.turns.get(turn.id)
    assert changed is not None
    return changed


async def fail(uow: UnitOfWork, turn: Turn, code: str, sentence: str, **changes: Any) -> None:
    """Gives a turn up. What was written so far stays as partial text."""
    await _end(uow, turn, TurnStatus.FAILED, error_code=code, error=clip(sentence, 1000), **changes)
    reply = await uow.messages.get(turn.reply_id)
    known = reply.metadata if reply else {}
    failure = {"error": {"code": code, "message": sentence}, **told_model(turn)}
    await uow.messages.update(turn.reply_id, status=MessageStatus.FAILED, metadata={**known, **failure})
    await uow.messages.update(turn.user_message_id, status=MessageStatus.FAILED)
    await set_agent_status(uow, turn.conversation_id, AgentStatus.ERROR, sentence)


async def requeue(uow: UnitOfWork, turn: Turn, **changes: Any) -> None:
    await _release_probe(uow, turn)
    await uow.turns.update(turn.id, status=TurnStatus.QUEUED, **_FREE, **changes)
    await _mark_messages(uow, [turn], MessageStatus.PENDING)
    _changed(uow, turn, TurnStatus.QUEUED)


def told_model(turn: Turn) -> JSON:
    """What a reply's metadata say of the model that answers it."""
    if turn.fallback_from is None:
        return {"model": turn.model}
    return {"model": turn.model, "fallback_from": turn.fallback_from, "fallback_reason": turn.fallback_reason}


async def hand_back(uow: UnitOfWork, turn: Turn, *, draft: str | None) -> None:
    """Queues a turn again because its worker shuts down."""
    if draft is not None:
        await uow.messages.update(turn.reply_id, content=draft)
    await _wait_for_worker(uow, turn)


async def park(uow: UnitOfWork, turn: Turn, call: ToolCall, *, expires_at: datetime) -> Approval:
    """Lets the turn wait until a person decides on `call`. Call it under the fence."""
    approval = Approval(
        id=new_id(),
        turn_id=turn.id,
        conversation_id=turn.conversation_id,
        step=call.step,
        index=call.index,
        status=ApprovalStatus.OPEN,
        decided_by=None,
        created_at=uow.now,
        expires_at=expires_at,
        decided_at=None,
    )
    await _release_probe(uow, turn)
    await uow.approvals.add(approval)
    await put_tool_call(uow, turn, replace(call, state=ToolCallState.AWAITING_APPROVAL, approval_id=approval.id))
    await uow.turns.update(turn.id, status=TurnStatus.WAITING, **_FREE)
    await set_agent_status(uow, turn.conversation_id, AgentStatus.WAITING_FOR_USER, f"May I run {call.name}?")
    uow.emit(ApprovalChanged(conversation_id=turn.conversation_id, turn_id=turn.id, approval_id=approval.id))
    _changed(uow, turn, TurnStatus.WAITING)
    return approval


async def rescue(uow: UnitOfWork, policy: RetryPolicy) -> int:
    """Takes turns from workers that vanished: their leases ran out. Gives how many."""
    return await _rescue(uow, await uow.turns.expired(uow.now), policy)


async def rescue_from(uow: UnitOfWork, worker_id: UUID, policy: RetryPolicy) -> int:
    """Takes its turns from a worker that is known to be dead, without waiting for its leases."""
    return await _rescue(uow, await uow.turns.of_worker(worker_id), policy)


async def get(uow: UnitOfWork, principal: Principal, turn_id: UUID) -> Turn:
    require(principal, "chat")
    turn = await uow.turns.get(turn_id)
    if turn is None or await uow.conversations.get(turn.conversation_id, principal) is None:
        raise NotFound(f"There is no turn {turn_id}.")
    return turn


async def cancel(uow: UnitOfWork, principal: Principal, turn_id: UUID) -> Turn:
    """Stops a turn in whatever state it is; nothing happens to one that has ended."""
    return await stop(uow, await _visible(uow, principal, turn_id))


async def stop(uow: UnitOfWork, turn: Turn) -> Turn:
    """Like `cancel`, of a turn that is held; it asks nobody whether they may."""
    if not turn.status.finished:
        await _cancel(uow, turn)
    return await uow.turns.get(turn.id) or turn


async def cancel_all(uow: UnitOfWork, conversation_id: UUID) -> None:
    for unfinished in await uow.turns.unfinished(conversation_id):
        turn = await uow.turns.lock(unfinished.id)
        if turn and not turn.status.finished:
            await _cancel(uow, turn)


async def is_last(uow: UnitOfWork, turn: Turn) -> bool:
    """Whether nothing was asked in its conversation since."""
    last = await uow.turns.last(turn.conversation_id)
    return last is not None and last.id == turn.id


async def retry_in_place(uow: UnitOfWork, turn: Turn) -> None:
    """Queues a conversation's last turn once more. What its finished rounds did stays done."""
    rounds = await uow.steps.of_turns([turn.id])
    anew: JSON = {"failures": 0, "rescues": 0, "first_step": len(rounds), "error_code": None, "error": None, "finished_at": None}
    for call in await uow.tool_calls.of_turns([turn.id]):
        if call.state is ToolCallState.AWAITING_APPROVAL:
            await put_tool_call(uow, turn, replace(call, state=ToolCallState.RUNNING, approval_id=None))
    reply = await uow.messages.get(turn.reply_id)
    if reply:
        anew |= {"model": turn.asked_model or turn.model, "asked_model": None, "fallback_reason": None}
        metadata = {key: value for key, value in reply.metadata.items() if key not in ("error", *_FALLBACK)}
        await uow.messages.update(turn.reply_id, metadata={**metadata, "model": anew["model"]}, deleted_at=None)
    await requeue(uow, turn, run_after=uow.now, **anew)
    if turn.started_at:
        await set_agent_status(uow, turn.conversation_id, AgentStatus.IDLE)
    if reply:
        await _mark_unread(uow, reply)


async def _mark_unread(uow: UnitOfWork, reply: Message) -> None:
    """Nobody has read it: it will say something else."""
    for user_id in await uow.read_marks.set_back(reply.conversation_id, reply.seq - 1):
        uow.emit(ConversationRead(conversation_id=reply.conversation_id, user_id=user_id, seq=reply.seq - 1))


async def set_agent_status(uow: UnitOfWork, conversation_id: UUID, status: AgentStatus, message: str = "") -> None:
    await uow.conversations.update(conversation_id, agent_status=status, agent_status_message=clip(message, _MAX_STATUS_MESSAGE))
    uow.emit(AgentStatusChanged(conversation_id=conversation_id))


async def _rescue(uow: UnitOfWork, turns: Sequence[Turn], policy: RetryPolicy) -> int:
    for turn in turns:
        if may_be_rescued(turn, policy):
            await _wait_for_worker(uow, turn, rescues=turn.rescues + 1)
        else:
            sentence = _INTERRUPTED.format(times=policy.max_rescues)
            await fail(uow, turn, INTERRUPTED, sentence)
    return len(turns)


async def _wait_for_worker(uow: UnitOfWork, turn: Turn, **changes: Any) -> None:
    await requeue(uow, turn, run_after=uow.now, **changes)
    await set_agent_status(uow, turn.conversation_id, AgentStatus.IDLE, WAITS_FOR_WORKER)


async def _visible(uow: UnitOfWork, principal: Principal, turn_id: UUID) -> Turn:
    require(principal, "chat")
    turn = await uow.turns.lock(turn_id)
    if turn is None or await uow.conversations.get(turn.conversation_id, principal) is None:
        raise NotFound(f"There is no turn {turn_id}.")
    return turn


async def _cancel(uow: UnitOfWork, turn: Turn) -> None:
    if turn.started_at or turn.fallback_from:
        await set_agent_status(uow, turn.conversation_id, AgentStatus.IDLE)
    if approval := await uow.approvals.open_of_turn(turn.id):
        await uow.approvals.close(approval.id, ApprovalStatus.EXPIRED, None, uow.now)
        uow.emit(ApprovalChanged(conversation_id=turn.conversation_id, turn_id=turn.id, approval_id=approval.id))
    await _end(uow, turn, TurnStatus.CANCELLED, lease_token=turn.lease_token + 1)
    await _mark_messages(uow, [turn], MessageStatus.CANCELLED)


async def _end(uow: UnitOfWork, turn: Turn, status: TurnStatus, **changes: Any) -> None:
    await _release_probe(uow, turn)
    await _close(uow, turn, status, **changes)


async def _close(uow: UnitOfWork, turn: Turn, status: TurnStatus, **changes: Any) -> None:
    await uow.turns.update(turn.id, status=status, finished_at=uow.now, **_FREE, **changes)
    uow.emit(
        MessageChanged(conversation_id=turn.conversation_id, message_id=turn.user_message_id),
        MessageChanged(conversation_id=turn.conversation_id, message_id=turn.reply_id),
    )
    _changed(uow, turn, status)


async def _mark_messages(uow: UnitOfWork, of_turns: Sequence[Turn], status: MessageStatus) -> None:
    await uow.messages.set_status([message_id for turn in of_turns for message_id in (turn.user_message_id, turn.reply_id)], status)
    for turn in of_turns:
        for message_id in (turn.user_message_id, turn.reply_id):
            uow.emit(MessageChanged(conversation_id=turn.conversation_id, message_id=message_id))


async def say_asking(uow: UnitOfWork, of_turns: Sequence[Turn]) -> None:
    """That their models are asked, and where it is not the one that was asked for, why."""
    said = {turn.conversation_id: _in_whose_place(turn) or f"Asking {turn.model} …" for turn in of_turns}
    await uow.conversations.say(said, AgentStatus.THINKING)
    uow.emit(*(AgentStatusChanged(conversation_id=conversation_id) for conversation_id in said))


async def _switch(uow: UnitOfWork, turn: Turn, to: Switch, **changes: Any) -> None:
    """Queues the turn at once for another model, with attempts of its own."""
    switched = replace(turn, model=to.model, asked_model=to.asked_model, fallback_reason=to.reason)
    chosen = {"model": to.model, "asked_model": to.asked_model, "fallback_reason": to.reason}
    await requeue(uow, turn, run_after=uow.now, failures=0, **chosen, **changes)
    if reply := await uow.messages.get(turn.reply_id):
        known = {key: value for key, value in reply.metadata.items() if key not in _FALLBACK}
        await uow.messages.update(turn.reply_id, metadata={**known, **told_model(switched)})
    await set_agent_status(uow, turn.conversation_id, AgentStatus.THINKING, _in_whose_place(switched) or f"Waiting for {to.model} …")


def _in_whose_place(turn: Turn) -> str:
    return f"{turn.fallback_from} {why(turn.fallback_reason or '')}: {turn.model} answers …" if turn.fallback_from else ""


def _with_asked(turn: Turn, sentence: str) -> str:
    """A fallback's failure is told together with that of the model that was asked for."""
    return (
        f"{sentence} ({turn.fallback_from}, which was asked first, {why(turn.fallback_reason or '')}.)" if turn.fallback_from else sentence
    )


def _changed(uow: UnitOfWork, turn: Turn, status: TurnStatus) -> None:
    token = turn.lease_token + 1 if status is TurnStatus.CANCELLED else turn.lease_token
    uow.emit(TurnChanged(conversation_id=turn.conversation_id, turn_id=turn.id, status=status, lease_token=token))


async def _release_probe(uow: UnitOfWork, turn: Turn) -> None:
    """Where this turn was probing a paused model and ends without an answer, the next turn may probe at once."""
    if not await uow.pauses.get(turn.model):
        return
    pause = await uow.pauses.hold(turn.model)
    if pause and pause.probe_turn_id == turn.id:
        await uow.pauses.put(replace(pause, paused_until=uow.now, probe_turn_id=None))


async def _recover(uow: UnitOfWork, turn: Turn) -> None:
    """A paused model has answered: it is asked by more and more turns at once, instead of by all that waited.

    An answer that began before the pause says nothing of it.
    """
    if not await uow.pauses.get(turn.model):
        return
    pause = await uow.pauses.hold(turn.model)
    if pause is None or (pause.paused_until > uow.now and pause.probe_turn_id != turn.id):
        return
    if recovered := recovering(pause, uow.now):
        await uow.pauses.put(recovered)
    else:
        await uow.pauses.remove(turn.model)
