"""Off-policy estimates of any log: finite, inside their intervals, and its mean for the policy that was logged."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.stats import betting, cross_fit, offpolicy

CHANCES = st.floats(0.001, 1.0)
CHOICE = st.tuples(st.integers(0, 2), CHANCES, st.floats(0.0, 1.0), st.tuples(CHANCES, CHANCES, CHANCES))
LOGS = st.lists(CHOICE, min_size=1, max_size=60)


@given(LOGS, st.lists(st.floats(-1e12, 1e12), min_size=60, max_size=60))
def test_every_estimate_is_finite_and_in_its_interval(
    choices: list[tuple[int, float, float, tuple[float, float, float]]], features: list[float]
) -> None:
    action = np.array([one[0] for one in choices], np.intp)
    propensity, y = np.array([one[1] for one in choices]), np.array([one[2] for one in choices])
    target = np.array([one[3] for one in choices])
    target /= target.sum(axis=1, keepdims=True)
    x = np.array(features[: len(choices)])[:, None]
    model = cross_fit.predictions(x, action, y, np.ones(len(y)), 3)
    assert (model >= 0.0).all()
    assert (model <= 1.0).all()
    w = offpolicy.weights(target, action, propensity)
    estimates = [
        offpolicy.interval(offpolicy.ips(w, y)),
        offpolicy.interval(offpolicy.self_normalised(w, y)),
        offpolicy.interval(offpolicy.direct(target, model)),
        offpolicy.interval(offpolicy.doubly_robust(w, y, target, model, action)),
        offpolicy.interval(offpolicy.self_normalised_dr(w, y, target, model, action)),
        offpolicy.tuned(offpolicy.switch, w, y, target, model, action),
        offpolicy.tuned(offpolicy.shrunk, w, y, target, model, action),
    ]
    for one in estimates:
        assert all(math.isfinite(number) for number in one[:4])
        assert one.low <= one.value <= one.high
    assert -1e-9 <= estimates[1].value <= 1.0 + 1e-9, "a weighted mean of rewards is one of rewards"
    low, high = betting.weighted_mean(w, y, 0.95)
    assert 0.0 <= low <= high <= 1.0
    size = offpolicy.overlap(w).size
    assert 1.0 - 1e-9 <= size <= len(w) + 1e-6


@given(LOGS)
def test_a_log_evaluated_by_itself_is_its_mean(
    choices: list[tuple[int, float, float, tuple[float, float, float]]],
) -> None:
    action = np.array([one[0] for one in choices], np.intp)
    target = np.array([one[3] for one in choices])
    target /= target.sum(axis=1, keepdims=True)
    y = np.array([one[2] for one in choices])
    w = offpolicy.weights(target, action, target[np.arange(len(y)), action])
    assert w == pytest.approx(np.ones(len(y)))
    assert offpolicy.self_normalised(w, y).mean() == pytest.approx(y.mean())
    assert offpolicy.ips(w, y).mean() == pytest.approx(y.mean())
