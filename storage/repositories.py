"""The core's repositories over one open transaction."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import cache, lru_cache
from typing import Any, Literal, TypeVar
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Column,
    ColumnElement,
    Double,
    Executable,
    Integer,
    Select,
    Table,
    Text,
    Update,
    Uuid,
    and_,
    bindparam,
    case,
    cast,
    collate,
    delete,
    exists,
    func,
    insert,
    literal,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from core.access import Principal
from core.errors import Conflict, NotFound
from core.models import (
    JSON,
    TASK_KEYS,
    AgentStatus,
    Approval,
    ApprovalStatus,
    Attachment,
    Conversation,
    InboxEntry,
    InboxKey,
    Link,
    LinkPurpose,
    Message,
    MessageStatus,
    ModelCall,
    ModelPause,
    Project,
    Role,
    Session,
    SignInAttempt,
    Step,
    Summary,
    Task,
    TaskChange,
    TaskStatus,
    Token,
    TokenUsage,
    ToolCall,
    ToolRequest,
    TurnStatus,
    UsageEntry,
    User,
    WorkerInfo,
)
from core.ports import ChangedTask, Draft, Extent, Lease, TaskFilter, UsageSum
from core.usage import total
from storage import schema
from storage.engine import AnyConnection
from storage.prepared import Prepared, among
from storage.rows import dump, load
from storage.sqlite import LONG

_T = TypeVar("_T")
_FIRST_TASK_NUMBER = 1
_NANO = 1_000_000_000
_NO_ITEMS: ColumnElement[str] = literal_column("'[]'")
_OF_PEOPLE = (
    schema.turns.c.author_id,
    schema.tasks.c.assignee_id,
    schema.tasks.c.creator_id,
    schema.conversations.c.owner_id,
    schema.messages.c.author_id,
    schema.task_changes.c.user_id,
    schema.approvals.c.decided_by,
    schema.bindings.c.bound_by,
    schema.identities.c.user_id,
    schema.usage.c.user_id,
    schema.inbox.c.user_id,
)
"""The columns that name a user who did or has something, in the order in which transactions hold the rows."""
_TASK_TEXTS = (schema.tasks.c.ref, schema.tasks.c.title, schema.tasks.c.description)


class Repository:
    """Queries over one connection."""

    def __init__(self, connection: AnyConnection, now: datetime) -> None:
        self._connection = connection
        self._now = now

    async def _run(self, statement: Prepared, **values: Any) -> list[Mapping[str, Any]]:
        """The rows that it gives."""
        return await statement.run(self._connection, values)

    async def _one(self, kind: type[_T], query: Select[Any] | Prepared, **values: Any) -> _T | None:
        return next(iter(await self._all(kind, query, **values)), None)

    async def _all(self, kind: type[_T], query: Select[Any] | Prepared, **values: Any) -> list[_T]:
        if isinstance(query, Prepared):
            return await query.load(self._connection, kind, values)
        return [load(kind, row) for row in (await self._connection.execute(query, values)).mappings()]

    async def _search(self, kind: type[_T], query: Select[Any], **values: Any) -> list[_T]:
        """Like `_all`, for what may go through much of the database."""
        return [load(kind, row) for row in (await self._connection.execute(query, values, execution_options=LONG)).mappings()]

    def _has_words(self, query: str, *columns: Column[str]) -> list[ColumnElement[bool]]:
        """For each of the words, whether one of the columns has it, ignoring case."""
        return [or_(*(_contains(self._connection.dialect.name, column, word) for column in columns)) for word in query.split()]

    async def _insert(self, table: Table, row: dict[str, Any]) -> None:
        await self._run(insert_into(table, *row), **row)

    async def _add_if_new(self, table: Table, row: dict[str, Any]) -> bool:
        """False where its key is there already."""
        return bool(await self._run(_insert_if_new(table, self._connection.dialect.name, *row), **row))

    async def _change(self, table: Table, row_id: UUID, changes: dict[str, Any]) -> None:
        await self._run(_change_of(table, *changes), row_id=row_id, **changes)

    async def _change_many(self, table: Table, rows: Sequence[dict[str, Any]]) -> None:
        """Rows with the same columns, each with its `row_id`."""
        await _change_of(table, *(name for name in rows[0] if name != "row_id")).run_many(self._connection, rows)

    async def _upsert(self, table: Table, values: dict[str, Any]) -> None:
        keys = [column.name for column in table.primary_key]
        rest = {name: value for name, value in values.items() if name not in keys}
        insertion = conflict_aware_insert(table, self._connection.dialect.name).values(**values)
        await self._connection.execute(insertion.on_conflict_do_update(index_elements=keys, set_=rest))


def _contains(dialect: str, column: Column[str], word: str) -> ColumnElement[bool]:
    """As fast as each database can: SQLite's own LIKE knows the two cases of ASCII's letters only, and so does PostgreSQL's with "C"."""
    if dialect == "sqlite" and not word.isascii():
        return func.instr(func.casefold(column), word.casefold()) > 0
    looked_through: ColumnElement[str] = collate(column, "C") if dialect == "postgresql" and word.isascii() else column
    return looked_through.icontains(word, autoescape=True)


@cache
def insert_into(table: Table, *columns: str) -> Prepared:
    return Prepared(insert(table), *columns)


@cache
def _insert_if_new(table: Table, dialect: str, *columns: str) -> Prepared:
    """Gives a row where it was new."""
    return Prepared(conflict_aware_insert(table, dialect).on_conflict_do_nothing().returning(literal_column("1")), *columns)


