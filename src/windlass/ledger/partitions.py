"""Daily partitions on PostgreSQL: the big tables are cut along their ids, which begin with the time.

An id holds its milliseconds (`call_019ab3...`, see `ids.py`), so a look-up by id touches one day, and so does a look-up
of what belongs to a call. Ids of another make, such as those of tests, share the default partition.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from windlass.ledger import schema

DAY_MS = 86_400_000
PREFIX = {
    "calls": "call_",
    "decisions": "decision_",
    "outcomes": "outcome_",
    "contexts": "decision_",
    "bodies": "call_",
}
"""How the ids begin along which each divided table is cut."""
_TIMED = re.compile(r"[a-z]+_([0-9a-f]{12})[0-9a-f]{20}(?:-|$)")
_LAST_DAY = 0xFFFFFFFFFFFF // DAY_MS - 1
_LOCK = 0x57494E44
"""Of pg_advisory_xact_lock ("WIND"): one worker makes partitions at a time."""


def day_of(name: str) -> int | None:
    """The day since 1970 (UTC) that the id `name` tells, or None where it tells none.

    >>> day_of("call_019ab3c4d5e60123456789abcdef0123")
    20409
    """
    found = _TIMED.match(name)
    day = int(found.group(1), 16) // DAY_MS if found else _LAST_DAY + 1
    return day if day <= _LAST_DAY else None


def days(names: Iterable[str]) -> set[int]:
    """The days that the ids `names` tell."""
    return {day for day in map(day_of, names) if day is not None}


def bounds(table: str, day: int) -> tuple[str, str]:
    """The ids of one day in `table`: from the first, inclusive, to the second, exclusive."""
    return f"{PREFIX[table]}{day * DAY_MS:012x}", f"{PREFIX[table]}{(day + 1) * DAY_MS:012x}"


def key(table: sa.Table) -> sa.Column[str]:
    """The column that a divided table is cut along."""
    return table.c.decision if table is schema.contexts else table.c.id


def ensure(connection: sa.Connection, wanted: Iterable[int]) -> None:
    """Make the partitions of the days `wanted` where they are missing, in every divided table.

    A day whose rows came before their partition stays in the default one. Commit soon: this locks the tables.
    """
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
    present = set(connection.scalars(sa.text("SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r'")))
    for table, day in ((table, day) for day in sorted(wanted) for table in PREFIX):
        part = f"{table}_{day}"
        if part not in present:
            first, last = bounds(table, day)
            point = connection.begin_nested()
            try:
                connection.exec_driver_sql(
                    f"CREATE TABLE {part} PARTITION OF {table} FOR VALUES FROM ('{first}') TO ('{last}')"
                )
            except sa.exc.IntegrityError:
                point.rollback()
            else:
                point.commit()


def narrowed(table: sa.Table, calls: Sequence[str], *, days_after: int = 0) -> tuple[sa.ColumnElement[bool], ...]:
    """The condition under which the planner leaves out all days but those of `calls` and `days_after` more.

    Nothing where one of the ids tells no day: then every partition is searched.
    """
    told = [day_of(call) for call in calls]
    known = [day for day in told if day is not None]
    if not known or len(known) < len(told):
        return ()
    return key(table) >= bounds(table.name, min(known))[0], key(table) < bounds(table.name, max(known) + days_after)[1]
