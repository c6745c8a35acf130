"""Rollups: calls, decisions, rewards and feedback by the hour, so that a page never scans the ledger.

Every worker folds the whole ledger and could write these tables. So that each record counts once, the tables carry the
place up to which they are right: whoever comes first adds what lies beyond it, in one transaction, and the others drop
what they had kept for it. A worker that dies leaves nothing out, because all the others still hold it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
import sqlalchemy as sa

from windlass.ledger import schema
from windlass.ledger.db import Database
from windlass.ledger.folded import Folded, FoldedFeedback, FoldedOutcome
from windlass.ledger.folding import narrowed
from windlass.ledger.ledger import Entry
from windlass.records import Scope
from windlass.watch.sketch import Sketch
from windlass.watch.waiting import HOUR_S, Chosen, Key, Waiting, hour_of

__all__ = ["HELD", "HOUR_S", "DecisionHour", "FeedbackHour", "OutcomeHour", "Rollups", "hour_of"]

HELD = 30_000
"""Entries that wait to be written at most, so that folding years of them takes no more memory than an hour."""
_AT = schema.heads.c.name == "rollups"
_CURSOR = sa.select(schema.heads.c.value).where(_AT)
# An update that changes nothing takes the row's lock, so that one worker at a time adds.
_LOCK = sa.update(schema.heads).where(_AT).values(value=schema.heads.c.value).returning(schema.heads.c.value)
_MOVE = sa.update(schema.heads).where(_AT).values(value=sa.bindparam("cursor"))


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
        self._waiting = Waiting()
        self._rewards: list[_Reward] = []
        self._seen = 0
        self._partial = False
        self.cursor = self._stored()

    def fold(self, *entries: Entry | Folded) -> None:
        """Take in entries, in the order of the ledger, once all rewards are told that earlier ones made."""
        found = narrowed(entries)
        with self._lock:
            if self._waiting.folded >= HELD and not self._partial:
                self._write()
            # A batch comes again where the learner could not fold it to its end.
            if not found or found[-1].seq <= max(self.cursor, self._seen):
                return
            self._waiting.add(found if found[0].seq > self._seen else [row for row in found if row.seq > self._seen])
            self._seen = found[-1].seq

    @contextmanager
    def together(self) -> Iterator[None]:
        """From entries to the last of the rewards that they make: others who read write nothing meanwhile, or the place
        of the tables would pass rewards that are still to come. After a failure that holds until it is made good."""
        with self._lock:
            if self._waiting.folded >= HELD and not self._partial:
                self._write()
            self._partial = True
        yield
        with self._lock:
            self._partial = False

    def credited(self, seq: int, key: Key, reward: float, previous: float | None) -> None:
        """A decision earned `reward`, in place of `previous`; key: as in the table of decisions."""
        with self._lock:
            if seq > self.cursor:
                self._rewards.append(_Reward(seq, key, reward, previous))

    def flush(self) -> None:
        """Write what lies beyond the tables' place, and move it to the last entry that was folded."""
        with self._lock:
            if not self._partial:
                self._write()

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
            self.cursor, self._seen, self._waiting, self._rewards = 0, 0, Waiting(), []

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

    def _write(self) -> None:
        """`flush`, by whoever holds the lock."""
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

    def _forget(self, cursor: int) -> None:
        """Let go of what the tables hold up to `cursor`."""
        self.cursor = cursor
        self._waiting = self._waiting.beyond(cursor) if cursor < self._seen else Waiting()
        self._rewards = [earned for earned in self._rewards if earned[0] > cursor]

    def _summed(self, after: int) -> dict[sa.Table, dict[Key, dict[str, Any]]]:
        """What each row of each table gains from what lies beyond the place `after`."""
        waiting = self._waiting.beyond(after)
        outcomes = {key: _outcomes_sum(ended) for key, ended in waiting.ended.items()}
        decisions = {key: _decisions_sum(chosen) for key, chosen in waiting.decided.items()}
        feedback = {key: _feedback_sum(said) for key, said in waiting.said.items()}
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


_COUNTS = msgspec.msgpack.Decoder(list[tuple[int, int]]).decode
_NO_DECISIONS: Final = {"chosen": 0, "propensity_sum": 0.0, "rewarded": 0, "reward_sum": 0.0}


# One sum over all records of a row is several times faster than adding each to its row.


def _outcomes_sum(outcomes: Sequence[FoldedOutcome]) -> dict[str, Any]:
    latency = Sketch()
    latency.add(*[outcome.latency_ms for outcome in outcomes])
    return {
        "calls": len(outcomes),
        "errors": sum([outcome.form.error != "" for outcome in outcomes]),
        "cost_nusd": sum([outcome.cost_nusd for outcome in outcomes]),
        "prompt_tokens": sum([outcome.prompt_tokens for outcome in outcomes]),
        "completion_tokens": sum([outcome.completion_tokens for outcome in outcomes]),
        "latency": latency,
    }


def _decisions_sum(chosen: Sequence[Chosen]) -> dict[str, Any]:
    return {**_NO_DECISIONS, "chosen": len(chosen), "propensity_sum": sum([one.propensity for one in chosen], 0.0)}


def _feedback_sum(said: Sequence[FoldedFeedback]) -> dict[str, Any]:
    values = [feedback.value for feedback in said if feedback.value is not None]
    return {"given": len(said), "valued": len(values), "value_sum": sum(values, 0.0)}


def _sketch(data: bytes) -> Sketch:
    return Sketch(_COUNTS(data))
