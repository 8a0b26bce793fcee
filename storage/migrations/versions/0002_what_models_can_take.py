"""What models can take: requests counted, pauses that end step by step, workers that tell whom they cannot ask"""

import sqlalchemy as sa
from alembic import op

import storage.schema

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # These tables hold only what lasts for minutes.
    op.drop_table("changes")
    op.create_table(
        "changes",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("origin", sa.Uuid(), nullable=False),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("at", storage.schema.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_changes")),
        sqlite_autoincrement=True,
    )
    op.execute("DELETE FROM workers")
    op.execute("DELETE FROM model_pauses")
    with op.batch_alter_table("workers", schema=None) as batch_op:
        batch_op.add_column(sa.Column("unserved", sa.JSON(), nullable=False))
    with op.batch_alter_table("model_pauses", schema=None) as batch_op:
        batch_op.add_column(sa.Column("at_once", sa.Integer(), nullable=False))

    op.create_table(
        "model_requests",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("model", sa.String(length=200), nullable=False),
        sa.Column("turn_id", sa.Uuid(), nullable=False),
        sa.Column("lease_token", sa.Integer(), nullable=False),
        sa.Column("at", storage.schema.UtcDateTime(timezone=True), nullable=False),
        sa.Column("ended_at", storage.schema.UtcDateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_requests")),
    )
    with op.batch_alter_table("model_requests", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_model_requests_at"), ["at"], unique=False)
        batch_op.create_index(batch_op.f("ix_model_requests_model_at"), ["model", "at"], unique=False)
        batch_op.create_index(batch_op.f("ix_model_requests_turn_id"), ["turn_id"], unique=False)
        batch_op.create_index(
            "ix_model_requests_open",
            ["model"],
            unique=False,
            sqlite_where=sa.text("ended_at IS NULL"),
            postgresql_where=sa.text("ended_at IS NULL"),
        )
    with op.batch_alter_table("approvals", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_approvals_conversation_id"), ["conversation_id"], unique=False)
