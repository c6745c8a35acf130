"""Experiments for people: what there is, how one stands, and the steps that somebody takes, each by role.

A step is recorded as a decision at the point `rollout` (policies/rollout.py), so every worker follows it at the same
place. What the numbers say is in `improve/experiments`, which is loaded when somebody asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, get_args
from weakref import WeakKeyDictionary

import msgspec
from msgspec import Meta

from windlass.errors import InputError, PolicyError
from windlass.gateway.access.admission import Caller, require
from windlass.policies.rollout import Advance, Begin, Change, End, Ending, Ship
from windlass.policies.trials.plan import Plan
from windlass.policies.trials.tally import State, Trial
from windlass.records import Scope
from windlass.runtime import Runtime
from windlass.server import control
from windlass.server.control import Reason
from windlass.server.envelope import conflict
from windlass.server.points import Switch, turns
from windlass.server.reading import ExperimentAsked, ExperimentsAsked, read

if TYPE_CHECKING:
    from windlass.improve.experiments.view import ExperimentView, MetricView, Verdict

Arguments = dict[str, Any]
TOLD_CHARS = 500
"""Of what is wrong with a plan, which may be wrong in a thousand places."""
_ENTRIES = 20
"""Entries of the ledger that are looked at for each call that is wanted: a call leaves four to ten of them."""
_STEPS: WeakKeyDictionary[Runtime, asyncio.Lock] = WeakKeyDictionary()
"""Of two who press at once the second is refused before it is on record; on other workers the fold refuses it."""
STATES: tuple[str, ...] = get_args(State)
"""Words for how an experiment stands."""


class Listed(msgspec.Struct, frozen=True):
    """What the list tells of each, as in `ExperimentView`."""

    name: str
    id: str
    point: str
    owner: str
    state: str
    stage: int
    ramp: tuple[float, ...]
    deciding: bool
    size: int
    units: int
    started_at: float
    ended_at: float | None
    shipped: str
    decision: str
    leader: str
    withheld: bool
    sentence: str


class StartAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `experiment_start`. plan: as YAML or JSON text, or as a mapping."""

    plan: str | dict[str, Any]
    reason: Reason = ""


class PlanAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `experiment_plan`. newest: so many calls are looked at. power: the chance to find an effect."""

    plan: str | dict[str, Any]
    newest: Annotated[int, Meta(ge=100, le=20_000)] = 5_000
    power: Annotated[float, Meta(gt=0.5, lt=1.0)] = 0.8


class AdvanceAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `experiment_advance`. stage: counted from 1; without, the next one."""

    name: str
    point: str = ""
    stage: Annotated[int, Meta(ge=1, le=100)] | None = None
    reason: Reason = ""


class EndAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `experiment_stop` and `experiment_rollback`."""

    name: str
    point: str = ""
    reason: Reason = ""


class ShipAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `experiment_ship`. variant: without, the one that is better. force: although nothing says that it
    is; for a reason."""

    name: str
    point: str = ""
    variant: str = ""
    force: bool = False
    reason: Reason = ""


