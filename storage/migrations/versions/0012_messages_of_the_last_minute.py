"""The messages that somebody wrote in the last minute, counted in the index alone"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_inbox_user_id_received_at", table_name="inbox")
    op.create_index("ix_inbox_user_id_received_at_source", "inbox", ["user_id", "received_at", "source"], unique=False)
