"""The verdict of an experiment in one honest sentence, from what there is to see of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from windlass.improve.experiments.view import ComparisonView, ExperimentView, MetricView
from windlass.policies.trials.plan import MetricName
from windlass.policies.trials.tally import LOOKS

_CALLED: Final[Mapping[MetricName, str]] = {
    "quality": "quality",
    "cost": "cost",
    "latency": "latency",
    "error": "error rate",
}
_COMES: Final[Mapping[MetricName, str]] = {
    "quality": "feedback on the calls",
    "cost": "the prices of the models",
    "latency": "calls that end without an error",
    "error": "calls that end",
}
"""What a metric comes from."""


def sentence(view: ExperimentView) -> str:
    """What may be said by now, and no more."""
    told = _alarmed(view) or _unknown(view) or _told(view)
    ended = {"stopped": "it was stopped", "rolled back": "it was rolled back", "shipped": f"{view.shipped} was shipped"}
    return f"{told}; {ended[view.state]}." if view.state in ended else f"{told}."


def _alarmed(view: ExperimentView) -> str:
    if view.alarm is None:
        return ""
    alarm = view.alarm
    after = f"{_count(alarm.after, view)} of it"
    return f"{alarm.variant} was rolled back for harm in {_CALLED[alarm.metric]} after {after}"


def _unknown(view: ExperimentView) -> str:
    """Why there are no numbers to speak of; '' where there are."""
    if view.withheld:
        return _mismatched(view)
    if not sum(one.assigned for one in view.variants):
        return f"Nothing is known: no {view.unit} was assigned{' at this stage' if view.stage else ''}"
    if view.deciding:
        return _silent(view)
    found = "found no harm so far" if view.state == "running" else "found no harm"
    share = f"{100.0 * view.stage_share:.3g} %"
    return f"Nothing is decided at {share} of the shares, stage {view.stage + 1} of {len(view.ramp)}, which {found}"


def _mismatched(view: ExperimentView) -> str:
    counts = " and ".join(f"{one.assigned:,} to {one.name}" for one in view.variants)
    planned = ", ".join(f"{100.0 * one.share:.3g} %" for one in view.variants)
    total = _count(sum(one.assigned for one in view.variants), view)
    return (
        f"Nothing is decided, as the shares are not those that were planned: {counts} of {total}, "
        f"planned were {planned}; find out why before believing any number"
    )


def _silent(view: ExperimentView) -> str:
    """Whose primary metric nobody has told; '' where each variant's is known of some."""
    silent = [one for one in view.variants if not one.units]
    if not silent:
        return ""
    metric = view.metrics[0].metric
    of = "" if len(silent) == len(view.variants) else " of " + " and ".join(one.name for one in silent)
    told = _count(sum(one.assigned for one in silent), view)
    return f"Nothing is decided: of {told}{of} no {_CALLED[metric]} is known, which comes from {_COMES[metric]}"


def _told(view: ExperimentView) -> str:
    """What the primary metric has come to."""
    primary = view.metrics[0]
    leader = _of(primary, view.leader)
    looks = [look for look in view.looks if look.variant == view.leader]
    planned = f"{view.size:,} planned {view.unit}s each"
    if not looks:
        first = f"the first look is at {math.ceil(view.size / LOOKS):,}"
        begun = "Not decided yet" if view.state == "running" else "Nothing was decided"
        return f"{begun}: {view.units:,} of {planned} are known, and {first}{_others(view)}"
    units = looks[-1].units
    match view.decision:
        case "better":
            return f"{_finding(primary, leader)}, after {_count(units, view)} each; {_guarded(view)}{_others(view)}"
        case "harmful":
            return f"{_finding(primary, leader)}, after {_count(units, view)} each, but {_broken(view)}"
        case "worse":
            return f"{_finding(primary, leader)}, after {_count(units, view)} each{_others(view)}"
        case "undecided" if units >= view.size:
            known = f"No difference was found after {_count(units, view)} each, as planned"
        case "undecided":
            known = f"Nothing was decided after {units:,} of {planned}"
        case "open":
            known = f"Not decided yet after {units:,} of {planned}"
    return f"{known}: {_standing(primary, leader)}{_others(view)}"


