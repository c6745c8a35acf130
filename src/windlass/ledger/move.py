"""Moving everything from one database to another, SQLite or PostgreSQL in either direction, and proving that it came.

Each table is read in one snapshot of the source and written in batches, each its own commit. A table that stands on the
target already with the same rows is left alone, any other is emptied and copied again: so a move that was killed is
finished by doing it once more. The proof is a digest of each table that depends neither on the order of the rows nor on
the dialect: the sum, modulo 2^128, of the BLAKE2b of every row in MessagePack.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from windlass.errors import LedgerError
from windlass.ledger import partitions, schema
from windlass.ledger.db import MOVING, Database, metadata, newest_migration
from windlass.ledger.writer import Transactions

BATCH = 5_000
_HERE_ONLY = frozenset({schema.heads.name, schema.workers.name})
"""What belongs to one database alone: its counters, and who works on it."""
_STAYS = frozenset({"alembic_version", "visits", "search_chunks", "search_sizes"})
"""The mark of the version, who is signed in to the pages, and PostgreSQL's full-text index, which is made anew."""
Told = Callable[[str, int, int], None]
"""(table, rows copied, rows in all), after each batch."""


class Sum(msgspec.Struct, frozen=True):
    """What a table holds: how many rows, and their digest."""

    table: str
    rows: int
    digest: str


def move(source: Database, target: Database, told: Told = lambda *_: None) -> list[Sum]:
    """Copy every table of `source` to `target`, which is migrated and empty or holds a part of this very move.

    The caller has made sure that nobody writes to either, rebuilds what is derived (the full-text index) and calls
    `finish` last. Raises LedgerError for a source of another version, a target with rows of its own, and a table that
    does not come out equal.
    """
    compare(source, target)
    _claim(source, target)
    sums = []
    with source.read() as reading:
        for table in _tables():
            there = total(reading, table)
            with target.read() as connection:
                same = total(connection, table) == there
            if not same:
                _copy(reading, target, table, there.rows, told)
                with target.read() as connection:
                    came = total(connection, table)
                if came != there:
                    raise LedgerError(
                        f"table {table.name}: {there.rows} rows ({there.digest}) left, {came.rows} ({came.digest}) "
                        "came; the source is untouched: stop what writes to either database and move again"
                    )
            told(table.name, there.rows, there.rows)
            sums.append(there)
        heads = {str(name): int(value) for name, value in reading.execute(sa.select(schema.heads))}
    _set_heads(target, heads)
    return sums


def compare(source: Database, target: Database) -> None:
    """LedgerError where the two are of different versions."""
    if version(source) != version(target):
        raise LedgerError(
            f"the source is at migration {version(source) or 'none'}, this release at {version(target)}; "
            "run `windlass doctor` once, which upgrades it, then move"
        )
    for db in (source, target):
        if strange := sorted(_present(db) - metadata.tables.keys() - _STAYS):
            raise LedgerError(
                f"the database holds tables that this program does not move: {', '.join(strange)}; nothing was moved: "
                "take them out, if they are yours, or report it"
            )


def finish(source: Database, target: Database) -> None:
    """Take the mark off: the target is whole and may be used."""
    with target.write() as connection:
        connection.execute(sa.delete(schema.heads).where(schema.heads.c.name == _mark(source)))


def version(db: Database) -> str:
    """The migration at which a database stands, '' where it has none."""
    if not has_table(db, "alembic_version"):
        return ""
    with db.read() as connection:
        return str(connection.scalar(sa.text("SELECT version_num FROM alembic_version")) or "")


def newest() -> str:
    """The migration that this release brings a database to."""
    return newest_migration()


def has_table(db: Database, table: str, schema_name: str | None = None) -> bool:
    """Whether the database has that table."""
    with db.read() as connection:
        return bool(sa.inspect(connection).has_table(table, schema_name))


def totals(connection: sa.Connection) -> list[Sum]:
    """Count and digest of every table that moves."""
    return [total(connection, table) for table in _tables()]


def total(connection: sa.Connection, table: sa.Table) -> Sum:
    """Count and digest of a table."""
    rows, summed = 0, 0
    for batch in _batches(connection, table):
        rows += len(batch)
        for row in batch:
            digest = hashlib.blake2b(msgspec.msgpack.encode(_canonical(table, row)), digest_size=16).digest()
            summed = (summed + int.from_bytes(digest, "big")) % 2**128
    return Sum(str(table.name), rows, f"{summed:032x}")


