"""Replies of calls that carried an idempotency key, sealed, until they expire."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    texts = ("tenant", "workspace", "caller", "digest", "asked", "secret", "state", "owner", "call", "user")
    op.create_table(
        "replies",
        *(sa.Column(name, sa.Text(), nullable=False) for name in texts),
        sa.Column("leased_until", sa.Double(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "workspace", "caller", "digest"),
    )
    op.create_index("replies_by_call", "replies", ["tenant", "workspace", "call"])
    op.create_index("replies_by_user", "replies", ["tenant", "workspace", "user"])
    op.create_index("replies_by_expires_at", "replies", ["expires_at"])
