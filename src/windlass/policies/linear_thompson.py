"""LinearThompson: a linear model of the reward for each action, and choices by exact Thompson probabilities.

Each action has a Bayesian linear regression of its own on the context (disjoint arms), made when the action is first
learned from. An action is chosen with the probability that its expected reward is the largest, computed and not
sampled, so the recorded propensity is the true one. Sources: Agrawal, Goyal, "Thompson Sampling for Contextual Bandits
with Linear Payoffs", ICML 2013; Russo et al., "A Tutorial on Thompson Sampling", 2018, section 3.

The state grows with the features: a name that was never learned from counts, until it is, with its prior in every arm,
which is exactly what it would count if it had been there from the start with the value 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from windlass.errors import PolicyError
from windlass.policies.features import Features
from windlass.policies.policy import Arm, Choice, Context, draw, require, why
from windlass.records import Decision
from windlass.stats import thompson
from windlass.stats.linear import LinearPosterior, predict


@dataclass(frozen=True, slots=True)
class LinearThompsonOptions:
    """How boldly to explore and what to believe before the first reward.

    alpha: factor on the deviations when choosing (1 = Thompson sampling, below explores less).
    prior_precision: of each weight, 1 / variance. noise_variance: of one reward given the context; rewards in [0, 1]
    cannot exceed 0.25. prior_mean: expected reward of an action that nobody tried. max_features: kept at most.
    """

    alpha: float = 1.0
    prior_precision: float = 1.0
    noise_variance: float = 0.1
    prior_mean: float = 0.5
    max_features: int = 512

    def __post_init__(self) -> None:
        ranges = {
            "alpha": (self.alpha, 1e-3, 1e3),
            "prior_precision": (self.prior_precision, 1e-3, 1e6),
            "noise_variance": (self.noise_variance, 1e-4, 1e4),
            "prior_mean": (self.prior_mean, -1.0, 2.0),
            "max_features": (self.max_features, 0, 4096),
        }
        for name, (value, low, high) in ranges.items():
            if not low <= value <= high:
                raise PolicyError(f"linear_thompson: {name} is {value}; give a number from {low} to {high}")


class _StoredArm(msgspec.Struct, frozen=True, array_like=True):
    """The sums of one arm: raw little-endian float64, the precision matrix row by row."""

    action: str
    observations: int
    precision: bytes
    moment: bytes


class _StoredModel(msgspec.Struct, frozen=True, array_like=True):
    name: str
    version: int
    options: tuple[float, ...]
    features: tuple[tuple[str, int], ...]
    arms: tuple[_StoredArm, ...]


class LinearThompson:
    """Learns which action is best in which context. Rewards in [0, 1], contexts of order one (clipped at +-100)."""

    name = "linear_thompson"
    version = 1

    def __init__(self, options: LinearThompsonOptions | None = None) -> None:
        self.options = options or LinearThompsonOptions()
        self._features = Features(self.options.max_features)
        self._arms: dict[str, LinearPosterior] = {}
        self._untried = self._new_arm()

    def probabilities(self, context: Context, actions: Sequence[str]) -> NDArray[np.float64]:
        return self._judge(context, actions)[2]

    def choose(self, context: Context, actions: Sequence[str], rng: np.random.Generator) -> Choice:
        means, sds, probabilities = self._judge(context, actions)
        index = draw(probabilities, rng)
        arms = self._described(actions, means, sds, probabilities)
        return Choice(actions[index], arms[index].probability, why(arms))

    def learn(self, decision: Decision, reward: float, previous: float | None) -> None:
        if not math.isfinite(reward) or (previous is not None and not math.isfinite(previous)):
            raise ValueError(f"reward {reward} (before: {previous}) is not a finite number")
        arm = self._arms.get(decision.action) or self._new_arm()
        x = self._features.vector(decision.context)
        target = reward - self.options.prior_mean
        if previous is None:
            arm.observe(x, target)
        else:
            arm.revise(x, target, previous - self.options.prior_mean)
        # Kept only now: a refused reward leaves neither an arm nor a feature behind.
        self._features.learn(decision.context)
        self._arms[decision.action] = arm

    def state(self) -> bytes:
        arms = tuple(
            _StoredArm(action, arm.observations, _raw(arm.precision), _raw(arm.moment))
            for action, arm in sorted(self._arms.items())
        )
        options = tuple(float(value) for value in astuple(self.options))
        return msgspec.msgpack.encode(_StoredModel(self.name, self.version, options, self._features.names, arms))

    def restore(self, state: bytes) -> None:
        try:
            stored = msgspec.msgpack.decode(state, type=_StoredModel)
            arms = {arm.action: self._stored_arm(arm) for arm in stored.arms}
        except (msgspec.MsgspecError, ValueError) as exc:
            raise PolicyError(f"not a state of {self.name}: {exc}; rebuild it from the ledger") from exc
        options = tuple(float(value) for value in astuple(self.options))
        if (stored.name, stored.version, stored.options) != (self.name, self.version, options):
            raise PolicyError(
                f"a state of {stored.name}@{stored.version} with options {stored.options} cannot become "
                f"{self.name}@{self.version} with {options}; rebuild it from the ledger"
            )
        if any(arm.dimension > 1 + len(stored.features) for arm in arms.values()):
            raise PolicyError(f"a state of {self.name} has arms wider than its features; rebuild it from the ledger")
        self._features = Features(self.options.max_features, stored.features)
        self._arms = arms

    def explain(self, context: Context, actions: Sequence[str]) -> tuple[Arm, ...]:
        return self._described(actions, *self._judge(context, actions))

    def _judge(
        self, context: Context, actions: Sequence[str]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """(means, deviations, probabilities), each (k,)."""
        require(actions)
        posteriors = [self._arms.get(action, self._untried) for action in actions]
        means, sds = predict(posteriors, self._features.vector(context))
        means += self.options.prior_mean
        return means, sds, thompson.probabilities(means, self.options.alpha * sds)

    def _described(
        self,
        actions: Sequence[str],
        means: NDArray[np.float64],
        sds: NDArray[np.float64],
        probabilities: NDArray[np.float64],
    ) -> tuple[Arm, ...]:
        return tuple(
            Arm(action, float(mean), float(sd), float(p), self._arms.get(action, self._untried).observations)
            for action, mean, sd, p in zip(actions, means, sds, probabilities, strict=True)
        )

    def _new_arm(self) -> LinearPosterior:
        return LinearPosterior(self.options.prior_precision, self.options.noise_variance)

    def _stored_arm(self, stored: _StoredArm) -> LinearPosterior:
        arm = self._new_arm()
        moment = np.frombuffer(stored.moment, "<f8").astype(np.float64)
        precision = np.frombuffer(stored.precision, "<f8").astype(np.float64)
        arm.restore(precision.reshape(len(moment), len(moment)), moment, stored.observations)
        return arm


def _raw(values: NDArray[np.float64]) -> bytes:
    return values.astype("<f8").tobytes()
