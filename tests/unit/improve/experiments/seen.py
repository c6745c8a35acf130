"""An experiment's view with something of everything in it, for whoever shows one."""

from __future__ import annotations

from typing import Any

import msgspec
from markdown_it import MarkdownIt
from markdown_it.token import Token

from windlass.improve.experiments.view import (
    AlarmView,
    ComparisonView,
    ExperimentView,
    HarmView,
    LookView,
    MetricView,
    RatioView,
    ValueView,
    VariantView,
)

BEGAN = 1_800_000_000.0
EVIL = '<script>alert("x")</script>| *a* [b](http://c.example) `d` \x1b[31m\n# e \u202e'
ALARM = AlarmView("b", "latency", 43, BEGAN + 900.0)
BETTER = ComparisonView("b", 512, 498, "better", 3.14, 1.24, 5.0, "repeated", 0.0004, None, -0.5, 6.5)
LATER = ComparisonView("b", 512, 498, "open", 0.97, 0.9, 1.05, "repeated", 0.3, 0.6)
HOLDS = ComparisonView("b", 512, 498, "holds", -0.04, -1.0, 0.9, "repeated", 0.01)
BROKEN = ComparisonView("b", 512, 498, "worse", 1.4, 1.2, 1.6, "repeated", 0.9)


def metric(name: Any, role: Any, *comparisons: ComparisonView, unit: Any = "points", **changes: Any) -> MetricView:
    """A metric of the variants a, b and c."""
    values = (ValueView("a", 498, 0.8123), ValueView("b", 512, 0.8437), ValueView("c", 0, None))
    found = MetricView(
        metric=name, role=role, unit=unit, mean_unit="ms" if unit == "ratio" else "share", up_is_good=name == "quality",
        margin=None, level=0.975, values=values, comparisons=comparisons,
    )  # fmt: skip
    return msgspec.structs.replace(found, **changes)


def seen(**changes: Any) -> ExperimentView:
    """Under way, with `b` better and nothing known of `c`; `changes` of it."""
    metrics = (
        metric("quality", "primary", BETTER, ComparisonView("c", 0, 498, "open")),
        metric("latency", "secondary", LATER, unit="ratio"),
        metric("error", "guardrail", HOLDS, margin=0.02),
        metric("latency", "guardrail", BROKEN, unit="ratio", margin=0.1),
    )
    found = ExperimentView(
        name="shorter", id="shorter@0123456789ab", digest="0123456789ab" + "c" * 52, point="model", unit="user",
        hypothesis="A shorter prompt is as good.", owner="ann", state="running", stage=1, ramp=(0.1, 1.0),
        stage_share=1.0, deciding=True, size=2_000, units=498, level=0.975, started_at=BEGAN, stage_at=BEGAN + 600.0,
        ended_at=None, shipped="", alarm=None, baseline="a",
        variants=(
            VariantView("a", "what is usual at the point", 0.5, 0.5, 501, 498, 0.0123),
            VariantView("b", "always small", 0.25, 0.25, 515, 512, 0.00456),
            VariantView("c", "the policy in shadow 'bold'", 0.25, 0.25, 0, 0, None),
        ),
        metrics=metrics,
        looks=(
            LookView("b", BEGAN + 700.0, 200, 0.1, 1.2, None, 4.0, -2.0, 10.0),
            LookView("b", BEGAN + 800.0, 400, 0.2, 9.5, 4.88, 3.14, 1.24, 5.0),
        ),
        sample_ratio=RatioView(0.42, True),
        harm=(
            HarmView("b", "error", 0.02, 3.2, 133.3, 512),
            HarmView("b", "latency", 0.1, 1.0, 133.3, 510),
            HarmView("c", "latency", 0.1, 1.0, 133.3, 0),
        ),
        decision="better", leader="b", withheld=False,
        sentence="b is better by 3.1 points, 97.5 % interval 1.2 to 5.0, after 400 users each; guardrails hold.",
    )  # fmt: skip
    return msgspec.structs.replace(found, **changes)


def hostile() -> ExperimentView:
    """With hostile words wherever people can write some."""
    view = seen(point=EVIL, hypothesis=EVIL, owner=EVIL, sentence=EVIL)
    variants = tuple(msgspec.structs.replace(one, spelled=f"always {EVIL}") for one in view.variants)
    return msgspec.structs.replace(view, variants=variants)


def parsed(text: str) -> list[Token]:
    """The tokens of a Markdown text, and of what stands in its lines."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    return [one for token in tokens for one in (token, *(token.children or []))]


def readable(text: str) -> str:
    """What a reader of a Markdown text sees."""
    return " ".join(token.content for token in parsed(text) if token.type in ("text", "code_inline"))
