"""What the numbers say: decisions, intervals, guardrails, and all that has to keep them from being said."""

from __future__ import annotations

import math
import random
import time
from collections import Counter

import msgspec
import pytest
from tests.unit.improve.experiments.counted import Counted
from tests.unit.policies.trials.test_plan import planned
from tests.unit.policies.trials.test_trials import World

from windlass.improve.experiments.verdict import view
from windlass.improve.experiments.view import ExperimentView
from windlass.policies.rollout import Begin, End, Ship
from windlass.policies.trials.plan import METRICS, Guardrail, Variant
from windlass.policies.trials.tally import Trial

THREE = (Variant("usual", 0.4), Variant("b", 0.3, action="deep"), Variant("c", 0.3, action="other"))


def alone(**fields):
    """A plan that only decides: one stage, nothing guarded unless said."""
    return planned(**({"ramp": (1.0,), "guardrails": (), "size": 400} | fields))


def of(seen, metric, role="primary", variant="b"):
    row = next(one for one in seen.metrics if (one.metric, one.role) == (metric, role))
    return next(one for one in row.comparisons if one.variant == variant)


class TestDeciding:
    def test_a_better_candidate_is_found_with_the_interval_of_its_look(self):
        seen = view(Counted(alone()).run(1_000, (0.6, 0.8)))
        one = of(seen, "quality")
        assert (seen.decision, seen.leader, one.verdict, one.method) == ("better", "b", "better", "repeated")
        last = seen.looks[-1]
        assert (last.estimate, last.low, last.high) == (one.estimate, one.low, one.high)
        assert 0.0 < one.low < 20.0 < one.high
        assert abs(last.z) >= last.boundary
        assert len(seen.looks) < 10
        assert last.units < 400

    def test_the_look_that_decided_is_reported_however_many_follow(self):
        counted = Counted(alone())
        counted.run(500, (0.5, 0.9))
        before = view(counted.trial)
        counted.run(400, (0.9, 0.1), seed=1)
        after = view(counted.trial)
        assert before.decision == after.decision == "better"
        assert (before.looks, of(before, "quality").estimate) == (after.looks, of(after, "quality").estimate)
        assert of(before, "quality").now_low != of(after, "quality").now_low

    @pytest.mark.parametrize(
        ("metric", "numbers", "unit", "true"),
        [
            ("quality", {"quality": (0.8, 0.6)}, "points", -20.0),
            ("error", {"errors": (0.02, 0.2)}, "points", 18.0),
            ("latency", {"ms": (500.0, 750.0)}, "ratio", 1.5),
            ("cost", {"cost": (1_000_000, 1_500_000)}, "ratio", 1.5),
        ],
    )
    def test_more_is_worse_but_of_quality(self, metric, numbers, unit, true):
        seen = view(Counted(alone(primary=metric)).run(1_200, **({"quality": (0.8, 0.8)} | numbers)))
        one = of(seen, metric)
        assert (seen.decision, seen.metrics[0].unit, one.verdict) == ("worse", unit, "worse")
        assert one.low <= true <= one.high
        assert seen.metrics[0].up_is_good == (metric == "quality")

    def test_no_difference_is_undecided_once_the_plan_is_through(self):
        seen = view(Counted(alone()).run(1_000, (0.7, 0.7)))
        assert (seen.decision, len(seen.looks), of(seen, "quality").verdict) == ("undecided", 10, "undecided")

    def test_before_the_first_look_what_is_watched_is_always_valid(self):
        seen = view(Counted(alone(secondary=("latency",))).run(60, (0.7, 0.7)))
        one = of(seen, "quality")
        assert (seen.decision, one.method, one.p, seen.looks) == ("open", "always valid", None, ())
        assert one.low == one.now_low < 0.0 < one.now_high == one.high
        assert of(seen, "latency", "secondary").method is None

    def test_what_is_open_when_it_ends_stays_undecided(self):
        trial = Counted(alone()).run(300, (0.7, 0.7))
        assert view(trial).decision == "open"
        trial.end("stopped", 9.0)
        assert (view(trial).decision, of(view(trial), "quality").verdict) == ("undecided", "undecided")


class TestSeveralCandidates:
    def test_each_is_tested_at_its_part_of_alpha(self):
        seen = view(Counted(alone(variants=THREE)).run(1_200, (0.6, 0.85, 0.6)))
        assert (seen.decision, seen.leader, seen.metrics[0].level) == ("better", "b", pytest.approx(0.975))
        assert of(seen, "quality", variant="c").verdict in ("open", "undecided")
        two = view(Counted(alone(alpha=0.025)).run(1_200, (0.6, 0.85)))
        assert seen.looks[0].boundary == two.looks[0].boundary

    def test_the_best_of_several_leads(self):
        seen = view(Counted(alone(variants=THREE)).run(1_500, (0.4, 0.75, 0.95)))
        assert [one.verdict for one in seen.metrics[0].comparisons] == ["better", "better"]
        assert seen.leader == "c"

    def test_all_worse_is_worse(self):
        seen = view(Counted(alone(variants=THREE)).run(1_500, (0.9, 0.5, 0.6)))
        assert (seen.decision, seen.leader) == ("worse", "c")


