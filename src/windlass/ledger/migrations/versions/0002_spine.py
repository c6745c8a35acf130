"""Erasures, rollups, workers, the audit trail; on PostgreSQL daily partitions and a sequence without a hot row."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Table, column of the partitions, further indexes. Days get their partition with their first row.
DIVIDED = (
    ("calls", "id", ("seq", "tenant, workspace, parent", 'tenant, workspace, "user"')),
    ("decisions", "id", ("seq", "tenant, workspace, call", "tenant, workspace, point")),
    ("outcomes", "id", ("seq", "tenant, workspace, call")),
    ("contexts", "decision", ()),
    ("bodies", "id", ("tenant, workspace, call", 'tenant, workspace, "user"', "expires_at")),
)
SEQ = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "erasures",
        sa.Column("seq", SEQ, autoincrement=False, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        *_owner(),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("extra", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_index("erasures_by_id", "erasures", ["tenant", "workspace", "id"], unique=True)
    op.create_index("decisions_by_point", "decisions", ["tenant", "workspace", "point"], unique=False)
    op.add_column("snapshots", sa.Column("note", sa.Text(), nullable=False, server_default=""))
    op.create_table(
        "workers",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("head", sa.BigInteger(), nullable=False),
        sa.Column("cursor", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    _rollups()
    op.create_table(
        "audit",
        sa.Column("place", SEQ, autoincrement=False, nullable=False),
        *_owner(),
        sa.Column("at", sa.Double(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("actor", "action", "detail", "previous", "digest")),
        sa.PrimaryKeyConstraint("place"),
    )
    op.create_index("audit_by_owner", "audit", ["tenant", "workspace", "place"], unique=False)
    op.execute("INSERT INTO heads (name, value) VALUES ('rollups', 0)")
    if op.get_bind().dialect.name == "postgresql":
        for table, key, indexes in DIVIDED:
            _divide(table, key, indexes)
        # From here on a place in the sequence is `base + (transaction id << 20) + n`; the base keeps old places below.
        op.execute(
            "UPDATE heads SET value = greatest(value - (pg_current_xact_id()::text::bigint << 20), 0) "
            "WHERE name = 'ledger'"
        )
    for table in ("calls", "decisions", "feedback"):
        op.create_index(f"{table}_by_owner", table, ["tenant", "workspace", "seq"], unique=False)
    failed = sa.text("error <> ''")
    keys = ["tenant", "workspace", "error"]
    op.create_index("outcomes_by_error", "outcomes", keys, sqlite_where=failed, postgresql_where=failed)


def _owner() -> tuple[sa.Column[str], sa.Column[str]]:
    return sa.Column("tenant", sa.Text(), nullable=False), sa.Column("workspace", sa.Text(), nullable=False)


def _divide(table: str, key: str, indexes: tuple[str, ...]) -> None:
    """Cut a plain table along `key`; the rows that it has go to the default partition."""
    op.execute(f"ALTER TABLE {table} RENAME TO {table}_default")
    op.execute(f"ALTER TABLE {table}_default DROP CONSTRAINT {table}_pkey")
    op.execute(f'ALTER TABLE {table}_default ALTER {key} TYPE text COLLATE "C"')
    named = sa.text("SELECT indexname FROM pg_indexes WHERE tablename = :t AND schemaname = current_schema()")
    for index in op.get_bind().scalars(named, {"t": f"{table}_default"}).all():
        op.execute(f'DROP INDEX "{index}"')
    op.execute(f"CREATE TABLE {table} (LIKE {table}_default) PARTITION BY RANGE ({key})")
    op.execute(f"ALTER TABLE {table} ATTACH PARTITION {table}_default DEFAULT")
    op.execute(f"ALTER TABLE {table} ADD PRIMARY KEY (tenant, workspace, {key})")
    for columns in indexes:
        name = columns.rpartition(", ")[2].strip('"')
        op.execute(f"CREATE INDEX {table}_by_{name} ON {table} ({columns})")


def _rollups() -> None:
    op.create_table(
        "rollup_outcomes",
        *_owner(),
        sa.Column("hour", sa.BigInteger(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        sa.Column("errors", sa.BigInteger(), nullable=False),
        sa.Column("cost_nusd", sa.BigInteger(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.Column("latency", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "workspace", "hour", "model"),
    )
    op.create_table(
        "rollup_decisions",
        *_owner(),
        sa.Column("point", sa.Text(), nullable=False),
        sa.Column("hour", sa.BigInteger(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("chosen", sa.BigInteger(), nullable=False),
        sa.Column("propensity_sum", sa.Double(), nullable=False),
        sa.Column("rewarded", sa.BigInteger(), nullable=False),
        sa.Column("reward_sum", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "workspace", "point", "hour", "policy", "live", "action"),
    )
    op.create_table(
        "rollup_feedback",
        *_owner(),
        sa.Column("hour", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("metric", sa.Text(), nullable=False),
        sa.Column("given", sa.BigInteger(), nullable=False),
        sa.Column("valued", sa.BigInteger(), nullable=False),
        sa.Column("value_sum", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "workspace", "hour", "kind", "source", "metric"),
    )
