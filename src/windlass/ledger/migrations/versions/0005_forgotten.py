"""Which calls were a forgotten user's, so that what is said of them later is known for it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "forgotten",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("tenant", "workspace", "id", "erasure")),
        sa.PrimaryKeyConstraint("tenant", "workspace", "id", "erasure"),
    )
    op.create_index("forgotten_by_erasure", "forgotten", ["tenant", "workspace", "erasure"])
