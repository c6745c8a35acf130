"""Values of exports: what is exact stays exact, and nonsense is refused with its reason."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from windlass.errors import InputError
from windlass.gateway.history import values

NOW = 1_790_000_000.0


@pytest.mark.parametrize(
    ("said", "nusd"),
    [
        ("0.0000123", 12_300),
        (Decimal("0.1"), 100_000_000),
        ("1e-9", 1),
        ("0.0000000005", 0),
        ("0.0000000015", 2),
        ("0.0000000025", 2),
        ("0.00000000250000000000000000000000000000000000000000000000000001", 3),
        ("1e-999999999", 0),
        (0, 0),
        (7, 7_000_000_000),
    ],
)
def test_dollars_become_nano_dollars_rounded_half_even_once(said: Any, nusd: int) -> None:
    assert values.nusd({"spend": said}, "spend") == nusd


@pytest.mark.parametrize("said", ["nan", "NaN", Decimal("NaN"), "inf", "-0.1", "1e999999999", "1e7", "free", [1], True])
def test_what_is_no_amount_is_refused_with_the_reason(said: Any) -> None:
    with pytest.raises(InputError, match="^cost: "):
        values.nusd({"spend": said}, "spend")


@pytest.mark.parametrize("said", [-1, "-1", 1.5, "1.5", "many", 10**13, "9" * 5_000, Decimal("NaN"), {}, True])
def test_what_is_no_count_is_refused(said: Any) -> None:
    with pytest.raises(InputError, match="^tokens: "):
        values.tokens({"n": said}, "n")


def test_counts_come_as_numbers_and_as_text() -> None:
    assert [values.tokens({"n": said}, "n") for said in (0, "12", "12.0", Decimal("3.0"), None, "")] == [
        *(0, 12, 12, 3),
        *(None, None),
    ]


@pytest.mark.parametrize(
    ("said", "at"),
    [
        ("2025-03-01T09:00:00.25Z", 1_740_819_600.25),
        ("2025-03-01 09:00:00.250000", 1_740_819_600.25),
        ("2025-03-01T11:00:00.25+02:00", 1_740_819_600.25),
        (1_740_819_600.25, 1_740_819_600.25),
        ("1740819600.25", 1_740_819_600.25),
        (Decimal("1740819600.25"), 1_740_819_600.25),
    ],
)
def test_a_time_is_utc_unless_it_says_otherwise(said: Any, at: float) -> None:
    assert values.moment({"at": said}, "at", now=NOW) == at


@pytest.mark.parametrize(
    "said",
    ["yesterday", "1999-12-31", "9999-12-31", 1_740_819_600_250, -1, "NaN", "1e300", "9" * 400, [], "0001-01-01T00:00"],
)
def test_a_time_before_2000_or_in_the_future_is_refused(said: Any) -> None:
    with pytest.raises(InputError, match="^time: "):
        values.began({"at": said}, "at", now=NOW)
    with pytest.raises(InputError, match="^time: there is no at"):
        values.began({}, "at", now=NOW)


def test_text_that_no_database_holds_is_refused() -> None:
    for said in ("a\x00b", "\udc80", "\ud800"):
        with pytest.raises(InputError, match="^user: "):
            values.text({"user": said}, "user")
    assert values.text({"user": "é" * 600}, "user") == "é" * 500
    with pytest.raises(InputError, match="^id: "):
        values.source({"id": "x" * 1_001}, "id")
    with pytest.raises(InputError, match="^id: "):
        values.source({"id": ""}, "id")


def test_an_object_may_be_json_in_a_text() -> None:
    assert values.mapping({"m": '{"a": 0.1}'}, "m") == {"a": Decimal("0.1")}
    assert values.mapping({"m": '{"a": '}, "m") == {}
    assert values.nested({"m": "[" * 100_000}, "m") == "[" * 100_000
    assert values.as_json({"a": Decimal("0.10")}) == '{"a":0.10}'


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 418, 422, 429, 500, 503, 529, 599])
def test_every_status_has_a_cause(status: int) -> None:
    assert values.failure(status)
