"""The decision whether a change ships: a group-sequential test with a plan that is made before the first assignment."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final, Literal, TypeAlias

import msgspec

from windlass.stats.trials.effects import Effect
from windlass.stats.trials.spending import Spending, boundaries, crossing, drift_for

State: TypeAlias = Literal["open", "better", "worse", "undecided"]
_APART: Final = 0.02
"""Information has to grow by that share of the plan between two looks, so that there are 51 at most."""


class ShipPlan(msgspec.Struct, frozen=True):
    """size: units per variant (or pairs) that were planned. alpha: two-sided."""

    size: float
    alpha: float = 0.05
    spending: Spending = "obrien_fleming"

    def __post_init__(self) -> None:
        if not (2.0 <= self.size < math.inf and 0.0 < self.alpha < 1.0):
            raise ValueError(
                f"size {self.size}, alpha {self.alpha}; give at least 2 units, and a level between 0 and 1"
            )


class ShipTest(msgspec.Struct):
    """What the looks so far have said. The first that decides, decides; later ones change nothing."""

    plan: ShipPlan
    fractions: list[float] = []
    state: State = "open"
    boundary: float = math.inf
    """|z| that the last look had to reach."""

    def look(self, size: float, effect: Effect) -> State:
        """Look at `size` units per variant (or pairs). Sizes that did not grow are looked at already."""
        fraction = size / self.plan.size
        if self.state != "open" or not self._new(fraction):
            return self.state
        self.fractions = [*self.fractions, fraction]
        self.boundary = _boundary(tuple(self.fractions), self.plan.alpha, self.plan.spending)
        if abs(effect.z) >= self.boundary:
            self.state = "better" if effect.z > 0.0 else "worse"
        elif fraction >= 1.0:
            self.state = "undecided"
        return self.state

    def interval(self, effect: Effect) -> tuple[float, float]:
        """Holds for the look at which it is reported and all before it together, with chance 1 - alpha (repeated
        confidence intervals: Jennison, Turnbull, JRSS B 51(3), 1989)."""
        return effect.interval(self.boundary)

    def _new(self, fraction: float) -> bool:
        last = self.fractions[-1] if self.fractions else 0.0
        full = fraction >= 1.0 > last
        return math.isfinite(fraction) and (full or fraction - last >= _APART)


@lru_cache(maxsize=1_024)
def _boundary(fractions: tuple[float, ...], alpha: float, spending: Spending) -> float:
    return float(boundaries(fractions, alpha, spending)[-1])


def planned_size(
    fixed: float, looks: int, power: float, alpha: float = 0.05, spending: Spending = "obrien_fleming"
) -> float:
    """Units per variant for `looks` equal looks, so that the power is that of one look at `fixed` units."""
    equal = [(k + 1) / looks for k in range(looks)]
    once = drift_for([1.0], boundaries([1.0], alpha).tolist(), power)
    return fixed * (drift_for(equal, boundaries(equal, alpha, spending).tolist(), power) / once) ** 2


def power_of(looks: int, drift: float, alpha: float = 0.05, spending: Spending = "obrien_fleming") -> float:
    """The chance to find, at one of `looks` equal looks, an effect with this expected z statistic at the end."""
    equal = [(k + 1) / looks for k in range(looks)]
    return float(crossing(equal, boundaries(equal, alpha, spending).tolist(), drift)[0].sum())
