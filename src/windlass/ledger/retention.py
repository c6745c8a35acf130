"""What does not stay: snapshots that newer ones replace, contexts past their time, everything of a forgotten user."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from windlass.ledger import schema
from windlass.ledger.db import Database
from windlass.ledger.ledger import Snapshot
from windlass.records import Erasure, Feedback, Scope, user_digest

SNAPSHOTS_KEPT = 5
DEPTH = 20
"""So many calls above one are asked whether they were a forgotten user's."""
BASE = "base"
_SNAPSHOTS = schema.snapshots


def save(db: Database, snapshot: Snapshot) -> None:
    """Keep `snapshot`, unless a `base` lies beyond it; of the routine ones the newest five stay."""
    row = {name: getattr(snapshot, name) for name in snapshot.__struct_fields__}
    same = (_SNAPSHOTS.c.projection == snapshot.projection, _SNAPSHOTS.c.version == snapshot.version)
    base = sa.select(sa.func.max(_SNAPSHOTS.c.cursor)).where(*same, _SNAPSHOTS.c.note == BASE)
    routine = (*same, _SNAPSHOTS.c.note == "")
    newest = sa.select(_SNAPSHOTS.c.cursor).where(*routine).order_by(_SNAPSHOTS.c.cursor.desc()).limit(SNAPSHOTS_KEPT)
    with db.write_large() as connection:
        if snapshot.cursor < (connection.scalar(base) or 0):
            return
        present = connection.scalar(sa.select(_SNAPSHOTS.c.note).where(*same, _SNAPSHOTS.c.cursor == snapshot.cursor))
        # A note stays, and above all a base: what made it one cannot be undone.
        if present and snapshot.note != BASE:
            return
        connection.execute(db.replace(_SNAPSHOTS, "projection", "version", "cursor"), row)
        kept = list(connection.scalars(newest))
        connection.execute(sa.delete(_SNAPSHOTS).where(*routine, _SNAPSHOTS.c.cursor.not_in(kept)))


def find(db: Database, projection: str, version: int, cursor: int | None, note: str | None) -> Snapshot | None:
    """The newest snapshot that fits."""
    wanted = [_SNAPSHOTS.c.projection == projection, _SNAPSHOTS.c.version == version]
    if cursor is not None:
        wanted.append(_SNAPSHOTS.c.cursor == cursor)
    if note is not None:
        wanted.append(_SNAPSHOTS.c.note == note)
    query = sa.select(_SNAPSHOTS).where(*wanted).order_by(_SNAPSHOTS.c.cursor.desc()).limit(1)
    with db.read() as connection:
        row = connection.execute(query).mappings().first()
    return Snapshot(**row) if row else None


def kept(db: Database, projection: str, version: int) -> Sequence[Snapshot]:
    """All snapshots of a projection, oldest first, without their states."""
    columns = [column for column in _SNAPSHOTS.c if column.name != "state"]
    query = sa.select(*columns).where(_SNAPSHOTS.c.projection == projection, _SNAPSHOTS.c.version == version)
    with db.read() as connection:
        return [
            Snapshot(**row, state=b"") for row in connection.execute(query.order_by(_SNAPSHOTS.c.cursor)).mappings()
        ]


def has_contexts(db: Database, before: float) -> bool:
    """Whether a context is past its time."""
    table = schema.contexts
    old = sa.select(table.c.decision).where(table.c.decision < f"decision_{int(before * 1000):012x}").limit(1)
    with db.read() as connection:
        return connection.scalar(old) is not None


def prune_contexts(db: Database, before: float) -> int:
    """Delete the contexts of decisions from before that time, which their ids tell."""
    table = schema.contexts
    old = sa.delete(table).where(table.c.decision < f"decision_{int(before * 1000):012x}")
    with db.write() as connection:
        return connection.execute(old).rowcount