class TestOtherMetrics:
    def test_secondary_ones_are_corrected_for_how_many_they_are(self):
        numbers = {"ms": (500.0, 400.0), "cost": (1_000_000, 1_000_000)}
        seen = view(Counted(alone(secondary=("latency", "cost", "error"))).run(1_000, (0.7, 0.7), **numbers))
        latency, cost = of(seen, "latency", "secondary"), of(seen, "cost", "secondary")
        assert (latency.verdict, cost.verdict) == ("better", "undecided")
        assert cost.p_adjusted >= cost.p
        assert latency.p_adjusted == pytest.approx(3.0 * latency.p)
        assert of(seen, "quality").p_adjusted is None
        assert {one.level for one in seen.metrics[1:]} == {1.0 - 0.05 / 3.0}

    def test_guardrails_hold_by_their_margin(self):
        plan = alone(guardrails=(Guardrail("quality", 0.15), Guardrail("latency", 0.3), Guardrail("error", 0.0)))
        seen = view(Counted(plan).run(1_000, (0.7, 0.7), errors=(0.02, 0.02)))
        held = [of(seen, guard.metric, "guardrail") for guard in plan.guardrails]
        assert [one.verdict for one in held] == ["holds", "holds", "undecided"]
        assert held[0].p < 0.001 < held[2].p

    def test_a_candidate_that_broke_a_guardrail_is_not_better(self):
        plan = alone(guardrails=(Guardrail("latency", 0.05),), harm_alpha=1e-12, size=1_000)
        seen = view(Counted(plan).run(2_500, (0.6, 0.8), ms=(500.0, 600.0)))
        assert seen.alarm is None
        assert of(seen, "quality").verdict == "better"
        assert of(seen, "latency", "guardrail").verdict == "worse"
        assert (seen.decision, seen.leader) == ("harmful", "b")

    def test_an_alarm_is_harm(self):
        trial = Counted(alone(guardrails=(Guardrail("quality"), Guardrail("latency")))).run(2_000, (0.8, 0.3))
        seen = view(trial)
        assert (seen.decision, seen.leader, seen.alarm.metric, seen.state) == ("harmful", "b", "quality", "alarmed")
        found = {one.metric: one for one in seen.harm}
        assert found["quality"].evidence >= found["quality"].limit == pytest.approx(2 / 0.03)
        assert found["latency"].evidence < found["latency"].limit


