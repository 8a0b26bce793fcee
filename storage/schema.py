"""The tables. Migrations under `migrations/` lead to exactly this; a test compares them."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    Uuid,
    false,
    text,
)
from sqlalchemy import DateTime as _DateTime


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time, also where the database knows no zones."""

    impl = _DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        if not isinstance(value, datetime):
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Money(TypeDecorator[Decimal]):
    """US dollars, exact, as text: SQLite would make a float of a NUMERIC."""

    impl = String(32)
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> str | None:
        return None if value is None else format(value, "f")

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(value)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _id() -> Column[Any]:
    return Column("id", Uuid, primary_key=True)


def _time(name: str, *, nullable: bool = False) -> Column[Any]:
    return Column(name, UtcDateTime, nullable=nullable)


def _ref(name: str, target: str, *, nullable: bool = False, ondelete: str = "CASCADE") -> Column[Any]:
    return Column(name, Uuid, ForeignKey(f"{target}.id", ondelete=ondelete), nullable=nullable)


users = Table(
    "users",
    metadata,
    _id(),
    Column("name", String(64), nullable=False, unique=True),
    Column("admin", Boolean, nullable=False),
    _time("created_at"),
    _time("disabled_at", nullable=True),
    Column("password_hash", String(255)),
    _time("password_set_at", nullable=True),
)

sessions = Table(
    "sessions",
    metadata,
    _id(),
    _ref("user_id", "users"),
    Column("sha256", String(64), nullable=False, unique=True),
    _time("created_at"),
    _time("expires_at"),
    Index(None, "user_id"),
    Index(None, "expires_at"),
)

links = Table(
    "links",
    metadata,
    _id(),
    _ref("user_id", "users"),
    Column("purpose", String(16), nullable=False),
    Column("sha256", String(64), nullable=False, unique=True),
    _time("created_at"),
    _time("expires_at"),
    Index(None, "user_id"),
)

sign_in_attempts = Table(
    "sign_in_attempts",
    metadata,
    _id(),
    Column("address", String(64), nullable=False),
    Column("who", String(64), nullable=False),
    _time("at"),
    Index(None, "address", "at"),
    Index(None, "who", "at"),
    Index(None, "at"),
)

tokens = Table(
    "tokens",
    metadata,
    _id(),
    _ref("user_id", "users"),
    Column("name", String(100), nullable=False),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("scopes", JSON, nullable=False),
    _time("created_at"),
    _time("expires_at", nullable=True),
    _time("revoked_at", nullable=True),
    Index(None, "user_id"),
)

projects = Table(
    "projects",
    metadata,
    _id(),
    Column("key", String(10), nullable=False, unique=True),
    Column("name", String(200), nullable=False),
    Column("instructions", Text, nullable=False),
    Column("model", String(200)),
    Column("next_task_number", Integer, nullable=False),
    _time("created_at"),
    _time("updated_at"),
)

