"""Off-policy estimators: what a target policy would have earned, from the choices of another and their propensities.

n choices were logged among k actions; `w = target(a | x) / propensity` is the weight of one, `y` what it earned, `q` a
model of the reward. Each estimator gives the contribution of every choice, (n,), whose mean is its value and whose
spread is its error:

    IPS               w y                                            Horvitz, Thompson, JASA 1952
    self-normalised   v + w (y - v) / mean w, v = mean(w y) / mean w Swaminathan, Joachims, NIPS 2015, eq. 7
    direct            sum_a target(a) q(a)                           Dudik et al., Statistical Science 2014, eq. 1
    doubly robust     direct + w (y - q)                             the same, eq. 5
    SWITCH            doubly robust, with w = 0 where w > tau        Wang, Agarwal, Dudik, ICML 2017, section 4
    DRos              doubly robust, with l w / (w^2 + l) for w      Su, Dimakopoulou, Krishnamurthy, Dudik, ICML 2020

The first four ask nothing of the size of the weights and cut none; the last two trade some bias for less variance. A
choice whose reward was not observed has the weight 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
LEVEL: Final = 0.95
_LEAST_FREEDOM: Final = 4.0
_SHRINKAGES: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 10_000.0, 100_000.0)


class Estimate(NamedTuple):
    """A value with its interval. bias: the estimated one, 0 of the estimators that have none.

    setting: the threshold of SWITCH, the shrinkage of DRos; None for the others.
    """

    value: float
    low: float
    high: float
    bias: float = 0.0
    setting: float | None = None


class Overlap(NamedTuple):
    """How far logged choices can speak for a target.

    size: effective sample size (sum w)^2 / sum w^2, Kish 1965. mean_weight: 1 where the log left a chance for all that
    the target would do. deviation: how many standard errors it is from 1. largest: the largest weight.
    """

    size: float
    mean_weight: float
    deviation: float
    largest: float


def weights(target: Floats, action: NDArray[np.intp], propensity: Floats, observed: Floats | None = None) -> Floats:
    """w, (n,). target: (n, k) probabilities; action: (n,) below k; propensity: (n,) in (0, 1].

    observed: (n,) the chance that the reward of a choice became known, 0 where it did not; a choice stands for others
    like it of which nothing is known.
    """
    w: Floats = target[np.arange(len(action)), action] / propensity
    if observed is not None:
        w = np.divide(w, observed, out=np.zeros_like(w), where=observed > 0.0)
    return w


def overlap(w: Floats) -> Overlap:
    """What the weights alone say. All zeros, an effective size of 0, where there are none above 0."""
    squares = float(np.square(w).sum())
    if not squares > 0.0:
        return Overlap(0.0, 0.0, -math.inf, 0.0)
    mean, n = float(w.mean()), len(w)
    # Of the second moment, not the variance: for sums of what is never negative it bounds the lower tail (Maurer 2003),
    # and it is not 0 where all weights are alike.
    deviation = (mean - 1.0) / math.sqrt(squares / n / n)
    return Overlap(float(w.sum()) ** 2 / squares, mean, deviation, float(w.max()))


def ips(w: Floats, y: Floats) -> Floats:
    """Inverse propensity score; w, y: (n,)."""
    return w * y


def self_normalised(w: Floats, y: Floats) -> Floats:
    """IPS over the mean weight, linearised for its error (Owen, Monte Carlo theory, 2013, section 9.2)."""
    mean = float(w.mean()) or 1.0
    value = float((w * y).mean()) / mean
    return value + w * (y - value) / mean


def direct(target: Floats, model: Floats) -> Floats:
    """The reward model alone; target, model: (n, k). Its spread says nothing of what is wrong with the model."""
    return np.asarray((target * model).sum(axis=1), np.float64)


def doubly_robust(w: Floats, y: Floats, target: Floats, model: Floats, action: NDArray[np.intp]) -> Floats:
    """The model, corrected by the weighted residuals: right where either the propensities or the model are."""
    return direct(target, model) + w * _residuals(y, model, action)


def self_normalised_dr(w: Floats, y: Floats, target: Floats, model: Floats, action: NDArray[np.intp]) -> Floats:
    """Doubly robust with weights over their mean, linearised."""
    residual, mean = _residuals(y, model, action), float(w.mean()) or 1.0
    shift = float((w * residual).mean()) / mean
    return direct(target, model) + shift + w * (residual - shift) / mean


def switch(w: Floats, y: Floats, target: Floats, model: Floats, action: NDArray[np.intp], threshold: float) -> Floats:
    """SWITCH-DR: choices of a weight above `threshold` are left to the model."""
    return doubly_robust(np.where(w <= threshold, w, 0.0), y, target, model, action)


def shrunk(w: Floats, y: Floats, target: Floats, model: Floats, action: NDArray[np.intp], shrinkage: float) -> Floats:
    """DRos: the weights shrunk as an optimistic bound of the error would have it; `shrinkage` > 0, infinite: none."""
    smaller = w if math.isinf(shrinkage) else shrinkage * w / (np.square(w) + shrinkage)
    return doubly_robust(smaller, y, target, model, action)


Biased: TypeAlias = Callable[[Floats, Floats, Floats, Floats, NDArray[np.intp], float], Floats]
"""`switch` or `shrunk`."""


def tuned(
    estimator: Biased,
    w: Floats,
    y: Floats,
    target: Floats,
    model: Floats,
    action: NDArray[np.intp],
    settings: Sequence[float] = (),
) -> Estimate:
    """`estimator` at the setting with the least estimated squared error: bias^2 + variance (Su et al. 2020, section 5).

    Less error is not more certainty: what the bias is can be told no better than what doubly robust says, and intervals
    of the estimator's own spread held the truth in 60 to 90 % of replays. So the interval is that of doubly robust,
    stretched where need be to hold the value.
    """
    whole = doubly_robust(w, y, target, model, action)
    outer = interval(whole)
    best, least = outer, math.inf
    for setting in settings or (*_grid(estimator, w), math.inf):
        found = estimator(w, y, target, model, action, setting)
        bias = float((found - whole).mean())
        error = bias * bias + float(found.var()) / len(found)
        if error < least:
            value, least = float(found.mean()), error
            best = Estimate(value, min(outer.low, value), max(outer.high, value), bias, setting)
    return best


def interval(contributions: Floats, level: float = LEVEL) -> Estimate:
    """The mean of contributions (n,), n > 1, with an interval that holds the truth with chance `level` for large n.

    Student's t with as many degrees of freedom as the estimate of the variance is worth, 2 n / (kurtosis - 1) (Welch,
    Biometrika 1938; the variance of s^2 in any textbook): importance-weighted sums have heavy tails, and where few
    choices carry them the normal's 1.96 is too short. Hall's correction for skewness (JRSS B 1992) covered less often
    than the plain normal on the replays of benchmarks/replay.py.
    """
    n = len(contributions)
    value = float(contributions.mean())
    centred = contributions - value
    variance = float(np.square(centred).sum()) / max(n - 1, 1)
    # A spread that rounding alone makes counts as none.
    if not math.sqrt(variance) > 1e-12 * abs(value):
        return Estimate(value, value, value)
    kurtosis = float((centred**4).mean()) / variance**2
    freedom = min(2.0 * n / max(kurtosis - 1.0, 1e-9), float(max(n - 1, 1)))
    half = student(level, max(freedom, _LEAST_FREEDOM)) * math.sqrt(variance / n)
    return Estimate(value, value - half, value + half)


def student(level: float, freedom: float) -> float:
    """The two-sided quantile of Student's t by the expansion of Abramowitz, Stegun, 26.7.5; to 0.01 from 4 degrees on.

    >>> round(student(0.95, 10.0), 3), round(student(0.95, 1e9), 3)
    (2.228, 1.96)
    """
    z = NormalDist().inv_cdf(0.5 + level / 2.0)
    terms = (
        (z**3 + z) / 4.0,
        (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0,
        (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / 384.0,
        (79.0 * z**9 + 776.0 * z**7 + 1482.0 * z**5 - 1920.0 * z**3 - 945.0 * z) / 92160.0,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))


def _residuals(y: Floats, model: Floats, action: NDArray[np.intp]) -> Floats:
    return np.asarray(y - model[np.arange(len(action)), action], np.float64)


def _grid(estimator: Biased, w: Floats) -> Sequence[float]:
    """The settings that are tried: shrinkages, or quantiles of the weights as thresholds (Wang et al., section 4.2)."""
    if estimator is switch:
        positive = w[w > 0.0]
        return [float(q) for q in np.unique(np.quantile(positive, np.linspace(0.1, 1.0, 10)))] if len(positive) else ()
    return _SHRINKAGES
