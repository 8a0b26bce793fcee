"""The core's repositories over one open transaction."""

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Table, and_, delete, exists, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from core.access import Principal
from core.models import (
    JSON,
    Approval,
    ApprovalStatus,
    Attachment,
    Conversation,
    InboxEntry,
    InboxKey,
    Message,
    MessageStatus,
    ModelPause,
    Project,
    Step,
    Task,
    Token,
    TokenUsage,
    ToolCall,
    ToolRequest,
    TurnStatus,
    UsageEntry,
    User,
    WorkerInfo,
)
from core.ports import Draft, TaskFilter
from core.usage import total
from storage import schema
from storage.rows import dump, load

_T = TypeVar("_T")
_FIRST_TASK_NUMBER = 1


class Repository:
    """Queries over one connection."""

    def __init__(self, connection: AsyncConnection, now: datetime) -> None:
        self._connection = connection
        self._now = now

    async def _one(self, kind: type[_T], query: Select[Any]) -> _T | None:
        row = (await self._connection.execute(query)).mappings().first()
        return None if row is None else load(kind, row)

    async def _all(self, kind: type[_T], query: Select[Any]) -> list[_T]:
        return [load(kind, row) for row in (await self._connection.execute(query)).mappings()]

    async def _insert(self, table: Table, values: dict[str, Any]) -> None:
        await self._connection.execute(insert(table).values(**values))

    def _insert_into(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """An insert that knows ON CONFLICT, which SQLAlchemy has for each dialect apart."""
        return postgresql.insert(table) if self._connection.dialect.name == "postgresql" else sqlite.insert(table)

    async def _upsert(self, table: Table, values: dict[str, Any]) -> None:
        keys = [column.name for column in table.primary_key]
        rest = {name: value for name, value in values.items() if name not in keys}
        await self._connection.execute(self._insert_into(table).values(**values).on_conflict_do_update(index_elements=keys, set_=rest))


class Users(Repository):
    async def add(self, user: User) -> None:
        await self._insert(schema.users, dump(user))

    async def get(self, user_id: UUID) -> User | None:
        return await self._one(User, select(schema.users).where(schema.users.c.id == user_id))

    async def by_name(self, name: str) -> User | None:
        return await self._one(User, select(schema.users).where(func.lower(schema.users.c.name) == name.lower()))

    async def all(self) -> list[User]:
        return await self._all(User, select(schema.users).order_by(schema.users.c.id))

    async def names(self, user_ids: Collection[UUID]) -> dict[UUID, str]:
        query = select(schema.users.c.id, schema.users.c.name).where(schema.users.c.id.in_(user_ids))
        return {row.id: row.name for row in await self._connection.execute(query)}


class Tokens(Repository):
    async def add(self, token: Token, sha256: str) -> None:
        await self._insert(schema.tokens, {**dump(token), "sha256": sha256})

    async def by_sha256(self, sha256: str) -> Token | None:
        return await self._one(Token, select(schema.tokens).where(schema.tokens.c.sha256 == sha256))

    async def of_user(self, user_id: UUID) -> list[Token]:
        return await self._all(Token, select(schema.tokens).where(schema.tokens.c.user_id == user_id).order_by(schema.tokens.c.id))

    async def revoke(self, token_id: UUID, at: datetime) -> None:
        await self._connection.execute(update(schema.tokens).where(schema.tokens.c.id == token_id).values(revoked_at=at))


class Projects(Repository):
    async def add(self, project: Project) -> None:
        await self._insert(schema.projects, {**dump(project), "next_task_number": _FIRST_TASK_NUMBER})

    async def get(self, project_id: UUID) -> Project | None:
        return await self._one(Project, select(schema.projects).where(schema.projects.c.id == project_id))

    async def by_key(self, key: str) -> Project | None:
        return await self._one(Project, select(schema.projects).where(schema.projects.c.key == key.upper()))

    async def all(self) -> list[Project]:
        return await self._all(Project, select(schema.projects).order_by(schema.projects.c.id))

    async def update(self, project_id: UUID, **changes: Any) -> None:
        await self._connection.execute(
            update(schema.projects).where(schema.projects.c.id == project_id).values(updated_at=self._now, **changes)
        )

    async def next_task_number(self, project_id: UUID) -> int:
        column = schema.projects.c.next_task_number
        taken = update(schema.projects).where(schema.projects.c.id == project_id).values(next_task_number=column + 1).returning(column)
        return int((await self._connection.execute(taken)).scalar_one()) - 1


class Tasks(Repository):
    async def add(self, task: Task) -> None:
        await self._insert(schema.tasks, dump(task))

    async def get(self, task_id: UUID, principal: Principal) -> Task | None:
        return await self._one(Task, _visible_tasks(principal).where(schema.tasks.c.id == task_id))

    async def by_ref(self, ref: str, principal: Principal) -> Task | None:
        return await self._one(Task, _visible_tasks(principal).where(schema.tasks.c.ref == ref.upper()))

    async def of_conversation(self, conversation_id: UUID) -> Task | None:
        return await self._one(Task, select(schema.tasks).where(schema.tasks.c.conversation_id == conversation_id))

    async def page(self, principal: Principal, where: TaskFilter, *, after: UUID | None, limit: int) -> list[Task]:
        query = _visible_tasks(principal).where(*_task_conditions(where))
        if after is not None:
            query = query.where(schema.tasks.c.id < after)
        return await self._all(Task, query.order_by(schema.tasks.c.id.desc()).limit(limit))

    async def count(self, principal: Principal, where: TaskFilter) -> int:
        found = _visible_tasks(principal).where(*_task_conditions(where)).subquery()
        return int((await self._connection.execute(select(func.count()).select_from(found))).scalar_one())

    async def update(self, task_id: UUID, version: int, **changes: Any) -> Task | None:
        table = schema.tasks
        changed = (
            update(table)
            .where(table.c.id == task_id, table.c.version == version)
            .values(version=version + 1, updated_at=self._now, **changes)
            .returning(*table.c)
        )
        row = (await self._connection.execute(changed)).mappings().first()
        return None if row is None else load(Task, row)

    async def delete(self, task_id: UUID) -> None:
        conversation = select(schema.tasks.c.conversation_id).where(schema.tasks.c.id == task_id)
        await self._connection.execute(delete(schema.conversations).where(schema.conversations.c.id.in_(conversation)))


class Conversations(Repository):
    async def add(self, conversation: Conversation) -> None:
        await self._insert(schema.conversations, dump(conversation, "task_id", "task_ref"))

    async def get(self, conversation_id: UUID, principal: Principal) -> Conversation | None:
        query = _conversations().where(schema.conversations.c.id == conversation_id, _visible_to(principal))
        return await self._one(Conversation, query)

    async def find(self, conversation_id: UUID) -> Conversation | None:
        return await self._one(Conversation, _conversations().where(schema.conversations.c.id == conversation_id))

    async def page(self, principal: Principal, *, limit: int, offset: int) -> list[Conversation]:
        newest_first = (schema.conversations.c.updated_at.desc(), schema.conversations.c.id.desc())
        query = _conversations().where(_visible_to(principal)).order_by(*newest_first).limit(limit).offset(offset)
        return await self._all(Conversation, query)

    async def count(self, principal: Principal) -> int:
        query = select(func.count()).select_from(schema.conversations).where(_visible_to(principal))
        return int((await self._connection.execute(query)).scalar_one())

    async def update(self, conversation_id: UUID, **changes: Any) -> None:
        table = schema.conversations
        await self._connection.execute(update(table).where(table.c.id == conversation_id).values(updated_at=self._now, **changes))

    async def take_seqs(self, conversation_id: UUID, number: int) -> int:
        table = schema.conversations
        taken = (
            update(table)
            .where(table.c.id == conversation_id)
            .values(next_seq=table.c.next_seq + number, updated_at=self._now)
            .returning(table.c.next_seq)
        )
        return int((await self._connection.execute(taken)).scalar_one()) - number

    async def add_member(self, conversation_id: UUID, user_id: UUID) -> None:
        row = self._insert_into(schema.conversation_members).values(conversation_id=conversation_id, user_id=user_id)
        await self._connection.execute(row.on_conflict_do_nothing())

    async def members(self, conversation_id: UUID) -> frozenset[UUID]:
        table = schema.conversation_members
        found = await self._connection.execute(select(table.c.user_id).where(table.c.conversation_id == conversation_id))
        return frozenset(found.scalars())

    async def delete(self, conversation_id: UUID) -> None:
        await self._connection.execute(delete(schema.conversations).where(schema.conversations.c.id == conversation_id))


class Messages(Repository):
    async def add(self, message: Message) -> None:
        await self._insert(schema.messages, dump(message))

    async def get(self, message_id: UUID) -> Message | None:
        return await self._one(Message, select(schema.messages).where(schema.messages.c.id == message_id))

    async def update(self, message_id: UUID, **changes: Any) -> None:
        table = schema.messages
        changed = update(table).where(table.c.id == message_id).values(revision=table.c.revision + 1, updated_at=self._now, **changes)
        await self._connection.execute(changed)

    async def set_status(self, message_ids: Collection[UUID], status: MessageStatus) -> None:
        table = schema.messages
        changed = update(table).where(table.c.id.in_(message_ids))
        await self._connection.execute(changed.values(status=status, revision=table.c.revision + 1, updated_at=self._now))

    async def page(self, conversation_id: UUID, *, before: int | None = None, limit: int) -> list[Message]:
        table = schema.messages
        query = select(table).where(table.c.conversation_id == conversation_id)
        if before is not None:
            query = query.where(table.c.seq < before)
        return (await self._all(Message, query.order_by(table.c.seq.desc()).limit(limit)))[::-1]

    async def since(self, conversation_id: UUID, seq: int) -> list[Message]:
        table = schema.messages
        query = select(table).where(table.c.conversation_id == conversation_id, table.c.seq >= seq).order_by(table.c.seq)
        return await self._all(Message, query)

    async def count(self, conversation_ids: Collection[UUID]) -> dict[UUID, int]:
        table = schema.messages
        query = (
            select(table.c.conversation_id, func.count())
            .where(table.c.conversation_id.in_(conversation_ids), table.c.deleted_at.is_(None))
            .group_by(table.c.conversation_id)
        )
        return {row[0]: row[1] for row in await self._connection.execute(query)}

    async def search(self, principal: Principal, query: str, *, limit: int) -> list[Message]:
        table = schema.messages
        found = (
            select(table)
            .join(schema.conversations, schema.conversations.c.id == table.c.conversation_id)
            .where(_visible_to(principal), table.c.content.icontains(query, autoescape=True), table.c.deleted_at.is_(None))
            .order_by(table.c.id.desc())
            .limit(limit)
        )
        return await self._all(Message, found)

    async def save_drafts(self, drafts: Iterable[Draft]) -> None:
        for draft in drafts:
            turns = schema.turns.c
            still_ours = select(turns.id).where(
                turns.id == draft.lease.turn_id,
                turns.lease_token == draft.lease.token,
                turns.status == TurnStatus.RUNNING,
                turns.stream_no == draft.stream_no,
            )
            # Locked, or a draft that waits for the reply's end would be written over its text. Who holds the turn has newer text anyway.
            held = exists(still_ours.with_for_update(read=True, skip_locked=True))
            table = schema.messages
            await self._connection.execute(update(table).where(table.c.id == draft.reply_id, held).values(content=draft.text))


class Attachments(Repository):
    _columns = tuple(column for column in schema.attachments.c if column.name != "data")

    async def add(self, attachment: Attachment, data: bytes) -> None:
        await self._insert(schema.attachments, {**dump(attachment), "data": data})

    async def data(self, attachment_id: UUID) -> bytes:
        query = select(schema.attachments.c.data).where(schema.attachments.c.id == attachment_id)
        return bytes((await self._connection.execute(query)).scalar_one())

    async def head(self, attachment_id: UUID, size: int) -> bytes:
        query = select(func.substr(schema.attachments.c.data, 1, size)).where(schema.attachments.c.id == attachment_id)
        return bytes((await self._connection.execute(query)).scalar_one())

    async def of_messages(self, message_ids: Collection[UUID]) -> list[Attachment]:
        query = select(*self._columns).where(schema.attachments.c.message_id.in_(message_ids)).order_by(schema.attachments.c.id)
        return await self._all(Attachment, query)

    async def remove_of_message(self, message_id: UUID) -> None:
        await self._connection.execute(delete(schema.attachments).where(schema.attachments.c.message_id == message_id))


class Steps(Repository):
    async def add(self, step: Step) -> bool:
        requests = [dump(request) for request in step.tool_requests]
        values = {**dump(step, "usage", "tool_requests"), **dump(step.usage), "tool_requests": requests}
        added = await self._connection.execute(self._insert_into(schema.steps).values(**values).on_conflict_do_nothing())
        return added.rowcount == 1

    async def of_turns(self, turn_ids: Collection[UUID]) -> list[Step]:
        table = schema.steps
        query = select(table).where(table.c.turn_id.in_(turn_ids)).order_by(table.c.turn_id, table.c.number)
        return [self._load(row) for row in (await self._connection.execute(query)).mappings()]

    @staticmethod
    def _load(row: Any) -> Step:
        requests = tuple(ToolRequest(**request) for request in row["tool_requests"])
        return load(Step, {**row, "usage": load(TokenUsage, row), "tool_requests": requests})


class ToolCalls(Repository):
    async def put(self, call: ToolCall) -> None:
        await self._upsert(schema.tool_calls, dump(call))

    async def get(self, turn_id: UUID, step: int, index: int) -> ToolCall | None:
        table = schema.tool_calls
        place = and_(table.c.turn_id == turn_id, table.c.step == step, table.c["index"] == index)
        return await self._one(ToolCall, select(table).where(place))

    async def of_turns(self, turn_ids: Collection[UUID]) -> list[ToolCall]:
        table = schema.tool_calls
        query = select(table).where(table.c.turn_id.in_(turn_ids)).order_by(table.c.turn_id, table.c.step, table.c["index"])
        return await self._all(ToolCall, query)


class Approvals(Repository):
    async def add(self, approval: Approval) -> None:
        await self._insert(schema.approvals, dump(approval))

    async def get(self, approval_id: UUID) -> Approval | None:
        return await self._one(Approval, select(schema.approvals).where(schema.approvals.c.id == approval_id))

    async def open_of_turn(self, turn_id: UUID) -> Approval | None:
        table = schema.approvals
        return await self._one(Approval, select(table).where(table.c.turn_id == turn_id, table.c.status == ApprovalStatus.OPEN))

    async def overdue(self, now: datetime) -> list[Approval]:
        table = schema.approvals
        return await self._all(Approval, select(table).where(table.c.status == ApprovalStatus.OPEN, table.c.expires_at <= now))

    async def close(self, approval_id: UUID, status: ApprovalStatus, by: UUID | None, at: datetime) -> bool:
        table = schema.approvals
        still_open = and_(table.c.id == approval_id, table.c.status == ApprovalStatus.OPEN)
        closed = await self._connection.execute(update(table).where(still_open).values(status=status, decided_by=by, decided_at=at))
        return closed.rowcount == 1


class Inbox(Repository):
    async def add(self, entry: InboxEntry, *, user_id: UUID, at: datetime) -> InboxEntry | None:
        row = {**dump(entry.key), "user_id": user_id, "body_sha256": entry.body_sha256, "result": entry.result, "received_at": at}
        added = await self._connection.execute(self._insert_into(schema.inbox).values(**row).on_conflict_do_nothing())
        return None if added.rowcount == 1 else await self._get(entry.key)

    async def _get(self, key: InboxKey) -> InboxEntry | None:
        row = (await self._connection.execute(select(schema.inbox).where(self._is(key)))).mappings().first()
        return None if row is None else InboxEntry(key=key, body_sha256=row["body_sha256"], result=row["result"])

    async def set_result(self, key: InboxKey, result: JSON) -> None:
        await self._connection.execute(update(schema.inbox).where(self._is(key)).values(result=result))

    async def nth_last(self, user_id: UUID, n: int) -> datetime | None:
        table = schema.inbox
        query = select(table.c.received_at).where(table.c.user_id == user_id).order_by(table.c.received_at.desc()).offset(n - 1).limit(1)
        found: datetime | None = (await self._connection.execute(query)).scalar_one_or_none()
        return found

    @staticmethod
    def _is(key: InboxKey) -> ColumnElement[bool]:
        table = schema.inbox
        return and_(table.c.source == key.source, table.c.scope == key.scope, table.c.event_id == key.event_id)


class Usage(Repository):
    async def add(self, entry: UsageEntry) -> None:
        await self._insert(schema.usage, {**dump(entry, "usage"), **dump(entry.usage)})

    async def of_conversation(self, conversation_id: UUID) -> TokenUsage:
        table = schema.usage
        query = select(table).where(table.c.conversation_id == conversation_id)
        return total([load(TokenUsage, row) for row in (await self._connection.execute(query)).mappings()])


class ModelPauses(Repository):
    async def get(self, model: str) -> ModelPause | None:
        return await self._one(ModelPause, select(schema.model_pauses).where(schema.model_pauses.c.model == model))

    async def hold(self, model: str) -> ModelPause | None:
        if self._connection.dialect.name == "postgresql":  # where there is no row yet, there is none to lock
            await self._connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(model, 0))))
        return await self.get(model)

    async def put(self, pause: ModelPause) -> None:
        await self._upsert(schema.model_pauses, dump(pause))

    async def remove(self, model: str) -> None:
        await self._connection.execute(delete(schema.model_pauses).where(schema.model_pauses.c.model == model))


