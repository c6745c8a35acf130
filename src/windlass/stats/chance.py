"""A choice by Thompson sampling, and its probability, which is computed when somebody looks at it.

One normal is drawn for each arm and the largest wins: that is the distribution of `thompson.probabilities`, without its
integrals, which cost more than all the rest of a choice. The probability of what was chosen is a `Propensity`: a number
that is worked out once, by whoever reads it first. `settle` works out many together, at a tenth of the time of one.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from functools import total_ordering
from itertools import groupby
from typing import NamedTuple, SupportsFloat, TypeAlias

import numpy as np
from numpy.typing import NDArray

from windlass.stats import thompson

_AT_ONCE = 32
_NODES = 16
"""Numbers of nodes are multiples of this, so that many integrals have the same."""
_LEAST = sys.float_info.min
_ROOT_TWO_PI = math.sqrt(2.0 * math.pi)


@total_ordering
class Propensity:
    """`offset + factor * p`, with p the probability that arm `index` of independent normals is the largest.

    It acts as the number that it is; what only scales or shifts it (as a guard does that mixes another distribution in)
    puts the work off further. Made by `draw`, which has looked at the numbers.
    """

    __slots__ = ("_index", "_means", "_sds", "_value", "factor", "offset")

    def __init__(self, means: list[float], sds: list[float], index: int, offset: float = 0.0, factor: float = 1.0):
        self._means = means
        self._sds = sds
        self._index = index
        self._value: float | None = None
        self.offset = offset
        self.factor = factor

    def mixed(self, offset: float, factor: float) -> Propensity:
        """`offset + factor * self`, still to be worked out."""
        return Propensity(self._means, self._sds, self._index, offset + factor * self.offset, factor * self.factor)

    @property
    def within(self) -> bool:
        """Whether it is in (0, 1] whatever the integral comes to."""
        ends = self.offset, self.offset + self.factor
        return min(ends) >= 0.0 and 0.0 < max(ends) <= 1.0 + 1e-9

    @property
    def parts(self) -> tuple[list[float], list[float], int, float, float]:
        """What it is made of, for whoever keeps it before it is worked out: the arguments that make an equal one."""
        return self._means, self._sds, self._index, self.offset, self.factor

    def __float__(self) -> float:
        if self._value is None:
            settle((self,))
        assert self._value is not None, "settled"
        return self._value

    def __add__(self, other: float) -> Propensity:
        return self.mixed(other, 1.0)

    __radd__ = __add__

    def __mul__(self, other: float) -> Propensity:
        return self.mixed(0.0, other)

    __rmul__ = __mul__

    def __sub__(self, other: float) -> float:
        return float(self) - float(other)

    def __rsub__(self, other: float) -> float:
        return other - float(self)

    def __truediv__(self, other: float) -> float:
        return float(self) / float(other)

    def __rtruediv__(self, other: float) -> float:
        return other / float(self)

    def __eq__(self, other: object) -> bool:
        return float(self) == float(other) if isinstance(other, SupportsFloat) else NotImplemented

    def __lt__(self, other: SupportsFloat) -> bool:
        return float(self) < float(other)

    def __hash__(self) -> int:
        return hash(float(self))

    def __format__(self, spec: str) -> str:
        return format(float(self), spec)

    def __repr__(self) -> str:
        return repr(float(self))


Probability: TypeAlias = float | Propensity
"""A probability in (0, 1], known or still to be worked out."""


def mixed(probability: Probability, offset: float, factor: float) -> Probability:
    """`offset + factor * probability`; what was still to be worked out stays so."""
    return probability.mixed(offset, factor) if isinstance(probability, Propensity) else offset + factor * probability


def draw(means: NDArray[np.float64], sds: NDArray[np.float64], rng: np.random.Generator) -> tuple[int, Probability]:
    """The place of one arm, drawn with the probability that it is the largest, and that probability.

    means, sds: (k,) finite, sds >= 0, k >= 1. ValueError for anything else. Equal arms without deviation share alike.
    """
    m, s = means.tolist(), sds.tolist()
    if means.ndim != 1 or means.shape != sds.shape or not m:
        raise ValueError(f"means {means.shape} and sds {sds.shape} must be one number per arm, at least one arm")
    thompson.require_finite(m, s)
    return draw_listed(m, s, rng)


def draw_listed(m: list[float], s: list[float], rng: np.random.Generator) -> tuple[int, Probability]:
    """`draw` of numbers that are known to be finite and k, deviations at least 0; the lists are kept."""
    if len(m) == 1:
        return 0, 1.0
    least, most, small, large = min(m), max(m), min(s), max(s)
    widest = most - least + large
    # So small that equal arms would not share, or so large that sums are infinite (NaN: neither).
    usual = widest < 1e100 and small > 1e-6 * widest
    centres, spreads = (m, s) if usual else thompson.scaled(m, s)
    drawn = [mean + sd * z for mean, sd, z in zip(centres, spreads, rng.standard_normal(len(m)).tolist(), strict=True)]
    # Here, while only this call can fail of it: a NaN in what is left for later would cost a whole commit.
    if not math.isfinite(sum(drawn)):
        raise ValueError(f"means {m} and sds {s} must be finite")
    index = drawn.index(max(drawn))
    if len(m) == 2:
        return index, max(thompson.of_two(m, s)[index], _LEAST)
    return index, Propensity(m, s, index)


def settle(chances: Iterable[Propensity]) -> None:
    """Work out the probabilities of `chances`, many at once."""
    smooth: list[tuple[int, _Integral, Propensity]] = []
    for chance in chances:
        if chance._value is not None:
            continue
        problem = thompson.Problem.of(chance._means, chance._sds)
        if problem.nodes <= thompson.MOST_NODES and chance._index in problem.able:
            nodes, row = _row(problem, problem.able.index(chance._index))
            smooth.append((nodes, row, chance))
        else:
            everyone = thompson.probabilities(np.array(chance._means), np.array(chance._sds))
            _know(chance, float(everyone[chance._index]))
    # Only what has the same number of nodes and arms is worked out together: the bits are those of each alone.
    smooth.sort(key=_size)
    for (nodes, _), alike in groupby(smooth, key=_size):
        same = list(alike)
        for start in range(0, len(same), _AT_ONCE):
            some = same[start : start + _AT_ONCE]
            for (_, _, chance), probability in zip(some, _integrals(nodes, [row for _, row, _ in some]), strict=True):
                _know(chance, probability)


def _size(one: tuple[int, _Integral, Propensity]) -> tuple[int, int]:
    return one[0], len(one[1].means)


def _know(chance: Propensity, probability: float) -> None:
    # What was drawn has a probability, were it smaller than the integral can tell.
    if chance._value is not None:
        return  # another thread was first
    chance._value = min(max(chance.offset + chance.factor * probability, _LEAST), 1.0)


class _Integral(NamedTuple):
    """One integral: the first node and the step, the arm's mean and deviation, and those of the arms it must beat."""

    own: tuple[float, float, float, float]
    means: list[float]
    sds: list[float]


