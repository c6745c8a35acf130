"""Which virtual key a browser signed in with, so that revoking it ends the visit."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("visits", sa.Column("virtual_key", sa.Text()))
