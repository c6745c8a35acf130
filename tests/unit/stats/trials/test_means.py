"""Two samples side by side, against what defines each test."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.stats.trials import means
from windlass.stats.trials.means import Moments, moments

FEW = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=5)


def test_welch_by_hand() -> None:
    """Means 2 and 5, variances 1 and 4, of 3 and 4 values."""
    found = means.welch(Moments(3.0, 2.0, 2.0), Moments(4.0, 5.0, 12.0))
    assert found.t == pytest.approx(3.0 / math.sqrt(4.0 / 3.0))
    assert found.degrees == pytest.approx((4.0 / 3.0) ** 2 / (1.0 / 18.0 + 1.0 / 3.0))
    assert (found.p < 0.05) == (found.interval[0] > 0.0)


def test_the_t_distribution_of_tables() -> None:
    """t of 0.975 with 10 degrees is 2.228, as in any table."""
    found = means.welch(Moments(6.0, 0.0, 30.0), Moments(6.0, 2.228 * math.sqrt(2.0), 30.0))
    assert found.degrees == pytest.approx(10.0)
    assert found.p == pytest.approx(0.05, abs=2e-5)
    assert found.interval[0] == pytest.approx(0.0, abs=1e-3)


@given(st.lists(st.floats(-1e3, 1e3), max_size=9), st.lists(st.floats(-1e3, 1e3), max_size=9))
def test_moments_join(a: list[float], b: list[float]) -> None:
    joined = moments(np.array(a)).joined(moments(np.array(b)))
    whole = moments(np.array(a + b))
    assert joined.n == whole.n
    assert joined.mean == pytest.approx(whole.mean, abs=1e-9)
    assert joined.squares == pytest.approx(whole.squares, abs=1e-5)


def test_samples_that_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="two of each"):
        means.welch(Moments(1.0, 0.0, 0.0), Moments(9.0, 0.0, 1.0))
    with pytest.raises(ValueError, match="no finite number"):
        moments(np.array([1.0, math.nan]))
    same = means.welch(Moments(5.0, 1.0, 0.0), Moments(5.0, 1.0, 0.0))
    assert (same.t, same.p, same.interval) == (0.0, 1.0, (0.0, 0.0))
    sure = means.welch(Moments(5.0, 1.0, 0.0), Moments(5.0, 0.0, 0.0))
    assert (sure.t, sure.p, sure.interval) == (-math.inf, 0.0, (-1.0, -1.0))


@given(FEW, FEW)
def test_mann_whitney_counts_pairs(a: list[float], b: list[float]) -> None:
    u, p = means.mann_whitney(np.array(a), np.array(b))
    assert u == sum((y > x) + 0.5 * (y == x) for x in a for y in b)
    assert 0.0 <= p <= 1.0
    back, same = means.mann_whitney(np.array(b), np.array(a))
    assert back == len(a) * len(b) - u
    assert same == pytest.approx(p)


@given(FEW, FEW)
def test_kolmogorov_smirnov_is_the_share_of_all_orders(a: list[float], b: list[float]) -> None:
    distance, p = means.kolmogorov_smirnov(np.array(a), np.array(b))
    points = sorted(a + b)
    assert distance == pytest.approx(
        max(abs(sum(x <= t for x in a) / len(a) - sum(y <= t for y in b) / len(b)) for t in points)
    )
    n, m = len(a), len(b)
    as_far = 0
    for places in itertools.combinations(range(n + m), n):
        apart, most = 0, 0
        for step in range(n + m):
            apart += m if step in places else -n
            most = max(most, abs(apart))
        as_far += most >= round(distance * n * m)
    assert p == pytest.approx(as_far / math.comb(n + m, n), abs=1e-9)


def test_kolmogorov_smirnov_of_too_many() -> None:
    with pytest.raises(ValueError, match="at most 10,000"):
        means.kolmogorov_smirnov(np.zeros(10_001), np.zeros(2))


def test_a_quantile_interval_covers() -> None:
    """1,000 samples of 50; a share below 0.93 by chance: less than 1e-2, were the level exact; it is conservative."""
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(1_000):
        low, high = means.quantile_interval(rng.exponential(size=50), 0.5)
        covered += low <= math.log(2.0) <= high
    assert covered / 1_000 >= 0.93
    assert math.isnan(means.quantile_interval(np.arange(10.0), 0.95)[1])


def test_a_quantile_is_tested_exactly() -> None:
    x = np.arange(1.0, 11.0)
    assert means.quantile_test(x, 5.5, 0.5) == 1.0
    assert means.quantile_test(x, 0.5, 0.5) == pytest.approx(2.0 / 2**10)
    assert means.quantile_test(x, 10.0, 0.5) == pytest.approx(2.0 * 11.0 / 2**10)
