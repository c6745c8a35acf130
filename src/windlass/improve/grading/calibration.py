"""How far a grader agrees with people, and what its values mean: kappa, accuracy, Brier, ECE, and a map to what people
would say.

Values and labels are in [0, 1]. Where a yes or a no is needed, above 0.5 is yes. All of it is pure arithmetic over
(grader's value, person's value) pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Pair: TypeAlias = tuple[float, float]
Array: TypeAlias = NDArray[np.float64]
GOOD: Final = 0.5
BINS: Final = 10
FOLDS: Final = 5
ISOTONIC_FROM: Final = 1_000
"""With fewer pairs isotonic regression overfits (Niculescu-Mizil and Caruana, ICML 2005, section 5): Platt's line."""
_EPSILON: Final = 1e-12
_STEPS: Final = 100
_WILSON_Z: Final = 1.959963984540054


class Agreement(NamedTuple):
    """How a grader and people judged the same calls. n: how many.

    accuracy: share of equal yes/no, with its 95 % interval (Wilson, JASA 22, 1927). kappa: Cohen's, that share beyond
    what chance gives; None where one of the two always says the same, which leaves it undefined. brier: mean squared
    distance; ece: mean distance between value and label over ten bins, weighted by their counts.
    """

    n: int
    accuracy: float
    low: float
    high: float
    kappa: float | None
    brier: float
    ece: float


class CalibrationMap(NamedTuple):
    """A map from a grader's value to what people say where it gives that value. kind: `platt` or `isotonic`.

    platt: 1 / (1 + exp(-(a value + b))), with (a, b) in `xs`; isotonic: straight lines between the points (xs, ys).
    labels: of how many pairs it was made. held_out: the Brier score on pairs that it was not made of.
    """

    kind: str
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    labels: int
    held_out: float

    def __call__(self, value: float) -> float:
        """The calibrated value, in [0, 1]."""
        if self.kind == "platt":
            return _logistic(self.xs[0] * value + self.xs[1])
        return float(np.interp(value, self.xs, self.ys))


def agreement(pairs: Sequence[Pair]) -> Agreement | None:
    """How far the two agree; None without pairs.

    kappa: J. Cohen, "A coefficient of agreement for nominal scales", 1960, eq. (1). Brier: G. W. Brier, Monthly Weather
    Review 78, 1950. ece: Guo et al., "On calibration of modern neural networks", ICML 2017, eq. (3), equal-width bins.
    """
    if not pairs:
        return None
    values, labels = _columns(pairs)
    said, meant = values > GOOD, labels > GOOD
    n, same = len(pairs), float(np.mean(said == meant))
    yes, truly = float(np.mean(said)), float(np.mean(meant))
    chance = yes * truly + (1.0 - yes) * (1.0 - truly)
    varied = 0.0 < yes < 1.0 and 0.0 < truly < 1.0
    kappa = (same - chance) / (1.0 - chance) if varied else None
    low, high = _wilson(same, n)
    return Agreement(n, same, low, high, kappa, float(np.mean((values - labels) ** 2)), _ece(values, labels))


def fit(pairs: Sequence[Pair], least: int) -> CalibrationMap | None:
    """The map that these pairs give: None with fewer than `least`.

    A grader that tells people nothing gets a flat one, at what people say on average: its weight in a reward follows
    its agreement by that alone.
    """
    if len(pairs) < least:
        return None
    values, labels = _columns(pairs)
    held: list[float] = []
    for fold in range(FOLDS):
        out = np.arange(len(pairs)) % FOLDS == fold
        curve = _fitted(values[~out], labels[~out], len(pairs))
        held += [
            (curve(float(value)) - float(label)) ** 2 for value, label in zip(values[out], labels[out], strict=True)
        ]
    return _fitted(values, labels, len(pairs))._replace(held_out=float(np.mean(held)))


def _fitted(values: Array, labels: Array, n: int) -> CalibrationMap:
    """n: the pairs in all, by which the kind is chosen, so that folds are of one kind."""
    return isotonic(values, labels) if n >= ISOTONIC_FROM else platt(values, labels)


