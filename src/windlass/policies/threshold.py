"""Threshold: one action where a feature of the context reaches a floor, another below it. It learns nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windlass.errors import PolicyError
from windlass.policies.policy import Choice, require
from windlass.policies.rule import Rule
from windlass.stats.features import Context


@dataclass(frozen=True, slots=True)
class ThresholdOptions:
    """`above` where context[`feature`] >= `floor`, `below` otherwise. A missing or non-finite feature is below."""

    feature: str = "support"
    floor: float = 0.5
    above: str = "answer"
    below: str = "abstain"

    def __post_init__(self) -> None:
        if not math.isfinite(self.floor):
            raise PolicyError(f"threshold: floor is {self.floor}; give a finite number")
        if self.above == self.below:
            raise PolicyError(f"threshold: above and below are both {self.above!r}; name two actions")


class Threshold(Rule):
    """A rule as a policy, so that it is recorded, shadowed and replaced like any other."""

    name = "threshold"

    def __init__(self, options: ThresholdOptions | None = None) -> None:
        self.options = options or ThresholdOptions()

    def probabilities(self, context: Context, actions: Sequence[str]) -> NDArray[np.float64]:
        require(actions)
        distribution = np.zeros(len(actions))
        wanted = self._wanted(context)
        distribution[actions.index(wanted) if wanted in actions else 0] = 1.0
        return distribution

    def choose(self, context: Context, actions: Sequence[str], rng: np.random.Generator) -> Choice:
        index = int(np.argmax(self.probabilities(context, actions)))
        wanted, value = self._wanted(context), context.get(self.options.feature)
        why = f"{self.options.feature} {value} against {self.options.floor}"
        return Choice(actions[index], 1.0, why, "" if wanted in actions else f"{wanted} not eligible")

    def settled(self) -> tuple[object, ...]:
        return self.options.feature, self.options.floor, self.options.above, self.options.below

    def _wanted(self, context: Context) -> str:
        value = context.get(self.options.feature)
        reached = isinstance(value, float | int) and math.isfinite(value) and value >= self.options.floor
        return self.options.above if reached else self.options.below
