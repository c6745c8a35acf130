"""Drawings and words: numbers in, SVG and sentences out."""

from __future__ import annotations

import doctest
import math
import re
from xml.etree import ElementTree

import pytest
from markupsafe import Markup

from windlass.policies.policy import Arm
from windlass.records import Decision
from windlass.server.dashboard import charts, learned, stacks, svg, words
from windlass.watch.overview import Totals

DAY = 1_800_000_000 // 86_400 * 86_400


def totals(calls: int, errors: int = 0, p50: float | None = 10.0, p95: float | None = 50.0) -> Totals:
    return Totals(
        calls=calls,
        errors=errors,
        cost_nusd=0,
        prompt_tokens=0,
        completion_tokens=0,
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p95,
    )


def drawn(markup: Markup) -> ElementTree.Element:
    """The drawing, which is well-formed XML."""
    return ElementTree.fromstring(markup)


@pytest.mark.parametrize("module", [charts, svg, words])
def test_the_examples_hold(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["</text><script>", '" onload="x', "a & b", "'\"<>&", "\N{FACE WITH TEARS OF JOY}"])
def test_no_text_leaves_its_place(text: str) -> None:
    element = drawn(svg.element("text", text, x=1.0, class_=text))
    assert element.text == text
    assert element.attrib == {"x": "1", "class": text}


@pytest.mark.parametrize("hours", [1, 24, 48])
def test_every_hour_has_its_place_and_stays_inside(hours: int) -> None:
    seen = [(DAY + place * 3600, totals(place + 1, place % 2)) for place in range(hours)]
    axis = charts.slots(seen, first=DAY, last=DAY + (hours - 1) * 3600, since=DAY)
    for drawing in (charts.calls_by_hour(axis), charts.latency_by_hour(axis)):
        for rect in drawn(drawing).iter("rect"):
            left, width = (float(rect.attrib[name].rstrip("%")) for name in ("x", "width"))
            assert left >= 0.0
            assert left + width <= 100.01
            assert float(rect.attrib["y"]) >= -0.01
            assert float(rect.attrib["y"]) + float(rect.attrib["height"]) <= charts.PLOT_PX + 0.01
    assert (
        len([rect for rect in drawn(charts.calls_by_hour(axis)).iter("rect") if "bar" in rect.attrib["class"]]) == hours
    )


def steps(drawing: Markup, tone: str) -> list[list[float]]:
    """The places and heights of a path's marks."""
    paths = [path.attrib["d"] for path in drawn(drawing).iter("path") if tone in path.attrib["class"].split()]
    return [[float(number) for number in re.findall(r"[\d.]+", mark)] for path in paths for mark in path.split("M")[1:]]


def test_a_week_is_one_path_for_each_kind_of_mark() -> None:
    seen = [(DAY + place * 3600, totals(place + 1, place % 2)) for place in range(168)]
    axis = charts.slots(seen, first=DAY, last=DAY + 167 * 3600, since=DAY)
    calls, latency = charts.calls_by_hour(axis), charts.latency_by_hour(axis)
    assert len(calls) + len(latency) < 15_000
    assert [len(steps(calls, tone)) for tone in ("bar", "failed")] == [168, 84]
    assert [len(steps(latency, tone)) for tone in ("band", "median", "tails")] == [168, 168, 168]
    for place, bottom, top in steps(calls, "bar"):
        assert 0 < place < 168
        assert 0 <= top < bottom == charts.PLOT_PX


@pytest.mark.parametrize("shares", [True, False])
def test_parts_stand_upon_each_other(shares: bool) -> None:
    times = [DAY + place * 3600 for place in range(3)]
    parts = [stacks.Part("a", [3.0, None, 1.0]), stacks.Part("b", [1.0, None, 0.0])]
    drawing = stacks.stacked("s", "<t>", "told & shown", times, parts, shares=shares)
    assert drawn(drawing).findtext("title") == "<t>"
    (first, last), (second,) = steps(drawing, "t0"), steps(drawing, "t1")
    assert first[1:] == [132, 33]
    assert second[1:] == [33, 0]
    assert last[1:] == [132, 0 if shares else 99]
    assert stacks.stacked("s", "t", "nothing", [], [], shares=shares)


def test_levels_stay_inside_and_leave_gaps() -> None:
    times = [DAY + place * 86_400 for place in range(4)]
    drawing = stacks.levels("s", "t", "told", times, [stacks.Part("a", [0.5, None, 7.0, -1.0])], 1.0)
    assert [height for _, height, *_ in steps(drawing, "l0")] == [66, 0, 132]


def test_gaps_stay_gaps_and_hours_outside_the_range_are_faint() -> None:
    axis = charts.slots([(DAY, totals(3)), (DAY + 7200, totals(4))], first=DAY, last=DAY + 7200, since=DAY + 7000)
    assert [(slot.totals is None, slot.inside) for slot in axis] == [(False, False), (True, True), (False, True)]
    bars = [rect.attrib["class"] for rect in drawn(charts.calls_by_hour(axis)).iter("rect")]
    assert bars == ["bar outside", "bar"]


