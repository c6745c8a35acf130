"""Pages: many decisions or outcomes as a few JSON texts, one for each column, which is how a fold reads SQLite.

Fetched row by row and column by column they take a quarter longer. Where many have one of a few forms, SQLite tells a
number in place of all that makes the form. Real numbers come as exact.py tells them, odd ones, seldom, as columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from itertools import repeat
from sys import intern
from typing import Any, Final, Generic, TypeAlias, TypeVar

import msgspec

from windlass.ledger import rows
from windlass.ledger.exact import ODD, Scale
from windlass.ledger.folded import DecisionForm, FoldedDecision, FoldedOutcome, OutcomeForm
from windlass.ledger.folding import shadow_of
from windlass.records import Decision, Outcome, Record

Ask: TypeAlias = Callable[..., Sequence[Sequence[Any]]]
"""Answers SQL about the rows of a page; asked with it and the values of its parameters before the two places."""
Values: TypeAlias = tuple[Any, ...]
"""The columns that make a form, as the table holds them."""
F = TypeVar("F")

LONG_PAGE: Final = 512
"""Of so many records: a short one is read sooner row by row."""
# A form is worth a comparison with each row if every so many rows have it.
_SHARE: Final = 32
_MOST_KNOWN: Final = 8
_BETWEEN: Final = "seq > ? AND seq <= ?"
# Seconds since 1970; probabilities; milliseconds.
_AT, _CHANCE, _TOOK = Scale(24), Scale(-10), Scale(-3, wide=True)
_SCALES: Final = {"at": _AT, "propensity": _CHANCE, "latency_ms": _TOOK, "first_byte_ms": _TOOK}
_COLUMNS: Final[dict[type[Record], tuple[str, ...]]] = {
    Decision: ("seq", "id", "at", "call", "propensity"),
    Outcome: ("seq", "at", "call", "latency_ms", "first_byte_ms", "prompt_tokens", "completion_tokens", "cost_nusd"),
}
# What tells most forms apart comes first.
_FORMS: Final[dict[type[Record], tuple[str, ...]]] = {
    Decision: ("action", "policy", "point", "tenant", "workspace", "featuriser", "actions", "live"),
    Outcome: ("model", "error", "status", "tenant", "workspace"),
}
_texts: Final = msgspec.json.Decoder(list[str]).decode
_wholes: Final = msgspec.json.Decoder(list[int]).decode
_reals: Final = msgspec.json.Decoder(list[float]).decode
_codes: Final = msgspec.json.Decoder(list[int | str]).decode
_decided: Final = msgspec.json.Decoder(tuple[str, str, str, str, str, str, str, int | bool]).decode
_ended: Final = msgspec.json.Decoder(tuple[str, str, int, str, str]).decode


class Pages:
    """Reads pages, and remembers of each kind which forms were frequent of late."""

    def __init__(self) -> None:
        self._decided = Frequent(_decided, _decision_form)
        self._ended = Frequent(_ended, _outcome_form)

    def decisions(self, ask: Ask) -> list[FoldedDecision]:
        """The decisions of a page, each value checked, without contexts. msgspec.DecodeError for a damaged one."""
        known = self._decided.known
        ((codes, extras, seqs, ids, ats, calls, chances),) = ask(_question(Decision, len(known)), *_parameters(known))
        at, chance = _reals(ats), _reals(chances)
        forms = self._decided.read(codes, known)
        own = _wholes(seqs), _texts(ids), _AT.numbers(at), _texts(calls), _CHANCE.numbers(chance)
        made = list(map(FoldedDecision, *own, repeat(""), repeat(None), forms))
        if ODD in at or ODD in chance:
            _read_again(Decision, made, ask)
        if told := _texts(extras):
            shadows = (row for row in made if not row.form.live)
            for row, extra in zip(shadows, told, strict=True):
                row.shadow = shadow_of(rows.read_object(extra))
        return made

    def outcomes(self, ask: Ask) -> list[FoldedOutcome]:
        """The outcomes of a page, as `decisions`."""
        known = self._ended.known
        ((codes, seqs, ats, calls, took_ms, first_ms, *amounts),) = ask(
            _question(Outcome, len(known)), *_parameters(known)
        )
        at, took, first = _reals(ats), _reals(took_ms), _reals(first_ms)
        forms = self._ended.read(codes, known)
        own = _wholes(seqs), _AT.numbers(at), _texts(calls), _TOOK.numbers(took), _TOOK.numbers(first)
        made = list(map(FoldedOutcome, *own, *map(_wholes, amounts), repeat(""), forms))
        if ODD in at or ODD in took or ODD in first:
            _read_again(Outcome, made, ask)
        return made


class Frequent(Generic[F]):
    """The forms of one kind of record that were frequent in the last long page. known: at most `_MOST_KNOWN`.

    decode: gives the values of a form from their JSON; make: the form of them.
    """

    def __init__(self, decode: Callable[[str], Values], make: Callable[[Values], F]) -> None:
        self.known: tuple[tuple[Values, F], ...] = ()
        self._decode = decode
        self._make = make

    def read(self, column: str, known: Sequence[tuple[Values, F]]) -> list[F]:
        """The form of each row: the column tells its number in `known`, or its values as JSON."""
        codes = _codes(column)
        forms: dict[int | str, tuple[Values, F]] = dict(enumerate(known))
        for code in set(codes):
            if code not in forms:
                values = self._decode(str(code))
                forms[code] = values, self._make(values)
        frequent = Counter(codes).most_common(_MOST_KNOWN)
        self.known = tuple(forms[code] for code, count in frequent if count * _SHARE >= len(codes))
        made = {code: form for code, (_, form) in forms.items()}
        return [made[code] for code in codes]


@cache
def _question(kind: type[Record], known: int) -> str:
    """The SQL of a page, one text for each column, with so many known forms."""
    form = ", ".join(f'"{name}"' for name in _FORMS[kind])
    asked = ", ".join("?" * len(_FORMS[kind]))
    cases = "".join(f"WHEN ({form}) = ({asked}) THEN {number} " for number in range(known))
    # As text, whatever is known: nothing is appended to it, which takes from it that it is JSON.
    columns = [f"CASE {cases}ELSE json_array({form}) || '' END" if cases else f"json_array({form}) || ''"]
    columns += [_SCALES[name].told(f'"{name}"') if name in _SCALES else f'"{name}"' for name in _COLUMNS[kind]]
    texts = [f"json_group_array({column})" for column in columns]
    if kind is Decision:
        texts.insert(1, "json_group_array(extra) FILTER (WHERE NOT live)")
    return f'SELECT {", ".join(texts)} FROM "{rows.TABLES[kind].name}" WHERE {_BETWEEN}'


def _parameters(known: Sequence[tuple[Values, object]]) -> list[Any]:
    return [value for values, _ in known for value in values]


def _read_again(kind: type[Record], made: Sequence[FoldedDecision | FoldedOutcome], ask: Ask) -> None:
    """Give rows their real numbers as the columns hold them."""
    names = [name for name in _COLUMNS[kind] if name in _SCALES]
    columns = ", ".join(f'"{name}"' for name in names)
    found = ask(f'SELECT seq, {columns} FROM "{rows.TABLES[kind].name}" WHERE {_BETWEEN}')
    numbers = {seq: msgspec.convert(values, list[float]) for seq, *values in found}
    for row in made:
        for name, value in zip(names, numbers[row.seq], strict=True):
            setattr(row, name, value)


def _decision_form(values: Values) -> DecisionForm:
    action, policy, point, tenant, workspace, featuriser, actions, live = values
    names = rows.read_names(actions)
    return DecisionForm(intern(tenant), intern(workspace), point, policy, featuriser, names, intern(action), live != 0)


def _outcome_form(values: Values) -> OutcomeForm:
    model, error, status, tenant, workspace = values
    return OutcomeForm(tenant, workspace, model, status, error)
