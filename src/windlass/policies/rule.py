"""Rule: what the policies have in common that learn nothing, so that a rule is recorded and replaced like a learner."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from windlass.errors import PolicyError
from windlass.policies.policy import Arm, Choice
from windlass.records import Decision
from windlass.stats.features import Context


class Rule(ABC):
    """A policy whose state is its options. Rewards are looked at only to refuse those that are no numbers."""

    name: str
    version = 1

    @abstractmethod
    def probabilities(self, context: Context, actions: Sequence[str]) -> NDArray[np.float64]:
        """The exact distribution over the eligible `actions`: (k,), sums to 1."""

    @abstractmethod
    def choose(self, context: Context, actions: Sequence[str], rng: np.random.Generator) -> Choice:
        """One draw from `probabilities`, with the probability that it had."""

    @abstractmethod
    def settled(self) -> tuple[object, ...]:
        """The options as plain values in an order of their own: equal options give equal values."""

    def learn(self, decision: Decision, reward: float, previous: float | None) -> None:
        """Nothing to learn; a reward that is no finite number is refused like everywhere."""
        if not math.isfinite(reward):
            raise ValueError(f"reward {reward} is not a finite number")

    def state(self) -> bytes:
        return msgspec.msgpack.encode([self.name, self.version, *self.settled()])

    def restore(self, state: bytes) -> None:
        if state != self.state():
            raise PolicyError(
                f"not a state of {self.name}@{self.version} with these options; rebuild it from the ledger"
            )

    def explain(self, context: Context, actions: Sequence[str]) -> tuple[Arm, ...]:
        distribution = self.probabilities(context, actions)
        return tuple(Arm(action, None, None, float(p), 0) for action, p in zip(actions, distribution, strict=True))
