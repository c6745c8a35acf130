"""A metric of a candidate beside its baseline's, as it stood at the looks that the plan says to take.

Quality and errors are compared by their means. Latency is, by its logarithm, and costs by the logarithm of the ratio of
their means (delta method), so that both effects are ratios. The first look that decides, decides; what is reported is
what stood then. Whoever stops early sees an effect that is somewhat too large on average; its interval holds.
Brings scipy: a server imports it where it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple, TypeAlias

from windlass.policies.trials.plan import METRICS, RELATIVE, MetricName
from windlass.policies.trials.tally import Look, Summed, Trial
from windlass.stats.trials.effects import NOTHING, Effect, Sums, ratios
from windlass.stats.trials.ship import ShipPlan, ShipTest, State

GOOD: Final[Mapping[MetricName, float]] = {"quality": 1.0, "cost": -1.0, "latency": -1.0, "error": -1.0}
"""The sign of what people want."""
Pair: TypeAlias = tuple[MetricName, int]
"""A metric, and the index of a candidate among the variants."""
_LEAST_SPREAD: Final = 0.01
"""Costs and times of a variant that vary by less than this part are taken to vary by it: a constant price has no error
of its own, and so would say nothing."""


class Tested(NamedTuple):
    """A look at a metric of a candidate. effect: candidate less baseline, on its scale. good: above 0 where the
    candidate is better or, with a margin, not worse by it. boundary: of its |z|. state: after the look."""

    look: Look
    effect: Effect
    good: Effect
    boundary: float
    state: State

    def interval(self) -> tuple[float, float]:
        """Of the effect; it holds for this look and all before it together."""
        return self.effect.interval(self.boundary)


def steps(trial: Trial, pair: Pair, alpha: float, margin: float = 0.0) -> list[Tested]:
    """The looks at one metric of one candidate, up to the one that decides. alpha: two-sided. margin: a loss that is
    accepted, of relative metrics as a share."""
    metric, candidate = pair
    test = ShipTest(ShipPlan(trial.plan.size, alpha))
    accepted = math.log1p(margin) if metric in RELATIVE else margin
    taken: list[Tested] = []
    for look in trial.looks:
        if test.state != "open":
            break
        before = test.fractions
        at = METRICS.index(metric)
        effect = effect_of(metric, look.sums[0][at], look.sums[candidate][at])
        good = Effect(GOOD[metric] * effect.value, effect.error).against(accepted)
        state = test.look(look.units, good)
        if test.fractions != before:
            taken.append(Tested(look, effect, good, test.boundary, state))
    return taken


def stepped_down(trial: Trial, pairs: Collection[Pair], alpha: float) -> dict[Pair, State]:
    """What the looks say of all these together, with a chance of at most `alpha` of any mistake: Holm's procedure over
    sequential tests, where whatever is decided leaves its share of alpha to the others.

    Maurer, Bretz, "Multiple testing in group sequential trials", Statistics in Biopharmaceutical Research 5(4), 2013.
    """
    states: dict[Pair, State] = {}
    left = set(pairs)
    while left:
        for pair in left:
            taken = steps(trial, pair, alpha / len(left))
            states[pair] = taken[-1].state if taken else "open"
        found = {pair for pair in left if states[pair] in ("better", "worse")}
        if not found:
            break
        left -= found
    return states


def effect_of(metric: MetricName, baseline: Summed, candidate: Summed) -> Effect:
    """Candidate less baseline: of means, or of logarithms. `NOTHING` where one of them has told next to nothing."""
    a, b = Sums(*baseline), Sums(*candidate)
    if min(a.n, b.n) < 2.0:
        return NOTHING
    if metric == "cost":
        return _varied(_log_ratio(a, b), a, b)
    if metric in RELATIVE:
        return _varied(ratios(a, b), a, b)
    # As if either had a best and a worst value more (Agresti, Caffo, The American Statistician 54(4), 2000), so that a
    # rate which was never seen to vary has an error too. The effect itself stays what it is.
    return Effect(b.ratio - a.ratio, ratios(_with_two_more(a), _with_two_more(b)).error)


def _log_ratio(a: Sums, b: Sums) -> Effect:
    """Of means above 0: log(b / a), whose variance is the sum of the relative ones (delta method)."""
    if min(a.ratio, b.ratio) <= 0.0:
        return NOTHING
    error = math.sqrt(a.variance / a.ratio**2 + b.variance / b.ratio**2)
    return Effect(math.log(b.ratio / a.ratio), error)


def _varied(effect: Effect, a: Sums, b: Sums) -> Effect:
    return Effect(effect.value, max(effect.error, _LEAST_SPREAD * math.sqrt(1.0 / a.n + 1.0 / b.n)))


def _with_two_more(sums: Sums) -> Sums:
    return Sums(sums.n + 2.0, sums.top + 1.0, sums.bottom + 2.0, sums.tops + 1.0, sums.both + 1.0, sums.bottoms + 2.0)
