"""The statements of this room. Each one names the owner, so that an id from elsewhere finds nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sa

from windlass.errors import RecordInvalid
from windlass.memory import schema
from windlass.memory.index import Bytes, Ids
from windlass.records import Scope

_IN_LIST = 1_000


class Collection(msgspec.Struct, frozen=True):
    """A named set of chunks. `embedder` is '' until the first vector; `version` grows with every change."""

    id: int
    name: str
    embedder: str
    dimensions: int
    scale: float
    version: int


class Stored(msgspec.Struct, frozen=True):
    """A chunk as it was put in."""

    id: int
    item: str
    ordinal: int
    first_segment: int
    last_segment: int
    start_s: float
    text: str


_COLLECTIONS = schema.collections
_FIND = sa.select(*(_COLLECTIONS.c[field] for field in Collection.__struct_fields__)).where(
    *(_COLLECTIONS.c[field] == sa.bindparam(field) for field in ("tenant", "workspace", "name"))
)


def find(connection: sa.Connection, scope: Scope, name: str, *, lock: bool = False) -> Collection | None:
    """The collection that the scope has under that name.

    lock: wait for whoever changes it, and keep all others from changing it until the transaction ends (SQLite has one
    writer at a time anyway).
    """
    owner = {"tenant": scope.tenant, "workspace": scope.workspace, "name": name}
    row = connection.execute(_FIND.with_for_update() if lock else _FIND, owner).first()
    return None if row is None else Collection(*row)


def make(connection: sa.Connection, insert_new: Any, scope: Scope, name: str) -> Collection | None:
    """Add an empty collection with `insert_new`; None where another process has just made it."""
    new = {"name": name, "embedder": "", "dimensions": 0, "scale": 0.0, "version": 0}
    owner = {"tenant": scope.tenant, "workspace": scope.workspace}
    made = connection.execute(insert_new.values({**owner, **new}).returning(_COLLECTIONS.c.id)).scalar()
    return None if made is None else Collection(int(made), name, "", 0, 0.0, 0)


def adopt(connection: sa.Connection, home: Collection, embedder: str, dimensions: int, scale: float) -> Collection:
    """Note whose vectors the collection holds from now on."""
    made_by = {"embedder": embedder, "dimensions": dimensions, "scale": scale}
    connection.execute(sa.update(_COLLECTIONS).where(_COLLECTIONS.c.id == home.id).values(made_by))
    return msgspec.structs.replace(home, **made_by)


def changed(connection: sa.Connection, home: Collection) -> None:
    """Let every reader know that the collection is another one now."""
    connection.execute(
        sa.update(_COLLECTIONS).where(_COLLECTIONS.c.id == home.id).values(version=_COLLECTIONS.c.version + 1)
    )


def chunks_of(connection: sa.Connection, scope: Scope, home: Collection, item: str) -> list[Stored]:
    """The chunks of an item, by ordinal."""
    query = _stored(scope, home).where(schema.chunks.c.item == item).order_by(schema.chunks.c.ordinal)
    return [Stored(*row) for row in connection.execute(query)]


def chunks_by_id(connection: sa.Connection, scope: Scope, home: Collection, ids: Sequence[int]) -> list[Stored]:
    """Those of the chunks `ids` that the collection has."""
    query = _stored(scope, home)
    return [
        Stored(*row) for some in batches(ids) for row in connection.execute(query.where(schema.chunks.c.id.in_(some)))
    ]


def chunk_ids(connection: sa.Connection, scope: Scope, home: Collection, item: str) -> Ids:
    """The ids of an item's chunks, ascending."""
    table = schema.chunks
    query = sa.select(table.c.id).where(*within(table, scope, home), table.c.item == item).order_by(table.c.id)
    return np.array(connection.scalars(query).all(), np.int64)


def vector_ids(connection: sa.Connection, scope: Scope, home: Collection) -> Ids:
    """The ids of the chunks that have a vector."""
    table = schema.vectors
    return np.array(connection.scalars(sa.select(table.c.chunk).where(*within(table, scope, home))).all(), np.int64)


def vectors(connection: sa.Connection, scope: Scope, home: Collection, ids: Sequence[int]) -> tuple[Ids, Bytes]:
    """The stored vectors of the chunks `ids`: their ids, and int8 rows (n, d).

    Raises RecordInvalid for one of another length than the collection's.
    """
    table = schema.vectors
    query = sa.select(table.c.chunk, table.c.data).where(*within(table, scope, home), table.c.chunk.in_(ids))
    found = connection.execute(query).all()
    for chunk, data in found:
        if len(data) != home.dimensions:
            raise RecordInvalid(
                f"the vector of chunk {chunk} has {len(data)} bytes, collection {home.name!r} wants {home.dimensions}; "
                f"delete the row from `vectors`, it will be embedded again"
            )
    data = np.frombuffer(b"".join(row[1] for row in found), np.int8).reshape(len(found), home.dimensions)
    return np.array([row[0] for row in found], np.int64), data


def pending(connection: sa.Connection, scope: Scope, home: Collection, limit: int) -> tuple[int, ...]:
    """Ids of chunks without a vector, oldest first."""
    chunks, made = schema.chunks, schema.vectors
    query = (
        sa.select(chunks.c.id)
        .join_from(chunks, made, made.c.chunk == chunks.c.id, isouter=True)
        .where(*within(chunks, scope, home), made.c.chunk.is_(None))
    )
    return tuple(connection.scalars(query.order_by(chunks.c.id).limit(limit)))


def count(connection: sa.Connection, table: sa.Table, scope: Scope, home: Collection) -> int:
    """How many rows of `table` the collection has."""
    return connection.scalar(sa.select(sa.func.count()).select_from(table).where(*within(table, scope, home))) or 0


def items(connection: sa.Connection, scope: Scope, home: Collection) -> int:
    """How many items the collection has."""
    table = schema.chunks
    distinct = sa.select(sa.func.count(table.c.item.distinct()))
    return connection.scalar(distinct.where(*within(table, scope, home))) or 0


def delete(connection: sa.Connection, scope: Scope, home: Collection, ids: Sequence[int]) -> None:
    """Delete chunks with their vectors."""
    for some in batches(ids):
        for table, column in ((schema.vectors, schema.vectors.c.chunk), (schema.chunks, schema.chunks.c.id)):
            connection.execute(sa.delete(table).where(*within(table, scope, home), column.in_(some)))


def batches(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    """`ids` in parts that fit into one statement."""
    for start in range(0, len(ids), _IN_LIST):
        yield ids[start : start + _IN_LIST]


def within(table: sa.Table, scope: Scope, home: Collection) -> tuple[sa.ColumnElement[bool], ...]:
    """The condition that a row of `table` is the collection's and the scope's."""
    return table.c.collection == home.id, table.c.tenant == scope.tenant, table.c.workspace == scope.workspace


def owner(scope: Scope, home: Collection) -> dict[str, Any]:
    """The columns that say where a row belongs."""
    return {"collection": home.id, "tenant": scope.tenant, "workspace": scope.workspace}


def _stored(scope: Scope, home: Collection) -> sa.Select[Any]:
    table = schema.chunks
    return sa.select(*(table.c[field] for field in Stored.__struct_fields__)).where(*within(table, scope, home))
