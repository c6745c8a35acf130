"""The tally of an experiment: what came of each variant, told call by call in the order of the ledger.

It is part of the learner's fold, so every worker and every rebuild count the same, and an alarm ends an experiment for
all of them at the same entry. A value that is corrected replaces what it was. What decides is kept as it stood when the
plan said to look, so that looking again later, or oftener, changes nothing.
"""

from __future__ import annotations

import hashlib
import math
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

from windlass.policies.trials.assignment import bucket
from windlass.policies.trials.plan import METRICS, RELATIVE, Guardrail, MetricName, Plan
from windlass.stats.trials.harm import Bet, Harm, Kind

LOOKS: Final = 10
"""Looks on the way to the decision, equally far apart."""
_FASTEST_MS = 0.1
_MOST_UNITS = 100_000
State: TypeAlias = Literal["running", "alarmed", "stopped", "rolled back", "shipped"]
Told: TypeAlias = tuple[float | None, ...]
"""What is known of a call, by metric in the order of METRICS; None where nothing is."""
UNTOLD: Final[Told] = (None,) * len(METRICS)


class Summed(NamedTuple):
    """Sums over units that each bring a total and a count: as `effects.Sums`."""

    n: float
    top: float
    bottom: float
    tops: float
    both: float
    bottoms: float


class Sample(msgspec.Struct, array_like=True):
    """The values of one metric of one variant. groups: bucket -> [values, sum], where units have several calls."""

    n: int = 0
    total: float = 0.0
    squares: float = 0.0
    groups: dict[int, list[float]] = {}

    def add(self, value: float, sign: float, group: int | None) -> None:
        """Put a value in, or take it out where `sign` is -1."""
        self.n += int(sign)
        self.total += sign * value
        self.squares += sign * value * value
        if group is not None:
            held = self.groups.setdefault(group, [0.0, 0.0])
            held[0] += sign
            held[1] += sign * value

    def summed(self) -> Summed:
        """By group where there are groups, else by value."""
        if not self.groups:
            n = float(self.n)
            return Summed(n, self.total, n, self.squares, self.total, n)
        held = [(n, total) for n, total in self.groups.values() if n > 0.0]
        return Summed(
            float(len(held)),
            math.fsum(total for _, total in held),
            math.fsum(n for n, _ in held),
            math.fsum(total * total for _, total in held),
            math.fsum(n * total for n, total in held),
            math.fsum(n * n for n, _ in held),
        )


class Look(msgspec.Struct, array_like=True, frozen=True):
    """What was known when the plan said to look. units: per variant, of the variant that has fewest. sums: by variant
    and metric."""

    seq: int
    at: float
    units: int
    sums: list[list[Summed]]


class Alarm(msgspec.Struct, array_like=True, frozen=True):
    """Harm was found. after: units of the candidate that it took."""

    seq: int
    at: float
    variant: str
    metric: MetricName
    after: int


class Assigned(msgspec.Struct, array_like=True, gc=False):
    """What is kept of a call in an experiment. trial: `Plan.id`. told: what was counted last. compared: by
    candidate and guardrail, how. stage: of the ramp, when it was assigned."""

    trial: str
    variant: int
    stage: int
    told: Told = UNTOLD
    compared: list[Bet | None] = []


