"""CoolDown: rests after a row of bad rewards, wakes by itself, and is a fold of the last rewards."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from windlass.errors import PolicyError
from windlass.policies.cool_down import CoolDown, CoolDownOptions
from windlass.policies.linear import LinearThompson
from windlass.policies.split import Split

ACTIONS = ("a", "b")
RNG = np.random.default_rng(0)
OPTIONS = CoolDownOptions(below=0.3, bad=3, rest=5)


@pytest.fixture
def learn(decided):
    """Hand a policy rewards of an action, each of a decision of its own."""
    numbers = itertools.count()

    def hand(policy, action, *rewards):
        for reward in rewards:
            policy.learn(decided(action, id=f"decision_{next(numbers)}"), reward, None)

    return hand


def shares(guard, actions=ACTIONS):
    found = guard.probabilities({}, actions)
    assert [arm.probability for arm in guard.explain({}, actions)] == found.tolist()
    return found.tolist()


def test_so_many_bad_ones_in_a_row_and_it_rests(learn):
    guard = CoolDown(Split(), OPTIONS)
    learn(guard, "a", 0.1, 0.1, 0.3, 0.1, 0.1)
    assert shares(guard) == [0.5, 0.5]
    learn(guard, "a", 0.29)
    assert shares(guard) == [0.0, 1.0]
    choice = guard.choose({}, ACTIONS, RNG)
    assert (choice.action, choice.propensity, choice.fallback) == ("b", 1.0, "")
    assert choice.why.endswith("cool-down leaves 1 of 2")


def test_it_wakes_after_its_rest_and_the_next_reward_decides(learn):
    guard = CoolDown(Split(), OPTIONS)
    learn(guard, "a", 0.0, 0.0, 0.0)
    for _ in range(4):
        learn(guard, "b", 0.9)
        assert shares(guard) == [0.0, 1.0]
    learn(guard, "b", 0.9)
    assert shares(guard) == [0.5, 0.5]
    learn(guard, "a", 0.0)
    assert shares(guard) == [0.0, 1.0]
    learn(guard, "b", *[0.9] * 5)
    learn(guard, "a", 0.9)
    learn(guard, "a", 0.0, 0.0)
    assert shares(guard) == [0.5, 0.5]


def test_where_all_rest_all_are_eligible_and_it_says_so(learn):
    guard = CoolDown(Split(), OPTIONS)
    learn(guard, "a", 0.0, 0.0, 0.0)
    learn(guard, "b", 0.0, 0.0, 0.0)
    assert shares(guard) == [0.5, 0.5]
    assert guard.choose({}, ACTIONS, RNG).fallback == "cool-down: every action rests"


def test_a_replaced_reward_counts_as_if_it_had_been_the_first(learn, decided):
    once, replaced = CoolDown(Split(), OPTIONS), CoolDown(Split(), OPTIONS)
    first = decided("a", id="decision_first")
    for policy, rewards in ((once, (0.9,)), (replaced, (0.0, 0.9))):
        policy.learn(first, rewards[0], None)
        learn(policy, "b", 0.5)
    for _ in range(2):
        decision = decided("a", id=f"decision_later{_}")
        for policy in (once, replaced):
            policy.learn(decision, 0.0, None)
    assert (shares(once), shares(replaced)) == ([0.5, 0.5], [0.0, 1.0])
    replaced.learn(first, 0.9, 0.0)
    assert shares(replaced) == shares(once) == [0.5, 0.5]
    replaced.learn(first, 0.0, 0.9)
    assert shares(replaced) == [0.0, 1.0]


def test_a_correction_of_what_is_no_longer_kept_changes_nothing(learn, decided):
    guard = CoolDown(Split(), OPTIONS)
    old = decided("a", id="decision_old")
    guard.learn(old, 0.9, None)
    learn(guard, "a", 0.0, 0.0, 0.0)
    before = guard.state()
    guard.learn(old, 0.0, 0.9)
    guard.learn(decided("never", id="decision_never"), 0.0, 0.9)
    assert guard.state() == before


def test_a_refused_reward_leaves_no_trace(decided):
    guard = CoolDown(LinearThompson(), OPTIONS)
    before = guard.state()
    for reward in (math.nan, math.inf, 1e300):
        with pytest.raises(ValueError, match="finite"):
            guard.learn(decided("a"), reward, None)
    assert guard.state() == before


def test_the_state_holds_both_and_belongs_to_its_options(learn):
    guard, again = CoolDown(LinearThompson(), OPTIONS), CoolDown(LinearThompson(), OPTIONS)
    learn(guard, "b", 0.1, 0.0)
    learn(guard, "a", 0.0, 0.1, 0.2)
    again.restore(guard.state())
    assert again.state() == guard.state()
    assert shares(again) == shares(guard) == [0.0, 1.0]
    assert (guard.name, guard.version) == ("linear_thompson", 1)
    before = again.state()
    foreign = [
        b"",
        LinearThompson().state(),
        CoolDown(LinearThompson(), CoolDownOptions(rest=7)).state(),
        CoolDown(Split(), OPTIONS).state(),
        guard.state()[:-3],
    ]
    for state in foreign:
        with pytest.raises(PolicyError, match="rebuild it from the ledger"):
            again.restore(state)
    assert again.state() == before


@pytest.mark.parametrize(
    "options", [{"below": -0.1}, {"below": math.nan}, {"bad": 0}, {"bad": 101}, {"rest": 0}, {"rest": 10**9}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(PolicyError, match="cool_down"):
        CoolDownOptions(**options)
