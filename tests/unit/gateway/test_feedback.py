"""Feedback as it comes in: what is refused, and what the record says."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.errors import AccessError, RequestError
from windlass.gateway.access.admission import Caller
from windlass.gateway.feedback import AHEAD_S, EARLIEST_S, FeedbackRequest
from windlass.records import Scope

NOW = 1_800_000_000.0
ACME = Scope("acme", "one")


def _said(**fields: Any) -> FeedbackRequest:
    return FeedbackRequest(**{"target": "call_1", "kind": "rating", "value": 1.0, **fields})


def test_a_rating_becomes_a_record_of_its_scope() -> None:
    record = _said(id="mine", comment="good").record(ACME, NOW)
    assert (record.id, record.at, record.scope, record.comment) == ("mine", NOW, ACME, "good")
    assert (record.target, record.kind, record.source, record.metric) == ("call_1", "rating", "user", "quality")


def test_without_an_id_each_is_one_of_its_own() -> None:
    first, second = _said().record(ACME, NOW), _said().record(ACME, NOW)
    assert first.id != second.id
    assert first.id.startswith("feedback_")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2.0, -0.0001, 1.0000001])
def test_a_value_outside_zero_to_one_is_refused(value: float) -> None:
    with pytest.raises(RequestError, match="value is") as refused:
        _said(value=value).record(ACME, NOW)
    assert (refused.value.status, refused.value.param) == (400, "value")


@pytest.mark.parametrize("value", [0.0, -0.0, 0.5, 1.0])
def test_the_borders_are_values(value: float) -> None:
    assert _said(value=value).record(ACME, NOW).value == value


def test_a_rating_needs_a_value_and_nothing_else_does() -> None:
    with pytest.raises(RequestError, match="a rating needs a value"):
        _said(value=None).record(ACME, NOW)
    for kind in ("correction", "suggestion", "complaint", "praise"):
        assert _said(kind=kind, value=None).record(ACME, NOW).value is None


@pytest.mark.parametrize("at", [math.nan, math.inf, -math.inf, 0.0, -1.0, EARLIEST_S - 1, NOW + AHEAD_S + 1, NOW * 1e3])
def test_a_time_that_cannot_be_is_refused(at: float) -> None:
    with pytest.raises(RequestError, match="at is") as refused:
        _said(at=at).record(ACME, NOW)
    assert refused.value.param == "at"


@given(st.floats(EARLIEST_S, NOW + AHEAD_S), st.floats(0.0, 1.0))
def test_every_time_since_2000_and_every_value_is_kept_as_it_is(at: float, value: float) -> None:
    record = _said(at=at, value=value).record(ACME, NOW)
    assert (record.at, record.value) == (at, value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"null",
        b"[]",
        b'{"target": "call_1"}',
        b'{"kind": "rating", "value": 1}',
        b'{"target": "", "kind": "rating", "value": 1}',
        b'{"target": "call 1", "kind": "rating", "value": 1}',
        b'{"target": "call_1\\n", "kind": "rating", "value": 1}',
        b'{"target": "call_1", "kind": "rating", "value": 1, "id": "x\\n"}',
        b'{"target": "call_\\u0000", "kind": "rating", "value": 1}',
        b'{"target": "\\u2693", "kind": "rating", "value": 1}',
        b'{"target": 5, "kind": "rating", "value": 1}',
        b'{"target": "call_1", "kind": "bribe", "value": 1}',
        b'{"target": "call_1", "kind": "rating", "value": "x"}',
        b'{"target": "call_1", "kind": "rating", "value": NaN}',
        b'{"target": "call_1", "kind": "rating", "value": 1e999}',
        b'{"target": "call_1", "kind": "rating", "value": true}',
        b'{"target": "call_1", "kind": "rating", "value": 1, "source": "root"}',
        b'{"target": "call_1", "kind": "rating", "value": 1, "metric": ""}',
        b'{"target": "call_1", "kind": "rating", "value": 1, "id": ""}',
        b'{"target": "call_1", "kind": "rating", "value": 1, "id": "' + b"x" * 201 + b'"}',
        b'{"target": "call_1", "kind": "rating", "value": 1, "comment": "' + b"x" * 10_001 + b'"}',
        b'{"target": "call_1", "kind": "rating", "value": 1, "at": "yesterday"}',
    ],
)
def test_what_is_no_feedback_does_not_decode(body: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        msgspec.json.decode(body, type=FeedbackRequest)


def test_fields_of_a_newer_client_are_passed_over() -> None:
    said = msgspec.json.decode(b'{"target":"call_1","kind":"praise","mood":"sunny"}', type=FeedbackRequest)
    assert said.record(ACME, NOW).kind == "praise"


@pytest.mark.parametrize("field", ["comment", "metric"])
def test_text_that_no_database_can_hold_is_the_clients_mistake(field: str) -> None:
    with pytest.raises(RequestError) as refused:
        _said(**{field: "a\x00b"}).record(ACME, NOW)
    assert refused.value.status == 400


@pytest.mark.parametrize("role", ["viewer", "operator", "approver", "admin"])
@pytest.mark.parametrize("source", ["user", "manager", "system", "qa"])
def test_only_an_operator_speaks_as_more_than_a_user(role: Any, source: Any) -> None:
    said, caller = _said(source=source), Caller(ACME, role, "app")
    if source == "user" or role != "viewer":
        assert said.said_by(caller) is said
        return
    with pytest.raises(AccessError, match="needs the role operator; key 'app' has viewer"):
        said.said_by(caller)
