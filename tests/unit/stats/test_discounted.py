"""The regression that forgets, against the weighted sums as they are written in the paper."""

from __future__ import annotations

import math

import numpy as np
import pytest

from windlass.stats.discounted import DiscountedPosterior, Recency
from windlass.stats.linear import predict

PRIOR, NOISE, HALF_LIFE = 2.0, 0.3, 7.0


def weighted(rows, step, x):
    """Mean and deviation of w.x from all (step, x, y) with their weights at `step`."""
    precision, moment = np.eye(len(x)) * PRIOR, np.zeros(len(x))
    for at, row, y in rows:
        weight = 0.5 ** ((step - at) / HALF_LIFE)
        precision += weight * np.outer(row, row) / NOISE
        moment += weight * row * y / NOISE
    return x @ np.linalg.solve(precision, moment), math.sqrt(x @ np.linalg.solve(precision, x))


def test_it_is_the_weighted_regression_at_every_step():
    rng = np.random.default_rng(2)
    posterior, rows = DiscountedPosterior(PRIOR, NOISE, HALF_LIFE), []
    for step in range(1, 80):
        if step % 3 == 0:
            row, y = rng.normal(size=4), float(rng.normal())
            posterior.observe_at(step, row, y)
            rows.append((step, row, y))
        posterior.age(step)
        x = rng.normal(size=4)
        (mean,), (sd,) = predict([posterior], x)
        assert (mean, sd) == pytest.approx(weighted(rows, step, x), abs=1e-9)


def test_a_revision_has_the_weight_of_its_observation():
    rng = np.random.default_rng(3)
    rows = [(step, rng.normal(size=3), float(rng.normal())) for step in range(1, 30)]
    posterior = DiscountedPosterior(PRIOR, NOISE, HALF_LIFE)
    for step, row, y in rows:
        posterior.observe_at(step, row, y + 1.0 if step in (4, 29) else y)
    for step, row, y in (rows[3], rows[28]):
        posterior.revise_from(step, row, y, y + 1.0)
    x = rng.normal(size=3)
    (mean,), (sd,) = predict([posterior], x)
    assert (mean, sd) == pytest.approx(weighted(rows, 29, x), abs=1e-9)


def test_after_an_age_only_the_prior_is_left():
    posterior = DiscountedPosterior(PRIOR, NOISE, HALF_LIFE)
    posterior.observe_at(1, np.array([1.0, 2.0]), 5.0)
    posterior.age(10**9)
    (mean,), (sd,) = predict([posterior], np.array([1.0, 1.0]))
    assert (mean, sd) == (0.0, pytest.approx(math.sqrt(2.0 / PRIOR)))


def test_features_may_be_added_and_hostile_ones_count_nothing():
    posterior = DiscountedPosterior(PRIOR, NOISE, HALF_LIFE)
    posterior.observe_at(1, np.array([1.0]), 0.5)
    posterior.observe_at(2, np.array([1.0, math.nan, math.inf]), 0.5)
    posterior.revise_from(2, np.array([1.0, math.nan, math.inf, 1e308]), 0.7, 0.5)
    posterior.age(3)
    (mean,), (sd,) = predict([posterior], np.array([1.0, 1.0, 1.0, 1.0]))
    assert math.isfinite(mean)
    assert 0.0 < sd < math.inf


@pytest.mark.parametrize("y", [math.nan, math.inf, 1e300])
def test_a_refused_value_leaves_no_trace(y):
    posterior = DiscountedPosterior(PRIOR, NOISE, HALF_LIFE)
    posterior.observe_at(1, np.array([1.0, 2.0]), 0.5)
    before = posterior.precision.tobytes() + posterior.moment.tobytes()
    with pytest.raises(ValueError, match="finite"):
        posterior.observe_at(50, np.array([1.0, 2.0, 3.0]), y)
    with pytest.raises(ValueError, match="finite"):
        posterior.revise_from(1, np.array([1.0, 2.0]), y, 0.5)
    assert (posterior.precision.tobytes() + posterior.moment.tobytes(), posterior.step) == (before, 1)


@pytest.mark.parametrize("half_life", [0.0, -1.0, math.nan, math.inf])
def test_a_half_life_must_be_one(half_life):
    with pytest.raises(ValueError, match="half_life"):
        DiscountedPosterior(PRIOR, NOISE, half_life)


def test_steps_are_known_for_the_newest_keys_only():
    steps = Recency(3)
    assert [steps.add(key) for key in ("a", "b", "c", "a", "d")] == [1, 2, 3, 4, 5]
    assert [steps.find(key) for key in ("a", "b", "c", "d", "e")] == [4, None, 3, 5, None]
    again = Recency(3)
    again.restore(steps.packed(), steps.count)
    assert [again.find(key) for key in ("a", "b", "c", "d")] == [4, None, 3, 5]
    for each in (steps, again):
        each.add("\udc80 no text")
    assert (again.packed(), again.find("c"), again.find("a")) == (steps.packed(), None, 4)


@pytest.mark.parametrize(("packed", "count"), [(b"1234567", 1), (b"12345678", 2), (b"", 1), (b"12345678" * 4, 9)])
def test_steps_that_cannot_be_are_refused(packed, count):
    with pytest.raises(ValueError, match="keys after"):
        Recency(3).restore(packed, count)
