"""The ledger's tables. Every row has its owner; `seq` is one order over all kinds."""

from __future__ import annotations

import sqlalchemy as sa

from windlass.ledger.db import metadata

Seq = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


LISTED = {"calls": ("at", "endpoint"), "decisions": ("at",), "feedback": ("at", "kind", "source", "metric")}
"""Read newest first by their owner: an index in that order, or each page sorts all that the owner has. It holds what
filters ask for, so that what does not fit is passed over without a look at its row: a third of the time, and no index
more to append to. No text of a caller's choice without a bound: PostgreSQL refuses long keys."""


def owned() -> tuple[sa.Column[str], sa.Column[str]]:
    """The two columns that say whose a row is."""
    return sa.Column("tenant", sa.Text, nullable=False), sa.Column("workspace", sa.Text, nullable=False)


def _record_table(name: str, *columns: sa.Column[object], index: tuple[str, ...] = ()) -> sa.Table:
    """A typed, append-only table of one record kind. index: the columns of each, named after the first."""
    return sa.Table(
        name,
        metadata,
        sa.Column("seq", Seq, primary_key=True, autoincrement=False),
        sa.Column("id", sa.Text, nullable=False),
        *owned(),
        sa.Column("at", sa.Double, nullable=False),
        *columns,
        sa.Column("extra", sa.Text, nullable=False),
        sa.Index(f"{name}_by_id", "tenant", "workspace", "id", unique=True),
        *((sa.Index(f"{name}_by_owner", "tenant", "workspace", "seq", *LISTED[name]),) if name in LISTED else ()),
        *(sa.Index(f"{name}_by_{keys.split()[0]}", "tenant", "workspace", *keys.split()) for keys in index),
    )


def _text(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.Text, nullable=False)


def _whole(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.BigInteger, nullable=False)


def _real(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.Double, nullable=False)


def _flag(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.Boolean, nullable=False)


