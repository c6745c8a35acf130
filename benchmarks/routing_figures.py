"""From the numbers of all runs to the figures and their targets."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.common import Figures
from benchmarks.routing_metrics import cost_keeping
from benchmarks.routing_runs import Numbers
from benchmarks.routing_sets import SETS

LINUCB, FULL = "linucb_pca25", "full_information"
STILL = "ours_without_walk"
LITTLE = 0.1
"""Headroom below this is named."""
EPSILON = ("decaying_epsilon", "linear_epsilon")
BOUNDS = {
    "gap_closed_mmlu": ">= 0.50",
    "gap_closed_gsm8k": ">= 0.55",
    "utility_mean": ">= 0.76",
    "utility_over_best_peer": ">= 0.08",
    "utility_worst": ">= 0.58",
    "regret_cut_llmrouter": ">= 0.16",
    "budget7_over_hull_pareto": ">= 0.004",
    "budget7_over_hull_llmrouter": ">= 0.015",
    "overshoot_max": "<= 0.01",
    "utilisation_min": ">= 0.97",
    "cost_at_95_llmrouter": "<= 0.25",
    "permuted_apgr_mmlu_off": "<= 0.02",
    "decide_p50_us": "<= 40",
    "decide_p99_us": "<= 150",
    "update_p50_us": "<= 300",
    "policy_mb": "<= 4",
    "route_ms": "<= 0.15",
    "drift_gain": ">= 0.043",
    "new_model_adopted_share": ">= 1",
}


@dataclass
class Results:
    """The numbers of every run: kind -> set -> one dict an order; budgeted: contender -> set -> rows of one order."""

    runs: dict[str, dict[str, list[Numbers]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    budgeted: dict[str, dict[str, list[list[Numbers]]]] = field(default_factory=dict)
    speed: Numbers = field(default_factory=dict)

    def values(self, kind: str, name: str, metric: str) -> list[float]:
        """A number of each order; none where it was not measured."""
        return [found[metric] for found in self.runs[kind][name] if metric in found]

    def names(self, kind: str, prefix: str) -> list[str]:
        """Who has numbers `prefix name` in any set."""
        found = {key for runs in self.runs[kind].values() for one in runs for key in one if key.startswith(prefix)}
        return sorted(key.removeprefix(prefix) for key in found)


def figures(results: Results, ours: str) -> Figures:
    """Everything that the results allow; what was not run is absent."""
    made = Figures()
    _utilities(made, results, ours)
    _gaps(made, results, ours)
    _budgets(made, results, ours)
    _costs(made, results)
    _changes(made, results, ours)
    made.metrics |= results.speed
    for name, bound in BOUNDS.items():
        if name in made.metrics:
            made.target(name, bound)
    return made


def put(made: Figures, name: str, values: Sequence[float]) -> None:
    """The mean over the orders as a metric, with the deviation between them; nothing where there are none."""
    known = [value for value in values if math.isfinite(value)]
    if known:
        made.metrics[name] = float(np.mean(known))
    if len(known) > 1:
        made.spread[name] = float(np.std(known, ddof=1))


def _utilities(made: Figures, results: Results, ours: str) -> None:
    """By set, their mean and the worst; of each peer too. The spread of the mean is that of one order of each set."""
    kind = "utilities"
    for contender in results.names(kind, "reach "):
        into = made if contender == ours else Figures()
        for name in SETS:
            put(into, f"utility_{name}", results.values(kind, name, f"reach {contender}"))
        means = [into.metrics[f"utility_{name}"] for name in SETS if f"utility_{name}" in into.metrics]
        if len(means) == len(SETS):
            into.metrics |= {"utility_mean": float(np.mean(means)), "utility_worst": min(means)}
        deviations = [into.spread[f"utility_{name}"] for name in SETS if f"utility_{name}" in into.spread]
        if len(deviations) == len(SETS):
            into.spread["utility_mean"] = float(np.sqrt(np.square(deviations).sum())) / len(SETS)
        if contender != ours:
            made.peers[contender] = into.metrics
    known = ("best_fixed", FULL)
    online = {name: found["utility_mean"] for name, found in made.peers.items() if "utility_mean" in found}
    best = max((mean for name, mean in online.items() if name not in known), default=math.nan)
    if math.isfinite(best) and "utility_mean" in made.metrics:
        made.metrics["utility_best_peer"] = best
        made.metrics["utility_over_best_peer"] = made.metrics["utility_mean"] - best
    _headroom(made)
    _regret(made, results, ours)


def _headroom(made: Figures) -> None:
    """What the best fixed model leaves of the reachable utility: no router can win more by reading prompts."""
    for name in SETS:
        fixed = made.peers.get("best_fixed", {}).get(f"utility_{name}", math.nan)
        if math.isfinite(fixed):
            left = made.metrics[f"headroom_{name}"] = 1.0 - fixed
            if left < LITTLE:
                made.notes.append(
                    f"{name} has almost no headroom: its best fixed model reaches {fixed:.1%} of what a router that "
                    "has seen every label would."
                )


def _regret(made: Figures, results: Results, ours: str) -> None:
    """The share by which regret is less than epsilon-greedy's: of the better one of both kinds, each on its own too."""
    mine = results.values("utilities", "llmrouter", f"regret {ours}")
    cuts = []
    for name in EPSILON:
        theirs = results.values("utilities", "llmrouter", f"regret {name}")
        if mine and theirs:
            cuts.append([1.0 - left / right for left, right in zip(mine, theirs, strict=True)])
            put(made, f"regret_cut_llmrouter_{name}", cuts[-1])
    if cuts:
        put(made, "regret_cut_llmrouter", min(cuts, key=lambda cut: float(np.mean(cut))))


