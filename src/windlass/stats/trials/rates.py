"""Rates: intervals of one, tests and intervals of the difference of two.

Each interval says in its docstring when it may be trusted. Differences are b - a throughout.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special

Interval: TypeAlias = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Rate:
    """`hits` of `n` tries. ValueError where that cannot be."""

    hits: float
    n: float

    def __post_init__(self) -> None:
        if not (0 <= self.hits <= self.n < math.inf and self.n > 0):
            raise ValueError(f"{self.hits} of {self.n}; give hits from 0 to n, and at least one try")

    @property
    def value(self) -> float:
        return self.hits / self.n

    @property
    def variance(self) -> float:
        """Of the estimated rate."""
        return self.value * (1.0 - self.value) / self.n


def z_of(level: float) -> float:
    """The two-sided normal quantile of a confidence level in (0, 1)."""
    return float(special.ndtri(0.5 + level / 2.0))


def normal(rate: Rate, level: float = 0.95) -> Interval:
    """Wald's: too short for few tries or rates near 0 and 1."""
    half = z_of(level) * math.sqrt(rate.variance)
    return _within(rate.value - half, rate.value + half)


def wilson(rate: Rate, level: float = 0.95) -> Interval:
    """The score interval, good for any n: Wilson, "Probable inference", JASA 22(158), 1927."""
    z = z_of(level)
    middle = (rate.hits + z * z / 2.0) / (rate.n + z * z)
    half = z / (rate.n + z * z) * math.sqrt(rate.hits * (rate.n - rate.hits) / rate.n + z * z / 4.0)
    return _within(middle - half, middle + half)


def agresti_coull(rate: Rate, level: float = 0.95) -> Interval:
    """Wald's about Wilson's middle: Agresti, Coull, The American Statistician 52(2), 1998."""
    z = z_of(level)
    more = Rate(rate.hits + z * z / 2.0, rate.n + z * z)
    half = z * math.sqrt(more.variance)
    return _within(more.value - half, more.value + half)


def clopper_pearson(rate: Rate, level: float = 0.95) -> Interval:
    """Never wrong more often than it says, and wider for it: Clopper, Pearson, Biometrika 26(4), 1934."""
    tail, misses = (1.0 - level) / 2.0, rate.n - rate.hits
    low = float(special.betaincinv(rate.hits, misses + 1.0, tail)) if rate.hits else 0.0
    return low, float(special.betaincinv(rate.hits + 1.0, misses, 1.0 - tail)) if misses else 1.0


def jeffreys(rate: Rate, level: float = 0.95) -> Interval:
    """Equal tails of the posterior of the prior Beta(1/2, 1/2): Brown, Cai, DasGupta, Statistical Science 16, 2001."""
    tail, misses = (1.0 - level) / 2.0, rate.n - rate.hits
    low, high = special.betaincinv(rate.hits + 0.5, misses + 0.5, [tail, 1.0 - tail])
    return float(low), float(high)


def z_test(a: Rate, b: Rate) -> tuple[float, float]:
    """The pooled z statistic of b - a and its two-sided p-value; (0, 1) where nothing varied."""
    pooled = (a.hits + b.hits) / (a.n + b.n)
    error = math.sqrt(pooled * (1.0 - pooled) * (1.0 / a.n + 1.0 / b.n))
    if error == 0.0:
        return 0.0, 1.0
    z = (b.value - a.value) / error
    return z, 2.0 * float(special.ndtr(-abs(z)))


def fisher(a: Rate, b: Rate) -> float:
    """Fisher's exact test, two-sided: the probability of all tables that are no likelier than this one."""
    hits = round(a.hits + b.hits)
    first, last = max(0, hits - round(b.n)), min(hits, round(a.n))
    seen = np.arange(first, last + 1)
    logs = _log_choose(a.n, seen) + _log_choose(b.n, hits - seen) - _log_choose(a.n + b.n, hits)
    # Tables that are equally likely but for rounding count.
    return min(float(np.exp(logs[logs <= logs[round(a.hits) - first] + 1e-7]).sum()), 1.0)


