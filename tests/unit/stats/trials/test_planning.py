"""Sizes and powers, against simulation and against each other."""

from __future__ import annotations

import numpy as np
import pytest

from windlass.stats.trials import means, planning, rates


def test_the_power_of_a_t_test_is_what_happens() -> None:
    """6,000 experiments: the share is off by 0.02 with a chance below 2e-3."""
    rng, n, effect = np.random.default_rng(11), 30, 0.7
    found = 0
    for _ in range(6_000):
        found += means.welch(means.moments(rng.normal(size=n)), means.moments(rng.normal(effect, size=n))).p < 0.05
    assert planning.power_of_means(effect, n) == pytest.approx(found / 6_000, abs=0.02)


def test_the_size_of_cohen_s_table() -> None:
    """Cohen, "Statistical Power Analysis", 2nd edition, table 2.4.1: 393 a side for d = 0.2, 64 for 0.5 (t test)."""
    assert planning.size_for_means(0.2) == pytest.approx(392.4, abs=0.1)
    assert planning.power_of_means(0.5, 64) == pytest.approx(0.80, abs=0.005)


def test_the_size_for_rates_has_its_power() -> None:
    n = round(planning.size_for_rates(0.6, 0.1))
    rng = np.random.default_rng(5)
    drawn = zip(rng.binomial(n, 0.6, 4_000).tolist(), rng.binomial(n, 0.7, 4_000).tolist(), strict=True)
    found = np.mean([rates.z_test(rates.Rate(x, n), rates.Rate(y, n))[1] < 0.05 for x, y in drawn])
    assert found == pytest.approx(0.8, abs=0.03)


def test_h_is_the_same_both_ways() -> None:
    assert planning.effect_of_rates(0.2, 0.5) == pytest.approx(-planning.effect_of_rates(0.5, 0.2))
    assert planning.effect_of_rates(0.5, 0.5) == 0.0


@pytest.mark.parametrize("arguments", [(0.0,), (0.1, 0.05, 0.01), (0.1, 0.0), (0.1, 0.05, 1.0)])
def test_plans_that_are_none(arguments: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="give an effect"):
        planning.size_for_means(*arguments)


@pytest.mark.parametrize(("base", "difference"), [(0.9, 0.1), (0.5, 0.0), (0.0, 0.2), (0.3, -0.4)])
def test_rates_that_cannot_be(base: float, difference: float) -> None:
    with pytest.raises(ValueError, match="two different rates"):
        planning.size_for_rates(base, difference)
