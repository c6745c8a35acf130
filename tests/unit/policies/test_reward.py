"""From what was observed to one number in [0, 1]."""

from __future__ import annotations

import math

import pytest

from windlass.errors import SettingsError
from windlass.policies.reward import Reading, RewardOptions, Signals, read, scalar
from windlass.records import Feedback

OPTIONS = RewardOptions()


def said(kind, value=None, source="user"):
    return Feedback(id="feedback_1", at=0.0, target="call_1", kind=kind, source=source, value=value)


def test_nothing_observed_is_no_reward():
    assert scalar(Signals(), OPTIONS) is None


def test_an_outcome_alone_is_neutral_less_the_penalties():
    assert scalar(Signals(latency_ms=0.0, cost_nusd=0), OPTIONS) == 0.5
    assert scalar(Signals(latency_ms=2_000.0, cost_nusd=0), OPTIONS) == pytest.approx(0.45)
    assert scalar(Signals(latency_ms=2_000.0, cost_nusd=10_000_000), OPTIONS) == pytest.approx(0.40)


def test_an_error_is_worth_nothing_whatever_was_said():
    assert scalar(Signals(error="rate_limited", feedback={("user", "quality"): 1.0}), OPTIONS) == 0.0


def test_people_outweigh_checks():
    checks = {("system", "citation_verified"): 1.0, ("qa", "style"): 1.0}
    assert scalar(Signals(feedback=checks), OPTIONS) == 1.0
    assert scalar(Signals(feedback={**checks, ("user", "quality"): 0.0}), OPTIONS) == pytest.approx(0.2)
    assert scalar(Signals(feedback={("user", "q"): 0.0, ("manager", "q"): 1.0}), OPTIONS) == pytest.approx(0.5)


@pytest.mark.parametrize("latency_ms", [math.inf, 1e300, 10**400])
def test_the_slowest_good_answer_beats_the_fastest_bad_one(latency_ms):
    dearest = RewardOptions(latency_weight=0.4, cost_weight=0.4)
    good = scalar(Signals(latency_ms, 10**400, "", {("user", "quality"): 1.0}), dearest)
    bad = scalar(Signals(0.0, 0, "", {("user", "quality"): 0.0}), dearest)
    assert good == pytest.approx(0.2)
    assert bad == 0.0


@pytest.mark.parametrize("amount", [math.nan, -math.inf, -5.0])
def test_latencies_that_cannot_be_count_as_none(amount):
    assert scalar(Signals(latency_ms=amount), OPTIONS) == 0.5


def test_values_outside_the_range_never_count():
    hostile = {("user", "a"): math.nan, ("user", "b"): math.inf, ("user", "c"): -1.0, ("user", "d"): 1.5}
    assert scalar(Signals(feedback=hostile), OPTIONS) is None
    assert scalar(Signals(feedback={**hostile, ("user", "e"): 0.75}), OPTIONS) == 0.75


def test_a_source_without_a_weight_does_not_count():
    options = RewardOptions(weights={"user": 1.0})
    assert scalar(Signals(feedback={("qa", "x"): 1.0}), options) is None


@pytest.mark.parametrize(
    ("feedback", "reading"),
    [
        (said("praise"), Reading(1.0)),
        (said("praise", -3.0), Reading(1.0)),
        (said("complaint"), Reading(0.0)),
        (said("complaint", 1.0), Reading(0.0)),
        (said("suggestion", 0.5), Reading(None)),
        (said("correction"), Reading(0.0)),
        (said("correction", 0.6), Reading(0.6)),
        (said("correction", 60.0), Reading(None, "value outside [0, 1]")),
        (said("rating", 0.0), Reading(0.0)),
        (said("rating", 1), Reading(1.0)),
        (said("rating"), Reading(None, "rating without a value")),
        (said("rating", -1.0), Reading(None, "value outside [0, 1]")),
        (said("rating", math.nan), Reading(None, "value outside [0, 1]")),
        (said("rating", math.inf), Reading(None, "value outside [0, 1]")),
    ],
)
def test_reading_feedback(feedback, reading):
    assert read(feedback) == reading


@pytest.mark.parametrize(
    "options",
    [
        {"latency_ms_scale": 0.0},
        {"cost_nusd_scale": math.nan},
        {"latency_weight": 0.5},
        {"cost_weight": -0.1},
        {"weights": {"user": -1.0}},
        {"weights": {"user": math.inf}},
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(SettingsError, match=next(iter(options))):
        RewardOptions(**options)
