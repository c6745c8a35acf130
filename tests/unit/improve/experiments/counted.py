"""An experiment's tally, told call by call."""

from __future__ import annotations

import math
import random

from windlass.policies.trials.plan import Plan
from windlass.policies.trials.tally import Assigned, Trial, begun, told


class Counted:
    """A trial, and calls that are assigned and told at once. Costs in nano-dollars."""

    def __init__(self, plan: Plan) -> None:
        self.trial: Trial = begun(plan, 1, 0.0)
        self.trial.enter(len(plan.ramp) - 1, 0.0)
        self.calls = 0

    def call(self, variant, quality=None, *, cost=1_000_000, ms=500.0, error="", unit=None):
        self.calls += 1
        assigned = Assigned(self.trial.id, variant, self.trial.stage)
        self.trial.assign(variant, unit)
        self.trial.tell(self.calls, float(self.calls), assigned, told(quality, cost, ms, error), unit)
        return assigned

    def run(self, units, quality, seed=0, *, ms=(500.0,) * 6, cost=(1_000_000,) * 6, errors=(0.0,) * 6):
        """So many calls, assigned at random by share. By variant: rates of good answers and of errors, medians."""
        chance = random.Random(seed)
        shares = self.trial.plan.shares(self.trial.stage)
        for _ in range(units):
            at = chance.choices(range(len(shares)), shares)[0]
            self.call(
                at,
                None if quality[at] is None else float(chance.random() < quality[at]),
                cost=round(cost[at] * chance.lognormvariate(0.0, 0.5)),
                ms=ms[at] * math.exp(chance.gauss(0.0, 0.5)),
                error="boom" if chance.random() < errors[at] else "",
            )
            if self.trial.alarm is not None:
                self.trial.end("alarmed", float(self.calls))
                break
        return self.trial
