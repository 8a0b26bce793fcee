"""Long conversations: stored summaries, and turns that another model answers than the one that was asked for"""

import sqlalchemy as sa
from alembic import op

import storage.schema

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "summaries",
        sa.Column("conversation_id", sa.Uuid(), nullable=False),
        sa.Column("covers_to", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("model", sa.String(length=200), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("created_at", storage.schema.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["conversation_id"], ["conversations.id"], name=op.f("fk_summaries_conversation_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("conversation_id", "covers_to", name=op.f("pk_summaries")),
    )
    op.add_column("turns", sa.Column("asked_model", sa.String(length=200), nullable=True))
    op.add_column("turns", sa.Column("fallback_reason", sa.String(length=40), nullable=True))
