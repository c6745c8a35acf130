"""Rates against figures that were published, and against what defines them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.stats.trials import rates
from windlass.stats.trials.rates import Rate

ONE = [rates.normal, rates.wilson, rates.agresti_coull, rates.clopper_pearson, rates.jeffreys]
TWO = [rates.wald, rates.agresti_caffo, rates.newcombe, rates.miettinen_nurminen]


def test_newcombe_1998_table_one() -> None:
    """81 of 263: Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17."""
    rate = Rate(81, 263)
    assert rates.normal(rate) == pytest.approx((0.2522, 0.3638), abs=5e-5)
    assert rates.wilson(rate) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert rates.clopper_pearson(rate) == pytest.approx((0.2527, 0.3676), abs=5e-5)


def test_newcombe_1998_differences() -> None:
    """56 of 70 against 48 of 80: contrast (a) of Newcombe, "Interval estimation for the difference", 17:873-890."""
    a, b = Rate(48, 80), Rate(56, 70)
    assert rates.wald(a, b) == pytest.approx((0.0575, 0.3425), abs=5e-5)
    assert rates.miettinen_nurminen(a, b) == pytest.approx((0.0528, 0.3382), abs=5e-5)
    assert rates.newcombe(a, b) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_a_lady_tasting_tea() -> None:
    assert rates.fisher(Rate(3, 4), Rate(1, 4)) == pytest.approx(34 / 70, abs=1e-12)


@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_fisher_is_the_sum_over_all_tables(n: int, m: int, data: st.DataObject) -> None:
    hits, more = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    ways = {k: math.comb(n, k) * math.comb(m, hits + more - k) for k in range(n + 1) if 0 <= hits + more - k <= m}
    said = sum(way for way in ways.values() if way <= ways[hits]) / sum(ways.values())
    assert rates.fisher(Rate(hits, n), Rate(more, m)) == pytest.approx(said, abs=1e-9)


@pytest.mark.parametrize("a", [Rate(0, 7), Rate(3, 9), Rate(40, 50)])
@pytest.mark.parametrize("b", [Rate(6, 6), Rate(2, 30)])
def test_the_score_interval_ends_where_its_test_does(a: Rate, b: Rate) -> None:
    low, high = rates.miettinen_nurminen(a, b)
    z = rates.z_of(0.95)
    if low > -1.0 + 1e-9:
        assert rates.score(a, b, low) == pytest.approx(z, abs=1e-6)
    if high < 1.0 - 1e-9:
        assert rates.score(a, b, high) == pytest.approx(-z, abs=1e-6)


@given(st.integers(1, 400), st.data(), st.sampled_from([0.8, 0.95, 0.99]))
def test_every_interval_holds_its_estimate_and_stays_where_rates_are(n: int, data: st.DataObject, level: float) -> None:
    rate, other = Rate(data.draw(st.integers(0, n)), n), Rate(data.draw(st.integers(0, 20)), 20)
    for interval in ONE:
        low, high = interval(rate, level)
        assert 0.0 <= low <= high <= 1.0
    for low, high in (rates.wilson(rate, level), rates.clopper_pearson(rate, level)):
        assert low - 1e-12 <= rate.value <= high + 1e-12
    for difference in TWO:
        low, high = difference(rate, other, level)
        assert -1.0 - 1e-9 <= max(low, -1.0) <= high
        wide = difference(rate, other, 0.999)
        assert wide[0] <= low + 1e-9
        assert high <= wide[1] + 1e-9


@pytest.mark.parametrize("interval", [rates.wilson, rates.clopper_pearson, rates.agresti_coull])
def test_coverage(interval: object) -> None:
    """Exact, over all outcomes of 60 tries: Clopper and Pearson never below the level, the others near it."""
    n = 60
    for p in (0.05, 0.2, 0.5):
        chance = np.array([math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)])
        ends = [interval(Rate(k, n)) for k in range(n + 1)]  # type: ignore[operator]
        covered = float(sum(c for c, (low, high) in zip(chance, ends, strict=True) if low <= p <= high))
        assert covered >= (0.95 if interval is rates.clopper_pearson else 0.93)


def test_nothing_that_varies() -> None:
    assert rates.z_test(Rate(0, 5), Rate(0, 9)) == (0.0, 1.0)
    z, p = rates.z_test(Rate(50, 100), Rate(70, 100))
    assert z == pytest.approx(0.2 / math.sqrt(0.6 * 0.4 * 0.02))
    assert 0.0 < p < 0.01


@pytest.mark.parametrize(("hits", "n"), [(-1, 5), (6, 5), (0, 0), (math.nan, 5), (1, math.inf)])
def test_what_is_no_rate(hits: float, n: float) -> None:
    with pytest.raises(ValueError, match="give hits"):
        Rate(hits, n)