def wald(a: Rate, b: Rate, level: float = 0.95) -> Interval:
    """Of b - a: for rates away from 0 and 1 and hundreds of tries."""
    return _about(b.value - a.value, math.sqrt(a.variance + b.variance), level)


def agresti_caffo(a: Rate, b: Rate, level: float = 0.95) -> Interval:
    """Of b - a: Wald's with a hit and a miss more on each side: The American Statistician 54(4), 2000."""
    one, two = Rate(a.hits + 1.0, a.n + 2.0), Rate(b.hits + 1.0, b.n + 2.0)
    low, high = wald(one, two, level)
    return max(low, -1.0), min(high, 1.0)


def newcombe(a: Rate, b: Rate, level: float = 0.95) -> Interval:
    """Of b - a, from two Wilson intervals: Newcombe, Statistics in Medicine 17, 1998, method 10."""
    (low_a, high_a), (low_b, high_b) = wilson(a, level), wilson(b, level)
    difference = b.value - a.value
    low = difference - math.hypot(b.value - low_b, high_a - a.value)
    return low, difference + math.hypot(high_b - b.value, a.value - low_a)


def miettinen_nurminen(a: Rate, b: Rate, level: float = 0.95) -> Interval:
    """Of b - a, by the score test, good for few tries: Statistics in Medicine 4, 1985, equations 8 and 9."""
    difference, z = b.value - a.value, z_of(level)

    def bound(outside: float) -> float:
        inside = difference
        for _ in range(60):
            middle = (inside + outside) / 2.0
            if abs(score(a, b, middle)) <= z:
                inside = middle
            else:
                outside = middle
        return inside

    return bound(-1.0), bound(1.0)


def score(a: Rate, b: Rate, difference: float) -> float:
    """The score statistic of the claim that b - a is `difference`, in (-1, 1)."""
    p = _likeliest(a, b, difference)
    q = min(max(p + difference, 0.0), 1.0)
    total = a.n + b.n
    variance = (p * (1.0 - p) / a.n + q * (1.0 - q) / b.n) * total / (total - 1.0)
    gap = b.value - a.value - difference
    if variance <= 1e-15:
        return 0.0 if abs(gap) < 1e-12 else math.copysign(math.inf, gap)
    return gap / math.sqrt(variance)


def _likeliest(a: Rate, b: Rate, difference: float) -> float:
    """The rate of a that is likeliest if b's is larger by `difference`: a root of a cubic (the same source)."""
    total, both = a.n + b.n, a.hits + b.hits
    two = ((b.n + 2.0 * a.n) * difference - total - both) / (3.0 * total)
    one = ((a.n * difference - total - 2.0 * a.hits) * difference + both) / (3.0 * total)
    none = a.hits * difference * (1.0 - difference) / total
    q = two**3 - 1.5 * one * two + none / 2.0
    p = math.copysign(math.sqrt(max(two * two - one, 0.0)), q)
    turn = math.acos(min(max(q / p**3, -1.0), 1.0)) if p else 0.0
    root = 2.0 * p * math.cos((math.pi + turn) / 3.0) - two
    return min(max(root, 0.0, -difference), 1.0, 1.0 - difference)


def _about(value: float, error: float, level: float) -> Interval:
    half = z_of(level) * error
    return value - half, value + half


def _within(low: float, high: float) -> Interval:
    return max(low, 0.0), min(high, 1.0)


def _log_choose(n: float, k: NDArray[np.int64] | int) -> NDArray[np.float64]:
    taken, left = special.gammaln(np.add(k, 1.0)), special.gammaln(n - k + 1.0)
    counts: NDArray[np.float64] = special.gammaln(n + 1.0) - taken - left
    return counts
