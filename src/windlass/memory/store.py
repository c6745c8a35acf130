"""The front of this room: collections of chunks with their full-text index and their vectors, by scope.

Text goes in first and can be searched at once; vectors follow in batches. Everything that a call changes, it changes
in one transaction, and doing it again changes nothing.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Sequence

import msgspec
import numpy as np
import sqlalchemy as sa

from windlass.errors import CollectionMismatch, EmbedderMissing, InputError, LedgerError
from windlass.ledger.db import Database
from windlass.memory import rows, schema
from windlass.memory.chunk import Passage
from windlass.memory.embedder import Embedder
from windlass.memory.fulltext import full_text
from windlass.memory.index import SCALE, Flat, Ids, quantised
from windlass.memory.matches import Matches
from windlass.memory.rows import Collection, Stored
from windlass.records import Scope

COLLECTIONS_HELD = 64
REINDEXED = 1_000
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class Counts(msgspec.Struct, frozen=True):
    """How much a collection holds."""

    items: int
    chunks: int
    vectors: int


class View(msgspec.Struct, frozen=True):
    """What one search sees: word matches, the chunks searched (`among` None: all `size`), and their vectors.

    `flat` is None where a vector is missing for a chunk, or where there is no embedder.
    """

    size: int
    among: Ids | None
    matches: Matches
    flat: Flat | None


class _Vectors(msgspec.Struct, frozen=True):
    """The vectors of a collection in memory, as of one version."""

    version: int
    chunks: int
    flat: Flat


class Memory:
    """Collections in a migrated `Database`. `embedder` None: everything works by words alone.

    Safe to use from several threads; several processes may share the database.
    """

    def __init__(self, db: Database, embedder: Embedder | None):
        self.embedder = embedder
        self._db = db
        self._text = full_text(db.dialect)
        self._held: dict[int, _Vectors] = {}
        self._lock = threading.Lock()

    def collection(self, scope: Scope, name: str) -> Collection:
        """Open the collection, or make it. CollectionMismatch where its vectors are another embedder's."""
        with self._db.read() as connection:
            found = rows.find(connection, scope, name)
        if found is None:
            with self._db.write() as connection:
                found = self._open(connection, scope, name)
        self._check(found)
        return found

    def put_text(self, scope: Scope, collection: str, item: str, passages: Sequence[Passage]) -> None:
        """Make `passages` the chunks of `item`. The same passages again change nothing and keep their vectors.

        Raises InputError for a passage that cannot be stored.
        """
        wanted = _storable(item, passages)
        with self._db.write() as connection:
            home = self._open(connection, scope, collection)
            self._check(home)
            before = rows.chunks_of(connection, scope, home, item)
            if [_passage(chunk) for chunk in before] == wanted:
                return
            self._drop(connection, scope, home, before)
            owner = {**rows.owner(scope, home), "item": item}
            new = [owner | msgspec.structs.asdict(passage) for passage in wanted]
            if new:
                connection.execute(sa.insert(schema.chunks), new)
            after = rows.chunks_of(connection, scope, home, item)
            self._text.add(connection, home.id, [(chunk.id, chunk.text) for chunk in after])
            rows.changed(connection, home)

    def pending(self, scope: Scope, collection: str, limit: int) -> tuple[int, ...]:
        """Ids of at most `limit` chunks that have no vector yet, oldest first."""
        with self._db.read() as connection:
            home = rows.find(connection, scope, collection)
            return rows.pending(connection, scope, home, limit) if home is not None else ()

    def put_vectors(self, scope: Scope, collection: str, ids: Sequence[int]) -> int:
        """Embed the chunks `ids` of the collection and store their vectors; returns how many were new.

        Raises EmbedderMissing without an embedder, CollectionMismatch with another one than the collection's.
        """
        if self.embedder is None:
            raise EmbedderMissing("vectors need an embedder; install windlass[embeddings] or leave memory.embedder on")
        chunks = self.chunks(scope, collection, ids)
        if not chunks:
            return 0
        self.collection(scope, collection)
        data = quantised(self.embedder.embed([chunk.text for chunk in chunks]), self.embedder.dimensions, SCALE)
        with self._db.write() as connection:
            home = self._adopt(connection, self._open(connection, scope, collection), self.embedder)
            # A chunk may have been replaced while its old text was embedded.
            there = {chunk.id for chunk in rows.chunks_by_id(connection, scope, home, [chunk.id for chunk in chunks])}
            owner = rows.owner(scope, home)
            new = [
                {**owner, "chunk": chunk.id, "data": row.tobytes()}
                for chunk, row in zip(chunks, data, strict=True)
                if chunk.id in there
            ]
            before = rows.count(connection, schema.vectors, scope, home)
            if new:
                connection.execute(self._db.insert_new(schema.vectors, "chunk"), new)
            stored = rows.count(connection, schema.vectors, scope, home) - before
            if stored:
                rows.changed(connection, home)
            return stored

    def remove(self, scope: Scope, collection: str, item: str) -> int:
        """Take everything of `item` out: text, words and vectors. Returns how many chunks went."""
        with self._db.write() as connection:
            home = rows.find(connection, scope, collection, lock=True)
            if home is None:
                return 0
            gone = rows.chunks_of(connection, scope, home, item)
            if gone:
                self._drop(connection, scope, home, gone)
                rows.changed(connection, home)
            return len(gone)

    def counts(self, scope: Scope, collection: str) -> Counts:
        """How much the collection holds; nothing where there is none."""
        with self._db.read() as connection:
            home = rows.find(connection, scope, collection)
            if home is None:
                return Counts(0, 0, 0)
            return Counts(
                rows.items(connection, scope, home),
                rows.count(connection, schema.chunks, scope, home),
                rows.count(connection, schema.vectors, scope, home),
            )

    def chunks(self, scope: Scope, collection: str, ids: Sequence[int]) -> tuple[Stored, ...]:
        """Those of the chunks `ids` that the collection has."""
        with self._db.read() as connection:
            home = rows.find(connection, scope, collection)
            return tuple(rows.chunks_by_id(connection, scope, home, ids)) if home is not None else ()

    def view(self, scope: Scope, collection: str, query: str, item: str | None = None) -> View | None:
        """What a search for `query` reads, in one consistent moment; None where there is no such collection.

        item: search only its chunks. Raises CollectionMismatch where the vectors are another embedder's.
        """
        with self._db.read() as connection:
            home = rows.find(connection, scope, collection)
            if home is None:
                return None
            self._check(home)
            held = self._load(connection, scope, home)
            matches = self._text.match(connection, home.id, query, held.chunks)
            among = None if item is None else rows.chunk_ids(connection, scope, home, item)
        if among is not None:
            matches = matches.among(among)
        size = held.chunks if among is None else len(among)
        complete = len(held.flat) == size if among is None else bool(np.isin(among, held.flat.ids).all())
        return View(size, among, matches, held.flat if complete and self.embedder is not None else None)

    def _open(self, connection: sa.Connection, scope: Scope, name: str) -> Collection:
        """The collection of that name, made where it is missing, in the caller's write transaction.

        Nobody else changes the collection until that transaction ends.
        """
        found = rows.find(connection, scope, name, lock=True)
        if found is None:
            made = rows.make(
                connection, self._db.insert_new(schema.collections, "tenant", "workspace", "name"), scope, name
            )
            if made is not None:
                self._text.create(connection, made.id)
            found = made or rows.find(connection, scope, name, lock=True)
        if found is None:
            raise LedgerError(f"collection {name!r} went while it was opened; try again")
        return found

    def _check(self, home: Collection) -> None:
        """Refuse vectors of another embedder."""
        mine = self.embedder
        if mine is None or not home.embedder:
            return
        if (home.embedder, home.dimensions, home.scale) != (mine.name, mine.dimensions, SCALE):
            raise CollectionMismatch(
                f"collection {home.name!r} holds vectors of {home.embedder} ({home.dimensions} dimensions, "
                f"scale {home.scale:g}), the embedder in force is {mine.name} ({mine.dimensions} dimensions, "
                f"scale {SCALE:g}); go back to {home.embedder}, or ingest again into another state folder"
            )

    def _adopt(self, connection: sa.Connection, home: Collection, embedder: Embedder) -> Collection:
        """Let a collection without vectors remember whose it gets."""
        self._check(home)
        if home.embedder:
            return home
        return rows.adopt(connection, home, embedder.name, embedder.dimensions, SCALE)

    def _drop(self, connection: sa.Connection, scope: Scope, home: Collection, gone: Sequence[Stored]) -> None:
        self._text.remove(connection, home.id, [(chunk.id, chunk.text) for chunk in gone])
        rows.delete(connection, scope, home, [chunk.id for chunk in gone])

    def _load(self, connection: sa.Connection, scope: Scope, home: Collection) -> _Vectors:
        """The collection's vectors in memory, brought to the version of this transaction or a newer one."""
        with self._lock:
            held = self._held.pop(home.id, None)
            if held is not None and held.version >= home.version:
                self._held[home.id] = held
                return held
            flat = held.flat if held is not None and len(held.flat) else Flat(home.dimensions, home.scale or SCALE)
            stored = rows.vector_ids(connection, scope, home)
            flat.remove(np.setdiff1d(flat.ids, stored).tolist())
            for ids in rows.batches(np.setdiff1d(stored, flat.ids).tolist()):
                flat.add_quantised(*rows.vectors(connection, scope, home, ids))
            held = _Vectors(home.version, rows.count(connection, schema.chunks, scope, home), flat)
            self._held[home.id] = held
            while len(self._held) > COLLECTIONS_HELD:
                del self._held[next(iter(self._held))]
            return held


