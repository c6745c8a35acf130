"""What the joint Thompson sampler is asked for, and what it believes before the first reward."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from windlass.errors import PolicyError

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "cheapest": MappingProxyType({"quality_percent": 85.0}),
        "balanced": MappingProxyType({"quality_percent": 95.0}),
        "best": MappingProxyType({}),
    }
)
"""Objectives by name, as options: what is not among them has its default."""


MOST_NUSD = 1e15
"""A million dollars for one call: more is a mistake."""


@dataclass(frozen=True, slots=True)
class JointThompsonOptions:
    """What is wanted, in the user's units; without any of it the best quality that the budget allows.

    quality_percent: spend as little as keeps that many percent of the quality of `reference`; 0 asks for the best.
    reference: the action that quality is measured against; empty for the one that is best on average.
    quality_per_usd: how much quality (of 0 to 1) one dollar more per call has to bring.

    What to believe, and how boldly to try:
    alpha: factor on the deviations when choosing (1 = Thompson sampling, below explores less).
    correlation: between the weights of any two actions before the first reward; bias_correlation: between their means.
    bias_variance, number_variance, tuple_variance: prior variance of an action's mean, of the weight of a number of the
    context (brought to deviation 1), and of the weight of an entry of a tuple (taken as it is, meant to have length 1).
    noise_variance: of one reward given the context; rewards in [0, 1] cannot exceed 0.25.
    walk_variance: by which an action's mean may drift per reward. prior_mean: reward expected of what nobody tried;
    near the best there is, so that a dear action is tried until it has shown that it is not worth its price.
    forced_calls: rewards that a new action gets at least, in a share of the calls, once others have more.
    max_features: of the context kept at most; fewer with more than 9 actions, so that the state stays below 4 MB.
    """

    quality_percent: float = 0.0
    reference: str = ""
    quality_per_usd: float = 0.0
    alpha: float = 0.05
    correlation: float = 0.65
    bias_correlation: float = 0.0
    bias_variance: float = 0.05
    number_variance: float = 0.03
    tuple_variance: float = 0.1
    noise_variance: float = 0.2
    walk_variance: float = 3e-5
    prior_mean: float = 0.9
    forced_calls: int = 15
    max_features: int = 80

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise PolicyError(f"joint_thompson: {name} is {value}; give a number from {low} to {high}")

    def settled(self) -> tuple[str, tuple[float, ...]]:
        """All of it as plain data, as a state names it."""
        return self.reference, tuple(float(getattr(self, name)) for name in _RANGES)


_RANGES: Mapping[str, tuple[float, float]] = {
    "quality_percent": (0.0, 100.0),
    "quality_per_usd": (0.0, 1e12),
    "alpha": (1e-3, 10.0),
    "correlation": (0.0, 0.999),
    "bias_correlation": (0.0, 0.999),
    "bias_variance": (1e-6, 1e4),
    "number_variance": (1e-6, 1e4),
    "tuple_variance": (1e-6, 1e4),
    "noise_variance": (1e-4, 1e4),
    "walk_variance": (0.0, 1.0),
    "prior_mean": (-1.0, 2.0),
    "forced_calls": (0, 10_000),
    "max_features": (1, 512),
}


_NUMBER = (float, int)


def finite(value: object, unknown: float) -> float:
    """A cost, an allowance or an objective: from 0 to `MOST_NUSD`; `unknown` for what is none (a tuple, NaN, -1)."""
    return min(float(value), MOST_NUSD) if isinstance(value, _NUMBER) and 0.0 <= value < math.inf else unknown