def conflict_aware_insert(table: Table, dialect: str) -> sqlite.Insert | postgresql.Insert:
    """An insert that knows ON CONFLICT, which SQLAlchemy has for each dialect apart."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


@cache
def row_of(table: Table) -> Prepared:
    return Prepared(row_query(table))


def row_query(table: Table) -> Select[Any]:
    return select(table).where(table.c.id == bindparam("row_id"))


@cache
def rows_among(column: Column[Any], *order: Column[Any], leave_out: str = "") -> Prepared:
    """Those whose `column` is among `keys`, in an order."""
    columns = (each for each in column.table.c if each.name != leave_out)
    return Prepared(select(*columns).where(among(column)).order_by(*order))


@cache
def _change_of(table: Table, *columns: str) -> Prepared:
    return Prepared(_update_of(table), *columns)


def _update_of(table: Table) -> Update:
    changed = update(table).where(table.c.id == bindparam("row_id"))
    return changed.values(revision=table.c.revision + 1) if table is schema.messages else changed


class Users(Repository):
    async def add(self, user: User) -> None:
        await self._insert(schema.users, dump(user))

    async def get(self, user_id: UUID) -> User | None:
        return await self._one(User, row_of(schema.users), row_id=user_id)

    async def by_name(self, name: str) -> User | None:
        return await self._one(User, _user_named(), name=name)

    async def all(self) -> list[User]:
        return await self._all(User, select(schema.users).order_by(schema.users.c.id))

    async def page(self, query: str, *, after: UUID | None, limit: int) -> list[User]:
        return await self._all(User, _users_named(query, after, limit).where(schema.users.c.disabled_at.is_(None)))

    async def everybody(self, query: str, *, after: UUID | None, limit: int) -> list[User]:
        return await self._all(User, _users_named(query, after, limit))

    async def hold(self, user_id: UUID) -> User | None:
        return await self._one(User, row_query(schema.users).with_for_update(key_share=True), row_id=user_id)

    async def is_busy(self, user_id: UUID) -> bool:
        turn = schema.turns.c
        unfinished = turn.status.in_([literal_column(f"'{status}'") for status in TurnStatus if not status.finished])
        found = await self._connection.execute(select(turn.id).where(turn.author_id == user_id, unfinished).limit(1))
        return found.first() is not None

    async def readable_by(self, user_id: UUID, *, limit: int) -> list[UUID]:
        conversation, member = schema.conversations.c, schema.conversation_members.c
        is_member = exists().where(member.conversation_id == conversation.id, member.user_id == user_id)
        found = select(conversation.id).where(or_(conversation.owner_id == user_id, is_member))
        newest_first = (conversation.updated_at.desc(), conversation.id.desc())
        return list((await self._connection.execute(found.order_by(*newest_first).limit(limit), execution_options=LONG)).scalars())

    async def merge(self, user_id: UUID, into: UUID) -> None:
        for column in _OF_PEOPLE:
            await self._do(update(column.table).where(column == user_id).values({column.name: into}))
        await self._merge_members(user_id, into)
        await self._merge_read_marks(user_id, into)
        await self._merge_keys(user_id, into)
        try:
            await self._do(delete(schema.users).where(schema.users.c.id == user_id))
        except IntegrityError:
            raise Conflict("Something was said with this account at this very moment. Do it again.") from None

    async def _merge_members(self, user_id: UUID, into: UUID) -> None:
        member, conversation = schema.conversation_members, schema.conversations.c
        by_another = (member.c.user_id == user_id, conversation.owner_id != into)
        joined = select(member.c.conversation_id, literal(into, Uuid)).join(schema.conversations).where(*by_another)
        insertion = conflict_aware_insert(member, self._connection.dialect.name).from_select(["conversation_id", "user_id"], joined)
        await self._do(insertion.on_conflict_do_nothing())

    async def _merge_read_marks(self, user_id: UUID, into: UUID) -> None:
        mark = schema.read_marks
        read = select(mark.c.conversation_id, literal(into, Uuid), mark.c.seq).where(mark.c.user_id == user_id)
        insertion = conflict_aware_insert(mark, self._connection.dialect.name).from_select(["conversation_id", "user_id", "seq"], read)
        seq = insertion.excluded.seq
        await self._do(insertion.on_conflict_do_update(index_elements=list(mark.primary_key), set_={"seq": seq}, where=mark.c.seq < seq))

    async def _merge_keys(self, user_id: UUID, into: UUID) -> None:
        """Where both used the same key, what the one made by it is not known by it any more."""
        entry, same = schema.inbox.c, schema.inbox.alias().c
        is_taken = exists().where(same.source == entry.source, same.scope == str(into), same.event_id == entry.event_id)
        await self._do(delete(schema.inbox).where(entry.scope == str(user_id), is_taken))
        await self._do(update(schema.inbox).where(entry.scope == str(user_id)).values(scope=str(into)))

    async def _do(self, statement: Executable) -> None:
        await self._connection.execute(statement, execution_options=LONG)

    async def hold_admins(self) -> list[User]:
        table = schema.users
        return await self._all(User, select(table).where(table.c.admin).order_by(table.c.id).with_for_update(key_share=True))

    async def password_hash(self, user_id: UUID) -> str | None:
        query = select(schema.users.c.password_hash).where(schema.users.c.id == user_id)
        found: str | None = (await self._connection.execute(query)).scalar_one_or_none()
        return found

    async def set_password(self, user_id: UUID, hashed: str, at: datetime) -> None:
        await self._change(schema.users, user_id, {"password_hash": hashed, "password_set_at": at})

    async def set_disabled(self, user_id: UUID, at: datetime | None) -> None:
        await self._change(schema.users, user_id, {"disabled_at": at})

    async def set_admin(self, user_id: UUID, admin: bool) -> None:
        await self._change(schema.users, user_id, {"admin": admin})

    async def names(self, user_ids: Collection[UUID]) -> dict[UUID, str]:
        found = await self._run(rows_among(schema.users.c.id), keys=user_ids) if user_ids else []
        return {row["id"]: row["name"] for row in found}


class Sessions(Repository):
    async def add(self, session: Session, sha256: str) -> None:
        await self._insert(schema.sessions, {**dump(session), "sha256": sha256})

    async def by_sha256(self, sha256: str) -> Session | None:
        return await self._one(Session, _of_secret(schema.sessions), sha256=sha256)

    async def remove(self, sha256: str) -> None:
        await self._connection.execute(delete(schema.sessions).where(schema.sessions.c.sha256 == sha256))

    async def remove_of(self, user_id: UUID) -> None:
        await self._connection.execute(delete(schema.sessions).where(schema.sessions.c.user_id == user_id))


class Links(Repository):
    async def add(self, link: Link, sha256: str) -> None:
        await self._insert(schema.links, {**dump(link), "sha256": sha256})

    async def by_sha256(self, sha256: str) -> Link | None:
        return await self._one(Link, _of_secret(schema.links), sha256=sha256)

    async def take(self, sha256: str, purpose: LinkPurpose) -> Link | None:
        table = schema.links
        taken = delete(table).where(table.c.sha256 == sha256, table.c.purpose == purpose).returning(*table.c)
        row = (await self._connection.execute(taken)).mappings().first()
        return None if row is None else load(Link, row)

    async def has_open(self, user_id: UUID, purpose: LinkPurpose) -> bool:
        table = schema.links
        query = select(table.c.id).where(table.c.user_id == user_id, table.c.purpose == purpose, table.c.expires_at > self._now)
        return (await self._connection.execute(query.limit(1))).first() is not None

    async def remove_of(self, user_id: UUID, purpose: LinkPurpose | None = None) -> None:
        links = schema.links.c
        these = links.user_id == user_id if purpose is None else and_(links.user_id == user_id, links.purpose == purpose)
        await self._connection.execute(delete(schema.links).where(these))


class SignInAttempts(Repository):
    async def lock(self, address: str) -> None:
        if self._connection.dialect.name == "postgresql":  # on SQLite whoever writes has locked everything
            await self._connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(address, 2))))

    async def nth_last_from(self, address: str, n: int) -> datetime | None:
        return await self._nth_last(schema.sign_in_attempts.c.address == address, n)

    async def nth_last_of(self, who: str, n: int) -> datetime | None:
        return await self._nth_last(schema.sign_in_attempts.c.who == who, n)

    async def add(self, attempt: SignInAttempt) -> None:
        await self._insert(schema.sign_in_attempts, dump(attempt))

    async def forget(self, who: str) -> None:
        await self._connection.execute(delete(schema.sign_in_attempts).where(schema.sign_in_attempts.c.who == who))

    async def _nth_last(self, condition: ColumnElement[bool], n: int) -> datetime | None:
        at = schema.sign_in_attempts.c.at
        query = select(at).where(condition).order_by(at.desc()).offset(n - 1).limit(1)
        found: datetime | None = (await self._connection.execute(query)).scalar_one_or_none()
        return found


class Tokens(Repository):
    async def add(self, token: Token, sha256: str) -> None:
        await self._insert(schema.tokens, {**dump(token), "sha256": sha256})

    async def by_sha256(self, sha256: str) -> Token | None:
        return await self._one(Token, _of_secret(schema.tokens), sha256=sha256)

    async def of_user(self, user_id: UUID) -> list[Token]:
        return await self._all(Token, select(schema.tokens).where(schema.tokens.c.user_id == user_id).order_by(schema.tokens.c.id))

    async def revoke(self, token_id: UUID, at: datetime) -> None:
        await self._connection.execute(update(schema.tokens).where(schema.tokens.c.id == token_id).values(revoked_at=at))


class Projects(Repository):
    async def add(self, project: Project) -> None:
        await self._insert(schema.projects, {**dump(project), "next_task_number": _FIRST_TASK_NUMBER})

    async def get(self, project_id: UUID) -> Project | None:
        return await self._one(Project, row_of(schema.projects), row_id=project_id)

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
        return await self._visible(schema.tasks.c.id, task_id, principal)

    async def by_ref(self, ref: str, principal: Principal) -> Task | None:
        return await self._visible(schema.tasks.c.ref, ref.upper(), principal)

    async def of_conversation(self, conversation_id: UUID) -> Task | None:
        return await self._one(Task, _task_of(), conversation=conversation_id)

    async def of_conversations(self, conversation_ids: Collection[UUID]) -> list[Task]:
        return await self._all(Task, rows_among(schema.tasks.c.conversation_id), keys=conversation_ids)

    async def page(self, principal: Principal, where: TaskFilter, *, after: UUID | None, limit: int) -> list[Task]:
        return await self._listed(_asked("newest", where, limit, after), principal, where, behind=after)

    async def last_changed(self, principal: Principal, where: TaskFilter, *, after: ChangedTask | None, limit: int) -> list[Task]:
        at, behind = after or (None, None)
        return await self._listed(_asked("last changed", where, limit, after), principal, where, at=at, behind=behind)

    async def count(self, principal: Principal, where: TaskFilter, *, at_most: int | None = None) -> int:
        asked, values = _asked("counted", where, at_most), _task_values(principal, where)
        if at_most is not None and _is_quick(principal, where):
            return int((await self._run(_task_list(asked), **values))[0]["number"])
        query = _tasks_asked(asked, visible_to(principal), *self._has_words(where.query, *_TASK_TEXTS))
        return int((await self._connection.execute(query, values, execution_options=LONG)).scalar_one())

    async def _listed(self, asked: "_Asked", principal: Principal, where: TaskFilter, **place: Any) -> list[Task]:
        values = {**_task_values(principal, where), **place}
        if _is_quick(principal, where):
            return await self._all(Task, _task_list(asked), **values)
        query = _tasks_asked(asked, visible_to(principal), *self._has_words(where.query, *_TASK_TEXTS))
        return await self._search(Task, query, **values)

    async def _visible(self, column: Column[Any], key: UUID | str, principal: Principal) -> Task | None:
        if principal.reading_along is None:
            return await self._one(Task, _readable_task(column), key=key, reader=principal.user_id)
        return await self._one(Task, _tasks_of(visible_to(principal)).where(column == key))

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
        gone = delete(schema.conversations).where(schema.conversations.c.id.in_(conversation))
        await self._connection.execute(gone, execution_options=LONG)


class TaskChanges(Repository):
    async def add(self, *changes: TaskChange) -> None:
        rows = [dump(change) for change in changes]
        await insert_into(schema.task_changes, *rows[0]).run_many(self._connection, rows)

    async def page(self, task_id: UUID, *, before: UUID | None, limit: int) -> list[TaskChange]:
        table = schema.task_changes
        query = select(table).where(table.c.task_id == task_id)
        if before is not None:
            query = query.where(table.c.id < before)
        return await self._all(TaskChange, query.order_by(table.c.id.desc()).limit(limit))


class Conversations(Repository):
    async def add(self, conversation: Conversation) -> None:
        await self._insert(schema.conversations, dump(conversation, "task_id", "task_ref", "project_model"))

    async def get(self, conversation_id: UUID, principal: Principal) -> Conversation | None:
        if principal.reading_along is None:
            return await self._one(Conversation, _readable_conversation(), row_id=conversation_id, reader=principal.user_id)
        query = _conversations().where(schema.conversations.c.id == conversation_id, visible_to(principal))
        return await self._one(Conversation, query)

    async def find(self, conversation_id: UUID) -> Conversation | None:
        return await self._one(Conversation, _conversation(), row_id=conversation_id)

    async def of_ids(self, conversation_ids: Collection[UUID]) -> list[Conversation]:
        return await self._all(Conversation, _conversations_among(), keys=list(conversation_ids))

    async def readable(self, conversation_ids: Collection[UUID], principal: Principal) -> list[Conversation]:
        return await self._all(Conversation, _conversations_among().where(visible_to(principal)), keys=list(conversation_ids))

    async def page(self, principal: Principal, *, archived: bool = False, limit: int, offset: int) -> list[Conversation]:
        newest_first = (schema.conversations.c.updated_at.desc(), schema.conversations.c.id.desc())
        listed = _conversations().where(visible_to(principal), _is_archived(archived))
        return await self._all(Conversation, listed.order_by(*newest_first).limit(limit).offset(offset))

    async def count(self, principal: Principal, *, archived: bool = False) -> int:
        query = select(func.count()).select_from(schema.conversations).where(visible_to(principal), _is_archived(archived))
        return int((await self._connection.execute(query)).scalar_one())

    async def search(self, principal: Principal, query: str, *, limit: int) -> list[Conversation]:
        conversation, ref = schema.conversations.c, schema.tasks.c.ref
        best_first = (case((ref == query.upper(), 0), else_=1), conversation.updated_at.desc(), conversation.id.desc())
        has_words = self._has_words(query, conversation.title, ref)
        found = _conversations().where(visible_to(principal), *has_words).order_by(*best_first).limit(limit)
        return await self._search(Conversation, found)

    async def active(self, principal: Principal, *, limit: int) -> list[Conversation]:
        listed = _conversations().where(visible_to(principal), _is_active(), _is_archived(False))
        return await self._all(Conversation, listed.order_by(schema.conversations.c.updated_at.desc()).limit(limit))

    async def agent_statuses(self, conversation_ids: Collection[UUID]) -> dict[UUID, AgentStatus]:
        found = await self._run(_agent_statuses(), keys=conversation_ids) if conversation_ids else []
        return {row["id"]: AgentStatus(row["agent_status"]) for row in found}

    async def update(self, conversation_id: UUID, **changes: Any) -> None:
        await self._change(schema.conversations, conversation_id, {"updated_at": self._now, **changes})

    async def say(self, messages: Mapping[UUID, str], status: AgentStatus) -> None:
        what = {"agent_status": status, "updated_at": self._now}
        rows = [{"row_id": each, "agent_status_message": message, **what} for each, message in messages.items()]
        await self._change_many(schema.conversations, rows)

    async def take_seqs(self, conversation_id: UUID, number: int, **changes: Any) -> int:
        values = {"number": number, "updated_at": self._now, **changes}
        taken = await self._run(_take_seqs("updated_at", *changes), row_id=conversation_id, **values)
        if not taken:
            raise NotFound(f"There is no conversation {conversation_id}.")
        return int(taken[0]["next_seq"]) - number

    async def add_member(self, conversation_id: UUID, user_id: UUID) -> None:
        await self._add_if_new(schema.conversation_members, {"conversation_id": conversation_id, "user_id": user_id})

    async def members(self, conversation_id: UUID) -> frozenset[UUID]:
        table = schema.conversation_members
        found = await self._connection.execute(select(table.c.user_id).where(table.c.conversation_id == conversation_id))
        return frozenset(found.scalars())

    async def members_of(self, conversation_ids: Collection[UUID]) -> dict[UUID, frozenset[UUID]]:
        column = schema.conversation_members.c.conversation_id
        members: defaultdict[UUID, set[UUID]] = defaultdict(set)
        for row in await self._run(rows_among(column), keys=conversation_ids):
            members[row["conversation_id"]].add(row["user_id"])
        return {conversation_id: frozenset(users) for conversation_id, users in members.items()}

    async def delete(self, conversation_id: UUID) -> None:
        gone = delete(schema.conversations).where(schema.conversations.c.id == conversation_id)
        await self._connection.execute(gone, execution_options=LONG)

    async def unused_since(self, moment: datetime, *, after: UUID | None, limit: int) -> list[Conversation]:
        query = _conversations().where(_unused_since(moment)).order_by(schema.conversations.c.id).limit(limit)
        if after is not None:
            query = query.where(schema.conversations.c.id > after)
        return await self._all(Conversation, query.with_for_update(skip_locked=True, of=schema.conversations))

    async def count_unused_since(self, moment: datetime) -> int:
        query = select(func.count()).select_from(schema.conversations).where(_unused_since(moment))
        return int((await self._connection.execute(query)).scalar_one())


class ReadMarks(Repository):
    async def advance(self, conversation_id: UUID, user_id: UUID, seq: int) -> bool:
        advanced = _advance(self._connection.dialect.name)
        return bool(await self._run(advanced, conversation_id=conversation_id, user_id=user_id, seq=seq))

    async def set_back(self, conversation_id: UUID, seq: int) -> list[UUID]:
        mark = schema.read_marks
        further = update(mark).where(mark.c.conversation_id == conversation_id, mark.c.seq > seq).values(seq=seq)
        return list((await self._connection.execute(further.returning(mark.c.user_id))).scalars())

    async def of_user(self, user_id: UUID, conversation_ids: Collection[UUID]) -> dict[UUID, int]:
        found = await self._run(_read_marks(), reader=user_id, keys=conversation_ids) if conversation_ids else []
        return {row["conversation_id"]: row["seq"] for row in found}


class Messages(Repository):
    async def add(self, *messages: Message) -> None:
        rows = [dump(message) for message in messages]
        await insert_into(schema.messages, *rows[0]).run_many(self._connection, rows)

    async def get(self, message_id: UUID) -> Message | None:
        return await self._one(Message, row_of(schema.messages), row_id=message_id)

    async def of_ids(self, message_ids: Collection[UUID]) -> list[Message]:
        return await self._all(Message, rows_among(schema.messages.c.id), keys=message_ids)

    async def update(self, message_id: UUID, **changes: Any) -> None:
        await self._change(schema.messages, message_id, {"updated_at": self._now, **changes})

    async def set_status(self, message_ids: Collection[UUID], status: MessageStatus) -> None:
        rows = [{"row_id": each, "status": status, "updated_at": self._now} for each in message_ids]
        await self._change_many(schema.messages, rows)

    async def complete(self, message_id: UUID, reply_id: UUID, content: str, metadata: JSON) -> None:
        values = {"message": message_id, "reply": reply_id, "text": content, "about": metadata, "updated_at": self._now}
        await self._run(_complete(), **values)

    async def page(self, conversation_id: UUID, *, before: int | None = None, limit: int) -> list[Message]:
        table = schema.messages
        query = select(table).where(table.c.conversation_id == conversation_id)
        if before is not None:
            query = query.where(table.c.seq < before)
        return (await self._all(Message, query.order_by(table.c.seq.desc()).limit(limit)))[::-1]

    async def since(self, conversation_id: UUID, seq: int, *, limit: int | None = None) -> list[Message]:
        if limit is None:
            return await self._all(Message, _messages_since(), conversation=conversation_id, first=seq)
        return await self._all(Message, _first_messages_since(), conversation=conversation_id, first=seq, at_most=limit)

    async def extents(self, conversation_ids: Collection[UUID]) -> dict[UUID, Extent]:
        found = await self._run(_extents(), keys=conversation_ids) if conversation_ids else []
        return {row["id"]: Extent(row["number"], row["last_seq"]) for row in found}

    async def search(self, principal: Principal, query: str, *, limit: int) -> list[Message]:
        table = schema.messages
        found = (
            select(table)
            .join(schema.conversations, schema.conversations.c.id == table.c.conversation_id)
            .where(visible_to(principal), *self._has_words(query, table.c.content))
            .where(table.c.deleted_at.is_(None), table.c.role != Role.SYSTEM)
            .order_by(table.c.id.desc())
            .limit(limit)
        )
        return await self._search(Message, found)

    async def save_drafts(self, drafts: Iterable[Draft]) -> list[Draft]:
        saved = []
        for draft in drafts:
            turns = schema.turns.c
            still_ours = select(turns.id).where(
                turns.id == draft.lease.turn_id,
                turns.lease_token == draft.lease.token,
                turns.status == TurnStatus.RUNNING,
                turns.stream_no == draft.stream_no,
            )
            # Locked, or a draft that waits for the reply's end would be written over its text.
            held = exists(still_ours.with_for_update(read=True, skip_locked=True))
            table = schema.messages
            written = await self._connection.execute(update(table).where(table.c.id == draft.reply_id, held).values(content=draft.text))
            if written.rowcount:
                saved.append(draft)
        return saved


class Summaries(Repository):
    async def add(self, summary: Summary) -> None:
        await self._insert(schema.summaries, dump(summary))

    async def latest(self, conversation_id: UUID, *, upto: int | None = None) -> Summary | None:
        table = schema.summaries
        query = select(table).where(table.c.conversation_id == conversation_id).order_by(table.c.covers_to.desc()).limit(1)
        return await self._one(Summary, query if upto is None else query.where(table.c.covers_to <= upto))

    async def discard(self, conversation_id: UUID, seq: int) -> bool:
        table = schema.summaries
        telling = and_(table.c.conversation_id == conversation_id, table.c.covers_to >= seq)
        return (await self._connection.execute(delete(table).where(telling))).rowcount > 0


class Attachments(Repository):
    async def add(self, attachment: Attachment, data: bytes) -> None:
        row = {**dump(attachment), "data": data}
        await self._connection.execute(insert(schema.attachments), row, execution_options=LONG)

    async def get(self, attachment_id: UUID) -> Attachment | None:
        return await self._one(Attachment, _but_data().where(schema.attachments.c.id == attachment_id))

    async def data(self, attachment_id: UUID) -> bytes:
        query = select(schema.attachments.c.data).where(schema.attachments.c.id == attachment_id)
        return bytes((await self._connection.execute(query, execution_options=LONG)).scalar_one())

    async def head(self, attachment_id: UUID, size: int) -> bytes:
        query = select(func.substr(schema.attachments.c.data, 1, size)).where(schema.attachments.c.id == attachment_id)
        return bytes((await self._connection.execute(query)).scalar_one())

    async def of_messages(self, message_ids: Collection[UUID]) -> list[Attachment]:
        table = schema.attachments.c
        return await self._all(Attachment, rows_among(table.message_id, table.id, leave_out="data"), keys=message_ids)

    async def remove_of_message(self, message_id: UUID) -> None:
        await self._connection.execute(delete(schema.attachments).where(schema.attachments.c.message_id == message_id))


class Steps(Repository):
    async def add(self, step: Step) -> bool:
        requests = [dump(request) for request in step.tool_requests]
        values = {**dump(step, "usage", "tool_requests"), **dump(step.usage), "tool_requests": requests}
        return await self._add_if_new(schema.steps, values)

    async def of_turns(self, turn_ids: Collection[UUID], *, plain: bool = True) -> list[Step]:
        return [self._load(row) for row in await self._run(_steps(plain=plain), keys=turn_ids)]

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
        table = schema.tool_calls.c
        in_order = rows_among(table.turn_id, table.turn_id, table.step, table["index"])
        return await self._all(ToolCall, in_order, keys=turn_ids)


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
        return None if await self._add_if_new(schema.inbox, row) else await self._get(entry.key)

    async def _get(self, key: InboxKey) -> InboxEntry | None:
        row = (await self._connection.execute(select(schema.inbox).where(self._is(key)))).mappings().first()
        return None if row is None else InboxEntry(key=key, body_sha256=row["body_sha256"], result=row["result"])

    async def nth_last(self, user_id: UUID, n: int, *, since: datetime) -> datetime | None:
        found = await self._run(_nth_last_received(), user=user_id, since=since, skipped=n - 1)
        return found[0]["received_at"] if found else None

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

    async def sums(self, since: datetime, *, user_id: UUID | None) -> list[UsageSum]:
        table = schema.usage.c
        return await self._sums(table.at >= since, *([] if user_id is None else [table.user_id == user_id]))

    async def sums_of_conversation(self, conversation_id: UUID) -> list[UsageSum]:
        return await self._sums(schema.usage.c.conversation_id == conversation_id)

    async def _sums(self, *conditions: ColumnElement[bool]) -> list[UsageSum]:
        query = _usage_sums(self._connection.dialect.name).where(*conditions)
        found = await self._connection.execute(query, execution_options=LONG)
        return [UsageSum(date.fromisoformat(row["day"]), row["model"], self._usage(row)) for row in found.mappings()]

    @staticmethod
    def _usage(row: Any) -> TokenUsage:
        return TokenUsage(
            tokens_in=int(row["tokens_in"]),
            tokens_out=int(row["tokens_out"]),
            tokens_cached=int(row["tokens_cached"]),
            cost=Decimal(int(row["nano_dollars"])) / _NANO if row["priced"] == row["entries"] else None,
            estimated=bool(row["guessed"]),
        )


class ModelPauses(Repository):
    async def get(self, model: str) -> ModelPause | None:
        return await self._one(ModelPause, _pause(), model=model)

    async def all(self) -> list[ModelPause]:
        return await self._all(ModelPause, select(schema.model_pauses).order_by(schema.model_pauses.c.model))

    async def lock_all(self) -> list[ModelPause]:
        return await self._all(ModelPause, _pauses())

    async def hold(self, model: str) -> ModelPause | None:
        if self._connection.dialect.name == "postgresql":  # where there is no row yet, there is none to lock
            await self._connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(model, 0))))
        return await self.get(model)

    async def put(self, pause: ModelPause) -> None:
        await self._upsert(schema.model_pauses, dump(pause))

    async def remove(self, model: str) -> None:
        await self._connection.execute(delete(schema.model_pauses).where(schema.model_pauses.c.model == model))


class ModelRequests(Repository):
    async def begin(self, request: ModelCall) -> None:
        await self._insert(schema.model_requests, dump(request))

    async def end(self, lease: Lease, at: datetime) -> None:
        table = schema.model_requests
        of_lease = (table.c.turn_id == lease.turn_id, table.c.lease_token == lease.token, table.c.ended_at.is_(None))
        await self._connection.execute(update(table).where(*of_lease).values(ended_at=at))

    async def lock(self, model: str) -> None:
        if self._connection.dialect.name == "postgresql":  # on SQLite whoever writes has locked everything
            await self._connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(model, 1))))

    async def open_count(self, model: str) -> int:
        table, turns = schema.model_requests, schema.turns
        still_runs = and_(turns.c.id == table.c.turn_id, turns.c.lease_token == table.c.lease_token, turns.c.status == TurnStatus.RUNNING)
        query = select(func.count()).select_from(table).join(turns, still_runs).where(table.c.model == model, table.c.ended_at.is_(None))
        return int((await self._connection.execute(query)).scalar_one())

    async def nth_last(self, model: str, n: int) -> datetime | None:
        table = schema.model_requests
        query = select(table.c.at).where(table.c.model == model).order_by(table.c.at.desc()).offset(n - 1).limit(1)
        found: datetime | None = (await self._connection.execute(query)).scalar_one_or_none()
        return found

    async def counts(self, since: datetime) -> dict[str, int]:
        table = schema.model_requests
        query = select(table.c.model, func.count()).where(table.c.at > since).group_by(table.c.model)
        return {row[0]: row[1] for row in await self._connection.execute(query)}


class Workers(Repository):
    async def beat(self, worker: WorkerInfo) -> None:
        await self._upsert(schema.workers, dump(worker))

    async def remove(self, worker_id: UUID) -> None:
        await self._connection.execute(delete(schema.workers).where(schema.workers.c.id == worker_id))

    async def alive(self, since: datetime) -> list[WorkerInfo]:
        table = schema.workers
        return await self._all(WorkerInfo, select(table).where(table.c.heartbeat_at > since).order_by(table.c.id))


@cache
def _user_named() -> Prepared:
    same = func.lower(schema.users.c.name) == func.lower(bindparam("name", type_=Text))  # both by the database: SQLite's knows ASCII only
    return Prepared(select(schema.users).where(same))


def _users_named(query: str, after: UUID | None, limit: int) -> Select[Any]:
    table = schema.users
    found = select(table).where(table.c.name.icontains(query, autoescape=True))
    if after is not None:
        found = found.where(table.c.id > after)
    return found.order_by(table.c.id).limit(limit)


@cache
def _task_of() -> Prepared:
    return Prepared(select(schema.tasks).where(schema.tasks.c.conversation_id == bindparam("conversation")))


@cache
def _of_secret(table: Table) -> Prepared:
    return Prepared(select(table).where(table.c.sha256 == bindparam("sha256")))


def _conversation_query() -> Select[Any]:
    return _conversations().where(schema.conversations.c.id == bindparam("row_id"))


@cache
def _conversation() -> Prepared:
    return Prepared(_conversation_query())


@cache
def _extents() -> Prepared:
    conversation, message = schema.conversations.c, schema.messages.c
    here = message.conversation_id == conversation.id
    # By the indexes alone, however long a conversation is: all of them, less the few that were deleted.
    is_changed = or_(message.edited_at.is_not(None), message.deleted_at.is_not(None))  # written as in the index of such messages
    number = select(func.count()).select_from(schema.messages).where(here).scalar_subquery()
    gone = select(func.count()).select_from(schema.messages).where(here, is_changed, message.deleted_at.is_not(None)).scalar_subquery()
    is_finished = message.status.in_([literal_column(f"'{status}'") for status in MessageStatus if status.finished])
    is_settled = message.seq < func.coalesce(_oldest_unfinished(), conversation.next_seq)
    is_said = message.role != literal_column(f"'{Role.SYSTEM}'")
    finished = select(message.seq).where(here, message.deleted_at.is_(None), is_said, is_finished, is_settled).order_by(message.seq.desc())
    last_seq = func.coalesce(finished.limit(literal_column("1")).scalar_subquery(), literal_column("0"))
    return Prepared(select(conversation.id, (number - gone).label("number"), last_seq.label("last_seq")).where(among(conversation.id)))


def _oldest_unfinished() -> ColumnElement[int]:
    turn = schema.turns.c
    is_unfinished = turn.status.in_([literal_column(f"'{status}'") for status in TurnStatus if not status.finished])
    seq: ColumnElement[int] = (
        select(func.min(turn.seq))
        .where(turn.conversation_id == schema.conversations.c.id, is_unfinished)
        .correlate(schema.conversations)
        .scalar_subquery()
    )
    return seq


@cache
def _advance(dialect: str) -> Prepared:
    """Gives a row where the mark is new or went on."""
    insertion = conflict_aware_insert(schema.read_marks, dialect)
    is_further = schema.read_marks.c.seq < insertion.excluded.seq
    further = insertion.on_conflict_do_update(
        index_elements=list(schema.read_marks.primary_key), set_={"seq": insertion.excluded.seq}, where=is_further
    )
    return Prepared(further.returning(literal_column("1")), "conversation_id", "user_id", "seq")


@cache
def _read_marks() -> Prepared:
    mark = schema.read_marks.c
    of_reader = mark.user_id == bindparam("reader", type_=Uuid)
    return Prepared(select(mark.conversation_id, mark.seq).where(of_reader, among(mark.conversation_id)))


@cache
def _conversations_among() -> Select[Any]:
    return _conversations().where(schema.conversations.c.id.in_(bindparam("keys", expanding=True)))


@cache
def _agent_statuses() -> Prepared:
    table = schema.conversations.c
    return Prepared(select(table.id, table.agent_status).where(among(table.id), _is_active()))


@cache
def _readable_conversation() -> Prepared:
    return Prepared(_conversation_query().where(_readable_by(bindparam("reader", type_=Uuid))))


@cache
def _take_seqs(*columns: str) -> Prepared:
    table = schema.conversations
    taken = _update_of(table).values(next_seq=table.c.next_seq + bindparam("number", type_=Integer))
    return Prepared(taken.returning(table.c.next_seq), *columns)


@cache
def _complete() -> Prepared:
    table = schema.messages
    is_reply = table.c.id == bindparam("reply")
    return Prepared(
        update(table)
        .where(or_(is_reply, table.c.id == bindparam("message")))
        .values(
            status=MessageStatus.COMPLETED,
            revision=table.c.revision + 1,
            content=case((is_reply, bindparam("text", type_=Text)), else_=table.c.content),
            metadata=case((is_reply, bindparam("about", type_=table.c.metadata.type)), else_=table.c.metadata),
        ),
        "updated_at",
    )


@cache
def _messages_since() -> Prepared:
    return Prepared(_since())


@cache
def _first_messages_since() -> Prepared:
    return Prepared(_since().limit(bindparam("at_most")))


def _since() -> Select[Any]:
    table = schema.messages
    of_conversation = (table.c.conversation_id == bindparam("conversation"), table.c.seq >= bindparam("first"))
    return select(table).where(*of_conversation).order_by(table.c.seq)


def _but_data() -> Select[Any]:
    return select(*(column for column in schema.attachments.c if column.name != "data"))


@cache
def _steps(*, plain: bool) -> Prepared:
    step = schema.steps.c
    found = select(schema.steps).where(among(step.turn_id)).order_by(step.turn_id, step.number)
    requests, thinking = cast(step.tool_requests, Text), cast(step.thinking, Text)
    more = or_(step.number > 0, requests != _NO_ITEMS, thinking != _NO_ITEMS)
    return Prepared(found if plain else found.where(more))


@cache
def _nth_last_received() -> Prepared:
    table = schema.inbox.c
    lately = (table.user_id == bindparam("user"), table.received_at > bindparam("since"), table.source != literal_column(f"'{TASK_KEYS}'"))
    received = select(table.received_at).where(*lately).order_by(table.received_at.desc())
    return Prepared(received.offset(bindparam("skipped")).limit(1))


@cache
def _usage_sums(dialect: str) -> Select[Any]:
    table = schema.usage.c
    in_utc = "to_char(usage.at AT TIME ZONE 'UTC', 'YYYY-MM-DD')" if dialect == "postgresql" else "substr(usage.at, 1, 10)"
    day: ColumnElement[str] = literal_column(in_utc)
    nano_dollars = cast(func.round(cast(table.cost, Double) * _NANO), BigInteger)
    return select(
        day.label("day"),
        table.model,
        func.sum(table.tokens_in).label("tokens_in"),
        func.sum(table.tokens_out).label("tokens_out"),
        func.sum(table.tokens_cached).label("tokens_cached"),
        func.coalesce(func.sum(nano_dollars), 0).label("nano_dollars"),
        func.count(table.cost).label("priced"),
        func.count().label("entries"),
        func.sum(cast(table.estimated, Integer)).label("guessed"),
    ).group_by(day, table.model)


@cache
def _pause() -> Prepared:
    return Prepared(select(schema.model_pauses).where(schema.model_pauses.c.model == bindparam("model")))


@cache
def _pauses() -> Prepared:
    return Prepared(select(schema.model_pauses).order_by(schema.model_pauses.c.model).with_for_update())


def _conversations() -> Select[Any]:
    tasks = schema.tasks
    columns = (tasks.c.id.label("task_id"), tasks.c.ref.label("task_ref"), schema.projects.c.model.label("project_model"))
    of_project = schema.projects.c.id == schema.conversations.c.project_id
    joined = select(*schema.conversations.c, *columns).join(schema.projects, of_project)
    return joined.outerjoin(tasks, tasks.c.conversation_id == schema.conversations.c.id)


def _unused_since(moment: datetime) -> ColumnElement[bool]:
    conversation, message, turn = schema.conversations.c, schema.messages.c, schema.turns.c
    task = schema.tasks.alias().c
    in_use = or_(task.status.not_in((TaskStatus.DONE, TaskStatus.CANCELLED)), task.updated_at >= moment)
    unfinished = turn.status.in_([status for status in TurnStatus if not status.finished])
    return and_(
        conversation.updated_at < moment,
        ~exists().where(task.conversation_id == conversation.id, in_use),
        ~exists().where(turn.conversation_id == conversation.id, unfinished),
        ~exists().where(message.conversation_id == conversation.id, message.updated_at >= moment),
    )


def _is_active() -> ColumnElement[bool]:
    """Written as in the index of such conversations."""
    return schema.conversations.c.agent_status != literal_column(f"'{AgentStatus.IDLE}'")


def _is_archived(archived: bool) -> ColumnElement[bool]:
    archived_at = schema.conversations.c.archived_at
    return archived_at.is_not(None) if archived else archived_at.is_(None)


@cache
def _readable_task(column: Column[Any]) -> Prepared:
    return Prepared(_tasks_of(_readable_by(bindparam("reader", type_=Uuid))).where(column == bindparam("key")))


def _tasks_of(visible: ColumnElement[bool], *columns: ColumnElement[Any]) -> Select[Any]:
    tasks, conversations = schema.tasks, schema.conversations
    joined = select(*(columns or tasks.c)).join_from(tasks, conversations, conversations.c.id == tasks.c.conversation_id)
    return joined.where(visible)


_How = Literal["newest", "last changed", "counted"]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What tells one statement over tasks from another; the rest are its parameters, and words to look for."""

    how: _How
    limit: int | None
    """In the statement itself: PostgreSQL plans anew each time where it knows no better than a tenth of all."""
    follows: bool
    """Whether it begins behind a place in the list."""
    statuses: frozenset[TaskStatus]
    assigned: bool
    since: bool


