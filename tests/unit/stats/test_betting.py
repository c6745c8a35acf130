"""The interval that holds for every sample size: it covers where weights are wild, and closes in where they are not."""

from __future__ import annotations

import numpy as np
import pytest

from windlass.stats import betting


def test_it_covers_with_heavy_weights_and_few_choices() -> None:
    """300 logs of 150 choices, weights of 1 in 20 at 20: at least 95 %, so 0.90 leaves a false alarm of 3e-4."""
    covered = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        w = np.where(rng.random(150) < 0.05, 20.0, 0.0)
        y = (rng.random(150) < 0.3).astype(np.float64)
        low, high = betting.weighted_mean(w, y, 0.95)
        assert 0.0 <= low <= high <= 1.0
        covered += low <= 0.3 <= high
    assert covered / 300 >= 0.90


def test_it_closes_in() -> None:
    rng = np.random.default_rng(1)
    widths = []
    for n in (100, 10_000):
        y = (rng.random(n) < 0.6).astype(np.float64)
        low, high = betting.weighted_mean(np.ones(n), y, 0.95)
        assert low <= 0.6 <= high
        widths.append(high - low)
    assert widths[1] < 0.05 < widths[0]


def test_nothing_seen_leaves_everything_possible() -> None:
    assert betting.weighted_mean(np.empty(0), np.empty(0), 0.95) == (0.0, 1.0)
    assert betting.lower(np.zeros(100), 0.05) == 0.0


@pytest.mark.parametrize("alpha", [0.2, 0.05, 0.001])
def test_less_risk_is_a_lower_bound(alpha: float) -> None:
    x = np.random.default_rng(2).random(500)
    assert betting.lower(x, alpha) <= betting.lower(x, 2 * alpha) <= 0.55
