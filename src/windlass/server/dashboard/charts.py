"""The drawings of the overview: calls and latency by hour, what a policy knows of an action."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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
FILL = 0.72
"""Of a place on the axis that its mark fills."""


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


def calls_by_hour(axis: Sequence[Slot], what: str = "call") -> Markup:
    """Bars of calls, or of what else is counted, the failed ones at their foot."""
    busy = _busy(axis)
    ceiling = nice(max((hour.totals.calls for hour in busy), default=1))
    bars = _one_by_one(_bars, busy, axis, ceiling) if len(axis) <= TIPS_MAX else _week_of_bars(busy, axis, ceiling)
    labels = [words.count(round(mark)) for mark in _marks(ceiling)]
    told = _calls_told(busy, len(axis), what)
    return frame("calls", f"{what.capitalize()}s per hour", told, ceiling, labels, bars, [slot.at for slot in axis])


def latency_by_hour(axis: Sequence[Slot], ident: str = "latency", title: str = "Latency by hour") -> Markup:
    """For each hour a band from the median to the 95th percentile, and a dot at the 99th; ms."""
    busy = _busy(axis)
    ceiling = nice(max((hour.totals.p99_ms or 0.0 for hour in busy), default=0.0) or 1.0)
    bands = _one_by_one(_band, busy, axis, ceiling) if len(axis) <= TIPS_MAX else _week_of_bands(busy, axis, ceiling)
    labels = [_round_ms(mark) for mark in _marks(ceiling)]
    told = _latency_told(busy)
    return frame(ident, title, told, ceiling, labels, bands, [slot.at for slot in axis])


def interval(ident: str, name: str, mean: float, sd: float, *, low: float, high: float) -> Markup:
    """The expected reward of one action on the scale `low`..`high`: a dot at the mean, a band of one deviation."""
    told = f"{mean:.2f} plus or minus {sd:.2f}, on a scale from {low:g} to {high:g}"
    return spread(ident, f"Expected reward of {name}", told, mean, (mean - sd, mean + sd), (low, high))


def spread(
    ident: str,
    title: str,
    told: str,
    value: float,
    ends: tuple[float, float],
    axis: tuple[float, float],
    marked: Sequence[tuple[float, str]] = (),
) -> Markup:
    """A dot at a value and a band between the ends of its interval, on a scale. marked: (place, class) of upright lines
    on that scale."""
    low, high = axis
    span = (high - low) or 1.0
    left, right = (percent((edge - low) / span) for edge in ends)
    width = percent((min(ends[1], high) - max(ends[0], low)) / span)
    middle = INTERVAL_PX / 2
    return picture(
        ident,
        title,
        told,
        element("line", x1="0", x2="100%", y1=middle, y2=middle, class_="rail"),
        *(
            element("line", x1=percent((at - low) / span), x2=percent((at - low) / span), y1=2, y2=26, class_=tone)
            for at, tone in marked
        ),
        element("rect", x=left, width=width, y=middle - 5, height=10, rx=5, class_="spread"),
        element("line", x1=left, x2=left, y1=middle - 5, y2=middle + 5, class_="edge"),
        element("line", x1=right, x2=right, y1=middle - 5, y2=middle + 5, class_="edge"),
        element("circle", cx=percent((value - low) / span), cy=middle, r=5, class_="mean"),
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


def _calls_told(busy: Sequence[_Hour], shown: int, what: str) -> str:
    total = sum(hour.totals.calls for hour in busy)
    told = f"{words.plural(total, what)} in {words.plural(len(busy), 'hour')} of the {shown} shown."
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
    tip = _tip(hour, f"{words.plural(totals.calls, 'call')}{failures}")
    left, across = percent((hour.place + 0.5) / places - width / 2), percent(width)
    tone = "bar" if hour.slot.inside else "bar outside"
    drawn = [element("rect", tip, x=left, y=PLOT_PX - height, width=across, height=height, rx=2, class_=tone)]
    if failed:
        drawn.append(element("rect", x=left, y=PLOT_PX - failed, width=across, height=failed, rx=2, class_="failed"))
    return drawn


def _one_by_one(
    draw: Callable[[_Hour, int, float], list[Markup]], busy: Sequence[_Hour], axis: Sequence[Slot], ceiling: float
) -> list[Markup]:
    """Marks that each say their numbers under the pointer."""
    return [mark for hour in busy for mark in draw(hour, len(axis), ceiling)]


def stretched(paths: Sequence[tuple[str, Sequence[str]]], places: int) -> list[Markup]:
    """(class, steps) as one path each, whose places are whole numbers, over the full width: a mark costs 20 bytes, not
    the 100 of an element. The numbers are in the table."""
    box = f"0 0 {max(1, places)} {PLOT_PX:g}"
    drawn = [element("path", d="".join(steps), class_=tone) for tone, steps in paths if steps]
    shape = {"viewBox": box, "preserveAspectRatio": "none", "width": "100%", "height": f"{PLOT_PX:g}"}
    return [element("svg", *drawn, **shape, class_="stretched")]


def upright(place: int, low: float, high: float) -> str:
    """A step of a path: a bar at a whole place, from `low` to `high` as shares of the height, as wide as its stroke."""
    return f"M{place + 0.5:g} {PLOT_PX * (1 - low):.0f}V{PLOT_PX * (1 - high):.0f}"


def level(place: int, height: float) -> str:
    """A step of a path: a line across a whole place at `height`, a share."""
    return f"M{place + (1 - FILL) / 2:.5g} {PLOT_PX * (1 - height):.0f}h{FILL:g}"


def _week_of_bars(busy: Sequence[_Hour], axis: Sequence[Slot], ceiling: float) -> list[Markup]:
    bars: dict[bool, list[str]] = {True: [], False: []}
    failed: list[str] = []
    for place, slot, totals in busy:
        height = max(2.0 / PLOT_PX, totals.calls / ceiling)
        bars[slot.inside].append(upright(place, 0.0, height))
        if totals.errors:
            failed.append(upright(place, 0.0, height * totals.errors / totals.calls))
    return stretched(
        [("upright bar", bars[True]), ("upright bar outside", bars[False]), ("upright failed", failed)], len(axis)
    )


def _week_of_bands(busy: Sequence[_Hour], axis: Sequence[Slot], ceiling: float) -> list[Markup]:
    bands: list[str] = []
    medians: list[str] = []
    tails: list[str] = []
    for place, _, totals in busy:
        p50, p95, p99 = ((value or 0.0) / ceiling for value in (totals.p50_ms, totals.p95_ms, totals.p99_ms))
        bands.append(upright(place, p50, max(p95, p50 + 2.0 / PLOT_PX)))
        medians.append(level(place, p50))
        tails.append(f"M{place + 0.5:g} {PLOT_PX * (1 - p99):.0f}h0")
    return stretched([("upright band", bands), ("level median", medians), ("tails", tails)], len(axis))


def _band(hour: _Hour, places: int, ceiling: float) -> list[Markup]:
    p50, p95, p99 = (value or 0.0 for value in (hour.totals.p50_ms, hour.totals.p95_ms, hour.totals.p99_ms))
    y50, y95, y99 = (PLOT_PX * (1 - value / ceiling) for value in (p50, p95, p99))
    width, middle = _width(places), (hour.place + 0.5) / places
    left, right = percent(middle - width / 2), percent(middle + width / 2)
    shade = "" if hour.slot.inside else " outside"
    tip = _tip(hour, f"p50 {words.ms(p50)}, p95 {words.ms(p95)}, p99 {words.ms(p99)}")
    height = max(2.0, y50 - y95)
    return [
        element("rect", tip, x=left, y=y95, width=percent(width), height=height, rx=2, class_=f"band{shade}"),
        element("line", x1=left, x2=right, y1=y50, y2=y50, class_=f"median{shade}"),
        element("circle", cx=percent(middle), cy=y99, r=2, class_=f"tail{shade}"),
    ]


def _width(places: int) -> float:
    """How wide one mark is: most of its hour, but no wider than 1/24 of the drawing."""
    return min(FILL / places, 1 / 24)


def _marks(ceiling: float) -> tuple[float, float, float]:
    return 0.0, ceiling / 2, ceiling


def _tip(hour: _Hour, said: str) -> Markup:
    """What a mark says under the pointer."""
    return element("title", f"{_hour_of_day(hour.slot.at)}: {said}")


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


def _times_marked(times: Sequence[int]) -> list[Markup]:
    """Round hours in words under the axis; where more than two days are shown, days."""
    long = bool(times) and times[-1] - times[0] > 48 * HOUR_S
    days = (times[-1] - times[0]) / 86_400 if times else 0.0
    round_s = 86_400 * math.ceil(days / MARKS_MAX) if long else 6 * HOUR_S
    drawn: list[Markup] = []
    for place, at in enumerate(times):
        if at % round_s == 0:
            middle = (place + 0.5) / len(times)
            anchor = "start" if middle < 0.04 else "end" if middle > 0.92 else "middle"
            label = words.day(at) if long or at % 86_400 == 0 else _hour(at)
            drawn.append(element("text", label, x=percent(middle), y=PLOT_PX + 18, text_anchor=anchor))
    return drawn


def _days_parted(times: Sequence[int]) -> list[Markup]:
    """A thin upright line where a day begins, on an axis of hours."""
    return [
        element("line", x1=percent(place / len(times)), x2=percent(place / len(times)), y1=0, y2=PLOT_PX, class_="day")
        for place, (before, at) in enumerate(pairwise(times), start=1)
        if at % 86_400 == 0 and at - before < 86_400
    ]


def frame(
    ident: str,
    title: str,
    summary: str,
    ceiling: float,
    labels: Sequence[str],
    marks: Sequence[Markup],
    times: Sequence[int],
) -> Markup:
    """A chart: grid lines at 0, the middle and the `ceiling` with their labels, the marks, and `times` (UTC seconds)
    under it."""
    return picture(
        ident,
        title,
        summary,
        *_grid(ceiling, labels),
        *_days_parted(times),
        *marks,
        *_times_marked(times),
        class_="chart",
        height=PLOT_PX + FOOT_PX,
    )


def _hour(at: float) -> str:
    return words.clock(at)[:5]


def _hour_of_day(at: float) -> str:
    return f"{words.day(at)} {_hour(at)} UTC"
