"""What a change did to a metric, as a number with its standard error: one function for each kind of metric.

All are asymptotically normal, so that `ship.py` may look at them again and again. b - a throughout; where the metric is
a relative one, the function says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special

from windlass.stats.trials.means import Moments

Floats: TypeAlias = NDArray[np.float64]
_MANY: Final = 2_000.0
"""With so many degrees of freedom t is as good as normal."""
_FAR: Final = 8.0
"""No boundary is further out: below 1e-15 of probability."""


@dataclass(frozen=True, slots=True)
class Effect:
    """An estimate and its standard error, in the metric's unit; an error of 0 or infinity: nothing is known."""

    value: float
    error: float

    @property
    def z(self) -> float:
        """The z statistic; 0 where the error is none."""
        return self.value / self.error if 0.0 < self.error < math.inf else 0.0

    def interval(self, z: float) -> tuple[float, float]:
        """The estimate and `z` errors to both sides."""
        return self.value - z * self.error, self.value + z * self.error

    def against(self, margin: float) -> Effect:
        """How far it is above -`margin`: for non-inferiority, where a loss up to `margin` (>= 0) is accepted."""
        return Effect(self.value + margin, self.error)


NOTHING = Effect(0.0, math.inf)


def means(a: Moments, b: Moments) -> Effect:
    """Of the means; rates, counts and scores too. `NOTHING` below two values a side."""
    if min(a.n, b.n) < 2.0:
        return NOTHING
    return Effect(b.mean - a.mean, math.sqrt(a.variance / a.n + b.variance / b.n))


def logarithms(x: Floats, floor: float) -> Floats:
    """Latencies and costs on the scale on which a few huge values cannot hide a change: `means` of these gives the
    logarithm of a ratio. Below `floor` (> 0) nothing is told apart."""
    if not floor > 0.0:
        raise ValueError(f"floor {floor}; give the smallest value that can be measured, above 0")
    logs: Floats = np.log(np.maximum(x, floor))
    return logs


@dataclass(frozen=True, slots=True)
class Sums:
    """What is kept of units (sessions, users) that each bring a numerator and a denominator."""

    n: float = 0.0
    top: float = 0.0
    bottom: float = 0.0
    tops: float = 0.0
    both: float = 0.0
    bottoms: float = 0.0

    @property
    def ratio(self) -> float:
        return self.top / self.bottom if self.bottom else 0.0

    @property
    def variance(self) -> float:
        """Of the ratio, by the delta method: Deng, Knoblich, Lu, KDD 2018, equation 6."""
        if self.n < 2.0 or not self.bottom:
            return math.inf
        left = self.tops - 2.0 * self.ratio * self.both + self.ratio**2 * self.bottoms
        return max(left, 0.0) * self.n / (self.n - 1.0) / self.bottom**2


def sums(top: Floats, bottom: Floats) -> Sums:
    """Of units with these numerators and denominators, (n,) each. Values by unit: the sum and the count of a unit."""
    return Sums(
        float(len(top)),
        float(top.sum()),
        float(bottom.sum()),
        float(top @ top),
        float(top @ bottom),
        float(bottom @ bottom),
    )


def ratios(a: Sums, b: Sums) -> Effect:
    """Of ratios of sums; calls of one user hang together, so with users as units the error is an honest one."""
    error = math.sqrt(a.variance + b.variance)
    return Effect(b.ratio - a.ratio, error) if math.isfinite(error) else NOTHING


def adjusted(y_a: Floats, x_a: Floats, y_b: Floats, x_b: Floats) -> Effect:
    """Of means, less what a covariate from before the assignment explains (CUPED).

    Deng, Xu, Kohavi, Walker, WSDM 2013, section 3: y - theta (x - mean x), one theta for both sides, so the change is
    not touched, and its variance is smaller by the squared correlation.
    """
    if min(len(y_a), len(y_b)) < 3:
        return NOTHING
    spread = _centred(x_a) @ _centred(x_a) + _centred(x_b) @ _centred(x_b)
    shared = _centred(x_a) @ _centred(y_a) + _centred(x_b) @ _centred(y_b)
    theta = float(shared / spread) if spread > 0.0 else 0.0
    left = [y - theta * x for y, x in ((y_a, x_a), (y_b, x_b))]
    error = math.sqrt(sum(float(one.var(ddof=1)) / len(one) for one in left))
    return Effect(float(left[1].mean() - left[0].mean()), error)


def pairs(a: Floats, b: Floats) -> Effect:
    """Of the same requests through both: the mean of the differences. `NOTHING` below two pairs."""
    if len(a) < 2:
        return NOTHING
    gap = b - a
    return Effect(float(gap.mean()), math.sqrt(float(gap.var(ddof=1)) / len(gap)))


def normal_score(t: float, degrees: float) -> float:
    """The z statistic that is as unlikely as `t` is with so many degrees of freedom."""
    if not math.isfinite(t) or degrees > _MANY or t == 0.0:
        return t
    z = -float(special.ndtri(special.stdtr(degrees, -abs(t))))
    return math.copysign(min(z, abs(t)), t)


def student_score(z: float, degrees: float) -> float:
    """The t statistic with so many degrees of freedom that is as unlikely as `z` in [0, 8] is."""
    return z if degrees > _MANY else -float(special.stdtrit(degrees, special.ndtr(-min(z, _FAR))))


def p_value(effect: Effect) -> float:
    """Two-sided, for one look."""
    return 2.0 * float(special.ndtr(-abs(effect.z)))


def _centred(x: Floats) -> Floats:
    return np.asarray(x - x.mean(), np.float64)
