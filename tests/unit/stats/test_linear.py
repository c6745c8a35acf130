"""The posterior of a linear model: right against ordinary algebra, sound whatever comes in."""

from __future__ import annotations

import math

import numpy as np
import pytest

from windlass.stats.linear import FEATURE_LIMIT, LinearPosterior, Stacked, bounded, predict


def observed(n=200, d=4, prior=2.0, noise=0.25, seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)), rng.normal(size=n)
    posterior = LinearPosterior(prior, noise)
    for row, value in zip(x, y, strict=True):
        posterior.observe(row, float(value))
    return posterior, x, y


def test_equals_the_closed_form():
    posterior, x, y = observed()
    precision = 2.0 * np.eye(4) + x.T @ x / 0.25
    weights = np.linalg.solve(precision, x.T @ y / 0.25)
    at = np.array([0.3, -1.0, 2.0, 0.5])
    (mean,), (sd,) = predict([posterior], at)
    assert mean == pytest.approx(weights @ at, rel=1e-10)
    assert sd == pytest.approx(math.sqrt(at @ np.linalg.inv(precision) @ at), rel=1e-10)
    assert posterior.observations == 200


def test_a_revised_value_counts_like_the_last_one_alone():
    once, revised = LinearPosterior(1.0, 0.1), LinearPosterior(1.0, 0.1)
    x = np.array([1.0, 0.5])
    once.observe(x, 0.9)
    revised.observe(x, 0.1)
    revised.revise(x, 0.9, 0.1)
    assert (revised.precision == once.precision).all()
    np.testing.assert_allclose(revised.moment, once.moment, atol=1e-12)
    assert revised.observations == once.observations == 1


def test_a_feature_that_comes_late_counts_as_if_it_had_been_zero_from_the_start():
    late, early = LinearPosterior(3.0, 0.1), LinearPosterior(3.0, 0.1, 3)
    late.observe(np.array([1.0, 2.0]), 0.7)
    early.observe(np.array([1.0, 2.0, 0.0]), 0.7)
    at = np.array([1.0, -1.0, 4.0])
    np.testing.assert_allclose(predict([late], at), predict([early], at), rtol=1e-12)
    for posterior in (late, early):
        posterior.observe(np.array([1.0, 0.0, 5.0]), 0.2)
    assert late.dimension == 3
    assert (late.precision == early.precision).all()


def test_without_an_observation_the_prior_speaks():
    (mean,), (sd,) = predict([LinearPosterior(4.0, 0.1)], np.array([1.0, 1.0]))
    assert mean == 0.0
    assert sd == pytest.approx(math.sqrt(2.0 / 4.0))


def test_features_are_bounded():
    x = np.array([math.nan, math.inf, -math.inf, 1e300, -1e300, 0.5])
    assert bounded(x).tolist() == [0.0, 0.0, 0.0, FEATURE_LIMIT, -FEATURE_LIMIT, 0.5]
    assert math.isnan(x[0])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300, -2e6])
def test_an_unusable_value_is_refused_and_leaves_no_trace(value):
    posterior = LinearPosterior(1.0, 0.1)
    x = np.array([1.0, 2.0])
    posterior.observe(x, 0.5)
    before = posterior.precision.copy(), posterior.moment.copy()
    for update in (
        lambda: posterior.observe(np.ones(5), value),
        lambda: posterior.revise(x, value, 0.5),
        lambda: posterior.revise(x, 0.5, value),
    ):
        with pytest.raises(ValueError, match="observe rewards of order one"):
            update()
    assert (posterior.precision == before[0]).all()
    assert (posterior.moment == before[1]).all()
    assert posterior.observations == 1


def test_a_shorter_vector_is_refused():
    posterior = LinearPosterior(1.0, 0.1, 3)
    with pytest.raises(ValueError, match="pad with zeros"):
        posterior.observe(np.ones(2), 0.5)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_impossible_parameters_are_refused(value):
    with pytest.raises(ValueError, match="prior_precision"):
        LinearPosterior(value, 0.1)
    with pytest.raises(ValueError, match="noise_variance"):
        LinearPosterior(1.0, value)


@pytest.mark.parametrize(("prior", "noise"), [(1.0, 0.1), (1e-3, 1e-4)])
def test_stays_finite_and_positive_definite_over_a_hundred_thousand_hostile_updates(prior, noise):
    """NaN, infinities, constants and collinear features at the limit, under ordinary and extreme priors."""
    posterior = LinearPosterior(prior, noise)
    rows = [
        np.array([1.0, 1e9, 1e9, 1.0, 0.5]),
        np.array([1.0, math.nan, math.inf, 1.0, 0.5]),
        np.array([1.0, -1e9, -1e9, 1.0, 0.5]),
        np.array([1.0, 100.0, 99.999999, 1.0, 0.5]),
    ]
    for update in range(100_000):
        posterior.observe(rows[update % 4], float(update % 3 == 0))
    weights, inverse = posterior.solved()
    assert np.isfinite(weights).all()
    assert np.isfinite(inverse).all()
    assert (posterior.precision == posterior.precision.T).all()
    assert (np.diag(inverse) > 0.0).all()
    means, sds = predict([posterior], np.array([1.0, 3.0, -3.0, 1.0, 0.5]))
    assert np.isfinite(means).all()
    assert (sds > 0.0).all()
    assert np.isfinite(sds).all()