class Trial(msgspec.Struct, array_like=True):
    """An experiment, from its first assignment on. at: UTC seconds of the beginning, and stage_at of this stage; moved:
    the decision that took it where it is, "" for an alarm that is not on record yet.

    assigned: units by variant, at this stage. samples: by variant and metric, of the last stage alone. harms: by
    candidate and guardrail. units: where a unit has several calls, its variant and 1 once its primary metric is known;
    known: how many of them, by variant; guarded: those of which a call was compared. shipped: the variant.
    """

    plan: Plan
    id: str
    seq: int
    at: float
    moved: str = ""
    stage: int = 0
    stage_at: float = 0.0
    state: State = "running"
    assigned: list[int] = []
    samples: list[list[Sample]] = []
    harms: list[list[Harm]] = []
    units: dict[int, list[int]] = {}
    known: list[int] = []
    guarded: dict[int, bool] = {}
    looks: list[Look] = []
    alarm: Alarm | None = None
    shipped: str = ""
    ended_at: float | None = None

    @property
    def deciding(self) -> bool:
        """Whether the ramp has come to its last stage, which decides."""
        return self.stage == len(self.plan.ramp) - 1

    @property
    def informed(self) -> list[int]:
        """Units whose primary metric is known, by variant."""
        if self.plan.unit == "call":
            at = METRICS.index(self.plan.primary)
            return [of_variant[at].n for of_variant in self.samples]
        return self.known

    def enter(self, stage: int, at: float) -> None:
        """Go on with a stage of the ramp, whose shares are other ones: what decides is counted anew."""
        self.stage, self.stage_at = stage, at
        self.assigned = [0] * len(self.plan.variants)
        self.samples = [[Sample() for _ in METRICS] for _ in self.plan.variants]
        self.units, self.known = {}, [0] * len(self.plan.variants)
        self.looks = []

    def assign(self, variant: int, unit: int | None) -> None:
        """A call was assigned. unit: whose it is, where a unit has several calls; further ones change nothing."""
        if unit is None:
            self.assigned[variant] += 1
        elif unit not in self.units and len(self.units) < _MOST_UNITS:
            self.units[unit] = [variant, 0]
            self.assigned[variant] += 1

    def tell(self, seq: int, at: float, assigned: Assigned, told: Told, unit: int | None) -> None:
        """What is known of a call by now, in place of what was counted of it."""
        before, assigned.told = assigned.told, told
        self._guard(seq, at, assigned, before, told, unit)
        if assigned.stage != self.stage or not self.deciding:
            return
        group = None if unit is None else bucket(self.id, unit.to_bytes(8, "little"))
        samples = self.samples[assigned.variant]
        for metric, sample, old, new in zip(METRICS, samples, before, told, strict=True):
            if old != new:
                if old is not None:
                    sample.add(scaled(metric, old), -1.0, group)
                if new is not None:
                    sample.add(scaled(metric, new), 1.0, group)
        if unit is not None and told[METRICS.index(self.plan.primary)] is not None:
            self._know(unit)
        self._look(seq, at)

    def forget(self, unit: int) -> None:
        """Let go of one unit; what its calls came to stays."""
        self.units.pop(unit, None)
        self.guarded.pop(unit, None)

    def end(self, state: State, at: float, shipped: str = "") -> None:
        """It is over; nothing is counted from here on, so nobody's units need to be known."""
        self.state, self.ended_at, self.shipped = state, at, shipped
        self.units, self.guarded = {}, {}

    def _guard(self, seq: int, at: float, assigned: Assigned, before: Told, told: Told, unit: int | None) -> None:
        """Let the guardrails know; of a unit with several calls the first one alone, so that they are independent."""
        if not assigned.compared and unit is not None and not self._first(unit):
            return
        if not assigned.compared:
            assigned.compared = [None] * (len(self.plan.guardrails) * len(self.plan.candidates))
        shares = self.plan.shares(assigned.stage)
        for place, guard in enumerate(self.plan.guardrails):
            metric = METRICS.index(guard.metric)
            value = told[metric]
            if value is None or value == before[metric]:
                continue
            # A value of the baseline is compared for each candidate, one of a candidate for that one.
            watched = (assigned.variant - 1,) if assigned.variant else range(len(self.plan.candidates))
            for candidate in watched:
                share = shares[candidate + 1] / (shares[candidate + 1] + shares[0])
                self._compare(seq, at, assigned, (candidate, place), value, share)

    def _compare(
        self, seq: int, at: float, assigned: Assigned, where: tuple[int, int], value: float, share: float
    ) -> None:
        """Let one guardrail of one candidate know of a value, or of its correction."""
        candidate, place = where
        harm, at_place = self.harms[candidate][place], candidate * len(self.plan.guardrails) + place
        known = assigned.compared[at_place]
        if known is not None:
            assigned.compared[at_place] = harm.correct(known, value)
        elif assigned.variant:
            assigned.compared[at_place] = harm.note_candidate(value, share)
        else:
            assigned.compared[at_place] = harm.note_baseline(value, share)
        if self.alarm is None and harm.alarmed(self.plan.harm_alpha / len(assigned.compared)):
            name = self.plan.candidates[candidate].name
            self.alarm = Alarm(seq, at, name, self.plan.guardrails[place].metric, harm.candidates)

    def _first(self, unit: int) -> bool:
        """Whether no call of the unit was compared before; this one is, then."""
        first = unit not in self.guarded and len(self.guarded) < _MOST_UNITS
        if first:
            self.guarded[unit] = True
        return first

    def _know(self, unit: int) -> None:
        """The primary metric of a unit is known by now."""
        held = self.units.get(unit)
        if held is not None and not held[1]:
            held[1] = 1
            self.known[held[0]] += 1

    def _look(self, seq: int, at: float) -> None:
        done = len(self.looks)
        if done >= LOOKS:
            return
        if min(self.informed) < math.ceil(self.plan.size * (done + 1) / LOOKS):
            return
        sums = [[sample.summed() for sample in of_variant] for of_variant in self.samples]
        self.looks.append(Look(seq, at, min(self.informed), sums))


def begun(plan: Plan, seq: int, at: float) -> Trial:
    """An experiment before its first assignment."""
    trial = Trial(plan, plan.id, seq, at)
    trial.harms = [[_harm(guard) for guard in plan.guardrails] for _ in plan.candidates]
    trial.enter(0, at)
    return trial


def _harm(guard: Guardrail) -> Harm:
    """The watch over one guardrail of one candidate."""
    kind: Kind = "ranked" if guard.metric in RELATIVE else "bounded"
    return Harm(kind, -1 if guard.metric == "quality" else 1, guard.margin)


def told(quality: float | None, cost_nusd: int | None, latency_ms: float | None, error: str) -> Told:
    """What is known of a call: costs in millionths of a dollar; no time of one that failed, which may be quick."""
    cost = None if cost_nusd is None or cost_nusd < 0 else cost_nusd / 1_000.0
    # A clock that was set back says nothing of how long a call took.
    latency = None if error or latency_ms is None or latency_ms < 0.0 else latency_ms
    failed = None if latency_ms is None and not error else float(bool(error))
    return quality, cost, latency, failed


def scaled(metric: MetricName, value: float) -> float:
    """A value as it is summed: times by their logarithm, so that a few slow calls do not hide a change."""
    return math.log(max(value, _FASTEST_MS)) if metric == "latency" else value


def unit_number(unit: str | bytes) -> int:
    """What stands for a unit with several calls."""
    data = unit.encode("utf-8", "surrogatepass") if isinstance(unit, str) else unit
    return int.from_bytes(hashlib.blake2b(data, digest_size=7).digest(), "little")
