"""Every registered policy, alone, under each guard and under all of them, keeps the contract; 20,000 draws each."""

from __future__ import annotations

import pytest

from windlass.policies import registry
from windlass.policies.check import check_policy
from windlass.policies.policy import Randomised

DRAWS = 20_000
POLICIES = [
    *((name, {}) for name in registry.names()),
    ("fixed", {"action": "beta"}),
    ("split", {"shares": {"alpha": 3, "beta": 1}}),
    ("linear_thompson", {"alpha": 0.3, "noise_variance": 0.25, "max_features": 2}),
    ("linear_thompson", {"half_life": 25}),
    ("ucb", {"half_life": 10, "alpha": 2.4}),
    ("epsilon_greedy", {"epsilon": 0.8, "decay": 0.05, "minimum": 0.1}),
    ("epsilon_greedy", {"epsilon": 0.8, "decay": 0.05, "half_life": 30}),
]
GUARDS = [
    # The floor that is tested asks for its reference.
    *((name, {"reference": "gamma"} if name == "floor" else {}) for name in registry.guards()),
    ("allowed", {"allow": ["al*", "beta"], "deny": ["gamma"]}),
    ("budget", {"remaining": "length", "costs_nusd": {"alpha": 0.3, "beta": 0.2, "gamma": 0.5}}),
    ("quality_floor", {"floor": 0.4, "k": 0.5, "reference": "beta"}),
    ("cool_down", {"below": 0.6, "bad": 1, "rest": 2}),
    ("floor", {"reference": "alpha", "contents": {"length": 80.0}, "audit_share": 0.3, "window": 50}),
]


@pytest.mark.parametrize(("name", "options"), POLICIES)
def test_keeps_the_contract(name, options):
    check_policy(lambda: registry.make(name, options), DRAWS)


@pytest.mark.parametrize("name", registry.names())
def test_keeps_the_contract_when_randomised(name):
    check_policy(lambda: Randomised(registry.make(name, {}), 0.1))


@pytest.mark.parametrize(("name", "options"), GUARDS)
def test_keeps_the_contract_under_a_guard(name, options):
    check_policy(lambda: registry.guard(name, options, registry.make("epsilon_greedy", {})), DRAWS)


@pytest.mark.parametrize("inner", registry.names())
def test_keeps_the_contract_under_all_guards_at_once(inner):
    check_policy(
        lambda: registry.guarded(registry.make(inner, {}), GUARDS[-5:], 0.1),
        DRAWS if inner == "epsilon_greedy" else 4_000,
    )


@pytest.mark.parametrize("turn", range(5))
def test_keeps_the_contract_under_guards_in_any_order(turn):
    def make():
        policy = registry.make("linear_thompson", {"half_life": 40})
        for name, options in GUARDS[-5:][turn:] + GUARDS[-5:][:turn]:
            policy = registry.guard(name, options, policy)
        return Randomised(policy, 0.1)

    check_policy(make)
