"""Who works on a shared database, and how far each has learned: what the lag shown to people is made of."""

from __future__ import annotations

import hashlib
import re
import socket
from pathlib import Path

import msgspec
import sqlalchemy as sa

from windlass.ledger import schema
from windlass.ledger.db import Database

ALIVE_S = 5.0
"""A worker that has not been heard of for so long is taken for dead."""


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """One process. head: the last place it wrote; cursor: the last it has learned from; at: when it was heard of last
    (UTC seconds), negative once it has left."""

    name: str
    pid: int
    at: float
    head: int
    cursor: int


def unique(name: str, home: Path, host: str = "") -> str:
    """`name` made one that no worker of another machine or folder has, and the same after a restart.

    Such as `worker-0@crane-3f9c2a`: the host's name for people, a digest of host and folder for the rest. host: this
    machine's own where it is left out.
    """
    machine = host or socket.gethostname()
    digest = hashlib.blake2b(f"{machine}\0{home.resolve()}".encode(errors="surrogateescape"), digest_size=3).hexdigest()
    return f"{name}@{re.sub('[^A-Za-z0-9]+', '-', machine.split('.')[0])[:24]}-{digest}"


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


def awaited(db: Database, since: float, mine: str) -> list[str]:
    """The names of the workers that go on with their own runs: those that were heard of since that time (UTC seconds),
    at work or as they left, and all of the folder of the worker `mine`, which are started together."""
    table = schema.workers
    here = table.c.name.endswith(mine[mine.rfind("@") :], autoescape=True)
    query = sa.select(table.c.name).where(here | (sa.func.abs(table.c.at) >= since))
    with db.read() as connection:
        return list(connection.scalars(query))


def leave(db: Database, name: str) -> None:
    """Take this worker off the list; its last place stays."""
    table = schema.workers
    with db.write() as connection:
        left = sa.update(table).where(table.c.name == name).values(at=-sa.func.abs(table.c.at))
        connection.execute(left)
