"""Assignments: whoever has a variant keeps it, each as many as planned, and one experiment says nothing of another."""

from __future__ import annotations

import pytest
from tests.unit.policies.trials.test_plan import planned

from windlass.policies.trials.acting import assigned
from windlass.policies.trials.assignment import Units, bucket, running
from windlass.policies.trials.plan import Variant
from windlass.records import Scope

ACME = Scope("acme", "main")
PLAN = planned(
    variants=(Variant("usual", 0.5), Variant("b", 0.3, action="b"), Variant("c", 0.2, action="c")), ramp=(0.1, 0.5, 1.0)
)


def variants(trial, count=20_000):
    return [trial.assign("acme", "main", f"user {number}") for number in range(count)]


def test_whoever_has_a_candidate_keeps_it_through_the_ramp():
    stages = [variants(running(PLAN, stage), 5_000) for stage in range(3)]
    for before, after in zip(stages, stages[1:], strict=False):
        kept = [(one, other) for one, other in zip(before, after, strict=True) if one]
        assert kept
        assert all(one == other for one, other in kept)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_each_variant_gets_its_share(stage):
    found = variants(running(PLAN, stage))
    for index, share in enumerate(PLAN.shares(stage)):
        error = (share * (1 - share) / len(found)) ** 0.5
        assert abs(found.count(index) / len(found) - share) < 4 * error


def test_two_experiments_divide_the_units_apart():
    one, other = variants(running(PLAN, 2)), variants(running(planned(name="x"), 1))
    both = sum(1 for first, second in zip(one, other, strict=True) if first and second)
    assert abs(both / len(one) - 0.25) < 0.02


def test_another_tenants_units_are_others():
    trial = running(PLAN, 2)
    same = [trial.assign("acme", "main", str(n)) == trial.assign("acme", "other", str(n)) for n in range(2_000)]
    assert 0.3 < sum(same) / len(same) < 0.5  # by chance: 0.25 + 0.09 + 0.04


def test_units_are_what_the_plan_says():
    units = Units("call_1", "run_1", "ann")
    assert [units.of(unit) for unit in ("call", "session", "user")] == ["call_1", "run_1", "ann"]
    assert Units("call_1").of("session") == "call_1"
    assert Units("call_1").of("user") == ""


@pytest.mark.parametrize(
    ("units", "actions", "has"),
    [
        (Units("call_1"), ("deep", "fast"), True),  # nobody knows who it is
        (Units("call_1", user="ann"), ("deep",), True),  # nothing to choose
        (Units("call_1", user="ann"), ("fast", "other"), True),  # a variant is not there
        (Units("call_1", user="ann"), ("deep", "fast"), False),  # nor its shadow
    ],
)
def test_a_call_that_cannot_get_every_variant_gets_none(units, actions, has):
    variants = (Variant("usual", 0.4), Variant("b", 0.3, action="deep"), Variant("c", 0.3, shadow="bold"))
    trial = running(planned(unit="user", variants=variants), 1)
    assert assigned(trial, units, ACME, actions, lambda name: has) is None
    whole = assigned(trial, Units("call_1", user="ann"), ACME, ("deep", "fast"), lambda name: name == "bold")
    assert whole in (0, 1, 2)


def test_buckets_are_many_and_the_same_for_the_same_unit():
    found = [bucket("x@1", number.to_bytes(8, "little")) for number in range(5_000)]
    assert len(set(found)) == 512
    assert found[:10] == [bucket("x@1", number.to_bytes(8, "little")) for number in range(10)]
    assert found[:50] != [bucket("y@1", number.to_bytes(8, "little")) for number in range(50)]
