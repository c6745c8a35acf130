"""Rollups: calls, decisions, rewards and feedback by the hour, so that a page never scans the ledger.

Every worker folds the whole ledger and could write these tables. So that each record counts once, the tables carry the
place up to which they are right: whoever comes first adds what lies beyond it, in one transaction, and the others drop
what they had kept for it. A worker that dies leaves nothing out, because all the others still hold it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar, assert_never

import msgspec
import sqlalchemy as sa

from windlass.ledger import schema
from windlass.ledger.db import Database
from windlass.ledger.ledger import Entry
from windlass.records import Call, Decision, Erasure, Feedback, LedgerRecord, Outcome, RunEvent, Scope
from windlass.watch.sketch import Sketch

HOUR_S = 3600
_AT = schema.heads.c.name == "rollups"
_CURSOR = sa.select(schema.heads.c.value).where(_AT)
# An update that changes nothing takes the row's lock, so that one worker at a time adds.
_LOCK = sa.update(schema.heads).where(_AT).values(value=schema.heads.c.value).returning(schema.heads.c.value)
_MOVE = sa.update(schema.heads).where(_AT).values(value=sa.bindparam("cursor"))

Key: TypeAlias = tuple[Any, ...]
"""The values of a rollup table's primary key, in its order."""


class OutcomeHour(msgspec.Struct, frozen=True, kw_only=True):
    """What one hour of one scope saw of one model. hour: its start in UTC seconds."""

    hour: int
    model: str
    calls: int
    errors: int
    cost_nusd: int
    prompt_tokens: int
    completion_tokens: int
    latency: Sketch


class DecisionHour(msgspec.Struct, frozen=True, kw_only=True):
    """How often a policy chose an action in one hour, with which propensities, and what that earned so far."""

    point: str
    hour: int
    policy: str
    live: bool
    action: str
    chosen: int
    propensity_sum: float
    rewarded: int
    reward_sum: float


class FeedbackHour(msgspec.Struct, frozen=True, kw_only=True):
    """What was said in one hour: how often, and the sum of those values that came with a number."""

    hour: int
    kind: str
    source: str
    metric: str
    given: int
    valued: int
    value_sum: float


class _Change(NamedTuple):
    """What one entry adds to one row."""

    seq: int
    table: sa.Table
    key: Key
    amounts: Mapping[str, float]
    latency_ms: float | None = None


R = TypeVar("R", OutcomeHour, DecisionHour, FeedbackHour)


