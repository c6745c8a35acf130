"""What routing adds to a call, beside the default policy: `cpu_us_joint` and `cpu_us_embed`.

`cpu_us_joint`: CPU microseconds of a call at 32 connections under the policy `joint_thompson`, with all of its routing
but the embedder (so the lexical features alone), less those of the same call under `linear_thompson`, round by round.
`cpu_us_embed`: of one short prompt through the embedder, beside that.
"""

from __future__ import annotations

import sys
import time

from benchmarks.common import Figures, Options, run
from benchmarks.contenders import Contender, Home
from benchmarks.gateway_bench import FULL, OURS, QUICK, note, prepared
from benchmarks.rounds import PLAIN, Bench, Plan
from windlass.memory import embedder
from windlass.settings import load as settings

JOINT = "joint_thompson"
PROMPT = "Why does a windlass turn only one way?"


def joint(figures: Figures, bench: Bench, ours: Contender, plan: Plan, seed: int) -> None:
    """Both gateways turn by turn, on one core."""
    other = Home(bench.folder / JOINT, bench.upstream.port, policy=JOINT).up(JOINT, [bench.on.gateway])
    try:
        pair = Bench(bench.upstream, bench.on, bench.folder, [ours, other])
        seen = pair.rounds(plan, (), (PLAIN,))
    finally:
        other.stop()
    both = zip(seen[JOINT, PLAIN], seen[ours.name, PLAIN], strict=True)
    figures.mean("cpu_us_joint", [with_it.cpu_us - without.cpu_us for with_it, without in both], seed)


def embedding(figures: Figures) -> None:
    """The embedder by itself, in this process."""
    if not embedder.available():
        note("cpu_us_embed is absent: the extra `embeddings` is not installed")
        return
    model = embedder.load(settings(environ={}).cache.expanduser(), cached_texts=0)
    for _ in range(20):
        model.embed([PROMPT])
    began = time.process_time()
    for _ in range(200):
        model.embed([PROMPT])
    figures.metrics["cpu_us_embed"] = (time.process_time() - began) / 200 * 1e6


def measure(options: Options) -> Figures:
    figures, plan = Figures(), QUICK if options.quick else FULL
    with prepared() as bench:
        ours = Home(bench.folder / OURS, bench.upstream.port).up(OURS, [bench.on.gateway])
        try:
            joint(figures, bench, ours, plan, options.seed)
        finally:
            ours.stop()
    embedding(figures)
    return figures


if __name__ == "__main__":
    sys.exit(run("gateway_routed", measure))
