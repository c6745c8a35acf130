"""Rollouts: what people decide about a decision point, as a Decision at the reserved point `rollout`.

The action says what changes, for the tenant's workspace of the decision alone, from its place in the ledger on:

    <point>:mode=<off|shadow|live>    the mode, whatever the settings say
    <point>:mode=settings             the mode of the settings again
    <point>:snapshot=<cursor>         what the point's policy had learned after the ledger entry <cursor>; 0: nothing
    <point>:policy=<shadow|settings>  within the point's guards the policy of that shadow decides, or again the own one
    <point>:action=<action>           within the point's guards always this action, until `policy=settings`
    <point>:experiment=<plan>         an experiment begins, by its plan as JSON (trials/plan.py)
    <point>:trial=<name>:<step>       the experiment under way is taken a step: `stage=<number>` of its ramp, `stop`,
                                      `rollback` (both: everybody gets what is usual), or `ship=<variant>`
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, assert_never

import msgspec

from windlass.errors import PolicyError
from windlass.policies.points import ROLLOUT, Mode
from windlass.policies.trials.plan import Plan
from windlass.policies.trials.plan import parse as parse_plan
from windlass.policies.trials.plan import spell as spell_plan
from windlass.records import Decision, Scope

MANUAL = "manual@1"
MODES: tuple[Mode | Literal["settings"], ...] = ("off", "shadow", "live", "settings")
SETTINGS = "settings"
_POINT = r"([^\x00-\x1f\x7f]{1,200}?)"
_WORD = r"([^\x00-\x1f\x7f]{1,200})"
_GRAMMAR = re.compile(rf"{_POINT}:(?:mode=([a-z]+)|snapshot=(0|[1-9][0-9]{{0,18}}))\Z")
_DECIDER = re.compile(rf"{_POINT}:(policy|action)={_WORD}\Z")
_EXPERIMENT = re.compile(rf"{_POINT}:experiment=(\{{.*\}})\Z", re.DOTALL)
_STEP = re.compile(
    rf"{_POINT}:trial=([A-Za-z0-9_.-]{{1,40}}):(?:(stop|rollback)|stage=([0-9]{{1,2}})|ship=([A-Za-z0-9_.-]{{1,40}}))\Z"
)
_BY_CHARS, _REASON_CHARS = 200, 1_000
Ending: TypeAlias = Literal["stop", "rollback"]


class SetMode(msgspec.Struct, frozen=True):
    """From now on `point` is decided in `mode`."""

    point: str
    mode: Mode | Literal["settings"]


class RollBack(msgspec.Struct, frozen=True):
    """The policy of `point` is again what it was after the ledger entry with sequence number `cursor`."""

    point: str
    cursor: int


class Promote(msgspec.Struct, frozen=True):
    """From now on the point's shadow policy of that name decides within the point's guards; "": the point's own."""

    point: str
    shadow: str = ""


class Always(msgspec.Struct, frozen=True):
    """From now on `action` is taken within the point's guards."""

    point: str
    action: str


class Begin(msgspec.Struct, frozen=True):
    """The experiment of `plan` begins."""

    plan: Plan

    @property
    def point(self) -> str:
        return self.plan.point


class Advance(msgspec.Struct, frozen=True):
    """The experiment `name` under way at `point` goes on with that stage of its ramp."""

    point: str
    name: str
    stage: int


class End(msgspec.Struct, frozen=True):
    """The experiment `name` ends, and everybody gets what is usual at the point."""

    point: str
    name: str
    how: Ending


class Ship(msgspec.Struct, frozen=True):
    """The experiment `name` ends, and everybody gets that variant."""

    point: str
    name: str
    variant: str


Change: TypeAlias = SetMode | RollBack | Promote | Always | Begin | Advance | End | Ship