def _asked(how: _How, where: TaskFilter, limit: int | None, after: object = None) -> _Asked:
    statuses = frozenset(map(TaskStatus, where.statuses))
    return _Asked(how, limit, after is not None, statuses, where.assignee_id is not None, where.updated_since is not None)


def _task_values(principal: Principal, where: TaskFilter) -> dict[str, Any]:
    return {"reader": principal.user_id, "assignee": where.assignee_id, "since": where.updated_since}


def _is_quick(principal: Principal, where: TaskFilter) -> bool:
    return principal.reading_along is None and not where.query.split()


@lru_cache(maxsize=200)
def _task_list(asked: _Asked) -> Prepared:
    return Prepared(_tasks_asked(asked, _readable_by(bindparam("reader", type_=Uuid))))


def _tasks_asked(asked: _Asked, visible: ColumnElement[bool], *has_words: ColumnElement[bool]) -> Select[Any]:
    task = schema.tasks.c
    limit: ColumnElement[int] | None = None if asked.limit is None else literal_column(str(asked.limit))
    counted = _tasks_of(visible, literal_column("1")).where(*_task_conditions(asked), *has_words)
    listed = _tasks_of(visible).where(*_task_conditions(asked), *has_words, *_behind(asked))
    match asked.how:
        case "newest":
            return listed.order_by(task.id.desc()).limit(limit)
        case "last changed":
            return listed.order_by(task.updated_at.desc(), task.id.desc()).limit(limit)
        case "counted":
            return select(func.count().label("number")).select_from(counted.limit(limit).subquery())


