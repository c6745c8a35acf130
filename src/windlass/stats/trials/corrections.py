"""Many tests at once: adjusted p-values, which may be compared with the level that one test would have."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]


def bonferroni(p: Floats) -> Floats:
    """The chance of any false alarm stays below the level, whatever the dependence."""
    return np.minimum(p * len(p), 1.0)


def holm(p: Floats) -> Floats:
    """As Bonferroni, and never weaker: Holm, Scandinavian Journal of Statistics 6, 1979."""
    return _back(p, np.maximum.accumulate(np.sort(p) * np.arange(len(p), 0, -1)))


def sidak(p: Floats) -> Floats:
    """For independent tests: 1 - (1 - p)^n."""
    adjusted: Floats = -np.expm1(len(p) * np.log1p(-np.minimum(p, 1.0 - 1e-16)))
    return adjusted


def holm_sidak(p: Floats) -> Floats:
    """Sidak's, step by step as Holm's."""
    ordered = np.minimum(np.sort(p), 1.0 - 1e-16)
    return _back(p, np.maximum.accumulate(-np.expm1(np.arange(len(p), 0, -1) * np.log1p(-ordered))))


def hochberg(p: Floats) -> Floats:
    """Stronger than Holm's for tests that are not negatively dependent: Hochberg, Biometrika 75(4), 1988."""
    return _back(p, _from_the_last(np.sort(p) * np.arange(len(p), 0, -1)))


def benjamini_hochberg(p: Floats) -> Floats:
    """The expected share of false alarms among the alarms: JRSS B 57(1), 1995."""
    return _back(p, _from_the_last(np.sort(p) * len(p) / np.arange(1, len(p) + 1)))


def benjamini_yekutieli(p: Floats) -> Floats:
    """The same, whatever the dependence: Annals of Statistics 29(4), 2001."""
    ranks = np.arange(1, len(p) + 1)
    return _back(p, _from_the_last(np.sort(p) * len(p) * float((1.0 / ranks).sum()) / ranks))


def _from_the_last(ordered: Floats) -> Floats:
    smallest: Floats = np.minimum.accumulate(ordered[::-1])[::-1]
    return smallest


def _back(p: Floats, ordered: Floats) -> Floats:
    """`ordered` belongs to the p-values from the smallest on; put each where its p-value stands."""
    adjusted = np.empty(len(p))
    adjusted[np.argsort(p, kind="stable")] = np.minimum(ordered, 1.0)
    return adjusted
