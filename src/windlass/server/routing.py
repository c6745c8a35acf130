"""How a prompt would be routed, without a call, and why a call was routed as it was: `windlass route`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from windlass.errors import AccessError, ErrorCategory, InputError
from windlass.gateway.access.admission import Caller
from windlass.gateway.gateway import AUTO, POINT
from windlass.gateway.prompt import FEATURISER, features
from windlass.gateway.route import objectives
from windlass.gateway.route.features import ALLOWANCE, COST, EMBEDDING, Question
from windlass.gateway.route.options import ErrorPercent, Milliseconds
from windlass.gateway.transit import Request
from windlass.gateway.wire import Chat, parse_chat
from windlass.ledger import ids
from windlass.policies.floor import FloorOptions, FloorReport
from windlass.policies.joint_options import PRESETS
from windlass.policies.points import PointOptions
from windlass.policies.policy import Arm
from windlass.policies.slo_terms import SloReport
from windlass.records import DEFAULT_WORKSPACE, ContextValue, Decision, Scope
from windlass.runtime import Runtime
from windlass.server import terminal
from windlass.server.held import cost_words, floor_words, held, service_words, worth
from windlass.server.points import in_place
from windlass.server.reading import read
from windlass.server.terminal import escape

Arguments = dict[str, Any]
FLOOR_GUARD = "floor"


class RouteAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `route`: a `prompt`, a `chat` as the API takes it, or a `call` that was made.

    tenant, workspace: whose policy; without, the caller's. objective, quality_floor, max_latency_ms and
    max_error_percent as in the headers of a request.
    """

    prompt: str = ""
    chat: dict[str, Any] | None = None
    call: str = ""
    tenant: str = ""
    workspace: str = ""
    objective: str = ""
    quality_floor: Annotated[float, Meta(gt=0, le=100)] | None = None
    max_latency_ms: Milliseconds | None = None
    max_error_percent: ErrorPercent | None = None


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What is expected of one model. quality: None where the policy estimates none; sd: its deviation.

    cost_nusd: by the price list, None without a price; expected_nusd: by what calls did cost, None where the policy
    learns no costs; chance: of being chosen; rewards: that stand behind it.
    """

    model: str
    quality: float | None
    sd: float | None
    cost_nusd: float | None
    expected_nusd: float | None
    chance: float
    rewards: int


async def route(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """How a prompt would be routed now, or why a call was routed as it was. Nothing is called and nothing learned."""
    wanted = read(arguments, RouteAsked)
    given = [bool(wanted.prompt), wanted.chat is not None, bool(wanted.call)]
    if sum(given) != 1:
        raise InputError("give one of prompt, chat and call")
    caller = speaking(caller, wanted.tenant, wanted.workspace)
    if wanted.call:
        return await asyncio.to_thread(_past, runtime, caller.scope, wanted.call)
    return await _preview(runtime, caller, wanted)


def line(models: Sequence[Expected], floor: float | None) -> str:
    """The models in one line, the likeliest first.

    `a: predicted quality 0.91 +- 0.03, floor 0.90, 0.0007 USD, p 0.82; b: ...`
    """
    return "; ".join(_told(one, floor) for one in sorted(models, key=lambda one: -one.chance))


def floor_of(options: PointOptions, context: Mapping[str, ContextValue], arms: Sequence[Arm]) -> float | None:
    """The quality that is predicted of the reference model for this prompt, times the percentage that is wanted of it;
    None where none is wanted, or nothing is predicted.

    Wanted by the guard `floor`, or else by the call, or else by the policy's own options.
    """
    guards = (guard.options for guard in options.guards if guard.guard == FLOOR_GUARD)
    guard = next(guards, None)
    own: Mapping[str, Any] = options.options
    percent: object
    if guard is not None:
        kept = floor_options(guard)
        percent, reference = kept.share_of_reference, kept.reference
    else:
        presets = (preset for name, preset in PRESETS.items() if context.get(f"{objectives.PREFIX}{name}"))
        percent = context.get(objectives.FLOOR) or next(presets, own).get("quality_percent")
        reference = own.get("reference", "")
    means = {arm.action: arm.mean for arm in arms if arm.mean is not None}
    if not (isinstance(percent, float | int) and percent and means):
        return None
    return means.get(str(reference), max(means.values())) * percent / 100.0


def expected(
    arms: Sequence[Arm], context: Mapping[str, ContextValue], costs_nusd: Sequence[float] = ()
) -> tuple[Expected, ...]:
    """What a policy knows of each model, with the costs that its context names. costs_nusd: those that it learned, of
    each model, or none."""
    costs = (context.get(f"{COST}{arm.action}") for arm in arms)
    learned: Sequence[float | None] = costs_nusd or (None,) * len(arms)
    return tuple(
        Expected(
            model=arm.action,
            quality=arm.mean,
            sd=arm.sd,
            cost_nusd=cost if isinstance(cost, float | int) else None,
            expected_nusd=own,
            chance=arm.probability,
            rewards=arm.observations,
        )
        for arm, cost, own in zip(arms, costs, learned, strict=True)
    )


def floor_options(given: Mapping[str, Any]) -> FloorOptions:
    """The options of the guard `floor`, with what they are by default."""
    return msgspec.convert(given, FloorOptions)


def speaking(caller: Caller, tenant: str, workspace: str) -> Caller:
    """The caller, or who owns this machine in the place of another tenant. AccessError for anybody else."""
    tenant = tenant or caller.scope.tenant
    if (tenant, workspace or caller.scope.workspace) == (caller.scope.tenant, caller.scope.workspace):
        return caller
    if caller.key:
        has = f"key {caller.key!r} sees tenant {caller.scope.tenant!r}, workspace {caller.scope.workspace!r} alone"
        raise AccessError(has, category=ErrorCategory.SCOPE_DENIED)
    return msgspec.structs.replace(caller, scope=Scope(tenant, workspace or DEFAULT_WORKSPACE))


async def _preview(runtime: Runtime, caller: Caller, wanted: RouteAsked) -> dict[str, Any]:
    chat = _chat(wanted)
    numbers = (wanted.quality_floor, wanted.max_latency_ms, wanted.max_error_percent)
    wish = objectives.wish(wanted.objective, *("" if number is None else f"{number!r}" for number in numbers))
    request = Request(chat.raw, caller=caller, wish=wish)
    question = runtime.gateway.question(request, chat, caller, looks=True)
    context, featuriser, missing = await _context(runtime, chat, question)
    actions = tuple(target.model.name for target in question.targets)
    arms = await asyncio.to_thread(runtime.loop.explain, POINT, caller.scope, context, actions)
    _, decided = runtime.loop.decide(
        POINT,
        call_id=ids.new("call", question.now),
        at=question.now,
        scope=caller.scope,
        context=context,
        actions=actions,
        featuriser=featuriser,
    )
    return {
        **_shown(runtime, caller.scope, arms, context, featuriser),
        "missing": missing,
        "why": str(decided[0].extra.get("why", "")),
        "fallback": decided[0].fallback,
        "made": None,
    }


async def _context(runtime: Runtime, chat: Chat, question: Question) -> tuple[dict[str, ContextValue], str, str]:
    """(what the policy would see, by which featuriser, why there is no embedding in it)."""
    if runtime.router is None:
        return features(chat), FEATURISER, "no policy asks for embeddings"
    seen = await runtime.router.seen(question)
    return seen.context, seen.featuriser, seen.missing


def _past(runtime: Runtime, scope: Scope, call: str) -> dict[str, Any]:
    """Why a call was routed as it was: what was recorded, and what would be expected of its context by now."""
    if "\x00" in call:
        raise InputError("the id of a call holds no NUL character")
    trace = runtime.ledger.trace(scope, call)
    if trace is None:
        raise InputError(f"there is no call {call[:100]!r} here; `windlass calls` lists those there are")
    decision = next((one for one in trace.decisions if one.point == POINT and one.live), None)
    if decision is None:
        raise InputError(f"nothing was to be decided about the model of {call[:100]}: its endpoint leaves no choice")
    arms = runtime.loop.explain(POINT, scope, decision.context, decision.actions) if decision.context else ()
    return {
        **_shown(runtime, scope, arms, decision.context, decision.featuriser),
        "missing": "" if decision.context else "its context has been deleted since",
        "why": str(decision.extra.get("why", "")),
        "fallback": decision.fallback,
        "made": _made(decision, trace.outcome.model if trace.outcome is not None else ""),
    }


def _made(decision: Decision, answered: str) -> dict[str, Any]:
    """What was recorded of a decision, and who answered in the end."""
    return {
        "call": decision.call,
        "at": decision.at,
        "policy": decision.policy,
        "action": decision.action,
        "propensity": float(decision.propensity),
        "answered": answered,
    }


def _shown(
    runtime: Runtime,
    scope: Scope,
    arms: Sequence[Arm],
    context: Mapping[str, ContextValue],
    featuriser: str,
) -> dict[str, Any]:
    kept = held(runtime.loop, scope, context, [arm.action for arm in arms])
    models, floor = expected(arms, context, kept.expected_nusd), floor_of(runtime.loop.points[POINT], context, arms)
    return {
        "tenant": scope.tenant,
        "workspace": scope.workspace,
        "policy": runtime.loop.policy_id(POINT),
        "mode": runtime.loop.mode(POINT, scope),
        "standing": msgspec.to_builtins(in_place(runtime, scope, POINT)),
        "featuriser": featuriser,
        "objectives": {name: value for name, value in context.items() if name.startswith(objectives.PREFIX)},
        "allowance_nusd": context.get(ALLOWANCE),
        "embedded": EMBEDDING in context,
        "models": msgspec.to_builtins(models),
        "quality_per_usd": kept.quality_per_usd,
        "floor": floor,
        "floors": [report._asdict() for report in kept.floors],
        "service": None if kept.service is None else [report._asdict() for report in kept.service],
        "line": line(models, floor),
    }


def _chat(wanted: RouteAsked) -> Chat:
    """The chat that is asked about, for `auto` unless it names a model."""
    body = {"messages": [{"role": "user", "content": wanted.prompt}]} if wanted.chat is None else wanted.chat
    try:
        return parse_chat(msgspec.json.encode({"model": AUTO, **body}))
    except (TypeError, ValueError, RecursionError) as exc:
        raise InputError(f"the chat cannot be written as JSON: {exc}") from exc


def _told(one: Expected, floor: float | None) -> str:
    parts = [] if one.quality is None else [f"predicted quality {one.quality:.2f} +- {one.sd or 0.0:.2f}"]
    parts += [] if floor is None else [f"floor {floor:.2f}"]
    if one.cost_nusd is not None:
        parts.append(cost_words(one.cost_nusd if one.expected_nusd is None else one.expected_nusd))
    return f"{one.model}: {', '.join((*parts, f'p {one.chance:.2f}'))}"


def show(answer: dict[str, Any], *, as_json: bool) -> int:
    """Print the answer of `route`; returns the exit code."""
    if as_json:
        terminal.print_json(answer)
        return 0
    out, made = terminal.console(), answer["made"]
    whose = f"{answer['policy']}, {answer['mode']}, tenant {answer['tenant']}, workspace {answer['workspace']}"
    if made is not None:
        answered = f"; {made['answered']} answered" if made["answered"] not in ("", made["action"]) else ""
        chose = f"{made['policy']} chose {made['action']} with a chance of {made['propensity']:.3f}{answered}"
        out.print(f"[bold]{escape(terminal.clean(chose))}[/bold] ({terminal.when(made['at'])} UTC)")
        out.print("By what is known now:" if answer["models"] else "")
    out.print(escape(terminal.clean(answer["line"] or "Nothing is known of its models.")))
    out.print(f"[dim]{escape(terminal.clean(whose))}; features: {escape(terminal.clean(answer['featuriser']))}[/dim]")
    if answer["standing"]["told"]:
        out.print(f"[dim]now: {escape(terminal.clean(answer['standing']['told']))}[/dim]")
    notes = {"why": "then" if made is not None else "policy", "fallback": "fell back", "missing": "features"}
    for name, word in notes.items():
        if answer[name]:
            out.print(f"[dim]{word}: {escape(terminal.clean(answer[name]))}[/dim]")
    for word in _paces(answer):
        out.print(f"[dim]{escape(terminal.clean(word))}[/dim]")
    return 0


def _paces(answer: dict[str, Any]) -> list[str]:
    """What the budget leaves, what money is worth, and what is known of the floors, in words."""
    words = []
    if answer["allowance_nusd"] is not None:
        words.append(f"budget: {cost_words(answer['allowance_nusd'])} a call from now on")
    if answer["quality_per_usd"] is not None:
        words.append(f"price of money: {worth(answer['quality_per_usd'])}")
    words += [floor_words(FloorReport(**report)) for report in answer["floors"]]
    return words + [service_words(SloReport(**report)) for report in answer["service"] or ()]
