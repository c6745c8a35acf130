"""The indexes of the listings hold what filters ask for, so that a page passes over what does not fit unseen."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

WIDER = {
    "calls_by_owner": ("calls", "seq", "at", "endpoint"),
    "decisions_by_owner": ("decisions", "seq", "at"),
    "decisions_by_point": ("decisions", "point", "seq", "at", "live", "action", "policy"),
    "feedback_by_owner": ("feedback", "seq", "at", "kind", "source", "metric"),
    "outcomes_by_call": ("outcomes", "call", "error", "model", "provider"),
}


def upgrade() -> None:
    for name, (table, *columns) in WIDER.items():
        op.drop_index(name, table_name=table)
        op.create_index(name, table, ["tenant", "workspace", *columns])
