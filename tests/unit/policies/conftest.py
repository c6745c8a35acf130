"""Records in short form."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from windlass.records import Decision


@pytest.fixture
def decided() -> Callable[..., Decision]:
    """A live Decision for an action in a context."""

    def make(action="a", context=None, **fields):
        values = {
            "id": "decision_1-model",
            "at": 1.0,
            "call": "call_1",
            "point": "model",
            "policy": "linear_thompson@1",
            "actions": ("a", "b"),
            "action": action,
            "propensity": 0.5,
            "live": True,
            "context": context or {},
        }
        return Decision(**(values | fields))

    return make
