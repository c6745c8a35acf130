"""What holds for the router whatever contexts, rewards and costs go in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.policies.joint import JointThompson
from windlass.records import Decision
from windlass.stats.pacing import curve

ACTIONS = ("a", "b", "c")
NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
NAMES = st.sampled_from(["x", "embedding", "ünï", "", "allowance_nusd", "cost_nusd:a", "cost_nusd:b", "objective:best"])
VALUES = st.one_of(NUMBERS, st.lists(NUMBERS, max_size=4).map(tuple))
CONTEXTS = st.dictionaries(NAMES, VALUES, max_size=6)
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["learn", "spend"]),
        st.sampled_from(["a", "b", "d"]),
        CONTEXTS,
        NUMBERS,
        st.one_of(st.none(), st.floats(0.0, 1.0)),
        st.integers(0, 5),
    ),
    max_size=25,
)


def decision(number, action, context):
    return Decision(
        id=f"decision_{number}",
        at=0.0,
        call=f"call_{number}",
        point="model",
        policy="joint_thompson@1",
        actions=ACTIONS,
        action=action,
        propensity=0.5,
        live=True,
        context=context,
    )


@settings(max_examples=60, deadline=None)
@given(EVENTS, CONTEXTS)
def test_whatever_comes_in_the_router_has_an_answer_and_a_state_that_goes_on(events, context):
    policy = JointThompson()
    for kind, action, at, value, previous, number in events:
        before = policy.state()
        try:
            getattr(policy, kind)(decision(number, action, at), value, previous)
        except ValueError:
            assert policy.state() == before
    chances = policy.probabilities(context, ACTIONS)
    assert chances.sum() == pytest.approx(1.0, abs=1e-9)
    assert (chances >= 0.0).all()
    before = policy.state()
    choice = policy.choose(context, ACTIONS, np.random.default_rng(0))
    assert 0.0 < choice.propensity <= 1.0 + 1e-9
    assert policy.state() == before
    again = JointThompson()
    again.restore(before)
    assert again.state() == before
    assert again.choose(context, ACTIONS, np.random.default_rng(0)) == choice


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 2**32 - 1), st.floats(0.0, 1e7), st.floats(0.0, 1.0))
def test_a_higher_allowance_never_has_a_higher_price(rows, columns, seed, allowance, quality):
    rng = np.random.default_rng(seed)
    good, cost = rng.random((rows, columns)), rng.random((rows, columns)) * 1e6
    eligible = rng.random((rows, columns)) < 0.7
    eligible[:, 0] = True
    found = curve(good, good, cost, eligible)
    assert found.price_within(allowance) >= found.price_within(allowance * 1.1 + 1.0)
    assert found.price_keeping(quality) <= found.price_keeping(quality * 0.9)
    assert 0.0 <= found.price_within(0.0) <= found.prices[-1]
