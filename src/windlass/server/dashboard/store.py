"""Who is signed in, in the database, so that every worker knows it and a sign-out holds everywhere."""

from __future__ import annotations

import hashlib
from typing import cast

import msgspec
import sqlalchemy as sa

from windlass.gateway.access.admission import Caller
from windlass.gateway.options import Role
from windlass.ledger.db import Database, metadata
from windlass.records import Scope

visits = sa.Table(
    "visits",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("workspace", sa.Text, nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("seen_at", sa.Double, nullable=False),
    sa.Column("virtual_key", sa.Text),
)
TOUCH_S = 60.0
"""A visit's last use is written at most so often."""


class Visit(msgspec.Struct, frozen=True):
    """One signed-in browser: whom it acts for, and when it was last seen (UTC seconds)."""

    caller: Caller
    seen_at: float


class Visits:
    """The signed-in browsers by the random id in their cookie, of which only the digest is kept."""

    def __init__(self, db: Database):
        self._db = db

    def add(self, cookie: str, visit: Visit, *, most: int) -> None:
        """Sign a browser in; beyond `most` visits the one that was unused longest goes."""
        caller = visit.caller
        row = {
            "id": _digest(cookie),
            "tenant": caller.scope.tenant,
            "workspace": caller.scope.workspace,
            "role": caller.role,
            "key": caller.key,
            "seen_at": visit.seen_at,
            "virtual_key": caller.virtual,
        }
        newest = sa.select(visits.c.id).order_by(visits.c.seen_at.desc()).limit(most)
        with self._db.write() as connection:
            # The newest visit of all stays, even where it shares its time with others.
            connection.execute(sa.delete(visits).where(visits.c.id.not_in(newest.limit(most - 1))))
            connection.execute(sa.insert(visits), row)

    def find(self, cookie: str) -> Visit | None:
        """The visit behind a cookie, however long ago it was used."""
        with self._db.read() as connection:
            row = connection.execute(sa.select(visits).where(visits.c.id == _digest(cookie))).mappings().first()
        if row is None:
            return None
        scope = Scope(row["tenant"], row["workspace"])
        caller = Caller(scope, cast(Role, row["role"]), row["key"], virtual=row["virtual_key"])
        return Visit(caller, row["seen_at"])

    def touch(self, cookie: str, visit: Visit, now: float) -> None:
        """Note that a visit is in use."""
        if now - visit.seen_at >= TOUCH_S:
            mine = sa.update(visits).where(visits.c.id == _digest(cookie)).values(seen_at=now)
            with self._db.write() as connection:
                connection.execute(mine)

    def remove(self, cookie: str) -> None:
        """Sign a browser out."""
        with self._db.write() as connection:
            connection.execute(sa.delete(visits).where(visits.c.id == _digest(cookie)))


def _digest(cookie: str) -> str:
    return hashlib.sha256(cookie.encode(errors="replace")).hexdigest()
