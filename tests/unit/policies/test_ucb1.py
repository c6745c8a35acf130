"""Ucb1: the largest bound of the paper, whatever the context says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from windlass.errors import PolicyError
from windlass.policies import registry
from windlass.policies.ucb1 import Ucb1, Ucb1Options

ACTIONS = ("a", "b", "c")
RNG = np.random.default_rng(0)


def taught(policy, decided, rewards):
    for number, (action, reward) in enumerate(rewards):
        policy.learn(decided(action, id=f"decision_{number}"), reward, None)
    return policy


def test_the_bound_is_the_papers(decided):
    policy = Ucb1()
    seen = {action: [] for action in ACTIONS}
    for number in range(200):
        for action in ACTIONS[: 1 + number % 3]:
            reward = float(RNG.random())
            seen[action].append(reward)
            policy.learn(decided(action, id=f"decision_{number}-{action}"), reward, None)
        learned = sum(map(len, seen.values()))
        if all(seen.values()):
            bounds = [
                np.mean(seen[action]) + math.sqrt(2.0 * math.log(learned) / len(seen[action])) for action in ACTIONS
            ]
            assert policy.probabilities({}, ACTIONS).tolist() == [float(bound == max(bounds)) for bound in bounds]


def test_every_action_is_tried_first_and_ties_are_shared(decided):
    policy = Ucb1()
    assert policy.probabilities({}, ACTIONS).tolist() == pytest.approx([1 / 3] * 3)
    taught(policy, decided, [("a", 1.0)])
    assert policy.probabilities({}, ACTIONS).tolist() == [0.0, 0.5, 0.5]
    assert policy.explain({}, ("a", "b"))[1].mean is None
    taught(policy, decided, [("b", 1.0), ("c", 1.0)])
    assert policy.probabilities({}, ACTIONS).tolist() == pytest.approx([1 / 3] * 3)


def test_the_best_action_is_found_and_the_context_is_not_looked_at(decided):
    policy, taken = Ucb1(Ucb1Options(width=0.5)), []
    for number in range(400):
        context = {"x": float(RNG.normal()), "budget_nusd": 1e12, "words": (math.nan, math.inf)}
        action = policy.choose(context, ACTIONS, RNG).action
        taken.append(action)
        policy.learn(decided(action, context, id=f"decision_{number}"), {"a": 0.2, "b": 0.9, "c": 0.4}[action], None)
    assert set(taken[:3]) == set(ACTIONS)
    assert taken[-100:].count("b") >= 90
    assert policy.probabilities({"x": 1e308}, ACTIONS).tolist() == policy.probabilities({}, ACTIONS).tolist()


def test_a_corrected_reward_takes_the_place_of_the_earlier_one(decided):
    policy = taught(Ucb1(), decided, [("a", 0.25), ("b", 0.5)])
    policy.learn(decided("a", id="decision_0"), 0.75, 0.25)
    arm = policy.explain({}, ("a",))[0]
    assert (arm.mean, arm.sd, arm.observations) == (0.75, 0.5, 1)


@pytest.mark.parametrize(("reward", "previous"), [(math.nan, None), (math.inf, None), (1e7, None), (0.5, math.nan)])
def test_what_is_no_reward_is_refused_and_changes_nothing(decided, reward, previous):
    policy = taught(Ucb1(), decided, [("a", 0.25)])
    before = policy.state()
    with pytest.raises(ValueError, match="not a finite number"):
        policy.learn(decided("new"), reward, previous)
    assert policy.state() == before


def test_a_state_of_another_width_or_with_impossible_counts_is_refused(decided):
    policy = taught(Ucb1(), decided, [("a", 0.25), ("b", 1.0)])
    same = Ucb1()
    same.restore(policy.state())
    assert same.state() == policy.state()
    assert same.explain({}, ACTIONS) == policy.explain({}, ACTIONS)
    for raw in (
        Ucb1(Ucb1Options(width=1.0)).state(),
        policy.state().replace(b"\xa1a\x01", b"\xa1a\xff"),
        registry.make("ucb", {}).state(),
    ):
        with pytest.raises(PolicyError, match="rebuild it from the ledger"):
            same.restore(raw)
    assert same.state() == policy.state()


@pytest.mark.parametrize("width", [-0.1, 100.1, math.nan])
def test_a_width_out_of_range_is_refused(width):
    with pytest.raises(PolicyError, match="width"):
        Ucb1Options(width=width)


def test_the_registry_makes_it_by_name():
    assert registry.make("ucb1", {"width": 0.5}).options.width == 0.5
