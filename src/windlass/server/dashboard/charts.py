"""The drawings of the overview: calls and latency by hour, what a policy knows of an action."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup

from windlass.server.dashboard import words
from windlass.server.dashboard.svg import element, percent, picture
from windlass.watch.overview import Totals
from windlass.watch.store import HOUR_S

PLOT_PX = 132.0
FOOT_PX = 24.0
MARKS_MAX = 5
TIPS_MAX = 48
INTERVAL_PX = 28.0


class Slot(NamedTuple):
    """One hour on the axis; `totals` is None where nothing happened, `inside` whether it lies in the chosen range."""

    at: int
    totals: Totals | None
    inside: bool


class _Hour(NamedTuple):
    """A slot where something happened, with its place on the axis."""

    place: int
    slot: Slot
    totals: Totals


def slots(hours: Sequence[tuple[int, Totals]], *, first: float, last: float, since: float) -> list[Slot]:
    """Every hour from the one that holds `first` to the one that holds `last` (UTC seconds), gaps included."""
    known = dict(hours)
    start, end = (int(at // HOUR_S) * HOUR_S for at in (first, last))
    return [Slot(at, known.get(at), at + HOUR_S > since) for at in range(start, end + HOUR_S, HOUR_S)]


def calls_by_hour(axis: Sequence[Slot]) -> Markup:
    """Bars of calls, the failed ones at their foot."""
    busy = _busy(axis)
    ceiling = nice(max((hour.totals.calls for hour in busy), default=1))
    bars = [bar for hour in busy for bar in _bars(hour, len(axis), ceiling)]
    grid = _grid(ceiling, [words.count(round(mark)) for mark in _marks(ceiling)])
    return _chart("calls", "Calls per hour", _calls_told(busy, len(axis)), grid, bars, axis)


def latency_by_hour(axis: Sequence[Slot]) -> Markup:
    """For each hour a band from the median to the 95th percentile, and a dot at the 99th; ms."""
    busy = _busy(axis)
    ceiling = nice(max((hour.totals.p99_ms or 0.0 for hour in busy), default=0.0) or 1.0)
    bands = [band for hour in busy for band in _band(hour, len(axis), ceiling)]
    grid = _grid(ceiling, [_round_ms(mark) for mark in _marks(ceiling)])
    return _chart("latency", "Latency by hour", _latency_told(busy), grid, bands, axis)


def interval(ident: str, name: str, mean: float, sd: float, *, low: float, high: float) -> Markup:
    """The expected reward of one action on the scale `low`..`high`: a dot at the mean, a band of one deviation."""
    span = (high - low) or 1.0
    left, right = (percent((edge - low) / span) for edge in (mean - sd, mean + sd))
    width = percent((min(mean + sd, high) - max(mean - sd, low)) / span)
    middle = INTERVAL_PX / 2
    return picture(
        ident,
        f"Expected reward of {name}",
        f"{mean:.2f} plus or minus {sd:.2f}, on a scale from {low:g} to {high:g}",
        element("line", x1="0", x2="100%", y1=middle, y2=middle, class_="rail"),
        element("rect", x=left, width=width, y=middle - 5, height=10, rx=5, class_="spread"),
        element("line", x1=left, x2=left, y1=middle - 5, y2=middle + 5, class_="edge"),
        element("line", x1=right, x2=right, y1=middle - 5, y2=middle + 5, class_="edge"),
        element("circle", cx=percent((mean - low) / span), cy=middle, r=5, class_="mean"),
        class_="interval",
        height=INTERVAL_PX,
    )


def share(part: float) -> Markup:
    """A bar for a share whose number stands beside it."""
    return element(
        "svg",
        element("rect", x="0", y="0", width="100%", height=6, rx=3, class_="rail"),
        element("rect", x="0", y="0", width=percent(part), height=6, rx=3, class_="fill"),
        class_="share",
        width="100%",
        height=6,
        aria_hidden="true",
    )


def span(ident: str, first_byte_ms: float, latency_ms: float) -> Markup:
    """How a call's time was spent: waiting for the first byte, then receiving; ms."""
    whole = max(latency_ms, first_byte_ms) or 1.0
    wait = percent(first_byte_ms / whole)
    return picture(
        f"span-{ident}",
        "How the time was spent",
        f"{words.ms(first_byte_ms)} until the first byte, {words.ms(latency_ms)} in all",
        element("rect", x="0", y=4, width="100%", height=12, rx=3, class_="fill"),
        element("rect", x="0", y=4, width=wait, height=12, rx=3, class_="waited"),
        class_="span",
        height=20,
    )


def nice(value: float) -> float:
    """The next of 1, 2, 4, 6, 8, 10 times a power of ten: an axis that ends there has a round mark at its middle too.

    >>> nice(3), nice(41.0), nice(0.25)
    (4.0, 60.0, 0.4)
    """
    if not (math.isfinite(value) and value > 0.0):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(
        (step * power for step in (1.0, 2.0, 4.0, 6.0, 8.0, 10.0) if value <= step * power * (1 + 1e-12)), 10.0 * power
    )


def _busy(axis: Sequence[Slot]) -> list[_Hour]:
    return [_Hour(place, slot, slot.totals) for place, slot in enumerate(axis) if slot.totals is not None]


def _calls_told(busy: Sequence[_Hour], shown: int) -> str:
    total = sum(hour.totals.calls for hour in busy)
    told = f"{words.plural(total, 'call')} in {words.plural(len(busy), 'hour')} of the {shown} shown."
    if busy:
        top = max(busy, key=lambda hour: hour.totals.calls)
        told += f" The busiest began on {_hour_of_day(top.slot.at)} with {top.totals.calls:,}."
    return told


