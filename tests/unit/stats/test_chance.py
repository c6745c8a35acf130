"""A draw has the distribution that `thompson.probabilities` computes, and its chance is that number, whenever asked."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from windlass.stats import thompson
from windlass.stats.chance import Propensity, draw, draw_listed, mixed, settle

NORMALS = [
    ([0.5, 0.6, 0.7], [0.1, 0.1, 0.1]),
    ([0.5, 0.5, 0.5, 0.4], [0.3, 0.1, 0.02, 1.0]),
    ([0.1, 0.2, 0.15, 0.3, 0.25], [0.5, 0.01, 0.3, 0.2, 0.1]),
    ([0.0, 0.0, 0.0], [1.0, 1e-3, 1e-6]),
    ([0.7] * 9, [0.3] * 9),
    ([1e6, 1e6 + 1.0, 1e6 + 0.5], [1.0, 0.5, 2.0]),
    ([1e308, -1e308, 0.0], [1.0, 1.0, 1e308]),
    ([0.2, 0.2, 0.1], [0.0, 0.0, 0.0]),
]


def chances(means, sds):
    return [Propensity(list(means), list(sds), arm) for arm in range(len(means))]


@pytest.mark.parametrize(("means", "sds"), NORMALS)
def test_a_chance_is_the_probability_of_its_arm(means, sds):
    expected = thompson.probabilities(np.array(means), np.array(sds))
    np.testing.assert_allclose([float(one) for one in chances(means, sds)], expected, atol=1e-9)


def test_many_are_worked_out_at_once_and_each_is_what_it_is_alone():
    together = [one for _ in range(9) for means, sds in NORMALS for one in chances(means, sds)]
    settle(together)
    alone = [float(one) for _ in range(9) for means, sds in NORMALS for one in chances(means, sds)]
    assert [float(one) for one in together] == alone, "bit for bit: a propensity is not of the company it came in"


def test_what_is_no_number_is_refused_by_the_call_that_brings_it():
    with pytest.raises(ValueError, match="finite"):
        draw_listed([math.nan, 1.0, 2.0], [1.0, 1.0, 1.0], np.random.default_rng(0))


@pytest.mark.parametrize(("means", "sds"), NORMALS)
def test_draws_follow_the_probabilities(means, sds):
    """20,000 draws; Hoeffding at 0.02 for at most 9 arms and 8 problems: false alarm below 2e-5 in all."""
    rng = np.random.default_rng(20)
    m, s = np.array(means), np.array(sds)
    counts = np.bincount([draw(m, s, rng)[0] for _ in range(20_000)], minlength=len(means))
    assert np.abs(counts / 20_000 - thompson.probabilities(m, s)).max() < 0.02


def test_of_one_arm_and_of_two_the_probability_is_known_at_once():
    rng = np.random.default_rng(0)
    assert draw(np.array([0.3]), np.array([0.0]), rng) == (0, 1.0)
    for _ in range(20):
        arm, propensity = draw(np.array([0.3, 0.5]), np.array([0.2, 0.1]), rng)
        assert type(propensity) is float
        assert propensity == thompson.probabilities(np.array([0.3, 0.5]), np.array([0.2, 0.1]))[arm]


def test_the_same_dice_choose_the_same():
    m, s = np.array([0.3, 0.5, 0.4]), np.array([0.2, 0.1, 0.3])
    one, other = ([draw(m, s, np.random.default_rng(seed)) for seed in range(50)] for _ in range(2))
    assert one == other
    assert len({arm for arm, _ in one}) == 3


def test_it_is_a_number_and_stays_one_where_it_is_mixed():
    (chance, *_) = chances([0.5, 0.6, 0.7], [0.1, 0.2, 0.1])
    p = float(chance)
    guarded = 0.02 / 3 + 0.98 * chances([0.5, 0.6, 0.7], [0.1, 0.2, 0.1])[0]
    assert isinstance(guarded, Propensity)
    assert float(guarded) == pytest.approx(0.02 / 3 + 0.98 * p, abs=1e-15)
    assert guarded > chance or p > 0.3
    assert chance == p
    assert hash(chance) == hash(p)
    assert 0.0 < chance <= 1.0
    assert f"{chance:.3f}" == f"{p:.3f}"
    assert repr(chance) == repr(p)
    assert (1.0 / chance, chance / 2.0, 1.0 - chance, chance - 0.5) == (1.0 / p, p / 2.0, 1.0 - p, p - 0.5)
    assert chance - chance == 0.0
    assert math.isclose(chance, p)
    assert chance != "half"


def test_what_is_known_is_mixed_at_once_and_what_is_not_stays_so():
    assert mixed(0.5, 0.01, 0.98) == 0.01 + 0.98 * 0.5
    (chance, *_) = chances([0.5, 0.6, 0.7], [0.1, 0.2, 0.1])
    found = mixed(mixed(chance, 0.01, 0.98), 0.0, 0.5)
    assert isinstance(found, Propensity)
    assert found.parts == ([0.5, 0.6, 0.7], [0.1, 0.2, 0.1], 0, 0.005, 0.49)
    assert float(found) == pytest.approx(0.005 + 0.49 * float(chance), abs=1e-15)


def test_what_was_drawn_against_all_odds_has_a_probability_all_the_same():
    assert 0.0 < float(Propensity([0.0, 100.0, 50.0], [1.0, 1.0, 1.0], 0)) < 1e-9
    assert 0.0 < float(Propensity([0.0, 1.0, 1.0], [0.0, 0.0, 0.0], 0)) < 1e-9


@pytest.mark.parametrize(
    ("offset", "factor", "within"),
    [(0.0, 1.0, True), (0.01, 0.98, True), (0.0, 0.0, False), (0.2, 0.9, False), (-0.1, 1.0, False), (0.5, -0.5, True)],
)
def test_it_knows_whether_it_can_only_be_a_probability(offset, factor, within):
    assert chances([0.5, 0.6, 0.7], [0.1, 0.2, 0.1])[0].mixed(offset, factor).within is within


def test_the_surer_an_arm_the_larger_its_chance():
    found = [float(Propensity([0.5, 0.5, 0.5 + ahead], [0.1, 0.2, 0.1], 2)) for ahead in np.linspace(-1.0, 1.0, 41)]
    assert all(low < high for low, high in pairwise(found))


@pytest.mark.parametrize(
    ("means", "sds"),
    [([], []), ([1.0], [1.0, 2.0]), ([math.nan, 1.0], [1.0, 1.0]), ([1.0] * 3, [1.0, math.inf, 1.0]), ([1.0], [-1.0])],
)
def test_what_is_no_problem_is_refused(means, sds):
    with pytest.raises(ValueError, match="must be"):
        draw(np.array(means), np.array(sds), np.random.default_rng(0))
