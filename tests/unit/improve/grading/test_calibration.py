"""Agreement with people, and the map that follows from it: against figures worked out by hand, and on drawn labels."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.golden.application import NOW, opened
from tests.unit.improve.grading.scene import Says, called, graded, grades, ready
from tests.unit.improve.grading.test_judge import JUDGE, material, scoring

from windlass.gateway.feedback import FeedbackRequest
from windlass.improve.grading.calibration import ISOTONIC_FROM, agreement, fit
from windlass.records import Scope
from windlass.runtime import Runtime
from windlass.testing import Clock, Echo


def test_kappa_is_cohens() -> None:
    """20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: accuracy 0.7, chance 0.5, kappa 0.4."""
    pairs = [(1.0, 1.0)] * 20 + [(1.0, 0.0)] * 5 + [(0.0, 1.0)] * 10 + [(0.0, 0.0)] * 15
    found = agreement(pairs)
    assert found is not None
    assert (found.n, found.accuracy, found.kappa) == (50, pytest.approx(0.7), pytest.approx(0.4))
    assert found.brier == pytest.approx(0.3)
    assert (found.low, found.high) == (pytest.approx(0.5624, abs=1e-4), pytest.approx(0.8090, abs=1e-4))


def test_kappa_is_undefined_where_one_always_says_the_same() -> None:
    found = agreement([(1.0, 1.0)] * 9 + [(1.0, 0.0)])
    assert found is not None
    assert (found.kappa, found.accuracy) == (None, 0.9)
    assert agreement([]) is None


def test_ece_is_the_distance_within_bins() -> None:
    """Two bins: at 0.95 ten of which 5 are right (0.45 off), at 0.05 ten of which 1 is (0.05 off): 0.25 on average."""
    pairs = [(0.95, float(n < 5)) for n in range(10)] + [(0.05, float(n < 1)) for n in range(10)]
    found = agreement(pairs)
    assert found is not None
    assert found.ece == pytest.approx(0.25)


def drawn(n: int, slope: float, seed: int = 7) -> list[tuple[float, float]]:
    """A grader of some slope: people say yes with probability logistic(slope (2 v - 1)) where it says v."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(size=n)
    chance = 1.0 / (1.0 + np.exp(-slope * (2.0 * values - 1.0)))
    return [(float(v), float(y)) for v, y in zip(values, rng.uniform(size=n) < chance, strict=True)]


def test_platt_finds_the_line_that_was_drawn() -> None:
    """The slope's standard deviation is 0.28 over 200 seeds, and 1.6 is 5.7 of them: false alarm < 1e-7."""
    curve = fit(drawn(900, 1.5), 50)
    assert curve is not None
    assert curve.kind == "platt"
    assert curve.xs[0] == pytest.approx(3.0, abs=1.6)
    assert curve(0.5) == pytest.approx(0.5, abs=0.1)
    assert curve(0.1) < curve(0.5) < curve(0.9)


def test_isotonic_takes_over_where_there_are_enough_labels() -> None:
    curve = fit(drawn(4_000, 2.0), 50)
    assert curve is not None
    assert curve.kind == "isotonic"
    assert len(drawn(4_000, 2.0)) >= ISOTONIC_FROM
    for value in (0.1, 0.5, 0.9):
        assert curve(value) == pytest.approx(1 / (1 + math.exp(-2 * (2 * value - 1))), abs=0.12)


@pytest.mark.parametrize("n", [200, 2_000])
def test_a_grader_that_says_nothing_loses_its_weight(n: int) -> None:
    """Its calibrated values hardly differ, so they move no reward. Over 300 seeds the spread was 0.04 on average and
    0.24 at most; the drawing is seeded."""
    rng = np.random.default_rng(3)
    pairs = [(float(v), float(y)) for v, y in zip(rng.uniform(size=n), rng.uniform(size=n) < 0.7, strict=True)]
    curve = fit(pairs, 50)
    assert curve is not None
    values = [curve(v) for v in np.linspace(0.05, 0.95, 19)]
    assert max(values) - min(values) < 0.35
    assert float(np.mean(values)) == pytest.approx(0.7, abs=0.1)


def test_a_grader_that_is_the_wrong_way_round_is_not_turned() -> None:
    curve = fit([(1.0 - v, y) for v, y in drawn(500, 3.0)], 50)
    assert curve is not None
    assert curve(0.0) == curve(1.0)


def test_too_few_labels_give_no_map() -> None:
    assert fit(drawn(49, 1.5), 50) is None
    assert fit(drawn(50, 1.5), 50) is not None


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_labels_that_are_all_alike_give_a_map_without_infinities(label: float) -> None:
    curve = fit([(n / 60, label) for n in range(60)], 50)
    assert curve is not None
    assert all(0.0 <= curve(v) <= 1.0 for v in (0.0, 0.5, 1.0))
    assert abs(curve(0.5) - label) < 0.1


# --- in a runtime


async def _judged(runtime: Runtime, labels: list[tuple[int, float]], scope: Scope) -> None:
    """Calls that the judge gives a score and a person a value."""
    for score, label in labels:
        call = await called(runtime, f"worth {score} ({len(grades(runtime, 'judge', scope))})", model="a", scope=scope)
        await graded(runtime)
        await runtime.feedback(scope, FeedbackRequest(target=call, kind="rating", value=label))


def _by(request: Any) -> str:
    return str(scoring(int(str(material(request)["reply"]).split()[1]))(request))


async def test_enough_labels_calibrate_what_comes_then_in_one_workspace_alone(tmp_path: Path) -> None:
    clock, scope = Clock(NOW), Scope("acme")
    few = {**JUDGE, "labels": 20}
    async with opened(tmp_path, [Echo("a"), Says("judge", by=_by)], clock=clock, graders__judge=few) as runtime:
        ready(runtime)
        # High and low scores alike are right half of the time: the judge says nothing.
        await _judged(runtime, [(9, 1.0), (9, 0.0), (2, 1.0), (2, 0.0)] * 6, scope)
        assert {one.value for one in grades(runtime, "judge", scope)} == {0.9, 0.2}
        (seat,) = runtime.grading.seats
        measured = runtime.grading.measuring.measure(scope, seat)
        assert measured.raw is not None
        assert (measured.raw.n, measured.raw.kappa) == (24, pytest.approx(0.0))
        assert measured.curve is not None
        clock.forward(601)
        for scores in (9, 2):
            await called(runtime, f"worth {scores} later", model="a", scope=scope)
            await called(runtime, f"worth {scores} later", model="a", scope=Scope("globex"))
        await graded(runtime)
        late = grades(runtime, "judge", scope)[-2:]
        assert all(one.value == pytest.approx(0.5, abs=0.02) for one in late), "it has no weight left"
        assert sorted(one.extra["raw"] for one in late) == [0.2, 0.9]
        assert {one.extra["labels"] for one in late} == {24}
        assert {one.value for one in grades(runtime, "judge", Scope("globex"))} == {0.9, 0.2}


async def test_labels_of_another_version_of_the_judge_do_not_count(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a"), Says("judge", by=_by)], graders__judge=JUDGE) as runtime:
        ready(runtime)
        await _judged(runtime, [(9, 1.0), (2, 0.0)], Scope())
        (seat,) = runtime.grading.seats
        assert runtime.grading.measuring.measure(Scope(), seat).raw is not None
        seat.id = "judge@2+another"
        assert runtime.grading.measuring.measure(Scope(), seat) == (None, None, None, 50)
