"""The ledger cut into slices and summed by the database, so that a scrape reads what came since the last one.

Nothing of it happens while a call is answered. The first scrape of a process takes over the newest snapshot of the
sums; without one it counts from the first entry on, in as many scrapes as that takes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import sqlalchemy as sa
import structlog

from windlass.errors import RecordInvalid
from windlass.ledger import ids, schema
from windlass.ledger.db import Database
from windlass.ledger.ledger import Ledger, Snapshot
from windlass.ledger.writer import Counter, Order, Transactions
from windlass.policies.points import EXPERIMENT, NAMED, ROLLOUT
from windlass.watch.metrics.sums import BOUNDS_S, DecisionKey, LedgerSums, OutcomeKey, OutcomeSum, Slice

log = structlog.get_logger(__name__)
PROJECTION: Final = "metrics"
SLICE: Final = 20_000
"""Calls in a slice at most: some 60 ms of the database's time."""
KEEP_EVERY: Final = 50_000
"""Calls between two snapshots: so many are counted again at most after a start."""
_MOST_WHOLE: Final = 10**14
"""What one call may add: sums of a slice must stay below 2**63, whatever an upstream says of itself."""
_MOST_MS: Final = 1e11


class Reckoning:
    """The sums of one process. Thread-safe. slice_calls, keep_every: as `SLICE` and `KEEP_EVERY`."""

    def __init__(
        self,
        db: Database,
        ledger: Ledger,
        clock: Callable[[], float] = time.time,
        *,
        slice_calls: int = SLICE,
        keep_every: int = KEEP_EVERY,
    ):
        self._db = db
        self._slice_calls = slice_calls
        self._keep_every = keep_every
        self._ledger = ledger
        self._clock = clock
        self._order: Order = Counter() if db.dialect == "sqlite" else Transactions()
        self._lock = threading.Lock()
        self._sums: LedgerSums | None = None
        self._since_kept = 0

    def read(self, patience_s: float, tell: Callable[[LedgerSums], object]) -> bool:
        """Have `tell` read the sums over all that is committed, while nobody else moves them.

        False, and nothing told, where counting took longer than `patience_s`: the next time goes on from there.
        """
        with self._lock:
            sums = self._caught_up(patience_s)
            if sums is not None:
                tell(sums)
            return sums is not None

    def _caught_up(self, patience_s: float) -> LedgerSums | None:
        until = time.monotonic() + patience_s
        if self._sums is None:
            self._sums = self._restored()
        goal: int | None = None
        while True:
            with self._db.read() as connection:
                settled = self._order.settled(connection)
                goal = settled if goal is None else goal
                part = _slice(connection, self._sums.cursor, settled, self._slice_calls)
            self._sums.fold(part)
            self._since_kept += sum(amounts.calls for _, amounts in part.outcomes)
            if self._since_kept >= self._keep_every:
                self._keep(self._sums)
            if part.until >= goal:
                return self._sums
            if time.monotonic() >= until:
                return None

    def _restored(self) -> LedgerSums:
        kept = self._ledger.snapshot(PROJECTION, LedgerSums.VERSION)
        if kept is not None:
            try:
                return LedgerSums.restored(kept.state)
            except RecordInvalid as exc:
                log.info("counting_again", reason=str(exc))
        return LedgerSums()

    def _keep(self, sums: LedgerSums) -> None:
        self._since_kept = 0
        snapshot = Snapshot(
            projection=PROJECTION, version=LedgerSums.VERSION, cursor=sums.cursor, at=self._clock(), state=sums.state()
        )
        self._ledger.save_snapshot(snapshot)


class BudgetSpent(NamedTuple):
    """What is committed of one budget: of the group that spent most, and how many groups spent anything."""

    most_nusd: int
    groups: int


def spending(db: Database, windows: Mapping[str, int]) -> dict[str, BudgetSpent]:
    """What is spent of the budgets in `windows` (limit -> begin of its window), by all processes together."""
    if not windows:
        return {}
    table = schema.spend
    ours = sa.or_(*(sa.and_(table.c.name == name, table.c.since == since) for name, since in windows.items()))
    # The limits that keys bring along count under groups that begin with a slash, whatever they are called.
    groups = (
        sa.select(table.c.name, sa.func.sum(table.c.nusd).label("nusd"))
        .where(ours, ~table.c.grp.startswith("/"))
        .group_by(table.c.name, table.c.grp)
        .subquery()
    )
    query = sa.select(groups.c.name, sa.func.max(groups.c.nusd), sa.func.count()).group_by(groups.c.name)
    with db.read() as connection:
        return {name: BudgetSpent(int(nusd), int(count)) for name, nusd, count in connection.execute(query)}


def write_s(db: Database) -> float:
    """How long a write transaction takes now that changes nothing, in seconds. LedgerError where none can be made.

    It waits for the same lock as every commit, and for the same disk.
    """
    began = time.perf_counter()
    with db.write() as connection:
        connection.execute(_UNCHANGED)
    return time.perf_counter() - began


_UNCHANGED = sa.update(schema.heads).where(schema.heads.c.name == "rollups").values(value=schema.heads.c.value)
_O, _C, _D, _F = schema.outcomes, schema.calls, schema.decisions, schema.feedback


