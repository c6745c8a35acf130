"""A metric at the looks: its effects, what decides, and several tests that share one alpha."""

from __future__ import annotations

import math

import pytest
from tests.unit.improve.experiments.counted import Counted
from tests.unit.policies.trials.test_plan import planned

from windlass.improve.experiments.looks import Gauged, Path, effect_of, figure, path, stepped_down
from windlass.policies.trials.tally import Look, Summed
from windlass.stats.trials.effects import Effect, Sums


def of_values(*values):
    return Summed(
        len(values), sum(values), len(values), sum(value * value for value in values), sum(values), len(values)
    )


def walked(*effects, size=100, metric="quality"):
    """A path with an effect at each tenth of the plan."""
    looks = [Look(at, float(at), (at + 1) * size // 10, []) for at in range(len(effects))]
    return Path(metric, size, looks, [Gauged(Effect(*effect), math.inf) for effect in effects])


class TestEffects:
    def test_means_are_subtracted_and_ratios_are_logarithms(self):
        assert effect_of("quality", of_values(0.0, 1.0), of_values(1.0, 1.0)).effect.value == 0.5
        assert effect_of("cost", of_values(1.0, 3.0), of_values(4.0, 4.0)).effect.value == pytest.approx(math.log(2.0))
        assert effect_of("latency", of_values(5.0, 7.0), of_values(7.0, 7.0)).effect.value == 1.0

    def test_the_error_of_a_cost_ratio_is_that_of_the_delta_method(self):
        a, b = of_values(*[1.0, 3.0] * 50), of_values(*[2.0, 6.0] * 50)
        relative = (1.0 / 0.99) / 4.0 / 100.0
        assert effect_of("cost", a, b).effect.error == pytest.approx(math.sqrt(2.0 * relative), rel=1e-2)

    @pytest.mark.parametrize("metric", ["quality", "cost", "latency", "error"])
    @pytest.mark.parametrize("few", [of_values(), of_values(1.0)])
    def test_of_fewer_than_two_units_nothing_is_known(self, metric, few):
        many = of_values(0.5, 0.6, 0.7)
        for pair in ((few, many), (many, few)):
            assert effect_of(metric, *pair).effect.error == math.inf
            assert effect_of(metric, *pair).effect.z == 0.0

    def test_what_never_varied_has_an_error_too(self):
        assert figure("error", Sums(*of_values(*[0.0] * 98))).effect.error == pytest.approx(
            math.sqrt(0.01 * 0.99 / 99), rel=0.01
        )
        assert figure("cost", Sums(*of_values(*[5.0] * 100))).effect.error == pytest.approx(0.001)
        assert figure("latency", Sums(*of_values(*[6.0] * 100))).effect.error == pytest.approx(0.001)

    @pytest.mark.parametrize("spent", [0.0, -1.0])
    def test_costs_that_are_none_have_no_logarithm(self, spent):
        assert effect_of("cost", of_values(1.0, 2.0), of_values(spent, spent)).effect.error == math.inf


class TestPaths:
    def test_the_first_look_that_decides_is_the_last(self):
        taken = walked((0.1, 0.1), (0.9, 0.1), (-0.9, 0.1)).tested(0.05)
        assert [one.state for one in taken] == ["open", "better"]
        assert taken[-1].interval() == pytest.approx((0.9 - 0.1 * taken[-1].boundary, 0.9 + 0.1 * taken[-1].boundary))

    @pytest.mark.parametrize(("metric", "state"), [("quality", "better"), ("error", "worse"), ("cost", "worse")])
    def test_more_is_better_of_quality_alone(self, metric, state):
        taken = walked((0.9, 0.1), metric=metric).tested(0.05)
        assert (taken[-1].state, taken[-1].effect.value) == (state, 0.9)

    def test_few_values_have_to_be_further_apart(self):
        few = Path("quality", 10, [Look(1, 1.0, 10, [])], [Gauged(Effect(0.5, 0.1), 6.0)])
        near = few._replace(effects=[Gauged(Effect(0.22, 0.1), 6.0)])
        many = few._replace(effects=[Gauged(Effect(0.22, 0.1), math.inf)])
        assert [one.tested(0.05)[0].state for one in (few, near, many)] == ["better", "undecided", "better"]
        low, high = few.tested(0.05)[0].interval()
        assert high - low == pytest.approx(0.2 * 2.446912, rel=1e-5)

    def test_a_margin_forgives_a_loss_of_it(self):
        lost = walked(*[(-0.02, 0.01)] * 10)
        assert lost.tested(0.05)[-1].state == "undecided"
        assert lost.tested(0.05, margin=0.1)[-1].state == "better"
        slower = walked(*[(math.log(1.05), 0.01)] * 10, metric="latency")
        assert slower.tested(0.05)[-1].state == "worse"
        assert slower.tested(0.05, margin=0.1)[-1].state == "better"

    def test_a_look_that_brings_nothing_new_is_none(self):
        same = walked((0.0, 1.0), (9.0, 1.0))
        stuck = same._replace(looks=[same.looks[0], same.looks[0]])
        assert len(stuck.tested(0.05)) == 1

    def test_the_path_of_a_trial_has_its_looks(self):
        counted = Counted(planned(size=20, guardrails=()))
        for number in range(100):
            counted.call(number % 2, 0.5)
        found = path(counted.trial, "quality", 1)
        assert len(found.effects) == len(found.looks) == 10


class TestSteppingDown:
    def test_what_is_decided_leaves_its_alpha_to_the_others(self):
        # 2.2 deviations are enough for alpha 0.05 at the end, and for half of it they are not.
        clear, close = walked(*[(5.0, 0.5)] * 10), walked(*[(0.0, 1.0)] * 9, (2.2, 1.0))
        assert stepped_down({"close": close}, 0.05) == {"close": "better"}
        assert stepped_down({"close": close, "none": walked(*[(0.0, 1.0)] * 10)}, 0.05)["close"] == "undecided"
        assert stepped_down({"close": close, "clear": clear}, 0.05) == {"close": "better", "clear": "better"}

    def test_nothing_to_test_is_nothing(self):
        assert stepped_down({}, 0.05) == {}
        assert stepped_down({"a": walked()}, 0.05) == {"a": "open"}
