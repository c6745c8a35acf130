"""Full-text search over the chunks of one collection: the seam, and SQLite's FTS5 behind it.

Each collection has an index table of its own, so that neither the words nor the word statistics of one tenant can
show in the results of another.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from windlass.errors import LedgerError
from windlass.memory.index import Ids
from windlass.stats.stopwords import STOP_WORDS

MAX_TERMS = 64
MAX_TERM_CHARACTERS = 128
MAX_QUERY_CHARACTERS = 16_384

Scores: TypeAlias = NDArray[np.float64]

_WORD = re.compile(r"\w+")


class Matches(NamedTuple):
    """The chunks that hold at least one term of a query.

    `ids` ascend; `scores` are BM25, higher is better; `coverage` in [0, 1] is the share of the query that the chunk
    holds, its terms weighted by their rarity (idf).
    """

    ids: Ids
    scores: Scores
    coverage: Scores

    def among(self, ids: Ids) -> Matches:
        """Only the matches in `ids`."""
        kept = np.isin(self.ids, ids)
        return Matches(self.ids[kept], self.scores[kept], self.coverage[kept])


class FullText(Protocol):
    """One dialect's way to index chunks by their words. Everything happens in the caller's transaction."""

    def create(self, connection: sa.Connection, collection: int) -> None:
        """Make the empty index of a collection."""

    def add(self, connection: sa.Connection, collection: int, rows: Sequence[tuple[int, str]]) -> None:
        """Index the (chunk id, text) `rows`."""

    def remove(self, connection: sa.Connection, collection: int, rows: Sequence[tuple[int, str]]) -> None:
        """Take the (chunk id, text) `rows` out, the text as it was added; no word of them stays behind."""

    def match(self, connection: sa.Connection, collection: int, query: str, size: int) -> Matches:
        """The chunks, of `size` in the collection, that hold a term of `query`: any text, it is never syntax."""


def full_text(dialect: str) -> FullText:
    """The full-text index of a database dialect. LedgerError where there is none yet."""
    if dialect == "sqlite":
        return Fts5()
    raise LedgerError(f"no full-text index for {dialect} databases; set database_url to sqlite:///PATH")


def terms(query: str) -> tuple[str, ...]:
    """The at most 64 distinct words of `query` that are worth looking up: no function words, unless nothing else is.

    >>> terms("Why was Signet created?")
    ('signet', 'created')
    """
    text = unicodedata.normalize("NFC", query[:MAX_QUERY_CHARACTERS]).casefold()
    words = dict.fromkeys(word for word in _WORD.findall(text) if len(word) <= MAX_TERM_CHARACTERS)
    content = [word for word in words if word not in STOP_WORDS]
    return tuple((content or list(words))[:MAX_TERMS])


class Fts5:
    """SQLite's FTS5 with BM25 (k1 = 1.2, b = 0.75, https://www.sqlite.org/fts5.html), words stemmed by Porter.

    The index refers to the `chunks` table for its text, which is therefore stored once.
    """

    def create(self, connection: sa.Connection, collection: int) -> None:
        connection.exec_driver_sql(
            f"CREATE VIRTUAL TABLE {_table(collection)} USING fts5"
            "(text, content='chunks', content_rowid='id', tokenize='porter unicode61')"
        )

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
            found.append((table_ids, scores, _rarity(len(rows), size)))
        return _joined(found)


def _table(collection: int) -> str:
    return f"fts_{int(collection)}"


def _rarity(holders: int, size: int) -> float:
    """The idf of BM25 for a term that `holders` of `size` chunks hold; a word of most chunks counts next to nothing."""
    return max(float(np.log((size - holders + 0.5) / (holders + 0.5))), 1e-6)


def _joined(found: Sequence[tuple[Ids, Scores, float]]) -> Matches:
    """The matches of several terms as those of their disjunction."""
    if not found:
        return Matches(np.empty(0, np.int64), np.empty(0), np.empty(0))
    ids, inverse = np.unique(np.concatenate([ids for ids, _, _ in found]), return_inverse=True)
    scores, coverage = np.zeros(len(ids)), np.zeros(len(ids))
    np.add.at(scores, inverse, np.concatenate([scores for _, scores, _ in found]))
    np.add.at(coverage, inverse, np.concatenate([np.full(len(ids), rarity) for ids, _, rarity in found]))
    return Matches(ids, scores, coverage / sum(rarity for _, _, rarity in found))
