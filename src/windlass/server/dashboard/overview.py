"""The overview page: what came in, what it cost, how long it took, what was learned, the newest calls."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from windlass.policies.policy import Arm
from windlass.records import Scope
from windlass.server.dashboard import charts
from windlass.server.dashboard.learned import Lesson, lessons
from windlass.server.dashboard.ranges import RANGES, Range, address, asked, chosen
from windlass.server.dashboard.rows import row
from windlass.server.dashboard.site import Site
from windlass.watch.overview import by_hour, summary
from windlass.watch.store import OutcomeHour, hour_of

log = structlog.get_logger(__name__)
PAGE = 20


@dataclass(frozen=True)
class ArmRow:
    """One action of a point with its drawing."""

    arm: Arm
    drawing: Markup
    leads: bool
    taken: int


async def page(site: Site, request: Request) -> Response:
    """The whole page, or its live parts where the script asks for them."""
    caller = site.access.caller(request)
    picked, before = chosen(request), asked(request, "before")

    def drawn() -> Response:
        return site.page(request, "overview.html", _view(site, request, caller.scope, picked, before))

    return await asyncio.to_thread(drawn)


def _view(site: Site, request: Request, scope: Scope, picked: Range, before: str) -> dict[str, Any]:
    runtime = site.runtime
    now = runtime.clock()
    since = picked.since(now)
    # The cursor is read first: what is folded in afterwards rings again and is fetched again, never missed.
    head = runtime.overview.cursor
    # Read once for the sums and the chart: over all time these are thousands of latency sketches.
    first = min(picked.axis(0.0, now))
    hours = runtime.rollups.outcomes(scope, min(since, first))
    totals, by_model = summary(hour for hour in hours if hour.hour >= hour_of(since))
    decisions, feedback = runtime.overview.counted(scope)
    traces = runtime.ledger.calls(scope, limit=PAGE + 1, before=before)
    axis = _axis([hour for hour in hours if hour.hour >= hour_of(first)], picked, now)
    models = [
        (name, one, one.calls / max(1, totals.calls), charts.share(one.calls / max(1, totals.calls)))
        for name, one in by_model.items()
    ]
    return {
        "head": head,
        "chosen": picked,
        "ranges": [(one, address("/", {"range": one.name})) for one in RANGES],
        "totals": totals,
        "decisions": decisions,
        "feedback": feedback,
        "models": models,
        "axis": axis,
        "calls_chart": charts.calls_by_hour(axis),
        "latency_chart": charts.latency_by_hour(axis),
        "lessons": [(lesson, _arms(lesson)) for lesson in map(_told, lessons(runtime, scope))],
        "calls": [row(trace) for trace in traces[:PAGE]],
        "before": before,
        "older": _link(picked, traces[PAGE - 1].call.id) if len(traces) > PAGE else "",
        "newest": _link(picked, ""),
        "never": not totals.calls and not traces and not before,
        "base_url": str(request.base_url),
        "keyed": site.access.required,
    }


def _axis(hours: Sequence[OutcomeHour], picked: Range, now: float) -> list[charts.Slot]:
    """The hours of the chart."""
    split = by_hour(hours)
    first, last = picked.axis(split[0][0] if split else now, now)
    return charts.slots(split, first=first, last=last, since=picked.since(now))


def _told(lesson: Lesson) -> Lesson:
    """`lesson`, which says so where its policy failed to explain itself."""
    if lesson.arms:
        return lesson
    log.warning("policy_could_not_explain", policy=lesson.policy, point=lesson.point)
    return replace(lesson, verdict=f"{lesson.policy} could not explain what it knows today.")


def _arms(lesson: Lesson) -> list[ArmRow]:
    """The actions of a lesson with their drawings, all on one scale."""
    edges = [
        (arm.mean - arm.sd, arm.mean + arm.sd) for arm in lesson.arms if arm.mean is not None and arm.sd is not None
    ]
    low = min([0.0, *(left for left, _ in edges)])
    high = max([1.0, *(right for _, right in edges)])
    rows: list[ArmRow] = []
    for place, arm in enumerate(lesson.arms):
        leads, taken = arm.action == lesson.leader, lesson.taken.get(arm.action, 0)
        drawing = charts.share(taken / lesson.cases)
        if arm.mean is not None and arm.sd is not None:
            ident = f"arm-{lesson.point}-{place}"
            drawing = charts.interval(ident, arm.action, arm.mean, arm.sd, low=low, high=high)
        rows.append(ArmRow(arm, drawing, leads, taken))
    return rows


def _link(picked: Range, before: str) -> str:
    return address("/", {"range": picked.name, "before": before}, "calls-heading")
