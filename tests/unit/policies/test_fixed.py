"""Fixed: one action."""

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


def test_what_is_not_eligible_falls_back_and_says_so():
    choice = Fixed(FixedOptions("gone")).choose({}, ("a", "b"), RNG)
    assert (choice.action, choice.propensity, choice.fallback) == ("a", 1.0, "gone not eligible")


def test_state_belongs_to_its_options():
    policy = Fixed(FixedOptions("b"))
    Fixed(FixedOptions("b")).restore(policy.state())
    with pytest.raises(PolicyError, match="with these options"):
        Fixed(FixedOptions("a")).restore(policy.state())


def test_a_reward_changes_nothing_but_must_be_a_number(decided):
    policy = Fixed(FixedOptions("a"))
    before = policy.state()
    policy.learn(decided(), 1.0, None)
    assert policy.state() == before
    with pytest.raises(ValueError, match="not a finite number"):
        policy.learn(decided(), math.nan, None)
