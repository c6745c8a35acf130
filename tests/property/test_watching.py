"""The guards `service` and `personal` on anything that may be told them: honest, bounded, the same after a restart."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.policies import registry
from windlass.policies.lifts import USER
from windlass.policies.personal import Personal
from windlass.policies.policy import Policy
from windlass.policies.served import Served
from windlass.policies.slo import Slo
from windlass.policies.slo_terms import ERRORS, LATENCY, QUANTILE, SloOptions
from windlass.records import Decision
from windlass.stats.decaying import DecayingCalls
from windlass.stats.shrinkage import spread, tastes

ACTIONS = ("a", "b", "c", "été")
_ANY = st.one_of(st.floats(), st.integers(-5, 10_000), st.tuples(st.floats()), st.none(), st.text(max_size=2))
_TIMES = st.floats(0.0, 1e7)
_SERVED = st.builds(Served, took_ms=st.one_of(st.none(), st.floats(0.0, 1e9)), failed=st.booleans())
_TOLD = st.lists(st.tuples(st.sampled_from(ACTIONS), _TIMES, _SERVED, st.booleans()), max_size=60)


def decision(number: int, action: str, at: float = 0.0, context: Any = None) -> Decision:
    return Decision(
        id=f"decision_{number}", at=at, call=f"call_{number}", point="model", policy="fixed@1", actions=ACTIONS,
        action=action, propensity=0.5, live=True, context=context or {},
    )  # fmt: skip


def guarded() -> Slo:
    options = SloOptions(max_latency_ms=3_000.0, max_error_percent=10.0, least_calls=3, confidence=0.6)
    return Slo(registry.make("split", {}), options)


def tell(policy: Slo, told: list[Any]) -> None:
    last: dict[str, tuple[Decision, Served]] = {}
    for number, (action, at, served, correction) in enumerate(told):
        if correction and action in last:
            made, before = last[action]
            policy.serve(made, served, before)
        else:
            made = decision(number, action, at)
            policy.serve(made, served, None)
        last[action] = (made, served)


def honest(policy: Policy, context: Any) -> None:
    for count in (1, 2, 4):
        some = ACTIONS[:count]
        chances = policy.probabilities(context, some)
        assert math.isclose(chances.sum(), 1.0, abs_tol=1e-9)
        assert (chances >= 0.0).all()
        choice = policy.choose(context, some, np.random.default_rng(count))
        assert choice.propensity == pytest.approx(chances[some.index(choice.action)], abs=1e-9)
        assert 0.0 < choice.propensity <= 1.0 + 1e-9


@settings(deadline=None, max_examples=100)
@given(told=_TOLD, latency=_ANY, quantile=_ANY, errors=_ANY)
def test_whatever_is_told_and_asked_the_propensities_are_honest(told, latency, quantile, errors):
    policy = guarded()
    tell(policy, told)
    before = policy.state()
    honest(policy, {LATENCY: latency, QUANTILE: quantile, ERRORS: errors})
    honest(policy, {})
    for report in policy.reports({}, ACTIONS):
        assert math.isfinite(report.measured)
        assert report.words
    assert policy.state() == before


@settings(deadline=None, max_examples=60)
@given(first=_TOLD, second=_TOLD)
def test_a_restart_between_any_two_calls_changes_no_bit(first, second):
    whole, again = guarded(), guarded()
    tell(whole, first)
    again.restore(whole.state())
    assert again.state() == whole.state()
    tell(whole, second)
    tell(again, second)
    assert again.state() == whole.state()
    assert np.array_equal(again.probabilities({}, ACTIONS), whole.probabilities({}, ACTIONS))


@settings(deadline=None, max_examples=60)
@given(
    calls=st.lists(st.tuples(st.floats(0.0, 1e5), st.floats(0.1, 1e6), st.booleans()), max_size=40), order=st.randoms()
)
def test_the_order_in_which_calls_are_told_does_not_count(calls, order):
    shuffled = list(calls)
    order.shuffle(shuffled)
    one, other = DecayingCalls(600.0), DecayingCalls(600.0)
    for counts, told in ((one, calls), (other, shuffled)):
        for at, took_ms, failed in told:
            counts.add(at, took_ms, failed=failed)
    now = max((at for at, _, _ in calls), default=0.0)
    assert other.calls(now) == pytest.approx(one.calls(now), rel=1e-6, abs=1e-5)
    assert other.failures(now) == pytest.approx(one.failures(now), rel=1e-6, abs=1e-5)
    assert other.late(1_000.0, now) == pytest.approx(one.late(1_000.0, now), rel=1e-6, abs=1e-4)


_CELLS = st.integers(1, 6).flatmap(
    lambda things: st.lists(
        st.lists(st.tuples(st.integers(0, 50), st.floats(-1e5, 1e5)), min_size=things, max_size=things),
        min_size=1,
        max_size=40,
    )
)


@settings(deadline=None, max_examples=100)
@given(cells=_CELLS, extra=st.floats(0.0, 1e6))
def test_tastes_are_finite_and_never_beyond_what_was_seen(cells, extra):
    """Kindness moves a taste at most as far again as the largest mean residual of the person."""
    counts = np.array([[float(count) for count, _ in row] for row in cells])
    means = np.array([[mean for _, mean in row] for row in cells])
    sums, squares = counts * means, counts * (means**2 + extra)
    known = spread(counts, sums, squares)
    assert np.isfinite([known.tastes, known.persons, known.noise]).all()
    assert min(known.tastes, known.persons, known.noise) >= 0.0
    for count, total in zip(counts, sums, strict=True):
        found = tastes(count.tolist(), total.tolist(), known)
        own = np.where(count > 0, total / np.maximum(count, 1.0) - known.means, 0.0)
        assert np.isfinite(found).all()
        assert np.abs(found).max() <= 2.0 * np.abs(own).max() + 1e-6
        assert all(one == 0.0 for one, seen in zip(found, count, strict=True) if not seen)


_RATED = st.lists(
    st.tuples(
        st.sampled_from(ACTIONS), st.one_of(_ANY, st.integers(1, 6).map(float)), st.floats(-2.0, 2.0), st.booleans()
    ),
    max_size=150,
)


class Plain:
    """Knows nothing and expects nothing, so that all that is kept is the guard's."""

    name, version = "plain", 1

    def expected(self, context, action):
        return 0.0

    def learn(self, decision, reward, previous):
        pass

    def state(self):
        return b"\x90"

    def restore(self, state):
        pass


@settings(deadline=None, max_examples=60)
@given(first=_RATED, second=_RATED)
def test_a_restart_between_any_two_ratings_changes_no_bit(first, second):
    whole, again = Personal(Plain()), Personal(Plain())
    # The first rewards of an action are passed over.
    _rate(whole, [(action, 1.0, 0.5, False) for action in ACTIONS] * 30, 10_000)
    _rate(whole, first, 0)
    again.restore(whole.state())
    assert again.state() == whole.state()
    for policy in (whole, again):
        _rate(policy, second, 1_000)
    assert again.state() == whole.state()
    assert all(again.lifts({USER: user}) == whole.lifts({USER: user}) for user in (1.0, 2.0, 3.0))


def _rate(policy: Personal, rated: list[Any], start: int) -> None:
    last = None
    for number, (action, user, reward, correction) in enumerate(rated, start):
        if correction and last is not None:
            policy.learn(last[0], reward, last[1])
            last = (last[0], reward)
        else:
            made = decision(number, action, context={USER: user})
            policy.learn(made, reward, None)
            last = (made, reward)
    if rated and rated[0][3]:
        policy.forget(1)
