"""Records: what is kept, what is refused, and how. The round trip over all values is in `tests/property`."""

from __future__ import annotations

import json
from typing import Any, get_args

import msgspec
import pytest

from windlass.errors import RecordInvalid
from windlass.records import (
    KINDS,
    Call,
    Coded,
    Decision,
    Erasure,
    Feedback,
    LedgerRecord,
    Outcome,
    Reply,
    RunEvent,
    Scope,
    StepResult,
    decode,
    encode,
    user_digest,
)

ITS_OWN: dict[str, Any] = {"id": "x_1", "at": 1_700_000_000.25, "tenant": "acme", "workspace": "tax"}
STEP = StepResult(status="ok", value={"items": [1, 2.5, None, "é"]}, cost_nusd=7, duration_ms=2.5)
EXAMPLES: list[Coded] = [
    Call(**ITS_OWN, endpoint="chat.completions", model="auto", stream=True, user="ünï"),
    Decision(
        **ITS_OWN,
        call="call_1",
        point="model",
        policy="thompson@3",
        actions=("fast", "semantic"),
        action="fast",
        propensity=0.75,
        live=True,
        context={"words": 3.0, "embedding": (0.5, -0.25)},
    ),
    Outcome(
        **ITS_OWN,
        call="call_1",
        model="m",
        provider="p",
        status=200,
        latency_ms=12.5,
        first_byte_ms=3.0,
        prompt_tokens=10,
        completion_tokens=20,
        cost_nusd=2**63 - 1,
    ),
    Feedback(**ITS_OWN, target="call_1", kind="rating", source="user", value=-1.0, comment="日本語 🎙"),
    STEP,
    RunEvent(**ITS_OWN, run="run_1", workflow="ingest@1", step="text", item="item_1", result=STEP),
    Erasure(**ITS_OWN, user=user_digest(Scope("acme", "tax"), "ann")),
    Reply(
        call="call_1",
        status=200,
        model="m",
        provider="p",
        body=b"\x00\xff bytes",
        text="t",
        prompt_tokens=1,
        completion_tokens=2,
        cost_nusd=3,
        latency_ms=4.5,
    ),
]
WRONG: dict[str, Any] = {  # by the first letters of a field's type: a value that the field does not take
    "str": 5,
    "float": "fast",
    "int": 1.5,
    "bool": "yes",
    "tuple": "fast",
    "dict": [],
    "bytes": "no base64!",
    "StepResult": [],
    "Literal": "of another day",
}
by_kind = pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)


def fields_of(record: Coded, required: bool = False) -> list[msgspec.structs.FieldInfo]:
    return [field for field in msgspec.structs.fields(record) if field.required or not required]


def wrong_value_for(field: msgspec.structs.FieldInfo) -> Any:
    kind = "float" if str(field.type).startswith("float") else str(getattr(field.type, "__name__", field.type))
    return next(value for name, value in WRONG.items() if kind.startswith(name))


def test_the_examples_are_all_kinds() -> None:
    assert {type(record) for record in EXAMPLES} == set(get_args(Coded))
    assert set(KINDS.values()) == set(get_args(LedgerRecord))


@by_kind
def test_a_record_comes_back_as_it_went(record: Coded) -> None:
    assert decode(encode(record), type(record)) == record


@by_kind
def test_a_record_cannot_be_changed(record: Coded) -> None:
    with pytest.raises(AttributeError, match="immutable"):
        setattr(record, fields_of(record)[0].name, "other")


def test_a_record_of_the_ledger_knows_its_scope() -> None:
    record = decode(b'{"id":"call_1","at":1,"endpoint":"chat","model":"m"}', Call)
    assert record.scope == Scope("default", "default")
    assert [r.scope for r in EXAMPLES if hasattr(r, "scope")] == [Scope("acme", "tax")] * len(KINDS)


@by_kind
def test_fields_of_a_newer_version_are_kept_and_sent_on(record: Coded) -> None:
    newer = {"colour": {"deep": [1, {"er": None}]}, "extra": "a field of that name", "ünï": 2**64 - 1}
    data = json.loads(encode(record)) | newer
    old = decode(json.dumps(data).encode(), type(record))
    assert old.extra == newer
    assert json.loads(encode(old)) == data


