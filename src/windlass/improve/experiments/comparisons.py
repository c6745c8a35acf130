"""The metrics of an experiment in their roles: what decides, what is reported, what must not get worse.

Each candidate is compared with the baseline. The primary metric is tested at alpha / candidates (Bonferroni), so that
alpha is the chance that any difference of it is found by mistake. Secondary metrics share an alpha of their own (Holm);
their intervals hold all together. Guardrails are tested for not being worse by their margin; as all of them have to
hold, none needs more of a correction than the primary metric. Brings scipy: a server imports it where it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

import numpy as np

from windlass.improve.experiments.looks import GOOD, Path, Tested, effect_of, path, stepped_down
from windlass.improve.experiments.view import ComparisonView, MeanUnit, MetricRole, MetricView, ValueView, Verdict
from windlass.policies.trials.plan import METRICS, RELATIVE, MetricName
from windlass.policies.trials.tally import Sample, Summed, Trial
from windlass.stats.confseq import WeightedSums
from windlass.stats.trials.corrections import holm
from windlass.stats.trials.effects import Effect, p_value
from windlass.stats.trials.ship import State

_UNITS: Final[Mapping[MetricName, MeanUnit]] = {"quality": "share", "error": "share", "cost": "usd", "latency": "ms"}
_LARGEST: Final = 700.0
_Paths: TypeAlias = Mapping[tuple[MetricName, int], Path]


class _InRole(NamedTuple):
    """A metric in a role. alpha: two-sided, of one comparison."""

    metric: MetricName
    role: MetricRole
    alpha: float
    margin: float | None = None


class _Compared(NamedTuple):
    """A row for the candidate with that index. reported: the look that it is of, None before the first. state: for all
    comparisons of the role together."""

    row: _InRole
    candidate: int
    reported: Tested | None
    state: State
    p_adjusted: float | None = None


def metrics(trial: Trial, *, withheld: bool) -> tuple[MetricView, ...]:
    """The primary metric, the secondary ones, and the guardrails. withheld: nothing may be decided."""
    found = []
    for row, compared in _rows(trial):
        comparisons = tuple(_comparison(trial, one, withheld=withheld) for one in compared)
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
                comparisons=comparisons,
            )
        )
    return tuple(found)


def _rows(trial: Trial) -> Iterator[tuple[_InRole, list[_Compared]]]:
    plan, candidates = trial.plan, range(1, len(trial.plan.variants))
    told = {plan.primary, *plan.secondary, *(guard.metric for guard in plan.guardrails)}
    paths = {(metric, one): path(trial, metric, one) for metric in told for one in candidates}
    alpha = plan.alpha / len(candidates)
    primary = _InRole(plan.primary, "primary", alpha)
    yield primary, [_compared(primary, one, paths) for one in candidates]
    yield from _secondary(trial, paths)
    for guard in plan.guardrails:
        row = _InRole(guard.metric, "guardrail", alpha, guard.margin)
        yield row, [_compared(row, one, paths) for one in candidates]


def _secondary(trial: Trial, paths: _Paths) -> Iterator[tuple[_InRole, list[_Compared]]]:
    """Secondary metrics, as they stand for all of them and all candidates together."""
    plan, candidates = trial.plan, range(1, len(trial.plan.variants))
    tests = {(metric, one): paths[metric, one] for metric in plan.secondary for one in candidates}
    states = stepped_down(tests, plan.alpha)
    rows = [_InRole(metric, "secondary", plan.alpha / len(tests)) for metric in plan.secondary]
    compared = [_compared(row, one, paths) for row in rows for one in candidates]
    adjusted = _adjusted(compared)
    for row in rows:
        yield row, [one._replace(state=states[row.metric, one.candidate]) for one in adjusted if one.row == row]


def _adjusted(compared: Sequence[_Compared]) -> list[_Compared]:
    """With p-values that may be compared with the alpha of all of them."""
    nominal = [_p(one) for one in compared]
    together = holm(np.array([1.0 if p is None else p for p in nominal])).tolist()
    return [
        one if p is None else one._replace(p_adjusted=adjusted)
        for one, p, adjusted in zip(compared, nominal, together, strict=True)
    ]


def _compared(row: _InRole, candidate: int, paths: _Paths) -> _Compared:
    taken = paths[row.metric, candidate].tested(row.alpha, row.margin or 0.0)
    return _Compared(row, candidate, taken[-1] if taken else None, taken[-1].state if taken else "open")


def _comparison(trial: Trial, one: _Compared, *, withheld: bool) -> ComparisonView:
    metric = one.row.metric
    base, own = _sums(trial, one, 0), _sums(trial, one, one.candidate)
    effect = one.reported.effect if one.reported else effect_of(metric, base, own).effect
    known, (now_low, now_high) = math.isfinite(effect.error), _watched(trial, one)
    low, high = one.reported.interval() if one.reported and known else (now_low, now_high)
    return ComparisonView(
        variant=trial.plan.variants[one.candidate].name,
        n=round(own.bottom),
        baseline_n=round(base.bottom),
        verdict=_verdict(one, over=trial.state != "running", withheld=withheld),
        estimate=effect_shown(metric, effect.value) if known else None,
        low=effect_shown(metric, low),
        high=effect_shown(metric, high),
        method=None if math.isnan(low) else "repeated" if one.reported and known else "always valid",
        p=_p(one),
        p_adjusted=one.p_adjusted,
        now_low=effect_shown(metric, now_low),
        now_high=effect_shown(metric, now_high),
    )


def _sums(trial: Trial, one: _Compared, variant: int) -> Summed:
    """Of a variant, at the look that is reported, else by now."""
    at = METRICS.index(one.row.metric)
    return one.reported.look.sums[variant][at] if one.reported else trial.samples[variant][at].summed()


def _verdict(one: _Compared, *, over: bool, withheld: bool) -> Verdict:
    """In words. What is open when the experiment is over stays undecided."""
    if withheld or one.state == "open":
        return "undecided" if over else "open"
    return "holds" if one.row.role == "guardrail" and one.state == "better" else one.state


def _p(one: _Compared) -> float | None:
    """For the reported look alone; of a guardrail the chance to look as good, were it worse by just its margin."""
    reported = one.reported
    if reported is None or not math.isfinite(reported.effect.error):
        return None
    p = p_value(Effect(reported.z, 1.0))
    if one.row.margin is None:
        return p
    return p / 2.0 if reported.z > 0.0 else 1.0 - p / 2.0


def _watched(trial: Trial, one: _Compared) -> tuple[float, float]:
    """Where the difference is by now, at every moment. NaN of what nobody watches, and where no sequence of ours does:
    of values without a bound, and where a unit has several calls, whose own means it would be about."""
    if one.row.role == "secondary" or one.row.metric in RELATIVE or trial.plan.unit != "call":
        return math.nan, math.nan
    at = METRICS.index(one.row.metric)
    base, own = trial.samples[0][at], trial.samples[one.candidate][at]
    if min(base.n, own.n) < 1:
        return math.nan, math.nan
    (low, high), (own_low, own_high) = (
        _bounded(told.n, told.total, told.squares, one.row.alpha / 2.0) for told in (base, own)
    )
    return own_low - high, own_high - low


@lru_cache(maxsize=256)
def _bounded(n: int, total: float, squares: float, alpha: float) -> tuple[float, float]:
    """Where the mean of values in [0, 1] is, wrong ever with a chance of at most `alpha`."""
    # Sums that values were taken out of again may be a rounding error off.
    total, squares = min(max(total, 0.0), n), min(max(squares, 0.0), n)
    return WeightedSums(n, total, n, total, squares).interval(alpha)


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
