"""What a router could reach that has seen every label: the full-information router, and the best mix of fixed models.

Both are references of the benchmark, not of the product: no live system has the answers of all models to a prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import routing_sets
from benchmarks.routing_sets import RoutingSet
from windlass.stats.hull import quality_at

FOLDS = 5
NEIGHBOURS = 40
RIDGES = (0.3, 1.0, 3.0, 10.0, 30.0)
"""Precisions tried; each fold takes the one that does best on a fifth of its own training rows."""


@dataclass(frozen=True)
class Informed:
    """What is predicted of each row by a model that was fitted on the other folds: quality and cost_nusd, (n, k)."""

    quality: NDArray[np.float64]
    cost_nusd: NDArray[np.float64]


@lru_cache(maxsize=len(routing_sets.FILES))
def informed(folder: Path, name: str) -> Informed:
    """The full-information router of a set: the mean of kNN and ridge on embeddings and length, 5-fold."""
    return fitted(routing_sets.load(folder, name))


def fitted(whole: RoutingSet) -> Informed:
    """As `informed`, of any set. Folds are drawn once, by the same seed in every run."""
    count, models = whole.quality.shape
    fold = np.random.default_rng(0).permutation(count) % FOLDS
    x = _inputs(whole)
    targets = np.concatenate([whole.quality, whole.cost_nusd], axis=1)
    predicted = np.empty_like(targets)
    for number in range(FOLDS):
        test, train = fold == number, fold != number
        ridge = _ridge(x[train], targets[train], x[test])
        near = _nearest(whole.embeddings[train], targets[train], whole.embeddings[test])
        predicted[test] = (ridge + near) / 2.0
    return Informed(predicted[:, :models], predicted[:, models:])


def _inputs(whole: RoutingSet) -> NDArray[np.float64]:
    """(n, 386): a constant, the standardised logarithm of the length, the embedding."""
    length = np.log1p([len(prompt) for prompt in whole.prompts])
    length = (length - length.mean()) / length.std()
    # An embedding has unit norm, each of its numbers about 1 / sqrt(384): brought to the scale of the length.
    return np.column_stack([np.ones(len(length)), length, whole.embeddings * np.sqrt(384.0) / 5.0])


def _ridge(x: NDArray[np.float64], y: NDArray[np.float64], asked: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ridge regression; the precision is chosen on every fifth row, by the error relative to the variance."""
    held = np.arange(len(x)) % 5 == 0
    scale = y.var(axis=0) + 1e-12
    errors = [
        (((_solved(x[~held], y[~held], precision, x[held]) - y[held]) ** 2).mean(axis=0) / scale).mean()
        for precision in RIDGES
    ]
    return _solved(x, y, RIDGES[int(np.argmin(errors))], asked)


def _solved(
    x: NDArray[np.float64], y: NDArray[np.float64], precision: float, asked: NDArray[np.float64]
) -> NDArray[np.float64]:
    penalty = np.full(x.shape[1], precision * len(x) / 100.0)
    penalty[0] = 1e-9
    return np.asarray(asked @ np.linalg.solve(x.T @ x + np.diag(penalty), x.T @ y), np.float64)


def _nearest(known: NDArray[np.float64], y: NDArray[np.float64], asked: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over the nearest by cosine."""
    likeness = asked @ known.T
    count = min(NEIGHBOURS, len(known))
    places = np.argpartition(likeness, -count, axis=1)[:, -count:]
    return np.asarray(y[places].mean(axis=1), np.float64)


def hull(quality: NDArray[np.float64], cost: NDArray[np.float64], budget: float) -> float:
    """Quality of the best mix of k fixed models whose mean cost stays within the budget, all means known: (k,) each.

    Where even the cheapest model costs more, its quality.
    """
    reached = quality_at(list(zip(cost.tolist(), quality.tolist(), strict=True)), budget)
    return float(quality[cost.argmin()]) if reached is None else reached
