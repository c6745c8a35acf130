"""The writing side of the ledger on a database: one transaction a batch, and the one order over all records.

SQLite has one writer, so a counter row gives the places. PostgreSQL has many, and a counter row would make them wait
for each other: there a place is `base + (transaction id << 20) + n`. A transaction that is still running may yet commit
places between those that are visible, so readers stop before the oldest one (`pg_snapshot_xmin`); what lies below
never changes (PostgreSQL 15 manual, table 9.81, "Transaction ID and Snapshot Information Functions").
"""

from __future__ import annotations

import operator
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol

import sqlalchemy as sa

from windlass.errors import HANDLING, LedgerError, classify
from windlass.ledger import journal, partitions, rows, schema
from windlass.ledger.db import Database
from windlass.ledger.ids import is_imported
from windlass.ledger.intake import Pending
from windlass.stats.chance import Propensity, settle

SHIFT: Final = 20
COPY_FROM = 200
"""From so many rows of one table on, COPY is faster than executemany (benchmarks/ledger.py)."""
RECOVERED = 2_048
"""So many records of a journal are taken into the tables in one transaction."""
RETRIES_S = (0.05, 0.2, 0.5, 1.0, 2.0)
PATIENCE_S = 5.0
"""Once a batch has waited so long, nothing is tried again: its callers wait with it."""
_VALUE = schema.heads.c.value
_LEDGER = schema.heads.c.name == "ledger"
_PLACED = frozenset(schema.SEQUENCED)


class Order(Protocol):
    """How far one dialect has numbered records. Everything happens in the caller's transaction."""

    def settled(self, connection: sa.Connection) -> int:
        """No record will ever be added at or before this place, and all there are can be seen."""
        ...

    def head(self, connection: sa.Connection) -> int:
        """The place of the last record that can be seen, 0 where there is none."""
        ...


class Counter:
    """One row that every writing transaction raises; SQLite locks the database for it anyway."""

    _settled: Final = sa.select(_VALUE).where(_LEDGER)

    @staticmethod
    def take(driver: Any, count: int) -> int:
        """The place before the first of `count` new ones, asked of the driver's own connection."""
        found = driver.execute(_COUNT, (count,)).fetchall()
        if not found:
            raise LedgerError("the ledger's counter is gone; restore the database from a backup")
        return int(found[0][0]) - count

    def settled(self, connection: sa.Connection) -> int:
        return int(connection.scalar(self._settled) or 0)

    def head(self, connection: sa.Connection) -> int:
        return self.settled(connection)


class Transactions:
    """Places from transaction ids; the counter row holds the base and is only read."""

    _take: Final = sa.text(
        f"SELECT value + (pg_current_xact_id()::text::bigint << {SHIFT}) FROM heads WHERE name = 'ledger'"
    )
    _settled: Final = sa.text(
        f"SELECT value + (pg_snapshot_xmin(pg_current_snapshot())::text::bigint << {SHIFT}) FROM heads "
        "WHERE name = 'ledger'"
    )
    _head: Final = sa.text("SELECT max(head) FROM workers WHERE head <= :settled")
    _align: Final = sa.text("UPDATE heads SET value = value + :behind WHERE name = 'ledger'")

    def take(self, connection: sa.Connection, count: int) -> int:
        """The place before the first of `count` new ones."""
        if count >= 1 << SHIFT:
            raise LedgerError(f"{count} records in one append; send fewer than {1 << SHIFT}")
        return int(connection.scalar(self._take) or 0)

    def settled(self, connection: sa.Connection) -> int:
        return int(connection.scalar(self._settled) or 0)

    def head(self, connection: sa.Connection) -> int:
        """Of the workers' last places the highest that is settled; a look at each table would plan each partition."""
        found = connection.scalar(self._head, {"settled": self.settled(connection)})
        return int(found or 0)

    def align(self, connection: sa.Connection) -> int:
        """Make new places follow all that are there, also where the rows came from another server; their highest."""
        connection.exec_driver_sql("SELECT 1 FROM heads WHERE name = 'ledger' FOR UPDATE")
        highest = max(_highest(connection, table) for table in schema.SEQUENCED)
        behind = highest + 1 - self.take(connection, 0)
        if behind > 0:
            connection.execute(self._align, {"behind": behind})
        return highest


