"""Fixed: one action always, or actions in fixed shares (an A/B test's assignment). It learns nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from windlass.errors import PolicyError
from windlass.policies.policy import Arm, Choice, Context, draw, require, why
from windlass.records import Decision


@dataclass(frozen=True, slots=True)
class FixedOptions:
    """`action`: the one to take, or `shares`: action -> weight of any scale. With neither, the first eligible."""

    action: str = ""
    shares: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.action and self.shares:
            raise PolicyError(f"fixed: both action {self.action!r} and shares {dict(self.shares)}; give one of them")
        if any(not (math.isfinite(share) and share >= 0.0) for share in self.shares.values()):
            raise PolicyError(f"fixed: shares {dict(self.shares)} must be finite numbers, at least 0")
        if self.shares and not 0.0 < sum(self.shares.values()) < math.inf:
            raise PolicyError(f"fixed: shares {dict(self.shares)} add up to nothing usable; give one a positive share")


class Fixed:
    """Takes the configured action, or draws from the configured shares among the eligible ones.

    Where nothing that is configured is eligible it takes the first eligible action and says so in `fallback`.
    """

    name = "fixed"
    version = 1

    def __init__(self, options: FixedOptions | None = None) -> None:
        self.options = options or FixedOptions()

    def probabilities(self, context: Context, actions: Sequence[str]) -> NDArray[np.float64]:
        require(actions)
        shares = self.options.shares or {self.options.action: 1.0}
        weights = np.array([shares.get(action, 0.0) for action in actions])
        if not weights.any():
            weights[0] = 1.0
        # Scaled by the largest first: a sum of shares near the smallest float would lose its digits.
        weights /= weights.max()
        distribution: NDArray[np.float64] = weights / weights.sum()
        return distribution

    def choose(self, context: Context, actions: Sequence[str], rng: np.random.Generator) -> Choice:
        probabilities = self.probabilities(context, actions)
        index = draw(probabilities, rng)
        reason = why(self._arms(actions, probabilities))
        return Choice(actions[index], float(probabilities[index]), reason, self._fallback(actions))

    def learn(self, decision: Decision, reward: float, previous: float | None) -> None:
        """Nothing to learn; a reward that is no finite number is refused like everywhere."""
        if not math.isfinite(reward):
            raise ValueError(f"reward {reward} is not a finite number")

    def state(self) -> bytes:
        shares = sorted(self.options.shares.items())
        return msgspec.msgpack.encode([self.name, self.version, self.options.action, shares])

    def restore(self, state: bytes) -> None:
        if state != self.state():
            raise PolicyError(f"not a state of {self.name}@{self.version} with these options; rebuild from the ledger")

    def explain(self, context: Context, actions: Sequence[str]) -> tuple[Arm, ...]:
        return self._arms(actions, self.probabilities(context, actions))

    @staticmethod
    def _arms(actions: Sequence[str], probabilities: NDArray[np.float64]) -> tuple[Arm, ...]:
        return tuple(Arm(action, None, None, float(p), 0) for action, p in zip(actions, probabilities, strict=True))

    def _fallback(self, actions: Sequence[str]) -> str:
        wanted = [action for action, share in self.options.shares.items() if share > 0.0] or [self.options.action]
        return "" if wanted == [""] or set(wanted) & set(actions) else f"{', '.join(wanted)} not eligible"
