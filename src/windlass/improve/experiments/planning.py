"""How long an experiment will take, and which differences it will find: reckoned from calls that there were already.

A unit's value varies by some deviation; that of the difference of two means of n units each follows from it, and with
it the n that finds an effect with the wanted power at the looks that are taken. Units come as often as they did, and
those that come back do not count twice, so days are rather too few where units are users. Brings scipy.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec
import numpy as np

from windlass.errors import InputError
from windlass.improve.experiments.looks import figure
from windlass.improve.experiments.view import EffectUnit
from windlass.policies.trials.plan import METRICS, RELATIVE, MetricName, Plan
from windlass.policies.trials.tally import LOOKS, Told, scaled
from windlass.stats.trials.effects import Sums, sums
from windlass.stats.trials.planning import size_for_means
from windlass.stats.trials.ship import planned_size

DAY_S: Final = 86_400.0
_LEAST: Final = 10
POINTS: Final = (1.0, 2.0, 3.0, 5.0, 10.0, 20.0)
PERCENT: Final = (2.0, 5.0, 10.0, 20.0, 30.0, 50.0)
"""Effects that are looked at unless told otherwise; of cost and latency, by how much the lower one is lower."""


class PlainCall(NamedTuple):
    """A call that the experiment would have counted. unit: whose it is. told: as the tally has it."""

    at: float
    unit: str
    action: str
    told: Told


class SizeView(msgspec.Struct, frozen=True):
    """So many units per variant find that effect, in points or per cent; days: of the whole experiment, its ramp too;
    None where nobody can say."""

    effect: float
    size: int
    days: float | None


class ExtraView(msgspec.Struct, frozen=True):
    """What a variant will cost more than what is usual, over the whole experiment. calls: expected; usd: None where it
    is not known what its calls cost."""

    variant: str
    calls: float | None
    usd: float | None


class TrialForecast(msgspec.Struct, frozen=True):
    """What is to be expected of a plan.

    seen: calls of the point that it goes by, in so many days. units: of those with the primary metric, per_day a day.
    unit: of effects. mean: of the metric, in its own unit (cost in dollars). deviation: of a unit, on the scale of
    effects: 0.1 are 10 points, or about 10 %. power: the chance to find an effect. detectable: what the planned size
    finds with it. days: until all looks are taken, ramp_days of them before the stage that decides.
    missing: why less can be said than was asked; "" where all can.
    """

    metric: MetricName
    unit: EffectUnit
    seen: int
    seen_days: float
    units: int
    per_day: float | None
    mean: float | None
    deviation: float | None
    power: float
    size: int
    detectable: float | None
    days: float | None
    ramp_days: float | None
    sizes: tuple[SizeView, ...]
    extra: tuple[ExtraView, ...]
    missing: str


def forecast(
    plan: Plan,
    calls: Sequence[PlainCall],
    *,
    power: float = 0.8,
    effects: Sequence[float] = (),
    costs: Mapping[str, float] | None = None,
) -> TrialForecast:
    """What is to be expected. effects: in points or per cent. costs: dollars of a call by action, for those of which
    the calls tell none. InputError for a power or an effect that cannot be."""
    wanted = _checked(plan, power, effects)
    pace, told = _Pace(plan, calls), _told_units(plan.primary, calls)
    found = TrialForecast(
        metric=plan.primary,
        unit="ratio" if plan.primary in RELATIVE else "points",
        seen=len(calls),
        seen_days=pace.seen_days,
        units=round(told.n),
        per_day=pace.of(plan.primary),
        mean=None,
        deviation=None,
        power=power,
        size=plan.size,
        detectable=None,
        days=pace.days(plan.size),
        ramp_days=pace.ramp_days(),
        sizes=(),
        extra=tuple(_extra(plan, calls, pace, costs or {})),
        missing=pace.missing(round(told.n)),
    )
    spread = _spread(plan, told, power)
    if spread is None:
        return found
    sizes = {effect: spread.size(effect) for effect in wanted}
    return msgspec.structs.replace(
        found,
        mean=spread.mean,
        deviation=spread.deviation,
        detectable=spread.found_by(plan.size),
        sizes=tuple(SizeView(effect, size, pace.days(size)) for effect, size in sizes.items()),
    )


def _checked(plan: Plan, power: float, effects: Sequence[float]) -> Sequence[float]:
    """The effects that are looked at. InputError for a power or an effect that cannot be."""
    wanted = effects or (PERCENT if plan.primary in RELATIVE else POINTS)
    if not plan.alpha < power < 1.0 or not all(0.0 < effect < 100.0 for effect in wanted):
        asked = f"power {power}, effects {', '.join(map(str, wanted[:8]))}"
        raise InputError(f"{asked}; give a power above {plan.alpha} and below 1, and effects above 0 and below 100")
    return wanted


class _Spread(NamedTuple):
    """How far the primary metric's units differ. mean: as people read it. calls: of a unit, on average. unit: units per
    variant that find an effect of one deviation."""

    metric: MetricName
    mean: float
    deviation: float
    calls: float
    unit: float

    def size(self, effect: float) -> int:
        """Units per variant that find an effect in points or per cent."""
        scale = -math.log1p(-effect / 100.0) if self.metric in RELATIVE else effect / 100.0
        variance = self.deviation**2
        if self.metric == "error":
            # More errors vary more; where none was seen, they alone do.
            more = min(self.mean + scale, 0.5)
            variance += max(more * (1.0 - more) - self.mean * (1.0 - self.mean), 0.0) / 2.0 / self.calls
        return max(math.ceil(self.unit * variance / scale**2), _LEAST)

    def found_by(self, size: int) -> float | None:
        """The smallest effect that so many find, in points or per cent; None where they find none."""
        low, high = 0.0, 99.0
        if self.size(high) > size:
            return None
        for _ in range(40):
            middle = (low + high) / 2.0
            low, high = (middle, high) if self.size(middle) > size else (low, middle)
        return high


class _Pace:
    """How fast units come, and so how long each stage takes."""

    def __init__(self, plan: Plan, calls: Sequence[PlainCall]) -> None:
        self._plan = plan
        self._calls = calls
        times = [call.at for call in calls] or [0.0]
        self.seen_days = (max(times) - min(times)) / DAY_S

    def of(self, metric: MetricName | None = None) -> float | None:
        """Units a day that tell this metric, or any; None where nobody can say."""
        at = None if metric is None else METRICS.index(metric)
        units = {call.unit for call in self._calls if at is None or call.told[at] is not None}
        return len(units) / self.seen_days if units and self.seen_days > 0.0 else None

    def stages(self) -> list[float | None]:
        """Days of each stage before the last: until each candidate has told enough of every guarded metric."""
        plan = self._plan
        paces = [self.of(guard.metric) for guard in plan.guardrails] or [self.of()]
        known = [pace for pace in paces if pace is not None]
        if len(known) < len(paces):
            return [None] * (len(plan.ramp) - 1)
        slowest = min(known) * min(candidate.share for candidate in plan.candidates)
        return [plan.ramp_after / (slowest * part) for part in plan.ramp[:-1]]

    def ramp_days(self) -> float | None:
        return _sum(self.stages())

    def last_days(self, size: int) -> float | None:
        """Days of the stage that decides."""
        pace, plan = self.of(self._plan.primary), self._plan
        return None if pace is None else size / (pace * min(plan.shares(len(plan.ramp) - 1)))

    def days(self, size: int) -> float | None:
        """Of all stages."""
        return _sum([*self.stages(), self.last_days(size)])

    def calls(self, variant: int) -> float | None:
        """Calls that a variant will get, in all stages together."""
        given = [
            None if days is None else days * self._plan.shares(stage)[variant] * len(self._calls) / self.seen_days
            for stage, days in enumerate([*self.stages(), self.last_days(self._plan.size)])
        ]
        return _sum(given)

    def missing(self, units: int) -> str:
        """Why less can be said than was asked."""
        plan = self._plan
        if not self._calls:
            return f"no call that was decided at the point {plan.point} is known, so that nothing can be reckoned"
        if units < 2:
            return f"of {len(self._calls):,} calls {units or 'none'} told the {plan.primary}; at least two have to"
        if self.seen_days <= 0.0:
            return "all calls came at one moment, so that nobody knows how many come in a day"
        silent = [guard.metric for guard in plan.guardrails if self.of(guard.metric) is None]
        if silent and len(plan.ramp) > 1:
            return f"no call told the {' or the '.join(silent)}, which the ramp waits for"
        return ""


def _told_units(metric: MetricName, calls: Sequence[PlainCall]) -> Sums:
    """The metric by unit."""
    at = METRICS.index(metric)
    found: dict[str, list[float]] = defaultdict(list)
    for call in calls:
        value = call.told[at]
        if value is not None:
            found[call.unit].append(scaled(metric, value))
    totals = np.array([math.fsum(values) for values in found.values()])
    return sums(totals, np.array([float(len(values)) for values in found.values()]))


def _spread(plan: Plan, told: Sums, power: float) -> _Spread | None:
    """None where fewer than two units are known."""
    known = figure(plan.primary, told).effect
    if not math.isfinite(known.error):
        return None
    unit = _units_for(plan.alpha / len(plan.candidates), power)
    mean = _mean(plan.primary, known.value)
    return _Spread(plan.primary, mean, known.error * math.sqrt(told.n), told.bottom / told.n, unit)


@lru_cache(maxsize=64)
def _units_for(alpha: float, power: float) -> float:
    """Units per variant that find an effect of one deviation."""
    return planned_size(size_for_means(1.0, alpha, power), LOOKS, power, alpha)


def _mean(metric: MetricName, value: float) -> float:
    """A figure as people read it: a share, dollars, or milliseconds."""
    if metric not in RELATIVE:
        return value
    return math.exp(value) / 1e6 if metric == "cost" else math.exp(value)


def _extra(plan: Plan, calls: Sequence[PlainCall], pace: _Pace, costs: Mapping[str, float]) -> Iterator[ExtraView]:
    spent = _spent(calls)
    every = [cost for of_action in spent.values() for cost in of_action]
    each = {**costs, **{action: math.fsum(values) / len(values) for action, values in spent.items()}}
    for place, variant in enumerate(plan.variants):
        asked, usd = pace.calls(place), None
        if not variant.action and not variant.shadow:
            usd = 0.0
        elif asked is not None and every and variant.action in each:
            usd = asked * (each[variant.action] - math.fsum(every) / len(every))
        yield ExtraView(variant.name, asked, usd)


def _spent(calls: Sequence[PlainCall]) -> dict[str, list[float]]:
    """Dollars of each call, by action."""
    spent: dict[str, list[float]] = defaultdict(list)
    for call in calls:
        cost = call.told[METRICS.index("cost")]
        if cost is not None:
            spent[call.action].append(cost / 1e6)
    return spent


def _sum(parts: Sequence[float | None]) -> float | None:
    """None where one is."""
    known = [part for part in parts if part is not None]
    return math.fsum(known) if len(known) == len(parts) else None
