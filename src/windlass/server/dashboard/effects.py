"""The drawings of an experiment: effects with their intervals, the looks against what decides, the evidence of harm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from markupsafe import Markup

from windlass.improve.experiments import words
from windlass.improve.experiments.report import scaled
from windlass.improve.experiments.view import ComparisonView, HarmView, LookView, MetricView
from windlass.server.dashboard.charts import PLOT_PX, frame, nice, share, spread, stretched
from windlass.server.dashboard.svg import element, percent

ACROSS: Final = 1_000
_HIGHEST: Final = 8.0
"""|z| that the drawing of the looks reaches, at most: the first boundaries are far out."""


def effect(ident: str, metric: MetricView, one: ComparisonView, span: float) -> Markup:
    """One candidate's effect on one metric, no difference in the middle; a dashed line where a guardrail would break.

    span: of the scale to either side, see `scaled`. Nothing where no effect is known.
    """
    if one.estimate is None or one.low is None or one.high is None:
        return Markup("")
    value, low, high = (scaled(part, metric.unit) for part in (one.estimate, one.low, one.high))
    marked = [(0.0, "now")]
    if metric.margin:
        accepted = math.log1p(metric.margin) if metric.unit == "ratio" else 100.0 * metric.margin
        marked.append((-accepted if metric.up_is_good else accepted, "pace"))
    told = f"{words.effect(one.estimate, metric.unit)}, {words.interval(one.low, one.high, metric.unit)}"
    title = f"{metric.metric} of {one.variant} against the baseline"
    return spread(ident, title, f"{told}: {words.verdict(metric, one)}", value, (low, high), (-span, span), marked)


def looks(ident: str, variant: str, taken: Sequence[LookView], size: int) -> Markup:
    """How far a candidate was from no difference at each look, in standard errors, and how far it had to be.

    size: units per variant that are planned. Nothing before the first look.
    """
    if not taken:
        return Markup("")
    top = nice(min(max([4.0, *(max(abs(look.z), look.boundary or 0.0) for look in taken)]), _HIGHEST))
    last = max(1.0, taken[-1].fraction)
    limits = [(look.fraction / last, look.boundary) for look in taken if look.boundary is not None]
    paths = [("pace", [_line([(x, sign * limit) for x, limit in limits], top)]) for sign in (1.0, -1.0) if limits]
    paths.append(("burnt", [_line([(0.0, 0.0), *((look.fraction / last, look.z) for look in taken)], top)]))
    dots = [
        element("circle", element("title", _tip(look)), cx=percent(look.fraction / last), cy=_down(look.z, top), r=4,
                class_="mean")
        for look in taken
    ]  # fmt: skip
    end = f"{last * size:,.0f} units per variant"
    under = [
        element("text", "0", x="0%", y=PLOT_PX + 18, text_anchor="start"),
        element("text", end, x="100%", y=PLOT_PX + 18, text_anchor="end"),
    ]
    title = f"{variant} against the baseline, look by look"
    labels = [f"{-top:g}", "0", f"+{top:g}"]
    return frame(ident, title, told(taken), 1.0, labels, [*stretched(paths, ACROSS), *dots, *under], ())


def told(taken: Sequence[LookView]) -> str:
    """The drawing in words."""
    last = taken[-1]
    if last.boundary is None:
        return f"z {last.z:+.2f} at the last look."
    side = "beyond" if abs(last.z) >= last.boundary else "within"
    return f"z {last.z:+.2f} at the last of {len(taken)} looks, {side} the boundary of {last.boundary:.2f}."


def evidence(one: HarmView) -> Markup:
    """How near an alarm is, as a bar; the numbers stand beside it."""
    if one.evidence <= 1.0 or one.limit <= 1.0:
        return share(0.0)
    return share(math.log(one.evidence) / math.log(one.limit))


def _tip(look: LookView) -> str:
    boundary = "" if look.boundary is None else f", boundary {look.boundary:.2f}"
    return f"{look.units:,} units: z {look.z:+.2f}{boundary}"


def _line(points: Sequence[tuple[float, float]], top: float) -> str:
    return "M" + "L".join(f"{ACROSS * x:.1f} {_down(z, top):.1f}" for x, z in points)


def _down(z: float, top: float) -> float:
    return PLOT_PX * (1.0 - (min(max(z, -top), top) + top) / (2.0 * top))
