"""What a fold reads: the entries of all scopes in order, without the columns that no fold looks at.

Of a call its owner and whom it was made for, of a decision all but `fallback` (and `extra` of a live one), of an
outcome what it cost and how it went; feedback, run events and erasures whole. The other fields are empty. A third of
the columns stays where it is, which is a fifth of the time of a replay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

import msgspec
import sqlalchemy as sa

from windlass.ledger import rows, schema
from windlass.ledger.ledger import AllScopes, Entry, Ledger
from windlass.records import Call, Decision, Outcome, Record

Found: TypeAlias = Sequence[Sequence[Any]]
entry: Callable[[tuple[int, Any]], Entry] = partial(tuple.__new__, Entry)
"""An Entry of (place, record); calling `Entry` or its `_make` takes twice as long."""


@runtime_checkable
class Foldable(Protocol):
    """A ledger that has a reading of its own for folds."""

    def folded(self, scope: AllScopes, *, after: int, limit: int) -> Sequence[Entry]:
        """`read`, of each record what a fold looks at."""
        ...


def following(ledger: Ledger, scope: AllScopes, after: int, limit: int) -> Sequence[Entry]:
    """Up to `limit` entries with `seq > after`, in order, for a fold, which has the right to read all scopes."""
    if isinstance(ledger, Foldable):
        return ledger.folded(scope, after=after, limit=limit)
    return ledger.read(scope, after=after, limit=limit)


COLUMNS: Final[dict[type[Record], tuple[sa.Column[Any], ...]]] = {
    Call: tuple(schema.calls.c[name] for name in ("seq", "id", "tenant", "workspace", "parent", "user")),
    Decision: tuple(column for column in schema.decisions.c if column.name != "fallback"),
    Outcome: tuple(
        column
        for column in schema.outcomes.c
        if column.name not in ("id", "provider", "first_byte_ms", "tokens_estimated", "extra")
    ),
}
"""In the order of the table; of other kinds all."""


def _calls(found: Found) -> list[Entry]:
    return [
        entry(
            (
                seq,
                Call(
                    id=name, at=0.0, tenant=tenant, workspace=workspace, endpoint="", model="", parent=parent, user=user
                ),
            )
        )
        for seq, name, tenant, workspace, parent, user in found
    ]


def _decisions(found: Found) -> list[Entry]:
    names = rows.shared_names(row[8] for row in found)
    return [
        entry(
            (
                seq,
                Decision(
                    id=name,
                    at=at,
                    tenant=tenant,
                    workspace=workspace,
                    extra={} if live else rows.read_object(extra),
                    call=call,
                    point=point,
                    policy=policy,
                    actions=names[actions],
                    action=action,
                    propensity=propensity,
                    live=live != 0,
                    context=rows.read_context(context) if context else {},
                    featuriser=featuriser,
                ),
            )
        )
        for (
            seq, name, tenant, workspace, at, call, point, policy, actions, action, propensity, live, featuriser,
            extra, context,
        ) in found
    ]  # fmt: skip


def _outcomes(found: Found) -> list[Entry]:
    return [
        entry(
            (
                seq,
                Outcome(
                    id="",
                    at=at,
                    tenant=tenant,
                    workspace=workspace,
                    call=call,
                    model=model,
                    provider="",
                    status=status,
                    latency_ms=latency_ms,
                    first_byte_ms=0.0,
                    prompt_tokens=prompt_tokens,
                    completion_tokens=completion_tokens,
                    cost_nusd=cost_nusd,
                    error=error,
                ),
            )
        )
        for (
            seq, tenant, workspace, at, call, model, status, latency_ms, prompt_tokens, completion_tokens, cost_nusd,
            error,
        ) in found
    ]  # fmt: skip


_MAKE: Final[dict[type[Record], tuple[Any, Callable[[Found], list[Entry]]]]] = {
    Call: (rows.shape(COLUMNS[Call]), _calls),
    Decision: (rows.shape(COLUMNS[Decision], str | None), _decisions),
    Outcome: (rows.shape(COLUMNS[Outcome]), _outcomes),
}


def entries(kind: type[Record], found: Found) -> list[Entry]:
    """The entries of rows that hold the `COLUMNS` of their kind. msgspec.DecodeError for a row that is damaged there,
    RecordInvalid for one of another kind."""
    if kind in _MAKE:
        shape, make = _MAKE[kind]
        return make(msgspec.convert(found, shape))
    return [entry(made) for made in rows.from_rows(kind, found)]
