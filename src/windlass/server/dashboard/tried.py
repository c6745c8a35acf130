"""An experiment as its page shows it: each number with its drawing and its words."""

from __future__ import annotations

from typing import Final, NamedTuple

from markupsafe import Markup

from windlass.improve.experiments import words
from windlass.improve.experiments.report import ratio, span_of
from windlass.improve.experiments.view import ComparisonView, ExperimentView, HarmView, LookView, MetricView
from windlass.server.dashboard import effects

_TONES: Final = {"better": "good", "holds": "good", "worse": "bad", "harmful": "bad"}


class Headline(NamedTuple):
    """An experiment in the list, in words. tone: of the decision."""

    view: ExperimentView
    state: str
    stage: str
    decision: str
    tone: str


class Contrast(NamedTuple):
    """A candidate's metric in words and as a drawing."""

    metric: MetricView
    view: ComparisonView
    drawing: Markup
    effect: str
    interval: str
    by_now: str
    p: str
    verdict: str
    tone: str


class Looked(NamedTuple):
    """The looks at one candidate, each with the effect at it."""

    variant: str
    drawing: Markup
    told: str
    looks: tuple[tuple[LookView, str], ...]


class Guarded(NamedTuple):
    """The evidence of harm by one guardrail."""

    view: HarmView
    accepted: str
    told: str
    drawing: Markup


class Shown(NamedTuple):
    """One experiment. costs: of the variants, in their order; means: of each metric by variant, with how many."""

    headline: Headline
    compared: tuple[Contrast, ...]
    looked: tuple[Looked, ...]
    guarded: tuple[Guarded, ...]
    ratio: str
    costs: tuple[str, ...]
    means: tuple[tuple[str, tuple[str, ...]], ...]


def headline(view: ExperimentView) -> Headline:
    """What the list says of it."""
    tone = "warn" if view.withheld else _TONES.get(view.decision, "")
    return Headline(view, words.state(view), words.stage(view), words.decision(view), tone)


def shown(view: ExperimentView) -> Shown:
    """All of its page."""
    means = {
        metric.metric: tuple(f"{words.mean(one.mean, metric.mean_unit)} ({one.n:,})" for one in metric.values)
        for metric in view.metrics
    }
    return Shown(
        headline=headline(view),
        compared=compared(view),
        looked=looked(view),
        guarded=guarded(view),
        ratio=ratio(view),
        costs=tuple(words.NOTHING if one.cost_usd is None else words.usd(one.cost_usd) for one in view.variants),
        means=tuple(means.items()),
    )


def compared(view: ExperimentView) -> tuple[Contrast, ...]:
    """Every metric in every role, candidate by candidate."""
    spans = {metric.metric: span_of(view, metric.metric) for metric in view.metrics}
    return tuple(
        Contrast(
            metric=metric,
            view=one,
            drawing=effects.effect(f"effect-{row}-{place}", metric, one, spans[metric.metric]),
            effect=words.effect(one.estimate, metric.unit),
            interval=words.confidence(metric, one),
            by_now=words.by_now(metric, one),
            p=words.probability(one.p if one.p_adjusted is None else one.p_adjusted),
            verdict=words.verdict(metric, one),
            tone=_TONES.get(one.verdict, ""),
        )
        for row, metric in enumerate(view.metrics)
        for place, one in enumerate(metric.comparisons)
    )


def looked(view: ExperimentView) -> tuple[Looked, ...]:
    """The looks at each candidate, if there were any."""
    found = []
    for place, variant in enumerate(view.variants):
        taken = tuple(look for look in view.looks if look.variant == variant.name)
        if taken:
            drawing = effects.looks(f"looks-{place}", variant.name, taken, view.size)
            rows = tuple((look, words.at_look(view, look)) for look in taken)
            found.append(Looked(variant.name, drawing, effects.told(taken), rows))
    return tuple(found)


def guarded(view: ExperimentView) -> tuple[Guarded, ...]:
    """What each guardrail knows of each candidate."""
    units = {metric.metric: metric.unit for metric in view.metrics}
    return tuple(
        Guarded(one, words.margin(one.margin, units[one.metric]), words.evidence(one), effects.evidence(one))
        for one in view.harm
    )
