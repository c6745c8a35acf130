"""The guard `service`: what is too slow or fails too often is left out, tried a little, and comes back."""

from __future__ import annotations

import math

import numpy as np
import pytest

from windlass.errors import PolicyError
from windlass.policies import registry
from windlass.policies.check import check_policy
from windlass.policies.policy import Guard, Randomised
from windlass.policies.served import Served, watchers
from windlass.policies.slo import Slo
from windlass.policies.slo_terms import ERRORS, LATENCY, QUANTILE, SloOptions

ACTIONS = ("a", "b", "c")
FINE, SLOW, FAILED = Served(1_000.0, failed=False), Served(4_200.0, failed=False), Served(None, failed=True)
MINUTE_S = 60.0


def guarded(policy="fixed", **options):
    return Slo(registry.make(policy, {}), SloOptions(**options))


@pytest.fixture
def tell(decided):
    """Tell a policy so many calls of an action, one a second; returns when the last one was."""

    def told(policy, action, served, calls, start=0.0):
        for number in range(calls):
            policy.serve(decided(action, id=f"decision_{action}{start}{number}", at=start + number), served, None)
        return start + calls - 1

    return told


def draws(policy, context, actions=ACTIONS, count=400):
    return [policy.choose(context, actions, np.random.default_rng(seed)) for seed in range(count)]


def test_a_slow_action_is_left_out_but_for_a_share_and_says_why(tell):
    policy = guarded(max_latency_ms=3_000.0)
    tell(policy, "b", FINE, 120)
    tell(policy, "a", SLOW, 120)
    assert policy.probabilities({}, ACTIONS).tolist() == pytest.approx([0.02, 0.98, 0.0])
    choice = next(one for one in draws(policy, {}) if one.action == "b")
    assert choice.propensity == pytest.approx(0.98)
    assert choice.why.endswith("a left out: p95 4.2 s, limit 3 s, over 117 calls")
    assert choice.fallback == ""


def test_every_choice_has_the_propensity_that_it_had(tell):
    policy = guarded("split", max_error_percent=5.0, probe_share=0.3)
    tell(policy, "a", FAILED, 30)
    tell(policy, "c", FAILED, 30)
    chances = policy.probabilities({}, ACTIONS)
    assert chances.tolist() == pytest.approx([0.15, 0.7, 0.15])
    for choice in draws(policy, {}):
        assert choice.propensity == pytest.approx(chances[ACTIONS.index(choice.action)])
    assert [arm.probability for arm in policy.explain({}, ACTIONS)] == pytest.approx(chances.tolist())


@pytest.mark.parametrize(
    ("allowance", "cost", "share"),
    [
        (1_000.0, 2_000.0, 0.02),
        (1_000.0, 10_000.0, 0.005),
        (1_000.0, 1e300, 0.0002),
        (0.0, 5.0, 0.0002),
        (0.0, 0.0, 0.02),
        (1_000.0, -1.0, 0.02),
        (math.nan, 10_000.0, 0.02),
        (1_000.0, math.inf, 0.02),
        ((1.0,), 10_000.0, 0.02),
    ],
)
def test_what_is_left_out_costs_a_twentieth_of_what_may_be_spent(tell, allowance, cost, share):
    policy = guarded("split", max_latency_ms=3_000.0)
    tell(policy, "b", SLOW, 40)
    context = {"allowance_nusd": allowance, "cost_nusd:b": cost}
    chances = policy.probabilities(context, ACTIONS)
    assert chances.tolist() == pytest.approx([(1 - share) / 2, share, (1 - share) / 2])
    rng = np.random.default_rng(3)
    found = [policy.choose(context, ACTIONS, rng) for _ in range(20_000)]
    assert all(one.propensity == pytest.approx(chances[ACTIONS.index(one.action)]) for one in found)
    # 20,000 times each share: six deviations are passed with a chance of 1e-8.
    wanted = 20_000 * share
    assert abs(sum(one.action == "b" for one in found) - wanted) <= 6 * math.sqrt(wanted) + 6
    assert policy.probabilities({"allowance_nusd": 1_000.0}, ACTIONS)[1] == pytest.approx(0.02)


