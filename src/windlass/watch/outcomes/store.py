"""The tables of the fold over outcomes: providers and keys by the hour, and episodes of errors.

Every worker may fold. The tables carry the place up to which they are right; whoever comes first adds what lies beyond
it, in one transaction under the lock of that place's row, so each outcome counts once, whoever dies when.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal

import msgspec
import sqlalchemy as sa

from windlass.ledger import schema
from windlass.ledger.db import Database, metadata
from windlass.records import Scope
from windlass.watch.outcomes.fold import Cause, EndedCall, Gains, Row
from windlass.watch.sketch import Sketch

READ: Final = 2_000
HEAD: Final = "outcomes"
Recovery = Literal["", "retry", "probe", "call"]


def _whole(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.BigInteger, nullable=False)


def _text(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.Text, nullable=False)


provider_hours = sa.Table(
    "provider_hours",
    metadata,
    *schema.owned(),
    _whole("hour"),
    _text("provider"),
    _text("model"),
    _whole("answered"),
    _whole("failed"),
    _whole("skipped"),
    sa.Column("latency", sa.LargeBinary, nullable=False),
    sa.Column("first_byte", sa.LargeBinary, nullable=False),
    sa.PrimaryKeyConstraint("tenant", "workspace", "hour", "provider", "model"),
)
key_hours = sa.Table(
    "key_hours",
    metadata,
    *schema.owned(),
    _whole("hour"),
    _text("key"),
    _whole("calls"),
    _whole("errors"),
    _whole("cost_nusd"),
    sa.Column("last_at", sa.Double, nullable=False),
    sa.PrimaryKeyConstraint("tenant", "workspace", "key", "hour"),
)
episodes = sa.Table(
    "error_episodes",
    metadata,
    *schema.owned(),
    _text("provider"),
    _text("model"),
    _text("error"),
    # Of the outcome that began it: no two episodes of one cause have the same.
    sa.Column("place", schema.Seq, nullable=False),
    sa.Column("since", sa.Double, nullable=False),
    sa.Column("last", sa.Double, nullable=False),
    *(_whole(name) for name in ("failed", "skipped", "retried", "failed_over", "lost")),
    sa.Column("left_alone", sa.Boolean, nullable=False),
    sa.Column("recovered_at", sa.Double),
    _text("recovered_by"),
    sa.PrimaryKeyConstraint("tenant", "workspace", "provider", "model", "error", "place"),
    sa.Index("error_episodes_by_place", "tenant", "workspace", "place"),
)
GOING_ON = episodes.c.recovered_at.is_(None)
# On PostgreSQL too, by its migration; to name it here would load its dialect, 2 MB.
sa.Index("error_episodes_going_on", episodes.c.tenant, sqlite_where=GOING_ON)

_AT = schema.heads.c.name == HEAD
_CURSOR = sa.select(schema.heads.c.value).where(_AT)
# An update that changes nothing takes the row's lock, so that one worker at a time adds.
_LOCK = sa.update(schema.heads).where(_AT).values(value=schema.heads.c.value).returning(schema.heads.c.value)
_MOVE = sa.update(schema.heads).where(_AT).values(value=sa.bindparam("cursor"))
_READ = (
    sa.select(*(schema.outcomes.c[name] for name in EndedCall._fields))
    .where(schema.outcomes.c.seq > sa.bindparam("after"), schema.outcomes.c.seq <= sa.bindparam("until"))
    .order_by(schema.outcomes.c.seq)
    .limit(READ)
)
_SKETCHED = ("latency", "first_byte")


class ProviderHour(msgspec.Struct, frozen=True, kw_only=True):
    """How one model of one provider did in an hour (its start in UTC seconds).

    answered: good answers; failed: attempts that failed; skipped: those not made because its breaker was open.
    latency, first_byte: of good answers, ms, counted from when this model was asked.
    """

    hour: int
    provider: str
    model: str
    answered: int
    failed: int
    skipped: int
    latency: Sketch
    first_byte: Sketch


class Episode(msgspec.Struct, frozen=True, kw_only=True):
    """A run of failures of one model of one provider for one cause; times are UTC seconds.

    failed: attempts, of which one call may make several; skipped: attempts that its breaker kept away. Calls that met a
    failure, each once: retried: the same model answered after all; failed_over: another one did; lost: none did, and
    the client was told. A call that its client left is none of these.
    recovered_by: what first went well again: the `retry` of a call that had failed, a `probe` of the breaker, another
    `call`; recovered_at: when, None while it goes on.
    """

    provider: str
    model: str
    error: str
    place: int
    since: float
    last: float
    failed: int
    skipped: int
    retried: int
    failed_over: int
    lost: int
    recovered_at: float | None
    recovered_by: Recovery


class KeyUse(msgspec.Struct, frozen=True, kw_only=True):
    """What one key did: calls, those that failed, what they cost, and when the last one ended (UTC seconds)."""

    key: str
    calls: int
    errors: int
    cost_nusd: int
    last_at: float


class OutcomeTables:
    """The fold, and the readers of its tables. Thread-safe."""

    def __init__(self, db: Database):
        self._db = db
        self._lock = threading.Lock()
        self.cursor = self._stored()

    def catch_up(self, until: int, most: int | None = None) -> bool:
        """Fold the outcomes up to the place `until`, which must be settled; `most` of them, and what is read with the
        last of these. Returns whether it stopped before `until`."""
        left = most
        with self._lock:
            while self.cursor < until and (left is None or left > 0):
                folded = self._step(until)
                left = None if left is None else left - folded
            return self.cursor < until

    def clear(self) -> None:
        """Empty the tables, so that they are filled again from the first entry."""
        with self._lock, self._db.write() as connection:
            connection.execute(_MOVE, {"cursor": 0})
            for table in (provider_hours, key_hours, episodes):
                connection.execute(sa.delete(table))
            self.cursor = 0

    def hours(self, scope: Scope, since: float = 0.0) -> Sequence[ProviderHour]:
        """From the hour that holds `since` (UTC seconds) on, oldest first."""
        table = provider_hours
        columns = [table.c[name] for name in ProviderHour.__struct_fields__]
        query = sa.select(*columns).where(*_owned(table, scope), table.c.hour > since - 3_600).order_by(table.c.hour)
        with self._db.read() as connection:
            found = [dict(row) for row in connection.execute(query).mappings()]
        for row in found:
            row |= {name: _sketch(row[name]) for name in _SKETCHED}
        return [ProviderHour(**row) for row in found]

    def going_on(self, scope: Scope, limit: int = 200) -> Sequence[Episode]:
        """The episodes that no good answer has ended, the latest failure first."""
        query = _EPISODES.where(*_owned(episodes, scope), GOING_ON).order_by(episodes.c.last.desc()).limit(limit)
        with self._db.read() as connection:
            return [_episode(row) for row in connection.execute(query)]

    def over(self, scope: Scope, *, limit: int = 50, before: int = 0) -> Sequence[Episode]:
        """The episodes that are over, the latest to begin first: at least `limit` of them, where there are as many.

        before: the `place` of the last one of the page before. Those of one place stay together.
        """
        mine = (*_owned(episodes, scope), episodes.c.recovered_at.is_not(None))
        place = episodes.c.place
        earlier = (place < before,) if before else ()
        names = (place.desc(), episodes.c.provider, episodes.c.model, episodes.c.error)
        nth = sa.select(place).where(*mine, *earlier).order_by(place.desc()).offset(limit - 1).limit(1)
        with self._db.read() as connection:
            last = connection.scalar(nth)
            query = _EPISODES.where(*mine, *earlier, place >= (last or 0)).order_by(*names)
            return [_episode(row) for row in connection.execute(query)]

    def keys(self, scope: Scope, since: float = 0.0, key: str = "") -> Mapping[str, KeyUse]:
        """What each key, or the one named, did in this workspace, by its name, from the hour that holds `since` on."""
        table = key_hours
        sums = (sa.func.sum(table.c[name]) for name in ("calls", "errors", "cost_nusd"))
        query = (
            sa.select(table.c.key, *sums, sa.func.max(table.c.last_at))
            .where(*_owned(table, scope), table.c.hour > since - 3_600, *((table.c.key == key,) if key else ()))
            .group_by(table.c.key)
        )
        with self._db.read() as connection:
            found: list[tuple[Any, ...]] = [tuple(row) for row in connection.execute(query)]
        return {
            name: KeyUse(key=name, calls=int(calls), errors=int(errors), cost_nusd=int(cost), last_at=last)
            for name, calls, errors, cost, last in found
        }

    def last_used(self, scope: Scope, key: str) -> float | None:
        """When the last call of a key in this workspace ended, UTC seconds; None where there was none."""
        table = key_hours.c
        query = sa.select(table.last_at).where(*_owned(key_hours, scope), table.key == key).order_by(table.hour.desc())
        with self._db.read() as connection:
            found = connection.scalar(query.limit(1))
            return None if found is None else float(found)

    def _stored(self) -> int:
        with self._db.read() as connection:
            return int(connection.scalar(_CURSOR) or 0)

    def _step(self, until: int) -> int:
        """Fold one batch; how many outcomes."""
        with self._db.write() as connection:
            stored = int(connection.scalar(_LOCK) or 0)
            if stored >= until:
                self.cursor = stored
                return 0
            # Past SQLAlchemy's rows, which take most of the time of a fold.
            cursor = connection.execute(_READ, {"after": stored, "until": until}).cursor
            found = [EndedCall(*row) for row in cursor.fetchall()] if cursor is not None else []
            place = found[-1].seq if len(found) == READ else until
            failing = connection.execute(sa.select(episodes).where(GOING_ON)).mappings()
            gains = Gains(map(dict, failing), partial(_newest, connection))
            for ended in found:
                gains.take(ended)
            self._write(connection, gains)
            connection.execute(_MOVE, {"cursor": place})
        self.cursor = place
        return len(found)

    def _write(self, connection: sa.Connection, gains: Gains) -> None:
        hours = [_merged(connection, _keyed(provider_hours, key, row)) for key, row in sorted(gains.hours.items())]
        keys = [_keyed(key_hours, (*key[:2], key[3], key[2]), row) for key, row in sorted(gains.keys.items())]
        for row in keys:
            row["last_at"] = max(row["last_at"], connection.scalar(_LAST, row) or 0.0)
        names = [column.name for column in provider_hours.primary_key]
        if hours:
            connection.execute(self._db.add(provider_hours, *names, latest=_SKETCHED), hours)
        if keys:
            ours = [column.name for column in key_hours.primary_key]
            connection.execute(self._db.add(key_hours, *ours, latest=("last_at",)), keys)
        if gains.episodes:
            ours = [column.name for column in episodes.primary_key]
            rows = [row for _, row in sorted(gains.episodes.items())]
            connection.execute(self._db.replace(episodes, *ours), rows)


_EPISODES = sa.select(*(episodes.c[name] for name in Episode.__struct_fields__))
_COUNTS = msgspec.msgpack.Decoder(list[tuple[int, int]]).decode
_LAST = sa.select(key_hours.c.last_at).where(
    *(key_hours.c[name] == sa.bindparam(name) for name in ("tenant", "workspace", "key", "hour"))
)
_PRESENT = sa.select(*(provider_hours.c[name] for name in _SKETCHED)).where(
    *(provider_hours.c[name] == sa.bindparam(name) for name in ("tenant", "workspace", "hour", "provider", "model"))
)


def _owned(table: sa.Table, scope: Scope) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return table.c.tenant == scope.tenant, table.c.workspace == scope.workspace


def _keyed(table: sa.Table, key: tuple[Any, ...], row: Row) -> Row:
    return {**dict(zip((column.name for column in table.primary_key), key, strict=True)), **row}


def _merged(connection: sa.Connection, row: Row) -> Row:
    """The row with what its sketches hold already, packed."""
    present = connection.execute(_PRESENT, row).mappings().first()
    for name in _SKETCHED:
        if present is not None:
            row[name].merge(_sketch(present[name]))
        row[name] = msgspec.msgpack.encode(row[name].counts())
    return row


def _newest(connection: sa.Connection, cause: Cause) -> Row | None:
    """The newest episode of a cause."""
    names = ("tenant", "workspace", "provider", "model", "error")
    same = (episodes.c[name] == value for name, value in zip(names, cause, strict=True))
    found = connection.execute(sa.select(episodes).where(*same).order_by(episodes.c.place.desc()).limit(1))
    row = found.mappings().first()
    return None if row is None else dict(row)


def _episode(row: Sequence[Any]) -> Episode:
    return Episode(**dict(zip(Episode.__struct_fields__, row, strict=True)))


def _sketch(data: bytes) -> Sketch:
    return Sketch(_COUNTS(data))
