"""The places of idempotency keys: who answers a call, and the sealed reply once there is one.

A place is held by a lease, which a living process renews; one that is over, or whose process is gone, may be taken. On
PostgreSQL leases go by the database's clock, because those of machines differ. The reply itself is committed by the
ledger with the outcome of its call (`StoredReply`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from windlass.ledger.db import Database
from windlass.ledger.process import gone
from windlass.ledger.schema import replies

LEASE_S: Final = 15.0
LEFT_S: Final = 86_400.0
"""So long the place of a call that was never ended lies about, unless somebody takes it."""
PENDING, DONE = "pending", "done"
_KEYS = ("tenant", "workspace", "caller", "digest")
_NOW = sa.text("SELECT extract(epoch FROM clock_timestamp())")


class ReplyPlace(NamedTuple):
    """Whose key it is, and the digest of it. caller: which of the tenant's keys sent it."""

    tenant: str
    workspace: str
    caller: str
    digest: str


class ReplyRow(NamedTuple):
    """What stands in a place. asked: digest of the request, made under the key secret that `secret` tells apart.

    owner: the mark of the process whose call it is, and a number of its own. data: the sealed reply, empty until then.
    """

    asked: str
    secret: str
    state: str
    owner: str
    call: str
    leased_until: float
    expires_at: float
    data: bytes


class ReplyTable:
    """The table of replies. clock: UTC seconds. Every method reads or writes the database: call it in a thread."""

    def __init__(self, db: Database, clock: Callable[[], float]):
        self._db = db
        self._clock = clock

    def claim(self, place: ReplyPlace, asked: str, secret: str, owner: str) -> ReplyRow | None:
        """Take the place for `owner`, or tell what stands there: a reply, or a call under way. None: it was taken."""
        with self._db.read() as connection:
            found = self._find(connection, place)
            if found is not None and self._stands(connection, found):
                return found
        with self._db.write() as connection:
            now = self._clock()
            row: dict[str, Any] = {"asked": asked, "secret": secret, "owner": owner, "call": "", "user": ""}
            row |= {
                "state": PENDING,
                "at": now,
                "expires_at": now + LEFT_S,
                "leased_until": self._now(connection) + LEASE_S,
                "data": b"",
            }
            made = connection.execute(
                self._db.insert_new(replies, *_KEYS),
                {**place._asdict(), **row},
                execution_options={"preserve_rowcount": True},
            )
            if made.rowcount == 1:
                return None
            found = self._find(connection, place, locked=True)
            if found is not None and self._stands(connection, found):
                return found
            connection.execute(sa.update(replies).where(*_at(place)).values(**row))
        # Let go of between the two statements, which only PostgreSQL allows, the place was empty again.
        return None if found is not None else self.claim(place, asked, secret, owner)

    def renew(self, held: Iterable[tuple[ReplyPlace, str]]) -> None:
        """Say that the calls of these places and owners are still under way."""
        with self._db.write() as connection:
            until = self._now(connection) + LEASE_S
            for place, owner in sorted(held):
                mine = sa.update(replies).where(*_at(place), replies.c.owner == owner)
                connection.execute(mine.values(leased_until=until))

    def release(self, place: ReplyPlace, owner: str) -> None:
        """Empty the place, if `owner` holds it and there is no reply."""
        mine = sa.delete(replies).where(*_at(place), replies.c.owner == owner, replies.c.state == PENDING)
        with self._db.write() as connection:
            connection.execute(mine)

    def _find(self, connection: sa.Connection, place: ReplyPlace, *, locked: bool = False) -> ReplyRow | None:
        query = sa.select(*(replies.c[name] for name in ReplyRow._fields)).where(*_at(place))
        row: Any = connection.execute(query.with_for_update() if locked else query).first()
        return None if row is None else ReplyRow(*row)

    def _stands(self, connection: sa.Connection, found: ReplyRow) -> bool:
        """Whether a row keeps others out: it has a reply that is good, or a call that may yet bring one."""
        if found.state == DONE:
            return found.expires_at > self._clock()
        return found.leased_until > self._now(connection) and not gone(found.owner.partition(":")[0])

    def _now(self, connection: sa.Connection) -> float:
        """The clock that leases go by."""
        return self._clock() if self._db.dialect == "sqlite" else float(connection.scalar(_NOW) or 0.0)


def _at(place: ReplyPlace) -> list[sa.ColumnElement[bool]]:
    return [replies.c[name] == value for name, value in place._asdict().items()]
