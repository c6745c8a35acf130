"""Adjusted p-values: by hand, and what each promises."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.stats.trials import corrections
from windlass.stats.trials.corrections import Floats

P = np.array([0.04, 0.01, 0.03, 0.5])
BY_HAND: dict[Callable[[Floats], Floats], list[float]] = {
    corrections.bonferroni: [0.16, 0.04, 0.12, 1.0],
    corrections.holm: [0.09, 0.04, 0.09, 0.5],
    corrections.hochberg: [0.08, 0.04, 0.08, 0.5],
    corrections.benjamini_hochberg: [4 * 0.04 / 3, 0.04, 4 * 0.04 / 3, 0.5],
    corrections.benjamini_yekutieli: [4 * 0.04 / 3 * 25 / 12, 0.04 * 25 / 12, 4 * 0.04 / 3 * 25 / 12, 1.0],
    corrections.sidak: [1 - 0.96**4, 1 - 0.99**4, 1 - 0.97**4, 1 - 0.5**4],
    corrections.holm_sidak: [1 - 0.97**3, 1 - 0.99**4, 1 - 0.97**3, 0.5],
}


@pytest.mark.parametrize("adjust", BY_HAND)
def test_by_hand(adjust: Callable[[Floats], Floats]) -> None:
    assert adjust(P).tolist() == pytest.approx(BY_HAND[adjust])


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12))
def test_none_is_smaller_than_it_was_and_the_order_stays(values: list[float]) -> None:
    p = np.array(values)
    for adjust in BY_HAND:
        adjusted = adjust(p)
        assert (adjusted >= p - 1e-12).all()
        assert (adjusted <= 1.0).all()
        assert (np.diff(adjusted[np.argsort(p)]) >= -1e-12).all()
    assert (corrections.holm(p) <= corrections.bonferroni(p) + 1e-12).all()
    assert (corrections.hochberg(p) <= corrections.holm(p) + 1e-12).all()


def test_false_alarms_among_ten_tests() -> None:
    """4,000 times ten tests of nothing: Holm's share above 0.065 has a chance below 1e-4, without it it is 0.4."""
    rng = np.random.default_rng(3)
    p = rng.random((4_000, 10))
    assert np.mean([corrections.holm(row).min() <= 0.05 for row in p]) <= 0.065
    assert np.mean(p.min(axis=1) <= 0.05) > 0.35
