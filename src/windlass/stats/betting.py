"""A confidence interval that holds for every sample size, however large the weights: by betting against each mean.

For values x >= 0 and a mean m that is claimed, a gambler who stakes a share l of the wealth on "more than m" has
prod(1 + l (x - m)), which is a martingale if the claim is true, and reaches 1 / alpha with a chance of at most alpha
(Ville 1939). The claims that are not yet beaten are those above a bound. Nothing is asked of the largest x, so that
importance-weighted rewards need no limit: Waudby-Smith, Ramdas, "Estimating means of bounded random variables by
betting", JRSS B 2024, section 4; Waudby-Smith et al., "Anytime-valid off-policy inference for contextual bandits",
2022, section 2.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
_STAKE = 0.9
_ROUNDS = 40


def lower(x: Floats, alpha: float) -> float:
    """A number in [0, 1] that is above the mean of `x` with a chance of at most `alpha`.

    x: (n,) of at least 0, in the order in which they came, whose mean is known to be at most 1.
    """
    if not len(x):
        return 0.0
    stakes = _stakes(x, alpha)
    low, high = 0.0, 1.0
    if not _beaten(x, stakes, low, alpha):
        return 0.0
    for _ in range(_ROUNDS):
        middle = (low + high) / 2.0
        # The wealth falls as the claim rises, so the claims that are beaten lie below one bound.
        low, high = (middle, high) if _beaten(x, stakes, middle, alpha) else (low, middle)
    return low


def weighted_mean(w: Floats, y: Floats, level: float) -> tuple[float, float]:
    """An interval for the mean of w y that misses it with a chance of at most 1 - `level`, whatever n is.

    w: (n,) weights of mean 1; y: (n,) rewards in [0, 1]. The upper end is what `w (1 - y)` leaves.
    """
    alpha = (1.0 - level) / 2.0
    low, high = lower(w * y, alpha), 1.0 - lower(w * (1.0 - y), alpha)
    return low, max(high, low)


def _stakes(x: Floats, alpha: float) -> Floats:
    """What is staked on each of `x`, from those before it alone: (n,) in (0, _STAKE]."""
    before = np.arange(1, len(x) + 1)
    mean = (0.5 + np.concatenate([[0.0], np.cumsum(x)[:-1]])) / before
    spread = (0.25 + np.concatenate([[0.0], np.cumsum(np.square(x - mean))[:-1]])) / before
    staked: Floats = np.minimum(np.sqrt(2.0 * math.log(1.0 / alpha) / (np.maximum(spread, 1e-6) * len(x))), _STAKE)
    return staked


def _beaten(x: Floats, stakes: Floats, mean: float, alpha: float) -> bool:
    """Whether the claim `mean` has lost: whether the wealth has ever reached 1 / alpha."""
    wealth = np.cumsum(np.log1p(stakes * (x - mean)))
    return bool(wealth.max() >= math.log(1.0 / alpha))
