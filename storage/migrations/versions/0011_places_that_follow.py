"""Places that follow a conversation: what they are, who had it shown there, what is still to be asked, and where it ends"""

import sqlalchemy as sa
from alembic import op

import storage.schema

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_NOTHING = sa.text("''")


def upgrade() -> None:
    for column in (
        sa.Column("kind", sa.String(length=16), nullable=True),
        sa.Column("label", sa.String(length=100), server_default=_NOTHING, nullable=False),
        sa.Column("url", sa.String(length=300), server_default=_NOTHING, nullable=False),
        sa.Column("followed", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("bound_by", sa.Uuid(), nullable=True),
        sa.Column("check", sa.String(length=16), server_default=_NOTHING, nullable=False),
        sa.Column("until", sa.Integer(), nullable=True),
    ):
        op.add_column("bindings", column)
    op.add_column("identities", sa.Column("linked_at", storage.schema.UtcDateTime(timezone=True), nullable=True))
