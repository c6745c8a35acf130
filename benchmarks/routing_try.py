"""One policy of the registry on the streams of the routing benchmark, while it is being written or tuned.

    OMP_NUM_THREADS=1 python -m benchmarks.routing_try joint_thompson --kinds utilities gaps --sets mmlu gsm8k \
        --orders 2 --options '{"alpha": 0.1}'

Kinds: utilities, gaps (mmlu, gsm8k), permuted (mmlu), budgeted (llmrouter, pareto), laddered (llmrouter), drifted,
joined. Prints the mean over the orders and the seconds; `--most 1000` cuts the streams short.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import routing_gaps, routing_runs, routing_sets
from benchmarks.routing_runs import Where
from benchmarks.routing_streams import FITTED, Contender
from windlass.policies.policy import DEFAULT_SHARE


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


KINDS: dict[str, Callable[[Where, Contender], Mapping[str, Any]]] = {
    "utilities": routing_runs.utilities,
    "alone": _alone,
    "gaps": routing_gaps.gaps,
    "permuted": routing_gaps.permuted,
    "budgeted": _budgeted,
    "laddered": routing_runs.laddered,
    "drifted": routing_runs.drifted,
    "joined": routing_runs.joined,
}

if __name__ == "__main__":
    sys.exit(main())