def test_rounding_that_breaks_definiteness_is_mended():
    """[[1, 1], [1, 1]] is singular: what 10^16 times the prior's precision leaves of it."""
    posterior = LinearPosterior(1e-3, 1.0)
    posterior.restore(np.ones((2, 2)), np.ones(2), 5)
    weights, inverse = posterior.solved()
    assert np.isfinite(weights).all()
    assert np.isfinite(inverse).all()


def test_a_matrix_that_is_no_precision_at_all_is_refused():
    posterior = LinearPosterior(1.0, 1.0)
    with pytest.raises(ValueError, match="no precision matrix"):
        posterior.restore(np.array([[1.0, 1e30], [1e30, 1.0]]), np.zeros(2), 5)
    assert posterior.dimension == 0


@pytest.mark.parametrize(
    ("precision", "moment", "observations", "words"),
    [
        (np.eye(2), np.zeros(3), 1, "do not agree"),
        (np.eye(2), np.zeros(2), -1, "do not agree"),
        (np.array([[1.0, 0.5], [0.4, 1.0]]), np.zeros(2), 1, "symmetric"),
        (np.full((2, 2), np.nan), np.zeros(2), 1, "finite"),
        (np.eye(2), np.array([0.0, np.inf]), 1, "finite"),
        (np.eye(2) * 0.5, np.zeros(2), 1, "below the prior"),
    ],
)
def test_stored_sums_that_cannot_be_are_refused(precision, moment, observations, words):
    with pytest.raises(ValueError, match=words):
        LinearPosterior(1.0, 1.0).restore(precision, moment, observations)


def test_restored_sums_predict_to_the_last_bit():
    posterior, *_ = observed()
    again = LinearPosterior(2.0, 0.25)
    again.restore(posterior.precision, posterior.moment, posterior.observations)
    at = np.array([0.1, 0.2, 0.3, 0.4])
    assert (np.array(predict([posterior], at)) == np.array(predict([again], at))).all()


@pytest.mark.parametrize("dimension", [1, 5, 40, 200])
def test_however_many_observations_wait_the_sums_have_the_same_bits(dimension):
    """Each is added as if it had come alone, however seldom anybody looks, and while the posterior grows."""
    rng = np.random.default_rng(dimension)
    lazy = LinearPosterior(2.0, 0.25)
    precision, moment = np.zeros((0, 0)), np.zeros(0)
    for turn in range(300):
        size = min(dimension, 1 + turn // 2)
        x, y, before = rng.normal(size=size) * 3, float(rng.normal()), float(rng.normal())
        grown = np.eye(size) * 2.0
        grown[: len(moment), : len(moment)] = precision
        precision, moment = grown, np.concatenate([moment, np.zeros(size - len(moment))])
        if rng.random() < 0.3:
            lazy.revise(x, y, before)
            moment += x * ((y - before) / 0.25)
        else:
            lazy.observe(x, y)
            precision += x[:, None] * x / 0.25
            moment += x * (y / 0.25)
        if rng.random() < 0.02:
            assert lazy.moment.tobytes() == moment.tobytes()
        if rng.random() < 0.02:
            assert lazy.precision.tobytes() == precision.tobytes()
    assert lazy.moment.tobytes() == moment.tobytes()
    assert lazy.precision.tobytes() == precision.tobytes()


def test_stacked_predictions_are_those_of_one_after_another():
    """Whatever changes between two of them: an arm, the arms, their order, the features that nobody has seen yet."""
    rng = np.random.default_rng(9)
    arms = [LinearPosterior(2.0, 0.1) for _ in range(4)]
    stacked = Stacked()
    for step in range(60):
        size = int(rng.integers(1, 6))
        arm = arms[int(rng.integers(3))]
        arm.observe(rng.normal(size=max(size, arm.dimension)), float(rng.random()))
        chosen = [arms[place] for place in rng.permutation(4)[: int(rng.integers(1, 5))]]
        x = rng.normal(size=max(one.dimension for one in arms) + int(rng.integers(3)))
        for found, expected in zip(stacked.predict(chosen, x), predict(chosen, x), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12, err_msg=f"step {step}")


def test_what_is_too_large_to_stack_is_predicted_all_the_same():
    arms = [LinearPosterior(1.0, 0.1, dimension=300) for _ in range(2)]
    arms[0].observe(np.ones(300), 1.0)
    found, expected = Stacked().predict(arms, np.ones(300)), predict(arms, np.ones(300))
    np.testing.assert_array_equal(found, expected)
