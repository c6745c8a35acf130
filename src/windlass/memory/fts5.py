"""Full-text search in SQLite: an FTS5 table for each collection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import sqlalchemy as sa

from windlass.memory.index import Ids
from windlass.memory.matches import Matches, Scores, joined, rarity, terms


class Fts5:
    """SQLite's FTS5 with BM25 (k1 = 1.2, b = 0.75, https://www.sqlite.org/fts5.html), words stemmed by Porter.

    The index refers to the `chunks` table for its text, which is therefore stored once.
    """

    def create(self, connection: sa.Connection, collection: int) -> None:
        connection.exec_driver_sql(
            f"CREATE VIRTUAL TABLE {_table(collection)} USING fts5"
            "(text, content='chunks', content_rowid='id', tokenize='porter unicode61')"
        )

    def drop(self, connection: sa.Connection, collection: int) -> None:
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS {_table(collection)}")

    def add(self, connection: sa.Connection, collection: int, rows: Sequence[tuple[int, str]]) -> None:
        if rows:
            statement = f"INSERT INTO {_table(collection)}(rowid, text) VALUES (?, ?)"
            connection.exec_driver_sql(statement, [tuple(row) for row in rows])

    def remove(self, connection: sa.Connection, collection: int, rows: Sequence[tuple[int, str]]) -> None:
        if not rows:
            return
        table = _table(collection)
        connection.exec_driver_sql(
            f"INSERT INTO {table}({table}, rowid, text) VALUES ('delete', ?, ?)", [tuple(row) for row in rows]
        )
        # A deleted row only gets a tombstone; merging all segments takes its words off the disk.
        connection.exec_driver_sql(f"INSERT INTO {table}({table}) VALUES ('optimize')")

    def match(self, connection: sa.Connection, collection: int, query: str, size: int) -> Matches:
        """One look-up a term: their BM25 add up to that of the whole query, and each tells the term's rarity."""
        table = _table(collection)
        statement = f"SELECT rowid, -bm25({table}) FROM {table} WHERE {table} MATCH ?"
        found: list[tuple[Ids, Scores, float]] = []
        for term in terms(query):
            rows = connection.exec_driver_sql(statement, (f'"{term}"',)).fetchall()
            table_ids = np.fromiter((row[0] for row in rows), np.int64, len(rows))
            scores = np.fromiter((row[1] for row in rows), np.float64, len(rows))
            found.append((table_ids, scores, rarity(len(rows), size)))
        return joined(found)


def _table(collection: int) -> str:
    return f"fts_{int(collection)}"
