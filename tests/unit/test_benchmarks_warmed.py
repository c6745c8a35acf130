"""A warm start in the routing benchmark: what the policy is told beside its own choices, and that it helps it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from benchmarks import routing_streams
from benchmarks.routing_sets import RoutingSet, lexical
from benchmarks.routing_streams import Contender, play, stream

RNG = np.random.default_rng(4)
ROWS, K = 240, 3


@pytest.fixture(scope="module")
def on():
    """The first model is cheap and never good, the second one good, the third one dear."""
    embeddings = RNG.normal(size=(ROWS, 384))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    quality = np.tile([0.0, 1.0, 0.0], (ROWS, 1))
    cost = np.tile([1e4, 5e4, 1e6], (ROWS, 1)) * RNG.uniform(0.5, 1.5, (ROWS, K))
    prompts = tuple(f"why {number}" for number in range(ROWS))
    words = tuple(map(lexical, prompts))
    whole = RoutingSet("pareto", ("a", "b", "c"), prompts, embeddings, quality, cost, cost * 0 + 5e4, words)
    return stream(whole, 0, 0, fitted=80)


class Spy:
    """A policy that always takes the first model, and keeps what it was told."""

    name, version = "spy", 1

    def __init__(self):
        self.learned, self.spent = [], []

    def choose(self, context, actions, rng):
        return routing_streams.Choice(actions[0], 1.0, "")

    def learn(self, decision, reward, previous):
        self.learned.append((decision, reward))

    def spend(self, decision, cost_nusd, previous):
        self.spent.append((decision, cost_nusd))


def test_the_first_prompts_tell_of_every_model_and_the_others_of_one(monkeypatch, on):
    spy = Spy()
    monkeypatch.setattr(routing_streams.registry, "make", lambda name, options: spy)
    play(Contender("spy", "spy"), on, replace(on.world, warm=2, budget_nusd=1e5), 7)
    assert len(spy.learned) == len(spy.spent) == ROWS + 2 * (K - 1)
    first = spy.learned[:K]
    assert [decision.action for decision, _ in first] == ["a", "b", "c"]
    assert [value for _, value in first] == [0.0, 1.0, 0.0]
    assert [cost for _, cost in spy.spent[:K]] == on.world.cost_nusd[0].tolist()
    own, *forced = (decision for decision, _ in first)
    assert own.actions == ("a", "b", "c")
    for decision in forced:
        assert (decision.actions, decision.propensity, decision.policy) == ((decision.action,), 1.0, own.policy)
        assert decision.context == {name: value for name, value in own.context.items() if name != "allowance_nusd"}
    assert len({decision.id for decision, _ in spy.learned}) == len(spy.learned)


def test_a_policy_that_was_told_of_all_models_takes_the_good_one_sooner(on):
    """No chance in it: the seed is fixed, and 60 prompts told of leave no doubt between 0 and 1."""
    ours = Contender("ours", "joint_thompson")
    cold, warm = (play(ours, on, replace(on.world, warm=count), 7) for count in (0, 60))
    assert (warm[:60] == 1).mean() > (cold[:60] == 1).mean()
    assert (warm[60:] == 1).mean() > 0.95


def test_without_one_nothing_changes(on):
    ours = Contender("ours", "joint_thompson")
    assert np.array_equal(play(ours, on, on.world, 7), play(ours, on, replace(on.world, warm=0), 7))
