"""Between records and rows: which table holds which kind, and how a field becomes a column."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, TypeAlias, TypeVar

import msgspec
import sqlalchemy as sa

from windlass.errors import RecordInvalid
from windlass.ledger import schema
from windlass.ledger.ledger import Body
from windlass.records import KINDS, Call, ContextValue, Decision, LedgerRecord, Outcome, Record
from windlass.stats.chance import Propensity

TABLES: dict[type[Record], sa.Table] = {
    KINDS["call"]: schema.calls,
    KINDS["decision"]: schema.decisions,
    KINDS["outcome"]: schema.outcomes,
    KINDS["feedback"]: schema.feedback,
    KINDS["run_event"]: schema.run_events,
    KINDS["erasure"]: schema.erasures,
}
_JSON = frozenset({"actions", "result", "extra"})
_FLAGS = frozenset({"stream", "live", "tokens_estimated"})
_DECODE = msgspec.json.Decoder().decode
read_object = msgspec.json.Decoder(dict[str, Any]).decode
read_names = msgspec.json.Decoder(tuple[str, ...]).decode
read_context = msgspec.json.Decoder(dict[str, ContextValue]).decode
_ENCODE = msgspec.json.Encoder().encode
# SQLite keeps a flag as a number.
_TYPES: dict[type, Any] = {sa.BigInteger: int, sa.Integer: int, sa.Double: float, sa.Boolean: int | bool}
_NOTHING: dict[type, str] = {dict: "{}", tuple: "[]", list: "[]"}

Row: TypeAlias = list[Any]
"""The values of one row in the order of its table's columns; a place in the sequence comes first, None until taken."""
R = TypeVar("R", bound=Record)


class _Form:
    """How the records of one kind become rows: which columns hold what."""

    def __init__(self, kind: type[Record]):
        self.names = [str(column.name) for column in TABLES[kind].c]
        self.values = operator.attrgetter(*self.names[1:])
        columns = list(enumerate(TABLES[kind].c))[1:]
        self.json = [place for place, column in columns if column.name in _JSON]
        self.texts = [
            place for place, column in columns if isinstance(column.type, sa.Text) and column.name not in _JSON
        ]
        self.reals = [place for place, column in columns if isinstance(column.type, sa.Double)]
        self.wholes = [place for place, column in columns if isinstance(column.type, sa.BigInteger)]
        self.texts_of = operator.itemgetter(*self.texts)


_BODY = operator.attrgetter(*schema.bodies.c.keys())
_FORMS = {kind: _Form(kind) for kind in TABLES}


def to_row(record: LedgerRecord) -> Row:
    """The row of `record`. RecordInvalid for what a database cannot hold (NUL, NaN, 2^63) or a column does not take."""
    form = _FORMS[type(record)]
    row: Row = [None, *form.values(record)]
    for place in form.json:
        value = row[place]
        row[place] = _json(record, form.names[place], value) if value else _NOTHING.get(type(value), "null")
    try:
        good = _storable_as(form, row)
    except (TypeError, UnicodeEncodeError):
        good = False
    if not good:
        _explain(record, form, row)
    return row


def _storable_as(form: _Form, row: Row) -> bool:
    """Whether each column can take its value. TypeError, UnicodeEncodeError for a wrong type or encoding."""
    joined = "".join(form.texts_of(row))
    if not joined.isascii():
        joined.encode()
    good = "\x00" not in joined
    for place in form.reals:
        value = row[place]
        # What a Propensity is, the writer works out: it is in (0, 1].
        good = good and (value is None or type(value) is Propensity or -1e300 < value < 1e300)
    for place in form.wholes:
        good = good and -(2**63) <= row[place] < 2**63
    return good


def context_row(decision: Decision) -> Row:
    """The row of the deletable side table that holds a decision's context."""
    data = _json(decision, "context", decision.context)
    return [decision.tenant, decision.workspace, decision.id, data]


def body_row(body: Body) -> Row:
    """The columns of a kept request or reply."""
    return list(_BODY(body))


def from_rows(kind: type[R], found: Iterable[Sequence[Any]]) -> list[tuple[int, R]]:
    """(seq, record of `kind`) of each row, whose columns are the table's, for a decision the context beside them.

    RecordInvalid for a row that no record could have made.
    """
    given = list(found)
    if kind in _QUICK:
        shape, make = _QUICK[kind]
        try:
            # Checks every value of every row at a tenth of what making the records costs.
            made: list[tuple[int, R]] = make(msgspec.convert(given, shape))
            return made
        except msgspec.DecodeError:
            pass  # One of them is of another shape, or holds no JSON; found and named below.
    return [_converted(kind, row) for row in given]


def _converted(kind: type[R], row: Sequence[Any]) -> tuple[int, R]:
    """One row, each of its values checked."""
    fields = dict(zip([*_FORMS[kind].names, "context"], row, strict=False))
    seq = fields.pop("seq")
    try:
        for name in _JSON & fields.keys():
            fields[name] = _DECODE(fields[name])
        if kind is Decision:
            fields["context"] = _DECODE(fields["context"]) if fields["context"] else {}
        for name in _FLAGS & fields.keys():
            fields[name] = msgspec.convert(fields[name], int | bool) != 0
        return seq, msgspec.convert(fields, kind)
    except (msgspec.DecodeError, TypeError) as exc:
        raise RecordInvalid(f"row {seq} is no {kind.__name__}: {exc}; restore the database from a backup") from exc


