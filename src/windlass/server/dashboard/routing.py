"""The page of the router: where calls go, what it believes of each model, what that costs, why a call went there."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from windlass.errors import InputError
from windlass.gateway.access.admission import Caller
from windlass.gateway.gateway import POINT
from windlass.gateway.route.features import ALLOWANCE
from windlass.policies.floor import FloorReport
from windlass.policies.points import NAMED
from windlass.policies.policy import Arm
from windlass.records import Decision, Scope
from windlass.runtime import Runtime
from windlass.server import clusters, frontier, routing, warm
from windlass.server.budgets import BudgetCount, standing
from windlass.server.dashboard import burning, charts, pacing, scatter, stacks, words
from windlass.server.dashboard.against import against
from windlass.server.dashboard.deciding import verdict
from windlass.server.dashboard.ranges import RANGES, Range, address, asked, chosen
from windlass.server.dashboard.site import Site
from windlass.server.held import Held, cost_words, held, worth
from windlass.server.points import standings, taken
from windlass.watch.store import HOUR_S, DecisionHour, hour_of

NEWEST = 10
LOOK_BACK = 100
BUDGETS = 2
FLOOR = "floor"
_MOVED = re.compile(r"(?:^|; )floor(?: of .+?)?: routed ")


@dataclass(frozen=True)
class Believed:
    """What the live policy believes of one model for a prompt like the newest one. listed, cost: of a call, by the
    price list and by what calls did cost; "" where it is not known."""

    arm: Arm
    drawing: Markup
    listed: str
    cost: str


@dataclass(frozen=True)
class Burning:
    """One budget through its window."""

    count: BudgetCount
    drawing: Markup
    outlook: str
    points: tuple[tuple[float, str], ...]


async def page(site: Site, request: Request) -> Response:
    """Everything about the point `model`; with `call`, why that one went where it did."""
    caller, picked, call = site.access.caller(request), chosen(request), asked(request, "call")
    counts, _ = await standing(site.runtime, caller, most=1)
    explained, missing = await _explained(site.runtime, caller, call)
    grouped = await clusters.shown(site.runtime, caller.scope)

    def drawn() -> Response:
        runtime, scope = site.runtime, caller.scope
        head, now = runtime.overview.cursor, runtime.clock()
        newest = _choices(runtime, scope)
        paced = pacing.paces(newest)
        typical = next((decision for decision in newest if decision.context), None)
        context, actions = (typical.context, typical.actions) if typical is not None else ({}, ())
        kept = held(runtime.loop, scope, context, actions)
        found = frontier.frontier(runtime, scope, picked.since(now))
        stands = next(iter(standings(runtime, scope, picked.since(now), POINT)), None)
        view = {
            "head": head,
            "now": now,
            "chosen": picked,
            "ranges": [(one, address("/routing", {"range": one.name, "call": call})) for one in RANGES],
            "stands": stands,
            "shares": _shares(runtime, scope, picked, now),
            "believed": _believed(runtime, scope, typical, kept),
            "frontier": found,
            "scatter": scatter.drawing("frontier-drawing", found),
            "scatter_told": scatter.verdict(found),
            "budgets": _budgets(counts, now),
            "warm": warm.standing(runtime, caller),
            "paced": "" if kept.quality_per_usd is None else worth(kept.quality_per_usd),
            "paces": paced,
            "pace": pacing.drawing("pacing-drawing", paced),
            "against": against(stands.scores if stands is not None else ()),
            "against_told": verdict(stands.scores if stands is not None else ()),
            "floor": _floor(runtime, newest, kept.floors),
            "service": kept.service,
            "grouped": grouped,
            "newest": newest[:NEWEST],
            "explained": explained,
            "missing": missing,
            "said": said,
            "cost_words": cost_words,
            "call": call,
        }
        return site.page(request, "routing.html", view)

    return await asyncio.to_thread(drawn)


async def _explained(runtime: Runtime, caller: Caller, call: str) -> tuple[dict[str, Any] | None, str]:
    """Why a call went where it did, and where nothing of that is known the reason."""
    if not call:
        return None, ""
    try:
        return await routing.route(runtime, caller, {"call": call}), ""
    except InputError as exc:
        return None, str(exc)


def said(account: str) -> str:
    """A policy's account of itself as people write it. Its numbers stay: a cost of 0.00037 USD is not 0.000."""
    return account.replace("+-", "±")


def _choices(runtime: Runtime, scope: Scope) -> list[Decision]:
    """The newest live decisions with a real choice, newest first."""
    newest = runtime.ledger.decisions(scope, point=POINT, limit=LOOK_BACK)
    return [decision for decision in newest if decision.live and len(decision.actions) > 1]


