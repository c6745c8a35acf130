"""When a budget will be spent: a random walk with drift, seen so far, and its first passage through what is left.

Spending S(t) is taken as drift * t plus noise whose variance grows with time, the drift itself known only as well as
the time seen allows: then S(t) is normal with mean drift * t and variance sd^2 * (t + t^2 / seen), and the chance that
the budget is spent by t is the chance that S(t) reaches what is left. Its quantiles solve a quadratic. Source: Chhikara
& Folks 1989, "The Inverse Gaussian Distribution", ch. 1 (first passage of a drifted walk); the term t^2 / seen is the
usual prediction variance of an estimated mean (Box, Jenkins, Reinsel & Ljung 2015, "Time Series Analysis", 5.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import msgspec

Z80: Final = 1.2815515594457
"""The normal's 90 % point: 80 % of it lie between minus and plus this."""
STEPS: Final = 4
"""Fewer stretches of time than this tell no drift from noise."""


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """When what is left will be spent, UTC seconds; None: not at this pace, or not to be told.

    low_at to high_at: with a chance of 80 % it lies there; high_at None: it may never be spent.
    chance: that it is spent before the window ends; per_day: the drift in what is counted, per day.
    """

    at: float | None
    low_at: float | None
    high_at: float | None
    chance: float
    per_day: float


def exhaustion(series: Sequence[tuple[float, float]], most: float, ends: float) -> Forecast | None:
    """The forecast from (UTC seconds, used so far) in the order of time, the last one now; None: too little is known.

    >>> forecast = exhaustion([(0.0, 0.0), (1.0, 10.0), (2.0, 20.0), (3.0, 30.0), (4.0, 40.0)], 100.0, 20.0)
    >>> forecast.at, forecast.low_at, forecast.high_at, forecast.chance
    (10.0, 10.0, 10.0, 1.0)
    """
    steps = _steps(series)
    if len(steps) < STEPS:
        return None
    now, used = series[-1]
    seen = sum(length for length, _ in steps)
    drift = sum(gain for _, gain in steps) / seen
    variance = sum((gain - drift * length) ** 2 / length for length, gain in steps) / (len(steps) - 1)
    left = most - used
    if left <= 0:
        return Forecast(at=now, low_at=now, high_at=now, chance=1.0, per_day=drift * 86_400)
    low, high = _passages(left, drift, variance, seen)
    return Forecast(
        at=now + left / drift if drift > 0 else None,
        low_at=None if low is None else now + low,
        high_at=None if high is None else now + high,
        chance=_chance(left, drift, variance, seen, ends - now),
        per_day=drift * 86_400,
    )


def _steps(series: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """(seconds, gain) from each point to the next; none where one of them is no number."""
    steps = [(later[0] - at, later[1] - used) for (at, used), later in pairwise(series) if later[0] > at]
    return steps if all(math.isfinite(value) for step in steps for value in step) else []


def _passages(left: float, drift: float, variance: float, seen: float) -> tuple[float | None, float | None]:
    """How long until the chance is 10 %, and until it is 90 %: where (left - drift t)^2 = z^2 variance (t + t^2/seen).

    Of the two roots the smaller is the early end. Where the square's factor is not positive there is no late end: the
    drift could be none.
    """
    noise = Z80 * Z80 * variance
    square, linear = drift * drift - noise / seen, -(2 * left * drift + noise)
    root = math.sqrt(max(0.0, linear * linear - 4 * square * left * left))
    # The citardauq form of the smaller root loses no digits where the square's factor is near nothing.
    early = 2 * left * left / (-linear + root) if -linear + root > 0 else None
    late = (-linear + root) / (2 * square) if square > 0 and drift > 0 else None
    return early, late


def _chance(left: float, drift: float, variance: float, seen: float, t: float) -> float:
    """That the walk has reached `left` after `t`."""
    if math.isinf(t):
        return 1.0 if drift > 0 else 0.0
    if t <= 0:
        return 0.0
    sd = math.sqrt(variance * (t + t * t / seen))
    gap = drift * t - left
    if sd == 0.0:
        return float(gap >= 0)
    return 0.5 * math.erfc(-gap / (sd * math.sqrt(2.0)))