class _Change(NamedTuple):
    """An effect in words: so much lower or higher, from low to high."""

    by: str
    way: str
    low: str
    high: str


def _change(metric: MetricView, one: ComparisonView) -> _Change | None:
    """None where there is none to speak of."""
    if one.estimate is None or one.low is None or one.high is None:
        return None
    amount, low, high = one.estimate, one.low, one.high
    if metric.unit == "ratio":
        amount, low, high = (100.0 * (value - 1.0) for value in (amount, low, high))
    lower = amount < 0.0
    if lower:
        amount, low, high = -amount, -high, -low
    unit = " points" if metric.unit == "points" else " %"
    return _Change(_number(amount) + unit, "lower" if lower else "higher", _number(low), _number(high))


def _finding(metric: MetricView, one: ComparisonView) -> str:
    """`B is better by 3.1 points, 95 % interval 1.2 to 5.0`; of other metrics than quality it says which."""
    change = _change(metric, one)
    if change is None:
        return f"{one.variant} is {one.verdict}"
    by = (
        f" by {change.by}"
        if metric.metric == "quality"
        else f": its {_CALLED[metric.metric]} is {change.by} {change.way}"
    )
    return f"{one.variant} is {one.verdict}{by}, {_interval(metric, change)}"


def _standing(metric: MetricView, one: ComparisonView) -> str:
    """`B's quality is 1.2 points higher, 95 % interval -0.8 to 3.2`."""
    change = _change(metric, one)
    if change is None:
        return f"{one.variant}'s {_CALLED[metric.metric]} cannot be compared"
    return f"{one.variant}'s {_CALLED[metric.metric]} is {change.by} {change.way}, {_interval(metric, change)}"


def _interval(metric: MetricView, change: _Change) -> str:
    return f"{100.0 * metric.level:.4g} % interval {change.low} to {change.high}"


def _guarded(view: ExperimentView) -> str:
    """What its guardrails say of the candidate that is better."""
    guarded = [(row, _of(row, view.leader)) for row in view.metrics if row.role == "guardrail"]
    unshown = [_CALLED[row.metric] for row, one in guarded if one.verdict != "holds"]
    if not guarded:
        return "there are no guardrails"
    return f"no harm was found in {_listed(unshown)}" if unshown else "guardrails hold"


def _broken(view: ExperimentView) -> str:
    """What it broke."""
    rows = [row for row in view.metrics if row.role == "guardrail" and _of(row, view.leader).verdict == "worse"]
    return f"its {_listed([_CALLED[row.metric] for row in rows])} is worse than its guardrail accepts"


def _others(view: ExperimentView) -> str:
    """How the other candidates stand, where there are any."""
    words = {"open": "not decided", "undecided": "not shown to differ", "better": "better too", "worse": "worse"}
    found = [
        f"{one.variant} is {words[one.verdict]}" for one in view.metrics[0].comparisons if one.variant != view.leader
    ]
    return f"; {_listed(found)}" if found else ""


def _of(metric: MetricView, variant: str) -> ComparisonView:
    return next(one for one in metric.comparisons if one.variant == variant)


def _count(n: int, view: ExperimentView) -> str:
    return f"{n:,} {view.unit}{'' if n == 1 else 's'}"


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _number(value: float) -> str:
    """To a tenth, of less than one to two figures.

    >>> _number(3.14), _number(-0.8), _number(0.034), _number(0.0)
    ('3.1', '-0.8', '0.034', '0.0')
    """
    return f"{value:.1f}" if abs(value) >= 0.1 or not value else f"{value:.2g}"
