"""The report of `windlass replay` as one HTML file: no script, nothing from elsewhere, every text escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

from markupsafe import Markup

from windlass.server.dashboard.sheet import as_table, sheet, table
from windlass.server.dashboard.svg import element, percent, picture
from windlass.server.evaluation_report import QUANTITIES, quality, spread, usd

PLOT_PX: Final = 320.0
_LEFT, _RIGHT, _TOP, _FOOT = 0.08, 0.78, 12.0, 28.0
_MARGIN: Final = 0.08
_STYLE: Final = """
svg .axis { stroke: var(--line); } svg .hull { stroke: var(--soft); }
svg .reach { stroke: var(--soft); stroke-width: 1; } svg .action { fill: var(--soft); }
svg .policy { fill: var(--accent); } svg .logged { fill: var(--other); }
"""


class Dot(NamedTuple):
    """One place on the frontier: its name, its kind (action, policy, logged), cost and quality with their intervals."""

    name: str
    kind: str
    cost: Mapping[str, float]
    quality: Mapping[str, float]
    on_hull: bool = False


def page(answer: Mapping[str, Any]) -> str:
    """The whole file. answer: what `evaluation_report.report` made."""
    title = f"What {answer['policy']} would have done"
    return sheet(
        title,
        element("p", _about(answer), class_="note"),
        *(element("p", one, class_="sentence") for one in answer["sentences"]),
        *_frontier(answer),
        *_estimators(answer),
        *_counted(answer),
        style=_STYLE,
    )


def dots(answer: Mapping[str, Any]) -> list[Dot]:
    """Everything whose cost and quality are both known."""
    found = [
        Dot(one["action"], "action", one["cost_usd"], one["quality"], one["on_hull"])
        for one in answer["fixed"]
        if one["cost_usd"] and one["quality"]
    ]
    cost, quality_ = (answer[name] for name in QUANTITIES)
    if cost["value"] and quality_["value"]:
        found.append(Dot("what was logged", "logged", cost["was"], quality_["was"]))
        found.append(Dot(answer["policy"], "policy", cost["value"], quality_["value"]))
    return found


def _about(answer: Mapping[str, Any]) -> str:
    log = answer["log"]
    where = log.get("file") or f"tenant {log['tenant']}, workspace {log['workspace']}"
    share = f"{100 * answer['share']:g} % at random"
    return f"{answer['decisions']} decisions at {answer['point']} ({where}); {share}; {answer['knows']}"


def _frontier(answer: Mapping[str, Any]) -> list[Markup]:
    shown = dots(answer)
    if not shown:
        return []
    costs, qualities = _axis([one.cost for one in shown]), _axis([one.quality for one in shown])
    rows = [(one.name, usd(one.cost["value"]), spread(one.cost, usd), quality(one.quality["value"]),
             spread(one.quality, quality), "on the hull" if one.on_hull else "") for one in shown]  # fmt: skip
    summary = "; ".join(f"{one.name}: {usd(one.cost['value'])}, {quality(one.quality['value'])}" for one in shown)
    drawing = picture(
        "frontier",
        "Cost and quality of each action, of the policy and of what was logged",
        summary,
        *_axes(costs, qualities),
        *_hull(shown, costs, qualities),
        *(part for one in shown for part in _dot(one, costs, qualities)),
        class_="frontier",
        height=PLOT_PX + _TOP + _FOOT,
    )
    columns = ("", "cost a call", "95 % interval", "quality", "95 % interval", "")
    below = as_table(columns, rows)
    note = "Each action taken always; the line is the static hull, the best fixed mix; bars are 95 % intervals."
    return [element("h2", "Frontier"), element("p", note, class_="note"), drawing, below]


def _axes(costs: tuple[float, float], qualities: tuple[float, float]) -> list[Markup]:
    foot = _TOP + PLOT_PX
    left, right = percent(_LEFT), percent(_RIGHT)
    return [
        element("line", x1=left, x2=right, y1=foot, y2=foot, class_="axis"),
        element("line", x1=left, x2=left, y1=_TOP, y2=foot, class_="axis"),
        element("text", usd(costs[0]), x=left, y=foot + 18),
        element("text", f"{usd(costs[1])} a call", x=right, y=foot + 18, text_anchor="end"),
        element("text", f"{qualities[0]:.2f}", x="0", y=foot),
        element("text", f"{qualities[1]:.2f}", x="0", y=_TOP + 10),
    ]


def _hull(shown: Sequence[Dot], costs: tuple[float, float], qualities: tuple[float, float]) -> list[Markup]:
    corners = sorted((one for one in shown if one.on_hull), key=lambda one: one.cost["value"])
    places = [(_across(one.cost["value"], costs), _down(one.quality["value"], qualities)) for one in corners]
    return [
        element("line", x1=percent(a[0]), y1=a[1], x2=percent(b[0]), y2=b[1], class_="hull")
        for a, b in pairwise(places)
    ]


def _dot(one: Dot, costs: tuple[float, float], qualities: tuple[float, float]) -> list[Markup]:
    x, y = percent(_across(one.cost["value"], costs)), _down(one.quality["value"], qualities)
    ends = [percent(_across(one.cost[side], costs)) for side in ("low", "high")]
    reach = [_down(one.quality[side], qualities) for side in ("low", "high")]
    return [
        element("line", x1=ends[0], x2=ends[1], y1=y, y2=y, class_="reach"),
        element("line", x1=x, x2=x, y1=reach[0], y2=reach[1], class_="reach"),
        element("circle", cx=x, cy=y, r=4 if one.kind == "action" else 6, class_=one.kind),
        # The two that are compared are named beneath their dots, the actions above theirs.
        element("text", one.name[:60], x=x, y=y - 8 if one.kind == "action" else y + 18, dx=8),
    ]


def _axis(sides: Sequence[Mapping[str, float]]) -> tuple[float, float]:
    """Where an axis begins and ends, with some room around all values; intervals may be cut."""
    values = [one["value"] for one in sides]
    low, high = min(values), max(values)
    room = _MARGIN * (high - low) or max(abs(high), 1e-9) * _MARGIN
    return max(low - room, 0.0), high + room


def _across(value: float, axis: tuple[float, float]) -> float:
    share = (value - axis[0]) / (axis[1] - axis[0])
    return _LEFT + (_RIGHT - _LEFT) * min(max(share, 0.0), 1.0)


def _down(value: float, axis: tuple[float, float]) -> float:
    share = (value - axis[0]) / (axis[1] - axis[0])
    return _TOP + PLOT_PX * (1.0 - min(max(share, 0.0), 1.0))


def _estimators(answer: Mapping[str, Any]) -> list[Markup]:
    found: list[Markup] = []
    for name, title, words in (("cost_usd", "Cost a call", usd), ("quality", "Quality", quality)):
        one = answer[name]
        found.append(element("h2", title))
        found += [element("p", f"Not answered: {why}.", class_="refused") for why in one["refused"]]
        size = f"effective sample size {one['effective_sample_size']:.0f} of {one['known']} known"
        weights = f"mean weight {one['mean_weight']:.3f}, largest {one['largest_weight']:.1f}"
        told = f"{size}; {weights}; clipped {one['clipped']:.4f}; without overlap {100 * one['uncovered']:.2f} %"
        rows = [(known, words(each["value"]), spread(each, words)) for known, each in one["estimators"].items()]
        found.append(table(told, ("estimator", "value", "95 % interval"), rows))
    return found


def _counted(answer: Mapping[str, Any]) -> list[Markup]:
    rows = [(reason, str(count)) for reason, count in answer["log"]["left_out"].items()]
    if not rows:
        return []
    return [element("h2", "Left out, or told apart"), table("", ("reason", "rows"), rows)]