# Nearly all rows are of these three kinds. Made by its keywords a record costs half of one converted from a dict, and
# less again without a function call around it; the columns come in the order of the table, their types are checked
# before.


def _calls(found: Sequence[Sequence[Any]]) -> list[tuple[int, Call]]:
    return [
        (
            seq,
            Call(
                id=name,
                at=at,
                tenant=tenant,
                workspace=workspace,
                extra={} if extra == "{}" else read_object(extra),
                endpoint=endpoint,
                model=model,
                stream=stream != 0,
                parent=parent,
                user=user,
                request_bytes=request_bytes,
            ),
        )
        for seq, name, tenant, workspace, at, endpoint, model, stream, parent, user, request_bytes, extra in found
    ]


def _decisions(found: Sequence[Sequence[Any]]) -> list[tuple[int, Decision]]:
    names = shared_names(row[8] for row in found)
    return [
        (
            seq,
            Decision(
                id=name,
                at=at,
                tenant=tenant,
                workspace=workspace,
                extra={} if extra == "{}" else read_object(extra),
                call=call,
                point=point,
                policy=policy,
                actions=names[actions],
                action=action,
                propensity=propensity,
                live=live != 0,
                context=read_context(context) if context else {},
                featuriser=featuriser,
                fallback=fallback,
            ),
        )
        for (
            seq, name, tenant, workspace, at, call, point, policy, actions, action, propensity, live, featuriser,
            fallback, extra, context,
        ) in found
    ]  # fmt: skip


def _outcomes(found: Sequence[Sequence[Any]]) -> list[tuple[int, Outcome]]:
    return [
        (
            seq,
            Outcome(
                id=name,
                at=at,
                tenant=tenant,
                workspace=workspace,
                extra={} if extra == "{}" else read_object(extra),
                call=call,
                model=model,
                provider=provider,
                status=status,
                latency_ms=latency_ms,
                first_byte_ms=first_byte_ms,
                prompt_tokens=prompt_tokens,
                completion_tokens=completion_tokens,
                cost_nusd=cost_nusd,
                tokens_estimated=estimated != 0,
                error=error,
            ),
        )
        for (
            seq, name, tenant, workspace, at, call, model, provider, status, latency_ms, first_byte_ms, prompt_tokens,
            completion_tokens, cost_nusd, estimated, error, extra,
        ) in found
    ]  # fmt: skip


def shape(columns: Iterable[sa.Column[Any]], *beside: Any) -> Any:
    """The type of a list of rows: tuples of what each column holds, and of what stands beside them."""
    row: Any = tuple
    many: Any = list
    return many[row[(*(_TYPES.get(type(column.type), str) for column in columns), *beside)]]


def shared_names(texts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The actions that each text lists: a point offers the same over and over, so equal ones are read once."""
    return {text: read_names(text) for text in set(texts)}


_QUICK: dict[type[Record], tuple[Any, Callable[[Sequence[Sequence[Any]]], Any]]] = {
    Call: (shape(schema.calls.c), _calls),
    Decision: (shape(schema.decisions.c, str | None), _decisions),
    Outcome: (shape(schema.outcomes.c), _outcomes),
}


def _explain(record: LedgerRecord, form: _Form, row: Row) -> NoReturn:
    """Raise RecordInvalid for the first field of `record` that cannot be stored."""
    where = type(record).__name__
    for place in form.texts:
        _storable(record, form.names[place], row[place])
    for place, kind, what in [(p, float, "a finite number") for p in form.reals] + [
        (p, int, "a 64-bit number") for p in form.wholes
    ]:
        value = row[place]
        number = isinstance(value, kind | int) and -(2**63) <= value < 2**63
        if not number and value is not None:
            raise RecordInvalid(f"{where}.{form.names[place]} is {value!r}; send {what}")
    raise RecordInvalid(f"{where} {record.id!r} cannot be stored; send its fields in their types")


def _json(record: LedgerRecord, name: str, value: Any) -> str:
    try:
        text = _ENCODE(value).decode()
    except (TypeError, UnicodeEncodeError, RecursionError) as exc:
        raise RecordInvalid(f"{type(record).__name__}.{name} cannot be stored: {exc}") from exc
    if "\\u0000" in text:
        raise RecordInvalid(f"{type(record).__name__}.{name} holds a NUL character; remove it")
    return text


def _storable(record: LedgerRecord, name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise RecordInvalid(f"{type(record).__name__}.{name} is {value!r}; send text")
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise RecordInvalid(f"{type(record).__name__}.{name} is not valid Unicode: {exc}") from exc
    if "\x00" in value:
        raise RecordInvalid(f"{type(record).__name__}.{name} holds a NUL character; remove it")
