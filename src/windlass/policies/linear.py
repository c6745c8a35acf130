"""Learners with a linear model of the reward for each action, and LinearThompson, the one that is used by default.

Each action has a Bayesian linear regression of its own on the context (disjoint arms), made when the action is first
learned from. What such learners differ in is how means and deviations become a distribution over the actions.
LinearThompson takes an action with the probability that its expected reward is the largest, and records that number,
computed and not sampled, so the recorded propensity is the true one. Sources: Agrawal, Goyal, "Thompson Sampling for
Contextual Bandits with Linear Payoffs", ICML 2013; Russo et al., "A Tutorial on Thompson Sampling", 2018, section 3.

The state grows with the features: a name that was never learned from counts, until it is, with its prior in every arm,
which is exactly what it would count if it had been there from the start with the value 0.

With a `half_life` old rewards fade (Russac, Vernade, Cappe, "Weighted Linear Bandits for Non-Stationary Environments",
NeurIPS 2019). A reward has the age of its decision: the number of decisions, of any action, that were learned from for
the first time since this one was. A reward that is replaced keeps that age, so that the last one counts as if it had
been the first; the ages of the newest 20 half-lives are kept for it, and what is older, a millionth, stays as it is.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from windlass.errors import PolicyError
from windlass.policies.policy import Arm, Choice, believed, draw, require, why
from windlass.records import Decision
from windlass.stats import chance, thompson
from windlass.stats.arms import LinearArms, StoredArms
from windlass.stats.features import Context, Features


@dataclass(frozen=True, slots=True)
class LinearOptions:
    """What to believe before the first reward, and for how long to believe a reward.

    prior_precision: of each weight, 1 / variance. noise_variance: of one reward given the context; rewards in [0, 1]
    cannot exceed 0.25. prior_mean: expected reward of an action that nobody tried. max_features: kept at most.
    half_life: after so many rewards one counts half, from 10 to 2,500; 0 forgets nothing.
    """

    policy: ClassVar[str] = "linear"
    prior_precision: float = 1.0
    noise_variance: float = 0.1
    prior_mean: float = 0.5
    max_features: int = 512
    half_life: float = 0.0

    def __post_init__(self) -> None:
        for name, (low, high) in self.ranges().items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise PolicyError(f"{self.policy}: {name} is {value}; give a number from {low} to {high}")
        if 0.0 < self.half_life < 10.0:
            raise PolicyError(f"{self.policy}: half_life is {self.half_life}; give 0 or a number from 10 to 2500")

    def ranges(self) -> Mapping[str, tuple[float, float]]:
        """The smallest and the largest value of each option."""
        return {
            "prior_precision": (1e-3, 1e6),
            "noise_variance": (1e-4, 1e4),
            "prior_mean": (-1.0, 2.0),
            "max_features": (0, 4096),
            "half_life": (0.0, 2500.0),
        }


class _StoredModel(msgspec.Struct, frozen=True, array_like=True):
    name: str
    version: int
    options: tuple[float, ...]
    features: tuple[tuple[str, int], ...]
    arms: StoredArms


class LinearPolicy(ABC):
    """A learner over linear models. Rewards in [0, 1], contexts of order one (clipped at +-100)."""

    name: str
    version = 1

    def __init__(self, options: LinearOptions) -> None:
        self.options = options
        self._features = Features(options.max_features)
        self._arms = LinearArms(options.prior_precision, options.noise_variance, options.half_life)

    @abstractmethod
    def distribution(self, means: NDArray[np.float64], sds: NDArray[np.float64]) -> NDArray[np.float64]:
        """The chances of k actions with these expected rewards and deviations, each (k,): sums to 1."""

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
        x = self._features.vector(decision.context)
        target = reward - self.options.prior_mean
        if previous is None:
            self._arms.observe(decision.action, decision.id, x, target)
        else:
            self._arms.revise(decision.action, decision.id, x, target, previous - self.options.prior_mean)
        # Kept only now: a refused reward leaves neither an arm nor a feature behind.
        self._features.learn(decision.context)

    def state(self) -> bytes:
        names, arms = self._features.names, self._arms.stored()
        return msgspec.msgpack.encode(_StoredModel(self.name, self.version, self._settled(), names, arms))

    def restore(self, state: bytes) -> None:
        arms = LinearArms(self.options.prior_precision, self.options.noise_variance, self.options.half_life)
        try:
            stored = msgspec.msgpack.decode(state, type=_StoredModel)
            if (stored.name, stored.version, stored.options) != (self.name, self.version, self._settled()):
                raise ValueError(
                    f"it is of {stored.name}@{stored.version} with the options {stored.options}, "
                    f"this is {self.name}@{self.version} with {self._settled()}"
                )
            arms.restore(stored.arms)
            if arms.widest > 1 + len(stored.features):
                raise ValueError("its arms are wider than its features")
        except (msgspec.MsgspecError, ValueError) as exc:
            raise PolicyError(f"not a state of {self.name}: {exc}; rebuild it from the ledger") from exc
        self._features = Features(self.options.max_features, stored.features)
        self._arms = arms

    def explain(self, context: Context, actions: Sequence[str]) -> tuple[Arm, ...]:
        return self._described(actions, *self._judge(context, actions))

    def _judge(
        self, context: Context, actions: Sequence[str]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """(means, deviations, probabilities), each (k,)."""
        means, sds = self._believed(context, actions)
        return means, sds, self.distribution(means, sds)

    def _believed(self, context: Context, actions: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(means, deviations), each (k,)."""
        require(actions)
        means, sds = self._arms.predict(actions, self._features.vector(context))
        means += self.options.prior_mean
        return means, sds

    def _described(
        self,
        actions: Sequence[str],
        means: NDArray[np.float64],
        sds: NDArray[np.float64],
        probabilities: NDArray[np.float64],
    ) -> tuple[Arm, ...]:
        return tuple(
            Arm(action, float(mean), float(sd), float(p), self._arms.observed(action))
            for action, mean, sd, p in zip(actions, means, sds, probabilities, strict=True)
        )

    def _settled(self) -> tuple[float, ...]:
        return tuple(float(value) for value in astuple(self.options))


@dataclass(frozen=True, slots=True)
class LinearThompsonOptions(LinearOptions):
    """How boldly to explore; what to believe at the start and for how long is as in `LinearOptions`.

    alpha: factor on the deviations when choosing (1 = Thompson sampling, below explores less).
    """

    policy: ClassVar[str] = "linear_thompson"
    alpha: float = 1.0

    def ranges(self) -> Mapping[str, tuple[float, float]]:
        return {"alpha": (1e-3, 1e3), **LinearOptions.ranges(self)}


class LinearThompson(LinearPolicy):
    """Takes each action with the probability that its expected reward is the largest."""

    name = "linear_thompson"
    options: LinearThompsonOptions

    def __init__(self, options: LinearThompsonOptions | None = None) -> None:
        super().__init__(options or LinearThompsonOptions())

    def distribution(self, means: NDArray[np.float64], sds: NDArray[np.float64]) -> NDArray[np.float64]:
        return thompson.probabilities(means, self.options.alpha * sds)

    def choose(self, context: Context, actions: Sequence[str], rng: np.random.Generator) -> Choice:
        """One draw of each arm, the largest wins: `distribution`, whose integrals then nobody has to wait for."""
        means, sds = self._believed(context, actions)
        index, propensity = chance.draw(means, self.options.alpha * sds, rng)
        return Choice(actions[index], propensity, believed(actions, means, sds))
