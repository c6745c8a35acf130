"""Two samples side by side: means, ranks, whole distributions; and quantiles of one. Differences are b - a."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Moments:
    """What is kept of a sample: its size, mean, and sum of squared deviations from it."""

    n: float
    mean: float
    squares: float

    @property
    def variance(self) -> float:
        """Of one value; 0 where there are fewer than two."""
        return self.squares / (self.n - 1.0) if self.n > 1.0 else 0.0

    def joined(self, other: Moments) -> Moments:
        """Of both samples together: Chan, Golub, LeVeque, The American Statistician 37(3), 1983, equation 2.1."""
        n = self.n + other.n
        if n == 0.0:
            return self
        gap = other.mean - self.mean
        squares = self.squares + other.squares + gap * gap * self.n * other.n / n
        return Moments(n, self.mean + gap * other.n / n, squares)


def moments(x: Floats) -> Moments:
    """Of the values `x: (n,)`. ValueError where one of them is no finite number."""
    if not np.isfinite(x).all():
        raise ValueError("a sample holds a value that is no finite number")
    if not len(x):
        return Moments(0.0, 0.0, 0.0)
    mean = float(x.mean())
    return Moments(float(len(x)), mean, float(np.square(x - mean).sum()))


@dataclass(frozen=True, slots=True)
class Welch:
    """t statistic, degrees of freedom, two-sided p-value, and the interval of the difference."""

    t: float
    degrees: float
    p: float
    interval: tuple[float, float]


def welch(a: Moments, b: Moments, level: float = 0.95) -> Welch:
    """Means with unequal variances: Welch, Biometrika 34, 1947. ValueError below two values a side."""
    if min(a.n, b.n) < 2.0:
        raise ValueError(f"{a.n:.0f} and {b.n:.0f} values; two of each are needed")
    one, two = a.variance / a.n, b.variance / b.n
    difference, error = b.mean - a.mean, math.sqrt(one + two)
    if error == 0.0:
        sure = 1.0 if difference == 0.0 else 0.0
        return Welch(math.copysign(math.inf, difference) if difference else 0.0, math.inf, sure, (difference,) * 2)
    degrees = (one + two) ** 2 / (one**2 / (a.n - 1.0) + two**2 / (b.n - 1.0))
    t = difference / error
    half = float(special.stdtrit(degrees, 0.5 + level / 2.0)) * error
    return Welch(t, degrees, 2.0 * float(special.stdtr(degrees, -abs(t))), (difference - half, difference + half))


def mann_whitney(a: Floats, b: Floats) -> tuple[float, float]:
    """U of b (how often a value of b beats one of a, ties half) and its two-sided p-value, normal approximation.

    With ties and continuity corrected: Mann, Whitney, Annals of Mathematical Statistics 18, 1947.
    """
    n, m = len(a), len(b)
    values, inverse, counts = np.unique(np.concatenate([a, b]), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]
    u = float(ranks[n:].sum()) - m * (m + 1) / 2.0
    total = n + m
    ties = float((counts.astype(float) ** 3 - counts).sum()) / (total * (total - 1.0))
    deviation = math.sqrt(n * m / 12.0 * (total + 1.0 - ties))
    if deviation == 0.0 or len(values) == 1:
        return u, 1.0
    z = (abs(u - n * m / 2.0) - 0.5) / deviation
    return u, min(2.0 * float(special.ndtr(-z)), 1.0)


def kolmogorov_smirnov(a: Floats, b: Floats) -> tuple[float, float]:
    """The largest distance of the two distribution functions, and its exact two-sided p-value.

    Paths on a lattice that stay nearer than that: Hodges, Arkiv for Matematik 3(43), 1958. ValueError beyond 10,000
    values a side.
    """
    n, m = len(a), len(b)
    if max(n, m) > 10_000:
        raise ValueError(f"{n} and {m} values; at most 10,000 a side")
    every = np.sort(np.concatenate([a, b]))
    steps = np.searchsorted(np.sort(a), every, side="right") * m - np.searchsorted(np.sort(b), every, side="right") * n
    far = int(np.abs(steps).max())
    # Of each path to (i, j) the share that never was `far` apart.
    row = (np.arange(m + 1) * n < far).astype(float)
    for i in range(1, n + 1):
        inside = np.abs(i * m - np.arange(m + 1) * n) < far
        row = _next_row(row, inside, i)
    return far / (n * m), min(max(1.0 - float(row[-1]), 0.0), 1.0)


def quantile_interval(x: Floats, p: float, level: float = 0.95) -> tuple[float, float]:
    """Of the quantile `p` in (0, 1), by order statistics alone; NaN where the sample is too small to tell that end.

    Conover, "Practical Nonparametric Statistics", 3rd edition, section 3.2.
    """
    ordered, n, tail = np.sort(x), len(x), (1.0 - level) / 2.0
    below = special.bdtr(np.arange(n + 1), n, p)
    low = int(np.searchsorted(below, tail, side="right")) - 1
    high = int(np.searchsorted(below, 1.0 - tail, side="left"))
    return float(ordered[low]) if low >= 0 else math.nan, float(ordered[high]) if high < n else math.nan


def quantile_test(x: Floats, q: float, p: float) -> float:
    """The two-sided p-value of the claim that the quantile `p` is `q`, exact (the same source)."""
    n = len(x)
    at_most, less = int((x <= q).sum()), int((x < q).sum())
    low, high = float(special.bdtr(at_most, n, p)), float(special.bdtrc(less - 1, n, p)) if less else 1.0
    return min(2.0 * min(low, high), 1.0)


def _next_row(row: Floats, inside: NDArray[np.bool_], i: int) -> Floats:
    """Shares for one more value of a: each path came from the left or from below, in proportion to how many did."""
    j = np.arange(len(row))
    share = np.empty_like(row)
    before = 0.0
    for place, (old, weight) in enumerate(zip(row.tolist(), (i / (i + j)).tolist(), strict=True)):
        before = (weight * old + (1.0 - weight) * before) if inside[place] else 0.0
        share[place] = before
    return share
