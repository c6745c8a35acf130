"""Digests over the ledger's own rows, so that one that was altered, removed, added or moved is found.

A seal covers the places (after, until]: for each table the number of its rows and SHA-256 over them in the order of
their places. It stands in the audit trail, so the trail's chain and its signed checkpoints hold it in place. Columns
that forgetting a user may clear are left out, and so are contexts and bodies: deleting those breaks no seal.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from windlass.ledger import schema
from windlass.ledger.db import Database
from windlass.ledger.writer import Counter, Order, Transactions

FORMAT: Final = 1
BLOCK = 10_000
"""So many rows of one table at most go into a seal: what a finding can be narrowed down to."""
PAGE = 1_000
_OWNED: Final = "seq id tenant workspace at extra "
_COVERED: Final = {
    "calls": "endpoint model stream parent request_bytes",
    "decisions": "call point policy actions action propensity live featuriser fallback",
    "outcomes": "call model provider status latency_ms first_byte_ms prompt_tokens completion_tokens cost_nusd "
    "tokens_estimated error",
    "feedback": "target kind source metric value",
    "run_events": "run workflow step item result",
    "erasures": "user",
}
COLUMNS: Final = {name: (_OWNED + columns).split() for name, columns in _COVERED.items()}
"""Table -> what format 1 covers. A new column needs a new format; older seals keep theirs."""
FORGETTABLE: Final = {"calls": {"user"}, "feedback": {"comment"}}
_ENCODER = msgspec.msgpack.Encoder()


class Seal(msgspec.Struct, frozen=True, kw_only=True):
    """What one seal says. tables: name -> (rows, SHA-256 as hex); a table without rows in the span is left out."""

    after: int
    until: int
    tables: dict[str, tuple[int, str]]
    format: int = FORMAT

    @property
    def rows(self) -> int:
        """How many ledger rows it covers."""
        return sum(count for count, _ in self.tables.values())


def order_of(db: Database) -> Order:
    """How this database numbers its records."""
    return Counter() if db.dialect == "sqlite" else Transactions()


def take(db: Database, after: int, *, whole: bool) -> Seal | None:
    """The seal over what follows place `after`, up to `BLOCK` rows of each table.

    whole: only where a table has a full block; otherwise over whatever is there. None where there is nothing to do.
    """
    with db.read() as connection:
        settled = order_of(db).settled(connection)
        ends = [end for table in schema.SEQUENCED if (end := _block_end(connection, table, after, settled)) is not None]
        if whole and not ends:
            return None
        seal = _over(connection, after, min(ends, default=settled))
    return seal if seal.rows else None


def again(db: Database, seal: Seal) -> Seal:
    """The same span, sealed from the rows that are there now."""
    with db.read() as connection:
        return _over(connection, seal.after, seal.until)


def misplaced(db: Database) -> int:
    """How many rows stand before the first place, where no seal would look."""
    with db.read() as connection:
        counts = (sa.select(sa.func.count()).select_from(table).where(table.c.seq <= 0) for table in schema.SEQUENCED)
        return sum(int(connection.scalar(count) or 0) for count in counts)


def newest(db: Database) -> int:
    """The place of the last call or decision, 0 where there is neither."""
    with db.read() as connection:
        tables = schema.calls, schema.decisions
        return max(int(connection.scalar(sa.select(sa.func.max(table.c.seq))) or 0) for table in tables)


def _block_end(connection: sa.Connection, table: sa.Table, after: int, settled: int) -> int | None:
    """The place of the table's `BLOCK`th row after `after`, or None where it has fewer."""
    query = sa.select(table.c.seq).where(table.c.seq > after, table.c.seq <= settled)
    return connection.scalar(query.order_by(table.c.seq).limit(1).offset(BLOCK - 1))


def _over(connection: sa.Connection, after: int, until: int) -> Seal:
    found = {table.name: _digest(connection, table, after, until) for table in schema.SEQUENCED}
    return Seal(after=after, until=until, tables={name: told for name, told in found.items() if told[0]})


def _digest(connection: sa.Connection, table: sa.Table, after: int, until: int) -> tuple[int, str]:
    """(rows, SHA-256) of one table's rows, a page in memory at a time; values as msgpack, alike on all databases."""
    query: sa.Select[Any] = sa.select(*(table.c[name] for name in COLUMNS[table.name]))
    query = query.where(table.c.seq > after, table.c.seq <= until).order_by(table.c.seq)
    count, hasher, encode = 0, hashlib.sha256(), _ENCODER.encode
    # Left open, the options of a stream would stay with the connection's other statements.
    with connection.execute(query, execution_options={"yield_per": PAGE}) as result:
        for page in result.partitions():
            count += len(page)
            hasher.update(b"".join([encode(tuple(row)) for row in page]))
    return count, hasher.hexdigest()
