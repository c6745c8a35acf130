"""Confidence sequences: errors at most as promised however often one looks, and values that can be taken back."""

from __future__ import annotations

import math

import numpy as np
import pytest

from windlass.stats.confseq import WeightedSums, even

ALPHA = 0.05


def ever_reached(draws, worst, alpha=ALPHA):
    """Whether wealth reached 1 / alpha at any of the draws."""
    wealth = even(worst)
    for x in draws:
        wealth.bet(x)
        if wealth.reached(alpha):
            return True
    return False


@pytest.mark.parametrize("chance", [0.5, 0.1, 0.9])
def test_wealth_is_seldom_made_on_what_has_no_gain(chance):
    """1,000 streams of 300 looks at a mean of exactly 0. Ville: at most 0.05 are ever reached; more than 0.08 of 1,000
    have a chance below 2e-5 then (binomial)."""
    rng = np.random.default_rng(1)
    made = sum(ever_reached((rng.random(300) < chance) - chance, chance) for _ in range(1_000))
    assert made <= 80


def test_a_mean_that_moves_above_and_back_makes_no_more():
    """The average of the means is at most 0 at every look: up only after down. Same bound as above."""
    rng = np.random.default_rng(2)
    means = np.array([0.3] * 150 + [0.7] * 150)
    made = sum(ever_reached((rng.random(300) < means) - 0.5, 0.5) for _ in range(1_000))
    assert made <= 80


def test_wealth_is_made_where_there_is_a_gain():
    """At 300 looks, a gain of 0.3 each: missed with a chance below 1e-9 (Hoeffding on the best share)."""
    rng = np.random.default_rng(3)
    assert all(ever_reached((rng.random(300) < 0.8) - 0.5, 0.5) for _ in range(100))


def test_what_is_taken_back_had_never_been():
    once, corrected = even(2.0), even(2.0)
    for x in (0.5, -2.0, 7.0):
        once.bet(x)
    for x in (0.5, -1.0, 7.0, -2.0):
        corrected.bet(x)
    corrected.take_back(-1.0)
    assert corrected.logs == pytest.approx(once.logs, abs=1e-12)


def test_the_worst_number_leaves_a_finite_wealth():
    wealth = even(3.0)
    for _ in range(10_000):
        wealth.bet(-3.0)
    assert wealth.sound()
    assert not wealth.reached(ALPHA)


@pytest.mark.parametrize(("mean", "weights"), [(0.5, (1.0,)), (0.9, (1.0, 0.1)), (0.02, (0.05, 0.5, 1.0))])
def test_intervals_hold_the_mean_at_every_look(mean, weights):
    """400 streams, 12 looks each: at most 0.05 may ever miss; more than 40 of 400 have a chance below 3e-5 then."""
    rng = np.random.default_rng(4)
    missed = 0
    for _ in range(400):
        sums, wrong = WeightedSums(), False
        for number in range(1, 361):
            sums.add(weights[number % len(weights)], float(rng.random() < mean))
            if number % 30 == 0:
                low, high = sums.interval(ALPHA)
                wrong |= not low <= mean <= high
        missed += wrong
    assert missed <= 40


def test_intervals_shrink_with_what_is_known_and_with_less_noise():
    widths = []
    for count, step in ((100, 2), (1_000, 2), (10_000, 2), (10_000, 50)):
        sums = WeightedSums()
        for number in range(count):
            sums.add(1.0, float(number % step == 0))
        low, high = sums.interval(ALPHA)
        assert 0.0 <= low < sums.mean() < high <= 1.0
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)
    assert widths[2] < 0.05


def test_nothing_known_says_nothing():
    sums = WeightedSums()
    assert sums.mean() is None
    assert sums.interval(ALPHA) == (0.0, 1.0)
    sums.add(0.7, 1.0)
    sums.add(0.7, 1.0, -1.0)
    assert sums.mean() is None
    sums.add(1.0, 1.0)
    low, high = sums.interval(ALPHA)
    assert low < 0.5
    assert high == pytest.approx(1.0)
    assert math.isfinite(low)
