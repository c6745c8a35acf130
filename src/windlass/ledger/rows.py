"""Between records and rows: which table holds which kind, and how a field becomes a column."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa

from windlass.errors import RecordInvalid
from windlass.ledger import schema
from windlass.ledger.ledger import Body
from windlass.records import KINDS, Decision, LedgerRecord, Record

TABLES: dict[type[Record], sa.Table] = {
    KINDS["call"]: schema.calls,
    KINDS["decision"]: schema.decisions,
    KINDS["outcome"]: schema.outcomes,
    KINDS["feedback"]: schema.feedback,
    KINDS["run_event"]: schema.run_events,
    KINDS["erasure"]: schema.erasures,
}
_JSON = frozenset({"actions", "result", "extra"})
_BESIDE = frozenset({"context"})
_FIELDS = {kind: tuple(f for f in kind.__struct_fields__ if f not in _BESIDE) for kind in TABLES}

_DECODE = msgspec.json.Decoder().decode

Row = dict[str, Any]
R = TypeVar("R", bound=Record)


def to_row(record: LedgerRecord) -> Row:
    """The columns of `record` without its seq. RecordInvalid for what a database cannot hold (NUL, NaN, 2^63)."""
    row = {name: getattr(record, name) for name in _FIELDS[type(record)]}
    for name, value in row.items():
        if name in _JSON:
            row[name] = _json(record, name, value)
        elif isinstance(value, str) and ("\x00" in value or not value.isascii()):
            _storable(record, name, value)
        elif isinstance(value, float) and not -1e300 < value < 1e300:
            raise RecordInvalid(f"{type(record).__name__}.{name} is {value}; send a finite number")
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise RecordInvalid(f"{type(record).__name__}.{name} is {value}; send a 64-bit number")
    return row


def context_row(decision: Decision) -> Row:
    """The row of the deletable side table that holds a decision's context."""
    data = _json(decision, "context", decision.context)
    return {"tenant": decision.tenant, "workspace": decision.workspace, "decision": decision.id, "data": data}


def body_row(body: Body) -> Row:
    """The columns of a kept request or reply."""
    return {name: getattr(body, name) for name in schema.bodies.c.keys()}  # noqa: SIM118 (a column collection)


def from_rows(kind: type[R], found: Iterable[Sequence[Any]]) -> Iterator[tuple[int, R]]:
    """(seq, record of `kind`) of each row, whose columns are the table's, for a decision the context beside them."""
    names = [str(column.name) for column in TABLES[kind].c] + (["context"] if kind is Decision else [])
    texts = [name for name in names if name in _JSON]
    for row in found:
        fields = dict(zip(names, row, strict=True))
        seq = fields.pop("seq")
        for name in texts:
            text = fields[name]
            fields[name] = {} if text == "{}" else _DECODE(text)
        if kind is Decision:
            fields["context"] = _DECODE(fields["context"]) if fields["context"] else {}
        try:
            yield seq, msgspec.convert(fields, kind)
        except msgspec.ValidationError as exc:
            raise RecordInvalid(f"row {seq} is no {kind.__name__}: {exc}") from exc


def _json(record: LedgerRecord, name: str, value: Any) -> str:
    try:
        text = msgspec.json.encode(value).decode()
    except (TypeError, UnicodeEncodeError, RecursionError) as exc:
        raise RecordInvalid(f"{type(record).__name__}.{name} cannot be stored: {exc}") from exc
    if "\\u0000" in text:
        raise RecordInvalid(f"{type(record).__name__}.{name} holds a NUL character; remove it")
    return text


def _storable(record: LedgerRecord, name: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise RecordInvalid(f"{type(record).__name__}.{name} is not valid Unicode: {exc}") from exc
    if "\x00" in value:
        raise RecordInvalid(f"{type(record).__name__}.{name} holds a NUL character; remove it")
