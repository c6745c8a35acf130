"""The exact Thompson distribution: the probability that each of k independent normals is the largest.

    P_i = integral of  phi((t - m_i) / s_i) / s_i  *  product over j != i of Phi((t - m_j) / s_j)  dt

For k = 2 it is Phi((m_1 - m_2) / sqrt(s_1^2 + s_2^2)). Beyond, the trapezoidal rule on one grid for all arms: the
Fourier transform of the integrand falls like exp(-w^2 / (2 sum 1 / s_j^2)), so that a step h leaves an error of about
exp(-(2 pi / h)^2 / (2 sum 1 / s_j^2)), and some thirty nodes are enough for a few arms of like deviations. Where the
deviations differ too much for that, the line is cut at `m_j + z s_j` of every arm for a few z, so that inside a panel
each factor is smooth on the panel's own scale, and each panel is integrated by Gauss-Legendre. Sources: Russo, Van Roy,
Kazerouni, Osband, Wen, "A Tutorial on Thompson Sampling", Foundations and Trends in Machine Learning 11(1), 2018,
section 3 (probability matching: an action is chosen with the probability that it is the best); Trefethen, Weideman,
"The Exponentially Convergent Trapezoidal Rule", SIAM Review 56(3), 2014, theorem 5.1 and section 5; Davis, Rabinowitz,
"Methods of Numerical Integration", 2nd ed., 1984, section 2.7 (Gauss-Legendre).

Drawing one sample of each arm and taking the largest (`chance.draw`) chooses from the same distribution.
"""

from __future__ import annotations

import math
import sys
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

REACH = 6.5
"""Beyond this many deviations a normal counts as 0 or 1 (the rest is 4e-11)."""
_CUTS = (-REACH, -4.0, -2.0, 0.0, 2.0, 4.0, REACH)
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)
_NATS = 23.0
"""What the trapezoidal rule leaves out is about exp(-23) = 1e-10."""
MOST_NODES = 1024
"""Deviations that need more than that are integrated by panels."""
_PER_UNIT = 256.0
_STEP = 1.0 / _PER_UNIT
_GRID = np.arange(-8.0, 8.0 + _STEP / 2, _STEP)
_GRID_CDF = np.array([0.5 * math.erfc(-z / math.sqrt(2.0)) for z in _GRID])
_GRID_DENSITY = np.exp(-0.5 * _GRID * _GRID) / math.sqrt(2.0 * math.pi)
_SMALLEST_SD = 1e-9
"""Deviations below this share of the problem's scale are raised to it: sd 0 is the limit, where ties share equally."""