def test_a_probe_says_what_it_is(tell):
    policy = guarded(max_latency_ms=3_000.0)
    tell(policy, "a", SLOW, 60)
    probe = next(one for one in draws(policy, {}) if one.action == "a")
    assert probe.why.startswith("service: share of 2.0% for what is left out; a left out: p95")
    assert probe.propensity == pytest.approx(0.02)


def test_few_calls_leave_nothing_out(tell):
    policy = guarded(max_latency_ms=3_000.0, least_calls=10)
    tell(policy, "a", SLOW, 9)
    assert policy.probabilities({}, ACTIONS)[0] == 1.0


def test_a_call_names_limits_of_its_own(tell):
    policy = guarded()
    tell(policy, "a", SLOW, 60)
    assert policy.probabilities({}, ACTIONS)[0] == 1.0
    assert policy.probabilities({LATENCY: 3_000.0}, ACTIONS)[0] == pytest.approx(0.02)
    assert policy.probabilities({LATENCY: 5_000.0}, ACTIONS)[0] == 1.0
    strict = guarded(max_latency_ms=3_000.0, max_error_percent=1.0)
    tell(strict, "a", SLOW, 60)
    assert strict.probabilities({LATENCY: 5_000.0}, ACTIONS)[0] == 1.0


@pytest.mark.parametrize("limit", [math.nan, -1.0, 0.0, math.inf, (1.0,), (), "3000"])
def test_a_limit_that_is_none_leaves_that_of_the_options(tell, limit):
    policy = guarded(max_latency_ms=3_000.0)
    tell(policy, "a", SLOW, 60)
    context = {LATENCY: limit, QUANTILE: limit, ERRORS: limit}
    assert policy.probabilities(context, ACTIONS)[0] == pytest.approx(0.02)


def test_a_limit_that_is_as_good_as_nothing_is_one(tell):
    policy = guarded()
    tell(policy, "a", FAILED, 10)
    tell(policy, "b", FINE, 10)
    least = {ERRORS: 5e-324, LATENCY: 5e-324}
    assert policy.probabilities(least, ACTIONS).tolist() == pytest.approx([0.01, 0.01, 0.98])
    assert [one.kept for one in policy.reports(least, ("a", "b"))] == [False, False, True]
    assert policy.choose(least, ("a", "b"), np.random.default_rng(1)).fallback.startswith("service: no action keeps")


def test_where_nothing_keeps_the_limits_the_nearest_is_taken_and_it_says_so(tell):
    policy = guarded(max_latency_ms=3_000.0)
    for action, served in (("a", Served(9_000.0, failed=False)), ("b", SLOW), ("c", Served(30_000.0, failed=False))):
        tell(policy, action, served, 50)
    assert policy.probabilities({}, ACTIONS).tolist() == pytest.approx([0.01, 0.98, 0.01])
    choice = next(one for one in draws(policy, {}) if one.action == "b")
    assert choice.fallback.startswith("service: no action keeps the limits, b comes nearest: p95 4.2 s, limit 3 s")
    alone = policy.choose({}, ("a",), np.random.default_rng(0))
    assert (alone.action, alone.propensity, alone.fallback) == ("a", 1.0, "")


def test_what_was_not_tried_for_long_is_unknown_again(tell):
    policy = guarded(max_latency_ms=3_000.0, half_life_minutes=30.0)
    end = tell(policy, "a", SLOW, 60)
    tell(policy, "b", FINE, 1, start=end + 60 * MINUTE_S)
    assert policy.probabilities({}, ACTIONS)[0] == pytest.approx(0.02)
    tell(policy, "b", FINE, 1, start=end + 120 * MINUTE_S)
    assert policy.probabilities({}, ACTIONS)[0] == 1.0


def test_probes_that_go_well_bring_it_back(tell):
    policy = guarded(max_latency_ms=3_000.0)
    end = tell(policy, "a", SLOW, 15)
    assert policy.probabilities({}, ACTIONS)[0] == pytest.approx(0.02)
    tell(policy, "a", FINE, 250, start=end + 1)
    assert policy.probabilities({}, ACTIONS)[0] == 1.0


