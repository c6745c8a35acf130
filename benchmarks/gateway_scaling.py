"""Two workers of the gateway on one tenant and one PostgreSQL: `scaling_2_workers`, their answers a second over one's.

Two cores are the workers', the other two are PostgreSQL's, the load's and the upstream's, which limits what there is to
gain. Part of `python -m benchmarks.gateway`, or by itself.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack

from tests.scenario.postgres import Postgres, binary

from benchmarks import load
from benchmarks.common import Figures, Options, run
from benchmarks.contenders import Home
from benchmarks.gateway_bench import OURS, note, prepared
from benchmarks.machine import pin, prefer
from benchmarks.rounds import Bench

CALLS, TURNS = 1_500, 3
CALLS_QUICK, TURNS_QUICK = 600, 1


def scaling(figures: Figures, options: Options) -> None:
    """Turn by turn, each number of workers on a database of its own."""
    try:
        binary("postgres")
    except AssertionError as exc:
        note(f"scaling_2_workers is absent: {exc}")
        return
    if len(os.sched_getaffinity(0)) < 4:
        note("scaling_2_workers is absent: it takes four cores")
        return
    calls, turns = (CALLS_QUICK, TURNS_QUICK) if options.quick else (CALLS, TURNS)
    ratios = []
    with prepared() as bench, ExitStack() as stack:
        server = Postgres()
        server.start()
        stack.callback(server.stop)
        pin(server.pid, sorted({bench.on.load, bench.on.upstream}))
        prefer(server.pid)
        for turn in range(turns):
            one, two = (_rate(bench, server.create(), f"{turn}-{count}", count, calls) for count in (1, 2))
            note(f"answers/s on PostgreSQL with 1 and 2 workers: {one:.0f}, {two:.0f}")
            ratios.append(two / one)
    figures.mean("scaling_2_workers", ratios, options.seed)
    figures.target("scaling_2_workers", ">= 1.5")


def _rate(bench: Bench, url: str, name: str, count: int, calls: int) -> float:
    home = Home(bench.folder / name, bench.upstream.port, database_url=url)
    made = home.up(OURS, [bench.on.gateway, min(bench.on.rest)], "--workers", str(count))
    try:
        sending = made.request(1)
        load.drive(made.port, sending, calls // 5, 32)
        return load.drive(made.port, sending, calls, 32).rate
    finally:
        made.stop()


def measure(options: Options) -> Figures:
    figures = Figures()
    scaling(figures, options)
    return figures


if __name__ == "__main__":
    sys.exit(run("gateway_scaling", measure))