def platt(values: Array, labels: Array) -> CalibrationMap:
    """A logistic line by Newton's method with halved steps; labels may lie between 0 and 1.

    J. Platt, "Probabilistic outputs for support vector machines", 1999, with the targets of its eq. (5.2), and the
    numerically stable form of Lin, Lin and Weng, Machine Learning 68, 2007, section 3. A grader that is right the wrong
    way round is not turned: a slope below 0 becomes flat, since a lucky reversal on few labels would harm.
    """
    yes = float(labels.sum())
    no = len(labels) - yes
    top, bottom = (yes + 1.0) / (yes + 2.0), 1.0 / (no + 2.0)
    targets = bottom + labels * (top - bottom)
    a, b = 0.0, math.log((yes + 1.0) / (no + 1.0))
    for _ in range(_STEPS):
        chance = _sigmoid(a * values + b)
        rest, weight = chance - targets, np.maximum(chance * (1.0 - chance), _EPSILON)
        down = np.array([rest @ values, rest.sum()])
        bend = np.array([[weight @ values**2 + 1e-9, weight @ values], [weight @ values, weight.sum() + 1e-9]])
        step = np.linalg.solve(bend, down)
        scale, now = 1.0, _loss(a, b, values, targets)
        while scale > 1e-8 and _loss(a - scale * step[0], b - scale * step[1], values, targets) > now:
            scale /= 2.0
        a, b = a - scale * float(step[0]), b - scale * float(step[1])
        if scale * float(np.abs(step).max()) < 1e-10:
            break
    if a < 0.0:
        flat = float(targets.mean())
        a, b = 0.0, math.log(flat / (1.0 - flat))
    return CalibrationMap("platt", (a, b), (), len(values), 0.0)


def isotonic(values: Array, labels: Array) -> CalibrationMap:
    """The rising step function of least squared distance, joined by straight lines.

    Pool adjacent violators: Ayer et al., Annals of Mathematical Statistics 26, 1955; for calibration: Zadrozny and
    Elkan, KDD 2002, section 3.2.
    """
    levels, place = np.unique(values, return_inverse=True)
    counts = np.bincount(place).astype(float)
    means = np.bincount(place, labels) / counts
    pools: list[tuple[float, float, int]] = []  # (mean, weight, how many levels)
    for mean, weight in zip(means, counts, strict=True):
        pool = (float(mean), float(weight), 1)
        while pools and pools[-1][0] >= pool[0]:
            before = pools.pop()
            whole = before[1] + pool[1]
            pool = ((before[0] * before[1] + pool[0] * pool[1]) / whole, whole, before[2] + pool[2])
        pools.append(pool)
    ys = [mean for mean, _, many in pools for _ in range(many)]
    return CalibrationMap("isotonic", tuple(map(float, levels)), tuple(ys), len(values), 0.0)


def _columns(pairs: Sequence[Pair]) -> tuple[Array, Array]:
    both = np.asarray(pairs, dtype=np.float64)
    return both[:, 0], both[:, 1]


def _ece(values: Array, labels: Array) -> float:
    place = np.minimum((values * BINS).astype(int), BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    gaps = np.abs(np.bincount(place, values, BINS) - np.bincount(place, labels, BINS))
    return float(gaps[counts > 0].sum() / len(values))


def _wilson(share: float, n: int) -> tuple[float, float]:
    z2 = _WILSON_Z**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _WILSON_Z * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def _loss(a: float, b: float, values: Array, targets: Array) -> float:
    """Cross-entropy, without taking the logarithm of 0."""
    odds = a * values + b
    return float(np.sum(np.logaddexp(0.0, odds) - targets * odds))


def _sigmoid(odds: Array) -> Array:
    found: Array = np.exp(-np.logaddexp(0.0, -odds))
    return found


def _logistic(odds: float) -> float:
    return float(_sigmoid(np.array([odds]))[0])
