"""Decision points as people judge them: what is chosen how often, what that earned, and who would have done better.

Read from the hourly rollups and the learner's scores, so that no look at it scans the ledger.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import assert_never

import msgspec

from windlass.errors import InputError, PolicyError
from windlass.policies.points import EXPERIMENT, NAMED, ROLLOUT
from windlass.policies.rollout import (
    Advance,
    Always,
    Begin,
    Change,
    End,
    Ending,
    Promote,
    RollBack,
    SetMode,
    Ship,
    parse,
)
from windlass.policies.score import Score
from windlass.records import Decision, Scope
from windlass.runtime import Runtime
from windlass.watch.store import DecisionHour

CHANGES_READ = 200
_ENDED: dict[Ending, str] = {"stop": "stopped", "rollback": "rolled back"}
_PEOPLES = (ROLLOUT, EXPERIMENT)
"""Where it is not a policy that decides."""


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """One action at one point. share: of the choices; propensity and reward: means, None where there is none yet."""

    action: str
    chosen: int
    share: float
    propensity: float | None
    rewarded: int
    reward: float | None


class Decider(msgspec.Struct, frozen=True, kw_only=True):
    """One policy at one point, live or in shadow, and what it chose."""

    policy: str
    live: bool
    chosen: int
    actions: tuple[Taken, ...]


class InPlace(msgspec.Struct, frozen=True, kw_only=True):
    """What acts at a point beside its own policy, '' for what does not: the policy of a promoted `shadow`, always one
    `action`, the `experiment` under way. told: in words, '' where the own policy acts alone."""

    shadow: str
    action: str
    experiment: str
    told: str


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How a decision point stands. mode: in force for this scope; set_mode: that of the settings.

    standing: what acts within the guards of the policy in its place.

    deciders: who chose among two or more actions in the range asked for, the live ones first; named: what was taken
    because it was the only one eligible, as in a call that names its model. scores: of all time since the last
    roll-back, over both.
    """

    point: str
    mode: str
    set_mode: str
    policy: str
    shadows: tuple[str, ...]
    standing: InPlace
    deciders: tuple[Decider, ...]
    named: tuple[Taken, ...]
    scores: tuple[Score, ...]


