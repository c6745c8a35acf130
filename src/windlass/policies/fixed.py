"""Fixed: one action, always. It learns nothing. For shares of several actions see `split.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windlass.policies.policy import Choice, require, why
from windlass.policies.rule import Rule
from windlass.stats.features import Context


@dataclass(frozen=True, slots=True)
class FixedOptions:
    """`action`: the one to take; "" takes the first eligible."""

    action: str = ""


class Fixed(Rule):
    """Takes the configured action; where that is not eligible the first eligible one, and says so in `fallback`."""

    name = "fixed"

    def __init__(self, options: FixedOptions | None = None) -> None:
        self.options = options or FixedOptions()

    def probabilities(self, context: Context, actions: Sequence[str]) -> NDArray[np.float64]:
        require(actions)
        wanted = self.options.action
        distribution = np.zeros(len(actions))
        distribution[actions.index(wanted) if wanted in actions else 0] = 1.0
        return distribution

    def choose(self, context: Context, actions: Sequence[str], rng: np.random.Generator) -> Choice:
        arms = self.explain(context, actions)
        taken = max(arms, key=lambda arm: arm.probability)
        wanted = self.options.action
        return Choice(taken.action, 1.0, why(arms), "" if wanted in ("", taken.action) else f"{wanted} not eligible")

    def settled(self) -> tuple[object, ...]:
        return (self.options.action,)
