"""Providers and keys by the hour, episodes of errors, how budgets grew, and what limits refused."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "provider_hours",
        *_owned(),
        *_texts("provider", "model"),
        *_wholes("hour", "answered", "failed", "skipped"),
        sa.Column("latency", sa.LargeBinary(), nullable=False),
        sa.Column("first_byte", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "workspace", "hour", "provider", "model"),
    )
    op.create_table(
        "key_hours",
        *_owned(),
        *_texts("key"),
        *_wholes("hour", "calls", "errors", "cost_nusd"),
        *_reals("last_at"),
        sa.PrimaryKeyConstraint("tenant", "workspace", "key", "hour"),
    )
    op.create_table(
        "error_episodes",
        *_owned(),
        *_texts("provider", "model", "error", "recovered_by"),
        sa.Column("place", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        *_reals("since", "last"),
        *_wholes("failed", "skipped", "retried", "failed_over", "lost"),
        sa.Column("left_alone", sa.Boolean(), nullable=False),
        sa.Column("recovered_at", sa.Double()),
        sa.PrimaryKeyConstraint("tenant", "workspace", "provider", "model", "error", "place"),
    )
    op.create_index("error_episodes_by_place", "error_episodes", ["tenant", "workspace", "place"])
    going_on = sa.text("recovered_at IS NULL")
    op.create_index(
        "error_episodes_going_on", "error_episodes", ["tenant"], sqlite_where=going_on, postgresql_where=going_on
    )
    op.create_table(
        "budget_points",
        *_texts("name", "grp"),
        *_wholes("since", "step"),
        *_reals("at"),
        *_wholes("nusd"),
        sa.PrimaryKeyConstraint("name", "grp", "since", "step"),
    )
    op.create_index("budget_points_by_at", "budget_points", ["at"])
    op.create_table(
        "refusal_hours",
        *_owned(),
        *_wholes("hour"),
        *_texts("name", "key"),
        *_wholes("refused"),
        *_reals("last_at"),
        sa.PrimaryKeyConstraint("tenant", "workspace", "hour", "name", "key"),
    )
    op.create_index("spend_by_since", "spend", ["since", "name"])
    op.execute("INSERT INTO heads (name, value) VALUES ('outcomes', 0)")


def _owned() -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text(), nullable=False) for name in ("tenant", "workspace")]


def _texts(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text(), nullable=False) for name in names]


def _wholes(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger(), nullable=False) for name in names]


def _reals(*names: str) -> list[sa.Column[float]]:
    return [sa.Column(name, sa.Double(), nullable=False) for name in names]
