"""Archived conversations"""

import sqlalchemy as sa
from alembic import op

import storage.schema

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("conversations", schema=None) as batch_op:
        batch_op.add_column(sa.Column("archived_at", storage.schema.UtcDateTime(timezone=True), nullable=True))
