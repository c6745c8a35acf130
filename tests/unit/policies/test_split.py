"""Split: fixed shares."""

from __future__ import annotations

import math

import numpy as np
import pytest

from windlass.errors import PolicyError
from windlass.policies.split import Split, SplitOptions

RNG = np.random.default_rng(0)


def test_without_shares_all_are_alike():
    assert Split().probabilities({}, ("a", "b", "c", "d")).tolist() == [0.25] * 4
    assert Split().choose({}, ("a", "b"), RNG).fallback == ""


def test_what_is_not_eligible_falls_back_and_says_so():
    choice = Split(SplitOptions({"gone": 1.0, "never": 0.0})).choose({}, ("a", "b"), RNG)
    assert (choice.action, choice.propensity, choice.fallback) == ("a", 1.0, "gone not eligible")


def test_draws_follow_the_shares():
    """20,000 draws; Hoeffding at 0.02: false alarm below 1e-6."""
    policy = Split(SplitOptions({"a": 1.0, "b": 3.0}))
    choices = [policy.choose({}, ("a", "b"), RNG) for _ in range(20_000)]
    assert abs(sum(choice.action == "a" for choice in choices) / 20_000 - 0.25) < 0.02
    assert {choice.action: choice.propensity for choice in choices} == {"a": 0.25, "b": 0.75}
    assert choices[0].why == "a share 0.25, b share 0.75"


def test_shares_are_scaled_to_the_eligible_actions():
    policy = Split(SplitOptions(shares={"a": 2.0, "b": 6.0, "c": 8.0, "d": 0.0}))
    assert policy.probabilities({}, ("b", "a", "other", "d")).tolist() == [0.75, 0.25, 0.0, 0.0]
    assert [arm.probability for arm in policy.explain({}, ("a", "b"))] == [0.25, 0.75]
    assert policy.choose({}, ("d", "a"), RNG).action == "a"


@pytest.mark.parametrize("tiny", [5e-324, 1e-300, 1e300])
def test_shares_of_any_size_work(tiny):
    assert Split(SplitOptions(shares={"a": tiny, "b": tiny})).probabilities({}, ("a", "b")).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    "options",
    [
        {"shares": {"a": -1.0}},
        {"shares": {"a": math.nan}},
        {"shares": {"a": math.inf}},
        {"shares": {"a": 0.0}},
        {"shares": {"a": 1e308, "b": 1e308}},
    ],
)
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(PolicyError, match="split"):
        SplitOptions(**options)


def test_state_belongs_to_its_shares_in_any_order():
    policy = Split(SplitOptions({"a": 1.0, "b": 2.0}))
    Split(SplitOptions({"b": 2.0, "a": 1.0})).restore(policy.state())
    with pytest.raises(PolicyError, match="with these options"):
        Split(SplitOptions({"a": 2.0, "b": 1.0})).restore(policy.state())


def test_a_reward_changes_nothing_but_must_be_a_number(decided):
    policy = Split()
    before = policy.state()
    policy.learn(decided(), 1.0, None)
    assert policy.state() == before
    with pytest.raises(ValueError, match="not a finite number"):
        policy.learn(decided(), math.nan, None)
