"""Rollups: calls, decisions, rewards and feedback by the hour, so that a page never scans the ledger.

Every worker folds the whole ledger and could write these tables. So that each record counts once, the tables carry the
place up to which they are right: whoever comes first adds what lies beyond it, in one transaction, and the others drop
what they had kept for it. A worker that dies leaves nothing out, because all the others still hold it.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import msgspec
import sqlalchemy as sa

from windlass.ledger import ids, schema
from windlass.ledger.db import Database
from windlass.ledger.folded import Folded, FoldedDecision, FoldedFeedback, FoldedOutcome
from windlass.ledger.folding import narrowed
from windlass.ledger.ledger import Entry
from windlass.policies.points import NAMED
from windlass.records import Scope
from windlass.watch.sketch import Sketch

HOUR_S = 3600
HELD = 10_000
"""Entries that wait to be written at most, so that folding years of them takes no more memory than an hour."""
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
    """How often a policy chose an action in one hour, with which propensities, and what that earned so far.

    policy: `NAMED` for what was the only eligible action, whoever decided.
    """

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


class _Reward(NamedTuple):
    """What a decision earned, in place of what it earned before; key: of its row."""

    seq: int
    key: Key
    reward: float
    previous: float | None


R = TypeVar("R", OutcomeHour, DecisionHour, FeedbackHour)


class Rollups:
    """The fold into the hourly tables, and their readers. Thread-safe.

    Feed it every entry in ledger order, and every reward that a learner credits on the way; `flush` writes.
    """

    def __init__(self, db: Database):
        self._db = db
        self._lock = threading.Lock()
        self._rows: list[Folded] = []
        self._rewards: list[_Reward] = []
        self._seen = 0
        self.cursor = self._stored()

    def fold(self, *entries: Entry | Folded) -> None:
        """Take in entries, in the order of the ledger, once all rewards are told that earlier ones made."""
        if len(self._rows) >= HELD:
            self.flush()
        found = narrowed(entries)
        with self._lock:
            if not found or found[-1].seq <= self.cursor:
                return
            # A batch comes again where the learner could not fold it to its end.
            seen = self._seen
            self._rows += [row for row in found if type(row) in _COUNTED and row.seq > seen]
            self._seen = max(seen, found[-1].seq)

    def credited(self, seq: int, key: Key, reward: float, previous: float | None) -> None:
        """A decision earned `reward`, in place of `previous`; key: as in the table of decisions."""
        with self._lock:
            if seq > self.cursor:
                self._rewards.append(_Reward(seq, key, reward, previous))

    def flush(self) -> None:
        """Write what lies beyond the tables' place, and move it to the last entry that was folded."""
        with self._lock:
            seen = self._seen
            if seen <= self.cursor:
                return
            with self._db.write() as connection:
                stored = int(connection.scalar(_LOCK) or 0)
                if seen > stored:
                    for table, rows in self._summed(stored).items():
                        self._add(connection, table, rows)
                    connection.execute(_MOVE, {"cursor": seen})
            self._forget(max(seen, stored))

    def look(self) -> int:
        """How far the tables are, whoever wrote them; forgets what they hold already."""
        stored = self._stored()
        with self._lock:
            self._forget(max(self.cursor, stored))
            return self.cursor

    def clear(self) -> None:
        """Empty the tables, so that they can be filled again from the first entry."""
        with self._lock, self._db.write() as connection:
            connection.execute(_MOVE, {"cursor": 0})
            for table in (schema.rollup_outcomes, schema.rollup_decisions, schema.rollup_feedback):
                connection.execute(sa.delete(table))
            self.cursor, self._seen, self._rows, self._rewards = 0, 0, [], []

    def outcomes(self, scope: Scope, since: float = 0.0, until: float | None = None) -> Sequence[OutcomeHour]:
        """The hours from the one that holds `since` to the one that holds `until` (UTC seconds), oldest first."""
        return [
            OutcomeHour(
                hour=hour,
                model=model,
                calls=calls,
                errors=errors,
                cost_nusd=cost_nusd,
                prompt_tokens=prompt_tokens,
                completion_tokens=completion_tokens,
                latency=_sketch(latency),
            )
            for hour, model, calls, errors, cost_nusd, prompt_tokens, completion_tokens, latency in self._read(
                schema.rollup_outcomes, scope, since, until
            )
        ]

    def decisions(
        self, scope: Scope, since: float = 0.0, until: float | None = None, *, point: str = ""
    ) -> Sequence[DecisionHour]:
        """As `outcomes`; of one point, or of all."""
        table = schema.rollup_decisions
        only = (table.c.point == point,) if point else ()
        return [
            DecisionHour(
                point=at,
                hour=hour,
                policy=policy,
                live=bool(live),
                action=action,
                chosen=chosen,
                propensity_sum=propensity_sum,
                rewarded=rewarded,
                reward_sum=reward_sum,
            )
            for at, hour, policy, live, action, chosen, propensity_sum, rewarded, reward_sum in self._read(
                table, scope, since, until, *only
            )
        ]

    def feedback(self, scope: Scope, since: float = 0.0, until: float | None = None) -> Sequence[FeedbackHour]:
        """As `outcomes`."""
        return [
            FeedbackHour(
                hour=hour, kind=kind, source=source, metric=metric, given=given, valued=valued, value_sum=value_sum
            )
            for hour, kind, source, metric, given, valued, value_sum in self._read(
                schema.rollup_feedback, scope, since, until
            )
        ]

    def _stored(self) -> int:
        with self._db.read() as connection:
            return int(connection.scalar(_CURSOR) or 0)

    def _forget(self, cursor: int) -> None:
        """Let go of what the tables hold up to `cursor`."""
        self.cursor = cursor
        self._rows = [row for row in self._rows if row.seq > cursor]
        self._rewards = [earned for earned in self._rewards if earned[0] > cursor]

    def _summed(self, after: int) -> dict[sa.Table, dict[Key, dict[str, Any]]]:
        """What each row of each table gains from what lies beyond the place `after`."""
        ended, decided, said = _grouped(self._rows, after)
        outcomes = {key: _outcomes_sum(rows) for key, rows in ended.items()}
        decisions = {key: _decisions_sum(propensities) for key, propensities in decided.items()}
        feedback = {key: _feedback_sum(values) for key, values in said.items()}
        for earned in self._rewards:
            if earned.seq > after:
                row = decisions.get(earned.key) or decisions.setdefault(earned.key, dict(_NO_DECISIONS))
                row["rewarded"] += earned.previous is None
                row["reward_sum"] += earned.reward - (earned.previous or 0.0)
        return {
            schema.rollup_outcomes: outcomes,
            schema.rollup_decisions: decisions,
            schema.rollup_feedback: feedback,
        }

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
    ) -> Sequence[tuple[Any, ...]]:
        """The columns but the owner's, past SQLAlchemy's rows: a page over all time reads thousands.

        What waits here to be written is written first.
        """
        self.flush()
        columns = [column for column in table.c if column.name not in ("tenant", "workspace")]
        owner = table.c.tenant == scope.tenant, table.c.workspace == scope.workspace
        span = [table.c.hour >= hour_of(since)] + ([table.c.hour <= hour_of(until)] if until is not None else [])
        with self._db.read() as connection:
            query = sa.select(*columns).where(*owner, *span, *only).order_by(table.c.hour)
            cursor = connection.execute(query).cursor
            return cursor.fetchall() if cursor is not None else ()


