"""Ucb1: the action whose mean reward might be the largest, whatever the context says; every action once at first.

    a = argmax  mean_a + sqrt(width ln n / n_a)

with n rewards in all and n_a of the action. Source: Auer, Cesa-Bianchi, Fischer, "Finite-time Analysis of the
Multiarmed Bandit Problem", Machine Learning 47, 2002, figure 1, where width is 2 and rewards lie in [0, 1].
It is the yardstick for learners that look at the context: what they add to it is what the context is worth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from windlass.errors import PolicyError
from windlass.policies.policy import Arm, Choice, draw, evenly, require, why
from windlass.records import Decision
from windlass.stats.features import Context
from windlass.stats.linear import VALUE_LIMIT


@dataclass(frozen=True, slots=True)
class Ucb1Options:
    """`width`: of the bound, in [0, 100]; 2 is the paper's, less explores less."""

    width: float = 2.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.width <= 100.0:
            raise PolicyError(f"ucb1: width is {self.width}; give a number from 0 to 100")


class _Tally(msgspec.Struct, array_like=True):
    """Rewards of one action: how many, and their sum."""

    count: int
    total: float


class _StoredTallies(msgspec.Struct, frozen=True, array_like=True):
    name: str
    version: int
    width: float
    tallies: tuple[tuple[str, int, float], ...]


class Ucb1:
    """Takes the largest bound, its propensity 1; equal bounds, and actions that nobody tried, share evenly.

    Overlap for off-policy evaluation comes from the randomised share that the loop puts around it.
    """

    name = "ucb1"
    version = 1

    def __init__(self, options: Ucb1Options | None = None) -> None:
        self.options = options or Ucb1Options()
        self._tallies: dict[str, _Tally] = {}
        self._learned = 0

    def probabilities(self, context: Context, actions: Sequence[str]) -> NDArray[np.float64]:
        require(actions)
        bounds = np.array([self._bound(self._tallies.get(action)) for action in actions])
        return evenly(bounds == bounds.max())

    def choose(self, context: Context, actions: Sequence[str], rng: np.random.Generator) -> Choice:
        arms = self.explain(context, actions)
        index = draw(np.array([arm.probability for arm in arms]), rng)
        return Choice(actions[index], arms[index].probability, why(arms))

    def learn(self, decision: Decision, reward: float, previous: float | None) -> None:
        for value in (reward, previous or 0.0):
            if not abs(value) <= VALUE_LIMIT:
                raise ValueError(f"reward {value} is not a finite number within +-{VALUE_LIMIT:g}")
        tally = self._tallies.setdefault(decision.action, _Tally(0, 0.0))
        tally.total += reward - (previous or 0.0)
        if previous is None:
            tally.count += 1
            self._learned += 1

    def state(self) -> bytes:
        tallies = tuple((action, tally.count, tally.total) for action, tally in sorted(self._tallies.items()))
        return msgspec.msgpack.encode(_StoredTallies(self.name, self.version, self.options.width, tallies))

    def restore(self, state: bytes) -> None:
        mine = (self.name, self.version, self.options.width)
        try:
            stored = msgspec.msgpack.decode(state, type=_StoredTallies)
            if (stored.name, stored.version, stored.width) != mine:
                raise ValueError(f"it is of {stored.name}@{stored.version} with width {stored.width}, this is {mine}")
            if any(count < 0 or not math.isfinite(total) for _, count, total in stored.tallies):
                raise ValueError("its counts or sums are no numbers of rewards")
        except (msgspec.MsgspecError, ValueError) as exc:
            raise PolicyError(f"not a state of {self.name}: {exc}; rebuild it from the ledger") from exc
        self._tallies = {action: _Tally(count, total) for action, count, total in stored.tallies}
        self._learned = sum(tally.count for tally in self._tallies.values())

    def explain(self, context: Context, actions: Sequence[str]) -> tuple[Arm, ...]:
        chances = self.probabilities(context, actions).tolist()
        return tuple(
            self._arm(action, self._tallies.get(action), chance)
            for action, chance in zip(actions, chances, strict=True)
        )

    def _bound(self, tally: _Tally | None) -> float:
        if tally is None or not tally.count:
            return math.inf
        return tally.total / tally.count + math.sqrt(self.options.width * math.log(self._learned) / tally.count)

    @staticmethod
    def _arm(action: str, tally: _Tally | None, chance: float) -> Arm:
        """The deviation is the largest that the mean of rewards in [0, 1] can have."""
        if tally is None or not tally.count:
            return Arm(action, None, None, chance, 0)
        return Arm(action, tally.total / tally.count, 0.5 / math.sqrt(tally.count), chance, tally.count)