class Writer:
    """Commits batches. name: of this process among the workers of a database, '' where it is alone."""

    def __init__(self, db: Database, name: str = "", clock: Callable[[], float] = time.time):
        self._db = db
        self._shared = db.dialect != "sqlite"
        self._name = name or f"process-{os.getpid()}"
        self._clock = clock
        self._inserts = {table: _insert_new(table, "?" if db.dialect == "sqlite" else "%s") for table in _APPENDED}
        self._days: set[int] = set()
        self._transactions = self._join() if self._shared else None
        self.order: Order = self._transactions or Counter()

    def commit(self, batch: Sequence[Pending]) -> int:
        """Commit `batch` in one transaction and return the place of its last record.

        A server that is away for a moment, or a deadlock, is tried again: ids make that safe. LedgerError otherwise.
        """
        if self._transactions is None:
            return self._to_file(batch)
        began = time.monotonic()
        for patience_s in RETRIES_S:
            try:
                return self._to_server(self._transactions, batch, again=patience_s != RETRIES_S[0])
            except LedgerError as exc:
                if not HANDLING[classify(exc)].retryable or time.monotonic() - began >= PATIENCE_S:
                    raise
                time.sleep(patience_s)
        return self._to_server(self._transactions, batch, again=True)

    def recover(self, records: Sequence[Sequence[Pending]]) -> None:
        """Commit those of the records, each what one append brought, that are not in the tables of the file yet.

        Appends are committed whole: where each row with an id is there, what was spent has been added as well, and what
        was deleted since is to stay away.
        """
        with self._db.read() as connection:
            driver: Any = connection.connection.driver_connection
            missing = [pending for pending in records if not _stands(driver, pending)]
        for start in range(0, len(missing), RECOVERED):
            self._to_file([row for pending in missing[start : start + RECOVERED] for row in pending])

    def _to_file(self, batch: Sequence[Pending]) -> int:
        grouped, placed = _grouped(batch)
        spent, replies = grouped.pop(schema.spend, None), grouped.pop(schema.replies, None)
        with self._db.write_file() as driver:
            head = _number(placed, Counter.take(driver, len(placed)))
            for table in _APPENDED:
                if table in grouped:
                    driver.executemany(self._inserts[table], grouped[table])
            if spent:
                driver.executemany(_SPEND.format(mark="?"), [(*row[:-1], self._name) for row in spent])
            if replies:
                driver.executemany(_REPLIED.format(mark="?"), replies)
        return head

    def _to_server(self, order: Transactions, batch: Sequence[Pending], *, again: bool) -> int:
        # A context comes with its decision, whose id is the same.
        self._make_days(row[_KEY[table]] for table, row in batch if table is not schema.contexts and table in _KEY)
        grouped, placed = _grouped(batch)
        spent, replies = grouped.pop(schema.spend, []), grouped.pop(schema.replies, [])
        with self._db.write() as connection:
            head = _number(placed, order.take(connection, len(placed)))
            if again and spent:  # the commit before may have come through, though nobody could say so
                spent = _unspent(connection, spent)
            for table in _APPENDED:
                if table in grouped:
                    self._insert(connection, table, grouped[table])
            _change(connection, _SPEND, [(*row[:-1], self._name) for row in spent])
            _change(connection, _REPLIED, [tuple(row) for row in replies])
            connection.execute(_BEAT, {"name": self._name, "at": self._clock(), "head": head})
        return head

    def _insert(self, connection: sa.Connection, table: sa.Table, values: list[rows.Row]) -> None:
        # One order of keys in all workers, so that two that bring the same ids wait for each other, never in a ring.
        identity = operator.itemgetter(*_PLACES[table])
        values.sort(key=identity)
        if len(values) < COPY_FROM or not _copied(connection, table, values):
            connection.exec_driver_sql(self._inserts[table], [tuple(row) for row in values])

    def _make_days(self, ids: Iterable[str]) -> None:
        """The partitions of a batch, before its transaction, because making one locks the tables.

        None for what is imported: a history of 1,200 days made so many that every query failed for want of locks.
        """
        missing = partitions.days(name for name in ids if not is_imported(name)) - self._days
        if missing:
            with self._db.write() as connection:
                partitions.ensure(connection, missing)
            self._days |= missing

    def _join(self) -> Transactions:
        """Take a place among the workers; makes the partitions of today and tomorrow before anyone waits for them."""
        today = int(self._clock() * 1000) // partitions.DAY_MS
        order = Transactions()
        with self._db.write() as connection:
            highest = order.align(connection)
            row = {"name": self._name, "pid": os.getpid(), "at": self._clock(), "head": highest}
            connection.execute(_JOIN, row)
        with self._db.write() as connection:
            partitions.ensure(connection, {today, today + 1})
        self._days = {today, today + 1}
        return order


