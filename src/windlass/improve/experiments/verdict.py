"""What the numbers of an experiment say: the decision, and all that it rests on, from the tally alone.

A candidate that is better in the primary metric and broke no guardrail is better. Nothing is decided where the sample
ratio cannot be what was planned. Brings scipy: a server imports it where it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from windlass.improve.experiments.comparisons import effect_shown, metrics
from windlass.improve.experiments.looks import Tested, path
from windlass.improve.experiments.sentence import sentence
from windlass.improve.experiments.view import (
    AlarmView,
    ComparisonView,
    Conclusion,
    ExperimentView,
    HarmView,
    LookView,
    MetricView,
    RatioView,
    VariantView,
    Verdict,
)
from windlass.policies.trials.plan import METRICS
from windlass.policies.trials.tally import Trial
from windlass.stats.trials.splits import Mismatch

MISMATCH: Final = 0.001
"""Below this p-value of the sample ratio nothing is decided."""
_LARGEST: Final = 700.0


def view(trial: Trial) -> ExperimentView:
    """All that there is to see of it."""
    plan, informed = trial.plan, trial.informed
    p = Mismatch(list(plan.shares(trial.stage)), trial.assigned).p()
    withheld = p < MISMATCH
    rows = metrics(trial, withheld=withheld)
    decision, leader = _decided(trial, rows)
    found = ExperimentView(
        name=plan.name,
        id=trial.id,
        digest=plan.digest,
        point=plan.point,
        unit=plan.unit,
        hypothesis=plan.hypothesis,
        owner=plan.owner,
        state=trial.state,
        stage=trial.stage,
        ramp=plan.ramp,
        stage_share=plan.ramp[trial.stage],
        deciding=trial.deciding,
        size=plan.size,
        units=min(informed),
        level=rows[0].level,
        started_at=trial.at,
        stage_at=trial.stage_at,
        ended_at=trial.ended_at,
        shipped=trial.shipped,
        alarm=_alarm(trial),
        baseline=plan.baseline.name,
        variants=_variants(trial, informed),
        metrics=rows,
        looks=tuple(_looks(trial)),
        sample_ratio=RatioView(p, not withheld),
        harm=_harms(trial),
        decision=decision,
        leader=leader,
        withheld=withheld,
        sentence="",
    )
    return msgspec.structs.replace(found, sentence=sentence(found))


def _decided(trial: Trial, rows: Sequence[MetricView]) -> tuple[Conclusion, str]:
    """What it has come to, and the candidate that this is about."""
    if trial.alarm is not None:
        return "harmful", trial.alarm.variant
    primary = rows[0]
    if better := _found(primary, "better"):
        broken = {one.variant for row in rows if row.role == "guardrail" for one in _found(row, "worse")}
        sound = [one for one in better if one.variant not in broken]
        return "better" if sound else "harmful", _best(primary, sound or better)
    if still := _found(primary, "open"):
        return "open", _best(primary, still)
    if undecided := _found(primary, "undecided"):
        return "undecided", _best(primary, undecided)
    return "worse", _best(primary, primary.comparisons)


def _found(row: MetricView, verdict: Verdict) -> list[ComparisonView]:
    return [one for one in row.comparisons if one.verdict == verdict]


def _best(primary: MetricView, among: Sequence[ComparisonView]) -> str:
    """The candidate with the best estimate."""
    sign = 1.0 if primary.up_is_good else -1.0
    return max(among, key=lambda one: -math.inf if one.estimate is None else sign * one.estimate).variant


def _variants(trial: Trial, informed: Sequence[int]) -> tuple[VariantView, ...]:
    plan, cost = trial.plan, METRICS.index("cost")
    now, full = plan.shares(trial.stage), plan.shares(len(plan.ramp) - 1)
    return tuple(
        VariantView(
            name=variant.name,
            spelled=variant.spelled,
            share=now[at],
            full_share=full[at],
            assigned=trial.assigned[at],
            units=informed[at],
            cost_usd=max(trial.samples[at][cost].total, 0.0) / 1e6 if trial.samples[at][cost].n else None,
        )
        for at, variant in enumerate(plan.variants)
    )


def _looks(trial: Trial) -> Iterator[LookView]:
    plan = trial.plan
    for candidate in range(1, len(plan.variants)):
        for tested in path(trial, plan.primary, candidate).tested(plan.alpha / len(plan.candidates)):
            yield _look(trial, candidate, tested)


def _look(trial: Trial, candidate: int, tested: Tested) -> LookView:
    low, high = tested.interval()
    metric, known = trial.plan.primary, math.isfinite(tested.effect.error)
    return LookView(
        variant=trial.plan.variants[candidate].name,
        at=tested.look.at,
        units=tested.look.units,
        fraction=tested.look.units / trial.plan.size,
        z=tested.z,
        boundary=tested.boundary,
        estimate=effect_shown(metric, tested.effect.value) if known else None,
        low=effect_shown(metric, low) if known else None,
        high=effect_shown(metric, high) if known else None,
    )


def _harms(trial: Trial) -> tuple[HarmView, ...]:
    plan = trial.plan
    limit = len(plan.guardrails) * len(plan.candidates) / plan.harm_alpha
    return tuple(
        HarmView(
            variant=candidate.name,
            metric=guard.metric,
            margin=guard.margin,
            evidence=math.exp(min(harm.evidence(), _LARGEST)),
            limit=limit,
            seen=harm.candidates,
        )
        for candidate, of_candidate in zip(plan.candidates, trial.harms, strict=True)
        for guard, harm in zip(plan.guardrails, of_candidate, strict=True)
    )


def _alarm(trial: Trial) -> AlarmView | None:
    alarm = trial.alarm
    return None if alarm is None else AlarmView(alarm.variant, alarm.metric, alarm.after, alarm.at)
