"""One policy of the registry on the streams of the routing benchmark, while it is being written or tuned.

    OMP_NUM_THREADS=1 python -m benchmarks.routing_try joint_thompson --kinds utilities gaps --sets mmlu gsm8k \
        --orders 2 --options '{"alpha": 0.1}'

Kinds: utilities, gaps (mmlu, gsm8k), permuted (mmlu), budgeted (llmrouter, pareto), laddered (llmrouter), drifted,
joined, warmed, warmed_paced (the first 300 prompts also go to every other model, as in a warm start). Prints the mean
over the orders and the seconds; `--most 1000` cuts the streams short.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import routing_gaps, routing_runs, routing_sets
from benchmarks.routing_metrics import Chosen, reachable, taken
from benchmarks.routing_runs import Where
from benchmarks.routing_streams import FITTED, Contender, World, paced, play
from windlass.policies.policy import DEFAULT_SHARE

WARMED, FIRST = 300, 500
BINDS = 1.0 / 3.0
"""A budget that binds on every set, of the best model's mean cost."""


def main() -> int:
    """Prints a table for each kind and set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy")
    parser.add_argument("--options", type=json.loads, default={})
    parser.add_argument("--view", default="full", choices=("full", "components", "nothing"))
    parser.add_argument("--share", type=float, default=DEFAULT_SHARE)
    parser.add_argument("--kinds", nargs="+", default=["utilities"], choices=sorted(KINDS))
    parser.add_argument("--sets", nargs="+", default=list(routing_sets.SETS), choices=routing_sets.SETS)
    parser.add_argument("--orders", type=int, default=2)
    parser.add_argument("--most", type=int, default=0)
    parser.add_argument("--fitted", type=int, default=FITTED, help="prompts that make the basis")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/routing"))
    given = parser.parse_args()
    priced = "quality_per_usd" if given.policy.startswith("joint") else ""
    ours = Contender("ours", given.policy, given.options, given.view, given.share, priced)
    for kind in given.kinds:
        for name in given.sets:
            began = time.perf_counter()
            found: dict[str, list[float]] = defaultdict(list)
            for order in range(given.orders):
                where = Where(given.data.resolve(), name, order, given.seed, given.most, given.fitted)
                for metric, value in KINDS[kind](where, ours).items():
                    found[metric].append(value)
            print(f"{kind} {name} ({time.perf_counter() - began:.1f} s)")
            for metric, values in found.items():
                print(f"  {metric:36}{np.mean(values):9.4f} +- {np.std(values):.4f}", flush=True)
    return 0


def _alone(where: Where, ours: Contender) -> Mapping[str, float]:
    return routing_runs.utilities(where, ours, ())


def _budgeted(where: Where, ours: Contender) -> Mapping[str, float]:
    rows = routing_runs.budgeted(where, ours)
    return {
        f"{row['budget_nusd'] / 1e9:.2e} {what}": row[what]
        for row in rows
        for what in ("quality", "hull", "hull_paid", "used", "binds")
    }


def _warmed(where: Where, ours: Contender) -> Mapping[str, float]:
    """Reachable utility of the first 500 calls and of all, with and without a warm start.

    paid: dollars of the extra answers over those of all calls without one.
    """
    on = routing_runs.streamed(where)
    utility, cost, first = on.world.utility, on.world.cost_nusd, slice(FIRST)
    best, found = routing_runs.informed(where, on.world), {}
    for name, chosen in _both(on.world, where, ours).items():
        found[f"first {name}"] = reachable(utility[first], chosen[first], best[first])
        found[f"whole {name}"] = reachable(utility, chosen, best)
        found[f"usd {name}"] = float(taken(cost, chosen).sum()) / routing_sets.NUSD
        beside = cost[:WARMED].sum() - taken(cost[:WARMED], chosen[:WARMED]).sum()
    found["usd of the extra answers"] = float(beside) / routing_sets.NUSD
    return found


def _warmed_paced(where: Where, ours: Contender) -> Mapping[str, float]:
    """Quality of the first 500 calls under a budget that binds, and what they spend of it, with and without one."""
    on = routing_runs.streamed(where)
    budget, found = BINDS * float(on.world.cost_nusd[:, on.set.best].mean()), {}
    for name, chosen in _both(paced(on, budget), where, ours).items():
        found[f"quality {name}"] = float(taken(on.world.quality, chosen)[:FIRST].mean())
        found[f"spent {name}"] = float(taken(on.world.cost_nusd, chosen)[:FIRST].mean() / budget)
    return found


def _both(world: World, where: Where, ours: Contender) -> dict[str, Chosen]:
    """What is chosen without a warm start, and with one."""
    worlds = {"cold": world, "warm": replace(world, warm=WARMED)}
    return {name: play(ours, routing_runs.streamed(where), each, where.key) for name, each in worlds.items()}


KINDS: dict[str, Callable[[Where, Contender], Mapping[str, Any]]] = {
    "utilities": routing_runs.utilities,
    "alone": _alone,
    "gaps": routing_gaps.gaps,
    "permuted": routing_gaps.permuted,
    "budgeted": _budgeted,
    "laddered": routing_runs.laddered,
    "drifted": routing_runs.drifted,
    "joined": routing_runs.joined,
    "warmed": _warmed,
    "warmed_paced": _warmed_paced,
}

if __name__ == "__main__":
    sys.exit(main())
