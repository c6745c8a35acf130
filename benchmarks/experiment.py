"""Experiments: false positives of tests that are looked at on the way, what they save, and figures of others.

- `aa_false_positive_max`: both variants alike, `ShipTest` looked at after each pattern of looks, for each kind of
  metric: the highest of (share of experiments that decide - 2 standard errors) over all cells. 10,000 experiments a
  cell; with --quick 2,000, on fewer patterns. Beside it the same experiments by an ordinary test at each look.
- `power_share_of_fixed`, `traffic_share`: rates of 0.80 against 0.85, as many units as one look needs for a power of
  0.8, ten looks: the share of the one look's power, and of its units, on average. `traffic_share_2x`: at twice the
  effect.
- `paired_requests_share`: calls of each variant until the decision where the same requests go through both, over those
  of two separate samples, where what both answers to a request are worth has a correlation of 0.8 and only "good or
  not" is seen. `paired_power_share`: how often the better variant is found then, over how often without pairs.
- `latency_samples_ratio`: units for the same power on the log scale, over those for the raw mean, by the variances of
  latencies that are lognormal (sigma 1), with one call in a hundred that stalls and takes ten times as long.
- `vectors_matched_share`: of the figures of scipy and statsmodels, those that come out the same to 1e-5.
- `boundary_ms`: fifty looks; `import_s`: CPU time of a process that imports the package, less that of one that does
  not import it.
- Rollbacks and `update_us`: `experiment_harm.py`.
"""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import special

from benchmarks import experiment_harm, experiment_vectors
from benchmarks.common import Figures, Options, run
from windlass.stats.trials import effects, planning
from windlass.stats.trials.effects import Effect, Floats
from windlass.stats.trials.means import moments
from windlass.stats.trials.ship import ShipPlan, ShipTest
from windlass.stats.trials.spending import boundaries

UNITS = 400
STALLED, STALL = 0.01, 10.0
CORRELATION = 0.8
LOOKS = {
    "one": (1.0,),
    "ten": tuple(k / 10 for k in range(1, 11)),
    "fifty": tuple(k / 50 for k in range(1, 51)),
    "early": (0.05, 0.1, 0.15, 0.2, 1.0),
    "beyond": (0.3, 0.7, 1.25),
}
QUICK_LOOKS = ("ten", "early")
BOUNDS = {
    "aa_false_positive_max": "<= 0.05",
    "power_share_of_fixed": ">= 0.97",
    "traffic_share": "<= 0.82",
    "traffic_share_2x": "<= 0.48",
    "paired_requests_share": "<= 0.62",
    "latency_samples_ratio": "<= 0.6",
    "boundary_ms": "<= 60",
    "import_s": "<= 0.3",
}
Draw = Callable[[np.random.Generator, int], tuple[Floats, Floats]]
"""Values and what stands beside them (a denominator, or a covariate) of so many units of one variant."""


def measure(options: Options) -> Figures:
    """Everything above."""
    figures = Figures()
    rng = np.random.default_rng(options.seed)
    _alike(figures, rng, quick=options.quick)
    _found(figures, rng, 4_000 if options.quick else 20_000)
    _paired(figures, rng, 1_000 if options.quick else 5_000)
    figures.metrics["latency_samples_ratio"] = _latency(rng)
    share, missed = experiment_vectors.matched(options.path("statistics", "scipy_statsmodels.json"))
    figures.metrics["vectors_matched_share"] = share
    figures.notes += missed
    started = time.process_time()
    for _ in range(5):
        boundaries(LOOKS["fifty"])
    figures.metrics["boundary_ms"] = (time.process_time() - started) * 200.0
    figures.metrics["import_s"] = _import_s("windlass.stats.trials.ship") - _import_s("math")
    experiment_harm.measure(figures, options.seed, quick=options.quick)
    for name, bound in (BOUNDS | experiment_harm.BOUNDS).items():
        figures.target(name, bound)
    return figures


def _alike(figures: Figures, rng: np.random.Generator, *, quick: bool) -> None:
    patterns = QUICK_LOOKS if quick else tuple(LOOKS)
    count = 2_000 if quick else 10_000
    worst, naive = -1.0, 0.0
    for metric, (draw, effect) in METRICS.items():
        for pattern in patterns:
            decided, peeked = np.mean([_experiment(rng, draw, effect, LOOKS[pattern]) for _ in range(count)], axis=0)
            figures.metrics[f"aa_{metric}_{pattern}"] = float(decided)
            worst = max(worst, float(decided) - 2.0 * math.sqrt(0.05 * 0.95 / count))
            naive = max(naive, float(peeked))
    figures.metrics["aa_false_positive_max"] = worst
    figures.peers["naive_peeking"] = {"aa_false_positive_max": naive}


def _experiment(
    rng: np.random.Generator, draw: Draw, effect: Callable[..., Effect], looks: tuple[float, ...]
) -> tuple[bool, bool]:
    """Whether a test of two variants that are alike decides; whether an ordinary one does, at any look."""
    last = math.ceil(UNITS * looks[-1])
    (y_a, x_a), (y_b, x_b) = draw(rng, last), draw(rng, last)
    test, peeked = ShipTest(ShipPlan(float(UNITS))), False
    for fraction in looks:
        n = round(UNITS * fraction)
        found = effect(y_a[:n], x_a[:n], y_b[:n], x_b[:n])
        test.look(float(n), found)
        peeked = peeked or effects.p_value(found) <= 0.05
    return test.state in ("better", "worse"), peeked


