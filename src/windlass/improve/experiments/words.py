"""The words for what an experiment found, which pages and reports share. None of them claims more than the view."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from windlass.improve.experiments.view import (
    ComparisonView,
    EffectUnit,
    ExperimentView,
    HarmView,
    LookView,
    MeanUnit,
    MetricRole,
    MetricView,
    Verdict,
)

NOTHING: Final = "–"
_VERDICTS: Final[dict[MetricRole, dict[Verdict, str]]] = {
    "primary": {"open": "not decided yet", "undecided": "not decided"},
    "secondary": {"open": "nothing shown yet", "undecided": "nothing shown"},
    "guardrail": {"open": "not shown to hold yet", "undecided": "not shown to hold", "worse": "does not hold"},
}
"""Where a verdict reads otherwise than it is called."""


def effect(value: float | None, unit: EffectUnit) -> str:
    """Candidate against baseline.

    >>> effect(3.14, "points"), effect(0.9, "ratio"), effect(-0.04, "points"), effect(None, "ratio")
    ('+3.1 points', '-10.0 %', '-0.04 points', '–')
    """
    if value is None:
        return NOTHING
    return f"{_number(value, unit)} {_UNITS[unit]}"


def interval(low: float | None, high: float | None, unit: EffectUnit) -> str:
    """Where an effect is.

    >>> interval(1.24, 5.0, "points"), interval(0.8, 1.05, "ratio"), interval(None, None, "ratio")
    ('+1.2 to +5.0 points', '-20.0 to +5.0 %', '–')
    """
    if low is None or high is None:
        return NOTHING
    return f"{_number(low, unit)} to {_number(high, unit)} {_UNITS[unit]}"


def confidence(metric: MetricView, one: ComparisonView) -> str:
    """The interval of a comparison, and how sure it is."""
    told = interval(one.low, one.high, metric.unit)
    return told if told == NOTHING else f"{told} ({percent(metric.level)})"


def by_now(metric: MetricView, one: ComparisonView) -> str:
    """Where an effect is by all that came until now, however often one looks; of most metrics that is not known."""
    return interval(one.now_low, one.now_high, metric.unit)


def at_look(view: ExperimentView, look: LookView) -> str:
    """The effect on the primary metric at a look, with its interval."""
    unit = view.metrics[0].unit
    if look.estimate is None:
        return NOTHING
    return f"{effect(look.estimate, unit)}, {interval(look.low, look.high, unit)}"


def mean(value: float | None, unit: MeanUnit) -> str:
    """A variant's own value.

    >>> mean(0.8123, "share"), mean(0.00012344, "usd"), mean(812.4, "ms"), mean(None, "ms")
    ('0.812', '0.000123 USD', '812 ms', '–')
    """
    if value is None:
        return NOTHING
    if unit == "share":
        return f"{value:.3f}"
    return f"{value:,.0f} ms" if unit == "ms" else usd(value)


def usd(value: float) -> str:
    """Dollars to three figures, never with an exponent.

    >>> usd(12.0), usd(0.0000456), usd(0.0)
    ('12 USD', '0.0000456 USD', '0 USD')
    """
    return f"{Decimal(f'{value + 0.0:.3g}'):f} USD"


def probability(p: float | None) -> str:
    """A p-value.

    >>> probability(0.0321), probability(0.00004), probability(None)
    ('0.032', '< 0.001', '–')
    """
    return NOTHING if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def percent(share: float) -> str:
    """A share of 1.

    >>> percent(0.5), percent(0.125), percent(1.0)
    ('50 %', '12.5 %', '100 %')
    """
    return f"{100.0 * share:.4g} %"


def verdict(metric: MetricView, one: ComparisonView) -> str:
    """What is known of a candidate, in plain words."""
    if not (one.n and one.baseline_n):
        return "nothing known yet"
    return _VERDICTS[metric.role].get(one.verdict, one.verdict)


def margin(accepted: float, unit: EffectUnit) -> str:
    """How much worse a guardrail may get.

    >>> margin(0.02, "points"), margin(0.1, "ratio"), margin(0.0, "points")
    ('at most 2 points worse', 'at most 10 % worse', 'no worse')
    """
    return f"at most {100.0 * accepted:.3g} {_UNITS[unit]} worse" if accepted else "no worse"


def evidence(one: HarmView) -> str:
    """How near an alarm is."""
    if not one.seen:
        return "nothing known yet"
    return f"{_factor(one.evidence)} of {_factor(one.limit)} after {one.seen:,} values"


def decision(view: ExperimentView) -> str:
    """What it has come to, in two or three words."""
    if view.withheld:
        return "withheld"
    match view.decision:
        case "better" | "worse":
            return f"{view.leader} is {view.decision}"
        case "harmful":
            return f"{view.leader if view.alarm is None else view.alarm.variant} does harm"
        case "undecided" if any(look.fraction >= 1.0 for look in view.looks):
            return "no difference found"
        case "open" | "undecided":
            return "not decided"


def state(view: ExperimentView) -> str:
    """How it stands."""
    if view.state == "running":
        return "under way"
    if view.state == "alarmed":
        return "rolled back for harm"
    return f"shipped {view.shipped}" if view.state == "shipped" else view.state


def stage(view: ExperimentView) -> str:
    """How far its ramp is."""
    at = f"{view.stage + 1} of {len(view.ramp)}"
    return f"{at}, which decides" if view.deciding else f"{at}, {percent(view.stage_share)} of the shares"


_UNITS: Final[dict[EffectUnit, str]] = {"points": "points", "ratio": "%"}


def _number(value: float, unit: EffectUnit) -> str:
    shown = value if unit == "points" else 100.0 * (value - 1.0)
    return f"{shown:+.1f}" if abs(shown) >= 0.1 or not shown else f"{shown:+.2f}"


def _factor(value: float) -> str:
    """Evidence as a factor, which may be of any size."""
    return f"{value:,.0f}" if 100.0 <= value < 1e9 else f"{value:.3g}"
