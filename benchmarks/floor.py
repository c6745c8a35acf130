"""The quality floor as a guarantee: simulated streams of calls through the guard `floor` of the registry.

A stream has a reference of a quality in 0.6 .. 0.9, a floor at 85 .. 98 % of it, and a router whose quality is set
against that floor; rewards are binary or graded (beta), and the policy inside (`fixed` or `split` over cheap models)
does not react, which is the worst that the floor can meet. Every reward is seen by `learn` as the loop hands it on.

- `undetected_violation_share`: of streams whose router drops at a random time to the margin or more below the floor,
  those without an alarm within two windows of audited calls. 2,000 streams, with --quick 80.
- `false_alarm_share`: of routers that keep exactly the floor, the worst there can be, those that raise an alarm "below
  the floor" within a window of audited calls. delta bounds it. `..._not_shown`: those that raise the other alarm.
- `audited_calls_to_detect_5pt`: median of the audited calls until a router that is 5 points below raises its alarm,
  from a fresh start at the settings' defaults (an audited share of 5 %). The curve has the same for 2, 10 and 20
  points, the 95th percentile, and the share that is found at all within two windows (`detected_share_2pt`: 2 points are
  less than the margin, so nothing is promised).
- `wrong_return_share`: of routers that stay the margin below the floor, those that are given the calls back within a
  window of calls of theirs, after an alarm; delta bounds it. `router_calls_to_return_5pt_above`: the median of what it
  takes where the router is 5 points above the floor by then.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.common import Figures, Options, run
from windlass.policies import registry
from windlass.policies.floor import FloorOptions
from windlass.policies.policy import Policy
from windlass.records import Decision

ACTIONS = ("large", "small", "tiny")
INSIDE = (("fixed", {"action": "small"}), ("split", {"shares": {"small": 2.0, "tiny": 1.0}}))
DEFAULTS = FloorOptions(reference="large")
AUDIT_SHARE = 0.3
"""Of the streams that are many; a larger share takes fewer calls for as many audited ones."""
GAPS = (2, 5, 10, 20)
CURVE = {2: 60, 5: 200, 10: 200, 20: 200}
"""How many streams of each gap."""


@dataclass(frozen=True)
class Stream:
    """below: how far the router is below the floor from audited call `drop` on, in quality; `before` until then."""

    seed: int
    below: float
    before: float = 0.0
    drop: int = 0
    audit_share: float = AUDIT_SHARE
    quality: float = 0.8
    percent: float = 95.0
    graded: bool = False
    inside: int = 0


@dataclass(frozen=True)
class Ending:
    """The audited calls at the alarm, or at the end where there was none; and what it said."""

    audited: int
    words: str = ""


class Calls:
    """The calls of one stream, one after the other."""

    def __init__(self, stream: Stream) -> None:
        name, inside = INSIDE[stream.inside]
        options: dict[str, Any] = {"reference": "large", "share_of_reference": stream.percent}
        self.guard = registry.guard("floor", options | {"audit_share": stream.audit_share}, registry.make(name, inside))
        self.stream = stream
        self.floor = stream.quality * stream.percent / 100.0
        self.number = 0
        self._rng = np.random.default_rng(stream.seed)

    def next(self, below: float) -> tuple[str, str]:
        """(action, fallback) of one more call, while the router is so far below the floor."""
        stream, rng = self.stream, self._rng
        self.number += 1
        choice = self.guard.choose({}, ACTIONS, rng)
        mean = stream.quality if choice.action == "large" else self.floor - below
        reward = float(rng.beta(4.0 * mean, 4.0 * (1.0 - mean)) if stream.graded else rng.random() < mean)
        made = decision(self.guard, self.number, choice.action, float(choice.propensity))
        self.guard.learn(made, reward, None)
        return choice.action, choice.fallback


def follow(stream: Stream, audited_calls: int) -> Ending:
    """Let calls come until the alarm, or until so many were audited."""
    calls, audited = Calls(stream), 0
    while audited < audited_calls:
        action, fallback = calls.next(stream.below if audited >= stream.drop else stream.before)
        if fallback:
            return Ending(audited, fallback)
        audited += action == "large"
    return Ending(audited)


def back(stream: Stream, router_calls: int) -> int | None:
    """After an alarm, with the router as in `stream` from then on: its calls until it is given all of them back."""
    calls, taken = Calls(stream), 0
    while not calls.next(0.2)[1]:
        pass
    while taken < router_calls:
        action, _ = calls.next(stream.below)
        taken += action != "large"
        if action != "large" and calls.guard.probabilities({}, ACTIONS)[0] < 0.5:
            return taken
    return None


def decision(guard: Policy, number: int, action: str, propensity: float) -> Decision:
    return Decision(
        id=f"decision_{number}",
        at=float(number),
        call=f"call_{number}",
        point="model",
        policy=f"{guard.name}@{guard.version}",
        actions=ACTIONS,
        action=action,
        propensity=propensity,
        live=True,
    )


def drops(count: int, seed: int) -> list[Stream]:
    """Streams whose router drops to the margin or more below the floor at a random time."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        below = (DEFAULTS.margin, DEFAULTS.margin, 10.0, 20.0)[number % 4] / 100.0
        drop = int(rng.integers(0, 800)) if number % 3 else 0
        found.append(
            Stream(
                seed=seed + number,
                below=below,
                before=float(rng.uniform(-0.02, 0.0)),
                drop=drop,
                quality=float(rng.uniform(0.6, 0.9)),
                percent=float(rng.uniform(85.0, 98.0)),
                graded=bool(number % 2),
                inside=number // 4 % 2,
            )
        )
    return found


