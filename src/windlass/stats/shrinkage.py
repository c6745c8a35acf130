"""By how much each of many people rates each of a few things above or below what is expected: means that are shrunk.

A residual (what somebody gave less what was expected) of person u about thing a is taken as

    e = m_a + v_u + w_ua + noise,    v_u ~ N(0, persons),  w_ua ~ N(0, tastes),  noise ~ N(0, noise)

v_u is how kindly u rates everything, w_ua what u thinks of a beside that. The three variances are learned from the
residuals themselves by equating sums of squares with what is expected of them (method 1 of Henderson, "Estimation of
Variance and Covariance Components", Biometrics 1953, of persons and of cells within persons). Given these, the best
prediction of a taste of which n residuals with the mean r are known is

    w_ua = n / (n + noise / tastes) * (r - m_a - v_u)

which is the estimator of James and Stein with unequal variances: Efron, Morris, "Data Analysis Using Stein's Estimator
and its Generalizations", JASA 1975, section 2, equation 2.5, with the common mean of a person, v_u, in the place of
theirs (equation 2.6). Where people differ no more than chance explains, `tastes` is 0, and so is every prediction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_SHOWN: Final = 2.326
"""Of a standard normal: people who do not differ are taken to differ with a chance of 1 %."""
_FEWEST: Final = 20
"""Degrees of freedom of either sum of squares, below which nothing is said."""


class Spread(NamedTuple):
    """The variances of the model above, and the mean residual of each thing (a,)."""

    tastes: float
    persons: float
    noise: float
    means: Floats


def spread(counts: Floats, sums: Floats, squares: Floats) -> Spread:
    """The variances from the residuals of each person (row) about each thing (column): how many, their sum, and the sum
    of their squares, each (u, a).

    `tastes` is 0 where the cells of a person differ no more than chance explains, by a test of level 1 %.
    """
    total, per_thing, per_person = float(counts.sum()), counts.sum(axis=0), counts.sum(axis=1)
    means = sums.sum(axis=0) / np.maximum(per_thing, 1.0)
    nothing = Spread(0.0, 0.0, 0.0, means)
    cells, people, things = int((counts > 0.0).sum()), int((per_person > 0.0).sum()), int((per_thing > 0.0).sum())
    free_noise, free_cells = total - cells, cells - people - (things - 1)
    if free_noise < _FEWEST or free_cells < _FEWEST:
        return nothing
    some, someone = np.maximum(counts, 1.0), np.maximum(per_person, 1.0)
    # Of residuals less the mean of their thing.
    centred = sums - counts * means
    of_cells = float((centred * centred / some).sum())
    of_people = float((centred.sum(axis=1) ** 2 / someone).sum())
    of_all = float((squares - 2.0 * means * sums + counts * means * means).sum())
    noise = max(of_all - of_cells, 0.0) / free_noise
    within = (counts * counts).sum(axis=1) / someone
    between_cells = max(of_cells - of_people, 0.0)
    if not _differ(between_cells / free_cells, noise, free_cells, free_noise):
        return nothing._replace(noise=noise)
    tastes = max(between_cells - free_cells * noise, 0.0) / max(float((per_person - within).sum()), 1.0)
    alone = float((within - (counts * counts).sum(axis=1) / total).sum())
    rest = of_people - float(centred.sum()) ** 2 / total - alone * tastes - (people - 1) * noise
    persons = max(rest, 0.0) / max(total - float((per_person * per_person).sum()) / total, 1.0)
    return Spread(tastes, persons, noise, means)


def tastes(counts: Sequence[float], sums: Sequence[float], known: Spread) -> list[float]:
    """What one person thinks of each thing beside how kindly they rate everything, (a,); 0 of what they never rated.

    counts, sums: of their residuals, each (a,). In plain numbers, which are faster than arrays of a few.
    """
    if known.tastes <= 0.0:
        return [0.0] * len(counts)
    of_kindness = weights = 0.0
    own = []
    for count, total, mean in zip(counts, sums, known.means.tolist(), strict=True):
        rating = total / count - mean if count else 0.0
        weight = 1.0 / (known.tastes + known.noise / count) if count else 0.0
        own.append(rating)
        weights += weight
        of_kindness += weight * rating
    kindly = of_kindness / (weights + 1.0 / known.persons) if known.persons > 0.0 else 0.0
    ratio = known.noise / known.tastes
    return [
        count / (count + ratio) * (rating - kindly) if count else 0.0 for count, rating in zip(counts, own, strict=True)
    ]


def _differ(between: float, within: float, free_between: float, free_within: float) -> bool:
    """Whether a ratio of mean squares is above what chance explains.

    By the normal approximation of F of Paulson, "An Approximate Normalization of the Analysis of Variance
    Distribution", Annals of Mathematical Statistics 1942, equation 6.
    """
    if between <= 0.0:
        return False
    if within <= 0.0:
        return True
    root = math.cbrt(between / within)
    one, other = 2.0 / (9.0 * free_between), 2.0 / (9.0 * free_within)
    return ((1.0 - other) * root - (1.0 - one)) / math.sqrt(other * root * root + one) > _SHOWN