def _behind(asked: _Asked) -> list[ColumnElement[bool]]:
    task, behind = schema.tasks.c, bindparam("behind", type_=Uuid)
    if not asked.follows:
        return []
    if asked.how == "newest":
        return [task.id < behind]
    return [tuple_(task.updated_at, task.id) < tuple_(bindparam("at", type_=schema.UtcDateTime), behind)]


def visible_to(principal: Principal) -> ColumnElement[bool]:
    audience = principal.reading_along
    if audience is None:
        return _readable_by(principal.user_id)
    if audience.users is None:
        return or_(schema.conversations.c.visibility == "shared", schema.conversations.c.id == audience.conversation_id)
    return and_(_readable_by(principal.user_id), *(_readable_by(user) for user in sorted(audience.users)))


def _readable_by(user_id: UUID | BindParameter[UUID]) -> ColumnElement[bool]:
    conversation, member = schema.conversations.c, schema.conversation_members.c
    is_member = exists().where(member.conversation_id == conversation.id, member.user_id == user_id)
    return or_(conversation.visibility == "shared", conversation.owner_id == user_id, is_member)


def _task_conditions(asked: _Asked) -> Iterator[ColumnElement[bool]]:
    task = schema.tasks.c
    if asked.since:
        yield task.updated_at >= bindparam("since")
    status, assignee = (Sieve(task.status), Sieve(task.assignee_id)) if asked.since else (task.status, task.assignee_id)
    if asked.statuses:
        yield status.in_([literal_column(f"'{status}'") for status in sorted(asked.statuses)])
    if asked.assigned:
        yield assignee == bindparam("assignee", type_=Uuid)


class Sieve(ColumnElement[Any]):
    """A column whose index SQLite leaves alone: it takes any equality for more selective than a range, and would go through half of all."""

    inherit_cache = False

    def __init__(self, column: Column[Any]) -> None:
        self.column = column
        self.type = column.type


@compiles(Sieve)
def _as_it_is(element: Sieve, compiler: SQLCompiler, **how: Any) -> str:
    return compiler.process(element.column, **how)


@compiles(Sieve, "sqlite")
def _not_by_index(element: Sieve, compiler: SQLCompiler, **how: Any) -> str:
    return f"+{compiler.process(element.column, **how)}"
