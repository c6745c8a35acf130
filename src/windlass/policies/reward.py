"""What a call was worth: everything observed of it as one number in [0, 1]. The only file that knows.

    quality  = weighted mean of the feedback values; 0.5 where nobody said anything (neutral)
    reward   = quality - latency_weight * L / (L + latency_ms_scale) - cost_weight * C / (C + cost_nusd_scale)

clipped to [0, 1], with L the latency in ms and C the cost in nano-dollars. A call that ended in an error is worth
0. The penalties saturate: a slow good answer always beats a fast bad one. A policy that learns what calls
cost is told that apart, and learns from the quality alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, assert_never

import msgspec

from windlass.errors import SettingsError
from windlass.ledger.folded import FoldedFeedback
from windlass.records import Feedback, FeedbackSource

NEUTRAL_QUALITY = 0.5
_LARGEST = 1e18


def _default_weights() -> dict[FeedbackSource, float]:
    return {"user": 8.0, "manager": 8.0, "qa": 1.0, "system": 1.0}


@dataclass(frozen=True, slots=True)
class RewardOptions:
    """What counts how much.

    weights: of one feedback value by its source; people count eight times as much as checks, so that
    "citation_verified" speaks where nobody rated and hardly matters where somebody did. A source left out counts 0.
    latency_ms_scale, cost_nusd_scale: where half of the penalty is reached (2 s; 0.01 USD).
    latency_weight, cost_weight: the largest penalty, in [0, 0.4].
    """

    weights: Mapping[FeedbackSource, float] = field(default_factory=_default_weights)
    latency_ms_scale: float = 2_000.0
    latency_weight: float = 0.1
    cost_nusd_scale: float = 10_000_000.0
    cost_weight: float = 0.1

    def __post_init__(self) -> None:
        for name, value in (("latency_ms_scale", self.latency_ms_scale), ("cost_nusd_scale", self.cost_nusd_scale)):
            if not (math.isfinite(value) and value > 0.0):
                raise SettingsError(f"reward.{name} is {value}; give a finite number above 0")
        for name, value in (("latency_weight", self.latency_weight), ("cost_weight", self.cost_weight)):
            if not 0.0 <= value <= 0.4:
                raise SettingsError(f"reward.{name} is {value}; give a number from 0 to 0.4")
        if any(not 0.0 <= weight <= 1e6 for weight in self.weights.values()):
            raise SettingsError(f"reward.weights {dict(self.weights)} must be numbers from 0 to 1e6")


class Signals(msgspec.Struct, frozen=True):
    """What was observed of one call. `error` is an ErrorCategory value or ''; feedback: (source, metric) -> [0, 1]."""

    latency_ms: float | None = None
    cost_nusd: int | None = None
    error: str = ""
    feedback: Mapping[tuple[FeedbackSource, str], float] = {}


class Reading(NamedTuple):
    """A feedback as a value in [0, 1], or None with the reason why it carries no reward ('' where that is expected)."""

    value: float | None
    ignored: str = ""


def read(feedback: Feedback | FoldedFeedback) -> Reading:
    """Praise is 1, a complaint 0, a correction 0 unless it brings a value, a rating its value, a suggestion nothing."""
    match feedback.kind:
        case "praise":
            return Reading(1.0)
        case "complaint":
            return Reading(0.0)
        case "suggestion":
            return Reading(None)
        case "correction":
            return Reading(0.0) if feedback.value is None else _within(feedback.value)
        case "rating":
            return Reading(None, "rating without a value") if feedback.value is None else _within(feedback.value)
        case _ as other:
            assert_never(other)


def scalar(signals: Signals, options: RewardOptions) -> float | None:
    """The reward in [0, 1], or None where nothing was observed yet."""
    return worth(signals.latency_ms, signals.cost_nusd, signals.error, signals.feedback, options)


def worth(
    latency_ms: float | None,
    cost_nusd: int | None,
    error: str,
    feedback: Mapping[tuple[FeedbackSource, str], float],
    options: RewardOptions,
) -> float | None:
    """`scalar` of what a Signals would hold, for those who ask it of every call."""
    quality = _quality(feedback, options) if feedback else None
    if error:
        return 0.0
    if quality is None:
        if latency_ms is None and cost_nusd is None:
            return None
        quality = NEUTRAL_QUALITY
    quality -= options.latency_weight * _share(latency_ms, options.latency_ms_scale)
    quality -= options.cost_weight * _share(cost_nusd, options.cost_nusd_scale)
    return 0.0 if quality < 0.0 else quality if quality < 1.0 else 1.0


def _share(amount: float | None, scale: float) -> float:
    """amount / (amount + scale), in [0, 1)."""
    # NaN fails the comparison, integers of any size pass it.
    if amount is None or not amount > 0.0:
        return 0.0
    usable = amount if amount < _LARGEST else _LARGEST
    return usable / (usable + scale)


def graded(error: str, feedback: Mapping[tuple[FeedbackSource, str], float], options: RewardOptions) -> float | None:
    """The quality alone in [0, 1], for those who weigh costs themselves: 0 where the call ended in an error, None where
    nobody said anything."""
    return 0.0 if error else _quality(feedback, options)


def _within(value: float) -> Reading:
    # NaN fails the comparison like everything else that is no value.
    return Reading(float(value)) if 0.0 <= value <= 1.0 else Reading(None, "value outside [0, 1]")


def _quality(feedback: Mapping[tuple[FeedbackSource, str], float], options: RewardOptions) -> float | None:
    total = weight_sum = 0.0
    for (source, _), value in feedback.items():
        weight = options.weights.get(source, 0.0)
        if 0.0 <= value <= 1.0 and weight > 0.0:
            total += weight * value
            weight_sum += weight
    return total / weight_sum if weight_sum > 0.0 else None
