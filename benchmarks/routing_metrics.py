"""The figures of routing, from what was chosen: reachable utility, the area under recovered gap, budgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.routing_reference import hull
from benchmarks.routing_sets import STRONG, WEAK

Chosen = NDArray[np.intp]
Table = NDArray[np.float64]


def taken(table: Table, chosen: Chosen) -> Table:
    """(n,) of `table: (n, k)`: the entry of the model chosen in each call."""
    return np.asarray(table[np.arange(len(chosen)), chosen], np.float64)


def reachable(utility: Table, chosen: Chosen, informed: Chosen) -> float:
    """(U - U_random) / (max(best fixed model, full-information router) - U_random), all means over these calls."""
    random = utility.mean()
    top = max(float(utility.mean(axis=0).max()), float(taken(utility, informed).mean()))
    return float((taken(utility, chosen).mean() - random) / (top - random))


def regret(utility: Table, chosen: Chosen) -> float:
    """A call's utility below that of its best model in hindsight, on average."""
    return float((utility.max(axis=1) - taken(utility, chosen)).mean())


@dataclass(frozen=True)
class Point:
    """One run of a paced router: its share of strong calls, and the share of the quality gap that it recovered."""

    share: float
    recovered: float


def point(quality: Table, chosen: Chosen) -> Point:
    """Of `quality: (n, 2)`, the weak model first. Ong et al., "RouteLLM", 2024, equation 5 (PGR)."""
    weak, strong = quality.mean(axis=0)
    return Point(float((chosen == STRONG).mean()), float((taken(quality, chosen).mean() - weak) / (strong - weak)))


def apgr(points: Sequence[Point]) -> float:
    """Area under recovered gap over the share of strong calls, by straight lines from (0, 0) to (1, 1): random 0.5.

    Each point stands at the share that was really spent. Ong et al. 2024, equation 6, there with equal steps.
    """
    ends = sorted([(0.0, 0.0), *((at.share, at.recovered) for at in points), (1.0, 1.0)])
    shares, recovered = np.array(ends).T
    return float(np.trapezoid(recovered, shares))


def ranked(score: Table, share: float) -> Chosen:
    """The strong model for the `share` of the calls with the largest score: (n,). Knows the whole stream."""
    count = round(share * len(score))
    chosen = np.full(len(score), WEAK, np.intp)
    chosen[np.argsort(-score, kind="stable")[:count]] = STRONG
    return chosen


@dataclass(frozen=True)
class Spent:
    """One run under a budget: what it was, quality of the second half and what the hull has there, the money.

    used: of the whole budget, at the end. hull_paid: the hull at what the second half really cost.
    """

    budget_nusd: float
    quality: float
    hull: float
    hull_paid: float
    used: float


def spent(quality: Table, cost: Table, chosen: Chosen, budget_nusd: float) -> Spent:
    """Of `quality, cost: (n, k)`; the hull knows the means of the second half."""
    half = len(chosen) // 2
    good, paid = taken(quality, chosen), taken(cost, chosen)
    means, costs = quality[half:].mean(axis=0), cost[half:].mean(axis=0)
    return Spent(
        budget_nusd,
        float(good[half:].mean()),
        hull(means, costs, budget_nusd),
        hull(means, costs, float(paid[half:].mean())),
        float(paid.mean() / budget_nusd),
    )


def cost_keeping(share: float, costs: Sequence[float], qualities: Sequence[float]) -> float:
    """The lowest cost at which quality reaches `share` (both as shares of the best model's), by straight lines.

    costs, qualities: of runs under rising budgets, at least two. NaN where none reaches it.
    """
    order = np.argsort(costs)
    cost, quality = np.asarray(costs)[order], np.maximum.accumulate(np.asarray(qualities)[order])
    above = np.flatnonzero(quality >= share)
    if not len(above):
        return float("nan")
    at = int(above[0])
    if at == 0:
        return float(cost[0])
    step = (share - quality[at - 1]) / (quality[at] - quality[at - 1])
    return float(cost[at - 1] + step * (cost[at] - cost[at - 1]))