class Switch(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody decided about a point. told: the change in words."""

    id: str
    at: float
    change: Change
    told: str
    by: str
    reason: str


def standings(runtime: Runtime, scope: Scope, since: float = 0.0, point: str = "") -> list[Standing]:
    """Every point of the settings, and those that only the ledger knows, by name; only `point` where it is given."""
    hours = runtime.rollups.decisions(scope, since, point=point)
    split: dict[str, list[DecisionHour]] = defaultdict(list)
    for hour in hours:
        split[hour.point].append(hour)
    known = [name for name in runtime.loop.points if point in ("", name)]
    names = sorted({*known, *(name for name in split if name not in _PEOPLES)})
    return [_standing(runtime, scope, name, split[name]) for name in names]


def require_known(runtime: Runtime, scope: Scope, point: str) -> None:
    """InputError, naming the points, where the settings know no such point and nothing was ever decided at one."""
    known = sorted({*runtime.loop.points, *_PEOPLES})
    if point in known or runtime.ledger.decisions(scope, point=point, limit=1):
        return
    near = difflib.get_close_matches(point, known, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    raise InputError(f"there is no decision point {point[:100]!r}; known: {', '.join(known)}{meant}")


def turns(runtime: Runtime, scope: Scope, point: str) -> list[Switch]:
    """What was decided about `point` lately, newest first."""
    found: list[Switch] = []
    for decision in runtime.ledger.decisions(scope, point=ROLLOUT, limit=CHANGES_READ):
        change = changed(decision)
        if change is not None and change.point == point:
            by, reason = (str(decision.extra.get(name, "")) for name in ("by", "reason"))
            words = told(change)
            found.append(Switch(id=decision.id, at=decision.at, change=change, told=words, by=by, reason=reason))
    return found


def told(change: Change) -> str:
    """A change of a point in words.

    >>> told(SetMode("model", "live")), told(RollBack("model", 0)), told(Ship("model", "shorter", "b"))
    ('mode live', 'rolled back to the beginning', 'experiment shorter ends, and everybody gets b')
    """
    match change:
        case SetMode():
            return f"mode {change.mode}"
        case RollBack(cursor=0):
            return "rolled back to the beginning"
        case RollBack():
            return f"rolled back to entry {change.cursor}"
        case Promote(shadow=""):
            return "its own policy decides again"
        case Promote():
            return f"the policy in shadow {change.shadow} decides"
        case Always():
            return f"always {change.action}"
        case _:
            return _step_told(change)


def _step_told(change: Begin | Advance | End | Ship) -> str:
    """A step of an experiment in words."""
    match change:
        case Begin():
            return f"experiment {change.plan.name} begins"
        case Advance():
            return f"experiment {change.name} goes on with stage {change.stage + 1} of its ramp"
        case End():
            return f"experiment {change.name} is {_ENDED[change.how]}, and everybody gets what is usual"
        case Ship():
            return f"experiment {change.name} ends, and everybody gets {change.variant}"
        case _ as other:
            assert_never(other)


def in_place(runtime: Runtime, scope: Scope, point: str) -> InPlace:
    """What acts at a point of one workspace in place of its own policy."""
    key = (scope.tenant, scope.workspace, point)
    with runtime.loop.lock:
        instead, trial = runtime.loop.standing.get(key), runtime.loop.assigning.get(key)
    shadow, action = (instead.shadow, instead.action) if instead is not None else ("", "")
    words = []
    if shadow:
        known = "" if runtime.loop.has(point, shadow) else ", which the settings have no more: its own policy does"
        words.append(f"the policy in shadow {shadow} decides{known}")
    elif action:
        words.append(f"always {action}")
    if trial is not None:
        stage = f"stage {trial.stage + 1} of {len(trial.plan.ramp)}"
        words.append(f"experiment {trial.plan.name} is under way, {stage}")
    name = trial.plan.name if trial is not None else ""
    return InPlace(shadow=shadow, action=action, experiment=name, told="; ".join(words))


def changed(decision: Decision) -> Change | None:
    """The change that a rollout's decision makes, None where it makes none."""
    try:
        return parse(decision.action) if decision.live else None
    except PolicyError:
        return None


def taken(hours: Iterable[DecisionHour]) -> tuple[Taken, ...]:
    """The actions of `hours`, the most chosen first."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0, 0.0, 0, 0.0])
    for hour in hours:
        row = sums[hour.action]
        for place, amount in enumerate((hour.chosen, hour.propensity_sum, hour.rewarded, hour.reward_sum)):
            row[place] += amount
    whole = sum(row[0] for row in sums.values()) or 1
    found = [
        Taken(
            action=action,
            chosen=int(chosen),
            share=chosen / whole,
            propensity=propensities / chosen if chosen else None,
            rewarded=int(rewarded),
            reward=rewards / rewarded if rewarded else None,
        )
        for action, (chosen, propensities, rewarded, rewards) in sums.items()
    ]
    return tuple(sorted(found, key=lambda one: (-one.chosen, one.action)))


def _standing(runtime: Runtime, scope: Scope, point: str, hours: Sequence[DecisionHour]) -> Standing:
    options = runtime.loop.points.get(point)
    return Standing(
        point=point,
        mode=runtime.loop.mode(point, scope) if options else "",
        set_mode=options.mode if options else "",
        policy=runtime.loop.policy_id(point) if options else "",
        shadows=tuple(shadow.name for shadow in options.shadows) if options else (),
        standing=in_place(runtime, scope, point),
        deciders=tuple(_deciders(hours)),
        named=taken(hour for hour in hours if hour.policy == NAMED and hour.live),
        scores=tuple(runtime.learner.scores(scope, point)) if options else (),
    )


def _deciders(hours: Iterable[DecisionHour]) -> list[Decider]:
    """Who chose in `hours`, the live ones first."""
    split: dict[tuple[bool, str], list[DecisionHour]] = defaultdict(list)
    for hour in hours:
        if hour.policy != NAMED:
            split[hour.live, hour.policy].append(hour)
    found: list[Decider] = []
    for (live, policy), theirs in sorted(split.items(), key=lambda pair: (not pair[0][0], pair[0][1])):
        actions = taken(theirs)
        found.append(Decider(policy=policy, live=live, chosen=sum(one.chosen for one in actions), actions=actions))
    return found
