"""Budget: what is affordable, what is said where nothing is, and that the policy inside sees no money."""

from __future__ import annotations

import math

import numpy as np
import pytest

from windlass.errors import PolicyError
from windlass.policies.budget import Budget, BudgetOptions
from windlass.policies.linear import LinearThompson
from windlass.policies.split import Split

ACTIONS = ("local/fast", "local/slow", "far/large")
RNG = np.random.default_rng(0)


def shares(guard, context):
    found = guard.probabilities(context, ACTIONS)
    assert [arm.probability for arm in guard.explain(context, ACTIONS)] == found.tolist()
    return found.tolist()


COSTS = {"cost_nusd:local/fast": 10.0, "cost_nusd:local/slow": 500.0, "cost_nusd:far/large": 90_000.0}


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        (COSTS, [1 / 3] * 3),
        (COSTS | {"budget_nusd": 90_000.0}, [1 / 3] * 3),
        (COSTS | {"budget_nusd": 89_999.0}, [0.5, 0.5, 0.0]),
        (COSTS | {"budget_nusd": math.inf}, [1 / 3] * 3),
        ({"budget_nusd": 1e18} | {"cost_nusd:local/slow": 1.0}, [0.0, 1.0, 0.0]),
        (COSTS | {"budget_nusd": 1e18, "cost_nusd:far/large": math.nan}, [0.5, 0.5, 0.0]),
        (COSTS | {"budget_nusd": 1e18, "cost_nusd:far/large": -1.0}, [0.5, 0.5, 0.0]),
        (COSTS | {"budget_nusd": 1e18, "cost_nusd:far/large": (1.0,)}, [0.5, 0.5, 0.0]),
        ({"budget_nusd": math.inf}, [1 / 3] * 3),
    ],
)
def test_only_what_the_budget_allows(context, expected):
    assert shares(Budget(Split()), context) == pytest.approx(expected)


@pytest.mark.parametrize("remaining", [9.0, 0.0, -5.0, math.nan, (1e18,)])
def test_where_nothing_is_affordable_the_cheapest_is_taken_and_it_says_so(remaining):
    actions = ("far/large", "local/slow", "local/fast")
    choice = Budget(Split()).choose(COSTS | {"budget_nusd": remaining}, actions, RNG)
    assert (choice.action, choice.propensity) == ("local/fast", 1.0)
    assert choice.fallback.startswith("budget: ")
    assert choice.fallback.endswith("nusd left, local/fast is the cheapest")


def test_the_table_of_costs_goes_before_the_context_and_the_names_can_be_set():
    options = BudgetOptions(remaining="left", prefix="price:", costs_nusd={"local/fast": 100.0})
    context = {"left": 50.0, "price:local/fast": 1.0, "price:local/slow": 2.0}
    assert shares(Budget(Split(), options), context) == [0.0, 1.0, 0.0]


def test_the_policy_inside_sees_no_money(decided):
    inner, plain = LinearThompson(), LinearThompson()
    guard = Budget(inner)
    guard.learn(decided("local/fast", COSTS | {"budget_nusd": 1e12, "x": 0.5}), 0.9, None)
    plain.learn(decided("local/fast", {"x": 0.5}), 0.9, None)
    assert inner.state() == plain.state()
    context = COSTS | {"budget_nusd": 1e12, "x": 0.5}
    assert shares(guard, context) == plain.probabilities({"x": 0.5}, ACTIONS).tolist()
    assert guard.explain(context, ACTIONS) == plain.explain({"x": 0.5}, ACTIONS)


@pytest.mark.parametrize("cost", [-1.0, math.nan, math.inf])
def test_costs_that_are_none_are_refused(cost):
    with pytest.raises(PolicyError, match="budget: costs_nusd"):
        BudgetOptions(costs_nusd={"a": cost})


def test_a_state_of_a_budget_belongs_to_what_it_hides_and_not_to_its_prices(decided):
    guard = Budget(LinearThompson())
    guard.learn(decided("local/fast", COSTS | {"x": 0.5}), 0.9, None)
    again = Budget(LinearThompson(), BudgetOptions(costs_nusd={"local/fast": 7.0}))
    again.restore(guard.state())
    assert again.state() == guard.state()
    for other in (Budget(LinearThompson(), BudgetOptions(prefix="x")), Budget(Split())):
        for state in (guard.state(), guard.policy.state(), b""):
            with pytest.raises(PolicyError, match="rebuild it from the ledger"):
                other.restore(state)
