"""Rows back into records: the quick way and the careful one give the same, and no damaged row passes for a record."""

from __future__ import annotations

from typing import Any

import pytest

from windlass.errors import RecordInvalid
from windlass.ledger import rows
from windlass.ledger.check import call, decision, outcome, rating
from windlass.records import Call, Decision, LedgerRecord, Outcome

RECORDS: list[LedgerRecord] = [
    call("call_1"),
    decision("decision_1", "call_1"),
    outcome("call_1"),
    rating("feedback_1", "call_1"),
]
DAMAGED = [
    (Call, "at", "yesterday"),
    (Call, "extra", "{"),
    (Decision, "actions", '["x", 7]'),
    (Decision, "actions", "x"),
    (Decision, "propensity", None),
    (Decision, "call", b"call_1"),
    (Outcome, "status", 200.5),
    (Outcome, "extra", "[]"),
]


def _row(record: LedgerRecord, **changed: Any) -> tuple[Any, ...]:
    names = ["seq", *list(rows.TABLES[type(record)].c.keys())[1:]]
    values = dict(zip(names, [7, *rows.to_row(record)[1:]], strict=True)) | changed
    beside = [rows.context_row(record)[-1]] if isinstance(record, Decision) else []
    return (*values.values(), *beside)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_row_gives_its_record_back(record: LedgerRecord) -> None:
    assert rows.from_rows(type(record), [_row(record)] * 2) == [(7, record)] * 2
    assert rows.from_rows(type(record), []) == []


@pytest.mark.parametrize("record", RECORDS[:3], ids=lambda record: type(record).__name__)
def test_a_whole_number_where_a_float_belongs_is_read_as_one(record: LedgerRecord) -> None:
    ((_, found),) = rows.from_rows(type(record), [_row(record, at=3)])
    assert (found.at, type(found.at)) == (3.0, float)


def test_a_decision_whose_context_is_gone_has_none() -> None:
    row = _row(RECORDS[1])
    ((_, found), (_, whole)) = rows.from_rows(Decision, [(*row[:-1], None), row])
    assert isinstance(found, Decision)
    assert found.context == {}
    assert whole == RECORDS[1]


@pytest.mark.parametrize(("kind", "name", "value"), DAMAGED)
def test_a_damaged_row_is_named_and_passes_for_no_record(kind: type, name: str, value: Any) -> None:
    record = next(one for one in RECORDS if type(one) is kind)
    with pytest.raises(RecordInvalid, match=f"row 7 is no {kind.__name__}: "):
        rows.from_rows(kind, [_row(record), _row(record, **{name: value})])
