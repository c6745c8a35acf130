"""The runs behind the figures: each takes a set in one order and answers with plain numbers. APGR: routing_gaps.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import routing_reference, routing_sets, routing_streams
from benchmarks.routing_metrics import Chosen, reachable, regret, spent, taken
from benchmarks.routing_streams import Contender, Stream, World, play

SHARES, SHARES_SHORT = tuple(share / 10 for share in range(1, 10)), (0.25, 0.5, 0.75)
"""Of strong calls; the short ones where a stream is cut."""
BUDGETS = 7
PARETO_USD = (2.9e-5, 1.5e-2)
LADDER = (0.12, 0.15, 0.18, 0.21, 0.25, 0.30, 0.40, 0.60)
"""Budgets as shares of the best model's mean cost, for the cost at 95 % of its quality."""
DROP = 0.6
LINUCB = Contender("linucb_pca25", "ucb", {"prior_precision": 1.0, "noise_variance": 1.0}, "components")
PEERS = (
    Contender("ucb1", "ucb1", view="nothing"),
    Contender("decaying_epsilon", "epsilon_greedy", {"epsilon": 1.0, "decay": 0.02, "max_features": 0}, "nothing"),
    Contender("linear_epsilon", "epsilon_greedy", {"epsilon": 1.0, "decay": 0.02}, "components"),
    LINUCB,
    Contender("lints_pca25", "linear_thompson", {}, "components"),
)
"""Policies of the registry that ours is compared with, without a randomised share of their own."""

Numbers = dict[str, float]


@dataclass(frozen=True)
class Where:
    """One set in one order. most: calls at most, 0 for all. fitted: prompts that make the bases."""

    folder: Path
    set: str
    order: int
    seed: int
    most: int = 0
    fitted: int = routing_streams.FITTED

    @property
    def shares(self) -> tuple[float, ...]:
        """Of strong calls, to which a router is paced for APGR."""
        return SHARES_SHORT if self.most else SHARES

    @property
    def key(self) -> int:
        """The seed of every draw of a run on it."""
        return self.seed * 1_000 + self.order


@lru_cache(maxsize=8)
def streamed(where: Where) -> Stream:
    """The stream, kept for the next run on it in this process."""
    whole = routing_sets.load(where.folder, where.set)
    return routing_streams.stream(whole, where.order, where.seed, where.most, where.fitted)


def informed(where: Where, world: World) -> Chosen:
    """What the full-information router chooses by utility, (n,), whatever has joined or not."""
    known = routing_reference.informed(where.folder, where.set)
    rows = streamed(where).rows
    choice = (known.quality[rows] - world.quality_per_nusd * known.cost_nusd[rows]).argmax(axis=1)
    return np.asarray(choice, np.intp)


def utilities(where: Where, ours: Contender, beside: Sequence[Contender] = PEERS) -> Numbers:
    """Reachable utility of each contender, and its regret."""
    on = streamed(where)
    world = on.world
    best = informed(where, world)
    found: Numbers = {}
    for contender in (ours, *beside):
        chosen = play(contender, on, world, where.key)
        found |= {f"reach {contender.name}": reachable(world.utility, chosen, best)}
        found |= {f"regret {contender.name}": regret(world.utility, chosen)}
    found["reach full_information"] = reachable(world.utility, best, best)
    fixed = np.full(len(best), world.utility.mean(axis=0).argmax())
    found["reach best_fixed"] = reachable(world.utility, np.asarray(fixed, np.intp), best)
    return found


def prices(on: Stream, runs: Sequence[Chosen]) -> Numbers:
    """Dollars and quality of each run over those of always taking the best model, whole stream."""
    world, best, found = on.world, on.set.best, {}
    for number, chosen in enumerate(runs):
        found[f"cost_at_95 {number}"] = taken(world.cost_nusd, chosen).mean() / world.cost_nusd[:, best].mean()
        found[f"quality_at_95 {number}"] = taken(world.quality, chosen).mean() / world.quality[:, best].mean()
    return {name: float(value) for name, value in found.items()}


def budgets_nusd(where: Where) -> NDArray[np.float64]:
    """Seven, log-spaced from the mean cost of the cheapest model to that of the dearest."""
    if where.set == "pareto":
        low, high = (usd * routing_sets.NUSD for usd in PARETO_USD)
    else:
        means = streamed(where).set.cost_nusd.mean(axis=0)
        low, high = float(means.min()), float(means.max())
    return np.geomspace(low, high, BUDGETS)


