"""LinearThompson: learns, replaces, restores, explains; with a half-life it forgets."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from windlass.errors import PolicyError
from windlass.policies.linear import LinearThompson, LinearThompsonOptions

ACTIONS = ("a", "b")


def trained(decided, options=None, rounds=40):
    policy = LinearThompson(options)
    rng = np.random.default_rng(1)
    for number in range(rounds):
        context = {"x": float(rng.normal()), "t": (float(rng.normal()), 0.5)}
        policy.learn(decided(ACTIONS[number % 2], context), float(rng.random()), None)
    return policy


def test_finds_the_better_arm_of_each_context(decided):
    """Arm a pays where x > 0, b where x < 0; the better one is taken in at least 80 % of the last 200 of 500 rounds."""
    policy = LinearThompson()
    rng = np.random.default_rng(11)
    right = []
    for _ in range(500):
        context = {"x": float(rng.choice([-1.0, 1.0])), "noise": float(rng.normal())}
        choice = policy.choose(context, ACTIONS, rng)
        good = (choice.action == "a") == (context["x"] > 0)
        reward = float(rng.random() < (0.8 if good else 0.3))
        policy.learn(decided(choice.action, context, propensity=choice.propensity), reward, None)
        right.append(good)
    assert np.mean(right[-200:]) >= 0.8
    assert np.mean(right[:20]) < np.mean(right[-200:])


def test_new_arms_are_alike_and_believe_the_prior():
    policy = LinearThompson(LinearThompsonOptions(prior_mean=0.4, prior_precision=4.0))
    arms = policy.explain({"x": math.sqrt(3.0)}, ("a", "b", "c"))
    assert [arm.probability for arm in arms] == pytest.approx([1 / 3] * 3)
    assert all(arm.mean == 0.4 and arm.sd == pytest.approx(1.0) and arm.observations == 0 for arm in arms)


def test_an_action_never_offered_gets_an_arm_when_it_is_learned(decided):
    policy = LinearThompson()
    policy.learn(decided("new"), 1.0, None)
    (arm,) = policy.explain({}, ("new",))
    assert arm.observations == 1
    assert arm.mean > 0.9
    assert arm.probability == 1.0


def test_choice_carries_the_probability_and_the_numbers(decided):
    policy = trained(decided)
    context = {"x": 0.3}
    choice = policy.choose(context, ACTIONS, np.random.default_rng(0))
    arms = {arm.action: arm for arm in policy.explain(context, ACTIONS)}
    assert choice.propensity == policy.probabilities(context, ACTIONS)[ACTIONS.index(choice.action)]
    assert choice.why == ", ".join(f"{name} {arm.mean:.2f} +- {arm.sd:.2f}" for name, arm in arms.items())


def test_less_alpha_explores_less(decided):
    bold, shy = (trained(decided, LinearThompsonOptions(alpha=alpha)) for alpha in (1.0, 0.01))
    assert shy.probabilities({"x": 1.0}, ACTIONS).max() > bold.probabilities({"x": 1.0}, ACTIONS).max()


def test_a_replaced_reward_is_no_second_observation(decided):
    once, replaced = LinearThompson(), LinearThompson()
    decision = decided("a", {"x": 0.7})
    once.learn(decision, 0.2, None)
    replaced.learn(decision, 0.9, None)
    replaced.learn(decision, 0.2, 0.9)
    one, other = once.explain({"x": 0.7}, ACTIONS)[0], replaced.explain({"x": 0.7}, ACTIONS)[0]
    assert other.mean == pytest.approx(one.mean, abs=1e-12)
    assert (other.sd, other.observations) == (one.sd, 1)


@pytest.mark.parametrize(
    ("reward", "previous"), [(math.nan, None), (math.inf, None), (1e300, None), (0.5, math.nan), (0.5, 1e300)]
)
def test_a_reward_that_is_no_number_leaves_no_trace(decided, reward, previous):
    policy = trained(decided)
    before = policy.state()
    with pytest.raises(ValueError, match="finite"):
        policy.learn(decided("unknown", {"unheard of": 1.0}), reward, previous)
    assert policy.state() == before


def test_features_may_appear_later_and_in_any_order(decided):
    policy = LinearThompson()
    policy.learn(decided("a", {"m": 1.0}), 1.0, None)
    before = policy.probabilities({"m": 1.0}, ACTIONS)
    assert policy.explain({"m": 1.0, "new": 2.0}, ACTIONS)[0].sd > policy.explain({"m": 1.0}, ACTIONS)[0].sd
    np.testing.assert_array_equal(policy.probabilities({"m": 1.0}, ACTIONS), before)
    policy.learn(decided("b", {"c": 1.0, "m": 0.5}), 0.0, None)
    policy.learn(decided("a", {"c": 1.0}), 0.0, None)
    assert np.isfinite(policy.probabilities({"c": 1.0, "m": 1.0}, ACTIONS)).all()


def test_state_is_exact_and_independent_of_the_order_of_arms(decided):
    policy = trained(decided)
    again = LinearThompson()
    again.restore(policy.state())
    assert again.state() == policy.state()
    for each in (policy, again):
        each.learn(decided("z", {"later": 0.1}), 0.3, None)
    assert again.state() == policy.state()
    np.testing.assert_array_equal(again.probabilities({"x": 1.0}, ACTIONS), policy.probabilities({"x": 1.0}, ACTIONS))


def tampered(policy, **changes):
    name, version, options, features, arms = msgspec.msgpack.decode(policy.state())
    fields = {"name": name, "version": version, "options": options, "features": features, "arms": arms} | changes
    return msgspec.msgpack.encode(list(fields.values()))


def test_foreign_states_are_refused(decided):
    policy = trained(decided)
    before = policy.state()
    arm = ["a", 1, np.zeros(9).tobytes(), np.zeros(3).tobytes()]
    hostile = [
        b"",
        b"\x00",
        tampered(policy, name="other"),
        tampered(policy, version=2),
        tampered(policy, options=[1.0, 0.1, 0.5, 512.0, 0.0, 9.0]),
        tampered(policy, features=[]),
        tampered(policy, arms=[[arm]]),
        tampered(policy, arms=[[["a", 1, b"abc", b""]]]),
        tampered(policy, arms=[[["a", 1, np.eye(4).tobytes(), np.zeros(3).tobytes()]]]),
        tampered(policy, arms=[[["a", 1, np.eye(3).tobytes(), np.zeros(3).tobytes(), 7]]]),
        tampered(policy, arms=[[], b"12345678"]),
    ]
    for state in hostile:
        with pytest.raises(PolicyError, match="rebuild it from the ledger"):
            policy.restore(state)
    assert policy.state() == before


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 0.0},
        {"alpha": math.nan},
        {"prior_precision": -1.0},
        {"noise_variance": 0.0},
        {"noise_variance": math.inf},
        {"prior_mean": 7.0},
        {"max_features": -1},
        {"max_features": 10_000_000},
        {"half_life": -1.0},
        {"half_life": 0.5},
        {"half_life": math.nan},
        {"half_life": 1e9},
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(PolicyError, match=next(iter(options))):
        LinearThompsonOptions(**options)


def test_the_state_is_bounded_whatever_names_come(decided):
    policy = LinearThompson(LinearThompsonOptions(max_features=8))
    for number in range(500):
        policy.learn(decided("a", {f"feature {number}": 1.0}), 0.5, None)
    assert len(policy.state()) < 2_000


def switched(options, decided, seed=5):
    """Share of rounds in which the better arm is taken among the last 200 of 300 after the arms changed places, which
    is after 500 rounds."""
    policy, rng, right = LinearThompson(options), np.random.default_rng(seed), []
    for number in range(800):
        better = "a" if number < 500 else "b"
        choice = policy.choose({}, ACTIONS, rng)
        reward = float(rng.random() < (0.8 if choice.action == better else 0.3))
        policy.learn(decided(choice.action, id=f"decision_{number}"), reward, None)
        right.append(choice.action == better)
    return np.mean(right[-200:])


def test_a_half_life_follows_a_change_that_otherwise_is_found_late(decided):
    """Over 5 seeds; a learner without a half-life has 500 rounds against it."""
    fading = [switched(LinearThompsonOptions(half_life=50), decided, seed) for seed in range(5)]
    keeping = [switched(LinearThompsonOptions(), decided, seed) for seed in range(5)]
    assert np.mean(fading) >= 0.75
    assert np.mean(fading) >= np.mean(keeping) + 0.2


def test_what_is_not_tried_any_more_becomes_uncertain_again(decided):
    policy = LinearThompson(LinearThompsonOptions(half_life=10))
    policy.learn(decided("a", id="decision_0"), 0.9, None)
    early = policy.explain({}, ACTIONS)[0]
    for number in range(1, 100):
        policy.learn(decided("b", id=f"decision_{number}"), 0.5, None)
    late, untried = policy.explain({}, ("a", "c"))
    assert early.sd < 0.4 < late.sd == pytest.approx(untried.sd, abs=0.01)
    assert late.mean == pytest.approx(0.5, abs=0.01)
    assert (late.observations, untried.observations) == (1, 0)


@pytest.mark.parametrize("later", [0, 1, 30, 190])
def test_a_replaced_reward_keeps_its_age(decided, later):
    once, replaced = (LinearThompson(LinearThompsonOptions(half_life=10)) for _ in range(2))
    for policy, rewards in ((once, (0.9,)), (replaced, (0.1, 0.9))):
        first = decided("a", {"x": 0.7}, id="decision_first")
        policy.learn(first, rewards[0], None)
        for number in range(later):
            policy.learn(decided(ACTIONS[number % 2], {"x": 0.1}, id=f"decision_{number}"), 0.5, None)
        if len(rewards) == 2:
            policy.learn(first, rewards[1], rewards[0])
    for one, other in zip(once.explain({"x": 1.0}, ACTIONS), replaced.explain({"x": 1.0}, ACTIONS), strict=True):
        assert (one.sd, one.observations) == (other.sd, other.observations)
        assert one.mean == pytest.approx(other.mean, abs=1e-12)


def test_a_correction_that_comes_after_twenty_half_lives_changes_nothing(decided):
    policy = LinearThompson(LinearThompsonOptions(half_life=10))
    for number in range(201):
        policy.learn(decided("a", id=f"decision_{number}"), 0.5, None)
    before = policy.state()
    policy.learn(decided("a", id="decision_0"), 1.0, 0.5)
    policy.learn(decided("a", id="decision_never"), 1.0, 0.5)
    assert policy.state() == before
    policy.learn(decided("a", id="decision_1"), 1.0, 0.5)
    assert policy.state() != before


def test_the_state_of_a_fading_policy_is_exact_and_bounded(decided):
    policy, again = (LinearThompson(LinearThompsonOptions(half_life=10)) for _ in range(2))
    sizes = []
    for number in range(400):
        policy.learn(decided(ACTIONS[number % 2], {"x": number % 7 / 7}, id=f"decision_{number}"), 0.3, None)
        sizes.append(len(policy.state()))
    again.restore(policy.state())
    for each in (policy, again):
        each.learn(decided("a", {"x": 1.0}, id="decision_399"), 0.9, 0.3)
        each.learn(decided("b", {"late": 1.0}, id="decision_400"), 0.9, None)
    assert again.state() == policy.state()
    np.testing.assert_array_equal(again.probabilities({"x": 1.0}, ACTIONS), policy.probabilities({"x": 1.0}, ACTIONS))
    assert max(sizes[200:]) - min(sizes[200:]) < 50
    with pytest.raises(PolicyError, match="rebuild it from the ledger"):
        LinearThompson(LinearThompsonOptions(half_life=20)).restore(policy.state())
