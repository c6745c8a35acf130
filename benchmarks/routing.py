"""Routing: what the policy of the registry makes of real prompts and real answers, online, from zero labels.

    python -m benchmarks.routing --data ../shared/data/routing [--quick] [--json]
    python -m benchmarks.routing_try joint_thompson --kinds utilities gaps --sets gsm8k   # one part of it, any policy

Five sets, each in several seeded orders: more orders of the small ones, whose figures differ more between orders. The
learner gets the prompt's features and the models' prices, answers a model, and sees one reward (routing_streams.py);
its 2 % of randomised choices count in every figure. Peers run on the same streams: of the registry (UCB1, decaying
epsilon with and without a context, LinUCB and LinTS on 25 principal components; without a randomised share) and of
others (routing_peers.py). Metrics are means over the orders, spreads the deviation between orders.

Full-information router and static hull are references that see what no live system sees (routing_reference.py). LinUCB
knows no budget; for APGR it is held to each share of strong calls by the rank of its lead among the last 256 calls.
Cost at 95 % of the best model's quality is of the whole stream, for mmlu in the dollars of the runs for APGR. Regret is
against the best model of each prompt in hindsight, cut against the better epsilon-greedy. Budgets count over the whole
stream, `_over_hull` is at the budget and `_over_hull_paid` at what the second half really paid; a budget binds where
the router would spend more without one. Drift is measured after the drop, `drift_gain` against the same policy without
its random walk. A model counts as adopted if in the last quarter it gets at least half of what the full-information
router gives it. `--quick` cuts every stream to 1,200 calls, so that less can be learned than in the full run, and takes
fewer shares and steps.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import routing_figures, routing_gaps, routing_peers, routing_runs, routing_sets, routing_speed
from benchmarks.common import Figures, Options, run
from benchmarks.peers import PeerMissing
from benchmarks.routing_figures import Results
from benchmarks.routing_peers import Played
from benchmarks.routing_runs import Where
from benchmarks.routing_sets import SETS
from benchmarks.routing_streams import OURS

WORKERS = 2
ORDERS = {"llmrouter": 5, "mmlu": 5, "gsm8k": 20, "pareto": 10, "zero7": 10}
QUICK = {"llmrouter": 1, "mmlu": 1, "gsm8k": 2, "pareto": 1, "zero7": 1}
QUICK_CALLS = 1_200
KINDS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "utilities": (routing_runs.utilities, SETS),
    "gaps": (routing_gaps.gaps, ("mmlu", "gsm8k")),
    "permuted": (routing_gaps.permuted, ("mmlu",)),
    "laddered": (routing_runs.laddered, ("llmrouter",)),
    "drifted": (routing_runs.drifted, SETS),
    "joined": (routing_runs.joined, SETS),
    "budgeted": (routing_runs.budgeted, ("llmrouter", "pareto")),
}
"""What is run, and on which sets."""


@dataclass(frozen=True)
class Plan:
    """Which orders of which set, and how much of them."""

    folder: Path
    seed: int
    quick: bool

    def wheres(self, name: str) -> list[Where]:
        """Every order of a set."""
        orders = (QUICK if self.quick else ORDERS)[name]
        most = QUICK_CALLS if self.quick else 0
        return [Where(self.folder, name, order, self.seed, most) for order in range(orders)]


def measure(options: Options) -> Figures:
    """All runs in two processes, then the time of single calls alone."""
    plan = Plan(_folder(options), options.seed, options.quick)
    results = Results()
    # The workers inherit it: two processes with threads of their own for small matrices wait for each other.
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with ProcessPoolExecutor(WORKERS, get_context("spawn")) as pool:
        theirs = _theirs(plan, pool)
        _ours(plan, pool, results)
        for found in filter(None, map(_answer, theirs)):
            for name, runs in found.runs.items():
                results.runs["utilities"][name] += runs
            if found.budgeted:
                results.budgeted[found.peer] = found.budgeted
        results.speed = pool.submit(routing_speed.measured, plan.wheres("llmrouter")[0], OURS).result()
    made = routing_figures.figures(results, OURS.name)
    made.notes += [f"{name}: {', '.join(routing_sets.load(plan.folder, name).models)}." for name in SETS]
    return made


def _folder(options: Options) -> Path:
    """The folder of the sets: `--data` itself, or `routing` in it."""
    own = options.data.resolve()
    return own if (own / "routellm_mmlu.meta.json").exists() else options.path("routing").resolve()


def _ours(plan: Plan, pool: ProcessPoolExecutor, results: Results) -> None:
    """Submit everything, the longest first, and gather it in the order in which it was submitted."""
    waiting: list[tuple[str, str, Future[Any]]] = []
    for kind, (work, sets) in reversed(KINDS.items()):
        for name in sets:
            waiting += [(kind, name, pool.submit(work, where, OURS)) for where in plan.wheres(name)]
    for kind, name, future in waiting:
        if kind == "budgeted":
            results.budgeted.setdefault(OURS.name, {}).setdefault(name, []).append(future.result())
        else:
            results.runs[kind][name].append(future.result())


def _theirs(plan: Plan, pool: ProcessPoolExecutor) -> list[Future[Played]]:
    """Submit every peer whose environment is there or can be made."""
    wheres = [where for name in SETS for where in plan.wheres(name)]
    paced = [where for name in KINDS["budgeted"][1] for where in plan.wheres(name)]
    waiting = []
    for peer in routing_peers.PEERS:
        missing = routing_peers.ready(peer)
        if missing:
            print(f"routing: {peer.name} is not measured: {missing}", file=sys.stderr)
        else:
            waiting.append(pool.submit(routing_peers.played, peer, wheres, paced if peer.budgets else ()))
    return waiting


def _answer(future: Future[Played]) -> Played | None:
    """What a peer did; nothing where it failed, which is said and stops no other."""
    try:
        return future.result()
    except (PeerMissing, TimeoutExpired) as exc:
        print(f"routing: a peer is not measured: {exc}", file=sys.stderr)
        return None


if __name__ == "__main__":
    sys.exit(run("routing", measure))