def normal_cdf(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard normal distribution function of each `z`, absolute error below 2e-12.

    Cubic Taylor step from the nearest point of a table: |z - z0| <= 1/512, |phi'''| <= 1.39, so 1.39 / 24 / 512^4.
    """
    z = np.minimum(np.maximum(z, -8.0), 8.0)
    index = (z * _PER_UNIT + (8.0 * _PER_UNIT + 0.5)).astype(np.intp)
    start = _GRID[index]
    step = z - start
    slope = 1.0 - step * (0.5 * start - step * ((start * start - 1.0) / 6.0))
    return _GRID_CDF[index] + _GRID_DENSITY[index] * step * slope


def probabilities(means: NDArray[np.float64], sds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability, for each of k independent normals, of being the largest: (k,), sums to 1.

    The error is below 1e-9, and below 1e-6 where deviations differ by more than some fifty times.

    means, sds: (k,) finite, sds >= 0. ValueError for anything else.
    """
    # Lists, because for the few arms of a decision plain floats are several times faster than arrays.
    m, s = means.tolist(), sds.tolist()
    if means.ndim != 1 or means.shape != sds.shape or not m:
        raise ValueError(f"means {means.shape} and sds {sds.shape} must be one number per arm, at least one arm")
    require_finite(m, s)
    if len(m) == 1:
        return np.ones(1)
    if len(m) == 2:
        first, second = of_two(m, s)
        return np.array([first, second])
    result = np.zeros(len(m))
    problem = Problem.of(m, s)
    if problem.nodes <= MOST_NODES:
        result[problem.able] = _on_grid(problem)
    else:
        result[problem.able] = _integrated(problem.means, problem.sds, problem.floor)
    result /= result.sum()
    return result


class Problem(NamedTuple):
    """Who can be the largest at all, on a scale where the numbers are of order one.

    able: places of those arms among all; means, sds: theirs. floor: below it some arm is surely larger. step, nodes: of
    the trapezoidal rule from there on.
    """

    able: list[int]
    means: list[float]
    sds: list[float]
    floor: float
    step: float
    nodes: int

    @classmethod
    def of(cls, means: list[float], sds: list[float]) -> Problem:
        """The problem of arms with these finite numbers, sds >= 0."""
        m, s = scaled(means, sds)
        floor = max([mean - REACH * sd for mean, sd in zip(m, s, strict=True)])
        highest = [mean + REACH * sd for mean, sd in zip(m, s, strict=True)]
        able = [arm for arm, high in enumerate(highest) if high > floor]
        m, s = [m[arm] for arm in able], [s[arm] for arm in able]
        step = 2.0 * math.pi / math.sqrt(2.0 * _NATS * sum([1.0 / (sd * sd) for sd in s]))
        return cls(able, m, s, floor, step, math.ceil((max(highest) - floor) / step) + 1)


def _on_grid(problem: Problem) -> NDArray[np.float64]:
    """The integrals by the trapezoidal rule, (arms,)."""
    t = problem.floor + problem.step * np.arange(problem.nodes)
    m, s = np.array(problem.means)[:, None], np.array(problem.sds)[:, None]
    z = (t - m) / s
    below = np.maximum(normal_cdf(z), 1e-300)
    density = np.exp(-0.5 * z * z) / (s * math.sqrt(2.0 * math.pi))
    integrals: NDArray[np.float64] = (density / below) @ np.prod(below, axis=0) * problem.step
    return integrals


def require_finite(m: list[float], s: list[float]) -> None:
    """ValueError where a mean or deviation is no finite number, or a deviation below 0."""
    if not (all(map(math.isfinite, m)) and all(0.0 <= sd < math.inf for sd in s)):
        raise ValueError(f"means {m} and sds {s} must be finite, sds at least 0")


def of_two(m: list[float], s: list[float]) -> tuple[float, float]:
    """The closed form for two arms. Quartered, so that distance and spread of huge numbers stay finite."""
    ahead = m[0] / 4.0 - m[1] / 4.0
    spread = math.hypot(s[0] / 4.0, s[1] / 4.0) * math.sqrt(2.0)
    if spread == 0.0:
        return (1.0, 0.0) if ahead > 0.0 else (0.0, 1.0) if ahead < 0.0 else (0.5, 0.5)
    first = 0.5 * math.erfc(-ahead / spread)
    return first, 1.0 - first


def scaled(m: list[float], s: list[float]) -> tuple[list[float], list[float]]:
    """The same problem with its best mean at 0 and its scale at 1; deviations raised to the smallest that counts."""
    # Halved first, so that the distance of two huge means stays finite.
    best = max(m) / 2.0
    m, s = [mean / 2.0 - best for mean in m], [sd / 2.0 for sd in s]
    scale = max(-min(m), *s)
    if scale < sys.float_info.min:
        return [0.0] * len(m), [1.0] * len(s)
    return [mean / scale for mean in m], [max(sd / scale, _SMALLEST_SD) for sd in s]


def _integrated(means: list[float], sds: list[float], floor: float) -> NDArray[np.float64]:
    """The integrals for arms that can be the largest; below `floor` some arm is surely larger."""
    # Cuts closer than half the smallest deviation tell nothing new; with many alike arms most of them are.
    step = 0.5 * min(sds)
    places = {round((mean + z * sd - floor) / step) for mean, sd in zip(means, sds, strict=True) for z in _CUTS}
    cuts = floor + step * np.array([0, *sorted(place for place in places if place > 0)], dtype=np.float64)
    half = 0.5 * (cuts[1:] - cuts[:-1])
    t = ((cuts[:-1] + half)[:, None] + half[:, None] * _NODES).ravel()
    weight = (half[:, None] * _WEIGHTS).ravel()
    m, s = np.array(means)[:, None], np.array(sds)[:, None]
    z = (t - m) / s
    # At least the smallest normal number, so that dividing one factor out of the product is safe.
    below = np.maximum(normal_cdf(z), 1e-300)
    density = np.exp(-0.5 * z * z) / (s * math.sqrt(2.0 * math.pi))
    integrals: NDArray[np.float64] = (density / below) @ (weight * np.prod(below, axis=0))
    return integrals
