"""The drawing of a budget: what is left of it through its window, the even pace, and when it is likely to be spent."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

from markupsafe import Markup

from windlass.server.budgets import BudgetCount
from windlass.server.dashboard import words
from windlass.server.dashboard.charts import PLOT_PX, frame, stretched
from windlass.server.dashboard.svg import element, percent
from windlass.watch.spending.forecast import Forecast

Axis: TypeAlias = Callable[[float], float]
ACROSS = 1_000
"""Places of the drawing's width: fine enough for a month by the hour."""
DAY_S = 86_400.0


def bar(one: BudgetCount) -> Markup:
    """How much of a count is used, and held beside it; the numbers stand beside it."""
    most = float(one.most or 1)
    used = min(1.0, (one.used or 0) / most)
    held = min(1.0 - used, (one.held or 0) / most)
    return element(
        "svg",
        element("rect", x="0", y="0", width="100%", height=8, rx=4, class_="rail"),
        element("rect", x="0", y="0", width=percent(used + held), height=8, rx=4, class_="held"),
        element("rect", x="0", y="0", width=percent(used), height=8, rx=4, class_="fill"),
        class_="share",
        width="100%",
        height=8,
        aria_hidden="true",
    )


def burn_down(ident: str, one: BudgetCount, now: float) -> Markup:
    """What was left, from the begin of the window to its end, and from now on the fan of the forecast."""
    begin = one.series[0][0]
    finish = _finish(one, begin, now)
    span = (finish - begin) or 1.0

    def x(at: float) -> float:
        return ACROSS * min(max((at - begin) / span, 0.0), 1.0)

    def y(used: float) -> float:
        return PLOT_PX * min(max(used / (one.most or 1), 0.0), 1.0)

    line = _line(one.series, x, y)
    paths = [("remains", [f"{line}V{PLOT_PX:g}H0Z"]), ("burnt", [line])]
    if one.ends is not None:
        paths.insert(0, ("pace", [f"M0 0L{ACROSS} {PLOT_PX:g}"]))
    if one.forecast is not None and one.forecast.low_at is not None:
        paths.append(("fan", [_fan(one, now, finish, x, y)]))
    labels = [words.usd(round(one.most * share)) for share in (0.0, 0.5, 1.0)]
    return frame(ident, f"What is left of {one.name}", told(one, now), 1.0, labels, [
        *stretched(paths, ACROSS),
        *_under(begin, now, finish, x),
    ], ())  # fmt: skip


def told(one: BudgetCount, now: float) -> str:
    """The drawing in words."""
    used, most = words.usd(one.used or 0), words.usd(one.most)
    held = f", {words.usd(one.held)} held by calls under way" if one.held else ""
    return f"{used} of {most} used{held}. {outlook(one, now)}"


def outlook(one: BudgetCount, now: float) -> str:
    """When a budget will be spent, in one sentence that claims no more than the interval."""
    forecast = one.forecast
    if one.left == 0:
        return "It is spent." if one.ends is None else f"It is spent; the next window begins {_on(one.ends, now)}."
    if forecast is None:
        return "Too little has been spent to tell when it will be."
    if forecast.low_at is None or forecast.per_day <= 0:
        return "Nothing is being spent, so it lasts."
    return f"At {words.usd(round(forecast.per_day))} a day {_spent(forecast, forecast.low_at, one.ends, now)}"


def _spent(forecast: Forecast, low: float, ends: float | None, now: float) -> str:
    """What an interval that begins at `low` says."""
    high = forecast.high_at
    if ends is not None and low > ends:
        return f"it lasts until its window ends {_on(ends, now)}."
    if high is None or (ends is not None and high > ends):
        likely = f"a chance of {words.percent(forecast.chance)} that it is spent before" if ends is not None else ""
        last = f", with {likely} its window ends {_on(ends, now)}" if ends is not None else ", or never"
        return f"it may be spent from {_when(low, now)} on{last}."
    return f"it will be spent between {_when(low, now)} and {_when(high, now)} (80{words.NBSP}% sure)."


def _on(at: float, now: float) -> str:
    """`on 1 Dec`, `at 14:00`."""
    said = _when(at, now)
    return f"at {said}" if said[2:3] == ":" else f"on {said}"


def _when(at: float, now: float) -> str:
    """A day, with the time where it is near; of today the time alone, midnight as the day that begins."""
    if words.day(at) == words.day(now) and abs(at - now) < DAY_S:
        return words.clock(at)[:5]
    near = abs(at - now) < 2 * DAY_S and at % DAY_S
    return f"{words.day(at)} {words.clock(at)[:5]}" if near else words.day(at)


def _finish(one: BudgetCount, begin: float, now: float) -> float:
    """Where the drawing ends: with the window, or where the forecast does, but no further than it reaches back."""
    if one.ends is not None:
        return one.ends
    seen = max(now - begin, 3_600.0)
    likely = one.forecast.high_at if one.forecast is not None and one.forecast.high_at is not None else now
    return min(max(likely, now + 0.25 * seen), now + 2 * seen)


def _line(series: Sequence[tuple[float, int]], x: Axis, y: Axis) -> str:
    """From point to point; what was spent between two is not known nearer than that."""
    head, *rest = series
    steps = "".join(f"L{x(at):.1f} {y(used):.1f}" for at, used in rest)
    return f"M{x(head[0]):.1f} {y(head[1]):.1f}{steps}"


def _fan(one: BudgetCount, now: float, finish: float, x: Axis, y: Axis) -> str:
    """From what is left now to the early and the late end of the interval, cut off where the drawing ends."""
    forecast, used = one.forecast, float(one.used or 0)
    assert forecast is not None, "asked only where there is one"
    assert forecast.low_at is not None, "asked only where it has an interval"
    late = math.inf if forecast.high_at is None else forecast.high_at
    edges = []
    for end in (forecast.low_at, late):
        left = one.most - used
        reached = 1.0 if end <= finish else (finish - now) / (end - now) if math.isfinite(end) else 0.0
        edges.append((x(min(end, finish)), y(used + left * max(0.0, reached))))
    (early_x, early_y), (late_x, late_y) = edges
    corner = f"L{ACROSS} {PLOT_PX:g}" if early_y >= PLOT_PX > late_y else ""
    return f"M{x(now):.1f} {y(used):.1f}L{early_x:.1f} {early_y:.1f}{corner}L{late_x:.1f} {late_y:.1f}Z"


def _under(begin: float, now: float, finish: float, x: Axis) -> list[Markup]:
    """The begin, now and the end, under the axis; now is left out where it would lie on one of the others."""
    hours = finish - begin <= 2 * DAY_S
    marks = [(0.0, words.clock(begin)[:5] if hours else words.day(begin), "start")]
    here = x(now) / ACROSS
    if 0.2 < here < 0.8:
        marks.append((here, "now", "middle"))
    last = "24:00" if hours and words.clock(finish)[:5] == "00:00" else words.clock(finish)[:5]
    marks.append((1.0, last if hours else words.day(finish), "end"))
    drawn = [element("line", x1=percent(here), x2=percent(here), y1=0, y2=PLOT_PX, class_="now")]
    return drawn + [
        element("text", text, x=percent(place), y=PLOT_PX + 18, text_anchor=anchor) for place, text, anchor in marks
    ]