class Rollups:
    """The fold into the hourly tables, and their readers. Thread-safe.

    Feed it every entry in ledger order, and every reward that a learner credits on the way; `flush` writes.
    """

    def __init__(self, db: Database):
        self._db = db
        self._lock = threading.Lock()
        self._changes: list[_Change] = []
        self._seen = 0
        self.cursor = self._stored()

    def fold(self, *entries: Entry) -> None:
        """Take in entries, in the order of the ledger."""
        with self._lock:
            for seq, record in entries:
                self._seen = max(self._seen, seq)
                change = _of(seq, record) if seq > self.cursor else None
                if change is not None:
                    self._changes.append(change)

    def credited(self, seq: int, key: Key, reward: float, previous: float | None) -> None:
        """A decision earned `reward`, in place of `previous`; key: as in the table of decisions."""
        amounts = {
            "chosen": 0,
            "propensity_sum": 0.0,
            "rewarded": int(previous is None),
            "reward_sum": reward - (previous or 0.0),
        }
        with self._lock:
            if seq > self.cursor:
                self._changes.append(_Change(seq, schema.rollup_decisions, key, amounts))

    def flush(self) -> None:
        """Write what lies beyond the tables' place, and move it to the last entry that was folded."""
        with self._lock:
            changes, seen = self._changes, self._seen
            if seen <= self.cursor:
                return
            with self._db.write() as connection:
                stored = int(connection.scalar(_LOCK) or 0)
                if seen > stored:
                    for table in (schema.rollup_outcomes, schema.rollup_decisions, schema.rollup_feedback):
                        rows = _summed(change for change in changes if change.table is table and change.seq > stored)
                        self._add(connection, table, rows)
                    connection.execute(_MOVE, {"cursor": seen})
            self.cursor = max(seen, stored)
            self._changes = [change for change in changes if change.seq > self.cursor]

    def look(self) -> int:
        """How far the tables are, whoever wrote them; forgets what they hold already."""
        stored = self._stored()
        with self._lock:
            self.cursor = max(self.cursor, stored)
            self._changes = [change for change in self._changes if change.seq > self.cursor]
            return self.cursor

    def clear(self) -> None:
        """Empty the tables, so that they can be filled again from the first entry."""
        with self._lock, self._db.write() as connection:
            connection.execute(_MOVE, {"cursor": 0})
            for table in (schema.rollup_outcomes, schema.rollup_decisions, schema.rollup_feedback):
                connection.execute(sa.delete(table))
            self.cursor, self._seen, self._changes = 0, 0, []

    def outcomes(self, scope: Scope, since: float = 0.0, until: float | None = None) -> Sequence[OutcomeHour]:
        """The hours from the one that holds `since` to the one that holds `until` (UTC seconds), oldest first."""
        rows = self._read(schema.rollup_outcomes, scope, since, until)
        return [OutcomeHour(**{**row, "latency": _sketch(row["latency"])}) for row in rows]

    def decisions(
        self, scope: Scope, since: float = 0.0, until: float | None = None, *, point: str = ""
    ) -> Sequence[DecisionHour]:
        """As `outcomes`; of one point, or of all."""
        table = schema.rollup_decisions
        only = (table.c.point == point,) if point else ()
        return [DecisionHour(**row) for row in self._read(table, scope, since, until, *only)]

    def feedback(self, scope: Scope, since: float = 0.0, until: float | None = None) -> Sequence[FeedbackHour]:
        """As `outcomes`."""
        return [FeedbackHour(**row) for row in self._read(schema.rollup_feedback, scope, since, until)]

    def _stored(self) -> int:
        with self._db.read() as connection:
            return int(connection.scalar(_CURSOR) or 0)

    def _add(self, connection: sa.Connection, table: sa.Table, rows: dict[Key, dict[str, Any]]) -> None:
        if not rows:
            return
        names = [column.name for column in table.primary_key]
        values = [dict(zip(names, key, strict=True)) | amounts for key, amounts in sorted(rows.items())]
        if table is schema.rollup_outcomes:
            for row in values:
                present = connection.scalar(
                    sa.select(table.c.latency).where(*(table.c[name] == row[name] for name in names))
                )
                if present is not None:
                    row["latency"].merge(_sketch(present))
                row["latency"] = msgspec.msgpack.encode(row["latency"].counts())
        connection.execute(self._db.add(table, *names, latest=("latency",)), values)

    def _read(
        self, table: sa.Table, scope: Scope, since: float, until: float | None, *only: sa.ColumnElement[bool]
    ) -> list[dict[str, Any]]:
        columns = [column for column in table.c if column.name not in ("tenant", "workspace")]
        owner = table.c.tenant == scope.tenant, table.c.workspace == scope.workspace
        span = [table.c.hour >= hour_of(since)] + ([table.c.hour <= hour_of(until)] if until is not None else [])
        with self._db.read() as connection:
            query = sa.select(*columns).where(*owner, *span, *only).order_by(table.c.hour)
            return [dict(row) for row in connection.execute(query).mappings()]


def hour_of(at: float) -> int:
    """The start of the hour that holds `at`, in UTC seconds."""
    return int(at // HOUR_S) * HOUR_S


def _of(seq: int, record: LedgerRecord) -> _Change | None:
    """What a record adds by itself."""
    match record:
        case Outcome():
            return _of_outcome(seq, record)
        case Decision():
            amounts = {"chosen": 1, "propensity_sum": record.propensity, "rewarded": 0, "reward_sum": 0.0}
            return _Change(seq, schema.rollup_decisions, _decided(record), amounts)
        case Feedback():
            return _of_feedback(seq, record)
        case Call() | RunEvent() | Erasure():
            return None
        case _ as other:
            assert_never(other)


def _of_outcome(seq: int, outcome: Outcome) -> _Change:
    amounts = {
        "calls": 1,
        "errors": int(outcome.error != ""),
        "cost_nusd": outcome.cost_nusd,
        "prompt_tokens": outcome.prompt_tokens,
        "completion_tokens": outcome.completion_tokens,
    }
    key = outcome.tenant, outcome.workspace, hour_of(outcome.at), outcome.model
    return _Change(seq, schema.rollup_outcomes, key, amounts, outcome.latency_ms)


def _decided(decision: Decision) -> Key:
    owner = decision.tenant, decision.workspace
    return *owner, decision.point, hour_of(decision.at), decision.policy, decision.live, decision.action


def _of_feedback(seq: int, said: Feedback) -> _Change:
    key = said.tenant, said.workspace, hour_of(said.at), said.kind, said.source, said.metric
    amounts = {"given": 1, "valued": int(said.value is not None), "value_sum": said.value or 0.0}
    return _Change(seq, schema.rollup_feedback, key, amounts)


def _summed(changes: Iterable[_Change]) -> dict[Key, dict[str, Any]]:
    """The changes of one table by row."""
    rows: dict[Key, dict[str, Any]] = {}
    for change in changes:
        row = rows.get(change.key)
        if row is None:
            row = rows[change.key] = dict.fromkeys(change.amounts, 0)
            if change.latency_ms is not None:
                row["latency"] = Sketch()
        for name, amount in change.amounts.items():
            row[name] += amount
        if change.latency_ms is not None:
            row["latency"].add(change.latency_ms)
    return rows


def _sketch(data: bytes) -> Sketch:
    return Sketch(msgspec.msgpack.decode(data, type=list[tuple[int, int]]))