def hour_of(at: float) -> int:
    """The start of the hour that holds `at`, in UTC seconds."""
    return int(at // HOUR_S) * HOUR_S


_COUNTS = msgspec.msgpack.Decoder(list[tuple[int, int]]).decode
_COUNTED: Final = frozenset({FoldedDecision, FoldedOutcome, FoldedFeedback})
_NO_DECISIONS: Final = {"chosen": 0, "propensity_sum": 0.0, "rewarded": 0, "reward_sum": 0.0}


def _grouped(
    rows: Sequence[Folded], after: int
) -> tuple[dict[Key, list[FoldedOutcome]], dict[Key, list[float]], dict[Key, list[float | None]]]:
    """What lies beyond the place `after`, by the rows that count it: outcomes, the propensities of decisions, the
    values of feedback. One action is no choice of its policy: it is counted apart."""
    ended: dict[Key, list[FoldedOutcome]] = defaultdict(list)
    decided: dict[Key, list[float]] = defaultdict(list)
    said: dict[Key, list[float | None]] = defaultdict(list)
    for row in rows:
        if row.seq <= after:
            continue
        # Asked by identity, as in the learner: a `match` costs more than the rest of the loop.
        if type(row) is FoldedDecision:
            policy = row.policy if len(row.actions) > 1 else NAMED
            hour = int(row.at // HOUR_S) * HOUR_S
            decided[row.tenant, row.workspace, row.point, hour, policy, row.live != 0, row.action].append(
                row.propensity
            )
        elif type(row) is FoldedOutcome:
            if ids.is_imported(row.call):  # what another program did is none of our figures
                continue
            ended[row.tenant, row.workspace, int(row.at // HOUR_S) * HOUR_S, row.model].append(row)
        elif type(row) is FoldedFeedback and not ids.is_imported(row.id):
            said[row.tenant, row.workspace, hour_of(row.at), row.kind, row.source, row.metric].append(row.value)
    return ended, decided, said


# One sum over all records of a row is several times faster than adding each to its row.


def _outcomes_sum(outcomes: Sequence[FoldedOutcome]) -> dict[str, Any]:
    latency = Sketch()
    latency.add(*[outcome.latency_ms for outcome in outcomes])
    return {
        "calls": len(outcomes),
        "errors": sum([outcome.error != "" for outcome in outcomes]),
        "cost_nusd": sum([outcome.cost_nusd for outcome in outcomes]),
        "prompt_tokens": sum([outcome.prompt_tokens for outcome in outcomes]),
        "completion_tokens": sum([outcome.completion_tokens for outcome in outcomes]),
        "latency": latency,
    }


def _decisions_sum(propensities: Sequence[float]) -> dict[str, Any]:
    return {**_NO_DECISIONS, "chosen": len(propensities), "propensity_sum": sum(propensities, 0.0)}


def _feedback_sum(said: Sequence[float | None]) -> dict[str, Any]:
    values = [value for value in said if value is not None]
    return {"given": len(said), "valued": len(values), "value_sum": sum(values, 0.0)}


def _sketch(data: bytes) -> Sketch:
    return Sketch(_COUNTS(data))
