"""Named numbers to vectors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from windlass.stats.features import Features, finite, hidden


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


PRICES = {"cost_nusd:dear": 7e5, "allowance_nusd": 2e5, "objective:balanced": 1.0, "objective:quality_percent": 90.0}


@pytest.mark.parametrize(
    ("name", "is_hidden"),
    [
        ("cost_nusd:dear", True),
        ("cost_nusd:", True),
        ("allowance_nusd", True),
        ("objective:best", True),
        ("_nusd", True),
        ("task:cost", False),
        ("cost_nusds", False),
        ("my objective:best", False),
        ("nusd", False),
        ("", False),
    ],
)
def test_prices_allowances_and_what_is_asked_for_are_hidden(name, is_hidden):
    assert hidden(name) == is_hidden


def test_hidden_names_change_nothing_wherever_they_stand_and_whatever_they_hold():
    rng = np.random.default_rng(5)
    plain, priced = Features(12), Features(12)
    for number in range(60):
        names = list(rng.permutation([f"f{i}" for i in range(6)] if number % 3 else [f"g{number % 5}", "f1"]))
        context = {str(name): float(rng.normal()) for name in names}
        if number % 7 == 0:
            context["embedding"] = (0.5, -0.5)
        beside = dict(PRICES, **({"cost_nusd:odd": (math.nan, 1.0)} if number % 4 == 0 else {}))
        mixed = {**beside, **context} if number % 2 else {**context, **beside}
        for _ in range(2):  # as a new form, and as the usual one
            x = plain.vector(context)
            assert priced.vector(mixed).tobytes() == x.tobytes()
            plain.learn(context)
            priced.learn(mixed)
            assert priced.names == plain.names


def test_a_context_of_hidden_names_alone_is_the_constant():
    features = Features(5)
    for _ in range(3):
        assert features.vector(PRICES).tolist() == [1.0]
        features.learn(PRICES)
    assert features.names == ()
    features.learn({"a": 1.0})
    assert features.vector(PRICES).tolist() == [1.0, 0.0]


def test_hidden_names_take_no_room():
    features = Features(1)
    features.learn({**{f"cost_nusd:{number}": 1.0 for number in range(50)}, "z": 2.0})
    assert features.names == (("z", 0),)


def test_a_usual_form_whose_feature_or_price_becomes_a_tuple_is_still_read():
    features = Features(5)
    features.learn({"a": 1.0, "allowance_nusd": 9.0})
    assert features.vector({"a": 3.0, "allowance_nusd": (9.0, 9.0)}).tolist() == [1.0, 3.0]
    assert features.vector({"a": (3.0, 4.0), "allowance_nusd": 9.0}).tolist() == [1.0, 3.0, 4.0]
    features.learn({"a": (3.0, 4.0), "allowance_nusd": 9.0})
    assert features.names == (("a", 0), ("a", 1))
    assert features.vector({"a": 5.0, "allowance_nusd": 9.0}).tolist() == [1.0, 5.0, 0.0]


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


def test_finite_leaves_plain_numbers_and_tuples_of_them_as_they_are():
    embedding = tuple(np.linspace(-1.0, 1.0, 64).tolist())
    found = finite({"embedding": embedding, "log_chars": 0.5, "none": ()})
    assert found == {"embedding": embedding, "log_chars": 0.5, "none": ()}
    assert found["embedding"] is embedding
    for bad, good in (
        (math.nan, 0.0),
        (math.inf, 0.0),
        (np.float64(0.5), 0.5),
        (True, 1.0),
        ("x", 0.0),
        (1e300, 1e300),
    ):
        mixed = finite({"embedding": (*embedding, bad), "log_chars": bad})
        assert mixed == {"embedding": (*embedding, good), "log_chars": good}
        assert {type(mixed["log_chars"]), *map(type, mixed["embedding"])} == {float}
