"""Named numbers to vectors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from windlass.stats.features import Features, finite


def test_positions_are_sorted_within_a_context_and_kept_afterwards():
    features = Features(10)
    features.learn({"b": 2.0, "a": (1.0, 3.0)})
    features.learn({"aa": 1.0, "b": 5.0})
    assert features.names == (("a", 0), ("a", 1), ("b", 0), ("aa", 0))
    assert features.vector({"aa": 4.0, "a": (1.0, 3.0), "b": 2.0}).tolist() == [1.0, 1.0, 3.0, 2.0, 4.0]


def test_the_order_of_a_context_does_not_matter():
    one, other = Features(10), Features(10)
    one.learn({"x": 1.0, "y": 2.0})
    other.learn({"y": 2.0, "x": 1.0})
    assert one.names == other.names


def test_absent_features_are_zero_and_unknown_ones_come_last_without_being_learned():
    features = Features(10)
    features.learn({"m": 1.0})
    assert features.vector({"z": 3.0, "b": 2.0}).tolist() == [1.0, 0.0, 2.0, 3.0]
    assert features.names == (("m", 0),)


def test_a_number_is_the_first_of_a_tuple():
    features = Features(10)
    features.learn({"m": 1.0})
    assert features.vector({"m": (7.0, 8.0)}).tolist() == [1.0, 7.0, 8.0]


@pytest.mark.parametrize("limit", [0, 2])
def test_no_more_than_the_limit_is_kept(limit):
    features = Features(limit)
    for name in "abcdef":
        features.learn({name: 1.0})
    assert len(features.names) == limit
    assert len(features.vector({"a": 1.0, "q": 1.0, "r": (1.0,) * 1000})) == 1 + limit


def test_finite_leaves_only_what_a_ledger_can_store():
    hostile = {
        "fine": 0.5,
        "whole": 3,
        "numpy": np.float64(0.25),
        "nan": math.nan,
        "parts": (1.0, math.inf, -math.inf),
        "list": [1, "no", None],
        "huge": 10**400,
        "word": "many",
        "nothing": None,
        7: 1.0,
    }
    assert finite(hostile) == {
        "fine": 0.5,
        "whole": 3.0,
        "numpy": 0.25,
        "nan": 0.0,
        "parts": (1.0, 0.0, 0.0),
        "list": (1.0, 0.0, 0.0),
        "huge": 0.0,
        "word": 0.0,
        "nothing": 0.0,
        "7": 1.0,
    }
    assert type(finite(hostile)["numpy"]) is float
