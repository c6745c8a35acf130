"""What holds for the floor whatever rewards come: its sums are those of the rewards in force, and it stays sound."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.policies import registry
from windlass.records import Decision

ACTIONS = ("large", "small", "tiny")
SHARE, AUDIT, GUESS = 0.9, 0.25, 0.5
OPTIONS = {"reference": "large", "share_of_reference": 90.0, "audit_share": AUDIT, "window": 50, "margin": 10.0}
REWARDS = st.floats(0.0, 1.0)
WILD = st.one_of(REWARDS, st.sampled_from([-1e6, 1e6, 5e-324, math.nan, math.inf]), st.floats())
TAKEN = st.one_of(
    st.tuples(st.just("large"), st.floats(AUDIT, 1.0)),
    st.tuples(st.sampled_from(("small", "tiny")), st.floats(1e-6, 1.0 - AUDIT)),
)


def guard():
    return registry.guard("floor", OPTIONS, registry.make("fixed", {"action": "small"}))


def decision(number, action="small", propensity=0.75, **fields):
    values = {
        "id": f"decision_{number}",
        "at": 0.0,
        "call": f"call_{number}",
        "point": "model",
        "policy": "fixed@1",
        "actions": ACTIONS,
        "action": action,
        "propensity": propensity,
        "live": True,
    }
    return Decision(**(values | fields))


def x(action, p, y):
    """The increment of evidence.py, written down once more."""
    if action != "large":
        return y - SHARE * GUESS
    return (1 - SHARE) * y * (p - AUDIT) / p - SHARE * (y - GUESS) * (1 - p) / p


@given(st.lists(st.tuples(TAKEN, st.lists(REWARDS, min_size=1, max_size=4)), min_size=1, max_size=30), st.randoms())
def test_corrections_in_any_order_leave_what_the_last_rewards_give(stream, rng):
    """Fewer calls than the first guess takes, so that all of them are in one window."""
    made = guard()
    steps = [(n, turn) for n, (_, rewards) in enumerate(stream) for turn in range(len(rewards))]
    rng.shuffle(steps)
    told = {}
    for number, turn in steps:
        (action, p), rewards = stream[number]
        made.learn(decision(number, action, p), rewards[turn], told.get(number))
        told[number] = rewards[turn]
    shown = made._streams[""].shown
    offset = 0.1 * (1 - AUDIT)
    for place, log in enumerate(shown.logs):
        stake = 0.95 * 0.5**place / shown.worst
        wanted = sum(
            math.log1p(stake * (x(action, max(p, AUDIT), told[n]) + offset))
            for n, ((action, p), _) in enumerate(stream)
        )
        assert log == pytest.approx(wanted, abs=1e-9)


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_the_increment_means_what_it_says(share_of_reference, small, large):
    """Over the actions that may be taken, x has the mean (1 - s) (v - q r), for any mix of the policy inside."""
    p = AUDIT + (1 - AUDIT) * share_of_reference
    mean = (1 - p) * x("small", 1 - p, small) + p * x("large", p, large)
    routed = share_of_reference * large + (1 - share_of_reference) * small
    assert mean == pytest.approx((1 - AUDIT) * (routed - SHARE * large), abs=1e-12)


STREAMS = st.lists(
    st.tuples(st.integers(0, 40), st.one_of(TAKEN, st.tuples(st.sampled_from(ACTIONS), st.floats())), WILD),
    max_size=80,
)


@settings(deadline=None, max_examples=60)
@given(STREAMS, st.integers(0, 80), st.integers(0, 3))
def test_hostile_streams_leave_it_sound_and_a_restart_changes_nothing(stream, cut, repeats):
    whole, part, learned = guard(), guard(), {}
    for number, (key, (action, p), reward) in enumerate(stream * (1 + repeats)):
        if number == cut:
            part.restore(part.state())
        kept, previous = learned.get(key, (decision(key, action, p), None))
        for each in (whole, part):
            try:
                each.learn(kept, reward, previous)
            except ValueError:
                assert not math.isfinite(reward)
        if math.isfinite(reward):
            learned[key] = (kept, reward)
    assert whole.state() == part.state()
    found = whole.probabilities({}, ACTIONS)
    assert found.sum() == pytest.approx(1.0)
    assert AUDIT <= found[0] <= 1.0
    for report in whole.reports():
        assert "nan" not in report.told
    again = guard()
    again.restore(whole.state())
    assert again.choose({}, ACTIONS, np.random.default_rng(0)) == whole.choose({}, ACTIONS, np.random.default_rng(0))


@settings(deadline=None, max_examples=30)
@given(st.lists(WILD, min_size=1, max_size=5), st.floats())
def test_a_previous_that_was_never_learned_breaks_nothing(rewards, previous):
    made = guard()
    for number in range(60):
        made.learn(decision(number, "large", 0.25), 0.5, None)
        for reward in rewards:
            if math.isfinite(reward):
                made.learn(decision(number, "large", 0.25), reward, previous)
    assert all(evidence.sound() for evidence in made._streams.values())
    made.restore(made.state())