def undetected(figures: Figures, count: int, seed: int) -> None:
    """Alarms before the drop are false ones; the reference acts then, and the drop does no harm."""
    missed, before = [], []
    for stream in drops(count, seed):
        last = stream.drop + 2 * DEFAULTS.window
        ending = follow(stream, last)
        missed.append(not ending.words)
        before.append(bool(ending.words) and ending.audited < stream.drop)
    figures.mean("undetected_violation_share", missed, seed)
    figures.target("undetected_violation_share", f"<= {DEFAULTS.delta}")
    figures.mean("alarm_before_drop_share", before, seed)


def false_alarms(figures: Figures, count: int, seed: int) -> None:
    """Routers at exactly the floor, over the first guess and a window."""
    rng = np.random.default_rng(seed)
    endings = []
    for number in range(count):
        stream = Stream(
            seed=seed + number,
            below=0.0,
            quality=float(rng.uniform(0.6, 0.9)),
            percent=float(rng.uniform(85.0, 98.0)),
            graded=bool(number % 2),
            inside=number // 2 % 2,
        )
        endings.append(follow(stream, DEFAULTS.window + 50))
    figures.mean("false_alarm_share", ["it is below" in ending.words for ending in endings], seed)
    figures.target("false_alarm_share", f"<= {DEFAULTS.delta}")
    figures.mean("false_alarm_share_not_shown", ["not shown" in ending.words for ending in endings], seed)


def power(figures: Figures, shrink: int, seed: int) -> None:
    """The curve, at the defaults."""
    for gap in GAPS:
        count, last = CURVE[gap] // shrink, 2 * DEFAULTS.window
        streams = [
            Stream(seed=seed + number, below=gap / 100.0, audit_share=DEFAULTS.audit_share) for number in range(count)
        ]
        endings = [follow(stream, last) for stream in streams]
        audited = np.array([ending.audited for ending in endings])
        figures.metrics[f"audited_calls_to_detect_{gap}pt"] = float(np.median(audited))
        figures.metrics[f"audited_calls_p95_{gap}pt"] = float(np.quantile(audited, 0.95))
        figures.mean(f"detected_share_{gap}pt", [bool(ending.words) for ending in endings], seed)


def returns(figures: Figures, count: int, seed: int) -> None:
    """Routers after an alarm: as far below as the margin, and above."""
    rng = np.random.default_rng(seed)
    qualities = [(float(rng.uniform(0.6, 0.9)), float(rng.uniform(85.0, 95.0))) for _ in range(count)]
    found: dict[float, list[int | None]] = {}
    for below in (DEFAULTS.margin / 100.0, -0.05):
        found[below] = [
            back(
                Stream(seed + number, below, quality=quality, percent=percent, graded=bool(number % 2)), DEFAULTS.window
            )
            for number, (quality, percent) in enumerate(qualities)
        ]
    wrong, right = found.values()
    figures.mean("wrong_return_share", [taken is not None for taken in wrong], seed)
    figures.target("wrong_return_share", f"<= {DEFAULTS.delta}")
    took = [DEFAULTS.window if taken is None else taken for taken in right]
    figures.metrics["router_calls_to_return_5pt_above"] = float(np.median(took))


def cost(figures: Figures, seed: int) -> None:
    """What one choice and one reward cost with the guard, beyond the same policy without it."""
    rng, inside = np.random.default_rng(seed), registry.make(*INSIDE[0])
    guard = Calls(Stream(seed=seed, below=-0.1)).guard
    names = {"": inside, "_guarded": guard}
    chose: dict[str, list[float]] = {name: [] for name in names}
    learned: dict[str, list[float]] = {name: [] for name in names}
    for number in range(2_000):
        for name, policy in names.items():
            started = time.perf_counter()
            policy.choose({}, ACTIONS, rng)
            chosen = time.perf_counter()
            policy.learn(decision(guard, number, "small", 1.0 - AUDIT_SHARE), 0.9, None)
            chose[name].append(chosen - started)
            learned[name].append(time.perf_counter() - chosen)
    for what, took in (("choose", chose), ("learn", learned)):
        figures.metrics[f"{what}_added_us"] = 1e6 * float(np.median(took["_guarded"]) - np.median(took[""]))


def measure(options: Options) -> Figures:
    figures = Figures()
    quick = options.quick
    undetected(figures, 80 if quick else 2_000, options.seed)
    power(figures, 20 if quick else 1, options.seed + 1_000_000)
    false_alarms(figures, 40 if quick else 600, options.seed + 2_000_000)
    returns(figures, 10 if quick else 200, options.seed + 3_000_000)
    cost(figures, options.seed)
    return figures


if __name__ == "__main__":
    sys.exit(run("floor", measure))