def rewrite(db: Database, snapshot: Snapshot) -> None:
    """Replace the state of a snapshot that is there, also one from before a base; its note stays."""
    same = [_SNAPSHOTS.c[name] == getattr(snapshot, name) for name in ("projection", "version", "cursor")]
    with db.write_large() as connection:
        connection.execute(sa.update(_SNAPSHOTS).where(*same).values(state=snapshot.state))


def erase(db: Database, erasure: Erasure) -> int:
    """Delete what a user left, then rewrite what the database keeps of deleted bytes.

    Two transactions: once the first has named the calls, `forgotten` keeps later comments on them out, and the second
    takes those that came in between.
    """
    with db.write() as connection:
        gone = 0 if _named(connection, erasure) else _name(db, connection, erasure)
        gone += _clear(connection, erasure)
    with db.write() as connection:
        gone += _clear(connection, erasure)
    scrub(db)
    return gone


def forgotten(db: Database, scope: Scope, target: str) -> bool:
    """Whether the call, decision, outcome or answer `target` was a forgotten user's, or made for one that was."""
    table, calls = schema.forgotten, schema.calls
    owner = {"tenant": scope.tenant, "workspace": scope.workspace}
    with db.read() as connection:
        for made in (schema.decisions, schema.outcomes):
            of = sa.select(made.c.call).where(made.c.id == target).filter_by(**owner)
            target = connection.scalar(of) or target
        for _ in range(DEPTH):
            marked = sa.select(table.c.id).where(table.c.id == target).filter_by(**owner).limit(1)
            if connection.scalar(marked) is not None:
                return True
            above = sa.select(calls.c.parent).where(calls.c.id == target, calls.c.user == "").filter_by(**owner)
            target = connection.scalar(above) or ""
            if not target:
                return False
    return False


def silence(db: Database, said: Feedback) -> None:
    """Take back the comment of a feedback that came in while the user whom it is about was being forgotten."""
    table = schema.feedback
    own = sa.update(table).where(table.c.id == said.id).filter_by(tenant=said.tenant, workspace=said.workspace)
    with db.write() as connection:
        connection.execute(own.values(comment=""))
    scrub(db)


def scrub(db: Database) -> None:
    """Take deleted bytes off the disk.

    SQLite overwrites them (`secure_delete`), which leaves the write-ahead log: it is folded in and cut. PostgreSQL
    leaves dead rows until their table is rewritten; its own log keeps them until the server recycles it.
    """
    with db.bare() as connection:
        if db.dialect == "sqlite":
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            _sync(f"{db.url.database}-wal")
            return
        erased = (schema.bodies, schema.contexts, schema.calls, schema.feedback, schema.snapshots, schema.replies)
        for table in erased:
            connection.exec_driver_sql(f"VACUUM (FULL, ANALYZE) {table.name}")
        # The planner's statistics hold samples of the columns: user names, too.
        connection.exec_driver_sql("VACUUM (FULL) pg_statistic")


def _sync(path: str) -> None:
    """SQLite does not sync the cut of its log: a power cut could bring the old bytes back."""
    try:
        log = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(log)
    finally:
        os.close(log)


def _named(connection: sa.Connection, erasure: Erasure) -> bool:
    """Whether the calls that the erasure is about are known already."""
    return connection.scalar(_gone(erasure).limit(1)) is not None


def _name(db: Database, connection: sa.Connection, erasure: Erasure) -> int:
    """Note the calls of the user, and what was made for them, as forgotten, and take the user's name off them."""
    gone = 0
    calls, bodies = schema.calls, schema.bodies
    for user in sorted(_users(connection, erasure)):
        # Who comes back after being forgotten is somebody new.
        own = (*_owned(calls, erasure), calls.c.user == user, calls.c.seq < _place(erasure))
        other = calls.alias()
        others = sa.select(other.c.id).where(*_owned(other, erasure), other.c.user.not_in(("", user)))
        _note(db, connection, erasure, sa.select(calls.c.id).where(*own))
        beneath = sa.select(calls.c.id).where(
            *_owned(calls, erasure), calls.c.user == "", calls.c.parent.in_(_gone(erasure))
        )
        while _note(db, connection, erasure, beneath) > 0:
            pass
        # What a call names as its parent may be somebody else's call, which keeps what it has.
        above = sa.select(calls.c.parent).where(*own, calls.c.parent != "", calls.c.parent.not_in(others)).distinct()
        _note(db, connection, erasure, above)
        for kept in (bodies, schema.replies):
            left = sa.delete(kept).where(*_owned(kept, erasure), kept.c.user == user, kept.c.at <= erasure.at)
            gone += connection.execute(left).rowcount
        gone += connection.execute(sa.update(calls).where(*own).values(user="")).rowcount
    return gone


