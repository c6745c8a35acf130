"""Bayesian linear regression: the posterior of one arm, updated in place and asked for a mean and a deviation.

The model is `y = w.x + noise`, `w ~ N(0, I / prior_precision)`, `noise ~ N(0, noise_variance)`. After observations
`(x, y)` the weights are normal with precision `A` and mean `A^-1 b`:

    A = prior_precision I + sum x x' / noise_variance        b = sum x y / noise_variance

Sources: Li, Chu, Langford, Schapire, "A Contextual-Bandit Approach to Personalized News Article Recommendation",
WWW 2010, Algorithm 1 (disjoint arms); Agrawal, Goyal, "Thompson Sampling for Contextual Bandits with Linear Payoffs",
ICML 2013, section 2.2 (B, f and the sampling distribution).

The posterior stays finite and positive definite whatever comes in: features that are no number count as 0, features
are clipped to +-`FEATURE_LIMIT`, values that are no number or absurdly large are refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FEATURE_LIMIT = 100.0
"""Features are meant to be of order one; beyond this they are clipped. It bounds the condition number of A."""
VALUE_LIMIT = 1e6
"""Largest |y| that is accepted; rewards are in [0, 1], so anything near this is a mistake."""
_AT_ONCE = 16_384
_ROWS = 64
"""So many products of features at most, and so many observations, are made in one go: 128 kB, which a cache holds."""
_STACKED = 65_536
"""Numbers that are kept twice for quick predictions, 512 kB; beyond, the products take longer than their calls."""


def bounded(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """`x: (d,)` with NaN and infinities as 0 and the rest clipped to +-FEATURE_LIMIT."""
    # Where the whole is short, so is each part: a quarter of the time of looking at each. NaN fails the comparison.
    if math.hypot(*x.tolist()) <= FEATURE_LIMIT / 2 or np.abs(x).max(initial=0.0) <= FEATURE_LIMIT:
        return x
    clipped: NDArray[np.float64] = np.minimum(np.maximum(x, -FEATURE_LIMIT), FEATURE_LIMIT)
    clipped[~np.isfinite(x)] = 0.0
    return clipped


class LinearPosterior:
    """The posterior over the weights of one arm; `dimension` grows when a longer `x` is observed.

    prior_precision: of each weight, > 0. noise_variance: of one observation, > 0.
    """

    def __init__(self, prior_precision: float, noise_variance: float, dimension: int = 0) -> None:
        for name, value in (("prior_precision", prior_precision), ("noise_variance", noise_variance)):
            if not (math.isfinite(value) and value > 0.0):
                raise ValueError(f"{name} is {value}; give a finite number above 0")
        self.prior_precision = prior_precision
        self.noise_variance = noise_variance
        self.observations = 0
        self._precision: NDArray[np.float64] = np.eye(dimension) * prior_precision
        self._moment: NDArray[np.float64] = np.zeros(dimension)
        self._solved: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
        # What is not in the sums yet: (rows, d), of which the first are taken, one per value, and which of them are new
        # observations; the others change the value of an earlier one.
        self._waiting: NDArray[np.float64] = np.empty((0, dimension))
        self._values: list[float] = []
        self._new: list[int] = []

    @property
    def precision(self) -> NDArray[np.float64]:
        """A, (d, d)."""
        self._add()
        return self._precision

    @precision.setter
    def precision(self, precision: NDArray[np.float64]) -> None:
        self._add()
        self._precision = precision

    @property
    def moment(self) -> NDArray[np.float64]:
        """b, (d,)."""
        self._add()
        return self._moment

    @moment.setter
    def moment(self, moment: NDArray[np.float64]) -> None:
        self._add()
        self._moment = moment

    @property
    def dimension(self) -> int:
        return len(self._moment)

    def observe(self, x: NDArray[np.float64], y: float) -> None:
        """Add one observation. `x: (n,)`, n >= dimension. ValueError, and no change, where `y` is no usable number."""
        self._check(y)
        self._wait(self._admit(x), y / self.noise_variance)
        self._new.append(len(self._values) - 1)
        self.observations += 1

    def revise(self, x: NDArray[np.float64], y: float, previous: float) -> None:
        """Replace the value `previous` of an earlier observation of `x` by `y`; what was seen of `x` stays as it is."""
        self._check(y)
        self._check(previous)
        self._wait(self._admit(x), (y - previous) / self.noise_variance)

    def solved(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(mean of the weights (d,), inverse of the lower Cholesky factor of A (d, d)), kept until the next update."""
        if self._solved is None:
            factor = _cholesky(self.precision)
            inverse = np.linalg.solve(factor, np.eye(self.dimension)).astype(np.float64, copy=False)
            self._solved = (inverse.T @ (inverse @ self.moment), inverse)
        return self._solved

    def restore(self, precision: NDArray[np.float64], moment: NDArray[np.float64], observations: int) -> None:
        """Take over stored sums, bit by bit. ValueError where they cannot come from a posterior like this one."""
        size = len(moment)
        if moment.shape != (size,) or precision.shape != (size, size) or observations < 0:
            raise ValueError(f"shapes {precision.shape}, {moment.shape} with {observations} observations do not agree")
        if not (np.isfinite(precision).all() and np.isfinite(moment).all() and (precision == precision.T).all()):
            raise ValueError("a stored posterior must be finite and symmetric")
        if not (np.diag(precision) >= self.prior_precision).all():
            raise ValueError(f"diagonal {np.diag(precision)} lies below the prior precision {self.prior_precision}")
        _cholesky(precision)
        self.precision, self.moment, self.observations = precision.copy(), moment.copy(), observations
        self._waiting = np.empty((0, size))
        self._solved = None

    def _wait(self, x: NDArray[np.float64], value: float) -> None:
        if len(self._values) == len(self._waiting):
            self._add()
            if not len(self._waiting):
                self._waiting = np.empty((min(max(_AT_ONCE // max(len(x), 1) ** 2, 1), _ROWS), len(x)))
        self._waiting[len(self._values)] = x
        self._values.append(value)
        self._solved = None

    def _add(self) -> None:
        """Add what waits to the sums. The products of many are made in one go, and added one by one in their order:
        the same bits, whenever and of how many it is done."""
        if not self._values:
            return
        x = self._waiting[: len(self._values)]
        for share in x * np.array(self._values)[:, None]:
            self._moment += share
        seen = x if len(self._new) == len(x) else x[self._new]
        # The outer product is symmetric to the last bit, and so is every sum of them: A needs no symmetrising.
        outer = seen[:, :, None] * seen[:, None, :]
        outer /= self.noise_variance
        for product in outer:
            self._precision += product
        self._values.clear()
        self._new.clear()

    def _admit(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """`x` made safe, the posterior grown to its length. A feature never seen before has only its prior: exact."""
        size, grown = self.dimension, len(x)
        if grown < size:
            raise ValueError(f"x has {grown} features, this posterior has seen {size}; pad with zeros")
        if grown > size:
            precision = np.eye(grown) * self.prior_precision
            precision[:size, :size] = self.precision
            self.precision = precision
            self.moment = np.concatenate([self.moment, np.zeros(grown - size)])
            self._waiting = np.empty((0, grown))
        return bounded(x)

    @staticmethod
    def _check(y: float) -> None:
        if not abs(y) <= VALUE_LIMIT:
            raise ValueError(f"value {y} is not a finite number within +-{VALUE_LIMIT:g}; observe rewards of order one")


def predict(
    posteriors: Sequence[LinearPosterior], x: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of `w.x` under each of k posteriors: two (k,) arrays.

    `x: (n,)`, n >= the dimension of each; features that a posterior has not seen yet count with their prior.
    """
    x = bounded(x)
    means, sds = np.empty(len(posteriors)), np.empty(len(posteriors))
    for row, posterior in enumerate(posteriors):
        weights, inverse = posterior.solved()
        seen, unseen = x[: len(weights)], x[len(weights) :]
        means[row] = weights.dot(seen)
        spread = inverse.dot(seen)
        sds[row] = math.sqrt(spread.dot(spread) + unseen.dot(unseen) / posterior.prior_precision)
    return means, sds


class Stacked:
    """`predict` for one set of posteriors after another, mostly the same: one product instead of two for each.

    Keeps what they were solved to side by side, and replaces the rows of those that have changed.
    """

    def __init__(self) -> None:
        self._solved: list[tuple[NDArray[np.float64], NDArray[np.float64]] | None] = []
        # (k + k n, n): the means of the weights, then the roots, each filled up with the prior to n features.
        self._rows: NDArray[np.float64] = np.empty((0, 0))

    def predict(
        self, posteriors: Sequence[LinearPosterior], x: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """As the function of that name."""
        k, n = len(posteriors), len(x)
        if k * n * n > _STACKED:
            return predict(posteriors, x)
        if len(self._solved) != k or self._rows.shape[1] != n:
            self._solved, self._rows = [None] * k, np.zeros((k + k * n, n))
        for arm, posterior in enumerate(posteriors):
            solved = posterior.solved()
            if solved is not self._solved[arm]:
                self._place(arm, posterior, solved)
        found = self._rows @ bounded(x)
        spread = found[k:].reshape(k, n)
        return found[:k], np.sqrt(np.einsum("ij,ij->i", spread, spread))

    def _place(
        self, arm: int, posterior: LinearPosterior, solved: tuple[NDArray[np.float64], NDArray[np.float64]]
    ) -> None:
        k, n = len(self._solved), self._rows.shape[1]
        weights, root = solved
        size = len(weights)
        self._rows[arm] = 0.0
        self._rows[arm, :size] = weights
        block = self._rows[k + arm * n : k + (arm + 1) * n]
        block[:] = 0.0
        block[:size, :size] = root
        unseen = np.arange(size, n)
        block[unseen, unseen] = 1.0 / math.sqrt(posterior.prior_precision)
        self._solved[arm] = solved


def _cholesky(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lower factor of a precision matrix. ValueError where it is none.

    Only after some 10^5 observations at FEATURE_LIMIT under an extreme prior does rounding bite; then the diagonal is
    raised by the size of the rounding error, or by the first multiple of it that suffices.
    """
    rounding = np.finfo(np.float64).eps * len(matrix) * float(np.trace(matrix))
    for raised in (0.0, *(rounding * 100.0**power for power in range(9))):
        try:
            return np.linalg.cholesky(matrix + raised * np.eye(len(matrix))).astype(np.float64, copy=False)
        except np.linalg.LinAlgError:
            continue
    raise ValueError(f"a matrix with diagonal {np.diag(matrix)} is no precision matrix, whatever the rounding")
