"""Routers of others on the same streams: each in an environment of its own, over a file, with the same order."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import routing_metrics, routing_runs
from benchmarks.contenders import LITELLM
from benchmarks.peers import ROOT, PeerMissing, environment
from benchmarks.routing_runs import Numbers, Where
from benchmarks.routing_sets import NUSD

SCRIPTS = ROOT / "benchmarks" / "peers"
LONGEST_S = 1_800.0
READ_CHARS = 2_000
"""LiteLLM's classifier reads no more of a prompt."""


@dataclass(frozen=True)
class Peer:
    """A router of others. home: its environment. budgets: whether it can hold one."""

    name: str
    script: str
    home: str
    requirements: tuple[str, ...]
    budgets: bool = False


PEERS = (
    Peer("mabwiser_linucb", "mabwiser_linucb.py", "mabwiser", ("mabwiser==2.7.4",)),
    Peer("vw_squarecb", "vowpal_squarecb.py", "vowpalwabbit", ("vowpalwabbit==9.11.9",)),
    Peer("pareto_bandit", "pareto_bandit_router.py", "paretobandit", ("paretobandit==0.1.1",), budgets=True),
    Peer("litellm_adaptive", "litellm_adaptive.py", "litellm", LITELLM),
)


def ready(peer: Peer) -> str:
    """Make the peer's environment where it is missing; what went wrong in words, or nothing."""
    try:
        environment(peer.home, peer.requirements)
    except PeerMissing as exc:
        return str(exc)
    return ""


@dataclass
class Played:
    """Of one peer: reachable utility, regret and microseconds by set, one dict an order; its rows under budgets."""

    peer: str
    runs: dict[str, list[Numbers]]
    budgeted: dict[str, list[list[Numbers]]]


def played(peer: Peer, wheres: Sequence[Where], paced: Sequence[Where]) -> Played:
    """All streams in one process, for starting it takes seconds. paced: those that are also played under budgets."""
    budgets = [(where, float(budget)) for where in paced for budget in routing_runs.budgets_nusd(where)]
    asked = [(where, 0.0) for where in wheres] + budgets
    answers = _answers(peer, [_stream(where, peer, budget) for where, budget in asked])
    found = Played(peer.name, {}, {})
    for where, (chosen, seconds) in zip(wheres, answers, strict=False):
        found.runs.setdefault(where.set, []).append(_figures(peer, where, chosen, seconds))
    rows = [
        routing_runs.row(where, chosen, budget)
        for (where, budget), (chosen, _) in zip(budgets, answers[len(wheres) :], strict=True)
    ]
    for number, where in enumerate(paced):
        mine = rows[number * routing_runs.BUDGETS : (number + 1) * routing_runs.BUDGETS]
        found.budgeted.setdefault(where.set, []).append(mine)
    return found


def _figures(peer: Peer, where: Where, chosen: routing_metrics.Chosen, seconds: float) -> Numbers:
    world = routing_runs.streamed(where).world
    reach = routing_metrics.reachable(world.utility, chosen, routing_runs.informed(where, world))
    regret = routing_metrics.regret(world.utility, chosen)
    call_us = 1e6 * seconds / len(chosen)
    return {f"reach {peer.name}": reach, f"regret {peer.name}": regret, f"us {peer.name}": call_us}


def _stream(where: Where, peer: Peer, budget_nusd: float) -> dict[str, Any]:
    on = routing_runs.streamed(where)
    world = on.world
    x = np.column_stack([on.components, np.ones(len(on.rows))])
    scale = np.append(on.scale, 1.0)
    reads_words = peer.name == "litellm_adaptive"
    return {
        "id": f"{where.set} {where.order} {budget_nusd:.0f}",
        "seed": where.key,
        "models": list(on.set.models),
        "x": [] if reads_words else x.round(6).tolist(),
        "scale": scale.tolist(),
        "quality": world.quality.tolist(),
        "cost_usd": (world.cost_nusd / NUSD).tolist(),
        "price_usd": (world.price_nusd.mean(axis=0) / NUSD).tolist(),
        "reward": world.utility.tolist(),
        "quality_per_usd": world.quality_per_nusd * NUSD,
        "budget_usd": budget_nusd / NUSD,
        "prompts": [on.set.prompts[row][:READ_CHARS] for row in on.rows] if reads_words else [],
    }


def _answers(peer: Peer, streams: list[dict[str, Any]]) -> list[tuple[routing_metrics.Chosen, float]]:
    """What the peer chose on each stream, and its seconds. PeerMissing where it failed."""
    python = environment(peer.home, peer.requirements) / "python"
    with tempfile.TemporaryDirectory(prefix="windlass-routing-") as folder:
        asked, answered = Path(folder) / "streams.json", Path(folder) / "chosen.json"
        asked.write_text(json.dumps(streams))
        done = subprocess.run(
            [str(python), str(SCRIPTS / peer.script), str(asked), str(answered)],
            capture_output=True, text=True, timeout=LONGEST_S, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        if done.returncode:
            raise PeerMissing(f"{peer.name} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
        answers = json.loads(answered.read_text())
    return [
        (np.array(answers[stream["id"]]["chosen"], np.intp), answers[stream["id"]]["seconds"]) for stream in streams
    ]
