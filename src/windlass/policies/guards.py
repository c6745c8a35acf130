"""Guards: policies that wrap a policy. The name and the version stay those of the policy inside, and so does the state,
with the guard's own beside it where it has one. Here is the randomised share; the guards that leave actions out are in
`eligible.py`, `budget.py` and `cool_down.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from windlass.errors import PolicyError
from windlass.policies.policy import Arm, Choice, Context, Policy, require
from windlass.records import Decision

DEFAULT_SHARE = 0.02


class Guard(ABC):
    """A policy around a policy; what it does not change is that of the policy inside."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    @property
    def name(self) -> str:
        return self.policy.name

    @property
    def version(self) -> int:
        return self.policy.version

    @abstractmethod
    def probabilities(self, context: Context, actions: Sequence[str]) -> NDArray[np.float64]:
        """The exact distribution over the eligible `actions`: (k,), sums to 1."""

    @abstractmethod
    def choose(self, context: Context, actions: Sequence[str], rng: np.random.Generator) -> Choice:
        """One draw from `probabilities`, with the probability that it had."""

    def shown(self, context: Context) -> Context:
        """What the policy inside sees of the context."""
        return context

    def learn(self, decision: Decision, reward: float, previous: float | None) -> None:
        self.policy.learn(decision, reward, previous)

    def state(self) -> bytes:
        return self.policy.state()

    def restore(self, state: bytes) -> None:
        self.policy.restore(state)

    def explain(self, context: Context, actions: Sequence[str]) -> tuple[Arm, ...]:
        arms = self.policy.explain(self.shown(context), actions)
        mine = self.probabilities(context, actions)
        return tuple(msgspec.structs.replace(arm, probability=float(p)) for arm, p in zip(arms, mine, strict=True))


class Randomised(Guard):
    """Keeps a share of the choices uniformly random, so that every eligible action has a known, positive propensity.

    With inner probabilities p the guard's are `share / k + (1 - share) p`. Off-policy evaluation gets its overlap from
    this share, and the quality floor its audit. `share` in [0, 1].
    """

    def __init__(self, policy: Policy, share: float = DEFAULT_SHARE) -> None:
        super().__init__(policy)
        if not 0.0 <= share <= 1.0:
            raise PolicyError(f"randomised share is {share}; give a number from 0 to 1")
        self.share = share

    def probabilities(self, context: Context, actions: Sequence[str]) -> NDArray[np.float64]:
        require(actions)
        return self.share / len(actions) + (1.0 - self.share) * self.policy.probabilities(context, actions)

    def choose(self, context: Context, actions: Sequence[str], rng: np.random.Generator) -> Choice:
        require(actions)
        if rng.random() >= self.share:
            choice = self.policy.choose(context, actions, rng)
            return msgspec.structs.replace(choice, propensity=self._mixed(choice.propensity, actions))
        index = int(rng.integers(len(actions)))
        inner = float(self.policy.probabilities(context, actions)[index])
        return Choice(actions[index], self._mixed(inner, actions), f"randomised share of {self.share:.0%}")

    def _mixed(self, probability: float, actions: Sequence[str]) -> float:
        return self.share / len(actions) + (1.0 - self.share) * probability
