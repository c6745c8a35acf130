"""Policies by name."""

from __future__ import annotations

import math

import pytest

from windlass.errors import PolicyError
from windlass.policies import registry


def test_makes_each_policy_it_names():
    for name in registry.names():
        assert registry.make(name, {}).name == name
    assert {"fixed", "linear_thompson"} <= set(registry.names())


def test_options_arrive():
    assert registry.make("fixed", {"action": "b"}).probabilities({}, ("a", "b")).tolist() == [0.0, 1.0]
    assert registry.make("linear_thompson", {"alpha": 2}).options.alpha == 2.0


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("thompson", {}, "unknown policy 'thompson'; known: fixed, linear_thompson"),
        ("fixed", {"acton": "a"}, "no option acton; known: action, shares"),
        ("linear_thompson", {"alpha": "much"}, "policy linear_thompson: .*alpha"),
        ("linear_thompson", {"alpha": -1.0}, "alpha is -1.0"),
        ("fixed", {"shares": {"a": "half"}}, "policy fixed"),
        ("threshold", {"floor": math.inf}, "floor is inf"),
        ("threshold", {"above": "x", "below": "x"}, "above and below are both 'x'"),
    ],
)
def test_what_it_does_not_know_is_refused_with_what_it_does(name, options, words):
    with pytest.raises(PolicyError, match=words):
        registry.make(name, options)
