"""Threads that must be made before anything is said in them: where each remote message stands, how threads look, and how far was heard"""

import sqlalchemy as sa
from alembic import op

import storage.schema

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("bindings", sa.Column("arranged", sa.String(length=200), server_default=sa.text("''"), nullable=False))
    op.add_column("deliveries", sa.Column("thread", sa.String(length=64), server_default=sa.text("''"), nullable=False))
    op.execute(
        "UPDATE deliveries SET thread = (SELECT bindings.thread FROM bindings WHERE bindings.id = deliveries.binding_id)"
        " WHERE binding_id IN (SELECT id FROM bindings WHERE opened)"
    )
    op.create_index(
        "ix_deliveries_known",
        "deliveries",
        ["sent_at"],
        unique=False,
        sqlite_where=sa.text("remote_id IS NOT NULL"),
        postgresql_where=sa.text("remote_id IS NOT NULL"),
    )
    op.create_table(
        "cursors",
        sa.Column("surface", sa.String(length=32), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("channel", sa.String(length=64), nullable=False),
        sa.Column("heard", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", storage.schema.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("surface", "account", "channel", name=op.f("pk_cursors")),
    )
    op.create_index(op.f("ix_cursors_updated_at"), "cursors", ["updated_at"], unique=False)