calls = _record_table(
    "calls",
    _text("endpoint"),
    _text("model"),
    _flag("stream"),
    _text("parent"),
    _text("user"),
    _whole("request_bytes"),
    index=("parent", "user"),
)
decisions = _record_table(
    "decisions",
    _text("call"),
    _text("point"),
    _text("policy"),
    _text("actions"),
    _text("action"),
    _real("propensity"),
    _flag("live"),
    _text("featuriser"),
    _text("fallback"),
    index=("call", "point seq at live action policy"),
)
outcomes = _record_table(
    "outcomes",
    _text("call"),
    _text("model"),
    _text("provider"),
    _whole("status"),
    _real("latency_ms"),
    _real("first_byte_ms"),
    _whole("prompt_tokens"),
    _whole("completion_tokens"),
    _whole("cost_nusd"),
    _flag("tokens_estimated"),
    _text("error"),
    index=("call error model provider",),
)
FAILED = sa.text("error <> ''")
# The migrations make both databases' index like this; to name PostgreSQL here as well would load its dialect, 2 MB.
sa.Index(
    "outcomes_by_error",
    outcomes.c.tenant,
    outcomes.c.workspace,
    outcomes.c.error,
    sqlite_where=FAILED,
)
feedback = _record_table(
    "feedback",
    _text("target"),
    _text("kind"),
    _text("source"),
    _text("metric"),
    sa.Column("value", sa.Double),
    _text("comment"),
    index=("target",),
)
run_events = _record_table(
    "run_events", _text("run"), _text("workflow"), _text("step"), _text("item"), _text("result"), index=("run",)
)
erasures = _record_table("erasures", _text("user"))
SEQUENCED = (calls, decisions, outcomes, feedback, run_events, erasures)
contexts = sa.Table("contexts", metadata, *owned(), _text("decision"), _text("data"))
contexts.append_constraint(sa.PrimaryKeyConstraint("tenant", "workspace", "decision"))
bodies = sa.Table(
    "bodies",
    metadata,
    *owned(),
    _text("id"),
    _text("call"),
    _text("role"),
    _text("user"),
    _real("at"),
    _real("expires_at"),
    sa.Column("data", sa.LargeBinary, nullable=False),
    sa.PrimaryKeyConstraint("tenant", "workspace", "id"),
    sa.Index("bodies_by_call", "tenant", "workspace", "call"),
    sa.Index("bodies_by_user", "tenant", "workspace", "user"),
    sa.Index("bodies_by_expires_at", "expires_at"),
)
forgotten = sa.Table(
    "forgotten",
    metadata,
    *owned(),
    _text("id"),
    _text("erasure"),
    sa.PrimaryKeyConstraint("tenant", "workspace", "id", "erasure"),
    sa.Index("forgotten_by_erasure", "tenant", "workspace", "erasure"),
)
snapshots = sa.Table(
    "snapshots",
    metadata,
    _text("projection"),
    _whole("version"),
    _whole("cursor"),
    _real("at"),
    sa.Column("state", sa.LargeBinary, nullable=False),
    sa.Column("note", sa.Text, nullable=False, server_default=""),
    sa.PrimaryKeyConstraint("projection", "version", "cursor"),
)
heads = sa.Table("heads", metadata, sa.Column("name", sa.Text, primary_key=True), _whole("value"))
workers = sa.Table(
    "workers",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    _whole("pid"),
    _real("at"),
    _whole("head"),
    _whole("cursor"),
)
rollup_outcomes = sa.Table(
    "rollup_outcomes",
    metadata,
    *owned(),
    _whole("hour"),
    _text("model"),
    _whole("calls"),
    _whole("errors"),
    _whole("cost_nusd"),
    _whole("prompt_tokens"),
    _whole("completion_tokens"),
    sa.Column("latency", sa.LargeBinary, nullable=False),
    sa.PrimaryKeyConstraint("tenant", "workspace", "hour", "model"),
)
rollup_decisions = sa.Table(
    "rollup_decisions",
    metadata,
    *owned(),
    _text("point"),
    _whole("hour"),
    _text("policy"),
    _flag("live"),
    _text("action"),
    _whole("chosen"),
    _real("propensity_sum"),
    _whole("rewarded"),
    _real("reward_sum"),
    sa.PrimaryKeyConstraint("tenant", "workspace", "point", "hour", "policy", "live", "action"),
)
rollup_feedback = sa.Table(
    "rollup_feedback",
    metadata,
    *owned(),
    _whole("hour"),
    _text("kind"),
    _text("source"),
    _text("metric"),
    _whole("given"),
    _whole("valued"),
    _real("value_sum"),
    sa.PrimaryKeyConstraint("tenant", "workspace", "hour", "kind", "source", "metric"),
)
audit = sa.Table(
    "audit",
    metadata,
    sa.Column("place", Seq, primary_key=True, autoincrement=False),
    *owned(),
    _real("at"),
    _text("actor"),
    _text("action"),
    _text("detail"),
    _text("previous"),
    _text("digest"),
    sa.Index("audit_by_owner", "tenant", "workspace", "place"),
)
spend = sa.Table(
    "spend",
    metadata,
    _text("name"),
    _text("grp"),
    _whole("since"),
    # Each worker has a row of its own, so that none waits for another.
    _text("worker"),
    _whole("nusd"),
    sa.PrimaryKeyConstraint("name", "grp", "since", "worker"),
)
leases = sa.Table(
    "leases",
    metadata,
    _text("name"),
    _text("grp"),
    _text("measure"),
    _whole("since"),
    _text("worker"),
    # Beyond what is committed as spent.
    _whole("granted"),
    _real("ends"),
    _real("at"),
    sa.PrimaryKeyConstraint("name", "grp", "measure", "since", "worker"),
    sa.Index("leases_by_worker", "worker", "at"),
)
replies = sa.Table(
    "replies",
    metadata,
    *owned(),
    # The key of a program, and the digest of the idempotency key that it sent.
    _text("caller"),
    _text("digest"),
    _text("asked"),
    _text("secret"),
    _text("state"),
    _text("owner"),
    _text("call"),
    _text("user"),
    _real("leased_until"),
    _real("at"),
    _real("expires_at"),
    sa.Column("data", sa.LargeBinary, nullable=False),
    sa.PrimaryKeyConstraint("tenant", "workspace", "caller", "digest"),
    sa.Index("replies_by_call", "tenant", "workspace", "call"),
    sa.Index("replies_by_user", "tenant", "workspace", "user"),
    sa.Index("replies_by_expires_at", "expires_at"),
)
