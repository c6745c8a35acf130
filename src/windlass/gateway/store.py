"""The gateway's own rows: virtual keys, and what was spent of budgets."""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlalchemy as sa

from windlass.ledger import schema
from windlass.ledger.db import Database, metadata

keys = sa.Table(
    "keys",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False, unique=True),
    sa.Column("previous", sa.Text, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)
_HEAD = "keys"


class KeyRow(NamedTuple):
    """A key as it is kept: its id, its digest, that of the one before it, and the rest as JSON."""

    id: str
    digest: str
    previous: str
    data: bytes


class KeyTable:
    """The table of keys, and a number that tells each change of it."""

    def __init__(self, db: Database):
        self._db = db

    def version(self) -> int:
        """It rises with every change."""
        with self._db.read() as connection:
            heads = schema.heads
            return int(connection.scalar(sa.select(heads.c.value).where(heads.c.name == _HEAD)) or 0)

    def rows(self) -> list[KeyRow]:
        """Every key."""
        with self._db.read() as connection:
            query = sa.select(keys.c.id, keys.c.digest, keys.c.previous, keys.c.data).order_by(keys.c.id)
            return [KeyRow(*row) for row in connection.execute(query)]

    def put(self, key: str, tenant: str, digest: str, previous: str, data: bytes, *, known: int) -> bool:
        """Keep a key, in place of what it was before. False, and nothing done, where the version is not `known` any
        more: whoever decided on older keys must not undo what another process did meanwhile."""
        row: dict[str, Any] = {"id": key, "tenant": tenant, "digest": digest, "previous": previous, "data": data}
        mine = schema.heads.c.name == _HEAD
        with self._db.write() as connection:
            # The row is there, and locked, before it is read: no two processes count from the same version.
            connection.execute(self._db.insert_new(schema.heads, "name"), {"name": _HEAD, "value": 0})
            moved = sa.update(schema.heads).where(mine, schema.heads.c.value == known).values(value=known + 1)
            if connection.execute(moved).rowcount != 1:
                return False
            connection.execute(self._db.replace(keys, "id"), row)
        return True


def spent(db: Database, since: float) -> dict[tuple[str, str, int], int]:
    """What was used of budgets, nano-dollars by (limit, group, begin of the window), of windows that began at `since`
    or later, and of those that never end."""
    table = schema.spend
    used = sa.func.sum(table.c.nusd)
    query = (
        sa.select(table.c.name, table.c.grp, table.c.since, used)
        .where(sa.or_(table.c.since >= since, table.c.since == 0))
        .group_by(table.c.name, table.c.grp, table.c.since)
    )
    with db.read() as connection:
        return {(name, group, int(begin)): int(total) for name, group, begin, total in connection.execute(query)}
