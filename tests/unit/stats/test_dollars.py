"""Amounts of money as text: exact, fixed-point, and back again."""

from __future__ import annotations

import doctest
from fractions import Fraction

from hypothesis import example, given
from hypothesis import strategies as st

from windlass.stats import dollars as module
from windlass.stats.dollars import NUSD, dollars


def test_the_examples_hold() -> None:
    assert doctest.testmod(module).failed == 0


@given(st.integers(-(10**30), 10**30))
@example(18_000)
@example(-1)
@example(10**9)
def test_the_text_is_the_amount(nusd: int) -> None:
    text = dollars(nusd)
    assert Fraction(text) * NUSD == nusd
    assert "e" not in text.lower()
    assert text == text.rstrip(".")
