"""Failed turns, listed for admins: the newest first, and how many there were lately."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_FAILED = sa.text("status = 'failed'")


def upgrade() -> None:
    for name, column in (("ix_turns_failed", "id"), ("ix_turns_failed_at", "finished_at")):
        op.create_index(name, "turns", [column], unique=False, sqlite_where=_FAILED, postgresql_where=_FAILED)
