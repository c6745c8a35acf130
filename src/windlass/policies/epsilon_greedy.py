"""EpsilonGreedy: nearly always the action with the largest expected reward, now and then any of them.

Expected rewards come from the linear models of `linear.py`. After n rewards the share of chance is

    epsilon_n = max(minimum, epsilon / (1 + decay n))

which falls like 1 / n, as in the epsilon_n-greedy of Auer, Cesa-Bianchi, Fischer, "Finite-time Analysis of the
Multiarmed Bandit Problem", Machine Learning 47, 2002, figure 3: their min(1, c K / (d^2 n)) has c K / d^2 =
epsilon / decay. With a half-life n is the number of rewards that still count, so that the share of chance never falls
below what a changing world needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from windlass.errors import PolicyError
from windlass.policies.linear import LinearOptions, LinearPolicy
from windlass.policies.policy import evenly


@dataclass(frozen=True, slots=True)
class EpsilonGreedyOptions(LinearOptions):
    """How often to take chances; what to believe at the start and for how long is as in `LinearOptions`.

    epsilon: share of uniformly random choices at the start, in [0, 1]. decay: per reward; 0 keeps epsilon as it is.
    minimum: what the share never falls below.
    """

    policy: ClassVar[str] = "epsilon_greedy"
    epsilon: float = 0.1
    decay: float = 0.0
    minimum: float = 0.0

    def __post_init__(self) -> None:
        LinearOptions.__post_init__(self)
        if self.minimum > self.epsilon:
            raise PolicyError(f"epsilon_greedy: minimum {self.minimum} is above epsilon {self.epsilon}; give less")

    def ranges(self) -> Mapping[str, tuple[float, float]]:
        own = {"epsilon": (0.0, 1.0), "decay": (0.0, 1e6), "minimum": (0.0, 1.0)}
        return {**own, **LinearOptions.ranges(self)}


class EpsilonGreedy(LinearPolicy):
    """Takes the largest mean with 1 - epsilon_n, equal ones evenly, and any action with epsilon_n."""

    name = "epsilon_greedy"
    options: EpsilonGreedyOptions

    def __init__(self, options: EpsilonGreedyOptions | None = None) -> None:
        super().__init__(options or EpsilonGreedyOptions())

    @property
    def epsilon(self) -> float:
        """The share of chance by now."""
        return max(self.options.minimum, self.options.epsilon / (1.0 + self.options.decay * self._arms.memory))

    def distribution(self, means: NDArray[np.float64], sds: NDArray[np.float64]) -> NDArray[np.float64]:
        epsilon = self.epsilon
        return epsilon / len(means) + (1.0 - epsilon) * evenly(means == means.max())
