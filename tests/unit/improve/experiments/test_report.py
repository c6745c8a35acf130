"""Reports of experiments: the words for what was found, and Markdown that no hypothesis can break."""

from __future__ import annotations

import doctest
from typing import Any

import msgspec
import pytest
from tests.unit.improve.experiments.seen import ALARM, BEGAN, BETTER, hostile, metric, parsed, readable, seen

from windlass.improve.experiments import report, words
from windlass.improve.experiments.view import ComparisonView, ExperimentView, LookView

WHOLE = LookView("b", BEGAN, 2_000, 1.0, 0.1, 2.0, 0.1, -1.0, 1.2)


@pytest.mark.parametrize("module", [words, report])
def test_the_examples_hold(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


def test_everything_that_is_known_is_told() -> None:
    text = report.markdown(seen())
    for told in (
        "# Experiment shorter",
        "**b is better by 3.1 points, 97.5 % interval 1.2 to 5.0, after 400 users each; guardrails hold.**",
        "- Decision: b is better",
        "- Stage: 2 of 2, which decides",
        "- Known: 498 of 2,000 units per variant",
        "- Hypothesis: A shorter prompt is as good.",
        "- Began: 2027-01-15 08:00:00 UTC",
        "| b | always small | 25 % | 25 % | 515 | 512 | 0.00456 USD |",
        "Sample ratio: as planned (p 0.420).",
        "| quality | 0.812 (498) | 0.844 (512) | – (0) |",
        "| quality | primary | b | better |",
        "| +3.1 points | +1.2 to +5.0 points (97.5 %) | -0.5 to +6.5 points | < 0.001 | 512 and 498 |",
        "| quality | primary | c | nothing known yet |  | – | – | – | – | 0 and 498 |",
        "| latency | secondary | b | nothing shown yet |",
        "| -3.0 % | -10.0 to +5.0 % (97.5 %) | – | 0.600 |",
        "| does not hold |",
        "| b | 2027-01-15 08:13:20 UTC | 400 | 20 % | +3.1 points, +1.2 to +5.0 points | +9.50 | 4.88 |",
        "| b | 2027-01-15 08:11:40 UTC | 200 | 10 % | +4.0 points, -2.0 to +10.0 points | +1.20 | – |",
        "| error | b | at most 2 points worse | 3.2 of 133 after 512 values |",
        "| latency | c | at most 10 % worse | nothing known yet |",
    ):
        assert told in text
    assert "Ended" not in text


def test_a_look_without_an_effect_says_so() -> None:
    none = msgspec.structs.replace(WHOLE, estimate=None, low=None, high=None)
    assert words.at_look(seen(), none) == words.NOTHING


def test_every_row_has_the_cells_of_its_head() -> None:
    for view in (seen(), hostile()):
        head = 0
        for line in report.markdown(view).splitlines():
            cells = line.replace("\\|", "").count("|")
            head = (head or cells) if cells else 0
            assert cells == head, line


@pytest.mark.parametrize(
    ("view", "told"),
    [
        (seen(looks=(), harm=()), "Nothing yet."),
        (seen(decision="open"), "- Decision: not decided"),
        (seen(decision="undecided", state="stopped"), "- Decision: not decided"),
        (seen(decision="undecided", looks=(WHOLE,)), "- Decision: no difference found"),
        (seen(decision="harmful", leader="b"), "- Decision: b does harm"),
        (seen(decision="harmful", state="alarmed", alarm=ALARM), "- State: rolled back for harm"),
        (seen(withheld=True), "- Decision: withheld"),
        (seen(state="shipped", shipped="b", ended_at=BEGAN), "- State: shipped b"),
        (seen(state="stopped", ended_at=BEGAN + 60.0), "- Ended: 2027-01-15 08:01:00 UTC"),
        (seen(deciding=False, stage=0, stage_share=0.1), "- Stage: 1 of 2, 10 % of the shares"),
    ],
)
def test_every_state_has_words(view: ExperimentView, told: str) -> None:
    assert told in report.markdown(view)


def test_a_broken_sample_ratio_is_not_passed_over() -> None:
    view = seen()
    broken = msgspec.structs.replace(view.sample_ratio, p=1e-9, ok=False)
    assert "not as planned (p < 0.001)" in report.markdown(msgspec.structs.replace(view, sample_ratio=broken))


def test_hostile_words_stay_words() -> None:
    text = report.markdown(hostile())
    kinds = {token.type for token in parsed(text)}
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "em_open"}
    assert len([token for token in parsed(text) if token.type == "heading_open"]) == 5
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert '<script>alert("x")</script>| *a* [b](http://c.example) `d`' in readable(text)


def bar_of(one: ComparisonView, unit: Any = "points", span: float = 5.0) -> str:
    return report.bar(one, unit, span).strip("`")


def test_a_bar_shows_where_the_interval_lies() -> None:
    drawn = bar_of(BETTER)
    assert len(drawn) == 41
    assert drawn.index("┼") == 20
    assert 20 < drawn.index("─") < drawn.index("●") < 40
    assert bar_of(ComparisonView("b", 9, 9, "open", 1.0, 0.5, 2.0), "ratio", 0.7).count("●") == 1
    assert bar_of(ComparisonView("b", 9, 9, "open")) == ""


@pytest.mark.parametrize("edge", [0.0, 1e300, 700.0])
def test_a_bar_keeps_its_width_whatever_the_effect(edge: float) -> None:
    one = ComparisonView("b", 9, 9, "open", edge, 0.0, edge)
    span = report.span_of(seen(metrics=(metric("cost", "primary", one, unit="ratio"),)), "cost")
    assert len(bar_of(one, "ratio", span)) == 41
    assert len(bar_of(one, "points", 1.0)) == 41


def test_a_metric_has_one_scale_in_all_its_roles() -> None:
    unknown = seen(metrics=(metric("quality", "primary", ComparisonView("b", 0, 0, "open")),))
    assert report.span_of(unknown, "quality") == report.span_of(seen(metrics=()), "cost") == 1.0
    assert report.span_of(seen(), "quality") == 5.0
    assert report.span_of(seen(), "latency") == pytest.approx(0.47, abs=0.01)


def test_evidence_of_any_size_is_readable() -> None:
    harm = seen().harm[0]
    for value, told in ((1.0, "1 of 133"), (133.3, "133 of 133"), (1e12, "1e+12 of 133")):
        assert words.evidence(msgspec.structs.replace(harm, evidence=value)).startswith(told)
