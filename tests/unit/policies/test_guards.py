"""Randomised: a share of chance, and honest about it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from windlass.errors import PolicyError
from windlass.policies.fixed import Fixed, FixedOptions
from windlass.policies.linear import LinearThompson
from windlass.policies.policy import Randomised, guards_of, innermost

ACTIONS = ("a", "b", "c", "d")


def test_every_action_keeps_a_share():
    guard = Randomised(Fixed(FixedOptions("b")), 0.2)
    assert guard.probabilities({}, ACTIONS).tolist() == pytest.approx([0.05, 0.85, 0.05, 0.05])
    assert [arm.probability for arm in guard.explain({}, ACTIONS)] == pytest.approx([0.05, 0.85, 0.05, 0.05])


def test_choices_follow_the_mixture():
    """20,000 draws; Hoeffding at 0.02: false alarm below 1e-6."""
    guard = Randomised(Fixed(FixedOptions("b")), 0.2)
    rng = np.random.default_rng(3)
    choices = [guard.choose({}, ACTIONS, rng) for _ in range(20_000)]
    assert abs(sum(choice.action == "b" for choice in choices) / 20_000 - 0.85) < 0.02
    assert {choice.action: choice.propensity for choice in choices} == pytest.approx(
        {"a": 0.05, "b": 0.85, "c": 0.05, "d": 0.05}
    )
    assert {choice.why for choice in choices if choice.action == "a"} == {"randomised share of 20%"}


@pytest.mark.parametrize(("share", "propensities"), [(0.0, {1.0}), (1.0, {0.25})])
def test_the_ends_of_the_range(share, propensities):
    guard = Randomised(Fixed(), share)
    rng = np.random.default_rng(0)
    assert {guard.choose({}, ACTIONS, rng).propensity for _ in range(50)} == propensities


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_a_share_must_be_one(share):
    with pytest.raises(PolicyError, match="from 0 to 1"):
        Randomised(Fixed(), share)


def test_nothing_to_choose_from_is_refused():
    with pytest.raises(PolicyError):
        Randomised(Fixed()).choose({}, (), np.random.default_rng(0))


def test_learning_state_and_name_are_the_inner_ones(decided):
    inner = LinearThompson()
    guard = Randomised(inner)
    guard.learn(decided("a"), 1.0, None)
    assert inner.explain({}, ("a",))[0].observations == 1
    assert (guard.name, guard.version, guard.state()) == ("linear_thompson", 1, inner.state())
    other = Randomised(LinearThompson(), 0.5)
    other.restore(guard.state())
    assert other.state() == guard.state()


def test_the_guards_are_walked_from_the_outside():
    inner = Fixed()
    near = Randomised(inner, 0.1)
    far = Randomised(near, 0.2)
    assert list(guards_of(far)) == [far, near]
    assert list(guards_of(inner)) == []
    assert innermost(far) is inner