def test_fields_of_a_newer_step_inside_a_run_event_are_kept_too() -> None:
    event = next(record for record in EXAMPLES if isinstance(record, RunEvent))
    data = json.loads(encode(event))
    data["result"] |= {"colour": "red", "extra": {"status": "not the field"}}
    old = decode(json.dumps(data).encode(), RunEvent)
    assert old.result.extra == {"colour": "red", "extra": {"status": "not the field"}}
    assert old.extra == {}
    assert json.loads(encode(old)) == data


@by_kind
def test_a_missing_field_is_refused_by_name(record: Coded) -> None:
    for field in fields_of(record, required=True):
        data = json.loads(encode(record))
        del data[field.name]
        with pytest.raises(RecordInvalid, match=f"not a {type(record).__name__}: .*`{field.name}`"):
            decode(json.dumps(data).encode(), type(record))


@by_kind
def test_a_value_of_the_wrong_type_is_refused_by_name(record: Coded) -> None:
    for field in fields_of(record):
        if field.name == "extra" or field.type is Any:
            continue
        data = json.loads(encode(record)) | {field.name: wrong_value_for(field)}
        with pytest.raises(RecordInvalid, match=rf"\$\.{field.name}"):
            decode(json.dumps(data).encode(), type(record))


@by_kind
@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_json_does_not_have_is_refused(record: Coded, number: float) -> None:
    numeric = [field.name for field in fields_of(record) if str(field.type).startswith(("float", "<class 'float'"))]
    for name in numeric:
        with pytest.raises(RecordInvalid, match="is not a finite number"):
            encode(msgspec.structs.replace(record, **{name: number}))
    for extra in ({"new": number}, {"new": [{"deep": (1.0, number)}]}, {"new": {number: 1}}):
        with pytest.raises(RecordInvalid, match="is not a finite number"):
            encode(msgspec.structs.replace(record, extra=extra))


def test_a_nan_inside_a_context_or_a_step_value_is_refused() -> None:
    decision = next(record for record in EXAMPLES if isinstance(record, Decision))
    nan = float("nan")
    for record in (
        msgspec.structs.replace(decision, context={"words": nan}),
        msgspec.structs.replace(decision, context={"embedding": (0.0, nan)}),
        StepResult(status="ok", value=StepResult(status="ok", value=[nan])),
    ):
        with pytest.raises(RecordInvalid, match="nan is not a finite number"):
            encode(record)


GARBAGE = [
    b"",
    b"null",
    b"[]",
    b"7",
    b'"text"',
    b"{",
    b"{}",
    b'{"id":}',
    b"\xff\xfe",
    b'{"id":"\xff"}',
    b'{"id":"\\ud800"}',
    b'{"id":NaN,"at":Infinity}',
    b'{"status":"ok","duration_ms":1e999}',
    b'{"new":' + b"[" * 100_000,
    b'{"at":' + b"9" * 10_000 + b"}",
    b"\x00" * 64,
]


@pytest.mark.parametrize("data", GARBAGE, ids=lambda data: repr(data[:24]))
@by_kind
def test_garbage_is_refused_as_such(record: Coded, data: bytes) -> None:
    with pytest.raises(RecordInvalid, match=f"not a {type(record).__name__}: "):
        decode(data, type(record))


def endless() -> list[Any]:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    return nested


NOT_PLAIN: list[Any] = [object(), 1j, "\ud800", {"\ud800": 1}, {None: 1}, {(1, 2): 3}, 10**5_000, endless()]


@pytest.mark.parametrize("value", NOT_PLAIN, ids=lambda value: type(value).__name__)
def test_what_is_no_plain_data_is_refused_at_the_writer(value: object) -> None:
    with pytest.raises(RecordInvalid, match=r"StepResult cannot be encoded: .* use plain, finite values"):
        encode(StepResult(status="ok", value=value))


def test_extra_cannot_overwrite_a_field_nor_be_lost_to_it() -> None:
    with pytest.raises(RecordInvalid, match=r"extra holds \['status'\], which are fields of its own"):
        encode(StepResult(status="ok", extra={"status": "failed", "new": 1}))


def test_the_message_shows_where_and_how_the_bytes_begin() -> None:
    with pytest.raises(RecordInvalid, match=r"at `\$\.at`; the bytes begin b'.\"id\":\"call_1\"") as refusal:
        decode(b'{"id":"call_1","at":"noon","endpoint":"' + b"e" * 10_000 + b'"}', Call)
    assert len(str(refusal.value)) < 250
