"""Filters of the ledger's listings as SQL: what a page of 50 among many thousand rows costs is decided here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec
import sqlalchemy as sa

from windlass.ledger import partitions, schema
from windlass.ledger.ledger import CallFilter, DecisionFilter, FeedbackFilter

NEAR = (250, 3_000)
"""So many of the newest calls are looked through, and then so many more, before all outcomes are."""
AT_ONCE = 1_000
FAILED = schema.outcomes.c.error != sa.literal_column("''")
"""With the empty text spelled out, as in the index of errors, which no bound value is seen to fit."""
Asked: TypeAlias = tuple[sa.ColumnElement[bool], ...]
Owned: TypeAlias = tuple[str, str, str]
"""(tenant, workspace, call)."""


def possible(before: str, wanted: CallFilter | DecisionFilter | FeedbackFilter) -> bool:
    """False where a wanted text is one that no database holds, and that some refuse to look for."""
    texts = (value for value in (before, *msgspec.structs.astuple(wanted)) if isinstance(value, str))
    return not any("\x00" in text or text != text.encode(errors="replace").decode() for text in texts)


def of_calls(wanted: CallFilter, dialect: str) -> Asked:
    """What is asked of a call itself."""
    table = schema.calls
    same = _same((table.c.endpoint, wanted.endpoint), (table.c.user, wanted.user))
    texts = (table.c.id, table.c.parent, table.c.user, table.c.endpoint, table.c.model)
    return (*same, *_within(table, wanted.since, wanted.until), *_holds(dialect, wanted.text, *texts))


def of_outcomes(wanted: CallFilter) -> Asked:
    """What is asked of a call's outcome; () where nothing is."""
    table = schema.outcomes
    asked = _same((table.c.model, wanted.model), (table.c.provider, wanted.provider))
    match wanted.error:
        case "":
            return asked
        case "any":
            return (*asked, FAILED)
        case "none":
            return (*asked, table.c.error == "")
        case category:
            return (*asked, table.c.error == category, FAILED)


def of_decisions(wanted: DecisionFilter) -> Asked:
    """What is asked of a decision."""
    table = schema.decisions
    pairs = (table.c.point, wanted.point), (table.c.action, wanted.action), (table.c.policy, wanted.policy)
    live = () if wanted.live is None else (table.c.live.is_(wanted.live),)
    return (*_same(*pairs), *live, *_within(table, wanted.since, wanted.until))


def of_feedback(wanted: FeedbackFilter, dialect: str) -> Asked:
    """What is asked of a feedback."""
    table = schema.feedback
    pairs = (table.c.kind, wanted.kind), (table.c.source, wanted.source), (table.c.metric, wanted.metric)
    same = _same(*pairs, (table.c.target, wanted.target))
    texts = _holds(dialect, wanted.text, table.c.comment, table.c.target)
    return (*same, *_within(table, wanted.since, wanted.until), *texts)


def ended(connection: sa.Connection, calls: sa.Select[Any], asked: Asked, limit: int) -> list[int]:
    """The places of the first `limit` of `calls` with an outcome for which all of `asked` holds.

    No join: PostgreSQL has no statistics of a table that is cut into days as a whole, and a wrong guess there takes
    minutes. Most filters fill a page from the newest calls; only a rare one goes through the outcomes.
    """
    table = schema.calls
    slim = calls.with_only_columns(table.c.seq, table.c.tenant, table.c.workspace, table.c.id)
    found: list[int] = []
    for window in NEAR:
        near = connection.execute(slim.limit(window)).all()
        fitting = _fitting(connection, asked, near)
        found += [row.seq for row in near if (row.tenant, row.workspace, row.id) in fitting]
        if len(found) >= limit or len(near) < window:
            return found[:limit]
        slim = slim.where(table.c.seq < near[-1].seq)
    return (found + _through_outcomes(connection, slim.with_only_columns(table.c.seq), asked, limit))[:limit]


def days(
    connection: sa.Connection, table: sa.Table, calls: Sequence[str], days_after: int = 0
) -> tuple[sa.ColumnElement[bool], ...]:
    """The days of `calls`, where the tables are cut into days. SQLite would take them for a better way in than the ids
    themselves, and read all that lies between."""
    if connection.dialect.name == "sqlite":
        return ()
    return partitions.narrowed(table, calls, days_after=days_after)


def _through_outcomes(connection: sa.Connection, calls: sa.Select[Any], asked: Asked, limit: int) -> list[int]:
    """The places of the first `limit` of `calls` with such an outcome, newest first."""
    table, outcomes = schema.calls, schema.outcomes
    query = sa.select(outcomes.c.tenant, outcomes.c.workspace, outcomes.c.call).where(*asked)
    every = {(row.tenant, row.workspace, row.call) for row in connection.execute(query)}
    names = sorted({call for _, _, call in every})
    owners = [table.c[name].in_({key[place] for key in every}) for place, name in enumerate(("tenant", "workspace"))]
    slim = sa.select(table.c.seq, table.c.tenant, table.c.workspace, table.c.id)
    places: list[int] = []
    for start in range(0, len(names), AT_ONCE):
        some = names[start : start + AT_ONCE]
        there = slim.where(*owners, table.c.id.in_(some), *days(connection, table, some))
        places += [row.seq for row in connection.execute(there) if (row.tenant, row.workspace, row.id) in every]
    places.sort(reverse=True)
    found: list[int] = []
    for start in range(0, len(places), AT_ONCE):
        if len(found) < limit:
            found += connection.scalars(calls.where(table.c.seq.in_(places[start : start + AT_ONCE])))
    return found


def _fitting(connection: sa.Connection, asked: Asked, calls: Sequence[Any]) -> set[Owned]:
    """Those of `calls` with an outcome for which all of `asked` holds."""
    table = schema.outcomes
    names = [call.id for call in calls]
    owners = table.c.tenant.in_({call.tenant for call in calls}), table.c.workspace.in_({c.workspace for c in calls})
    slim = sa.select(table.c.tenant, table.c.workspace, table.c.call)
    query = slim.where(*owners, table.c.call.in_(names), *asked, *days(connection, table, names, 2))
    return {(row.tenant, row.workspace, row.call) for row in connection.execute(query)}


def _same(*pairs: tuple[sa.Column[str], str]) -> Asked:
    return tuple(column == wanted for column, wanted in pairs if wanted)


def _within(table: sa.Table, since: float | None, until: float | None) -> Asked:
    first = () if since is None else (table.c.at >= since,)
    return first if until is None else (*first, table.c.at < until)


def _holds(dialect: str, text: str, *columns: sa.Column[str]) -> Asked:
    """That `text` stands in one of `columns`, letter by letter: no wildcards, no folding of case."""
    if not text:
        return ()
    place = sa.func.instr if dialect == "sqlite" else sa.func.strpos
    return (sa.or_(*(place(column, text) > 0 for column in columns)),)
