"""How the gateway's memory grows with the calls: `growth_mb_per_million`, from 200,000 calls at 32 connections.

Resident memory is the least of each block of samples, because a snapshot of what was learned takes tens of megabytes
for a moment; the growth is the slope of a straight line through those. Before it is measured, all has the size that it
keeps: the learner holds the 50,000 calls that feedback may still come for, and its table of them has been made anew, as
a Python dictionary of that many keys is once 87,000 were put into it. What that takes stands apart, `kept_calls_mb`.

It takes about eight minutes: part of `python -m benchmarks.gateway` without `--quick`, or by itself.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import ArrayLike

from benchmarks import load
from benchmarks.common import Figures, Options, run
from benchmarks.contenders import Contender, Home
from benchmarks.gateway_bench import OURS, note, prepared
from benchmarks.machine import rss_mb

WARM, COUNT, STEP, BLOCK = 110_000, 200_000, 2_000, 10
"""So many calls first, then so many that are measured, a sample after each step, a block of so many samples."""


def growth(figures: Figures, ours: Contender) -> None:
    """Resident memory over the calls."""
    sending, before = ours.request(1), rss_mb(ours.pid)
    load.drive(ours.port, sending, WARM, 32)
    sizes = []
    for _ in range(COUNT // STEP):
        load.drive(ours.port, sending, STEP, 32)
        sizes.append(rss_mb(ours.pid))
    least = np.array(sizes).reshape(-1, BLOCK).min(axis=1)
    figures.metrics["kept_calls_mb"] = float(least[0]) - before
    figures.metrics["growth_mb_per_million"] = slope(least, STEP * BLOCK) * 1e6
    figures.target("growth_mb_per_million", "<= 5")
    note(f"memory over {COUNT} requests: {', '.join(f'{size:.1f}' for size in least)} MB")


def slope(values: ArrayLike, step: float) -> float:
    """The least squares slope of `values: (n,)`, n >= 2, that are `step` apart."""
    y = np.asarray(values, np.float64)
    return float(np.polyfit(step * np.arange(len(y)), y, 1)[0])


def measure(options: Options) -> Figures:
    """The growth alone, the same with `--quick`: of fewer calls it says nothing."""
    figures = Figures()
    with prepared() as bench:
        ours = Home(bench.folder / OURS, bench.upstream.port).up(OURS, [bench.on.gateway])
        try:
            growth(figures, ours)
        finally:
            ours.stop()
    return figures


if __name__ == "__main__":
    sys.exit(run("gateway_growth", measure))
