"""Lists of tasks that take no longer the more there are, and the conversations in which the agent is not idle"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index(op.f("ix_tasks_status"), table_name="tasks")
    op.drop_index(op.f("ix_tasks_assignee_id"), table_name="tasks")
    op.create_index(op.f("ix_tasks_status_id"), "tasks", ["status", "id"], unique=False)
    op.create_index(op.f("ix_tasks_assignee_id_id"), "tasks", ["assignee_id", "id"], unique=False)
    op.create_index(op.f("ix_tasks_updated_at_id"), "tasks", ["updated_at", "id"], unique=False)
    is_active = sa.text("agent_status <> 'idle'")
    op.create_index(
        "ix_conversations_active", "conversations", ["updated_at"], unique=False, sqlite_where=is_active, postgresql_where=is_active
    )
