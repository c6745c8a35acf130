"""What a fold reads: of every record in order the columns that a fold looks at, as plain rows.

Of a call its owner and whom it was made for, of a decision all but `fallback` (and `extra` of a live one), of an
outcome what it cost and how it went, of feedback all but the words, of an erasure whose it was, of a run event that it
was there. A context, which stands in a table of its own, is read where a policy learns from it.

msgspec makes the rows and checks every value in one pass, which costs a third of making records of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any, Final, Protocol, TypeAlias, assert_never, cast, runtime_checkable

import msgspec

from windlass.ledger import rows
from windlass.ledger.folded import (
    Folded,
    FoldedCall,
    FoldedDecision,
    FoldedErasure,
    FoldedEvent,
    FoldedFeedback,
    FoldedOutcome,
)
from windlass.ledger.ledger import AllScopes, Entry, Ledger
from windlass.records import (
    Call,
    Decision,
    Erasure,
    Feedback,
    LedgerRecord,
    Outcome,
    Record,
    RunEvent,
)

Found: TypeAlias = Sequence[Sequence[Any]]


_ROWS: Final[dict[type[Record], type[Folded]]] = {
    Call: FoldedCall,
    Decision: FoldedDecision,
    Outcome: FoldedOutcome,
    Feedback: FoldedFeedback,
    Erasure: FoldedErasure,
    RunEvent: FoldedEvent,
}
_SHAPES: Final[dict[type[Record], Any]] = {kind: list[row] for kind, row in _ROWS.items()}  # type: ignore[valid-type]


@runtime_checkable
class Foldable(Protocol):
    """A ledger that has a reading of its own for folds."""

    def folded(
        self, scope: AllScopes, *, after: int, limit: int, contexts: Collection[str] | None = None
    ) -> Sequence[Folded]:
        """`read`, of each record what a fold looks at. contexts: as `following` takes them."""
        ...


def following(
    ledger: Ledger, scope: AllScopes, after: int, limit: int, contexts: Collection[str] | None = None
) -> Sequence[Folded]:
    """Up to `limit` rows with `seq > after`, in order, for a fold, which has the right to read all scopes.

    contexts: the points whose decisions come with their contexts, None for all.
    """
    if isinstance(ledger, Foldable):
        return ledger.folded(scope, after=after, limit=limit, contexts=contexts)
    return narrowed(ledger.read(scope, after=after, limit=limit))


def narrowed(found: Sequence[Entry | Folded]) -> Sequence[Folded]:
    """Entries as a fold reads them, or else rows, which stay as they are; not both together."""
    if not found or not isinstance(found[0], Entry):
        return cast(Sequence[Folded], found)
    return [_narrowed(seq, record) for seq, record in cast(Sequence[Entry], found)]


def _narrowed(seq: int, record: LedgerRecord) -> Folded:
    owner = record.tenant, record.workspace
    match record:
        case Call():
            return FoldedCall(seq, record.id, *owner, record.parent, record.user)
        case Decision():
            made = FoldedDecision(
                seq, record.id, *owner, record.at, record.call, record.point, record.policy, record.action,
                record.propensity, record.live, record.featuriser, "", "", None, record.actions,
            )  # fmt: skip
            made.shadow, made.context = None if record.live else _shadow(record.extra), record.context
            return made
        case Outcome():
            return FoldedOutcome(
                seq, *owner, record.at, record.call, record.model, record.status, record.latency_ms,
                record.prompt_tokens, record.completion_tokens, record.cost_nusd, record.error,
            )  # fmt: skip
        case Feedback():
            return FoldedFeedback(
                seq, record.id, *owner, record.at, record.target, record.kind, record.source, record.metric,
                record.value,
            )  # fmt: skip
        case Erasure():
            return FoldedErasure(seq, *owner, record.user)
        case RunEvent():
            return FoldedEvent(seq)
        case _ as other:
            assert_never(other)


@cache
def question(kind: type[Record], dialect: str, points: int | None) -> str:
    """The SQL that reads the rows of a kind from after one place up to another, in order, as `fetched` takes them.

    points: how many points bring their contexts, None for all; only of decisions on SQLite. Asked with the names of
    those points, then the two places.
    """
    mark = "?" if dialect == "sqlite" else "%s"
    place = mark if dialect == "sqlite" else f"{mark}::bigint"
    columns = [f'"{name}"' for name in _ROWS[kind].__struct_fields__]
    if kind is Decision:
        context = "NULL"
        if dialect == "sqlite":
            known = ",".join("?" * (points or 0))
            context = _CONTEXT if points is None else f"CASE WHEN point IN ({known}) THEN {_CONTEXT} END"
        # The last columns of a row are made of those before, and in no table.
        columns = [*columns[: -len(_READ)], "actions", "CASE WHEN live THEN '' ELSE extra END", context]
    table = rows.TABLES[kind].name
    return f'SELECT {", ".join(columns)} FROM "{table}" WHERE seq > {place} AND seq <= {place} ORDER BY seq'


_READ: Final = ("raw_actions", "raw_extra", "raw_context", "actions", "shadow", "context")
# Looked up beside the rows that need one; a join took the same time for all.
_CONTEXT: Final = (
    "(SELECT data FROM contexts AS side WHERE side.tenant = decisions.tenant "
    "AND side.workspace = decisions.workspace AND side.decision = decisions.id)"
)


def fetched(kind: type[Record], found: Found) -> list[Folded]:
    """The rows that a `question` was answered with, each value checked. msgspec.DecodeError for a row that is damaged
    there."""
    made: list[Folded] = msgspec.convert(found, _SHAPES[kind])
    if kind is Decision:
        decided: list[Any] = made
        names = rows.shared_names(row.raw_actions for row in decided)
        for row in decided:
            row.actions = names[row.raw_actions]
            if row.raw_extra:
                row.shadow = _shadow(rows.read_object(row.raw_extra))
            if row.raw_context:
                row.context = rows.read_context(row.raw_context)
    return made


def _shadow(extra: Mapping[str, Any]) -> str | None:
    name = extra.get("shadow")
    return None if name is None else str(name)