def test_a_clock_that_was_set_back_is_followed(tell):
    policy = guarded(max_latency_ms=3_000.0)
    tell(policy, "b", FINE, 5, start=1e9)
    tell(policy, "a", SLOW, 40)
    assert policy.probabilities({}, ACTIONS)[0] == pytest.approx(0.02)


def test_a_correction_of_a_call_of_a_future_that_was_none_counts_nothing(tell, decided):
    policy = guarded(max_latency_ms=3_000.0)
    policy.serve(decided("a", id="decision_ahead", at=1e9), FINE, None)
    tell(policy, "b", FINE, 30)
    tell(policy, "a", FINE, 30, start=30.0)
    policy.serve(decided("a", id="decision_ahead", at=1e9), SLOW, FINE)
    assert policy.probabilities({}, ACTIONS).tolist() == [1.0, 0.0, 0.0]
    assert [round(one.calls) for one in policy.reports({}, ("a",))] == [30]


def test_where_a_clock_that_was_set_back_left_no_counts_a_restart_changes_nothing(tell, decided):
    policy = guarded(max_latency_ms=3_000.0)
    tell(policy, "a", FINE, 1, start=1e9)
    tell(policy, "a", FINE, 20)
    other = guarded(max_latency_ms=3_000.0)
    other.restore(policy.state())
    for one in (policy, other):
        one.serve(decided("b", id="decision_1", at=-1e6), SLOW, None)
    assert policy.state() == other.state()


def test_a_correction_is_as_if_the_first_word_had_been_right(tell, decided):
    told, right = guarded(max_latency_ms=3_000.0), guarded(max_latency_ms=3_000.0)
    for policy, first in ((told, FAILED), (right, FINE)):
        policy.serve(decided("a", id="decision_1", at=8.0), first, None)
    told.serve(decided("a", id="decision_1", at=8.0), FINE, FAILED)
    tell(told, "a", SLOW, 3)
    tell(right, "a", SLOW, 3)
    assert told.state() == right.state()


def test_a_correction_of_an_action_that_is_not_known_changes_nothing(decided):
    policy = guarded()
    before = policy.state()
    policy.serve(decided("a"), FINE, FAILED)
    assert policy.state() == before


def test_the_state_is_taken_over_bit_by_bit(tell):
    policy, other = (guarded("linear_thompson", max_latency_ms=3_000.0, max_error_percent=2.0) for _ in range(2))
    tell(policy, "a", SLOW, 40)
    tell(policy, "b", FAILED, 7, start=3_000.0)
    other.restore(policy.state())
    for one in (policy, other):
        tell(one, "c", SLOW, 25, start=9_000.0)
    assert other.state() == policy.state()
    assert draws(other, {}, count=50) == draws(policy, {}, count=50)


def test_a_state_of_other_options_or_none_is_refused_and_leaves_no_trace(tell):
    policy = guarded(max_latency_ms=3_000.0)
    tell(policy, "a", SLOW, 40)
    before = policy.state()
    for state in (guarded().state(), registry.make("fixed", {}).state(), b"", b"\xc1", before[:-3]):
        with pytest.raises(PolicyError):
            policy.restore(state)
        assert policy.state() == before


