"""Ucb: the action whose reward might be the largest, by a linear model for each action (LinUCB, disjoint).

    a = argmax  x' theta_a + alpha sqrt(x' A_a^-1 x)

Source: Li, Chu, Langford, Schapire, "A Contextual-Bandit Approach to Personalized News Article Recommendation", WWW
2010, equation 5 and algorithm 1; with a half-life, Russac, Vernade, Cappe, NeurIPS 2019, algorithm 1 (D-LinUCB) with
the wider deviation named in `windlass.stats.discounted`. With prior_precision = noise_variance = 1 the bound is the
paper's; otherwise the deviation is that of the same posterior as LinearThompson's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from windlass.policies.linear import LinearOptions, LinearPolicy
from windlass.policies.policy import evenly


@dataclass(frozen=True, slots=True)
class UcbOptions(LinearOptions):
    """How optimistic to be; what to believe at the start and for how long is as in `LinearOptions`.

    alpha: deviations that are added to the expected reward; the paper's 1 + sqrt(ln(2 / delta) / 2) is 2.36 for a
    bound that fails with delta = 5 %.
    """

    policy: ClassVar[str] = "ucb"
    alpha: float = 1.0

    def ranges(self) -> Mapping[str, tuple[float, float]]:
        return {"alpha": (0.0, 1e3), **LinearOptions.ranges(self)}


class Ucb(LinearPolicy):
    """Takes the largest upper bound, its propensity 1; equal bounds share evenly.

    Overlap for off-policy evaluation comes from the randomised share that the loop puts around it.
    """

    name = "ucb"
    options: UcbOptions

    def __init__(self, options: UcbOptions | None = None) -> None:
        super().__init__(options or UcbOptions())

    def distribution(self, means: NDArray[np.float64], sds: NDArray[np.float64]) -> NDArray[np.float64]:
        bounds = means + self.options.alpha * sds
        return evenly(bounds == bounds.max())