def test_the_summary_tells_what_the_drawing_shows() -> None:
    axis = charts.slots([(DAY, totals(3)), (DAY + 3600, totals(9))], first=DAY, last=DAY + 82_800, since=0.0)
    told = drawn(charts.calls_by_hour(axis)).findtext("desc")
    assert told == "12 calls in 2 hours of the 24 shown. The busiest began on 15 Jan 01:00 UTC with 9."
    told = drawn(charts.latency_by_hour(axis)).findtext("desc") or ""
    assert told.replace("\N{NO-BREAK SPACE}", " ") == (
        "Hourly medians from 10.0 ms to 10.0 ms; the highest hourly 95th percentile is 50.0 ms."
    )


def test_an_empty_axis_is_drawn_too() -> None:
    axis = charts.slots([], first=DAY, last=DAY + 82_800, since=0.0)
    assert "0 calls" in (drawn(charts.calls_by_hour(axis)).findtext("desc") or "")
    assert drawn(charts.latency_by_hour(axis)).findtext("desc") == "No calls, so no latency."


def test_an_hour_without_latency_is_drawn_at_zero() -> None:
    axis = charts.slots([(DAY, totals(1, 1, None, None))], first=DAY, last=DAY, since=0.0)
    assert len(list(drawn(charts.latency_by_hour(axis)).iter("rect"))) == 1


@pytest.mark.parametrize(("mean", "sd"), [(0.5, 0.1), (0.0, 5.0), (-3.0, 0.0), (9.0, 1e9)])
def test_an_interval_stays_on_its_scale(mean: float, sd: float) -> None:
    drawing = drawn(charts.interval("i", "a", mean, sd, low=0.0, high=1.0))
    for shape in drawing.iter():
        for name in ("x", "x1", "x2", "cx", "width"):
            if name in shape.attrib:
                assert 0.0 <= float(shape.attrib[name].rstrip("%")) <= 100.0
    assert drawing.findtext("desc") == f"{mean:.2f} plus or minus {sd:.2f}, on a scale from 0 to 1"


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, 1e-9, 0.999, 1.0, 1.0000001, 7.3, 1e12])
def test_a_nice_ceiling_is_above_its_value(value: float) -> None:
    ceiling = charts.nice(value)
    assert math.isfinite(ceiling)
    assert ceiling > 0.0
    if math.isfinite(value) and value > 0.0:
        assert value <= ceiling * (1 + 1e-9)
        assert ceiling <= 2.01 * value


def arm(action: str, mean: float | None, sd: float | None, observations: int = 5) -> Arm:
    return Arm(action, mean, sd, 0.5, observations)


@pytest.mark.parametrize(
    ("arms", "says", "leader"),
    [
        ([], "fixed rule", ""),
        ([arm("a", None, None, 0)], "fixed rule", ""),
        ([arm("a", 0.5, 0.4, 0), arm("b", 0.5, 0.4, 0)], "No rewards yet", ""),
        ([arm("a", 0.5, 0.4)], "Only a could be chosen", ""),
        ([arm("a", 0.9, 0.01), arm("b", 0.5, 0.4, 0)], "b has no reward yet", ""),
        ([arm("a", 0.50, 0.1), arm("b", 0.55, 0.1)], "Too close to tell: b and a are 0.05 apart", ""),
        ([arm("a", 0.70, 0.1), arm("b", 0.50, 0.1)], "leans towards a: ahead by 0.20", ""),
        ([arm("a", 0.90, 0.02), arm("b", 0.50, 0.02)], "a is ahead by 0.40, clearly", "a"),
        ([arm("a", 0.5, 0.0), arm("b", 0.5, 0.0)], "Too close to tell", ""),
    ],
)
def test_a_verdict_claims_no_more_than_the_numbers(arms: list[Arm], says: str, leader: str) -> None:
    assert says in learned.verdict(arms)
    assert learned.leader(arms) == leader


@pytest.mark.parametrize(
    ("actions", "fallback", "says"),
    [
        (("a", "b"), "", "p@1 chose it among 2 with a chance of 30 %"),
        (("a",), "", "asked for by name"),
        (("a", "b"), "ValueError: x", "fell back: ValueError: x"),
    ],
)
def test_a_reason_fits_one_line(actions: tuple[str, ...], fallback: str, says: str) -> None:
    decision = Decision(
        id="d",
        at=0.0,
        call="c",
        point="model",
        policy="p@1",
        actions=actions,
        action="a",
        propensity=0.3,
        live=True,
        fallback=fallback,
    )
    assert learned.reason(decision).replace("\N{NO-BREAK SPACE}", " ") == says


@pytest.mark.parametrize(
    ("nusd", "says"),
    [(0, "$0"), (1, "$0.000000001"), (12_345, "$0.0000123"), (99_900_000, "$0.0999"), (10**15, "$1,000,000.00")],
)
def test_money_is_as_exact_as_its_size_needs(nusd: int, says: str) -> None:
    assert words.usd(nusd) == says


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (0.0, "0.0 ms"),
        (99.94, "99.9 ms"),
        (99.96, "100 ms"),
        (999.6, "1.00 s"),
        (9_996.0, "10.0 s"),
        (3.6e6, "3,600.0 s"),
    ],
)
def test_milliseconds_change_unit_without_a_jump(value: float, says: str) -> None:
    assert words.ms(value).replace(words.NBSP, " ") == says


def test_counts_have_their_noun() -> None:
    assert [words.plural(n, "call") for n in (0, 1, 2_000)] == ["0 calls", "1 call", "2,000 calls"]
    assert words.plural(2, "child", "children") == "2 children"
