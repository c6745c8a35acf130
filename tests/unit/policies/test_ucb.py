"""Ucb: the largest upper bound, as in the paper."""

from __future__ import annotations

import numpy as np
import pytest

from windlass.errors import PolicyError
from windlass.policies.ucb import Ucb, UcbOptions

ACTIONS = ("a", "b", "c")
RNG = np.random.default_rng(0)


def paper_bound(rows, rewards, x, alpha):
    """Equation 5 of Li et al. 2010, as it stands there: A = D'D + I, theta = A^-1 D'c."""
    design = np.array(rows)
    a = design.T @ design + np.eye(design.shape[1])
    theta = np.linalg.solve(a, design.T @ np.array(rewards))
    return x @ theta + alpha * np.sqrt(x @ np.linalg.solve(a, x))


def test_the_bound_is_the_papers(decided):
    policy = Ucb(UcbOptions(alpha=1.7, prior_precision=1.0, noise_variance=1.0, prior_mean=0.0))
    rng = np.random.default_rng(4)
    seen = {action: ([], []) for action in ACTIONS}
    for number in range(60):
        action, (u, v), reward = ACTIONS[number % 3], rng.normal(size=2), float(rng.random())
        policy.learn(decided(action, {"u": float(u), "v": float(v)}), reward, None)
        seen[action][0].append([1.0, u, v])
        seen[action][1].append(reward)
    for u, v in rng.normal(size=(20, 2)):
        x = np.array([1.0, u, v])
        bounds = [paper_bound(*seen[action], x, 1.7) for action in ACTIONS]
        arms = policy.explain({"u": float(u), "v": float(v)}, ACTIONS)
        assert [arm.mean + 1.7 * arm.sd for arm in arms] == pytest.approx(bounds, abs=1e-9)
        assert [arm.probability for arm in arms] == [float(bound == max(bounds)) for bound in bounds]


def test_the_choice_is_certain_and_ties_are_shared(decided):
    policy = Ucb()
    assert policy.probabilities({"x": 0.3}, ACTIONS).tolist() == pytest.approx([1 / 3] * 3)
    policy.learn(decided("a"), 0.0, None)
    assert policy.probabilities({}, ACTIONS).tolist() == [0.0, 0.5, 0.5]
    assert policy.choose({}, ("a", "b"), RNG).propensity == 1.0


def test_every_action_is_tried_before_one_is_settled_on(decided):
    policy, taken = Ucb(), []
    for number in range(300):
        choice = policy.choose({}, ACTIONS, RNG)
        taken.append(choice.action)
        policy.learn(
            decided(choice.action, id=f"decision_{number}"), {"a": 0.2, "b": 0.9, "c": 0.4}[choice.action], None
        )
    assert set(taken[:3]) == set(ACTIONS)
    assert taken[-100:].count("b") >= 95


def test_with_a_half_life_a_bad_action_is_tried_again(decided):
    counts = {}
    for half_life in (0.0, 20.0):
        policy, taken = Ucb(UcbOptions(half_life=half_life, alpha=0.5)), []
        for number in range(400):
            choice = policy.choose({}, ("a", "b"), RNG)
            taken.append(choice.action)
            policy.learn(decided(choice.action, id=f"decision_{number}"), {"a": 0.2, "b": 0.6}[choice.action], None)
        counts[half_life] = taken[-200:].count("a")
    assert counts[0.0] == 0
    assert 1 <= counts[20.0] <= 60


@pytest.mark.parametrize("alpha", [-0.1, 1e4, float("nan")])
def test_options_out_of_range_are_refused(alpha):
    with pytest.raises(PolicyError, match="ucb: alpha is"):
        UcbOptions(alpha=alpha)