class TestWhatCannotBeBelieved:
    def test_a_sample_ratio_that_cannot_be_withholds_everything(self):
        counted = Counted(alone())
        for number in range(600):
            counted.call(0 if number % 3 else 1, 0.2 if number % 3 else 0.9)
        seen = view(counted.trial)
        assert seen.withheld
        assert not seen.sample_ratio.ok
        assert seen.sample_ratio.p < 0.001
        assert (seen.decision, of(seen, "quality").verdict) == ("open", "open")

    def test_nothing_told_is_nothing_known(self):
        trial = Counted(alone()).trial
        seen = view(trial)
        assert (seen.decision, seen.units, seen.looks, of(seen, "quality").estimate) == ("open", 0, (), None)
        assert all(value.mean is None for row in seen.metrics for value in row.values)

    def test_a_primary_metric_that_never_comes_decides_nothing(self):
        seen = view(Counted(alone(secondary=("latency",))).run(1_000, (None, None)))
        assert (seen.decision, seen.units, seen.looks) == ("open", 0, ())

    def test_constant_values_are_decided_and_never_certain(self):
        counted = Counted(alone(size=100, primary="cost", secondary=("quality",)))
        for number in range(200):
            counted.call(number % 2, float(number % 2), cost=(1_000_000, 800_000)[number % 2])
        seen = view(counted.trial)
        one = of(seen, "cost")
        assert (one.verdict, of(seen, "quality", "secondary").verdict) == ("better", "better")
        assert one.low < 0.8 < one.high
        assert math.isfinite(seen.looks[-1].z)

    def test_equal_constants_are_no_difference(self):
        counted = Counted(alone(size=100))
        for number in range(200):
            counted.call(number % 2, 1.0)
        seen = view(counted.trial)
        assert (seen.decision, of(seen, "quality").estimate) == ("undecided", 0.0)

    def test_a_variant_that_costs_nothing_has_no_ratio(self):
        counted = Counted(alone(size=100, primary="cost"))
        for number in range(200):
            counted.call(number % 2, 1.0, cost=(1_000_000, 0)[number % 2])
        seen = view(counted.trial)
        assert (seen.decision, of(seen, "cost").estimate, of(seen, "cost").low) == ("undecided", None, None)
        assert seen.variants[1].cost_usd == 0.0
        assert "cannot be compared" in seen.sentence

    def test_units_with_many_calls_are_no_more_than_units(self):
        # Each of 100 users calls 20 times and likes everything or nothing: 2,000 calls know no more than 100.
        counted = Counted(alone(unit="user", size=50))
        for _ in range(20):
            for user in range(100):
                counted.call(user % 2, float(user // 2 % 2), unit=user)
        seen = view(counted.trial)
        one = of(seen, "quality")
        assert (seen.units, sum(row.n for row in seen.metrics[0].values)) == (50, 2_000)
        assert one.high - one.low > 2.0 * 1.96 * 100.0 * math.sqrt(2.0 * 0.2 / 50)
        assert one.now_low is None

    def test_a_hundred_thousand_times_slower_is_still_a_number(self):
        counted = Counted(alone(size=20, primary="latency"))
        for number in range(80):
            counted.call(number % 2, 1.0, ms=(1e-9, 1e300)[number % 2])
        assert msgspec.json.decode(msgspec.json.encode(view(counted.trial)), type=ExperimentView) == view(counted.trial)


class TestTheView:
    @pytest.mark.parametrize("units", [0, 1, 2, 30, 500])
    def test_it_is_plain_json(self, units):
        plan = alone(variants=THREE, secondary=("cost", "latency"), guardrails=(Guardrail("quality", 0.01),))
        seen = view(Counted(plan).run(units, (0.8, 0.9, 0.7)))
        assert msgspec.json.decode(msgspec.json.encode(seen), type=ExperimentView) == seen

    def test_a_stored_trial_says_the_same(self):
        trial = Counted(alone(secondary=("latency",), guardrails=(Guardrail("latency", 0.1),))).run(500, (0.6, 0.8))
        again = msgspec.msgpack.decode(msgspec.msgpack.encode(trial), type=Trial)
        assert view(again) == view(trial)

    def test_it_tells_the_plan_and_what_was_spent(self):
        plan = planned(ramp=(0.1, 1.0), owner="ann", hypothesis="deeper is better")
        trial = Counted(plan).trial
        trial.enter(0, 7.0)
        seen = view(trial)
        assert (seen.digest, seen.id, seen.owner, seen.hypothesis) == (plan.digest, plan.id, "ann", "deeper is better")
        assert (seen.stage, seen.stage_share, seen.deciding, seen.stage_at) == (0, 0.1, False, 7.0)
        assert [(one.share, one.full_share) for one in seen.variants] == [(0.95, 0.5), (0.05, 0.5)]
        assert seen.variants[0].cost_usd is None
        counted = Counted(alone())
        counted.call(0, 1.0, cost=2_000_000_000)
        counted.call(0, 1.0, cost=500_000_000)
        assert view(counted.trial).variants[0].cost_usd == pytest.approx(2.5)

    def test_it_is_quick(self):
        plan = planned(variants=THREE, ramp=(1.0,), size=500, secondary=("cost", "latency", "error"), guardrails=())
        trial = Counted(plan).run(1_600, (0.8, 0.8, 0.8))
        view(trial)
        took = []
        for _ in range(20):
            began = time.process_time()
            view(trial)
            took.append(time.process_time() - began)
        assert min(took) < 0.02  # 2 ms where nothing else runs


class TestChance:
    def test_differences_that_are_none_are_rarely_found(self):
        """100 A/A runs a metric at alpha 0.05: 14 or more of one by chance have a probability of 0.05 %."""
        found = Counter()
        for metric in METRICS:
            for seed in range(100):
                trial = Counted(alone(primary=metric, size=50)).run(140, (0.8, 0.8), seed, errors=(0.1, 0.1))
                found[metric] += view(trial).decision in ("better", "worse")
        assert max(found.values()) < 14, found

    def test_real_differences_are_found_with_the_right_sign(self):
        """0.2 of quality is found by 100 units a side with a power above 0.85: 40 or fewer of 60 happen in 0.03 %."""
        found = Counter(view(Counted(alone(size=100)).run(260, (0.6, 0.8), seed)).decision for seed in range(60))
        assert found["better"] > 40, found
        assert not found["worse"], found

    def test_through_the_fold_of_the_learner(self):
        """8 A/A runs at alpha 0.05: 4 decisions or more by chance have a probability of 0.04 %."""
        decided = 0
        for seed in range(8):
            world, chance = World(), random.Random(seed)
            world.changed(Begin(alone(name=f"aa-{seed}", size=60)))
            world.run(150, lambda _, chance=chance: float(chance.random() < 0.7))
            decided += view(world.trial).decision != "undecided"
        assert decided < 4
        world, chance = World(), random.Random(1)
        world.changed(Begin(alone(size=100)))
        world.run(260, lambda action: float(chance.random() < {"deep": 0.95, "fast": 0.6}[action]))
        assert (view(world.trial).decision, view(world.trial).leader) == ("better", "b")
        world.changed(Ship("model", "deeper", "b"))
        assert view(world.trial).sentence.endswith("; b was shipped.")

    def test_a_correction_changes_what_is_open_and_nothing_that_was_decided(self):
        world = World().changed(Begin(alone(size=20)))
        world.run(60, lambda action: {"deep": 1.0, "fast": 0.0}[action])
        before = view(world.trial)
        assert before.decision == "better"
        world.changed(End("model", "deeper", "stop"))
        assert view(world.trial).decision == "better"
