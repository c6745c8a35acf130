"""Group-sequential tests: look a few times on the way, and be wrong no more often than with one look at the end.

Lan, DeMets, "Discrete sequential boundaries for clinical trials", Biometrika 70(3), 1983: a spending function says how
much of the level alpha may have been used when the share t of the planned information is in. The boundary at each look
is where the process first leaves with just that chance, by integrating its density from look to look: Armitage,
McPherson, Rowe, JRSS A 132(2), 1969; Jennison, Turnbull, "Group Sequential Methods", 1999, chapter 19.

The process is B(t) = z(t) sqrt(t), which is normal with mean (drift) t and variance t; the drift is the expected z
statistic at the planned end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats: TypeAlias = NDArray[np.float64]
Spending: TypeAlias = Literal["obrien_fleming", "pocock"]

_FAR: Final = 8.0
"""Beyond so many deviations nothing is counted: below 1e-14 of probability."""
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(160)


def spent(spending: Spending, t: float, alpha: float) -> float:
    """How much of `alpha` (two-sided) may be used at the information fraction `t` in [0, 1]."""
    if t <= 0.0:
        return 0.0
    share = min(t, 1.0)
    if spending == "pocock":
        return alpha * math.log1p((math.e - 1.0) * share)
    # Each side spends its half of alpha by itself.
    z = float(special.ndtri(1.0 - alpha / 4.0))
    return 4.0 * float(special.ndtr(-z / math.sqrt(share)))


def boundaries(fractions: Sequence[float], alpha: float = 0.05, spending: Spending = "obrien_fleming") -> Floats:
    """|z| at which to stop at each look: (looks,). Two-sided and symmetric.

    fractions: of the planned information, rising, above 0. One that reaches 1 or more spends all that is left.
    ValueError where they do not rise, or `alpha` is not in (0, 1).
    """
    times = _checked(fractions)
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha {alpha}; give a number between 0 and 1")
    process, used, limits = _Process(0.0), 0.0, []
    for t in times:
        due = spent(spending, t, alpha)
        limits.append(process.limit(t, max(due - used, 0.0)))
        process.look(t, limits[-1])
        used = max(due, used)
    return np.array(limits) / np.sqrt(times)


def crossing(fractions: Sequence[float], limits: Sequence[float], drift: float) -> tuple[Floats, Floats]:
    """The chance to stop at each look above, and below: two of (looks,). limits: |z|, as `boundaries` gives them."""
    process, above, below = _Process(drift), [], []
    for t, limit in zip(_checked(fractions), limits, strict=True):
        up, down = process.look(t, limit * math.sqrt(t))
        above.append(up)
        below.append(down)
    return np.array(above), np.array(below)


def drift_for(fractions: Sequence[float], limits: Sequence[float], power: float = 0.8) -> float:
    """The expected z statistic at the end that is found, at some look, with this power."""
    low, high = 0.0, 2.0 * _FAR
    for _ in range(50):
        middle = (low + high) / 2.0
        low, high = (middle, high) if crossing(fractions, limits, middle)[0].sum() < power else (low, middle)
    return high


def expected_share(fractions: Sequence[float], limits: Sequence[float], drift: float) -> float:
    """The share of the planned information that is used on average, by a test that ends with the last look."""
    above, below = crossing(fractions, limits, drift)
    stops, times = above + below, np.asarray(fractions, float)
    return float((stops[:-1] * times[:-1]).sum() + (1.0 - stops[:-1].sum()) * times[-1])


class _Process:
    """The density of B among the paths that have not left yet, as weighted nodes."""

    def __init__(self, drift: float) -> None:
        self._drift = drift
        self._at = 0.0
        self._nodes: Floats = np.zeros(1)
        self._mass: Floats = np.ones(1)

    def limit(self, t: float, alpha: float) -> float:
        """B at which paths leave at `t` with chance `alpha`, both sides together; as good as infinite for 0."""
        spread = math.sqrt(t - self._at)
        far = _FAR * math.sqrt(t)
        if self._leaves(far, spread) >= alpha:
            return far
        low, high, limit = 0.0, far, 0.6 * far
        for _ in range(60):
            leaves, slope = self._leaves(limit, spread), self._density(limit, spread)
            low, high = (limit, high) if leaves > alpha else (low, limit)
            # Newton's step on the logarithm, which is nearly straight; the middle where that leaves the bracket.
            step = math.log(leaves / alpha) * leaves / slope if leaves > 0.0 < slope else math.inf
            before, limit = limit, limit + step
            if not low < limit < high:
                limit = (low + high) / 2.0
            if abs(limit - before) < 1e-11:
                break
        return limit

    def look(self, t: float, limit: float) -> tuple[float, float]:
        """Let those beyond +-`limit` leave at `t`; the chances of both sides."""
        step = t - self._at
        spread, moved = math.sqrt(step), self._nodes + self._drift * step
        up = float(self._mass @ special.ndtr((moved - limit) / spread))
        down = float(self._mass @ special.ndtr((-limit - moved) / spread))
        far = abs(self._drift) * t + _FAR * math.sqrt(t)
        nodes = _NODES * min(limit, far)
        density = np.exp(-0.5 * np.square((nodes[:, None] - moved) / spread)) @ self._mass
        self._mass = density * _WEIGHTS * (min(limit, far) / (spread * math.sqrt(2.0 * math.pi)))
        self._nodes, self._at = nodes, t
        return up, down

    def _leaves(self, limit: float, spread: float) -> float:
        near = special.ndtr((self._nodes - limit) / spread) + special.ndtr((-limit - self._nodes) / spread)
        return float(self._mass @ near)

    def _density(self, limit: float, spread: float) -> float:
        """By how much fewer leave per unit of `limit`."""
        near, other = (self._nodes - limit) / spread, (limit + self._nodes) / spread
        dense = np.exp(-0.5 * np.square(near)) + np.exp(-0.5 * np.square(other))
        return float(self._mass @ dense) / (spread * math.sqrt(2.0 * math.pi))


def _checked(fractions: Sequence[float]) -> Floats:
    times = np.asarray(fractions, float)
    if not len(times) or not np.isfinite(times).all() or times[0] <= 0.0 or (np.diff(times) <= 0.0).any():
        raise ValueError(f"information fractions must be above 0 and rise, not {list(fractions)[:8]}")
    return times
