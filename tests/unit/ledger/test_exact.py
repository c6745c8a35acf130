"""Real numbers go through JSON without losing a bit, or are said to be odd."""

from __future__ import annotations

import math
import random
import sqlite3
import struct

import msgspec
import pytest

from windlass.ledger.exact import ODD, Scale

NARROW, WIDE = Scale(-10), Scale(-3, wide=True)


def _through(scale: Scale, values: list[object]) -> tuple[list[float], list[float]]:
    """(what was told of each value, the numbers made of that)."""
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE kept (x DOUBLE)")
    connection.executemany("INSERT INTO kept VALUES (?)", [(value,) for value in values])
    (text,) = connection.execute(f"SELECT json_group_array({scale.told('x')}) FROM kept").fetchone()
    connection.close()
    told = msgspec.json.decode(text, type=list[float])
    return told, scale.numbers(told)


def _bits(value: float) -> bytes:
    return struct.pack("<d", value)


@pytest.mark.parametrize(("scale", "low", "high"), [(NARROW, -10, 1), (WIDE, -3, 19), (Scale(24), 24, 35)])
def test_every_bit_of_a_number_in_range_comes_back(scale: Scale, low: int, high: int) -> None:
    dice = random.Random(5)
    values = [math.ldexp(1.0 + dice.getrandbits(52) / 2**52, dice.randrange(low, high)) for _ in range(20_000)]
    values += [2.0**place for place in range(low, high)]
    values += [math.nextafter(2.0**place, 0.0) for place in range(low + 1, high + 1)]
    told, numbers = _through(scale, list(values))
    assert ODD not in told
    assert [_bits(value) for value in numbers] == [_bits(value) for value in values]


@pytest.mark.parametrize("scale", [NARROW, WIDE])
def test_zero_is_zero(scale: Scale) -> None:
    assert [_bits(value) for value in _through(scale, [0.0, -0.0, 0])[1]] == [_bits(0.0)] * 3


@pytest.mark.parametrize(
    "value",
    [
        math.nextafter(2.0**-10, 0.0), 2.0, 1e300, math.inf, -math.inf, -0.5, -1e300, 5e-324, "", "0.5x", b"", b"0.5",
        None,
    ],
)  # fmt: skip
def test_what_is_out_of_range_or_no_number_is_odd(value: object) -> None:
    assert _through(NARROW, [0.5, value])[0] == [2.0**61, ODD]


def test_the_halves_of_a_wide_range_meet() -> None:
    border = 2.0**8
    values = [math.nextafter(border, 0.0), border, math.nextafter(border, math.inf)]
    told, numbers = _through(WIDE, list(values))
    assert [one > 0 for one in told] == [True, False, False]
    assert numbers == values
    assert _through(WIDE, [2.0**19, 2.0**-4])[0] == [ODD, ODD]
