"""The keeper: which steps the evidence takes, once each, and by whom."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.policies.trials.test_plan import planned
from tests.unit.policies.trials.test_trials import ACME, World

from windlass.errors import LedgerError, PolicyError
from windlass.improve.experiments import keeper
from windlass.improve.experiments.keeper import Keeper, steps
from windlass.policies.rollout import Advance, Begin, End
from windlass.policies.trials.plan import Guardrail


def _due(world):
    return list(steps(world.learner.trials))


def _record(world, step):
    world.changed(step.change, step.scope, step.id)


class TestSteps:
    def test_a_stage_that_has_seen_enough_goes_on(self):
        world = World().changed(Begin(planned(ramp=(0.5, 0.8, 1.0), ramp_after=20)))
        found = []
        for _ in range(300):
            world.run(1, lambda action: 0.5)
            for step in _due(world):
                found.append((step.change, step.evidence["seen"]))
                _record(world, step)
        assert [change for change, _ in found] == [Advance("model", "deeper", 1), Advance("model", "deeper", 2)]
        assert [seen for _, seen in found] == [20, 40]
        assert world.trial.deciding

    def test_a_metric_that_never_arrives_holds_the_ramp(self):
        world = World().changed(Begin(planned(ramp=(0.5, 1.0), ramp_after=10)))
        world.run(200, lambda action: None)
        assert _due(world) == []

    def test_without_guardrails_units_are_enough(self):
        world = World().changed(Begin(planned(ramp=(0.5, 1.0), ramp_after=10, guardrails=())))
        world.run(100, lambda action: None)
        assert [step.change for step in _due(world)] == [Advance("model", "deeper", 1)]

    def test_each_stage_without_guardrails_takes_as_long(self):
        world = World().changed(Begin(planned(ramp=(0.5, 0.8, 1.0), ramp_after=10, guardrails=())))
        seen = []
        for _ in range(200):
            world.run(1, lambda action: None)
            for step in _due(world):
                seen.append(step.evidence["seen"])
                _record(world, step)
        assert seen == [10, 10]

    def test_an_alarm_is_put_on_record_once(self):
        world = World().changed(Begin(planned(guardrails=(Guardrail("quality"),))))
        world.run(2_000, lambda action: 0.0 if action == "deep" else 1.0)
        (step,) = _due(world)
        assert step.change == End("model", "deeper", "rollback")
        assert step.evidence == {
            "variant": "b",
            "metric": "quality",
            "after": world.trial.alarm.after,
            "seq": world.trial.alarm.seq,
        }
        assert _due(world) == [step], "whoever else decides it gives it the same id"
        _record(world, step)
        assert _due(world) == []
        assert world.trial.state == "alarmed"
        assert world.learner.ignored == {}


class TestRunning:
    @pytest.fixture
    def world(self, monkeypatch):
        monkeypatch.setattr(keeper, "EVERY_S", 0.001)
        world = World().changed(Begin(planned(ramp=(0.5, 1.0), ramp_after=10)))
        world.run(120, lambda action: 0.5)
        return world

    def _run(self, world, decide, leads=lambda: True):
        async def awhile():
            task = asyncio.create_task(Keeper(lambda: world.learner.trials, decide, leads).run())
            await asyncio.sleep(0.2)
            assert not task.done()
            task.cancel()

        asyncio.run(awhile())

    def test_it_decides_what_is_due(self, world):
        taken = []

        async def decide(step):
            taken.append(step.scope)
            _record(world, step)

        self._run(world, decide)
        assert taken == [ACME]
        assert world.trial.deciding

    def test_a_worker_that_does_not_lead_decides_nothing(self, world):
        async def decide(step):
            raise AssertionError

        self._run(world, decide, lambda: False)

    @pytest.mark.parametrize("failure", [LedgerError("disk full"), PolicyError("came first")])
    def test_what_fails_is_tried_again(self, world, failure):
        tried = []

        async def decide(step):
            tried.append(step.id)
            if len(tried) < 3:
                raise failure
            _record(world, step)

        self._run(world, decide)
        assert len(tried) == 3
        assert len(set(tried)) == 1
