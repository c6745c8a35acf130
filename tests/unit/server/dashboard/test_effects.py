"""The drawings of an experiment: they stay inside, say in words what they show, and draw nothing that is not known."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
from markupsafe import Markup
from tests.unit.improve.experiments.seen import BEGAN, BETTER, BROKEN, HOLDS, metric, seen

from windlass.improve.experiments.view import ComparisonView, LookView
from windlass.server.dashboard import charts, effects, tried


def drawn(markup: Markup) -> ElementTree.Element:
    return ElementTree.fromstring(markup)


def at(element: ElementTree.Element, name: str) -> float:
    return float(element.attrib[name].rstrip("%"))


def lines(markup: Markup, tone: str) -> list[float]:
    """Where the upright lines of one kind stand."""
    return [at(line, "x1") for line in drawn(markup).iter("line") if line.attrib["class"] == tone]


def test_no_difference_is_in_the_middle_and_better_to_its_right() -> None:
    drawing = effects.effect("e", metric("quality", "primary", BETTER), BETTER, 10.0)
    (dot,) = drawn(drawing).iter("circle")
    assert lines(drawing, "now") == [50.0]
    assert at(dot, "cx") == pytest.approx(50.0 + 50.0 * 3.14 / 10.0)
    assert lines(drawing, "edge") == pytest.approx([56.2, 75.0])
    assert drawn(drawing).findtext("title") == "quality of b against the baseline"
    assert drawn(drawing).findtext("desc") == "+3.1 points, +1.2 to +5.0 points: better"


def test_ratios_are_as_far_apart_up_and_down() -> None:
    rows = [metric("cost", "secondary", unit="ratio")]
    places = []
    for value in (0.5, 2.0):
        one = ComparisonView("b", 9, 9, "open", value, 0.25, 4.0)
        (dot,) = drawn(effects.effect("e", rows[0], one, 2.0)).iter("circle")
        places.append(at(dot, "cx"))
    assert places[0] + places[1] == pytest.approx(100.0, abs=0.02)
    assert places[0] < 50.0 < places[1]


@pytest.mark.parametrize(
    ("row", "one", "place"),
    [
        (metric("error", "guardrail", HOLDS, margin=0.02), HOLDS, 70.0),
        (metric("quality", "guardrail", HOLDS, margin=0.02), HOLDS, 30.0),
        (metric("latency", "guardrail", BROKEN, margin=0.1, unit="ratio"), BROKEN, 50.95),
    ],
)
def test_the_margin_of_a_guardrail_is_on_its_bad_side(row: Any, one: ComparisonView, place: float) -> None:
    assert lines(effects.effect("e", row, one, 5.0), "pace") == pytest.approx([place], abs=0.01)


def test_without_a_margin_there_is_no_dashed_line() -> None:
    assert lines(effects.effect("e", metric("error", "guardrail", margin=0.0), HOLDS, 5.0), "pace") == []


@pytest.mark.parametrize("size", [0.0, 1e-300, 700.0, 1e300])
def test_an_effect_of_any_size_stays_inside(size: float) -> None:
    one = ComparisonView("b", 9, 9, "open", size, 0.0, size)
    for unit in ("ratio", "points"):
        drawing = drawn(effects.effect("e", metric("cost", "primary", one, unit=unit), one, 1.0))
        for element in drawing.iter():
            for name in ("x", "cx", "x1", "x2"):
                assert name not in element.attrib or 0.0 <= at(element, name) <= 100.0


def test_nothing_is_drawn_of_what_is_not_known() -> None:
    assert not effects.effect("e", metric("cost", "primary"), ComparisonView("b", 0, 0, "open"), 1.0)
    assert not effects.looks("l", "b", (), 100)


def path(markup: Markup, tone: str) -> list[list[tuple[float, float]]]:
    """The corners of the paths of one kind."""
    found = [one.attrib["d"] for one in drawn(markup).iter("path") if one.attrib["class"] == tone]
    return [[(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", d)] for d in found]


def test_the_looks_are_against_what_decides() -> None:
    drawing = effects.looks("l", "b", seen().looks, 2_000)
    assert path(drawing, "burnt") == [[(0.0, 66.0), (100.0, 56.1), (200.0, 0.0)]]
    assert path(drawing, "pace") == [[(200.0, 25.7)], [(200.0, 106.3)]]
    text = [one.text for one in drawn(drawing).iter("text")]
    assert text == ["-8", "0", "+8", "0", "2,000 units per variant"]
    assert drawn(drawing).findtext("desc") == ("z +9.50 at the last of 2 looks, beyond the boundary of 4.88.")
    tips = [one.findtext("title") for one in drawn(drawing).iter("circle")]
    assert tips == ["200 units: z +1.20", "400 units: z +9.50, boundary 4.88"]


def test_more_units_than_planned_stay_inside() -> None:
    late = (LookView("b", BEGAN, 5_000, 2.5, -1e9, 2.0, 1.0, 0.0, 2.0),)
    drawing = effects.looks("l", "<b>", late, 2_000)
    assert path(drawing, "burnt") == [[(0.0, 66.0), (1000.0, 132.0)]]
    assert all(0.0 <= y <= charts.PLOT_PX for one in path(drawing, "pace") for _, y in one)
    assert drawn(drawing).findtext("title") == "<b> against the baseline, look by look"
    assert "beyond" in effects.told(late)
    assert "boundary" not in effects.told(seen().looks[:1])


@pytest.mark.parametrize(("value", "width"), [(1.0, 0.0), (0.2, 0.0), (133.3, 100.0), (1e9, 100.0), (11.55, 50.01)])
def test_evidence_fills_its_bar_up_to_the_alarm(value: float, width: float) -> None:
    drawing = effects.evidence(msgspec.structs.replace(seen().harm[0], evidence=value))
    assert at(list(drawn(drawing).iter("rect"))[1], "width") == pytest.approx(width, abs=0.05)


def test_what_is_shown_has_a_tone() -> None:
    assert tried.headline(seen()).tone == "good"
    assert tried.headline(seen(decision="harmful")).tone == "bad"
    assert tried.headline(seen(withheld=True)).tone == "warn"
    assert tried.headline(seen(decision="open")).tone == ""
    one = tried.shown(seen())
    assert [(row.metric.role, row.view.variant, row.tone) for row in one.compared] == [
        ("primary", "b", "good"), ("primary", "c", ""), ("secondary", "b", ""), ("guardrail", "b", "good"),
        ("guardrail", "b", "bad"),
    ]  # fmt: skip
    assert [looked.variant for looked in one.looked] == ["b"]
    assert one.costs == ("0.0123 USD", "0.00456 USD", "–")
    assert dict(one.means)["quality"] == ("0.812 (498)", "0.844 (512)", "– (0)")
