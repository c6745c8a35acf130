"""EpsilonGreedy: the best mean, and a share of chance that falls as the schedule says."""

from __future__ import annotations

import math

import pytest

from windlass.errors import PolicyError
from windlass.policies.epsilon_greedy import EpsilonGreedy, EpsilonGreedyOptions

ACTIONS = ("a", "b", "c", "d")


def test_the_best_mean_is_taken_and_the_rest_by_chance(decided):
    policy = EpsilonGreedy(EpsilonGreedyOptions(epsilon=0.2))
    assert policy.probabilities({}, ACTIONS).tolist() == pytest.approx([0.25] * 4)
    policy.learn(decided("b"), 1.0, None)
    assert policy.probabilities({}, ACTIONS).tolist() == pytest.approx([0.05, 0.85, 0.05, 0.05])
    policy.learn(decided("b"), 0.0, 1.0)
    assert policy.probabilities({}, ACTIONS).tolist() == pytest.approx(
        [0.2 / 4 + 0.8 / 3, 0.05] + [0.2 / 4 + 0.8 / 3] * 2
    )


def test_the_best_depends_on_the_context(decided):
    policy = EpsilonGreedy(EpsilonGreedyOptions(epsilon=0.0))
    for number in range(20):
        x = 1.0 if number % 2 else -1.0
        policy.learn(decided("a", {"x": x}), 0.5 + 0.4 * x, None)
        policy.learn(decided("b", {"x": x}), 0.5 - 0.4 * x, None)
    assert policy.probabilities({"x": 1.0}, ("a", "b")).tolist() == [1.0, 0.0]
    assert policy.probabilities({"x": -1.0}, ("a", "b")).tolist() == [0.0, 1.0]


def test_epsilon_falls_with_every_first_reward_to_its_minimum(decided):
    policy = EpsilonGreedy(EpsilonGreedyOptions(epsilon=0.8, decay=0.5, minimum=0.1))
    for learned in range(30):
        assert policy.epsilon == max(0.1, 0.8 / (1.0 + 0.5 * learned))
        policy.learn(decided("a", id=f"decision_{learned}"), 0.5, None)
        policy.learn(decided("a", id=f"decision_{learned}"), 0.6, 0.5)


def test_with_a_half_life_epsilon_stays_where_the_memory_ends(decided):
    policy = EpsilonGreedy(EpsilonGreedyOptions(epsilon=1.0, decay=1.0, half_life=10))
    for number in range(300):
        policy.learn(decided("a", id=f"decision_{number}"), 0.5, None)
    memory = 1.0 / (1.0 - 0.5 ** (1 / 10))
    assert policy.epsilon == pytest.approx(1.0 / (1.0 + memory), rel=1e-6)


@pytest.mark.parametrize(
    "options",
    [{"epsilon": 1.1}, {"epsilon": math.nan}, {"decay": -1.0}, {"minimum": -0.1}, {"epsilon": 0.1, "minimum": 0.2}],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(PolicyError, match="epsilon_greedy"):
        EpsilonGreedyOptions(**options)