def _latency_told(busy: Sequence[_Hour]) -> str:
    if not busy:
        return "No calls, so no latency."
    medians = sorted(hour.totals.p50_ms or 0.0 for hour in busy)
    slowest = max(hour.totals.p95_ms or 0.0 for hour in busy)
    told = f"Hourly medians from {words.ms(medians[0])} to {words.ms(medians[-1])}; "
    return told + f"the highest hourly 95th percentile is {words.ms(slowest)}."


def _bars(hour: _Hour, places: int, ceiling: float) -> list[Markup]:
    totals, width = hour.totals, _width(places)
    height = max(2.0, PLOT_PX * totals.calls / ceiling)
    failed = height * totals.errors / totals.calls if totals.calls else 0.0
    failures = f", {words.plural(totals.errors, 'error')}" if totals.errors else ""
    tip = _tip(hour, places, f"{words.plural(totals.calls, 'call')}{failures}")
    left, across = percent((hour.place + 0.5) / places - width / 2), percent(width)
    tone = "bar" if hour.slot.inside else "bar outside"
    drawn = [element("rect", *tip, x=left, y=PLOT_PX - height, width=across, height=height, rx=2, class_=tone)]
    if failed:
        drawn.append(element("rect", x=left, y=PLOT_PX - failed, width=across, height=failed, rx=2, class_="failed"))
    return drawn


def _band(hour: _Hour, places: int, ceiling: float) -> list[Markup]:
    p50, p95, p99 = (value or 0.0 for value in (hour.totals.p50_ms, hour.totals.p95_ms, hour.totals.p99_ms))
    y50, y95, y99 = (PLOT_PX * (1 - value / ceiling) for value in (p50, p95, p99))
    width, middle = _width(places), (hour.place + 0.5) / places
    left, right = percent(middle - width / 2), percent(middle + width / 2)
    shade = "" if hour.slot.inside else " outside"
    tip = _tip(hour, places, f"p50 {words.ms(p50)}, p95 {words.ms(p95)}, p99 {words.ms(p99)}")
    height = max(2.0, y50 - y95)
    tail = 2.0 if places <= TIPS_MAX else 1.25
    return [
        element("rect", *tip, x=left, y=y95, width=percent(width), height=height, rx=2, class_=f"band{shade}"),
        element("line", x1=left, x2=right, y1=y50, y2=y50, class_=f"median{shade}"),
        element("circle", cx=percent(middle), cy=y99, r=tail, class_=f"tail{shade}"),
    ]


def _width(places: int) -> float:
    """How wide one mark is: most of its hour, but no wider than 1/24 of the drawing."""
    return min(0.72 / places, 1 / 24)


def _marks(ceiling: float) -> tuple[float, float, float]:
    return 0.0, ceiling / 2, ceiling


def _tip(hour: _Hour, places: int, said: str) -> tuple[Markup, ...]:
    """What a mark says under the pointer; many narrow marks leave that to the table."""
    return (element("title", f"{_hour_of_day(hour.slot.at)}: {said}"),) if places <= TIPS_MAX else ()


def _round_ms(mark: float) -> str:
    """A round number of milliseconds, as an axis has it."""
    return "0" if not mark else f"{mark / 1000:g} s" if mark >= 1000 else f"{mark:g} ms"


def _grid(ceiling: float, labels: Sequence[str]) -> list[Markup]:
    lines: list[Markup] = []
    for mark, label in zip(_marks(ceiling), labels, strict=True):
        y = PLOT_PX * (1 - mark / ceiling)
        lines.append(element("line", x1="0", x2="100%", y1=y, y2=y, class_="grid"))
        lines.append(element("text", label, x=-8, y=y + 4, text_anchor="end"))
    return lines


def _hours_marked(axis: Sequence[Slot]) -> list[Markup]:
    """Round hours in words under the axis; where more than two days are shown, days."""
    long = len(axis) > 48
    round_s = 86_400 * math.ceil(len(axis) / 24 / MARKS_MAX) if long else 6 * HOUR_S
    drawn: list[Markup] = []
    for place, slot in enumerate(axis):
        if slot.at % round_s == 0:
            middle = (place + 0.5) / len(axis)
            anchor = "start" if middle < 0.04 else "end" if middle > 0.92 else "middle"
            label = words.day(slot.at) if long or slot.at % 86_400 == 0 else _hour(slot.at)
            drawn.append(element("text", label, x=percent(middle), y=PLOT_PX + 18, text_anchor=anchor))
    return drawn


def _days_parted(axis: Sequence[Slot]) -> list[Markup]:
    """A thin upright line where a day begins."""
    return [
        element("line", x1=percent(place / len(axis)), x2=percent(place / len(axis)), y1=0, y2=PLOT_PX, class_="day")
        for place, (_, slot) in enumerate(pairwise(axis), start=1)
        if slot.at % 86_400 == 0
    ]


def _chart(
    ident: str, title: str, summary: str, grid: Sequence[Markup], marks: Sequence[Markup], axis: Sequence[Slot]
) -> Markup:
    return picture(
        ident,
        title,
        summary,
        *grid,
        *_days_parted(axis),
        *marks,
        *_hours_marked(axis),
        class_="chart",
        height=PLOT_PX + FOOT_PX,
    )


def _hour(at: float) -> str:
    return words.clock(at)[:5]


def _hour_of_day(at: float) -> str:
    return f"{words.day(at)} {_hour(at)} UTC"
