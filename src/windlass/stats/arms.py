"""One linear model per action: which posterior belongs to which action, and what all of them look like when stored."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from windlass.stats.discounted import DiscountedPosterior, Recency
from windlass.stats.linear import LinearPosterior, Stacked

KEPT_HALF_LIVES = 20
"""After so many half-lives a value counts a millionth; corrections of what is older change nothing."""


class StoredArm(msgspec.Struct, frozen=True, array_like=True):
    """The sums of one arm: raw little-endian float64, the precision matrix row by row. `step`: see `discounted.py`."""

    action: str
    observations: int
    precision: bytes
    moment: bytes
    step: int = 0


class StoredArms(msgspec.Struct, frozen=True, array_like=True):
    """All arms by action, and the keys of the observations that can still be corrected exactly."""

    arms: tuple[StoredArm, ...]
    keys: bytes = b""


class LinearArms:
    """Disjoint Bayesian linear regressions, made when an action is first learned from.

    prior_precision, noise_variance: as in `LinearPosterior`. half_life: in observations of all arms together, 0 for
    arms that forget nothing.
    """

    def __init__(self, prior_precision: float, noise_variance: float, half_life: float = 0.0) -> None:
        self.prior_precision = prior_precision
        self.noise_variance = noise_variance
        self.half_life = half_life
        self.observations = 0
        self._arms: dict[str, LinearPosterior] = {}
        self._steps = Recency(math.ceil(KEPT_HALF_LIVES * half_life))
        self._untried = LinearPosterior(prior_precision, noise_variance)
        self._stacked = Stacked()

    @property
    def memory(self) -> float:
        """How many observations count by now: all of them, or with a half-life the sum of their weights."""
        if not self.half_life:
            return float(self.observations)
        gamma = 0.5 ** (1.0 / self.half_life)
        return float((1.0 - gamma**self.observations) / (1.0 - gamma))

    @property
    def widest(self) -> int:
        """The largest dimension of an arm."""
        return max((arm.dimension for arm in self._arms.values()), default=0)

    def predict(
        self, actions: Sequence[str], x: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of each action's value at `x: (d,)`: two (k,) arrays."""
        return self._stacked.predict([self._arms.get(action, self._untried) for action in actions], x)

    def observed(self, action: str) -> int:
        """How many values were observed of `action`."""
        return self._arms.get(action, self._untried).observations

    def observe(self, action: str, key: str, x: NDArray[np.float64], y: float) -> None:
        """Add the observation `key` of `action`. ValueError, and no change, where `y` is no usable number."""
        arm = self._arms.get(action) or self._new()
        if isinstance(arm, DiscountedPosterior):
            arm.observe_at(self.observations + 1, x, y)
            self._arms[action] = arm
            self._age(self._steps.add(key))
        else:
            arm.observe(x, y)
            self._arms[action] = arm
        self.observations += 1

    def revise(self, action: str, key: str, x: NDArray[np.float64], y: float, previous: float) -> None:
        """Replace the value of the observation `key`. With a half-life a key that is not known any more changes
        nothing: its weight is below a millionth."""
        arm = self._arms.get(action) or self._new()
        if isinstance(arm, DiscountedPosterior):
            step = self._steps.find(key)
            if step is not None and step <= arm.step:
                arm.revise_from(step, x, y, previous)
        else:
            arm.revise(x, y, previous)
            self._arms[action] = arm

    def stored(self) -> StoredArms:
        """Everything learned, in sorted order."""
        arms = (
            StoredArm(
                action,
                arm.observations,
                _raw(arm.precision),
                _raw(arm.moment),
                arm.step if isinstance(arm, DiscountedPosterior) else 0,
            )
            for action, arm in sorted(self._arms.items())
        )
        return StoredArms(tuple(arms), self._steps.packed())

    def restore(self, stored: StoredArms) -> None:
        """Take over what `stored` returned, bit by bit. ValueError, and no change, where it cannot come from there."""
        arms = {arm.action: self._restored(arm) for arm in stored.arms}
        observations = sum(arm.observations for arm in arms.values())
        if any(arm.step > observations for arm in stored.arms):
            raise ValueError(f"an arm was observed after the last of {observations} observations")
        steps = Recency(self._steps.limit)
        steps.restore(stored.keys, observations if self.half_life else 0)
        self._arms, self.observations, self._steps = arms, observations, steps
        self._age(observations)

    def _age(self, step: int) -> None:
        for arm in self._arms.values():
            if isinstance(arm, DiscountedPosterior):
                arm.age(step)

    def _new(self) -> LinearPosterior:
        if self.half_life:
            return DiscountedPosterior(self.prior_precision, self.noise_variance, self.half_life)
        return LinearPosterior(self.prior_precision, self.noise_variance)

    def _restored(self, stored: StoredArm) -> LinearPosterior:
        arm = self._new()
        moment = np.frombuffer(stored.moment, "<f8").astype(np.float64)
        precision = np.frombuffer(stored.precision, "<f8").astype(np.float64).reshape(len(moment), len(moment))
        if isinstance(arm, DiscountedPosterior):
            arm.restore_at(stored.step, precision, moment, stored.observations)
        else:
            arm.restore(precision, moment, stored.observations)
        return arm


def _raw(values: NDArray[np.float64]) -> bytes:
    return values.astype("<f8").tobytes()
