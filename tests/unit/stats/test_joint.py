"""The joint posterior equals the one that inverts the whole precision matrix, and borrows what is known of others."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from windlass.stats.joint import JointPosterior

NOISE = 0.2
VARIANCES = np.array([1.0, 0.5, 0.3, 0.2, 0.1])
RHO = np.array([0.4, 0.9, 0.9, 0.7, 0.0])


class Dense:
    """The same model by its precision matrix, all arms there from the start."""

    def __init__(self, arms):
        self.arms, self.size = arms, len(VARIANCES)
        prior = np.zeros((arms, self.size, arms, self.size))
        place = np.arange(self.size)
        for one in range(arms):
            for other in range(arms):
                prior[one, place, other, place] = VARIANCES * (1.0 if one == other else RHO)
        self.precision = np.linalg.inv(prior.reshape(arms * self.size, -1))
        self.moment = np.zeros(arms * self.size)

    def embed(self, arm, x):
        z = np.zeros((self.arms, self.size))
        z[arm] = x
        return z.ravel()

    def observe(self, arm, x, y, counted=True):
        z = self.embed(arm, x)
        self.precision += counted * np.outer(z, z) / NOISE
        self.moment += z * y / NOISE

    def predict(self, x):
        covariance = np.linalg.inv(self.precision)
        zs = [self.embed(arm, x) for arm in range(self.arms)]
        return np.array([z @ covariance @ self.moment for z in zs]), np.array(
            [math.sqrt(z @ covariance @ z) for z in zs]
        )


def posterior(walk=0.0, arms=0):
    made = JointPosterior(NOISE, walk)
    made.widen(VARIANCES, RHO)
    for _ in range(arms):
        made.join()
    return made


def trained(rounds=100, walk=0.0, arms=4, seed=0):
    made, rng = posterior(walk, arms), np.random.default_rng(seed)
    seen = []
    for number in range(rounds):
        arm, x, y = int(rng.integers(arms)), rng.normal(size=len(VARIANCES)), float(rng.random())
        made.observe(arm, f"k{number}", x, y)
        seen.append((arm, x, y))
    return made, seen


def test_equals_the_inverse_of_the_whole_precision_with_arms_that_join_late_or_never():
    made, dense, rng = posterior(), Dense(4), np.random.default_rng(0)
    for number in range(100):
        arm, x, y = int(rng.integers(1 + number // 40)), rng.normal(size=5), float(rng.random())
        while made.arms <= arm:
            made.join()
        made.observe(arm, f"k{number}", x, y)
        dense.observe(arm, x, y)
    x = rng.normal(size=5)
    means, sds = made.predict(x)
    expected, spread = dense.predict(x)
    # Three arms joined; the last entry is any unseen arm, which the fourth of the dense model is.
    assert made.arms == 3
    np.testing.assert_allclose(means, expected, atol=1e-12)
    np.testing.assert_allclose(sds, spread, atol=1e-12)


@pytest.mark.parametrize("place", [8, 80, 99])
def test_a_corrected_value_is_what_it_would_have_been_from_the_start(place):
    made, seen = trained()
    dense = Dense(4)
    arm, x, y = seen[place]
    made.revise(arm, f"k{place}", x, 0.77, y)
    for number, (each, at, value) in enumerate(seen):
        dense.observe(each, at, 0.77 if number == place else value)
    x = np.ones(5)
    np.testing.assert_allclose(made.predict(x)[0][:4], dense.predict(x)[0], atol=1e-12)
    np.testing.assert_allclose(made.predict(x)[1][:4], dense.predict(x)[1], atol=1e-12)


def test_a_recent_correction_is_exact_with_a_walk_too_and_across_an_arm_and_a_feature_that_join():
    def history(value, corrected):
        made, rng = posterior(0.01, 2), np.random.default_rng(3)
        for number in range(40):
            if number == 20:
                made.join()
            if number == 25:
                made.widen([0.3], [0.5])
            x = rng.normal(size=made.features)
            y = float(rng.random())
            made.observe(number % made.arms, f"k{number}", x, value if number == 12 else y)
            if number == 12:
                kept = x
        if corrected is not None:
            made.revise(0, "k12", np.append(kept, 0.0), corrected, value)
        return made

    once, revised = history(0.9, None), history(0.1, 0.9)
    x = np.full(6, 0.5)
    np.testing.assert_allclose(revised.predict(x)[0], once.predict(x)[0], atol=1e-12)
    assert np.array_equal(revised.predict(x)[1], once.predict(x)[1])


def test_an_unseen_arm_knows_what_is_common_and_doubts_the_rest():
    made, x = posterior(arms=2), np.array([0.0, 1.0, 0.0, 0.0, 0.0])
    before = made.predict(x)
    for number in range(200):
        made.observe(number % 2, f"k{number}", x, 1.0)
    means, sds = made.predict(x)
    assert before[0][2] == 0.0
    assert 0.8 < means[2] < means[0]
    assert sds[0] < sds[2] < before[1][2]
    assert made.join() == 2
    np.testing.assert_allclose(made.predict(x)[0][:3], means, atol=1e-12)


def test_a_walking_bias_follows_a_change_and_never_doubts_more_than_at_the_start():
    still, walking = posterior(0.0, 1), posterior(0.01, 1)
    x = np.array([1.0, 0.0, 0.0, 0.0, 0.0])
    for number in range(1_000):
        for made in (still, walking):
            made.observe(0, f"k{number}", x, 1.0 if number < 900 else 0.0)
    assert walking.predict(x)[0][0] < 0.1
    assert still.predict(x)[0][0] > 0.8
    other = posterior(1.0, 2)
    for number in range(50):
        other.observe(0, f"k{number}", x, 0.5)
    assert other.predict(x)[1][1] <= 1.0 + 1e-12


def test_features_and_arms_that_are_let_go_leave_the_margin_of_the_others():
    made, _ = trained()
    x = np.array([1.0, 0.3, 0.0, -0.4, 0.0])
    means, sds = made.predict(x)
    made.narrow([0, 1, 3])
    np.testing.assert_allclose(made.predict(x[[0, 1, 3]])[0][:4], means[:4], atol=1e-12)
    np.testing.assert_allclose(made.predict(x[[0, 1, 3]])[1][:4], sds[:4], atol=1e-12)
    made.leave(1)
    np.testing.assert_allclose(made.predict(x[[0, 1, 3]])[0][:3], means[[0, 2, 3]], atol=1e-12)
    assert made.arms == len(made.observed) == 3


def test_a_stored_posterior_goes_on_to_the_last_bit():
    made, _ = trained(rounds=53, walk=1e-3)
    again = JointPosterior(NOISE, 1e-3)
    again.restore(made.stored())
    rng = np.random.default_rng(9)
    for number in range(40):
        x = rng.normal(size=5)
        for each in (made, again):
            each.observe(number % 4, f"n{number}", x, 0.3)
            each.revise(number % 4, f"n{number}", x, 0.4, 0.3)
    made.join()
    again.join()
    assert made.stored() == again.stored()


def test_variances_are_those_of_predict_to_six_digits_and_the_same_bits_after_a_restore():
    """At every number of updates that wait; numbers of order one, deviations of a tenth and more."""
    made, rng = posterior(1e-3, 4), np.random.default_rng(3)
    for number in range(40):
        x = rng.normal(size=5)
        again = JointPosterior(NOISE, 1e-3)
        again.restore(made.stored())
        assert (made.variances(x) == again.variances(x)).all()
        np.testing.assert_allclose(made.variances(x), made.predict(x)[1] ** 2, rtol=1e-5)
        made.observe(number % 4, f"k{number}", x, 0.3)


def test_variances_follow_arms_and_features_that_come_and_go():
    made, _ = trained(21)
    x = np.array([1.0, 0.3, 0.0, -0.4, 0.2])
    made.variances(x)
    for change, kept in (
        (made.join, [0, 1, 2, 3, 4]),
        (lambda: made.leave(1), [0, 1, 2, 3, 4]),
        (lambda: made.narrow([0, 1, 3]), [0, 1, 3]),
    ):
        change()
        assert len(made.variances(x[kept])) == made.arms + 1
        np.testing.assert_allclose(made.variances(x[kept]), made.predict(x[kept])[1] ** 2, rtol=1e-5)


@pytest.mark.parametrize("y", [math.nan, math.inf, -math.inf, 1e7])
def test_a_value_that_is_no_number_leaves_no_trace(y):
    made, _ = trained(10)
    before = made.stored()
    x = np.ones(5)
    for attempt in (
        lambda: made.observe(0, "k", x, y),
        lambda: made.revise(0, "k3", x, y, 0.1),
        lambda: made.revise(0, "k3", x, 0.1, y),
    ):
        with pytest.raises(ValueError, match="finite"):
            attempt()
    assert made.stored() == before


def test_stored_parts_that_do_not_agree_are_refused():
    stored = trained(20)[0].stored()
    blocks = np.frombuffer(stored.blocks).copy()
    blocks[1] += 1.0
    hostile = [
        {"observed": (1, 2)},
        {"observed": (1, 2, 3, -1)},
        {"mean": b"123"},
        {"mean": np.full(25, math.nan).tobytes()},
        {"blocks": blocks.tobytes()},
        {"blocks": np.zeros(125).tobytes()},
        {"across": b""},
        {"keys": ("one",)},
        {"taken": tuple(9 for _ in stored.taken)},
        {"prior": np.zeros(10).tobytes()},
        {"form": 1},
        {"waiting": np.zeros(21).tobytes()},
    ]
    for changes in hostile:
        made = JointPosterior(NOISE)
        with pytest.raises(ValueError, match=r"."):
            made.restore(msgspec.structs.replace(stored, **changes))
        assert made.arms == 0


def test_stays_positive_definite_under_a_long_adversarial_life():
    made, rng = posterior(3e-4, 3), np.random.default_rng(5)
    worst = np.array([1.0, 5.0, -5.0, 5.0, 5.0])
    for number in range(5_000):
        x = worst if number % 2 else worst * rng.choice([-1.0, 1e-8, 1.0], 5)
        made.observe(number % 3, "k", x, 1e6 if number % 7 == 0 else -1e6)
    means, sds = made.predict(np.ones(5))
    assert np.isfinite(means).all()
    assert (sds > 0.0).all()
    blocks = np.frombuffer(made.stored().blocks).reshape(4, 5, 5)
    assert (blocks == blocks.transpose(0, 2, 1)).all()
    assert (np.linalg.eigvalsh(blocks) > -1e-12).all()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 9, 17, 71])
@pytest.mark.parametrize("arms", [1, 2, 9])
def test_what_was_learned_can_be_stored_whatever_the_shape(size, arms):
    """The blocks stay symmetric to the last bit, whichever way their products are computed."""
    made, rng = JointPosterior(NOISE, 1e-4), np.random.default_rng(size)
    made.widen(np.full(size, 0.3), np.full(size, 0.5))
    for _ in range(arms):
        made.join()
    for number in range(40):
        made.observe(number % arms, f"k{number}", rng.normal(size=size), 0.3)
    again = JointPosterior(NOISE, 1e-4)
    again.restore(made.stored())
    assert again.stored() == made.stored()
