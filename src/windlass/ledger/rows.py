"""Between records and rows: which table holds which kind, and how a field becomes a column."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn, TypeAlias, TypeVar

import msgspec
import sqlalchemy as sa

from windlass.errors import RecordInvalid
from windlass.ledger import schema
from windlass.ledger.ledger import Body
from windlass.records import KINDS, Call, ContextValue, Decision, LedgerRecord, Outcome, Record

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
_OBJECT = msgspec.json.Decoder(dict[str, Any]).decode
_NAMES = msgspec.json.Decoder(tuple[str, ...]).decode
_CONTEXT = msgspec.json.Decoder(dict[str, ContextValue]).decode
_ENCODE = msgspec.json.Encoder().encode
# SQLite keeps a flag as a number. An integer in a column of floats needs conversion.
_TYPES: dict[type, set[type]] = {sa.BigInteger: {int}, sa.Double: {float}, sa.Boolean: {int, bool}}
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
        self.types = [_TYPES.get(type(column.type), {str}) for column in TABLES[kind].c] + [{str, type(None)}]


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
    joined = "".join([row[place] for place in form.texts])
    if not joined.isascii():
        joined.encode()
    good = "\x00" not in joined
    for place in form.reals:
        good = good and (row[place] is None or -1e300 < row[place] < 1e300)
    for place in form.wholes:
        good = good and -(2**63) <= row[place] < 2**63
    return good


def context_row(decision: Decision) -> Row:
    """The row of the deletable side table that holds a decision's context."""
    data = _json(decision, "context", decision.context)
    return [decision.tenant, decision.workspace, decision.id, data]


def body_row(body: Body) -> Row:
    """The columns of a kept request or reply."""
    return [getattr(body, column.name) for column in schema.bodies.c]


def from_rows(kind: type[R], found: Iterable[Sequence[Any]]) -> list[tuple[int, R]]:
    """(seq, record of `kind`) of each row, whose columns are the table's, for a decision the context beside them.

    RecordInvalid for a row that no record could have made.
    """
    given = list(found)
    if kind in _QUICK and all(types.issuperset(map(type, column)) for types, column in _columns(kind, given)):
        make: Any = _QUICK[kind]
        try:
            return [make(*row) for row in given]
        except msgspec.DecodeError:
            pass  # One of them holds no JSON; found and named below.
    return [_converted(kind, row) for row in given]


def _columns(kind: type[Record], given: Sequence[Sequence[Any]]) -> Iterator[tuple[set[type], tuple[Any, ...]]]:
    """(types that need no conversion, values) of each column."""
    return zip(_FORMS[kind].types, zip(*given, strict=True), strict=False)


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
            fields[name] = bool(fields[name])
        return seq, msgspec.convert(fields, kind)
    except (msgspec.DecodeError, TypeError) as exc:
        raise RecordInvalid(f"row {seq} is no {kind.__name__}: {exc}; restore the database from a backup") from exc


# Nearly all rows are of these three kinds. Made by its keywords a record costs half of one converted from a dict; the
# arguments are the columns in the order of the table, and their types are checked before.


def _call(
    seq: int, name: str, tenant: str, workspace: str, at: float, endpoint: str, model: str, stream: int,
    parent: str, user: str, request_bytes: int, extra: str,
) -> tuple[int, Call]:  # fmt: skip
    return seq, Call(
        id=name,
        tenant=tenant,
        workspace=workspace,
        at=at,
        endpoint=endpoint,
        model=model,
        stream=stream != 0,
        parent=parent,
        user=user,
        request_bytes=request_bytes,
        extra={} if extra == "{}" else _OBJECT(extra),
    )


def _decision(
    seq: int, name: str, tenant: str, workspace: str, at: float, call: str, point: str, policy: str, actions: str,
    action: str, propensity: float, live: int, featuriser: str, fallback: str, extra: str, context: str | None,
) -> tuple[int, Decision]:  # fmt: skip
    return seq, Decision(
        id=name,
        tenant=tenant,
        workspace=workspace,
        at=at,
        call=call,
        point=point,
        policy=policy,
        actions=_NAMES(actions),
        action=action,
        propensity=propensity,
        live=live != 0,
        featuriser=featuriser,
        fallback=fallback,
        extra={} if extra == "{}" else _OBJECT(extra),
        context=_CONTEXT(context) if context else {},
    )


def _outcome(
    seq: int, name: str, tenant: str, workspace: str, at: float, call: str, model: str, provider: str, status: int,
    latency_ms: float, first_byte_ms: float, prompt_tokens: int, completion_tokens: int, cost_nusd: int,
    tokens_estimated: int, error: str, extra: str,
) -> tuple[int, Outcome]:  # fmt: skip
    return seq, Outcome(
        id=name,
        tenant=tenant,
        workspace=workspace,
        at=at,
        call=call,
        model=model,
        provider=provider,
        status=status,
        latency_ms=latency_ms,
        first_byte_ms=first_byte_ms,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        cost_nusd=cost_nusd,
        tokens_estimated=tokens_estimated != 0,
        error=error,
        extra={} if extra == "{}" else _OBJECT(extra),
    )


_QUICK: dict[type[Record], Any] = {Call: _call, Decision: _decision, Outcome: _outcome}


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
