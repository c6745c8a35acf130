"""Fixed: one action, or shares."""

from __future__ import annotations

import math

import numpy as np
import pytest

from windlass.errors import PolicyError
from windlass.policies.fixed import Fixed, FixedOptions

RNG = np.random.default_rng(0)


def test_the_action_is_certain():
    choice = Fixed(FixedOptions("b")).choose({}, ("a", "b"), RNG)
    assert (choice.action, choice.propensity, choice.fallback) == ("b", 1.0, "")
    assert choice.why == "a share 0.00, b share 1.00"


def test_without_options_the_first_eligible_is_taken():
    choice = Fixed().choose({}, ("z", "a"), RNG)
    assert (choice.action, choice.propensity, choice.fallback) == ("z", 1.0, "")


@pytest.mark.parametrize("options", [FixedOptions("gone"), FixedOptions(shares={"gone": 1.0})])
def test_what_is_not_eligible_falls_back_and_says_so(options):
    choice = Fixed(options).choose({}, ("a", "b"), RNG)
    assert (choice.action, choice.propensity, choice.fallback) == ("a", 1.0, "gone not eligible")


def test_shares_are_scaled_to_the_eligible_actions():
    policy = Fixed(FixedOptions(shares={"a": 2.0, "b": 6.0, "c": 8.0, "d": 0.0}))
    assert policy.probabilities({}, ("b", "a", "other", "d")).tolist() == [0.75, 0.25, 0.0, 0.0]
    assert [arm.probability for arm in policy.explain({}, ("a", "b"))] == [0.25, 0.75]
    assert policy.choose({}, ("d", "a"), RNG).action == "a"


@pytest.mark.parametrize("tiny", [5e-324, 1e-300, 1e300])
def test_shares_of_any_size_work(tiny):
    assert Fixed(FixedOptions(shares={"a": tiny, "b": tiny})).probabilities({}, ("a", "b")).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    "options",
    [
        {"action": "a", "shares": {"b": 1.0}},
        {"shares": {"a": -1.0}},
        {"shares": {"a": math.nan}},
        {"shares": {"a": math.inf}},
        {"shares": {"a": 0.0}},
        {"shares": {"a": 1e308, "b": 1e308}},
    ],
)
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(PolicyError, match="fixed"):
        FixedOptions(**options)


def test_state_belongs_to_its_options():
    policy = Fixed(FixedOptions(shares={"a": 1.0, "b": 2.0}))
    same = Fixed(FixedOptions(shares={"b": 2.0, "a": 1.0}))
    same.restore(policy.state())
    with pytest.raises(PolicyError, match="with these options"):
        Fixed(FixedOptions("a")).restore(policy.state())


def test_a_reward_changes_nothing_but_must_be_a_number(decided):
    policy = Fixed(FixedOptions("a"))
    before = policy.state()
    policy.learn(decided(), 1.0, None)
    assert policy.state() == before
    with pytest.raises(ValueError, match="not a finite number"):
        policy.learn(decided(), math.nan, None)