class Workers(Repository):
    async def beat(self, worker: WorkerInfo) -> None:
        await self._upsert(schema.workers, dump(worker))

    async def remove(self, worker_id: UUID) -> None:
        await self._connection.execute(delete(schema.workers).where(schema.workers.c.id == worker_id))

    async def alive(self, since: datetime) -> list[WorkerInfo]:
        table = schema.workers
        return await self._all(WorkerInfo, select(table).where(table.c.heartbeat_at > since).order_by(table.c.id))


def _conversations() -> Select[Any]:
    tasks = schema.tasks
    columns = (*schema.conversations.c, tasks.c.id.label("task_id"), tasks.c.ref.label("task_ref"))
    return select(*columns).outerjoin(tasks, tasks.c.conversation_id == schema.conversations.c.id)


def _visible_tasks(principal: Principal) -> Select[Any]:
    tasks = schema.tasks
    joined = select(tasks).join(schema.conversations, schema.conversations.c.id == tasks.c.conversation_id)
    return joined.where(_visible_to(principal))


def _visible_to(principal: Principal) -> ColumnElement[bool]:
    audience = principal.reading_along
    if audience is None:
        return _readable_by(principal.user_id)
    if audience.users is None:
        return or_(schema.conversations.c.visibility == "shared", schema.conversations.c.id == audience.conversation_id)
    return and_(_readable_by(principal.user_id), *(_readable_by(user) for user in sorted(audience.users)))


def _readable_by(user_id: UUID) -> ColumnElement[bool]:
    conversation, member = schema.conversations.c, schema.conversation_members.c
    is_member = exists().where(member.conversation_id == conversation.id, member.user_id == user_id)
    return or_(conversation.visibility == "shared", conversation.owner_id == user_id, is_member)


def _task_conditions(where: TaskFilter) -> list[ColumnElement[bool]]:
    task = schema.tasks.c
    conditions: list[ColumnElement[bool]] = []
    if where.statuses:
        conditions.append(task.status.in_(sorted(where.statuses)))
    if where.assignee_id:
        conditions.append(task.assignee_id == where.assignee_id)
    for word in where.query.split():
        conditions.append(or_(*(column.icontains(word, autoescape=True) for column in (task.ref, task.title, task.description))))
    return conditions