def _gaps(made: Figures, results: Results, ours: str) -> None:
    for name in ("mmlu", "gsm8k"):
        for late in ("", "_last_third"):
            area = {who: results.values("gaps", name, f"apgr{late} {who}") for who in (ours, LINUCB, FULL)}
            put(made, f"apgr_{name}{late}", area[ours])
            for who in (LINUCB, FULL):
                if area[who]:
                    made.peers.setdefault(who, {})[f"apgr_{name}{late}"] = float(np.mean(area[who]))
            if all(area.values()):
                mine, lower, upper = (float(np.mean(area[who])) for who in (ours, LINUCB, FULL))
                made.metrics[f"gap_closed_{name}{late}"] = (mine - lower) / (upper - lower)
                # Of an order's own gap the deviation would be that of a ratio of two small numbers.
                spread = np.std(np.array(area[ours]) - np.array(area[LINUCB]), ddof=1) if len(area[ours]) > 1 else 0.0
                made.spread[f"gap_closed_{name}{late}"] = float(spread) / (upper - lower)
    put(made, "permuted_apgr_mmlu", results.values("permuted", "mmlu", f"apgr {ours}"))
    if "permuted_apgr_mmlu" in made.metrics:
        made.metrics["permuted_apgr_mmlu_off"] = abs(made.metrics["permuted_apgr_mmlu"] - 0.5)


def _budgets(made: Figures, results: Results, ours: str) -> None:
    for contender, sets in results.budgeted.items():
        into = made if contender == ours else Figures()
        for name, orders in sets.items():
            for metric, against in (("", ""), ("_over_hull", "hull"), ("_over_hull_paid", "hull_paid")):
                means = [float(np.mean([row["quality"] - row.get(against, 0.0) for row in rows])) for rows in orders]
                put(into, f"budget7{metric}_{name}", means)
            for number in range(len(orders[0])):
                put(into, f"budget{number + 1}_quality_{name}", [rows[number]["quality"] for rows in orders])
                put(into, f"budget{number + 1}_used_{name}", [rows[number]["used"] for rows in orders])
                over = [rows[number]["quality"] - rows[number]["hull"] for rows in orders]
                put(into, f"budget{number + 1}_over_hull_{name}", over)
            if contender == ours:
                hull = float(np.mean([row["hull"] for rows in orders for row in rows]))
                made.peers.setdefault("static_hull", {})[f"budget7_{name}"] = hull
        _held(into, [row for orders in sets.values() for rows in orders for row in rows])
        if contender != ours:
            made.peers.setdefault(contender, {}).update(into.metrics)


def _held(into: Figures, rows: Sequence[Mapping[str, float]]) -> None:
    """The largest overshoot and the least utilisation of any run whose budget is at least twice the cheapest model."""
    mine = [row for row in rows if row["at_least_twice"]]
    if mine:
        into.metrics["overshoot_max"] = max(row["used"] for row in mine) - 1.0
    bound = [row["used"] for row in mine if row["binds"]]
    if bound:
        into.metrics["utilisation_min"] = min(bound)


def _costs(made: Figures, results: Results) -> None:
    """Cost at 95 % of the best model's quality; an order in which no budget keeps it counts as its full price."""
    for kind, name in (("laddered", "llmrouter"), ("gaps", "mmlu")):
        found = []
        for one in results.runs[kind][name]:
            costs = [value for key, value in one.items() if key.startswith("cost_at_95 ")]
            qualities = [value for key, value in one.items() if key.startswith("quality_at_95 ")]
            reached = cost_keeping(0.95, costs, qualities)
            found.append(reached if math.isfinite(reached) else 1.0)
        put(made, f"cost_at_95_{name}", found)


def _changes(made: Figures, results: Results, ours: str) -> None:
    """Reachable utility after the drop, and whether a model that joins is adopted: by set and over all."""
    for contender in results.names("drifted", "drift "):
        into = made if contender == ours else Figures()
        for name in SETS:
            put(into, f"drift_utility_{name}", results.values("drifted", name, f"drift {contender}"))
            put(into, f"new_model_adopted_{name}", results.values("joined", name, f"adopted {contender}"))
            put(into, f"new_model_share_{name}", results.values("joined", name, f"share {contender}"))
        for metric, mean in (("drift_utility", "drift_utility"), ("new_model_adopted", "new_model_adopted_share")):
            parts = [into.metrics[f"{metric}_{name}"] for name in SETS if f"{metric}_{name}" in into.metrics]
            if parts:
                into.metrics[mean] = float(np.mean(parts))
        if contender != ours:
            made.peers.setdefault(contender, {}).update(into.metrics)
    still = made.peers.get(STILL, {})
    if "drift_utility" in still and "drift_utility" in made.metrics:
        made.metrics["drift_gain"] = made.metrics["drift_utility"] - still["drift_utility"]