tasks = Table(
    "tasks",
    metadata,
    _id(),
    Column("ref", String(32), nullable=False, unique=True),
    _ref("project_id", "projects", ondelete="RESTRICT"),
    _ref("conversation_id", "conversations"),
    Column("title", String(200), nullable=False),
    Column("description", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("priority", String(16), nullable=False),
    _ref("assignee_id", "users", nullable=True, ondelete="SET NULL"),
    _ref("creator_id", "users", ondelete="RESTRICT"),
    _time("due_at", nullable=True),
    Column("labels", JSON, nullable=False),
    Column("version", Integer, nullable=False),
    _time("created_at"),
    _time("updated_at"),
    UniqueConstraint("conversation_id"),
    Index(None, "status", "id"),
    Index(None, "assignee_id", "id"),
    Index(None, "updated_at", "id"),
)

task_changes = Table(
    "task_changes",
    metadata,
    _id(),
    _ref("task_id", "tasks"),
    _ref("user_id", "users", ondelete="RESTRICT"),
    Column("by_agent", Boolean, nullable=False),
    Column("field", String(16), nullable=False),
    Column("before", JSON),
    Column("after", JSON),
    _time("at"),
    Index(None, "task_id", "id"),
)

conversations = Table(
    "conversations",
    metadata,
    _id(),
    _ref("project_id", "projects", ondelete="RESTRICT"),
    _ref("owner_id", "users", ondelete="RESTRICT"),
    Column("visibility", String(16), nullable=False),
    Column("title", String(200), nullable=False),
    Column("model", String(200)),
    Column("agent_status", String(20), nullable=False),
    Column("agent_status_message", String(500), nullable=False),
    Column("next_seq", Integer, nullable=False),
    Column("window_from_seq", Integer, nullable=False),
    _time("archived_at", nullable=True),
    _time("created_at"),
    _time("updated_at"),
    Index(None, "owner_id", "updated_at"),
    Index(None, "visibility", "updated_at"),
    Index(
        "ix_conversations_active",
        "updated_at",
        sqlite_where=text("agent_status <> 'idle'"),
        postgresql_where=text("agent_status <> 'idle'"),
    ),
)

conversation_members = Table(
    "conversation_members",
    metadata,
    Column("conversation_id", Uuid, ForeignKey("conversations.id", ondelete="CASCADE"), primary_key=True),
    Column("user_id", Uuid, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Index(None, "user_id"),
)

read_marks = Table(
    "read_marks",
    metadata,
    Column("conversation_id", Uuid, ForeignKey("conversations.id", ondelete="CASCADE"), primary_key=True),
    Column("user_id", Uuid, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", Integer, nullable=False),
    Index(None, "user_id"),
)

messages = Table(
    "messages",
    metadata,
    _id(),
    _ref("conversation_id", "conversations"),
    Column("turn_id", Uuid),
    Column("seq", Integer, nullable=False),
    Column("role", String(16), nullable=False),
    _ref("author_id", "users", nullable=True, ondelete="RESTRICT"),
    Column("content", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("source", String(32), nullable=False),
    _time("created_at"),
    _time("updated_at"),
    _time("edited_at", nullable=True),
    _time("deleted_at", nullable=True),
    UniqueConstraint("conversation_id", "seq"),
    CheckConstraint("role IN ('user', 'assistant', 'system')", name="role"),
    Index(None, "turn_id"),
    Index(
        "ix_messages_changed",
        "conversation_id",
        sqlite_where=text("edited_at IS NOT NULL OR deleted_at IS NOT NULL"),
        postgresql_where=text("edited_at IS NOT NULL OR deleted_at IS NOT NULL"),
    ),
)

summaries = Table(
    "summaries",
    metadata,
    Column("conversation_id", Uuid, ForeignKey("conversations.id", ondelete="CASCADE"), primary_key=True),
    Column("covers_to", Integer, primary_key=True),
    Column("text", Text, nullable=False),
    Column("model", String(200), nullable=False),
    Column("tokens", Integer, nullable=False),
    _time("created_at"),
)

attachments = Table(
    "attachments",
    metadata,
    _id(),
    _ref("message_id", "messages"),
    Column("name", String(255), nullable=False),
    Column("media_type", String(128), nullable=False),
    Column("size", Integer, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("data", LargeBinary, nullable=False),
    Index(None, "message_id"),
)

turns = Table(
    "turns",
    metadata,
    _id(),
    _ref("conversation_id", "conversations"),
    Column("seq", Integer, nullable=False),
    _ref("user_message_id", "messages"),
    _ref("reply_id", "messages"),
    _ref("author_id", "users", ondelete="RESTRICT"),
    Column("model", String(200), nullable=False),
    Column("status", String(16), nullable=False),
    Column("failures", Integer, nullable=False),
    Column("rescues", Integer, nullable=False),
    Column("stream_no", Integer, nullable=False),
    Column("first_step", Integer, nullable=False),
    _time("run_after"),
    Column("lease_owner", Uuid),
    Column("lease_token", Integer, nullable=False),
    _time("lease_until", nullable=True),
    Column("error_code", String(40)),
    Column("error", String(1000)),
    _time("created_at"),
    _time("started_at", nullable=True),
    _time("finished_at", nullable=True),
    Column("asked_model", String(200)),
    Column("fallback_reason", String(40)),
    UniqueConstraint("conversation_id", "seq"),
    UniqueConstraint("user_message_id"),
    UniqueConstraint("reply_id"),
    Index(
        "uq_turns_one_active",
        "conversation_id",
        unique=True,
        sqlite_where=text("status IN ('running', 'waiting')"),
        postgresql_where=text("status IN ('running', 'waiting')"),
    ),
    Index("ix_turns_queued", "run_after", "id", sqlite_where=text("status = 'queued'"), postgresql_where=text("status = 'queued'")),
    Index("ix_turns_running", "lease_until", sqlite_where=text("status = 'running'"), postgresql_where=text("status = 'running'")),
    Index(
        "ix_turns_unfinished",
        "conversation_id",
        "seq",
        sqlite_where=text("status IN ('queued', 'running', 'waiting')"),
        postgresql_where=text("status IN ('queued', 'running', 'waiting')"),
    ),
    Index("ix_turns_failed", "id", sqlite_where=text("status = 'failed'"), postgresql_where=text("status = 'failed'")),
    Index("ix_turns_failed_at", "finished_at", sqlite_where=text("status = 'failed'"), postgresql_where=text("status = 'failed'")),
)

steps = Table(
    "steps",
    metadata,
    Column("turn_id", Uuid, ForeignKey("turns.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("content", Text, nullable=False),
    Column("tool_requests", JSON, nullable=False),
    Column("finish_reason", String(32), nullable=False),
    Column("model", String(200), nullable=False),
    Column("tokens_in", Integer, nullable=False),
    Column("tokens_out", Integer, nullable=False),
    Column("tokens_cached", Integer, nullable=False),
    Column("cost", Money),
    Column("estimated", Boolean, nullable=False),
    Column("thinking", JSON, nullable=False),
    _time("created_at"),
)

tool_calls = Table(
    "tool_calls",
    metadata,
    Column("turn_id", Uuid, ForeignKey("turns.id", ondelete="CASCADE"), primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("index", Integer, primary_key=True),
    Column("name", String(128), nullable=False),
    Column("arguments", JSON, nullable=False),
    Column("state", String(20), nullable=False),
    Column("result", Text, nullable=False),
    Column("approval_id", Uuid),
    _time("created_at"),
)

approvals = Table(
    "approvals",
    metadata,
    _id(),
    _ref("turn_id", "turns"),
    _ref("conversation_id", "conversations"),
    Column("step", Integer, nullable=False),
    Column("index", Integer, nullable=False),
    Column("status", String(16), nullable=False),
    Column("decided_by", Uuid),
    _time("created_at"),
    _time("expires_at"),
    _time("decided_at", nullable=True),
    Index(None, "turn_id"),
    Index(None, "conversation_id"),
    Index("ix_approvals_open", "expires_at", sqlite_where=text("status = 'open'"), postgresql_where=text("status = 'open'")),
)

inbox = Table(
    "inbox",
    metadata,
    Column("source", String(32), primary_key=True),
    Column("scope", String(128), primary_key=True),
    Column("event_id", String(255), primary_key=True),
    Column("user_id", Uuid, nullable=False),
    Column("body_sha256", String(64), nullable=False),
    Column("result", JSON, nullable=False),
    _time("received_at"),
    Index(None, "user_id", "received_at", "source"),
    Index(None, "received_at"),
)

usage = Table(
    "usage",
    metadata,
    _id(),
    Column("user_id", Uuid, nullable=False),
    Column("conversation_id", Uuid, nullable=False),
    Column("task_id", Uuid),
    Column("project_id", Uuid, nullable=False),
    Column("model", String(200), nullable=False),
    Column("tokens_in", Integer, nullable=False),
    Column("tokens_out", Integer, nullable=False),
    Column("tokens_cached", Integer, nullable=False),
    Column("cost", Money),
    Column("estimated", Boolean, nullable=False),
    _time("at"),
    Index(None, "conversation_id"),
    Index(None, "user_id", "at"),
)

model_pauses = Table(
    "model_pauses",
    metadata,
    Column("model", String(200), primary_key=True),
    _time("paused_since"),
    _time("paused_until"),
    Column("pauses", Integer, nullable=False),
    Column("at_once", Integer, nullable=False),
    Column("probe_turn_id", Uuid),
)

model_requests = Table(
    "model_requests",
    metadata,
    _id(),
    Column("model", String(200), nullable=False),
    Column("turn_id", Uuid, nullable=False),
    Column("lease_token", Integer, nullable=False),
    _time("at"),
    _time("ended_at", nullable=True),
    Index(None, "model", "at"),
    Index(None, "at"),
    Index("ix_model_requests_open", "model", sqlite_where=text("ended_at IS NULL"), postgresql_where=text("ended_at IS NULL")),
    Index(None, "turn_id"),
)

workers = Table(
    "workers",
    metadata,
    _id(),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("concurrency", Integer, nullable=False),
    Column("unserved", JSON, nullable=False),
    _time("started_at"),
    _time("heartbeat_at"),
)

identities = Table(
    "identities",
    metadata,
    Column("surface", String(32), primary_key=True),
    Column("account", String(64), primary_key=True),
    Column("external_id", String(64), primary_key=True),
    _ref("user_id", "users"),
    Column("name", String(200), nullable=False),
    _time("created_at"),
    _time("linked_at", nullable=True),
    Index(None, "user_id"),
)

bindings = Table(
    "bindings",
    metadata,
    _id(),
    _ref("conversation_id", "conversations"),
    Column("surface", String(32), nullable=False),
    Column("account", String(64), nullable=False),
    Column("channel", String(64), nullable=False),
    Column("thread", String(64), nullable=False),
    Column("opened", Boolean, nullable=False),
    Column("mode", String(16), nullable=False),
    Column("cursor", Integer, nullable=False),
    Column("ended", String(64)),
    Column("status_shown", Boolean, nullable=False),
    Column("arranged", String(200), nullable=False, server_default=text("''")),
    Column("kind", String(16)),
    Column("label", String(100), nullable=False, server_default=text("''")),
    Column("url", String(300), nullable=False, server_default=text("''")),
    Column("followed", Boolean, nullable=False, server_default=false()),
    Column("bound_by", Uuid),
    Column("check", String(16), nullable=False, server_default=text("''")),
    Column("until", Integer),
    _time("created_at"),
    _time("updated_at"),
    UniqueConstraint("surface", "account", "channel", "thread"),
    Index(None, "conversation_id"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("binding_id", Uuid, ForeignKey("bindings.id", ondelete="CASCADE"), primary_key=True),
    Column("item", String(64), primary_key=True),
    Column("part", Integer, primary_key=True),
    Column("message_id", Uuid),
    Column("revision", Integer, nullable=False),
    Column("remote_id", String(64)),
    Column("thread", String(64), nullable=False, server_default=text("''")),
    Column("nonce", Uuid, nullable=False),
    Column("state", String(16), nullable=False),
    Column("end", Integer),
    Column("shown", String(64), nullable=False),
    _time("sent_at"),
    UniqueConstraint("remote_id", "binding_id"),
    Index(None, "message_id"),
    Index(
        "ix_deliveries_open",
        "binding_id",
        sqlite_where=text("state IN ('sending', 'live')"),
        postgresql_where=text("state IN ('sending', 'live')"),
    ),
    Index(
        "ix_deliveries_known",
        "sent_at",
        sqlite_where=text("remote_id IS NOT NULL"),
        postgresql_where=text("remote_id IS NOT NULL"),
    ),
)

inbound = Table(
    "inbound",
    metadata,
    _id(),
    Column("surface", String(32), nullable=False),
    Column("account", String(64), nullable=False),
    Column("key", String(255), nullable=False),
    Column("lane", String(255), nullable=False),
    Column("payload", JSON, nullable=False),
    Column("attempts", Integer, nullable=False),
    _time("run_after"),
    Column("waits", Boolean, nullable=False),
    _time("received_at"),
    _time("done_at", nullable=True),
    Column("error", String(64)),
    UniqueConstraint("surface", "account", "key"),
    Index(
        "ix_inbound_waiting",
        "surface",
        "account",
        "lane",
        "id",
        sqlite_where=text("done_at IS NULL"),
        postgresql_where=text("done_at IS NULL"),
    ),
    Index(None, "done_at"),
)

cursors = Table(
    "cursors",
    metadata,
    Column("surface", String(32), primary_key=True),
    Column("account", String(64), primary_key=True),
    Column("channel", String(64), primary_key=True),
    Column("heard", BigInteger, nullable=False),
    _time("updated_at"),
    Index(None, "updated_at"),
)

account_leases = Table(
    "account_leases",
    metadata,
    Column("surface", String(32), primary_key=True),
    Column("account", String(64), primary_key=True),
    Column("owner", Uuid, nullable=False),
    Column("token", Integer, nullable=False),
    _time("until"),
)

changes = Table(
    "changes",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("origin", Uuid, nullable=False),
    Column("events", JSON, nullable=False),
    _time("at"),
    sqlite_autoincrement=True,
)
