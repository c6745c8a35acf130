"""An experiment as a report in Markdown: what was planned, what came of it, and how sure that is."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from typing import Final

from windlass.improve.experiments import words
from windlass.improve.experiments.view import ComparisonView, EffectUnit, ExperimentView
from windlass.policies.trials.plan import MetricName

SURE: Final = "Intervals hold at all looks together, those by now at every moment."
_MARKED: Final = re.compile(r"([\\`*_\[\]|~$]|(?<=www)\.|(?<=:)/)")
_HTML: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_CELLS: Final = 20
"""On either side of "no difference" in a bar of characters."""


def markdown(view: ExperimentView) -> str:
    """The report. Whatever people have written stands in it as plain text."""
    compared = ("metric", "role", "candidate", "verdict", "", "effect", "interval", "by now", "p", "values")
    parts = [
        f"# Experiment {plain(view.name)}",
        f"**{plain(view.sentence)}**",
        "\n".join(f"- {name}: {plain(said)}" for name, said in facts(view)),
        "## Variants",
        _table(("variant", "does", "share now", "in the end", "assigned", "with the metric", "cost"), _variants(view)),
        f"Sample ratio: {ratio(view)}.",
        _table(("metric", *(variant.name for variant in view.variants)), _values(view)),
        "## Against the baseline",
        _table(compared, _compared(view)),
        f"A bar shows its interval, `●` what is estimated and `┼` no difference. {SURE}",
        "## Looks",
        _table(("candidate", "when", "units", "of the plan", "effect", "z", "boundary"), _looks(view)),
        "## Guardrails",
        _table(("guardrail", "candidate", "accepted", "evidence of harm"), _guardrails(view)),
    ]
    return "\n\n".join(parts) + "\n"


def plain(text: str) -> str:
    """`text` as Markdown that shows just it: one line, no markup, no HTML, no links to pages, nothing invisible.

    >>> plain("<b>*bold*</b> www.example.org")
    '&lt;b&gt;\\\\*bold\\\\*&lt;/b&gt; www\\\\.example.org'
    """
    seen = "".join(char if char.isprintable() else " " for char in text)
    marked = _MARKED.sub(r"\\\1", " ".join(seen.split()))
    return "".join(_HTML.get(char, char) for char in marked)


def ratio(view: ExperimentView) -> str:
    """Whether the shares came out as planned."""
    p = words.probability(view.sample_ratio.p)
    if view.sample_ratio.ok:
        return f"as planned (p {p})"
    return f"not as planned (p {p}), so that the variants may not be alike in whom they got"


def moment(at: float) -> str:
    """UTC seconds as a time.

    >>> moment(0.0)
    '1970-01-01 00:00:00 UTC'
    """
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))


def facts(view: ExperimentView) -> list[tuple[str, str]]:
    """(name, words) of what is known of it at a glance."""
    told = [
        ("Decision", words.decision(view)),
        ("State", words.state(view)),
        ("Stage", words.stage(view)),
        ("Known", f"{view.units:,} of {view.size:,} units per variant"),
        ("Point", view.point),
        ("Unit", view.unit),
        ("Hypothesis", view.hypothesis),
        ("Owner", view.owner),
        ("Plan", f"SHA-256 {view.digest}"),
        ("Began", moment(view.started_at)),
        ("Ended", "" if view.ended_at is None else moment(view.ended_at)),
    ]
    return [(name, said) for name, said in told if said]


def bar(one: ComparisonView, unit: EffectUnit, span: float) -> str:
    """An interval in characters. span: of the scale to either side, in points, or as a logarithm of a ratio."""
    if one.estimate is None or one.low is None or one.high is None:
        return ""
    low, middle, high = (
        _CELLS + round(_CELLS * min(max(scaled(value, unit) / span, -1.0), 1.0))
        for value in (one.low, one.estimate, one.high)
    )
    cells = ["·"] * (2 * _CELLS + 1)
    cells[low : high + 1] = "─" * (high - low + 1)
    cells[_CELLS] = "┼"
    cells[middle] = "●"
    return f"`{''.join(cells)}`"


def scaled(value: float, unit: EffectUnit) -> float:
    """An effect on the scale that it is drawn on, where 0 is no difference: ratios by their logarithm."""
    return math.log(max(value, 1e-12)) if unit == "ratio" else value


def span_of(view: ExperimentView, metric: MetricName) -> float:
    """Of the scale on which all effects on one metric are drawn, to either side of 0."""
    edges = [
        abs(scaled(value, row.unit))
        for row in view.metrics
        if row.metric == metric
        for one in row.comparisons
        for value in (one.low, one.high, one.estimate)
        if value is not None
    ]
    return max(edges, default=0.0) or 1.0


def _variants(view: ExperimentView) -> list[Sequence[str]]:
    return [
        (
            plain(one.name),
            plain(one.spelled),
            words.percent(one.share),
            words.percent(one.full_share),
            f"{one.assigned:,}",
            f"{one.units:,}",
            words.NOTHING if one.cost_usd is None else words.usd(one.cost_usd),
        )
        for one in view.variants
    ]


def _values(view: ExperimentView) -> list[Sequence[str]]:
    """The mean of each metric by variant; a metric with several roles once."""
    found = {
        metric.metric: [f"{words.mean(one.mean, metric.mean_unit)} ({one.n:,})" for one in metric.values]
        for metric in view.metrics
    }
    return [(name, *cells) for name, cells in found.items()]


def _compared(view: ExperimentView) -> list[Sequence[str]]:
    return [
        (
            metric.metric,
            metric.role,
            plain(one.variant),
            words.verdict(metric, one),
            bar(one, metric.unit, span_of(view, metric.metric)),
            words.effect(one.estimate, metric.unit),
            words.confidence(metric, one),
            words.by_now(metric, one),
            words.probability(one.p if one.p_adjusted is None else one.p_adjusted),
            f"{one.n:,} and {one.baseline_n:,}",
        )
        for metric in view.metrics
        for one in metric.comparisons
    ]


def _looks(view: ExperimentView) -> list[Sequence[str]]:
    return [
        (
            plain(one.variant),
            plain(moment(one.at)),
            f"{one.units:,}",
            words.percent(one.fraction),
            words.at_look(view, one),
            f"{one.z:+.2f}",
            words.NOTHING if one.boundary is None else f"{one.boundary:.2f}",
        )
        for one in view.looks
    ]


def _guardrails(view: ExperimentView) -> list[Sequence[str]]:
    units = {metric.metric: metric.unit for metric in view.metrics}
    return [
        (one.metric, plain(one.variant), words.margin(one.margin, units[one.metric]), words.evidence(one))
        for one in view.harm
    ]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "Nothing yet."
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
