"""Conversations that were had long ago, written straight into the tables: hundreds of thousands of messages in seconds."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Table, insert, text

from core.ids import new_id
from core.models import AgentStatus, Conversation, Message, MessageStatus, Project, Role, Task, Turn, TurnStatus, User, Visibility
from storage import schema
from storage.engine import Engine
from storage.rows import dump

TEXT = "What was said here is as long as what people and agents say to one another about a task of theirs on an ordinary day. " * 2
BATCH = 2_000
Rows = list[dict[str, Any]]


async def fill(engine: Engine, owner: User, project: Project, lengths: Sequence[int]) -> list[UUID]:
    """Makes a conversation for each of the lengths, which count messages; every turn has succeeded. Gives their ids."""
    ids = [new_id() for _ in lengths]
    conversation = dump(_conversation(owner.id, project.id, Visibility.PRIVATE), "task_id", "task_ref")
    rows = [{**conversation, "id": each, "next_seq": length + 1} for each, length in zip(ids, lengths, strict=True)]
    await _store(engine, [(schema.conversations, rows)])
    for messages, turns in _batches(owner, ids, lengths):
        await _store(engine, [(schema.messages, messages), (schema.turns, turns)])
    await _analyze(engine)
    return ids


async def fill_tasks(engine: Engine, like: Task, number: int) -> None:
    """So many more tasks like this one, each with a conversation of its own, as everybody may read it."""
    conversation = dump(_conversation(like.creator_id, like.project_id, Visibility.SHARED), "task_id", "task_ref")
    task = dump(like)
    prefix, _, first = like.ref.rpartition("-")
    for begin in range(0, number, BATCH):
        numbers = range(begin + 1, min(begin + BATCH, number) + 1)
        ids = {each: (new_id(), new_id()) for each in numbers}
        conversations = [{**conversation, "id": ids[each][0]} for each in numbers]
        there = [{**task, "id": ids[each][1], "conversation_id": ids[each][0], "ref": f"{prefix}-{int(first) + each}"} for each in numbers]
        await _store(engine, [(schema.conversations, conversations), (schema.tasks, there)])
    await _analyze(engine)


async def _analyze(engine: Engine) -> None:
    if engine.sync_engine.dialect.name == "postgresql":  # as its autovacuum does after such a change
        async with engine.begin() as connection:
            await connection.execute(text("ANALYZE"))


async def _store(engine: Engine, tables: list[tuple[Table, Rows]]) -> None:
    async with engine.begin() as connection:
        for table, rows in tables:
            await connection.execute(insert(table), rows)


def _batches(owner: User, ids: list[UUID], lengths: Sequence[int]) -> Iterator[tuple[Rows, Rows]]:
    question, reply, turn = (dump(each) for each in _exchange(owner))
    messages: Rows = []
    turns: Rows = []
    for conversation_id, length in zip(ids, lengths, strict=True):
        for seq in range(1, length, 2):
            question_id, reply_id, turn_id = new_id(), new_id(), new_id()
            there = {"conversation_id": conversation_id, "turn_id": turn_id}
            messages += ({**question, **there, "id": question_id, "seq": seq}, {**reply, **there, "id": reply_id, "seq": seq + 1})
            whose = {"conversation_id": conversation_id, "user_message_id": question_id, "reply_id": reply_id}
            turns.append({**turn, **whose, "id": turn_id, "seq": seq})
            if len(turns) == BATCH:
                yield messages, turns
                messages, turns = [], []
    if turns:
        yield messages, turns


def _conversation(owner_id: UUID, project_id: UUID, visibility: Visibility) -> Conversation:
    now = datetime.now(UTC)
    return Conversation(
        id=new_id(),
        task_id=None,
        task_ref=None,
        project_id=project_id,
        project_model=None,
        owner_id=owner_id,
        visibility=visibility,
        title="Had long ago",
        model=None,
        agent_status=AgentStatus.IDLE,
        agent_status_message="",
        next_seq=1,
        window_from_seq=1,
        created_at=now,
        updated_at=now,
    )


def _exchange(owner: User) -> tuple[Message, Message, Turn]:
    now = datetime.now(UTC)
    question = _message(now, Role.USER, owner.id, "terminal")
    reply = _message(now, Role.ASSISTANT, None, "agent")
    turn = Turn(
        id=new_id(),
        conversation_id=question.conversation_id,
        seq=1,
        user_message_id=question.id,
        reply_id=reply.id,
        author_id=owner.id,
        model="instant/model",
        status=TurnStatus.SUCCEEDED,
        failures=0,
        rescues=0,
        stream_no=1,
        first_step=0,
        run_after=now,
        lease_owner=None,
        lease_token=1,
        lease_until=None,
        error_code=None,
        error=None,
        created_at=now,
        started_at=now,
        finished_at=now,
    )
    return question, reply, turn


def _message(now: datetime, role: Role, author_id: UUID | None, source: str) -> Message:
    return Message(
        id=new_id(),
        conversation_id=new_id(),
        turn_id=None,
        seq=1,
        role=role,
        author_id=author_id,
        content=TEXT,
        status=MessageStatus.COMPLETED,
        revision=3,
        metadata={"model": "instant/model"} if role is Role.ASSISTANT else {},
        source=source,
        created_at=now,
        updated_at=now,
    )