def _found(figures: Figures, rng: np.random.Generator, count: int) -> None:
    """Power and units of ten looks, against one look at the same units."""
    size = round(planning.size_for_rates(0.80, 0.05))
    for suffix, difference in (("", 0.05), ("_2x", 0.10)):
        ends = np.array([_ends(rng, size, difference) for _ in range(count)])
        shares, found, once = ends.T
        figures.metrics[f"traffic_share{suffix}"] = float(shares.mean())
        figures.spread[f"traffic_share{suffix}"] = float(shares.std() / math.sqrt(count))
        if not suffix:
            figures.metrics["power_share_of_fixed"] = float(found.mean() / once.mean())
            figures.spread["power_share_of_fixed"] = float((found - once).std() / math.sqrt(count) / once.mean())


def _ends(rng: np.random.Generator, size: int, difference: float) -> tuple[float, bool, bool]:
    """At which share of the units a test of rates with ten looks ends, whether it found that b is better, and whether
    one look at all of the same units did."""
    a, b = (rng.random(size) < 0.80).astype(float), (rng.random(size) < 0.80 + difference).astype(float)
    once = ShipTest(ShipPlan(float(size))).look(float(size), effects.means(moments(a), moments(b))) == "better"
    test = ShipTest(ShipPlan(float(size)))
    for look in range(1, 11):
        n = round(size * look / 10)
        if test.look(float(n), effects.means(moments(a[:n]), moments(b[:n]))) != "open":
            return n / size, test.state == "better", once
    return 1.0, False, once


def _paired(figures: Figures, rng: np.random.Generator, count: int) -> None:
    """Ten looks each, 0.80 against 0.85, planned for a power of 0.8 with what a trial run says of the pairs."""
    apart = round(planning.size_for_rates(0.80, 0.05))
    a, b = _answers(rng, 200_000, CORRELATION)
    together = round(planning.size_for_means(0.05 / (float((b - a).std()) / math.sqrt(2.0))))
    ends = {0.0: [_until(rng, apart, 0.0) for _ in range(count)]}
    ends[CORRELATION] = [_until(rng, together, CORRELATION) for _ in range(count)]
    (units, found), (pairs, found_paired) = (np.mean(one, axis=0) for one in ends.values())
    figures.metrics["paired_requests_share"] = float(pairs / units)
    figures.metrics["paired_power_share"] = float(found_paired / found)


def _answers(rng: np.random.Generator, n: int, correlation: float) -> tuple[Floats, Floats]:
    """Whether each answer is good: both are worth something normal, with this correlation, and good above a limit."""
    one = rng.normal(size=n)
    two = correlation * one + math.sqrt(1.0 - correlation**2) * rng.normal(size=n)
    limits = special.ndtri([0.20, 0.15])
    return (one > limits[0]).astype(float), (two > limits[1]).astype(float)


def _until(rng: np.random.Generator, size: int, correlation: float) -> tuple[int, bool]:
    """After how many calls of each variant the test ends, and whether it found that b is better; `correlation` > 0: the
    same requests through both."""
    a, b = _answers(rng, size, correlation)
    test = ShipTest(ShipPlan(float(size)))
    for look in range(1, 11):
        n = round(size * look / 10)
        found = effects.pairs(a[:n], b[:n]) if correlation else effects.means(moments(a[:n]), moments(b[:n]))
        if test.look(float(n), found) != "open":
            return n, test.state == "better"
    return size, False


def _latency(rng: np.random.Generator) -> float:
    """For a power of 0.8 at latencies that are 15 % longer: units on the log scale over units of the raw mean."""
    a = rng.lognormal(0.0, 1.0, 400_000) * np.where(rng.random(400_000) < STALLED, STALL, 1.0)
    raw = planning.size_for_means(0.15 * float(a.mean() / a.std()))
    return planning.size_for_means(math.log(1.15) / float(effects.logarithms(a, 1e-3).std())) / raw


def _import_s(module: str) -> float:
    """CPU time of a process that imports `module` and numpy, the least of five."""
    code = f"import numpy, time; t = time.process_time(); import {module}; print(time.process_time() - t)"
    return min(float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(5))


def _plain(draw: Callable[[np.random.Generator, int], Floats]) -> Draw:
    return lambda rng, n: (draw(rng, n), np.ones(n))


def _sessions(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    """Of so many users the satisfied calls and the calls: users differ, and so do the numbers of their calls."""
    calls: Floats = np.asarray(1.0 + rng.geometric(0.4, n), np.float64)
    return rng.binomial(calls.astype(np.int64), rng.beta(4.0, 1.0, n)).astype(float), calls


def _prompts(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    """Quality, and a covariate of the prompt that explains half of it."""
    x: NDArray[np.float64] = rng.normal(size=n)
    return np.asarray(0.7 * x + 0.7 * rng.normal(size=n), np.float64), x


def _of_means(y_a: Floats, _x_a: Floats, y_b: Floats, _x_b: Floats) -> Effect:
    return effects.means(moments(y_a), moments(y_b))


def _of_ratios(y_a: Floats, x_a: Floats, y_b: Floats, x_b: Floats) -> Effect:
    return effects.ratios(effects.sums(y_a, x_a), effects.sums(y_b, x_b))


METRICS: dict[str, tuple[Draw, Callable[..., Effect]]] = {
    "rate": (_plain(lambda rng, n: (rng.random(n) < 0.9).astype(float)), _of_means),
    "mean": (_plain(lambda rng, n: rng.beta(6.0, 2.0, n)), _of_means),
    "log_latency": (_plain(lambda rng, n: effects.logarithms(rng.lognormal(0.0, 1.5, n), 1e-3)), _of_means),
    "count": (_plain(lambda rng, n: rng.poisson(2.0, n).astype(float)), _of_means),
    "ratio": (_sessions, _of_ratios),
    "adjusted": (_prompts, effects.adjusted),
}


if __name__ == "__main__":
    sys.exit(run("experiment", measure))
