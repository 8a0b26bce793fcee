"""Chat platforms: who people are there, where conversations are shown, what was delivered, what came in, and who acts for an account"""

import sqlalchemy as sa
from alembic import op

import storage.schema

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "identities",
        sa.Column("surface", sa.String(length=32), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("external_id", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("created_at", storage.schema.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_identities_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("surface", "account", "external_id", name=op.f("pk_identities")),
    )
    op.create_index(op.f("ix_identities_user_id"), "identities", ["user_id"], unique=False)

    op.create_table(
        "bindings",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("conversation_id", sa.Uuid(), nullable=False),
        sa.Column("surface", sa.String(length=32), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("channel", sa.String(length=64), nullable=False),
        sa.Column("thread", sa.String(length=64), nullable=False),
        sa.Column("opened", sa.Boolean(), nullable=False),
        sa.Column("mode", sa.String(length=16), nullable=False),
        sa.Column("cursor", sa.Integer(), nullable=False),
        sa.Column("ended", sa.String(length=64), nullable=True),
        sa.Column("status_shown", sa.Boolean(), nullable=False),
        sa.Column("created_at", storage.schema.UtcDateTime(timezone=True), nullable=False),
        sa.Column("updated_at", storage.schema.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["conversation_id"], ["conversations.id"], name=op.f("fk_bindings_conversation_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bindings")),
        sa.UniqueConstraint("surface", "account", "channel", "thread", name=op.f("uq_bindings_surface_account_channel_thread")),
    )
    op.create_index(op.f("ix_bindings_conversation_id"), "bindings", ["conversation_id"], unique=False)

    op.create_table(
        "deliveries",
        sa.Column("binding_id", sa.Uuid(), nullable=False),
        sa.Column("item", sa.String(length=64), nullable=False),
        sa.Column("part", sa.Integer(), nullable=False),
        sa.Column("message_id", sa.Uuid(), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("remote_id", sa.String(length=64), nullable=True),
        sa.Column("nonce", sa.Uuid(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("end", sa.Integer(), nullable=True),
        sa.Column("shown", sa.String(length=64), nullable=False),
        sa.Column("sent_at", storage.schema.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["binding_id"], ["bindings.id"], name=op.f("fk_deliveries_binding_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("binding_id", "item", "part", name=op.f("pk_deliveries")),
        sa.UniqueConstraint("remote_id", "binding_id", name=op.f("uq_deliveries_remote_id_binding_id")),
    )
    op.create_index(op.f("ix_deliveries_message_id"), "deliveries", ["message_id"], unique=False)
    is_open = sa.text("state IN ('sending', 'live')")
    op.create_index("ix_deliveries_open", "deliveries", ["binding_id"], unique=False, sqlite_where=is_open, postgresql_where=is_open)
    was_changed = sa.text("edited_at IS NOT NULL OR deleted_at IS NOT NULL")
    op.create_index(
        "ix_messages_changed",
        "messages",
        ["conversation_id"],
        unique=False,
        sqlite_where=was_changed,
        postgresql_where=was_changed,
    )

    op.create_table(
        "inbound",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("surface", sa.String(length=32), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("lane", sa.String(length=255), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("run_after", storage.schema.UtcDateTime(timezone=True), nullable=False),
        sa.Column("waits", sa.Boolean(), nullable=False),
        sa.Column("received_at", storage.schema.UtcDateTime(timezone=True), nullable=False),
        sa.Column("done_at", storage.schema.UtcDateTime(timezone=True), nullable=True),
        sa.Column("error", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inbound")),
        sa.UniqueConstraint("surface", "account", "key", name=op.f("uq_inbound_surface_account_key")),
    )
    is_waiting = sa.text("done_at IS NULL")
    op.create_index(
        "ix_inbound_waiting",
        "inbound",
        ["surface", "account", "lane", "id"],
        unique=False,
        sqlite_where=is_waiting,
        postgresql_where=is_waiting,
    )
    op.create_index(op.f("ix_inbound_done_at"), "inbound", ["done_at"], unique=False)

    op.create_table(
        "account_leases",
        sa.Column("surface", sa.String(length=32), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.Uuid(), nullable=False),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("until", storage.schema.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("surface", "account", name=op.f("pk_account_leases")),
    )
