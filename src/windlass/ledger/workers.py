"""Who works on a shared database, and how far each has learned: what the lag shown to people is made of."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa

from windlass.ledger import schema
from windlass.ledger.db import Database

ALIVE_S = 5.0
"""A worker that has not been heard of for so long is taken for dead."""


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """One process. head: the last place it wrote; cursor: the last it has learned from; at: UTC seconds."""

    name: str
    pid: int
    at: float
    head: int
    cursor: int


def beat(db: Database, name: str, pid: int, now: float, cursor: int) -> None:
    """Say that this worker lives, and how far it has learned."""
    table = schema.workers
    row = {"name": name, "pid": pid, "at": now, "head": 0, "cursor": cursor}
    with db.write() as connection:
        mine = sa.update(table).where(table.c.name == name).values(pid=pid, at=now, cursor=cursor)
        if not connection.execute(mine).rowcount:
            connection.execute(db.insert_new(table, "name"), row)


def alive(db: Database, now: float) -> list[Worker]:
    """The workers that were heard of within `ALIVE_S`, by name."""
    table = schema.workers
    query = sa.select(table).where(table.c.at >= now - ALIVE_S).order_by(table.c.name)
    with db.read() as connection:
        return [Worker(**row) for row in connection.execute(query).mappings()]


def leave(db: Database, name: str) -> None:
    """Take this worker off the list; its last place stays."""
    table = schema.workers
    with db.write() as connection:
        connection.execute(sa.update(table).where(table.c.name == name).values(at=0.0))