def _row(problem: thompson.Problem, arm: int) -> tuple[int, _Integral]:
    """How many nodes of the problem's grid lie where `arm` may be at all, in whole sixteens, and what is integrated."""
    _, means, sds, floor, step, nodes = problem
    mean, sd = means[arm], sds[arm]
    skipped = max(math.floor((mean - thompson.REACH * sd - floor) / step), 0)
    needed = min(math.ceil((mean + thompson.REACH * sd - floor) / step) + 1, nodes) - skipped
    own = (floor + skipped * step, step, mean, sd)
    return -(-needed // _NODES) * _NODES, _Integral(
        own, [*means[:arm], *means[arm + 1 :]], [*sds[:arm], *sds[arm + 1 :]]
    )


def _integrals(nodes: int, rows: Sequence[_Integral]) -> list[float]:
    """The probabilities by the trapezoidal rule of `thompson.probabilities`, of so many nodes and as many arms each."""
    floor, step, mean, sd = np.array([row.own for row in rows]).T[:, :, None]
    centres = np.array([row.means for row in rows]).T[:, :, None]
    spreads = np.array([row.sds for row in rows]).T[:, :, None]
    t = floor + step * np.arange(nodes)
    z = (t - mean) / sd
    integrand = np.exp(-0.5 * z * z) * np.prod(thompson.normal_cdf((t - centres) / spreads), axis=0)
    found: list[float] = ((step / (sd * _ROOT_TWO_PI))[:, 0] * integrand.sum(axis=1)).tolist()
    return found