def parse(action: str) -> Change:
    """The change that an action of the point `rollout` names. PolicyError for anything else."""
    found = _GRAMMAR.match(action)
    if found is None:
        change = _decider(action) or _experiment(action)
        if change is None:
            known = "mode, snapshot, policy, action, experiment or trial"
            raise PolicyError(f"rollout {action[:80]!r} is none: write <point>:<what>=..., {known}")
        return change
    point, mode, cursor = found.groups()
    if cursor is not None:
        return RollBack(point, int(cursor))
    for known in MODES:
        if mode == known:
            return SetMode(point, known)
    raise PolicyError(f"rollout to mode {mode!r}; known: {', '.join(MODES)}")


def spell(change: Change) -> str:
    """The action that `parse` reads as `change`."""
    match change:
        case SetMode():
            return f"{change.point}:mode={change.mode}"
        case RollBack():
            return f"{change.point}:snapshot={change.cursor}"
        case Promote():
            return f"{change.point}:policy={change.shadow or SETTINGS}"
        case Always():
            return f"{change.point}:action={change.action}"
        case Begin():
            return f"{change.point}:experiment={spell_plan(change.plan)}"
        case Advance():
            return f"{change.point}:trial={change.name}:stage={change.stage}"
        case End():
            return f"{change.point}:trial={change.name}:{change.how}"
        case Ship():
            return f"{change.point}:trial={change.name}:ship={change.variant}"
        case _ as other:
            assert_never(other)


def _decider(action: str) -> Change | None:
    """Who decides from now on."""
    found = _DECIDER.match(action)
    if found is None:
        return None
    point, what, name = found.groups()
    if what == "action":
        return Always(point, name)
    return Promote(point, "" if name == SETTINGS else name)


def _experiment(action: str) -> Change | None:
    """What becomes of an experiment."""
    if found := _EXPERIMENT.match(action):
        plan = parse_plan(found[2])
        if plan.point != found[1]:
            raise PolicyError(f"experiment {plan.name} is of the point {plan.point!r}, not {found[1][:80]!r}")
        return Begin(plan)
    found = _STEP.match(action)
    if found is None:
        return None
    point, name, ending, stage, variant = found.groups()
    if stage is not None:
        return Advance(point, name, int(stage))
    if variant is not None:
        return Ship(point, name, variant)
    return End(point, name, "stop" if ending == "stop" else "rollback")


def rollout(
    change: Change,
    *,
    id: str,
    at: float,
    scope: Scope,
    by: str,
    reason: str = "",
    kept: Sequence[int] = (),
    evidence: Mapping[str, Any] | None = None,
) -> Decision:
    """The Decision that makes `change` for `scope` once it is in the ledger.

    id: a new typed id (`decision_...`). at: UTC seconds. by: who decided, `reason` why, both as plain words. kept: the
    cursors of the snapshots there are to choose from. evidence: the numbers that it was decided by. PolicyError where
    a part makes no sense.
    """
    action = spell(change)
    if parse(action) != change:
        raise PolicyError(f"{change} cannot be recorded as {action!r}; name the point in one line of plain characters")
    if not 0 < len(by.strip()) <= _BY_CHARS or len(reason) > _REASON_CHARS:
        raise PolicyError(f"by {by[:80]!r}, reason of {len(reason)} characters; say who, and why in {_REASON_CHARS}")
    match change:
        case SetMode():
            alternatives = [spell(SetMode(change.point, mode)) for mode in MODES]
        case RollBack():
            cursors = sorted({*kept, change.cursor})
            alternatives = [spell(RollBack(change.point, cursor)) for cursor in cursors]
        case _:
            alternatives = [action]
    return Decision(
        id=id,
        at=at,
        tenant=scope.tenant,
        workspace=scope.workspace,
        call=id,
        point=ROLLOUT,
        policy=MANUAL,
        actions=tuple(alternatives),
        action=action,
        propensity=1.0,
        live=True,
        extra={"by": by, "reason": reason} | ({"evidence": dict(evidence)} if evidence else {}),
    )
