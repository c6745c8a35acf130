"""The report of an experiment as one HTML file, with the drawings of its page."""

from __future__ import annotations

from typing import Final

from markupsafe import Markup

from windlass.improve.experiments import words
from windlass.improve.experiments.report import SURE, facts, moment
from windlass.improve.experiments.view import ExperimentView
from windlass.server.dashboard.sheet import as_table, sheet, table
from windlass.server.dashboard.svg import element
from windlass.server.dashboard.tried import Looked, Shown, shown

_STYLE: Final = """
svg { display: block; overflow: visible; min-width: 12rem; }
.chart { width: calc(100% - 3.6rem); margin: 1rem 0 1rem 3.6rem; }
.grid, .rail { stroke: var(--line); } .rail { fill: var(--line); } .now { stroke: var(--soft); }
.pace, .burnt { fill: none; vector-effect: non-scaling-stroke; }
.pace { stroke: var(--soft); stroke-dasharray: 4 4; } .burnt { stroke: var(--accent); stroke-width: 2; }
.spread { fill: var(--accent); fill-opacity: .3; } .edge { stroke: var(--accent); }
.mean, .fill { fill: var(--accent); }
"""


def page(view: ExperimentView) -> str:
    """The whole file."""
    one = shown(view)
    return sheet(
        f"Experiment {view.name}",
        element("p", view.sentence, class_="sentence"),
        table("", ("", ""), facts(view)),
        element("h2", "Variants"),
        *_variants(one),
        element("h2", f"Against {view.baseline}, the baseline"),
        *_compared(one),
        element("h2", "Look by look"),
        *(part for candidate in one.looked for part in _looked(candidate)),
        element("h2", "Guardrails"),
        _guarded(one),
        style=_STYLE,
    )


def _variants(one: Shown) -> list[Markup]:
    columns = ("", "does", "share now", "in the end", "assigned", "with the metric", "cost")
    rows = [
        (
            variant.name,
            variant.spelled,
            words.percent(variant.share),
            words.percent(variant.full_share),
            f"{variant.assigned:,}",
            f"{variant.units:,}",
            cost,
        )
        for variant, cost in zip(one.headline.view.variants, one.costs, strict=True)
    ]
    means = table("", ("mean, values", *(row[0] for row in rows)), [(name, *cells) for name, cells in one.means])
    return [table("", columns, rows), element("p", f"Sample ratio: {one.ratio}.", class_="note"), means]


def _compared(one: Shown) -> list[Markup]:
    columns = ("", "role", "candidate", "verdict", "0 in the middle", "effect", "interval", "by now", "p", "values")
    rows = [
        (
            row.metric.metric,
            row.metric.role,
            row.view.variant,
            row.verdict,
            row.drawing,
            row.effect,
            row.interval,
            row.by_now,
            row.p,
            f"{row.view.n:,} / {row.view.baseline_n:,}",
        )
        for row in one.compared
    ]
    return [table("", columns, rows), element("p", SURE, class_="note")]


def _looked(candidate: Looked) -> list[Markup]:
    rows = [
        (
            moment(look.at),
            f"{look.units:,}",
            words.percent(look.fraction),
            effect,
            f"{look.z:+.2f}",
            words.NOTHING if look.boundary is None else f"{look.boundary:.2f}",
        )
        for look, effect in candidate.looks
    ]
    columns = ("when", "units", "of the plan", "effect", "z", "decides at")
    told = element("p", f"{candidate.variant}: {candidate.told}")
    return [told, candidate.drawing, as_table(columns, rows)]


def _guarded(one: Shown) -> Markup:
    rows = [(row.view.metric, row.view.variant, row.accepted, row.drawing, row.told) for row in one.guarded]
    return table("", ("", "candidate", "accepted", "evidence of harm", "in numbers"), rows)
