"""The drawing of the frontier: what each model costs against what it earns, the best fixed mix, the live policy."""

from __future__ import annotations

from markupsafe import Markup

from windlass.server.dashboard import words
from windlass.server.dashboard.charts import PLOT_PX, frame, nice, stretched
from windlass.server.dashboard.svg import element, percent
from windlass.server.frontier import Frontier, Standpoint

ACROSS = 1_000
MARGIN = 0.04
"""Of the width, at either side: a point on the edge is still a whole one."""


def drawing(ident: str, found: Frontier) -> Markup:
    """Cost to the right, reward upwards, from 0 to 1."""
    shown = [*found.models, *([found.live] if found.live is not None else [])]
    dearest = nice(max((one.cost_nusd for one in shown), default=0.0))
    best = [one for one in found.models if one.on_hull]
    marks = stretched([("pace", [_line(best, dearest)])] if best else [], ACROSS)
    for one in found.models:
        marks.append(_point(one, dearest, f"{one.name}: {_told(one)}", "mean"))
    if found.live is not None:
        marks.append(_point(found.live, dearest, f"live, {found.live.name}: {_told(found.live)}", "failed"))
    marks += [
        element("text", "0", x=percent(MARGIN), y=PLOT_PX + 18, text_anchor="start"),
        element("text", words.usd(round(dearest)), x=percent(1 - MARGIN), y=PLOT_PX + 18, text_anchor="end"),
    ]
    return frame(ident, "Mean cost and mean reward of each model", told(found), 1.0, ["0", "0.5", "1"], marks, ())


def told(found: Frontier) -> str:
    """The drawing in words."""
    if not found.models:
        return "No model has answered and earned a reward yet."
    models = "; ".join(f"{one.name} {_told(one)}" for one in found.models)
    live = f" The live policy {_told(found.live)}." if found.live is not None else ""
    return f"{models}.{live}"


def verdict(found: Frontier) -> str:
    """The live policy against the best fixed mix in one sentence."""
    if found.live is None:
        return "Nothing was chosen among two or more models that has earned a reward yet."
    if found.mix is None:
        return "No fixed mix of models is as cheap as what the live policy chose."
    gap = found.live.reward - found.mix
    if abs(gap) < 0.0005:
        return f"The live policy earned {found.live.reward:.3f}, as much as the best fixed mix at the same cost."
    side = "more" if gap > 0 else "less"
    return f"The live policy earned {found.live.reward:.3f}, {abs(gap):.3f} {side} than the best fixed mix at its cost."


def _told(one: Standpoint) -> str:
    return f"{words.usd(round(one.cost_nusd))} a call, reward {one.reward:.2f}"


def _x(one: Standpoint, dearest: float) -> float:
    return MARGIN + (1 - 2 * MARGIN) * min(one.cost_nusd / dearest, 1.0)


def _y(one: Standpoint) -> float:
    return PLOT_PX * (1 - min(max(one.reward, 0.0), 1.0))


def _point(one: Standpoint, dearest: float, tip: str, tone: str) -> Markup:
    return element("circle", element("title", tip), cx=percent(_x(one, dearest)), cy=_y(one), r=5, class_=tone)


def _line(best: list[Standpoint], dearest: float) -> str:
    """From the cheapest of the hull to its dearest, and on at that height: more money buys no more."""
    head, *rest = best
    steps = "".join(f"L{ACROSS * _x(one, dearest):.1f} {_y(one):.1f}" for one in rest)
    return f"M{ACROSS * _x(head, dearest):.1f} {_y(head):.1f}{steps}H{ACROSS * (1 - MARGIN):g}"
