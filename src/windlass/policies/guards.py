"""Guards: policies that wrap a policy. The state and the name stay those of the policy inside."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from windlass.errors import PolicyError
from windlass.policies.policy import Arm, Choice, Context, Policy, require
from windlass.records import Decision

DEFAULT_SHARE = 0.02


class Randomised:
    """Keeps a share of the choices uniformly random, so that every eligible action has a known, positive propensity.

    With inner probabilities p the guard's are `share / k + (1 - share) p`. Off-policy evaluation gets its overlap from
    this share, and the quality floor its audit. `share` in [0, 1].
    """

    def __init__(self, policy: Policy, share: float = DEFAULT_SHARE) -> None:
        if not 0.0 <= share <= 1.0:
            raise PolicyError(f"randomised share is {share}; give a number from 0 to 1")
        self.policy = policy
        self.share = share

    @property
    def name(self) -> str:
        return self.policy.name

    @property
    def version(self) -> int:
        return self.policy.version

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

    def learn(self, decision: Decision, reward: float, previous: float | None) -> None:
        self.policy.learn(decision, reward, previous)

    def state(self) -> bytes:
        return self.policy.state()

    def restore(self, state: bytes) -> None:
        self.policy.restore(state)

    def explain(self, context: Context, actions: Sequence[str]) -> tuple[Arm, ...]:
        return tuple(
            msgspec.structs.replace(arm, probability=self._mixed(arm.probability, actions))
            for arm in self.policy.explain(context, actions)
        )

    def _mixed(self, probability: float, actions: Sequence[str]) -> float:
        return self.share / len(actions) + (1.0 - self.share) * probability
