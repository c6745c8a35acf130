"""Guards that narrow: what is left, what is said where nothing is, and that the probabilities stay exact."""

from __future__ import annotations

import math

import numpy as np
import pytest

from windlass.errors import PolicyError
from windlass.policies.budget import Budget
from windlass.policies.eligible import (
    Allowed,
    AllowedOptions,
    QualityFloor,
    QualityFloorOptions,
)
from windlass.policies.fixed import Fixed, FixedOptions
from windlass.policies.linear import LinearThompson
from windlass.policies.policy import Randomised
from windlass.policies.split import Split, SplitOptions

ACTIONS = ("local/fast", "local/slow", "far/large")
RNG = np.random.default_rng(0)


def shares(guard, context=None, actions=ACTIONS):
    found = guard.probabilities(context or {}, actions)
    assert [arm.probability for arm in guard.explain(context or {}, actions)] == found.tolist()
    return found.tolist()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [1 / 3, 1 / 3, 1 / 3]),
        ({"allow": ("local/*",)}, [0.5, 0.5, 0.0]),
        ({"allow": ("local/*", "far/large"), "deny": ("*/fast",)}, [0.0, 0.5, 0.5]),
        ({"allow": ("local/fast",), "deny": ("far/*",)}, [1.0, 0.0, 0.0]),
        ({"deny": ("LOCAL/*", "")}, [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_only_what_is_allowed_and_not_denied(options, expected):
    assert shares(Allowed(Split(), AllowedOptions(**options))) == pytest.approx(expected)


def test_a_name_with_the_signs_of_a_pattern_is_a_name():
    guard = Allowed(Split(), AllowedOptions(allow=("model[1]",)))
    assert shares(guard, actions=("model1", "model[1]")) == [0.0, 1.0]


def test_where_nothing_is_allowed_it_says_so():
    guard = Allowed(Split(), AllowedOptions(allow=("other/*",)))
    choice = guard.choose({}, ACTIONS, RNG)
    assert (choice.action, choice.propensity) == ("local/fast", 1.0)
    assert choice.fallback == "allowed: none of 3 actions is allowed"
    assert choice.why.endswith("allowed leaves 1 of 3")


def test_both_fallbacks_are_said():
    guard = Allowed(Fixed(FixedOptions("gone")), AllowedOptions(allow=("other/*",)))
    assert guard.choose({}, ACTIONS, RNG).fallback == "allowed: none of 3 actions is allowed; gone not eligible"


def taught(decided, rewards, rounds=30):
    """A learner that saw each action's reward so many times."""
    policy = LinearThompson()
    for _ in range(rounds):
        for action, reward in rewards.items():
            policy.learn(decided(action), reward, None)
    return policy


def test_only_what_reaches_the_floor(decided):
    policy = taught(decided, {"local/fast": 0.2, "local/slow": 0.7, "far/large": 0.9})
    found = shares(QualityFloor(policy, QualityFloorOptions(floor=0.5)))
    assert found == [0.0, *policy.probabilities({}, ACTIONS[1:]).tolist()]
    assert shares(QualityFloor(policy, QualityFloorOptions(floor=0.8))) == [0.0, 0.0, 1.0]
    untried = QualityFloor(policy, QualityFloorOptions(floor=0.5)).probabilities({}, ("new", "local/slow"))
    assert untried.tolist() == [0.0, 1.0]


def test_what_just_reaches_the_floor_is_good_enough():
    assert shares(QualityFloor(LinearThompson(), QualityFloorOptions(floor=0.5, k=0.0))) == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize(
    ("reference", "taken", "words"),
    [
        ("", "local/fast", "quality floor: no action reaches 0.95"),
        ("far/large", "far/large", "quality floor: no action reaches 0.95"),
        ("gone", "local/fast", "quality floor: no action reaches 0.95, gone not eligible"),
    ],
)
def test_below_the_floor_the_reference_is_taken_and_it_says_so(decided, reference, taken, words):
    policy = taught(decided, {"local/fast": 0.2, "local/slow": 0.7})
    choice = QualityFloor(policy, QualityFloorOptions(floor=0.95, reference=reference)).choose({}, ACTIONS, RNG)
    assert (choice.action, choice.propensity, choice.fallback) == (taken, 1.0, words)


def test_a_policy_that_expects_nothing_leaves_the_reference():
    assert shares(QualityFloor(Split(), QualityFloorOptions(floor=0.0, reference="far/large"))) == [0.0, 0.0, 1.0]


def test_a_randomised_share_around_the_floor_audits_it(decided):
    policy = taught(decided, {"local/fast": 0.2, "local/slow": 0.7, "far/large": 0.2})
    assert shares(Randomised(QualityFloor(policy), 0.3)) == pytest.approx([0.1, 0.8, 0.1])


@pytest.mark.parametrize(
    "options", [{"floor": -0.1}, {"floor": 1.1}, {"floor": math.nan}, {"k": -1.0}, {"k": math.inf}]
)
def test_floors_out_of_range_are_refused(options):
    with pytest.raises(PolicyError, match="quality_floor"):
        QualityFloorOptions(**options)


@pytest.mark.parametrize("guard", [Allowed, QualityFloor])
def test_name_version_and_state_are_those_inside(guard):
    inner = Split(SplitOptions({"a": 1.0}))
    made = guard(inner)
    assert (made.name, made.version, made.state()) == ("split", 1, inner.state())
    made.restore(inner.state())


@pytest.mark.parametrize("guard", [Allowed, Budget, QualityFloor])
def test_nothing_to_choose_from_is_refused(guard):
    made = guard(Split())
    for ask in (made.probabilities, made.explain, lambda c, a: made.choose(c, a, RNG)):
        with pytest.raises(PolicyError, match="no eligible action"):
            ask({}, ())
