"""What holds for every posterior, distribution, reward and fold, whatever goes in."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.ledger.ledger import Entry
from windlass.policies import registry
from windlass.policies.linear import LinearThompson
from windlass.policies.loop import Loop, PointOptions
from windlass.policies.replay import Learner
from windlass.policies.reward import RewardOptions, Signals, scalar
from windlass.records import Call, Decision, Feedback, Outcome, decode, encode
from windlass.stats.features import finite
from windlass.stats.linear import LinearPosterior, predict
from windlass.stats.thompson import probabilities

ACTIONS = ("a", "b", "c")
NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
NAMES = st.sampled_from(["x", "y", "ünï", "", "t"])
CONTEXTS = st.dictionaries(NAMES, st.one_of(NUMBERS, st.lists(NUMBERS, max_size=3).map(tuple)), max_size=4)
REWARDS = st.floats(0.0, 1.0)


def decision(number=0, action="a", context=None, **fields):
    values = {
        "id": f"decision_{number}",
        "at": 0.0,
        "call": f"call_{number}",
        "point": "model",
        "policy": "linear_thompson@1",
        "actions": ACTIONS,
        "action": action,
        "propensity": 0.5,
        "live": True,
        "context": context or {},
    }
    return Decision(**(values | fields))


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(1e-6, 10)), min_size=1, max_size=12), st.randoms())
def test_the_thompson_distribution_is_one_and_does_not_depend_on_order(arms, rng):
    shuffled = list(range(len(arms)))
    rng.shuffle(shuffled)
    means, sds = np.array([m for m, _ in arms]), np.array([s for _, s in arms])
    found = probabilities(means, sds)
    assert found.sum() == pytest.approx(1.0, abs=1e-12)
    assert (found >= 0.0).all()
    np.testing.assert_allclose(probabilities(means[shuffled], sds[shuffled]), found[shuffled], atol=1e-6)


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0.01, 2)), min_size=2, max_size=8), st.floats(0.0, 2.0))
def test_a_better_mean_never_loses_probability(arms, gain):
    means, sds = np.array([m for m, _ in arms]), np.array([s for _, s in arms])
    better = means.copy()
    better[0] += gain
    assert probabilities(better, sds)[0] >= probabilities(means, sds)[0] - 1e-6


@given(st.lists(NUMBERS, min_size=2, max_size=12), st.lists(NUMBERS, min_size=2, max_size=12))
def test_every_finite_problem_has_an_answer(means, sds):
    size = min(len(means), len(sds))
    m, s = np.array(means[:size]), np.array(sds[:size])
    if np.isfinite(m).all() and np.isfinite(s).all() and (s >= 0.0).all():
        found = probabilities(m, s)
        assert np.isfinite(found).all()
        assert found.sum() == pytest.approx(1.0, abs=1e-12)
    else:
        with pytest.raises(ValueError, match="must be"):
            probabilities(m, s)


@given(
    st.lists(st.tuples(st.lists(NUMBERS, min_size=3, max_size=3), REWARDS), max_size=30),
    st.floats(1e-3, 1e3),
    st.floats(1e-4, 10.0),
)
def test_posteriors_stay_finite_and_positive_definite(observations, prior, noise):
    posterior = LinearPosterior(prior, noise)
    for x, y in observations:
        posterior.observe(np.array(x), y)
    (mean,), (sd,) = predict([posterior], np.array([1.0, -2.0, 0.5]))
    assert math.isfinite(mean)
    assert 0.0 < sd < math.inf
    assert (np.linalg.eigvalsh(posterior.precision) > -1e-9 * np.trace(posterior.precision)).all()


@given(CONTEXTS, st.lists(REWARDS, min_size=1, max_size=6))
def test_only_the_last_of_replaced_rewards_counts(context, rewards):
    once, replaced = LinearThompson(), LinearThompson()
    once.learn(decision(context=context), rewards[-1], None)
    for reward, previous in zip(rewards, [None, *rewards], strict=False):
        replaced.learn(decision(context=context), reward, previous)
    one, other = once.explain(context, ACTIONS)[0], replaced.explain(context, ACTIONS)[0]
    assert (one.sd, one.observations) == (other.sd, other.observations)
    assert one.mean == pytest.approx(other.mean, abs=1e-6)


GUARD_OPTIONS = {
    "allowed": {"allow": ["a", "c*"], "deny": ["b"]},
    "budget": {"remaining": "x", "costs_nusd": {"a": 0.5, "b": 0.1}},
    "cool_down": {"below": 0.5, "bad": 2, "rest": 3},
    "quality_floor": {"floor": 0.4, "k": 0.5, "reference": "b"},
    "floor": {"reference": "b", "contents": {"x": 90.0}, "audit_share": 0.3, "window": 50},
    "service": {"max_latency_ms": 100.0, "max_error_percent": 20.0, "least_calls": 1},
    "personal": {"users": 2},
}
SUBJECTS = {
    **{name: lambda name=name: registry.make(name, {}) for name in registry.names()},
    **{
        f"fading {name}": lambda name=name: registry.make(name, {"half_life": 10})
        for name in ("linear_thompson", "ucb")
    },
    "decaying epsilon_greedy": lambda: registry.make("epsilon_greedy", {"epsilon": 0.9, "decay": 1.0, "half_life": 10}),
    **{
        f"{name} guard": lambda name=name: registry.guard(name, GUARD_OPTIONS[name], registry.make("ucb", {}))
        for name in registry.guards()
    },
    "all guards": lambda: registry.guarded(
        registry.make("linear_thompson", {"half_life": 10}), list(GUARD_OPTIONS.items()), 0.1
    ),
    "all guards the other way round": lambda: registry.guarded(
        registry.make("epsilon_greedy", {}), list(GUARD_OPTIONS.items())[::-1], 0.5
    ),
}
HOSTILE_REWARDS = st.one_of(REWARDS, st.sampled_from([0.0, 1.0, -1e6, 1e6, 1e-308, 1e308, math.nan, math.inf]), NUMBERS)
STREAMS = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(ACTIONS), CONTEXTS, HOSTILE_REWARDS), max_size=25)


def test_every_guard_is_a_subject():
    assert set(GUARD_OPTIONS) == set(registry.guards())


def hand(policy, stream, learned):
    """The stream as the loop hands it on: the first reward of a decision, then replacements, the refused ones left."""
    for number, action, context, reward in stream:
        kept, previous = learned.get(number, (decision(number, action, context), None))
        before = policy.state()
        try:
            policy.learn(kept, reward, previous)
        except ValueError:
            assert policy.state() == before
        else:
            assert math.isfinite(reward)
            learned[number] = (kept, reward)


def hold(policy, context):
    """A distribution over the actions that `explain` agrees with, and a choice that has it."""
    found = policy.probabilities(context, ACTIONS)
    assert np.isfinite(found).all()
    assert (found >= 0.0).all()
    assert found.sum() == pytest.approx(1.0, abs=1e-9)
    arms = policy.explain(context, ACTIONS)
    assert [arm.probability for arm in arms] == pytest.approx(found.tolist(), abs=1e-9)
    assert all(math.isfinite(arm.mean or 0.0) and math.isfinite(arm.sd or 0.0) for arm in arms)
    choice = policy.choose(context, ACTIONS, np.random.default_rng(0))
    assert float(choice.propensity) == pytest.approx(found[ACTIONS.index(choice.action)], abs=1e-9)
    assert 0.0 < choice.propensity <= 1.0 + 1e-9
    return choice


@pytest.mark.parametrize("name", SUBJECTS)
@settings(deadline=None, max_examples=40)
@given(stream=STREAMS, rest=STREAMS, context=CONTEXTS)
def test_the_state_survives_every_stream_and_is_restored_to_the_last_bit(name, stream, rest, context):
    policy, again, learned = SUBJECTS[name](), SUBJECTS[name](), {}
    hand(policy, stream, learned)
    again.restore(policy.state())
    for each in (policy, again):
        hand(each, rest, dict(learned))
    assert again.state() == policy.state()
    assert hold(policy, context) == hold(again, context)
    np.testing.assert_array_equal(policy.probabilities(context, ACTIONS), again.probabilities(context, ACTIONS))


@pytest.mark.parametrize("name", SUBJECTS)
def test_alternating_extremes_over_a_long_life_leave_it_sound(name):
    policy, previous = SUBJECTS[name](), {}
    for step in range(1_500):
        number = step // 2 if step % 3 else max(step // 2 - 5, 0)
        kept = decision(number, ACTIONS[number % 3], {"x": (-1.0) ** number * 100.0, "t": (1e308, math.nan)})
        reward = float(step % 2)
        policy.learn(kept, reward, previous.get(number))
        previous[number] = reward
    hold(policy, {"x": 0.5})
    again = SUBJECTS[name]()
    again.restore(policy.state())
    assert again.state() == policy.state()


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(ACTIONS), CONTEXTS, REWARDS), max_size=12), st.randoms())
def test_without_a_half_life_the_order_of_rewards_does_not_matter(lessons, rng):
    # The features have their places first, so that both vectorise alike.
    names = decision(99, "c", {"x": 0.0, "ünï": 0.0, "": 0.0, "t": (0.0, 0.0, 0.0)})
    one, other = LinearThompson(), LinearThompson()
    shuffled = [decision(number, action, context) for number, (action, context, _) in enumerate(lessons)]
    for kept in (names, *shuffled):
        one.learn(kept, 0.5 if kept is names else lessons[int(kept.id.split("_")[1])][2], None)
    rng.shuffle(shuffled)
    for kept in (names, *shuffled):
        other.learn(kept, 0.5 if kept is names else lessons[int(kept.id.split("_")[1])][2], None)
    for left, right in zip(one.explain({"x": 0.1}, ACTIONS), other.explain({"x": 0.1}, ACTIONS), strict=True):
        assert left.observations == right.observations
        assert (left.mean, left.sd) == pytest.approx((right.mean, right.sd), abs=1e-6)


@pytest.mark.parametrize("name", SUBJECTS)
def test_propensities_are_the_frequencies_of_20000_draws(name):
    """Hoeffding at 0.02: P(|frequency - p| >= 0.02) <= 2 exp(-2 * 20,000 * 0.02^2) = 2.3e-7 for each action."""
    policy, draws = SUBJECTS[name](), 20_000
    for number in range(9):
        policy.learn(decision(number, ACTIONS[number % 3], {"x": 0.1 * number}), 0.3 + 0.05 * (number % 4), None)
    context, rng = {"x": 0.3}, np.random.default_rng(12)
    expected = policy.probabilities(context, ACTIONS)
    counts = dict.fromkeys(ACTIONS, 0)
    for _ in range(draws):
        choice = policy.choose(context, ACTIONS, rng)
        assert abs(choice.propensity - expected[ACTIONS.index(choice.action)]) < 1e-9
        counts[choice.action] += 1
    for action, p in zip(ACTIONS, expected, strict=True):
        assert abs(counts[action] / draws - p) < 0.02
        assert p > 0.0 or counts[action] == 0


@given(
    st.none() | NUMBERS,
    st.none() | st.integers(-(10**30), 10**30),
    st.sampled_from(["", "timeout"]),
    st.dictionaries(st.tuples(st.sampled_from(["user", "manager", "qa", "system"]), NAMES), NUMBERS, max_size=5),
)
def test_a_reward_is_in_its_range_or_absent(latency_ms, cost_nusd, error, feedback):
    reward = scalar(Signals(latency_ms, cost_nusd, error, feedback), RewardOptions())
    assert reward is None or 0.0 <= reward <= 1.0


@given(st.dictionaries(st.text(max_size=5), st.one_of(NUMBERS, st.none(), st.text(), st.lists(NUMBERS), st.integers())))
def test_a_decided_context_can_always_be_stored(context):
    record = decision(context=finite({name.encode("utf-8", "replace").decode(): v for name, v in context.items()}))
    assert decode(encode(record), Decision) == record


CALL_NAMES = st.integers(0, 5).map(lambda n: f"call_{n}")
TARGETS = st.one_of(CALL_NAMES, st.sampled_from(["answer_0", "answer_1"]))
TENANTS = st.sampled_from(["default", "acme"])
RECORDS = st.one_of(
    st.builds(
        Call,
        id=CALL_NAMES,
        at=st.just(0.0),
        tenant=TENANTS,
        endpoint=st.just("chat"),
        model=st.just("auto"),
        parent=st.one_of(st.just(""), TARGETS),
    ),
    st.builds(
        lambda number, action, context, policy, live, tenant: decision(
            number, action, finite(context), policy=policy, live=live, tenant=tenant
        ),
        st.integers(0, 5),
        st.sampled_from(ACTIONS),
        CONTEXTS,
        st.sampled_from(["linear_thompson@1", "linear_thompson@1", "default@1"]),
        st.booleans(),
        TENANTS,
    ),
    st.builds(
        Outcome,
        id=st.just("outcome"),
        at=st.just(0.0),
        tenant=TENANTS,
        call=CALL_NAMES,
        model=st.just("m"),
        provider=st.just("p"),
        status=st.sampled_from([200, 200, 503]),
        latency_ms=NUMBERS,
        first_byte_ms=st.just(0.0),
        prompt_tokens=st.just(1),
        completion_tokens=st.just(1),
        cost_nusd=st.integers(-5, 10**12),
    ),
    st.builds(
        Feedback,
        id=st.integers(0, 9).map(lambda n: f"feedback_{n}"),
        at=st.just(0.0),
        tenant=TENANTS,
        target=TARGETS,
        kind=st.sampled_from(["rating", "praise", "complaint", "correction", "suggestion"]),
        source=st.sampled_from(["user", "manager", "system", "qa"]),
        value=st.none() | NUMBERS | REWARDS,
    ),
)


def learner(window):
    return Learner(Loop({"model": PointOptions(mode="live")}), window)


@settings(deadline=None)
@given(st.lists(RECORDS, max_size=40), st.integers(0, 40), st.integers(1, 8))
def test_a_snapshot_anywhere_and_the_rest_equal_the_whole(records, cut, window):
    entries = [Entry(number, record) for number, record in enumerate(records, start=1)]
    whole, first, rest = learner(window), learner(window), learner(window)
    for entry in entries:
        whole.fold(entry)
    for entry in entries[:cut]:
        first.fold(entry)
    rest.restore(first.state())
    for entry in entries:
        rest.fold(entry)
    assert rest.state() == whole.state()
    assert whole.loop.failures == {}