def _present(db: Database) -> set[str]:
    """The tables of a database, but for what is derived from others (full text) and the parts of divided ones."""
    with db.read() as connection:
        if db.dialect != "sqlite":
            return set(connection.scalars(sa.text(_PRESENT)))
        found = list(connection.execute(sa.text("SELECT name, sql FROM sqlite_master WHERE type = 'table'")))
    derived = tuple(name for name, made in found if made.upper().startswith("CREATE VIRTUAL"))
    return {name for name, _ in found if not name.startswith(("sqlite_", *derived))}


_PRESENT = (
    "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition"
    " AND relnamespace = current_schema()::regnamespace"
)


def _tables() -> Iterator[sa.Table]:
    """Every table that moves, those that others refer to first."""
    return (table for table in metadata.sorted_tables if table.name not in _HERE_ONLY)


def _batches(connection: sa.Connection, table: sa.Table) -> Iterator[Sequence[sa.Row[Any]]]:
    streamed = connection.execution_options(yield_per=BATCH) if connection.dialect.name == "postgresql" else connection
    yield from streamed.execute(sa.select(table)).partitions(BATCH)


def _canonical(table: sa.Table, row: sa.Row[Any]) -> list[Any]:
    """The row as plain data that is equal on both dialects; SQLite may give a whole number for a real one."""
    return [
        float(value) if isinstance(column.type, sa.Double) and value is not None else value
        for column, value in zip(table.c, row, strict=True)
    ]


def _claim(source: Database, target: Database) -> None:
    """Mark the target as this move's. LedgerError where it holds rows of something else."""
    mark = _mark(source)
    with target.write() as connection:
        marks = set(connection.scalars(sa.select(schema.heads.c.name).where(schema.heads.c.name.startswith(MOVING))))
        if marks - {mark}:
            raise LedgerError("the target holds a part of another move; finish that one, or give an empty database")
        if marks:
            return
        for table in _tables():
            if connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first() is not None:
                raise LedgerError(f"the target has rows of its own in {table.name}; give an empty database")
        connection.execute(sa.insert(schema.heads), {"name": mark, "value": 0})


def _mark(source: Database) -> str:
    """What says on a target where its rows come from, without naming a path or a host."""
    url = source.url
    where = (
        str(Path(url.database or "").resolve())
        if source.dialect == "sqlite"
        else f"{url.host}:{url.port}/{url.database}"
    )
    return MOVING + hashlib.blake2b(where.encode(), digest_size=8).hexdigest()


def _copy(reading: sa.Connection, target: Database, table: sa.Table, rows: int, told: Told) -> None:
    with target.write() as connection:
        connection.execute(sa.delete(table))
    done = 0
    for batch in _batches(reading, table):
        values = [dict(zip(table.c.keys(), row, strict=True)) for row in batch]
        if target.dialect == "postgresql":
            _make_days(target, table, values)
        with target.write() as connection:
            if target.dialect == "postgresql":
                _copy_in(connection, table, values)
            else:
                connection.execute(sa.insert(table), values)
        done += len(batch)
        told(table.name, done, rows)
    counted = table.autoincrement_column
    if target.dialect == "postgresql" and counted is not None:
        with target.write() as connection:
            highest = connection.scalar(sa.select(sa.func.max(counted)))
            if highest is not None:
                sequence = sa.func.pg_get_serial_sequence(table.name, counted.name)
                connection.execute(sa.select(sa.func.setval(sequence, highest)))


def _make_days(target: Database, table: sa.Table, values: Sequence[dict[str, Any]]) -> None:
    if table.name in partitions.PREFIX:
        days = partitions.days(row[partitions.key(table).name] for row in values)
        with target.write() as connection:
            partitions.ensure(connection, days)


def _copy_in(connection: sa.Connection, table: sa.Table, values: Sequence[dict[str, Any]]) -> None:
    names = list(table.c.keys())
    columns = ", ".join(f'"{name}"' for name in names)
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f"COPY {table.name} ({columns}) FROM STDIN") as copy:
        for row in values:
            copy.write_row([row[name] for name in names])


def _set_heads(target: Database, heads: dict[str, int]) -> None:
    """The cursors as they were; the counter so that the next record follows the last one."""
    with target.write() as connection:
        for name, value in heads.items():
            if name != "ledger" and not name.startswith(MOVING):
                connection.execute(target.replace(schema.heads, "name"), {"name": name, "value": value})
        if target.dialect == "postgresql":
            Transactions().align(connection)
            return
        last = [connection.scalar(sa.select(sa.func.max(table.c.seq))) or 0 for table in schema.SEQUENCED]
        connection.execute(sa.update(schema.heads).where(schema.heads.c.name == "ledger").values(value=max(last)))
