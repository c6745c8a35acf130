"""Tables about budgets: what was used when, and how often a limit turned calls away.

What was used of a budget is committed with each call (`spend`); here stands how it grew, looked up from time to time,
so that a page can draw it. Refused calls leave no record in the ledger: they are counted here, by the hour.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import sqlalchemy as sa

from windlass.ledger import schema
from windlass.ledger.db import Database, metadata
from windlass.records import Scope

HOUR_S: Final = 3_600
KEPT_S: Final = 62 * 86_400.0
NAME_CHARS: Final = 200
budget_points = sa.Table(
    "budget_points",
    metadata,
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("grp", sa.Text, nullable=False),
    sa.Column("since", sa.BigInteger, nullable=False),
    sa.Column("step", sa.BigInteger, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("nusd", sa.BigInteger, nullable=False),
    sa.PrimaryKeyConstraint("name", "grp", "since", "step"),
    sa.Index("budget_points_by_at", "at"),
)
refusal_hours = sa.Table(
    "refusal_hours",
    metadata,
    *schema.owned(),
    sa.Column("hour", sa.BigInteger, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("refused", sa.BigInteger, nullable=False),
    sa.Column("last_at", sa.Double, nullable=False),
    sa.PrimaryKeyConstraint("tenant", "workspace", "hour", "name", "key"),
)
sa.Index("spend_by_since", schema.spend.c.since, schema.spend.c.name)


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """How often a limit turned away calls of a key ('' without one), and when last (UTC seconds)."""

    limit: str
    key: str
    refused: int
    last_at: float


class Window(msgspec.Struct, frozen=True):
    """The window of a budget that is now: when it began, and how far its points lie apart, seconds."""

    since: int
    step_s: float


class Spending:
    """How budgets grew and what was refused. Thread-safe."""

    def __init__(self, db: Database):
        self._db = db
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._waiting: dict[tuple[str, str, int, str, str], tuple[int, float]] = {}

    def used(self, limit: str, since: int, *, prefix: str = "", most: int = 50) -> list[tuple[str, int]]:
        """(group, nano-dollars) of a budget's window, the `most` that used most of it; groups that begin so."""
        table = schema.spend
        total = sa.func.sum(table.c.nusd)
        begins = sa.func.substr(table.c.grp, 1, len(prefix)) == prefix
        query = (
            sa.select(table.c.grp, total)
            .where(table.c.since == since, table.c.name == limit, begins)
            .group_by(table.c.grp)
            .order_by(total.desc(), table.c.grp)
            .limit(most)
        )
        with self._db.read() as connection:
            return [(group, int(nusd)) for group, nusd in connection.execute(query)]

    def sample(self, budgets: Mapping[str, Sequence[Window]], now: float) -> None:
        """Note what is used of each of these budgets now, once in each of its steps; forget what is long over."""
        table = schema.spend
        rows = []
        with self._db.read() as connection:
            for name, windows in budgets.items():
                for one in windows:
                    mine = table.c.since == one.since, table.c.name == name
                    query = sa.select(table.c.grp, sa.func.sum(table.c.nusd)).where(*mine).group_by(table.c.grp)
                    place = {"name": name, "since": one.since, "step": int(now // one.step_s), "at": now}
                    rows += [{**place, "grp": grp, "nusd": int(nusd)} for grp, nusd in connection.execute(query)]
        if not rows:
            return
        with self._db.write() as connection:
            connection.execute(self._db.insert_new(budget_points, "name", "grp", "since", "step"), rows)
            points = budget_points.c
            connection.execute(sa.delete(budget_points).where(points.at < now - KEPT_S, points.since != 0))

    def series(self, limit: str, group: str, since: int) -> list[tuple[float, int]]:
        """(UTC seconds, nano-dollars used so far) in a window, in the order of time."""
        points = budget_points.c
        mine = points.name == limit, points.grp == group, points.since == since
        with self._db.read() as connection:
            query = sa.select(points.at, points.nusd).where(*mine).order_by(points.step)
            return [(at, int(nusd)) for at, nusd in connection.execute(query)]

    def refuse(self, scope: Scope, limit: str, key: str, at: float) -> None:
        """Count a call that a limit turned away; written by the next `flush`."""
        place = scope.tenant, scope.workspace, int(at // HOUR_S) * HOUR_S, limit[:NAME_CHARS], key[:NAME_CHARS]
        with self._lock:
            count, last = self._waiting.get(place, (0, at))
            self._waiting[place] = count + 1, max(last, at)

    def flush(self) -> None:
        """Write what was counted, what somebody else is writing at this moment too. What cannot be written now is kept
        for the next time."""
        with self._flushing:
            self._flush()

    def _flush(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        if not waiting:
            return
        names = ("tenant", "workspace", "hour", "name", "key")
        rows = [
            {**dict(zip(names, place, strict=True)), "refused": count, "last_at": last}
            for place, (count, last) in sorted(waiting.items())
        ]
        try:
            with self._db.write() as connection:
                connection.execute(self._db.add(refusal_hours, *names, latest=("last_at",)), rows)
        except BaseException:
            with self._lock:
                for place, (count, last) in waiting.items():
                    more, later = self._waiting.get(place, (0, last))
                    self._waiting[place] = count + more, max(last, later)
            raise

    def refused(self, scope: Scope, since: float = 0.0) -> Sequence[Refused]:
        """What each limit turned away from the hour that holds `since` on, the most refused first."""
        table = refusal_hours.c
        total = sa.func.sum(table.refused)
        query = (
            sa.select(table.name, table.key, total, sa.func.max(table.last_at))
            .where(table.tenant == scope.tenant, table.workspace == scope.workspace, table.hour > since - HOUR_S)
            .group_by(table.name, table.key)
            .order_by(total.desc(), table.name, table.key)
        )
        with self._db.read() as connection:
            return [
                Refused(limit=limit, key=key, refused=int(count), last_at=last)
                for limit, key, count, last in connection.execute(query)
            ]
