"""Effects and their errors, against what happens."""

from __future__ import annotations

import math

import numpy as np
import pytest

from windlass.stats.trials import effects
from windlass.stats.trials.effects import NOTHING, Effect
from windlass.stats.trials.means import Moments, moments

TIMES = 3_000
"""Of each simulation; a standard deviation is then known to 1.3 %, so 6 % is missed with a chance below 1e-4."""


def test_calls_of_one_user_hang_together() -> None:
    """Users differ much in quality and in calls: the delta method's error is the one that is seen, that of calls that
    were independent is less than 0.7 of it."""
    rng, seen, said, naive = np.random.default_rng(4), [], [], []
    for _ in range(TIMES):
        calls = rng.integers(1, 20, 200).astype(float)
        good = rng.binomial(calls.astype(int), rng.beta(1.0, 1.0, 200)).astype(float)
        found = effects.sums(good, calls)
        seen.append(found.ratio)
        said.append(math.sqrt(found.variance))
        naive.append(math.sqrt(found.ratio * (1.0 - found.ratio) / calls.sum()))
    assert np.mean(said) == pytest.approx(np.std(seen), rel=0.06)
    assert np.mean(naive) < 0.7 * np.std(seen)


def test_a_covariate_takes_its_share_of_the_variance() -> None:
    """At a correlation of 0.8 the variance is 0.36 of what it was, and the mean effect is the same."""
    rng, plain, less, said = np.random.default_rng(5), [], [], []
    for _ in range(TIMES):
        x_a, x_b = rng.normal(size=100), rng.normal(size=100)
        y_a, y_b = (0.8 * x + 0.6 * rng.normal(size=100) for x in (x_a, x_b))
        found = effects.adjusted(y_a, x_a, y_b + 0.3, x_b)
        plain.append(effects.means(moments(y_a), moments(y_b + 0.3)).value)
        less.append(found.value)
        said.append(found.error)
    assert np.var(less) / np.var(plain) == pytest.approx(0.36, rel=0.12)
    assert np.mean(less) == pytest.approx(0.3, abs=0.02)
    assert np.mean(said) == pytest.approx(np.std(less), rel=0.06)


def test_a_covariate_that_says_nothing() -> None:
    y, still = np.array([1.0, 2.0, 3.0]), np.ones(3)
    found = effects.adjusted(y, still, y + 1.0, still)
    assert found == effects.means(moments(y), moments(y + 1.0))


def test_pairs() -> None:
    a = np.array([0.0, 1.0, 0.0, 1.0])
    assert effects.pairs(a, a + 0.5) == Effect(0.5, 0.0)
    assert effects.pairs(a, a[::-1].copy()).value == 0.0
    assert effects.pairs(a[:1], a[:1]) is NOTHING


def test_a_margin_moves_the_effect() -> None:
    assert Effect(-0.01, 0.01).against(0.03).z == pytest.approx(2.0)
    assert Effect(1.0, 2.0).interval(2.0) == (-3.0, 5.0)


@pytest.mark.parametrize("found", [NOTHING, Effect(1.0, 0.0), Effect(1.0, math.nan)])
def test_where_nothing_is_known_nothing_is_found(found: Effect) -> None:
    assert found.z == 0.0
    assert effects.p_value(found) == 1.0


def test_too_few() -> None:
    few, some = Moments(1.0, 0.5, 0.0), Moments(9.0, 0.5, 2.0)
    assert effects.means(few, some) is NOTHING
    one = np.ones(1)
    assert effects.ratios(effects.sums(one, one), effects.sums(np.ones(5), np.ones(5))) is NOTHING
    assert effects.ratios(effects.sums(np.zeros(5), np.zeros(5)), effects.sums(np.ones(5), np.ones(5))) is NOTHING
    assert effects.adjusted(one, one, one, one) is NOTHING


def test_logarithms_have_a_floor() -> None:
    assert effects.logarithms(np.array([0.0, 1.0, math.e]), 1e-3).tolist() == pytest.approx([math.log(1e-3), 0.0, 1.0])
    with pytest.raises(ValueError, match="above 0"):
        effects.logarithms(np.ones(2), 0.0)


@pytest.mark.parametrize(("t", "degrees", "z"), [(2.776445, 4.0, 1.959964), (-1.984467, 98.0, -1.959964)])
def test_a_t_statistic_as_a_z_statistic_and_back(t: float, degrees: float, z: float) -> None:
    # Quantiles of 97.5 % in any table.
    assert effects.normal_score(t, degrees) == pytest.approx(z, rel=1e-6)
    assert effects.student_score(abs(z), degrees) == pytest.approx(abs(t), rel=1e-6)


@pytest.mark.parametrize("degrees", [1.0, 4.5, 500.0, 1e6, math.inf])
def test_scores_are_numbers_however_far_out(degrees: float) -> None:
    for t in (0.0, 1e-9, 5.0, 40.0, 1e12):
        assert 0.0 <= effects.normal_score(t, degrees) <= t
        assert effects.normal_score(-t, degrees) == -effects.normal_score(t, degrees)
    for z in (0.0, 2.0, 8.0):
        assert z - 1e-9 <= effects.student_score(z, degrees) < math.inf
    assert effects.normal_score(math.inf, 3.0) == math.inf
