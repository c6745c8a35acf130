"""The harm clock: after how many of its calls a harmful canary is out, and how often a healthy one is.

Calls come one by one, one in ten goes to the candidate, and after each call each guardrail is asked. A harmful variant
is out at the first alarm; a healthy one should never be.

- quality: `graded` values are Beta with mean 0.8 and standard deviation 0.2, harmed 0.72 and 0.2; `binary` ones are 1
  with chance 0.8, harmed 0.72. latency: lognormal with sigma 0.5, harmed 1.5 times as long; `wide`: sigma 1. errors:
  one call in a hundred, harmed five.
- `rollback_requests_median`, `_p90`: quality (graded) and latency harmed; `_wide`: binary quality, wide latency.
  `rollback_quality_median` and `rollback_quality_binary_median`: quality alone; `rollback_errors_median`: errors alone;
  `rollback_late_median`: as the first, after 500 canary requests that were fine. Requests are the candidate's.
- `false_rollback_per_20k`: share of healthy canaries out within 20,000 requests, the highest of: all as above; quality
  falls from 0.95 to 0.55 while latencies and errors triple, in steady drift, and by the hour; latencies of a Pareto law
  without a mean, and one answer in fifty stalls. Each beside `false_rollback_<which>`.
- `update_us`: CPU time of a value and the question after it, per metric: the least of the rounds.

Guardrails are quality, latency and errors, and share a chance of 0.03. The peer `best_possible` knows both
rates beforehand: log(1 / alpha) over the Kullback-Leibler distance, which no test gets below on average (Wald 1945).
The peer `windows` is a canary tool's rule: out where, in a window of 50 canary requests, a mean is worse than that of
the baseline's requests meanwhile by a twentieth (quality), a quarter (latency), or 2 points (errors).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.common import Figures
from windlass.stats.trials.effects import Floats
from windlass.stats.trials.harm import Harm

SHARE = 0.1
ALPHA = 0.03
METRICS = ("quality", "latency", "errors")
CALLS = 20_000
FINE = 5_000
WINDOW = 50
ROUNDS = 200
BOUNDS = {
    "rollback_requests_median": "<= 50",
    "rollback_requests_p90": "<= 95",
    "rollback_quality_median": "<= 155",
    "rollback_errors_median": "<= 260",
    "false_rollback_per_20k": "<= 0.03",
    "update_us": "<= 3",
}
Drawn = tuple[Floats, Floats, Floats]
"""Quality, latency and error of each call, did it go to one variant."""
World = Callable[[np.random.Generator, int], tuple[Drawn, Drawn]]
"""So many calls, as the baseline would answer them, and as the candidate."""


@dataclass(frozen=True)
class Harmed:
    """What is wrong with the candidate, and how values are spread. from_call: fine before."""

    quality: float = 0.8
    slower: float = 1.0
    errors: float = 0.01
    binary: bool = False
    sigma: float = 0.5
    from_call: int = 0

    def __call__(self, rng: np.random.Generator, n: int) -> tuple[Drawn, Drawn]:
        baseline = self._drawn(rng, n, 0.8, 1.0, 0.01)
        if self.from_call:
            fine = self._drawn(rng, self.from_call, 0.8, 1.0, 0.01)
            bad = self._drawn(rng, n - self.from_call, self.quality, self.slower, self.errors)
            quality, latency, errors = (np.concatenate(both) for both in zip(fine, bad, strict=True))
            return baseline, (quality, latency, errors)
        return baseline, self._drawn(rng, n, self.quality, self.slower, self.errors)

    def _drawn(self, rng: np.random.Generator, n: int, quality: float, slower: float, errors: float) -> Drawn:
        values = (rng.random(n) < quality).astype(float) if self.binary else graded(rng, np.full(n, quality))
        return values, slower * rng.lognormal(0.0, self.sigma, n), (rng.random(n) < errors).astype(float)


def graded(rng: np.random.Generator, means: Floats) -> Floats:
    """Beta values with these means, and standard deviation 0.2."""
    strength = means * (1.0 - means) / 0.04 - 1.0
    drawn: Floats = rng.beta(means * strength, (1.0 - means) * strength)
    return drawn


def drifting(rng: np.random.Generator, n: int, *, hours: int = 1) -> tuple[Drawn, Drawn]:
    """Both get worse, from start to end or within each hour, alike."""
    course = (np.arange(n) * hours / n) % 1.0

    def drawn() -> Drawn:
        latency = (1.0 + 2.0 * course) * rng.lognormal(0.0, 0.5, n)
        # A standard deviation of 0.2 is too much for a Beta law near 1.
        quality = (rng.random(n) < 0.95 - 0.4 * course).astype(float)
        return quality, latency, (rng.random(n) < 0.01 * (1.0 + 2.0 * course)).astype(float)

    return drawn(), drawn()


def heavy(rng: np.random.Generator, n: int) -> tuple[Drawn, Drawn]:
    """Latencies without a mean, and some that stall."""

    def drawn() -> Drawn:
        latency = (1.0 + rng.pareto(0.9, n)) * np.where(rng.random(n) < 0.02, 100.0, 1.0)
        return graded(rng, np.full(n, 0.8)), latency, (rng.random(n) < 0.01).astype(float)

    return drawn(), drawn()


BOTH = Harmed(quality=0.72, slower=1.5)
HARMFUL: dict[str, Harmed] = {
    "requests": BOTH,
    "requests_wide": Harmed(quality=0.72, slower=1.5, binary=True, sigma=1.0),
    "quality": Harmed(quality=0.72),
    "quality_binary": Harmed(quality=0.72, binary=True),
    "errors": Harmed(errors=0.05),
    "late": Harmed(quality=0.72, slower=1.5, from_call=FINE),
}
HEALTHY_WORLDS: dict[str, World] = {
    "plain": Harmed(),
    "binary": Harmed(binary=True, sigma=1.0),
    "drift": drifting,
    "hourly": lambda rng, n: drifting(rng, n, hours=40),
    "heavy": heavy,
}


def measure(figures: Figures, seed: int, *, quick: bool) -> None:
    """Everything above, into `figures`."""
    rng = np.random.default_rng(seed)
    runs, healthy = (60, 6) if quick else (1_000, 400)
    for name, harmed in HARMFUL.items():
        after = np.array([_out(rng, harmed, harmed.from_call) for _ in range(runs)])
        figures.metrics[f"rollback_{name}_median"] = float(np.median(after))
        figures.metrics[f"rollback_{name}_p90"] = float(np.quantile(after, 0.9))
    highest, windows = 0.0, 0.0
    for name, world in HEALTHY_WORLDS.items():
        rolled_back = float(np.mean([_out(rng, world, 0) < math.inf for _ in range(healthy)]))
        figures.metrics[f"false_rollback_{name}"] = rolled_back
        highest = max(highest, rolled_back)
        windows = max(windows, float(np.mean([_by_windows(rng, world) for _ in range(healthy)])))
    figures.metrics["false_rollback_per_20k"] = highest
    figures.metrics["update_us"] = _update_us(rng)
    chance = math.log(len(METRICS) / ALPHA)
    figures.peers["best_possible"] = {
        "rollback_quality_binary_median": chance / _distance(0.72, 0.8),
        "rollback_errors_median": chance / _distance(0.05, 0.01),
    }
    figures.peers["windows"] = {"false_rollback_per_20k": windows}
    figures.notes.append(
        "A quality of 1 or 0 that falls from 0.80 to 0.72 is found later than one in grades, by whatever test."
    )


def _guardrails() -> list[Harm]:
    return [Harm("bounded", -1), Harm("ranked", 1), Harm("bounded", 1)]


def _out(rng: np.random.Generator, world: World, fine: int) -> float:
    """After how many requests of the candidate, of those after the first `fine` calls, it is out; infinity: never."""
    baseline, candidate = world(rng, CALLS)
    coins = (rng.random(CALLS) < SHARE).tolist()
    values = list(zip(*(np.where(coins, c, b).tolist() for b, c in zip(baseline, candidate, strict=True)), strict=True))
    guardrails, alpha = _guardrails(), ALPHA / len(METRICS)
    for number, (mine, told) in enumerate(zip(coins, values, strict=True)):
        for harm, value in zip(guardrails, told, strict=True):
            if mine:
                harm.note_candidate(value, SHARE)
            else:
                harm.note_baseline(value, SHARE)
            if harm.alarmed(alpha):
                return float(sum(coins[fine : number + 1])) if number >= fine else 0.0
    return math.inf


def _by_windows(rng: np.random.Generator, world: World) -> bool:
    """Whether a canary tool's rule rolls back."""
    baseline, candidate = world(rng, CALLS)
    coins = rng.random(CALLS) < SHARE
    ends = np.flatnonzero(coins)[WINDOW - 1 :: WINDOW] + 1
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        mine = coins[start:end]
        (q_b, l_b, e_b), (q_c, l_c, e_c) = (
            [float(metric[start:end][chosen].mean()) for metric in drawn]
            for drawn, chosen in ((baseline, ~mine), (candidate, mine))
        )
        if q_c < 0.95 * q_b or l_c > 1.25 * l_b or e_c > e_b + 0.02:
            return True
    return False


def _distance(p: float, q: float) -> float:
    """Kullback-Leibler, of a rate of `p` from one of `q`."""
    return p * math.log(p / q) + (1.0 - p) * math.log((1.0 - p) / (1.0 - q))


def _update_us(rng: np.random.Generator) -> float:
    """The mean over the kinds of the least of the rounds."""
    coins = (rng.random(1_000) < SHARE).tolist()
    drawn, _ = Harmed()(rng, len(coins))
    least = [math.inf] * len(METRICS)
    for _ in range(ROUNDS):
        for place, (harm, values) in enumerate(zip(_guardrails(), drawn, strict=True)):
            told = list(zip(coins, values.tolist(), strict=True))
            started = time.process_time()
            for mine, value in told:
                if mine:
                    harm.note_candidate(value, SHARE)
                else:
                    harm.note_baseline(value, SHARE)
                harm.alarmed(ALPHA)
            least[place] = min(least[place], time.process_time() - started)
    return sum(least) / len(least) / len(coins) * 1e6