def _note(db: Database, connection: sa.Connection, erasure: Erasure, ids: sa.Select[tuple[str]]) -> int:
    """Add the ids to those that the erasure is about; how many were new."""
    table = schema.forgotten
    fixed = (sa.literal(value) for value in (erasure.tenant, erasure.workspace, erasure.id))
    made = db.insert_new(table, "tenant", "workspace", "id", "erasure").from_select(
        ["tenant", "workspace", "erasure", "id"], ids.with_only_columns(*fixed, *ids.selected_columns)
    )
    # Of an INSERT the count is lost with its cursor, unless one asks for it.
    return int(connection.execute(made, execution_options={"preserve_rowcount": True}).rowcount)


def _clear(connection: sa.Connection, erasure: Erasure) -> int:
    """Delete bodies, contexts and comments of what the erasure is about; returns how many went."""
    decisions, outcomes, said, bodies = schema.decisions, schema.outcomes, schema.feedback, schema.bodies
    contexts, replies, gone = schema.contexts, schema.replies, _gone(erasure)
    decided = sa.select(decisions.c.id).where(*_owned(decisions, erasure), decisions.c.call.in_(gone))
    ended = sa.select(outcomes.c.id).where(*_owned(outcomes, erasure), outcomes.c.call.in_(gone))
    about = said.c.target.in_(gone) | said.c.target.in_(decided) | said.c.target.in_(ended)
    statements: list[Any] = [
        # The answer that a call was made for keeps its text under its own id.
        sa.delete(bodies).where(*_owned(bodies, erasure), bodies.c.call.in_(gone)),
        sa.delete(replies).where(*_owned(replies, erasure), replies.c.call.in_(gone)),
        sa.delete(contexts).where(*_owned(contexts, erasure), contexts.c.decision.in_(decided)),
        sa.update(said).where(*_owned(said, erasure), about, said.c.comment != "").values(comment=""),
    ]
    return sum(connection.execute(statement).rowcount for statement in statements)


def _gone(erasure: Erasure) -> sa.Select[tuple[str]]:
    """The ids that the erasure is about: the user's calls, those beneath them, the answers above them."""
    table = schema.forgotten
    return sa.select(table.c.id).where(*_owned(table, erasure), table.c.erasure == erasure.id)


def _users(connection: sa.Connection, erasure: Erasure) -> set[str]:
    """The names that the erasure's digest stands for: none once it has been done."""
    table = schema.calls
    earlier = table.c.user != "", table.c.seq < _place(erasure)
    named = sa.select(table.c.user).where(*_owned(table, erasure), *earlier).distinct()
    found = set(connection.scalars(named))
    # A call that was on its way when its user was forgotten keeps its bodies and its reply afterwards.
    for kept in (schema.bodies, schema.replies):
        left = sa.select(kept.c.user).where(*_owned(kept, erasure), kept.c.user != "", kept.c.at <= erasure.at)
        found |= set(connection.scalars(left.distinct()))
    return {user for user in found if user_digest(erasure.scope, user) == erasure.user}


def _place(erasure: Erasure) -> sa.ScalarSelect[int]:
    table = schema.erasures
    return sa.select(table.c.seq).where(*_owned(table, erasure), table.c.id == erasure.id).scalar_subquery()


def _owned(table: sa.FromClause, erasure: Erasure) -> tuple[sa.ColumnElement[bool], ...]:
    return table.c.tenant == erasure.tenant, table.c.workspace == erasure.workspace
