"""The metrics of an experiment in their roles: what decides, what is reported, what must not get worse.

Each candidate is compared with the baseline. The primary metric is tested at alpha / candidates (Bonferroni), so that
alpha is the chance that any difference of it is found by mistake. Secondary metrics share an alpha of their own (Holm);
their intervals hold all together. Guardrails are tested for not being worse by their margin; as all of them have to
hold, none needs more of a correction than the primary metric. Brings scipy: a server imports it where it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np

from windlass.improve.experiments.looks import GOOD, Pair, Tested, effect_of, stepped_down, steps
from windlass.improve.experiments.view import ComparisonView, MeanUnit, MetricRole, MetricView, ValueView, Verdict
from windlass.policies.trials.plan import METRICS, RELATIVE, MetricName
from windlass.policies.trials.tally import Sample, Trial
from windlass.stats.confseq import WeightedSums
from windlass.stats.trials.corrections import holm
from windlass.stats.trials.effects import p_value
from windlass.stats.trials.ship import State

_UNITS: Final[Mapping[MetricName, MeanUnit]] = {"quality": "share", "error": "share", "cost": "usd", "latency": "ms"}
_LARGEST: Final = 700.0


class _Row(NamedTuple):
    """A metric in a role. alpha: two-sided, of one comparison."""

    metric: MetricName
    role: MetricRole
    alpha: float
    margin: float | None = None


class _Compared(NamedTuple):
    """A row for one candidate. step: the look that is reported, None before the first. state: for all of the role."""

    row: _Row
    pair: Pair
    step: Tested | None
    state: State
    p_adjusted: float | None = None


def metrics(trial: Trial, *, withheld: bool) -> tuple[MetricView, ...]:
    """The primary metric, the secondary ones, and the guardrails. withheld: nothing may be decided."""
    compared = [[_compared(trial, row, one) for one in range(1, len(trial.plan.variants))] for row in _rows(trial)]
    corrected = _corrected(trial, [one for of_row in compared for one in of_row if one.row.role == "secondary"])
    found = []
    for of_row in compared:
        row = of_row[0].row
        found.append(
            MetricView(
                metric=row.metric,
                role=row.role,
                unit="ratio" if row.metric in RELATIVE else "points",
                mean_unit=_UNITS[row.metric],
                up_is_good=GOOD[row.metric] > 0.0,
                margin=row.margin,
                level=1.0 - row.alpha,
                values=_values(trial, row.metric),
                comparisons=tuple(
                    _comparison(trial, corrected.get((row.role, one.pair), one), withheld=withheld) for one in of_row
                ),
            )
        )
    return tuple(found)


def _rows(trial: Trial) -> list[_Row]:
    plan = trial.plan
    alpha = plan.alpha / len(plan.candidates)
    rows = [_Row(plan.primary, "primary", alpha)]
    rows += [_Row(metric, "secondary", alpha / len(plan.secondary)) for metric in plan.secondary]
    return rows + [_Row(guard.metric, "guardrail", alpha, guard.margin) for guard in plan.guardrails]


def _compared(trial: Trial, row: _Row, candidate: int) -> _Compared:
    taken = steps(trial, (row.metric, candidate), row.alpha, row.margin or 0.0)
    last = taken[-1] if taken else None
    return _Compared(row, (row.metric, candidate), last, last.state if last else "open")


def _corrected(trial: Trial, secondary: list[_Compared]) -> dict[tuple[MetricRole, Pair], _Compared]:
    """Secondary comparisons as they stand for all of them together."""
    if not secondary:
        return {}
    states = stepped_down(trial, [one.pair for one in secondary], trial.plan.alpha)
    nominal = [_p(one.row, one.step) for one in secondary]
    adjusted = holm(np.array([1.0 if p is None else p for p in nominal])).tolist()
    return {
        (one.row.role, one.pair): one._replace(state=states[one.pair], p_adjusted=None if p is None else together)
        for one, p, together in zip(secondary, nominal, adjusted, strict=True)
    }


def _comparison(trial: Trial, one: _Compared, *, withheld: bool) -> ComparisonView:
    row, (metric, candidate), step = one.row, one.pair, one.step
    at = METRICS.index(metric)
    sums = step.look.sums if step else [[sample.summed() for sample in of_variant] for of_variant in trial.samples]
    effect = step.effect if step else effect_of(metric, sums[0][at], sums[candidate][at])
    known = math.isfinite(effect.error)
    watched = _watched(trial, row, candidate)
    low, high = step.interval() if step and known else watched or (math.nan, math.nan)
    return ComparisonView(
        variant=trial.plan.variants[candidate].name,
        n=round(sums[candidate][at].bottom),
        baseline_n=round(sums[0][at].bottom),
        verdict=_verdict(one, over=trial.state != "running", withheld=withheld),
        estimate=effect_shown(metric, effect.value) if known else None,
        low=effect_shown(metric, low),
        high=effect_shown(metric, high),
        method=None if math.isnan(low) else "repeated" if step and known else "always valid",
        p=_p(row, step),
        p_adjusted=one.p_adjusted,
        now_low=effect_shown(metric, watched[0]) if watched else None,
        now_high=effect_shown(metric, watched[1]) if watched else None,
    )


def _verdict(one: _Compared, *, over: bool, withheld: bool) -> Verdict:
    """In words. What is open when the experiment is over stays undecided."""
    if withheld or one.state == "open":
        return "undecided" if over else "open"
    return "holds" if one.row.role == "guardrail" and one.state == "better" else one.state


def _p(row: _Row, step: Tested | None) -> float | None:
    """For the look of `step` alone; of a guardrail the chance to look as good, were it worse by just its margin."""
    if step is None or not math.isfinite(step.effect.error):
        return None
    if row.margin is None:
        return p_value(step.effect)
    tail = p_value(step.good) / 2.0
    return tail if step.good.z > 0.0 else 1.0 - tail


def _watched(trial: Trial, row: _Row, candidate: int) -> tuple[float, float] | None:
    """Where the difference is by now, at every moment; None where no sequence of ours covers it: for values without a
    bound, and where a unit has several calls, whose own means it would be about."""
    if row.metric in RELATIVE or trial.plan.unit != "call":
        return None
    at = METRICS.index(row.metric)
    base, own = trial.samples[0][at], trial.samples[candidate][at]
    if min(base.n, own.n) < 1:
        return None
    (low, high), (own_low, own_high) = (_bounded(sample, row.alpha / 2.0) for sample in (base, own))
    return own_low - high, own_high - low


def _bounded(sample: Sample, alpha: float) -> tuple[float, float]:
    """Where the mean of values in [0, 1] is, wrong ever with a chance of at most `alpha`."""
    # Sums that values were taken out of again may be a rounding error off.
    total, squares = min(max(sample.total, 0.0), sample.n), min(max(sample.squares, 0.0), sample.n)
    return WeightedSums(sample.n, total, sample.n, total, squares).interval(alpha)


def _values(trial: Trial, metric: MetricName) -> tuple[ValueView, ...]:
    at = METRICS.index(metric)
    return tuple(
        ValueView(variant.name, samples[at].n, _mean(metric, samples[at]))
        for variant, samples in zip(trial.plan.variants, trial.samples, strict=True)
    )


def _mean(metric: MetricName, sample: Sample) -> float | None:
    """Of the values: a share, dollars, or the geometric mean in milliseconds."""
    if sample.n < 1:
        return None
    mean = sample.total / sample.n
    if metric == "latency":
        return math.exp(min(mean, _LARGEST))
    return max(mean / 1e6, 0.0) if metric == "cost" else min(max(mean, 0.0), 1.0)


def effect_shown(metric: MetricName, value: float) -> float | None:
    """An effect as people read it, in points or as a ratio; None for what is no number."""
    if math.isnan(value):
        return None
    if metric in RELATIVE:
        return math.exp(min(max(value, -_LARGEST), _LARGEST))
    return min(max(100.0 * value, -100.0), 100.0)
