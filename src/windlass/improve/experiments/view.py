"""What there is to see of an experiment, ready for JSON: a page, a report, a command line and an answer show the same.

No number in it is infinite or NaN: what is not known is None. Effects are candidate against baseline, in points for
quality and error (100 points are from 0 to 1) and as ratios for cost and latency (0.9: a tenth less). Times are UTC
seconds.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from windlass.policies.trials.plan import MetricName, Unit
from windlass.policies.trials.tally import State

Verdict: TypeAlias = Literal["open", "better", "worse", "undecided", "holds"]
"""better and worse are in the direction that people want. holds, of guardrails alone: not worse by its margin."""
Conclusion: TypeAlias = Literal["open", "better", "worse", "undecided", "harmful"]
"""What an experiment has come to."""
MetricRole: TypeAlias = Literal["primary", "secondary", "guardrail"]
EffectUnit: TypeAlias = Literal["points", "ratio"]
"""The unit of an effect."""
IntervalKind: TypeAlias = Literal["repeated", "always valid"]
"""Of an interval. repeated: it holds at all looks together. always valid: at every moment, as often as one looks."""
MeanUnit: TypeAlias = Literal["share", "usd", "ms"]
"""The unit of a variant's own value."""


class VariantView(msgspec.Struct, frozen=True):
    """One way to decide. share: of the units, planned at this stage; full_share: once the ramp has ended.

    assigned: units at this stage. units: those of them whose primary metric is known. cost_usd: of the calls of the
    last stage whose cost is known, None where there is none.
    """

    name: str
    spelled: str
    share: float
    full_share: float
    assigned: int
    units: int
    cost_usd: float | None


class ValueView(msgspec.Struct, frozen=True):
    """One metric of one variant in the stage that decides. n: its values. mean: a share from 0 to 1, dollars a call,
    or (geometric mean) milliseconds; None without values."""

    variant: str
    n: int
    mean: float | None


class ComparisonView(msgspec.Struct, frozen=True):
    """One metric of a candidate against the baseline, at the look that decided, or the last one; else by now.

    n: values of the candidate, baseline_n of the baseline. p: for one look, two-sided; of a guardrail one-sided, that
    it is not worse by its margin. p_adjusted: of secondary metrics, for all of them and all candidates (Holm). It is
    the verdict that holds for all looks together, not p. now_low, now_high: by all that came until now and always
    valid, of quality and errors where each call is a unit.
    """

    variant: str
    n: int
    baseline_n: int
    verdict: Verdict
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    method: IntervalKind | None = None
    p: float | None = None
    p_adjusted: float | None = None
    now_low: float | None = None
    now_high: float | None = None


class MetricView(msgspec.Struct, frozen=True):
    """One metric in one role; a metric may have several. unit: of the effects, mean_unit of the values. up_is_good:
    whether more is better. margin: of a guardrail, the loss that is accepted (0.02: 2 points, or 2 %). level: of the
    intervals, 0.95 for 95 %."""

    metric: MetricName
    role: MetricRole
    unit: EffectUnit
    mean_unit: MeanUnit
    up_is_good: bool
    margin: float | None
    level: float
    values: tuple[ValueView, ...]
    comparisons: tuple[ComparisonView, ...]


class LookView(msgspec.Struct, frozen=True):
    """A look at the primary metric of one candidate. fraction: of the planned units. boundary: |z| that decides; z is
    above 0 where the candidate is better. estimate, low and high: of the effect at that look."""

    variant: str
    at: float
    units: int
    fraction: float
    z: float
    boundary: float | None
    estimate: float | None
    low: float | None
    high: float | None


class RatioView(msgspec.Struct, frozen=True):
    """Whether as many units were assigned as was planned. p: valid at every moment; not ok below 0.001."""

    p: float
    ok: bool


class HarmView(msgspec.Struct, frozen=True):
    """What a guardrail knows of a candidate's harm. evidence: against "no harm", as a factor that is 1 without any;
    limit: where it gives alarm. seen: values of the candidate, over all stages."""

    variant: str
    metric: MetricName
    margin: float
    evidence: float
    limit: float
    seen: int


class AlarmView(msgspec.Struct, frozen=True):
    """Harm was found in `metric` of `variant` after so many of its values."""

    variant: str
    metric: MetricName
    after: int
    at: float


class ExperimentView(msgspec.Struct, frozen=True):
    """One experiment. stage: counted from 0; ramp: the part of their shares that candidates get, by stage.

    deciding: whether the ramp has come to the last stage, which alone decides. size: units per variant that are
    planned; units: known, of the variant that has fewest. level: of the primary metric's intervals. decision: better
    where a candidate is; harmful where a guardrail gave alarm, or was found to be broken by one that is better.
    leader: the candidate that the sentence is about. withheld: nothing is decided, as the sample ratio cannot be.
    """

    name: str
    id: str
    digest: str
    point: str
    unit: Unit
    hypothesis: str
    owner: str
    state: State
    stage: int
    ramp: tuple[float, ...]
    stage_share: float
    deciding: bool
    size: int
    units: int
    level: float
    started_at: float
    stage_at: float
    ended_at: float | None
    shipped: str
    alarm: AlarmView | None
    baseline: str
    variants: tuple[VariantView, ...]
    metrics: tuple[MetricView, ...]
    looks: tuple[LookView, ...]
    sample_ratio: RatioView
    harm: tuple[HarmView, ...]
    decision: Conclusion
    leader: str
    withheld: bool
    sentence: str
