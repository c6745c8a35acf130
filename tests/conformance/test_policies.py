"""Every registered policy, alone and under the guard that the loop puts around it, keeps the contract."""

from __future__ import annotations

import pytest

from windlass.policies import registry
from windlass.policies.check import check_policy
from windlass.policies.guards import Randomised

EXTRA = [
    ("fixed", {"action": "beta"}),
    ("fixed", {"shares": {"alpha": 3, "beta": 1}}),
    ("linear_thompson", {"alpha": 0.3, "noise_variance": 0.25, "max_features": 2}),
]


@pytest.mark.parametrize(("name", "options"), [(name, {}) for name in registry.names()] + EXTRA)
def test_keeps_the_contract(name, options):
    check_policy(lambda: registry.make(name, options))


@pytest.mark.parametrize("name", registry.names())
def test_keeps_the_contract_when_randomised(name):
    check_policy(lambda: Randomised(registry.make(name, {}), 0.1))
