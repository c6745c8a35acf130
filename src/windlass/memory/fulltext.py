"""Full-text search over the chunks of one collection: the seam between this room and the two databases.

The words and the word statistics of each collection stay apart, so that neither can show in the results of another
tenant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import sqlalchemy as sa

from windlass.errors import LedgerError
from windlass.memory.fts5 import Fts5
from windlass.memory.matches import Matches
from windlass.memory.tsvector import TsVector


class FullText(Protocol):
    """One dialect's way to index chunks by their words. Everything happens in the caller's transaction."""

    def create(self, connection: sa.Connection, collection: int) -> None:
        """Make the empty index of a collection."""

    def drop(self, connection: sa.Connection, collection: int) -> None:
        """Take the index of a collection away, if there is one."""

    def add(self, connection: sa.Connection, collection: int, rows: Sequence[tuple[int, str]]) -> None:
        """Index the (chunk id, text) `rows`."""

    def remove(self, connection: sa.Connection, collection: int, rows: Sequence[tuple[int, str]]) -> None:
        """Take the (chunk id, text) `rows` out, the text as it was added; no word of them stays behind."""

    def match(self, connection: sa.Connection, collection: int, query: str, size: int) -> Matches:
        """The chunks, of `size` in the collection, that hold a term of `query`: any text, it is never syntax."""


def full_text(dialect: str) -> FullText:
    """The full-text index of a database dialect. LedgerError where there is none."""
    if dialect == "sqlite":
        return Fts5()
    if dialect == "postgresql":
        return TsVector()
    raise LedgerError(f"no full-text index for {dialect} databases; set database_url to sqlite:/// or postgresql://")
