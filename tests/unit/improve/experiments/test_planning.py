"""Forecasts: sizes that have the power they promise, days by the ramp, and what cannot be reckoned."""

from __future__ import annotations

import math
import random
from collections import Counter

import msgspec
import pytest
from tests.unit.improve.experiments.counted import Counted
from tests.unit.policies.trials.test_plan import planned

from windlass.errors import InputError
from windlass.improve.experiments.planning import DAY_S, PERCENT, POINTS, PlainCall, TrialForecast, forecast
from windlass.improve.experiments.verdict import view
from windlass.policies.trials.plan import METRICS, Guardrail, Variant
from windlass.policies.trials.tally import UNTOLD, told
from windlass.stats.trials.planning import size_for_means

A_DAY = 1_000


def calls(count, quality=0.8, *, seed=1, rated=1.0, unit=str, error=0.0, ms=500.0):
    """Calls at a steady pace of A_DAY, of which a part is rated; a third is of the action `deep`, thrice as dear."""
    chance = random.Random(seed)
    found = []
    for number in range(count):
        action = "deep" if number % 3 == 0 else "fast"
        value = float(chance.random() < quality) if chance.random() < rated else None
        failed = "boom" if chance.random() < error else ""
        cost = 3_000_000 if action == "deep" else 1_000_000
        values = told(value, cost, ms * math.exp(chance.gauss(0.0, 0.5)), failed)
        found.append(PlainCall(number * DAY_S / A_DAY, unit(number), action, values))
    return found


def alone(**fields):
    return planned(**({"ramp": (1.0,), "guardrails": ()} | fields))


class TestSizes:
    def test_they_are_those_of_the_sequential_test(self):
        found = forecast(alone(), calls(4_000, 0.5))
        fixed = size_for_means(0.1 / 0.5, 0.05, 0.8)
        assert found.sizes[POINTS.index(10.0)].size == pytest.approx(1.038 * fixed, rel=0.02)
        assert found.deviation == pytest.approx(0.5, rel=0.01)
        assert found.mean == pytest.approx(0.5, abs=0.03)

    @pytest.mark.parametrize("metric", METRICS)
    def test_larger_effects_need_fewer_and_the_planned_size_finds_its_own(self, metric):
        found = forecast(alone(primary=metric, size=500), calls(3_000, error=0.05))
        sizes = [one.size for one in found.sizes]
        assert sizes == sorted(sizes, reverse=True)
        assert [one.effect for one in found.sizes] == list(PERCENT if found.unit == "ratio" else POINTS)
        again = forecast(alone(primary=metric), calls(3_000, error=0.05), effects=(found.detectable,))
        assert again.sizes[0].size == pytest.approx(500, abs=1)

    def test_a_promised_power_is_kept(self):
        """40 runs with a power of 0.8: fewer than 22 found have a probability below 0.02 %."""
        size = forecast(alone(), calls(3_000, 0.7), effects=(20.0,)).sizes[0].size
        runs = (Counted(alone(size=size)).run(round(2.6 * size), (0.6, 0.8), seed) for seed in range(40))
        found = Counter(view(trial).decision for trial in runs)
        assert 22 <= found["better"] < 40, (size, found)

    def test_errors_that_were_never_seen_are_not_found_by_a_few(self):
        found = forecast(alone(primary="error"), calls(2_000), effects=(1.0,))
        assert found.mean == 0.0
        assert found.sizes[0].size > 500

    def test_users_that_differ_need_more_of_their_calls(self):
        chance = random.Random(2)
        likes = [chance.random() for _ in range(200)]
        rated = [
            PlainCall(
                number * 60.0, str(number % 200), "fast", told(float(chance.random() < likes[number % 200]), 1, 9.0, "")
            )
            for number in range(4_000)
        ]
        by_user = forecast(alone(unit="user"), rated, effects=(5.0,))
        by_call = forecast(alone(), [call._replace(unit=str(at)) for at, call in enumerate(rated)], effects=(5.0,))
        assert (by_user.units, by_call.units) == (200, 4_000)
        assert 20 * by_user.sizes[0].size > 2 * by_call.sizes[0].size

    def test_several_candidates_need_more(self):
        three = (Variant("usual", 0.4), Variant("b", 0.3, action="deep"), Variant("c", 0.3, action="other"))
        one, two = (forecast(plan, calls(2_000)).sizes[0].size for plan in (alone(), alone(variants=three)))
        assert two > 1.1 * one


