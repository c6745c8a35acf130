"""What the routing benchmark measures with: its areas, budgets, references, and what a learner is told."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from benchmarks import routing_gaps, routing_metrics, routing_reference, routing_runs, routing_sets, routing_streams
from benchmarks.peers import playing
from benchmarks.routing_figures import BOUNDS, Results, figures
from benchmarks.routing_metrics import Point, apgr, cost_keeping, point, ranked, reachable, regret, spent
from benchmarks.routing_sets import RoutingSet, expected, lexical
from benchmarks.routing_streams import Contender, World, play, stream

RNG = np.random.default_rng(3)
ROWS, K = 300, 3


@pytest.fixture
def whole():
    """A small set: the first number of the embedding says which of two models is good; the third is good at nothing."""
    embeddings = RNG.normal(size=(ROWS, 384)) * np.where(np.arange(384) == 0, 20.0, 1.0)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    good = embeddings[:, 0] > 0.0
    quality = np.column_stack([good, ~good, np.zeros(ROWS)]).astype(float)
    cost = np.tile([1e4, 5e4, 1e6], (ROWS, 1)) * RNG.uniform(0.5, 1.5, (ROWS, K))
    prompts = tuple(f"why {'x' * int(length)}" for length in RNG.integers(1, 200, ROWS))
    words = tuple(map(lexical, prompts))
    return RoutingSet("pareto", ("a", "b", "c"), prompts, embeddings, quality, cost, cost * 0 + 5e4, words)


@pytest.fixture
def on(whole):
    return stream(whole, 0, 0, fitted=80)


class Spy:
    """A policy that takes its models in turn and keeps what it was told."""

    name, version = "spy", 1

    def __init__(self):
        self.asked, self.learned, self.spent = [], [], []

    def choose(self, context, actions, rng):
        self.asked.append((dict(context), tuple(actions), rng.random()))
        action = actions[len(self.asked) % len(actions)]
        return routing_streams.Choice(action, 1.0 / len(actions), "")

    def learn(self, decision, reward, previous):
        self.learned.append((decision.action, reward, previous))


class Spending(Spy):
    def spend(self, decision, cost_nusd, previous):
        self.spent.append(cost_nusd)


def played(monkeypatch, spy, on, world):
    monkeypatch.setattr(routing_streams.registry, "make", lambda name, options: spy)
    return play(Contender("spy", "spy"), on, world, 7)


def test_the_area_of_chance_is_a_half_and_of_certainty_more():
    assert apgr([Point(share, share) for share in (0.1, 0.4, 0.75)]) == pytest.approx(0.5)
    assert apgr([Point(0.5, 1.0)]) == pytest.approx(0.75)
    # The order of the runs does not matter, and a share that was missed counts where it really was.
    assert apgr([Point(0.8, 0.9), Point(0.2, 0.5)]) == pytest.approx(0.05 + 0.42 + 0.19)


def test_a_point_is_the_share_of_strong_calls_and_of_the_gap():
    quality = np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    assert point(quality, np.array([1, 0, 0, 0])) == Point(0.25, 0.5)
    assert point(quality, np.array([0, 0, 0, 1])) == Point(0.25, 0.0)


def test_ranking_takes_the_largest_scores():
    assert ranked(np.array([0.1, 0.9, 0.5, 0.7]), 0.5).tolist() == [0, 1, 0, 1]


def test_reach_is_zero_for_chance_and_one_for_the_better_of_both_references():
    utility = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    best = np.array([1, 0, 1])
    assert reachable(utility, best, best) == pytest.approx(1.0)
    assert reachable(utility, np.array([1, 1, 1]), np.array([0, 0, 0])) == pytest.approx(1.0)
    assert reachable(utility, np.array([0, 1, 0]), best) == pytest.approx(-1.0)
    assert regret(utility, np.array([1, 1, 1])) == pytest.approx(1 / 3)


def test_the_hull_mixes_and_never_pays_for_less():
    quality, cost = np.array([0.5, 0.4, 0.9]), np.array([1.0, 2.0, 5.0])
    found = [routing_reference.hull(quality, cost, budget) for budget in (0.5, 1.0, 3.0, 5.0, 9.0)]
    assert found == pytest.approx([0.5, 0.5, 0.7, 0.9, 0.9])


def test_a_run_under_a_budget_is_judged_by_its_second_half_and_all_its_money():
    quality, cost = np.array([[0.0, 1.0]] * 4), np.array([[1.0, 3.0]] * 4)
    found = spent(quality, cost, np.array([0, 0, 1, 0]), 2.0)
    assert (found.quality, found.hull, found.hull_paid) == (0.5, 0.5, 0.5)
    assert found.used == pytest.approx(6.0 / 8.0)


def test_the_cost_of_a_quality_lies_between_the_runs_around_it():
    assert cost_keeping(0.95, [0.3, 0.1, 0.2], [1.0, 0.8, 0.9]) == pytest.approx(0.25)
    assert cost_keeping(0.95, [0.1, 0.2], [0.96, 0.99]) == 0.1
    assert math.isnan(cost_keeping(0.95, [0.1, 0.2], [0.8, 0.9]))


def test_prices_follow_the_length_where_cost_does(whole):
    chars = np.array([len(prompt) for prompt in whole.prompts], float)
    cost = np.column_stack([100.0 + 7.0 * chars, RNG.uniform(1.0, 2.0, ROWS), 500.0 - chars])
    found = expected(cost, whole.prompts)
    assert found[:, 0] == pytest.approx(cost[:, 0])
    assert found[:, 1] == pytest.approx(cost[:, 1].mean())
    assert found[:, 2] == pytest.approx(cost[:, 2].mean())


def test_nothing_of_the_future_is_in_a_context(whole):
    """The basis is that of the first prompts: what comes later changes no context before it."""
    one = stream(whole, 0, 0, fitted=80)
    later = whole.embeddings.copy()
    later[one.rows[200:]] *= -1.0
    other = stream(replace(whole, embeddings=later), 0, 0, fitted=80)
    assert one.contexts["full"][:200] == other.contexts["full"][:200]
    assert one.contexts["components"][:200] == other.contexts["components"][:200]
    assert all("embedding" not in context for context in one.contexts["full"][:80])
    assert len(one.contexts["full"][80]["embedding"]) == 64
    assert not np.any(one.components[:80])


def test_orders_differ_and_are_the_same_again(whole):
    assert stream(whole, 0, 0).rows.tolist() == stream(whole, 0, 0).rows.tolist()
    assert stream(whole, 0, 0).rows.tolist() != stream(whole, 1, 0).rows.tolist()
    assert sorted(stream(whole, 1, 5).rows) == list(range(ROWS))
    assert len(stream(whole, 0, 0, most=40).rows) == 40


def test_a_learner_is_told_the_utility_of_its_choice_alone(monkeypatch, on):
    spy, world = Spy(), replace(on.world, quality_per_nusd=1e-6)
    chosen = played(monkeypatch, spy, on, world)
    told = [reward for _, reward, _ in spy.learned]
    assert told == pytest.approx(routing_metrics.taken(world.utility, chosen))
    assert not any("_nusd" in name for context, _, _ in spy.asked for name in context)
    assert {previous for _, _, previous in spy.learned} == {None}
    # Each call has a generator of its own.
    assert len({drawn for _, _, drawn in spy.asked}) == ROWS


def test_one_that_learns_costs_is_told_quality_cost_and_what_may_be_spent(monkeypatch, on):
    spy = Spending()
    world = routing_streams.paced(on, 4e5)
    chosen = played(monkeypatch, spy, on, world)
    paid = routing_metrics.taken(world.cost_nusd, chosen)
    assert spy.spent == pytest.approx(paid)
    assert [reward for _, reward, _ in spy.learned] == routing_metrics.taken(world.quality, chosen).tolist()
    left = np.maximum(4e5 * ROWS - np.concatenate([[0.0], paid.cumsum()[:-1]]), 0.0)
    allowances = [context["allowance_nusd"] for context, _, _ in spy.asked]
    assert allowances == pytest.approx(left / (ROWS - np.arange(ROWS)))
    assert spy.asked[0][0]["cost_nusd:b"] == 5e4


def test_a_model_cannot_be_chosen_before_it_joins(monkeypatch, on):
    spy = Spy()
    played(monkeypatch, spy, on, replace(on.world, joined=(0, 100, 0)))
    assert {actions for _, actions, _ in spy.asked[:100]} == {("a", "c")}
    assert {actions for _, actions, _ in spy.asked[100:]} == {("a", "b", "c")}


def test_the_full_information_router_learns_what_is_in_the_prompts(whole):
    found = routing_reference.fitted(whole).quality[:, :2].argmax(axis=1)
    assert (found == whole.quality.argmax(axis=1)).mean() > 0.9


def test_linucb_is_held_to_its_share_of_strong_calls(whole):
    two = replace(
        whole, models=("a", "b"), quality=whole.quality[:, :2], cost_nusd=whole.cost_nusd[:, :2],
        price_nusd=whole.price_nusd[:, :2],
    )  # fmt: skip
    on = stream(two, 0, 0, fitted=80)
    for share in (0.1, 0.5, 0.9):
        chosen = routing_gaps.ranked_online(routing_runs.LINUCB, on, on.world.quality, share, 1)
        assert chosen.mean() == pytest.approx(share, abs=0.02)


def test_a_real_policy_of_the_registry_learns_on_a_stream(on):
    """Seeded; chance reaches a third of the calls."""
    chosen = play(Contender("eps", "epsilon_greedy", {"epsilon": 0.2}, "components"), on, on.world, 1)
    assert routing_metrics.taken(on.world.quality, chosen)[200:].mean() > 0.45


def test_a_world_prices_quality():
    world = World(np.array([[1.0]]), np.array([[2.0]]), np.array([[2.0]]), (0,), quality_per_nusd=0.25)
    assert world.utility.tolist() == [[0.5]]


def test_figures_are_absent_where_nothing_was_run():
    made = figures(Results(), "ours")
    assert not made.metrics
    assert not made.targets


def test_figures_name_the_best_online_peer_and_the_gap_that_was_closed():
    results = Results()
    for name in routing_sets.SETS:
        results.runs["utilities"][name] += [
            {"reach ours": 0.8, "reach one": 0.5, "reach best_fixed": 0.99, "regret ours": 0.1},
            {"reach ours": 0.6, "reach one": 0.7, "reach best_fixed": 0.99, "regret ours": 0.1},
        ]
    results.runs["gaps"]["mmlu"].append({"apgr ours": 0.6, "apgr linucb_pca25": 0.55, "apgr full_information": 0.65})
    made = figures(results, "ours")
    assert made.metrics["utility_mean"] == pytest.approx(0.7)
    assert made.metrics["utility_best_peer"] == pytest.approx(0.6)
    assert made.metrics["utility_over_best_peer"] == pytest.approx(0.1)
    assert made.metrics["gap_closed_mmlu"] == pytest.approx(0.5)
    assert set(made.targets) <= set(BOUNDS)
    assert made.targets["utility_worst"] == ">= 0.58"


def test_a_peer_answers_every_stream_of_its_file(tmp_path, monkeypatch):
    asked, answered = tmp_path / "in.json", tmp_path / "out.json"
    asked.write_text(json.dumps([{"id": "one", "x": [1, 2]}, {"id": "two", "x": [3]}]))
    monkeypatch.setattr(playing.sys, "argv", ["peer.py", str(asked), str(answered)])
    playing.serve(lambda stream: [0] * len(stream["x"]))
    answers = json.loads(answered.read_text())
    assert {name: one["chosen"] for name, one in answers.items()} == {"one": [0, 0], "two": [0]}


def test_little_headroom_is_said() -> None:
    """A set whose best fixed model reaches nearly all that is reachable is named, from what was measured alone."""
    results = Results()
    for name, fixed in (("mmlu", 0.5), ("zero7", 0.95)):
        results.runs["utilities"][name] = [{"reach best_fixed": fixed, "reach ours": 0.4}]
    made = figures(results, "ours")
    assert made.metrics["headroom_mmlu"] == pytest.approx(0.5)
    assert [note.split()[0] for note in made.notes] == ["zero7"]
    assert "95.0%" in made.notes[0]