_APPENDED = (*rows.TABLES.values(), schema.contexts, schema.bodies)
# Where in a row its identity stands, and the id that tells its day.
_PLACES = {
    table: tuple(list(table.c.keys()).index(name) for name in ("tenant", "workspace", partitions.key(table).name))
    for table in _APPENDED
}
_KEY = {table: places[-1] for table, places in _PLACES.items()}
_TYPES: Final[dict[type, str]] = {
    sa.BigInteger: "int8", sa.Double: "float8", sa.Boolean: "bool", sa.Text: "text", sa.LargeBinary: "bytea",
}  # fmt: skip
_WIRE = {table: [_TYPES[type(column.type)] for column in table.c] for table in _APPENDED}
_PROPENSITY = list(schema.decisions.c.keys()).index("propensity")
_COUNT = "UPDATE heads SET value = value + ? WHERE name = 'ledger' RETURNING value"
# (limit, group, since, nusd, worker)
_SPEND = (
    "INSERT INTO spend (name, grp, since, nusd, worker) VALUES ({mark}, {mark}, {mark}, {mark}, {mark}) "
    "ON CONFLICT (name, grp, since, worker) DO UPDATE SET nusd = spend.nusd + excluded.nusd"
)
# Only who holds the place may fill it: the call of one that was taken over is billed, but answers nobody later.
_REPLIED = (
    "UPDATE replies SET state = 'done', call = {mark}, \"user\" = {mark}, at = {mark}, expires_at = {mark}, "
    "data = {mark} WHERE tenant = {mark} AND workspace = {mark} AND caller = {mark} AND digest = {mark} "
    "AND owner = {mark}"
)
# All of them begin with place, id, tenant, workspace.
_THERE = {
    table: f"SELECT 1 FROM {table.name} WHERE id = ? AND tenant = ? AND workspace = ?" for table in schema.SEQUENCED
}
_ENDED = sa.select(schema.outcomes.c.id).where(schema.outcomes.c.id.in_(sa.bindparam("ids", expanding=True)))
_BEAT = sa.text("UPDATE workers SET head = greatest(head, :head), at = :at WHERE name = :name")
_JOIN = sa.text(
    "INSERT INTO workers (name, pid, at, head, cursor) VALUES (:name, :pid, :at, :head, 0) "
    "ON CONFLICT (name) DO UPDATE SET pid = excluded.pid, at = excluded.at, head = excluded.head, cursor = 0"
)


def take_in(db: Database) -> None:
    """Put into the tables of the file what killed processes have left in journals: for whoever opens no ledger."""
    if db.dialect == "sqlite":
        journal.adopt(db, Writer(db).recover)


def _stands(driver: Any, pending: Sequence[Pending]) -> bool:
    """Whether what one append brought is in the tables of the file."""
    named = [(table, row) for table, row in pending if table in _PLACED]
    return bool(named) and all(driver.execute(_THERE[table], row[1:4]).fetchone() for table, row in named)


def _unspent(connection: sa.Connection, spent: Sequence[rows.Row]) -> list[rows.Row]:
    """Those whose outcome is not in the ledger yet."""
    there = set(connection.scalars(_ENDED, {"ids": [row[-1] for row in spent]}))
    return [row for row in spent if row[-1] not in there]


def _change(connection: sa.Connection, statement: str, values: list[tuple[Any, ...]]) -> None:
    """What adds to rows, or fills them, for each of `values`."""
    if values:
        connection.exec_driver_sql(statement.format(mark="%s"), values)


def _grouped(batch: Sequence[Pending]) -> tuple[dict[sa.Table, list[rows.Row]], list[rows.Row]]:
    """The rows of each table, and those that take a place in the one order; both as they came.

    Propensities that nobody has worked out yet are worked out here, all at once.
    """
    grouped: dict[sa.Table, list[rows.Row]] = defaultdict(list)
    for table, row in batch:
        grouped[table].append(row)
    drawn = [row for row in grouped.get(schema.decisions, ()) if type(row[_PROPENSITY]) is Propensity]
    settle([row[_PROPENSITY] for row in drawn])
    for row in drawn:
        row[_PROPENSITY] = float(row[_PROPENSITY])
    return grouped, [row for table, row in batch if table in _PLACED]


def _number(placed: Sequence[rows.Row], before: int) -> int:
    """Give the rows the places that follow `before`; the last of them."""
    for place, row in enumerate(placed, start=before + 1):
        row[0] = place
    return before + len(placed)


def _insert_new(table: sa.Table, mark: str) -> str:
    """An INSERT for the driver itself, twice as fast as a compiled one; rows that are there already stay."""
    names = [f'"{column.name}"' for column in table.c]
    keys = ", ".join(names[place] for place in _PLACES[table])
    marks = ", ".join([mark] * len(names))
    return f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks}) ON CONFLICT ({keys}) DO NOTHING"


def _copied(connection: sa.Connection, table: sa.Table, values: Sequence[rows.Row]) -> bool:
    """Insert by COPY; False, and nothing inserted, where one of the rows is there already."""
    from psycopg.errors import UniqueViolation  # 0.16 s that only PostgreSQL needs

    columns = ", ".join(f'"{column.name}"' for column in table.c)
    driver: Any = connection.connection.driver_connection
    point = connection.begin_nested()
    try:
        # Binary takes half of what writing and reading numbers as text does.
        told = f"COPY {table.name} ({columns}) FROM STDIN WITH (FORMAT BINARY)"
        with driver.cursor() as cursor, cursor.copy(told) as copy:
            copy.set_types(_WIRE[table])
            for row in values:
                copy.write_row(row)
    except UniqueViolation:
        point.rollback()
        return False
    point.commit()
    return True


def _highest(connection: sa.Connection, table: sa.Table) -> int:
    newest: sa.Select[Any] = sa.select(table.c.seq).order_by(table.c.seq.desc()).limit(1)
    return int(connection.scalar(newest) or 0)