def _shares(runtime: Runtime, scope: Scope, picked: Range, now: float) -> dict[str, Any]:
    """How often each model was chosen by the hour, where there was a choice."""
    hours = _live(runtime.rollups.decisions(scope, min(picked.axis(0.0, now)), point=POINT))
    start, end = map(hour_of, picked.axis(hours[0].hour if hours else now, now))
    shown = [hour for hour in hours if hour.hour >= start]
    times = range(start, end + HOUR_S, HOUR_S)
    everything = taken(shown)
    names = [one.action for one in everything[: stacks.TONES]]
    parts = _parts(shown, times, names)
    said = "; ".join(f"{one.action} {words.percent(one.share)}" for one in everything) or "Nothing was chosen."
    title = "Share of each model by hour"
    drawing = stacks.stacked("routing-shares", title, said, times, parts, shares=True)
    return {"drawing": drawing, "key": tuple(enumerate(names)), "rows": _rows(times, parts)}


def _live(hours: Sequence[DecisionHour]) -> list[DecisionHour]:
    """What was chosen among two or more."""
    return [hour for hour in hours if hour.live and hour.policy != NAMED]


def _rows(times: Sequence[int], parts: Sequence[stacks.Part]) -> list[tuple[int, list[str]]]:
    """How often each part was chosen in an hour, newest first, without the hours in which none was."""
    counts = ((at, [part.values[place] or 0.0 for part in parts]) for place, at in enumerate(times))
    rows = [(at, [words.count(int(count)) for count in each]) for at, each in counts if any(each)]
    return rows[::-1]


def _parts(live: Sequence[DecisionHour], times: Sequence[int], names: Sequence[str]) -> list[stacks.Part]:
    counts: dict[tuple[int, str], int] = defaultdict(int)
    for hour in live:
        counts[hour.hour, hour.action] += hour.chosen
    return [stacks.Part(name, [float(counts[at, name]) or None for at in times]) for name in names]


def _believed(runtime: Runtime, scope: Scope, typical: Decision | None, kept: Held) -> dict[str, Any] | None:
    """What stands behind a choice like the newest one whose context is kept; None where there is none."""
    if typical is None:
        return None
    arms = runtime.loop.explain(POINT, scope, typical.context, typical.actions)
    floor = routing.floor_of(runtime.loop.points[POINT], typical.context, arms)
    expected = routing.expected(arms, typical.context, kept.expected_nusd if arms else ())
    rows = [
        Believed(arm, drawing, _cost(one.cost_nusd), _cost(one.expected_nusd))
        for arm, drawing, one in zip(arms, _intervals(arms), expected, strict=True)
    ]
    why = said(str(typical.extra.get("why", "")))
    allowed = typical.context.get(ALLOWANCE)
    return {
        "decision": typical,
        "rows": sorted(rows, key=lambda row: -row.arm.probability),
        "why": why,
        "floor": floor,
        "allowance": cost_words(allowed) if isinstance(allowed, float | int) else "",
    }


def _cost(nusd: float | None) -> str:
    return "" if nusd is None else cost_words(nusd)


def _intervals(arms: Sequence[Arm]) -> list[Markup]:
    """Each model's expected quality, all on one scale; nothing of a model that the policy expects nothing of."""
    edges = [(arm.mean, arm.sd or 0.0) for arm in arms if arm.mean is not None]
    low = min([0.0, *(mean - sd for mean, sd in edges)])
    high = max([1.0, *(mean + sd for mean, sd in edges)])
    return [
        charts.interval(f"believed-{place}", arm.action, arm.mean, arm.sd or 0.0, low=low, high=high)
        if arm.mean is not None
        else Markup("")
        for place, arm in enumerate(arms)
    ]


def _budgets(counts: Sequence[BudgetCount], now: float) -> list[Burning]:
    """The budgets that a caller may see, with what is left of them through their window."""
    found = [one for one in counts if one.measure == "usd" and one.used is not None and one.series]
    return [
        Burning(
            one,
            burning.burn_down(f"burning-{place}", one, now),
            burning.outlook(one, now),
            tuple((at, words.usd(max(0, one.most - used))) for at, used in reversed(one.series)),
        )
        for place, one in enumerate(found[:BUDGETS])
    ]


def _floor(runtime: Runtime, newest: Sequence[Decision], reports: Sequence[FloorReport]) -> dict[str, Any] | None:
    """The guard `floor` of the live policy: its options, what it did of late and what it knows; None where there is
    none."""
    guards = runtime.loop.points[POINT].guards
    guard = next((one for one in guards if one.guard == FLOOR), None)
    if guard is None:
        return None
    return {
        "options": routing.floor_options(guard.options),
        "moved": sum(_is_moved(decision.fallback) for decision in newest),
        "of": len(newest),
        "verdict": floor_verdict(reports),
        "reports": reports,
    }


def _is_moved(fallback: str) -> bool:
    """Whether the guard gave a call to the reference because the floor was not kept, by its words."""
    return _MOVED.search(fallback) is not None


def floor_verdict(reports: Sequence[FloorReport]) -> str:
    """How the floors stand, in a sentence."""
    if not reports:
        return "No call of this guard has been graded yet, so nothing is known of the floor."
    if not any(report.window for report in reports):
        return "Nothing is tested yet: the first audited calls guess how good the reference is."
    moved = [report for report in reports if report.moved]
    if not moved:
        return "The floor is not known to be broken."
    whose = ", ".join(f"for {report.content}" if report.content else "for the rest" for report in moved)
    return f"The reference acts{'' if len(reports) == 1 and not moved[0].content else f' {whose}'}."
