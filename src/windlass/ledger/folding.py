"""What a fold reads: of every record in order the columns that a fold looks at, as plain rows.

Of a call its owner and whom it was made for, of a decision all but `fallback` (and `extra` of a live one), of an
outcome what it cost and how it went, of feedback all but the words, of an erasure whose it was, of a run event that it
was there. A context, which stands in a table of its own, is read where a policy learns from it: of live decisions.

msgspec makes the rows and checks every value in one pass, which costs a third of making records of them. What most
rows have in common comes as one JSON text, read once for all that have the same. Decisions and outcomes of SQLite come
otherwise, see pages.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from sys import intern
from typing import Any, Final, Protocol, TypeAlias, assert_never, cast, runtime_checkable

import msgspec

from windlass.ledger import rows
from windlass.ledger.folded import (
    DecisionForm,
    Folded,
    FoldedCall,
    FoldedDecision,
    FoldedErasure,
    FoldedEvent,
    FoldedFeedback,
    FoldedOutcome,
    OutcomeForm,
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

    contexts: the points whose live decisions come with their contexts, None for all.
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
            decided = DecisionForm(
                intern(record.tenant), intern(record.workspace), record.point, record.policy, record.featuriser,
                record.actions, intern(record.action), record.live,
            )  # fmt: skip
            beside = (None, record.context) if record.live else (shadow_of(record.extra), None)
            own = record.id, record.at, record.call, float(record.propensity)
            return FoldedDecision(seq, *own, "", None, decided, *beside)
        case Outcome():
            ended = OutcomeForm(*owner, record.model, record.status, record.error)
            took_ms = record.latency_ms, record.first_byte_ms
            amounts = record.prompt_tokens, record.completion_tokens, record.cost_nusd
            return FoldedOutcome(seq, record.at, record.call, *took_ms, *amounts, "", ended)
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
def question(kind: type[Record], dialect: str) -> str:
    """The SQL that reads the rows of a kind from after one place up to another, in order, as `fetched` takes them."""
    place = "?" if dialect == "sqlite" else "%s::bigint"
    between = f"seq > {place} AND seq <= {place}"
    if kind is Call and dialect == "sqlite":
        return f"SELECT json_group_array({_array(FoldedCall.__struct_fields__, dialect)}) FROM calls WHERE {between}"
    columns = [f'"{name}"' for name in _ROWS[kind].__struct_fields__ if name not in _READ]
    if kind in _FORMS:
        columns.append(_array(_FORMS[kind], dialect))
    if kind is Decision:
        columns.append("CASE WHEN live THEN NULL ELSE extra END")
    return f'SELECT {", ".join(columns)} FROM "{rows.TABLES[kind].name}" WHERE {between} ORDER BY seq'


@cache
def contexts(points: int | None) -> str:
    """The SQL that reads on SQLite (place, context) of live decisions at so many points, None for all, from after one
    place up to another; asked with the points, then the places."""
    at = "" if points is None else f"point IN ({', '.join('?' * points)}) AND "
    beside = "side.tenant = one.tenant AND side.workspace = one.workspace AND side.decision = one.id"
    # The order of the two is kept, or all contexts would be read that there are.
    source = f"decisions AS one CROSS JOIN contexts AS side ON {beside}"
    return f"SELECT one.seq, side.data FROM {source} WHERE {at}one.live AND one.seq > ? AND one.seq <= ?"


def _array(columns: Sequence[str], dialect: str) -> str:
    """The SQL of a JSON array of these columns, as text."""
    listed = ", ".join(f'"{name}"' for name in columns)
    return f"json_array({listed})" if dialect == "sqlite" else f"json_build_array({listed})::text"


_FORMS: Final[dict[type[Record], tuple[str, ...]]] = {
    Decision: ("tenant", "workspace", "point", "policy", "featuriser", "actions", "action", "live"),
    Outcome: OutcomeForm.__struct_fields__,
}
# Made of other columns, and in no table.
_READ: Final = frozenset({"raw_form", "raw_extra", "form", "shadow", "context"})
# No column of theirs is a number that JSON would round, so that they come as one text: a third of the time.
_calls: Final = msgspec.json.Decoder(list[FoldedCall]).decode
_decision_form: Final = msgspec.json.Decoder(tuple[str, str, str, str, str, str, str, int | bool]).decode
_outcome_form: Final = msgspec.json.Decoder(OutcomeForm).decode


def fetched(kind: type[Record], found: Found) -> list[Folded]:
    """The rows that a `question` was answered with, each value checked. msgspec.DecodeError for a row that is damaged
    there."""
    if kind is Call and len(found) == 1 and len(found[0]) == 1:
        return cast(list[Folded], _calls(found[0][0]))
    made: list[Folded] = msgspec.convert(found, _SHAPES[kind])
    if kind is Decision:
        _decided(cast(list[FoldedDecision], made))
    elif kind is Outcome:
        ended = cast(list[FoldedOutcome], made)
        forms = {text: _outcome_form(text) for text in {row.raw_form for row in ended}}
        for row in ended:
            row.form, row.raw_form = forms[row.raw_form], ""
    return made


def _decided(made: list[FoldedDecision]) -> None:
    """Read what came as JSON of rows just made."""
    texts = {row.raw_form for row in made}
    read = {text: _decision_form(text) for text in texts}
    names = rows.shared_names(form[5] for form in read.values())
    forms = {
        text: DecisionForm(
            intern(tenant), intern(workspace), point, policy, featuriser, names[actions], intern(action), live != 0
        )
        for text, (tenant, workspace, point, policy, featuriser, actions, action, live) in read.items()
    }
    for row in made:
        row.form, row.raw_form = forms[row.raw_form], ""
        if row.raw_extra is not None:
            row.shadow, row.raw_extra = shadow_of(rows.read_object(row.raw_extra)), None


def give_contexts(
    made: Sequence[Folded],
    points: Collection[str] | None,
    look_up: Callable[[Sequence[FoldedDecision]], Mapping[int, str]],
) -> None:
    """Give the live decisions at `points`, None for all, the contexts that `look_up` finds beside them, by place."""
    if points is not None and not points:
        return
    decided = (row for row in made if type(row) is FoldedDecision and row.form.live)
    wanted = {row.seq: row for row in decided if points is None or row.form.point in points}
    if wanted:
        for place, text in look_up(list(wanted.values())).items():
            wanted[place].context = rows.read_context(text)


def is_damage(exc: Exception) -> bool:
    """Whether a `question` failed, or its answer was refused, for what stands in a row: what no table would take, or so
    much that one text cannot hold it."""
    told = ("JSON cannot hold BLOB values", "string or blob too big")
    return isinstance(exc, msgspec.DecodeError) or any(words in str(exc) for words in told)


def shadow_of(extra: Mapping[str, Any]) -> str | None:
    name = extra.get("shadow")
    return None if name is None else str(name)
