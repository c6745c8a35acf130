"""The tables of memory: collections, their chunks and vectors. The full-text index is made per collection."""

from __future__ import annotations

import sqlalchemy as sa

from windlass.ledger.db import metadata
from windlass.ledger.schema import Seq, owned

collections = sa.Table(
    "collections",
    metadata,
    sa.Column("id", Seq, primary_key=True, autoincrement=True),
    *owned(),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("embedder", sa.Text, nullable=False),
    sa.Column("dimensions", sa.Integer, nullable=False),
    sa.Column("scale", sa.Double, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Index("collections_by_name", "tenant", "workspace", "name", unique=True),
)
chunks = sa.Table(
    "chunks",
    metadata,
    sa.Column("id", Seq, primary_key=True, autoincrement=True),
    sa.Column("collection", Seq, sa.ForeignKey("collections.id", ondelete="CASCADE"), nullable=False),
    *owned(),
    sa.Column("item", sa.Text, nullable=False),
    sa.Column("ordinal", sa.Integer, nullable=False),
    sa.Column("first_segment", sa.Integer, nullable=False),
    sa.Column("last_segment", sa.Integer, nullable=False),
    sa.Column("start_s", sa.Double, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Index("chunks_by_item", "collection", "item", "ordinal", unique=True),
    # The id of a deleted chunk never comes again: whoever holds its vector in memory can tell by the id.
    sqlite_autoincrement=True,
)
vectors = sa.Table(
    "vectors",
    metadata,
    sa.Column("chunk", Seq, sa.ForeignKey("chunks.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    sa.Column("collection", Seq, sa.ForeignKey("collections.id", ondelete="CASCADE"), nullable=False),
    *owned(),
    sa.Column("data", sa.LargeBinary, nullable=False),
    sa.Index("vectors_by_collection", "collection"),
)
