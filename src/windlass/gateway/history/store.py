"""What the ledger already holds of an export: looked up before anything is written, to count and to leave out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec
import sqlalchemy as sa

from windlass.ledger import schema
from windlass.ledger.db import Database
from windlass.records import Scope

AT_ONCE = 500


class Present:
    """Reads one scope of the ledger."""

    def __init__(self, db: Database, scope: Scope):
        self._db = db
        self._scope = scope

    def calls(self, names: Iterable[str]) -> set[str]:
        """Those of the ids that are calls already."""
        return self._ids(schema.calls, names)

    def feedback(self, names: Iterable[str]) -> set[str]:
        """Those of the ids that are feedback already."""
        return self._ids(schema.feedback, names)

    def forgotten(self, digests: Collection[str]) -> Mapping[str, float]:
        """Until when the users with these digests were forgotten, UTC seconds; those who never were are left out."""
        table = schema.erasures
        found: dict[str, float] = {}
        with self._db.read() as connection:
            for some in _portions(digests):
                query = sa.select(table.c.user, sa.func.max(table.c.at)).where(*self._owned(table))
                rows = connection.execute(query.where(table.c.user.in_(some)).group_by(table.c.user))
                found |= {user: float(at) for user, at in rows}
        return found

    def calls_of(self, groups: Collection[str]) -> dict[str, dict[str, str]]:
        """Of each group (a call's parent) the imported calls: their ids by the ids they had in the export."""
        table = schema.calls
        found: dict[str, dict[str, str]] = {}
        with self._db.read() as connection:
            for some in _portions(groups):
                query = sa.select(table.c.parent, table.c.id, table.c.extra).where(*self._owned(table))
                for parent, name, extra in connection.execute(query.where(table.c.parent.in_(some))):
                    source = msgspec.json.decode(extra).get("source", "")
                    found.setdefault(parent, {})[str(source)] = name
        return found

    def _ids(self, table: sa.Table, names: Iterable[str]) -> set[str]:
        found: set[str] = set()
        with self._db.read() as connection:
            for some in _portions(names):
                query = sa.select(table.c.id).where(table.c.id.in_(some), *self._owned(table))
                found |= set(connection.scalars(query))
        return found

    def _owned(self, table: sa.Table) -> tuple[sa.ColumnElement[bool], ...]:
        return table.c.tenant == self._scope.tenant, table.c.workspace == self._scope.workspace


def _portions(names: Iterable[str]) -> Iterable[list[str]]:
    every = sorted(set(names))
    return (every[at : at + AT_ONCE] for at in range(0, len(every), AT_ONCE))
