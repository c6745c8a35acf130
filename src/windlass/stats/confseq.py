"""Confidence sequences: what may be said of a mean at any moment, as often as one looks, with one chance of error.

A gambler who stakes a share l of the wealth on "x is above 0" at every x has, after n of them, prod(1 + l x_i). Let
m_i be the mean of x_i given all before it. Then prod((1 + l x_i) / (1 + l m_i)) is a martingale that starts at 1 and is
never negative, so it ever reaches 1 / alpha with a chance of at most alpha (Ville 1939); and as log(1 + y) <= y, wealth
is at most that martingale at every n at which m_1 + .. + m_n <= 0. So, for any dependence on the past and for means
that move: the chance that wealth is ever 1 / alpha while the *average* of the means so far is at most 0 is at most
alpha. The same holds for the average wealth over several shares l that are fixed beforehand.

With fixed shares wealth does not depend on the order of the x, and one of them can be taken back and put in anew: a
corrected value counts as if it had been the first. Sources: Waudby-Smith, Ramdas, "Estimating means of bounded random
variables by betting", JRSS B 86(1), 2024, section 4 (capital processes; averages of them over a grid of shares);
Howard, Ramdas, McAuliffe, Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals of
Statistics 49(2), 2021, theorem 4 (averages of moving means).
"""

from __future__ import annotations

import math
from math import log1p
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

_SHARES: Final = tuple(0.95 * 0.5**step for step in range(8))
"""Of the wealth that the worst x would take: half as much each, so that some share is near the best for any mean."""
_FINE: Final = 0.95 * 0.5 ** np.arange(14.0)
_PENALTY: Final = -np.log1p(-_FINE) - _FINE
_CELLS: Final = 64
_LEAST: Final = 1e-6
"""Below this no mean is claimed."""


class Wealth(msgspec.Struct, array_like=True):
    """Evidence that the average mean of numbers is above 0. worst: none of them is below -worst, which is above 0.

    logs: (8,) of the wealth, by share.
    """

    worst: float
    logs: list[float]

    def bet(self, x: float) -> None:
        """One more number."""
        # Written out, as this is done for every call and metric: a loop over the shares takes three times as long.
        a, b, c, d, e, f, g, h = self.logs
        stake = _SHARES[0] * x / self.worst
        self.logs = [
            a + log1p(stake),
            b + log1p(stake / 2.0),
            c + log1p(stake / 4.0),
            d + log1p(stake / 8.0),
            e + log1p(stake / 16.0),
            f + log1p(stake / 32.0),
            g + log1p(stake / 64.0),
            h + log1p(stake / 128.0),
        ]

    def take_back(self, x: float) -> None:
        """A number that was bet on, as if it had never been."""
        self.logs = [log - log1p(share * x / self.worst) for log, share in zip(self.logs, _SHARES, strict=True)]

    def reached(self, alpha: float) -> bool:
        """Whether the average wealth is 1 / `alpha` now: a chance of at most alpha, ever, while the mean is <= 0."""
        limit = -math.log(alpha)
        # The average is at most the largest, which decides nearly always.
        return max(self.logs) >= limit and self.log() >= limit

    def log(self) -> float:
        """The logarithm of the average wealth."""
        most = max(self.logs)
        return most + math.log(sum(math.exp(log - most) for log in self.logs) / len(_SHARES))

    def sound(self) -> bool:
        """Whether it can be one that was stored."""
        return len(self.logs) == len(_SHARES) and 0.0 < self.worst < math.inf and all(map(math.isfinite, self.logs))


def even(worst: float) -> Wealth:
    """The wealth before the first bet."""
    return Wealth(worst, [0.0] * len(_SHARES))


class WeightedSums(msgspec.Struct, array_like=True):
    """Sums over weighted values: weights w in [0, 1], values y in [0, 1]. A value can be taken out again."""

    w: float = 0.0
    wy: float = 0.0
    ww: float = 0.0
    wwy: float = 0.0
    wwyy: float = 0.0

    def add(self, weight: float, value: float, sign: float = 1.0) -> None:
        """Put one in, or take one out where `sign` is -1."""
        weighted, square = sign * weight, sign * weight * weight
        self.w += weighted
        self.wy += weighted * value
        self.ww += square
        self.wwy += square * value
        self.wwyy += square * value * value

    def mean(self) -> float | None:
        """The weighted mean, None where nothing has a weight."""
        return min(max(self.wy / self.w, 0.0), 1.0) if self.w > 1e-9 else None

    def interval(self, alpha: float) -> tuple[float, float]:
        """Where the weighted average of the values' means is; wrong at any time, ever, with a chance of <= `alpha`.

        It bets by the sums alone: for y >= -l, log(1 + y) >= y + (log(1 - l) + l) (y / l)^2 (Fan, Grama, Liu,
        "Exponential inequalities for martingales with applications", EJP 20, 2015, lemma 4.1).
        """
        mean = self.mean()
        if mean is None:
            return 0.0, 1.0
        turned = WeightedSums(
            self.w, self.w - self.wy, self.ww, self.ww - self.wwy, self.ww - 2.0 * self.wwy + self.wwyy
        )
        return self._lower(mean, alpha / 2.0), 1.0 - turned._lower(1.0 - mean, alpha / 2.0)

    def _lower(self, mean: float, alpha: float) -> float:
        """The largest claim below `mean` that lost; claims below that one would have lost more."""
        low, high = 0.0, mean
        for _ in range(2):
            claims = np.linspace(low, high, _CELLS + 1)
            lost = np.flatnonzero(self._log_wealth(claims) >= -math.log(alpha))
            if not len(lost):
                return low
            low, high = float(claims[lost[-1]]), float(claims[min(lost[-1] + 1, _CELLS)])
        return low

    def _log_wealth(self, claims: NDArray[np.float64]) -> NDArray[np.float64]:
        """(claims,) log of the average wealth against each claimed mean, from below: of it no value falls short by more
        than the claim itself, so bets are on y / claim - 1."""
        claims = np.maximum(claims, _LEAST)
        gain = self.wy / claims - self.w
        square = np.maximum(self.wwyy / claims**2 - 2.0 * self.wwy / claims + self.ww, 0.0)
        logs = _FINE[:, None] * gain - _PENALTY[:, None] * square
        most = logs.max(axis=0)
        average: NDArray[np.float64] = most + np.log(np.exp(logs - most).mean(axis=0))
        return average