def _whole(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """The sum of whole numbers, none beyond all measure."""
    return sa.func.sum(sa.case((column < _MOST_WHOLE, column), else_=_MOST_WHOLE))


def _micros(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """The sum of milliseconds, each as whole microseconds."""
    bounded = sa.case((column < _MOST_MS, column), else_=_MOST_MS)
    return sa.func.sum(sa.cast(sa.func.round(bounded * 1000.0), sa.BigInteger))


def _buckets(column: sa.Column[Any]) -> list[sa.ColumnElement[Any]]:
    return [sa.func.count().filter(column <= bound * 1000.0) for bound in BOUNDS_S]


_SAME_CALL = (_C.c.tenant == _O.c.tenant, _C.c.workspace == _O.c.workspace, _C.c.id == _O.c.call)
# Grouped by their labels: two parameters of one value are two things to PostgreSQL.
_ENDPOINT = sa.func.coalesce(_C.c.endpoint, "").label("asked_endpoint")
_AFTER, _UNTIL = sa.bindparam("after", type_=schema.Seq), sa.bindparam("until", type_=schema.Seq)


def _own(name: sa.Column[Any]) -> sa.ColumnElement[bool]:
    """What went through Windlass: `ids.is_imported` of the ids of calls and feedback, in SQL."""
    kind = "call" if name.table is _O else "feedback"
    return sa.func.substr(name, len(f"{kind}_") + ids.PLAIN + 1, 1) != "-"


def _ended(*near: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """The sums of what lies between two places. near: where the calls are looked for."""
    return (
        sa.select(
            *(_O.c.provider, _O.c.model, _ENDPOINT, _O.c.status, _O.c.error),
            *(sa.func.count(), _whole(_O.c.prompt_tokens), _whole(_O.c.completion_tokens), _whole(_O.c.cost_nusd)),
            sa.func.count().filter(_O.c.tokens_estimated.is_(sa.true())),
            *(_micros(_O.c.latency_ms), _micros(_O.c.first_byte_ms)),
            *(*_buckets(_O.c.latency_ms), *_buckets(_O.c.first_byte_ms)),
        )
        .select_from(_O.outerjoin(_C, sa.and_(*_SAME_CALL, *near)))
        .where(_O.c.seq > _AFTER, _O.c.seq <= _UNTIL, _own(_O.c.call))
        .group_by(_O.c.provider, _O.c.model, sa.text("asked_endpoint"), _O.c.status, _O.c.error)
        .order_by(sa.func.min(_O.c.seq))
    )


_OUTCOMES = _ended()
# On PostgreSQL the calls lie in a table for each day: the first and the last id leave out all other days.
_OUTCOMES_OF_DAYS = _ended(_C.c.id >= sa.bindparam("first"), _C.c.id <= sa.bindparam("last"))
_IDS = sa.select(sa.func.min(_O.c.call), sa.func.max(_O.c.call)).where(
    _O.c.seq > _AFTER, _O.c.seq <= _UNTIL, _own(_O.c.call)
)
# `actions` is a JSON array of texts: these three characters stand only between two, within one they are escaped.
_POLICY = sa.case((_D.c.actions.contains('","', autoescape=True), _D.c.policy), else_=NAMED).label("decided_by")
_DECISIONS = (
    sa.select(_D.c.point, _POLICY, _D.c.live, _D.c.action, sa.func.count())
    .where(_D.c.seq > _AFTER, _D.c.seq <= _UNTIL)
    .group_by(_D.c.point, sa.text("decided_by"), _D.c.live, _D.c.action)
    .order_by(sa.func.min(_D.c.seq))
)
_FEEDBACK = (
    sa.select(_F.c.kind, _F.c.source, sa.func.count())
    .where(_F.c.seq > _AFTER, _F.c.seq <= _UNTIL, _own(_F.c.id))
    .group_by(_F.c.kind, _F.c.source)
)
_LAST = (
    sa.select(_O.c.seq)
    .where(_O.c.seq > _AFTER, _O.c.seq <= _UNTIL)
    .order_by(_O.c.seq)
    .limit(1)
    .offset(sa.bindparam("before"))
)


def _slice(connection: sa.Connection, after: int, settled: int, calls: int) -> Slice:
    """What lies after one place, up to `settled` or to the end of so many calls."""
    last = connection.scalar(_LAST, {"after": after, "until": settled, "before": calls - 1})
    until = max(after, settled) if last is None else int(last)
    between = {"after": after, "until": until}
    return Slice(
        until,
        _outcomes(connection, between),
        [
            (DecisionKey(point, policy, bool(live), _label(point, action)), int(chosen))
            for point, policy, live, action, chosen in connection.execute(_DECISIONS, between)
        ],
        [((kind, source), int(given)) for kind, source, given in connection.execute(_FEEDBACK, between)],
    )


def _label(point: str, action: str) -> str:
    """An action as a label: what is written into an experiment is no label: each would be a series."""
    begun = f":{EXPERIMENT}="
    return action.partition(begun)[0] + begun.rstrip("=") if point == ROLLOUT and begun in action else action


def _outcomes(connection: sa.Connection, between: dict[str, int]) -> list[tuple[OutcomeKey, OutcomeSum]]:
    if connection.dialect.name == "sqlite":
        return [_outcome(row) for row in connection.execute(_OUTCOMES, between)]
    # A plan that is kept would be one for all days.
    connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_custom_plan")
    first, last = connection.execute(_IDS, between).one()
    if first is None:
        return []
    return [_outcome(row) for row in connection.execute(_OUTCOMES_OF_DAYS, {**between, "first": first, "last": last})]


def _outcome(row: Sequence[Any]) -> tuple[OutcomeKey, OutcomeSum]:
    provider, model, endpoint, status, error, *numbers = row
    amounts = [int(number) for number in numbers]
    times, buckets = amounts[:7], amounts[7:]
    half = len(BOUNDS_S)
    return (
        OutcomeKey(provider, model, endpoint, int(status), error),
        msgspec.convert((*times, buckets[:half], buckets[half:]), OutcomeSum),
    )