def _storable(item: str, passages: Sequence[Passage]) -> list[Passage]:
    """The passages by ordinal. InputError for what no database can hold, and for an ordinal that stands twice."""
    ordered = sorted(passages, key=lambda passage: passage.ordinal)
    if len({passage.ordinal for passage in ordered}) < len(ordered):
        raise InputError(f"two passages of {item!r} have one ordinal; number them 0, 1, 2, ...")
    for text in (item, *(passage.text for passage in ordered)):
        if _UNSTORABLE.search(text):
            raise InputError(f"text of {item!r} holds a NUL character or half a surrogate pair; clean it first")
    if not all(math.isfinite(passage.start_s) for passage in ordered):
        raise InputError(f"a passage of {item!r} starts at no finite time; give seconds")
    return ordered


def _passage(chunk: Stored) -> Passage:
    return Passage(chunk.ordinal, chunk.first_segment, chunk.last_segment, chunk.start_s, chunk.text)


def reindex(db: Database) -> int:
    """Build the full-text index of every collection anew from its chunks, of all tenants; returns how many chunks."""
    text, done = full_text(db.dialect), 0
    with db.read() as connection:
        collections = list(connection.scalars(sa.select(schema.collections.c.id).order_by(schema.collections.c.id)))
    for collection in collections:
        with db.write() as connection:
            text.drop(connection, collection)
            text.create(connection, collection)
            stored = sa.select(schema.chunks.c.id, schema.chunks.c.text).where(schema.chunks.c.collection == collection)
            for batch in connection.execute(stored.order_by(schema.chunks.c.id)).partitions(REINDEXED):
                text.add(connection, collection, [(row[0], row[1]) for row in batch])
                done += len(batch)
    return done
