"""Regression that forgets: an observation of s steps ago counts `0.5 ** (s / half_life)` of a new one.

With gamma = 0.5 ** (1 / half_life) and t the newest step, the sums of an arm are

    A = prior_precision I + sum gamma^(t - s) x_s x_s' / noise_variance
    b = sum gamma^(t - s) x_s y_s / noise_variance

Source: Russac, Vernade, Cappe, "Weighted Linear Bandits for Non-Stationary Environments", NeurIPS 2019, section 3
(weighted least squares with weights gamma^-s). Their D-LinUCB measures the deviation by `A^-1 A2 A^-1`, where A2 has
gamma^2 for gamma; here it is `A^-1`, which is at least as wide, because A2 lies below A. As in D-LinUCB every arm ages
with each step, also one that was not taken: what is not tried any more becomes uncertain, and is tried again.

Ageing an arm must not cost a factorisation, for the arms that a step does not touch are many. So the sums stay as they
were at the arm's own last step, with the spectrum of their data part, `S = Q diag(v) Q'`; at any later step the
covariance is `Q diag(1 / (prior_precision + w v)) Q'` with the one number w = 0.5 ** (steps since / half_life).
"""

from __future__ import annotations

import hashlib
import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from windlass.stats.linear import LinearPosterior, bounded

_DIGEST_BYTES = 8


class DiscountedPosterior(LinearPosterior):
    """The posterior of one arm that forgets. Recency are counted by the caller and only grow; half_life in steps, > 0.

    step: the one to which `precision` and `moment` belong, that of the last observation.
    """

    def __init__(self, prior_precision: float, noise_variance: float, half_life: float) -> None:
        super().__init__(prior_precision, noise_variance)
        if not (math.isfinite(half_life) and half_life > 0.0):
            raise ValueError(f"half_life is {half_life}; give a finite number of steps above 0")
        self.half_life = half_life
        self.step = 0
        self._now = 0
        self._spectrum: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None

    def age(self, step: int) -> None:
        """Let the time of the predictions be `step`, at or after the last observation."""
        self._now = step
        self._solved = None

    def observe_at(self, step: int, x: NDArray[np.float64], y: float) -> None:
        """Add an observation of `step`, the newest so far. ValueError, and no change, where `y` is no usable number."""
        self._check(y)
        weight = self._weight(step - self.step)
        eye = np.eye(self.dimension) * self.prior_precision
        self.precision = eye + weight * (self.precision - eye)
        self.moment = weight * self.moment
        self.step = self._now = step
        super().observe(x, y)
        self._spectrum = None

    def revise_from(self, step: int, x: NDArray[np.float64], y: float, previous: float) -> None:
        """Replace the value of the observation of `step` with the weight that it has by now."""
        super().revise(bounded(x) * self._weight(self.step - step), y, previous)

    def restore_at(
        self, step: int, precision: NDArray[np.float64], moment: NDArray[np.float64], observations: int
    ) -> None:
        """Take over stored sums that belong to `step`. ValueError where they cannot come from such a posterior."""
        super().restore(precision, moment, observations)
        self.step = self._now = step
        self._spectrum = None

    def solved(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(mean of the weights (d,), a root R (d, d) with R'R the covariance) at the time of `age`."""
        if self._solved is None:
            values, vectors = self._decomposed()
            weight = self._weight(self._now - self.step)
            root = vectors.T / np.sqrt(self.prior_precision + weight * values)[:, None]
            self._solved = (root.T @ (root @ (weight * self.moment)), root)
        return self._solved

    def _decomposed(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Eigenvalues (d,), at least 0, and eigenvectors (d, d) of the data part of the precision."""
        if self._spectrum is None or len(self._spectrum[0]) != self.dimension:
            values, vectors = np.linalg.eigh(self.precision - np.eye(self.dimension) * self.prior_precision)
            # Rounding alone can take an eigenvalue of a sum of squares below 0.
            self._spectrum = (np.maximum(values, 0.0), vectors)
        return self._spectrum

    def _weight(self, steps: int) -> float:
        return float(0.5 ** (steps / self.half_life))


class Recency:
    """At which step each of the newest `limit` keys came. A correction must find the weight of what it corrects.

    A key is kept as eight bytes of its digest: two among 50,000 are alike with a chance of 1e-10.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.count = 0
        self._order: deque[bytes] = deque()
        self._newest: dict[bytes, int] = {}

    def add(self, key: str) -> int:
        """The step of a key that comes now, from 1 on."""
        self.count += 1
        digest = _digest(key)
        self._order.append(digest)
        self._newest[digest] = self.count
        if len(self._order) > self.limit:
            gone, step = self._order.popleft(), self.count - self.limit
            if self._newest[gone] == step:
                del self._newest[gone]
        return self.count

    def find(self, key: str) -> int | None:
        """The step at which `key` came last; None where it never did, or too long ago."""
        return self._newest.get(_digest(key))

    def packed(self) -> bytes:
        """The kept digests, oldest first."""
        return b"".join(self._order)

    def restore(self, packed: bytes, count: int) -> None:
        """Take over `packed` as it was after `count` steps. ValueError where the two do not agree."""
        kept, rest = divmod(len(packed), _DIGEST_BYTES)
        if rest or kept != min(count, self.limit):
            raise ValueError(f"{len(packed)} bytes of keys after {count} steps, of which {self.limit} are kept")
        self.count = count
        self._order = deque(packed[at : at + _DIGEST_BYTES] for at in range(0, len(packed), _DIGEST_BYTES))
        self._newest = {digest: count - kept + place for place, digest in enumerate(self._order, start=1)}


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()
