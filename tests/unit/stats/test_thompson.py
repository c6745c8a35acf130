"""The exact Thompson distribution, held against scipy and against symmetry."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import integrate, stats

from windlass.stats.thompson import normal_cdf, probabilities


def by_quadrature(means, sds):
    """Adaptive quadrature in each arm's own units, cut where other arms rise."""
    result = []
    for arm, (mean, sd) in enumerate(zip(means, sds, strict=True)):

        def integrand(z, arm=arm, mean=mean, sd=sd):
            t = mean + sd * z
            others = [stats.norm.cdf(t, m, s) for j, (m, s) in enumerate(zip(means, sds, strict=True)) if j != arm]
            return stats.norm.pdf(z) * np.prod(others)

        cuts = {(m + k * s - mean) / sd for m, s in zip(means, sds, strict=True) for k in (-5, 0, 5)}
        points = sorted({-9.0, 9.0, *(cut for cut in cuts if -9.0 < cut < 9.0)})
        parts = [integrate.quad(integrand, a, b, epsabs=1e-10)[0] for a, b in itertools.pairwise(points)]
        result.append(sum(parts))
    return np.array(result)


@pytest.mark.parametrize(
    ("means", "sds"),
    [
        ([0.5, 0.6, 0.7], [0.1, 0.1, 0.1]),
        ([0.5, 0.5, 0.5, 0.4], [0.3, 0.1, 0.02, 1.0]),
        ([0.0, 0.0, 0.0], [1.0, 1e-3, 1e-6]),
        ([0.0, 1e-6, 2.0, -1.0], [1e-6, 1e-6, 1.0, 1.0]),
        ([5.0, 0.0, 0.0], [0.1, 0.1, 0.1]),
        ([1e6, 1e6 + 1.0, 1e6 + 0.5], [1.0, 0.5, 2.0]),
        ([0.1, 0.2, 0.15, 0.3, 0.25], [0.5, 0.01, 0.3, 0.2, 0.1]),
    ],
)
def test_agrees_with_scipy(means, sds):
    found = probabilities(np.array(means), np.array(sds))
    np.testing.assert_allclose(found, by_quadrature(means, sds), atol=1e-6)
    assert found.sum() == pytest.approx(1.0, abs=1e-12)


def test_two_arms_have_the_closed_form():
    found = probabilities(np.array([0.3, 0.5]), np.array([0.2, 0.1]))
    assert found[0] == pytest.approx(stats.norm.cdf(-0.2 / math.hypot(0.2, 0.1)), abs=1e-14)
    assert found.sum() == 1.0


def test_a_third_arm_that_cannot_win_changes_nothing():
    two = probabilities(np.array([0.3, 0.5]), np.array([0.2, 0.1]))
    three = probabilities(np.array([0.3, 0.5, -50.0]), np.array([0.2, 0.1, 0.1]))
    np.testing.assert_allclose(three[:2], two, atol=1e-7)
    assert three[2] == 0.0


@pytest.mark.parametrize("k", [1, 2, 3, 9, 50, 200])
def test_alike_arms_share_alike(k):
    np.testing.assert_allclose(probabilities(np.full(k, 0.7), np.full(k, 0.3)), 1.0 / k, atol=1e-9)


@pytest.mark.parametrize("k", [2, 3])
def test_without_deviation_the_best_wins_and_ties_share(k):
    means = np.array([0.2, 0.7, 0.1])[:k]
    assert probabilities(means, np.zeros(k)).tolist() == pytest.approx([0.0, 1.0, 0.0][:k])
    assert probabilities(means[::-1].copy(), np.zeros(k))[k - 2] == pytest.approx(1.0)
    np.testing.assert_allclose(probabilities(np.full(k, 3.0), np.zeros(k)), 1.0 / k, atol=1e-9)


def test_one_certain_arm_among_uncertain_ones():
    found = probabilities(np.array([0.0, 0.0, 0.0]), np.array([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(found, [0.375, 0.375, 0.25], atol=1e-6)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_largest_numbers_that_there_are(sign):
    found = probabilities(np.array([sign * 1e308, -sign * 1e308, 0.0]), np.array([1.0, 1.0, 1e308]))
    assert np.isfinite(found).all()
    assert found.sum() == pytest.approx(1.0)
    assert probabilities(np.array([1e308, -1e308]), np.array([1e308, 1e308]))[0] > 0.9


@pytest.mark.parametrize(
    ("means", "sds"),
    [
        ([], []),
        ([1.0], [1.0, 2.0]),
        ([[1.0, 2.0]], [[1.0, 2.0]]),
        ([math.nan, 1.0], [1.0, 1.0]),
        ([1.0, 1.0], [math.inf, 1.0]),
        ([1.0, 1.0], [math.nan, 1.0]),
        ([1.0, 1.0], [-1.0, 1.0]),
    ],
)
def test_what_is_no_problem_is_refused(means, sds):
    with pytest.raises(ValueError, match="must be"):
        probabilities(np.array(means), np.array(sds))


def test_the_distribution_function_is_accurate():
    z = np.linspace(-12.0, 12.0, 40_001)
    assert np.abs(normal_cdf(z) - stats.norm.cdf(z)).max() < 3e-10


def test_frequencies_of_sampled_maxima_agree():
    """40,000 draws; Hoeffding at 0.0145 per arm: false alarm below 1e-6."""
    rng = np.random.default_rng(4)
    means, sds = rng.normal(size=6), rng.uniform(0.3, 2.0, size=6)
    wins = np.bincount(rng.normal(means, sds, size=(40_000, 6)).argmax(axis=1), minlength=6) / 40_000
    assert np.abs(wins - probabilities(means, sds)).max() < 0.0145
