"""Cross-fitting: no prediction from the reward that it is held against, sense in all corners, always a number."""

from __future__ import annotations

import numpy as np
import pytest

from windlass.stats import cross_fit
from windlass.stats.cross_fit import Floats


def linear(n: int, seed: int = 0) -> tuple[Floats, np.ndarray, Floats, Floats]:
    """Two features, three actions with slopes of their own; (x, action, y, truth (n, 3))."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    truth = np.column_stack([0.1 + x @ [0.2, 0.0], 0.5 + x @ [0.2, -0.3], 0.9 + x @ [0.0, 0.1]])
    action = rng.integers(0, 3, n)
    return x, action, truth[np.arange(n), action], truth


def test_what_is_linear_is_found() -> None:
    x, action, y, truth = linear(3_000)
    found = cross_fit.predictions(x, action, y, np.ones(len(y)), 3)
    # Predictions stay within what was seen, so the edges are cut.
    inner = (truth > y.min()) & (truth < y.max())
    assert np.abs(found - truth)[inner].mean() < 0.01


def test_no_choice_has_a_say_in_its_own_prediction() -> None:
    x, action, y, _ = linear(200)
    before = cross_fit.predictions(x, action, y, np.ones(200), 3)
    y[17] += 0.05
    after = cross_fit.predictions(x, action, y, np.ones(200), 3)
    assert after[17].tolist() == before[17].tolist()
    assert (after != before).any()


def test_copies_of_a_context_share_a_fold() -> None:
    """Noise that is the same in every copy must not be learned: predictions are the mean, not the noise."""
    rng = np.random.default_rng(1)
    x = np.repeat(np.eye(60), 20, axis=0)
    y = np.repeat(rng.normal(size=60), 20)
    found = cross_fit.predictions(x, np.zeros(1_200, np.intp), y, np.ones(1_200), 1)
    assert np.abs(np.corrcoef(found[:, 0], y)[0, 1]) < 0.5
    assert np.abs(found).max() < 1.0


def test_one_context_for_all_still_makes_folds() -> None:
    y = np.arange(50.0)
    found = cross_fit.predictions(np.ones((50, 1)), np.zeros(50, np.intp), y, np.ones(50), 1)
    assert found[:, 0] == pytest.approx(np.full(50, y.mean()), abs=2.0)


def test_an_action_that_is_seldom_seen_falls_back_on_what_holds_for_all() -> None:
    x, action, y, _ = linear(500)
    action[action == 2] = 0
    action[3] = 2
    found = cross_fit.predictions(x, action, y, np.ones(500), 3)
    assert np.isfinite(found).all()
    assert abs(found[:, 2].mean() - y.mean()) < 0.5


def test_a_first_guess_is_used() -> None:
    rng = np.random.default_rng(2)
    expected = rng.random((1_000, 2)) * 1e6
    action = rng.integers(0, 2, 1_000)
    y = 3.0 * expected[np.arange(1_000), action]
    plain = cross_fit.predictions(np.zeros((1_000, 1)), action, y, np.ones(1_000), 2)
    expected[::7, 0] = np.nan
    guided = cross_fit.predictions(np.zeros((1_000, 1)), action, y, np.ones(1_000), 2, expected)
    error = [np.abs(found[:, 1] - 3.0 * expected[:, 1]).mean() for found in (plain, guided)]
    assert error[1] < 0.2 * error[0]


@pytest.mark.parametrize("huge", [1e300, -1e9, 1e18])
def test_broken_features_bend_nothing(huge: float) -> None:
    x, action, y, truth = linear(1_000)
    x[5, 0] = huge
    with np.errstate(over="ignore"):
        found = cross_fit.predictions(x, action, y, np.ones(1_000), 3)
    assert np.isfinite(found).all()
    assert (found >= y.min()).all()
    assert (found <= y.max()).all()
    assert np.abs(found - truth).mean() < 0.4


def test_without_any_known_reward_there_is_nothing_to_learn() -> None:
    assert not cross_fit.predictions(np.ones((9, 2)), np.zeros(9, np.intp), np.ones(9), np.zeros(9), 2).any()


def test_weights_are_as_good_as_copies() -> None:
    x, action, y, _ = linear(400, 4)
    y = y + np.random.default_rng(3).normal(size=400) * 0.1
    twice = cross_fit.predictions(x, action, y, np.full(400, 2.0), 3)
    assert twice == pytest.approx(cross_fit.predictions(x, action, y, np.ones(400), 3))
