"""How a warm start stands, and what one would cost and teach, before it begins and while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from windlass.errors import ModelUnknown
from windlass.gateway.access.admission import Caller, require
from windlass.gateway.gateway import POINT
from windlass.gateway.money.pricelist import PriceBook
from windlass.gateway.money.prices import cost_nusd
from windlass.gateway.money.usage import Usage
from windlass.improve.grading.cases import OWN_PARENT
from windlass.improve.warm.plan import PastCall, WarmPlan, planned
from windlass.improve.warm.prompt import PARENT
from windlass.improve.warm.store import WarmTable
from windlass.ledger.ledger import CallTrace
from windlass.policies.policy import Arm
from windlass.records import Decision, Scope
from windlass.runtime import Runtime
from windlass.server.reading import read

Arguments = dict[str, Any]
Answer = dict[str, Any]
NEWEST = 500
"""So many calls a plan goes by."""
USUAL = 300
"""Prompts that are planned where neither the settings nor whoever asks names a number."""
NUSD = 1e9


class WarmAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `warm_start`. prompts: how many are planned; without, as many as are set."""

    prompts: Annotated[int, Meta(ge=1, le=10_000)] | None = None


async def warm_start(runtime: Runtime, caller: Caller, arguments: Arguments) -> Answer:
    """How far it is, and what so many prompts will cost and teach. Nobody is called."""
    require(caller, "operator")
    wanted = read(arguments, WarmAsked).prompts
    return await asyncio.to_thread(_told, runtime, caller, wanted)


def findings(runtime: Runtime) -> list[str]:
    """What keeps a warm start that is set from working, a sentence each."""
    if not runtime.settings.routing.warm_start_prompts:
        return []
    if POINT not in runtime.loop.taught:
        policy = runtime.loop.policy_id(POINT)
        return [f"routing.warm_start_prompts is set, but {policy} at the point {POINT} learns nothing; set it to 0"]
    if runtime.loop.points[POINT].mode != "live":
        has = f"routing.warm_start_prompts is set, but points.{POINT}.mode is {runtime.loop.points[POINT].mode}"
        return [f"{has}: prompts are asked again where a policy acts; set the mode to live, or this to 0"]
    prices = _prices(runtime)
    models = runtime.settings.gateway.auto or runtime.gateway.providers.routable()
    unpriced = [model for model in models if _cost(runtime, prices, model, 1_000_000, 1_000_000) is None]
    if not unpriced:
        return []
    has = f"routing.warm_start_prompts is set, but nobody knows the price of {', '.join(unpriced)}"
    return [f"{has}, so that prompts which they would answer are passed over; set their prices"]


def standing(runtime: Runtime, caller: Caller) -> Answer | None:
    """How far the warm start of the caller's workspace is, None where it is off."""
    return _stands(runtime, caller) if runtime.settings.routing.warm_start_prompts else None


def _told(runtime: Runtime, caller: Caller, wanted: int | None) -> Answer:
    options, scope = runtime.settings.routing, caller.scope
    traces = _routed(runtime, scope)
    models = traces[0][1].actions if traces else ()
    prices = _prices(runtime)
    unpriced = _unpriced(runtime, prices, models)
    past = [_past(trace) for trace, _ in traces]
    budget = options.warm_start_budget_usd * NUSD or float("inf")
    plan = planned(
        past,
        models,
        lambda model, into, out: _cost(runtime, prices, model, into, out) or 0.0,
        wanted or options.warm_start_prompts or USUAL,
        budget,
    )
    learned = runtime.loop.explain(POINT, scope, traces[0][1].context, models) if models else ()
    return {
        "progress": _stands(runtime, caller),
        "plan": None if plan is None or unpriced else _planned(plan, learned),
        "unpriced": unpriced,
        "graders": sorted(runtime.settings.graders),
        "findings": [] if caller.key else findings(runtime),
    }


def _unpriced(runtime: Runtime, prices: PriceBook, models: Sequence[str]) -> list[str]:
    return [model for model in models if _cost(runtime, prices, model, 1, 1) is None]


def _stands(runtime: Runtime, caller: Caller) -> Answer:
    """Of the caller's own workspace; budget and counts, which are those of all tenants, for who owns this machine."""
    options, warm, table, all_told = runtime.settings.routing, runtime.warm, WarmTable(runtime.db), not caller.key
    done = table.progress(caller.scope)
    state = "off"
    if options.warm_start_prompts:
        state = "done" if done.prompts >= options.warm_start_prompts else "going on"
    if warm is not None and state == "going on" and warm.short:
        state = "budget"
    return {
        "state": state,
        "prompts": done.prompts,
        "prompts_wanted": options.warm_start_prompts,
        "answers": done.answers,
        "unknown": done.open,
        "cost_usd": done.cost_nusd / NUSD,
        "spent_usd": table.spent_nusd() / NUSD if all_told else None,
        "budget_usd": options.warm_start_budget_usd if all_told else None,
        "passed_over": dict(sorted(warm.passed_over.items())) if warm is not None and all_told else {},
    }


def _planned(plan: WarmPlan, learned: Sequence[Arm]) -> Answer:
    arms = {arm.action: arm for arm in learned}
    return {
        "prompts": plan.prompts,
        "calls_seen": plan.seen,
        "usd": plan.cost_nusd / NUSD,
        "usd_low": plan.low_nusd / NUSD,
        "usd_high": plan.high_nusd / NUSD,
        "usd_a_prompt": plan.prompt_nusd / NUSD,
        "prompts_affordable": int(plan.affordable),
        "models": [
            {
                "model": share.model,
                "answers": round(share.answers),
                "usd": share.cost_nusd / NUSD,
                "rewards_so_far": arms[share.model].observations if share.model in arms else 0,
                "quality": arms[share.model].mean if share.model in arms else None,
                "sd": arms[share.model].sd if share.model in arms else None,
            }
            for share in plan.shares
        ],
    }


def _routed(runtime: Runtime, scope: Scope) -> list[tuple[CallTrace, Decision]]:
    """The newest calls that a model was chosen for among several, and their choices; the newest first."""
    found = []
    for trace in runtime.ledger.calls(scope, limit=NEWEST):
        made = next((one for one in trace.decisions if one.point == POINT and one.live and len(one.actions) > 1), None)
        ended = trace.outcome is not None and not trace.outcome.error and trace.outcome.status < 400
        if made is not None and ended and not trace.call.parent.startswith((PARENT, OWN_PARENT)):
            found.append((trace, made))
    return found


def _past(trace: CallTrace) -> PastCall:
    assert trace.outcome is not None, "of calls that ended"
    return PastCall(trace.outcome.model, trace.outcome.prompt_tokens, trace.outcome.completion_tokens)


def _prices(runtime: Runtime) -> PriceBook:
    return PriceBook({one.name: (one.kind, one.base_url) for one in runtime.settings.providers})


def _cost(runtime: Runtime, prices: PriceBook, model: str, into: int, out: int) -> float | None:
    """Nano-dollars of a call; None where there is no such model, or nobody knows its price."""
    try:
        provider, options = runtime.gateway.providers.find(model)
    except ModelUnknown:
        return None
    if provider.local:
        return 0.0
    price = prices.of(provider.name, options)
    return float(cost_nusd(price, Usage(prompt_tokens=into, completion_tokens=out))) if price.priced else None
