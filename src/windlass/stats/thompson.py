"""The exact Thompson distribution: the probability that each of k independent normals is the largest.

    P_i = integral of  phi((t - m_i) / s_i) / s_i  *  product over j != i of Phi((t - m_j) / s_j)  dt

For k = 2 it is Phi((m_1 - m_2) / sqrt(s_1^2 + s_2^2)). Beyond, the line is cut at `m_j + z s_j` of every arm for a few
z, so that inside a panel each factor is smooth on the panel's own scale however different the deviations are, and each
panel is integrated by Gauss-Legendre. Sources: Russo, Van Roy, Kazerouni, Osband, Wen, "A Tutorial on Thompson
Sampling", Foundations and Trends in Machine Learning 11(1), 2018, section 3 (probability matching: an action is
chosen with the probability that it is the best); Davis, Rabinowitz, "Methods of Numerical Integration", 2nd ed., 1984,
section 2.7 (Gauss-Legendre).

Choosing from this distribution, instead of drawing one sample per arm, gives the same choices and a known propensity.
"""

from __future__ import annotations

import math
import sys

import numpy as np
from numpy.typing import NDArray

_REACH = 6.0
"""Beyond this many deviations a normal counts as 0 or 1 (the rest is 1e-9)."""
_CUTS = (-_REACH, -4.0, -2.0, 0.0, 2.0, 4.0, _REACH)
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)
_STEP = 1.0 / 64.0
_GRID = np.arange(-8.0, 8.0 + _STEP / 2, _STEP)
_GRID_CDF = np.array([0.5 * math.erfc(-z / math.sqrt(2.0)) for z in _GRID])
_GRID_DENSITY = np.exp(-0.5 * _GRID * _GRID) / math.sqrt(2.0 * math.pi)
_SMALLEST_SD = 1e-9
"""Deviations below this share of the problem's scale are raised to it: sd 0 is the limit, where ties share equally."""


def normal_cdf(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard normal distribution function of each `z`, absolute error below 3e-10.

    Cubic Taylor step from the nearest point of a table: |z - z0| <= 1/128, |phi'''| <= 1.39, so 1.39 / 24 / 128^4.
    """
    z = np.minimum(np.maximum(z, -8.0), 8.0)
    index = (z * 64.0 + 512.5).astype(np.intp)
    start = _GRID[index]
    step = z - start
    slope = 1.0 - step * (0.5 * start - step * ((start * start - 1.0) / 6.0))
    return _GRID_CDF[index] + _GRID_DENSITY[index] * step * slope


def probabilities(means: NDArray[np.float64], sds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability, for each of k independent normals, of being the largest: (k,), sums to 1, error below 1e-6.

    means, sds: (k,) finite, sds >= 0. ValueError for anything else.
    """
    # Lists, because for the few arms of a decision plain floats are several times faster than arrays.
    m, s = means.tolist(), sds.tolist()
    if means.ndim != 1 or means.shape != sds.shape or not m:
        raise ValueError(f"means {means.shape} and sds {sds.shape} must be one number per arm, at least one arm")
    _require_finite(m, s)
    if len(m) == 1:
        return np.ones(1)
    if len(m) == 2:
        return _of_two(m, s)
    m, s = _scaled(m, s)
    floor = max(mean - _REACH * sd for mean, sd in zip(m, s, strict=True))
    able = [arm for arm in range(len(m)) if m[arm] + _REACH * s[arm] > floor]
    result = np.zeros(len(m))
    result[able] = _integrated([m[arm] for arm in able], [s[arm] for arm in able], floor)
    result /= result.sum()
    return result


def _require_finite(m: list[float], s: list[float]) -> None:
    if not (all(map(math.isfinite, m)) and all(0.0 <= sd < math.inf for sd in s)):
        raise ValueError(f"means {m} and sds {s} must be finite, sds at least 0")


def _of_two(m: list[float], s: list[float]) -> NDArray[np.float64]:
    """The closed form. Quartered, so that distance and spread of huge numbers stay finite."""
    ahead = m[0] / 4.0 - m[1] / 4.0
    spread = math.hypot(s[0] / 4.0, s[1] / 4.0) * math.sqrt(2.0)
    if spread == 0.0:
        return np.array([1.0, 0.0] if ahead > 0.0 else [0.0, 1.0] if ahead < 0.0 else [0.5, 0.5])
    first = 0.5 * math.erfc(-ahead / spread)
    return np.array([first, 1.0 - first])


def _scaled(m: list[float], s: list[float]) -> tuple[list[float], list[float]]:
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
