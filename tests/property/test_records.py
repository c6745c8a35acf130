"""The codec over all values: what is encoded comes back, what is damaged is refused, nothing else happens."""

from __future__ import annotations

import contextlib
import functools
import json
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from windlass.errors import RecordInvalid
from windlass.records import Coded, ContextValue, FeedbackKind, FeedbackSource, Status, StepResult, decode, encode

TEXT = st.text(max_size=20)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
INT64 = st.integers(-(2**63), 2**63 - 1)
LEAVES = st.none() | st.booleans() | INT64 | st.integers(0, 2**64 - 1) | FINITE | TEXT
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8
)

PROPERTY = settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
by_kind = pytest.mark.parametrize("kind", get_args(Coded), ids=lambda kind: kind.__name__)


@functools.cache  # built once: a strategy made anew for each example costs more than the test
def newer_fields(kind: type[Coded]) -> st.SearchStrategy[dict[str, Any]]:
    """Fields that this version does not know; one of them may be named `extra`."""
    known = set(kind.__struct_fields__) - {"extra"}
    return st.dictionaries((TEXT | st.just("extra")).filter(lambda name: name not in known), JSON, max_size=3)


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Any value that a field of this type takes."""
    for closed in (FeedbackKind, FeedbackSource, Status):
        if hint == closed:
            return st.sampled_from(get_args(closed))
    if hint == dict[str, ContextValue]:
        return st.dictionaries(TEXT, FINITE | st.lists(FINITE, max_size=4).map(tuple), max_size=3)
    open_types: list[tuple[Any, st.SearchStrategy[Any]]] = [
        (str, TEXT),
        (float, FINITE),
        (int, INT64),
        (bool, st.booleans()),
        (bytes, st.binary(max_size=20)),
        (float | None, st.none() | FINITE),
        (tuple[str, ...], st.lists(TEXT, max_size=3).map(tuple)),
        (Any, JSON),
    ]
    return next(values for known, values in open_types if known == hint)


@functools.cache
def records_of(kind: type[Coded]) -> st.SearchStrategy[Coded]:
    hints = get_type_hints(kind)
    named = {name: values_of(hints[name]) for name in kind.__struct_fields__ if name not in {"extra", "result"}}
    if "result" in kind.__struct_fields__:
        named["result"] = records_of(StepResult)
    return st.builds(kind, **named, extra=newer_fields(kind))


@by_kind
@PROPERTY
@given(data=st.data())
def test_every_record_survives_the_round_trip(kind: type[Coded], data: st.DataObject) -> None:
    record = data.draw(records_of(kind))
    encoded = encode(record)
    back = decode(encoded, kind)
    assert back == record
    assert encode(back) == encoded


@by_kind
@PROPERTY
@given(data=st.data())
def test_a_newer_writer_loses_nothing_to_an_older_reader(kind: type[Coded], data: st.DataObject) -> None:
    sent = json.loads(encode(data.draw(records_of(kind)))) | data.draw(newer_fields(kind))
    passed_on = encode(decode(json.dumps(sent).encode(), kind))
    assert json.loads(passed_on) == sent


@PROPERTY
@given(
    number=st.sampled_from([float("nan"), float("inf"), float("-inf")]),
    path=st.lists(st.sampled_from(["list", "tuple", "dict", "key", "step"]), max_size=6),
)
def test_a_number_that_is_not_finite_is_refused_wherever_it_hides(number: float, path: list[str]) -> None:
    hidden: Any = number
    for step in path:
        hidden = {
            "list": [1, hidden],
            "tuple": (hidden,),
            "dict": {"in": hidden},
            "key": {number: 1},
            "step": StepResult(status="ok", value=hidden),
        }[step]
    for record in (StepResult(status="ok", value=hidden), StepResult(status="ok", extra={"new": hidden})):
        with pytest.raises(RecordInvalid, match="is not a finite number"):
            encode(record)


@by_kind
@PROPERTY
@given(data=st.data())
def test_damaged_bytes_are_a_record_or_refused(kind: type[Coded], data: st.DataObject) -> None:
    encoded = bytearray(encode(data.draw(records_of(kind))))
    where = data.draw(st.integers(0, len(encoded) - 1))
    damaged = data.draw(
        st.sampled_from([encoded[:where], encoded[where:], encoded[:where] + b"\xff" + encoded[where + 1 :]])
        | st.binary(min_size=1, max_size=4).map(lambda noise: encoded[:where] + noise + encoded[where:])
        | st.binary(max_size=60)
    )
    with contextlib.suppress(RecordInvalid):  # the one exception that may come out
        assert isinstance(decode(bytes(damaged), kind), kind)