class TestDays:
    def test_the_stage_that_decides_waits_for_its_smallest_variant(self):
        uneven = (Variant("usual", 0.8), Variant("b", 0.2, action="deep"))
        found = forecast(alone(variants=uneven, size=400), calls(3_001))
        assert found.days == pytest.approx(400 / (0.2 * A_DAY), rel=0.01)
        assert (found.ramp_days, found.per_day) == (0.0, pytest.approx(A_DAY, rel=0.01))

    def test_stages_wait_for_the_guarded_metric_that_comes_most_slowly(self):
        plan = planned(
            size=400, ramp=(0.1, 0.5, 1.0), ramp_after=50, guardrails=(Guardrail("quality"), Guardrail("error"))
        )
        found = forecast(plan, calls(4_001, rated=0.25))
        rated = 0.25 * A_DAY
        assert found.ramp_days == pytest.approx(50 / (0.05 * rated) + 50 / (0.25 * rated), rel=0.1)
        assert found.days == pytest.approx(found.ramp_days + 400 / (0.5 * rated), rel=0.1)
        assert found.sizes[-1].days < found.sizes[0].days

    def test_a_guarded_metric_that_never_comes_holds_the_ramp(self):
        plan = planned(primary="latency", guardrails=(Guardrail("quality"),))
        found = forecast(plan, calls(100, rated=0.0))
        assert (found.ramp_days, found.days) == (None, None)
        assert found.detectable is not None
        assert found.missing == "no call told the quality, which the ramp waits for"


class TestCosts:
    def test_what_the_dearer_variant_costs_more(self):
        plan = alone(
            size=300,
            variants=(Variant("usual", 0.5), Variant("b", 0.25, action="deep"), Variant("c", 0.25, shadow="bold")),
        )
        usual, b, c = forecast(plan, calls(3_001)).extra
        assert (usual.usd, c.usd) == (0.0, None)
        assert b.calls == pytest.approx(300, rel=0.01)
        # 0.003 USD a call in place of (3 + 1 + 1) / 3 thousandths.
        assert b.usd == pytest.approx(b.calls * (0.003 - 0.005 / 3.0), rel=0.01)

    def test_prices_that_somebody_knows_stand_in_for_calls_that_nobody_made(self):
        plan = alone(variants=(Variant("usual", 0.5), Variant("b", 0.5, action="new")))
        assert forecast(plan, calls(300)).extra[1].usd is None
        assert forecast(plan, calls(300), costs={"new": 0.0}).extra[1].usd < 0.0


class TestWhatCannotBeReckoned:
    @pytest.mark.parametrize(
        ("history", "said"),
        [
            ([], "no call that was decided at the point model is known"),
            ([PlainCall(1.0, "a", "fast", UNTOLD)] * 3, "of 3 calls none told the quality"),
            (calls(1), "of 1 calls 1 told the quality"),
            ([call._replace(at=5.0) for call in calls(9)], "all calls came at one moment"),
        ],
    )
    def test_it_is_said(self, history, said):
        found = forecast(planned(), history)
        assert found.missing.startswith(said)
        assert found.days is None
        assert msgspec.json.decode(msgspec.json.encode(found), type=TrialForecast) == found

    @pytest.mark.parametrize(
        "asked",
        [
            {"power": 1.0},
            {"power": 0.01},
            {"power": math.nan},
            {"effects": (0.0,)},
            {"effects": (5.0, math.nan)},
            {"effects": (100.0,)},
        ],
    )
    def test_powers_and_effects_that_cannot_be(self, asked):
        with pytest.raises(InputError, match="give a power above"):
            forecast(planned(), calls(10), **asked)

    def test_a_clock_that_was_set_back_is_no_negative_time(self):
        assert forecast(alone(), list(reversed(calls(100)))).days == pytest.approx(forecast(alone(), calls(100)).days)
