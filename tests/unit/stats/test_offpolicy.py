"""Off-policy estimators: by hand on a small log, without bias where the propensities are true, intervals that cover."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from scipy import stats

from windlass.stats import offpolicy
from windlass.stats.offpolicy import Floats

# Four choices between two actions, with weights 1, 3, 0 and 1.
ACTION = np.array([0, 1, 0, 1])
PROPENSITY = np.array([0.5, 0.25, 0.5, 1.0])
TARGET = np.array([[0.5, 0.5], [0.25, 0.75], [0.0, 1.0], [0.0, 1.0]])
Y = np.array([1.0, 0.0, 1.0, 0.5])
MODEL = np.array([[0.6, 0.4], [0.8, 0.2], [0.5, 0.5], [0.1, 0.9]])
W = np.array([1.0, 3.0, 0.0, 1.0])


def test_the_weights_are_target_over_propensity() -> None:
    assert offpolicy.weights(TARGET, ACTION, PROPENSITY).tolist() == W.tolist()
    half = offpolicy.weights(TARGET, ACTION, PROPENSITY, np.array([0.5, 1.0, 1.0, 0.0]))
    assert half.tolist() == [2.0, 3.0, 0.0, 0.0]


BY_HAND: dict[str, tuple[Callable[[], Floats], float]] = {
    "ips": (lambda: offpolicy.ips(W, Y), 1.5 / 4),
    "self-normalised": (lambda: offpolicy.self_normalised(W, Y), 1.5 / 5),
    "direct": (lambda: offpolicy.direct(TARGET, MODEL), (0.5 + 0.35 + 0.5 + 0.9) / 4),
    "doubly robust": (lambda: offpolicy.doubly_robust(W, Y, TARGET, MODEL, ACTION), (2.25 + 0.4 - 0.6 - 0.4) / 4),
    "normalised dr": (lambda: offpolicy.self_normalised_dr(W, Y, TARGET, MODEL, ACTION), 2.25 / 4 - 0.6 / 5),
    "switch": (lambda: offpolicy.switch(W, Y, TARGET, MODEL, ACTION, 2.0), (2.25 + 0.4 - 0.4) / 4),
    "dros": (lambda: offpolicy.shrunk(W, Y, TARGET, MODEL, ACTION, 1.0), (2.25 + 0.2 - 0.3 * 0.2 - 0.2) / 4),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_a_small_log_by_hand(name: str) -> None:
    found, expected = BY_HAND[name]
    assert found().mean() == pytest.approx(expected, abs=1e-12)


def test_the_biased_ones_end_in_doubly_robust() -> None:
    whole = offpolicy.doubly_robust(W, Y, TARGET, MODEL, ACTION)
    for estimator in (offpolicy.switch, offpolicy.shrunk):
        assert estimator(W, Y, TARGET, MODEL, ACTION, math.inf) == pytest.approx(whole)
    assert offpolicy.switch(W, Y, TARGET, MODEL, ACTION, -1.0) == pytest.approx(offpolicy.direct(TARGET, MODEL))


def test_the_overlap_of_equal_weights_is_their_number_and_of_one_alone_is_one() -> None:
    assert offpolicy.overlap(np.ones(50)).size == pytest.approx(50.0)
    alone = offpolicy.overlap(np.array([0.0, 0.0, 4.0, 0.0]))
    assert (alone.size, alone.mean_weight, alone.largest) == (1.0, 1.0, 4.0)
    assert offpolicy.overlap(np.zeros(9)) == (0.0, 0.0, -math.inf, 0.0)


class Replay(NamedTuple):
    """A log of which the truth is known."""

    w: Floats
    y: Floats
    target: Floats
    model: Floats
    action: np.ndarray
    truth: float


def replay(seed: int, n: int) -> Replay:
    """Two actions, one feature; a model that is wrong everywhere, propensities that are true."""
    rng = np.random.default_rng(seed)
    x = rng.random(n)
    chance = 0.15 + 0.7 * x
    action = (rng.random(n) < chance).astype(np.intp)
    rewards = np.column_stack([0.3 + 0.4 * x, 0.8 - 0.5 * x])
    y = (rng.random(n) < rewards[np.arange(n), action]).astype(np.float64)
    target = np.column_stack([x, 1.0 - x])
    propensity = np.where(action == 1, chance, 1.0 - chance)
    # E[x (0.3 + 0.4 x)] + E[(1 - x) (0.8 - 0.5 x)]
    truth = 0.3 / 2 + 0.4 / 3 + 0.8 - 1.3 / 2 + 0.5 / 3
    w = offpolicy.weights(target, action, propensity)
    return Replay(w, y, target, np.full((n, 2), 0.5), action, truth)


def test_values_are_without_bias_and_intervals_cover() -> None:
    """400 replays of 1,500: each mean within 5 standard errors of the truth (false alarm 6e-7 each); coverage of 95 %
    intervals between 0.90 and 0.99 (binomial, false alarm below 1e-4 each)."""
    found: dict[str, list[offpolicy.Estimate]] = {"ips": [], "snips": [], "dr": [], "sndr": [], "dros": []}
    runs = [replay(seed, 1_500) for seed in range(400)]
    for one in runs:
        rest = (one.w, one.y, one.target, one.model, one.action)
        found["ips"].append(offpolicy.interval(offpolicy.ips(one.w, one.y)))
        found["snips"].append(offpolicy.interval(offpolicy.self_normalised(one.w, one.y)))
        found["dr"].append(offpolicy.interval(offpolicy.doubly_robust(*rest)))
        found["sndr"].append(offpolicy.interval(offpolicy.self_normalised_dr(*rest)))
        found["dros"].append(offpolicy.tuned(offpolicy.shrunk, *rest))
    truth = runs[0].truth
    for name, estimates in found.items():
        values = np.array([one.value for one in estimates])
        covered = np.mean([one.low <= truth <= one.high for one in estimates])
        assert 0.90 <= covered <= 0.99, (name, covered)
        if name != "dros":
            assert abs(values.mean() - truth) < 5 * values.std() / math.sqrt(len(values)), name
    # The point of a model, even of a constant one: less spread than weights alone.
    assert np.std([one.value for one in found["dr"]]) < np.std([one.value for one in found["ips"]])


def test_an_interval_is_students_for_a_normal_sample_and_longer_for_heavy_tails() -> None:
    x = np.random.default_rng(5).normal(size=60)
    found, exact = offpolicy.interval(x), stats.t.interval(0.95, 59, x.mean(), stats.sem(x))
    assert found.value == x.mean()
    assert found.high - found.low == pytest.approx(exact[1] - exact[0], rel=0.05)
    heavy = np.zeros(1_000)
    heavy[:3] = 100.0
    spread = heavy.std(ddof=1) / math.sqrt(1_000)
    assert offpolicy.interval(heavy).high - heavy.mean() > 2.4 * spread


def test_what_never_varies_has_a_point_for_an_interval() -> None:
    assert offpolicy.interval(np.full(7, 0.25)) == (0.25, 0.25, 0.25, 0.0, None)
    assert offpolicy.interval(np.zeros(7)) == (0.0, 0.0, 0.0, 0.0, None)
    assert offpolicy.interval(np.array([3.0])) == (3.0, 3.0, 3.0, 0.0, None)


@pytest.mark.parametrize("freedom", [4.0, 5.0, 9.5, 40.0, 4_000.0])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_the_quantiles_are_those_of_student(level: float, freedom: float) -> None:
    assert offpolicy.student(level, freedom) == pytest.approx(stats.t.ppf(0.5 + level / 2, freedom), rel=0.02)


def test_a_tuned_estimate_is_no_surer_than_doubly_robust() -> None:
    one = replay(3, 400)
    rest = (one.w, one.y, one.target, one.model, one.action)
    plain = offpolicy.interval(offpolicy.doubly_robust(*rest))
    for estimator in (offpolicy.switch, offpolicy.shrunk):
        found = offpolicy.tuned(estimator, *rest)
        assert found.low <= plain.low <= plain.high <= found.high
        assert found.low <= found.value <= found.high
        assert found.setting is not None
        assert found.value == pytest.approx(plain.value + found.bias)


def test_a_tuned_estimate_without_any_weight_is_the_model() -> None:
    found = offpolicy.tuned(offpolicy.switch, np.zeros(4), Y, TARGET, MODEL, ACTION)
    assert found.value == pytest.approx(float(offpolicy.direct(TARGET, MODEL).mean()))
