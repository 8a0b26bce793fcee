"""Approvals: a person decides whether a tool may run."""

from collections.abc import Sequence
from uuid import UUID

from core import turns
from core.access import Principal, require
from core.errors import Conflict, NotFound
from core.events import ApprovalChanged
from core.models import AgentStatus, Approval, ApprovalStatus, Decision, Turn, TurnStatus
from core.ports import UnitOfWork

_STATUS = {Decision.APPROVE: ApprovalStatus.APPROVED, Decision.DENY: ApprovalStatus.DENIED}


async def decide(uow: UnitOfWork, principal: Principal, approval_id: UUID, decision: Decision) -> Approval:
    """The first decision counts. The author of the message, the task's assignee and admins may decide."""
    require(principal, "chat")
    approval = await uow.approvals.get(approval_id)
    turn = await uow.turns.lock(approval.turn_id) if approval else None
    if approval is None or turn is None or await uow.conversations.get(approval.conversation_id, principal) is None:
        raise NotFound(f"There is no approval {approval_id}.")
    await _check_may_decide(uow, principal, turn)
    if not await _close(uow, approval, turn, _STATUS[decision], principal.user_id):
        await _say_who_decided(uow, approval_id)
    decided = await uow.approvals.get(approval_id)
    assert decided is not None
    return decided


async def deny_waiting(uow: UnitOfWork, unfinished: Sequence[Turn], user_id: UUID) -> None:
    """A person wrote on instead of deciding: what waits for them is denied."""
    for turn in unfinished:
        if turn.status is TurnStatus.WAITING:
            await _close_open(uow, turn.id, ApprovalStatus.DENIED, user_id)


async def expire(uow: UnitOfWork) -> int:
    """Denies what nobody decided in time. Gives how many."""
    overdue = await uow.approvals.overdue(uow.now)
    for approval in overdue:
        await _close_open(uow, approval.turn_id, ApprovalStatus.EXPIRED, None)
    return len(overdue)


async def _close_open(uow: UnitOfWork, turn_id: UUID, status: ApprovalStatus, user_id: UUID | None) -> None:
    turn = await uow.turns.lock(turn_id)
    approval = await uow.approvals.open_of_turn(turn_id)
    if turn and approval:
        await _close(uow, approval, turn, status, user_id)


async def _close(uow: UnitOfWork, approval: Approval, turn: Turn, status: ApprovalStatus, by: UUID | None) -> bool:
    if not await uow.approvals.close(approval.id, status, by, uow.now):
        return False
    uow.emit(ApprovalChanged(conversation_id=turn.conversation_id, turn_id=turn.id, approval_id=approval.id))
    if turn.status is TurnStatus.WAITING:
        await turns.requeue(uow, turn, run_after=uow.now)
        await turns.set_agent_status(uow, turn.conversation_id, AgentStatus.THINKING)
    return True


async def _check_may_decide(uow: UnitOfWork, principal: Principal, turn: Turn) -> None:
    task = await uow.tasks.of_conversation(turn.conversation_id)
    if not (principal.admin or principal.user_id in (turn.author_id, task.assignee_id if task else None)):
        raise Conflict("Only the person who asked, the task's assignee or an admin may decide this.")


async def _say_who_decided(uow: UnitOfWork, approval_id: UUID) -> None:
    approval = await uow.approvals.get(approval_id)
    names = await uow.users.names([approval.decided_by]) if approval and approval.decided_by else {}
    by = f" by {next(iter(names.values()))}" if names else ""
    raise Conflict(f"This was {approval.status if approval else 'decided'}{by} already.")
