"""Split: actions in fixed shares, the assignment of an A/B test. It learns nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from windlass.errors import PolicyError
from windlass.policies.policy import Choice, draw, require, why
from windlass.policies.rule import Rule
from windlass.stats.features import Context


@dataclass(frozen=True, slots=True)
class SplitOptions:
    """`shares`: action -> weight of any scale, at least 0. With none, every eligible action has the same share."""

    shares: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if any(not (math.isfinite(share) and share >= 0.0) for share in self.shares.values()):
            raise PolicyError(f"split: shares {dict(self.shares)} must be finite numbers, at least 0")
        if self.shares and not 0.0 < sum(self.shares.values()) < math.inf:
            raise PolicyError(f"split: shares {dict(self.shares)} add up to nothing usable; give one a positive share")


class Split(Rule):
    """Draws from the configured shares among the eligible actions; an action without a share is not taken.

    Where nothing that has a share is eligible it takes the first eligible action and says so in `fallback`.
    """

    name = "split"

    def __init__(self, options: SplitOptions | None = None) -> None:
        self.options = options or SplitOptions()

    def probabilities(self, context: Context, actions: Sequence[str]) -> NDArray[np.float64]:
        require(actions)
        shares = self.options.shares
        weights = np.array([shares.get(action, 0.0) if shares else 1.0 for action in actions])
        if not weights.any():
            weights[0] = 1.0
        # Scaled by the largest first: a sum of shares near the smallest float would lose its digits.
        weights /= weights.max()
        distribution: NDArray[np.float64] = weights / weights.sum()
        return distribution

    def choose(self, context: Context, actions: Sequence[str], rng: np.random.Generator) -> Choice:
        arms = self.explain(context, actions)
        index = draw(np.array([arm.probability for arm in arms]), rng)
        wanted = [action for action, share in self.options.shares.items() if share > 0.0]
        missing = f"{', '.join(wanted)} not eligible" if wanted and not set(wanted) & set(actions) else ""
        return Choice(actions[index], arms[index].probability, why(arms), missing)

    def settled(self) -> tuple[object, ...]:
        return (sorted(self.options.shares.items()),)
