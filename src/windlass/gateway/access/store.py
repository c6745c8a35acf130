"""The gateway's own rows: virtual keys, what was spent of budgets, and who may use up which part of a limit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from windlass.gateway.access.limits import Place
from windlass.ledger import schema
from windlass.ledger.db import Database, metadata

keys = sa.Table(
    "keys",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False, unique=True),
    sa.Column("previous", sa.Text, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)
_HEAD = "keys"
LEASE_ALIVE_S: Final = 5.0
"""A process that has not been heard of for so long lends nothing any more."""
_WANTED_S = 2.0
"""So long after somebody went short the others give back what they do not use."""
_OVER_S, _KEPT_S = 60.0, 86_400.0
"""When the rows of a window that is over go: a worker's own, and all."""
_ALIVE = Place("", "", "requests", 0)
"""No limit: each worker's row there says that it lives."""
_PARTS = 4
"""A worker is lent the `_PARTS`th part of an even share of what is left: it comes back seldom, and hoards little."""


class KeyRow(NamedTuple):
    """A key as it is kept: its id, its digest, that of the one before it, and the rest as JSON."""

    id: str
    digest: str
    previous: str
    data: bytes


class KeyTable:
    """The table of keys, and a number that tells each change of it."""

    def __init__(self, db: Database):
        self._db = db

    def version(self) -> int:
        """It rises with every change."""
        with self._db.read() as connection:
            heads = schema.heads
            return int(connection.scalar(sa.select(heads.c.value).where(heads.c.name == _HEAD)) or 0)

    def rows(self) -> list[KeyRow]:
        """Every key."""
        with self._db.read() as connection:
            query = sa.select(keys.c.id, keys.c.digest, keys.c.previous, keys.c.data).order_by(keys.c.id)
            return [KeyRow(*row) for row in connection.execute(query)]

    def put(self, key: str, tenant: str, digest: str, previous: str, data: bytes, *, known: int) -> bool:
        """Keep a key, in place of what it was before. False, and nothing done, where the version is not `known` any
        more: whoever decided on older keys must not undo what another process did meanwhile."""
        row: dict[str, Any] = {"id": key, "tenant": tenant, "digest": digest, "previous": previous, "data": data}
        mine = schema.heads.c.name == _HEAD
        with self._db.write() as connection:
            # The row is there, and locked, before it is read: no two processes count from the same version.
            connection.execute(self._db.insert_new(schema.heads, "name"), {"name": _HEAD, "value": 0})
            moved = sa.update(schema.heads).where(mine, schema.heads.c.value == known).values(value=known + 1)
            if connection.execute(moved).rowcount != 1:
                return False
            connection.execute(self._db.replace(keys, "id"), row)
        return True


def spent(db: Database, since: float) -> dict[tuple[str, str, int], int]:
    """What was used of budgets, nano-dollars by (limit, group, begin of the window), of windows that began at `since`
    or later, and of those that never end."""
    table = schema.spend
    used = sa.func.sum(table.c.nusd)
    query = (
        sa.select(table.c.name, table.c.grp, table.c.since, used)
        .where(sa.or_(table.c.since >= since, table.c.since == 0))
        .group_by(table.c.name, table.c.grp, table.c.since)
    )
    with db.read() as connection:
        return {(name, group, int(begin)): int(total) for name, group, begin, total in connection.execute(query)}


class Loan(NamedTuple):
    """What a process wants of a limit. opened: what it has, beyond what is committed; need: so much more."""

    place: Place
    most: int
    ends: float
    opened: int
    need: int