def budgeted(where: Where, ours: Contender) -> list[Numbers]:
    """One row for each of the seven budgets, see `row`."""
    on = streamed(where)
    paced = [routing_streams.paced(on, float(budget)) for budget in (0.0, *budgets_nusd(where))]
    free, *runs = [play(ours, on, world, where.key) for world in paced]
    spends = float(taken(on.world.cost_nusd, free).mean())
    return [row(where, chosen, world.budget_nusd, spends) for world, chosen in zip(paced[1:], runs, strict=True)]


def row(where: Where, chosen: Chosen, budget_nusd: float, spends_nusd: float = np.inf) -> Numbers:
    """What `routing_metrics.Spent` names, and whether the budget was needed.

    at_least_twice: the budget is at least twice what the cheapest model costs. binds: it is less than what the best
    fixed model costs, and less than what the full-information router and this one (spends_nusd a call, where it is
    known) spend without a budget.
    """
    world = streamed(where).world
    costs = world.cost_nusd.mean(axis=0)
    free = informed(where, replace(world, quality_per_nusd=0.0))
    best = float(costs[world.quality.mean(axis=0).argmax()])
    needed = min(best, float(taken(world.cost_nusd, free).mean()), spends_nusd)
    figures = asdict(spent(world.quality, world.cost_nusd, chosen, budget_nusd))
    twice, binds = float(budget_nusd >= 2.0 * costs.min()), float(budget_nusd < needed)
    return figures | {"at_least_twice": twice, "binds": binds}


def laddered(where: Where, ours: Contender) -> Numbers:
    """Cost and quality, as shares of the best model's, under rising budgets, whole stream."""
    on = streamed(where)
    dear = float(on.world.cost_nusd[:, on.set.best].mean())
    steps = LADDER[1::2] if where.most else LADDER
    return prices(on, [play(ours, on, routing_streams.paced(on, share * dear), where.key) for share in steps])


def drifted(where: Where, ours: Contender) -> Numbers:
    """Reachable utility after the drop of the best model, in the second half; of ours and the linear peers."""
    on = streamed(where)
    half, best = len(on.rows) // 2, on.set.best
    quality = on.world.quality.copy()
    quality[half:, best] *= DROP
    world = replace(on.world, quality=quality)
    known = routing_reference.informed(where.folder, where.set)
    foreseen = known.quality[on.rows].copy()
    foreseen[half:, best] *= DROP
    top = (foreseen - world.quality_per_nusd * known.cost_nusd[on.rows]).argmax(axis=1)
    found = {}
    # A policy without the option has no walk to leave out.
    options = {**ours.options, "walk_variance": 0.0}
    still = (replace(ours, name="ours_without_walk", options=options),) if ours.priced else ()
    for contender in (ours, *still, PEERS[0], LINUCB):
        chosen = play(contender, on, world, where.key)
        found[f"drift {contender.name}"] = reachable(world.utility[half:], chosen[half:], top[half:])
        found[f"drift_whole {contender.name}"] = reachable(world.utility, chosen, np.asarray(top, np.intp))
    return found


def joined(where: Where, ours: Contender) -> Numbers:
    """Whether a model that joins at mid-stream is adopted, and the reachable utility of the last quarter.

    It is the one that the full-information router takes most. Adopted: in the last quarter it gets at least half of the
    share that the full-information router gives it.
    """
    on = streamed(where)
    world = on.world
    best = informed(where, world)
    new = int(np.bincount(best, minlength=len(on.set.models)).argmax())
    late = 3 * len(on.rows) // 4
    since = tuple(len(on.rows) // 2 if place == new else 0 for place in range(len(on.set.models)))
    world = replace(world, joined=since)
    found = {"share informed": float((best[late:] == new).mean())}
    for contender in (ours, PEERS[0], LINUCB):
        chosen = play(contender, on, world, where.key)
        share = float((chosen[late:] == new).mean())
        found[f"share {contender.name}"] = share
        found[f"adopted {contender.name}"] = float(share >= found["share informed"] / 2.0)
        found[f"last_quarter {contender.name}"] = reachable(world.utility[late:], chosen[late:], best[late:])
    return found