async def experiments(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """The experiments of the caller's workspace, the newest first: those under way, and those that ended last."""
    wanted = read(arguments, ExperimentsAsked)
    if wanted.state and wanted.state not in STATES:
        raise InputError(f"state is {wanted.state[:60]!r}; it must be one of {', '.join(STATES)}")
    return await asyncio.to_thread(_listed, runtime, caller.scope, wanted)


async def experiment(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """How one experiment stands: its plan, what came of it until now, what that says, and who took which step."""
    wanted = read(arguments, ExperimentAsked)
    return await asyncio.to_thread(_shown, runtime, caller.scope, wanted.name, wanted.point)


async def forecast(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """What is to be expected of a plan by the newest calls of its point: effects that it finds, days, costs."""
    require(caller, "operator")
    wanted = read(arguments, PlanAsked)
    plan = await asyncio.to_thread(planned, wanted.plan)
    require_possible(runtime, caller, plan)
    return await asyncio.to_thread(_forecast, runtime, caller.scope, plan, wanted)


async def start(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """Begin an experiment by its plan, which is recorded before the first call is assigned and never changes."""
    require(caller, "operator")
    wanted = read(arguments, StartAsked)
    plan = await asyncio.to_thread(planned, wanted.plan)
    require_possible(runtime, caller, plan)
    return await _taken(runtime, caller, Begin(plan), plan.name, wanted.reason)


async def advance(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """Go on with the next stage of an experiment's ramp at once, whatever has been seen of this one."""
    require(caller, "operator")
    wanted = read(arguments, AdvanceAsked)
    trial = await asyncio.to_thread(_under_way, runtime, caller.scope, wanted.name, wanted.point)
    stage = trial.stage + 1 if wanted.stage is None else wanted.stage - 1
    step = Advance(trial.plan.point, trial.plan.name, stage)
    return await _taken(runtime, caller, step, trial.plan.name, wanted.reason)


async def stop(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """End an experiment without a decision; everybody gets what is usual again."""
    return await _end(runtime, caller, read(arguments, EndAsked), "stop")


async def roll_back(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """End an experiment because it does harm; everybody gets what is usual again."""
    return await _end(runtime, caller, read(arguments, EndAsked), "rollback")


async def ship(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """End an experiment and give everybody the variant that is better; by force, and for a reason, any variant."""
    require(caller, "approver")
    wanted = read(arguments, ShipAsked)
    if wanted.force and not wanted.reason.strip():
        raise InputError("force needs a reason: say why it is shipped although nothing shows that it is better")
    trial = await asyncio.to_thread(_under_way, runtime, caller.scope, wanted.name, wanted.point)
    view = await asyncio.to_thread(viewed, trial)
    variant = _variant(trial.plan, view, wanted.variant)
    if not wanted.force:
        _require_better(view, variant)
    evidence = {"decision": view.decision, "sentence": view.sentence, "digest": view.digest, "forced": wanted.force}
    step = Ship(trial.plan.point, trial.plan.name, variant)
    return await _taken(runtime, caller, step, trial.plan.name, wanted.reason, evidence)


def find(runtime: Runtime, scope: Scope, name: str, point: str = "") -> Trial:
    """The experiment of that name or id as it stands now: the one under way, else the newest. InputError where there is
    none, or two are under way."""
    with runtime.loop.lock:
        known = runtime.learner.trials.of(scope)
        found = _meant(known, name, point)
        kept = [_kept(one) for one in found]
    if not found:
        at = f" at {point[:60]}" if point else ""
        names = ", ".join(dict.fromkeys(one.plan.name for one in known)) or "none"
        raise InputError(f"there is no experiment {name[:60]!r}{at}; there are: {names}")
    if len(found) > 1:
        points = ", ".join(one.plan.point for one in found)
        raise InputError(f"experiments of the name {name[:60]} are under way at {points}; give the point too")
    return kept[0]


def _kept(trial: Trial) -> Trial:
    """A copy: the fold goes on with its own while this one is looked at. Decoding what is known of 100,000 users would
    keep calls waiting for a tenth of a second, so they are taken over as they are, in one step."""
    bare = msgspec.structs.replace(trial, units={}, guarded={})
    copied = msgspec.msgpack.decode(msgspec.msgpack.encode(bare), type=Trial)
    copied.units = trial.units.copy()
    return copied


def _meant(known: Sequence[Trial], name: str, point: str) -> Sequence[Trial]:
    """Those that are meant by a name or an id: what is under way, else the newest of what is over."""
    found = [one for one in known if name in (one.plan.name, one.id) and point in ("", one.plan.point)]
    return [one for one in found if one.state == "running"] or found[:1]


def _under_way(runtime: Runtime, scope: Scope, name: str, point: str) -> Trial:
    """`find`, for a step of it. InputError (409) where it is over."""
    trial = find(runtime, scope, name, point)
    if trial.state != "running":
        raise conflict(f"experiment {trial.plan.name} is not under way any more: it is {trial.state}")
    return trial


def viewed(trial: Trial) -> ExperimentView:
    """What its numbers say."""
    from windlass.improve.experiments.verdict import view  # brings scipy, which no call needs

    return view(trial)


def planned(text: str | dict[str, Any]) -> Plan:
    """The plan that somebody handed in. InputError says what is wrong with it."""
    from windlass.improve.experiments.reading import plan_of

    try:
        return plan_of(text)
    except (InputError, PolicyError) as exc:
        told = str(exc)
        raise InputError(told if len(told) <= TOLD_CHARS else f"{told[:TOLD_CHARS]}…") from exc


def require_possible(runtime: Runtime, caller: Caller, plan: Plan) -> None:
    """InputError where the point, a shadow or an action of the plan is not there."""
    for variant in plan.variants:
        try:
            runtime.loop.require_shadow(plan.point, variant.shadow)
        except PolicyError as exc:
            raise InputError(f"variant {variant.name}: {exc}") from exc
        if variant.action:
            control.require_action(runtime, caller, plan.point, variant.action)


def history(runtime: Runtime, scope: Scope, plan: Plan) -> list[Switch]:
    """Who took which step of an experiment, newest first."""
    return [one for one in turns(runtime, scope, plan.point) if _name(one.change) == plan.name]


def _name(change: Change) -> str:
    """The experiment that a change is about; '' for any other change."""
    match change:
        case Begin():
            return change.plan.name
        case Advance() | End() | Ship():
            return change.name
        case _:
            return ""


def _listed(runtime: Runtime, scope: Scope, wanted: ExperimentsAsked) -> dict[str, Any]:
    with runtime.loop.lock:
        known = [
            one.id
            for one in runtime.learner.trials.of(scope)
            if wanted.point in ("", one.plan.point) and wanted.state in ("", one.state)
        ]
    views = (viewed(find(runtime, scope, id)) for id in known[: wanted.limit])
    return {"experiments": [msgspec.to_builtins(msgspec.convert(one, Listed, from_attributes=True)) for one in views]}


def _shown(runtime: Runtime, scope: Scope, name: str, point: str) -> dict[str, Any]:
    trial = find(runtime, scope, name, point)
    steps = [
        {"at": one.at, "told": one.told, "by": one.by, "reason": one.reason, "id": one.id}
        for one in history(runtime, scope, trial.plan)
    ]
    return {"experiment": _plain(viewed(trial)), "plan": msgspec.to_builtins(trial.plan), "history": steps}


def _forecast(runtime: Runtime, scope: Scope, plan: Plan, wanted: PlanAsked) -> dict[str, Any]:
    from windlass.improve.experiments import planning
    from windlass.improve.experiments.history import past

    after = max(0, runtime.ledger.head() - wanted.newest * _ENTRIES)
    calls = past(runtime.ledger, scope, plan, runtime.settings.reward, newest=wanted.newest, after=after)
    found = planning.forecast(plan, calls, power=wanted.power)
    return {"forecast": msgspec.to_builtins(found), "plan": msgspec.to_builtins(plan)}


def _plain(view: ExperimentView) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(view)
    return found


async def _end(runtime: Runtime, caller: Caller, wanted: EndAsked, how: Ending) -> dict[str, Any]:
    require(caller, "operator")
    trial = await asyncio.to_thread(_under_way, runtime, caller.scope, wanted.name, wanted.point)
    step = End(trial.plan.point, trial.plan.name, how)
    return await _taken(runtime, caller, step, trial.id, wanted.reason)


async def _taken(
    runtime: Runtime,
    caller: Caller,
    step: Change,
    name: str,
    reason: str,
    evidence: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Record a step, and say how the experiment stands after it."""
    async with _STEPS.setdefault(runtime, asyncio.Lock()):
        made = await control.roll_out(runtime, caller, step, reason, evidence)
    trial = await asyncio.to_thread(find, runtime, caller.scope, name, step.point)
    return {**made, "experiment": _plain(await asyncio.to_thread(viewed, trial))}


def _variant(plan: Plan, view: ExperimentView, wanted: str) -> str:
    """The variant that is to be shipped: the one that is named, else the one that the decision is about."""
    if wanted:
        try:
            return plan.variant(wanted).name
        except PolicyError as exc:
            raise InputError(str(exc)) from exc
    return view.leader or plan.candidates[0].name


def _require_better(view: ExperimentView, variant: str) -> None:
    """InputError (409) unless it is shown that a variant is better, and no guardrail speaks against it."""
    remedy = "wait, stop it, or ship it by force and say why"
    if view.withheld or view.decision != "better" or not _is(view.metrics[0], variant, "better"):
        raise conflict(f"nothing shows that {variant} is better: {view.sentence} {remedy.capitalize()}.")
    if against := _against(view, variant):
        raise conflict(f"{against}; {remedy}")


def _against(view: ExperimentView, variant: str) -> str:
    """What the guardrails say against a variant, '' for nothing: each holds, or was told as often as was planned."""
    guarded = [metric for metric in view.metrics if metric.role == "guardrail"]
    if worse := [metric.metric for metric in guarded if _is(metric, variant, "worse")]:
        return f"{variant} is worse in {', '.join(worse)}, which the plan guards"
    if thin := [metric.metric for metric in guarded if _unshown(view, metric, variant)]:
        known = f"nor are the {view.size:,} values of each known that were planned"
        return f"it is not shown that {variant} keeps {', '.join(thin)} within its margin, {known}"
    return ""


def _is(metric: MetricView, variant: str, verdict: Verdict) -> bool:
    return any((one.variant, one.verdict) == (variant, verdict) for one in metric.comparisons)


def _unshown(view: ExperimentView, metric: MetricView, variant: str) -> bool:
    """Whether a guardrail is not shown to hold for a variant, and has not been told as often as was planned either."""
    told = min(value.n for value in metric.values if value.variant in (variant, view.baseline))
    return not _is(metric, variant, "holds") and told < view.size
