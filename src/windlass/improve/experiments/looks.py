"""A metric of a candidate beside its baseline's, as it stood at the looks that the plan says to take.

Quality and errors are compared by their means. Latency is, by its logarithm, and costs by the logarithm of the ratio of
their means (delta method), so that both effects are ratios. The first look that decides, decides; what is reported is
what stood then. Whoever stops early sees an effect that is somewhat too large on average; its interval holds.

Costs with a few huge values need hundreds of units: where their logarithms have a deviation of 1, an alpha of 5 % is
7.3 % at 50 units a side, 5.7 % at 300 and 5.1 % at 1,000. Brings scipy: a server imports it where it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, TypeVar

from windlass.policies.trials.plan import METRICS, RELATIVE, MetricName
from windlass.policies.trials.tally import Look, Summed, Trial
from windlass.stats.trials.effects import NOTHING, Effect, Sums, normal_score, student_score
from windlass.stats.trials.ship import ShipPlan, ShipTest, State

GOOD: Final[Mapping[MetricName, float]] = {"quality": 1.0, "cost": -1.0, "latency": -1.0, "error": -1.0}
"""The sign of what people want."""
_LEAST_SPREAD: Final = 0.01
"""Costs and times of a variant that vary by less than this part are taken to vary by it: a constant price has no error
of its own, and so would say nothing."""
K = TypeVar("K")


class Gauged(NamedTuple):
    """An effect, or one variant's figure, on the metric's scale. degrees: of freedom of its error."""

    effect: Effect
    degrees: float


class Tested(NamedTuple):
    """A look at a metric of a candidate. effect: candidate less baseline, on its scale. z: above 0 where the candidate
    is better or, with a margin, not worse by it. boundary: of |z|. state: after the look."""

    look: Look
    effect: Effect
    degrees: float
    z: float
    boundary: float
    state: State

    def interval(self) -> tuple[float, float]:
        """Of the effect; it holds for this look and all before it together."""
        return self.effect.interval(student_score(self.boundary, self.degrees))


class Path(NamedTuple):
    """What one metric of one candidate was at each look. effects: candidate less baseline, on the metric's scale."""

    metric: MetricName
    size: int
    looks: Sequence[Look]
    effects: Sequence[Gauged]

    def tested(self, alpha: float, margin: float = 0.0) -> list[Tested]:
        """The looks up to the one that decides. alpha: two-sided. margin: a loss that is accepted, of relative metrics
        as a share."""
        test = ShipTest(ShipPlan(self.size, alpha))
        accepted = math.log1p(margin) if self.metric in RELATIVE else margin
        taken: list[Tested] = []
        for look, (effect, degrees) in zip(self.looks, self.effects, strict=True):
            before = test.fractions
            good = Effect(GOOD[self.metric] * effect.value, effect.error).against(accepted)
            z = normal_score(good.z, degrees)
            state = test.look(look.units, Effect(z, 1.0))
            if test.fractions != before:
                taken.append(Tested(look, effect, degrees, z, test.boundary, state))
            if state != "open":
                break
        return taken


def path(trial: Trial, metric: MetricName, candidate: int) -> Path:
    """Of the candidate with that index among the variants."""
    at = METRICS.index(metric)
    effects = [effect_of(metric, look.sums[0][at], look.sums[candidate][at]) for look in trial.looks]
    return Path(metric, trial.plan.size, trial.looks, effects)


def stepped_down(paths: Mapping[K, Path], alpha: float) -> dict[K, State]:
    """What the looks say of all these together, with a chance of at most `alpha` of any mistake: Holm's procedure over
    sequential tests, where whatever is decided leaves its share of alpha to the others.

    Maurer, Bretz, "Multiple testing in group sequential trials", Statistics in Biopharmaceutical Research 5(4), 2013.
    """
    states: dict[K, State] = {}
    left = set(paths)
    while left:
        for key in left:
            taken = paths[key].tested(alpha / len(left))
            states[key] = taken[-1].state if taken else "open"
        found = {key for key in left if states[key] in ("better", "worse")}
        if not found:
            break
        left -= found
    return states


@lru_cache(maxsize=4_096)
def effect_of(metric: MetricName, baseline: Summed, candidate: Summed) -> Gauged:
    """Candidate less baseline: of means, or of logarithms. `NOTHING` where one of them has told next to nothing. What
    was seen at a look is asked for again and again, and stays."""
    (a, of_a), (b, of_b) = figure(metric, Sums(*baseline)), figure(metric, Sums(*candidate))
    if math.inf in (a.error, b.error):
        return Gauged(NOTHING, math.inf)
    one, two = a.error**2, b.error**2
    # Of Welch's test, Biometrika 34, 1947.
    degrees = (one + two) ** 2 / (one**2 / of_a + two**2 / of_b)
    return Gauged(Effect(b.value - a.value, math.sqrt(one + two)), degrees)


def figure(metric: MetricName, sums: Sums) -> Gauged:
    """What one variant has come to, on the scale on which differences are effects."""
    degrees = _effective(sums) - 1.0
    if degrees < 1.0 or (metric == "cost" and sums.ratio <= 0.0):
        return Gauged(NOTHING, math.inf)
    if metric not in RELATIVE:
        # As if there were a best and a worst value more (Agresti, Caffo, The American Statistician 54(4), 2000): a rate
        # that was never seen to vary has an error too. The figure itself stays what it is.
        return Gauged(Effect(sums.ratio, math.sqrt(_with_two_more(sums).variance)), degrees)
    value, error = sums.ratio, math.sqrt(sums.variance)
    if metric == "cost":
        value, error = math.log(value), error / value
    return Gauged(Effect(value, max(error, _LEAST_SPREAD / math.sqrt(sums.n))), degrees)


def _effective(sums: Sums) -> float:
    """As how many equal units these are: one that brings most of the calls tells little more than itself (Kish, "Survey
    Sampling", 1965, section 11.7)."""
    return sums.bottom**2 / sums.bottoms if sums.bottoms > 0.0 else 0.0


def _with_two_more(sums: Sums) -> Sums:
    return Sums(sums.n + 2.0, sums.top + 1.0, sums.bottom + 2.0, sums.tops + 1.0, sums.both + 1.0, sums.bottoms + 2.0)
