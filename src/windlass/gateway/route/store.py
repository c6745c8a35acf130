"""The bases that turn the vectors of a workspace's prompts into the numbers that its policies learn from."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from windlass.ledger.db import Database, metadata
from windlass.ledger.schema import owned
from windlass.records import Scope

bases = sa.Table(
    "bases",
    metadata,
    *owned(),
    sa.Column("embedder", sa.Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("prompts", sa.BigInteger, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)
bases.append_constraint(sa.PrimaryKeyConstraint("tenant", "workspace", "embedder", "version"))


class KeptBasis(NamedTuple):
    """A basis as it is kept: its digest, when it was made (UTC seconds), of how many prompts, and the basis."""

    digest: str
    at: float
    prompts: int
    data: bytes


class BasisTable:
    """One basis for each workspace, embedder and version; the first that is made stays."""

    def __init__(self, db: Database):
        self._db = db

    def find(self, scope: Scope, embedder: str, version: int) -> KeptBasis | None:
        """The basis that is there."""
        held = bases.c
        mine = (held.tenant == scope.tenant, held.workspace == scope.workspace)
        query = sa.select(held.digest, held.at, held.prompts, held.data).where(
            *mine, held.embedder == embedder, held.version == version
        )
        with self._db.read() as connection:
            row = connection.execute(query).first()
        return None if row is None else KeptBasis(row.digest, float(row.at), int(row.prompts), bytes(row.data))

    def keep(self, scope: Scope, embedder: str, version: int, made: KeptBasis) -> KeptBasis:
        """Keep `made` unless there is one already; returns the one that holds, of whichever worker."""
        row = {
            "tenant": scope.tenant,
            "workspace": scope.workspace,
            "embedder": embedder,
            "version": version,
            **made._asdict(),
        }
        with self._db.write() as connection:
            connection.execute(self._db.insert_new(bases, "tenant", "workspace", "embedder", "version"), row)
        held = self.find(scope, embedder, version)
        assert held is not None, "it was kept, or there was one"
        return held
