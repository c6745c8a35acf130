"""The curve of prices: what a price would have cost, and which price keeps an allowance or a quality."""

from __future__ import annotations

import numpy as np
import pytest

from windlass.stats.pacing import Curve, curve


def window(rows=256, seed=0):
    """Requests with a cheap, a middling and a dear action, the dear one worth it to a varying degree."""
    rng = np.random.default_rng(seed)
    quality = np.clip(rng.normal([0.6, 0.7, 0.8], 0.15, (rows, 3)), 0.0, 1.0)
    cost = np.array([1e4, 1e5, 1e6]) * rng.uniform(0.5, 1.5, (rows, 3))
    return quality, cost, np.ones((rows, 3), bool)


def spent(quality, cost, price):
    taken = np.argmax(quality - price * cost, axis=1)
    rows = np.arange(len(taken))
    return cost[rows, taken].mean(), quality[rows, taken].mean()


@pytest.mark.parametrize("allowance", [3e4, 1e5, 2e5, 4e5])
def test_the_price_for_an_allowance_spends_it(allowance):
    quality, cost, eligible = window()
    found = curve(quality, quality, cost, eligible)
    price = found.price_within(allowance)
    assert spent(quality, cost, price)[0] == pytest.approx(allowance, rel=0.1)


def test_the_best_mix_for_the_money_is_taken_not_the_cheapest():
    """At an allowance between two actions the window earns at least what a random mix of the fixed ones would."""
    quality, cost, eligible = window()
    price = curve(quality, quality, cost, eligible).price_within(3e5)
    paid, earned = spent(quality, cost, price)
    means, costs = quality.mean(axis=0), cost.mean(axis=0)
    share = (paid - costs[0]) / (costs[2] - costs[0])
    assert earned > (1 - share) * means[0] + share * means[2] + 0.05


def test_the_ends():
    quality, cost, eligible = window()
    found = curve(quality, quality, cost, eligible)
    assert found.price_within(1e9) == 0.0
    assert spent(quality, cost, found.price_within(0.0))[0] == pytest.approx(cost.min(axis=1).mean())
    assert found.price_keeping(0.0) == found.prices[-1]
    assert found.price_keeping(1.0) == 0.0


def test_costs_and_qualities_fall_as_the_price_rises():
    found = curve(*(window(64, 3)[index] for index in (0, 0, 1, 2)))
    assert list(found.prices) == sorted(found.prices)
    assert list(found.costs_nusd) == sorted(found.costs_nusd, reverse=True)
    assert list(found.qualities) == sorted(found.qualities, reverse=True)


@pytest.mark.parametrize("percent", [90, 95, 99])
def test_the_price_for_a_quality_keeps_it_and_saves(percent):
    quality, cost, eligible = window()
    found = curve(quality, quality, cost, eligible)
    reference = max(mean for _, mean in found.best)
    paid, earned = spent(quality, cost, found.price_keeping(reference * percent / 100.0))
    assert earned >= reference * percent / 100.0 - 0.01
    assert paid < cost.mean(axis=0)[2]


def test_what_is_not_eligible_is_never_taken():
    quality, cost, eligible = window()
    eligible[:, 2] = False
    quality[:, 2] = 9.0
    found = curve(quality, quality, cost, eligible)
    assert max(found.qualities) <= 1.0
    assert [column for column, _ in found.best] == [0, 1]


def test_one_action_or_equal_ones_have_one_price():
    assert curve(np.ones((3, 1)), np.ones((3, 1)), np.ones((3, 1)), np.ones((3, 1), bool)).prices == (0.0,)
    same = np.full((3, 2), 0.5)
    found = curve(same, same, same, np.ones((3, 2), bool))
    assert found.price_within(0.0) == found.price_keeping(1.0) == 0.0


def test_an_allowance_on_a_step_is_met_between_two_prices():
    found = Curve((0.0, 1.0, 2.0), (10.0, 6.0, 2.0), (0.9, 0.8, 0.5), ((0, 0.9),))
    assert found.price_within(8.0) == 0.5
    assert found.price_within(6.0) == 1.0
    assert found.price_keeping(0.65) == pytest.approx(1.5)


@pytest.mark.parametrize("seed", range(5))
def test_the_cost_at_a_price_lies_on_a_line_between_its_neighbours_and_ends_at_the_ends(seed):
    quality, cost, eligible = window(seed=seed)
    found = curve(quality, quality, cost, eligible)
    prices = np.random.default_rng(seed).uniform(0.0, 1.2 * found.prices[-1], 100)
    expected = np.interp(prices, found.prices, found.costs_nusd)
    assert [found.cost_nusd(price) for price in prices] == pytest.approx(expected.tolist(), rel=1e-12)
    assert found.cost_nusd(-1.0) == found.costs_nusd[0]
    for price in found.prices:
        assert found.cost_nusd(price) == found.costs_nusd[found.prices.index(price)]
        assert found.cost_nusd(found.price_within(found.cost_nusd(price))) <= found.cost_nusd(price) * (1 + 1e-12)