class LeaseTable:
    """The parts of limits that processes were lent, on PostgreSQL. worker: a name that no other process ever has.

    Each place has a row of its own without a worker, which is locked by whoever wants more, and says when somebody
    went short. Only a worker raises its own part, under that lock; that a part shrinks needs none.
    """

    def __init__(self, db: Database, worker: str):
        self._db = db
        self._worker = worker

    def take(self, asks: Sequence[Loan]) -> dict[Place, tuple[int, bool]]:
        """Raise this worker's parts by what is missing or somewhat more, or not at all where that is not there.

        (how much more, whether others hold some of it), by place. The places are locked in one order, so that no two
        wait for each other.
        """
        with self._db.write() as connection:
            return {ask.place: self._take(connection, ask) for ask in sorted(asks)}

    def _take(self, connection: sa.Connection, ask: Loan) -> tuple[int, bool]:
        head = {**_named(ask.place), "worker": ""}
        connection.execute(_NEW, [{**head, "ends": _stored(ask.ends)}])
        if connection.execute(_LOCK, head).first() is None:
            return 0, True  # of a window that ended long ago, and is being cleared away
        mine = {**_named(ask.place), "worker": self._worker, "alive_s": LEASE_ALIVE_S}
        if ask.place.measure in ("nusd", "concurrent"):  # of the dead only what they spent counts
            connection.execute(_BURY, mine)
        # What others hold first, what is committed after it: a commit in between is counted twice, never not at all.
        others = int(connection.scalar(_OTHERS, mine) or 0)
        committed = int(connection.scalar(_COMMITTED, mine) or 0) if ask.place.measure == "nusd" else 0
        left = ask.most - others - committed - ask.opened
        if left < ask.need:
            connection.execute(_WANT, head)
            return 0, others > 0
        share = left // (_PARTS * max(1, int(connection.scalar(_WORKERS, mine) or 1)))
        more = min(left, max(ask.need, share))
        connection.execute(_PUT, [{**mine, "granted": ask.opened + more, "ends": _stored(ask.ends)}])
        return more, others > 0

    def touch(self) -> set[Place]:
        """Say that this worker lives; the places where somebody went short of late."""
        with self._db.write() as connection:
            connection.execute(_PUT, [{**_named(_ALIVE), "worker": self._worker, "granted": 0, "ends": 0.0}])
            found = connection.execute(_WANTED, {"wanted_s": _WANTED_S})
            return {Place(name, group, measure, int(since)) for name, group, measure, since in found}

    def put(self, opened: Mapping[Place, tuple[int, float]]) -> None:
        """Write what this worker holds beyond what is committed, and when each window ends."""
        rows = [
            {**_named(place), "worker": self._worker, "granted": granted, "ends": _stored(ends)}
            for place, (granted, ends) in sorted(opened.items())
        ]
        with self._db.write() as connection:
            connection.execute(_PUT, rows)

    def prune(self) -> None:
        """Clear away what is over, as seen by the database's clock."""
        with self._db.write() as connection:
            connection.execute(_OVER, {"worker": self._worker, "over_s": _OVER_S, "kept_s": _KEPT_S})

    def leave(self, opened: Mapping[Place, tuple[int, float]]) -> None:
        """Keep what was used of rates, and nothing else of this worker."""
        rates = {place: row for place, row in opened.items() if place.measure not in ("nusd", "concurrent")}
        if rates:
            self.put(rates)
        with self._db.write() as connection:
            connection.execute(_LEFT, {"worker": self._worker})


_NOW = "extract(epoch FROM clock_timestamp())"
_HERE = "name = :name AND grp = :grp AND measure = :measure AND since = :since"
_OTHER = f"{_HERE} AND worker NOT IN ('', :worker)"
_LIVES = f"name = '' AND grp = '' AND measure = 'requests' AND since = 0 AND at >= {_NOW} - :alive_s"
_COLUMNS = "(name, grp, measure, since, worker, granted, ends, at)"
_NEW = sa.text(
    f"INSERT INTO leases {_COLUMNS} VALUES (:name, :grp, :measure, :since, :worker, 0, :ends, 0) "
    "ON CONFLICT (name, grp, measure, since, worker) DO NOTHING"
)
_LOCK = sa.text(f"SELECT at FROM leases WHERE {_HERE} AND worker = :worker FOR UPDATE")
_BURY = sa.text(f"DELETE FROM leases WHERE {_OTHER} AND worker NOT IN (SELECT worker FROM leases WHERE {_LIVES})")
_OTHERS = sa.text(f"SELECT sum(granted) FROM leases WHERE {_OTHER}")
_COMMITTED = sa.text("SELECT sum(nusd) FROM spend WHERE name = :name AND grp = :grp AND since = :since")
_WANT = sa.text(f"UPDATE leases SET at = {_NOW} WHERE {_HERE} AND worker = :worker")
_WANTED = sa.text(f"SELECT name, grp, measure, since FROM leases WHERE worker = '' AND at >= {_NOW} - :wanted_s")
_WORKERS = sa.text(f"SELECT count(*) FROM leases WHERE {_LIVES}")
_PUT = sa.text(
    f"INSERT INTO leases {_COLUMNS} VALUES (:name, :grp, :measure, :since, :worker, :granted, :ends, {_NOW}) "
    "ON CONFLICT (name, grp, measure, since, worker) DO UPDATE SET granted = excluded.granted, at = excluded.at"
)
_LEFT = sa.text("DELETE FROM leases WHERE worker = :worker AND (name = '' OR measure IN ('nusd', 'concurrent'))")
_OVER = sa.text(
    f"DELETE FROM leases WHERE ends > 0 AND (ends < {_NOW} - :kept_s OR worker = :worker AND ends < {_NOW} - :over_s) "
    f"OR name = '' AND at < {_NOW} - :kept_s"
)


def _named(place: Place) -> dict[str, Any]:
    return {"name": place.limit, "grp": place.group, "measure": place.measure, "since": place.since}


def _stored(ends: float) -> float:
    """A window that never ends has no end in the table."""
    return 0.0 if math.isinf(ends) else ends