@pytest.mark.parametrize(
    "options",
    [
        {"max_latency_ms": 0.0},
        {"max_latency_ms": math.nan},
        {"max_error_percent": 100.0},
        {"latency_quantile": 0.4},
        {"half_life_minutes": 0.0},
        {"confidence": 1.0},
        {"least_calls": 0},
        {"probe_share": 0.0},
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(PolicyError, match=f"service: {next(iter(options))} is"):
        SloOptions(**options)


def test_what_is_no_time_is_refused_and_leaves_no_trace(decided):
    policy = guarded()
    before = policy.state()
    for took_ms in (math.nan, -1.0, math.inf):
        with pytest.raises(ValueError, match="finite"):
            policy.serve(decided("a"), Served(took_ms, failed=False), None)
    assert policy.state() == before


def test_at_most_so_many_actions_are_known(tell):
    policy = guarded(max_latency_ms=3_000.0)
    for number in range(200):
        tell(policy, f"model-{number}", SLOW, 12, start=100.0 * number)
    assert len(policy.state()) < 64 * 200
    assert len(policy.reports({}, [f"model-{number}" for number in range(200)])) == 64


def test_requests_with_a_thousand_limits_keep_memory_bounded(tell):
    policy = guarded()
    tell(policy, "a", SLOW, 40)
    for limit in range(1, 2_000):
        policy.choose({LATENCY: float(limit)}, ACTIONS, np.random.default_rng(0))
    assert len(policy._views) <= 64


def test_reports_tell_each_limit_of_each_action(tell):
    policy = guarded(max_latency_ms=3_000.0, max_error_percent=5.0)
    tell(policy, "a", SLOW, 40)
    tell(policy, "b", FINE, 40)
    assert [(one.action, one.quantile, one.kept) for one in policy.reports({}, ACTIONS)] == [
        ("a", 0.95, False), ("a", 0.0, True), ("b", 0.95, True), ("b", 0.0, True)
    ]  # fmt: skip
    assert policy.reports({}, ACTIONS)[1].words == "errors 0 %, limit 5 %, over 40 calls"


def test_choosing_leaves_the_state_and_the_dice_inside_as_they_are(tell):
    """As long as nothing is left out, the policy inside draws what it would draw alone."""
    policy = guarded("split", max_latency_ms=3_000.0)
    tell(policy, "a", FINE, 40)
    before = policy.state()
    alone = draws(registry.make("split", {}), {}, count=50)
    assert draws(policy, {}, count=50) == alone
    assert policy.state() == before


class Told(Guard):
    """Tells the guard inside of every reward as of a call; late where it was a bad one."""

    def learn(self, decision, reward, previous):
        super().learn(decision, reward, previous)
        for watcher in watchers(self.policy):
            before = None if previous is None else _as_served(previous)
            watcher.serve(decision, _as_served(reward), before)

    def probabilities(self, context, actions):
        return self.policy.probabilities(context, actions)

    def choose(self, context, actions, rng):
        return self.policy.choose(context, actions, rng)


def _as_served(reward):
    return Served(10_000.0 if reward < 0.4 else 10.0, failed=reward < 0.2)


def test_what_has_been_told_of_calls_keeps_the_contract():
    options = {"max_latency_ms": 100.0, "max_error_percent": 30.0, "probe_share": 0.2, "least_calls": 3}

    def make():
        policy = registry.guarded(registry.make("epsilon_greedy", {}), [("service", options)], 0.1)
        return Told(policy)

    check_policy(make, 4_000)


def test_the_share_that_is_random_stays_among_what_keeps_the_limits(tell):
    policy = registry.guarded(registry.make("fixed", {}), [("service", {"max_latency_ms": 3_000.0})], 0.3)
    assert isinstance(policy, Slo)
    assert isinstance(policy.policy, Randomised)
    tell(policy, "c", SLOW, 40)
    assert policy.probabilities({}, ACTIONS).tolist() == pytest.approx([0.98 * 0.85, 0.98 * 0.15, 0.02])


def test_traffic_leaves_a_model_that_grew_slow_within_minutes(decided):
    """100 calls an hour, half of those of `a` late from hour 1 to 4: most go elsewhere meanwhile. Fixed seeds."""
    shares = []
    for seed in range(6):
        rng, policy = np.random.default_rng(seed), guarded("split", max_latency_ms=3_000.0)
        at, taken = 0.0, []
        for number in range(400):
            at += float(rng.exponential(36.0))
            choice = policy.choose({}, ("a", "b"), rng)
            slow = choice.action == "a" and at > 3_600.0 and rng.random() < 0.5
            policy.serve(decided(choice.action, id=f"decision_{number}", at=at), SLOW if slow else FINE, None)
            taken += [choice.action == "a"] if 3_600.0 + 1_800.0 < at < 4 * 3_600.0 else []
        shares.append(np.mean(taken))
    assert np.mean(shares) < 0.15, shares
