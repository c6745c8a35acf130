"""Cross-fitting: a ridge regression's prediction for every choice and every action, made without that choice.

What a doubly robust estimate is corrected with must not have been learned from the very rewards that it corrects
(Chernozhukov et al., "Double/debiased machine learning", Econometrics Journal 2018, definition 3.1). So the choices are
split into folds, and the model of each fold is fitted on the others. Choices with the same context share a fold: one
that was made twice would else be known when its copy is predicted.

The model has two stages. The first is fitted on all actions together, with an intercept for each; the second on what it
leaves over, for each action alone. An action that was seldom chosen so falls back on what holds for all. How much each
is shrunk is chosen by generalised cross-validation (Golub, Heath, Wahba, Technometrics 1979, eq. 1.4).
"""

from __future__ import annotations

import zlib
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.intp]
FOLDS: Final = 5
_PENALTIES: Final = 10.0 ** np.arange(-2.0, 7.0)
_DEVIATIONS: Final = 8.0
"""Features beyond so many deviations from their mean are clipped: one broken context must not bend the model."""
_LEAST: Final = 8
"""An action with fewer choices has no second stage."""


def predictions(
    x: Floats, action: Indices, y: Floats, weight: Floats, actions: int, expected: Floats | None = None
) -> Floats:
    """What each of k `actions` would earn in each of n contexts: (n, k).

    x: (n, d) features. action: (n,) below k. y: (n,) rewards. weight: (n,) what an observation counts, 0 for a reward
    that is not known. expected: (n, k) a first guess for each action, NaN where there is none; it becomes a feature.
    """
    fold = _folds(x)
    found = np.empty((len(x), actions))
    for part in range(FOLDS):
        out = fold == part
        if out.any():
            found[out] = _fitted(x, action, y, np.where(out, 0.0, weight), actions, expected, out)
    return found


def _fitted(
    x: Floats, action: Indices, y: Floats, weight: Floats, actions: int, expected: Floats | None, out: NDArray[np.bool_]
) -> Floats:
    """The predictions for the choices that are `out`, from those of a weight."""
    used = weight > 0.0
    rows = int(out.sum())
    if not used.any():
        return np.zeros((rows, actions))
    scaled = _scaled(x, used)
    own, w = np.eye(actions)[action[used]], weight[used]
    first = np.column_stack([own, scaled[used]])
    guess = _guesses(expected, action, used)
    if guess is not None:
        first = np.column_stack([first, guess[np.flatnonzero(used), action[used]]])
    centre = float(np.average(y[used], weights=w))
    shared = _ridge(first, y[used] - centre, w)
    left = y[used] - centre - first @ shared
    plain = np.column_stack([np.ones(len(scaled)), scaled])
    found = np.empty((rows, actions))
    for arm in range(actions):
        now = centre + shared[arm] + scaled[out] @ shared[actions : actions + scaled.shape[1]]
        if guess is not None:
            now = now + shared[-1] * guess[out, arm]
        mine = action[used] == arm
        if mine.sum() >= _LEAST:
            now = now + plain[out] @ _ridge(plain[used][mine], left[mine], w[mine])
        found[:, arm] = now
    # A line drawn on stands for nothing that was ever seen.
    return np.clip(found, y[used].min(), y[used].max())


def _ridge(x: Floats, y: Floats, weight: Floats) -> Floats:
    """Coefficients (d,) of y on x: (n, d), with the penalty that cross-validation chooses."""
    root = np.sqrt(weight / weight.mean())
    a, b = x * root[:, None], y * root
    n = len(b)
    values, vectors = np.linalg.eigh(a.T @ a)
    values = np.maximum(values, 0.0)
    moment = vectors.T @ (a.T @ b)
    total = float(b @ b)
    best, least = np.zeros(x.shape[1]), np.inf
    for penalty in _PENALTIES:
        shrink = 1.0 / (values + penalty)
        beta = moment * shrink
        residual = total - 2.0 * float(beta @ moment) + float(values @ np.square(beta))
        free = n - float((values * shrink).sum())
        score = max(residual, 0.0) / max(free, 1e-9) ** 2
        if score < least:
            best, least = vectors @ beta, score
    return best


def _scaled(x: Floats, used: NDArray[np.bool_]) -> Floats:
    """Features with the mean and the deviation that they have where they are `used`; those that are constant are 0."""
    mean, sd = x[used].mean(axis=0), x[used].std(axis=0)
    alive = sd > 1e-12 * np.maximum(np.abs(mean), 1.0)
    scaled: Floats = np.where(alive, (x - mean) / np.where(alive, sd, 1.0), 0.0)
    return np.clip(scaled, -_DEVIATIONS, _DEVIATIONS)


def _guesses(expected: Floats | None, action: Indices, used: NDArray[np.bool_]) -> Floats | None:
    """First guesses in units of their own spread, a missing one as its action's mean; None where there are none."""
    if expected is None or not np.isfinite(expected).any():
        return None
    known = np.isfinite(expected)
    means = np.where(known, expected, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    whole = np.where(known, expected, means)
    own = whole[np.flatnonzero(used), action[used]]
    sd = float(own.std())
    return None if not sd > 0.0 else (whole - float(own.mean())) / sd


def _folds(x: Floats) -> Indices:
    """The fold of each choice, by its context, or by its place where too few contexts are there to make folds of."""
    places = np.arange(len(x)) % FOLDS
    named = np.array([zlib.crc32(row.tobytes()) for row in np.ascontiguousarray(x)], np.int64) % FOLDS
    counts = np.bincount(named, minlength=FOLDS) if len(named) else np.zeros(FOLDS)
    return np.asarray(named if counts.min() >= 0.1 * len(x) else places, np.intp)
