"""Filters of the ledger's listings as SQL: what a page of 50 among many thousand rows costs is decided here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from typing import Any, TypeAlias

import msgspec
import sqlalchemy as sa

from windlass.ledger import partitions, schema
from windlass.ledger.ledger import CallFilter, DecisionFilter, FeedbackFilter

NEAR = (250, 3_000)
"""So many of the newest calls are looked through, and then so many more, before outcomes are asked first."""
FEW = 5_000
"""Up to so many fitting outcomes of all times, their calls are looked up; of more, the next calls hold a page soon."""
FURTHER = 10_000
"""So many calls more at once, where the fitting outcomes are not few."""
FAILED = schema.outcomes.c.error != sa.literal_column("''")
"""With the empty text spelled out, as in the index of errors, which no bound value is seen to fit."""
Asked: TypeAlias = tuple[sa.ColumnElement[bool], ...]
Owned: TypeAlias = tuple[str, str, str]
"""(tenant, workspace, call)."""


def possible(wanted: CallFilter | DecisionFilter | FeedbackFilter, *ids: str) -> bool:
    """False where a wanted text is one that no database holds, and that some refuse to look for."""
    texts = (value for value in (*ids, *msgspec.structs.astuple(wanted)) if isinstance(value, str))
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


def led_to(wanted: CallFilter | FeedbackFilter) -> Asked:
    """What is asked that an index leads to, so that all who fit it are found without a look at the others."""
    if isinstance(wanted, CallFilter):
        return _same((schema.calls.c.user, wanted.user))
    return _same((schema.feedback.c.target, wanted.target))


def ended(connection: sa.Connection, calls: sa.Select[Any], asked: Asked, limit: int) -> list[int]:
    """The places of the first `limit` of `calls` with an outcome for which all of `asked` holds.

    No join: PostgreSQL has no statistics of a table that is cut into days as a whole, and a wrong guess there takes
    minutes. Most filters fill a page from the newest calls; a rare one starts from the few outcomes that fit. What is
    left, such as a model of long ago, walks back; of all calls no more than `FURTHER` are ever held at once.
    """
    table = schema.calls
    slim = calls.with_only_columns(table.c.seq, table.c.tenant, table.c.workspace, table.c.id)
    found: list[int] = []
    for window in chain(NEAR, repeat(FURTHER)):
        rows = connection.execute(slim.limit(window)).all()
        near = [(seq, (tenant, workspace, call)) for seq, tenant, workspace, call in rows]
        fitting = _fitting(connection, asked, [owned for _, owned in near])
        found += [seq for seq, owned in near if owned in fitting]
        if len(found) >= limit or len(near) < window:
            return found[:limit]
        slim = slim.where(table.c.seq < near[-1][0])
        if window == NEAR[-1]:
            rare = _few(connection, asked)
            if rare is not None:
                return (found + _of_few(connection, slim, rare))[:limit]
    raise AssertionError("the windows never end")


def days(
    connection: sa.Connection, table: sa.Table, calls: Sequence[str], days_after: int = 0
) -> tuple[sa.ColumnElement[bool], ...]:
    """The days of `calls`, where the tables are cut into days. SQLite would take them for a better way in than the ids
    themselves, and read all that lies between."""
    if connection.dialect.name == "sqlite":
        return ()
    return partitions.narrowed(table, calls, days_after=days_after)


def _few(connection: sa.Connection, asked: Asked) -> set[Owned] | None:
    """The calls of all outcomes for which all of `asked` holds; None where these are more than `FEW`."""
    table = schema.outcomes
    # A column that `outcomes_by_call` lacks: SQLite would rather read all of that than the few in the index of errors.
    more = (table.c.at,) if any(one is FAILED for one in asked) else ()
    query = sa.select(table.c.tenant, table.c.workspace, table.c.call, *more).where(*asked).limit(FEW + 1)
    found = connection.execute(query).all()
    return {(row.tenant, row.workspace, row.call) for row in found} if len(found) <= FEW else None


def _of_few(connection: sa.Connection, calls: sa.Select[Any], rare: set[Owned]) -> list[int]:
    """The places of those of `calls` that are in `rare`, newest first."""
    if not rare:
        return []
    table = schema.calls
    names = sorted({call for _, _, call in rare})
    there = calls.order_by(None).where(*_owners(table, rare), _among(connection, table.c.id, names))
    there = there.where(*days(connection, table, names))
    found = [seq for seq, tenant, workspace, call in connection.execute(there) if (tenant, workspace, call) in rare]
    return sorted(found, reverse=True)


def _fitting(connection: sa.Connection, asked: Asked, calls: Sequence[Owned]) -> set[Owned]:
    """Those of `calls` with an outcome for which all of `asked` holds."""
    if not calls:
        return set()
    table = schema.outcomes
    names = [call for _, _, call in calls]
    slim = sa.select(table.c.tenant, table.c.workspace, table.c.call)
    query = slim.where(*_owners(table, calls), _among(connection, table.c.call, names), *asked)
    query = query.where(*days(connection, table, names, 2))
    return {(tenant, workspace, call) for tenant, workspace, call in connection.execute(query)}


def _owners(table: sa.Table, calls: Iterable[Owned]) -> Asked:
    tenants, workspaces, _ = zip(*calls, strict=True)
    return table.c.tenant.in_(set(tenants)), table.c.workspace.in_(set(workspaces))


def _among(connection: sa.Connection, column: sa.Column[str], values: Sequence[str]) -> sa.ColumnElement[bool]:
    """That `column` is one of `values`, which go as one parameter: thousands of them cost more than the search."""
    if connection.dialect.name == "sqlite":
        listed = sa.func.json_each(msgspec.json.encode(values).decode()).table_valued("value")
        return column.in_(sa.select(listed.c.value))
    return column == sa.any_(sa.literal(list(values), sa.ARRAY(sa.Text)))


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
