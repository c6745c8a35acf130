"""What every benchmark shares: its arguments, its output and its exit status.

A benchmark is `run("name", measure)`, where `measure(options)` returns `Figures`. Exit status: 0 all targets hold,
1 one does not, 2 the benchmark could not run.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from windlass.errors import WindlassError

RESAMPLES = 2_000


class NotRunnable(Exception):
    """The benchmark cannot run here; the message says what it lacks."""


@dataclass(frozen=True)
class Options:
    """The arguments of a benchmark. `quick`: the same metrics on fewer orders, within a minute on two cores."""

    data: Path
    quick: bool
    json: bool
    seed: int

    def path(self, *parts: str) -> Path:
        """A file or folder of the data. NotRunnable where it is missing."""
        path = self.data.joinpath(*parts)
        if not path.exists():
            raise NotRunnable(f"{path} does not exist; give the folder of the data with --data")
        return path


@dataclass
class Figures:
    """What was measured. `spread` holds the standard deviation of a metric, `peers` the same metrics of others.

    notes: what a reader of the figures has to know, a sentence each."""

    metrics: dict[str, float] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)
    peers: dict[str, dict[str, float]] = field(default_factory=dict)
    targets: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def mean(self, name: str, values: ArrayLike, seed: int) -> None:
        """Add the mean of `values` as a metric; its spread is the bootstrap's standard deviation of that mean."""
        sample = np.asarray(values, np.float64)
        drawn = np.random.default_rng(seed).integers(0, len(sample), (RESAMPLES, len(sample)))
        self.metrics[name] = float(sample.mean())
        self.spread[name] = float(sample[drawn].mean(axis=1).std())

    def target(self, name: str, bound: str) -> None:
        """Promise a metric: `bound` is like `>= 0.77` or `<= 300`."""
        self.targets[name] = bound

    def holds(self, name: str) -> bool:
        """Whether the metric is there and keeps its bound; NaN keeps none."""
        sign, limit = self.targets[name].split()
        value = self.metrics.get(name, float("nan"))
        return value >= float(limit) if sign == ">=" else value <= float(limit)


def run(name: str, measure: Callable[[Options], Figures], arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit status."""
    options = _options(name, arguments)
    try:
        figures = measure(options)
    except (NotRunnable, WindlassError, OSError) as exc:
        print(f"{name}: could not run: {exc}", file=sys.stderr)
        return 2
    held = {target: figures.holds(target) for target in figures.targets}
    if options.json:
        print(msgspec.json.encode(_object(name, options, figures, held)).decode())
    else:
        print(_table(name, options, figures, held))
    return 0 if all(held.values()) else 1


def _options(name: str, arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog=f"benchmarks/{name}.py")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--quick", action="store_true", help="fewer orders, within a minute on two cores")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seed", type=int, default=0)
    return Options(**vars(parser.parse_args(arguments)))


def _object(name: str, options: Options, figures: Figures, held: dict[str, bool]) -> dict[str, object]:
    return {
        "benchmark": name,
        "seed": options.seed,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "data": str(options.data),
        "quick": options.quick,
        "metrics": figures.metrics,
        "spread": figures.spread,
        "peers": figures.peers,
        "targets": {target: {"bound": figures.targets[target], "holds": held[target]} for target in figures.targets},
        "notes": figures.notes,
    }


def _table(name: str, options: Options, figures: Figures, held: dict[str, bool]) -> str:
    peers = list(figures.peers)
    lines = [f"{name} (seed {options.seed}{', quick' if options.quick else ''})"]
    lines.append(f"{'metric':28}{'value':>12}{'spread':>10}" + "".join(f"{peer:>12}" for peer in peers) + "  target")
    for metric, value in figures.metrics.items():
        spread = f"{figures.spread[metric]:10.4f}" if metric in figures.spread else " " * 10
        beside = "".join(_cell(figures.peers[peer].get(metric)) for peer in peers)
        promise = (
            f"  {figures.targets[metric]} {'holds' if held[metric] else 'DOES NOT HOLD'}" if metric in held else ""
        )
        lines.append(f"{metric:28}{value:12.4f}{spread}{beside}{promise}")
    return "\n".join([*lines, *figures.notes])


def _cell(value: float | None) -> str:
    return " " * 12 if value is None else f"{value:12.4f}"
